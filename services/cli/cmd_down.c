#include <stdio.h>

#include "services/cli/cli.h"
#include "services/cli/supervisor.h"
#include "shared/base/mem.h"
#include "shared/queue/queue.h"

static int64_t running_jobs(const struct home *home)
{
    struct queue_options options = {.url = home->redis_url, .patience_ms = 500};
    _cleanup_(queue_closep) struct queue *q = NULL;
    int64_t jobs = 0;
    if (queue_open(&options, &q, NULL) < 0 || queue_running_jobs(q, &jobs, NULL) < 0)
        return 0;
    return jobs;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *home_flag = NULL;
    const struct cli_option options[] = {CLI_OPTION_HOME(&home_flag), CLI_OPTIONS_END};
    int code = cli_parse(self, options, argc, argv, 0, 0, NULL);
    if (code >= 0)
        return code;
    _cleanup_(home_release) struct home home = {0};
    struct err err = {0};
    if (home_open(home_flag, &home, &err) < 0)
        return cli_fail(&err);
    if (home_supervisor(&home) == 0) {
        printf("Hone is not up in %s.\n", home.dir);
        return CLI_OK;
    }
    int64_t jobs = running_jobs(&home);
    if (supervisor_stop(&home, &err) < 0)
        return cli_fail(&err);
    printf("Hone is down.");
    if (jobs > 0)
        printf(" %lld running job%s will go on with the next 'hone up'.", (long long)jobs,
               jobs == 1 ? "" : "s");
    printf("\n");
    return CLI_OK;
}

const struct cli_command cmd_down = {
    .name = "down",
    .usage = "",
    .summary = "stop Redis and the services; running jobs go on with the next up",
    .details = "Services get ten seconds to give their tasks back.",
    .examples = "  hone down\n",
    .run = run,
};
