#pragma once
/* The learning rate over a run. A pure function of the step, so that a run that is resumed needs to
 * know nothing but where it is. */
#include <stdint.h>

#include "shared/base/err.h"

enum schedule_kind {
    SCHEDULE_COSINE,    /* up in a line, down in half a cosine */
    SCHEDULE_ONE_CYCLE, /* up in a line, down in a line */
    SCHEDULE_STEP,      /* a tenth from one half on, a hundredth from three quarters on */
    SCHEDULE_CONSTANT,
    SCHEDULE_TRAPEZOID, /* up in a line, level, down in a line. Who is to learn more later goes on
                           from the weights at the end of the level, and loses only the way down
                           (Haegele and others 2024, arXiv 2405.18392) */
};
/* "cosine", "one-cycle", "step", "constant", "trapezoid" */
const char *schedule_name(enum schedule_kind kind);
int schedule_parse(const char *text, enum schedule_kind *ret, struct err *err);

struct schedule {
    enum schedule_kind kind;
    double rate;       /* the peak */
    double warmup;     /* share of the steps on the way up, below 1 */
    double start, end; /* where it begins and ends, as shares of the peak */
    double down;       /* trapezoid: share of the steps on the way down */
};
/* The usual shape of each kind: cosine 5 % up from 0.1, to 0; one-cycle 23 % up from 0.2, to 0.07
 * (airbench's); step and constant 2 % up from 0.1; trapezoid 10 % up from 0.2, 40 % down to 0.07.
 */
#define SCHEDULE_DOWN 0.4 /* of a trapezoid */
struct schedule schedule_make(enum schedule_kind kind, double rate);
/* Rate of step 0 <= step < total. */
double schedule_rate(const struct schedule *s, int64_t step, int64_t total);
/* The step with which a trapezoid's way down begins, the last one at the latest; `total` for the
 * other kinds. */
int64_t schedule_level_end(const struct schedule *s, int64_t total);
