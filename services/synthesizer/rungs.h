#pragma once
/*
 * How the time for training is spent: successive halving. Many students are trained a little, the
 * most promising more, the best as long as there is time: the finals get half of it. Each rung is a
 * whole run, with a schedule that ends, so that what comes out of it could be shipped; the next one
 * goes on from its trunk (shared/train/README.md).
 */
#include <stdbool.h>

#define RUNGS_MOST 3

#define RUNGS_MOST_FINALISTS 3

struct rung {
    int students;   /* that it has; 0: there is none; of the last one as many at most */
    double seconds; /* of training, in all */
};

/* Ways to begin, by falling ambition: students, and which share of all training time they get
 * together. A way is possible when each of them can have `epochs` in it. Students are enrolled
 * twice where there is time: once knowing little, once knowing what those reached. */
struct rung_first {
    int students, epochs;
    double share;
};
#define RUNGS_MOST_STUDENTS 12 /* of any way */
/* enrolment: 1, 2. NULL behind the last. */
const struct rung_first *rungs_first(int enrolment, int way);
/* Whether others are to be enrolled after so many enrolments, the last with so many students. */
#define RUNGS_MOST_ENROLMENTS 2
#define RUNGS_ENROL_AGAIN 5 /* students of the first enrolment: fewer had little time */
bool rungs_enrol_again(int enrolments, int newcomers);
/* Rungs that are done of RUNGS_MOST: those in which the first learned for the first time are one.
 */
int rungs_done(unsigned rung, unsigned enrolments);
/* The one after `done` rungs, of which `active` students came, with `seconds` left for all. spent:
 * on the student of them that had most so far: when only one is left it goes on where at least half
 * as much again is to be had. */
struct rung rungs_next(int done, int active, double seconds, double spent);

/* Epochs for each of the students that are to share `seconds`: as many for all. epoch_s: of each.
 * 0: not even RUNGS_LEAST_EPOCHS are possible. */
#define RUNGS_LEAST_EPOCHS 2
#define RUNGS_MOST_EPOCHS 300
int rungs_epochs(double seconds, const double *epoch_s, int n);
