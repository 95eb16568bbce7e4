#pragma once
/* Parallel loops on plain threads. */
#include <stdint.h>

#include "shared/base/err.h"

/* Called with each index in [0, n) once; `worker` is 0..threads-1, one thread at a time for each. A
 * negative return stops the loop: indices not begun yet are left out. */
typedef int pool_fn(void *ctx, int64_t index, int worker, struct err *err);

/* Runs fn over [0, n) on up to `threads` threads (the caller's is one of them; indices are handed
 * out one by one) and waits. Returns 0 or the first failure, whose text is in err. */
int pool_for(int64_t n, int threads, pool_fn *fn, void *ctx, struct err *err);

/* Processors that this process may use. */
int pool_cpus(void);
