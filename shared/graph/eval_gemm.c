/* Gemm and MatMul. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval_internal.h"

void eval_gemm_f64(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t p = 0; p < k; p++) {
            double x = a[i * k + p];
            for (int64_t j = 0; j < n; j++)
                c[i * n + j] += x * b[p * n + j];
        }
    }
}

/* The same modulo 2^64, for integers. */
static void gemm_s64(int64_t m, int64_t n, int64_t k, const int64_t *a, const int64_t *b,
                     int64_t *c)
{
    for (int64_t i = 0; i < m; i++) {
        for (int64_t p = 0; p < k; p++) {
            uint64_t x = (uint64_t)a[i * k + p];
            for (int64_t j = 0; j < n; j++)
                c[i * n + j] = (int64_t)((uint64_t)c[i * n + j] + x * (uint64_t)b[p * n + j]);
        }
    }
}

/* ---- MatMul ------------------------------------------------------------------------------- */

struct matmul {
    int64_t m, n, k;
    struct shape stack; /* the broadcast leading dimensions */
    int64_t a_stride[SHAPE_MAX_RANK], b_stride[SHAPE_MAX_RANK]; /* in matrices */
    bool integers;
    void *a, *b, *c; /* double or int64_t */
};

/* Numpy's rules: a vector on the left is a row, on the right a column. */
static int matmul_shapes(struct eval *e, struct matmul *mm, struct shape *ret)
{
    struct shape a = e->in[0]->shape, b = e->in[1]->shape;
    char ta[128], tb[128];
    if (a.rank < 1 || b.rank < 1)
        return eval_bad(e, "a scalar operand");
    bool row = a.rank == 1, column = b.rank == 1;
    mm->m = row ? 1 : a.dim[a.rank - 2];
    mm->k = a.dim[a.rank - 1];
    mm->n = column ? 1 : b.dim[b.rank - 1];
    if (mm->k != (column ? b.dim[0] : b.dim[b.rank - 2]))
        return eval_bad(e, "shapes %s and %s do not match", shape_text(&a, ta), shape_text(&b, tb));
    a.rank = row ? 0 : a.rank - 2;
    b.rank = column ? 0 : b.rank - 2;
    int rc = shape_broadcast(&a, &b, &mm->stack, e->err);
    if (rc < 0)
        return rc;
    eval_broadcast_strides(&a, &mm->stack, mm->a_stride);
    eval_broadcast_strides(&b, &mm->stack, mm->b_stride);
    *ret = mm->stack;
    if (!row)
        ret->dim[ret->rank++] = mm->m;
    if (!column)
        ret->dim[ret->rank++] = mm->n;
    return 0;
}

static void matmul_row(void *ctx, int64_t o, int64_t a, int64_t b)
{
    const struct matmul *mm = ctx;
    int last = mm->stack.rank - 1;
    int64_t count = last < 0 ? 1 : mm->stack.dim[last];
    int64_t a_step = last < 0 ? 0 : mm->a_stride[last], b_step = last < 0 ? 0 : mm->b_stride[last];
    for (int64_t i = 0; i < count; i++) {
        int64_t at_a = (a + i * a_step) * mm->m * mm->k, at_b = (b + i * b_step) * mm->k * mm->n;
        int64_t at_c = (o + i) * mm->m * mm->n;
        if (mm->integers)
            gemm_s64(mm->m, mm->n, mm->k, (int64_t *)mm->a + at_a, (int64_t *)mm->b + at_b,
                     (int64_t *)mm->c + at_c);
        else
            eval_gemm_f64(mm->m, mm->n, mm->k, (double *)mm->a + at_a, (double *)mm->b + at_b,
                          (double *)mm->c + at_c);
    }
}

