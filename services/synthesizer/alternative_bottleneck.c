/* A bottleneck, with weights of its own. */
#include "services/synthesizer/alternatives.h"

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    return alternatives_offer_piece(to, "bottleneck", first, last, err);
}

const struct alternative_type alternative_bottleneck = {
    .name = "bottleneck",
    .summary = "1x1 to a fourth of the width, 3x3, 1x1 back, beside a shortcut",
    .most_units = 1,
    .offer = offer,
};
