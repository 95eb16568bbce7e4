#pragma once
/*
 * 3x3 convolutions in bf16 with sums in fp32: forward, the gradient of the data and that of the
 * weights. Tensors lie channels last; channels are whole vectors of 16.
 *
 * The input is first brought into scratch memory: with its border of zeros, 16 channels at a time,
 * and columns of stride 2 sorted by parity, so that neighbouring pixels of an output read
 * neighbouring places. Then a tile of P pixels by V vectors of channels stays in registers while
 * all taps are added. The gradient of the weights sums over pixels, of which one instruction takes
 * two: those of the same place in two samples.
 *
 * Products are the CPU's where nn_has_bf16(), else they are written out: that is for tests.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct conv3 {
    int64_t n;          /* samples */
    int64_t h, w, ic;   /* x:  [n, h, w, ic] */
    int64_t oh, ow, oc; /* y:  [n, oh, ow, oc] */
    int64_t stride;     /* 1 or 2 */
    int64_t top, left;  /* pads before: 0 to 2; those behind follow from the sizes */
};

/* Whether the shape fills the tiles: a rule by shape, for all three. */
bool conv3_fits(const struct conv3 *c);
/* Bytes of scratch memory (64-aligned) that each of the functions below needs. */
size_t conv3_scratch(const struct conv3 *c);

/* from: f32 [oc, ic, 3, 3]; forward, data: what conv3_forward and conv3_data read, bf16 of as many
 * elements (`data` NULL: not wanted). */
void conv3_pack(const struct conv3 *c, const float *from, uint16_t *forward, uint16_t *data,
                void *scratch);
/* What conv3_weights has summed to [oc, ic, 3, 3]. */
void conv3_unpack(const struct conv3 *c, const float *sum, float *to);

/* weights: [oc / 16, 3, 3, ic / 2, 16, 2] */
void conv3_forward(const struct conv3 *c, const uint16_t *x, const uint16_t *weights, uint16_t *y,
                   void *scratch);
/* weights: [ic / 16, 3, 3, oc / 2, 16, 2] */
void conv3_data(const struct conv3 *c, const uint16_t *dy, const uint16_t *weights, uint16_t *dx,
                void *scratch);
/* sum: [oc, 3 (kx), 3 (ky), ic], added to. */
void conv3_weights(const struct conv3 *c, const uint16_t *x, const uint16_t *dy, float *sum,
                   void *scratch);
