#pragma once
/* Steps that several stages share: candidates come in, candidates are measured. */
#include "shared/work/state.h"
#include "shared/work/work.h"

#include <hone/v1/tasks.pb-c.h>

/* The group's results are builds: they become candidates, failures decisions. */
int stages_take_builds(struct work_task *task, job_state *state, struct err *err);
/* Has all that were not measured yet measured beside the original, then "choose". */
int stages_measure(struct work_output *out, Hone__V1__StageTask *stage, struct err *err);
