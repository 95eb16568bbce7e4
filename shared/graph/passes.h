#pragma once
/*
 * Rewrites that leave the function unchanged. Each returns the number of changes made (0 or more)
 * or a negative code, and leaves the graph compacted and inferred.
 */
#include "shared/graph/graph.h"

/* Nodes whose inputs are all constant become constants (by eval_node). QDQ weights
 * (DequantizeLinear of a constant) stay as they are: they mark int8 layers. */
int pass_fold_constants(struct graph *g, struct err *err);
/* Identity, Dropout (inference), Cast to the same type, Pad by nothing, Transpose by identity,
 * Reshape to the same shape, Slice of all, Concat of one. */
int pass_remove_identities(struct graph *g, struct err *err);
/* BatchNormalization behind Conv, ConvTranspose or Gemm, or behind their MaxPool where no scale is
 * negative, goes into weights and bias. Also Mul/Add/Sub/Div by per-channel constants behind those,
 * and behind a BatchNormalization that stays. */
int pass_fold_batchnorm(struct graph *g, struct err *err);
/* Spatial zero Pad before Conv (or AveragePool that counts pads) goes into its pads. */
int pass_fold_pad(struct graph *g, struct err *err);
/* Chains of Reshape, Flatten, Squeeze and Unsqueeze become one (Flatten where that says it), Slices
 * of different axes one; ReduceMean over H and W, and pools of the whole image, become global pools
 * (+ Flatten); MatMul by a constant matrix becomes Gemm (and takes up an Add in
 * pass_fold_batchnorm); Clip(x, 0) becomes Relu, Clip after Relu one Clip, x * HardSigmoid(x) and
 * its longer forms HardSwish (the graph is raised to opset 14 for it); Constant nodes become
 * constants. */
int pass_canonicalise(struct graph *g, struct err *err);
/* All of the above until nothing changes: for networks that go on learning. */
int pass_simplify_branched(struct graph *g, struct err *err);

/* The sum of two convolutions of the same value, or of one and a BatchNormalization, becomes one
 * convolution, where that costs no more: branches that only learning needs (RepVGG's). */
int pass_merge_branches(struct graph *g, struct err *err);
/* All of the above until nothing changes: what every reader of a user's model wants. */
int pass_simplify(struct graph *g, struct err *err);
