#pragma once
/* What a job came to: its files into a folder, its verdict for people or programs. */
#include "services/cli/outdir.h"
#include "services/cli/session.h"

/* Downloads the job's result into `out` and prints it: of a job that did not succeed (yet), the
 * best that it has reached, which is said on stderr. Returns the exit code. */
int deliver(struct session *session, const char *job, struct outdir *out, bool json);
