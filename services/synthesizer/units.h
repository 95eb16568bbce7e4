#pragma once
/*
 * The parts of a network that alternatives replace. A unit is a run of blocks (shared/graph/cuts.h)
 * with layers: a residual block with the Relu behind it, a convolution with its activation, the
 * head with its pool. Cut points between two units are where an alternative may begin and end.
 */
#include "shared/graph/cuts.h"

struct unit {
    int first, last; /* blocks */
    int from, to;    /* values: cut points of the network; -1: there is no single one */
    int layers;      /* with products */
    int64_t macs;    /* of one sample */
};

struct units {
    struct cuts cuts;
    int n;
    struct unit *units;
};

/* All in `arena`; the graph is compacted and inferred. */
int units_find(const struct graph *g, struct arena *arena, struct units *ret, struct err *err);

/* Whether what unit a reads and what unit b yields have the same type and shape. */
bool units_keep_shape(const struct graph *g, const struct units *units, int a, int b);
/* Whether two units are the same but for their numbers. */
bool units_alike(const struct graph *g, const struct units *units, int a, int b);

/* Units first to last as a network of their own, the batch open. */
int units_extract(const struct graph *g, const struct units *units, int first, int last,
                  struct graph **ret, struct err *err);
