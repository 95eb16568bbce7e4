#pragma once
/* The stages that the exporter runs; see README.md in this folder for what each takes and gives. */
#include <hone/v1/job.pb-c.h>

#include "shared/work/work.h"

/* StageTask -> the same with the ranges of activations; starts profiling, scoring, plain int8. */
int exporter_calibrate(struct work_task *task, struct work_output *out, struct err *err);
int exporter_after_calibrate(struct work_task *task, const Hone__V1__JobState *state,
                             struct work_output *out, struct err *err);
/* BuildTask -> BuildResult: one network as a QDQ file, scored on the search part. */
int exporter_build(struct work_task *task, struct work_output *out, struct err *err);
/* ProveTask -> ProveResult: one final network on the test part, by our kernels and ONNX Runtime. */
int exporter_prove(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of proofs and the last measurement (or a task with a state that has both): verdict,
 * files; ends the job or starts its redesign. */
int exporter_report(struct work_task *task, struct work_output *out, struct err *err);
