#pragma once
/*
 * Paths of networks whose answers are no classes (dense maps): there are no logits to learn from,
 * so each learns as a whole what the alternatives learned in part, to yield what the original
 * yields, and how often it agrees with the original stands for its accuracy. Nobody races: all
 * learn for as long as there is time, and the best are built.
 */
#include "services/synthesizer/students.h"

/* Whether the network is one of these. */
int whole_needed(struct work_task *task, const job_state *state, bool *ret, struct err *err);

/* Has the students learn, then "settle". *ret_begun: whether there is time for it, and one output.
 */
int whole_begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                bool *ret_begun, struct err *err);
