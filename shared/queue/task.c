/* Tasks: claim, heartbeat, complete, fail, release. What these mean is in the scripts. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/base/utf8.h"
#include "shared/queue/internal.h"

/* A waiting claim looks again after so long even when nothing was announced. */
#define WAIT_SLICE_MS 5000
#define WORKER_MAX 200

struct task *task_free(struct task *task)
{
    if (!task)
        return NULL;
    for (int i = 0; i < task->n_results; i++) {
        if (task->results)
            free(task->results[i]);
        if (task->failures)
            free(task->failures[i]);
    }
    free(task->results);
    free(task->result_bytes);
    free(task->failures);
    free(task->payload);
    free(task);
    return NULL;
}

void task_freep(struct task **task)
{
    *task = task_free(*task);
}

/* ---- claim ---- */

/* Members of the group: state and result or reason, two items each. */
static int read_results(const redisReply *reply, size_t first, struct task *task, struct err *err)
{
    size_t n = (reply->elements - first) / 2;
    task->results = mem_calloc(n, sizeof(*task->results));
    task->result_bytes = mem_calloc(n, sizeof(*task->result_bytes));
    task->failures = mem_calloc(n, sizeof(*task->failures));
    if (!task->results || !task->result_bytes || !task->failures)
        return err_oom(err, "a group's results");
    task->n_results = (int)n;
    for (size_t i = 0; i < n; i++) {
        const char *state = item_text(reply, first + 2 * i);
        void *data = NULL;
        size_t bytes = 0;
        int r = item_copy(reply, first + 2 * i + 1, &data, &bytes, err);
        if (r < 0)
            return r;
        if (!strcmp(state, "succeeded")) {
            task->results[i] = data;
            task->result_bytes[i] = bytes;
        } else if (bytes) {
            task->failures[i] = data;
        } else {
            free(data);
            task->failures[i] = strdup(state);
            if (!task->failures[i])
                return err_oom(err, "a group's results");
        }
    }
    return 0;
}

