#include <stdio.h>
#include <string.h>

#include "services/cli/cli.h"
#include "services/cli/follow.h"
#include "shared/base/mem.h"

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *home_flag = NULL, *args[1] = {NULL};
    bool json = false;
    const struct cli_option options[] = {
        CLI_OPTION_JSON_EVENTS(&json),
        CLI_OPTION_HOME(&home_flag),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    _cleanup_(session_release) struct session session = {.attach_fd = -1};
    struct screen screen;
    char state[16] = "";
    struct err err = {0};
    screen_init(&screen, stdout, json);
    if (session_open(home_flag, &session, &err) < 0)
        return cli_fail(&err);
    int r = follow_job(&session, args[0], &screen, state, &err);
    if (r == -ERR_CANCELLED)
        return follow_say_interrupted(&session, home_flag, args[0]);
    if (r < 0)
        return cli_fail(&err);
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    if (!json && session_get(&session, args[0], &view, &err) < 0)
        return cli_fail(&err);
    if (!json)
        printf("Job %s %s.%s\n", args[0], strcmp(state, "cancelled") == 0 ? "was cancelled" : state,
               strcmp(state, "succeeded") == 0 ? " 'hone get' fetches its files."
               : view->result                  ? " 'hone get' fetches the best that it has reached."
                                               : "");
    return strcmp(state, "succeeded") == 0 ? CLI_OK : CLI_FAILED;
}

const struct cli_command cmd_watch = {
    .name = "watch",
    .usage = "JOB [--json]",
    .summary = "show a job's events from the first on, until it ends",
    .details = "Works while the job runs and after it has ended. Ctrl-C ends the watching only.",
    .examples = "  hone watch 1mtz4k9xqab3\n  hone watch 1mtz4k9xqab3 --json\n",
    .run = run,
};
