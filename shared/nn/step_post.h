#pragma once
/* Post-operations and quantization of oneDNN's compute primitives. */
#include "shared/nn/step_dnnl.h"

enum { MAX_BINDINGS = 8 + 2 * MAX_POSTS };

/* Attributes of a layer's primitive, and the constants that go with them. */
struct attributes {
    dnnl_primitive_attr_t attr;
    int n_bindings;
    struct binding bindings[MAX_BINDINGS];
    int n_owned;
    dnnl_memory_desc_t owned[MAX_BINDINGS]; /* what the bindings point to */
    const float *bias;                      /* as the primitive takes it; NULL: none */
};
void attributes_release(struct attributes *a); /* for _cleanup_ */

/* For a layer with 8-bit weights: `weight_scales` and `channels` give real = scale * q for each
 * output channel; mask: of oneDNN's weights descriptor. Otherwise NULL. `out` is the layout of
 * residual operands. -ERR_UNIMPLEMENTED without a message when it cannot be said to oneDNN. */
int attributes_make(struct maker *m, const struct layer *layer, const float *bias,
                    const float *weight_scales, int64_t channels, int mask, enum layout out,
                    struct attributes *ret, struct err *err);
