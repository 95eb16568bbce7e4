#include "shared/graph/fold.h"

#include <stdlib.h>
#include <string.h>

#include "shared/graph/cuts.h"
#include "shared/graph/eval.h"
#include "shared/graph/graph_priv.h"
#include "shared/graph/infer.h"

/* Longer integer tensors than this compute no shapes. */
enum { SYMBOLIC_MAX = 1024, INPUTS_MAX = 64 };

int fold_begin(struct fold *fold, struct graph *g, bool symbols, int64_t max_elements,
               struct err *err)
{
    (void)err;
    *fold = (struct fold){
        .g = g, .symbols = symbols, .max_elements = max_elements, .max_work = (int64_t)1 << 31};
    return 0;
}

void fold_release(struct fold *fold)
{
    for (int i = 0; i < fold->n_symbolic; i++) {
        tensor_free(fold->symbolic[i].a);
        tensor_free(fold->symbolic[i].b);
    }
    free(fold->symbolic);
    *fold = (struct fold){0};
}

/* ---- symbolic values ---- */

static const struct symbolic *symbolic_of(const struct fold *fold, int value)
{
    bool has = value >= 0 && value < fold->n_symbolic && fold->symbolic[value].a;
    return has ? &fold->symbolic[value] : NULL;
}

static bool is_zero(const struct tensor *t)
{
    int64_t n = shape_elements(&t->shape);
    for (int64_t i = 0; i < n; i++)
        if (tensor_get_f64(t, i) != 0)
            return false;
    return true;
}

/* Takes a and b. A value without N in it is a constant. */
static int put(struct fold *fold, int value, struct tensor *a, struct tensor *b, struct err *err)
{
    _cleanup_(tensor_freep) struct tensor *own_a = a;
    _cleanup_(tensor_freep) struct tensor *own_b = b;
    if (is_zero(a))
        return graph_make_constant(fold->g, value, b, err);
    if (value >= fold->n_symbolic) {
        int n = fold->g->n_values + 64;
        struct symbolic *bigger = mem_realloc(fold->symbolic, (size_t)n, sizeof(*bigger));
        if (!bigger)
            return err_oom(err, "folding constants");
        memset(bigger + fold->n_symbolic, 0, (size_t)(n - fold->n_symbolic) * sizeof(*bigger));
        fold->symbolic = bigger;
        fold->n_symbolic = n;
    }
    fold->symbolic[value] = (struct symbolic){TAKE_PTR(own_a), TAKE_PTR(own_b)};
    return 0;
}

/* ---- linear operators on symbolic values ---- */

/* Which inputs carry the elements, the others steering: all, or the first. 0: not linear. */
enum linear { LINEAR_NOT, LINEAR_FIRST, LINEAR_ALL };

static enum linear linearity(const struct node *node)
{
    switch (node->op) {
    case OP_GATHER:
    case OP_SLICE:
    case OP_RESHAPE:
    case OP_FLATTEN:
    case OP_TRANSPOSE:
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
    case OP_SPLIT:
    case OP_IDENTITY:
    case OP_EXPAND:
        return LINEAR_FIRST;
    case OP_CAST: {
        int64_t to = node_int(node, "to", 0);
        bool wide = to == DTYPE_S64 || to == DTYPE_S32 || to == DTYPE_F32 || to == DTYPE_F64;
        return wide ? LINEAR_FIRST : LINEAR_NOT;
    }
    case OP_CONCAT:
    case OP_ADD:
    case OP_SUB:
        return LINEAR_ALL;
    default:
        return LINEAR_NOT;
    }
}

/* Inputs of one run of a node, some of them made for it. */
struct run {
    const struct tensor *inputs[INPUTS_MAX];
    struct tensor *made[INPUTS_MAX];
};

static void run_release(struct run *run)
{
    for (int i = 0; i < INPUTS_MAX; i++)
        tensor_free(run->made[i]);
}

enum part { PART_A, PART_B };

/* The a or b part of input i: of a constant, a is zero. NULL with err->code 0 when input i is
 * neither symbolic nor constant. */
static const struct tensor *part_of(const struct fold *fold, const struct node *node, int i,
                                    enum part part, struct run *run, struct err *err)
{
    const struct symbolic *s = symbolic_of(fold, node->inputs[i]);
    if (s)
        return part == PART_A ? s->a : s->b;
    const struct tensor *constant = graph_constant_of(fold->g, node, i);
    if (!constant || part == PART_B)
        return constant;
    run->made[i] = tensor_new(constant->dtype, &constant->shape, err);
    return run->made[i];
}

/* Frees what eval_node may have made before it failed. */
static void free_all(struct tensor **tensors, int n)
{
    for (int i = 0; i < n; i++)
        tensors[i] = tensor_free(tensors[i]);
}

