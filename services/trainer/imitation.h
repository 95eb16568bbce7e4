#pragma once
/*
 * Local distillation: parts of networks learn, each by itself, to do what a parent does between two
 * of its values. One forward pass of the parent feeds them all: each reads the parent's own values
 * at its beginning, and what it yields is compared with the parent's at its end,
 *
 *     loss = MSE(out, parent) / MSE(0, parent)
 *
 * (Bercovich and others, 2024: "Puzzle"). Norms are put back where an export folded them away. The
 * training part alone is read. The same arguments give the same parts, on as many threads, where
 * the time suffices.
 */
#include "shared/data/augment.h"
#include "shared/nn/infer.h"

struct imitation {
    const char *from, *to;       /* values of the parent; `from` may be its input */
    const struct graph *network; /* in float: reads the one, yields the other */
    /* What comes out: */
    struct graph *trained; /* norms folded, learned branches apart; the caller's. NULL: see why */
    double loss;           /* mean over the last eighth of the steps; NAN without any */
    struct err why;        /* it could not learn: it does not fit, or its numbers grew too large */
};

struct imitation_options {
    int64_t samples, batch; /* that each learns from (0: none, they stay as they are); of a step */
    double rate;            /* of Adam, at its peak; half a cosine to 0 */
    double seconds;         /* for all of it: where the first steps say that this is not enough
                               there are fewer steps. 0: as long as it takes */
    int threads;
    uint64_t seed;
    enum precision precision; /* of training: FP32, BF16, AUTO */
    struct augment augment;
    infer_progress *progress; /* in steps; a negative return stops */
    void *progress_ctx;
};

struct imitation_done {
    double seconds;
    int64_t samples; /* that each learned from */
};

/* At most IMITATION_VALUES different values among beginnings and ends. Whoever cannot learn says
 * why in its own entry; errors of the whole are those of the parent, the data and the progress. */
#define IMITATION_VALUES 16
int imitation_run(const struct graph *parent, const struct dataset *ds,
                  const struct preprocess *pre, const struct imitation_options *options,
                  struct imitation *list, int n, struct imitation_done *ret, struct err *err);
