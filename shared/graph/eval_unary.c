/* Functions of one element: activations, Clip, Cast. */
#include <math.h>

#include "shared/graph/eval_internal.h"

struct unary {
    enum op op;
    double alpha, beta;
};

static double apply(const struct unary *u, double x)
{
    switch (u->op) {
    case OP_ABS:
        return fabs(x);
    case OP_ELU:
        return x < 0 ? u->alpha * expm1(x) : x;
    case OP_HARD_SIGMOID:
        return fmax(0, fmin(1, u->alpha * x + u->beta));
    case OP_HARD_SWISH:
        return x * fmax(0, fmin(1, x / 6 + 0.5));
    case OP_LEAKY_RELU:
        return x < 0 ? u->alpha * x : x;
    case OP_SIGMOID:
        return x < 0 ? exp(x) / (1 + exp(x)) : 1 / (1 + exp(-x));
    case OP_SOFTPLUS: /* log(1 + exp(x)), where exp(x) would overflow too */
        return fmax(x, 0) + log1p(exp(-fabs(x)));
    default: /* OP_TANH */
        return tanh(x);
    }
}

int eval_unary(struct eval *e)
{
    const struct tensor *x = e->in[0];
    struct unary u = {.op = e->node->op};
    u.alpha = (double)node_float(e->node, "alpha",
                                 u.op == OP_ELU            ? 1.0F
                                 : u.op == OP_HARD_SIGMOID ? 0.2F
                                                           : 0.01F);
    u.beta = (double)node_float(e->node, "beta", 0.5F);
    struct tensor *out = eval_out(e, 0, x->dtype, &x->shape);
    if (!out)
        return eval_failed(e);
    int64_t n = shape_elements(&x->shape);
    for (int64_t i = 0; i < n; i++) {
        double v = tensor_get_f64(x, i);
        tensor_set_f64(out, i, isnan(v) ? v : apply(&u, v));
    }
    return 0;
}

/* The least integer has no opposite in its type and stays as it is, as in numpy. */
int eval_abs(struct eval *e)
{
    const struct tensor *x = e->in[0];
    if (dtype_is_float(x->dtype))
        return eval_unary(e);
    struct tensor *out = eval_out(e, 0, x->dtype, &x->shape);
    _cleanup_(freep) int64_t *v = out ? eval_integers(e, x) : NULL;
    if (!v)
        return eval_failed(e);
    int64_t n = shape_elements(&x->shape);
    for (int64_t i = 0; i < n; i++) {
        if (eval_less(x->dtype, v[i], 0))
            v[i] = (int64_t)(0 - (uint64_t)v[i]);
    }
    eval_store_integers(out, v);
    return 0;
}

/* ---- Relu and Clip ------------------------------------------------------------------------ */

struct limits {
    bool has_low, has_high;
    double low, high;
    int64_t int_low, int_high;
};

/* When low > high, high wins. A NaN passes. */
static int clamp(struct eval *e, const struct limits *l)
{
    const struct tensor *x = e->in[0];
    struct tensor *out = eval_out(e, 0, x->dtype, &x->shape);
    if (!out)
        return eval_failed(e);
    int64_t n = shape_elements(&x->shape);
    if (dtype_is_float(x->dtype)) {
        for (int64_t i = 0; i < n; i++) {
            double v = tensor_get_f64(x, i);
            if (l->has_low && v < l->low)
                v = l->low;
            if (l->has_high && v > l->high)
                v = l->high;
            tensor_set_f64(out, i, v);
        }
        return 0;
    }
    _cleanup_(freep) int64_t *v = eval_integers(e, x);
    if (!v)
        return eval_failed(e);
    for (int64_t i = 0; i < n; i++) {
        if (l->has_low && eval_less(x->dtype, v[i], l->int_low))
            v[i] = l->int_low;
        if (l->has_high && eval_less(x->dtype, l->int_high, v[i]))
            v[i] = l->int_high;
    }
    eval_store_integers(out, v);
    return 0;
}

int eval_relu(struct eval *e)
{
    return clamp(e, &(struct limits){.has_low = true});
}

static int read_limit(struct eval *e, int i, bool *has, double *f64, int64_t *s64)
{
    const struct tensor *t = eval_in(e, i);
    if (!t)
        return 0;
    if (shape_elements(&t->shape) != 1)
        return eval_bad(e, "%s is no scalar", i == 1 ? "min" : "max");
    *has = true;
    *f64 = tensor_get_f64(t, 0);
    if (dtype_is_float(t->dtype))
        return 0;
    _cleanup_(freep) int64_t *v = eval_integers(e, t);
    if (!v)
        return eval_failed(e);
    *s64 = v[0];
    return 0;
}

int eval_clip(struct eval *e)
{
    struct limits l = {0};
    if (e->node->since < 11) {
        l.has_low = node_attr(e->node, "min") != NULL;
        l.has_high = node_attr(e->node, "max") != NULL;
        l.low = (double)node_float(e->node, "min", 0);
        l.high = (double)node_float(e->node, "max", 0);
        if (!dtype_is_float(e->in[0]->dtype))
            return eval_bad(e, "not defined for %s", dtype_name(e->in[0]->dtype));
        return clamp(e, &l);
    }
    int rc = read_limit(e, 1, &l.has_low, &l.low, &l.int_low);
    if (rc == 0)
        rc = read_limit(e, 2, &l.has_high, &l.high, &l.int_high);
    return rc < 0 ? rc : clamp(e, &l);
}

/* ---- Cast --------------------------------------------------------------------------------- */

/* Integers above INT64_MAX, which tensor_get_s64 would saturate, to floating point. */
static void cast_large(uint64_t x, struct tensor *out, int64_t i)
{
    if (out->dtype == DTYPE_F64) {
        tensor_set_f64(out, i, (double)x);
        return;
    }
    /* 53 bits of which the last says whether anything was cut off: rounding them again is exact. */
    uint64_t odd = (x & ~(uint64_t)2047) | (x & 2047 ? 2048 : 0);
    tensor_set_f64(out, i, (double)odd);
}

static int cast_integers(struct eval *e, const struct tensor *x, struct tensor *out)
{
    int64_t n = shape_elements(&x->shape);
    _cleanup_(freep) int64_t *v = eval_integers(e, x);
    if (!v)
        return eval_failed(e);
    if (!dtype_is_float(out->dtype)) {
        eval_store_integers(out, v);
        return 0;
    }
    for (int64_t i = 0; i < n; i++) {
        if (x->dtype == DTYPE_U64 && v[i] < 0)
            cast_large((uint64_t)v[i], out, i);
        else
            tensor_set_s64(out, i, v[i]);
    }
    return 0;
}

int eval_cast(struct eval *e)
{
    const struct tensor *x = e->in[0];
    int64_t to = node_int(e->node, "to", 0);
    if (to < 0 || to > INT32_MAX || dtype_bytes((enum dtype)to) == 0)
        return eval_unsupported(e, "a cast to type %lld", (long long)to);
    struct tensor *out = eval_out(e, 0, (enum dtype)to, &x->shape);
    if (!out)
        return eval_failed(e);
    if (!dtype_is_float(x->dtype))
        return cast_integers(e, x, out);
    int64_t n = shape_elements(&x->shape);
    /* To integers: towards zero; what does not fit, which ONNX leaves open, saturates. */
    bool cut = !dtype_is_float(out->dtype) && out->dtype != DTYPE_BOOL;
    for (int64_t i = 0; i < n; i++) {
        double v = tensor_get_f64(x, i);
        tensor_set_f64(out, i, cut ? trunc(v) : v);
    }
    return 0;
}
