#pragma once
/*
 * Students in the state of a job: designed, trained in rungs, given up or kept. What is asked of
 * whom, and what came of it; when, is said in redesign.c.
 */
#include "services/synthesizer/rungs.h"
#include "services/synthesizer/space.h"
#include "shared/work/state.h"

typedef Hone__V1__Student job_student;

/* What the original reads and yields. FAILED_PRECONDITION with the reason, for people, where
 * students cannot stand in for it (several inputs, answers that are no classes). */
int students_ends(struct work_task *task, const job_state *state, struct design_ends *ret,
                  struct err *err);

/* What it reads alone: zeros where these are no pictures. Errors are those of the store. */
int students_reads(struct work_task *task, const job_state *state, struct design_ends *ret,
                   struct err *err);

/* How samples are looked at in training: augmentation. */
void students_look(const struct design_ends *ends, Hone__V1__TrainSettings *settings);

/* What the original costs. */
struct cost students_original(const job_state *state);

/* Builds the student's network, keeps it, and adds it to the state as "student-N". */
int students_add(struct work_task *task, job_state *state, const struct space_student *from,
                 const struct design_ends *ends, struct err *err);

/* The same for a network that has weights of the original; `text` says what became of that. Its
 * student is the state's last then. */
int students_inherit(struct work_task *task, job_state *state, struct graph *g, const char *text,
                     double us, struct err *err);
/* Notes a layer ("5-8.": what replaced those units) that was selected in this precision. */
int students_lower(job_student *student, const char *layer, const char *precision, struct err *err);

/* Says to watchers and in the decisions who was added last. */
int students_tell(struct work_task *task, job_state *state, struct err *err);

/* Still in the race: neither given up nor without a network. */
bool students_active(const job_student *student);

/* The least error on the search part at the end of a rung; NAN before. */
double students_error(const job_student *student);

/* Asks for `epochs` of training, from the student's trunk, or where it has none from its network as
 * it is now. */
int students_train(struct work_output *out, const job_state *state, const job_student *student,
                   const struct design_ends *ends, int epochs, struct err *err);

/* The same for a network in few bits that was built of the student: it learns on in them. */
int students_tune(struct work_output *out, const job_state *state, const job_student *student,
                  const job_network *network, const struct design_ends *ends, int epochs,
                  struct err *err);

/* Result i of the group is the student's: network, accuracy, curve, time. A failure, or a result
 * without an accuracy, gives the student up. */
int students_take(struct work_task *task, int i, job_state *state, job_student *student,
                  struct err *err);

/* Seconds of one epoch: as measured in its last rung; before, by its products at `mac_per_s`. */
double students_epoch_s(const job_state *state, const job_student *student, double mac_per_s);
