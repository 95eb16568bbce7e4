#include "shared/train/loop.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"
#include "shared/train/average.h"
#include "shared/train/batches.h"

#define CHECKPOINT_SECONDS 300

/* What a lane of the network needs for its losses. */
struct lane_spare {
    double *spare;
    char pad[56]; /* lanes do not share cache lines */
};

struct run {
    const struct dataset *ds;
    const struct preprocess *pre;
    const struct train_options *options;
    struct arena *arena;
    struct train_net *net;
    struct train_span *spans;
    int n_spans;
    float *weights; /* of the spans one behind the other: for checkpoints */
    float *trunk;   /* likewise, when the level of a trapezoid ended; NULL: another schedule */
    int64_t n_weights;
    struct optimizer *optimizer;
    struct average *ema, *slow;
    struct batch_settings settings;
    struct batches *batches;
    bool quantized; /* looked at as it will run */
    enum judge_metric metric;
    int32_t *right; /* answers for the search part; NULL: not looked at yet */
    struct loss loss;
    struct lane_spare *lanes;
    double *losses, *feature_losses; /* [batch] */
    struct features *features;
    const char *taps[FEATURES_MAX];
    uint8_t *hits;
    const struct batch *batch; /* of the step that is going on */
    char *text;                /* the settings */

    int64_t per_epoch, steps, last; /* last: of this part; steps: of the schedule */
    struct train_position at;
    struct train_epoch *curve; /* [epochs] */
    int64_t began_ns, epoch_began_ns, saved_ns;
    double seconds_before, epoch_before; /* of earlier parts of this run and this epoch */
    int64_t seen;                        /* in this part */
    double busy;                         /* seconds of this part without evaluation */
};

static void run_release(struct run *r)
{
    batches_close(r->batches);
    features_close(r->features);
    train_net_free(r->net);
    optimizer_free(r->optimizer);
    average_free(r->ema);
    average_free(r->slow);
    arena_free(r->arena);
    free(r->weights);
    free(r->trunk);
    free(r->text);
    free(r->curve);
    free(r->right);
}

void train_result_release(struct train_result *result)
{
    graph_free(result->graph);
    graph_free(result->trunk);
    free(result->curve);
    *result = (struct train_result){0};
}

struct train_options train_defaults(void)
{
    return (struct train_options){
        .epochs = 80,
        .batch = 128,
        .schedule = schedule_make(SCHEDULE_COSINE, 0.1),
        .optimizer = optimizer_defaults(OPTIMIZER_SGD),
        .augment = {.crop = 4, .flip = FLIP_RANDOM},
        .distil = 1,
        .temperature = 1,
        .threads = 1,
        .evaluate_every = 1,
    };
}

static double since(int64_t ns)
{
    return (double)(clock_now_ns(NULL) - ns) / 1e9;
}

/* ---- settings as text ---- */

static int describe_network(const struct graph *g, struct run *r, char hex[HASH_HEX_BYTES],
                            struct err *err)
{
    char shape[128];
    _cleanup_(strbuf_release) struct strbuf text = {0};
    for (int n = 0; n < g->n_nodes; n++) {
        const struct value *out = graph_output_of(g, g->nodes[n], 0);
        strbuf_printf(&text, "%s %s %s\n", op_name(g->nodes[n]->op), g->nodes[n]->name,
                      out ? shape_text(&out->shape, shape) : "");
    }
    for (int i = 0; i < r->n_spans; i++)
        strbuf_printf(&text, "%s %lld\n", r->spans[i].name, (long long)r->spans[i].n);
    return text.failed ? err_oom(err, "settings") : hash_bytes(text.data, text.length, hex, err);
}

