#pragma once
/*
 * Places where a test can make a process fail. HONE_FAILPOINT holds rules, separated by ';':
 *
 *     name=action         every time
 *     name=action@3       the third time only
 *
 * Actions: kill (SIGKILL to the process itself), error (the place fails with UNAVAILABLE),
 * sleep:MS. Without rules a failpoint costs one branch. Rules take effect with failpoint_init.
 *
 * Names:
 *     queue.send          before a command goes to Redis (error: the connection is cut)
 *     queue.reply         after Redis has done it, before the caller knows (error: cut)
 *     store.write         before bytes go into a temporary file
 *     store.before_rename before a finished temporary file gets its name
 *     work.after_claim    a task has been claimed
 *     work.before_handle  nothing remembered was found, the handler is next
 *     work.before_complete  the handler is done and what it gave is remembered
 *     trainer.kept        the state of a training run or a teacher has gone into the store
 *     profiler.priced     prices of some pieces have gone into the latency table
 *     work.after_complete the queue has taken the completion
 */
#include <stdbool.h>

#include "shared/base/err.h"

extern bool failpoint_active;

/* Reads the rules from the environment. Unknown actions are INVALID_ARGUMENT. */
int failpoint_init(struct err *err);
/* Sets the rules (NULL or "": none). Not while other threads pass failpoints. */
int failpoint_set(const char *rules, struct err *err);

/* 0, or the error that a rule asks for. */
int failpoint_hit(const char *name, struct err *err);
static inline int failpoint(const char *name, struct err *err)
{
    return __builtin_expect(failpoint_active, 0) ? failpoint_hit(name, err) : 0;
}
