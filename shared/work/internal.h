#pragma once
/*
 * Inside shared/work. Two threads: the main one claims and handles, its companion renews leases,
 * sends events, watches for others that measure on this host and for the death of the parent.
 * What both touch is under work.lock; work.changed is signalled at every change.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/base/hash.h"
#include "shared/work/work.h"

#define WORKER_NAME_MAX 200
#define HOST_MAX 100

/* An event as the handler gave it, kept for the memo. */
struct event_record {
    char *type, *fields;
};

struct progress {
    char stage[64], unit[32], fields[256];
    double done, total, done_at_begin;
    int64_t begin_ns, sent_ns;
    int64_t paused_at_begin_ns;
    bool unsent;
};

/* The task at hand. */
struct running {
    struct work *work;
    const struct task *task;
    const struct work_kind *kind;
    int64_t next_beat_ns, next_look_ns;
    /* What the queue says of it. */
    bool cancelled, lost;
    /* The quiet of the host: ours, or somebody else's whom we wait for. */
    bool measuring, measure_lost, others_measure, pause_told;
    int64_t pause_begin_ns, paused_ns;
    struct progress progress;
    /* Texts to send, oldest first; the first may be on its way. */
    char **outbox;
    size_t n_outbox, outbox_capacity;
    bool sending;
    int64_t outbox_retry_ns;
    struct event_record *records;
    size_t n_records;
};

struct work {
    const struct work_config *config;
    char host[HOST_MAX], name[WORKER_NAME_MAX], measure_lease[HOST_MAX + 16];
    const char *queue_name;
    int threads;
    int64_t lease_ms, patience_ms;
    struct queue_options redis;
    char *scratch; /* of the process, held by scratch_lock */
    int scratch_lock;
    struct store *store;
    char store_id[HASH_HEX_BYTES];
    struct queue *queue;         /* main thread: claims; gives up soon, so that signals are seen */
    struct queue *handler_queue; /* main thread: for handlers; as patient as completion is */
    int parent;                  /* pidfd, or -1 */

    pthread_t companion;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool ending, companion_busy;
    struct running *running; /* NULL: idle */
};

/* Set by signals and by the companion; never cleared while the loop runs. */
extern atomic_bool work_stopping;

/* ---- work.c ---- */
int64_t work_wait_until(struct work *work, int64_t deadline_ns); /* lock held; gives the time now */

/* ---- companion.c ---- */
/* Asks whether somebody else measures on this host. */
void companion_look(struct work *work, struct running *running, struct queue *q);
int companion_start(struct work *work, struct err *err);
void companion_stop(struct work *work);

/* ---- handle.c: one claimed task, from memo to completion ---- */
void work_handle(struct work *work, struct task *task);

/* ---- report.c: events and progress ---- */
/* Sends what waits, in order, from whichever thread; UNAVAILABLE leaves the rest for later. */
int outbox_flush(struct running *running, struct queue *q, struct err *err);
int outbox_add(struct running *running, char *text, struct err *err); /* lock held; takes text */
/* lock held: puts unsent progress into the outbox when it is due (or at any rate). */
void progress_emit(struct running *running, int64_t now_ns, bool at_any_rate);
/* Adds an event without keeping it for the memo. */
int report_event(struct running *running, const char *type, const char *fields, struct err *err);
void report_release(struct running *running);

/* ---- memo.c ---- */
int memo_key(const struct work *work, const struct work_kind *kind, const struct task *task,
             char key[HASH_HEX_BYTES], struct err *err);
int memo_pack(const struct work_output *out, const struct event_record *events, size_t n_events,
              void **ret, size_t *ret_bytes, struct err *err);
/* *ret_events: array of *ret_n, freed with records_free. */
int memo_unpack(const void *data, size_t bytes, struct work_output *out,
                struct event_record **ret_events, size_t *ret_n, struct err *err);
void records_free(struct event_record *records, size_t n);

/* ---- output.c ---- */
void output_release(struct work_output *out); /* frees all in it */
int output_follow(struct work_output *out, const char *queue, const char *kind, const void *payload,
                  size_t bytes, int max_deliveries, struct err *err);
int output_continue(struct work_output *out, const char *queue, const char *kind,
                    const void *payload, size_t bytes, int max_deliveries, struct err *err);
