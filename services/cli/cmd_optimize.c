#include <stdlib.h>
#include <string.h>

#include "services/cli/submit.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/data/preprocess.h"

struct request {
    struct submit_options ask;
    const char *data, *preprocess, *target, *objective, *without;
    int64_t threads, batch, seed;
    char *model_path, *data_path;
};

static void request_release(struct request *q)
{
    free(q->model_path);
    free(q->data_path);
}

/* Mistakes that can be seen before anything is started. */
static int check_inputs(struct request *q, const char *model, struct err *err)
{
    struct preprocess preprocess;
    if (fs_is_dir(model))
        return err_set(err, ERR_INVALID_ARGUMENT, "model %s: is a folder, not an ONNX file", model);
    if (fs_realpath(model, &q->model_path, err) < 0)
        return err_wrap(err, "model");
    if (fs_realpath(q->data, &q->data_path, err) < 0)
        return err_wrap(err, "--data");
    if (q->preprocess && preprocess_parse(q->preprocess, &preprocess, err) < 0)
        return err_wrap(err, "--preprocess");
    return 0;
}

static int optimize(const struct request *q)
{
    _cleanup_(freep) char *out_default = outdir_default(q->model_path);
    _cleanup_(outdir_release) struct outdir out = {.lock_fd = -1};
    _cleanup_(session_release) struct session session = {.attach_fd = -1};
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    struct err err = {0};
    submit_ask(&q->ask, &spec);
    spec.model_path = q->model_path;
    spec.data_path = q->data_path;
    spec.objective = strcmp(q->objective, "throughput") == 0 ? HONE__V1__OBJECTIVE__THROUGHPUT
                     : strcmp(q->objective, "size") == 0     ? HONE__V1__OBJECTIVE__SIZE
                                                             : HONE__V1__OBJECTIVE__LATENCY;
    spec.threads = (uint32_t)q->threads;
    spec.batch = (uint32_t)q->batch;
    spec.seed = (uint64_t)q->seed;
    spec.target = (char *)(q->target ? q->target : "");
    spec.without = (char *)(q->without ? q->without : "");
    spec.preprocess = (char *)(q->preprocess ? q->preprocess : "");
    if (!out_default)
        err_oom(&err, "out");
    if (err.code ||
        outdir_claim(q->ask.out ? q->ask.out : out_default, q->ask.force, &out, &err) < 0 ||
        session_open(q->ask.home, &session, &err) < 0)
        return cli_fail(&err);
    return submit_and_deliver(&session, &spec, q->model_path, &q->ask, &out);
}

static int run(const struct cli_command *self, int argc, char **argv)
{
    _cleanup_(request_release) struct request q = {.ask = SUBMIT_OPTIONS_INIT,
                                                   .objective = "latency"};
    const struct cli_option options[] = {
        {.name = "data",
         .value = "DATA",
         .kind = CLI_TEXT,
         .to = &q.data,
         .help = "folder, tar, npz or npy with the data (required)"},
        {.name = "preprocess",
         .value = "TEXT",
         .kind = CLI_TEXT,
         .to = &q.preprocess,
         .help = "how pixels become inputs (default: dataset.json, the network's own, or found)"},
        {.name = "target",
         .value = "TARGET",
         .kind = CLI_TEXT,
         .to = &q.target,
         .help = "hardware to be fast on (default: this machine)"},
        {.name = "objective",
         .value = "WHAT",
         .kind = CLI_CHOICE,
         .to = &q.objective,
         .choices = "latency|throughput|size",
         .help = "what to improve (default: latency)"},
        {.name = "threads",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.threads,
         .min = 1,
         .max = 1024,
         .help = "threads of one inference (default: 1)"},
        {.name = "batch",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.batch,
         .min = 1,
         .max = 4096,
         .help = "samples in one inference (default: 1)"},
        {.name = "seed",
         .value = "N",
         .kind = CLI_INT,
         .to = &q.seed,
         .max = 9e15,
         .help = "seed of every random choice (default: 0)"},
        {.name = "without",
         .value = "LIST",
         .kind = CLI_TEXT,
         .to = &q.without,
         .help = "for ablations: what is left out of teacher, cache, race"},
        SUBMIT_OPTIONS(&q.ask, "1.0; any beside other limits", "all", "the whole job",
                       "hone-out/MODEL"),
        CLI_OPTIONS_END,
    };
    const char *args[1] = {NULL};
    int code = cli_parse(self, options, argc, argv, 1, 1, args);
    if (code >= 0)
        return code;
    if (!q.data)
        return cli_usage_error(self, "--data is missing: hone optimize %s", self->usage);
    struct err err = {0};
    if (check_inputs(&q, args[0], &err) < 0)
        return cli_fail(&err);
    return optimize(&q);
}

const struct cli_command cmd_optimize = {
    .name = "optimize",
    .usage = "MODEL --data DATA [OPTION]...",
    .summary = "make a network faster on this machine, within a limit on its accuracy",
    .details =
        "Starts Hone on this machine when it is not up, submits the job and shows its progress.\n"
        "In the end model.onnx, result.json, report.html and manifest.json lie in --out.\n"
        "Ctrl-C ends the showing, not the job.\n"
        "First the precision of each layer changes, which gives a first result; then networks of\n"
        "other architectures (students) learn what the original knows. 'hone get' fetches the\n"
        "best so far at any time.\n\n"
        "DATA: a folder or tar with train/CLASS/*.png|jpg and test/CLASS/..., or .npz, .npy.\n"
        "TEXT: 'scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 order=rgb'.",
    .examples = "  hone optimize resnet56.onnx --data cifar10.tar --out faster\n"
                "  hone optimize net.onnx --data photos/ --max-drop 0.3 --threads 4 --json\n",
    .run = run,
};
