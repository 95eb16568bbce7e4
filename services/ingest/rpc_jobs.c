/* Get, List, Cancel: what is known of jobs. */
#include <stdlib.h>
#include <string.h>

#include "services/ingest/ingest.h"
#include "shared/base/mem.h"
#include "shared/work/message.h"
#include "shared/work/so_far.h"

#define DEFAULT_LIST 50
#define MAX_LIST 1000

static int fill_view(Hone__V1__JobView *view, const struct job_info *job, struct err *err)
{
    view->created_ms = job->created_ms;
    view->ended_ms = job->ended_ms;
    view->away_ms = job->away_ms;
    int r = message_set(&view->job_id, job->id, err);
    if (r == 0)
        r = message_set(&view->state, job->state, err);
    if (r == 0)
        r = message_set(&view->title, job->title, err);
    if (r == 0)
        r = message_set(&view->error, job->error, err);
    if (r == 0 && job->spec)
        r = rpc_unpack(&hone__v1__job_spec__descriptor, job->spec, job->spec_bytes,
                       (ProtobufCMessage **)&view->spec, err);
    if (r == 0 && job->result && strcmp(job->state, "succeeded") == 0)
        r = rpc_unpack(&hone__v1__job_result__descriptor, job->result, job->result_bytes,
                       (ProtobufCMessage **)&view->result, err);
    return r < 0 ? err_wrap(err, "job %s", job->id) : 0;
}

static int make_view(const struct job_info *job, Hone__V1__JobView **ret, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__JobView *view =
        message_new(&hone__v1__job_view__descriptor, err);
    if (!view)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = fill_view(view, job, err);
    if (r == 0)
        *ret = TAKE_PTR(view);
    return r;
}

/* With the result, or what the job has reached so far. */
static int view_of(struct front *f, struct queue *q, const char *id, ProtobufCMessage **ret_reply,
                   struct err *err)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    _cleanup_(message_freep) Hone__V1__JobView *view = NULL;
    int r = queue_job_get(q, id, &job, err);
    if (r == 0)
        r = make_view(&job, &view, err);
    if (r == 0 && !view->result)
        r = so_far_get(front_store(f), id, &view->result, err);
    if (r == 0)
        *ret_reply = (ProtobufCMessage *)TAKE_PTR(view);
    return r;
}

int front_get(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
              ProtobufCMessage **ret_reply, struct err *err)
{
    (void)call;
    const char *id = ((const Hone__V1__GetRequest *)request)->job_id;
    struct queue *q = NULL;
    int r = spec_check_id(id, err);
    if (r == 0)
        r = front_queue_take(ctx, &q, err);
    if (r < 0)
        return r;
    r = view_of(ctx, q, id, ret_reply, err);
    front_queue_give(ctx, q);
    return r;
}

int front_cancel(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                 ProtobufCMessage **ret_reply, struct err *err)
{
    (void)call;
    const char *id = ((const Hone__V1__CancelRequest *)request)->job_id;
    struct queue *q = NULL;
    int r = spec_check_id(id, err);
    if (r == 0)
        r = front_queue_take(ctx, &q, err);
    if (r < 0)
        return r;
    r = queue_job_cancel(q, id, err);
    if (r == 0)
        r = view_of(ctx, q, id, ret_reply, err);
    front_queue_give(ctx, q);
    return r;
}

static int make_list(struct job_info *jobs, int n, ProtobufCMessage **ret_reply, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__ListResponse *list =
        message_new(&hone__v1__list_response__descriptor, err);
    if (!list)
        return -ERR_RESOURCE_EXHAUSTED;
    for (int i = 0; i < n; i++) {
        _cleanup_(message_freep) Hone__V1__JobView *view = NULL;
        int r = make_view(&jobs[i], &view, err);
        if (r == 0)
            r = message_append(&list->jobs, &list->n_jobs, view, err);
        if (r < 0)
            return r;
        view = NULL;
    }
    *ret_reply = (ProtobufCMessage *)TAKE_PTR(list);
    return 0;
}

int front_list(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
               ProtobufCMessage **ret_reply, struct err *err)
{
    (void)call;
    uint32_t max = ((const Hone__V1__ListRequest *)request)->max;
    max = max == 0 ? DEFAULT_LIST : max > MAX_LIST ? MAX_LIST : max;
    struct queue *q = NULL;
    int r = front_queue_take(ctx, &q, err);
    if (r < 0)
        return r;
    struct job_info *jobs = NULL;
    int n = 0;
    r = queue_job_list(q, (int)max, &jobs, &n, err);
    front_queue_give(ctx, q);
    if (r < 0)
        return r;
    r = make_list(jobs, n, ret_reply, err);
    for (int i = 0; i < n; i++)
        job_info_release(&jobs[i]);
    free(jobs);
    return r;
}
