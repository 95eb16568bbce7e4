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

/* The first one. seconds: for all rungs together; epoch_s: of one epoch of a typical student; most:
 * students there are. */
struct rung rungs_first(double seconds, double epoch_s, int most);
/* The one after `done` rungs, of which `active` students came, with `seconds` left for all. */
struct rung rungs_next(int done, int active, double seconds);

/* Epochs for each of the students that are to share `seconds`: as many for all. epoch_s: of each.
 * 0: not even RUNGS_LEAST_EPOCHS are possible. */
#define RUNGS_LEAST_EPOCHS 2
#define RUNGS_MOST_EPOCHS 300
int rungs_epochs(double seconds, const double *epoch_s, int n);
