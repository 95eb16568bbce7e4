/* Nodes become layers, values become wires. */
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval.h"
#include "shared/nn/lower_priv.h"

const struct tensor *plan_constant(const struct plan *plan, int value)
{
    return value < 0 ? NULL : plan->constants[value];
}

struct shape lower_shape(const struct lower *l, int value)
{
    return shape_at(&l->g->values[value]->shape, l->plan->options.batch);
}

bool lower_is_used(const struct lower *l, int value)
{
    return value >= 0 && (uses_count(&l->uses, value) > 0 || l->uses.is_output[value]);
}

/* ---- wires ---- */

int lower_new_wire(struct lower *l, const char *name, const struct shape *shape, enum dtype dtype,
                   struct err *err)
{
    struct plan *plan = l->plan;
    int w = plan_grow(&plan->wires, &plan->n_wires, &plan->cap_wires, sizeof(*plan->wires), err);
    if (w < 0)
        return w;
    plan->wires[w] = (struct wire){.name = name,
                                   .shape = *shape,
                                   .dtype = dtype,
                                   .input = -1,
                                   .layer = -1,
                                   .raw_value = -1,
                                   .real_value = -1,
                                   .stands_for = -1};
    return w;
}

static int wire_of_value(struct lower *l, int value, struct err *err)
{
    const struct value *v = l->g->values[value];
    struct shape shape = lower_shape(l, value);
    int w = lower_new_wire(l, v->name, &shape, v->dtype, err);
    if (w < 0)
        return w;
    l->plan->wires[w].raw_value = value;
    l->plan->views[value] = (struct view){.wire = w};
    return w;
}

static int lower_before(struct lower *l, int value, struct err *err);

int lower_value(struct lower *l, int value, struct err *err)
{
    if (l->plan->views[value].wire >= 0)
        return 0;
    if (value == l->picture_value)
        return lower_picture_value(l, value, err);
    const struct tensor *constant = plan_constant(l->plan, value);
    if (!constant)
        return lower_before(l, value, err);
    int w = wire_of_value(l, value, err);
    if (w < 0)
        return w;
    l->plan->wires[w].constant = constant;
    return 0;
}

int lower_operand(struct lower *l, int value, struct operand *ret, struct err *err)
{
    int rc = lower_value(l, value, err);
    if (rc < 0)
        return rc;
    const struct view *view = &l->plan->views[value];
    *ret = (struct operand){.wire = view->wire, .dtype = l->g->values[value]->dtype};
    return 0;
}

bool lower_is_narrow(struct lower *l, int value)
{
    const struct view *view = &l->plan->views[value];
    return view->wire >= 0 && view->real && l->plan->wires[view->wire].quantized;
}

int lower_narrow_operand(struct lower *l, int value, struct operand *ret, struct err *err)
{
    int rc = lower_operand(l, value, ret, err);
    if (rc == 0 && (lower_is_narrow(l, value) || lower_is_bf16(l, value)))
        ret->dtype = l->plan->wires[ret->wire].dtype;
    return rc;
}

/* ---- bf16 ---- */

bool plan_emulate_bf16;

int lower_float_operand(struct lower *l, int value, enum dtype dtype, struct operand *ret,
                        struct err *err)
{
    int rc = lower_operand(l, value, ret, err);
    ret->dtype = dtype;
    return rc;
}

bool lower_is_bf16(const struct lower *l, int value)
{
    const struct view *view = &l->plan->views[value];
    return view->wire >= 0 && l->plan->wires[view->wire].dtype == DTYPE_BF16 &&
           l->g->values[value]->dtype == DTYPE_F32;
}

enum precision lower_float_precision(const struct lower *l, const struct node *node)
{
    enum precision asked = l->m->options->precision;
    bool wanted =
        asked == PRECISION_BF16 || (asked != PRECISION_FP32 && node->hint == PRECISION_BF16);
    return wanted && (nn_has_bf16() || plan_emulate_bf16) ? PRECISION_BF16 : PRECISION_FP32;
}

/* Operators that pass bf16 on: what they do costs the same or less, and rounds no more. */
static bool passes_bf16(enum op op)
{
    switch (op) {
    case OP_ADD:
    case OP_MUL:
    case OP_SUB:
    case OP_RELU:
    case OP_LEAKY_RELU:
    case OP_CLIP:
    case OP_PRELU:
    case OP_RESIZE:
    case OP_MAX_POOL:
    case OP_AVERAGE_POOL:
    case OP_CONCAT:
    case OP_SLICE:
    case OP_PAD:
    case OP_SPLIT:
    case OP_RESHAPE:
    case OP_FLATTEN:
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
        return true;
    default:
        return false;
    }
}

