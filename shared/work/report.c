/* Events and progress: gathered here, sent by the companion (or by the main thread at the end). */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <yyjson.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/base/utf8.h"
#include "shared/work/internal.h"

/* Between two reports of progress: what people want to see at first, and later a hundredth of the
 * time that a stage has taken, so that hours of it do not push other events out of the log. */
#define PROGRESS_LEAST_NS (500 * 1000000LL)
#define PROGRESS_MOST_NS (10 * 1000000000LL)
#define RETRY_INTERVAL_NS (500 * 1000000LL)
/* While Redis is away: progress is dropped soon, other events hardly ever. */
#define OUTBOX_PROGRESS_MAX 64
#define OUTBOX_MAX 10000

static void add_json_text(struct strbuf *to, const char *text)
{
    strbuf_add(to, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            strbuf_printf(to, "\\%c", c);
        else if (c < 0x20)
            strbuf_printf(to, "\\u%04x", c);
        else
            strbuf_add_bytes(to, p, 1);
    }
    strbuf_add(to, "\"");
}

static void add_origin(struct strbuf *to, const struct running *running)
{
    strbuf_printf(to, ",\"service\":\"%s\",\"kind\":\"%s\",\"task\":\"%s\",\"time_ms\":%lld}",
                  running->work->config->service, running->task->kind, running->task->id,
                  (long long)clock_wall_ms());
}

/* ---- sending ---- */

int outbox_add(struct running *running, char *text, struct err *err)
{
    if (running->n_outbox == running->outbox_capacity) {
        size_t capacity = running->outbox_capacity ? 2 * running->outbox_capacity : 16;
        char **outbox = running->n_outbox < OUTBOX_MAX
                            ? mem_realloc(running->outbox, capacity, sizeof(*outbox))
                            : NULL;
        if (!outbox) {
            free(text);
            return err_set(err, ERR_RESOURCE_EXHAUSTED, "too many events wait to be sent");
        }
        running->outbox = outbox;
        running->outbox_capacity = capacity;
    }
    running->outbox[running->n_outbox++] = text;
    pthread_cond_broadcast(&running->work->changed);
    return 0;
}

int outbox_flush(struct running *running, struct queue *q, struct err *err)
{
    struct work *work = running->work;
    int r = 0;
    pthread_mutex_lock(&work->lock);
    while (running->sending)
        pthread_cond_wait(&work->changed, &work->lock);
    running->sending = true; /* one thread at a time: the order stays */
    while (running->n_outbox && r == 0) {
        char *text = running->outbox[0];
        pthread_mutex_unlock(&work->lock);
        r = queue_event_add(q, running->task->job, text, err);
        pthread_mutex_lock(&work->lock);
        if (r == -ERR_UNAVAILABLE || r == -ERR_RESOURCE_EXHAUSTED) {
            running->outbox_retry_ns = clock_now_ns(NULL) + RETRY_INTERVAL_NS;
            break;
        }
        r = 0; /* a job that has ended takes no more events */
        free(text);
        running->n_outbox--;
        memmove(running->outbox, running->outbox + 1, running->n_outbox * sizeof(char *));
    }
    running->sending = false;
    pthread_cond_broadcast(&work->changed);
    pthread_mutex_unlock(&work->lock);
    return r;
}

void report_release(struct running *running)
{
    for (size_t i = 0; i < running->n_outbox; i++)
        free(running->outbox[i]);
    free(running->outbox);
    running->outbox = NULL;
    running->n_outbox = 0;
    records_free(running->records, running->n_records);
    running->records = NULL;
    running->n_records = 0;
}

/* ---- progress ---- */

static int64_t progress_interval(const struct progress *p, int64_t now_ns)
{
    const int64_t share = (now_ns - p->begin_ns) / 100;
    return share < PROGRESS_LEAST_NS  ? PROGRESS_LEAST_NS
           : share > PROGRESS_MOST_NS ? PROGRESS_MOST_NS
                                      : share;
}

void progress_emit(struct running *running, int64_t now_ns, bool at_any_rate)
{
    struct progress *p = &running->progress;
    if (!p->unsent || (!at_any_rate && now_ns - p->sent_ns < progress_interval(p, now_ns)))
        return;
    p->unsent = false;
    p->sent_ns = now_ns;
    if (running->n_outbox >= OUTBOX_PROGRESS_MAX)
        return;
    int64_t paused = running->paused_ns - p->paused_at_begin_ns;
    double seconds = (double)(now_ns - p->begin_ns - paused) / 1e9;
    double rate = seconds > 0.05 ? (p->done - p->done_at_begin) / seconds : 0;
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_add(&text, "{\"type\":\"progress\",\"stage\":");
    add_json_text(&text, p->stage);
    strbuf_printf(&text, ",\"done\":%.10g,\"total\":%.10g,\"unit\":", p->done, p->total);
    add_json_text(&text, p->unit);
    if (rate > 0) {
        strbuf_printf(&text, ",\"rate\":%.4g", rate);
        if (p->total > p->done)
            strbuf_printf(&text, ",\"eta_s\":%.1f", (p->total - p->done) / rate);
        else
            strbuf_add(&text, ",\"eta_s\":0");
    }
    if (*p->fields)
        strbuf_printf(&text, ",%s", p->fields);
    add_origin(&text, running);
    char *taken = strbuf_take(&text);
    if (taken)
        utf8_copy(taken, strlen(taken) + 1, taken);
    if (taken)
        outbox_add(running, taken, NULL);
}

