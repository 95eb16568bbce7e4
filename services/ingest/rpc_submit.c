/* Submit: a checked spec becomes a record in the store and a job with its first task. */
#include <stdlib.h>
#include <string.h>

#include "hone/v1/tasks.pb-c.h"
#include "services/ingest/refine.h"
#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/message.h"

static int write_record(struct front *f, const char *id, const Hone__V1__JobSpec *spec,
                        struct err *err)
{
    _cleanup_(freep) char *path = str_printf("jobs/%s/job.json", id);
    _cleanup_(freep) char *text = spec_record(id, spec, clock_wall_ms());
    if (!path || !text)
        return err_oom(err, "job record");
    return store_record_put(front_store(f), path, text, strlen(text), err);
}

/* The same Submit again gives the same job; another one must not take its id. */
static int check_same(struct queue *q, const char *id, const void *spec, size_t bytes,
                      struct err *err)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    int r = queue_job_get(q, id, &job, err);
    if (r < 0)
        return r;
    if (job.spec_bytes == bytes && memcmp(job.spec, spec, bytes) == 0)
        return 0;
    return err_set(err, ERR_ALREADY_EXISTS, "job %s: there is another one with this id", id);
}

/* The first task, whose payload is the caller's: of a job that refines another one `from` is where
 * that one stood, else NULL. */
static int first_task(const Hone__V1__JobSpec *spec, Hone__V1__JobState *from,
                      struct task_spec *ret, void **ret_payload, struct err *err)
{
    Hone__V1__JobState state = HONE__V1__JOB_STATE__INIT;
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    /* The budget stays with the job: stages give the same whatever time they are allowed. So does
     * what may change, until more than the precision is about to. */
    Hone__V1__JobSpec timeless = *spec;
    timeless.budget_s = 0;
    timeless.space = (char *)"";
    state.version = 1;
    state.spec = &timeless;
    task.state = from ? from : &state;
    *ret = (struct task_spec){.queue = from ? "synthesizer" : "ingest",
                              .kind = from ? "refine" : "prepare"};
    int r = rpc_pack(&task.base, ret_payload, &ret->payload_bytes, err);
    ret->payload = *ret_payload;
    return r;
}

static int create_job(struct front *f, struct queue *q, const char *id,
                      const Hone__V1__JobSpec *spec, Hone__V1__JobState *from, struct err *err)
{
    _cleanup_(freep) void *packed = NULL;
    _cleanup_(freep) void *payload = NULL;
    size_t packed_bytes = 0;
    struct task_spec first;
    int r = rpc_pack(&spec->base, &packed, &packed_bytes, err);
    if (r == 0)
        r = first_task(spec, from, &first, &payload, err);
    if (r < 0)
        return r;
    struct job_info known = {0};
    r = queue_job_get(q, id, &known, err);
    job_info_release(&known);
    if (r == 0)
        return check_same(q, id, packed, packed_bytes, err);
    if (r != -ERR_NOT_FOUND)
        return r;
    /* The record first: a job that Redis knows can always be rebuilt. */
    r = write_record(f, id, spec, err);
    if (r < 0)
        return err_wrap(err, "job %s", id);
    r = queue_job_create(q, id, spec->title, packed, packed_bytes, &first, err);
    return r == -ERR_ALREADY_EXISTS ? check_same(q, id, packed, packed_bytes, err) : r;
}

int front_submit(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                 ProtobufCMessage **ret_reply, struct err *err)
{
    (void)call;
    struct front *f = ctx;
    const Hone__V1__SubmitRequest *submit = (const Hone__V1__SubmitRequest *)request;
    if (!submit->spec)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s", "Submit without a spec");
    int r = spec_check_id(submit->job_id, err);
    if (r < 0)
        return r;
    _cleanup_(message_freep) Hone__V1__JobSpec *spec = message_clone(submit->spec, err);
    if (!spec)
        return -ERR_RESOURCE_EXHAUSTED;
    struct queue *q = NULL;
    const uint32_t threads = spec->threads;
    if (!*spec->refines)
        r = spec_complete(spec, front_target(f), err);
    if (r == 0)
        r = front_queue_take(f, &q, err);
    if (r < 0)
        return r;
    _cleanup_(message_freep) Hone__V1__JobState *from = NULL;
    if (*spec->refines)
        r = refine_take(front_store(f), q, spec, &from, err);
    else if (threads == 0)
        r = spec_fill_threads(q, spec, err);
    if (r == 0)
        r = create_job(f, q, submit->job_id, spec, from, err);
    front_queue_give(f, q);
    if (r < 0)
        return r;
    _cleanup_(message_freep) Hone__V1__SubmitResponse *reply =
        message_new(&hone__v1__submit_response__descriptor, err);
    if (!reply || message_set(&reply->job_id, submit->job_id, err) < 0)
        return -ERR_RESOURCE_EXHAUSTED;
    *ret_reply = (ProtobufCMessage *)TAKE_PTR(reply);
    return 0;
}
