#pragma once
/* The end of a job: its files into a folder, its verdict for people or programs. */
#include "services/cli/outdir.h"
#include "services/cli/session.h"

/* For a job that has ended in `state`: downloads into `out` and prints. Returns the exit code. */
int deliver(struct session *session, const char *job, struct outdir *out, bool json);
