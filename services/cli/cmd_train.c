#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <yyjson.h>

#include "services/cli/cli.h"
#include "services/cli/status_line.h"
#include "services/cli/train.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/graph/cuts.h"

/* ---- Ctrl-C ---- */

static volatile sig_atomic_t interrupted;
static time_t interrupted_at;

/* A second one ends at once; but not one that comes with the first, as from a wrapper that passes
 * on to its child what the terminal has told the child already. */
static void on_interrupt(int signal)
{
    struct timespec now;
    (void)signal;
    clock_gettime(CLOCK_MONOTONIC, &now);
    if (interrupted && now.tv_sec > interrupted_at + 1)
        _exit(CLI_INTERRUPTED);
    if (!interrupted)
        interrupted_at = now.tv_sec;
    interrupted = 1;
}

static void catch_interrupts(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

static bool is_interrupted(void *ctx)
{
    (void)ctx;
    return interrupted != 0;
}

/* ---- what is shown meanwhile ---- */

struct shown {
    bool json;
    struct status_line line;
};

static int show_teacher(void *ctx, int64_t done, int64_t total, struct err *err)
{
    char text[128];
    snprintf(text, sizeof(text), "teacher: %lld of %lld views of samples", (long long)done,
             (long long)total);
    status_line_show(ctx, text);
    return interrupted ? err_set(err, ERR_CANCELLED, "%s", "stopped while the teacher was running")
                       : 0;
}

static void add_real(yyjson_mut_doc *doc, yyjson_mut_val *root, const char *key, double value)
{
    if (isfinite(value))
        yyjson_mut_obj_add_real(doc, root, key, value);
}

static int put_json(yyjson_mut_doc *doc)
{
    char *text = yyjson_mut_write(doc, 0, NULL);
    const int code = text && puts(text) >= 0 && fflush(stdout) == 0 ? CLI_OK : CLI_FAILED;
    free(text);
    yyjson_mut_doc_free(doc);
    return code;
}

static void show_epoch_json(const struct train_progress *p)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "type", "epoch");
    yyjson_mut_obj_add_sint(doc, root, "epoch", p->finished->epoch + 1);
    yyjson_mut_obj_add_sint(doc, root, "epochs", p->epochs);
    add_real(doc, root, "loss", p->loss);
    add_real(doc, root, "feature_loss", p->feature_loss);
    add_real(doc, root, "accuracy", p->accuracy);
    add_real(doc, root, "search_accuracy", p->finished->search_accuracy);
    add_real(doc, root, "rate", p->rate);
    add_real(doc, root, "images_per_second", p->images_per_second);
    add_real(doc, root, "left_s", p->left);
    put_json(doc);
}

static void show_epoch(const struct train_progress *p)
{
    char left[32];
    printf("epoch %3lld of %lld  loss %.4f", (long long)p->finished->epoch + 1,
           (long long)p->epochs, p->loss);
    if (isfinite(p->feature_loss))
        printf("  features %.4f", p->feature_loss);
    if (isfinite(p->accuracy))
        printf("  train %5.2f %%", 100 * p->accuracy);
    if (isfinite(p->finished->search_accuracy))
        printf("  search %5.2f %%", 100 * p->finished->search_accuracy);
    printf("  rate %.4g  %.0f images/s", p->rate, p->images_per_second);
    if (p->left > 0)
        printf("  %s left", str_seconds(p->left, left));
    printf("\n");
    fflush(stdout);
}

static int show_progress(void *ctx, const struct train_progress *p, struct err *err)
{
    (void)err;
    struct shown *s = ctx;
    if (p->finished) {
        status_line_clear(&s->line);
        if (s->json)
            show_epoch_json(p);
        else
            show_epoch(p);
        return 0;
    }
    char text[160], left[32];
    snprintf(text, sizeof(text),
             "epoch %lld of %lld, step %lld of %lld: loss %.4f, %.0f images/s, "
             "%s left",
             (long long)p->epoch + 1, (long long)p->epochs, (long long)p->step, (long long)p->steps,
             p->loss, p->images_per_second, str_seconds(p->left, left));
    status_line_show(&s->line, text);
    return 0;
}

