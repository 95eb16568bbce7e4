#include <stdio.h>

#include "services/cli/cli.h"
#include "shared/nn/plan.h"

static int run(const struct cli_command *self, int argc, char **argv)
{
    const struct cli_option options[] = {CLI_OPTIONS_END};
    int code = cli_parse(self, options, argc, argv, 0, 0, NULL);
    if (code >= 0)
        return code;
    printf("hone %s\n%s on %s (%s)\n", HONE_VERSION, nn_version(), nn_cpu(), nn_isa());
    return CLI_OK;
}

const struct cli_command cmd_version = {
    .name = "version",
    .usage = "",
    .summary = "versions of Hone and its kernels, and what this CPU can do",
    .examples = "  hone version\n",
    .run = run,
};
