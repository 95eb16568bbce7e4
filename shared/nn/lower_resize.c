/* Resize and Upsample, where oneDNN's resampling computes the same. */
#include <string.h>

#include "shared/nn/lower_priv.h"

static bool is(const struct node *node, const char *attr, const char *otherwise, const char *text)
{
    return strcmp(node_string(node, attr, otherwise), text) == 0;
}

/* Every output pixel's middle lies where output size / input size puts it, so that sizes say all.
 */
static bool scales_follow_from_sizes(struct lower *l, const struct node *node,
                                     const struct shape *x, const struct shape *y)
{
    int64_t n = 0;
    if (node->since >= 11 && node->n_inputs > 3 && node->inputs[3] >= 0 &&
        lower_floats(l, node->inputs[3], &n) && n > 0) /* an empty tensor is one left out */
        return true;
    int input = node->since >= 11 ? 2 : 1;
    const float *scales = node->n_inputs > input && node->inputs[input] >= 0
                              ? lower_floats(l, node->inputs[input], &n)
                              : NULL;
    if (!scales || n != x->rank)
        return false;
    for (int d = 0; d < x->rank; d++)
        if (scales[d] * (float)x->dim[d] != (float)y->dim[d])
            return false;
    return true;
}

/* Whole factors upwards, each pixel repeated: what most roundings of most coordinates come to. */
static bool repeats(const struct node *node, const struct shape *x, const struct shape *y)
{
    for (int d = 2; d < x->rank; d++)
        if (y->dim[d] % x->dim[d] != 0)
            return false;
    if (node->since < 11) /* floor(o / factor) */
        return true;
    if (is(node, "coordinate_transformation_mode", "half_pixel", "asymmetric"))
        return is(node, "nearest_mode", "round_prefer_floor", "floor");
    return is(node, "coordinate_transformation_mode", "half_pixel", "half_pixel") &&
           (is(node, "nearest_mode", "round_prefer_floor", "round_prefer_floor") ||
            is(node, "nearest_mode", "round_prefer_floor", "round_prefer_ceil"));
}

static bool between_middles(const struct node *node)
{
    return node->since >= 11 &&
           is(node, "coordinate_transformation_mode", "half_pixel", "half_pixel");
}

int lower_resize(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct shape x = lower_shape(l, node->inputs[0]), y = lower_shape(l, node->outputs[0]);
    if (l->g->values[node->inputs[0]]->dtype != DTYPE_F32 || x.rank < 3 ||
        x.rank > 2 + MAX_SPATIAL || x.dim[0] != y.dim[0] || x.dim[1] != y.dim[1] ||
        node_attr(node, "axes") || node_int(node, "antialias", 0) != 0 ||
        node_int(node, "exclude_outside", 0) != 0 ||
        !is(node, "keep_aspect_ratio_policy", "stretch", "stretch") ||
        !scales_follow_from_sizes(l, node, &x, &y))
        return 0;
    bool nearest = is(node, "mode", "nearest", "nearest") && repeats(node, &x, &y);
    bool linear = is(node, "mode", "nearest", "linear") && between_middles(node);
    if (!nearest && !linear)
        return 0;
    struct operand operand;
    int rc = nearest ? lower_narrow_operand(l, node->inputs[0], &operand, err)
                     : lower_operand(l, node->inputs[0], &operand, err);
    if (rc < 0)
        return rc;
    bool narrow = nearest && lower_is_narrow(l, node->inputs[0]) && !l->m->options->no_fusion;
    struct layer *layer = lower_new_layer(l, LAYER_RESIZE, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->alg = nearest ? dnnl_resampling_nearest : dnnl_resampling_linear;
    layer->in[0] = operand;
    int w = lower_output(l, layer, 0, node->outputs[0], err);
    if (w < 0)
        return w;
    if (narrow) {
        layer->precision = PRECISION_INT8;
        lower_keep_scale(l, layer, node->outputs[0]);
    } else if (operand.dtype == DTYPE_BF16) {
        layer->precision = PRECISION_BF16;
        l->plan->wires[w].dtype = DTYPE_BF16;
    }
    return 1;
}
