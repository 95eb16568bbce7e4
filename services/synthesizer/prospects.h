#pragma once
/* Who goes on: students by what they, and others beside them, are expected to be worth. */
#include "services/synthesizer/forecast.h"

struct prospect {
    job_student *student;
    size_t i; /* of the state's students */
    struct predicted reach;
    double error; /* expected */
    double worth; /* on average: the logarithm of the speed-up over the best network so far, 0 where
                     it does not keep the limits; where costs have a limit, the gain in accuracy */
};

/* Orders n prospects: the first *ret_n go on, in the order in which each adds most to the best of
 * all that do; the others follow by their worth. The time (seconds) goes to those who go on, in
 * equal parts. As many as `most`, or where they are the last (finals) as few of them as promise
 * most: of fewer each reaches more, of more one or the other keeps the limit. What goes wrong for
 * one is likely to go wrong for those that are like it: so the unlike stand beside them. */
int prospects_choose(const job_state *state, const struct forecast *forecast, double seconds,
                     int most, bool finals, struct prospect *list, int n, int *ret_n,
                     struct err *err);
