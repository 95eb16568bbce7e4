#include "services/synthesizer/rungs.h"

#include <math.h>

/* The first rung by the time that there is, in epochs of one student; with few students the race
 * is over sooner. */
static const struct first {
    double epochs;
    int students;
    double share;
} firsts[] = {{1200, 12, 0.2}, {240, 8, 0.2}, {80, 5, 0.2}, {24, 3, 0.35}, {4, 1, 1}};

struct rung rungs_first(double seconds, double epoch_s, int most)
{
    const double epochs = epoch_s > 0 ? seconds / epoch_s : 0;
    for (unsigned i = 0; most > 0 && i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        if (!(epochs >= firsts[i].epochs))
            continue;
        const int n = firsts[i].students < most ? firsts[i].students : most;
        return (struct rung){n, seconds * (n > 1 ? firsts[i].share : 1)};
    }
    return (struct rung){0};
}

struct rung rungs_next(int done, int active, double seconds)
{
    if (done >= RUNGS_MOST || active < 2 || !(seconds > 0)) /* one alone had all of the time */
        return (struct rung){0};
    const bool last = done + 1 == RUNGS_MOST;
    const int keep = last          ? (active >= 4 ? 2 : 1)
                     : active >= 8 ? (active + 2) / 3
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
