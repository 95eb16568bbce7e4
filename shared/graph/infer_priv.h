#pragma once
/* Shape inference: what its files share. Each rule reads the node's inputs, whose shapes are known,
 * and sets its outputs. */
#include "shared/graph/graph.h"
#include "shared/graph/graph_priv.h"
#include "shared/graph/infer.h"

enum { LIST_MAX = 2 * SHAPE_MAX_RANK };

/* A short list of integers from an attribute or a constant input. */
struct int_list {
    int n;
    bool given;
    int64_t v[LIST_MAX];
};
/* Reads the attribute, or else input i, whichever the node has. UNIMPLEMENTED when the input is no
 * constant. Either may be absent (attr NULL, i < 0). */
int infer_list(const struct graph *g, const struct node *node, const char *attr, int i,
               struct int_list *ret, struct err *err);

/* Shape of a given input. */
const struct shape *infer_shape_of(const struct graph *g, const struct node *node, int i);
/* Sets output i, when the node has it; checks the shape. */
int infer_set(struct graph *g, const struct node *node, int i, enum dtype dtype,
              const struct shape *shape, struct err *err);
/* As an axis in [0, rank): negative ones count from behind. */
int infer_axis(const struct node *node, int64_t axis, int rank, int *ret, struct err *err);
/* axes of the list, normalised, as flags; refuses duplicates. */
int infer_axes(const struct node *node, const struct int_list *list, int rank,
               bool ret[SHAPE_MAX_RANK], struct err *err);
/* Product of dimensions [from, to); DIM_BATCH when it is the batch alone, UNIMPLEMENTED when it is
 * a multiple of the batch. */
int infer_product(const struct node *node, const struct shape *s, int from, int to, int64_t *ret,
                  struct err *err);

/* infer_window.c */
int infer_conv(struct graph *g, const struct node *node, struct err *err);
int infer_conv_transpose(struct graph *g, const struct node *node, struct err *err);
int infer_pool(struct graph *g, const struct node *node, struct err *err);

/* infer_move.c: operators that only move elements */
int infer_concat(struct graph *g, const struct node *node, struct err *err);
int infer_expand(struct graph *g, const struct node *node, struct err *err);
int infer_flatten(struct graph *g, const struct node *node, struct err *err);
int infer_gather(struct graph *g, const struct node *node, struct err *err);
int infer_pad(struct graph *g, const struct node *node, struct err *err);
int infer_reshape(struct graph *g, const struct node *node, struct err *err);
int infer_slice(struct graph *g, const struct node *node, struct err *err);
int infer_split(struct graph *g, const struct node *node, struct err *err);
int infer_squeeze(struct graph *g, const struct node *node, struct err *err);
int infer_transpose(struct graph *g, const struct node *node, struct err *err);
int infer_unsqueeze(struct graph *g, const struct node *node, struct err *err);

/* infer_resize.c */
int infer_resize(struct graph *g, const struct node *node, struct err *err);
/* The scale that resizes `from` to `to`: the product, rounded down as above, is `to` exactly. */
float graph_scale_between(int64_t from, int64_t to);
