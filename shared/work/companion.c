/* The thread beside the main one: it keeps what the process holds while a handler computes. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/log.h"
#include "shared/base/mem.h"
#include "shared/work/internal.h"

#define MS 1000000LL
/* How soon others on this host fall quiet, at most, once somebody measures. */
#define LOOK_NS (250 * MS)
#define IDLE_NS (500 * MS)
#define BEAT_RETRY_NS (500 * MS)
/* A handler that never asks whether to stop is left behind when the parent has died. */
#define ORPHAN_GRACE_NS (10000 * MS)

static void beat(struct work *work, struct running *running, struct queue *q)
{
    struct err err = {0};
    bool cancelled = false;
    pthread_mutex_lock(&work->lock);
    bool measuring = running->measuring;
    pthread_mutex_unlock(&work->lock);
    int r = queue_heartbeat(q, running->task, work->lease_ms, &cancelled, &err);
    int measured = 1;
    if (measuring)
        measured = queue_lease_take(q, work->measure_lease, work->name, work->lease_ms, &err);
    pthread_mutex_lock(&work->lock);
    running->cancelled |= cancelled;
    running->lost |= r == -ERR_ABORTED || r == -ERR_NOT_FOUND;
    running->measure_lost |= measured == 0;
    int64_t pause = r < 0 || measured < 0 ? BEAT_RETRY_NS : work->lease_ms * MS / 3;
    if (pause > work->lease_ms * MS / 3)
        pause = work->lease_ms * MS / 3;
    running->next_beat_ns = clock_now_ns(NULL) + pause;
    pthread_cond_broadcast(&work->changed);
    pthread_mutex_unlock(&work->lock);
}

/* Redis away: nobody can measure. */
void companion_look(struct work *work, struct running *running, struct queue *q)
{
    bool others = queue_lease_held(q, work->measure_lease, work->name, NULL) == 1;
    pthread_mutex_lock(&work->lock);
    int64_t now = clock_now_ns(NULL);
    if (others && !running->others_measure)
        running->pause_begin_ns = now;
    if (!others && running->others_measure)
        running->paused_ns += now - running->pause_begin_ns;
    bool tell = !others && running->pause_told;
    running->pause_told &= others;
    running->others_measure = others;
    running->next_look_ns = now + LOOK_NS;
    pthread_cond_broadcast(&work->changed);
    pthread_mutex_unlock(&work->lock);
    if (tell)
        report_event(running, "resumed", NULL, NULL);
}

/* Does one thing that is due for the running task. Lock held, and held again afterwards. */
static bool serve(struct work *work, struct queue *q, int64_t now)
{
    struct running *running = work->running;
    if (!running)
        return false;
    progress_emit(running, now, false);
    void (*what)(struct work *, struct running *, struct queue *) = NULL;
    if (now >= running->next_beat_ns && !running->lost && !running->cancelled)
        what = beat;
    else if (now >= running->next_look_ns && !running->kind->measures)
        what = companion_look;
    bool send = !what && running->n_outbox && now >= running->outbox_retry_ns && !running->sending;
    if (!what && !send)
        return false;
    work->companion_busy = true; /* the main thread keeps `running` until this is over */
    pthread_mutex_unlock(&work->lock);
    if (what)
        what(work, running, q);
    else
        outbox_flush(running, q, NULL);
    pthread_mutex_lock(&work->lock);
    work->companion_busy = false;
    pthread_cond_broadcast(&work->changed);
    return true;
}

static int64_t next_deadline(const struct work *work, int64_t now)
{
    int64_t next = now + IDLE_NS;
    const struct running *running = work->running;
    if (!running)
        return next;
    if (running->next_beat_ns < next && !running->lost && !running->cancelled)
        next = running->next_beat_ns;
    if (running->next_look_ns < next && !running->kind->measures)
        next = running->next_look_ns;
    if (running->n_outbox && running->outbox_retry_ns < next)
        next = running->outbox_retry_ns;
    return next > now ? next : now + MS;
}

static bool parent_is_gone(const struct work *work)
{
    struct pollfd fd = {.fd = work->parent, .events = POLLIN};
    return work->parent >= 0 && poll(&fd, 1, 0) == 1;
}

static void *companion(void *arg)
{
    struct work *work = arg;
    struct err err = {0};
    _cleanup_(queue_closep) struct queue *q = NULL;
    struct queue_options options = work->redis;
    options.patience_ms = 1000;
    if (queue_open(&options, &q, &err) < 0) {
        log_error("%s", err.message);
        atomic_store(&work_stopping, true);
        return NULL;
    }
    int64_t orphan_since = 0;
    pthread_mutex_lock(&work->lock);
    while (!work->ending) {
        int64_t now = clock_now_ns(NULL);
        if (!orphan_since && parent_is_gone(work)) {
            log_warn("the parent process is gone: stopping");
            orphan_since = now;
            atomic_store(&work_stopping, true);
            pthread_cond_broadcast(&work->changed);
        }
        if (orphan_since && now - orphan_since > ORPHAN_GRACE_NS)
            _exit(1);
        if (!serve(work, q, now))
            work_wait_until(work, next_deadline(work, now));
    }
    pthread_mutex_unlock(&work->lock);
    return NULL;
}

int companion_start(struct work *work, struct err *err)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&work->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&work->changed, &attr);
    pthread_condattr_destroy(&attr);
    int errnum = pthread_create(&work->companion, NULL, companion, work);
    return errnum ? err_errno(err, errnum, "starting a thread") : 0;
}

void companion_stop(struct work *work)
{
    pthread_mutex_lock(&work->lock);
    work->ending = true;
    pthread_cond_broadcast(&work->changed);
    pthread_mutex_unlock(&work->lock);
    pthread_join(work->companion, NULL);
    pthread_cond_destroy(&work->changed);
    pthread_mutex_destroy(&work->lock);
}
