#pragma once
/*
 * Selection: the K best constrained shortest paths.
 *
 * Nodes are numbered in topological order; every arc leads from a lower to a higher number and has
 * a cost (microseconds) and a score (how much it hurts; both finite and >= 0, both additive along a
 * path). A path leads from `source` to `sink`.
 *
 * Method: label setting in topological order (Irnich and Desaulniers, "Shortest path problems with
 * resource constraints", 2005). A label is dropped when at least K others at its node are no worse
 * in cost and in score: whatever completes it would complete those, too, so the K best paths under
 * every limit on the score survive. The result is exact, unless `exact` says otherwise: beyond
 * max_labels a node keeps the labels that are spread best over the scores.
 */
#include <stdbool.h>
#include <stdint.h>

#include "shared/base/err.h"
#include "shared/base/mem.h"

struct select_arc {
    int from, to;
    double cost, score;
};

struct select_problem {
    int n_nodes, source, sink;
    int n_arcs;
    const struct select_arc *arcs;
};

struct select_options {
    int k;            /* paths under each limit; 0: 1 */
    double max_score; /* labels above are dropped; < 0: no limit */
    int max_labels;   /* at one node; 0: 20,000 */
};

struct select_path {
    double cost, score;
    int n_arcs;
    int *arcs; /* indices into the problem's arcs, from source to sink */
};

struct select_front {
    int n_paths;
    struct select_path *paths; /* by cost; no path has k others that are better in both */
    bool exact;
};

/* All in `arena`. No path at all: n_paths = 0. Arcs that break the rules: INVALID_ARGUMENT. */
int select_front(const struct select_problem *problem, const struct select_options *options,
                 struct arena *arena, struct select_front *ret, struct err *err);

/* The k cheapest paths of the front whose score is within the limit: indices into front->paths,
 * returns how many. */
int select_best(const struct select_front *front, double max_score, int k, int *ret);
/* The path of least score whose cost is within the limit, the cheaper of two; -1: none is. */
int select_gentlest(const struct select_front *front, double max_cost);
