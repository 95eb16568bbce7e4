#include <stdio.h>

#include "services/cli/cli.h"
#include "services/cli/deliver.h"
#include "shared/base/mem.h"

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *home_flag = NULL, *out_flag = NULL, *args[1] = {NULL};
    bool json = false, force = false;
    const struct cli_option options[] = {
        {.name = "out",
         .value = "DIR",
         .kind = CLI_TEXT,
         .to = &out_flag,
         .help = "where the files go (default: hone-out/MODEL)"},
        CLI_OPTION_FORCE(&force),
        CLI_OPTION_JSON(&json),
        CLI_OPTION_HOME(&home_flag),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    _cleanup_(session_release) struct session session = {.attach_fd = -1};
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    _cleanup_(outdir_release) struct outdir out = {.lock_fd = -1};
    struct err err = {0};
    if (session_open(home_flag, &session, &err) < 0 ||
        session_get(&session, args[0], &view, &err) < 0)
        return cli_fail(&err);
    _cleanup_(freep) char *path = outdir_default(out_flag ? "" : view->title);
    if (outdir_claim(out_flag ? out_flag : path ? path : "hone-out", force, &out, &err) < 0)
        return cli_fail(&err);
    return deliver(&session, args[0], &out, json);
}

const struct cli_command cmd_get = {
    .name = "get",
    .usage = "JOB [--out DIR]",
    .summary = "fetch the files of a job and print its result",
    .details = "Of a job that runs, was cancelled or failed: the best that it has reached so far.",
    .examples = "  hone get 1mtz4k9xqab3 --out faster\n",
    .run = run,
};
