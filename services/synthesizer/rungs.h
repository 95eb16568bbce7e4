#pragma once
/*
 * How the time for training is spent: successive halving. Many students are trained a little, the
 * most promising more, the best as long as there is time: the finals get half of it. Each rung is a
 * whole run, with a schedule that ends, so that what comes out of it could be shipped; the next one
 * begins with its weights.
 */
#include <stdbool.h>

#define RUNGS_MOST 3

struct rung {
    int students;   /* that it has; 0: there is none */
    double seconds; /* of training, in all */
};

/* Ways to begin, by falling ambition: students, and which share of all training time they get
 * together. A way is possible when each of them can have `epochs` in it. */
struct rung_first {
    int students, epochs;
    double share;
};
/* NULL behind the last. */
const struct rung_first *rungs_first(int way);
/* The one after `done` rungs, of which `active` students came, with `seconds` left for all. spent:
 * on the student of them that had most so far: when only one is left it goes on where at least half
 * as much again is to be had. */
struct rung rungs_next(int done, int active, double seconds, double spent);

/* Epochs for each of the students that are to share `seconds`: as many for all. epoch_s: of each.
 * 0: not even RUNGS_LEAST_EPOCHS are possible. */
#define RUNGS_LEAST_EPOCHS 2
#define RUNGS_MOST_EPOCHS 300
int rungs_epochs(double seconds, const double *epoch_s, int n);
