#include "services/trainer/imitation.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/graph/cuts.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "shared/train/batches.h"
#include "shared/train/optimizer.h"
#include "shared/train/schedule.h"
#include "shared/train/unfold.h"

#define INPUT (-1)  /* in place of a value's number: what the parent reads */
#define LAST_PART 8 /* of the steps: whose loss counts */
#define PROBE 10    /* steps after the first that say how long steps take */

/* One part that learns. */
struct learner {
    struct imitation *part;
    int from, to; /* numbers of values */
    struct graph *g;
    struct train_net *net;
    struct optimizer *optimizer;
    int64_t width;       /* of what it yields */
    const float *target; /* of the step that is going on */
    double power;
    double *losses; /* [batch]: of slices, at their first sample */
    double first;   /* loss of the first step, before anything was learned */
    double sum;     /* of losses that count */
};

struct school {
    const struct imitation_options *options;
    struct arena *arena;
    struct graph *parent; /* up to the last value that is needed */
    int64_t sample;       /* numbers that it reads */
    struct feature_pairs values;
    struct features *features;
    struct batch_settings settings;
    struct batches *batches;
    int n;
    struct learner *learners;
    int64_t steps;
    int64_t began_ns, stepped_ns; /* all of it; the step after the first */
};

static void school_release(struct school *s)
{
    batches_close(s->batches);
    features_close(s->features);
    graph_free(s->parent);
    for (int i = 0; s->learners && i < s->n; i++) {
        graph_free(s->learners[i].g);
        train_net_free(s->learners[i].net);
        optimizer_free(s->learners[i].optimizer);
    }
    arena_free(s->arena);
}

/* ---- the parent ---- */

static int value_number(struct school *s, const struct graph *parent, const char *name, int *ret,
                        struct err *err)
{
    const int v = graph_find_value(parent, name);
    if (v < 0 || !parent->values[v]->shape_known || parent->values[v]->dtype != DTYPE_F32)
        return err_set(err, ERR_INVALID_ARGUMENT, "the original has no value '%.80s' to learn from",
                       name);
    *ret = INPUT;
    if (parent->n_inputs == 1 && parent->inputs[0] == v)
        return 0;
    for (*ret = 0; *ret < s->values.n; ++*ret)
        if (strcmp(s->values.pairs[*ret].teacher, name) == 0)
            return 0;
    if (s->values.n == IMITATION_VALUES)
        return err_set(err, ERR_INVALID_ARGUMENT, "more than %d values to learn from",
                       IMITATION_VALUES);
    const int64_t n = shape_elements_at(&parent->values[v]->shape, 1);
    s->values.pairs[s->values.n++] = (struct feature_pair){
        .teacher = name, .shape = {.parent_channels = n, .channels = n, .pixels = 1}};
    return 0;
}

static bool is_wanted(const struct school *s, const char *name)
{
    for (int i = 0; i < s->values.n; i++)
        if (strcmp(s->values.pairs[i].teacher, name) == 0)
            return true;
    return false;
}

/* The last block that somebody learns from. */
static int last_block(const struct school *s, const struct graph *parent, const struct cuts *cuts)
{
    int last = 0;
    for (int b = 0; b < cuts->n_blocks; b++)
        if (cuts->blocks[b].to >= 0 && is_wanted(s, parent->values[cuts->blocks[b].to]->name))
            last = b;
    return last;
}

/* What lies behind is not run. The last value itself is looked at, so it is no output. */
static int cut_parent(struct school *s, const struct graph *parent, struct err *err)
{
    struct cuts cuts;
    int rc = graph_cuts(parent, s->arena, &cuts, err);
    if (rc == 0)
        rc = graph_extract_blocks(parent, &cuts, 0, last_block(s, parent, &cuts), &s->parent, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < s->parent->n_outputs; i++) {
        const int node = graph_add_node(s->parent, -1, OP_IDENTITY, NULL, 1, &s->parent->outputs[i],
                                        1, NULL, err);
        if (node < 0)
            return node;
        s->parent->outputs[i] = s->parent->nodes[node]->outputs[0];
    }
    return graph_infer(s->parent, err);
}

/* In bf16 where the CPU has it: its rounding is far below what anybody learns to imitate. */
static enum precision parent_precision(const struct imitation_options *o)
{
    return o->precision != PRECISION_FP32 && nn_has_bf16() ? PRECISION_BF16 : PRECISION_FP32;
}

static int open_parent(struct school *s, const struct graph *parent, const struct dataset *ds,
                       struct err *err)
{
    const struct imitation_options *o = s->options;
    int64_t shape[3];
    dataset_sample_shape(ds, shape);
    s->sample = shape[0] * shape[1] * shape[2];
    const struct features_options options = {.batch = o->batch,
                                             .sample = s->sample,
                                             .threads = o->threads,
                                             .precision = parent_precision(o)};
    int rc = cut_parent(s, parent, err);
    return rc < 0 ? rc : features_open(s->parent, &s->values, &options, &s->features, err);
}

