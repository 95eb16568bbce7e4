/*
 * Constants that a network keeps as integers: weights in 8 bits, biases in 32. They are trained as
 * floats, and computed with as the integers that they round to (fake quantization, with the file's
 * scales); the gradient goes straight through, and is 0 where a float lies outside of what the
 * integers reach. What is exported are the integers of the floats as they are then.
 */
#include <math.h>
#include <string.h>

#include "shared/train/net_priv.h"

void grid_bounds(struct grid *grid, enum dtype dtype)
{
    const float most = dtype == DTYPE_U8 || dtype == DTYPE_S8     ? 0x1p8f
                       : dtype == DTYPE_U16 || dtype == DTYPE_S16 ? 0x1p16f
                                                                  : 0x1p31f;
    const bool is_signed = dtype != DTYPE_U8 && dtype != DTYPE_U16;
    grid->low = is_signed ? -most / 2 : 0;
    grid->high = is_signed ? most / 2 - 1 : most - 1;
}

/* ---- which ---- */

/* Weights keep to the symmetric range. Where the file says how many bits they have (it is one of
 * ours), each layer keeps to as many as its own weights take: 8, or fewer for a smaller file. */
static void set_bounds(const struct compiler *c, const struct tensor *integers, struct quantized *q)
{
    const bool has_bits = graph_metadata(c->g, "hone.weight_bits");
    struct grid *g = &q->bounds;
    grid_bounds(g, integers->dtype);
    if (integers->dtype == DTYPE_S32)
        g->low = -(g->high = 0x1p30f); /* sums and float's digits want their room */
    if (integers->dtype != DTYPE_S8)
        return;
    float most = 1, least = 0;
    for (int64_t i = 0; i < shape_elements(&integers->shape); i++) {
        const float at = ((const int8_t *)integers->data)[i];
        least = at < least ? at : least;
        most = fmaxf(most, fabsf(at));
    }
    g->high = 1;
    while (g->high < (has_bits ? fminf(most, 127) : 127))
        g->high = 2 * g->high + 1;
    g->low = fminf(-g->high, least);
}

static int read_scales(const struct compiler *c, const struct node *node, struct quantized *q,
                       struct err *err)
{
    const struct tensor *x = graph_input_of(c->g, node, 0)->constant;
    const struct value *scale = graph_input_of(c->g, node, 1),
                       *zero = graph_input_of(c->g, node, 2);
    if (!scale->constant || scale->dtype != DTYPE_F32 || (zero && !zero->constant) ||
        node_int(node, "block_size", 0) != 0)
        return compile_refuse(node, err, "its scales are not constants for each channel");
    const int64_t n = shape_elements(&scale->constant->shape);
    int64_t axis = n == 1 ? 0 : node_int(node, "axis", 1);
    axis += axis < 0 ? x->shape.rank : 0;
    q->channels = n;
    q->inner = 1;
    for (int i = (int)axis + 1; i < x->shape.rank; i++)
        q->inner *= x->shape.dim[i];
    if (n == 1)
        q->inner = shape_elements(&x->shape);
    float *scales = arena_alloc(c->net->arena, (size_t)n, sizeof(*scales));
    float *zeros = arena_alloc(c->net->arena, (size_t)n, sizeof(*zeros));
    if (!scales || !zeros)
        return err_oom(err, "a quantized constant");
    const int64_t n_zeros = zero ? shape_elements(&zero->constant->shape) : 0;
    for (int64_t i = 0; i < n; i++) {
        scales[i] = (float)tensor_get_f64(scale->constant, i);
        zeros[i] = n_zeros ? (float)tensor_get_f64(zero->constant, i < n_zeros ? i : 0) : 0;
        if (!(scales[i] > 0 && isfinite(scales[i])))
            return compile_refuse(node, err, "a scale is not above 0");
    }
    q->scales = scales;
    q->zeros = zeros;
    return 0;
}

static struct grid grid_of(const struct quantized *q, int64_t i)
{
    const int64_t k = i / q->inner % q->channels;
    struct grid g = q->bounds;
    g.scale = q->scales[k];
    g.zero = q->zeros[k];
    return g;
}

static float in_file(const struct quantized *q, const struct tensor *integers, int64_t i)
{
    const int64_t k = i / q->inner % q->channels;
    return (float)((tensor_get_f64(integers, i) - (double)q->zeros[k]) * (double)q->scales[k]);
}

