#pragma once
/* The redesign of a network: students are priced, enrolled, trained in rungs, and built. */
#include "shared/work/state.h"

/* Whether this job goes on with a redesign once its precisions are proved: it is asked for,
 * students can stand in for the original, and the budget leaves time to train some. Otherwise a
 * decision says why not, and state->redesigned is set. */
int redesign_decide(struct work_task *task, job_state *state, struct err *err);

/* Asks what the pieces of students cost, then "enroll". */
int redesign_ask(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err);
