#pragma once
/*
 * The command line: one file per subcommand (cmd_NAME.c), a table of them (cli.c), options
 * (options.c). Everything that talks to a running Hone goes through a session (session.h).
 */
#include <stdbool.h>
#include <stdint.h>

#include "shared/base/err.h"

/* Exit codes, the same for every command. */
enum cli_exit {
    CLI_OK = 0,
    CLI_FAILED = 1,
    CLI_USAGE = 2,
    CLI_NO_GAIN = 3, /* the job is done, but no network within the limit is faster */
    CLI_DIFFERS = 4, /* reproduce: a number is another one than reported */
    CLI_INTERRUPTED = 130,
};

enum cli_kind {
    CLI_FLAG,
    CLI_TEXT,
    CLI_INT,
    CLI_REAL,
    CLI_SECONDS,
    CLI_MICROS,
    CLI_BYTES,
    CLI_CHOICE
};

/* One option. `to` is bool * (FLAG), const char ** (TEXT, CHOICE), int64_t * (INT, SECONDS),
 * double * (REAL, MICROS) or uint64_t * (BYTES), and holds the default. */
struct cli_option {
    const char *name;  /* without the dashes; NULL ends a table */
    const char *value; /* what --help calls it; NULL for flags */
    const char *help;
    enum cli_kind kind;
    void *to;
    double min, max;     /* of numbers, both included; 0, 0: any */
    const char *choices; /* of CHOICE: "latency|throughput|size" */
};
#define CLI_OPTIONS_END {.name = NULL}
/* Options that several commands share. */
#define CLI_OPTION_HOME(p)                                                                         \
    {.name = "home",                                                                               \
     .value = "DIR",                                                                               \
     .kind = CLI_TEXT,                                                                             \
     .to = (p),                                                                                    \
     .help = "where Hone keeps its state (default: HONE_HOME, else ~/.local/state/hone)"}
#define CLI_OPTION_JSON(p)                                                                         \
    {.name = "json", .kind = CLI_FLAG, .to = (p), .help = "print JSON instead of text"}

#define CLI_OPTION_JSON_EVENTS(p)                                                                  \
    {.name = "json", .kind = CLI_FLAG, .to = (p), .help = "print one JSON object per event"}
#define CLI_OPTION_FORCE(p)                                                                        \
    {.name = "force",                                                                              \
     .kind = CLI_FLAG,                                                                             \
     .to = (p),                                                                                    \
     .help = "write into a folder that holds other files"}

struct cli_command {
    const char *name;
    const char *usage;    /* behind the name: "MODEL --data DATA [OPTION]..." */
    const char *summary;  /* one line */
    const char *details;  /* paragraphs for --help; may be NULL */
    const char *examples; /* lines for --help */
    int (*run)(const struct cli_command *self, int argc, char **argv); /* exit code */
};

extern const struct cli_command cmd_optimize, cmd_refine, cmd_inspect, cmd_eval, cmd_bench,
    cmd_jobs, cmd_watch, cmd_cancel, cmd_get, cmd_up, cmd_down, cmd_demo, cmd_version, cmd_help,
    cmd_train, cmd_pack, cmd_unpack, cmd_reproduce;

int cli_main(int argc, char **argv);
/* NULL when there is none; cli_commands ends with NULL. */
const struct cli_command *cli_find(const char *name);
extern const struct cli_command *const cli_commands[];

/* Parses argv[1..]; options may stand anywhere, "--" ends them. Positional arguments go to
 * args[0..max) (the others stay NULL). Returns -1: go on; else the exit code to end with (help was
 * printed, or the mistake named). */
int cli_parse(const struct cli_command *command, const struct cli_option *options, int argc,
              char **argv, int min, int max, const char **args);
/* Prints "hone NAME: message" and where help is; returns CLI_USAGE. */
int cli_usage_error(const struct cli_command *command, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
/* Prints "hone: message" for a failure; returns the exit code for it. */
int cli_fail(const struct err *err);
void cli_print_help(const struct cli_command *command, const struct cli_option *options);
/* The name nearest to `word`, when it is near enough to be meant; else NULL. */
const char *cli_nearest(const char *word, const char *const *names, int n);
