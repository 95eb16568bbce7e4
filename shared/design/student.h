#pragma once
/* A network by design that takes the place of another one: it reads what that reads and yields what
 * that yields, under the same names. */
#include "shared/design/design.h"

/* What the original reads and yields; seed: of the weights. FAILED_PRECONDITION with the reason,
 * for people, where no design can stand in for it (several inputs, answers that are no classes). */
int student_ends(const struct graph *original, uint64_t seed, struct design_ends *ret,
                 struct err *err);
/* The same design, original and ends give the same network, byte for byte when written. */
int student_build(const char *design, const struct graph *original, const struct design_ends *ends,
                  struct graph **ret, struct err *err);
