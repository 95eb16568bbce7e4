#include "shared/graph/infer.h"

#include <inttypes.h>
#include <string.h>

#include "shared/graph/infer_priv.h"

/* ---- helpers ---- */

int infer_list(const struct graph *g, const struct node *node, const char *attr, int i,
               struct int_list *ret, struct err *err)
{
    *ret = (struct int_list){0};
    const struct attr *a = attr ? node_attr(node, attr) : NULL;
    if (a) {
        if (a->n > LIST_MAX)
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "%d entries in %s, at most %d make "
                            "sense",
                            a->n, attr, LIST_MAX);
        ret->given = true;
        ret->n = node_ints(node, attr, LIST_MAX, ret->v);
        return 0;
    }
    const struct value *value = graph_input_of(g, node, i);
    if (!value)
        return 0;
    const struct tensor *t = value->constant;
    if (!t)
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "input %d ('%.128s') decides about shapes and must be a constant", i,
                        value->name);
    if (t->dtype != DTYPE_S64 && t->dtype != DTYPE_S32)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "input %d ('%.128s') must hold integers, "
                        "not %s",
                        i, value->name, dtype_name(t->dtype));
    int64_t n = shape_elements(&t->shape);
    if (t->shape.rank > 1 || n > LIST_MAX)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "input %d ('%.128s') must be a list of at most %d integers", i, value->name,
                        LIST_MAX);
    ret->given = true;
    ret->n = (int)n;
    for (int k = 0; k < ret->n; k++)
        ret->v[k] = tensor_get_s64(t, k);
    return 0;
}

const struct shape *infer_shape_of(const struct graph *g, const struct node *node, int i)
{
    return &graph_input_of(g, node, i)->shape;
}

static enum dtype type_of(const struct graph *g, const struct node *node, int i)
{
    return graph_input_of(g, node, i)->dtype;
}

int infer_set(struct graph *g, const struct node *node, int i, enum dtype dtype,
              const struct shape *shape, struct err *err)
{
    struct value *value = graph_output_of(g, node, i);
    if (!value)
        return 0;
    int rc = shape_check(shape, err);
    if (rc < 0)
        return node_wrap(rc, err, node);
    value->dtype = dtype;
    value->shape = *shape;
    value->shape_known = true;
    return 0;
}

int infer_axis(const struct node *node, int64_t axis, int rank, int *ret, struct err *err)
{
    if (axis < -rank || axis >= rank)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "axis %" PRId64 " of an input with %d dimensions", axis, rank);
    *ret = (int)(axis < 0 ? axis + rank : axis);
    return 0;
}

int infer_axes(const struct node *node, const struct int_list *list, int rank,
               bool ret[SHAPE_MAX_RANK], struct err *err)
{
    memset(ret, 0, SHAPE_MAX_RANK * sizeof(bool));
    for (int i = 0; i < list->n; i++) {
        int axis = 0;
        int rc = infer_axis(node, list->v[i], rank, &axis, err);
        if (rc < 0)
            return rc;
        if (ret[axis])
            return node_err(err, ERR_INVALID_ARGUMENT, node, "axis %d is named twice", axis);
        ret[axis] = true;
    }
    return 0;
}

int infer_product(const struct node *node, const struct shape *s, int from, int to, int64_t *ret,
                  struct err *err)
{
    int64_t product = 1;
    bool batch = false;
    for (int i = from; i < to; i++) {
        if (s->dim[i] == DIM_BATCH)
            batch = true;
        else
            product *= s->dim[i];
    }
    if (batch && product != 1)
        return node_err(err, ERR_UNIMPLEMENTED, node, "merges the batch with other dimensions");
    *ret = batch ? DIM_BATCH : product;
    return 0;
}

/* ---- elementwise ---- */

static int infer_same(struct graph *g, const struct node *node, struct err *err)
{
    return infer_set(g, node, 0, type_of(g, node, 0), infer_shape_of(g, node, 0), err);
}

static int check_types(const struct graph *g, const struct node *node, struct err *err)
{
    enum dtype first = type_of(g, node, 0);
    for (int i = 1; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && type_of(g, node, i) != first)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "inputs of different types: %s and %s",
                            dtype_name(first), dtype_name(type_of(g, node, i)));
    return 0;
}

