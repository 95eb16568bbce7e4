#pragma once
/*
 * From a network to a selection problem: cut points are nodes, alternatives are arcs.
 *
 * A node of the problem is a cut point together with the type in which its value is stored there
 * (f32, bf16 or u8). An arc keeps one block and gives each of its layers a precision; its cost is
 * the measured time of those layers plus the conversions that the mix needs, its score the sum of
 * the layers' KL. Where a small file is wanted the cost is bytes instead, as they were estimated
 * from the quantized weights of each layer. Alternatives that replace blocks or stages are more
 * arcs between the same nodes, one for each precision in which they can run: those of the job's
 * library, with the time of their layers (or their bytes) and the KL that they were measured to
 * have in the original.
 */
#include <hone/v1/job.pb-c.h>

#include "services/synthesizer/select.h"
#include "shared/graph/cuts.h"

struct arc_choice {
    int n;                   /* layers that are kept */
    const char **layers;     /* names */
    const char **precisions; /* "fp32", "bf16", "int8", "int6", ...: LayerChoice in job.proto */
    const Hone__V1__Library__Arc *instead; /* of layers: an alternative; NULL: none */
    const char *precision;                 /* of all its layers */
};

struct arcs {
    struct select_problem problem;
    struct arc_choice *choices; /* [problem.n_arcs] */
    bool exact;                 /* every combination of precisions in every block is an arc */
    double floor_us;            /* of a run, beside its layers; 0 where costs are bytes */
};

/* All in `arena`; the graph and the messages must outlive it. library: NULL for none. */
int arcs_build(const struct graph *g, const Hone__V1__Profile *profile,
               const Hone__V1__Scores *scores, const Hone__V1__Library *library, bool by_size,
               struct arena *arena, struct arcs *ret, struct err *err);

/* The precision of every layer along a path of the problem: choices merged, in network order. */
int arcs_path_choice(const struct arcs *arcs, const struct select_path *path, struct arena *arena,
                     struct arc_choice *ret, struct err *err);
/* The alternatives along a path, in network order; *ret in `arena`, returns how many or a negative
 * code. */
int arcs_path_alternatives(const struct arcs *arcs, const struct select_path *path,
                           struct arena *arena, const struct arc_choice ***ret, struct err *err);
/* In how many layers two choices (of the same network) differ. */
int arcs_distance(const struct arc_choice *a, const struct arc_choice *b);