static int run_linear(const struct fold *fold, const struct node *node, enum linear linear,
                      enum part part, struct tensor **outputs, struct err *err)
{
    _cleanup_(run_release) struct run run = {0};
    for (int i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] < 0)
            continue;
        bool data = i == 0 || linear == LINEAR_ALL;
        run.inputs[i] =
            data ? part_of(fold, node, i, part, &run, err) : graph_constant_of(fold->g, node, i);
        if (!run.inputs[i])
            return -ERR_UNIMPLEMENTED;
    }
    return eval_node(fold->g, node, run.inputs, outputs, err);
}

static int fold_linear(struct fold *fold, const struct node *node, enum linear linear,
                       struct err *err)
{
    struct tensor *a[INPUTS_MAX] = {0}, *b[INPUTS_MAX] = {0};
    int rc = run_linear(fold, node, linear, PART_A, a, err);
    if (rc == 0)
        rc = run_linear(fold, node, linear, PART_B, b, err);
    for (int i = 0; i < node->n_outputs && rc == 0; i++) {
        if (node->outputs[i] < 0 || !a[i] || !b[i])
            continue;
        rc = put(fold, node->outputs[i], TAKE_PTR(a[i]), TAKE_PTR(b[i]), err);
    }
    free_all(a, node->n_outputs);
    free_all(b, node->n_outputs);
    return rc;
}

/* One run of a binary operator on parts of its two inputs. */
static int run_parts(const struct fold *fold, const struct node *node, enum part first,
                     enum part second, struct tensor **ret, struct err *err)
{
    _cleanup_(run_release) struct run run = {0};
    run.inputs[0] = part_of(fold, node, 0, first, &run, err);
    run.inputs[1] = part_of(fold, node, 1, second, &run, err);
    if (!run.inputs[0] || !run.inputs[1])
        return -ERR_UNIMPLEMENTED;
    return eval_node(fold->g, node, run.inputs, ret, err);
}

/* (a1 N + b1) (a2 N + b2), where one of them has no N. */
static int fold_product(struct fold *fold, const struct node *node, struct err *err)
{
    _cleanup_(tensor_freep) struct tensor *square = NULL;
    _cleanup_(tensor_freep) struct tensor *left = NULL;
    _cleanup_(tensor_freep) struct tensor *right = NULL;
    struct tensor *rest = NULL;
    int rc = run_parts(fold, node, PART_A, PART_A, &square, err);
    if (rc < 0)
        return rc;
    if (!is_zero(square))
        return -ERR_UNIMPLEMENTED;
    rc = run_parts(fold, node, PART_A, PART_B, &left, err);
    if (rc == 0)
        rc = run_parts(fold, node, PART_B, PART_A, &right, err);
    if (rc == 0)
        rc = run_parts(fold, node, PART_B, PART_B, &rest, err);
    if (rc < 0)
        return rc;
    for (int64_t i = 0; i < shape_elements(&left->shape); i++)
        tensor_set_f64(left, i, tensor_get_f64(left, i) + tensor_get_f64(right, i));
    return put(fold, node->outputs[0], TAKE_PTR(left), rest, err);
}

/* Whether every element of x is a multiple of every element of the divisor. */
static bool divides(const struct tensor *divisor, const struct tensor *x)
{
    for (int64_t k = 0; k < shape_elements(&divisor->shape); k++) {
        int64_t d = tensor_get_s64(divisor, k);
        if (d <= 0)
            return false;
        for (int64_t i = 0; i < shape_elements(&x->shape); i++)
            if (tensor_get_s64(x, i) % d != 0)
                return false;
    }
    return true;
}

/* (a N + b) / c, where the division is exact for every N. */
static int fold_quotient(struct fold *fold, const struct node *node, struct err *err)
{
    const struct symbolic *x = symbolic_of(fold, node->inputs[0]);
    const struct tensor *divisor = graph_constant_of(fold->g, node, 1);
    if (!x || !divisor || !divides(divisor, x->a) || !divides(divisor, x->b))
        return -ERR_UNIMPLEMENTED;
    struct tensor *a = NULL, *b = NULL;
    int rc = run_parts(fold, node, PART_A, PART_B, &a, err);
    if (rc < 0)
        return rc;
    rc = run_parts(fold, node, PART_B, PART_B, &b, err);
    if (rc < 0) {
        tensor_free(a);
        return rc;
    }
    return put(fold, node->outputs[0], a, b, err);
}

static int fold_symbolic(struct fold *fold, const struct node *node, struct err *err)
{
    enum linear linear = linearity(node);
    const struct value *out = graph_output_of(fold->g, node, 0);
    if (node->n_outputs > INPUTS_MAX || !out || shape_has_batch(&out->shape) ||
        shape_elements(&out->shape) > SYMBOLIC_MAX)
        return -ERR_UNIMPLEMENTED;
    if (linear != LINEAR_NOT)
        return fold_linear(fold, node, linear, err);
    if (node->op == OP_MUL)
        return fold_product(fold, node, err);
    if (node->op == OP_DIV && out->dtype == DTYPE_S64)
        return fold_quotient(fold, node, err);
    return -ERR_UNIMPLEMENTED;
}