static int infer_binary(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape;
    int rc = check_types(g, node, err);
    if (rc < 0)
        return rc;
    rc = shape_broadcast(infer_shape_of(g, node, 0), infer_shape_of(g, node, 1), &shape, err);
    if (rc < 0)
        return node_wrap(rc, err, node);
    return infer_set(g, node, 0, type_of(g, node, 0), &shape, err);
}

static int infer_prelu(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0), *slope = infer_shape_of(g, node, 1);
    struct shape shape;
    int rc = check_types(g, node, err);
    if (rc < 0)
        return rc;
    rc = shape_broadcast(x, slope, &shape, err);
    if (rc < 0)
        return node_wrap(rc, err, node);
    char a[128], b[128];
    if (!shape_equal(x, &shape))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "slope %s does not fit input %s",
                        shape_text(slope, a), shape_text(x, b));
    return infer_same(g, node, err);
}

static int infer_clip(struct graph *g, const struct node *node, struct err *err)
{
    int rc = check_types(g, node, err);
    for (int i = 1; i < 3 && rc == 0; i++) {
        const struct value *bound = graph_input_of(g, node, i);
        if (bound && bound->constant && shape_elements(&bound->shape) != 1)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "a bound must be one number");
    }
    return rc < 0 ? rc : infer_same(g, node, err);
}

static int infer_softmax(struct graph *g, const struct node *node, struct err *err)
{
    int rank = infer_shape_of(g, node, 0)->rank;
    int64_t axis = node_int(node, "axis", node->since < 13 ? 1 : -1);
    int ignored = 0;
    /* Up to opset 12 the axis splits the dimensions in two, and may lie behind the last. */
    int rc = node->since < 13 && axis == rank ? 0 : infer_axis(node, axis, rank, &ignored, err);
    return rc < 0 ? rc : infer_same(g, node, err);
}

static int infer_cast(struct graph *g, const struct node *node, struct err *err)
{
    int64_t to = node_int(node, "to", DTYPE_NONE);
    if (to < 0 || to > DTYPE_BF16 || dtype_bytes((enum dtype)to) == 0)
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "casts to ONNX type %" PRId64 ", which Hone does not know", to);
    return infer_set(g, node, 0, (enum dtype)to, infer_shape_of(g, node, 0), err);
}

static int infer_dropout(struct graph *g, const struct node *node, struct err *err)
{
    int rc = infer_same(g, node, err);
    enum dtype mask = node->since < 10 ? type_of(g, node, 0) : DTYPE_BOOL;
    return rc < 0 ? rc : infer_set(g, node, 1, mask, infer_shape_of(g, node, 0), err);
}

/* ---- normalisation ---- */

static int infer_batchnorm(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    if (x->rank < 2)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "needs at least 2 dimensions, not %d",
                        x->rank);
    if (node->since < 9 && node_int(node, "spatial", 1) == 0)
        return node_err(err, ERR_UNIMPLEMENTED, node, "spatial = 0 (statistics per position)");
    char text[128];
    for (int i = 1; i < 5; i++) {
        const struct shape *s = infer_shape_of(g, node, i);
        if (s->rank != 1 || s->dim[0] != x->dim[1])
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "input %d has shape %s where %" PRId64 " channels are normalised", i,
                            shape_text(s, text), x->dim[1]);
    }
    int rc = infer_same(g, node, err);
    for (int i = 1; i < node->n_outputs && rc == 0; i++)
        rc = infer_set(g, node, i, type_of(g, node, 3), infer_shape_of(g, node, 3), err);
    return rc;
}

static int infer_lrn(struct graph *g, const struct node *node, struct err *err)
{
    if (infer_shape_of(g, node, 0)->rank < 2)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "needs at least 2 dimensions");
    int64_t size = node_int(node, "size", 0);
    if (size < 1 || size > INT32_MAX)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "size is %" PRId64, size);
    return infer_same(g, node, err);
}

static int infer_global_pool(struct graph *g, const struct node *node, struct err *err)
{
    struct shape shape = *infer_shape_of(g, node, 0);
    if (shape.rank < 3)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "needs at least 3 dimensions, not %d",
                        shape.rank);
    for (int i = 2; i < shape.rank; i++) {
        if (shape.dim[i] == DIM_BATCH)
            return node_err(err, ERR_UNIMPLEMENTED, node, "pools over the batch");
        if (shape.dim[i] == 0)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "pools over nothing");
        shape.dim[i] = 1;
    }
    return infer_set(g, node, 0, type_of(g, node, 0), &shape, err);
}

