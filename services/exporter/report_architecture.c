#include "services/exporter/report_architecture.h"

#include <stdio.h>
#include <string.h>

#include "shared/base/str.h"
#include "shared/graph/cuts.h"

/* What a node is in the picture. */
enum role { LAYER, ACTIVATION, NOTHING };

static enum role role_of(enum op op)
{
    switch (op) {
    case OP_QUANTIZE_LINEAR:
    case OP_DEQUANTIZE_LINEAR:
    case OP_IDENTITY:
    case OP_CAST:
    case OP_CONSTANT:
    case OP_CONSTANT_OF_SHAPE:
    case OP_DROPOUT:
    case OP_EXPAND:
    case OP_FLATTEN:
    case OP_RESHAPE:
    case OP_SHAPE:
    case OP_SQUEEZE:
    case OP_TRANSPOSE:
    case OP_UNSQUEEZE:
        return NOTHING;
    case OP_CLIP:
    case OP_ELU:
    case OP_HARD_SIGMOID:
    case OP_HARD_SWISH:
    case OP_LEAKY_RELU:
    case OP_PRELU:
    case OP_RELU:
    case OP_SIGMOID:
    case OP_SOFTMAX:
    case OP_SOFTPLUS:
    case OP_TANH:
        return ACTIVATION;
    default:
        return LAYER;
    }
}

static const struct shape *shape_of(const struct graph *g, const struct node *node)
{
    const struct value *v = node->n_outputs > 0 ? graph_output_of(g, node, 0) : NULL;
    return v && v->shape_known ? &v->shape : NULL;
}

/* Dimensions from `first` on: "16 x 32 x 32". */
static void write_dims(const struct shape *shape, int first, char *to, size_t size)
{
    *to = 0;
    for (int i = first; shape && i < shape->rank; i++) {
        const size_t n = strlen(to);
        snprintf(to + n, size - n, "%s%lld", n ? " x " : "", (long long)shape->dim[i]);
    }
}

static void size_text(const struct shape *shape, char to[48])
{
    int64_t places = 1;
    for (int i = 2; shape && i < shape->rank; i++)
        places *= shape->dim[i];
    write_dims(shape, 2, to, 48);
    if (places <= 1)
        snprintf(to, 48, "answers");
}

/* ---- stages ---- */

static int find_stage(const struct architecture *a, const char *size)
{
    for (int i = 0; i < a->n_stages; i++)
        if (strcmp(a->stages[i].size, size) == 0)
            return i;
    return -1;
}

int architecture_stage_of(const struct architecture *a, const struct graph *g,
                          const struct node *node)
{
    char size[48];
    size_text(shape_of(g, node), size);
    return node->dead ? -1 : find_stage(a, size);
}

static void count_in_stage(struct architecture *a, const struct shape *shape, int64_t macs)
{
    char size[48];
    size_text(shape, size);
    int i = find_stage(a, size);
    if (i < 0) {
        i = a->n_stages++;
        str_copy(a->stages[i].size, sizeof(a->stages[i].size), size);
    }
    struct architecture_stage *stage = &a->stages[i];
    const int64_t channels = shape && shape->rank > 1 ? shape->dim[1] : 0;
    stage->layers++;
    stage->macs += macs;
    if (channels > stage->channels)
        stage->channels = channels;
}

/* ---- layers ---- */

static void append_operator(struct architecture_layer *layer, const char *op)
{
    const size_t n = strlen(layer->operators);
    snprintf(layer->operators + n, sizeof(layer->operators) - n, "%s%s", n ? " + " : "", op);
}

static bool only_constants(const struct graph *g, const struct node *node)
{
    for (int i = 0; i < node->n_inputs; i++) {
        const struct value *v = graph_input_of(g, node, i);
        if (v && !v->constant)
            return false;
    }
    return true;
}

/* The layer that yields what the node reads first; -1: the network's input, or a constant. */
static int layer_before(const int *layer_of, const struct node *node)
{
    return node->n_inputs > 0 && node->inputs[0] >= 0 ? layer_of[node->inputs[0]] : -1;
}

static int add_layer(struct architecture *a, const struct graph *g, const struct node *node)
{
    struct architecture_layer *layer = &a->layers[a->n_layers];
    layer->name = node->name;
    layer->macs = graph_node_cost(g, node).macs;
    append_operator(layer, op_name(node->op));
    write_dims(shape_of(g, node), 1, layer->shape, sizeof(layer->shape));
    count_in_stage(a, shape_of(g, node), layer->macs);
    return a->n_layers++;
}

int architecture_read(const struct graph *g, struct arena *arena, struct architecture *ret)
{
    *ret = (struct architecture){0};
    const size_t most = (size_t)g->n_nodes + 1;
    ret->layers = arena_alloc(arena, most, sizeof(*ret->layers));
    ret->stages = arena_alloc(arena, most, sizeof(*ret->stages));
    int *layer_of = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(*layer_of));
    if (!ret->layers || !ret->stages || !layer_of)
        return -ERR_RESOURCE_EXHAUSTED;
    for (int v = 0; v < g->n_values; v++)
        layer_of[v] = -1;
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        if (node->dead || only_constants(g, node))
            continue;
        const enum role role = role_of(node->op);
        int layer = layer_before(layer_of, node);
        if (role == ACTIVATION && layer >= 0)
            append_operator(&ret->layers[layer], op_name(node->op));
        else if (role != NOTHING)
            layer = add_layer(ret, g, node);
        for (int i = 0; i < node->n_outputs; i++)
            if (node->outputs[i] >= 0)
                layer_of[node->outputs[i]] = layer;
    }
    return 0;
}
