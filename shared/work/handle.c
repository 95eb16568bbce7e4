/* One task: what is known already, the quiet of the host, the handler, the way its end is told. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/fs.h"
#include "shared/base/log.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/internal.h"

#define MS 1000000LL
/* What a process that stops may still spend on telling the queue. */
#define STOP_PATIENCE_MS 3000

/* ---- telling the queue, again and again while it is away ---- */

typedef int tell_fn(struct running *running, struct queue *q, const void *what, struct err *err);

static bool is_passing(int r)
{
    return r == -ERR_UNAVAILABLE || r == -ERR_RESOURCE_EXHAUSTED;
}

static int tell(struct running *running, tell_fn *fn, const void *what, struct err *err)
{
    struct work *work = running->work;
    int64_t begin = clock_now_ns(NULL);
    bool told = false;
    for (;;) {
        int r = fn(running, work->queue, what, err);
        bool stopping = atomic_load(&work_stopping);
        int64_t patience =
            stopping && work->patience_ms > STOP_PATIENCE_MS ? STOP_PATIENCE_MS : work->patience_ms;
        if (!is_passing(r) || clock_now_ns(NULL) - begin > patience * MS)
            return r;
        if (!told)
            log_warn("%s; the result is kept for %.0f s", err->message, (double)patience / 1000);
        told = true;
        clock_sleep_ms(100);
    }
}

static int tell_events(struct running *running, struct queue *q, const void *what, struct err *err)
{
    (void)what;
    return outbox_flush(running, q, err);
}

static int tell_memo(struct running *running, struct queue *q, const void *what, struct err *err)
{
    char key[HASH_HEX_BYTES];
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r = memo_key(running->work, running->kind, running->task, key, err);
    if (r == 0)
        r = memo_pack(what, running->records, running->n_records, &data, &bytes, err);
    return r < 0 ? r : queue_memo_put(q, key, data, bytes, err);
}

static int tell_output(struct running *running, struct queue *q, const void *what, struct err *err)
{
    const struct work_output *out = what;
    if (out->finish_job)
        return queue_job_finish(q, running->task, out->result, out->result_bytes, err);
    struct follow follow = {out->tasks, out->n_tasks, out->continuation};
    return queue_complete(q, running->task, out->result, out->result_bytes, &follow, err);
}

static int tell_release(struct running *running, struct queue *q, const void *what, struct err *err)
{
    (void)what;
    return queue_release(q, running->task, err);
}

struct failure {
    bool retry;
    const char *reason;
};

static int tell_failure(struct running *running, struct queue *q, const void *what, struct err *err)
{
    const struct failure *failure = what;
    return queue_fail(q, running->task, failure->retry, failure->reason, err);
}

/* ---- ends ---- */

static void fail(struct running *running, int code, const char *message)
{
    const struct work *work = running->work;
    struct err err = {0};
    char reason[ERR_MESSAGE_MAX];
    snprintf(reason, sizeof(reason), "%s %s: %.900s", work->config->service, running->task->kind,
             message);
    struct failure failure = {!work_is_permanent(code), reason};
    log_warn("delivery %d %s: %s (%s)", running->task->delivery,
             failure.retry ? "failed" : "failed for good", message, err_code_name(code));
    int r = tell(running, tell_events, NULL, &err);
    if (!is_passing(r))
        r = tell(running, tell_failure, &failure, &err);
    if (r < 0)
        log_warn("the failure could not be told: %s", err.message);
}

static void release(struct running *running)
{
    struct err err = {0};
    if (tell(running, tell_release, NULL, &err) < 0)
        log_warn("the task could not be given back: %s", err.message);
    else
        log_info("stopping: the task was given back");
}

static void complete(struct running *running, const struct work_output *out, double seconds)
{
    struct err err = {0};
    char text[32];
    int r = tell(running, tell_events, NULL, &err);
    if (!is_passing(r))
        r = tell(running, tell_output, out, &err);
    if (r == 0)
        failpoint("work.after_complete", NULL);
    if (r == 0 && seconds >= 0)
        log_info("%s done in %s", running->task->kind, str_seconds(seconds, text));
    else if (r == 0)
        log_info("%s known already", running->task->kind);
    else if (r == -ERR_CANCELLED || r == -ERR_ABORTED)
        log_info("%s done, but not wanted any more: %s", running->task->kind, err.message);
    else if (is_passing(r))
        log_error("the result is lost: %s", err.message);
    else
        fail(running, r, err.message); /* what it gave cannot be put into the queue */
}

/* What became of the task, once its handler has returned r. */
static void end(struct running *running, int r, const struct work_output *out,
                const struct err *err, double seconds)
{
    pthread_mutex_lock(&running->work->lock);
    bool cancelled = running->cancelled, lost = running->lost;
    bool measure_lost = running->measure_lost;
    progress_emit(running, clock_now_ns(NULL), true);
    pthread_mutex_unlock(&running->work->lock);
    if (cancelled)
        log_info("%s was cancelled", running->task->kind);
    else if (lost)
        log_warn("%s: the lease was lost", running->task->kind);
    else if (r < 0 && atomic_load(&work_stopping))
        release(running);
    else if (r < 0)
        fail(running, r, err->message);
    else if (measure_lost)
        fail(running, ERR_ABORTED, "the quiet of the host was lost while it measured");
    else if (out->finish_job && (out->n_tasks || out->continuation))
        fail(running, ERR_FAILED_PRECONDITION, "it finished the job and started more tasks");
    else
        complete(running, out, seconds);
}

/* ---- what was computed before ---- */

