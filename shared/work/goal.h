#pragma once
/*
 * What a job asks of networks: which of them keep its limits, and which of two is better. There are
 * two kinds of jobs. Usually the drop has a limit, and the network that costs least is wanted: the
 * fastest, or the smallest for the objective size. A job with a limit on costs (max_us, max_bytes)
 * is turned round: the network that loses least within it is wanted; its limit on the drop holds
 * beside that, where it has one.
 */
#include "shared/work/state.h"

#define GOAL_ANY_DROP 100.0 /* points: a limit that everything keeps */
#define GOAL_TEXT_BYTES 128

/* Whether costs have a limit. */
bool goal_turned(const Hone__V1__JobSpec *spec);

/* Whether bytes are what is to be small: then networks are packed, and weights have fewer bits. */
bool goal_small(const Hone__V1__JobSpec *spec);
/* Bytes of a network's smallest file: packed, where it was. */
double goal_bytes(const job_network *network);

/* What a network of so many microseconds and bytes costs: of a job with limits on costs the share
 * of them that it uses (of two the larger; more than 1: it breaks one), else microseconds or, for
 * the objective size, bytes. */
double goal_cost(const Hone__V1__JobSpec *spec, double us, double bytes);
/* Of a network, as it was measured last; INFINITY where that did not succeed. */
double goal_cost_of(const job_state *state, const job_network *network);
/* Whether a cost is within the limits; any is where there are none. */
bool goal_affordable(const Hone__V1__JobSpec *spec, double cost);

/* How sure it must be that the drop is within its limit, one-sided: 0.95 unless the job says
 * otherwise; 0.5 asks for the point estimate. And the quantile of the normal distribution there. */
double goal_confidence(const Hone__V1__JobSpec *spec);
double goal_deviations(const Hone__V1__JobSpec *spec);
/* The quantile that each of so many finals has to keep where all bounds are to hold together. */
double goal_deviations_among(const Hone__V1__JobSpec *spec, int finals);
/* The bound at that confidence on a drop whose bound at 95 % is upper95, errors taken as normal. */
double goal_bound(const Hone__V1__JobSpec *spec, double drop, double upper95);

/* Whether a network keeps every limit: by the bound on its drop on the test part, where it was
 * proved, and its last measurement. */
bool goal_kept(const job_state *state, const job_network *network);
/* Notes that in each final. */
void goal_judge(job_state *state);

/* What is to be small among networks that keep the limits: the cost, or the bound on the drop where
 * the job is turned round (of the original 0). INFINITY where it is not known. */
double goal_value(const job_state *state, const job_network *network);
/* The same before the proof, by the drop that is expected (state_expected_drop). */
double goal_expected(const job_state *state, const job_network *network);

/* "within 1.00 points", "within 200 us and 300.0 KB": the limits, for people. */
const char *goal_text(const Hone__V1__JobSpec *spec, char text[GOAL_TEXT_BYTES]);
