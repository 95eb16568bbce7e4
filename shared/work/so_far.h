#pragma once
/* What a job has reached while it goes on, in records of the store that stay when it is cancelled
 * or fails: jobs/JOB/result for who fetches it, jobs/JOB/state for jobs that refine it. */
#include <hone/v1/job.pb-c.h>

#include "shared/store/store.h"

/* In place of the one before. */
int so_far_put(struct store *store, const char *job, const Hone__V1__JobResult *result,
               struct err *err);
/* *ret, freed with message_free, is NULL where there is none. */
int so_far_get(struct store *store, const char *job, Hone__V1__JobResult **ret, struct err *err);

/* Where the job stands, in place of the record before. opened: with its openings of the test part;
 * NULL: none. elapsed_s: since its submission, which the first of its records keeps as what it took
 * to a first result. */
int so_far_put_state(struct store *store, const char *job, const Hone__V1__JobState *state,
                     const Hone__V1__JobSpec *asked, const Hone__V1__JobRecord *opened,
                     double elapsed_s, struct err *err);
/* *ret, freed with message_free, is NULL where there is none. FAILED_PRECONDITION: it was written
 * by another version. */
int so_far_get_state(struct store *store, const char *job, Hone__V1__JobRecord **ret,
                     struct err *err);
