/* Which layers can run in int8, and which values are stored in 8 bits because of them. */
#include <string.h>

#include "shared/nn/quantize_priv.h"

/* ---- layers ---- */

static const struct tensor *weights_of(const struct graph *g, const struct node *node)
{
    const struct value *v = graph_input_of(g, node, 1);
    return v && v->constant && v->constant->dtype == DTYPE_F32 ? v->constant : NULL;
}

/* [outer, channels, inner] of the weights around `axis`. */
static void split_axis(struct quant_layer *layer, const struct shape *shape, int axis)
{
    layer->axis = axis;
    layer->outer = 1;
    layer->inner = 1;
    layer->channels = shape->dim[axis];
    for (int i = 0; i < axis; i++)
        layer->outer *= shape->dim[i];
    for (int i = axis + 1; i < shape->rank; i++)
        layer->inner *= shape->dim[i];
    layer->outputs = layer->channels;
}

static bool find_axis(const struct node *node, const struct shape *w, struct quant_layer *layer)
{
    switch (node->op) {
    case OP_CONV:
        if (w->rank < 3)
            return false;
        split_axis(layer, w, 0);
        return true;
    case OP_CONV_TRANSPOSE: /* [in, out / groups, ...]: the groups share their scales */
        if (w->rank < 3)
            return false;
        split_axis(layer, w, 1);
        layer->outputs = layer->channels * node_int(node, "group", 1);
        return true;
    case OP_GEMM:
        if (w->rank != 2 || node_int(node, "transA", 0) != 0)
            return false;
        split_axis(layer, w, node_int(node, "transB", 0) ? 0 : 1);
        return true;
    case OP_MATMUL:
        if (w->rank != 2)
            return false;
        split_axis(layer, w, 1);
        return true;
    default:
        return false;
    }
}

/* A bias must be a constant with one number for each output (or one for all: Gemm). */
static bool bias_fits(const struct graph *g, const struct node *node, struct quant_layer *layer)
{
    layer->bias = node->op != OP_MATMUL && node->n_inputs > 2 ? node->inputs[2] : -1;
    if (layer->bias < 0)
        return true;
    const struct tensor *bias = g->values[layer->bias]->constant;
    if (!bias || bias->dtype != DTYPE_F32)
        return false;
    int64_t n = shape_elements(&bias->shape);
    int rank = bias->shape.rank;
    return (n == 1 && node->op == OP_GEMM) ||
           (n == layer->outputs && rank > 0 && bias->shape.dim[rank - 1] == n);
}

bool quant_layer_of(const struct graph *g, int n, struct quant_layer *ret)
{
    const struct node *node = g->nodes[n];
    struct quant_layer layer = {.node = n};
    if (node->dead || node->n_inputs < 2 || node->inputs[0] < 0)
        return false;
    const struct tensor *w = weights_of(g, node);
    const struct value *data = graph_input_of(g, node, 0);
    if (!w || data->constant || data->dtype != DTYPE_F32 || shape_elements(&w->shape) == 0)
        return false;
    if (!find_axis(node, &w->shape, &layer) || !bias_fits(g, node, &layer))
        return false;
    layer.data = node->inputs[0];
    layer.weights = node->inputs[1];
    *ret = layer;
    return true;
}

bool quant_is_quantized(const struct graph *g)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (!g->nodes[i]->dead && g->nodes[i]->op == OP_DEQUANTIZE_LINEAR)
            return true;
    return false;
}

int quant_layers(const struct graph *g, struct arena *arena, const char *const **ret, int *ret_n,
                 struct err *err)
{
    const char **names = arena_alloc(arena, (size_t)g->n_nodes + 1, sizeof(*names));
    if (!names)
        return err_oom(err, "the names of layers");
    int count = 0;
    struct quant_layer layer;
    for (int n = 0; n < g->n_nodes; n++)
        if (quant_layer_of(g, n, &layer))
            names[count++] = g->nodes[n]->name;
    *ret = names;
    *ret_n = count;
    return 0;
}

int quant_find_node(const struct graph *g, const char *name)
{
    for (int n = 0; n < g->n_nodes; n++)
        if (!g->nodes[n]->dead && strcmp(g->nodes[n]->name, name) == 0)
            return n;
    return -1;
}

int quant_set_outputs(struct graph *g, int n, const int *values, int *ret_output, struct err *err)
{
    g->n_outputs = 0;
    for (int i = 0; i < n; i++) {
        ret_output[i] = -1;
        if (g->values[values[i]]->producer < 0)
            continue;
        int rc = graph_add_output(g, values[i], err);
        if (rc < 0)
            return rc;
        ret_output[i] = g->n_outputs - 1;
    }
    return graph_compact(g, err);
}

/* ---- operators that do not compute ---- */

