#include "shared/work/goal.h"

#include <math.h>
#include <stdio.h>

#include "shared/base/str.h"

#define USUAL_CONFIDENCE 0.95

bool goal_turned(const Hone__V1__JobSpec *spec)
{
    return spec->max_us > 0 || spec->max_bytes > 0;
}

double goal_cost(const Hone__V1__JobSpec *spec, double us, double bytes)
{
    if (!goal_turned(spec))
        return goal_small(spec) ? bytes : us;
    const double of_us = spec->max_us > 0 ? us / spec->max_us : 0;
    const double of_bytes = spec->max_bytes > 0 ? bytes / (double)spec->max_bytes : 0;
    return fmax(of_us, of_bytes);
}

bool goal_small(const Hone__V1__JobSpec *spec)
{
    return spec->objective == HONE__V1__OBJECTIVE__SIZE;
}

double goal_bytes(const job_network *network)
{
    return (double)(network->packed_bytes ? network->packed_bytes : network->bytes);
}

double goal_cost_of(const job_state *state, const job_network *network)
{
    /* For throughput too: all run with the same batch. */
    const Hone__V1__Timing *t = state_timing(network, "hone", NULL);
    return goal_cost(state->spec, t ? t->p50_us : INFINITY, goal_bytes(network));
}

bool goal_affordable(const Hone__V1__JobSpec *spec, double cost)
{
    return !goal_turned(spec) || cost <= 1;
}

double goal_confidence(const Hone__V1__JobSpec *spec)
{
    return spec->confidence > 0 ? spec->confidence : USUAL_CONFIDENCE;
}

/* Of [0.5, 1). */
static double quantile(double confidence)
{
    double low = 0, high = 9;
    for (int i = 0; i < 60; i++) {
        const double middle = (low + high) / 2;
        const bool below = 0.5 * erfc(-middle / sqrt(2)) < confidence;
        *(below ? &low : &high) = middle;
    }
    return low;
}

double goal_deviations(const Hone__V1__JobSpec *spec)
{
    return quantile(goal_confidence(spec));
}

double goal_deviations_among(const Hone__V1__JobSpec *spec, int finals)
{
    const double confidence = goal_confidence(spec);
    return confidence > 0.5 ? quantile(1 - (1 - confidence) / finals) : quantile(confidence);
}

double goal_bound(const Hone__V1__JobSpec *spec, double drop, double upper95)
{
    const Hone__V1__JobSpec usual = {.confidence = USUAL_CONFIDENCE};
    if (goal_confidence(spec) == USUAL_CONFIDENCE || !isfinite(drop))
        return upper95;
    const double share = goal_deviations(spec) / goal_deviations(&usual);
    return share > 1e-9 ? drop + share * (upper95 - drop) : drop; /* upper95 may be infinite */
}

bool goal_kept(const job_state *state, const job_network *network)
{
    const double bound =
        goal_bound(state->spec, network->drop_points, network->drop_upper95_points);
    return state_proved(network) && bound <= state->spec->max_drop &&
           goal_affordable(state->spec, goal_cost_of(state, network));
}

void goal_judge(job_state *state)
{
    for (size_t i = 0; i < state->n_finals; i++)
        state->finals[i]->within_limit = goal_kept(state, state->finals[i]);
}

double goal_value(const job_state *state, const job_network *network)
{
    if (!goal_turned(state->spec))
        return goal_cost_of(state, network);
    return network == state->baseline ? 0 : network->drop_upper95_points;
}

double goal_expected(const job_state *state, const job_network *network)
{
    double upper95;
    return goal_turned(state->spec) ? state_expected_drop(state, network, &upper95)
                                    : goal_cost_of(state, network);
}

const char *goal_text(const Hone__V1__JobSpec *spec, char text[GOAL_TEXT_BYTES])
{
    char drop[56] = "", us[24] = "", bytes[32] = "";
    const double confidence = goal_confidence(spec);
    if (spec->max_drop < GOAL_ANY_DROP || !goal_turned(spec))
        snprintf(drop, sizeof(drop), "%.2f points", spec->max_drop);
    if (*drop && confidence != USUAL_CONFIDENCE)
        snprintf(drop, sizeof(drop), "%.2f points (with %g %% confidence)", spec->max_drop,
                 100 * confidence);
    if (spec->max_us > 0)
        snprintf(us, sizeof(us), "%s%.6g %s", *drop ? " and " : "",
                 spec->max_us < 10000 ? spec->max_us : spec->max_us / 1000,
                 spec->max_us < 10000 ? "us" : "ms");
    if (spec->max_bytes > 0)
        str_bytes((double)spec->max_bytes, bytes);
    snprintf(text, GOAL_TEXT_BYTES, "within %s%s%s%s", drop, us,
             *bytes && (*drop || *us) ? " and " : "", bytes);
    return text;
}
