#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/submit.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

/* Where everything is measured anew. */
struct elsewhere {
    const char *target;
    int64_t threads, batch; /* 0: as in JOB */
};

static int refine(const struct submit_options *q, const char *refined,
                  const struct elsewhere *elsewhere)
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
    submit_ask(q, &spec);
    spec.refines = (char *)refined;
    spec.target = (char *)(elsewhere->target ? elsewhere->target : "");
    spec.threads = (uint32_t)elsewhere->threads;
    spec.batch = (uint32_t)elsewhere->batch;
    return submit_and_deliver(&session, &spec, what, q, &out);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct submit_options q = SUBMIT_OPTIONS_INIT;
    struct elsewhere elsewhere = {0};
    const struct cli_option options[] = {
        {.name = "target",
         .value = "TARGET",
         .kind = CLI_TEXT,
         .to = &elsewhere.target,
         .help = "other hardware to be fast on (default: as in JOB)"},
        {.name = "threads",
         .value = "N",
         .kind = CLI_INT,
         .to = &elsewhere.threads,
         .min = 1,
         .max = 1024,
         .help = "with --target: threads of one inference (default: as in JOB)"},
        {.name = "batch",
         .value = "N",
         .kind = CLI_INT,
         .to = &elsewhere.batch,
         .min = 1,
         .max = 4096,
         .help = "with --target: samples in one inference (default: as in JOB)"},
        SUBMIT_OPTIONS(&q, "as in JOB", "as in JOB", "the refinement", "hone-out/MODEL-refined"),
        CLI_OPTIONS_END,
    };
    const char *args[1] = {NULL};
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    if ((elsewhere.threads || elsewhere.batch) && !elsewhere.target)
        return cli_usage_error(self, "--threads and --batch need --target: they are those of JOB");
    return refine(&q, args[0], &elsewhere);
}

const struct cli_command cmd_refine = {
    .name = "refine",
    .usage = "JOB [OPTION]...",
    .summary = "go on where a job stands, with other limits or more time",
    .details =
        "A new job that begins with everything that JOB has measured and trained, and says in the\n"
        "end how much time that saved. Model, data, threads and batch are those of JOB, which\n"
        "may have ended, or still run: it needs a first result. With --target everything is\n"
        "measured anew on that hardware, and only what was learned is taken over.\n\n"
        "Limits that are given replace all limits of JOB; where none is given, they stay. With a\n"
        "limit on time or size the network that loses least within it is wanted.\n"
        "In the end the files of 'hone optimize' lie in --out.",
    .examples = "  hone refine 1mtz4k9xqab3 --max-drop 0.5 --budget 1h\n"
                "  hone refine 1mtz4k9xqab3 --target cpu:avx2 --budget 1h --out old-servers\n"
                "  hone refine 1mtz4k9xqab3 --max-latency 200us --max-bytes 300K --out small\n",
    .run = run,
};
