#include "services/synthesizer/rungs.h"

#include <math.h>
#include <stddef.h>

const struct rung_first *rungs_first(int enrolment, int way)
{
    static const struct rung_first ways[] = {
        {12, 5, 0.15}, {8, 4, 0.15}, {5, 4, 0.2}, {3, 4, 0.35}, {2, 2, 0.4}, {1, 2, 1},
    };
    static const struct rung_first again[] = {{8, 5, 0.15}, {4, 4, 0.15}, {3, 4, 0.2}, {2, 3, 0.2}};
    const struct rung_first *list = enrolment == 1 ? ways : again;
    const int n = (int)(enrolment == 1 ? sizeof(ways) : sizeof(again)) / (int)sizeof(*list);
    return way >= 0 && way < n ? &list[way] : NULL;
}

bool rungs_enrol_again(int enrolments, int newcomers)
{
    return enrolments < RUNGS_MOST_ENROLMENTS && newcomers >= RUNGS_ENROL_AGAIN;
}

int rungs_done(unsigned rung, unsigned enrolments)
{
    return (int)rung - (enrolments > 1 ? (int)enrolments - 1 : 0);
}

struct rung rungs_next(int done, int active, double seconds, double spent)
{
    const bool alone = active == 1 && !(seconds >= spent / 2);
    if (done >= RUNGS_MOST || active < 1 || alone || !(seconds > 0))
        return (struct rung){0};
    const bool last = done + 1 == RUNGS_MOST;
    const int keep = last          ? (active < RUNGS_MOST_FINALISTS ? active : RUNGS_MOST_FINALISTS)
                     : active >= 8 ? (active < 12 ? (active + 2) / 3 : 4)
                     : active >= 4 ? 2
                                   : 1;
    /* With nobody to be compared with, the rest of the time is its own. */
    return (struct rung){keep, last || keep == 1 ? seconds : seconds * 3 / 8};
}

int rungs_epochs(double seconds, const double *epoch_s, int n)
{
    double each = 0;
    for (int i = 0; i < n; i++)
        each += epoch_s[i];
    const double epochs = each > 0 ? floor(seconds / each) : 0;
    if (!(epochs >= RUNGS_LEAST_EPOCHS))
        return 0;
    return epochs < RUNGS_MOST_EPOCHS ? (int)epochs : RUNGS_MOST_EPOCHS;
}
