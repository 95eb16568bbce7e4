#pragma once
/* A job from its submission to its files: what optimize and refine share. */
#include "hone/v1/job.pb-c.h"
#include "services/cli/cli.h"
#include "services/cli/outdir.h"
#include "services/cli/session.h"

/* Options of both. */
struct submit_options {
    const char *home, *space, *out;
    double max_drop;   /* below 0: not given */
    double confidence; /* of that, in percent; 0: not given */
    double max_us;
    uint64_t max_bytes;
    int64_t budget_s;
    bool json, force;
};
#define SUBMIT_OPTIONS_INIT {.max_drop = -1, .budget_s = 7200}

/* The table of them, as part of a table of options. Texts: what holds where an option is not given.
 */
#define SUBMIT_OPTIONS(q, drop_else, space_else, budget_of, out_else)                              \
    {.name = "max-drop",                                                                           \
     .value = "POINTS",                                                                            \
     .kind = CLI_REAL,                                                                             \
     .to = &(q)->max_drop,                                                                         \
     .max = 100,                                                                                   \
     .help = "accuracy that may be lost, in points (default: " drop_else ")"},                     \
        {.name = "confidence",                                                                     \
         .value = "PERCENT",                                                                       \
         .kind = CLI_REAL,                                                                         \
         .to = &(q)->confidence,                                                                   \
         .min = 50,                                                                                \
         .max = 99.99,                                                                             \
         .help = "how sure that must be; 50 goes by the estimate (default: 95)"},                  \
        {.name = "max-latency",                                                                    \
         .value = "TIME",                                                                          \
         .kind = CLI_MICROS,                                                                       \
         .to = &(q)->max_us,                                                                       \
         .min = 0.1,                                                                               \
         .max = 3600e6,                                                                            \
         .help = "longest median time of an inference: 200us, 1.5ms"},                             \
        {.name = "max-bytes",                                                                      \
         .value = "SIZE",                                                                          \
         .kind = CLI_BYTES,                                                                        \
         .to = &(q)->max_bytes,                                                                    \
         .min = 256,                                                                               \
         .max = 9e15,                                                                              \
         .help = "largest file: 300K, 4M (powers of 1024)"},                                       \
        {.name = "space",                                                                          \
         .value = "LIST",                                                                          \
         .kind = CLI_TEXT,                                                                         \
         .to = &(q)->space,                                                                        \
         .help = "what may change: precision, also blocks, students (default: " space_else ")"},   \
        {.name = "budget",                                                                         \
         .value = "TIME",                                                                          \
         .kind = CLI_SECONDS,                                                                      \
         .to = &(q)->budget_s,                                                                     \
         .max = 2592000,                                                                           \
         .help = "time for " budget_of ", such as 90s, 15m, 8h (default: 2h)"},                    \
        {.name = "out",                                                                            \
         .value = "DIR",                                                                           \
         .kind = CLI_TEXT,                                                                         \
         .to = &(q)->out,                                                                          \
         .help = "where the results go (default: " out_else ")"},                                  \
        CLI_OPTION_FORCE(&(q)->force), CLI_OPTION_JSON_EVENTS(&(q)->json),                         \
        CLI_OPTION_HOME(&(q)->home)

/* Puts them into a spec, which keeps their texts. */
void submit_ask(const struct submit_options *options, Hone__V1__JobSpec *spec);

/* Submits the job under a new id, shows it until it has ended and delivers into `out`. `what` it is
 * about is for people. Returns the exit code. */
int submit_and_deliver(struct session *session, Hone__V1__JobSpec *spec, const char *what,
                       const struct submit_options *options, struct outdir *out);
