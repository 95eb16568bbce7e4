#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "services/cli/cli.h"
#include "services/cli/demo.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MAX_LEVELS 6 /* from a build folder up to the source tree */

/* The network that comes with Hone: named by HONE_DEMO_MODEL, installed beside this program, or in
 * the source tree above it. NULL: not found. */
static char *find_model(void)
{
    char folder[PATH_MAX];
    const char *given = getenv("HONE_DEMO_MODEL");
    if (given && *given)
        return strdup(given);
    ssize_t n = readlink("/proc/self/exe", folder, sizeof(folder) - 1);
    if (n <= 0)
        return NULL;
    folder[n] = 0;
    for (int level = 0; level < MAX_LEVELS; level++) {
        char *slash = strrchr(folder, '/');
        if (!slash)
            break;
        *slash = 0;
        char *places[] = {str_printf("%s/share/hone/demo.onnx", folder),
                          str_printf("%s/demo/model.onnx", folder)};
        /* A demo that was written below the checkout has no script beside its network. */
        _cleanup_(freep) char *script = str_printf("%s/demo/train.py", folder);
        char *found = NULL;
        for (int i = 0; i < 2; i++) {
            bool ours = i == 0 || (script && fs_exists(script));
            if (!found && ours && places[i] && fs_exists(places[i]))
                found = TAKE_PTR(places[i]);
            free(places[i]);
        }
        if (found)
            return found;
    }
    return NULL;
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    const char *args[1] = {NULL};
    int64_t seed = DEMO_SEED;
    const struct cli_option options[] = {
        {.name = "seed",
         .value = "N",
         .kind = CLI_INT,
         .to = &seed,
         .max = 9e15,
         .help = "draw other pictures (the network knows the default ones' like)"},
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    _cleanup_(freep) char *model = find_model();
    struct err err = {0};
    if (!model)
        err_set(&err, ERR_NOT_FOUND, "%s",
                "the demo's network is not installed with this program (HONE_DEMO_MODEL names it)");
    if (err.code || demo_write(args[0], model, (uint64_t)seed, &err) < 0)
        return cli_fail(&err);
    printf("%s/model.onnx and %s/data are ready. Next:\n"
           "  hone optimize %s/model.onnx --data %s/data\n",
           args[0], args[0], args[0], args[0]);
    return CLI_OK;
}

const struct cli_command cmd_demo = {
    .name = "demo",
    .usage = "DIR",
    .summary = "write a small network and pictures to try Hone on",
    .details = "Ten classes of drawn things, 32x32, and a network trained on such pictures. The\n"
               "same seed gives the same files everywhere.",
    .examples = "  hone demo demo && hone optimize demo/model.onnx --data demo/data\n",
    .run = run,
};
