#pragma once
/* The "prepare" stage: from a user's files to artifacts that the other stages work on. */
#include <hone/v1/job.pb-c.h>

#include "shared/graph/graph.h"
#include "shared/work/work.h"

/* StageTask{spec} -> StageTask with model, network, data, preprocess and baseline filled in; starts
 * exporter/calibrate. */
int ingest_prepare(struct work_task *task, struct work_output *out, struct err *err);

/* Reads, checks and stores the model that state->spec names: fills model, network and baseline (but
 * for what it answers). *ret is the simplified network, the batch symbolic where that is possible;
 * the caller's. Failures that lie in the file are permanent. */
int ingest_prepare_model(struct work_task *task, Hone__V1__JobState *state, struct graph **ret,
                         struct err *err);
