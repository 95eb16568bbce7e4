#pragma once
/*
 * What a long computation has reached, kept in the store, so that whoever is given its task next
 * goes on from there: a file beside the computation, copied into a record under a hash of all that
 * decides about the result. The record is replaced as a whole; it stays behind when the task is
 * done, for whoever may have to do it again.
 */
#include "shared/work/work.h"

struct keep {
    struct store *store;
    const char *file; /* the caller's */
    char record[100];
};
/* `kind` is a word, `what` everything that decides. */
int keep_init(struct keep *k, struct store *store, const char *kind, const void *what, size_t bytes,
              const char *file, struct err *err);
/* Record -> file. 1: it was there, 0: nothing has been kept. */
int keep_fetch(const struct keep *k, struct err *err);
/* File -> record. */
int keep_put(const struct keep *k, struct err *err);
/* Nobody needs it any more: it is as if nothing had been kept, and takes no room. */
int keep_drop(const struct keep *k, struct err *err);
