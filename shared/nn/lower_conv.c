/* Conv, ConvTranspose, Gemm and MatMul. */
#include <string.h>

#include "shared/nn/lower_priv.h"

/* ---- 8-bit weights ---- */

/* Scales for each channel from a DequantizeLinear's second input. */
static const float *weight_scales(struct lower *l, const struct node *dq, int axis,
                                  int64_t channels, int rank)
{
    int64_t n = 0, at = node_int(dq, "axis", 1);
    const float *from = lower_floats(l, dq->inputs[1], &n);
    if (!from || (n != 1 && (n != channels || (at < 0 ? at + rank : at) != axis)) ||
        node_int(dq, "block_size", 0) != 0)
        return NULL;
    float *to = arena_alloc(l->plan->arena, (size_t)channels, sizeof(*to));
    for (int64_t c = 0; to && c < channels; c++)
        to[c] = from[n == 1 ? 0 : c];
    return to;
}

/* The zero point that all channels share; -1000 when they differ. */
static int64_t common_zero(struct lower *l, const struct node *dq)
{
    if (dq->n_inputs < 3 || dq->inputs[2] < 0)
        return 0;
    const struct tensor *zero = plan_constant(l->plan, dq->inputs[2]);
    int64_t n = zero ? shape_elements(&zero->shape) : 0;
    if (n == 0)
        return -1000;
    for (int64_t i = 1; i < n; i++)
        if (tensor_get_s64(zero, i) != tensor_get_s64(zero, 0))
            return -1000;
    return tensor_get_s64(zero, 0);
}

int lower_narrow_weights(struct lower *l, int value, int axis, int64_t channels,
                         const struct tensor **ret, const float **ret_scales, struct err *err)
{
    int producer = l->g->values[value]->producer;
    const struct node *dq = producer < 0 ? NULL : l->g->nodes[producer];
    if (!dq || dq->op != OP_DEQUANTIZE_LINEAR)
        return 0;
    const struct tensor *q = plan_constant(l->plan, dq->inputs[0]);
    if (!q || (q->dtype != DTYPE_S8 && q->dtype != DTYPE_U8))
        return 0;
    int64_t zero = common_zero(l, dq);
    if (zero != (q->dtype == DTYPE_S8 ? 0 : 128))
        return 0;
    *ret_scales = weight_scales(l, dq, axis, channels, q->shape.rank);
    if (!*ret_scales)
        return 0;
    *ret = q;
    if (q->dtype == DTYPE_S8)
        return 1;
    struct tensor *s = tensor_in_arena(l->plan->arena, DTYPE_S8, &q->shape, err);
    if (!s)
        return -ERR_RESOURCE_EXHAUSTED;
    for (int64_t i = 0; i < shape_elements(&q->shape); i++)
        ((int8_t *)s->data)[i] = (int8_t)(((const uint8_t *)q->data)[i] - 128);
    *ret = s;
    return 1;
}

/* Whether 8-bit products come out exactly here. Without 8-bit dot products (VNNI) oneDNN adds pairs
 * of products in 16 bits, where 255 * (64 + 64) is the most that fits, and halves the weights of
 * signed activations: such layers are computed in floats instead, as the file says. */
static bool sums_are_exact(struct lower *l, int data, const struct tensor *weights)
{
    if (nn_has_int8())
        return true;
    if (l->plan->wires[l->plan->views[data].wire].dtype != DTYPE_U8)
        return false;
    const int8_t *w = weights->data;
    for (int64_t i = 0; i < shape_elements(&weights->shape); i++)
        if (w[i] > 64 || w[i] < -64)
            return false;
    return true;
}

/* 1: the weights are 8-bit and so is the data (`weights` then are s8); 0: floats. */
static int narrow_operands(struct lower *l, const struct node *node, int axis, int64_t channels,
                           const struct tensor **weights, const float **scales, struct err *err)
{
    const struct tensor *narrow = NULL;
    const float *narrow_scales = NULL;
    if (l->m->options->no_fusion || !lower_is_narrow(l, node->inputs[0]))
        return 0;
    int rc = lower_narrow_weights(l, node->inputs[1], axis, channels, &narrow, &narrow_scales, err);
    if (rc <= 0 || !sums_are_exact(l, node->inputs[0], narrow))
        return rc < 0 ? rc : 0;
    *weights = narrow;
    *scales = narrow_scales;
    return 1;
}

/* ---- what convolutions and products share ---- */

