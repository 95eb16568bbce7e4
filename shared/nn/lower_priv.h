#pragma once
/* What the files that lower nodes to layers share. */
#include "shared/nn/plan_priv.h"

enum { MAX_ON_DEMAND = 32 }; /* depth of operands that are lowered early */

struct lower {
    struct maker *m;
    const struct graph *g;
    struct plan *plan;
    struct uses uses;
    bool *taken;                     /* by node: part of a layer, or being lowered */
    int depth;                       /* of operands lowered on demand */
    int picture_value, picture_wire; /* the input that is pictures of bytes, and its bytes; or -1 */
};

/* Input `index` is pictures of bytes: its wire. A layer that reads them, whose output is to be set
 * (NULL: out of memory); the one that makes them the floats that the graph's value stands for. */
int lower_picture_input(struct lower *l, int index, struct err *err);
struct layer *lower_pictures(struct lower *l, int value, struct err *err);
int lower_picture_value(struct lower *l, int value, struct err *err);

/* Wires and views. All return the wire, or a negative code. */
int lower_new_wire(struct lower *l, const char *name, const struct shape *shape, enum dtype dtype,
                   struct err *err);
/* Sees to it that the value has a view, lowering what comes before it. */
int lower_value(struct lower *l, int value, struct err *err);
/* The operand that reads a value: what it stands for, in the value's own type. */
int lower_operand(struct lower *l, int value, struct operand *ret, struct err *err);
/* The same, but as the wire holds the numbers: in 8 bits where the value stands for some, in bf16
 * where its layer left it so. */
int lower_narrow_operand(struct lower *l, int value, struct operand *ret, struct err *err);
/* 8-bit weights behind a DequantizeLinear, symmetric, with a scale for each of `channels` along
 * `axis`; 1 when there are. Unsigned ones with zero point 128 are shifted to signed. */
int lower_narrow_weights(struct lower *l, int value, int axis, int64_t channels,
                         const struct tensor **ret, const float **ret_scales, struct err *err);
/* The same in float arithmetic of the given width; narrower numbers are widened. */
int lower_float_operand(struct lower *l, int value, enum dtype dtype, struct operand *ret,
                        struct err *err);
/* Whether the value lies there in bf16. */
bool lower_is_bf16(const struct lower *l, int value);
/* FP32 or BF16: what a node that multiplies should compute in, if not in 8 bits. */
enum precision lower_float_precision(const struct lower *l, const struct node *node);
/* Whether some reader takes the value in bf16 as it is. */
bool lower_bf16_wanted(const struct lower *l, int value);
/* Whether the value is what some 8-bit wire, per tensor, stands for. */
bool lower_is_narrow(struct lower *l, int value);
/* Whether a node or the network's outputs read the value (-1: no). */
bool lower_is_used(const struct lower *l, int value);
struct shape lower_shape(const struct lower *l, int value);

/* A new layer for the node, with operands and outputs to be filled in. NULL: out of memory. */
struct layer *lower_new_layer(struct lower *l, enum layer_kind kind, const struct node *node,
                              int n_in, int n_out, struct err *err);
/* The layer's output i becomes a new wire for the graph's value. */
int lower_output(struct lower *l, struct layer *layer, int i, int value, struct err *err);

/* ---- what follows the main operation ---- */

/* How many nodes a chain takes, and what comes out of it. */
struct chain {
    int value; /* its last value */
    int n_posts;
    struct post posts[MAX_POSTS];  /* operand: index into `added` */
    int n_added, added[MAX_POSTS]; /* values of POST_ADD */
    bool quantized; /* every reader of `value` is a QuantizeLinear by these: they are taken, too */
    float scale;
    int32_t zero;
    enum dtype dtype;
    char fused[96];
};
enum chain_allows {
    CHAIN_ADD = 1, /* residual additions of the same shape; one where CHAIN_QUANTIZE is allowed */
    CHAIN_CHANNELS = 2, /* scale and shift for each channel */
    CHAIN_UNARY = 4,
    CHAIN_QUANTIZE = 8,
    CHAIN_GATE = 16, /* x * sigmoid(x), x * hardsigmoid(x) */
};
/* Takes the nodes that follow `value` one by one, as far as they can be fused. */
int chain_follow(struct lower *l, int value, unsigned allows, struct chain *ret, struct err *err);
/* Gives the layer the chain's posts, its added operands (from operand `first` on) and its output.
 */
int chain_finish(struct lower *l, struct layer *layer, int first, struct chain *chain,
                 struct err *err);
/* The eltwise operation of an activation node: 1, or 0 when it is none (or not constant). */
int lower_activation(struct lower *l, const struct node *node, struct post *ret);
/* Per-tensor scale and zero point of a QuantizeLinear or DequantizeLinear node over 8 bits. */
bool lower_quantization(struct lower *l, const struct node *node, float *ret_scale,
                        int32_t *ret_zero, enum dtype *ret_dtype);
/* A float copy of a constant, in the plan's arena. NULL when it is not constant or out of memory.
 */
const float *lower_floats(struct lower *l, int value, int64_t *ret_n);

/* The layer only moves 8-bit numbers: its outputs keep the scale of operand 0; `value` is what
 * output 0 stands for. */
void lower_keep_scale(struct lower *l, struct layer *layer, int value);
/* Fills in the table of a LAYER_TABLE whose wires are set up: through the nodes, one by one. */
int lower_table(struct lower *l, struct layer *layer, int n_nodes, const int *nodes,
                struct err *err);

/* BatchNormalization as x * scale + shift for each channel, where it is that of inference and
 * constant. */
bool lower_norm_values(struct lower *l, const struct node *node, const float **ret_scale,
                       const float **ret_shift);

/* Each lowers the node if it can: 1 done, 0 not this way, negative code. */
typedef int lower_fn(struct lower *l, int node, struct err *err);
int lower_conv(struct lower *l, int node, struct err *err);
int lower_gemm(struct lower *l, int node, struct err *err);
int lower_pool(struct lower *l, int node, struct err *err);
int lower_unary(struct lower *l, int node, struct err *err);
int lower_binary(struct lower *l, int node, struct err *err);
int lower_move(struct lower *l, int node, struct err *err);
int lower_alias(struct lower *l, int node, struct err *err);
int lower_quantize(struct lower *l, int node, struct err *err);
int lower_norm(struct lower *l, int node, struct err *err);
int lower_softmax(struct lower *l, int node, struct err *err);
int lower_lrn(struct lower *l, int node, struct err *err);
int lower_prelu(struct lower *l, int node, struct err *err);
int lower_resize(struct lower *l, int node, struct err *err);