static int add_quantized(struct compiler *c, const struct node *node, struct err *err)
{
    struct train_net *net = c->net;
    const struct value *x = graph_input_of(c->g, node, 0);
    struct quantized *q = &net->quantized[net->n_quantized];
    for (int i = 0; i < net->n_quantized; i++)
        if (net->quantized[i].integers == node->inputs[0])
            return compile_refuse(node, err, "another one dequantizes the same constant");
    *q = (struct quantized){.value = node->outputs[0], .integers = node->inputs[0], .param = -1};
    int rc = read_scales(c, node, q, err);
    if (rc < 0)
        return rc;
    set_bounds(c, x->constant, q);
    const int64_t n = shape_elements(&x->constant->shape);
    q->floats = (struct tensor){DTYPE_F32, x->constant->shape, NULL};
    float *data = arena_alloc(net->arena, (size_t)n + 1, sizeof(*data));
    if (!data)
        return err_oom(err, "a quantized constant");
    for (int64_t k = 0; k < n; k++)
        data[k] = in_file(q, x->constant, k);
    q->floats.data = data;
    net->n_quantized++;
    return 0;
}

int compile_quantized_all(struct compiler *c, struct err *err)
{
    struct train_net *net = c->net;
    int n = 0;
    for (int i = 0; i < c->g->n_nodes; i++)
        n += c->g->nodes[i]->op == OP_DEQUANTIZE_LINEAR;
    net->quantized = arena_alloc(net->arena, (size_t)n + 1, sizeof(*net->quantized));
    if (!net->quantized)
        return err_oom(err, "the network");
    int rc = 0;
    for (int i = 0; i < c->g->n_nodes && rc == 0; i++) {
        const struct node *node = c->g->nodes[i];
        if (node->dead || node->op != OP_DEQUANTIZE_LINEAR ||
            !graph_input_of(c->g, node, 0)->constant)
            continue;
        rc = add_quantized(c, node, err);
    }
    return rc;
}

struct quantized *compile_quantized(const struct compiler *c, int value)
{
    for (int i = 0; i < c->net->n_quantized; i++)
        if (c->net->quantized[i].value == value)
            return &c->net->quantized[i];
    return NULL;
}

/* ---- where training begins ---- */

static const struct tensor *weights_of(const struct graph *g, const char *layer)
{
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        const struct value *w = node->dead ? NULL : graph_input_of(g, node, 1);
        if (w && w->constant && w->constant->dtype == DTYPE_F32 && strcmp(node->name, layer) == 0)
            return w->constant;
    }
    return NULL;
}

/* Floats in the middle of their steps hide how near the next one is: where the original's round to
 * the same integers, theirs are better to begin with. */
static void begin_with(const struct quantized *q, const struct tensor *integers,
                       const struct tensor *original)
{
    float *to = q->floats.data;
    for (int64_t i = 0; i < shape_elements(&q->floats.shape); i++) {
        const struct grid g = grid_of(q, i);
        const float x = ((const float *)original->data)[i];
        const float low = (g.low - g.zero) * g.scale, high = (g.high - g.zero) * g.scale;
        if (grid_integer(&g, x) == tensor_get_s64(integers, i))
            to[i] = x < low ? low : x > high ? high : x;
    }
}

void compile_begin_quantized(struct compiler *c)
{
    const struct graph *original = c->net->options.original;
    for (int n = 0; original && n < c->g->n_nodes; n++) {
        const struct node *node = c->g->nodes[n];
        const struct quantized *q =
            !node->dead && node->n_inputs > 1 ? compile_quantized(c, node->inputs[1]) : NULL;
        const struct tensor *from = q ? weights_of(original, node->name) : NULL;
        if (from && shape_equal(&from->shape, &q->floats.shape))
            begin_with(q, c->g->values[q->integers]->constant, from);
    }
}

/* ---- in a step ---- */

void quantized_round(const struct quantized *q, const float *from, float *to)
{
    const int64_t n = shape_elements(&q->floats.shape);
    for (int64_t i = 0; i < n; i += q->inner) {
        const struct grid g = grid_of(q, i);
        kernel_fake(&g, from + i, to + i, q->inner);
    }
}

void quantized_pass(const struct quantized *q, const float *value, float *grad)
{
    const int64_t n = shape_elements(&q->floats.shape);
    for (int64_t i = 0; i < n; i += q->inner) {
        const struct grid g = grid_of(q, i);
        kernel_fake_back(&g, value + i, grad + i, grad + i, q->inner);
    }
}

/* ---- back into the file ---- */

void quantized_export(const struct quantized *q, const float *value, struct tensor *integers)
{
    for (int64_t i = 0; i < shape_elements(&q->floats.shape); i++) {
        const struct grid g = grid_of(q, i);
        /* what has not changed stays: of 32 bits a float holds 24 */
        if (value[i] != in_file(q, integers, i))
            tensor_set_s64(integers, i, grid_integer(&g, value[i]));
    }
}
