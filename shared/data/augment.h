#pragma once
/*
 * Augmentation: samples of the packed data as training sees them, straight into the network's
 * input.
 *
 * View k of sample i is a function of (seed, k, i) and of nothing else: neither of the order in
 * which samples are asked for, nor of the batch they are in, nor of the preprocessing. So a teacher
 * whose answers were computed view by view has seen exactly what its student sees, in its own
 * normalisation. A training run without a teacher asks for view = epoch.
 *
 * In order: colours (on stored pixels, 0 to 255), shift within a border, flip, normalisation; then
 * cutout and masks, which write the normalised zero (the mean's colour). Mixup takes two samples of
 * a batch and stands apart (augment_mix).
 */
#include "shared/data/preprocess.h"

enum augment_flip {
    FLIP_NONE,
    FLIP_RANDOM,      /* left-right, for each view by lot */
    FLIP_ALTERNATING, /* by lot in view 0, then every other view: airbench's; no two neighbouring
                         views of a sample are alike, so the two sides are seen equally often */
};
enum augment_border {
    BORDER_ZERO,    /* the normalised zero */
    BORDER_REFLECT, /* mirrored, without repeating the edge */
};

struct augment {
    int crop; /* a crop of the sample's size out of the sample with this border; 0: none */
    enum augment_border border;
    enum augment_flip flip;
    int cutout; /* side of a square that is blanked, its centre anywhere in the sample; 0: none */
    double brightness, contrast, saturation; /* factors from [1 - x, 1 + x], x <= 1; RGB only */
    /* Features over time (arrays [1, time, frequency]): up to so many rows or columns blanked at a
     * place by lot; moved along time by up to so many steps, blank where nothing comes from. */
    int time_mask, frequency_mask, time_shift;
};

struct augmenter {
    const struct dataset *ds;
    enum part part;
    struct preprocess pre;
    struct augment how;
    uint64_t seed;
};

/* INVALID_ARGUMENT, with a sentence, for what cannot be done to such samples. */
int augment_check(const struct augment *how, const struct dataset *ds, struct err *err);
/* malloc'ed "crop=4 border=zero flip=random ...": the settings as text, for hashes and headers; the
 * same for equal settings. NULL when memory is out. */
char *augment_text(const struct augment *how);

/* out[k], dense, is the given view of sample index[k] of the part, k < count. Thread-safe. */
int augment_fill(const struct augmenter *a, uint64_t view, const uint32_t *index, int64_t count,
                 float *out, struct err *err);

/* ---- mixup ---- */

/* The share that sample i keeps for itself in this epoch: max(b, 1 - b), b ~ Beta(alpha, alpha). */
double augment_mix_share(double alpha, uint64_t seed, uint64_t epoch, uint32_t i);
/* x: [n, width]. Row k becomes share[k] * x[k] + (1 - share[k]) * x[(k + 1) % n], where both are
 * the rows as they were. `spare`: width floats. */
void augment_mix(float *x, int64_t n, int64_t width, const float *share, float *spare);
