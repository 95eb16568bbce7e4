#pragma once
/*
 * The folder that results go to. The file .hone in it marks it as ours, names the job, and is
 * locked (flock) by the run that writes there.
 */
#include <stdbool.h>

#include "hone/v1/job.pb-c.h"
#include "shared/base/err.h"
#include "shared/store/store.h"

struct outdir {
    char *path; /* absolute */
    char *mark; /* path/.hone */
    int lock_fd;
    bool made_mark, filled;
};
/* Makes and locks the folder. ALREADY_EXISTS: something else is in it (and not `force`);
 * FAILED_PRECONDITION: another run is writing there. */
int outdir_claim(const char *path, bool force, struct outdir *ret, struct err *err);
/* Notes the job, so that people know whose files these are. */
int outdir_note(struct outdir *out, const char *job, struct err *err);
/* Copies the result's files from the store; each file is there whole or not at all. Then those that
 * an earlier result of other content left and this one has not (alternatives, model.hone, control)
 * go. */
int outdir_fill(struct outdir *out, struct store *store, const Hone__V1__JobResult *result,
                struct err *err);
/* Unlocks; a folder that was made here and got no files is removed. For _cleanup_. */
void outdir_release(struct outdir *out);
/* malloc'ed "hone-out/resnet56" for a model's path or title. */
char *outdir_default(const char *model);
