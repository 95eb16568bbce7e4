#pragma once
/* Reading and growing a JobState (proto/hone/v1/job.proto): what the stages of a job share. */
#include <hone/v1/job.pb-c.h>
#include <hone/v1/tasks.pb-c.h>

#include "shared/work/message.h"
#include "shared/work/work.h"

typedef Hone__V1__JobState job_state;
typedef Hone__V1__Network job_network;

/* The timing of a network by an engine ("hone", "onnxruntime") in a precision (NULL: any); the last
 * one added wins; NULL when there is none, or it failed. */
const Hone__V1__Timing *state_timing(const job_network *network, const char *engine,
                                     const char *precision);
/* The accuracy on a part ("search", "test") by an engine; NULL when there is none. */
const Hone__V1__Accuracy *state_accuracy(const job_network *network, const char *part,
                                         const char *engine);
/* Adds a clone of the timing. */
int state_add_timing(job_network *network, const Hone__V1__Timing *timing, struct err *err);
/* Adds a clone of the accuracy. */
int state_add_accuracy(job_network *network, const Hone__V1__Accuracy *accuracy, struct err *err);
/* Whether a job may change this: "precision", "students", "blocks". Who says nothing means the
 * first two: what blocks earn beside students has not been measured. */
#define SPEC_USUAL_SPACE "precision,students"
bool spec_space_has(const Hone__V1__JobSpec *spec, const char *what);
/* Whether it leaves this out, for ablations: "teacher", "cache", "race". */
bool spec_without(const Hone__V1__JobSpec *spec, const char *what);

/* By how much the accuracy on the search part of those who learned from the original is above what
 * they will have on the test part, as a fraction: the original usually learned the search part by
 * heart, and hands some of that on with its answers about the training part. A share of how much
 * better it is there itself. */
double state_optimism(const job_state *state);

/* What the network is expected to lose on the test part, in points, before that is opened; the
 * upper end of the one-sided 95 % interval is in ret_upper95. INFINITY where nothing is known.
 *
 * A network of the original's architecture is compared with it sample by sample on the search part.
 * One that was trained (it has a design) never saw the search part, on which the original usually
 * learned: where there are labels, its value there, less state_optimism, is set against the
 * original's on the test part, as two independent proportions (normal approximation). */
double state_expected_drop(const job_state *state, const job_network *network, double *ret_upper95);
/* Whether it was scored on the test part. */
bool state_proved(const job_network *network);
/* Adds a sentence to the decisions that the manifest lists. */
int state_decide(job_state *state, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* "profiler:TARGET" of the job; malloc'ed. */
char *state_profiler_queue(const job_state *state);

/* Adds an item to a measurement. */
int state_measure_item(Hone__V1__MeasureTask *measure, const job_network *network,
                       const char *engine, const char *precision, struct err *err);

/* Samples a second of runs of so many microseconds; 0 where the job does not ask for throughput. */
double state_images_per_s(const job_state *state, double us);

/* Says to watchers which network is the best so far: "best" event. `us`: its latency;
 * `baseline_us`: the original's on the same kernels. Without a drop where there is none to speak of
 * (state_expected_drop). */
int state_best_event(struct work_task *task, const job_state *state, const job_network *network,
                     double us, double baseline_us, bool verified, struct err *err);

/* What was asked for, as submitted: payloads leave out what must not part equal jobs (budget_s,
 * space). *ret is a message. */
int state_asked(struct work_task *task, Hone__V1__JobSpec **ret, struct err *err);

/* Seconds since the job was submitted, without those in which Hone was down, and what is left of
 * its budget: INFINITY without one, below 0 when it is over. The answer differs from one run to the
 * next: kinds that ask are not remembered. */
int state_time(struct work_task *task, double *ret_elapsed_s, double *ret_left_s, struct err *err);

/* The failure of group member i, as an error of this task: "what: reason". */
int state_group_failed(const struct work_task *task, int i, const char *what, struct err *err);