static void describe_numbers(const struct run *r, struct strbuf *text)
{
    const struct train_options *o = r->options;
    const struct schedule *s = &o->schedule;
    const struct optimizer_options *p = &o->optimizer;
    strbuf_printf(text, "epochs=%d\nbatch=%lld\nseed=%llu\n", o->epochs, (long long)o->batch,
                  (unsigned long long)o->seed);
    strbuf_printf(text, "schedule=%s\nrate=%.17g\nwarmup=%.17g\nstart=%.17g\nend=%.17g\n",
                  schedule_name(s->kind), s->rate, s->warmup, s->start, s->end);
    if (s->kind == SCHEDULE_TRAPEZOID)
        strbuf_printf(text, "down=%.17g\n", s->down);
    strbuf_printf(text,
                  "optimizer=%s\nmomentum=%.17g\nnesterov=%d\nbeta1=%.17g\nbeta2=%.17g\n"
                  "epsilon=%.17g\ndecay=%.17g\ndecoupled=%d\nclip=%.17g\nshift_rate=%.17g\n"
                  "decay_shifts=%d\nkeep_scales=%d\nfrozen=%s\n",
                  p->kind == OPTIMIZER_ADAM ? "adam" : "sgd", p->momentum, p->nesterov, p->beta1,
                  p->beta2, p->epsilon, p->decay, p->decoupled, p->clip, p->shift_rate,
                  p->decay_shifts, p->keep_scales, o->frozen ? o->frozen : "");
    strbuf_printf(text, "smoothing=%.17g\nmixup=%.17g\ndistil=%.17g\ntemperature=%.17g\n",
                  o->smoothing, o->mixup, o->distil, o->temperature);
    strbuf_printf(text, "ema=%.17g\nlookahead=%d\nnorm_momentum=%.9g\nprecision=%s\n", o->ema,
                  o->lookahead, (double)o->norm_momentum,
                  precision_name(train_net_precision(r->net)));
}

static void describe_teacher(const struct teacher *t, struct strbuf *text)
{
    if (!t)
        strbuf_add(text, "teacher=none\n");
    else
        strbuf_printf(text, "teacher=%s\nviews=%d of %s\n", teacher_network(t), teacher_views(t),
                      teacher_key(t));
}

/* Nothing is added without them, so that runs of before go on. */
static int describe_features(const struct train_features *f, struct strbuf *text, struct err *err)
{
    char key[HASH_HEX_BYTES];
    if (!f)
        return 0;
    _cleanup_(freep) char *pairs = feature_pairs_text(&f->pairs);
    int rc = teacher_network_key(f->teacher, &f->pre, f->precision, key, err);
    if (rc < 0 || !pairs)
        return rc < 0 ? rc : err_oom(err, "settings");
    strbuf_printf(text, "features=%s\nfeature_teacher=%s\nfeature_loss=%d\nfeature_weight=%.17g\n",
                  pairs, key, (int)f->kind, f->weight);
    return 0;
}

/* Threads and slices are not in it: a run may go on with others, though not with the same bits. */
static int describe(const struct graph *g, struct run *r, struct err *err)
{
    char network[HASH_HEX_BYTES];
    _cleanup_(strbuf_release) struct strbuf text = {0};
    _cleanup_(freep) char *augment = augment_text(&r->options->augment);
    _cleanup_(freep) char *pre = preprocess_text(r->pre);
    int rc = describe_network(g, r, network, err);
    if (rc < 0)
        return rc;
    strbuf_printf(&text, "network=%s\nsamples=%lld\npreprocess=%s\naugment=%s\n", network,
                  (long long)dataset_count(r->ds, PART_TRAIN), pre ? pre : "",
                  augment ? augment : "");
    describe_teacher(r->options->teacher, &text);
    describe_numbers(r, &text);
    rc = describe_features(r->options->features, &text, err);
    if (rc < 0)
        return rc;
    if (r->options->identity)
        strbuf_add(&text, r->options->identity);
    if (text.failed || !pre || !augment)
        return err_oom(err, "settings");
    r->text = strbuf_take(&text);
    return 0;
}

/* ---- checkpoints ---- */

static void gather(const struct run *r, float *to)
{
    for (int i = 0; i < r->n_spans; to += r->spans[i++].n)
        memcpy(to, r->spans[i].value, (size_t)r->spans[i].n * sizeof(*to));
}

static void scatter(const struct run *r, const float *from)
{
    for (int i = 0; i < r->n_spans; from += r->spans[i++].n)
        memcpy(r->spans[i].value, from, (size_t)r->spans[i].n * sizeof(*from));
}

static struct checkpoint checkpoint_of(struct run *r)
{
    struct checkpoint c = {.settings = r->text, .position = r->at, .curve = r->curve};
    struct checkpoint_floats *to = c.floats;
    *to++ = (struct checkpoint_floats){r->weights, r->n_weights};
    to->data = optimizer_state(r->optimizer, &to->n);
    to++;
    if (r->ema) {
        to->data = average_floats(r->ema, &to->n);
        to++;
    }
    if (r->slow) {
        to->data = average_floats(r->slow, &to->n);
        to++;
    }
    if (r->trunk)
        *to++ = (struct checkpoint_floats){r->trunk, r->n_weights};
    c.n_floats = (int)(to - c.floats);
    return c;
}