bool lower_bf16_wanted(const struct lower *l, int value)
{
    for (int k = l->uses.first[value]; k < l->uses.first[value + 1]; k++) {
        const struct node *node = l->g->nodes[l->uses.node_of[k]];
        bool multiplies = node->op == OP_CONV || node->op == OP_CONV_TRANSPOSE ||
                          node->op == OP_GEMM || node->op == OP_MATMUL;
        if (multiplies ? lower_float_precision(l, node) == PRECISION_BF16 : passes_bf16(node->op))
            return true;
    }
    return false;
}

/* ---- layers ---- */

struct layer *lower_new_layer(struct lower *l, enum layer_kind kind, const struct node *node,
                              int n_in, int n_out, struct err *err)
{
    struct plan *plan = l->plan;
    int at =
        plan_grow(&plan->layers, &plan->n_layers, &plan->cap_layers, sizeof(*plan->layers), err);
    if (at < 0)
        return NULL;
    struct layer *layer = &plan->layers[at];
    *layer = (struct layer){.kind = kind,
                            .node = node,
                            .name = node ? node->name : "",
                            .op = node ? op_name(node->op) : "",
                            .fused = "",
                            .precision = PRECISION_FP32,
                            .n_in = n_in,
                            .n_out = n_out,
                            .sum = -1};
    layer->in = arena_alloc(plan->arena, (size_t)n_in, sizeof(*layer->in));
    layer->out = arena_alloc(plan->arena, (size_t)n_out, sizeof(*layer->out));
    if (!layer->in || !layer->out) {
        err_oom(err, "a layer");
        return NULL;
    }
    return layer;
}

int lower_output(struct lower *l, struct layer *layer, int i, int value, struct err *err)
{
    int w = wire_of_value(l, value, err);
    if (w < 0)
        return w;
    layer->out[i] = w;
    l->plan->wires[w].layer = (int)(layer - l->plan->layers);
    return w;
}

