#include "shared/work/so_far.h"

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/message.h"

static char *path_of(const char *job)
{
    return str_printf("jobs/%s/result", job);
}

int so_far_put(struct store *store, const char *job, const Hone__V1__JobResult *result,
               struct err *err)
{
    _cleanup_(freep) char *path = path_of(job);
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    if (!path)
        return err_oom(err, "the result so far");
    int r = message_pack(result, &data, &bytes, err);
    return r < 0 ? r : store_record_put(store, path, data, bytes, err);
}

int so_far_get(struct store *store, const char *job, Hone__V1__JobResult **ret, struct err *err)
{
    _cleanup_(freep) char *path = path_of(job);
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct err why = {0};
    *ret = NULL;
    if (!path)
        return err_oom(err, "the result so far");
    int r = store_record_get(store, path, MESSAGE_MAX_BYTES, &data, &bytes, &why);
    if (r == -ERR_NOT_FOUND)
        return 0;
    if (r < 0)
        return err_set(err, why.code, "%s", why.message);
    return message_unpack(&hone__v1__job_result__descriptor, data, bytes, ret, err);
}