/* ---- before and after ---- */

static void print_features(const struct train_job *job)
{
    _cleanup_(freep) char *pairs = feature_pairs_text(&job->features.pairs);
    if (job->features.pairs.n && !job->q->json)
        printf("features       %s\n", pairs ? pairs : "");
}

static void print_beginning(const struct train_job *job)
{
    const struct train_request *q = job->q;
    const struct cost cost = graph_cost(job->g);
    for (int i = 0; i < job->samples.report.n_warnings; i++)
        fprintf(stderr, "hone: %s\n", job->samples.report.warnings[i]);
    if (q->json)
        return;
    printf("network        %.1f M MACs, %.3f M parameters%s\n", (double)cost.macs / 1e6,
           (double)cost.parameters / 1e6, q->how.reinit ? ", new weights" : "");
    printf("preprocessing  %s (%s)\n", job->samples.pre_text, job->samples.pre_how);
    printf("data           %lld to learn from, %lld to look at, %lld to test\n",
           (long long)dataset_count(job->samples.ds, PART_TRAIN),
           (long long)dataset_count(job->samples.ds, PART_SEARCH),
           (long long)dataset_count(job->samples.ds, PART_TEST));
    print_features(job);
    fflush(stdout);
}

static void print_teacher(const struct train_job *job)
{
    if (!job->teacher || job->q->json)
        return;
    printf("teacher        %d views of each sample in %s", teacher_views(job->teacher), job->cache);
    if (job->teacher_rate > 0)
        printf(", %.0f images/s", job->teacher_rate);
    printf("\n");
    fflush(stdout);
}

static int print_json(const struct train_job *job)
{
    const struct cost cost = graph_cost(job->trained);
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_val *root = yyjson_mut_obj(doc);
    yyjson_mut_doc_set_root(doc, root);
    yyjson_mut_obj_add_str(doc, root, "type", "result");
    yyjson_mut_obj_add_str(doc, root, "out", job->out);
    const char *metric = judge_metric_name(job->result.metric);
    yyjson_mut_obj_add_str(doc, root, "metric", metric ? metric : "none");
    add_real(doc, root, "value", job->score);
    yyjson_mut_obj_add_sint(doc, root, "n", job->n_scored);
    yyjson_mut_obj_add_sint(doc, root, "epochs", job->result.n_epochs);
    yyjson_mut_obj_add_str(doc, root, "preprocess", job->samples.pre_text);
    yyjson_mut_obj_add_str(doc, root, "preprocess_source", job->samples.pre_how);
    yyjson_mut_obj_add_sint(doc, root, "macs", cost.macs);
    yyjson_mut_obj_add_sint(doc, root, "parameters", cost.parameters);
    yyjson_mut_obj_add_str(doc, root, "precision", precision_name(job->result.precision));
    yyjson_mut_obj_add_sint(doc, root, "threads", job->q->threads);
    yyjson_mut_obj_add_sint(doc, root, "seed", job->q->how.seed);
    add_real(doc, root, "seconds", job->result.seconds);
    add_real(doc, root, "images_per_second", job->result.images_per_second);
    if (job->teacher)
        add_real(doc, root, "teacher_images_per_second", job->teacher_rate);
    _cleanup_(freep) char *curve = train_curve_json(job->result.curve, job->result.n_epochs);
    yyjson_doc *parsed = curve ? yyjson_read(curve, strlen(curve), 0) : NULL;
    if (parsed)
        yyjson_mut_obj_add_val(
            doc, root, "curve",
            yyjson_val_mut_copy(doc, yyjson_obj_get(yyjson_doc_get_root(parsed), "epochs")));
    yyjson_doc_free(parsed);
    return put_json(doc);
}