static void set_progress(struct running *running, const char *stage, double done, double total,
                         const char *unit, const char *fields)
{
    struct progress *p = &running->progress;
    int64_t now = clock_now_ns(NULL);
    if (strncmp(p->stage, stage, sizeof(p->stage) - 1) != 0) {
        progress_emit(running, now, true); /* how far the last stage came */
        *p = (struct progress){
            .begin_ns = now, .done_at_begin = done, .paused_at_begin_ns = running->paused_ns};
        str_copy(p->stage, sizeof(p->stage), stage);
    }
    str_copy(p->unit, sizeof(p->unit), unit ? unit : "");
    if (!str_copy(p->fields, sizeof(p->fields), fields ? fields : ""))
        *p->fields = 0; /* half of them would be no JSON */
    p->done = isfinite(done) ? done : 0;
    p->total = isfinite(total) ? total : 0;
    p->unsent = true;
    progress_emit(running, now, false);
}

int work_progress_fields(struct work_task *task, const char *stage, double done, double total,
                         const char *unit, const char *fields, struct err *err)
{
    struct running *running = task->internal;
    pthread_mutex_lock(&running->work->lock);
    set_progress(running, stage, done, total, unit, fields);
    pthread_mutex_unlock(&running->work->lock);
    return work_check(task, err);
}

int work_progress(struct work_task *task, const char *stage, double done, double total,
                  const char *unit, struct err *err)
{
    return work_progress_fields(task, stage, done, total, unit, NULL, err);
}

/* ---- when to stop, when to wait ---- */

/* Lock held, and held again afterwards. */
static void tell_pause(struct running *running)
{
    if (running->pause_told)
        return;
    running->pause_told = true;
    pthread_mutex_unlock(&running->work->lock);
    report_event(running, "paused", "\"reason\":\"somebody measures on this host\"", NULL);
    pthread_mutex_lock(&running->work->lock);
}

int work_check(struct work_task *task, struct err *err)
{
    struct running *running = task->internal;
    struct work *work = running->work;
    int r = 0;
    pthread_mutex_lock(&work->lock);
    for (;;) {
        if (atomic_load(&work_stopping))
            r = err_set(err, ERR_CANCELLED, "stopping");
        else if (running->cancelled)
            r = err_set(err, ERR_CANCELLED, "the job has ended");
        else if (running->lost)
            r = err_set(err, ERR_ABORTED, "the lease was lost");
        else if (running->measure_lost)
            r = err_set(err, ERR_ABORTED, "the quiet of the host was lost");
        if (r < 0 || !running->others_measure)
            break;
        tell_pause(running);
        work_wait_until(work, clock_now_ns(NULL) + 100 * 1000000LL);
    }
    pthread_mutex_unlock(&work->lock);
    return r;
}

/* ---- events ---- */

static char *event_text(const struct running *running, const char *type, const char *fields,
                        struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_add(&text, "{\"type\":");
    add_json_text(&text, type);
    if (fields && *fields)
        strbuf_printf(&text, ",%s", fields);
    add_origin(&text, running);
    if (text.failed) {
        err_oom(err, "an event");
        return NULL;
    }
    utf8_copy(text.data, text.length + 1, text.data); /* such as the name of a file */
    /* watchers parse it: what is not JSON (a %f that said nan) must not get out */
    yyjson_doc *doc = yyjson_read(text.data, text.length, 0);
    if (!doc) {
        err_set(err, ERR_INVALID_ARGUMENT, "event '%.40s' is not JSON: %.300s", type, text.data);
        return NULL;
    }
    yyjson_doc_free(doc);
    return strbuf_take(&text);
}

int report_event(struct running *running, const char *type, const char *fields, struct err *err)
{
    char *text = event_text(running, type, fields, err);
    if (!text)
        return err ? -(int)err->code : -ERR_INVALID_ARGUMENT;
    pthread_mutex_lock(&running->work->lock);
    int r = outbox_add(running, text, err);
    pthread_mutex_unlock(&running->work->lock);
    return r;
}

static int keep_record(struct running *running, const char *type, const char *fields,
                       struct err *err)
{
    struct event_record *records =
        mem_realloc(running->records, running->n_records + 1, sizeof(*records));
    if (!records)
        return err_oom(err, "an event");
    running->records = records;
    struct event_record record = {strdup(type), strdup(fields ? fields : "")};
    if (!record.type || !record.fields) {
        free(record.type);
        free(record.fields);
        return err_oom(err, "an event");
    }
    records[running->n_records++] = record;
    return 0;
}

int work_event(struct work_task *task, const char *type, const char *fields, struct err *err)
{
    struct running *running = task->internal;
    struct err why = {0};
    int r = report_event(running, type, fields, &why);
    if (r < 0)
        return err_set(err, (enum err_code) - r, "%s", why.message);
    if (!running->kind->memo)
        return 0;
    pthread_mutex_lock(&running->work->lock);
    r = keep_record(running, type, fields, err);
    pthread_mutex_unlock(&running->work->lock);
    return r;
}