/* Padding keeps to values that 8 bits hold exactly: zero, or what is there already. */
static bool pads_exactly(const struct graph *g, const struct node *node)
{
    if (strcmp(node_string(node, "mode", "constant"), "constant") != 0)
        return true;
    if (node->since < 11)
        return node_float(node, "value", 0.0f) == 0.0f;
    const struct value *fill = graph_input_of(g, node, 2);
    return !fill || (fill->constant && shape_elements(&fill->constant->shape) > 0 &&
                     tensor_get_f64(fill->constant, 0) == 0.0);
}

/* How many leading inputs carry data through the node unchanged; 0: the node computes. */
static int moved_inputs(const struct graph *g, const struct node *node)
{
    switch (node->op) {
    case OP_MAX_POOL: /* the indices of the maxima are not data */
    case OP_DROPOUT:
        return node->n_outputs > 1 && node->outputs[1] >= 0 ? 0 : 1;
    case OP_PAD:
        return pads_exactly(g, node) ? 1 : 0;
    case OP_RESIZE:
    case OP_UPSAMPLE:
        return strcmp(node_string(node, "mode", "nearest"), "nearest") == 0 ? 1 : 0;
    case OP_GLOBAL_MAX_POOL:
    case OP_SLICE:
    case OP_SPLIT:
    case OP_RESHAPE:
    case OP_FLATTEN:
    case OP_TRANSPOSE:
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
    case OP_IDENTITY:
    case OP_EXPAND:
        return 1;
    case OP_CONCAT:
        return node->n_inputs;
    default:
        return 0;
    }
}

/* The same, 0 also where an input is a constant or no float. */
static int movable_inputs(const struct graph *g, const struct node *node)
{
    int n = node->dead ? 0 : moved_inputs(g, node);
    for (int i = 0; i < n; i++) {
        const struct value *v = graph_input_of(g, node, i);
        if (!v || v->constant || v->dtype != DTYPE_F32)
            return 0;
    }
    return n;
}

/* ---- spreading ---- */

static int root_of(int *root, int v)
{
    while (root[v] != v) {
        root[v] = root[root[v]];
        v = root[v];
    }
    return v;
}

static void unite(int *root, int a, int b)
{
    a = root_of(root, a);
    b = root_of(root, b);
    root[a > b ? a : b] = a > b ? b : a;
}

/* From the readers back: what goes into a moved value must be in 8 bits already. */
static void spread_back(const struct graph *g, const int *moved, bool *wanted)
{
    for (int n = g->n_nodes - 1; n >= 0; n--) {
        const struct node *node = g->nodes[n];
        bool any = false;
        for (int i = 0; i < node->n_outputs && moved[n] > 0; i++)
            any |= node->outputs[i] >= 0 && wanted[node->outputs[i]];
        for (int i = 0; i < moved[n] && any; i++)
            wanted[node->inputs[i]] = true;
    }
}

/* On to what is made from 8-bit values without computing: nothing is lost by keeping them. */
static void spread_on(const struct graph *g, const int *moved, const struct uses *uses,
                      struct quant_spread *s)
{
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        bool all = moved[n] > 0;
        for (int i = 0; i < moved[n]; i++)
            all &= s->quantized[node->inputs[i]];
        for (int i = 0; i < node->n_outputs && all; i++) {
            int v = node->outputs[i];
            if (v < 0 || uses_count(uses, v) == 0)
                continue;
            s->quantized[v] = true;
            s->source[v] = false;
            for (int k = 0; k < moved[n]; k++)
                unite(s->root, v, node->inputs[k]);
        }
    }
}

static int spread_alloc(const struct graph *g, struct arena *arena, struct quant_spread *s,
                        struct err *err)
{
    s->wanted = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(bool));
    s->quantized = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(bool));
    s->source = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(bool));
    s->root = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(int));
    return s->wanted && s->quantized && s->source && s->root ? 0 : err_oom(err, "spreading 8 bits");
}

int quant_spread_make(const struct graph *g, const bool *is_int8, struct arena *arena,
                      struct quant_spread *ret, struct err *err)
{
    struct quant_spread s;
    struct uses uses;
    int rc = spread_alloc(g, arena, &s, err);
    if (rc < 0 || (rc = graph_uses(g, arena, &uses, err)) < 0)
        return rc;
    int *moved = arena_alloc(arena, (size_t)g->n_nodes + 1, sizeof(int));
    if (!moved)
        return err_oom(err, "spreading 8 bits");
    struct quant_layer layer;
    for (int n = 0; n < g->n_nodes; n++) {
        moved[n] = movable_inputs(g, g->nodes[n]);
        if (is_int8[n] && quant_layer_of(g, n, &layer))
            s.wanted[layer.data] = true;
    }
    spread_back(g, moved, s.wanted);
    for (int v = 0; v < g->n_values; v++) {
        s.root[v] = v;
        s.quantized[v] = s.source[v] = s.wanted[v];
    }
    spread_on(g, moved, &uses, &s);
    for (int v = 0; v < g->n_values; v++)
        s.root[v] = root_of(s.root, v);
    *ret = s;
    return 0;
}
