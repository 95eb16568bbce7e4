#pragma once
/* A job of one task for a service, whose result comes back to the test. */
#include "shared/work/message.h"
#include "tests/support/redis_work.h"

#define ASK_OK(on, call)                                                                           \
    do {                                                                                           \
        struct err *err = &(on)->err;                                                              \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, err->message);                                               \
    } while (0)

static inline struct task *ask_claim(struct on_redis *on)
{
    const char *const queues[] = {"tester"};
    struct task *task = NULL;
    ASK_OK(on, queue_claim(on->q, queues, 1, "test", 600000, 120000, &task, err));
    assert_non_null(task);
    return task;
}

/* The message is the task's payload. */
static inline void ask_put(struct on_redis *on, const char *job, const char *queue,
                           const char *kind, const void *message)
{
    _cleanup_(freep) void *payload = NULL;
    size_t bytes = 0;
    job_put(on, job, "begin", "");
    _cleanup_(task_freep) struct task *task = ask_claim(on);
    ASK_OK(on, message_pack(message, &payload, &bytes, err));
    const struct task_spec asked = {
        .queue = queue, .kind = kind, .payload = payload, .payload_bytes = bytes};
    const struct task_spec last = {.queue = "tester", .kind = "end", .payload = ""};
    const struct follow follow = {.tasks = &asked, .n_tasks = 1, .continuation = &last};
    ASK_OK(on, queue_complete(on->q, task, "", 0, &follow, err));
}

/* The result, freed by the caller. */
static inline void *ask_get(struct on_redis *on, const ProtobufCMessageDescriptor *type)
{
    _cleanup_(task_freep) struct task *task = ask_claim(on);
    void *message = NULL;
    assert_int_equal(task->n_results, 1);
    if (!task->results[0])
        fail_msg("%s", task->failures[0]);
    ASK_OK(on, message_unpack(type, task->results[0], task->result_bytes[0], &message, err));
    ASK_OK(on, queue_job_finish(on->q, task, "", 0, err));
    return message;
}
