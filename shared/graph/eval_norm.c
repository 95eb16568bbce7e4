/* BatchNormalization, LRN, Softmax, ReduceMean. */
#include <math.h>
#include <stdlib.h>

#include "shared/graph/eval_internal.h"

/* ---- BatchNormalization ------------------------------------------------------------------- */

static int refuse_training(struct eval *e)
{
    const struct node *node = e->node;
    bool training = node_int(node, "training_mode", 0) != 0;
    for (int i = 1; i < node->n_outputs; i++)
        training = training || eval_wants(e, i);
    return training ? eval_unsupported(e, "training mode") : 0;
}

int eval_batch_normalization(struct eval *e)
{
    const struct tensor *x = e->in[0];
    const struct shape *shape = &x->shape;
    int rc = refuse_training(e);
    if (rc < 0)
        return rc;
    if (shape->rank < 1)
        return eval_bad(e, "a scalar input");
    int64_t channels = shape->rank > 1 ? shape->dim[1] : 1, elements = shape_elements(shape);
    int64_t outer, inner;
    eval_split_at(shape, shape->rank > 1 ? 1 : 0, &outer, &inner);
    /* Up to opset 8, statistics could be per position. */
    if (e->node->since < 9 && node_int(e->node, "spatial", 1) == 0) {
        channels *= inner;
        inner = 1;
    }
    _cleanup_(freep) double *scale = NULL, *bias = NULL, *mean = NULL, *variance = NULL;
    double **parts[] = {&scale, &bias, &mean, &variance};
    for (int i = 1; i < 5; i++) {
        const struct tensor *t = e->in[i];
        if (!dtype_is_float(t->dtype) || shape_elements(&t->shape) != channels) {
            char text[128];
            return eval_bad(e, "input %d is %s %s for %lld channels", i, dtype_name(t->dtype),
                            shape_text(&t->shape, text), (long long)channels);
        }
        *parts[i - 1] = eval_doubles(e, t);
        if (!*parts[i - 1])
            return eval_failed(e);
    }
    struct tensor *out = eval_out(e, 0, x->dtype, shape);
    if (!out)
        return eval_failed(e);
    double epsilon = (double)node_float(e->node, "epsilon", 1e-5F);
    for (int64_t i = 0; i < elements; i++) {
        int64_t c = i / inner % channels;
        double v = (tensor_get_f64(x, i) - mean[c]) / sqrt(variance[c] + epsilon);
        tensor_set_f64(out, i, v * scale[c] + bias[c]);
    }
    return 0;
}

/* ---- LRN ---------------------------------------------------------------------------------- */

struct lrn {
    int64_t channels, inner, size;
    double alpha, beta, bias;
};

static void lrn_sample(const struct lrn *l, const double *x, double *y)
{
    int64_t before = (l->size - 1) / 2, after = l->size - 1 - before;
    for (int64_t c = 0; c < l->channels; c++) {
        int64_t lo = c > before ? c - before : 0;
        int64_t hi = after < l->channels - 1 - c ? c + after : l->channels - 1;
        for (int64_t i = 0; i < l->inner; i++) {
            double sum = 0;
            for (int64_t k = lo; k <= hi; k++)
                sum += x[k * l->inner + i] * x[k * l->inner + i];
            y[c * l->inner + i] =
                x[c * l->inner + i] / pow(l->bias + l->alpha / (double)l->size * sum, l->beta);
        }
    }
}

int eval_lrn(struct eval *e)
{
    const struct tensor *x = e->in[0];
    if (x->shape.rank < 2)
        return eval_bad(e, "an input of rank %d (at least 2 is needed)", x->shape.rank);
    int64_t batch;
    struct lrn l = {
        .channels = x->shape.dim[1],
        .size = node_int(e->node, "size", 0),
        .alpha = (double)node_float(e->node, "alpha", 1e-4F),
        .beta = (double)node_float(e->node, "beta", 0.75F),
        .bias = (double)node_float(e->node, "bias", 1),
    };
    if (l.size < 1)
        return eval_bad(e, "size %lld", (long long)l.size);
    eval_split_at(&x->shape, 1, &batch, &l.inner);
    struct tensor *out = eval_out(e, 0, x->dtype, &x->shape);
    if (!out)
        return eval_failed(e);
    _cleanup_(freep) double *a = eval_doubles(e, x);
    _cleanup_(freep) double *b = eval_doubles(e, out);
    if (!a || !b)
        return eval_failed(e);
    for (int64_t n = 0; n < batch; n++)
        lrn_sample(&l, a + n * l.channels * l.inner, b + n * l.channels * l.inner);
    eval_store_doubles(out, b);
    return 0;
}

/* ---- Softmax ------------------------------------------------------------------------------ */

