#pragma once
/* Following a job to its end. */
#include "services/cli/screen.h"
#include "services/cli/session.h"

/* Shows the job's events from the first on, until it has ended: its state is in ret_state
 * (succeeded, failed, cancelled). CANCELLED when Ctrl-C was pressed; the job goes on then. */
int follow_job(struct session *session, const char *job, struct screen *screen, char ret_state[16],
               struct err *err);
/* Tells on stderr how to go on with a job after Ctrl-C. Returns CLI_INTERRUPTED. */
int follow_say_interrupted(const struct session *session, const char *home_flag, const char *job);
