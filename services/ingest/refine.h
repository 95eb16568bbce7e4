#pragma once
/* Jobs that refine another one: what they take from it. */
#include "services/ingest/ingest.h"

/* Fills the spec, which names a job in `refines`, with what that one was asked for, where nothing
 * else is given; of limits all or none are given. With another target that job's threads and
 * batch may be others, too. *ret, freed with message_free, is the state to
 * begin with. NOT_FOUND: there is no such job, or it has no result yet; INVALID_ARGUMENT: what
 * cannot be another one. */
int refine_take(struct store *store, struct queue *queue, Hone__V1__JobSpec *spec,
                Hone__V1__JobState **ret, struct err *err);
