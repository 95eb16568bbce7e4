/*
 * BatchNormalization with the statistics of the slice, together with a following addition and Relu
 * (or Clip): two passes over the data forward, two backward.
 *
 *     y = clamp(a * x + b + r),  a = scale / sqrt(var + epsilon),  b = shift - a * mean
 *     g = dy where y is inside;  dr = g
 *     dx = a * (g - mean(g) - xhat * mean(g * xhat))
 */
#include <math.h>
#include <string.h>

#include "shared/train/kernel_norm.h"
#include "shared/train/net_priv.h"

struct norm {
    int64_t n, c, period; /* elements, channels */
    float epsilon, low, high;
    bool clamps, adds;
    int scale, shift; /* slots */
    int mean, var;    /* states */
    int work;         /* lane buffer, see below */
    int g;            /* buffer of the gradient behind the clamp; -1: not kept */
};

/* What a lane keeps: from forward to backward, and sums over its slices. */
struct norm_work {
    float *mean, *istd, *slices_mean, *slices_var;  /* [c] */
    float *sum, *sum2;                              /* [c] */
    float *a, *b, *s1, *s2, *p, *q, *t, *mean_long; /* [period] */
};
enum { WORK_C = 6, WORK_PERIOD = 8 };

static struct norm_work work_of(const struct norm *v, const struct lane *lane)
{
    float *at = lane_at(lane, v->work), *more = at + WORK_PERIOD * v->period;
    struct norm_work w = {.a = at,
                          .b = at + v->period,
                          .s1 = at + 2 * v->period,
                          .s2 = at + 3 * v->period,
                          .p = at + 4 * v->period,
                          .q = at + 5 * v->period,
                          .t = at + 6 * v->period,
                          .mean_long = at + 7 * v->period,
                          .mean = more,
                          .istd = more + v->c,
                          .slices_mean = more + 2 * v->c,
                          .slices_var = more + 3 * v->c,
                          .sum = more + 4 * v->c,
                          .sum2 = more + 5 * v->c};
    return w;
}

static struct norm_job job_of(const struct tape_op *op, const struct lane *lane,
                              const struct norm_work *w)
{
    const struct norm *v = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    return (struct norm_job){.dtype = x->dtype,
                             .n = v->n,
                             .period = v->period,
                             .x = lane_at(lane, x->data),
                             .y = lane_at(lane, y->data),
                             .a = w->a,
                             .b = w->b,
                             .low = v->low,
                             .high = v->high,
                             .mask = !v->clamps ? NORM_ALL
                                     : v->adds  ? NORM_BY_Y
                                                : NORM_BY_X};
}

static void prepare_norm(const struct tape_op *op, struct lane *lane)
{
    const struct norm *v = op->state;
    struct norm_work w = work_of(v, lane);
    memset(w.slices_mean, 0, (size_t)v->c * sizeof(float));
    memset(w.slices_var, 0, (size_t)v->c * sizeof(float));
}

/* Sums of x - k, k being the first row, so that a large mean does not swallow the deviations. */
static void statistics(const struct tape_op *op, const struct lane *lane,
                       const struct norm_job *job, struct norm_work *w)
{
    const struct norm *v = op->state;
    const double rows = (double)(v->n / v->c);
    kernel_load(w->sum, job->x, job->dtype, v->c);
    norm_repeat(w->mean_long, w->sum, v->c);
    norm_sums(job, w->mean_long, w->s1, w->s2);
    for (int64_t k = 0; k < v->c; k++) {
        double s1 = 0, s2 = 0, first = (double)w->mean_long[k];
        for (int64_t i = k; i < v->period; i += v->c) {
            s1 += (double)w->s1[i];
            s2 += (double)w->s2[i];
        }
        double mean = s1 / rows, var = s2 / rows - mean * mean;
        var = var > 0 ? var : 0;
        w->mean[k] = (float)(first + mean);
        w->istd[k] = (float)(1 / sqrt(var + (double)v->epsilon));
        w->slices_mean[k] += w->mean[k];
        w->slices_var[k] += (float)(rows > 1 ? var * rows / (rows - 1) : var);
    }
    const float *scale = lane->net->params[lane->net->slots[v->scale].param].value;
    const float *shift = lane->net->params[lane->net->slots[v->shift].param].value;
    for (int64_t k = 0; k < v->c; k++) {
        w->sum[k] = scale[k] * w->istd[k];
        w->sum2[k] = shift[k] - w->sum[k] * w->mean[k];
    }
    norm_repeat(w->a, w->sum, v->c);
    norm_repeat(w->b, w->sum2, v->c);
}

