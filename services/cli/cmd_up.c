#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/cli.h"
#include "services/cli/supervisor.h"
#include "shared/base/log.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

/* Set by the process that waits for a detached start. */
static int ready_fd(void)
{
    const char *text = getenv("HONE_READY_FD");
    int64_t fd = -1;
    if (text && str_parse_i64(text, 3, 1 << 20, &fd, NULL) < 0)
        fd = -1;
    return (int)fd;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *home_flag = NULL;
    bool detach = false;
    int64_t idle_exit_s = 0;
    const struct cli_option options[] = {
        {.name = "detach",
         .kind = CLI_FLAG,
         .to = &detach,
         .help = "return once everything is up; 'hone down' stops it"},
        {.name = "idle-exit",
         .value = "TIME",
         .kind = CLI_SECONDS,
         .to = &idle_exit_s,
         .max = 1e8,
         .help = "stop after so long without jobs and clients (default: never)"},
        CLI_OPTION_HOME(&home_flag),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 0, 0, NULL);
    if (code >= 0)
        return code;
    _cleanup_(home_release) struct home home = {0};
    struct err err = {0};
    if (home_open(home_flag, &home, &err) < 0)
        return cli_fail(&err);
    if (detach) {
        if (home_supervisor(&home))
            err_set(&err, ERR_ALREADY_EXISTS, "Hone is already up in %s", home.dir);
        if (err.code || supervisor_launch(&home, idle_exit_s, &err) < 0)
            return cli_fail(&err);
        printf("Hone is up in %s (process %d).\n", home.dir, (int)home_supervisor(&home));
        return CLI_OK;
    }
    log_init("supervisor");
    struct supervisor_options how = {.idle_exit_s = idle_exit_s, .ready_fd = ready_fd()};
    return supervisor_run(&home, &how, &err) < 0 ? cli_fail(&err) : CLI_OK;
}

const struct cli_command cmd_up = {
    .name = "up",
    .usage = "[--detach]",
    .summary = "start Redis and the services on this machine",
    .details =
        "Runs a private Redis and the five services until Ctrl-C or 'hone down', and starts\n"
        "again what dies. 'hone optimize' does this by itself when nothing is up; what it starts\n"
        "ends 20 seconds after the last job and client. Jobs that were running go on where they\n"
        "were.",
    .examples = "  hone up --detach\n  hone up --home /srv/hone\n",
    .run = run,
};
