/* The table of commands and the way to them. */
#include "services/cli/cli.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "shared/base/log.h"

const struct cli_command *const cli_commands[] = {
    &cmd_optimize, &cmd_refine,    &cmd_inspect, &cmd_eval,  &cmd_bench,  &cmd_train, &cmd_pack,
    &cmd_unpack,   &cmd_reproduce, &cmd_jobs,    &cmd_watch, &cmd_cancel, &cmd_get,   &cmd_up,
    &cmd_down,     &cmd_demo,      &cmd_version, &cmd_help,  NULL,
};

const struct cli_command *cli_find(const char *name)
{
    for (int i = 0; cli_commands[i]; i++)
        if (strcmp(cli_commands[i]->name, name) == 0)
            return cli_commands[i];
    return NULL;
}

static int unknown_command(const char *word)
{
    const char *names[32];
    int n = 0;
    for (; cli_commands[n]; n++)
        names[n] = cli_commands[n]->name;
    const char *near = cli_nearest(word, names, n);
    fprintf(stderr, "hone: there is no command '%s'", word);
    if (near)
        fprintf(stderr, "; did you mean 'hone %s'?", near);
    fprintf(stderr, "\n'hone help' lists the commands.\n");
    return CLI_USAGE;
}

int cli_main(int argc, char **argv)
{
    log_init("hone");
    signal(SIGPIPE, SIG_IGN);
    const char *word = argc > 1 ? argv[1] : "help";
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)
        word = "help";
    if (strcmp(word, "--version") == 0)
        word = "version";
    const struct cli_command *command = cli_find(word);
    if (!command)
        return unknown_command(word);
    int code = command->run(command, argc > 1 ? argc - 1 : 1, argc > 1 ? argv + 1 : argv);
    if (fflush(stdout) != 0 && code == CLI_OK)
        code = CLI_FAILED; /* a full disk or a closed pipe: what was asked for was not delivered */
    return code;
}

int cli_fail(const struct err *err)
{
    fprintf(stderr, "hone: %s\n", err->message[0] ? err->message : err_code_name((int)err->code));
    return err->code == ERR_CANCELLED ? CLI_INTERRUPTED : CLI_FAILED;
}
