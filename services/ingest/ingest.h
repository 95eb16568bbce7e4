#pragma once
/*
 * Inside of ingest: the RPC front (front.c, rpc_*.c) that clients talk to, and the first task of
 * every job (prepare.c), run by the work loop of the same process.
 */
#include "hone/v1/ingest.pb-c.h"
#include "shared/rpc/rpc.h"
#include "shared/work/work.h"

/* ---- the task "prepare": packs model and data, finds the preprocessing, measures the baseline
 * ---- */
int ingest_prepare(struct work_task *task, struct work_output *out, struct err *err);

/* ---- the RPC front ---- */
struct front_options {
    const char *address; /* to listen on */
    const char *redis;   /* as for queue_open */
    const char *prefix;  /* of Redis keys; NULL: the usual */
    const char *store;   /* as for store_open */
    const char *token;   /* NULL: none asked for */
    const char *target;  /* of jobs that name none */
    int threads;         /* 0: 32; each may keep a connection to Redis */
};
struct front;
int front_start(const struct front_options *options, struct front **ret, struct err *err);
struct front *front_stop(struct front *front); /* NULL-safe, returns NULL; waits */

/* A connection to Redis for one call; front_queue_give takes it back. */
int front_queue_take(struct front *front, struct queue **ret, struct err *err);
void front_queue_give(struct front *front, struct queue *queue);
struct store *front_store(struct front *front);
const char *front_target(const struct front *front);
/* Whether one more call may wait for events; front_wait_end follows when it may. Watchers must not
 * take every thread. */
bool front_wait_begin(struct front *front);
void front_wait_end(struct front *front);

/* Handlers; ctx is the front. */
int front_submit(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                 ProtobufCMessage **ret_reply, struct err *err);
int front_get(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
              ProtobufCMessage **ret_reply, struct err *err);
int front_list(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
               ProtobufCMessage **ret_reply, struct err *err);
int front_watch(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                ProtobufCMessage **ret_reply, struct err *err);
int front_cancel(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                 ProtobufCMessage **ret_reply, struct err *err);

/* ---- specs ---- */
/* A job id as clients make them: [A-Za-z0-9_-]{1,63}. */
int spec_check_id(const char *id, struct err *err);
/* Fills what was left open (threads, batch, drop, title, target) into *spec, whose strings are
 * malloc'ed (protobuf-c), and refuses what can be seen to fail: paths that are not there (of a job
 * that refines another one none is read), numbers out of range, a preprocessing that does not
 * parse. */
int spec_complete(Hone__V1__JobSpec *spec, const char *target, struct err *err);
/* Where images a second are wanted, all threads that the target has, as its profiler says; until it
 * has said so, those of the spec. */
int spec_fill_threads(struct queue *q, Hone__V1__JobSpec *spec, struct err *err);
/* The job's record: everything that rebuilds it. malloc'ed JSON. */
char *spec_record(const char *id, const Hone__V1__JobSpec *spec, int64_t now_ms);
