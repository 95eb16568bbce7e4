#pragma once
/*
 * Shared by the files of the evaluator. eval.c finds an operator's row in the table, checks how
 * many inputs and outputs there are and their types, and calls one of the functions below with a
 * `struct eval`; what the function says in an error is put behind the node's name there.
 *
 * Numbers are computed in double (floating point) or in int64 with wrap-around (integers), whatever
 * the tensors' type, and rounded once at the end.
 */
#include "shared/graph/eval.h"

/* One tensor of the reference may have this many elements: enough for any activation of a network
 * that runs on a CPU, and a bound on what a hostile file can make us allocate. */
#define EVAL_MAX_ELEMENTS ((int64_t)1 << 28)

struct eval {
    const struct graph *g;
    const struct node *node;
    const struct tensor *const *in; /* [node->n_inputs] */
    struct tensor **out;            /* [node->n_outputs] */
    struct err *err;
};

typedef int eval_fn(struct eval *e);

/* Input i; NULL where it is left out. */
const struct tensor *eval_in(const struct eval *e, int i);
/* Whether the node has output i. */
bool eval_wants(const struct eval *e, int i);
/* Makes output i, zeroed; NULL with the error set. Outputs other than 0 only where eval_wants; an
 * output 0 that the node leaves out is dropped by eval_node. */
struct tensor *eval_out(struct eval *e, int i, enum dtype dtype, const struct shape *shape);
/* INVALID_ARGUMENT with the text; returns the code. */
int eval_bad(struct eval *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* The code of an error that is set already. */
int eval_failed(const struct eval *e);
int eval_unsupported(struct eval *e, const char *fmt, ...) __attribute__((format(printf, 2, 3)));

/* axis in [-rank, rank) to [0, rank). */
int eval_axis(struct eval *e, int64_t axis, int rank, int *ret);
/* A list of different axes; sets the flags of those named, and ret_order (may be NULL) in the order
 * given. */
int eval_axes(struct eval *e, int n, const int64_t *axes, int rank, bool flags[SHAPE_MAX_RANK],
              int ret_order[SHAPE_MAX_RANK]);
/* The integers of a 1-D (or scalar) int32 or int64 tensor, at most `max`: how many, or a negative
 * code. `what` names it in errors. */
int eval_list(struct eval *e, const struct tensor *t, const char *what, int max, int64_t *ret);
/* The same from input i or, where the operator took it as an attribute up to opset `until`, from
 * the attribute. -ERR_NOT_FOUND without an error text: neither is there. */
int eval_list_of(struct eval *e, int input, const char *attr, int until, int max, int64_t *ret);
#define EVAL_ABSENT (-ERR_NOT_FOUND)

/* All elements as doubles, malloc'ed; NULL with the error set. */
double *eval_doubles(struct eval *e, const struct tensor *t);
/* Rounds (to nearest even; integers saturate) into the tensor. */
void eval_store_doubles(struct tensor *t, const double *x);
/* All elements of an integer or bool tensor, sign- or zero-extended to 64 bits; malloc'ed. */
int64_t *eval_integers(struct eval *e, const struct tensor *t);
/* Truncates to the type's width (wrap-around). */
void eval_store_integers(struct tensor *t, const int64_t *x);
/* "a < b" for two 64-bit patterns of the given integer type. */
bool eval_less(enum dtype dtype, int64_t a, int64_t b);

/* Row-major strides in elements. */
void eval_strides(const struct shape *shape, int64_t stride[SHAPE_MAX_RANK]);
/* Strides by which `shape`, aligned right, is read as `as`. */
void eval_broadcast_strides(const struct shape *shape, const struct shape *as,
                            int64_t stride[SHAPE_MAX_RANK]);
/* Copies a box of `shape` elements of `bytes` each between any strides (in elements). */
void eval_copy(const struct shape *shape, void *to, const int64_t *to_stride, const void *from,
               const int64_t *from_stride, size_t bytes);
/* Walks the rows of a shape: calls fn(ctx, o, a, b) with the element offsets at which each row of
 * the innermost dimension begins. */
typedef void eval_row_fn(void *ctx, int64_t o, int64_t a, int64_t b);
void eval_rows(const struct shape *shape, const int64_t *a_stride, const int64_t *b_stride,
               eval_row_fn *fn, void *ctx);
/* outer * axis * inner: the elements before, along and behind an axis. */
void eval_split_at(const struct shape *shape, int axis, int64_t *ret_outer, int64_t *ret_inner);

/* Geometry of a convolution or pool from the tensors themselves (not from inferred shapes): always
 * three spatial dimensions, the missing ones in front of size 1. */
struct box {
    int rank; /* that the node really has */
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
};
/* `kernel`: from the weights' shape, `rank` values; NULL: from the attribute. */
int eval_window(struct eval *e, const struct shape *in, const int64_t *kernel, bool ceil_mode,
                struct box *ret);
int eval_window_transposed(struct eval *e, const struct shape *in, const int64_t *kernel,
                           struct box *ret);
/* [N, C, out...] */
struct shape eval_box_shape(int64_t n, int64_t c, const struct box *box);
/* Range [lo, hi) of positions i in [0, n) for which i * stride + offset lies in [0, limit). */
void eval_range(int64_t n, int64_t stride, int64_t offset, int64_t limit, int64_t *lo, int64_t *hi);

/* c: [m, n] += a: [m, k] * b: [k, n], dense */
void eval_gemm_f64(int64_t m, int64_t n, int64_t k, const double *a, const double *b, double *c);

/* eval_conv.c */
eval_fn eval_conv, eval_conv_transpose;
/* eval_gemm.c */
eval_fn eval_gemm, eval_matmul;
/* eval_pool.c */
eval_fn eval_average_pool, eval_max_pool, eval_global_average_pool, eval_global_max_pool;
/* eval_binary.c */
eval_fn eval_binary, eval_prelu;
/* eval_unary.c */
eval_fn eval_unary, eval_abs, eval_clip, eval_relu, eval_cast;
/* eval_norm.c */
eval_fn eval_batch_normalization, eval_lrn, eval_softmax, eval_reduce_mean;
/* eval_shape.c */
eval_fn eval_constant, eval_constant_of_shape, eval_dropout, eval_flatten, eval_identity,
    eval_reshape, eval_shape, eval_squeeze, eval_unsqueeze;
/* eval_move.c */
eval_fn eval_concat, eval_expand, eval_gather, eval_pad, eval_slice, eval_split, eval_transpose;
/* eval_resize.c */
eval_fn eval_resize, eval_upsample;
/* eval_quantize.c */
eval_fn eval_quantize_linear, eval_dequantize_linear;
