#include "tests/support/onnx_opset6.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

const Onnx__AttributeProto *onnx_find_attribute(const Onnx__NodeProto *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++) {
        if (strcmp(node->attribute[i]->name, name) == 0)
            return node->attribute[i];
    }
    return NULL;
}

static void drop_attribute(Onnx__NodeProto *node, const char *name)
{
    for (size_t i = 0; i < node->n_attribute; i++) {
        if (strcmp(node->attribute[i]->name, name) != 0)
            continue;
        onnx__attribute_proto__free_unpacked(node->attribute[i], NULL);
        node->attribute[i] = node->attribute[--node->n_attribute];
        return;
    }
}

/* Of an input or initializer; -1: not known. */
static int rank_of(const Onnx__GraphProto *g, const char *name)
{
    for (size_t i = 0; i < g->n_initializer; i++) {
        if (strcmp(g->initializer[i]->name, name) == 0)
            return (int)g->initializer[i]->n_dims;
    }
    for (size_t i = 0; i < g->n_input; i++) {
        const Onnx__TypeProto *type = g->input[i]->type;
        if (strcmp(g->input[i]->name, name) == 0 && type &&
            type->value_case == ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE && type->tensor_type->shape)
            return (int)type->tensor_type->shape->n_dim;
    }
    return -1;
}

static Onnx__AttributeProto *new_axes(int first, int n)
{
    Onnx__AttributeProto *axes = mem_calloc(1, sizeof(*axes));
    onnx__attribute_proto__init(axes);
    axes->name = strdup("axes");
    axes->has_type = 1;
    axes->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
    axes->n_ints = (size_t)n;
    axes->ints = mem_calloc((size_t)n, sizeof(*axes->ints));
    for (int i = 0; i < n; i++)
        axes->ints[i] = first + i;
    return axes;
}

/* Puts n dimensions of 1 behind the second input of node `at`: Unsqueeze before it. */
static void unsqueeze_operand(Onnx__GraphProto *g, size_t at, int rank, int n)
{
    Onnx__NodeProto *node = g->node[at], *unsqueeze = mem_calloc(1, sizeof(*unsqueeze));
    onnx__node_proto__init(unsqueeze);
    unsqueeze->op_type = strdup("Unsqueeze");
    unsqueeze->n_input = unsqueeze->n_output = unsqueeze->n_attribute = 1;
    unsqueeze->input = mem_calloc(1, sizeof(*unsqueeze->input));
    unsqueeze->output = mem_calloc(1, sizeof(*unsqueeze->output));
    unsqueeze->attribute = mem_calloc(1, sizeof(*unsqueeze->attribute));
    unsqueeze->input[0] = node->input[1];
    unsqueeze->output[0] = str_printf("%s unsqueezed for node %zu", node->input[1], at);
    unsqueeze->attribute[0] = new_axes(rank, n);
    node->input[1] = strdup(unsqueeze->output[0]);
    g->node = mem_realloc(g->node, g->n_node + 1, sizeof(*g->node));
    memmove(g->node + at + 1, g->node + at, (g->n_node - at) * sizeof(*g->node));
    g->node[at] = unsqueeze;
    g->n_node++;
}

/* Operands were aligned at `axis`, or at the end; a slope of C values stood for the channels. */
static bool raise_operand(Onnx__GraphProto *g, size_t *at)
{
    Onnx__NodeProto *node = g->node[*at];
    const Onnx__AttributeProto *axis = onnx_find_attribute(node, "axis");
    bool slope = strcmp(node->op_type, "PRelu") == 0;
    if (!slope && (!axis || !onnx_find_attribute(node, "broadcast")))
        return true;
    int a = rank_of(g, node->input[0]), b = rank_of(g, node->input[1]);
    if (a < 0 || b < 0)
        return false;
    int first = slope ? 1 : (int)axis->i, missing = a - first - b;
    if (first < 0 || missing < 0 || (slope && b != 1))
        return false;
    drop_attribute(node, "axis");
    if (missing > 0)
        unsqueeze_operand(g, (*at)++, b, missing);
    return true;
}

bool onnx_raise_opset6(Onnx__GraphProto *graph)
{
    for (size_t i = 0; i < graph->n_node; i++) {
        if (!raise_operand(graph, &i))
            return false;
        Onnx__NodeProto *node = graph->node[i];
        const Onnx__AttributeProto *test = onnx_find_attribute(node, "is_test");
        if (test && test->i == 0)
            return false;
        drop_attribute(node, "is_test");
        drop_attribute(node, "broadcast"); /* without it, shapes are equal */
        drop_attribute(node, "consumed_inputs");
    }
    return true;
}