static int save(struct run *r, struct err *err)
{
    if (!r->options->checkpoint)
        return 0;
    r->at.optimizer_steps = optimizer_steps(r->optimizer);
    r->at.net_steps = (int64_t)train_net_steps(r->net);
    r->at.seconds = r->seconds_before + since(r->began_ns);
    r->at.epoch_seconds = r->epoch_before + since(r->epoch_began_ns);
    gather(r, r->weights);
    const struct checkpoint c = checkpoint_of(r);
    int rc = checkpoint_write(r->options->checkpoint, &c, err);
    r->saved_ns = clock_now_ns(NULL);
    if (rc == 0 && r->options->saved)
        rc = r->options->saved(r->options->saved_ctx, err);
    return rc < 0 ? err_wrap(err, "writing the checkpoint") : 0;
}

static int restore(struct run *r, struct err *err)
{
    const char *path = r->options->checkpoint;
    if (!path || !r->options->resume || !fs_exists(path))
        return 0;
    struct train_epoch *curve = NULL;
    struct checkpoint c = checkpoint_of(r);
    int rc = checkpoint_read(path, &c, &curve, err);
    if (rc < 0)
        return rc;
    if (c.position.n_epochs > r->options->epochs || c.position.step > r->last) {
        free(curve);
        return err_set(err, ERR_FAILED_PRECONDITION, "the checkpoint is beyond the end of the run");
    }
    memcpy(r->curve, curve, (size_t)c.position.n_epochs * sizeof(*curve));
    free(curve);
    scatter(r, r->weights);
    r->at = c.position;
    r->seconds_before = c.position.seconds;
    r->epoch_before = c.position.epoch_seconds;
    optimizer_set_steps(r->optimizer, c.position.optimizer_steps);
    train_net_set_steps(r->net, (uint64_t)c.position.net_steps);
    return 0;
}

/* ---- one step ---- */

/* Sample i of the batch, k of the slice. */
static double sample_features(struct run *r, int lane, int64_t i, int64_t k,
                              const float *const *outputs, float *const *gradients)
{
    const struct train_features *f = r->options->features;
    const double share = 1 / (double)f->pairs.n;
    double sum = 0;
    for (int p = 0; p < f->pairs.n; p++) {
        const struct loss_features *shape = &f->pairs.pairs[p].shape;
        const int64_t width = shape->channels * shape->pixels;
        const int64_t parent = shape->parent_channels * shape->pixels;
        sum += share * loss_features(shape, outputs[1 + p] + k * width,
                                     r->batch->features[p] + i * parent,
                                     f->weight * share / (double)r->options->batch,
                                     gradients[1 + p] + k * width, r->lanes[lane].spare);
    }
    return sum;
}

/* Whether training samples have right answers: the labels', or the teacher's. */
static bool has_answers(const struct run *r)
{
    return r->metric == JUDGE_TOP1 || r->options->teacher;
}

static int right_answer(const struct run *r, const struct loss_target *t)
{
    return r->metric != JUDGE_TOP1 && t->teacher ? infer_top(t->teacher, r->loss.width) : t->label;
}

/* The loss of a slice, on the lane's thread. */
static int slice_loss(void *ctx, int lane, int64_t first, int64_t count,
                      const float *const *outputs, float *const *gradients, struct err *err)
{
    (void)err;
    struct run *r = ctx;
    const struct batch *b = r->batch;
    const int64_t width = r->loss.width;
    for (int64_t k = 0; k < count; k++) {
        const int64_t i = first + k;
        const struct loss_target t = {
            .label = b->label[i],
            .other = b->other[i],
            .share = b->share[i],
            .teacher = b->teacher ? b->teacher + i * width : NULL,
            .teacher_other = b->teacher_other ? b->teacher_other + i * width : NULL,
        };
        const float *logits = outputs[0] + k * width;
        r->losses[i] = loss_sample(&r->loss, &t, logits, 1 / (double)r->options->batch,
                                   gradients[0] + k * width, r->lanes[lane].spare);
        r->hits[i] = infer_top(logits, width) == right_answer(r, &t);
        if (!r->features)
            continue;
        r->feature_losses[i] = sample_features(r, lane, i, k, outputs, gradients);
        r->losses[i] += r->options->features->weight * r->feature_losses[i];
    }
    return 0;
}

