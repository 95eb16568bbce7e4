#pragma once
/* The stages that the profiler runs; see README.md in this folder for what each takes and gives. */
#include "shared/work/work.h"

/* The context of the handlers. */
struct profiler {
    double seconds; /* how long each network is measured */
};

/* StageTask -> ProfileResult: time of each layer of the original in each precision, conversions. */
int profiler_profile(struct work_task *task, struct work_output *out, struct err *err);
/* PriceTask -> PriceResult: time of pieces of designs in int8. */
int profiler_price(struct work_task *task, struct work_output *out, struct err *err);
/* MeasureTask -> MeasureResult: whole networks, interleaved. */
int profiler_measure(struct work_task *task, struct work_output *out, struct err *err);