static int norm_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct norm *v = op->state;
    struct norm_work w = work_of(v, lane);
    struct norm_job job = job_of(op, lane, &w);
    statistics(op, lane, &job, &w);
    job.add = v->adds ? lane_at(lane, lane->net->vals[op->in[1]].data) : NULL;
    norm_apply(&job, lane_at(lane, lane->net->vals[op->out[0]].data));
    return 0;
}

/* Gradients of scale and shift; coefficients of dx = p * g + q * x + t. */
static void gradients(const struct tape_op *op, const struct lane *lane, struct norm_work *w)
{
    const struct norm *v = op->state;
    const float rows = (float)(v->n / v->c);
    float *scale = lane_at(lane, lane->net->slots[v->scale].acc);
    float *shift = lane_at(lane, lane->net->slots[v->shift].acc);
    norm_fold(w->sum, w->s1, v->c);
    norm_fold(w->sum2, w->s2, v->c);
    for (int64_t k = 0; k < v->c; k++) {
        float xhat = w->sum2[k] * w->istd[k];
        scale[k] = (lane->first ? 0 : scale[k]) + xhat;
        shift[k] = (lane->first ? 0 : shift[k]) + w->sum[k];
        float q = -w->a[k] * w->istd[k] * xhat / rows;
        w->sum2[k] = q;
        w->sum[k] = -w->a[k] * w->sum[k] / rows - q * w->mean[k];
    }
    norm_repeat(w->p, w->a, v->c);
    norm_repeat(w->q, w->sum2, v->c);
    norm_repeat(w->t, w->sum, v->c);
}

static int norm_step_back(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct norm *v = op->state;
    const struct val *y = &lane->net->vals[op->out[0]];
    struct norm_work w = work_of(v, lane);
    struct norm_job job = job_of(op, lane, &w);
    void *g = v->g >= 0 ? lane_at(lane, v->g) : NULL;
    job.add = y->grad2 >= 0 ? lane_at(lane, y->grad2) : NULL;
    norm_repeat(w.mean_long, w.mean, v->c);
    norm_backward_sums(&job, lane_at(lane, y->grad), g, w.mean_long, w.s1, w.s2);
    gradients(op, lane, &w);
    if (g)
        job.mask = NORM_ALL; /* done */
    job.add = NULL;
    if (op->in_grad[0] >= 0)
        norm_backward(&job, g ? g : lane_at(lane, y->grad), lane_at(lane, op->in_grad[0]), w.p, w.q,
                      w.t);
    return 0;
}

static int plan_norm(struct compiler *c, struct tape_op *op, struct err *err)
{
    struct norm *v = op->state;
    const struct val *y = &c->net->vals[op->out[0]];
    bool residual = v->adds && c->net->vals[op->in[1]].needs_grad;
    compile_backward_use(c, op, c->net->vals[op->in[0]].data);
    if (v->clamps && v->adds)
        compile_backward_use(c, op, y->data);
    v->g = -1;
    if (residual || y->grad2 >= 0) {
        v->g = y->grad_shared ? compile_buffer(c, HOME_PLANNED, val_bytes(y), err) : y->grad;
        if (v->g < 0)
            return v->g;
        compile_backward_use(c, op, v->g);
    }
    int rc = residual ? compile_pass_edge(c, op, 1, v->g, false, err) : 0;
    if (rc < 0)
        return rc;
    /* dx may lie where dy was, when nobody else reads that */
    if (!residual && !y->grad_shared)
        return compile_pass_edge(c, op, 0, y->grad, false, err);
    return compile_edge(c, op, 0, err);
}

static void finish_norm(const struct tape_op *op, struct train_net *net)
{
    const struct norm *v = op->state;
    float *mean = net->states[v->mean].value, *var = net->states[v->var].value;
    const float momentum = net->options.norm_momentum, slices = (float)net->slices;
    for (int64_t k = 0; k < v->c; k++) {
        float m = 0, s = 0;
        for (int l = 0; l < net->n_lanes; l++) {
            struct norm_work w = work_of(v, &net->lanes[l]);
            m += w.slices_mean[k];
            s += w.slices_var[k];
        }
        mean[k] += momentum * (m / slices - mean[k]);
        var[k] += momentum * (s / slices - var[k]);
    }
}

static const struct op_kind norm_kind = {.name = "normalisation",
                                         .plan = plan_norm,
                                         .forward = norm_forward,
                                         .backward = norm_step_back,
                                         .prepare = prepare_norm,
                                         .finish = finish_norm,
                                         .grads = 2};

/* ---- from nodes ---- */

/* Bounds of a Relu or a Clip by constants that contains 0 as its lower bound. */
static bool clamp_of(const struct compiler *c, const struct node *node, float *low, float *high)
{
    *low = 0;
    *high = INFINITY;
    if (node->op == OP_RELU)
        return true;
    if (node->op != OP_CLIP)
        return false;
    return compile_clip(c, node, low, high);
}

