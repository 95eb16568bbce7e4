#pragma once
/* Shape and type inference, operator checks. */
#include "shared/graph/graph.h"

/* Infers dtype and shape of every value in order. Constant inputs that steer shapes (Reshape's
 * target, Slice's bounds, ...) must be constants by now, or UNIMPLEMENTED names the node. Shapes
 * that contradict each other or the declared ones: INVALID_ARGUMENT, naming the node. */
int graph_infer(struct graph *g, struct err *err);
/* Checks one node against its operator's definition in the node's opset: numbers of inputs and
 * outputs, attributes (known, of the right kind, required ones present). Needs no shapes. */
int graph_check_node(const struct graph *g, const struct node *node, struct err *err);
/* Infers one node's outputs from its inputs' shapes. */
int graph_infer_node(struct graph *g, const struct node *node, struct err *err);

/* Kernel geometry of Conv, ConvTranspose and the pools, with auto_pad resolved. 1 to 3 spatial
 * dimensions. */
struct window {
    int rank; /* spatial dimensions */
    int64_t kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
    int64_t in[3], out[3];
    int64_t output_pad[3]; /* ConvTranspose */
    int64_t group;
    bool ceil_mode, count_include_pad;
};
int graph_window(const struct graph *g, const struct node *node, struct window *ret,
                 struct err *err);

/* Turns a fixed batch (the first dimension of all inputs, which must agree) into DIM_BATCH, and
 * constants that repeat it (targets of Reshape, ends of Slice, ...) into what means "all of it".
 * Nothing to do where the batch is open already. UNIMPLEMENTED, with the reason, where the network
 * mixes samples or fixes the batch in another way; the graph is unchanged then. Indices of nodes
 * and values stay; pointers to them do not. */
int graph_make_batch_symbolic(struct graph *g, struct err *err);
/* Whether samples do not meet: a batch gives what its parts give, put together. (With DIM_BATCH as
 * the first dimension of all inputs and outputs, and nothing that runs over it.) */
bool graph_samples_apart(const struct graph *g);
