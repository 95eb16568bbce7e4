#pragma once
/*
 * Quantization: ranges of activations from data, and the rewrite of a network to QDQ.
 *
 * Scheme: activations u8, asymmetric, per tensor (zero point 0 after ReLU); weights s8, symmetric,
 * per output channel; biases s32 with scale = input scale * weight scale. Ranges minimise the
 * squared error of 8 bits over the calibration samples (histograms), not the extremes.
 */
#include "shared/nn/infer.h"

struct quant_range {
    const char *value; /* name */
    double min, max;   /* observed */
    double low, high;  /* chosen; low <= 0 <= high */
    double mse;        /* squared error of 8 bits within [low, high] */
};
struct quant_ranges {
    struct arena *arena;
    int n;
    struct quant_range *ranges;
    int64_t samples;
};
void quant_ranges_release(struct quant_ranges *ranges); /* for _cleanup_ */
const struct quant_range *quant_range_find(const struct quant_ranges *ranges, const char *value);

/* Whether it has layers in QDQ form. */
bool quant_is_quantized(const struct graph *g);

/* Layers that can run in int8: names of the main nodes (Conv, ConvTranspose, Gemm, MatMul with
 * constant weights), in order. The array and names are the graph's or the arena's. */
int quant_layers(const struct graph *g, struct arena *arena, const char *const **ret, int *ret_n,
                 struct err *err);

/* Calibrates every value that could be quantized, on n samples. */
int quant_calibrate(const struct graph *g, const struct infer_options *options, int64_t n,
                    infer_fill *fill, void *ctx, struct quant_ranges *ret, struct err *err);
/* The same from seeded normal noise, for timing only. */
int quant_calibrate_noise(const struct graph *g, uint64_t seed, struct quant_ranges *ret,
                          struct err *err);
/* Without any data, for timing only: 0 to 6 behind a Relu, 0 to 1 behind what answers so, -6 to 6
 * elsewhere. */
int quant_ranges_guess(const struct graph *g, struct quant_ranges *ret, struct err *err);

struct quant_choice {
    const char *layer;
    enum precision precision; /* FP32, BF16 or INT8 */
    int weight_bits;          /* of an INT8 layer; 0: as the options say */
};
/* Weights of fewer bits are stored and computed with as 8-bit integers, of which they use the
 * middle: any runtime runs them, and they are packed (shared/coding) into fewer bytes. */
#define QUANT_BITS_LEAST 2
/* "fp32", "bf16", "int8" (weights as the options say), "int6", ... as people and tasks say it. */
int quant_choice_parse(const char *text, struct quant_choice *ret, struct err *err);
const char *quant_choice_name(const struct quant_choice *choice, char text[8]);
struct quant_options {
    int weight_bits; /* 8; 7 where the target has no VNNI and 16-bit sums could saturate; 0: 8 */
};
/* A QDQ copy of fp32 network g in which the chosen layers run in int8 (or are hinted bf16); layers
 * not named stay fp32. A value is stored in 8 bits when an int8 layer reads it; all its readers
 * then see the same 8-bit value. Quantization moves through operators that do not compute, so that
 * e.g. a shortcut's Slice and Pad stay in 8 bits; inputs of a Concat share their scale. */
int quant_rewrite(const struct graph *g, const struct quant_choice *choices, int n_choices,
                  const struct quant_ranges *ranges, const struct quant_options *options,
                  struct graph **ret, struct err *err);
/* quant_rewrite with every layer in int8 that can. */
int quant_rewrite_all(const struct graph *g, const struct quant_ranges *ranges,
                      const struct quant_options *options, struct graph **ret, struct err *err);

/* About how many bytes an int8 layer of a rewritten network takes in a packed file: the entropy of
 * its weights, its scales, its biases. 0 where there is no such layer. */
double quant_packed_bytes(const struct graph *q, const char *layer);

/* Bias correction (Nagel et al. 2019, arXiv 1906.04721, section 4.2, empirical): adds to each int8
 * layer's bias the mean difference per output channel between parent and quantized network, layer
 * by layer in order, over n samples. Changes q's bias constants in place. */
int quant_correct_bias(const struct graph *parent, struct graph *q,
                       const struct infer_options *options, int64_t n, infer_fill *fill, void *ctx,
                       struct err *err);