static int print_end(const struct train_job *job)
{
    char took[32];
    if (job->q->json)
        return print_json(job);
    printf("trained        %lld epochs in %s, %s, %.0f images/s\n", (long long)job->result.n_epochs,
           str_seconds(job->result.seconds, took), precision_name(job->result.precision),
           job->result.images_per_second);
    if (isfinite(job->score))
        printf("%-14s %.2f %% of %lld samples (test part)\n", judge_metric_name(job->result.metric),
               100 * job->score, (long long)job->n_scored);
    printf("written        %s\n", job->out);
    return CLI_OK;
}

/* How to go on, as it can be typed. */
static int print_stopped(const struct train_job *job, const struct err *err)
{
    const struct train_request *q = job->q;
    fprintf(stderr, "hone: %s\n", err->message);
    if (!fs_exists(job->checkpoint))
        return CLI_INTERRUPTED;
    fprintf(stderr, "Go on with:\n  hone");
    for (int i = 0; i < q->argc; i++) {
        const bool plain = strspn(q->argv[i], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                              "0123456789-_=./,:+@%") == strlen(q->argv[i]);
        if (strcmp(q->argv[i], "--resume") != 0)
            fprintf(stderr, plain ? " %s" : " '%s'", q->argv[i]);
    }
    fprintf(stderr, " --resume\n");
    return CLI_INTERRUPTED;
}

static int train(const struct train_request *q)
{
    _cleanup_(train_job_release) struct train_job job = {.q = q};
    struct shown shown = {.json = q->json, .line = status_line_begin(q->json)};
    struct err err = {0};
    int r = train_job_open(&job, &err);
    if (r < 0)
        return cli_fail(&err);
    job.options.progress = show_progress;
    job.options.progress_ctx = &shown;
    job.options.stop = is_interrupted;
    catch_interrupts();
    print_beginning(&job);
    r = train_job_teach(&job, show_teacher, &shown.line, &err);
    status_line_clear(&shown.line);
    if (r == 0)
        print_teacher(&job);
    if (r == 0)
        r = train_job_run(&job, &err);
    status_line_clear(&shown.line);
    if (r == -ERR_CANCELLED)
        return print_stopped(&job, &err);
    return r < 0 ? cli_fail(&err) : print_end(&job);
}

/* ---- options ---- */

#define WHOLE(n, v, p, least, most, text)                                                          \
    {.name = (n),                                                                                  \
     .value = (v),                                                                                 \
     .kind = CLI_INT,                                                                              \
     .to = (p),                                                                                    \
     .min = (least),                                                                               \
     .max = (most),                                                                                \
     .help = (text)}
#define REAL(n, v, p, least, most, text)                                                           \
    {.name = (n),                                                                                  \
     .value = (v),                                                                                 \
     .kind = CLI_REAL,                                                                             \
     .to = (p),                                                                                    \
     .min = (least),                                                                               \
     .max = (most),                                                                                \
     .help = (text)}
#define TEXT(n, v, p, text) {.name = (n), .value = (v), .kind = CLI_TEXT, .to = (p), .help = (text)}
#define CHOICE(n, v, p, all, text)                                                                 \
    {.name = (n), .value = (v), .kind = CLI_CHOICE, .to = (p), .choices = (all), .help = (text)}
#define FLAG(n, p, text) {.name = (n), .kind = CLI_FLAG, .to = (p), .help = (text)}

