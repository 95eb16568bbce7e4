#pragma once
/* How long implementations of a layer take here. */
#include "shared/nn/plan_priv.h"

/* Sets `ns` of each choice, whatever its layouts: all are tried in turns, so that what disturbs the
 * machine for a while disturbs them all. Those that cannot be built get a negative time. Results
 * are kept for the life of the process, by the layer's signature and the number of threads. */
int measure_choices(struct maker *m, const struct layer *layer, struct choices *choices,
                    struct err *err);
