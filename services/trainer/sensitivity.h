#pragma once
/*
 * Sensitivity: how far the outputs of a network move when one layer alone runs in a lower
 * precision. Measured, not estimated: the layer is lowered in the whole network, and KL(original ||
 * lowered) is taken on the logits of real samples.
 *
 * What comes before the layer does not change, so it runs once: the original's activations are kept
 * at one cut point at a time, and only the rest of the network runs again for each layer behind it.
 */
#include "shared/nn/quantize.h"

struct sensitivity_options {
    int threads; /* layers in parallel; 0: all processors */
    int64_t n;   /* samples; 0: sensitivity_samples */
    infer_fill *fill;
    void *fill_ctx;
    const struct quant_choice *choices; /* to try, without a layer: INT8 with these bits, BF16 */
    int n_choices;
    int weight_bits;          /* as in quant_options */
    infer_progress *progress; /* in samples times layers times choices */
    void *progress_ctx;
};

struct sensitivity {
    struct quant_choice choice;
    double kl;        /* mean KL(original || lowered), nats */
    double agreement; /* share of samples with the original's top-1 */
    double bytes;     /* in a packed file, about: quant_packed_bytes */
};

/* Samples that keep the work and the memory bounded: 256 to 512, fewer only where the activations
 * of one cut point would not fit 256 MB. The same on every machine. */
int sensitivity_samples(const struct graph *g, int n_choices, int64_t *ret, struct err *err);

/* Every layer of quant_layers in every choice, layer by layer in order. Array and names are the
 * arena's or the graph's. `ranges` as calibrated on g. */
int sensitivity_measure(const struct graph *g, const struct quant_ranges *ranges,
                        const struct sensitivity_options *options, struct arena *arena,
                        struct sensitivity **ret, int *ret_n, struct err *err);