static int infer_reduce_mean(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    struct int_list list;
    bool reduced[SHAPE_MAX_RANK];
    int rc = infer_list(g, node, "axes", 1, &list, err);
    if (rc == 0)
        rc = infer_axes(node, &list, x->rank, reduced, err);
    if (rc < 0)
        return rc;
    bool all = list.n == 0 && node_int(node, "noop_with_empty_axes", 0) == 0;
    bool keep = node_int(node, "keepdims", 1) != 0;
    struct shape shape = {0};
    for (int i = 0; i < x->rank; i++) {
        if (!all && !reduced[i]) {
            shape.dim[shape.rank++] = x->dim[i];
            continue;
        }
        if (x->dim[i] == DIM_BATCH)
            return node_err(err, ERR_UNIMPLEMENTED, node, "averages over the batch");
        if (keep)
            shape.dim[shape.rank++] = 1;
    }
    return infer_set(g, node, 0, type_of(g, node, 0), &shape, err);
}

/* ---- products ---- */

static int infer_gemm(struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *a = infer_shape_of(g, node, 0), *b = infer_shape_of(g, node, 1);
    char ta[128], tb[128];
    int rc = check_types(g, node, err);
    if (rc < 0)
        return rc;
    if (a->rank != 2 || b->rank != 2)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "multiplies %s by %s, not two matrices",
                        shape_text(a, ta), shape_text(b, tb));
    bool trans_a = node_int(node, "transA", 0) != 0, trans_b = node_int(node, "transB", 0) != 0;
    if (a->dim[!trans_a] != b->dim[trans_b])
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "multiplies %s%s by %s%s: the inner dimensions differ", shape_text(a, ta),
                        trans_a ? " transposed" : "", shape_text(b, tb),
                        trans_b ? " transposed" : "");
    if (a->dim[!trans_a] == DIM_BATCH)
        return node_err(err, ERR_UNIMPLEMENTED, node, "sums over the batch");
    struct shape shape = {.rank = 2, .dim = {a->dim[trans_a], b->dim[!trans_b]}};
    const struct value *c = graph_input_of(g, node, 2);
    if (c) {
        struct shape sum;
        rc = shape_broadcast(&shape, &c->shape, &sum, err);
        if (rc < 0)
            return node_wrap(rc, err, node);
        if (!shape_equal(&sum, &shape))
            return node_err(err, ERR_INVALID_ARGUMENT, node, "addend %s does not fit product %s",
                            shape_text(&c->shape, ta), shape_text(&shape, tb));
    }
    return infer_set(g, node, 0, type_of(g, node, 0), &shape, err);
}

static int infer_matmul(struct graph *g, const struct node *node, struct err *err)
{
    struct shape a = *infer_shape_of(g, node, 0), b = *infer_shape_of(g, node, 1), shape;
    char ta[128], tb[128];
    int rc = check_types(g, node, err);
    if (rc < 0)
        return rc;
    if (a.rank == 0 || b.rank == 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "multiplies a scalar");
    bool vector_a = a.rank == 1, vector_b = b.rank == 1;
    if (vector_a)
        a = (struct shape){.rank = 2, .dim = {1, a.dim[0]}};
    if (vector_b)
        b = (struct shape){.rank = 2, .dim = {b.dim[0], 1}};
    int64_t m = a.dim[a.rank - 2], k = a.dim[a.rank - 1], n = b.dim[b.rank - 1];
    if (k != b.dim[b.rank - 2])
        return node_err(
            err, ERR_INVALID_ARGUMENT, node, "multiplies %s by %s: the inner dimensions differ",
            shape_text(infer_shape_of(g, node, 0), ta), shape_text(infer_shape_of(g, node, 1), tb));
    if (k == DIM_BATCH)
        return node_err(err, ERR_UNIMPLEMENTED, node, "sums over the batch");
    a.rank -= 2;
    b.rank -= 2;
    rc = shape_broadcast(&a, &b, &shape, err);
    if (rc < 0)
        return node_wrap(rc, err, node);
    if (!vector_a)
        shape.dim[shape.rank++] = m;
    if (!vector_b)
        shape.dim[shape.rank++] = n;
    return infer_set(g, node, 0, type_of(g, node, 0), &shape, err);
}

/* ---- quantization ---- */

