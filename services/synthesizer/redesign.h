#pragma once
/* The redesign of a network: students are priced, enrolled, trained in rungs, and built. */
#include "services/synthesizer/space.h"
#include "shared/work/state.h"

/* Whether this job goes on with a redesign once its precisions are proved: it is asked for,
 * students can stand in for the original, and the budget leaves time to train some. Otherwise a
 * decision says why not, and state->redesigned is set. */
int redesign_decide(struct work_task *task, job_state *state, struct err *err);

/* Asks what the pieces of a space cost, for at most so many seconds; and the answer, as the only
 * result of the task's group. */
int redesign_ask_prices(struct work_output *out, const job_state *state, const struct space *space,
                        double seconds, struct err *err);
int redesign_take_prices(struct work_task *task, struct space *space, struct err *err);

/* Asks what the pieces of students cost, then "enroll". */
int redesign_ask(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err);