/* 1: the output is known, its events are on their way. */
static int look_up(struct running *running, struct work_output *out)
{
    struct err err = {0};
    char key[HASH_HEX_BYTES];
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0, n = 0;
    struct event_record *events = NULL;
    int r = memo_key(running->work, running->kind, running->task, key, &err);
    if (r == 0)
        r = queue_memo_get(running->work->handler_queue, key, &data, &bytes, &err);
    if (r == 0 && !data)
        return 0;
    if (r == 0)
        r = memo_unpack(data, bytes, out, &events, &n, &err);
    if (r < 0) {
        log_warn("what was remembered is not used: %s", err.message);
        return 0;
    }
    r = report_event(running, "reused", NULL, &err);
    for (size_t i = 0; i < n && r == 0; i++)
        r = report_event(running, events[i].type, events[i].fields, &err);
    records_free(events, n);
    if (r < 0)
        log_warn("an event could not be repeated: %s", err.message);
    return 1;
}

/* ---- the quiet of the host ---- */

static int take_quiet(struct work_task *handle, struct err *err)
{
    struct running *running = handle->internal;
    struct work *work = running->work;
    int r = work_check(handle, err);
    if (r < 0)
        return r;
    for (;;) {
        r = queue_lease_take(work->queue, work->measure_lease, work->name, work->lease_ms, err);
        if (r < 0 && !is_passing(r))
            return r;
        pthread_mutex_lock(&work->lock);
        running->measuring = r == 1;
        if (r == 1)
            running->next_beat_ns = clock_now_ns(NULL) + work->lease_ms * MS / 3;
        else
            work_wait_until(work, clock_now_ns(NULL) + 100 * MS);
        pthread_mutex_unlock(&work->lock);
        if (r == 1)
            return 0;
        r = work_progress(handle, "waiting for others that measure on this host", 0, 0, "", err);
        if (r < 0)
            return r;
    }
}

static void drop_quiet(struct running *running)
{
    struct work *work = running->work;
    struct err err = {0};
    pthread_mutex_lock(&work->lock);
    bool measuring = running->measuring;
    running->measuring = false;
    while (work->companion_busy) /* it may be renewing the lease right now */
        pthread_cond_wait(&work->changed, &work->lock);
    pthread_mutex_unlock(&work->lock);
    if (measuring && queue_lease_drop(work->queue, work->measure_lease, work->name, &err) < 0)
        log_warn("others on this host wait until the lease has run out: %s", err.message);
}

/* ---- one task ---- */

static int compute(struct running *running, struct work_output *out, struct err *err)
{
    struct work *work = running->work;
    _cleanup_(freep) char *scratch = str_printf("%s/%s", work->scratch, running->task->id);
    struct work_task handle = {.work = work,
                               .task = running->task,
                               .store = work->store,
                               .queue = work->handler_queue,
                               .scratch = scratch,
                               .threads = work->threads,
                               .ctx = work->config->ctx,
                               .internal = running};
    if (!scratch)
        return err_oom(err, "a path");
    int r = fs_mkdirs(scratch, err);
    if (!running->kind->measures)
        companion_look(work, running, work->queue);
    if (r == 0)
        r = running->kind->measures ? take_quiet(&handle, err) : work_check(&handle, err);
    if (r == 0)
        r = failpoint("work.before_handle", err);
    if (r == 0)
        r = running->kind->handle(&handle, out, err);
    drop_quiet(running);
    struct err swept = {0};
    if (fs_remove_tree(scratch, &swept) < 0)
        log_warn("%s", swept.message);
    return r;
}

static void run(struct running *running)
{
    struct err err = {0};
    struct work_output out = {0};
    int64_t begin = clock_now_ns(NULL);
    if (running->kind->memo && look_up(running, &out) == 1) {
        end(running, 0, &out, &err, -1);
    } else {
        int r = compute(running, &out, &err);
        double seconds = (double)(clock_now_ns(NULL) - begin) / 1e9;
        pthread_mutex_lock(&running->work->lock);
        bool wanted = r == 0 && running->kind->memo && !running->measure_lost;
        pthread_mutex_unlock(&running->work->lock);
        struct err forgot = {0};
        if (wanted && tell(running, tell_memo, &out, &forgot) < 0)
            log_warn("the result is not remembered: %s", forgot.message);
        failpoint("work.before_complete", NULL);
        end(running, r, &out, &err, seconds);
    }
    output_release(&out);
}

static const struct work_kind *find_kind(const struct work_config *config, const char *name)
{
    for (int i = 0; i < config->n_kinds; i++)
        if (!strcmp(config->kinds[i].kind, name))
            return &config->kinds[i];
    return NULL;
}

void work_handle(struct work *work, struct task *task)
{
    static const struct work_kind unknown = {.kind = "unknown"};
    const struct work_kind *kind = find_kind(work->config, task->kind);
    int64_t now = clock_now_ns(NULL);
    struct running running = {.work = work,
                              .task = task,
                              .kind = kind ? kind : &unknown,
                              .next_beat_ns = now + work->lease_ms * MS / 3,
                              .next_look_ns = now};
    log_context(task->job, task->id, NULL);
    pthread_mutex_lock(&work->lock);
    work->running = &running;
    pthread_cond_broadcast(&work->changed);
    pthread_mutex_unlock(&work->lock);
    failpoint("work.after_claim", NULL);

    if (kind)
        run(&running);
    else
        fail(&running, ERR_UNIMPLEMENTED, "there is no such kind of task here");

    pthread_mutex_lock(&work->lock);
    work->running = NULL;
    while (work->companion_busy)
        pthread_cond_wait(&work->changed, &work->lock);
    pthread_mutex_unlock(&work->lock);
    report_release(&running);
    log_context(NULL, NULL, NULL);
}
