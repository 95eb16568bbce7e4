/* A depthwise convolution and one over channels, with weights of their own. */
#include "services/synthesizer/alternatives.h"

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    return alternatives_offer_piece(to, "separable", first, last, err);
}

const struct alternative_type alternative_separable = {
    .name = "separable",
    .summary = "a depthwise convolution, then 1x1",
    .most_units = 1,
    .offer = offer,
};
