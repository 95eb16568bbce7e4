#pragma once
/* The race of a job's students: time, what to beat, rungs, the end. See README.md in this folder.
 */
#include "services/synthesizer/students.h"
#include "shared/work/goal.h"

/* The payload of its stages. */
int race_stage(struct work_task *task, Hone__V1__StageTask **ret, struct err *err);

/* Seconds that are left for training of any kind: the budget's, without what the end takes. */
int race_time(struct work_task *task, const job_state *state, double *ret_s, struct err *err);
/* Of those, the race's: where small networks are wanted, they learn on in their few bits after it.
 */
int race_seconds(struct work_task *task, const job_state *state, double *ret_s, struct err *err);
/* Takes down how much of the budget the end is to have. */
int race_keep_reserve(struct work_task *task, job_state *state, struct err *err);

/* Products a second in training (three for each of a forward pass), as measured last on any
 * trainer, or a guess. */
int race_rate(struct work_task *task, double *ret, struct err *err);
/* Takes down what this job measured, for jobs to come. */
int race_keep_rate(struct work_task *task, const job_state *state, struct err *err);

/* Costs (goal_cost): of a student as predicted, INFINITY where it has no price; of the cheapest
 * network that keeps the limits, a final or else the original; of the original. */
double race_cost(const job_state *state, const job_student *student);
/* Whether it may take part at that: on this target it can run, and no limit on costs excludes it.
 */
bool race_affordable(const job_state *state, const job_student *student);
double race_best_cost(const job_state *state);
double race_original_cost(const job_state *state);
/* The error on samples that were not learned from which the limit on the drop allows: the
 * original's on the test part, and the limit less what the bound on the drop will add and less
 * state_optimism: so it is held against errors on the search part. */
double race_error_limit(const job_state *state);
/* The error on such samples that is expected of the final within the limits that loses least; 1
 * where there is none. */
double race_best_error(const job_state *state);

/* The students that are still in it: pointers into the state; returns how many. */
size_t race_active(const job_state *state, job_student **ret);

/* Has all active students trained for `seconds` together, then "promote"; where some of them were
 * never trained, those alone. *ret_begun: whether that is enough for anything. */
int race_begin_rung(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                    double seconds, bool *ret_begun, struct err *err);

/* A rung is over, or there are only students who learned for a job before: who goes on? Has them
 * trained, then "promote". *ret_begun: whether there is a further rung. */
int race_next(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
              bool *ret_begun, struct err *err);

/* The end: the best of the last two rungs, and of those who learned for a job before, are built;
 * then the job goes on as with any candidates. */
int race_finish(struct work_output *out, Hone__V1__StageTask *stage, struct err *err);
/* Those of them who keep the limits, as far as is known, are asked to be built. */
int race_ask_known(struct work_output *out, job_state *state, struct err *err);
/* Before a race with students who learned for a job before: those who keep the limits are built;
 * the job goes on as with any candidates, to a first result. */
int race_resume(struct work_output *out, Hone__V1__StageTask *stage, struct err *err);
