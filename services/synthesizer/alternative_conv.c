/* One 3x3 convolution for all layers of a unit or of two. It begins by handing on as many channels
 * as both sides have (Dirac's delta), which is what a residual block does first of all. */
#include <stdio.h>

#include "services/synthesizer/alternatives.h"
#include "shared/design/design.h"

#define LEFT 0.4f /* of new weights beside the delta */

static struct node *convolution_of(struct graph *g)
{
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_CONV)
            return g->nodes[n];
    return NULL;
}

static void hand_on(struct graph *g)
{
    const struct node *node = convolution_of(g);
    const struct value *w = node ? graph_input_of(g, node, 1) : NULL;
    if (!w || !w->constant)
        return;
    const int64_t *d = w->shape.dim, middle = (d[2] / 2) * d[3] + d[3] / 2;
    float *x = w->constant->data;
    for (int64_t i = 0; i < shape_elements(&w->shape); i++)
        x[i] *= LEFT;
    for (int64_t c = 0; c < d[0] && c < d[1]; c++)
        x[(c * d[1] + c) * d[2] * d[3] + middle] += 1;
}

static int layers_of(const struct alternatives *a, int first, int last)
{
    int layers = 0;
    for (int u = first; u <= last; u++)
        layers += a->units->units[u].layers;
    return layers;
}

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    char text[64];
    int64_t width;
    int stride;
    struct graph *g = NULL;
    if (layers_of(to, first, last) < 2 ||
        !alternatives_pictures(to, first, last, &width, &stride) || width > DESIGN_MAX_WIDTH)
        return 0;
    snprintf(text, sizeof(text), stride > 1 ? "conv:%lld:s%d" : "conv:%lld", (long long)width,
             stride);
    int rc = alternatives_design(to, text, first, last, &g, err);
    if (rc < 0 || !g)
        return rc;
    hand_on(g);
    return alternatives_add(to, first, last, g, err, "%s", text);
}

const struct alternative_type alternative_conv = {
    .name = "conv",
    .summary = "one 3x3 convolution for all layers of a unit or of two",
    .most_units = 2,
    .offer = offer,
};
