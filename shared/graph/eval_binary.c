/* Add, Sub, Mul, Div and PRelu: two operands, broadcast against each other. */
#include <stdlib.h>

#include "shared/graph/eval_internal.h"

struct binary {
    enum op op;
    enum dtype dtype;
    int64_t width, a_step, b_step;
    const double *a, *b; /* floating point */
    double *o;
    const int64_t *ia, *ib; /* integers */
    int64_t *io;
    bool divided_by_zero;
};

static double apply_double(enum op op, double a, double b)
{
    switch (op) {
    case OP_ADD:
        return a + b;
    case OP_SUB:
        return a - b;
    case OP_MUL:
        return a * b;
    case OP_DIV:
        return a / b;
    default: /* OP_PRELU */
        return a < 0 ? a * b : a;
    }
}

static void row_double(void *ctx, int64_t o, int64_t a, int64_t b)
{
    const struct binary *x = ctx;
    for (int64_t i = 0; i < x->width; i++)
        x->o[o + i] = apply_double(x->op, x->a[a + i * x->a_step], x->b[b + i * x->b_step]);
}

/* Modulo 2^64; what is shorter is cut at the end, which gives the same as wrapping in its type. */
static int64_t divide(struct binary *x, int64_t a, int64_t b)
{
    if (b == 0) {
        x->divided_by_zero = true;
        return 0;
    }
    if (x->dtype == DTYPE_U64)
        return (int64_t)((uint64_t)a / (uint64_t)b);
    return b == -1 ? (int64_t)(0 - (uint64_t)a) : a / b;
}

static int64_t apply_integer(struct binary *x, int64_t a, int64_t b)
{
    switch (x->op) {
    case OP_ADD:
        return (int64_t)((uint64_t)a + (uint64_t)b);
    case OP_SUB:
        return (int64_t)((uint64_t)a - (uint64_t)b);
    case OP_MUL:
        return (int64_t)((uint64_t)a * (uint64_t)b);
    case OP_DIV:
        return divide(x, a, b);
    default: /* OP_PRELU */
        return eval_less(x->dtype, a, 0) ? (int64_t)((uint64_t)a * (uint64_t)b) : a;
    }
}

static void row_integer(void *ctx, int64_t o, int64_t a, int64_t b)
{
    struct binary *x = ctx;
    for (int64_t i = 0; i < x->width; i++)
        x->io[o + i] = apply_integer(x, x->ia[a + i * x->a_step], x->ib[b + i * x->b_step]);
}

static int run_doubles(struct eval *e, struct binary *x, const struct tensor *a,
                       const struct tensor *b, struct tensor *out, const int64_t *sa,
                       const int64_t *sb)
{
    _cleanup_(freep) double *da = eval_doubles(e, a);
    _cleanup_(freep) double *db = eval_doubles(e, b);
    _cleanup_(freep) double *o = mem_calloc((size_t)shape_elements(&out->shape), sizeof(*o));
    if (!da || !db || !o)
        return err_oom(e->err, "an operation in double precision");
    x->a = da;
    x->b = db;
    x->o = o;
    eval_rows(&out->shape, sa, sb, row_double, x);
    eval_store_doubles(out, o);
    return 0;
}

static int run_integers(struct eval *e, struct binary *x, const struct tensor *a,
                        const struct tensor *b, struct tensor *out, const int64_t *sa,
                        const int64_t *sb)
{
    _cleanup_(freep) int64_t *ia = eval_integers(e, a);
    _cleanup_(freep) int64_t *ib = eval_integers(e, b);
    _cleanup_(freep) int64_t *o = mem_calloc((size_t)shape_elements(&out->shape), sizeof(*o));
    if (!ia || !ib || !o)
        return err_oom(e->err, "an operation on integers");
    x->ia = ia;
    x->ib = ib;
    x->io = o;
    eval_rows(&out->shape, sa, sb, row_integer, x);
    if (x->divided_by_zero)
        return eval_bad(e, "an integer is divided by zero");
    eval_store_integers(out, o);
    return 0;
}

static int run(struct eval *e, const struct shape *out_shape)
{
    const struct tensor *a = e->in[0], *b = e->in[1];
    struct tensor *out = eval_out(e, 0, a->dtype, out_shape);
    if (!out)
        return eval_failed(e);
    int64_t sa[SHAPE_MAX_RANK], sb[SHAPE_MAX_RANK];
    eval_broadcast_strides(&a->shape, out_shape, sa);
    eval_broadcast_strides(&b->shape, out_shape, sb);
    struct binary x = {.op = e->node->op, .dtype = a->dtype, .width = 1};
    int last = out_shape->rank - 1;
    if (last >= 0) {
        x.width = out_shape->dim[last];
        x.a_step = sa[last];
        x.b_step = sb[last];
    }
    return dtype_is_float(a->dtype) ? run_doubles(e, &x, a, b, out, sa, sb)
                                    : run_integers(e, &x, a, b, out, sa, sb);
}

int eval_binary(struct eval *e)
{
    struct shape out;
    int rc = shape_broadcast(&e->in[0]->shape, &e->in[1]->shape, &out, e->err);
    return rc < 0 ? rc : run(e, &out);
}

int eval_prelu(struct eval *e)
{
    const struct shape *x = &e->in[0]->shape, *slope = &e->in[1]->shape;
    struct shape out;
    char tx[128], ts[128];
    if (shape_broadcast(x, slope, &out, NULL) < 0 || !shape_equal(x, &out))
        return eval_bad(e, "slope of shape %s does not broadcast to %s", shape_text(slope, ts),
                        shape_text(x, tx));
    return run(e, x);
}
