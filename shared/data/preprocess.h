#pragma once
/*
 * From stored samples to the network's input: x -> (x * scale - mean) / std per channel, in RGB or
 * BGR order. Written by people as: scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225
 * order=rgb (all optional; one mean or std serves all channels; mean and std are in the network's
 * channel order).
 */
#include "shared/data/dataset.h"

struct preprocess {
    double scale;
    double mean[4], std[4]; /* in the order of the network's channels */
    bool bgr;
    int given; /* numbers that mean or std were given, where it was more than one; 0: not known */
};
extern const struct preprocess preprocess_identity;
int preprocess_parse(const char *text, struct preprocess *ret, struct err *err);
/* malloc'ed, in the form above; NULL when memory is out. */
char *preprocess_text(const struct preprocess *pre);
/* Channel c of the network's input is x * a + b, x being the sample's channel preprocess_channel.
 */
void preprocess_affine(const struct preprocess *pre, int64_t c, float *ret_a, float *ret_b);
int64_t preprocess_channel(const struct preprocess *pre, int64_t c, int64_t channels);
/* What becomes of each byte, for plans that take pictures (struct plan_pictures of shared/nn). */
void preprocess_table(const struct preprocess *pre, int64_t channels,
                      float *ret /* [channels, 256] */);

/* The usual conventions, most common first: raw 0..255, 0..1, -1..1, ImageNet mean and deviation,
 * CIFAR mean and deviation, Caffe means, ...; RGB and BGR each. For arrays: identity only. */
struct preprocess_convention {
    const char *name; /* "ImageNet mean and deviation, RGB" */
    struct preprocess pre;
};
const struct preprocess_convention *preprocess_conventions(int *ret_n);

/* A view of one part (or a seeded subset of it) as the network sees it; fill has the shape of
 * infer_fill (shared/nn/infer.h). */
struct sample_view {
    const struct dataset *ds;
    enum part part;
    struct preprocess pre;
    int64_t n;
    uint32_t *index; /* NULL: 0..n-1; else malloc'ed indices into the part */
};
/* n = 0: the whole part; fewer than the part has: a stratified subset by seed. */
int sample_view_init(struct sample_view *view, const struct dataset *ds, enum part part,
                     const struct preprocess *pre, int64_t n, uint64_t seed, struct err *err);
void sample_view_release(struct sample_view *view); /* for _cleanup_ */
int sample_view_fill(void *view, int64_t first, int64_t count, float *out, struct err *err);
/* malloc'ed labels of the view; *ret NULL where the data has none. */
int sample_view_labels(const struct sample_view *view, int32_t **ret, struct err *err);
