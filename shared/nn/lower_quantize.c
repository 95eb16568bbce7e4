/* QuantizeLinear and DequantizeLinear that no other layer takes. */
#include "shared/nn/lower_priv.h"

/* DequantizeLinear computes nothing by itself: who can, reads the 8-bit numbers. */
static int lower_dequantize(struct lower *l, const struct node *node, struct err *err)
{
    float scale = 0;
    int32_t zero = 0;
    enum dtype dtype = DTYPE_NONE;
    if (!lower_quantization(l, node, &scale, &zero, &dtype) ||
        l->g->values[node->outputs[0]]->dtype != DTYPE_F32)
        return 0;
    int rc = lower_value(l, node->inputs[0], err);
    if (rc < 0)
        return rc;
    const struct view *view = &l->plan->views[node->inputs[0]];
    struct wire *wire = &l->plan->wires[view->wire];
    if (view->real || wire->dtype != dtype)
        return 0;
    if (wire->quantized && (wire->scale != scale || wire->zero != zero))
        return 0; /* read in two ways: the reference computes the second one */
    wire->quantized = true;
    wire->scale = scale;
    wire->zero = zero;
    l->plan->views[node->outputs[0]] = (struct view){.wire = view->wire, .real = true};
    return 1;
}

/* The same quantization of the same value, made before. */
static int find_same(const struct lower *l, const struct operand *from, const struct wire *like)
{
    for (int i = 0; i < l->plan->n_layers; i++) {
        const struct layer *layer = &l->plan->layers[i];
        bool converts = layer->kind == LAYER_CONVERT || layer->kind == LAYER_PICTURES ||
                        (layer->kind == LAYER_TABLE && layer->node->op == OP_QUANTIZE_LINEAR);
        if (!converts || layer->in[0].wire != from->wire)
            continue;
        const struct wire *w = &l->plan->wires[layer->out[0]];
        if (w->dtype == like->dtype && w->scale == like->scale && w->zero == like->zero)
            return layer->out[0];
    }
    return -1;
}

int lower_quantize(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    if (l->m->options->no_fusion)
        return 0;
    if (node->op == OP_DEQUANTIZE_LINEAR)
        return lower_dequantize(l, node, err);
    struct wire like = {0};
    if (!lower_quantization(l, node, &like.scale, &like.zero, &like.dtype) ||
        l->g->values[node->inputs[0]]->dtype != DTYPE_F32)
        return 0;
    const bool pictures = node->inputs[0] == l->picture_value;
    struct operand operand = {.wire = l->picture_wire, .dtype = DTYPE_U8};
    int rc = pictures ? 0 : lower_narrow_operand(l, node->inputs[0], &operand, err);
    if (rc < 0)
        return rc;
    bool narrow = !pictures && lower_is_narrow(l, node->inputs[0]);
    const struct wire *from = &l->plan->wires[operand.wire];
    int same =
        narrow && from->dtype == like.dtype && from->scale == like.scale && from->zero == like.zero
            ? operand.wire
            : find_same(l, &operand, &like);
    if (same >= 0) {
        l->plan->views[node->outputs[0]] = (struct view){.wire = same};
        return 1;
    }
    struct layer *layer =
        pictures ? lower_pictures(l, node->inputs[0], err)
                 : lower_new_layer(l, narrow ? LAYER_TABLE : LAYER_CONVERT, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->in[0] = operand;
    layer->precision = PRECISION_INT8;
    int w = lower_output(l, layer, 0, node->outputs[0], err);
    if (w < 0)
        return w;
    struct wire *wire = &l->plan->wires[w];
    wire->quantized = true;
    wire->scale = like.scale;
    wire->zero = like.zero;
    if (narrow)
        rc = lower_table(l, layer, 0, NULL, err);
    return rc < 0 ? rc : 1;
}
