#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/cli.h"
#include "services/cli/submit.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

struct request {
    const char *home, *space, *out;
    double max_us, max_drop; /* max_drop below 0: not given */
    uint64_t max_bytes;
    int64_t budget_s;
    bool json, force;
};

static int refine(const struct request *q, const char *refined)
{
    _cleanup_(session_release) struct session session = {.attach_fd = -1};
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    _cleanup_(outdir_release) struct outdir out = {.lock_fd = -1};
    _cleanup_(freep) char *path = NULL;
    _cleanup_(freep) char *what = str_printf("refines job %s", refined);
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    struct err err = {0};
    if (session_open(q->home, &session, &err) < 0 ||
        session_get(&session, refined, &view, &err) < 0)
        return cli_fail(&err);
    if (!q->out) {
        _cleanup_(freep) char *first = outdir_default(view->title);
        path = first ? str_printf("%s-refined", first) : NULL;
    }
    if (!what || (!q->out && !path)) {
        err_oom(&err, "out");
        return cli_fail(&err);
    }
    if (outdir_claim(q->out ? q->out : path, q->force, &out, &err) < 0)
        return cli_fail(&err);
    spec.version = 1;
    spec.refines = (char *)refined;
    spec.budget_s = (double)q->budget_s;
    spec.space = (char *)(q->space ? q->space : "");
    spec.max_us = q->max_us;
    spec.max_bytes = q->max_bytes;
    spec.has_max_drop = q->max_drop >= 0;
    spec.max_drop = spec.has_max_drop ? q->max_drop : 0;
    return submit_and_deliver(&session, &spec, what, q->home, &out, q->json);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct request q = {.max_drop = -1, .budget_s = 7200};
    const struct cli_option options[] = {
        {.name = "max-latency",
         .value = "TIME",
         .kind = CLI_MICROS,
         .to = &q.max_us,
         .min = 0.1,
         .max = 3600e6,
         .help = "longest median time of an inference: 200us, 1.5ms"},
        {.name = "max-bytes",
         .value = "SIZE",
         .kind = CLI_BYTES,
         .to = &q.max_bytes,
         .min = 1,
         .max = 9e15,
         .help = "largest file: 300K, 4M (powers of 1024)"},
        {.name = "max-drop",
         .value = "POINTS",
         .kind = CLI_REAL,
         .to = &q.max_drop,
         .max = 100,
         .help = "accuracy that may be lost, in points"},
        {.name = "space",
         .value = "LIST",
         .kind = CLI_TEXT,
         .to = &q.space,
         .help = "what may change: precision, or with it blocks, students (default: as in JOB)"},
        {.name = "budget",
         .value = "TIME",
         .kind = CLI_SECONDS,
         .to = &q.budget_s,
         .max = 2592000,
         .help = "time for the refinement, such as 90s, 15m, 8h (default: 2h)"},
        {.name = "out",
         .value = "DIR",
         .kind = CLI_TEXT,
         .to = &q.out,
         .help = "where the results go (default: hone-out/MODEL-refined)"},
        CLI_OPTION_FORCE(&q.force),
        CLI_OPTION_JSON_EVENTS(&q.json),
        CLI_OPTION_HOME(&q.home),
        CLI_OPTIONS_END,
    };
    const char *args[1] = {NULL};
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    return code >= 0 ? code : refine(&q, args[0]);
}

const struct cli_command cmd_refine = {
    .name = "refine",
    .usage = "JOB [OPTION]...",
    .summary = "go on where a job stands, with other limits or more time",
    .details =
        "A new job that begins with everything that JOB has measured and trained, and says in the\n"
        "end how much time that saved. Model, data, threads, batch and target are those\n"
        "of JOB. JOB may have ended, or still run: it needs a first result.\n\n"
        "Limits that are given replace all limits of JOB; where none is given, they stay. With a\n"
        "limit on time or size the network that loses least within it is wanted.\n"
        "In the end the files of 'hone optimize' lie in --out.",
    .examples = "  hone refine 1mtz4k9xqab3 --max-drop 0.5 --budget 1h\n"
                "  hone refine 1mtz4k9xqab3 --max-latency 200us --max-bytes 300K --out small\n",
    .run = run,
};
