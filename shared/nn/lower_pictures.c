/* Inputs that are pictures of bytes: each reader gets them as floats, or quantized at once. */
#include "shared/nn/lower_priv.h"

int lower_picture_input(struct lower *l, int index, struct err *err)
{
    const struct plan_pictures *p = l->m->options->pictures;
    const struct value *v = l->g->values[l->g->inputs[index]];
    const struct shape shape = lower_shape(l, l->g->inputs[index]);
    int w = lower_new_wire(l, v->name, &shape, DTYPE_U8, err);
    if (w < 0)
        return w;
    l->plan->wires[w].layout = layout_canonical(p->last ? LAYOUT_LAST : LAYOUT_PLAIN, &shape);
    l->picture_value = l->g->inputs[index];
    l->picture_wire = w;
    return w;
}

struct layer *lower_pictures(struct lower *l, int value, struct err *err)
{
    struct layer *layer = lower_new_layer(l, LAYER_PICTURES, NULL, 1, 1, err);
    if (!layer)
        return NULL;
    layer->name = l->g->values[value]->name;
    layer->op = "Pictures";
    layer->in[0] = (struct operand){.wire = l->picture_wire, .dtype = DTYPE_U8};
    return layer;
}

int lower_picture_value(struct lower *l, int value, struct err *err)
{
    struct layer *layer = lower_pictures(l, value, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    int w = lower_output(l, layer, 0, value, err);
    return w < 0 ? w : 0;
}