static int read_task(const redisReply *reply, struct task **ret, struct err *err)
{
    enum { FIXED = 9 };
    if (reply->elements < FIXED)
        return err_set(err, ERR_INTERNAL, "odd answer to a claim");
    _cleanup_(task_freep) struct task *task = calloc(1, sizeof(*task));
    if (!task)
        return err_oom(err, "a task");
    str_copy(task->id, sizeof(task->id), item_text(reply, 2));
    str_copy(task->job, sizeof(task->job), item_text(reply, 3));
    str_copy(task->queue, sizeof(task->queue), item_text(reply, 4));
    str_copy(task->kind, sizeof(task->kind), item_text(reply, 5));
    task->epoch = item_number(reply, 6);
    task->delivery = (int)item_number(reply, 7);
    int r = item_copy(reply, 8, &task->payload, &task->payload_bytes, err);
    if (r == 0)
        r = read_results(reply, FIXED, task, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(task);
    return 0;
}

/* Waits until a queue gets an entry or wait_ms have passed. Nothing is taken: the next run of the
 * script decides who gets what, by the order of the queues. `none`: the script's answer. */
static int wait_for_entries(struct queue *q, const char *const *queues, int n_queues,
                            const redisReply *none, int64_t wait_ms, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    _cleanup_(freep) char **keys = mem_calloc((size_t)n_queues, sizeof(*keys));
    if (!keys)
        return err_oom(err, "a claim");
    args_text(&args, "XREAD");
    args_text(&args, "COUNT");
    args_text(&args, "1");
    args_text(&args, "BLOCK");
    args_number(&args, wait_ms);
    args_text(&args, "STREAMS");
    for (int i = 0; i < n_queues; i++) {
        keys[i] = queue_key(q, "queue", queues[i]);
        args_text(&args, keys[i] ? keys[i] : "");
        args.failed |= !keys[i];
    }
    for (int i = 0; i < n_queues; i++)
        args_text(&args, item_text(none, (size_t)i + 3));
    int r = queue_command(q, &args, wait_ms, &reply, err);
    for (int i = 0; i < n_queues; i++)
        free(keys[i]);
    return r;
}

static int check_claim(const char *const *queues, int n_queues, const char *worker,
                       int64_t lease_ms, struct err *err)
{
    if (n_queues < 1 || n_queues > 64)
        return err_set(err, ERR_INVALID_ARGUMENT, "a claim from %d queues", n_queues);
    if (!*worker || strlen(worker) > WORKER_MAX || strpbrk(worker, " \r\n"))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.100s' is no name of a worker", worker);
    if (lease_ms < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "a lease of %lld ms", (long long)lease_ms);
    int r = 0;
    for (int i = 0; i < n_queues && r == 0; i++)
        r = check_queue_name(queues[i], err);
    return r;
}

static int claim_now(struct queue *q, const char *const *queues, int n_queues, const char *worker,
                     int64_t lease_ms, redisReply **ret, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    char nonce[33];
    queue_nonce(q, nonce);
    queue_script_args(q, SCRIPT_TASK_CLAIM, &args);
    args_text(&args, worker);
    args_number(&args, lease_ms);
    args_text(&args, nonce);
    for (int i = 0; i < n_queues; i++)
        args_text(&args, queues[i]);
    return queue_run(q, SCRIPT_TASK_CLAIM, &args, 3, ret, err);
}

int queue_claim(struct queue *q, const char *const *queues, int n_queues, const char *worker,
                int64_t lease_ms, int64_t wait_ms, struct task **ret, struct err *err)
{
    int r = check_claim(queues, n_queues, worker, lease_ms, err);
    if (r < 0)
        return r;
    int64_t end = clock_now_ns(NULL) / 1000000 + wait_ms;
    for (;;) {
        _cleanup_(reply_freep) redisReply *reply = NULL;
        r = claim_now(q, queues, n_queues, worker, lease_ms, &reply, err);
        if (r < 0)
            return r;
        if (item_number(reply, 1) == 1)
            return read_task(reply, ret, err);
        int64_t left = end - clock_now_ns(NULL) / 1000000, due = item_number(reply, 2);
        if (due == 0) /* the script has bounds: there is more to look at */
            continue;
        if (left <= 0) {
            *ret = NULL;
            return 0;
        }
        left = left < WAIT_SLICE_MS ? left : WAIT_SLICE_MS;
        if (due > 0 && due < left)
            left = due;
        r = wait_for_entries(q, queues, n_queues, reply, left, err);
        if (r < 0)
            return r;
    }
}

/* ---- while and after ---- */

static void held_args(struct queue *q, enum script script, const struct task *task,
                      struct args *args)
{
    queue_script_args(q, script, args);
    args_text(args, task->id);
    args_number(args, task->epoch);
}

int queue_heartbeat(struct queue *q, const struct task *task, int64_t lease_ms, bool *ret_cancelled,
                    struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    held_args(q, SCRIPT_TASK_HEARTBEAT, task, &args);
    args_number(&args, lease_ms);
    int r = queue_run(q, SCRIPT_TASK_HEARTBEAT, &args, 2, &reply, err);
    if (r < 0)
        return r;
    *ret_cancelled = item_number(reply, 1) == 1;
    return 0;
}

static int follow_args(struct args *args, const struct follow *follow, struct err *err)
{
    int n = follow ? follow->n_tasks : 0;
    const struct task_spec *continuation = follow ? follow->continuation : NULL;
    if (n < 0 || n > QUEUE_FOLLOW_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d tasks at once are not 0 to %d", n,
                       QUEUE_FOLLOW_MAX);
    args_text(args, continuation ? "1" : "0");
    int r = 0;
    for (int i = 0; i < n && r == 0; i++)
        r = task_spec_args(args, &follow->tasks[i], err);
    if (r == 0 && continuation)
        r = task_spec_args(args, continuation, err);
    return r;
}

static int complete(struct queue *q, const struct task *task, const char *verb, const void *result,
                    size_t result_bytes, const struct follow *follow, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = check_size("a result", result_bytes, err);
    if (r < 0)
        return r;
    held_args(q, SCRIPT_TASK_COMPLETE, task, &args);
    args_text(&args, verb);
    args_bytes(&args, result, result_bytes);
    r = follow_args(&args, follow, err);
    return r < 0 ? r : queue_run(q, SCRIPT_TASK_COMPLETE, &args, 1, &reply, err);
}

int queue_complete(struct queue *q, const struct task *task, const void *result,
                   size_t result_bytes, const struct follow *follow, struct err *err)
{
    return complete(q, task, "complete", result, result_bytes, follow, err);
}

int queue_job_finish(struct queue *q, const struct task *task, const void *result,
                     size_t result_bytes, struct err *err)
{
    return complete(q, task, "finish", result, result_bytes, NULL, err);
}

int queue_fail(struct queue *q, const struct task *task, bool retry, const char *reason,
               struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    char clean[ERR_MESSAGE_MAX], jitter[32];
    utf8_copy(clean, sizeof(clean), *reason ? reason : "no reason was given");
    snprintf(jitter, sizeof(jitter), "%.9f", rng_f64(&q->rng));
    held_args(q, SCRIPT_TASK_FAIL, task, &args);
    args_text(&args, retry ? "1" : "0");
    args_text(&args, clean);
    args_text(&args, jitter);
    args_number(&args, q->backoff_ms);
    args_number(&args, q->backoff_max_ms);
    return queue_run(q, SCRIPT_TASK_FAIL, &args, 1, &reply, err);
}

int queue_release(struct queue *q, const struct task *task, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    held_args(q, SCRIPT_TASK_RELEASE, task, &args);
    return queue_run(q, SCRIPT_TASK_RELEASE, &args, 1, &reply, err);
}

int queue_depth(struct queue *q, const char *queue, struct queue_depth *ret, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = check_queue_name(queue, err);
    if (r < 0)
        return r;
    _cleanup_(freep) char *key = queue_key(q, "depth", queue);
    if (!key)
        return err_oom(err, "a key");
    args_text(&args, "HMGET");
    args_text(&args, key);
    args_text(&args, "ready");
    args_text(&args, "leased");
    args_text(&args, "delayed");
    r = queue_command(q, &args, 0, &reply, err);
    if (r < 0)
        return r;
    *ret =
        (struct queue_depth){item_number(reply, 0), item_number(reply, 1), item_number(reply, 2)};
    return 0;
}
