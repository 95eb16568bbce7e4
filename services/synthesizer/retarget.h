#pragma once
/* A job that refines another one for other hardware: nothing that was measured there holds here,
 * but what was learned does. */
#include "shared/work/state.h"

bool retarget_wanted(const job_state *state);
/* What was measured goes. Students who learned are priced anew, then "retarget". */
int retarget_begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                   struct err *err);
