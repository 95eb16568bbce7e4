#pragma once
/* A network as people see it: layers with their activations, and stages of equal resolution. What
 * only moves, names or quantizes is left out. */
#include "shared/base/mem.h"
#include "shared/graph/graph.h"

struct architecture_layer {
    const char *name;
    char operators[64]; /* "Conv + Relu" */
    char shape[64];     /* of one sample, as it leaves: "16 x 32 x 32" */
    int64_t macs;
};
struct architecture_stage {
    char size[48]; /* rows and columns: "32 x 32"; "answers" where there are none */
    int layers;
    int64_t channels; /* of the widest */
    int64_t macs;
};
struct architecture {
    int n_layers, n_stages;
    struct architecture_layer *layers;
    struct architecture_stage *stages; /* in order */
};

/* In `arena`. Negative: memory is out. */
int architecture_read(const struct graph *g, struct arena *arena, struct architecture *ret);
/* The stage of what the node yields; -1: none. */
int architecture_stage_of(const struct architecture *a, const struct graph *g,
                          const struct node *node);