/* ---- learners ---- */

static const float *values_of(const struct batch *batch, int number)
{
    return number == INPUT ? batch->x : batch->features[number];
}

struct look {
    const float *rows;
    int64_t width;
};

static int fill_rows(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)err;
    const struct look *l = ctx;
    memcpy(out, l->rows + first * l->width, (size_t)(count * l->width) * sizeof(*out));
    return 0;
}

static int64_t input_width(const struct graph *g)
{
    return shape_elements_at(&g->values[g->inputs[0]]->shape, 1);
}

static int open_optimizer(struct learner *l, const struct school *s, struct err *err)
{
    const int n = train_net_n_params(l->net);
    struct train_param **params = arena_alloc(s->arena, (size_t)n + 1, sizeof(*params));
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_ADAM);
    if (!params)
        return err_oom(err, "an optimizer");
    for (int i = 0; i < n; i++)
        params[i] = train_net_param(l->net, i);
    options.decay = 0;
    options.threads = s->options->threads;
    return optimizer_new(params, n, &options, &l->optimizer, err);
}

/* Numbers of one of the parent's values, for a sample. */
static int64_t width_of(const struct school *s, int number)
{
    return number == INPUT ? s->sample : s->values.pairs[number].shape.channels;
}

static int check_ports(const struct learner *l, const struct school *s, struct err *err)
{
    const struct graph *g = l->g;
    if (g->n_inputs != 1 || g->n_outputs != 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "it has %d inputs and %d outputs", g->n_inputs,
                       g->n_outputs);
    if (input_width(g) != width_of(s, l->from))
        return err_set(err, ERR_INVALID_ARGUMENT, "it reads %lld values, the original has %lld",
                       (long long)input_width(g), (long long)width_of(s, l->from));
    return 0;
}

/* Brings a part into training form, with norms by the parent's values in the first batch. */
static int enter(struct learner *l, const struct school *s, const struct batch *first,
                 struct err *err)
{
    const struct imitation_options *o = s->options;
    const struct unfold_options unfold = {.threads = o->threads};
    const struct train_net_options options = {
        .batch = o->batch, .threads = o->threads, .precision = o->precision, .seed = o->seed};
    int rc = graph_clone(l->part->network, &l->g, err);
    if (rc == 0)
        rc = check_ports(l, s, err);
    if (rc < 0)
        return rc;
    struct look look = {values_of(first, l->from), input_width(l->g)};
    rc = unfold_batchnorm(l->g, &unfold, o->batch, fill_rows, &look, err);
    if (rc >= 0)
        rc = train_net_new(l->g, &options, &l->net, err);
    if (rc < 0)
        return rc;
    l->width = train_net_output_width(l->net, 0);
    if (l->width != width_of(s, l->to))
        return err_set(err, ERR_INVALID_ARGUMENT, "it yields %lld values, the original %lld",
                       (long long)l->width, (long long)width_of(s, l->to));
    l->losses = arena_alloc(s->arena, (size_t)o->batch, sizeof(*l->losses));
    return l->losses ? open_optimizer(l, s, err) : err_oom(err, "losses");
}

static void leave(struct learner *l)
{
    l->net = train_net_free(l->net);
    l->optimizer = optimizer_free(l->optimizer);
    l->g = graph_free(l->g);
}

static int loss_of(void *ctx, int lane, int64_t first, int64_t count, const float *const *outputs,
                   float *const *gradients, struct err *err)
{
    (void)lane;
    (void)err;
    struct learner *l = ctx;
    l->losses[first] = loss_feature(outputs[0], l->target + first * l->width, count * l->width,
                                    l->power, 1, gradients[0]);
    return 0;
}

static int learn(struct learner *l, const struct school *s, const struct batch *batch,
                 struct err *err)
{
    const int64_t n = s->options->batch;
    const struct schedule schedule = schedule_make(SCHEDULE_COSINE, s->options->rate);
    l->target = values_of(batch, l->to);
    l->power = loss_power(l->target, n * l->width);
    if (!(l->power > 0)) /* the parent says nothing here */
        return 0;
    memset(l->losses, 0, (size_t)n * sizeof(*l->losses));
    int rc = train_net_step(l->net, values_of(batch, l->from), loss_of, l, err);
    if (rc == 0)
        rc = optimizer_step(l->optimizer, schedule_rate(&schedule, batch->step, s->steps), NULL,
                            err);
    for (int64_t i = 0; rc == 0 && batch->step == 0 && i < n; i++)
        l->first += l->losses[i];
    for (int64_t i = 0; rc == 0 && i < n; i++)
        l->sum +=
            batch->step >= s->steps - (s->steps + LAST_PART - 1) / LAST_PART ? l->losses[i] : 0;
    return rc;
}

/* ---- the run ---- */