static int run(const struct cli_command *self, int argc, char **argv)
{
    struct train_request q = {.learn_from = "train",
                              .how = recipe_usual(),
                              .threads = pool_cpus(),
                              .argc = argc,
                              .argv = argv};
    const struct cli_option options[] = {
        TEXT("data", "DATA", &q.data, "folder, tar, npz or npy with the data (required)"),
        CHOICE("learn-from", "PARTS", &q.learn_from, "train|train+search",
               "parts of the data (default: train)"),
        TEXT("preprocess", "TEXT", &q.preprocess, "how pixels become inputs (default: as eval)"),
        TEXT("teacher", "MODEL", &q.teacher, "learn from this network's answers"),
        TEXT("teacher-preprocess", "TEXT", &q.teacher_preprocess, "what the teacher sees"),
        TEXT("teacher-cache", "FILE", &q.teacher_cache,
             "where its answers are kept (default: OUT.teacher)"),
        WHOLE("views", "N", &q.how.views, 1, 65536,
              "views of each sample that the teacher answers (default: 8)"),
        REAL("distil", "X", &q.how.distil, 0, 1, "the teacher's share of the loss (default: 1)"),
        REAL("temperature", "T", &q.how.temperature, 0.01, 100, "of both's answers (default: 1)"),
        TEXT("features", "PAIRS", &q.how.features,
             "also learn the teacher's features: 'auto', or its values and ours: a=b,c=d"),
        REAL("feature-weight", "X", &q.how.feature_weight, 0, 1e6,
             "of the features' loss, beside the rest (default: 1)"),
        CHOICE("feature-loss", "F", &q.how.feature_loss, "mse|cosine|attention", "default: mse"),
        WHOLE("epochs", "N", &q.how.epochs, 1, 1e6,
              "times through the training part (default: 80)"),
        WHOLE("batch", "N", &q.how.batch, 1, 65536, "samples of a step (default: 128)"),
        CHOICE("optimizer", "O", &q.how.optimizer, "sgd|adam|adamw", "default: sgd"),
        REAL("lr", "X", &q.how.rate, 0, 1e6, "peak learning rate (default: sgd 0.1, adam 0.001)"),
        CHOICE("schedule", "S", &q.how.schedule, "cosine|one-cycle|step|constant|trapezoid",
               "default: cosine"),
        REAL("warmup", "X", &q.how.warmup, 0, 0.9, "share of the steps on the way to the peak"),
        REAL("momentum", "X", &q.how.momentum, 0, 0.9999, "of SGD, Nesterov's (default: 0.9)"),
        REAL("weight-decay", "X", &q.how.decay, 0, 10,
             "of weights (default: sgd 0.0005, adam 0, adamw 0.01)"),
        REAL("clip", "X", &q.how.clip, 0, 1e9, "longest gradient (default: any)"),
        REAL("shift-lr", "X", &q.how.shift_rate, 0, 1e4,
             "factor on the rate of norms' shifts (default: 1)"),
        FLAG("decay-shifts", &q.how.decay_shifts, "norms' shifts decay as weights do"),
        FLAG("keep-scales", &q.how.keep_scales, "norms' scales stay as they are"),
        REAL("ema", "X", &q.how.ema, 0, 0.99999,
             "export an average of the weights with this decay"),
        WHOLE("lookahead", "N", &q.how.lookahead, 0, 1e6,
              "pull the weights back to a slow average every N steps"),
        REAL("norm-momentum", "X", &q.how.norm_momentum, 0, 1,
             "of running statistics (default: 0.1)"),
        REAL("label-smoothing", "X", &q.how.smoothing, 0, 0.99,
             "spread over all classes (default: 0)"),
        CHOICE("flip", "F", &q.how.flip, "alternating|random|none", "left-right (default: random)"),
        WHOLE("crop", "N", &q.how.crop, 0, 4096, "shift by up to N pixels (default: 0)"),
        CHOICE("border", "B", &q.how.border, "zero|reflect", "of shifted pictures (default: zero)"),
        WHOLE("cutout", "N", &q.how.cutout, 0, 4096, "blank a square of N pixels"),
        REAL("jitter", "X", &q.how.jitter, 0, 1, "brightness, contrast, saturation by up to X"),
        WHOLE("time-mask", "N", &q.how.time_mask, 0, 65536, "blank up to N steps of time (arrays)"),
        WHOLE("frequency-mask", "N", &q.how.frequency_mask, 0, 65536,
              "blank up to N bands (arrays)"),
        WHOLE("time-shift", "N", &q.how.time_shift, 0, 65536, "move by up to N steps (arrays)"),
        REAL("mixup", "X", &q.how.mixup, 0, 100, "mix pairs of samples, shares from Beta(X, X)"),
        FLAG("reinit", &q.how.reinit, "begin with new weights"),
        FLAG("zero-residual", &q.how.zero_residual,
             "with --reinit: blocks begin as their shortcuts"),
        FLAG("identity", &q.how.identity, "with --reinit: convolutions begin by handing on"),
        FLAG("whiten", &q.how.whiten,
             "with --reinit: the first convolution whitens patches, and stays so"),
        WHOLE("seed", "N", &q.how.seed, 0, 9e15, "of every random choice (default: 0)"),
        WHOLE("threads", "N", &q.threads, 1, 1024, "threads (default: all processors)"),
        WHOLE("slice", "N", &q.how.slice, 0, 65536,
              "samples that a thread takes together (default: chosen)"),
        CHOICE("precision", "P", &q.how.precision, "auto|fp32|bf16",
               "arithmetic (default: bf16 where the CPU has it)"),
        WHOLE("evaluate", "N", &q.how.evaluate, 0, 1e6,
              "epochs between looks at the search part; 0: at the end only (default: some 20)"),
        TEXT("out", "FILE", &q.out, "the trained network (default: MODEL-trained.onnx, here)"),
        TEXT("trunk", "FILE", &q.trunk,
             "with a trapezoid: also the network before the way down, for who trains it on"),
        TEXT("curve", "FILE", &q.curve, "also write the learning curve as JSON"),
        TEXT("checkpoint", "FILE", &q.checkpoint, "default: OUT.checkpoint"),
        FLAG("resume", &q.resume, "go on from the checkpoint"),
        CLI_OPTION_JSON(&q.json),
        CLI_OPTIONS_END,
    };
    int code = cli_parse(self, options, argc, argv, 1, 1, &q.model);
    if (code >= 0)
        return code;
    if (!q.data)
        return cli_usage_error(self, "--data is missing: hone train %s", self->usage);
    if ((q.how.zero_residual || q.how.identity || q.how.whiten) && !q.how.reinit)
        return cli_usage_error(self, "--zero-residual, --identity and --whiten need --reinit");
    if (q.trunk && strcmp(q.how.schedule, "trapezoid") != 0)
        return cli_usage_error(self, "--trunk needs --schedule trapezoid");
    if (!q.how.features && q.how.feature_weight > 0)
        q.how.features = "auto";
    if (!q.teacher && (q.teacher_preprocess || q.teacher_cache || q.how.views || q.how.features))
        return cli_usage_error(self, "a teacher's options need --teacher");
    return train(&q);
}

const struct cli_command cmd_train = {
    .name = "train",
    .usage = "MODEL --data DATA [OPTION]...",
    .summary = "train a network on data, from labels or from a teacher",
    .details =
        "Begins with the weights of MODEL, or with new ones (--reinit). Norms that an export\n"
        "folded into their layers are put back for training and folded again at the end. Learned\n"
        "from is the training part; the search part is looked at now and then, the test part\n"
        "once, at the end. Ctrl-C writes a checkpoint; --resume goes on to the same result, bit\n"
        "for bit. A quantized MODEL (QDQ) stays one: it learns with its rounding in place, best\n"
        "from its original as the teacher. Where the data's labels are not the network's classes,\n"
        "a teacher's top answers are what counts as right.",
    .examples = "  hone train resnet20.onnx --data cifar10.tar --reinit --crop 4 --epochs 80\n"
                "  hone train student.onnx --data cifar10.tar --reinit --teacher resnet56.onnx \\\n"
                "      --temperature 4 --crop 4 --flip alternating --out student-distilled.onnx\n"
                "  hone train resnet20-int8.onnx --data cifar10.tar --teacher resnet20.onnx \\\n"
                "      --optimizer adam --lr 0.00001 --epochs 2\n",
    .run = run,
};
