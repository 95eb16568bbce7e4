/* One 3x3 convolution for all layers of a unit or of two. It begins by handing on as many channels
 * as both sides have (Dirac's delta), which is what a residual block does first of all. */
#include "services/synthesizer/alternatives.h"

#define LEFT 0.4f /* of new weights beside the delta */

static void hand_on(struct graph *g)
{
    for (int n = 0; n < g->n_nodes; n++) {
        const struct value *w = graph_input_of(g, g->nodes[n], 1);
        if (g->nodes[n]->op != OP_CONV || !w->constant)
            continue;
        const int64_t *d = w->shape.dim, middle = (d[2] / 2) * d[3] + d[3] / 2;
        float *x = w->constant->data;
        for (int64_t i = 0; i < shape_elements(&w->shape); i++)
            x[i] *= LEFT;
        for (int64_t c = 0; c < d[0] && c < d[1]; c++)
            x[(c * d[1] + c) * d[2] * d[3] + middle] += 1;
    }
}

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    const int before = to->n;
    int rc = alternatives_offer_piece(to, "conv", first, last, err);
    if (rc == 0 && to->n > before)
        hand_on(to->list[before].graph);
    return rc;
}

const struct alternative_type alternative_conv = {
    .name = "conv",
    .summary = "one 3x3 convolution for all layers of a unit or of two",
    .most_units = 2,
    .offer = offer,
};
