#pragma once
/*
 * Folding: nodes that compute constants become constants. With `symbols`, integer tensors that hold
 * the symbolic batch size N are followed, too: each element is a * N + b, kept as two tensors, and
 * operators that are linear in them are run on both. Private to this floor.
 */
#include "shared/graph/graph.h"

struct fold {
    struct graph *g;
    bool symbols;
    int64_t max_elements; /* of all constants that are still to be made */
    int64_t max_work;     /* and elements that may still be read, made, multiplied */
    int n_symbolic;       /* length of `symbolic` */
    struct symbolic *symbolic;
    int folded; /* nodes so far */
};

/* A value with elements a[i] * N + b[i]. NULL: not symbolic. */
struct symbolic {
    struct tensor *a, *b;
};

int fold_begin(struct fold *fold, struct graph *g, bool symbols, int64_t max_elements,
               struct err *err);
void fold_release(struct fold *fold); /* for _cleanup_ */

/* Where the node reads a symbolic value that decides about its shape (Reshape's target, Slice's
 * ends, Resize's sizes), puts a constant in its place that means the same. */
int fold_symbols_in(struct fold *fold, struct node *node, struct err *err);

/* Folds an inferred node whose inputs are constant or symbolic. The node is dead afterwards, or
 * unread and left to graph_compact. Returns 1 if so, 0 if the node stays. */
int fold_node(struct fold *fold, int node, struct err *err);