/* The scale is one number, a vector along the axis, or (opset 21) blocks along it. */
static int check_scale(const struct graph *g, const struct node *node, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0), *scale = infer_shape_of(g, node, 1);
    const struct value *zero = graph_input_of(g, node, 2);
    char a[128], b[128];
    if (zero && !shape_equal(&zero->shape, scale) &&
        (shape_elements_at(&zero->shape, 1) != 1 || shape_elements_at(scale, 1) != 1))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "scale %s and zero point %s differ",
                        shape_text(scale, a), shape_text(&zero->shape, b));
    int64_t block = node_int(node, "block_size", 0);
    bool one = scale->rank == 0 || (scale->rank == 1 && scale->dim[0] == 1);
    if (one && block == 0)
        return 0;
    int axis = 0;
    int rc = infer_axis(node, node_int(node, "axis", 1), x->rank, &axis, err);
    if (rc < 0)
        return rc;
    bool fits = block == 0 ? scale->rank == 1 && scale->dim[0] == x->dim[axis]
                           : scale->rank == x->rank && block > 0;
    for (int i = 0; block > 0 && i < x->rank && fits; i++)
        fits =
            scale->dim[i] == (i == axis ? x->dim[i] / block + (x->dim[i] % block != 0) : x->dim[i]);
    if (!fits)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "scale %s does not fit axis %d of input %s", shape_text(scale, a), axis,
                        shape_text(x, b));
    return 0;
}

static int infer_quantize(struct graph *g, const struct node *node, struct err *err)
{
    int rc = check_scale(g, node, err);
    if (rc < 0)
        return rc;
    const struct value *zero = graph_input_of(g, node, 2);
    int64_t dtype = node_int(node, "output_dtype", 0);
    if (dtype == 0)
        dtype = zero ? zero->dtype : DTYPE_U8;
    else if (zero && zero->dtype != (enum dtype)dtype)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "zero point and output_dtype differ");
    if (dtype != DTYPE_U8 && dtype != DTYPE_S8 && dtype != DTYPE_U16 && dtype != DTYPE_S16)
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "quantizes to ONNX type %" PRId64 " (uint8, int8, uint16, int16 are known)",
                        dtype);
    return infer_set(g, node, 0, (enum dtype)dtype, infer_shape_of(g, node, 0), err);
}

static int infer_dequantize(struct graph *g, const struct node *node, struct err *err)
{
    int rc = check_scale(g, node, err);
    if (rc < 0)
        return rc;
    const struct value *zero = graph_input_of(g, node, 2);
    if (zero && zero->dtype != type_of(g, node, 0))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "zero point is %s, input %s",
                        dtype_name(zero->dtype), dtype_name(type_of(g, node, 0)));
    return infer_set(g, node, 0, type_of(g, node, 1), infer_shape_of(g, node, 0), err);
}

/* ---- constants and shapes ---- */

static int infer_constant(struct graph *g, const struct node *node, struct err *err)
{
    const struct attr *a = node->n_attrs == 1 ? &node->attrs[0] : NULL;
    if (!a)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "must have one attribute, has %d",
                        node->n_attrs);
    struct shape shape = {.rank = 0};
    switch (a->kind) {
    case ATTR_TENSOR:
        return infer_set(g, node, 0, a->tensor->dtype, &a->tensor->shape, err);
    case ATTR_INT:
        return infer_set(g, node, 0, DTYPE_S64, &shape, err);
    case ATTR_FLOAT:
        return infer_set(g, node, 0, DTYPE_F32, &shape, err);
    case ATTR_INTS:
    case ATTR_FLOATS:
        shape = (struct shape){.rank = 1, .dim = {a->n}};
        return infer_set(g, node, 0, a->kind == ATTR_INTS ? DTYPE_S64 : DTYPE_F32, &shape, err);
    case ATTR_STRING:
        break;
    }
    return node_err(err, ERR_UNIMPLEMENTED, node, "a constant of text");
}

static int infer_constant_of_shape(struct graph *g, const struct node *node, struct err *err)
{
    struct int_list dims;
    int rc = infer_list(g, node, NULL, 0, &dims, err);
    if (rc < 0)
        return rc;
    if (dims.n > SHAPE_MAX_RANK)
        return node_err(err, ERR_UNIMPLEMENTED, node, "%d dimensions (at most %d)", dims.n,
                        SHAPE_MAX_RANK);
    struct shape shape = shape_make(dims.n, dims.v);
    for (int i = 0; i < dims.n; i++)
        if (dims.v[i] < 0)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "dimension %d is %" PRId64, i,
                            dims.v[i]);
    const struct attr *value = node_attr(node, "value");
    enum dtype dtype = value && value->kind == ATTR_TENSOR ? value->tensor->dtype : DTYPE_F32;
    if (value && value->kind == ATTR_TENSOR && shape_elements(&value->tensor->shape) != 1)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "attribute value must be one number");
    return infer_set(g, node, 0, dtype, &shape, err);
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

