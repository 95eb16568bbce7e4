#pragma once
/* What calibration and building share: the network and the samples that a job names. */
#include <hone/v1/tasks.pb-c.h>

#include "shared/data/preprocess.h"
#include "shared/train/lowering.h"
#include "shared/work/state.h"

/* A network from the store. */
int build_read_network(struct work_task *task, const char *artifact, struct graph **ret,
                       struct err *err);

/* Samples of one part as the network sees them. */
struct build_samples {
    struct dataset *ds;
    struct sample_view view;
};
/* n = 0: all of the part; else a stratified subset by the job's seed. */
int build_open_samples(struct work_task *task, const job_state *state, enum part part, int64_t n,
                       struct build_samples *ret, struct err *err);
void build_samples_release(struct build_samples *samples); /* for _cleanup_ */

/* The ranges of the network's activations, on LOWERING_SAMPLES of the training part. `stage` is
 * what progress is reported under. */
int build_calibrate(struct work_task *task, const job_state *state, const struct graph *g,
                    const char *stage, struct quant_ranges *ret, struct err *err);

/* Bits of weights: 7 where sums of two 8-bit products saturate 16 bits, on the job's target or on
 * this machine, which corrects and scores the network. */
int build_weight_bits(const job_state *state);

/* For infer_options: reports as work_progress of the task in `stage`. */
struct build_progress {
    struct work_task *task;
    const char *stage;
};
int build_on_progress(void *ctx, int64_t done, int64_t total, struct err *err);
