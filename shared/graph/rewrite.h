#pragma once
/*
 * One sweep of a pass over a graph, in linear time. The sweep visits nodes in order; where it
 * replaces a value, the alias is noted and applied to later nodes as they are visited and to all of
 * them at the end. Who reads a value is known from the sweep's start; where that changed, rules
 * that need to know wait for the next sweep. New nodes go to the end: the order is restored after
 * the sweep. Private to this floor.
 */
#include "shared/graph/graph.h"
#include "shared/graph/graph_priv.h"

struct rewrite {
    struct graph *g;
    struct arena *arena;
    struct uses uses;
    int n_values; /* at the start; later values have no aliases */
    int *alias;   /* -1: none */
    int *read_as; /* whose readers at the start are the value's readers now; -1: not known */
    bool *is_output;
    int changes;
};

/* A rule looks at node n, whose inputs are resolved, and changes the graph or not. Negative: error.
 */
typedef int rewrite_rule(struct rewrite *r, int n, struct err *err);

/* Sweeps with the rule until nothing changes, then compacts and infers. Returns the changes. */
int rewrite_run(struct graph *g, rewrite_rule *rule, struct err *err);

/* Readers of `from` read `to`. False, and nothing done, when that would lose the name of an input
 * or output of the network. */
bool rewrite_replace(struct rewrite *r, int from, int to);
/* As rewrite_replace, where the node that makes `from` was the only reader of `to`: it has the
 * readers of `from` now. */
bool rewrite_splice(struct rewrite *r, int from, int to);
/* The only reader of the value, as a node index, or -1. */
int rewrite_sole(const struct rewrite *r, int value);
/* Notes that the readers of the value change. */
void rewrite_touch(struct rewrite *r, int value);
/* The node that makes input i, when it is of this operator and yields nothing else; NULL else. */
struct node *rewrite_producer(const struct rewrite *r, const struct node *node, int i, enum op op);
