#include "services/cli/train.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/network.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/train/unfold.h"

#define UNFOLD_SAMPLES 1024
#define USUAL_VIEWS 8

void train_job_release(struct train_job *job)
{
    teacher_close(job->teacher);
    samples_release(&job->samples);
    train_result_release(&job->result);
    graph_free(job->original);
    graph_free(job->g);
    graph_free(job->teacher_graph);
    graph_free(job->trained);
    free(job->out);
    free(job->checkpoint);
    free(job->cache);
    free(job->identity);
}

/* ---- settings ---- */

static double or_usual(double given, double usual)
{
    return given >= 0 ? given : usual;
}

static int set_optimizer(const struct train_request *q, struct train_options *o, struct err *err)
{
    enum schedule_kind kind;
    const bool sgd = strcmp(q->optimizer, "sgd") == 0;
    int r = schedule_parse(q->schedule, &kind, err);
    if (r < 0)
        return r;
    o->optimizer = optimizer_defaults(sgd ? OPTIMIZER_SGD : OPTIMIZER_ADAM);
    if (strcmp(q->optimizer, "adam") == 0) { /* as it was before AdamW: decay in the gradient */
        o->optimizer.decoupled = false;
        o->optimizer.decay = 0;
    }
    o->optimizer.decay = or_usual(q->decay, o->optimizer.decay);
    o->optimizer.momentum = or_usual(q->momentum, o->optimizer.momentum);
    o->optimizer.clip = q->clip;
    o->optimizer.shift_rate = q->shift_rate;
    o->optimizer.keep_scales = q->keep_scales;
    o->schedule = schedule_make(kind, or_usual(q->rate, sgd ? 0.1 : 0.001));
    o->schedule.warmup = or_usual(q->warmup, o->schedule.warmup);
    return 0;
}

static enum augment_flip flip_of(const char *text)
{
    return strcmp(text, "none") == 0     ? FLIP_NONE
           : strcmp(text, "random") == 0 ? FLIP_RANDOM
                                         : FLIP_ALTERNATING;
}

static int set_options(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    struct train_options *o = &job->options;
    *o = train_defaults();
    o->epochs = (int)q->epochs;
    o->batch = q->batch;
    o->slice = q->slice;
    o->threads = (int)q->threads;
    o->seed = (uint64_t)q->seed;
    o->smoothing = q->smoothing;
    o->mixup = q->mixup;
    o->ema = q->ema;
    o->lookahead = (int)q->lookahead;
    o->norm_momentum = (float)q->norm_momentum;
    o->distil = q->distil;
    o->temperature = q->temperature;
    o->evaluate_every = q->evaluate >= 0 ? (int)q->evaluate : 1 + (int)q->epochs / 20;
    o->checkpoint = job->checkpoint;
    o->resume = q->resume;
    o->identity = job->identity;
    o->data = job->data_hash;
    o->augment =
        (struct augment){.crop = (int)q->crop,
                         .border = strcmp(q->border, "reflect") == 0 ? BORDER_REFLECT : BORDER_ZERO,
                         .flip = flip_of(q->flip),
                         .cutout = (int)q->cutout,
                         .brightness = q->jitter,
                         .contrast = q->jitter,
                         .saturation = q->jitter,
                         .time_mask = (int)q->time_mask,
                         .frequency_mask = (int)q->frequency_mask,
                         .time_shift = (int)q->time_shift};
    int r = precision_parse(q->precision, &o->precision, err);
    return r < 0 ? r : set_optimizer(q, o, err);
}

/* ---- files ---- */

/* "path/resnet.onnx" -> "resnet-trained.onnx" */
static char *usual_out(const char *model)
{
    const char *slash = strrchr(model, '/'), *name = slash ? slash + 1 : model;
    size_t n = strlen(name);
    if (str_ends_with(name, ".onnx"))
        n -= strlen(".onnx");
    return str_printf("%.*s-trained.onnx", (int)n, name);
}

