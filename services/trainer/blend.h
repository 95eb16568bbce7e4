#pragma once
/*
 * The samples that alternatives are scored on: a stratified subset of the search part by the job's
 * seed. A network has often learnt its training data, of which the search part is a piece, by
 * heart: it is certain there, and nothing seems to matter. So each sample is blended with a fifth
 * of another. On ResNet-56 the divergences then have the size and (rank correlation 0.88 instead of
 * 0.83) the order of those on unseen data; without, they are thirty times too small.
 */
#include "shared/data/preprocess.h"

struct blend {
    struct dataset *ds;
    struct sample_view view;
    int64_t elements; /* of one sample */
    int64_t partner;  /* sample i is blended with sample i + partner */
};

/* At most n samples. `data`: the packed file, `preprocess` its text; for _cleanup_ see below. */
int blend_open(struct blend *b, const char *data, const char *preprocess, int64_t n, uint64_t seed,
               struct err *err);
void blend_release(struct blend *b);
/* An infer_fill. */
int blend_fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err);
