/* What handlers are given and what they give back. */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/rpc/rpc.h"
#include "shared/work/internal.h"

/* Deep enough for every message of proto/, shallow enough for any stack. */
#define MESSAGE_DEPTH 32

static void spec_release(struct task_spec *spec)
{
    free((char *)spec->queue);
    free((char *)spec->kind);
    free((void *)spec->payload);
    *spec = (struct task_spec){0};
}

void output_release(struct work_output *out)
{
    for (int i = 0; i < out->n_tasks; i++)
        spec_release(&out->tasks[i]);
    free(out->tasks);
    if (out->continuation)
        spec_release(out->continuation);
    free(out->continuation);
    free(out->result);
    *out = (struct work_output){0};
}

static int make_spec(struct task_spec *ret, const char *queue, const char *kind,
                     const void *payload, size_t bytes, int max_deliveries, struct err *err)
{
    char *copy = malloc(bytes + 1);
    struct task_spec spec = {.queue = strdup(queue),
                             .kind = strdup(kind),
                             .payload = copy,
                             .payload_bytes = bytes,
                             .max_deliveries = max_deliveries};
    if (!copy || !spec.queue || !spec.kind) {
        spec_release(&spec);
        return err_oom(err, "a follow-up task");
    }
    if (bytes)
        memcpy(copy, payload, bytes);
    *ret = spec;
    return 0;
}

int output_follow(struct work_output *out, const char *queue, const char *kind, const void *payload,
                  size_t bytes, int max_deliveries, struct err *err)
{
    struct task_spec *tasks = mem_realloc(out->tasks, (size_t)out->n_tasks + 1, sizeof(*tasks));
    if (!tasks)
        return err_oom(err, "a follow-up task");
    out->tasks = tasks;
    int r = make_spec(&tasks[out->n_tasks], queue, kind, payload, bytes, max_deliveries, err);
    if (r < 0)
        return r;
    out->n_tasks++;
    return 0;
}

int output_continue(struct work_output *out, const char *queue, const char *kind,
                    const void *payload, size_t bytes, int max_deliveries, struct err *err)
{
    if (out->continuation)
        return err_set(err, ERR_INTERNAL, "a task has one continuation only");
    struct task_spec *spec = calloc(1, sizeof(*spec));
    if (!spec)
        return err_oom(err, "a continuation");
    int r = make_spec(spec, queue, kind, payload, bytes, max_deliveries, err);
    if (r < 0)
        free(spec);
    else
        out->continuation = spec;
    return r;
}

static int pack(const ProtobufCMessage *message, void **ret, size_t *ret_bytes, struct err *err)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *data = malloc(bytes + 1);
    if (!data)
        return err_oom(err, message->descriptor->name);
    protobuf_c_message_pack(message, data);
    *ret = data;
    *ret_bytes = bytes;
    return 0;
}

int work_result(struct work_output *out, const ProtobufCMessage *message, struct err *err)
{
    void *data = NULL;
    size_t bytes = 0;
    int r = pack(message, &data, &bytes, err);
    if (r < 0)
        return r;
    free(out->result);
    out->result = data;
    out->result_bytes = bytes;
    return 0;
}

int work_follow(struct work_output *out, const char *queue, const char *kind,
                const ProtobufCMessage *payload, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r = pack(payload, &data, &bytes, err);
    return r < 0 ? r : output_follow(out, queue, kind, data, bytes, 0, err);
}

int work_continue(struct work_output *out, const char *queue, const char *kind,
                  const ProtobufCMessage *payload, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r = pack(payload, &data, &bytes, err);
    return r < 0 ? r : output_continue(out, queue, kind, data, bytes, 0, err);
}

static int unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
                  ProtobufCMessage **ret, struct err *err)
{
    int r = rpc_check_message(type, data, bytes, MESSAGE_DEPTH, err);
    if (r < 0)
        return r;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, bytes, data);
    if (!message)
        return err_set(err, ERR_INVALID_ARGUMENT, "not a %s", type->name);
    *ret = message;
    return 0;
}

int work_payload(const struct work_task *task, const ProtobufCMessageDescriptor *type,
                 ProtobufCMessage **ret, struct err *err)
{
    struct err why = {0};
    int r = unpack(type, task->task->payload, task->task->payload_bytes, ret, &why);
    if (r < 0)
        return err_set(err, (enum err_code) - r, "the payload of %s: %s", task->task->kind,
                       why.message);
    return 0;
}

int work_group_result(const struct work_task *task, int i, const ProtobufCMessageDescriptor *type,
                      ProtobufCMessage **ret, struct err *err)
{
    const struct task *t = task->task;
    struct err why = {0};
    if (i < 0 || i >= t->n_results)
        return err_set(err, ERR_OUT_OF_RANGE, "result %d of a group of %d", i, t->n_results);
    if (!t->results[i])
        return err_set(err, ERR_FAILED_PRECONDITION, "%s", t->failures[i]);
    int r = unpack(type, t->results[i], t->result_bytes[i], ret, &why);
    if (r < 0)
        return err_set(err, (enum err_code) - r, "result %d of the group: %s", i, why.message);
    return 0;
}

bool work_is_permanent(int code)
{
    switch (code < 0 ? -code : code) {
    case ERR_INVALID_ARGUMENT:
    case ERR_UNIMPLEMENTED:
    case ERR_FAILED_PRECONDITION:
    case ERR_NOT_FOUND:
    case ERR_OUT_OF_RANGE:
        return true;
    default:
        return false;
    }
}
