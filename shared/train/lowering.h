#pragma once
/*
 * What everybody shares who builds a network in lower precision from one in float, so that the same
 * file comes out: the samples that it is calibrated and corrected with, and what is written into
 * it. In between come quant_calibrate, quant_rewrite and quant_correct_bias (shared/nn/quantize.h).
 */
#include "shared/data/preprocess.h"
#include "shared/nn/quantize.h"

#define LOWERING_SAMPLES 512 /* of the training part */

/* n samples of a part, stratified, by the job's seed; 0, or more than there are: all. */
int lowering_samples(const struct dataset *ds, const struct preprocess *pre, enum part part,
                     int64_t n, uint64_t seed, struct sample_view *ret, struct err *err);

struct lowering_facts {
    const char *name;
    const char *parent; /* hash of the model that it comes from, or that it learned from */
    const char *preprocess;
    const char *design; /* NULL: the original's architecture */
    uint64_t seed;
    int weight_bits;
    const struct quant_choice *choices; /* all layers that can be lowered, in order */
    int n_choices;
};
int lowering_describe(struct graph *g, const struct lowering_facts *facts, struct err *err);
