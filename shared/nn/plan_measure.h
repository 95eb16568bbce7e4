#pragma once
/* Which of several implementations of a layer is fastest here. */
#include "shared/nn/plan_priv.h"

/* Picks the fastest of the choices (all of one pair of layouts), with its time. Results are kept
 * for the life of the process, by the layer's signature and the number of threads. */
int measure_best(struct maker *m, const struct layer *layer, const struct choices *choices,
                 struct choice *ret, struct err *err);
