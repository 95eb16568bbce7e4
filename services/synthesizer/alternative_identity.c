/* Nothing at all, where the shape stays. */
#include "services/synthesizer/alternatives.h"

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    if (!units_keep_shape(to->g, to->units, first, last))
        return 0;
    return alternatives_add(to, first, last, NULL, err, "identity");
}

const struct alternative_type alternative_identity = {
    .name = "identity",
    .summary = "nothing: what comes in goes on",
    .most_units = 1,
    .offer = offer,
};
