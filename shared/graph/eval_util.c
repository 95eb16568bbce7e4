/* What the evaluator's files share: arguments, numbers, strides. */
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval_internal.h"

const struct tensor *eval_in(const struct eval *e, int i)
{
    return i < e->node->n_inputs ? e->in[i] : NULL;
}

bool eval_wants(const struct eval *e, int i)
{
    return i < e->node->n_outputs && e->node->outputs[i] >= 0;
}

struct tensor *eval_out(struct eval *e, int i, enum dtype dtype, const struct shape *shape)
{
    if (shape_check(shape, e->err) < 0)
        return NULL;
    if (shape_elements(shape) > EVAL_MAX_ELEMENTS) {
        char text[128];
        err_set(e->err, ERR_RESOURCE_EXHAUSTED, "output %s is too large to evaluate",
                shape_text(shape, text));
        return NULL;
    }
    e->out[i] = tensor_new(dtype, shape, e->err);
    return e->out[i];
}

static int fail(struct eval *e, enum err_code code, const char *fmt, va_list ap)
{
    char text[ERR_MESSAGE_MAX];
    vsnprintf(text, sizeof(text), fmt, ap);
    return err_set(e->err, code, "%s", text);
}

int eval_bad(struct eval *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fail(e, ERR_INVALID_ARGUMENT, fmt, ap);
    va_end(ap);
    return rc;
}

int eval_unsupported(struct eval *e, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int rc = fail(e, ERR_UNIMPLEMENTED, fmt, ap);
    va_end(ap);
    return rc;
}

int eval_failed(const struct eval *e)
{
    return -(int)e->err->code;
}

/* ---- arguments ---------------------------------------------------------------------------- */

int eval_axis(struct eval *e, int64_t axis, int rank, int *ret)
{
    if (axis < -rank || axis >= rank)
        return eval_bad(e, "axis %lld is outside of rank %d", (long long)axis, rank);
    *ret = (int)(axis < 0 ? axis + rank : axis);
    return 0;
}

int eval_axes(struct eval *e, int n, const int64_t *axes, int rank, bool flags[SHAPE_MAX_RANK],
              int ret_order[SHAPE_MAX_RANK])
{
    memset(flags, 0, SHAPE_MAX_RANK * sizeof(*flags));
    for (int i = 0; i < n; i++) {
        int axis = 0;
        int rc = eval_axis(e, axes[i], rank, &axis);
        if (rc < 0)
            return rc;
        if (flags[axis])
            return eval_bad(e, "axis %d is named twice", axis);
        flags[axis] = true;
        if (ret_order)
            ret_order[i] = axis;
    }
    return 0;
}

int eval_list(struct eval *e, const struct tensor *t, const char *what, int max, int64_t *ret)
{
    if (t->dtype != DTYPE_S64 && t->dtype != DTYPE_S32)
        return eval_bad(e, "%s is %s, not int64", what, dtype_name(t->dtype));
    if (t->shape.rank > 1)
        return eval_bad(e, "%s has rank %d, not 1", what, t->shape.rank);
    int64_t n = shape_elements(&t->shape);
    if (n > max)
        return eval_bad(e, "%s has %lld elements (at most %d make sense)", what, (long long)n, max);
    for (int64_t i = 0; i < n; i++)
        ret[i] = tensor_get_s64(t, i);
    return (int)n;
}

int eval_list_of(struct eval *e, int input, const char *attr, int until, int max, int64_t *ret)
{
    if (e->node->since > until) {
        const struct tensor *t = eval_in(e, input);
        return t ? eval_list(e, t, attr, max, ret) : EVAL_ABSENT;
    }
    if (!node_attr(e->node, attr))
        return EVAL_ABSENT;
    int n = node_ints(e->node, attr, max, ret);
    return n <= max ? n : eval_bad(e, "%s has %d elements (at most %d make sense)", attr, n, max);
}

/* ---- numbers ------------------------------------------------------------------------------ */