static int infer_shape_op(struct graph *g, const struct node *node, struct err *err)
{
    int64_t rank = infer_shape_of(g, node, 0)->rank;
    int64_t start = node_int(node, "start", 0), end = node_int(node, "end", rank);
    start = clamp(start < 0 ? start + rank : start, 0, rank);
    end = clamp(end < 0 ? end + rank : end, 0, rank);
    struct shape shape = {.rank = 1, .dim = {end > start ? end - start : 0}};
    return infer_set(g, node, 0, DTYPE_S64, &shape, err);
}

/* ---- dispatch ---- */

typedef int infer_fn(struct graph *g, const struct node *node, struct err *err);

static infer_fn *const rules[OP_COUNT] = {
    [OP_ABS] = infer_same,
    [OP_ADD] = infer_binary,
    [OP_AVERAGE_POOL] = infer_pool,
    [OP_BATCH_NORMALIZATION] = infer_batchnorm,
    [OP_CAST] = infer_cast,
    [OP_CLIP] = infer_clip,
    [OP_CONCAT] = infer_concat,
    [OP_CONSTANT] = infer_constant,
    [OP_CONSTANT_OF_SHAPE] = infer_constant_of_shape,
    [OP_CONV] = infer_conv,
    [OP_CONV_TRANSPOSE] = infer_conv_transpose,
    [OP_DEQUANTIZE_LINEAR] = infer_dequantize,
    [OP_DIV] = infer_binary,
    [OP_DROPOUT] = infer_dropout,
    [OP_ELU] = infer_same,
    [OP_EXPAND] = infer_expand,
    [OP_FLATTEN] = infer_flatten,
    [OP_GATHER] = infer_gather,
    [OP_GEMM] = infer_gemm,
    [OP_GLOBAL_AVERAGE_POOL] = infer_global_pool,
    [OP_GLOBAL_MAX_POOL] = infer_global_pool,
    [OP_HARD_SIGMOID] = infer_same,
    [OP_HARD_SWISH] = infer_same,
    [OP_IDENTITY] = infer_same,
    [OP_LEAKY_RELU] = infer_same,
    [OP_LRN] = infer_lrn,
    [OP_MATMUL] = infer_matmul,
    [OP_MAX_POOL] = infer_pool,
    [OP_MUL] = infer_binary,
    [OP_PAD] = infer_pad,
    [OP_PRELU] = infer_prelu,
    [OP_QUANTIZE_LINEAR] = infer_quantize,
    [OP_REDUCE_MEAN] = infer_reduce_mean,
    [OP_RELU] = infer_same,
    [OP_RESHAPE] = infer_reshape,
    [OP_RESIZE] = infer_resize,
    [OP_SHAPE] = infer_shape_op,
    [OP_SIGMOID] = infer_same,
    [OP_SLICE] = infer_slice,
    [OP_SOFTMAX] = infer_softmax,
    [OP_SOFTPLUS] = infer_same,
    [OP_SPLIT] = infer_split,
    [OP_SQUEEZE] = infer_squeeze,
    [OP_SUB] = infer_binary,
    [OP_TANH] = infer_same,
    [OP_TRANSPOSE] = infer_transpose,
    [OP_UNSQUEEZE] = infer_unsqueeze,
    [OP_UPSAMPLE] = infer_resize,
};

int graph_infer_node(struct graph *g, const struct node *node, struct err *err)
{
    if ((unsigned)node->op >= OP_COUNT)
        return err_set(err, ERR_INTERNAL, "node '%.128s' has no operator", node->name);
    int rc = graph_check_node(g, node, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < node->n_inputs; i++) {
        const struct value *value = graph_input_of(g, node, i);
        if (value && (!value->shape_known || value->dtype == DTYPE_NONE))
            return node_err(err, ERR_UNIMPLEMENTED, node, "the %s of input '%.128s' is not known",
                            value->shape_known ? "type" : "shape", value->name);
    }
    return rules[node->op](g, node, err);
}

int graph_infer(struct graph *g, struct err *err)
{
    for (int n = 0; n < g->n_nodes; n++) {
        int rc = g->nodes[n]->dead ? 0 : graph_infer_node(g, g->nodes[n], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
