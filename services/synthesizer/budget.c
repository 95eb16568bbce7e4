#include "services/synthesizer/budget.h"

/*
 * Seconds that a step takes: a fixed part, which measuring takes whatever the network, and a share
 * of the time that the job took until then, which grows with the network and its data. From jobs on
 * ResNet-20 and ResNet-56 with two cores, where the steps to come took no longer than this.
 */
struct estimate {
    double seconds, share;
};
static const struct estimate last_steps = {16, 0.4}; /* measure, prove one network, report */
static const struct estimate one_candidate = {2, 0.15};
static const struct estimate last_measurement = {8, 0};
static const struct estimate one_final = {4, 0.15};

static double cost(struct estimate e, double elapsed_s)
{
    return e.seconds + e.share * elapsed_s;
}

static int fitting(double left_s, double each_s, int least, int most)
{
    if (!(left_s > each_s * least)) /* what is over already, too */
        return least;
    return left_s >= each_s * most ? most : (int)(left_s / each_s);
}

int budget_candidates(double elapsed_s, double left_s, int most)
{
    return fitting(left_s - cost(last_steps, elapsed_s), cost(one_candidate, elapsed_s), 0, most);
}

int budget_finals(double elapsed_s, double left_s, int most)
{
    return fitting(left_s - cost(last_measurement, elapsed_s), cost(one_final, elapsed_s), 1, most);
}