/* Any node, by the plain-C reference: reads and writes graph values as they are. */
static int lower_reference(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    int n_in = 0, n_out = 0;
    for (int i = 0; i < node->n_inputs; i++)
        n_in += node->inputs[i] >= 0 && !plan_constant(l->plan, node->inputs[i]);
    for (int i = 0; i < node->n_outputs; i++)
        n_out += node->outputs[i] >= 0;
    struct operand *operands = arena_alloc(l->plan->arena, (size_t)n_in, sizeof(*operands));
    if (!operands)
        return err_oom(err, "a layer");
    int n = 0;
    for (int i = 0; i < node->n_inputs; i++) {
        if (node->inputs[i] < 0 || plan_constant(l->plan, node->inputs[i]))
            continue;
        int rc = lower_operand(l, node->inputs[i], &operands[n++], err);
        if (rc < 0)
            return rc;
    }
    struct layer *layer = lower_new_layer(l, LAYER_REFERENCE, node, n_in, n_out, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->in = operands;
    n = 0;
    for (int i = 0; i < node->n_outputs; i++) {
        if (node->outputs[i] < 0)
            continue;
        int rc = lower_output(l, layer, n++, node->outputs[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static lower_fn *lower_by_op(enum op op)
{
    static lower_fn *const table[OP_COUNT] = {
        [OP_ABS] = lower_unary,
        [OP_ADD] = lower_binary,
        [OP_AVERAGE_POOL] = lower_pool,
        [OP_BATCH_NORMALIZATION] = lower_norm,
        [OP_CLIP] = lower_unary,
        [OP_CONCAT] = lower_move,
        [OP_CONV] = lower_conv,
        [OP_CONV_TRANSPOSE] = lower_conv,
        [OP_DEQUANTIZE_LINEAR] = lower_quantize,
        [OP_DIV] = lower_binary,
        [OP_DROPOUT] = lower_alias,
        [OP_ELU] = lower_unary,
        [OP_EXPAND] = lower_move,
        [OP_FLATTEN] = lower_alias,
        [OP_GEMM] = lower_gemm,
        [OP_GLOBAL_AVERAGE_POOL] = lower_pool,
        [OP_GLOBAL_MAX_POOL] = lower_pool,
        [OP_HARD_SIGMOID] = lower_unary,
        [OP_HARD_SWISH] = lower_unary,
        [OP_IDENTITY] = lower_alias,
        [OP_LEAKY_RELU] = lower_unary,
        [OP_LRN] = lower_lrn,
        [OP_MATMUL] = lower_gemm,
        [OP_MAX_POOL] = lower_pool,
        [OP_MUL] = lower_binary,
        [OP_PAD] = lower_move,
        [OP_PRELU] = lower_prelu,
        [OP_QUANTIZE_LINEAR] = lower_quantize,
        [OP_RELU] = lower_unary,
        [OP_RESHAPE] = lower_alias,
        [OP_RESIZE] = lower_resize,
        [OP_SIGMOID] = lower_unary,
        [OP_SLICE] = lower_move,
        [OP_SOFTMAX] = lower_softmax,
        [OP_SOFTPLUS] = lower_unary,
        [OP_SPLIT] = lower_move,
        [OP_SQUEEZE] = lower_alias,
        [OP_SUB] = lower_binary,
        [OP_TANH] = lower_unary,
        [OP_TRANSPOSE] = lower_move,
        [OP_UNSQUEEZE] = lower_alias,
        [OP_UPSAMPLE] = lower_resize,
    };
    return table[op];
}

/* Tensors without elements go to the reference, which knows what each operator makes of them. */
static bool is_empty(const struct lower *l, const struct node *node)
{
    for (int i = 0; i < node->n_inputs + node->n_outputs; i++) {
        int v = i < node->n_inputs ? node->inputs[i] : node->outputs[i - node->n_inputs];
        struct shape shape = {0};
        if (v >= 0)
            shape = lower_shape(l, v);
        for (int d = 0; d < shape.rank; d++)
            if (shape.dim[d] == 0)
                return true;
    }
    return false;
}

static int lower_node(struct lower *l, int index, struct err *err)
{
    if (l->taken[index] || l->g->nodes[index]->dead)
        return 0;
    l->taken[index] = true;
    const struct node *node = l->g->nodes[index];
    bool plain = l->m->options->reference || is_empty(l, node);
    lower_fn *lower = plain ? NULL : lower_by_op(node->op);
    int rc = lower ? lower(l, index, err) : 0;
    if (rc == 0)
        rc = lower_reference(l, index, err);
    return rc < 0 ? rc : 0;
}

/* ---- order ---- */

static int by_index(const void *a, const void *b)
{
    int x = *(const int *)a, y = *(const int *)b;
    return (x > y) - (x < y);
}

/* Lowers the nodes that the value depends on and that are not lowered yet, in order. */
static int lower_before(struct lower *l, int value, struct err *err)
{
    const struct graph *g = l->g;
    int start = g->values[value]->producer;
    if (start < 0)
        return err_set(err, ERR_INTERNAL, "value '%s' has no producer", g->values[value]->name);
    _cleanup_(freep) int *needed = mem_calloc((size_t)g->n_nodes, sizeof(*needed));
    _cleanup_(freep) bool *seen = mem_calloc((size_t)g->n_nodes, sizeof(*seen));
    if (!needed || !seen)
        return err_oom(err, "the order of layers");
    int n = 0;
    if (!l->taken[start]) {
        needed[n++] = start;
        seen[start] = true;
    }
    for (int i = 0; i < n; i++) {
        const struct node *node = g->nodes[needed[i]];
        for (int k = 0; k < node->n_inputs; k++) {
            int before = node->inputs[k] < 0 ? -1 : g->values[node->inputs[k]]->producer;
            if (before < 0 || seen[before] || l->taken[before])
                continue;
            seen[before] = true;
            needed[n++] = before;
        }
    }
    qsort(needed, (size_t)n, sizeof(*needed), by_index);
    l->depth++;
    for (int i = 0; i < n; i++) {
        int rc = lower_node(l, needed[i], err);
        if (rc < 0)
            return rc;
    }
    l->depth--;
    if (l->plan->views[value].wire < 0)
        return err_set(err, ERR_INTERNAL, "value '%s' was lost while lowering",
                       g->values[value]->name);
    return 0;
}

/* ---- constants ---- */

/* Values that depend on constants only are computed now. */
static int fold_node(struct lower *l, const struct node *node, struct err *err)
{
    struct plan *plan = l->plan;
    if (node->n_inputs == 0 && node->op != OP_CONSTANT)
        return 0;
    _cleanup_(freep) const struct tensor **in = mem_calloc((size_t)node->n_inputs + 1, sizeof(*in));
    _cleanup_(freep) struct tensor **out = mem_calloc((size_t)node->n_outputs + 1, sizeof(*out));
    if (!in || !out)
        return err_oom(err, "a constant");
    for (int i = 0; i < node->n_inputs; i++) {
        in[i] = plan_constant(plan, node->inputs[i]);
        if (node->inputs[i] >= 0 && !in[i])
            return 0;
    }
    int rc = eval_node(l->g, node, in, out, err);
    for (int i = 0; rc == 0 && i < node->n_outputs; i++) {
        if (node->outputs[i] < 0 || !out[i])
            continue;
        struct tensor *kept = tensor_in_arena(plan->arena, out[i]->dtype, &out[i]->shape, err);
        if (!kept) {
            rc = -ERR_RESOURCE_EXHAUSTED;
            break;
        }
        memcpy(kept->data, out[i]->data, tensor_bytes(out[i]));
        plan->constants[node->outputs[i]] = kept;
    }
    for (int i = 0; i < node->n_outputs; i++)
        tensor_free(out[i]);
    return rc;
}

static int fold_constants(struct lower *l, struct err *err)
{
    const struct graph *g = l->g;
    for (int v = 0; v < g->n_values; v++)
        l->plan->constants[v] = g->values[v]->constant;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        if (node->dead)
            continue;
        int rc = fold_node(l, node, err);
        if (rc < 0)
            return rc;
        bool all = node->n_outputs > 0;
        for (int k = 0; k < node->n_outputs; k++)
            all &= node->outputs[k] < 0 || plan_constant(l->plan, node->outputs[k]);
        if (all)
            l->taken[i] = true;
    }
    return 0;
}

/* ---- whole graphs ---- */

static int check_values(const struct lower *l, struct err *err)
{
    const struct graph *g = l->g;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        for (int k = 0; !node->dead && k < node->n_outputs; k++) {
            if (node->outputs[k] < 0)
                continue;
            const struct value *v = g->values[node->outputs[k]];
            if (!v->shape_known || v->dtype == DTYPE_NONE)
                return err_set(err, ERR_FAILED_PRECONDITION,
                               "node '%s' (%s): the shape of '%s' is not known; infer shapes first",
                               node->name, op_name(node->op), v->name);
            struct shape shape = lower_shape(l, node->outputs[k]);
            int rc = shape_check(&shape, err);
            if (rc < 0)
                return err_wrap(err, "node '%s' (%s), batch %lld", node->name, op_name(node->op),
                                (long long)l->plan->options.batch);
        }
    }
    return 0;
}

static int lower_inputs(struct lower *l, struct err *err)
{
    const struct graph *g = l->g;
    for (int i = 0; i < g->n_inputs; i++) {
        int w = l->m->options->pictures && i == 0 ? lower_picture_input(l, i, err)
                                                  : wire_of_value(l, g->inputs[i], err);
        if (w < 0)
            return w;
        l->plan->wires[w].input = i;
        int rc = shape_check(&l->plan->wires[w].shape, err);
        if (rc < 0)
            return err_wrap(err, "input '%s'", l->plan->wires[w].name);
    }
    return 0;
}

static void count_readers(struct lower *l)
{
    struct plan *plan = l->plan;
    for (int i = 0; i < plan->n_layers; i++)
        for (int k = 0; k < plan->layers[i].n_in; k++)
            plan->wires[plan->layers[i].in[k].wire].n_readers++;
    for (int i = 0; i < l->g->n_outputs; i++)
        plan->wires[plan->views[l->g->outputs[i]].wire].n_readers++;
}

int plan_lower(struct maker *m, struct err *err)
{
    const struct graph *g = m->g;
    struct plan *plan = m->plan;
    struct lower l = {.m = m, .g = g, .plan = plan, .picture_value = -1, .picture_wire = -1};
    l.taken = arena_alloc(plan->arena, (size_t)g->n_nodes, sizeof(*l.taken));
    plan->views = arena_alloc(plan->arena, (size_t)g->n_values, sizeof(*plan->views));
    plan->constants = arena_alloc(plan->arena, (size_t)g->n_values, sizeof(*plan->constants));
    if (!l.taken || !plan->views || !plan->constants)
        return err_oom(err, "a plan");
    for (int v = 0; v < g->n_values; v++)
        plan->views[v].wire = -1;
    int rc = graph_uses(g, plan->arena, &l.uses, err);
    if (rc == 0)
        rc = check_values(&l, err);
    if (rc == 0)
        rc = fold_constants(&l, err);
    if (rc == 0)
        rc = lower_inputs(&l, err);
    for (int i = 0; rc == 0 && i < g->n_nodes; i++)
        rc = lower_node(&l, i, err);
    for (int i = 0; rc == 0 && i < g->n_outputs; i++)
        rc = lower_value(&l, g->outputs[i], err);
    if (rc < 0)
        return rc;
    count_readers(&l);
    return 0;
}
