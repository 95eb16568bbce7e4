#include <stdio.h>

#include "services/cli/cli.h"
#include "services/cli/session.h"
#include "shared/base/mem.h"

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *home_flag = NULL, *args[1] = {NULL};
    const struct cli_option options[] = {CLI_OPTION_HOME(&home_flag), CLI_OPTIONS_END};
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    _cleanup_(session_release) struct session session = {.attach_fd = -1};
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    Hone__V1__CancelRequest request = HONE__V1__CANCEL_REQUEST__INIT;
    struct err err = {0};
    request.job_id = (char *)args[0];
    if (session_open(home_flag, &session, &err) < 0 ||
        session_call(&session, "Cancel", &request.base, 0, &view, &err) < 0)
        return cli_fail(&err);
    printf("Job %s is %s.%s\n", view->job_id, view->state,
           view->result ? " 'hone get' fetches the best that it has reached." : "");
    return CLI_OK;
}

const struct cli_command cmd_cancel = {
    .name = "cancel",
    .usage = "JOB",
    .summary = "end a job",
    .details =
        "What it has measured so far is kept and serves later jobs. 'hone get JOB' fetches the\n"
        "best network that it has reached.",
    .examples = "  hone cancel 1mtz4k9xqab3\n",
    .run = run,
};
