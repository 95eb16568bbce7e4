#pragma once
/* The "prepare" stage: from a user's files to artifacts that the other stages work on. */
#include <hone/v1/job.pb-c.h>

#include "shared/work/work.h"

/* StageTask{spec} -> StageTask with model, network, data, preprocess and baseline filled in; starts
 * exporter/calibrate. */
int ingest_prepare(struct work_task *task, struct work_output *out, struct err *err);
