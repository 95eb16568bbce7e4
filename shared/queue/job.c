/* Jobs: create, look up, list, cancel. */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/base/utf8.h"
#include "shared/queue/internal.h"

/* A task's id is its job's, '-' and a number: there must be room. */
#define JOB_ID_MAX 48
#define MAX_DELIVERIES 4 /* unless the task says otherwise */

void job_info_release(struct job_info *info)
{
    free(info->spec);
    free(info->result);
    *info = (struct job_info){0};
}

int task_spec_args(struct args *args, const struct task_spec *spec, struct err *err)
{
    int r = check_queue_name(spec->queue, err);
    if (r == 0)
        r = check_id("kind", spec->kind, sizeof(((struct task *)0)->kind) - 1, err);
    if (r == 0)
        r = check_size("a payload", spec->payload_bytes, err);
    if (r < 0)
        return r;
    if (spec->max_deliveries < 0 || spec->max_deliveries > 99)
        return err_set(err, ERR_INVALID_ARGUMENT, "max_deliveries %d is not 0 to 99",
                       spec->max_deliveries);
    args_text(args, spec->queue);
    args_text(args, spec->kind);
    args_bytes(args, spec->payload, spec->payload_bytes);
    args_number(args, spec->max_deliveries ? spec->max_deliveries : MAX_DELIVERIES);
    return 0;
}

int queue_job_create(struct queue *q, const char *id, const char *title, const void *spec,
                     size_t spec_bytes, const struct task_spec *first, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    char clean[sizeof(((struct job_info *)0)->title)], nonce[33];
    int r = check_id("job", id, JOB_ID_MAX, err);
    if (r == 0)
        r = check_size("a job's spec", spec_bytes, err);
    if (r < 0)
        return r;
    utf8_copy(clean, sizeof(clean), title);
    queue_nonce(q, nonce);
    queue_script_args(q, SCRIPT_JOB_CREATE, &args);
    args_text(&args, id);
    args_text(&args, clean);
    args_bytes(&args, spec, spec_bytes);
    args_text(&args, nonce);
    r = task_spec_args(&args, first, err);
    return r < 0 ? r : queue_run(q, SCRIPT_JOB_CREATE, &args, 1, &reply, err);
}

static int read_job(const redisReply *fields, struct job_info *ret, struct err *err)
{
    struct job_info job = {0};
    str_copy(job.id, sizeof(job.id), item_text(fields, 0));
    str_copy(job.state, sizeof(job.state), item_text(fields, 1));
    utf8_copy(job.title, sizeof(job.title), item_text(fields, 2));
    utf8_copy(job.error, sizeof(job.error), item_text(fields, 3));
    job.created_ms = item_number(fields, 4);
    job.updated_ms = item_number(fields, 5);
    job.ended_ms = item_number(fields, 6);
    job.tasks_open = (int)item_number(fields, 7);
    job.away_ms = item_number(fields, 8);
    int r = item_copy(fields, 9, &job.spec, &job.spec_bytes, err);
    if (r == 0)
        r = item_copy(fields, 10, &job.result, &job.result_bytes, err);
    if (r < 0) {
        job_info_release(&job);
        return r;
    }
    *ret = job;
    return 0;
}

int queue_job_get(struct queue *q, const char *id, struct job_info *ret, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = check_id("job", id, JOB_ID_MAX, err);
    if (r < 0)
        return r;
    queue_script_args(q, SCRIPT_JOB_GET, &args);
    args_text(&args, "1");
    args_text(&args, id);
    r = queue_run(q, SCRIPT_JOB_GET, &args, 2, &reply, err);
    return r < 0 ? r : read_job(reply->element[1], ret, err);
}

int queue_job_list(struct queue *q, int max, struct job_info **ret, int *ret_n, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    if (max < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "a list of %d jobs", max);
    queue_script_args(q, SCRIPT_JOB_GET, &args);
    args_text(&args, "0");
    args_text(&args, "");
    args_number(&args, max);
    int r = queue_run(q, SCRIPT_JOB_GET, &args, 1, &reply, err);
    if (r < 0)
        return r;
    int n = (int)reply->elements - 1;
    _cleanup_(freep) struct job_info *jobs = mem_calloc((size_t)n, sizeof(*jobs));
    if (!jobs)
        return err_oom(err, "a list of jobs");
    for (int i = 0; i < n; i++) {
        r = read_job(reply->element[i + 1], &jobs[i], err);
        if (r < 0) {
            while (i-- > 0)
                job_info_release(&jobs[i]);
            return r;
        }
        freep(&jobs[i].spec);
        freep(&jobs[i].result);
    }
    *ret = TAKE_PTR(jobs);
    *ret_n = n;
    return 0;
}

int queue_job_cancel(struct queue *q, const char *id, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = check_id("job", id, JOB_ID_MAX, err);
    if (r < 0)
        return r;
    queue_script_args(q, SCRIPT_JOB_CANCEL, &args);
    args_text(&args, id);
    return queue_run(q, SCRIPT_JOB_CANCEL, &args, 1, &reply, err);
}

int queue_running_jobs(struct queue *q, int64_t *ret, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    _cleanup_(freep) char *key = queue_key(q, "running", "");
    if (!key)
        return err_oom(err, "a key");
    args_text(&args, "SCARD");
    args_text(&args, key);
    int r = queue_command(q, &args, 0, &reply, err);
    if (r < 0)
        return r;
    *ret = reply->integer;
    return 0;
}
