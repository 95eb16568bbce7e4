#pragma once
/* The tasks that the trainer runs; see README.md in this folder for what each takes and gives. */
#include "shared/work/work.h"

/* The context of the handlers. */
struct trainer {
    double checkpoint_seconds; /* how much of a training run a killed process may lose */
};

/* StageTask -> ScoreResult: how much it hurts to lower the precision of each layer alone. */
int trainer_score(struct work_task *task, struct work_output *out, struct err *err);
/* TrainTask -> TrainResult: a network learns, from labels or from a teacher. */
int trainer_train(struct work_task *task, struct work_output *out, struct err *err);
/* ImitateTask -> ImitateResult: alternatives learn from the original's values, and are scored. */
int trainer_imitate(struct work_task *task, struct work_output *out, struct err *err);
/* TeachTask -> TeachResult: a teacher's answers for students. */
int trainer_teach(struct work_task *task, struct work_output *out, struct err *err);