/* The slow weights follow the fast ones at first and hardly at the end; every so many steps the
 * fast ones begin again at the slow (airbench's form of lookahead: Jordan, 2024). */
static void look_ahead(struct run *r)
{
    const int every = r->options->lookahead;
    if (!r->slow || (r->at.step % every != 0 && r->at.step != r->steps))
        return;
    const double progress = (double)r->at.step / (double)r->steps;
    average_add(r->slow, pow(0.95, every) * pow(progress, 3));
    average_give(r->slow);
}

static int step(struct run *r, double *ret_rate, struct err *err)
{
    const struct train_options *o = r->options;
    if (r->trunk && r->at.step == schedule_level_end(&o->schedule, r->steps))
        gather(r, r->trunk);
    int rc = batches_next(r->batches, &r->batch, err);
    if (rc == 0)
        rc = train_net_step(r->net, r->batch->x, slice_loss, r, err);
    *ret_rate = schedule_rate(&o->schedule, r->at.step, r->steps);
    if (rc == 0)
        rc = optimizer_step(r->optimizer, *ret_rate, NULL, err);
    if (rc < 0)
        return err_wrap(err, "epoch %lld, step %lld", (long long)(r->at.step / r->per_epoch + 1),
                        (long long)(r->at.step % r->per_epoch + 1));
    r->at.step++;
    if (r->ema)
        average_add(r->ema, average_decay(o->ema, r->at.step));
    look_ahead(r);
    for (int64_t i = 0; i < o->batch; i++) {
        r->at.loss_sum += r->losses[i];
        r->at.feature_sum += r->feature_losses[i];
        r->at.hits += r->hits[i];
    }
    r->at.seen += o->batch;
    r->seen += o->batch;
    return 0;
}

/* ---- looking at it ---- */

/* The graph as it would be shipped now, norms not folded. */
static int export_now(struct run *r, struct graph **ret, struct err *err)
{
    if (r->ema)
        average_swap(r->ema);
    int rc = train_net_export(r->net, ret, err);
    if (r->ema)
        average_swap(r->ema);
    return rc;
}

/* The last that is done to the network. */
static int export_trunk(struct run *r, struct graph **ret, struct err *err)
{
    if (!r->trunk || r->at.step <= schedule_level_end(&r->options->schedule, r->steps))
        return 0;
    scatter(r, r->trunk);
    return train_net_export(r->net, ret, err);
}

static int ask_to_stop(void *ctx, int64_t done, int64_t total, struct err *err)
{
    const struct train_options *o = ((const struct run *)ctx)->options;
    (void)done, (void)total, (void)err;
    if (o->stop)
        o->stop(o->stop_ctx);
    return 0;
}

static int evaluate(struct run *r, double *ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    const struct train_options *o = r->options;
    const struct infer_options options = {.threads = o->threads,
                                          .precision =
                                              r->quantized ? PRECISION_AUTO : PRECISION_FP32,
                                          .progress = ask_to_stop,
                                          .progress_ctx = r};
    int64_t n;
    *ret = NAN;
    if (dataset_count(r->ds, PART_SEARCH) < 1 || r->metric == JUDGE_NONE)
        return 0;
    int rc = export_now(r, &g, err);
    if (rc >= 0)
        rc = pass_simplify(g, err);
    if (rc >= 0 && !r->right)
        rc = judge_right(r->metric, o->judge, r->ds, PART_SEARCH, &options, &r->right, &n, err);
    return rc < 0 ? rc : judge_score(g, r->ds, PART_SEARCH, r->pre, &options, r->right, ret, err);
}

static bool is_evaluated(const struct run *r, int64_t epoch)
{
    const int every = r->options->evaluate_every;
    if (every < 0)
        return false;
    return (epoch + 1) * r->per_epoch == r->last || (every > 0 && (epoch + 1) % every == 0);
}

