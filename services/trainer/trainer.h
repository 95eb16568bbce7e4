#pragma once
/* The tasks that the trainer runs; see README.md in this folder for what each takes and gives. */
#include "shared/work/work.h"

/* StageTask -> ScoreResult: how much it hurts to lower the precision of each layer alone. */
int trainer_score(struct work_task *task, struct work_output *out, struct err *err);
