#pragma once
/* Buffers for a plan that is only to be timed: inputs hold seeded normal noise (zeros where they
 * are not float), outputs are room. */
#include "shared/nn/plan.h"

struct plan_buffers {
    int n_in, n_out;
    void **in, **out;
};
int plan_buffers_make(const struct plan *plan, uint64_t seed, struct plan_buffers *ret,
                      struct err *err);
void plan_buffers_release(struct plan_buffers *buffers); /* for _cleanup_ */
int plan_buffers_run(struct plan *plan, const struct plan_buffers *buffers, struct err *err);