static int end_epoch(struct run *r, double rate, struct err *err)
{
    const int64_t epoch = r->at.n_epochs;
    struct train_epoch *row = &r->curve[epoch];
    const double seen = (double)r->at.seen;
    const double seconds = r->epoch_before + since(r->epoch_began_ns);
    r->busy += since(r->epoch_began_ns);
    *row = (struct train_epoch){
        .epoch = epoch,
        .loss = r->at.loss_sum / seen,
        .accuracy = has_answers(r) ? (double)r->at.hits / seen : NAN,
        .search_accuracy = NAN,
        .feature_loss = r->features ? r->at.feature_sum / seen : NAN,
        .rate = rate,
        .seconds = seconds,
        .images_per_second = seen / seconds,
    };
    int rc = is_evaluated(r, epoch) ? evaluate(r, &row->search_accuracy, err) : 0;
    r->at.n_epochs++;
    r->at.seen = r->at.hits = 0;
    r->at.loss_sum = r->at.feature_sum = r->epoch_before = 0;
    r->epoch_began_ns = clock_now_ns(NULL);
    return rc;
}

static int report(struct run *r, double rate, const struct train_epoch *finished, struct err *err)
{
    const struct train_options *o = r->options;
    if (!o->progress)
        return 0;
    const double seen = (double)r->at.seen, seconds = r->seconds_before + since(r->began_ns);
    const double epoch_seconds = r->epoch_before + since(r->epoch_began_ns);
    struct train_progress p = {
        .epoch = finished ? finished->epoch : r->at.n_epochs,
        .epochs = o->epochs,
        .step = finished ? r->per_epoch : r->at.step % r->per_epoch,
        .steps = r->per_epoch,
        .loss = finished ? finished->loss : r->at.loss_sum / seen,
        .accuracy = finished ? finished->accuracy : (double)r->at.hits / seen,
        .feature_loss = !r->features ? NAN
                        : finished   ? finished->feature_loss
                                     : r->at.feature_sum / seen,
        .rate = rate,
        .images_per_second = finished ? finished->images_per_second : seen / epoch_seconds,
        .seconds = seconds,
        .left = seconds / (double)r->at.step * (double)(r->last - r->at.step),
        .finished = finished,
    };
    if (!has_answers(r))
        p.accuracy = NAN;
    return o->progress(o->progress_ctx, &p, err);
}

/* ---- the run ---- */

static int stopped(struct run *r, struct err *err)
{
    int rc = save(r, err);
    if (rc < 0)
        return rc;
    return err_set(err, ERR_CANCELLED, "stopped in epoch %lld of %d, after step %lld of %lld",
                   (long long)(r->at.step / r->per_epoch + (r->at.step % r->per_epoch > 0)),
                   r->options->epochs, (long long)r->at.step, (long long)r->steps);
}

static int loop(struct run *r, struct err *err)
{
    const struct train_options *o = r->options;
    const double every = o->checkpoint_seconds > 0 ? o->checkpoint_seconds : CHECKPOINT_SECONDS;
    while (r->at.step < r->last) {
        double rate = 0;
        const struct train_epoch *finished = NULL;
        int rc = step(r, &rate, err);
        if (rc == 0 && r->at.step % r->per_epoch == 0) {
            rc = end_epoch(r, rate, err);
            finished = &r->curve[r->at.n_epochs - 1];
        }
        if (rc == 0)
            rc = report(r, rate, finished, err);
        if (rc < 0)
            return rc;
        if (o->stop && r->at.step < r->last && o->stop(o->stop_ctx))
            return stopped(r, err);
        if (since(r->saved_ns) >= every && (rc = save(r, err)) < 0)
            return rc;
    }
    return r->last < r->steps ? save(r, err) : 0;
}

/* A teacher that looked at other pictures teaches noise. */
static int check_views(const struct run *r, struct err *err)
{
    const struct train_options *o = r->options;
    char key[HASH_HEX_BYTES];
    if (!o->teacher || !o->data)
        return 0;
    int rc = teacher_views_key(&r->settings.views, o->data, key, err);
    if (rc == 0 && strcmp(key, teacher_key(o->teacher)) != 0)
        rc = err_set(
            err, ERR_FAILED_PRECONDITION, "%s",
            "the teacher's answers are about other views: data, augmentation or seed differ");
    return rc;
}

