#pragma once
/* Paths through the original and what its alternatives have learned become students. */
#include "shared/work/state.h"

/* Of a job that has a library from one that it refines: other limits may have other paths. Goes on
 * as the stage "join" does. */
int join_again(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
               struct err *err);

/* The first rung of those who are there and have not learned, with nobody beside them; of as many
 * as there is time for, the slowest first, since those hurt least. Where all have learned before:
 * race_next. */
int join_race(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
              double seconds, bool *ret_begun, struct err *err);
