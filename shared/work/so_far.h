#pragma once
/* The result that a job has reached while it goes on: the record jobs/JOB/result of the store,
 * which stays when the job is cancelled or fails. */
#include <hone/v1/job.pb-c.h>

#include "shared/store/store.h"

/* In place of the one before. */
int so_far_put(struct store *store, const char *job, const Hone__V1__JobResult *result,
               struct err *err);
/* *ret, freed with message_free, is NULL where there is none. */
int so_far_get(struct store *store, const char *job, Hone__V1__JobResult **ret, struct err *err);