static int check(const struct run *r, struct err *err)
{
    const struct train_options *o = r->options;
    const bool labels = dataset_classes(r->ds) > 0 && dataset_classes(r->ds) <= r->loss.width;
    if (o->epochs < 1 || o->batch < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d epochs of batches of %lld", o->epochs,
                       (long long)o->batch);
    if (!labels && (!o->teacher || o->distil < 1))
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "the data has no labels for the network's %lld answers: only a teacher "
                       "can be learned from",
                       (long long)r->loss.width);
    if (o->teacher && teacher_width(o->teacher) != r->loss.width)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the teacher gives %lld answers, the network %lld",
                       (long long)teacher_width(o->teacher), (long long)r->loss.width);
    return 0;
}

static int open_features(struct run *r, struct err *err)
{
    const struct train_features *f = r->options->features;
    const struct features_options options = {.batch = r->options->batch,
                                             .sample = train_net_input_width(r->net),
                                             .threads = r->options->threads,
                                             .precision = f ? f->precision : PRECISION_FP32};
    if (!f)
        return 0;
    for (int i = 0; i < f->pairs.n; i++) {
        const struct loss_features *shape = &f->pairs.pairs[i].shape;
        if (train_net_output_width(r->net, 1 + i) != shape->channels * shape->pixels)
            return err_set(err, ERR_INVALID_ARGUMENT, "features: '%s' has another shape",
                           f->pairs.pairs[i].student);
    }
    return features_open(f->teacher, &f->pairs, &options, &r->features, err);
}

static int open_network(const struct graph *g, struct run *r, struct err *err)
{
    const struct train_options *o = r->options;
    const int n_taps = o->features ? o->features->pairs.n : 0;
    for (int i = 0; i < n_taps; i++)
        r->taps[i] = o->features->pairs.pairs[i].student;
    const struct train_net_options net = {.batch = o->batch,
                                          .threads = o->threads,
                                          .slice = o->slice,
                                          .precision = o->precision,
                                          .original = o->original,
                                          .norm_momentum = o->norm_momentum,
                                          .seed = o->seed,
                                          .n_taps = n_taps,
                                          .taps = r->taps};
    int64_t shape[3];
    r->quantized = quant_is_quantized(g);
    dataset_sample_shape(r->ds, shape);
    int rc = train_net_new(g, &net, &r->net, err);
    if (rc < 0)
        return rc;
    if (train_net_input_width(r->net) != shape[0] * shape[1] * shape[2])
        return err_set(
            err, ERR_INVALID_ARGUMENT, "samples have %lld numbers, the network takes %lld",
            (long long)(shape[0] * shape[1] * shape[2]), (long long)train_net_input_width(r->net));
    r->loss = (struct loss){.width = train_net_output_width(r->net, 0),
                            .smoothing = o->smoothing,
                            .distil = o->teacher ? o->distil : 0,
                            .temperature = o->temperature > 0 ? o->temperature : 1};
    r->metric = judge_metric_of(o->judge, r->ds, r->loss.width, r->loss.distil < 1);
    return check(r, err);
}

static int open_optimizer(struct run *r, struct err *err)
{
    const int n = train_net_n_params(r->net);
    struct train_param **params =
        arena_alloc(r->arena, (size_t)n + 1, sizeof(struct train_param *));
    struct optimizer_options options = r->options->optimizer;
    if (!params)
        return err_oom(err, "parameters");
    int trained = 0;
    for (int i = 0; i < n; i++) {
        struct train_param *p = train_net_param(r->net, i);
        if (!r->options->frozen || strcmp(p->name, r->options->frozen) != 0)
            params[trained++] = p;
    }
    if (r->options->frozen && trained == n)
        return err_set(err, ERR_NOT_FOUND, "no weights '%s' to freeze", r->options->frozen);
    options.threads = r->options->threads;
    int rc = optimizer_new(params, trained, &options, &r->optimizer, err);
    if (rc == 0 && r->options->ema > 0)
        rc = average_new(r->net, &r->ema, err);
    if (rc == 0 && r->options->lookahead > 0)
        rc = average_new(r->net, &r->slow, err);
    return rc;
}

static int64_t spare_of(const struct run *r)
{
    const struct train_features *f = r->options->features;
    int64_t most = loss_spare(&r->loss);
    for (int i = 0; f && i < f->pairs.n; i++)
        if (loss_features_spare(&f->pairs.pairs[i].shape) > most)
            most = loss_features_spare(&f->pairs.pairs[i].shape);
    return most;
}

