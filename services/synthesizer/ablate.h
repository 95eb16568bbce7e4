#pragma once
/*
 * What a job leaves out so that its worth can be measured (JobSpec.without, `scripts/bench
 * ablations`): "teacher", students learn from labels alone; "cache", the original answers anew
 * about every sample of every epoch of each student; "race", a few students drawn at random have
 * all of the time, in equal shares.
 */
#include "services/synthesizer/space.h"
#include "services/synthesizer/students.h"

/* Of a student's training, which is as usual before. */
void ablate_training(const job_state *state, const job_student *student,
                     Hone__V1__TrainTask *train);

/* What that adds to each epoch, in seconds: what the teacher answers anew. mac_per_s: of training,
 * as race_rate has it. */
double ablate_teacher_s(const job_state *state, double mac_per_s);

#define ABLATE_DRAWN 4
/* Instead of enrol_choose: as many students, or fewer, between the two costs; each as likely. */
int ablate_enrol(const job_state *state, const struct space *space, double most_cost,
                 double least_cost, int ret[ABLATE_DRAWN]);
