#pragma once
/* Who is to begin: students of the space that are likely to be the best in the end, as far as what
 * others reached tells. */
#include "services/synthesizer/forecast.h"

/* One that has learned already, when it has learned as much as the best is to get. */
struct enrol_known {
    double cost;
    struct predict_point at;
};
#define ENROL_MOST_KNOWN 256 /* that count */

struct enrolment {
    bool turned;                  /* costs have a limit, the least error is wanted (goal.h) */
    double most_cost, least_cost; /* of those who may begin */
    double best_cost;             /* of the best network so far, at least most_cost */
    double error_limit;           /* that the network is to keep */
    double samples_macs;          /* samples seen times products of one, that the best is to get */
    uint64_t seed;
    int n_known; /* whoever begins now has to be better than these turn out to be */
    const struct enrol_known *known;
};

/* Whether to try the one as well as the other would tell little. */
bool enrol_alike(const double a_traits[PREDICT_TRAITS], double a_cost,
                 const double b_traits[PREDICT_TRAITS], double b_cost);

/* Whether a student of so many products can see enough in the time there is. */
bool enrol_timely(const struct enrolment *e, double macs, double n_train);

/* Up to `most`, most worth trying first: indices into the space; returns how many. One after the
 * other whoever adds most to what the best of those before is expected to be worth, over draws of
 * what may be (predict_draw); who is much like another is left out. */
int enrol_choose(const struct forecast *forecast, const struct space *space,
                 const struct enrolment *enrolment, int most, int *ret, struct err *err);
