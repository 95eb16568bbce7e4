#pragma once
/* What the files of quantization share among themselves. */
#include "shared/nn/quantize.h"
#include "shared/nn/quantize_stream.h"

/* ---- layers ---- */

/* What makes a node a layer that can run in int8: where its weights lie and how its outputs are
 * numbered. Weights are [outer, channels, inner] around the axis of the output channels. */
struct quant_layer {
    int node;
    int data, weights, bias; /* values; bias -1: none */
    int axis;                /* of the output channels in the weights */
    int64_t outer, channels, inner;
    int64_t outputs; /* output channels: channels, or times the groups (ConvTranspose) */
};
/* Whether node n is such a layer. */
bool quant_layer_of(const struct graph *g, int n, struct quant_layer *ret);

/* ---- which values are stored in 8 bits ---- */

/* Arrays over the values of a graph. Values of one root share scale and zero point. */
struct quant_spread {
    bool *wanted;    /* an int8 layer reads it, at once or through operators that do not compute */
    bool *quantized; /* wanted, or made from such values by operators that do not compute */
    bool *source;    /* quantized, and its producer computes (or it is an input) */
    int *root;
};
/* is_int8: over the nodes. Everything in the arena. */
int quant_spread_make(const struct graph *g, const bool *is_int8, struct arena *arena,
                      struct quant_spread *ret, struct err *err);

/* ---- ranges ---- */

#define HISTOGRAM_HALF 8192 /* bins on each side of zero */
#define HISTOGRAM_BINS (2 * HISTOGRAM_HALF)

/* Adaptive: bins are [i * width, (i + 1) * width) with i from -HALF; the width is a power of two
 * that doubles (pairs of bins merge exactly) when a value does not fit, so that at least half of
 * one side is in use, and counts do not depend on the order in which values came. */
struct histogram {
    double width; /* 0: nothing but zeros seen so far */
    double min, max;
    uint64_t count, zeros; /* zeros are counted here only */
    uint64_t *bins;        /* [HISTOGRAM_BINS] */
};
int histogram_init(struct histogram *h, struct err *err);
void histogram_release(struct histogram *h);
/* OUT_OF_RANGE when a number is not finite. */
int histogram_add(struct histogram *h, const float *x, int64_t n, struct err *err);
/* The range of 8 bits with the least squared error; also min, max and mse. */
int histogram_range(const struct histogram *h, struct quant_range *ret, struct err *err);

struct quant_scale {
    float scale;
    uint8_t zero;
};
/* Appends a copy; only to lists that began empty. INVALID_ARGUMENT for what is no range. */
int quant_ranges_add(struct quant_ranges *ranges, const struct quant_range *range, struct err *err);

/* Scale and zero point of a range; 0 is exact, and the scale is a usable number for any range. */
struct quant_scale quant_scale_of(double low, double high);

/* ---- weights ---- */

/* Symmetric scales per output channel for f32 weights, and the weights in them. bits: of a weight,
 * QUANT_BITS_LEAST to 8. least: [channels]
 * the smallest scale that a channel may have, or NULL. scales: [channels], q: as many as weights.
 */
int quant_weights(const struct quant_layer *layer, const float *weights, int bits,
                  const float *least, float *scales, int8_t *q, struct err *err);

/* Makes the listed values (indices) the only outputs of a graph, and drops what they do not need.
 * Values that are inputs are left out; ret_output[i] is the output's index, -1 for those. */
int quant_set_outputs(struct graph *g, int n, const int *values, int *ret_output, struct err *err);

int quant_find_node(const struct graph *g, const char *name); /* -1: none */
