/* Tasks of one queue: claim, complete, fail, release, leases, epochs. */
#include "tests/support/redis_both.h"

#include <string.h>

#include "shared/base/mem.h"

static const struct task_spec first = {
    .queue = "q", .kind = "start", .payload = "one", .payload_bytes = 3};

static void create(struct on_redis *on, const char *job)
{
    assert_int_equal(queue_job_create(on->q, job, "a job", "spec", 4, &first, &on->err), 0);
}

static struct task *claim_from(struct on_redis *on, const char *queue, int64_t lease_ms,
                               int64_t wait_ms)
{
    struct task *task = NULL;
    int r = queue_claim(on->q, &queue, 1, "w1", lease_ms, wait_ms, &task, &on->err);
    if (r < 0)
        fail_msg("%s", on->err.message);
    return task;
}

static struct task *claim(struct on_redis *on)
{
    return claim_from(on, "q", 60000, 0);
}

static void depth_is(struct on_redis *on, const char *queue, int ready, int leased, int delayed)
{
    struct queue_depth d;
    assert_int_equal(queue_depth(on->q, queue, &d, &on->err), 0);
    assert_int_equal(d.ready, ready);
    assert_int_equal(d.leased, leased);
    assert_int_equal(d.delayed, delayed);
}

static void job_is(struct on_redis *on, const char *id, const char *state, const char *error)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, id, &job, &on->err), 0);
    assert_string_equal(job.state, state);
    assert_string_equal(job.error, error);
}

static int complete(struct on_redis *on, const struct task *task, const struct follow *follow)
{
    return queue_complete(on->q, task, "r", 1, follow, &on->err);
}

static void a_claim_gives_the_task_as_it_was_put(void **state)
{
    struct on_redis *on = *state;
    static const char payload[] = "a\0b\r\n\xff";
    struct task_spec spec = {.queue = "profiler:cpu-avx512_core_vnni-1t",
                             .kind = "measure",
                             .payload = payload,
                             .payload_bytes = sizeof(payload)};
    assert_int_equal(queue_job_create(on->q, "J1", "t", "", 0, &spec, &on->err), 0);
    _cleanup_(task_freep) struct task *task = claim_from(on, spec.queue, 60000, 0);
    assert_non_null(task);
    assert_string_equal(task->job, "J1");
    assert_string_equal(task->queue, spec.queue);
    assert_string_equal(task->kind, "measure");
    assert_int_equal(task->delivery, 1);
    assert_int_equal(task->n_results, 0);
    assert_int_equal(task->payload_bytes, sizeof(payload));
    assert_memory_equal(task->payload, payload, sizeof(payload));
}

static void an_empty_queue_gives_no_task(void **state)
{
    struct on_redis *on = *state;
    assert_null(claim_from(on, "q", 1000, 0));
    assert_null(claim_from(on, "q", 1000, 1));
}

static void a_leased_task_is_not_given_twice(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_non_null(task);
    assert_null(claim(on));
    depth_is(on, "q", 0, 1, 0);
}

static void tasks_come_in_the_order_they_were_put(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    create(on, "J2");
    _cleanup_(task_freep) struct task *a = claim(on);
    _cleanup_(task_freep) struct task *b = claim(on);
    assert_string_equal(a->job, "J1");
    assert_string_equal(b->job, "J2");
}

static void the_first_queue_of_a_claim_goes_first(void **state)
{
    struct on_redis *on = *state;
    struct task_spec low = {.queue = "low", .kind = "k"}, high = {.queue = "high", .kind = "k"};
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &low, &on->err), 0);
    assert_int_equal(queue_job_create(on->q, "J2", "", "", 0, &high, &on->err), 0);
    static const char *const queues[] = {"high", "low"};
    _cleanup_(task_freep) struct task *a = NULL, *b = NULL;
    assert_int_equal(queue_claim(on->q, queues, 2, "w", 60000, 0, &a, &on->err), 0);
    assert_int_equal(queue_claim(on->q, queues, 2, "w", 60000, 0, &b, &on->err), 0);
    assert_string_equal(a->queue, "high");
    assert_string_equal(b->queue, "low");
}

static void a_completed_task_is_gone(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    struct task_spec next = {.queue = "other", .kind = "k"};
    struct follow follow = {.tasks = &next, .n_tasks = 1};
    assert_int_equal(complete(on, task, &follow), 0);
    depth_is(on, "q", 0, 0, 0);
    depth_is(on, "other", 1, 0, 0);
    assert_int_equal(test_redis_number(&on->redis, "XLEN {test}:queue:q"), 0);
    job_is(on, "J1", "running", "");
}

/* What an autoscaler reads from the stream. */
static void stream_says(struct on_redis *on, int lag, int pending)
{
    static const char line[] =
        "EVAL \"local g = redis.call('XINFO','GROUPS','{test}:queue:q')[1] "
        "for i = 1, #g, 2 do if g[i] == '%s' then return g[i + 1] end end\" 0";
    char text[256];
    snprintf(text, sizeof(text), line, "lag");
    assert_int_equal(test_redis_number(&on->redis, text), lag);
    snprintf(text, sizeof(text), line, "pending");
    assert_int_equal(test_redis_number(&on->redis, text), pending);
}