/* Shape needs only its input's shape: a is 1 where the batch is. */
static int fold_shape(struct fold *fold, const struct node *node, struct err *err)
{
    const struct value *in = graph_input_of(fold->g, node, 0);
    const struct value *out = graph_output_of(fold->g, node, 0);
    if (!fold->symbols && shape_has_batch(&in->shape))
        return -ERR_UNIMPLEMENTED;
    int rank = in->shape.rank;
    int64_t start = node_int(node, "start", 0);
    start = start < 0 ? start + rank : start;
    start = start < 0 ? 0 : start > rank ? rank : start;
    struct tensor *a = tensor_new(DTYPE_S64, &out->shape, err);
    struct tensor *b = tensor_new(DTYPE_S64, &out->shape, err);
    if (!a || !b) {
        tensor_free(a);
        tensor_free(b);
        return -ERR_RESOURCE_EXHAUSTED;
    }
    for (int64_t i = 0; i < shape_elements(&out->shape); i++) {
        int64_t dim = in->shape.dim[start + i];
        ((int64_t *)a->data)[i] = dim == DIM_BATCH;
        ((int64_t *)b->data)[i] = dim == DIM_BATCH ? 0 : dim;
    }
    return put(fold, node->outputs[0], a, b, err);
}

/* ---- constants ---- */

static bool all_constant(const struct graph *g, const struct node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (node->inputs[i] >= 0 && !graph_constant_of(g, node, i))
            return false;
    return node->n_inputs > 0 || node->op == OP_CONSTANT;
}

static bool any_symbolic(const struct fold *fold, const struct node *node)
{
    for (int i = 0; i < node->n_inputs; i++)
        if (symbolic_of(fold, node->inputs[i]))
            return true;
    return false;
}

static int64_t elements_of(const struct value *value)
{
    return value && value->shape_known ? shape_elements_at(&value->shape, 1) : 0;
}

/* How many elements each element of the output is computed from, beyond multiply-accumulates. */
static int64_t reach(const struct graph *g, const struct node *node)
{
    struct window w;
    int64_t n = 1;
    if (node->op == OP_LRN)
        return node_int(node, "size", 1);
    if ((node->op == OP_AVERAGE_POOL || node->op == OP_MAX_POOL) &&
        graph_window(g, node, &w, NULL) == 0)
        for (int i = 0; i < w.rank; i++)
            n = n > INT32_MAX ? n : n * w.kernel[i];
    return n;
}

/* A file of a few bytes may ask for huge constants, or for much work on small ones: what folding
 * makes and computes is bounded in sum. */
static bool affordable(struct fold *fold, const struct node *node)
{
    const struct graph *g = fold->g;
    int64_t made = 0, work = graph_node_cost(g, node).macs, pooled = 0;
    for (int i = 0; i < node->n_outputs; i++)
        made += elements_of(graph_output_of(g, node, i));
    if (made > fold->max_elements || work > fold->max_work ||
        __builtin_mul_overflow(made, reach(g, node), &pooled) || pooled > fold->max_work)
        return false;
    work += pooled;
    for (int i = 0; i < node->n_inputs; i++)
        work += elements_of(graph_input_of(g, node, i));
    if (work > fold->max_work)
        return false;
    fold->max_elements -= made;
    fold->max_work -= work;
    return true;
}

static int fold_constants(struct fold *fold, int n, struct err *err)
{
    struct graph *g = fold->g;
    struct node *node = g->nodes[n];
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    if (!scratch)
        return err_oom(err, "folding constants");
    const struct tensor **inputs = arena_alloc(scratch, (size_t)node->n_inputs, sizeof(*inputs));
    struct tensor **outputs = arena_alloc(scratch, (size_t)node->n_outputs, sizeof(*outputs));
    if (!inputs || !outputs)
        return err_oom(err, "folding constants");
    for (int i = 0; i < node->n_inputs; i++)
        inputs[i] = graph_constant_of(g, node, i);
    int rc = eval_node(g, node, inputs, outputs, err);
    for (int i = 0; i < node->n_outputs && rc == 0; i++)
        if (node->outputs[i] >= 0 && outputs[i])
            rc = graph_make_constant(g, node->outputs[i], outputs[i], err);
    free_all(outputs, node->n_outputs);
    return rc;
}

int fold_node(struct fold *fold, int n, struct err *err)
{
    struct node *node = fold->g->nodes[n];
    struct err ignored;
    int rc = -ERR_UNIMPLEMENTED;
    if (node->dead)
        return 0;
    if (node->op == OP_SHAPE)
        rc = fold_shape(fold, node, err);
    else if (node->op == OP_DEQUANTIZE_LINEAR)
        rc = -ERR_UNIMPLEMENTED; /* of constants: marks an int8 layer */
    else if (all_constant(fold->g, node) && affordable(fold, node))
        rc = fold_constants(fold, n, &ignored);
    else if (any_symbolic(fold, node) && node->n_inputs <= INPUTS_MAX)
        rc = fold_symbolic(fold, node, &ignored);
    /* What cannot be folded stays a node. */
    if (rc < 0)
        return rc == -ERR_RESOURCE_EXHAUSTED ? err_oom(err, "folding constants") : 0;
    fold->folded++;
    return 1;
}