/* Of n values that stand `step` apart. */
static void softmax(double *x, int64_t n, int64_t step)
{
    double most = -INFINITY, sum = 0;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, x[i * step]);
    for (int64_t i = 0; i < n; i++) {
        x[i * step] = exp(x[i * step] - most);
        sum += x[i * step];
    }
    for (int64_t i = 0; i < n; i++)
        x[i * step] /= sum;
}

int eval_softmax(struct eval *e)
{
    const struct tensor *x = e->in[0];
    bool flattens = e->node->since < 13; /* all dimensions from the axis on are one */
    int64_t outer = shape_elements(&x->shape), inner = 1, n = 1;
    int64_t wanted = node_int(e->node, "axis", flattens ? 1 : -1);
    /* The old rule splits the dimensions in two, possibly behind the last one; a scalar is one
     * value under the new rule. */
    if (flattens ? wanted != x->shape.rank : x->shape.rank > 0) {
        int axis;
        int rc = eval_axis(e, wanted, x->shape.rank, &axis);
        if (rc < 0)
            return rc;
        eval_split_at(&x->shape, axis, &outer, &inner);
        n = x->shape.dim[axis];
    }
    if (flattens) {
        n *= inner;
        inner = 1;
    }
    struct tensor *out = eval_out(e, 0, x->dtype, &x->shape);
    _cleanup_(freep) double *v = out ? eval_doubles(e, x) : NULL;
    if (!v)
        return eval_failed(e);
    for (int64_t o = 0; o < outer; o++) {
        for (int64_t i = 0; i < inner; i++)
            softmax(v + o * n * inner + i, n, inner);
    }
    eval_store_doubles(out, v);
    return 0;
}

/* ---- ReduceMean --------------------------------------------------------------------------- */

struct reduction {
    const struct tensor *x;
    int64_t width, step;
    double *sums; /* floating point */
    __int128 *totals;
};

static void reduce_row(void *ctx, int64_t o, int64_t a, int64_t b)
{
    (void)b;
    const struct reduction *r = ctx;
    for (int64_t i = 0; i < r->width; i++) {
        if (r->sums)
            r->sums[a + i * r->step] += tensor_get_f64(r->x, o + i);
        else if (r->x->dtype == DTYPE_U64)
            r->totals[a + i * r->step] += ((const uint64_t *)r->x->data)[o + i];
        else
            r->totals[a + i * r->step] += tensor_get_s64(r->x, o + i);
    }
}

/* Integers divide towards zero. */
static int reduce(struct eval *e, const struct shape *kept, int64_t count, struct tensor *out)
{
    int64_t strides[SHAPE_MAX_RANK], none[SHAPE_MAX_RANK] = {0};
    struct reduction r = {.x = e->in[0], .width = 1};
    bool floats = dtype_is_float(r.x->dtype);
    int64_t n = shape_elements(kept);
    _cleanup_(freep) void *sums = mem_calloc((size_t)n, floats ? sizeof(double) : sizeof(__int128));
    if (!sums)
        return err_oom(e->err, "a mean");
    if (floats)
        r.sums = sums;
    else
        r.totals = sums;
    if (!floats && count == 0 && n > 0)
        return eval_bad(e, "the mean of no integers");
    eval_broadcast_strides(kept, &r.x->shape, strides);
    int last = r.x->shape.rank - 1;
    if (last >= 0) {
        r.width = r.x->shape.dim[last];
        r.step = strides[last];
    }
    eval_rows(&r.x->shape, strides, none, reduce_row, &r);
    for (int64_t i = 0; i < n; i++) {
        if (floats)
            tensor_set_f64(out, i, r.sums[i] / (double)count);
        else if (out->dtype == DTYPE_U64)
            ((uint64_t *)out->data)[i] = (uint64_t)(r.totals[i] / count);
        else
            tensor_set_s64(out, i, (int64_t)(r.totals[i] / count));
    }
    return 0;
}

int eval_reduce_mean(struct eval *e)
{
    const struct shape *shape = &e->in[0]->shape;
    int64_t axes[SHAPE_MAX_RANK];
    bool reduced[SHAPE_MAX_RANK];
    int n = eval_list_of(e, 1, "axes", 17, SHAPE_MAX_RANK, axes);
    if (n < 0 && n != EVAL_ABSENT)
        return n;
    int rc = eval_axes(e, n < 0 ? 0 : n, axes, shape->rank, reduced, NULL);
    if (rc < 0)
        return rc;
    bool all = n <= 0 && node_int(e->node, "noop_with_empty_axes", 0) == 0;
    bool keep = node_int(e->node, "keepdims", 1) != 0;
    struct shape kept = *shape, result = {0};
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++) {
        if (reduced[i] || all) {
            count *= shape->dim[i];
            kept.dim[i] = 1;
        }
        if (keep || !(reduced[i] || all))
            result.dim[result.rank++] = kept.dim[i];
    }
    struct tensor *out = eval_out(e, 0, e->in[0]->dtype, &result);
    return out ? reduce(e, &kept, count, out) : eval_failed(e);
}
