#pragma once
/*
 * A stage of a job run by hand: a store, a queue on a Redis of its own, a job "J1" in it, and a
 * task with the results that its group gave. What the handler gives back is in `out`.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/internal.h"
#include "shared/work/state.h"
#include "tests/support/redis.h"

#define STAGE_RESULTS 8

struct stage {
    char folder[64];
    struct test_redis redis;
    struct store *store;
    struct queue *queue;
    struct work work;
    struct running running;
    struct task task; /* in the queue's sense */
    void *results[STAGE_RESULTS];
    size_t result_bytes[STAGE_RESULTS];
    char *failures[STAGE_RESULTS];
    struct work_output out;
};

#define STAGE_OK(call)                                                                             \
    do {                                                                                           \
        struct err stage_err = {0};                                                                \
        struct err *err = &stage_err;                                                              \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, stage_err.message);                                          \
    } while (0)

/* `spec` is what was asked for. */
static inline void stage_begin(struct stage *s, const Hone__V1__JobSpec *spec)
{
    char url[128];
    *s = (struct stage){0};
    str_copy(s->folder, sizeof(s->folder), "/tmp/hone-stage-XXXXXX");
    assert_non_null(mkdtemp(s->folder));
    snprintf(url, sizeof(url), "file://%s/store", s->folder);
    STAGE_OK(store_open(url, &s->store, err));
    assert_int_equal(test_redis_start(&s->redis, "redis-server", "no"), 0);
    const struct queue_options options = {.url = s->redis.url};
    STAGE_OK(queue_open(&options, &s->queue, err));
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    const struct task_spec first = {
        .queue = "none", .kind = "none", .payload = "", .payload_bytes = 0};
    STAGE_OK(message_pack(spec, &packed, &bytes, err));
    STAGE_OK(queue_job_create(s->queue, "J1", "net", packed, bytes, &first, err));
    s->task.results = s->results;
    s->task.result_bytes = s->result_bytes;
    s->task.failures = s->failures;
    str_copy(s->task.job, sizeof(s->task.job), "J1");
}

static inline void stage_forget(struct stage *s)
{
    for (int i = 0; i < STAGE_RESULTS; i++) {
        free(s->results[i]);
        s->results[i] = NULL;
        s->failures[i] = NULL;
    }
    s->task.n_results = 0;
    free(s->task.payload);
    s->task.payload = NULL;
    output_release(&s->out);
    s->out = (struct work_output){0};
    report_release(&s->running);
    s->running = (struct running){0};
}

static inline void stage_end(struct stage *s)
{
    stage_forget(s);
    queue_closep(&s->queue);
    test_redis_stop(&s->redis);
    store_closep(&s->store);
    STAGE_OK(fs_remove_tree(s->folder, err));
}

/* The next result of the group. */
static inline void stage_result(struct stage *s, const void *message)
{
    const int i = s->task.n_results++;
    assert_true(i < STAGE_RESULTS);
    STAGE_OK(message_pack(message, &s->results[i], &s->result_bytes[i], err));
}

static inline void stage_failure(struct stage *s, const char *why)
{
    assert_true(s->task.n_results < STAGE_RESULTS);
    s->failures[s->task.n_results++] = (char *)why;
}

static inline int stage_run(struct stage *s, work_handler *handle, const void *payload,
                            struct err *ret_err)
{
    static const struct work_config config = {.service = "test"};
    static const struct work_kind kind = {.kind = "test", .memo = true}; /* events are kept */
    STAGE_OK(message_pack(payload, &s->task.payload, &s->task.payload_bytes, err));
    s->work.config = &config;
    pthread_mutex_init(&s->work.lock, NULL);
    pthread_cond_init(&s->work.changed, NULL);
    s->running.work = &s->work;
    s->running.task = &s->task;
    s->running.kind = &kind;
    struct work_task given = {.work = &s->work,
                              .task = &s->task,
                              .store = s->store,
                              .queue = s->queue,
                              .scratch = s->folder,
                              .threads = 1,
                              .internal = &s->running};
    return handle(&given, &s->out, ret_err);
}

/* The fields of the event of that type that the handler gave; NULL: it gave none. */
static inline const char *stage_event(const struct stage *s, const char *type)
{
    for (size_t i = 0; i < s->running.n_records; i++)
        if (strcmp(s->running.records[i].type, type) == 0)
            return s->running.records[i].fields;
    return NULL;
}

/* The follow-up of that kind; NULL: there are not as many. */
static inline const struct task_spec *stage_follow(const struct stage *s, const char *kind, int nth)
{
    for (int i = 0; i < s->out.n_tasks; i++)
        if (strcmp(s->out.tasks[i].kind, kind) == 0 && nth-- == 0)
            return &s->out.tasks[i];
    return NULL;
}

