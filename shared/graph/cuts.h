#pragma once
/*
 * Cut points and blocks. A cut point is a value that separates everything before it from everything
 * after it (every path from an input to an output passes through it). Between two neighbouring cut
 * points lies a block: a residual block, a stem, a single layer, a head.
 */
#include "shared/graph/graph.h"

struct block {
    int from; /* value: the cut point before; -1: several network inputs */
    int to;   /* value: the cut point behind; -1: several network outputs */
    int n_nodes;
    int *nodes; /* node indices in order */
};

struct cuts {
    int n_points; /* = n_blocks + 1 when inputs and outputs are single */
    int *points;  /* value indices in order: the first is the input, the last the output */
    int n_blocks;
    struct block *blocks;
};
/* Allocated in `arena`. Linear time; the graph is compacted. Constant inputs do not count as paths:
 * nodes that only constants reach (dequantized weights) belong to the first block that reads them.
 */
int graph_cuts(const struct graph *g, struct arena *arena, struct cuts *ret, struct err *err);

/* The nodes of blocks [first, last] as a graph of its own, whose input is the cut point before and
 * whose output the one after (names, types, shapes and hints kept; weights copied). */
int graph_extract_blocks(const struct graph *g, const struct cuts *cuts, int first, int last,
                         struct graph **ret, struct err *err);

/* Cost of a node for one sample (batch 1): multiply-accumulates (Conv, ConvTranspose, Gemm, MatMul;
 * 0 for others), parameters and their bytes. */
struct cost {
    int64_t macs, parameters, bytes;
};
struct cost graph_node_cost(const struct graph *g, const struct node *node);
struct cost graph_cost(const struct graph *g); /* sum; a constant that is read twice counts once */
