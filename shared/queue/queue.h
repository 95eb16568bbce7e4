#pragma once
/*
 * Jobs, tasks and events on Redis.
 *
 * A job is what a user asked for; a task is one piece of it, waiting in the queue of its kind.
 * Tasks are delivered at least once and completed at most once: a claim takes a lease and an epoch,
 * every later call carries the epoch, and Lua refuses a stale one (ABORTED). Leases are renewed by
 * heartbeats; a lease that ran out makes the task ready again (another delivery); after
 * max_deliveries it is dead, with its reason. Completion may start follow-up tasks and a group with
 * a continuation, in the same atomic step. Everything that must survive is in Redis (append-only
 * file).
 *
 * States of a task: ready, leased, delayed (retry), waiting (a continuation whose group is not
 * done), succeeded, failed (dead), cancelled. States of a job: running, succeeded, failed,
 * cancelled. A job whose tasks have all ended without finishing it has failed, and says so.
 *
 * Every call may be repeated by this library after a lost answer and still happens once.
 *
 * Connection: "unix:/path/of/socket" or "redis://[:password@]host:port[/db]". A handle is used by
 * one thread at a time (hiredis); open one for each thread. When Redis is gone a call reconnects
 * and retries for up to `patience_ms`, then fails with UNAVAILABLE that names the address.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

struct queue;

struct queue_options {
    const char *url;
    const char *prefix;                 /* of every key; NULL: "hone" */
    int64_t patience_ms;                /* 0: 10,000 */
    int64_t retention_ms;               /* ended tasks, events of ended jobs; 0: seven days */
    int64_t backoff_ms, backoff_max_ms; /* bounds of the wait before a retry; 0: 1 s, 60 s */
    const atomic_bool *hurry; /* NULL, or: while it is true, calls do not wait for a lost Redis */
};
/* Does not connect yet: the first call does. Passwords may be %-encoded. */
int queue_open(const struct queue_options *options, struct queue **ret, struct err *err);
struct queue *queue_close(struct queue *queue); /* NULL-safe, returns NULL */
void queue_closep(struct queue **queue);
int queue_ping(struct queue *queue, struct err *err);
const char *queue_address(const struct queue *queue); /* for people: without the password */

#define QUEUE_ID_MAX 64 /* job and task ids, with the zero: [A-Za-z0-9_-]+ */

/* ---- jobs ---- */
struct job_info {
    char id[QUEUE_ID_MAX];
    char state[16];   /* running, succeeded, failed, cancelled */
    char title[128];  /* for people: the model's name */
    char error[1024]; /* why it failed */
    int64_t created_ms, updated_ms, ended_ms;
    int64_t away_ms; /* of the time between, while no worker was there at all for 30 s or more */
    int tasks_open;  /* ready, leased or delayed */
    void *spec;      /* malloc'ed, as given to queue_job_create */
    size_t spec_bytes;
    void *result; /* malloc'ed, as given to queue_job_finish */
    size_t result_bytes;
};
void job_info_release(struct job_info *info); /* for _cleanup_ */

struct task_spec {
    const char *queue; /* "trainer", "profiler:cpu-avx512_core_vnni-1t", ... */
    const char *kind;  /* what to do: "score" */
    const void *payload;
    size_t payload_bytes;
    int max_deliveries; /* 0: 4 */
};

/* Creates the job with its first task, atomically. Ids have at most 48 characters. ALREADY_EXISTS
 * when the id is taken. */
int queue_job_create(struct queue *q, const char *id, const char *title, const void *spec,
                     size_t spec_bytes, const struct task_spec *first, struct err *err);
int queue_job_get(struct queue *q, const char *id, struct job_info *ret, struct err *err);
/* Newest first; *ret is malloc'ed (spec and result left NULL). */
int queue_job_list(struct queue *q, int max, struct job_info **ret, int *ret_n, struct err *err);
/* Running -> cancelled: open tasks are cancelled, workers learn it by their heartbeat. Idempotent;
 * FAILED_PRECONDITION when the job has ended otherwise. */
int queue_job_cancel(struct queue *q, const char *id, struct err *err);

/* ---- tasks, for workers ---- */
struct task {
    char id[QUEUE_ID_MAX], job[QUEUE_ID_MAX], queue[96], kind[64];
    int64_t epoch;
    int delivery; /* 1: the first */
    void *payload;
    size_t payload_bytes;
    int n_results;  /* of a continuation: its group's results, in the order of the group */
    void **results; /* NULL where that task did not succeed */
    size_t *result_bytes;
    char **failures; /* why it did not, NULL where it did */
};
struct task *task_free(struct task *task); /* NULL-safe, returns NULL */
void task_freep(struct task **task);

