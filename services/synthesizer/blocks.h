#pragma once
/*
 * Alternatives of a job's blocks and stages: priced, taught, scored (stages "redesign", "imitate"),
 * selected, assembled and enrolled among the students (stage "join"). See README.md in this folder.
 */
#include "services/synthesizer/library.h"

/* Whether that is to come before anything else of a redesign: the job asks for it, and it was not
 * tried. */
bool blocks_wanted(const Hone__V1__JobSpec *spec, const job_state *state);

/* Asks for the prices of all alternatives, then "imitate". A failure that lasts costs the
 * alternatives, not the job. */
int blocks_begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err);

/* Whether the job has no whole students beside them: it wants none, or they cannot stand in. */
int blocks_alone(struct work_task *task, const job_state *state, bool *ret, struct err *err);

/* The job goes on without: with whole students where it may have some, or to its end. */
int blocks_leave(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err);

/* ---- lessons: which arcs learn together, in one task ---- */

#define BLOCKS_SCORED 256 /* samples that each is scored on, as in the trainer */
#define BLOCKS_SMALL 2.0  /* small networks take so many times the time of their products */

/* Arcs [first, ret) of those that are still in the library, in its order: as many as share few
 * values and take bounded memory. Returns n_arcs at the end. Skips those that are out. */
size_t blocks_lesson(const job_library *library, size_t first);
/* Samples of a step: fewer where values are large. */
uint32_t blocks_batch(const job_library *library);
/* The batch, or a smaller one: where what learns together has so many numbers for each sample that
 * they would take too much memory, and where there are not as many samples (n). */
uint32_t blocks_batch_within(uint32_t batch, double values, uint64_t n);
