#pragma once
/* Proposing candidates: the stage "select", and further rounds where nothing kept the limit. */
#include "shared/graph/graph.h"
#include "shared/work/state.h"

/* Proposes up to four networks that lose less than all candidates so far, for the case that none of
 * them keeps the limit: emits their builds and the stage "assemble". *ret_proposed is false, and
 * nothing is emitted, when there are none or the budget does not allow it. */
int propose_gentler(struct work_task *task, struct work_output *out, job_state *state,
                    bool *ret_proposed, struct err *err);

/* How many of something the budget allows (see budget.h); says so where that is fewer than there
 * could be. */
typedef int budget_fn(double elapsed_s, double left_s, int most);
int affordable(struct work_task *task, job_state *state, budget_fn *allows, int most,
               const char *what, int *ret, struct err *err);

/* An artifact as a graph, under the usual limits. */
int load_graph(struct work_task *task, const char *artifact, struct graph **ret, struct err *err);
