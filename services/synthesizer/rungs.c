#include "services/synthesizer/rungs.h"

#include <math.h>
#include <stddef.h>

const struct rung_first *rungs_first(int way)
{
    static const struct rung_first ways[] = {
        {12, 6, 0.2}, {8, 4, 0.2}, {5, 4, 0.25}, {3, 4, 0.35}, {2, 2, 0.4}, {1, 2, 1},
    };
    return way >= 0 && way < (int)(sizeof(ways) / sizeof(ways[0])) ? &ways[way] : NULL;
}

struct rung rungs_next(int done, int active, double seconds, double spent)
{
    const bool alone = active == 1 && !(seconds >= spent / 2);
    if (done >= RUNGS_MOST || active < 1 || alone || !(seconds > 0))
        return (struct rung){0};
    const bool last = done + 1 == RUNGS_MOST;
    const int keep = last          ? (active >= 4 ? 2 : 1)
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