static int take_memory(struct run *r, struct err *err)
{
    const struct train_options *o = r->options;
    const int lanes = train_net_lanes(r->net);
    int rc = train_spans(r->net, r->arena, &r->spans, &r->n_spans, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < r->n_spans; i++)
        r->n_weights += r->spans[i].n;
    const bool branches_off = o->schedule.kind == SCHEDULE_TRAPEZOID;
    r->weights = mem_aligned((size_t)(r->n_weights + 1) * sizeof(*r->weights));
    r->trunk = branches_off ? mem_calloc((size_t)r->n_weights + 1, sizeof(*r->trunk)) : NULL;
    r->losses = arena_alloc(r->arena, (size_t)o->batch, sizeof(*r->losses));
    r->feature_losses = arena_alloc(r->arena, (size_t)o->batch, sizeof(*r->feature_losses));
    r->hits = arena_alloc(r->arena, (size_t)o->batch, 1);
    r->lanes = arena_alloc(r->arena, (size_t)lanes, sizeof(*r->lanes));
    r->curve = mem_calloc((size_t)o->epochs + 1, sizeof(*r->curve));
    if (!r->weights || (branches_off && !r->trunk) || !r->losses || !r->feature_losses ||
        !r->hits || !r->lanes || !r->curve)
        return err_oom(err, "training");
    for (int i = 0; i < lanes; i++) {
        r->lanes[i].spare = arena_alloc(r->arena, (size_t)spare_of(r), sizeof(*r->lanes[i].spare));
        if (!r->lanes[i].spare)
            return err_oom(err, "training");
    }
    return 0;
}

static int open_run(const struct graph *g, struct run *r, struct err *err)
{
    const struct train_options *o = r->options;
    r->arena = arena_new();
    if (!r->arena)
        return err_oom(err, "training");
    int rc = open_network(g, r, err);
    if (rc == 0)
        rc = open_optimizer(r, err);
    if (rc == 0)
        rc = open_features(r, err);
    if (rc == 0)
        rc = take_memory(r, err);
    if (rc == 0)
        rc = describe(g, r, err);
    if (rc < 0)
        return rc;
    r->settings = (struct batch_settings){
        .views =
            {.ds = r->ds, .part = PART_TRAIN, .pre = *r->pre, .how = o->augment, .seed = o->seed},
        .seed = o->seed,
        .batch = o->batch,
        .mixup = o->mixup,
        .teacher = o->teacher,
        .features = r->features,
        .pairs = o->features ? &o->features->pairs : NULL,
        .features_pre = o->features ? &o->features->pre : NULL,
    };
    r->per_epoch = batches_per_epoch(&r->settings);
    r->steps = r->per_epoch * o->epochs;
    r->last =
        o->stop_after > 0 && o->stop_after < o->epochs ? r->per_epoch * o->stop_after : r->steps;
    rc = check_views(r, err);
    if (rc == 0)
        rc = restore(r, err);
    if (rc == 0)
        rc = batches_open(&r->settings, r->at.step, r->last, &r->batches, err);
    return rc;
}

static void keep_curve(struct run *r, struct train_result *ret)
{
    r->busy += since(r->epoch_began_ns);
    *ret = (struct train_result){
        .curve = TAKE_PTR(r->curve),
        .n_epochs = r->at.n_epochs,
        .seconds = r->seconds_before + since(r->began_ns),
        .images_per_second = r->seen > 0 ? (double)r->seen / r->busy : 0,
        .samples_seen = r->seen,
        .memory = train_net_memory(r->net),
        .precision = train_net_precision(r->net),
        .metric = r->metric,
    };
}

int train_run(const struct graph *g, const struct dataset *ds, const struct preprocess *pre,
              const struct train_options *options, struct train_result *ret, struct err *err)
{
    _cleanup_(run_release) struct run r = {.ds = ds, .pre = pre, .options = options};
    _cleanup_(graph_freep) struct graph *trained = NULL, *trunk = NULL;
    int rc = open_run(g, &r, err);
    if (rc < 0)
        return rc;
    r.began_ns = r.epoch_began_ns = r.saved_ns = clock_now_ns(NULL);
    rc = loop(&r, err);
    if (rc == 0)
        rc = export_now(&r, &trained, err);
    if (rc == 0)
        rc = export_trunk(&r, &trunk, err);
    if (rc < 0 && rc != -ERR_CANCELLED)
        return rc;
    keep_curve(&r, ret);
    ret->graph = TAKE_PTR(trained);
    ret->trunk = TAKE_PTR(trunk);
    return rc;
}
