#pragma once
/*
 * Networks brought into the form in which they are trained.
 *
 * Exporters fold BatchNormalization into the convolutions before it. Training wants it back:
 * without it deep networks learn slowly or not at all, and learning rates lose their meaning. Any
 * channel can be given a normalization that changes nothing: with the mean and the variance that
 * its values have on samples as running statistics, sqrt(variance + epsilon) as scale and the mean
 * as shift. pass_fold_batchnorm (shared/graph/passes.h) is the way back.
 */
#include "shared/nn/infer.h"

struct unfold_options {
    int threads;   /* 0: all processors */
    float epsilon; /* 0: 1e-5 */
    infer_progress *progress;
    void *progress_ctx;
};

/* Puts a BatchNormalization behind every Conv and ConvTranspose with constant weights, and behind
 * every Gemm that an activation follows (behind the MaxPool where one follows), where none is there
 * yet; the layers' biases go into it. Left alone are layers behind which no further layer with
 * weights comes: what they give are the network's answers. The function of the graph stays what it
 * was, up to rounding; statistics are those of n samples (some hundreds will do). n = 0 (fill may
 * be NULL): mean 0, variance 1, for networks that start from new weights anyway. Returns how many
 * were inserted. */
int unfold_batchnorm(struct graph *g, const struct unfold_options *options, int64_t n,
                     infer_fill *fill, void *ctx, struct err *err);

/* ---- new weights ---- */

struct reinit_options {
    uint64_t seed;
    bool zero_residual; /* the scale of the norm that ends a residual branch starts at 0, so that
                           the block starts as its shortcut (Goyal and others, 2017) */
    bool identity;      /* convolutions hand their input on (Dirac's delta) in as many channels as
                           they have on both sides (Jordan, 2024); the others have a sixth of the
                           variance below, which leaves the identity the larger part */
};
/* Everything that is trained as it is before any training, by seed: weights normal with variance
 * 2 / fan-in (He and others, 2015), biases and norms' shifts 0, scales 1, running means 0,
 * variances 1, PRelu's slopes 0.25. A constant's numbers depend on the seed and its place in the
 * network only. */
int reinit_weights(struct graph *g, const struct reinit_options *options, struct err *err);

/* The convolution that reads the pictures [N, C, H, W] becomes a whitening of their patches: the
 * principal components of the patches of n samples, each divided by its deviation, then the same
 * with the other sign (Page, 2018; Jordan, 2024). The fewer filters, the fewer components; beyond
 * twice the numbers of a patch they stay as they were. Groups and patches of more than
 * WHITEN_MOST_PATCH numbers are refused. Meant to be left as they are (train_options.frozen):
 * *ret_weights, in the graph's memory, names them. */
#define WHITEN_MOST_PATCH 1024
int whiten_first(struct graph *g, int64_t n, infer_fill *fill, void *ctx, const char **ret_weights,
                 struct err *err);