static void the_stream_knows_how_many_wait_and_are_worked_on(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    create(on, "J2");
    create(on, "J3");
    stream_says(on, 3, 0);
    _cleanup_(task_freep) struct task *a = claim(on), *b = claim(on);
    stream_says(on, 1, 2);
    assert_int_equal(queue_job_finish(on->q, a, "", 0, &on->err), 0);
    stream_says(on, 1, 1);
    assert_int_equal(queue_release(on->q, b, &on->err), 0);
    stream_says(on, 2, 0);
    assert_int_equal(queue_job_cancel(on->q, "J3", &on->err), 0);
    _cleanup_(task_freep) struct task *again = claim(on);
    assert_non_null(again);
    assert_int_equal(queue_fail(on->q, again, true, "x", &on->err), 0);
    stream_says(on, 0, 0);
}

static void completing_again_with_the_same_epoch_is_success_without_effect(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    struct task_spec next = {.queue = "other", .kind = "k"};
    struct follow follow = {.tasks = &next, .n_tasks = 1};
    assert_int_equal(complete(on, task, &follow), 0);
    assert_int_equal(complete(on, task, &follow), 0);
    depth_is(on, "other", 1, 0, 0);
}

static void a_stale_epoch_is_refused_everywhere(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *old = claim_from(on, "q", 1, 0);
    /* waits until the lease of 1 ms has run out: the claim itself sweeps */
    _cleanup_(task_freep) struct task *task = claim_from(on, "q", 60000, 10000);
    assert_non_null(task);
    assert_string_equal(task->id, old->id);
    assert_int_equal(task->delivery, 2);
    assert_true(task->epoch > old->epoch);
    bool cancelled = false;
    assert_int_equal(queue_heartbeat(on->q, old, 1000, &cancelled, &on->err), -ERR_ABORTED);
    assert_int_equal(complete(on, old, NULL), -ERR_ABORTED);
    assert_int_equal(queue_job_finish(on->q, old, "", 0, &on->err), -ERR_ABORTED);
    assert_int_equal(queue_fail(on->q, old, true, "x", &on->err), -ERR_ABORTED);
    assert_int_equal(queue_release(on->q, old, &on->err), -ERR_ABORTED);
    assert_int_equal(queue_heartbeat(on->q, task, 1000, &cancelled, &on->err), 0);
    assert_false(cancelled);
    assert_int_equal(queue_job_finish(on->q, task, "done", 4, &on->err), 0);
    job_is(on, "J1", "succeeded", "");
}

static void a_heartbeat_keeps_the_lease(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim_from(on, "q", 1, 0);
    bool cancelled = true;
    /* still ours: nobody has claimed since */
    assert_int_equal(queue_heartbeat(on->q, task, 60000, &cancelled, &on->err), 0);
    assert_false(cancelled);
    assert_null(claim_from(on, "q", 60000, 20));
    depth_is(on, "q", 0, 1, 0);
}

static void a_short_lease_of_one_worker_does_not_shorten_anothers(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim_from(on, "q", 60000, 0);
    assert_non_null(task);
    assert_null(claim_from(on, "q", 1, 20));
}

static void a_released_task_is_ready_and_not_counted(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    for (int i = 0; i < 10; i++) {
        _cleanup_(task_freep) struct task *task = claim(on);
        assert_non_null(task);
        assert_int_equal(task->delivery, 1);
        assert_int_equal(queue_release(on->q, task, &on->err), 0);
        assert_int_equal(queue_release(on->q, task, &on->err), 0); /* its answer was lost */
        depth_is(on, "q", 1, 0, 0);
    }
}

static void a_failed_task_is_retried_until_its_last_delivery(void **state)
{
    struct on_redis *on = *state;
    struct task_spec spec = {.queue = "q", .kind = "k", .max_deliveries = 3};
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &spec, &on->err), 0);
    for (int i = 1; i <= 3; i++) {
        _cleanup_(task_freep) struct task *task = claim_from(on, "q", 60000, 10000);
        assert_non_null(task);
        assert_int_equal(task->delivery, i);
        job_is(on, "J1", "running", "");
        assert_int_equal(queue_fail(on->q, task, true, "no luck", &on->err), 0);
        assert_int_equal(queue_fail(on->q, task, true, "no luck", &on->err), 0);
    }
    job_is(on, "J1", "failed", "no luck (delivery 3, the last)");
    depth_is(on, "q", 0, 0, 0);
}

static void a_permanent_failure_fails_the_job_at_once(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_int_equal(queue_fail(on->q, task, false, "node \"c\": bad \xff shape", &on->err), 0);
    job_is(on, "J1", "failed", "node \"c\": bad ? shape");
    assert_null(claim(on));
}

