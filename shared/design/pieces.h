#pragma once
/*
 * Types of pieces. Private to this floor. A new type is one file with one `struct piece_type`, and
 * its line in PIECE_TYPES.
 *
 * build() appends the piece to the network with the functions below, which keep shape and value
 * together. The same functions, without a graph, only follow shapes and count weights: so shapes
 * and limits are known before anything is made, from the same lines.
 */
#include "shared/base/rng.h"
#include "shared/design/design.h"

#define PIECE_TYPES(X)                                                                             \
    X(conv)                                                                                        \
    X(patch)                                                                                       \
    X(residual)                                                                                    \
    X(bottleneck)                                                                                  \
    X(rep)                                                                                         \
    X(separable)                                                                                   \
    X(head)

/* A value and its shape [N, channels, height, width]. */
struct flow {
    int value;
    int64_t channels, height, width;
};

/* A network while it grows. */
struct pieces {
    struct graph *g; /* NULL: shapes and numbers only */
    struct rng rng;
    bool bare;      /* as design_ends.bare */
    struct flow at; /* what the next piece reads */
    int64_t outputs;
    int64_t parameters; /* so far */
    const char *name;   /* of the piece: what its nodes' names begin with */
};

enum piece_option {
    PIECE_WIDTH = 1,
    PIECE_STRIDE = 2,
    PIECE_KERNEL = 4,
    PIECE_EXPAND = 8,
    PIECE_POOL = 16,
    PIECE_ATTENTION = 32,
};

struct piece_type {
    const char *name;
    const char *summary;            /* one line for people */
    unsigned options;               /* that it knows: enum piece_option */
    bool head;                      /* ends networks */
    int usual_kernel, usual_expand; /* 0: it has no such option */
    /* Appends the piece to the network: from p->at to p->at. */
    int (*build)(const struct piece *piece, struct pieces *p, struct err *err);
};

const struct piece_type *piece_type_find(const char *name); /* NULL: unknown */

/* What a piece says, or what is usual. */
int64_t piece_width(const struct piece *piece, const struct pieces *p);
int piece_kernel(const struct piece *piece);
int piece_expand(const struct piece *piece);

/* A convolution, normally padded so that a stride of 1 keeps height and width. */
struct piece_conv {
    int64_t width; /* of a depthwise one: as many as it reads */
    int kernel;
    int stride; /* 0: 1 */
    bool unpadded, depthwise, bias;
};

/* Each appends a node that reads *x, and *x is what comes out then. FAILED_PRECONDITION where it
 * does not fit. */
int piece_conv(struct pieces *p, struct flow *x, const struct piece_conv *conv, struct err *err);
int piece_norm(struct pieces *p, struct flow *x, struct err *err);
int piece_relu(struct pieces *p, struct flow *x, struct err *err);
int piece_max_pool(struct pieces *p, struct flow *x, int side, struct err *err);
int piece_global_pool(struct pieces *p, struct flow *x, bool most, struct err *err);
int piece_hard_sigmoid(struct pieces *p, struct flow *x,
                       struct err *err); /* max(0, min(1, x/6 + 1/2)) */
/* Flatten and Gemm with a bias: to p->outputs x 1 x 1. */
int piece_answers(struct pieces *p, struct flow *x, struct err *err);
/* Add, or Mul where `other` is one number for each channel. */
int piece_add(struct pieces *p, struct flow *x, const struct flow *other, struct err *err);
int piece_scale(struct pieces *p, struct flow *x, const struct flow *other, struct err *err);

/* Convolution and norm; and a Relu behind. */
int piece_conv_norm(struct pieces *p, struct flow *x, const struct piece_conv *conv,
                    struct err *err);
int piece_conv_norm_relu(struct pieces *p, struct flow *x, const struct piece_conv *conv,
                         struct err *err);
/* What a residual branch is added to: *x itself, or a 1x1 convolution with a norm where width or
 * stride change. */
int piece_shortcut(struct pieces *p, struct flow *x, int64_t width, int stride, struct err *err);