static int name_files(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    job->out = q->out ? str_printf("%s", q->out) : usual_out(q->model);
    if (!job->out)
        return err_oom(err, "names");
    job->checkpoint =
        q->checkpoint ? str_printf("%s", q->checkpoint) : str_printf("%s.checkpoint", job->out);
    job->cache =
        q->teacher_cache ? str_printf("%s", q->teacher_cache) : str_printf("%s.teacher", job->out);
    if (!job->checkpoint || !job->cache)
        return err_oom(err, "names");
    if (q->resume && !fs_exists(job->checkpoint))
        return err_set(err, ERR_NOT_FOUND, "%s: there is no checkpoint to go on from",
                       job->checkpoint);
    if (!q->resume && fs_exists(job->checkpoint))
        return err_set(err, ERR_ALREADY_EXISTS,
                       "%s: a run was stopped there: go on with it (--resume), or remove the file",
                       job->checkpoint);
    return 0;
}

/* ---- networks and data ---- */

static int read_networks(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    int r = network_read(q->model, PRECISION_AUTO, &job->original, err);
    if (r < 0)
        return err_wrap(err, "%s", q->model);
    if (!q->teacher)
        return 0;
    r = network_read(q->teacher, PRECISION_AUTO, &job->teacher_graph, err);
    return r < 0 ? err_wrap(err, "%s", q->teacher) : 0;
}

static int choose_preprocess(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    const struct infer_options options = {.threads = (int)q->threads};
    struct samples *s = &job->samples;
    int r = 0;
    if (job->teacher_graph) {
        r = samples_preprocess(s, job->teacher_graph, &options,
                               q->teacher_preprocess ? q->teacher_preprocess : q->preprocess, err);
        job->teacher_pre = s->pre;
        if (r < 0)
            return err_wrap(err, "%s", q->teacher);
    }
    if (q->reinit && job->teacher_graph && !q->preprocess) {
        s->pre_how = "the teacher's";
        return 0;
    }
    return q->reinit ? samples_preprocess_new(s, job->original, q->preprocess, err)
                     : samples_preprocess(s, job->original, &options, q->preprocess, err);
}

/* The network in training form: norms back in their places, new weights where asked for. */
static int prepare_network(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    const struct unfold_options options = {.threads = (int)q->threads};
    _cleanup_(sample_view_release) struct sample_view view = {0};
    int r = graph_clone(job->original, &job->g, err);
    if (r >= 0)
        r = sample_view_init(&view, job->samples.ds, PART_TRAIN, &job->samples.pre, UNFOLD_SAMPLES,
                             0, err);
    if (r >= 0)
        r = unfold_batchnorm(job->g, &options, q->reinit ? 0 : view.n, sample_view_fill, &view,
                             err);
    if (r < 0)
        return r;
    job->norms = r;
    const struct reinit_options new = {
        .seed = (uint64_t)q->seed, .zero_residual = q->zero_residual, .identity = q->identity};
    r = q->reinit ? reinit_weights(job->g, &new, err) : 0;
    if (r < 0 || !q->whiten)
        return r;
    return whiten_first(job->g, view.n, sample_view_fill, &view, &job->options.frozen, err);
}

static int identify(struct train_job *job, struct err *err)
{
    char model[HASH_HEX_BYTES];
    int r = hash_file(job->q->model, model, err);
    if (r == 0)
        r = dataset_source_hash(job->q->data, job->data_hash, err);
    if (r < 0)
        return r;
    job->identity = str_printf("model=%s\ndata=%s\nreinit=%d\nzero_residual=%d\n"
                               "identity=%d\nwhiten=%d\n",
                               model, job->data_hash, job->q->reinit, job->q->zero_residual,
                               job->q->identity, job->q->whiten);
    return job->identity ? 0 : err_oom(err, "names");
}

int train_job_open(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    int r = name_files(job, err);
    if (r == 0)
        r = read_networks(job, err);
    if (r == 0)
        r = samples_open(&job->samples, q->data, job->original, q->model, (int)q->threads, err);
    if (r == 0)
        r = identify(job, err);
    if (r == 0)
        r = choose_preprocess(job, err);
    if (r == 0 && strcmp(q->learn_from, "train+search") == 0)
        dataset_join_search(job->samples.ds);
    if (r == 0)
        r = set_options(job, err);
    if (r == 0)
        r = augment_check(&job->options.augment, job->samples.ds, err);
    return r == 0 ? prepare_network(job, err) : r;
}

