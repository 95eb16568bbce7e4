#pragma once
/* How active the channels of a network's values are on real samples: which of them matter, together
 * with the weights behind them. */
#include "shared/nn/infer.h"
#include "shared/work/state.h"

struct activity {
    const double **mean; /* [n_values] of |value| for each channel; NULL: not measured */
};

/* Of all float maps [N, C, H, W] that a Conv reads, over some training samples of the job. In
 * `arena`. */
int activity_measure(struct work_task *task, const job_state *state, const struct graph *g,
                     struct arena *arena, struct activity *ret, struct err *err);
/* The same over n samples that `fill` gives. */
int activity_of(const struct graph *g, int64_t n, int threads, infer_fill *fill, void *ctx,
                struct arena *arena, struct activity *ret, struct err *err);
