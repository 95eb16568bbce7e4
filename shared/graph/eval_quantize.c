/* QuantizeLinear and DequantizeLinear: per tensor, per axis, blocked. */
#include <math.h>
#include <stdlib.h>

#include "shared/graph/eval_internal.h"

/* Which scale belongs to element i: (i / outer_step) * scale_step + (i / step % dim) / block *
 * inner + i % inner of the scale's elements; see scale_index. */
struct layout {
    int64_t dim;    /* size of x along the axis */
    int64_t inner;  /* elements behind the axis */
    int64_t block;  /* elements along the axis that share a scale */
    int64_t blocks; /* per line of the axis */
    bool per_tensor, blocked;
};

static int64_t scale_index(const struct layout *l, int64_t i)
{
    if (l->per_tensor)
        return 0;
    int64_t k = i / l->inner % l->dim;
    if (!l->blocked)
        return k;
    return (i / (l->inner * l->dim) * l->blocks + k / l->block) * l->inner + i % l->inner;
}

static int blocked_layout(struct eval *e, const struct shape *x, const struct shape *scale,
                          int axis, struct layout *l)
{
    char tx[128], ts[128];
    bool fits = scale->rank == x->rank;
    for (int i = 0; fits && i < x->rank; i++) {
        int64_t want = i == axis ? x->dim[i] / l->block + (x->dim[i] % l->block != 0) : x->dim[i];
        fits = scale->dim[i] == want;
    }
    if (!fits)
        return eval_bad(e, "scale of shape %s does not fit to input %s in blocks of %lld",
                        shape_text(scale, ts), shape_text(x, tx), (long long)l->block);
    l->blocked = true;
    l->blocks = scale->dim[axis];
    return 0;
}

static int read_layout(struct eval *e, struct layout *l)
{
    const struct shape *x = &e->in[0]->shape, *scale = &e->in[1]->shape;
    const struct tensor *zero = eval_in(e, 2);
    char tx[128], ts[128];
    *l = (struct layout){.block = e->node->since < 21 ? 0 : node_int(e->node, "block_size", 0)};
    if (zero && !shape_equal(&zero->shape, scale) &&
        (shape_elements(scale) != 1 || shape_elements(&zero->shape) != 1))
        return eval_bad(e, "scale and zero point differ in shape: %s and %s", shape_text(scale, ts),
                        shape_text(&zero->shape, tx));
    if (l->block < 0)
        return eval_bad(e, "block_size %lld", (long long)l->block);
    if (l->block == 0 && scale->rank <= 1 && shape_elements(scale) == 1) {
        l->per_tensor = true;
        return 0;
    }
    int axis;
    int64_t outer;
    int rc = eval_axis(e, e->node->since < 13 ? 0 : node_int(e->node, "axis", 1), x->rank, &axis);
    if (rc < 0)
        return rc;
    l->dim = x->dim[axis];
    eval_split_at(x, axis, &outer, &l->inner);
    if (l->block > 0)
        return blocked_layout(e, x, scale, axis, l);
    if (scale->rank != 1 || scale->dim[0] != l->dim || e->node->since < 13)
        return eval_bad(e, "scale of shape %s does not fit to axis %d of input %s",
                        shape_text(scale, ts), axis, shape_text(x, tx));
    return 0;
}

static bool is_quantized(enum dtype dtype)
{
    return dtype == DTYPE_U8 || dtype == DTYPE_S8 || dtype == DTYPE_U16 || dtype == DTYPE_S16;
}

static int quantized_type(struct eval *e, enum dtype *ret)
{
    const struct tensor *zero = eval_in(e, 2);
    int64_t named = e->node->since < 21 ? 0 : node_int(e->node, "output_dtype", 0);
    *ret = zero ? zero->dtype : named ? (enum dtype)named : DTYPE_U8;
    if (zero && named && named != (int64_t)zero->dtype)
        return eval_bad(e, "output_dtype is not the zero point's type");
    if (!is_quantized(*ret))
        return eval_unsupported(e, "quantizing to type %d", (int)*ret);
    return 0;
}

/* y = saturate(round(x / scale) + zero), the quotient in float as every kernel computes it: in
 * double, values near a half would round another way. */
int eval_quantize_linear(struct eval *e)
{
    const struct tensor *x = e->in[0], *scale = e->in[1], *zero = eval_in(e, 2);
    struct layout l;
    enum dtype type;
    if (!dtype_is_float(x->dtype) && x->dtype != DTYPE_S32)
        return eval_bad(e, "not defined for %s", dtype_name(x->dtype));
    if (!dtype_is_float(scale->dtype) && scale->dtype != DTYPE_S32)
        return eval_bad(e, "the scale is %s", dtype_name(scale->dtype));
    int rc = quantized_type(e, &type);
    if (rc == 0)
        rc = read_layout(e, &l);
    if (rc < 0)
        return rc;
    struct tensor *out = eval_out(e, 0, type, &x->shape);
    if (!out)
        return eval_failed(e);
    int64_t n = shape_elements(&x->shape);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = scale_index(&l, i);
        float quotient = (float)tensor_get_f64(x, i) / (float)tensor_get_f64(scale, k);
        double offset = zero ? tensor_get_f64(zero, k) : 0;
        tensor_set_f64(out, i, rint((double)quotient) + offset);
    }
    return 0;
}

int eval_dequantize_linear(struct eval *e)
{
    const struct tensor *x = e->in[0], *scale = e->in[1], *zero = eval_in(e, 2);
    struct layout l;
    if (!is_quantized(x->dtype) && x->dtype != DTYPE_S32)
        return eval_bad(e, "not defined for %s", dtype_name(x->dtype));
    if (!dtype_is_float(scale->dtype))
        return eval_bad(e, "the scale is %s", dtype_name(scale->dtype));
    if (zero && zero->dtype != x->dtype)
        return eval_bad(e, "the zero point is %s, but the input %s", dtype_name(zero->dtype),
                        dtype_name(x->dtype));
    int rc = read_layout(e, &l);
    if (rc < 0)
        return rc;
    struct tensor *out = eval_out(e, 0, scale->dtype, &x->shape);
    if (!out)
        return eval_failed(e);
    int64_t n = shape_elements(&x->shape);
    for (int64_t i = 0; i < n; i++) {
        int64_t k = scale_index(&l, i);
        double v = tensor_get_f64(x, i) - (zero ? tensor_get_f64(zero, k) : 0);
        tensor_set_f64(out, i, v * tensor_get_f64(scale, k));
    }
    return 0;
}
