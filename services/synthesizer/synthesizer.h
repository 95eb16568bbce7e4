#pragma once
/* The stages that the synthesizer runs; see README.md in this folder for what each takes and gives.
 */
#include "shared/work/work.h"

/* Continuation of {profile, score, build plain int8}: proposes candidates. */
int synthesizer_select(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of the builds of students that are to be small: has those in the fewest bits learn
 * on in them, as long as there is time; then "tuned", or what "assemble" does. */
int synthesizer_tune(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of that: has what they learned scored, then "assemble". */
int synthesizer_tuned(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of the candidates' builds: has them measured beside the original. */
int synthesizer_assemble(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of that measurement: picks the finals, has them proved and measured again. */
int synthesizer_choose(struct work_task *task, struct work_output *out, struct err *err);

/* First task of a job that refines another one: goes on where that one stood. */
int synthesizer_refine(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of the prices of students who learned for other hardware: then all begins anew. */
int synthesizer_retarget(struct work_task *task, struct work_output *out, struct err *err);
/* Where the job redesigns: has alternatives of blocks priced, or then the pieces of students. */
int synthesizer_redesign(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of the prices of alternatives: has those taught that are faster. */
int synthesizer_imitate(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of that: selects paths, which become students. */
int synthesizer_join(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of a lesson of whole networks: the best are built, then "assemble". */
int synthesizer_settle(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of the prices: enrols students and begins the first rung. */
int synthesizer_enroll(struct work_task *task, struct work_output *out, struct err *err);
/* Continuation of a rung: who goes on; after the last, the best are built, then "assemble". */
int synthesizer_promote(struct work_task *task, struct work_output *out, struct err *err);