static inline void *stage_payload(const struct task_spec *spec,
                                  const ProtobufCMessageDescriptor *type)
{
    void *message = NULL;
    assert_non_null(spec);
    STAGE_OK(message_unpack(type, spec->payload, spec->payload_bytes, &message, err));
    return message;
}

/* The state with which the job goes on: the continuation is this stage. */
static inline job_state *stage_handed_on(const struct stage *s, const char *queue, const char *kind)
{
    assert_non_null(s->out.continuation);
    assert_string_equal(s->out.continuation->queue, queue);
    assert_string_equal(s->out.continuation->kind, kind);
    Hone__V1__StageTask *next =
        stage_payload(s->out.continuation, &hone__v1__stage_task__descriptor);
    job_state *ret = next->state;
    next->state = NULL;
    message_free(next);
    assert_non_null(ret);
    return ret;
}

/* Whether a decision holds the text. */
static inline bool stage_decided(const job_state *state, const char *text)
{
    for (size_t i = 0; i < state->n_decisions; i++)
        if (strstr(state->decisions[i], text))
            return true;
    return false;
}

/* From now on the job was submitted so many seconds ago. */
static inline void stage_age(struct stage *s, int seconds)
{
    char line[96], answer[32];
    snprintf(line, sizeof(line), "HSET {hone}:job:J1 created %lld",
             (long long)clock_wall_ms() - 1000LL * seconds);
    assert_int_equal(test_redis_ask(&s->redis, line, answer, sizeof(answer)), 0);
    assert_string_equal(answer, ":0"); /* it was there */
}

/* ---- states ---- */

static inline job_network *stage_network(const char *name, const char *design)
{
    job_network *n = message_new(&hone__v1__network__descriptor, NULL);
    STAGE_OK(message_set(&n->name, name, err));
    STAGE_OK(message_set(&n->design, design, err));
    STAGE_OK(message_set(&n->artifact, name, err));
    n->bytes = 1000;
    return n;
}

static inline void stage_accuracy(job_network *n, const char *part, double value, double kl,
                                  double drop)
{
    Hone__V1__Accuracy *a = message_new(&hone__v1__accuracy__descriptor, NULL);
    STAGE_OK(message_set(&a->part, part, err));
    STAGE_OK(message_set(&a->engine, "hone", err));
    STAGE_OK(message_set(&a->metric, "top1", err));
    a->value = value;
    a->kl = kl;
    a->n = 10000;
    a->drop_points = drop;
    a->drop_upper95_points = drop + 0.3;
    a->worse = drop > 0 ? (uint64_t)(100 * drop + 0.5) : 0;
    a->better = drop < 0 ? (uint64_t)(-100 * drop + 0.5) : 0;
    STAGE_OK(message_append(&n->accuracies, &n->n_accuracies, a, err));
}

static inline Hone__V1__Timing *stage_us(const char *engine, double us)
{
    Hone__V1__Timing *t = message_new(&hone__v1__timing__descriptor, NULL);
    STAGE_OK(message_set(&t->engine, engine, err));
    t->p50_us = us;
    t->p90_us = us;
    return t;
}

static inline void stage_timing(job_network *n, double us)
{
    Hone__V1__Timing *t = stage_us("hone", us);
    STAGE_OK(message_append(&n->timings, &n->n_timings, t, err));
}

/* A job with labels and a limit of one point: the original is right on 92 % of the test part, and
 * on 99 % of the search part, which it has learned. */
static inline job_state *stage_state(void)
{
    job_state *s = message_new(&hone__v1__job_state__descriptor, NULL);
    s->spec = message_new(&hone__v1__job_spec__descriptor, NULL);
    s->spec->max_drop = 1;
    s->spec->threads = s->spec->batch = 1;
    STAGE_OK(message_set(&s->spec->target, "cpu:test", err));
    s->data = message_new(&hone__v1__data_info__descriptor, NULL);
    s->data->labels_usable = true;
    s->preprocess = message_new(&hone__v1__preprocess__descriptor, NULL);
    s->baseline = stage_network("baseline", "");
    stage_accuracy(s->baseline, "search", 0.99, 0, 0);
    stage_accuracy(s->baseline, "test", 0.92, 0, 0);
    stage_timing(s->baseline, 100);
    s->plain_int8 = stage_network("int8", "");
    stage_accuracy(s->plain_int8, "search", 0.985, 0.02, 0.5);
    stage_timing(s->plain_int8, 50);
    return s;
}
