#pragma once
/* What the kernels of direct convolution (step_direct*.c) work on. */
#include "shared/nn/plan_priv.h"

enum { LANES = 16, MOST_OUTPUTS = 16 };

/* Where a block finds the pixels of one tap. */
struct tap {
    int32_t from[2];  /* pixel offsets within a plane of 4 channels; may be negative with a mask */
    uint16_t mask[2]; /* lanes inside the image; stride 1 uses the first only */
};

struct direct {
    int64_t n, in_groups, out_groups; /* groups of 4 channels */
    int64_t in_plane, out_plane;      /* pixels from plane to plane */
    int64_t out_pixels;
    int n_taps, stride;
    int threads;
    int blocks, outputs;       /* of a tile: 2 of 16 pixels by 8, or 1 by 16; AVX2: 1 by 4 */
    int64_t out_tiles;         /* tiles side by side in the output's channels */
    int64_t n_blocks;          /* of pixels, a multiple of `blocks` */
    struct tap *taps;          /* [n_blocks, n_taps] */
    bool wide;                 /* weights are in 16 bits: channels 0 and 2, then 1 and 3 */
    int32_t *weights;          /* [out_tiles, n_taps, in_groups, outputs (, 2)]: 4 (2) in each */
    float *scale, *bias;       /* [out_tiles * outputs]; in quanta of the output */
    float residual, low, high; /* scale of the residual; bounds of the result */
    uint32_t zero;             /* the input's zero point, four times */
    bool adds, bounds;         /* there is a residual; bounds need more than saturation */
};

struct tile {
    const uint32_t *in;     /* first plane of the sample */
    const struct tap *taps; /* of the first block; the second's follow */
    const int32_t *weights;
    const float *scale, *bias;
    uint32_t *out; /* at the tile's first pixel and plane; holds the residual before */
    int groups;    /* planes of output to store: 1 to outputs / 4 */
    int pixels;    /* 1 to 16 * blocks */
};

typedef void tile_fn(const struct direct *d, const struct tile *tile);

/* Nothing behind the sums but an addition in place and bounds. */
bool direct_simple_posts(const struct layer *layer);
/* Everything behind the sums in quanta of the output, zero points included: scale, bias, residual,
 * bounds. n_taps, out_tiles and outputs are given. */
int direct_scales(struct maker *m, const struct layer *layer, struct direct *d, struct err *err);

#if defined(__x86_64__)
/* The kernel for the tiles, made for its stride, residual and bounds. */
tile_fn *direct_avx2_madd_of(const struct direct *d);
tile_fn *direct_avx2_vnni_of(const struct direct *d); /* the CPU must have AVX-VNNI */
#endif