/* The data, what the chain adds, and the output. */
static int wire_up(struct lower *l, struct layer *layer, struct chain *chain, struct err *err)
{
    bool narrow = layer->precision == PRECISION_INT8, half = layer->precision == PRECISION_BF16;
    int data = layer->node->inputs[0];
    int rc = narrow
                 ? lower_narrow_operand(l, data, &layer->in[0], err)
                 : lower_float_operand(l, data, half ? DTYPE_BF16 : DTYPE_F32, &layer->in[0], err);
    bool half_out = half && lower_bf16_wanted(l, chain->value);
    for (int i = 0; rc == 0 && i < chain->n_added; i++)
        rc = chain->quantized
                 ? lower_narrow_operand(l, chain->added[i], &layer->in[1 + i], err)
                 : lower_float_operand(l, chain->added[i], half_out ? DTYPE_BF16 : DTYPE_F32,
                                       &layer->in[1 + i], err);
    if (rc < 0)
        return rc;
    int w = chain_finish(l, layer, 1, chain, err);
    if (w >= 0 && half_out)
        l->plan->wires[w].dtype = DTYPE_BF16;
    return w;
}

/* Lowers the operands of a chain before its layer exists, so that their layers come first. */
static int chain_prepare(struct lower *l, const struct chain *chain, struct err *err)
{
    for (int i = 0; i < chain->n_added; i++) {
        int rc = lower_value(l, chain->added[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static bool optional_floats(struct lower *l, const struct node *node, int input, int64_t n,
                            const float **ret)
{
    *ret = NULL;
    if (node->n_inputs <= input || node->inputs[input] < 0)
        return true;
    int64_t have = 0;
    *ret = lower_floats(l, node->inputs[input], &have);
    return *ret && have == n;
}

static const char *with_bias(struct lower *l, const char *fused, bool bias)
{
    if (!bias)
        return fused;
    return *fused ? arena_printf(l->plan->arena, "bias+%s", fused) : "bias";
}

/* ---- Conv, ConvTranspose ---- */

static int64_t conv_macs(const struct conv *c)
{
    int64_t spatial = 1, kernel = 1;
    for (int d = 0; d < c->w.rank; d++) {
        spatial *= c->transposed ? c->w.in[d] : c->w.out[d];
        kernel *= c->w.kernel[d];
    }
    return c->n * spatial * kernel * c->ic * c->oc / c->w.group;
}

static bool oddly_padded(const struct window *w)
{
    for (int d = 0; d < w->rank; d++)
        if (w->pad_begin[d] < 0 || w->pad_end[d] < 0 || w->out[d] <= 0 || w->in[d] <= 0)
            return true;
    return false;
}

int lower_conv(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct shape x = lower_shape(l, node->inputs[0]), y = lower_shape(l, node->outputs[0]);
    struct conv c = {
        .transposed = node->op == OP_CONV_TRANSPOSE, .n = x.dim[0], .ic = x.dim[1], .oc = y.dim[1]};
    if (l->g->values[node->inputs[0]]->dtype != DTYPE_F32 ||
        graph_window(l->g, node, &c.w, NULL) < 0 || oddly_padded(&c.w) || c.n <= 0 ||
        !optional_floats(l, node, 2, c.oc, &c.bias))
        return 0;
    c.weights = plan_constant(l->plan, node->inputs[1]);
    if (!c.weights || c.weights->dtype != DTYPE_F32)
        return 0;
    int rc = lower_value(l, node->inputs[0], err);
    if (rc < 0)
        return rc;
    int narrow =
        c.transposed ? 0 : narrow_operands(l, node, 0, c.oc, &c.weights, &c.weight_scales, err);
    if (narrow < 0)
        return narrow;
    struct chain chain;
    unsigned allows =
        CHAIN_ADD | CHAIN_CHANNELS | CHAIN_UNARY | CHAIN_GATE | (narrow ? CHAIN_QUANTIZE : 0);
    rc = chain_follow(l, node->outputs[0], allows, &chain, err);
    if (rc == 0)
        rc = chain_prepare(l, &chain, err);
    if (rc < 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_CONV, node, 1 + chain.n_added, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->conv = c;
    layer->macs = conv_macs(&c);
    layer->precision = narrow ? PRECISION_INT8 : lower_float_precision(l, node);
    rc = wire_up(l, layer, &chain, err);
    layer->fused = with_bias(l, layer->fused, c.bias != NULL);
    return rc < 0 ? rc : 1;
}

/* ---- Gemm, MatMul ---- */

/* Gemm's C (or nothing), scaled by beta, as one value for each column. */
static bool gemm_bias(struct lower *l, const struct node *node, int64_t n, const float **ret)
{
    *ret = NULL;
    if (node->n_inputs < 3 || node->inputs[2] < 0)
        return true;
    int64_t have = 0;
    const float *c = lower_floats(l, node->inputs[2], &have);
    float beta = node_float(node, "beta", 1);
    struct shape shape = lower_shape(l, node->inputs[2]);
    bool row = have == 1 || (have == n && shape.rank > 0 && shape.dim[shape.rank - 1] == n);
    float *to = c && row ? arena_alloc(l->plan->arena, (size_t)n, sizeof(*to)) : NULL;
    for (int64_t i = 0; to && i < n; i++)
        to[i] = beta * c[have == 1 ? 0 : i];
    *ret = to;
    return to != NULL;
}

/* Weights times Gemm's alpha. */
static const struct tensor *scaled_weights(struct lower *l, const struct tensor *w, float alpha,
                                           struct err *err)
{
    if (alpha == 1)
        return w;
    struct tensor *scaled = tensor_in_arena(l->plan->arena, DTYPE_F32, &w->shape, err);
    for (int64_t i = 0; scaled && i < shape_elements(&w->shape); i++)
        ((float *)scaled->data)[i] = alpha * ((const float *)w->data)[i];
    return scaled;
}

/* 1: the node is a product of a matrix (or several) with a constant matrix. */
static int gemm_of(struct lower *l, const struct node *node, struct gemm *ret, struct err *err)
{
    struct shape a = lower_shape(l, node->inputs[0]), b = lower_shape(l, node->inputs[1]);
    const struct tensor *w = plan_constant(l->plan, node->inputs[1]);
    if (l->g->values[node->inputs[0]]->dtype != DTYPE_F32 || !w || w->dtype != DTYPE_F32 ||
        b.rank != 2 || a.rank < 2)
        return 0;
    *ret = (struct gemm){.weights = w};
    float alpha = 1;
    if (node->op == OP_GEMM) {
        ret->trans_b = node_int(node, "transB", 0) != 0;
        alpha = node_float(node, "alpha", 1);
        if (node_int(node, "transA", 0) != 0)
            return 0;
    }
    ret->k = b.dim[ret->trans_b];
    ret->n = b.dim[!ret->trans_b];
    ret->m = shape_elements(&a) / (ret->k > 0 ? ret->k : 1);
    ret->weights = scaled_weights(l, w, alpha, err);
    if (!ret->weights)
        return -ERR_RESOURCE_EXHAUSTED;
    if (ret->k <= 0 || ret->n <= 0 || ret->m <= 0 || a.dim[a.rank - 1] != ret->k)
        return 0;
    if (node->op == OP_GEMM && !gemm_bias(l, node, ret->n, &ret->bias))
        return 0;
    return 1;
}

static int narrow_gemm(struct lower *l, const struct node *node, struct gemm *g, struct err *err)
{
    if (node->op == OP_GEMM && node_float(node, "alpha", 1) != 1)
        return 0;
    return narrow_operands(l, node, g->trans_b ? 0 : 1, g->n, &g->weights, &g->weight_scales, err);
}

/* MatMul + Add of a vector is what many exporters write for a Gemm. */
static void gemm_takes_bias(struct lower *l, struct gemm *g, struct chain *chain)
{
    (void)l;
    if (g->bias || chain->n_posts == 0 || chain->posts[0].kind != POST_SHIFT)
        return;
    g->bias = chain->posts[0].values;
    memmove(&chain->posts[0], &chain->posts[1],
            (size_t)(chain->n_posts - 1) * sizeof(chain->posts[0]));
    chain->n_posts--;
}

int lower_gemm(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct gemm g;
    int rc = gemm_of(l, node, &g, err);
    if (rc <= 0)
        return rc;
    rc = lower_value(l, node->inputs[0], err);
    if (rc < 0)
        return rc;
    int narrow = narrow_gemm(l, node, &g, err);
    if (narrow < 0)
        return narrow;
    struct chain chain;
    bool flat = lower_shape(l, node->outputs[0]).rank == 2; /* then channels are columns */
    unsigned allows = CHAIN_ADD | CHAIN_UNARY | CHAIN_GATE | (flat ? CHAIN_CHANNELS : 0) |
                      (narrow ? CHAIN_QUANTIZE : 0);
    rc = chain_follow(l, node->outputs[0], allows, &chain, err);
    if (rc == 0)
        rc = chain_prepare(l, &chain, err);
    if (rc < 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_GEMM, node, 1 + chain.n_added, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    gemm_takes_bias(l, &g, &chain);
    layer->gemm = g;
    layer->macs = g.m * g.n * g.k;
    layer->precision = narrow ? PRECISION_INT8 : lower_float_precision(l, node);
    rc = wire_up(l, layer, &chain, err);
    layer->fused = with_bias(l, layer->fused, g.bias != NULL);
    return rc < 0 ? rc : 1;
}
