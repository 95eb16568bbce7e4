/* The ordered log of each job. */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/queue/internal.h"

int queue_event_add(struct queue *q, const char *job, const char *json, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    char nonce[33];
    int r = check_id("job", job, QUEUE_ID_MAX - 1, err);
    if (r < 0)
        return r;
    if (strlen(json) > QUEUE_EVENT_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT, "an event of %zu bytes is above %zu",
                       strlen(json), QUEUE_EVENT_MAX);
    queue_nonce(q, nonce);
    queue_script_args(q, SCRIPT_EVENT_ADD, &args);
    args_text(&args, job);
    args_text(&args, json);
    args_text(&args, nonce);
    args_number(&args, 2 * q->patience_ms + 10000); /* longer than the call can take */
    return queue_run(q, SCRIPT_EVENT_ADD, &args, 1, &reply, err);
}

void events_free(struct event *events, int n)
{
    for (int i = 0; i < n; i++)
        free(events[i].text);
    free(events);
}

/* entries: [[id, [name, json]], ...] */
static int read_events(const redisReply *entries, struct event **ret, int *ret_n, struct err *err)
{
    size_t n = entries->elements;
    struct event *events = mem_calloc(n, sizeof(*events));
    bool failed = !events;
    for (size_t i = 0; i < n && !failed; i++) {
        const redisReply *entry = entries->element[i];
        str_copy(events[i].id, sizeof(events[i].id), item_text(entry, 0));
        bool whole = entry->elements == 2 && entry->element[1]->elements == 2;
        events[i].text = strdup(whole ? item_text(entry->element[1], 1) : "{}");
        failed = !events[i].text;
    }
    if (failed) {
        if (events)
            events_free(events, (int)n);
        return err_oom(err, "events");
    }
    *ret = events;
    *ret_n = (int)n;
    return 0;
}

int queue_events(struct queue *q, const char *job, const char *after, int max, int64_t wait_ms,
                 struct event **ret, int *ret_n, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = check_id("job", job, QUEUE_ID_MAX - 1, err);
    if (r < 0)
        return r;
    if (strlen(after) >= sizeof(((struct event *)0)->id) || after[strspn(after, "0123456789-")])
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.40s' is no id of an event", after);
    if (max < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "at most %d events were asked for", max);
    _cleanup_(freep) char *key = queue_key(q, "events", job);
    if (!key)
        return err_oom(err, "a key");
    args_text(&args, "XREAD");
    args_text(&args, "COUNT");
    args_number(&args, max);
    if (wait_ms > 0) {
        args_text(&args, "BLOCK");
        args_number(&args, wait_ms);
    }
    args_text(&args, "STREAMS");
    args_text(&args, key);
    args_text(&args, *after ? after : "0");
    r = queue_command(q, &args, wait_ms > 0 ? wait_ms : 0, &reply, err);
    if (r < 0)
        return r;
    if (reply->type != REDIS_REPLY_ARRAY || reply->elements < 1 ||
        reply->element[0]->elements != 2) {
        *ret = NULL;
        *ret_n = 0;
        return 0;
    }
    return read_events(reply->element[0]->element[1], ret, ret_n, err);
}
