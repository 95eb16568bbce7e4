/* Watch: the events of a job after a given one, waiting for the first. */
#include <stdlib.h>
#include <string.h>

#include "services/ingest/ingest.h"
#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/work/message.h"

#define DEFAULT_EVENTS 100
#define MAX_EVENTS 1000
#define MAX_WAIT_MS 30000
#define SLICE_MS 500 /* between two looks at whether to answer now */

static int read_state(struct queue *q, const char *id, char state[16], struct err *err)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    int r = queue_job_get(q, id, &job, err);
    if (r == 0)
        memcpy(state, job.state, 16);
    return r;
}

static int append_events(Hone__V1__WatchResponse *reply, const struct event *events, int n,
                         struct err *err)
{
    for (int i = 0; i < n; i++) {
        _cleanup_(message_freep) Hone__V1__Event *event =
            message_new(&hone__v1__event__descriptor, err);
        if (!event || message_set(&event->id, events[i].id, err) < 0 ||
            message_set(&event->json, events[i].text, err) < 0 ||
            message_append(&reply->events, &reply->n_events, event, err) < 0)
            return -ERR_RESOURCE_EXHAUSTED;
        event = NULL;
    }
    return 0;
}

/* Reads once; the state is read after the events, so that whoever sees an ended job and no events
 * has seen them all. */
static int read_once(struct queue *q, const Hone__V1__WatchRequest *request, int64_t wait_ms,
                     Hone__V1__WatchResponse *reply, struct err *err)
{
    struct event *events = NULL;
    int n = 0;
    char state[16] = "";
    uint32_t max = request->max == 0 ? DEFAULT_EVENTS : request->max;
    int r = queue_events(q, request->job_id, request->after,
                         (int)(max < MAX_EVENTS ? max : MAX_EVENTS), wait_ms, &events, &n, err);
    if (r < 0)
        return r;
    r = append_events(reply, events, n, err);
    events_free(events, n);
    if (r == 0)
        r = read_state(q, request->job_id, state, err);
    return r == 0 ? message_set(&reply->state, state, err) : r;
}

static int watch(struct front *f, struct queue *q, const struct rpc_call *call,
                 const Hone__V1__WatchRequest *request, Hone__V1__WatchResponse *reply,
                 struct err *err)
{
    int64_t wait_ms = request->wait_ms < MAX_WAIT_MS ? request->wait_ms : MAX_WAIT_MS;
    int64_t until = clock_now_ns(NULL) + wait_ms * 1000000;
    int r = read_once(q, request, 0, reply, err); /* NOT_FOUND at once; most have events */
    bool waits = r == 0 && wait_ms > 0 && front_wait_begin(f);
    while (r == 0 && waits && reply->n_events == 0 && strcmp(reply->state, "running") == 0 &&
           clock_now_ns(NULL) < until && !rpc_call_is_over(call)) {
        int64_t left = (until - clock_now_ns(NULL)) / 1000000;
        r = read_once(q, request, left < SLICE_MS ? left + 1 : SLICE_MS, reply, err);
    }
    if (waits)
        front_wait_end(f);
    return r;
}

int front_watch(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                ProtobufCMessage **ret_reply, struct err *err)
{
    const Hone__V1__WatchRequest *w = (const Hone__V1__WatchRequest *)request;
    struct queue *q = NULL;
    int r = spec_check_id(w->job_id, err);
    if (r < 0)
        return r;
    if (strspn(w->after, "0123456789-") != strlen(w->after) || strlen(w->after) > 31)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.40s' is no event's id", w->after);
    _cleanup_(message_freep) Hone__V1__WatchResponse *reply =
        message_new(&hone__v1__watch_response__descriptor, err);
    if (!reply)
        return -ERR_RESOURCE_EXHAUSTED;
    r = front_queue_take(ctx, &q, err);
    if (r < 0)
        return r;
    r = watch(ctx, q, call, w, reply, err);
    front_queue_give(ctx, q);
    if (r == 0)
        *ret_reply = (ProtobufCMessage *)TAKE_PTR(reply);
    return r;
}
