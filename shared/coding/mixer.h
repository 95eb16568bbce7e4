#pragma once
/*
 * Several opinions on the next bit become one: their log-odds, weighted (Mahoney, "Adaptive
 * weighing of context models for lossless data compression", 2005). Weights are learned as bits
 * come; there are sets of them, and the caller says which is used.
 */
#include "shared/base/err.h"
#include "shared/coding/coder.h"

#define MIXER_MOST 12 /* opinions */

struct mixer {
    int n, sets;
    int rate;         /* of learning: 1 to 64 */
    int32_t *weights; /* [sets, n], of 65536 */
};
/* weight: what each begins with. */
int mixer_init(struct mixer *m, int n, int sets, int rate, int32_t weight, struct err *err);
void mixer_release(struct mixer *m);

/* A bit by n opinions, which learn it, too. limit: as for chance_learn. */
int mixer_bit(struct mixer *m, struct coder *c, struct chance *const *opinions, int set, int limit,
              int bit);
