#pragma once
/*
 * Paths through the original and its library: selected exactly over structure and precision
 * (arcs.h), and assembled.
 */
#include "services/synthesizer/arcs.h"
#include "services/synthesizer/library.h"

struct path {
    int n; /* alternatives on it, in network order */
    const struct arc_choice **alternatives;
    struct arc_choice kept; /* layers of the original that stay, with their precisions */
    double us, kl;          /* of the whole */
    double cost;            /* us, or bytes where a small file is wanted */
};

/* Of the paths with an alternative that cost at most most_cost (us, or bytes: by_size), those that
 * hurt least at falling costs, different enough from each other: at most `most`, the most expensive
 * first. All in `arena`; the rest must outlive it. *ret_front: how many there were to choose from,
 * of how many arcs; *ret_exact: whether the selection was. */
struct paths_found {
    int n_front, n_arcs;
    bool exact;
};
int paths_select(const struct library_parts *parts, const Hone__V1__Scores *scores,
                 const job_library *library, bool by_size, double most_cost, int most,
                 struct arena *arena, struct path *ret, int *ret_n, struct paths_found *ret_found,
                 struct err *err);

/* "1-4 5-8=keep:2 9=identity 10-28": the path's units, from 1; malloc'ed, NULL: memory is out. */
char *paths_text(const struct path *path, int n_units);

/* What the names of an alternative's nodes begin with in an assembled network: "5-8.". */
#define PATHS_PREFIX_BYTES 32
const char *paths_prefix(const job_arc *arc, char text[PATHS_PREFIX_BYTES]);

/* The original with the path's alternatives in their places, as they learned. FAILED_PRECONDITION
 * where one cannot stand there: where nothing is left between input and output. */
int paths_assemble(struct work_task *task, const struct library_parts *parts,
                   const struct path *path, struct graph **ret, struct err *err);