int eval_matmul(struct eval *e)
{
    struct matmul mm = {.integers = !dtype_is_float(e->in[0]->dtype)};
    struct shape shape;
    int rc = matmul_shapes(e, &mm, &shape);
    if (rc < 0)
        return rc;
    struct tensor *out = eval_out(e, 0, e->in[0]->dtype, &shape);
    if (!out)
        return eval_failed(e);
    _cleanup_(freep) void *a =
        mm.integers ? (void *)eval_integers(e, e->in[0]) : (void *)eval_doubles(e, e->in[0]);
    _cleanup_(freep) void *b =
        mm.integers ? (void *)eval_integers(e, e->in[1]) : (void *)eval_doubles(e, e->in[1]);
    _cleanup_(freep) void *c = mem_calloc((size_t)shape_elements(&shape), sizeof(double));
    if (!a || !b || !c)
        return err_oom(e->err, "a matrix product");
    mm.a = a;
    mm.b = b;
    mm.c = c;
    eval_rows(&mm.stack, mm.a_stride, mm.b_stride, matmul_row, &mm);
    if (mm.integers)
        eval_store_integers(out, c);
    else
        eval_store_doubles(out, c);
    return 0;
}

/* ---- Gemm --------------------------------------------------------------------------------- */

static void transpose(const double *x, int64_t rows, int64_t columns, double *y)
{
    for (int64_t i = 0; i < rows; i++) {
        for (int64_t j = 0; j < columns; j++)
            y[j * rows + i] = x[i * columns + j];
    }
}

/* The operand as doubles, transposed when asked for. */
static double *operand(struct eval *e, const struct tensor *t, bool transposed)
{
    _cleanup_(freep) double *x = eval_doubles(e, t);
    if (!x || !transposed)
        return TAKE_PTR(x);
    double *y = mem_calloc((size_t)shape_elements(&t->shape), sizeof(*y));
    if (y)
        transpose(x, t->shape.dim[0], t->shape.dim[1], y);
    else
        err_oom(e->err, "a transposed matrix");
    return y;
}

/* y = alpha * y + beta * c, c broadcast to y's shape */
static int add_c(struct eval *e, const struct shape *shape, double *y)
{
    const struct tensor *c = eval_in(e, 2);
    double alpha = (double)node_float(e->node, "alpha", 1);
    double beta = (double)node_float(e->node, "beta", 1);
    for (int64_t i = 0; i < shape_elements(shape); i++)
        y[i] *= alpha;
    if (!c)
        return 0;
    struct shape both;
    char tc[128], ts[128];
    if (shape_broadcast(&c->shape, shape, &both, NULL) < 0 || !shape_equal(&both, shape))
        return eval_bad(e, "C of shape %s does not broadcast to %s", shape_text(&c->shape, tc),
                        shape_text(shape, ts));
    int64_t stride[SHAPE_MAX_RANK];
    eval_broadcast_strides(&c->shape, shape, stride);
    _cleanup_(freep) double *z = eval_doubles(e, c);
    if (!z)
        return eval_failed(e);
    for (int64_t i = 0; i < shape->dim[0]; i++) {
        for (int64_t j = 0; j < shape->dim[1]; j++)
            y[i * shape->dim[1] + j] += beta * z[i * stride[0] + j * stride[1]];
    }
    return 0;
}

int eval_gemm(struct eval *e)
{
    const struct tensor *a = e->in[0], *b = e->in[1];
    bool ta = node_int(e->node, "transA", 0) != 0, tb = node_int(e->node, "transB", 0) != 0;
    char text_a[128], text_b[128];
    if (a->shape.rank != 2 || b->shape.rank != 2)
        return eval_bad(e, "operands %s and %s are not matrices", shape_text(&a->shape, text_a),
                        shape_text(&b->shape, text_b));
    int64_t m = a->shape.dim[ta], k = a->shape.dim[!ta], n = b->shape.dim[!tb];
    if (k != b->shape.dim[tb])
        return eval_bad(e, "matrices %s and %s do not match (transA %d, transB %d)",
                        shape_text(&a->shape, text_a), shape_text(&b->shape, text_b), ta, tb);
    struct shape shape = shape_make(2, (int64_t[]){m, n});
    struct tensor *out = eval_out(e, 0, a->dtype, &shape);
    if (!out)
        return eval_failed(e);
    _cleanup_(freep) double *x = operand(e, a, ta);
    _cleanup_(freep) double *w = operand(e, b, tb);
    _cleanup_(freep) double *y = eval_doubles(e, out);
    if (!x || !w || !y)
        return eval_failed(e);
    eval_gemm_f64(m, n, k, x, w, y);
    int rc = add_c(e, &shape, y);
    if (rc == 0)
        eval_store_doubles(out, y);
    return rc;
}
