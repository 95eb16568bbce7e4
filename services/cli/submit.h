#pragma once
/* A job from its submission to its files: what optimize and refine share. */
#include "hone/v1/job.pb-c.h"
#include "services/cli/outdir.h"
#include "services/cli/session.h"

/* Submits the job under a new id, shows it until it has ended and delivers into `out`. `what` it is
 * about, and --home as it was given, are for people. Returns the exit code. */
int submit_and_deliver(struct session *session, Hone__V1__JobSpec *spec, const char *what,
                       const char *home_flag, struct outdir *out, bool json);