static int each_learns(struct school *s, const struct batch *batch, struct err *err)
{
    for (int i = 0; i < s->n; i++) {
        struct learner *l = &s->learners[i];
        int rc = l->part->why.code ? 0 : batch->step == 0 ? enter(l, s, batch, &l->part->why) : 0;
        if (rc >= 0 && !l->part->why.code)
            rc = learn(l, s, batch, &l->part->why);
        if (rc < 0 || l->part->why.code)
            leave(l);
        rc = s->options->progress
                 ? s->options->progress(s->options->progress_ctx, batch->step * s->n + i,
                                        s->steps * s->n, err)
                 : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* What has been learned, in the form in which it can stand in the parent. Few steps can make
 * weights that fit worse: then the part stays as it was. */
static int graduate(struct learner *l, const struct school *s, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    const int64_t counted = (s->steps + LAST_PART - 1) / LAST_PART;
    const double loss = counted > 0 ? l->sum / (double)counted : (double)NAN;
    const bool better = l->net && loss <= l->first;
    int rc = better ? train_net_export(l->net, &g, err) : graph_clone(l->part->network, &g, err);
    if (rc >= 0)
        rc = pass_simplify_branched(g, err);
    if (rc < 0)
        return rc;
    l->part->loss = counted > 0 ? fmin(loss, l->first) : loss;
    l->part->trained = TAKE_PTR(g);
    return 0;
}

static double since(int64_t ns)
{
    return (double)(clock_now_ns(NULL) - ns) / 1e9;
}

/* After the probe: as many steps as fit, the schedule with them. */
static void keep_time(struct school *s, int64_t step)
{
    if (step == 1)
        s->stepped_ns = clock_now_ns(NULL);
    if (step != 1 + PROBE || !(s->options->seconds > 0))
        return;
    const double left = s->options->seconds - since(s->began_ns);
    const double fit = (double)step + fmax(left, 0) * PROBE / fmax(since(s->stepped_ns), 1e-9);
    if (fit < (double)s->steps)
        s->steps = fit > 2 * PROBE ? (int64_t)fit : 2 * PROBE;
}

static int teach(struct school *s, struct err *err)
{
    int rc = 0;
    for (int64_t step = 0; rc == 0 && step < s->steps; step++) {
        const struct batch *batch;
        if (s->steps > 2 * PROBE)
            keep_time(s, step);
        rc = batches_next(s->batches, &batch, err);
        if (rc == 0)
            rc = each_learns(s, batch, err);
    }
    for (int i = 0; rc == 0 && i < s->n; i++)
        if (!s->learners[i].part->why.code)
            graduate(&s->learners[i], s, &s->learners[i].part->why);
    return rc;
}

static int open_school(struct school *s, const struct graph *parent, const struct dataset *ds,
                       const struct preprocess *pre, struct imitation *list, struct err *err)
{
    const struct imitation_options *o = s->options;
    s->arena = arena_new();
    s->learners = s->arena ? arena_alloc(s->arena, (size_t)s->n + 1, sizeof(*s->learners)) : NULL;
    if (!s->learners)
        return err_oom(err, "parts of a network");
    int rc = 0;
    for (int i = 0; rc == 0 && i < s->n; i++) {
        s->learners[i].part = &list[i];
        rc = value_number(s, parent, list[i].from, &s->learners[i].from, err);
        if (rc == 0)
            rc = value_number(s, parent, list[i].to, &s->learners[i].to, err);
        if (rc == 0 && s->learners[i].to == INPUT)
            rc = err_set(err, ERR_INVALID_ARGUMENT, "%s", "nothing lies before the input");
    }
    s->steps = o->batch > 0 ? (o->samples + o->batch - 1) / o->batch : 0;
    if (rc < 0 || s->steps == 0)
        return rc;
    rc = open_parent(s, parent, ds, err);
    s->settings = (struct batch_settings){
        .views = {.ds = ds, .part = PART_TRAIN, .pre = *pre, .how = o->augment, .seed = o->seed},
        .seed = o->seed,
        .batch = o->batch,
        .features = s->features,
        .pairs = &s->values,
        .features_pre = pre};
    return rc < 0 ? rc : batches_open(&s->settings, 0, s->steps, &s->batches, err);
}

int imitation_run(const struct graph *parent, const struct dataset *ds,
                  const struct preprocess *pre, const struct imitation_options *options,
                  struct imitation *list, int n, struct imitation_done *ret, struct err *err)
{
    _cleanup_(school_release) struct school s = {.options = options,
                                                 .began_ns = clock_now_ns(NULL)};
    for (int i = 0; i < n; i++) {
        list[i].trained = NULL;
        list[i].why = (struct err){0};
    }
    s.n = n;
    int rc = open_school(&s, parent, ds, pre, list, err);
    if (rc == 0)
        rc = teach(&s, err);
    *ret = (struct imitation_done){since(s.began_ns), s.steps * options->batch};
    if (rc == 0)
        return 0;
    for (int i = 0; i < n; i++)
        list[i].trained = graph_free(list[i].trained);
    return rc;
}
