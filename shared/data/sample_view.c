#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/data/pack.h"
#include "shared/data/preprocess.h"

void sample_view_release(struct sample_view *view)
{
    free(view->index);
    *view = (struct sample_view){0};
}

/* ---- subsets ---- */

/* The first shares[c] of each class after a shuffle, so mixed that every beginning of the view is a
 * fair sample too. */
static int draw(struct sample_view *view, int64_t total, uint64_t seed, struct err *err)
{
    const int32_t *labels = dataset_labels(view->ds, view->part);
    int64_t classes = labels ? dataset_classes(view->ds) : 1, taken = 0;
    _cleanup_(freep) uint32_t *all = mem_calloc((size_t)total, sizeof(*all));
    _cleanup_(freep) int64_t *sizes = mem_calloc((size_t)classes * 2, sizeof(*sizes));
    _cleanup_(freep) uint32_t *index = mem_calloc((size_t)view->n, sizeof(*index));
    if (!all || !sizes || !index)
        return err_oom(err, "drawing samples");
    int64_t *shares = sizes + classes;
    for (int64_t i = 0; i < total; i++) {
        all[i] = (uint32_t)i;
        sizes[labels ? labels[i] : 0]++;
    }
    int r = split_shares(sizes, classes, view->n, shares, err);
    if (r < 0)
        return r;
    struct rng rng;
    rng_seed(&rng, seed);
    rng_shuffle_u32(&rng, all, (uint64_t)total);
    for (int64_t i = 0; i < total; i++) {
        int64_t *left = &shares[labels ? labels[all[i]] : 0];
        if (*left > 0) {
            (*left)--;
            index[taken++] = all[i];
        }
    }
    view->index = TAKE_PTR(index);
    return 0;
}

static int check_channels(const struct dataset *ds, const struct preprocess *pre, struct err *err)
{
    int64_t shape[3];
    dataset_sample_shape(ds, shape);
    if (pre->bgr && shape[0] != 3)
        return err_set(err, ERR_INVALID_ARGUMENT, "order=bgr needs 3 channels; the data has %lld",
                       (long long)shape[0]);
    if (pre->given > 1 && pre->given < shape[0] && shape[0] <= 4)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "mean or std has %d numbers; the data has %lld channels", pre->given,
                       (long long)shape[0]);
    for (int c = 1; c < 4 && shape[0] > 4; c++)
        if (pre->mean[c] != pre->mean[0] || pre->std[c] != pre->std[0])
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "the data has %lld channels: give one mean and one std for all of them",
                           (long long)shape[0]);
    return 0;
}

int sample_view_init(struct sample_view *view, const struct dataset *ds, enum part part,
                     const struct preprocess *pre, int64_t n, uint64_t seed, struct err *err)
{
    int64_t total = dataset_count(ds, part);
    struct sample_view made = {.ds = ds, .part = part, .pre = pre ? *pre : preprocess_identity};
    int r = check_channels(ds, &made.pre, err);
    if (r < 0)
        return r;
    made.n = n > 0 && n < total ? n : total;
    if (made.n < total) {
        r = draw(&made, total, seed, err);
        if (r < 0)
            return r;
    }
    *view = made;
    return 0;
}

int sample_view_labels(const struct sample_view *view, int32_t **ret, struct err *err)
{
    const int32_t *labels = dataset_labels(view->ds, view->part);
    *ret = NULL;
    if (!labels)
        return 0;
    int32_t *out = mem_calloc((size_t)view->n + 1, sizeof(*out));
    if (!out)
        return err_oom(err, "labels");
    for (int64_t i = 0; i < view->n; i++)
        out[i] = labels[view->index ? view->index[i] : i];
    *ret = out;
    return 0;
}

/* ---- conversion ---- */

/* Blocks of a fixed length are what compilers turn into vectors without being asked. */
#define BLOCK 64

static void convert_u8(const uint8_t *restrict in, int64_t n, float a, float b, float *restrict out)
{
    int64_t i = 0;
    for (; i + BLOCK <= n; i += BLOCK)
        for (int64_t k = 0; k < BLOCK; k++)
            out[i + k] = (float)in[i + k] * a + b;
    for (; i < n; i++)
        out[i] = (float)in[i] * a + b;
}

static void convert_f32(const float *restrict in, int64_t n, float a, float b, float *restrict out)
{
    for (int64_t i = 0; i < n; i++)
        out[i] = in[i] * a + b;
}

int sample_view_fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    const struct sample_view *view = ctx;
    const struct preprocess *pre = &view->pre;
    int64_t shape[3];
    if (first < 0 || count < 0 || first > view->n - count)
        return err_set(err, ERR_OUT_OF_RANGE, "%lld samples from %lld on, of %lld",
                       (long long)count, (long long)first, (long long)view->n);
    dataset_sample_shape(view->ds, shape);
    int64_t plane = shape[1] * shape[2];
    bool picture = dataset_is_picture(view->ds);
    for (int64_t i = first; i < first + count; i++) {
        int64_t at = view->index ? view->index[i] : i;
        for (int64_t c = 0; c < shape[0]; c++, out += plane) {
            const int64_t from = preprocess_channel(pre, c, shape[0]) * plane;
            float a, b;
            preprocess_affine(pre, c, &a, &b);
            if (picture)
                convert_u8(dataset_u8(view->ds, view->part, at) + from, plane, a, b, out);
            else
                convert_f32(dataset_f32(view->ds, view->part, at) + from, plane, a, b, out);
        }
    }
    return 0;
}
