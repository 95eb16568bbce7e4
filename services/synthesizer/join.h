#pragma once
/* Paths through the original and what its alternatives have learned become students. */
#include "shared/work/state.h"

/* Of a job that has a library from one that it refines: other limits may have other paths. Goes on
 * as the stage "join" does. */
int join_again(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
               struct err *err);
