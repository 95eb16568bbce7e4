#pragma once
/*
 * The batches of a training run, in order, made ahead by a thread of their own while the network
 * computes: two buffers, one being filled while the other is used.
 *
 * What is in a batch is a function of the settings and of its step alone: epoch e takes the
 * training part in an order drawn from (seed, e), cut into batches (what does not fill one is left
 * out of that epoch), and sees view e of each sample, or e modulo the teacher's views. So a run can
 * begin at any step.
 */
#include "shared/train/features.h"
#include "shared/train/teacher.h"

struct batch_settings {
    struct augmenter views; /* of the training part; its seed is that of the views */
    uint64_t seed;          /* of order and mixup */
    int64_t batch;
    double mixup;                  /* alpha; 0: none */
    const struct teacher *teacher; /* may be NULL */
    struct features *features;     /* may be NULL; used by the thread alone */
    const struct feature_pairs *pairs;
    const struct preprocess *features_pre; /* what that teacher sees */
};

struct batch {
    int64_t step;
    float *x;                      /* [batch, sample] */
    int32_t *label;                /* [batch]; -1 without labels */
    int32_t *other;                /* with mixup: of the sample that is mixed in */
    float *share;                  /* of the first; 1 without mixup */
    float *teacher;                /* [batch, width] logits; NULL without a teacher */
    float *teacher_other;          /* with mixup and a teacher; else NULL */
    float *features[FEATURES_MAX]; /* [batch, of the pair]: the teacher's; NULL without */
};

/* Steps of one epoch: whole batches in the training part. */
int64_t batches_per_epoch(const struct batch_settings *settings);

struct batches;
/* Begins to make the batches of steps first .. end - 1. */
int batches_open(const struct batch_settings *settings, int64_t first, int64_t end,
                 struct batches **ret, struct err *err);
struct batches *batches_close(struct batches *b); /* NULL-safe, returns NULL; may be called early */
void batches_closep(struct batches **b);
/* The next batch; it stays until the call after this one. */
int batches_next(struct batches *b, const struct batch **ret, struct err *err);