double *eval_doubles(struct eval *e, const struct tensor *t)
{
    int64_t n = shape_elements(&t->shape);
    double *x = mem_calloc((size_t)n, sizeof(*x));
    if (!x) {
        err_oom(e->err, "a tensor in double precision");
        return NULL;
    }
    if (t->dtype == DTYPE_F32) {
        const float *f = t->data;
        for (int64_t i = 0; i < n; i++)
            x[i] = (double)f[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            x[i] = tensor_get_f64(t, i);
    }
    return x;
}

void eval_store_doubles(struct tensor *t, const double *x)
{
    int64_t n = shape_elements(&t->shape);
    if (t->dtype == DTYPE_F32) {
        float *f = t->data;
        for (int64_t i = 0; i < n; i++)
            f[i] = (float)x[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            tensor_set_f64(t, i, x[i]);
    }
}

int64_t *eval_integers(struct eval *e, const struct tensor *t)
{
    int64_t n = shape_elements(&t->shape);
    int64_t *x = mem_calloc((size_t)n, sizeof(*x));
    if (!x) {
        err_oom(e->err, "a tensor of integers");
        return NULL;
    }
    if (t->dtype == DTYPE_U64) { /* the bits, which tensor_get_s64 would saturate */
        memcpy(x, t->data, (size_t)n * sizeof(*x));
        return x;
    }
    for (int64_t i = 0; i < n; i++)
        x[i] = tensor_get_s64(t, i);
    return x;
}

void eval_store_integers(struct tensor *t, const int64_t *x)
{
    int64_t n = shape_elements(&t->shape);
    size_t bytes = dtype_bytes(t->dtype);
    char *to = t->data;
    for (int64_t i = 0; i < n; i++) {
        if (t->dtype == DTYPE_BOOL) {
            to[i] = x[i] != 0;
            continue;
        }
        uint64_t bits = (uint64_t)x[i];
        uint8_t u8 = (uint8_t)bits;
        uint16_t u16 = (uint16_t)bits;
        uint32_t u32 = (uint32_t)bits;
        const void *from = bytes == 1   ? (const void *)&u8
                           : bytes == 2 ? (const void *)&u16
                           : bytes == 4 ? (const void *)&u32
                                        : (const void *)&bits;
        memcpy(to + (size_t)i * bytes, from, bytes);
    }
}

bool eval_less(enum dtype dtype, int64_t a, int64_t b)
{
    return dtype == DTYPE_U64 ? (uint64_t)a < (uint64_t)b : a < b;
}

/* ---- strides ------------------------------------------------------------------------------ */

void eval_strides(const struct shape *shape, int64_t stride[SHAPE_MAX_RANK])
{
    int64_t step = 1;
    for (int i = shape->rank - 1; i >= 0; i--) {
        stride[i] = step;
        step *= shape->dim[i];
    }
}

void eval_broadcast_strides(const struct shape *shape, const struct shape *as,
                            int64_t stride[SHAPE_MAX_RANK])
{
    int64_t own[SHAPE_MAX_RANK];
    eval_strides(shape, own);
    for (int i = 0; i < as->rank; i++) {
        int k = i - (as->rank - shape->rank);
        stride[i] = k < 0 || shape->dim[k] == 1 ? 0 : own[k];
    }
}

void eval_rows(const struct shape *shape, const int64_t *a_stride, const int64_t *b_stride,
               eval_row_fn *fn, void *ctx)
{
    if (shape_elements(shape) == 0)
        return;
    int outer = shape->rank > 0 ? shape->rank - 1 : 0;
    int64_t width = shape->rank > 0 ? shape->dim[outer] : 1;
    int64_t at[SHAPE_MAX_RANK] = {0}, o = 0, a = 0, b = 0;
    for (;;) {
        fn(ctx, o, a, b);
        o += width;
        int i = outer - 1;
        for (; i >= 0; i--) {
            a += a_stride[i];
            b += b_stride[i];
            if (++at[i] < shape->dim[i])
                break;
            a -= a_stride[i] * shape->dim[i];
            b -= b_stride[i] * shape->dim[i];
            at[i] = 0;
        }
        if (i < 0)
            return;
    }
}

struct copy {
    char *to;
    const char *from;
    size_t bytes;
    int64_t width, to_step, from_step;
};

static void copy_row(void *ctx, int64_t o, int64_t a, int64_t b)
{
    (void)o;
    const struct copy *c = ctx;
    int64_t size = (int64_t)c->bytes;
    char *to = c->to + a * size;
    const char *from = c->from + b * size;
    if (c->to_step == 1 && c->from_step == 1) {
        memcpy(to, from, (size_t)c->width * c->bytes);
        return;
    }
    for (int64_t i = 0; i < c->width; i++)
        memcpy(to + i * c->to_step * size, from + i * c->from_step * size, c->bytes);
}

void eval_copy(const struct shape *shape, void *to, const int64_t *to_stride, const void *from,
               const int64_t *from_stride, size_t bytes)
{
    int last = shape->rank - 1;
    struct copy c = {.to = to, .from = from, .bytes = bytes, .width = 1};
    if (last >= 0) {
        c.width = shape->dim[last];
        c.to_step = to_stride[last];
        c.from_step = from_stride[last];
    }
    eval_rows(shape, to_stride, from_stride, copy_row, &c);
}

void eval_split_at(const struct shape *shape, int axis, int64_t *ret_outer, int64_t *ret_inner)
{
    *ret_outer = *ret_inner = 1;
    for (int i = 0; i < shape->rank; i++) {
        if (i < axis)
            *ret_outer *= shape->dim[i];
        else if (i > axis)
            *ret_inner *= shape->dim[i];
    }
}
