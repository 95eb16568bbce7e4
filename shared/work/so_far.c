#include "shared/work/so_far.h"

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/message.h"

#define STATE_VERSION 1

static int put(struct store *store, const char *job, const char *what, const void *message,
               struct err *err)
{
    _cleanup_(freep) char *path = str_printf("jobs/%s/%s", job, what);
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    if (!path)
        return err_oom(err, "the result so far");
    int r = message_pack(message, &data, &bytes, err);
    return r < 0 ? r : store_record_put(store, path, data, bytes, err);
}

static int get(struct store *store, const char *job, const char *what,
               const ProtobufCMessageDescriptor *type, void *ret, struct err *err)
{
    _cleanup_(freep) char *path = str_printf("jobs/%s/%s", job, what);
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct err why = {0};
    if (!path)
        return err_oom(err, "the result so far");
    int r = store_record_get(store, path, MESSAGE_MAX_BYTES, &data, &bytes, &why);
    if (r == -ERR_NOT_FOUND)
        return 0;
    if (r < 0)
        return err_set(err, why.code, "%s", why.message);
    return message_unpack(type, data, bytes, ret, err);
}

int so_far_put(struct store *store, const char *job, const Hone__V1__JobResult *result,
               struct err *err)
{
    return put(store, job, "result", result, err);
}

int so_far_get(struct store *store, const char *job, Hone__V1__JobResult **ret, struct err *err)
{
    *ret = NULL;
    return get(store, job, "result", &hone__v1__job_result__descriptor, ret, err);
}

int so_far_put_state(struct store *store, const char *job, const Hone__V1__JobState *state,
                     const Hone__V1__JobSpec *asked, const Hone__V1__JobRecord *opened,
                     double elapsed_s, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__JobRecord *before = NULL;
    Hone__V1__JobRecord record = HONE__V1__JOB_RECORD__INIT;
    int r = so_far_get_state(store, job, &before, err);
    if (r < 0)
        return r;
    record.version = STATE_VERSION;
    record.state = (Hone__V1__JobState *)state;
    record.asked = (Hone__V1__JobSpec *)asked;
    record.openings = opened ? opened->openings : NULL;
    record.n_openings = opened ? opened->n_openings : 0;
    const bool prepared = state->taken && !*state->taken->target;
    record.prepared_s = prepared ? state->taken->prepared_s
                        : before ? before->prepared_s
                                 : elapsed_s;
    return put(store, job, "state", &record, err);
}

int so_far_get_state(struct store *store, const char *job, Hone__V1__JobRecord **ret,
                     struct err *err)
{
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    *ret = NULL;
    int r = get(store, job, "state", &hone__v1__job_record__descriptor, &record, err);
    if (r < 0 || !record)
        return r;
    if (record->version != STATE_VERSION || !record->state || !record->asked)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "job %s: its state was recorded by another version of Hone", job);
    *ret = TAKE_PTR(record);
    return 0;
}