/* Waits up to wait_ms for a task of any of the queues (priority: order given). *ret is NULL when
 * there was none. Also returns expired leases and due retries to their queues. */
int queue_claim(struct queue *q, const char *const *queues, int n_queues, const char *worker,
                int64_t lease_ms, int64_t wait_ms, struct task **ret, struct err *err);
/* Renews the lease. *ret_cancelled: the task's job has ended (cancelled, or failed elsewhere).
 * ABORTED: the epoch is stale. */
int queue_heartbeat(struct queue *q, const struct task *task, int64_t lease_ms, bool *ret_cancelled,
                    struct err *err);

/* What a completed task starts. */
struct follow {
    const struct task_spec *tasks;
    int n_tasks;
    /* With a continuation the tasks are a group: when the last of them has ended (in whatever way),
     * the continuation becomes ready and is given their results. n_tasks may be 0. */
    const struct task_spec *continuation; /* NULL: none */
};
/* ABORTED: the lease was lost to somebody else. CANCELLED: the job has ended. (So for the calls
 * below.) At most 10,000 follow-ups; payloads and results of at most 64 MB. */
int queue_complete(struct queue *q, const struct task *task, const void *result,
                   size_t result_bytes, const struct follow *follow, struct err *err);
/* As queue_complete, and ends the job as succeeded with this result. */
int queue_job_finish(struct queue *q, const struct task *task, const void *result,
                     size_t result_bytes, struct err *err);
/* retry: again after a full-jitter backoff until max_deliveries, else dead at once. A dead task
 * that is in a group counts as ended there; one that is not fails its job, with `reason`. */
int queue_fail(struct queue *q, const struct task *task, bool retry, const char *reason,
               struct err *err);
/* Gives the task back untouched (a worker that stops): ready at once, the delivery not counted. */
int queue_release(struct queue *q, const struct task *task, struct err *err);

/*
 * ---- events: an ordered log for each job (the last 10,000 or so) ----
 * The queue itself adds, each with "time_ms":
 *     {"type":"retried","task":..,"kind":..,"delivery":n,"reason":..}   a task failed or its worker
 * vanished
 *     {"type":"dead","task":..,"kind":..,"delivery":n,"reason":..}      a member of a group, for
 * good
 *     {"type":"failed","error":..,"task":..,"kind":..}                  and these three end the
 * job:
 *     {"type":"succeeded"}   {"type":"cancelled"}                       nothing comes after them
 */
struct event {
    char id[32]; /* resumable: "after id" */
    char *text;  /* JSON object, malloc'ed */
};
/* FAILED_PRECONDITION when the job has ended, NOT_FOUND when there is none. At most 256 KB. */
int queue_event_add(struct queue *q, const char *job, const char *json, struct err *err);
/* Events after `after` ("" or "0": all), at most max, waiting up to wait_ms for the first. */
int queue_events(struct queue *q, const char *job, const char *after, int max, int64_t wait_ms,
                 struct event **ret, int *ret_n, struct err *err);
void events_free(struct event *events, int n);

/* ---- what was computed before (tasks are pure: same key, same result) ---- */
/* *ret NULL: not known. */
int queue_memo_get(struct queue *q, const char *key, void **ret, size_t *ret_bytes,
                   struct err *err);
int queue_memo_put(struct queue *q, const char *key, const void *data, size_t bytes,
                   struct err *err);
/* Tables that jobs share (latency per target): fields of a hash. Field names are [ -~]+. */
int queue_table_put(struct queue *q, const char *table, const char *field, const char *text,
                    struct err *err);
int queue_table_get(struct queue *q, const char *table, const char *field, char **ret_text,
                    struct err *err); /* *ret_text NULL: absent */

/* ---- leases on things other than tasks (the quiet of a host) ---- */
/* 1: taken (or renewed) by `holder`; 0: somebody else holds it. */
int queue_lease_take(struct queue *q, const char *name, const char *holder, int64_t ttl_ms,
                     struct err *err);
int queue_lease_drop(struct queue *q, const char *name, const char *holder, struct err *err);
/* 1: held by somebody other than `holder` (NULL: by anybody). */
int queue_lease_held(struct queue *q, const char *name, const char *holder, struct err *err);

/* Tasks ready, leased, delayed in a queue: for metrics and for an idle check. */
struct queue_depth {
    int64_t ready, leased, delayed;
};
int queue_depth(struct queue *q, const char *queue, struct queue_depth *ret, struct err *err);
/* Jobs that are running. */
int queue_running_jobs(struct queue *q, int64_t *ret, struct err *err);
