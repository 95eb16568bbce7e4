#pragma once
/* A job that refines another one: who takes part again, and what that saves. */
#include "services/synthesizer/students.h"

/* Whoever learned takes part again, but for those whom the limits exclude now. Who was given up
 * without having learned stays out. */
int refine_admit(job_state *state, job_student *student, struct err *err);
/* Counts what was saved: a decision and the event "refines" say so. */
int refine_tell(struct work_task *task, job_state *state, struct err *err);
