/* Pools. */
#include <math.h>

#include "shared/graph/eval_internal.h"

/* Window positions along one axis for output position o: those inside the input. */
struct span {
    int64_t first, step, count; /* input positions first, first + step, ... */
};

static struct span span_at(const struct box *box, int axis, int64_t o)
{
    int64_t begin = o * box->stride[axis] - box->pad_begin[axis], lo, hi;
    int64_t dilation = box->dilation[axis];
    eval_range(box->kernel[axis], dilation, begin, box->in[axis], &lo, &hi);
    return (struct span){begin + lo * dilation, dilation, hi - lo};
}

struct pool {
    struct box box;
    bool count_include_pad, column_major;
    int64_t *indices; /* NULL unless asked for */
};

typedef double pool_window_fn(const struct pool *pool, const double *x, const struct span s[3],
                              int64_t *ret_index);

static double window_average(const struct pool *pool, const double *x, const struct span s[3],
                             int64_t *ret_index)
{
    (void)ret_index;
    const int64_t *in = pool->box.in;
    double sum = 0;
    for (int64_t d = 0; d < s[0].count; d++) {
        for (int64_t h = 0; h < s[1].count; h++) {
            int64_t row = (s[0].first + d * s[0].step) * in[1] + s[1].first + h * s[1].step;
            for (int64_t w = 0; w < s[2].count; w++)
                sum += x[row * in[2] + s[2].first + w * s[2].step];
        }
    }
    /* Counting pads, the divisor is the whole window, even where ceil_mode lets it reach beyond the
     * padding: so the conformance suite has it. (In double: absurd kernels overflow an integer.) */
    double n = 1;
    for (int i = 0; i < 3; i++)
        n *= (double)(pool->count_include_pad ? pool->box.kernel[i] : s[i].count);
    return n > 0 ? sum / n : 0;
}

static double window_max(const struct pool *pool, const double *x, const struct span s[3],
                         int64_t *ret_index)
{
    const int64_t *in = pool->box.in;
    double best = -INFINITY;
    *ret_index = -1;
    for (int64_t d = 0; d < s[0].count; d++) {
        for (int64_t h = 0; h < s[1].count; h++) {
            for (int64_t w = 0; w < s[2].count; w++) {
                int64_t at_d = s[0].first + d * s[0].step, at_h = s[1].first + h * s[1].step;
                int64_t at_w = s[2].first + w * s[2].step;
                double v = x[(at_d * in[1] + at_h) * in[2] + at_w];
                if (*ret_index >= 0 && !(v > best || (isnan(v) && !isnan(best))))
                    continue;
                best = v;
                *ret_index = pool->column_major ? (at_w * in[1] + at_h) * in[0] + at_d
                                                : (at_d * in[1] + at_h) * in[2] + at_w;
            }
        }
    }
    return best;
}

static void run(const struct pool *pool, pool_window_fn *fn, int64_t channels, const double *x,
                double *y)
{
    const struct box *box = &pool->box;
    int64_t in = box->in[0] * box->in[1] * box->in[2], at = 0, index = 0;
    for (int64_t c = 0; c < channels; c++, x += in) {
        for (int64_t d = 0; d < box->out[0]; d++) {
            for (int64_t h = 0; h < box->out[1]; h++) {
                for (int64_t w = 0; w < box->out[2]; w++, at++) {
                    struct span s[3] = {span_at(box, 0, d), span_at(box, 1, h), span_at(box, 2, w)};
                    y[at] = fn(pool, x, s, &index);
                    if (pool->indices)
                        pool->indices[at] = c * in + index;
                }
            }
        }
    }
}

static int compute(struct eval *e, struct pool *pool, pool_window_fn *fn)
{
    const struct tensor *x = e->in[0];
    struct shape shape = eval_box_shape(x->shape.dim[0], x->shape.dim[1], &pool->box);
    struct tensor *out = eval_out(e, 0, x->dtype, &shape);
    if (!out)
        return eval_failed(e);
    if (eval_wants(e, 1)) {
        struct tensor *indices = eval_out(e, 1, DTYPE_S64, &shape);
        if (!indices)
            return eval_failed(e);
        pool->indices = indices->data;
    }
    _cleanup_(freep) double *a = eval_doubles(e, x);
    _cleanup_(freep) double *b = eval_doubles(e, out);
    if (!a || !b)
        return eval_failed(e);
    if (shape_elements(&shape) > 0)
        run(pool, fn, shape.dim[0] * shape.dim[1], a, b);
    eval_store_doubles(out, b);
    return 0;
}

int eval_average_pool(struct eval *e)
{
    struct pool pool = {.count_include_pad = node_int(e->node, "count_include_pad", 0) != 0};
    int rc =
        eval_window(e, &e->in[0]->shape, NULL, node_int(e->node, "ceil_mode", 0) != 0, &pool.box);
    return rc < 0 ? rc : compute(e, &pool, window_average);
}

int eval_max_pool(struct eval *e)
{
    enum dtype dtype = e->in[0]->dtype;
    if (!dtype_is_float(dtype) && dtype != DTYPE_U8 && dtype != DTYPE_S8)
        return eval_bad(e, "not defined for %s", dtype_name(dtype));
    struct pool pool = {.column_major = node_int(e->node, "storage_order", 0) != 0};
    int rc =
        eval_window(e, &e->in[0]->shape, NULL, node_int(e->node, "ceil_mode", 0) != 0, &pool.box);
    return rc < 0 ? rc : compute(e, &pool, window_max);
}

/* A pool whose window is the whole input, of any number of spatial dimensions. */
static int global_pool(struct eval *e, pool_window_fn *fn)
{
    const struct tensor *x = e->in[0];
    if (x->shape.rank < 2)
        return eval_bad(e, "an input of rank %d (at least 2 is needed)", x->shape.rank);
    int64_t channels = x->shape.dim[0] * x->shape.dim[1], size = 1;
    struct shape shape = x->shape;
    for (int i = 2; i < shape.rank; i++) {
        size *= shape.dim[i];
        shape.dim[i] = 1;
    }
    struct tensor *out = eval_out(e, 0, x->dtype, &shape);
    if (!out)
        return eval_failed(e);
    if (size == 0 && channels > 0)
        return eval_bad(e, "nothing to pool");
    _cleanup_(freep) double *a = eval_doubles(e, x);
    if (!a)
        return eval_failed(e);
    struct pool pool = {.box = {.in = {1, 1, size}}};
    struct span all[3] = {{0, 1, 1}, {0, 1, 1}, {0, 1, size}};
    for (int64_t c = 0; c < channels; c++) {
        int64_t index;
        tensor_set_f64(out, c, fn(&pool, a + c * size, all, &index));
    }
    return 0;
}

int eval_global_average_pool(struct eval *e)
{
    return global_pool(e, window_average);
}

int eval_global_max_pool(struct eval *e)
{
    return global_pool(e, window_max);
}
