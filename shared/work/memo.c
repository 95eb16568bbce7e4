/* What a task gave, remembered under the hash of all that it was given. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hone/v1/work.pb-c.h"
#include "shared/base/mem.h"
#include "shared/rpc/rpc.h"
#include "shared/work/internal.h"

/* Length first: two different lists of parts never give the same bytes. */
static void add_part(struct hash *hash, const void *data, size_t bytes)
{
    char length[32];
    snprintf(length, sizeof(length), "%zu:", bytes);
    hash_add(hash, length, strlen(length));
    hash_add(hash, data, bytes);
}

static void add_text(struct hash *hash, const char *text)
{
    add_part(hash, text, strlen(text));
}

int memo_key(const struct work *work, const struct work_kind *kind, const struct task *task,
             char key[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(hash_freep) struct hash *hash = hash_new();
    char version[32];
    if (!hash)
        return err_oom(err, "a hash");
    snprintf(version, sizeof(version), "%d", kind->version);
    add_text(hash, "hone memo 1");
    /* artifacts that it names must be in the store where they are looked for */
    add_text(hash, work->store_id);
    add_text(hash, work->config->service);
    add_text(hash, kind->kind);
    add_text(hash, version);
    add_part(hash, task->payload, task->payload_bytes);
    for (int i = 0; i < task->n_results; i++) {
        /* why a task failed may be told in other words the next time: that it failed counts */
        add_text(hash, task->results[i] ? "result" : "none");
        add_part(hash, task->results[i] ? task->results[i] : "", task->result_bytes[i]);
    }
    hash_hex(hash, key);
    return 0;
}

static void fill_task(Hone__V1__Memo__Task *to, const struct task_spec *from)
{
    hone__v1__memo__task__init(to);
    to->queue = (char *)from->queue;
    to->kind = (char *)from->kind;
    to->payload = (ProtobufCBinaryData){from->payload_bytes, (uint8_t *)from->payload};
    to->max_deliveries = from->max_deliveries;
}

int memo_pack(const struct work_output *out, const struct event_record *events, size_t n_events,
              void **ret, size_t *ret_bytes, struct err *err)
{
    size_t n = (size_t)out->n_tasks;
    Hone__V1__Memo memo = HONE__V1__MEMO__INIT;
    Hone__V1__Memo__Task continuation;
    _cleanup_(freep) Hone__V1__Memo__Task *tasks = mem_calloc(n, sizeof(*tasks));
    _cleanup_(freep) Hone__V1__Memo__Task **task_pointers = mem_calloc(n, sizeof(*task_pointers));
    _cleanup_(freep) Hone__V1__Memo__Event *list = mem_calloc(n_events, sizeof(*list));
    _cleanup_(freep) Hone__V1__Memo__Event **event_pointers =
        mem_calloc(n_events, sizeof(*event_pointers));
    if (!tasks || !task_pointers || !list || !event_pointers)
        return err_oom(err, "a memo");
    for (size_t i = 0; i < n; i++) {
        fill_task(&tasks[i], &out->tasks[i]);
        task_pointers[i] = &tasks[i];
    }
    for (size_t i = 0; i < n_events; i++) {
        hone__v1__memo__event__init(&list[i]);
        list[i].type = events[i].type;
        list[i].fields = events[i].fields;
        event_pointers[i] = &list[i];
    }
    memo.result = (ProtobufCBinaryData){out->result_bytes, out->result};
    memo.n_tasks = n;
    memo.tasks = task_pointers;
    memo.n_events = n_events;
    memo.events = event_pointers;
    memo.finish_job = out->finish_job;
    if (out->continuation) {
        fill_task(&continuation, out->continuation);
        memo.continuation = &continuation;
    }
    size_t bytes = hone__v1__memo__get_packed_size(&memo);
    uint8_t *data = malloc(bytes + 1);
    if (!data)
        return err_oom(err, "a memo");
    hone__v1__memo__pack(&memo, data);
    *ret = data;
    *ret_bytes = bytes;
    return 0;
}

void records_free(struct event_record *records, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        free(records[i].type);
        free(records[i].fields);
    }
    free(records);
}

static int copy_output(const Hone__V1__Memo *memo, struct work_output *out, struct err *err)
{
    out->finish_job = memo->finish_job;
    out->result_bytes = memo->result.len;
    out->result = malloc(memo->result.len + 1);
    if (!out->result)
        return err_oom(err, "a memo");
    if (memo->result.len)
        memcpy(out->result, memo->result.data, memo->result.len);
    int r = 0;
    for (size_t i = 0; i < memo->n_tasks && r == 0; i++) {
        const Hone__V1__Memo__Task *t = memo->tasks[i];
        r = output_follow(out, t->queue, t->kind, t->payload.data, t->payload.len,
                          t->max_deliveries, err);
    }
    const Hone__V1__Memo__Task *c = memo->continuation;
    if (r == 0 && c)
        r = output_continue(out, c->queue, c->kind, c->payload.data, c->payload.len,
                            c->max_deliveries, err);
    return r;
}

static int copy_events(const Hone__V1__Memo *memo, struct event_record **ret, size_t *ret_n,
                       struct err *err)
{
    size_t n = memo->n_events;
    struct event_record *records = mem_calloc(n, sizeof(*records));
    bool failed = !records;
    for (size_t i = 0; i < n && !failed; i++) {
        records[i].type = strdup(memo->events[i]->type);
        records[i].fields = strdup(memo->events[i]->fields);
        failed = !records[i].type || !records[i].fields;
    }
    if (failed) {
        if (records)
            records_free(records, n);
        return err_oom(err, "a memo");
    }
    *ret = records;
    *ret_n = n;
    return 0;
}

int memo_unpack(const void *data, size_t bytes, struct work_output *out,
                struct event_record **ret_events, size_t *ret_n, struct err *err)
{
    int r = rpc_check_message(&hone__v1__memo__descriptor, data, bytes, 4, err);
    if (r < 0)
        return r;
    Hone__V1__Memo *memo = hone__v1__memo__unpack(NULL, bytes, data);
    if (!memo)
        return err_set(err, ERR_DATA_LOSS, "what was remembered cannot be read");
    struct work_output copy = {0};
    r = copy_output(memo, &copy, err);
    if (r == 0)
        r = copy_events(memo, ret_events, ret_n, err);
    hone__v1__memo__free_unpacked(memo, NULL);
    if (r < 0)
        output_release(&copy);
    else
        *out = copy;
    return r;
}