/* A clamp that alone reads the value becomes part of the operator. */
static int take_clamp(struct compiler *c, int value, struct norm *v)
{
    int at = uses_sole(&c->uses, value);
    v->low = -INFINITY;
    v->high = INFINITY;
    if (at < 0 || c->taken[at] || c->uses.is_output[value] ||
        !clamp_of(c, c->g->nodes[at], &v->low, &v->high)) {
        v->low = -INFINITY;
        v->high = INFINITY;
        return value;
    }
    v->clamps = true;
    c->taken[at] = true;
    return c->g->nodes[at]->outputs[0];
}

static int add_parameters(struct compiler *c, const struct node *node, struct norm *v,
                          struct err *err)
{
    int p = compile_param(c, node->inputs[1], TRAIN_NORM_SCALE, err);
    v->scale = p < 0 ? p : compile_slot(c, p, v->c, err);
    if (v->scale < 0)
        return v->scale;
    p = compile_param(c, node->inputs[2], TRAIN_NORM_SHIFT, err);
    v->shift = p < 0 ? p : compile_slot(c, p, v->c, err);
    if (v->shift < 0)
        return v->shift;
    v->mean = compile_state(c, node->inputs[3], err);
    v->var = v->mean < 0 ? v->mean : compile_state(c, node->inputs[4], err);
    return v->var < 0 ? v->var : 0;
}

/* `added`: value of the graph that the result is added to, -1; `result`: where the sum goes. */
static int emit_norm(struct compiler *c, const struct node *node, int added, int result,
                     struct err *err)
{
    struct norm v = {.epsilon = node_float(node, "epsilon", 1e-5f), .adds = added >= 0, .g = -1};
    int in[2] = {compile_val_of(c, node->inputs[0]), compile_val_of(c, added)};
    const struct val *x = &c->net->vals[in[0]];
    enum dtype dtype = x->dtype;
    v.c = x->c;
    v.n = val_elements(x);
    v.period = norm_period(v.c);
    for (int i = 1; i < 5; i++) {
        const struct tensor *t = compile_constant(c, node, i);
        if (!t || shape_elements(&t->shape) != v.c)
            return compile_refuse(node, err, "its statistics are not constants of its channels");
    }
    if (added >= 0 && c->net->vals[in[1]].dtype != dtype)
        return compile_refuse(node, err, "operands of two precisions");
    int out = compile_val(c, take_clamp(c, result, &v), dtype, -1, err);
    int rc = out < 0 ? out : add_parameters(c, node, &v, err);
    if (rc < 0)
        return rc;
    v.work = compile_buffer(c, HOME_LANE,
                            (size_t)(WORK_PERIOD * v.period + WORK_C * v.c) * sizeof(float), err);
    struct tape_op *op =
        v.work < 0 ? NULL
                   : compile_op(c, &norm_kind, node, v.adds ? 2 : 1, in, 1, &out, sizeof(v), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, &v, sizeof(v));
    c->net->vals[out].needs_grad = true;
    return 0;
}

/* The Add that alone reads the value, of another one of the same shape: that Add makes the
 * operator, for only then the other operand is there. */
static bool waits_for_add(const struct compiler *c, const struct node *node)
{
    int v = node->outputs[0], at = uses_sole(&c->uses, v);
    if (at < 0 || c->taken[at] || c->uses.is_output[v] || c->g->nodes[at]->op != OP_ADD)
        return false;
    const struct node *add = c->g->nodes[at];
    int other = add->inputs[add->inputs[0] == v];
    return other != v && !c->g->values[other]->constant &&
           shape_equal(&c->g->values[other]->shape, &c->g->values[v]->shape);
}

int make_norm(struct compiler *c, const struct node *node, struct err *err)
{
    if (node_int(node, "training_mode", 0) != 0 && node->n_outputs > 1)
        return compile_refuse(node, err, "its statistics are outputs");
    if (waits_for_add(c, node)) {
        c->waiting[node->outputs[0]] = true;
        return 0;
    }
    return emit_norm(c, node, -1, node->outputs[0], err);
}

int make_norm_and_add(struct compiler *c, const struct node *add, struct err *err)
{
    int first = -1;
    for (int i = 0; i < 2; i++) {
        int v = add->inputs[i];
        if (v < 0 || !c->waiting[v])
            continue;
        c->waiting[v] = false;
        if (first < 0) {
            first = v;
            continue;
        }
        int rc = emit_norm(c, c->g->nodes[c->g->values[v]->producer], -1, v, err);
        if (rc < 0)
            return rc;
    }
    if (first < 0)
        return 0;
    int rc = emit_norm(c, c->g->nodes[c->g->values[first]->producer],
                       add->inputs[add->inputs[0] == first], add->outputs[0], err);
    return rc < 0 ? rc : 1;
}
