#pragma once
/* One network put into another. */
#include "shared/graph/graph.h"

/* The nodes of `part`, which has one input and one output, become nodes of g that read its value
 * `from` in place of that input; names in g begin with `prefix` then. Returns the value of g that
 * the part's output has become (`from` where the part hands its input on), or a negative code. Who
 * replaced another value by it (graph_replace_value) calls graph_compact, which restores the order
 * of nodes and removes what nobody reads any more. */
int graph_splice(struct graph *g, const struct graph *part, int from, const char *prefix,
                 struct err *err);