static void a_retry_waits_for_its_backoff(void **state)
{
    struct on_redis *on = *state;
    struct queue_options options = {
        .url = on->redis.url, .prefix = "test", .backoff_ms = 1 << 30, .backoff_max_ms = 1 << 30};
    _cleanup_(queue_closep) struct queue *slow = NULL;
    assert_int_equal(queue_open(&options, &slow, &on->err), 0);
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_int_equal(queue_fail(slow, task, true, "later", &on->err), 0);
    depth_is(on, "q", 0, 0, 1);
    assert_null(claim(on));
}

static void a_task_whose_workers_all_vanish_is_dead_with_the_reason(void **state)
{
    struct on_redis *on = *state;
    struct task_spec spec = {.queue = "q", .kind = "k", .max_deliveries = 2};
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &spec, &on->err), 0);
    for (int i = 1; i <= 2; i++) {
        _cleanup_(task_freep) struct task *task = claim_from(on, "q", 1, 10000);
        assert_non_null(task);
        assert_int_equal(task->delivery, i);
    }
    /* the lease is 1 ms: some claim within these finds it expired, and it is not given again */
    assert_null(claim_from(on, "q", 60000, 30));
    job_is(on, "J1", "failed", "worker w1 was not heard of any more (delivery 2, the last)");
}

static void a_waiting_claim_is_woken_by_a_due_retry(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_int_equal(queue_fail(on->q, task, true, "again", &on->err), 0);
    _cleanup_(task_freep) struct task *again = claim_from(on, "q", 60000, 60000);
    assert_non_null(again);
    assert_int_equal(again->delivery, 2);
}

static void odd_names_and_sizes_are_refused(void **state)
{
    struct on_redis *on = *state;
    struct task *task = NULL;
    static const char *const bad[] = {"", "a b", "a/b", "a\nb"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct task_spec spec = {.queue = bad[i], .kind = "k"};
        assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &spec, &on->err),
                         -ERR_INVALID_ARGUMENT);
        spec = (struct task_spec){.queue = "q", .kind = bad[i]};
        assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &spec, &on->err),
                         -ERR_INVALID_ARGUMENT);
        assert_int_equal(queue_job_create(on->q, bad[i], "", "", 0, &first, &on->err),
                         -ERR_INVALID_ARGUMENT);
        assert_int_equal(queue_claim(on->q, &bad[i], 1, "w", 1000, 0, &task, &on->err),
                         -ERR_INVALID_ARGUMENT);
    }
    static const char *const q = "q";
    assert_int_equal(queue_claim(on->q, &q, 1, "a b", 1000, 0, &task, &on->err),
                     -ERR_INVALID_ARGUMENT);
    assert_int_equal(queue_claim(on->q, &q, 1, "w", 0, 0, &task, &on->err), -ERR_INVALID_ARGUMENT);
    struct task_spec many = {.queue = "q", .kind = "k", .max_deliveries = 100};
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &many, &on->err),
                     -ERR_INVALID_ARGUMENT);
    struct task_spec large = {.queue = "q", .kind = "k", .payload = "", .payload_bytes = 65 << 20};
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &large, &on->err),
                     -ERR_INVALID_ARGUMENT);
}

static void every_epoch_is_newer_than_any_before_it(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    int64_t last = 0;
    for (int i = 0; i < 5; i++) {
        _cleanup_(task_freep) struct task *task = claim(on);
        assert_true(task->epoch > last);
        last = task->epoch;
        assert_int_equal(queue_release(on->q, task, &on->err), 0);
    }
    /* a server that lost everything it knew gives no old epoch again */
    char answer[64];
    assert_int_equal(test_redis_ask(&on->redis, "FLUSHALL", answer, sizeof(answer)), 0);
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_true(task->epoch > last);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_claim_gives_the_task_as_it_was_put),
        cmocka_unit_test(an_empty_queue_gives_no_task),
        cmocka_unit_test(a_leased_task_is_not_given_twice),
        cmocka_unit_test(tasks_come_in_the_order_they_were_put),
        cmocka_unit_test(the_first_queue_of_a_claim_goes_first),
        cmocka_unit_test(a_completed_task_is_gone),
        cmocka_unit_test(the_stream_knows_how_many_wait_and_are_worked_on),
        cmocka_unit_test(completing_again_with_the_same_epoch_is_success_without_effect),
        cmocka_unit_test(a_stale_epoch_is_refused_everywhere),
        cmocka_unit_test(a_heartbeat_keeps_the_lease),
        cmocka_unit_test(a_short_lease_of_one_worker_does_not_shorten_anothers),
        cmocka_unit_test(a_released_task_is_ready_and_not_counted),
        cmocka_unit_test(a_failed_task_is_retried_until_its_last_delivery),
        cmocka_unit_test(a_permanent_failure_fails_the_job_at_once),
        cmocka_unit_test(a_retry_waits_for_its_backoff),
        cmocka_unit_test(a_task_whose_workers_all_vanish_is_dead_with_the_reason),
        cmocka_unit_test(a_waiting_claim_is_woken_by_a_due_retry),
        cmocka_unit_test(odd_names_and_sizes_are_refused),
        cmocka_unit_test(every_epoch_is_newer_than_any_before_it),
    };
    return ON_REDIS_RUN("queue: tasks", tests);
}
