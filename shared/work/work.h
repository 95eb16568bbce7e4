#pragma once
/*
 * The loop that every worker service runs: claim, heartbeat, handle, complete.
 *
 * A service lists its kinds of task with a handler each and calls work_main from main(). Handlers
 * are pure functions of payload and results: the loop looks up what the same payload gave before
 * (memo), so a repeated job costs nothing. While a handler runs, a thread of the loop renews the
 * lease; when the task is cancelled or the lease is lost, work_check returns an error, which the
 * handler returns. SIGTERM: stop claiming, let work_check return CANCELLED ("stopping"), release
 * the task.
 */
#include <protobuf-c/protobuf-c.h>

#include "shared/queue/queue.h"
#include "shared/store/store.h"

struct work; /* the process: store, queue, configuration */
struct work_task {
    struct work *work;
    const struct task *task;
    struct store *store;
    struct queue *queue; /* this thread's */
    const char *scratch; /* a folder of its own, removed afterwards */
    int threads;         /* that the handler may use */
    void *ctx;
    void *internal;
};

/* What a handler gives back. All malloc'ed; freed by the loop. */
struct work_output {
    void *result; /* packed message */
    size_t result_bytes;
    struct task_spec *tasks; /* follow-ups; queue, kind and payload malloc'ed too */
    int n_tasks;
    struct task_spec *continuation; /* one malloc'ed task_spec, or NULL */
    bool finish_job;                /* the result is the job's */
};
/* Packs messages into an output; negative on lack of memory. */
int work_result(struct work_output *out, const ProtobufCMessage *message, struct err *err);
int work_follow(struct work_output *out, const char *queue, const char *kind,
                const ProtobufCMessage *payload, struct err *err);
int work_continue(struct work_output *out, const char *queue, const char *kind,
                  const ProtobufCMessage *payload, struct err *err);

typedef int work_handler(struct work_task *task, struct work_output *out, struct err *err);

struct work_kind {
    const char *kind;
    work_handler *handle;
    int version;   /* raised when the handler computes something else: old memos are void */
    bool memo;     /* results may be remembered */
    bool measures; /* runs under the host's measurement lease */
};

struct work_config {
    const char *service; /* "trainer": also the name of its queue ... */
    const char *queue;   /* ... unless given here ("profiler:TARGET") */
    const struct work_kind *kinds;
    int n_kinds;
    void *ctx;
};
/* The shared table (queue_table_get) in which workers note, under the name of their queue, how many
 * threads their handlers may use. */
#define WORK_THREADS "threads"

/* Runs until SIGTERM or SIGINT. Returns the process's exit code. The environment says:
 *
 *     HONE_REDIS       the queue: unix:/PATH or redis://[:password@]HOST:PORT (needed)
 *     HONE_STORE       the store: file:///FOLDER (needed)
 *     HONE_THREADS     that a handler may use; default: the processors of this process
 *     HONE_SCRATCH     where handlers' folders lie; default $TMPDIR or /tmp
 *     HONE_HOST        whose quiet a measurement asks for; default the host's name
 *     HONE_LEASE_MS    how long a task stays with a worker that is not heard of; default 15000
 *     HONE_PATIENCE_MS how long a result is kept for a Redis that is away; default 60000
 *     HONE_RETENTION_S how long ended tasks and events of ended jobs stay in Redis; default 7 days
 *     HONE_PREFIX      of all keys in Redis; default hone
 *     HONE_PARENT_PID  a process at whose end the loop stops, too
 *     HONE_FAILPOINT   for tests: shared/base/failpoint.h
 *     HONE_LOG_LEVEL, HONE_LOG_FORMAT: shared/base/log.h
 */
int work_main(const struct work_config *config);

/* Unpacks payload or group result i, checked for depth and size first. Free with
 * protobuf_c_message_free_unpacked. */
int work_payload(const struct work_task *task, const ProtobufCMessageDescriptor *type,
                 ProtobufCMessage **ret, struct err *err);
int work_group_result(const struct work_task *task, int i, const ProtobufCMessageDescriptor *type,
                      ProtobufCMessage **ret, struct err *err);

/* Call at least every second from long handlers: reports progress (throttled), waits while somebody
 * else measures on this host, and says when to stop: CANCELLED or ABORTED, to be returned. `done`
 * and `total` are in `unit`s ("images"). Thread-safe. */
int work_progress(struct work_task *task, const char *stage, double done, double total,
                  const char *unit, struct err *err);
/* The same, with more to say in the event: `fields` as in work_event, at most 255 bytes. */
int work_progress_fields(struct work_task *task, const char *stage, double done, double total,
                         const char *unit, const char *fields, struct err *err);
int work_check(struct work_task *task, struct err *err);
/* An event of the job, for its watchers: `fields` is the inside of a JSON object, such as
 * "\"stage\":\"measure\",\"p50_us\":12.5"; type, task, time and service are added. Thread-safe. */
int work_event(struct work_task *task, const char *type, const char *fields, struct err *err);
/* An unpackable failure of the input (bad model): the task is dead at once instead of retried.
 * Handlers get this by default for INVALID_ARGUMENT, UNIMPLEMENTED, FAILED_PRECONDITION, NOT_FOUND,
 * OUT_OF_RANGE; other codes are retried. */
bool work_is_permanent(int code);
