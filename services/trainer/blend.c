#include "services/trainer/blend.h"

#include "shared/base/mem.h"
#include "shared/base/rng.h"

/* Keeps this choice of samples apart from others made with the job's seed. */
#define SEED_SALT 0x73636f7265u
#define SHARE 0.2f /* of the other sample */

void blend_release(struct blend *b)
{
    sample_view_release(&b->view);
    dataset_close(b->ds);
}

int blend_open(struct blend *b, const char *data, const char *preprocess, int64_t n, uint64_t seed,
               struct err *err)
{
    struct preprocess pre;
    struct rng rng;
    int64_t shape[3];
    int rc = dataset_open(data, &b->ds, err);
    if (rc == 0)
        rc = preprocess_parse(preprocess, &pre, err);
    if (rc < 0)
        return rc;
    const int64_t count = dataset_count(b->ds, PART_SEARCH);
    rc = sample_view_init(&b->view, b->ds, PART_SEARCH, &pre, n < count ? n : 0, seed ^ SEED_SALT,
                          err);
    if (rc < 0)
        return rc;
    dataset_sample_shape(b->ds, shape);
    b->elements = shape[0] * shape[1] * shape[2];
    rng_seed(&rng, seed ^ SEED_SALT);
    b->partner = b->view.n > 1 ? 1 + (int64_t)rng_below(&rng, (uint64_t)b->view.n - 1) : 0;
    return 0;
}

int blend_fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    struct blend *b = ctx;
    int rc = sample_view_fill(&b->view, first, count, out, err);
    _cleanup_(freep) float *other = mem_calloc((size_t)b->elements, sizeof(*other));
    if (!other)
        return err_oom(err, "a sample");
    for (int64_t i = 0; i < count && rc == 0; i++) {
        rc = sample_view_fill(&b->view, (first + i + b->partner) % b->view.n, 1, other, err);
        float *x = out + i * b->elements;
        for (int64_t k = 0; k < b->elements; k++)
            x[k] += SHARE * (other[k] - x[k]);
    }
    return rc;
}
