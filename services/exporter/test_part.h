#pragma once
/* The test part: when it was opened and for whom, and what its bounds are worth together. */
#include "shared/work/state.h"

/* Every opening of the test part that is on record, with the one that these finals and plain int8
 * were scored in where that is new: those of this job, after those of the job that it refines. A
 * message; only its openings count. */
int test_part_openings(struct work_task *task, const job_state *state, Hone__V1__JobRecord **ret,
                       struct err *err);

/* Bounds on the drops of all finals at the job's confidence, such that none of them is wrong about
 * the limit (infer_drop_bounds); with a limit on costs, where the least of them decides, such that
 * all hold. A confidence of 0.5 goes by the estimates. Notes in each final whether it keeps every
 * limit, as goal_judge does with each alone. */
int test_part_judge(job_state *state, struct err *err);