/* ---- the teacher ---- */

/* A quantized teacher as it is, in int8; others in bf16 where the CPU has it: what is learned from
 * answers does not depend on their last digits. */
static enum precision teacher_precision(const struct train_job *job)
{
    if (network_is_quantized(job->teacher_graph))
        return PRECISION_AUTO;
    return strcmp(job->q->precision, "fp32") != 0 && nn_has_bf16() ? PRECISION_BF16
                                                                   : PRECISION_FP32;
}

int train_job_teach(struct train_job *job, infer_progress *progress, void *ctx, struct err *err)
{
    const struct train_request *q = job->q;
    if (!job->teacher_graph)
        return 0;
    const int64_t usual = q->epochs < USUAL_VIEWS ? q->epochs : USUAL_VIEWS;
    const struct augmenter views = {.ds = job->samples.ds,
                                    .part = PART_TRAIN,
                                    .pre = job->teacher_pre,
                                    .how = job->options.augment,
                                    .seed = job->options.seed};
    const struct teacher_options options = {.views = (int)(q->views > 0 ? q->views : usual),
                                            .data = job->data_hash,
                                            .threads = (int)q->threads,
                                            .precision = teacher_precision(job),
                                            .progress = progress,
                                            .progress_ctx = ctx};
    int r =
        teacher_build(job->teacher_graph, &views, &options, job->cache, &job->teacher_rate, err);
    if (r == 0)
        r = teacher_open(job->cache, &job->teacher, err);
    job->options.teacher = job->teacher;
    return r;
}

/* ---- the run and what comes out ---- */

static int write_network(struct train_job *job, struct err *err)
{
    char seed[32];
    snprintf(seed, sizeof(seed), "%lld", (long long)job->q->seed);
    struct graph *g = job->trained = TAKE_PTR(job->result.graph);
    int r = pass_simplify(g, err);
    if (r >= 0)
        r = graph_set_metadata(g, "hone.version", HONE_VERSION, err);
    if (r >= 0)
        r = graph_set_metadata(g, "hone.preprocess", job->samples.pre_text, err);
    if (r >= 0)
        r = graph_set_metadata(g, "hone.seed", seed, err);
    return r < 0 ? r : onnx_write_file(g, job->out, err);
}

static int write_curve(struct train_job *job, struct err *err)
{
    if (!job->q->curve)
        return 0;
    _cleanup_(freep) char *text = train_curve_json(job->result.curve, job->result.n_epochs);
    return text ? fs_write_atomic(job->q->curve, text, strlen(text), err)
                : err_oom(err, "the curve");
}

/* The test part is looked at once, here. */
static int score(struct train_job *job, struct err *err)
{
    const struct infer_options options = {.threads = (int)job->q->threads};
    _cleanup_(sample_view_release) struct sample_view view = {0};
    _cleanup_(freep) int32_t *labels = NULL;
    _cleanup_(freep) float *logits = NULL;
    struct infer_metrics metrics;
    int64_t width = 0;
    job->score = NAN;
    if (dataset_count(job->samples.ds, PART_TEST) < 1)
        return 0;
    int r = sample_view_init(&view, job->samples.ds, PART_TEST, &job->samples.pre, 0, 0, err);
    if (r == 0)
        r = sample_view_labels(&view, &labels, err);
    if (r == 0)
        r = samples_run(job->trained, &options, &view, &logits, &width, err);
    if (r < 0 || !labels || !samples_classes(&job->samples, width))
        return r;
    infer_metrics(logits, NULL, labels, view.n, width, &metrics);
    job->score = metrics.top1;
    job->n_scored = view.n;
    return 0;
}

int train_job_run(struct train_job *job, struct err *err)
{
    int r = train_run(job->g, job->samples.ds, &job->samples.pre, &job->options, &job->result, err);
    if (r == 0)
        r = write_network(job, err);
    if (r == 0)
        r = write_curve(job, err);
    if (r == 0)
        r = score(job, err);
    return r == 0 ? fs_remove_tree(job->checkpoint, err) : r;
}
