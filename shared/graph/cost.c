/* What a node costs for one sample. */
#include <stdlib.h>

#include "shared/graph/cuts.h"
#include "shared/graph/graph_priv.h"

static int64_t elements(const struct value *value)
{
    return value && value->shape_known ? shape_elements_at(&value->shape, 1) : 0;
}

/* The product, or the largest number where it overflows. */
static int64_t times(int64_t a, int64_t b)
{
    int64_t product;
    return __builtin_mul_overflow(a, b, &product) ? INT64_MAX : product;
}

static int64_t node_macs(const struct graph *g, const struct node *node)
{
    const struct value *a = graph_input_of(g, node, 0), *b = graph_input_of(g, node, 1);
    const struct value *out = graph_output_of(g, node, 0);
    switch (node->op) {
    case OP_CONV: /* each output element reads one filter */
        if (!b || !b->shape_known || b->shape.rank < 1 || b->shape.dim[0] < 1)
            return 0;
        return times(elements(out), elements(b) / b->shape.dim[0]);
    case OP_CONV_TRANSPOSE: /* each input element writes through one filter */
        if (!b || !b->shape_known || b->shape.rank < 1 || b->shape.dim[0] < 1)
            return 0;
        return times(elements(a), elements(b) / b->shape.dim[0]);
    case OP_GEMM:
    case OP_MATMUL: {
        if (!a || !a->shape_known || a->shape.rank < 1)
            return 0;
        bool transposed = node->op == OP_GEMM && node_int(node, "transA", 0) != 0;
        int inner = transposed && a->shape.rank == 2 ? 0 : a->shape.rank - 1;
        return a->shape.dim[inner] < 0 ? 0 : times(elements(out), a->shape.dim[inner]);
    }
    default:
        return 0;
    }
}

/* Numbers that steer shapes are no parameters: floating point, and quantized weights. */
static void add_parameters(const struct graph *g, const struct node *node, int i, struct cost *cost)
{
    const struct tensor *t = graph_constant_of(g, node, i);
    bool counts = t && (dtype_is_float(t->dtype) || node->op == OP_DEQUANTIZE_LINEAR);
    if (!counts)
        return;
    cost->parameters += shape_elements(&t->shape);
    cost->bytes += (int64_t)tensor_bytes(t);
}

struct cost graph_node_cost(const struct graph *g, const struct node *node)
{
    struct cost cost = {.macs = node_macs(g, node)};
    for (int i = 0; i < node->n_inputs; i++) {
        bool first = true;
        for (int k = 0; k < i; k++)
            first = first && node->inputs[k] != node->inputs[i];
        if (first)
            add_parameters(g, node, i, &cost);
    }
    return cost;
}

struct cost graph_cost(const struct graph *g)
{
    struct cost total = {0};
    _cleanup_(freep) bool *seen = mem_calloc((size_t)g->n_values, sizeof(*seen));
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        if (node->dead)
            continue;
        int64_t macs = node_macs(g, node);
        if (__builtin_add_overflow(total.macs, macs, &total.macs))
            total.macs = INT64_MAX;
        for (int i = 0; i < node->n_inputs; i++) {
            int v = node->inputs[i];
            if (v < 0 || (seen && seen[v]))
                continue;
            add_parameters(g, node, i, &total);
            if (seen)
                seen[v] = true;
        }
    }
    return total;
}
