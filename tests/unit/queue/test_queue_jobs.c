/* Jobs: their ends, groups, follow-ups, cancellation, lists, what is kept and for how long. */
#include "tests/support/redis_both.h"

#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static void create(struct on_redis *on, const char *job)
{
    struct task_spec first = {.queue = "q", .kind = "start", .payload = "one", .payload_bytes = 3};
    assert_int_equal(queue_job_create(on->q, job, "a job", "spec", 4, &first, &on->err), 0);
}

static struct task *claim(struct on_redis *on, const char *queue)
{
    struct task *task = NULL;
    int r = queue_claim(on->q, &queue, 1, "w1", 60000, 0, &task, &on->err);
    if (r < 0)
        fail_msg("%s", on->err.message);
    return task;
}

static void state_is(struct on_redis *on, const char *id, const char *state, int open)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, id, &job, &on->err), 0);
    assert_string_equal(job.state, state);
    assert_int_equal(job.tasks_open, open);
}

/* Completes the first task with a group of n tasks on queue "g" and a continuation on "c". */
static void fan_out(struct on_redis *on, const char *job, int n)
{
    create(on, job);
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    struct task_spec *tasks = mem_calloc((size_t)n, sizeof(*tasks));
    for (int i = 0; i < n; i++)
        tasks[i] = (struct task_spec){.queue = "g", .kind = "part", .max_deliveries = 1};
    struct task_spec continuation = {
        .queue = "c", .kind = "join", .payload = "p", .payload_bytes = 1};
    struct follow follow = {tasks, n, &continuation};
    assert_int_equal(queue_complete(on->q, task, "", 0, &follow, &on->err), 0);
    free(tasks);
}

/* The type of the job's last event. */
static void last_event_is(struct on_redis *on, const char *job, const char *expected)
{
    struct event *events = NULL;
    int n = 0;
    assert_int_equal(queue_events(on->q, job, "", 1000, 0, &events, &n, &on->err), 0);
    assert_true(n > 0);
    _cleanup_(freep) char *begin = str_printf("{\"type\":\"%s\"", expected);
    if (!str_starts_with(events[n - 1].text, begin))
        fail_msg("the last event is %s", events[n - 1].text);
    events_free(events, n);
}

static void a_job_is_found_as_it_was_created(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, "J1", &job, &on->err), 0);
    assert_string_equal(job.id, "J1");
    assert_string_equal(job.state, "running");
    assert_string_equal(job.title, "a job");
    assert_string_equal(job.error, "");
    assert_int_equal(job.tasks_open, 1);
    assert_true(job.created_ms > 1500000000000);
    assert_int_equal(job.ended_ms, 0);
    assert_int_equal(job.spec_bytes, 4);
    assert_memory_equal(job.spec, "spec", 4);
    assert_int_equal(job.result_bytes, 0);
}

static int64_t away_ms(struct on_redis *on, const char *id)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, id, &job, &on->err), 0);
    return job.away_ms;
}

/* As if no worker had been heard of for so long; then one is there again. */
static void be_away(struct on_redis *on, int64_t ms)
{
    char answer[64];
    _cleanup_(freep) char *command =
        str_printf("HSET {test}:clock heard %lld", (long long)(clock_wall_ms() - ms));
    assert_true(test_redis_ask(&on->redis, command, answer, sizeof(answer)) >= 0);
    task_free(claim(on, "idle"));
}

static void a_job_knows_how_long_nobody_was_there(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    assert_int_equal(away_ms(on, "J1"), 0);
    be_away(on, 20000); /* as workers may be between two tasks */
    assert_int_equal(away_ms(on, "J1"), 0);
    be_away(on, 3600000);
    const int64_t hour = away_ms(on, "J1");
    assert_true(hour >= 3600000 && hour < 3700000);
    create(on, "J2"); /* what was before it, is none of its time */
    assert_int_equal(away_ms(on, "J2"), 0);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    be_away(on, 60000);
    assert_int_equal(away_ms(on, "J1"), hour);
    assert_true(away_ms(on, "J2") >= 60000);
}

static void an_id_is_taken_once(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    struct task_spec first = {.queue = "q", .kind = "start", .payload = "one", .payload_bytes = 3};
    assert_int_equal(queue_job_create(on->q, "J1", "a job", "spec", 4, &first, &on->err),
                     -ERR_ALREADY_EXISTS);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "q", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 1);
}

static void an_unknown_job_is_not_found(void **state)
{
    struct on_redis *on = *state;
    struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, "J9", &job, &on->err), -ERR_NOT_FOUND);
    assert_non_null(strstr(on->err.message, "J9"));
    assert_int_equal(queue_job_cancel(on->q, "J9", &on->err), -ERR_NOT_FOUND);
    assert_int_equal(queue_event_add(on->q, "J9", "{}", &on->err), -ERR_NOT_FOUND);
}

static void jobs_are_listed_newest_first(void **state)
{
    struct on_redis *on = *state;
    create(on, "old");
    create(on, "middle");
    create(on, "new");
    struct job_info *jobs = NULL;
    int n = 0;
    assert_int_equal(queue_job_list(on->q, 2, &jobs, &n, &on->err), 0);
    assert_int_equal(n, 2);
    assert_string_equal(jobs[0].id, "new");
    assert_string_equal(jobs[1].id, "middle");
    assert_null(jobs[0].spec);
    free(jobs);
    int64_t running = 0;
    assert_int_equal(queue_running_jobs(on->q, &running, &on->err), 0);
    assert_int_equal(running, 3);
}

static void a_list_of_no_jobs_is_empty(void **state)
{
    struct on_redis *on = *state;
    struct job_info *jobs = NULL;
    int n = 1;
    assert_int_equal(queue_job_list(on->q, 10, &jobs, &n, &on->err), 0);
    assert_int_equal(n, 0);
    free(jobs);
}

static void finishing_ends_the_job_with_its_result(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    assert_int_equal(queue_job_finish(on->q, task, "a\0b", 3, &on->err), 0);
    assert_int_equal(queue_job_finish(on->q, task, "a\0b", 3, &on->err), 0);
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, "J1", &job, &on->err), 0);
    assert_string_equal(job.state, "succeeded");
    assert_int_equal(job.result_bytes, 3);
    assert_memory_equal(job.result, "a\0b", 3);
    assert_true(job.ended_ms >= job.created_ms);
    last_event_is(on, "J1", "succeeded");
    int64_t running = 1;
    assert_int_equal(queue_running_jobs(on->q, &running, &on->err), 0);
    assert_int_equal(running, 0);
}

static void a_continuation_waits_for_the_last_of_its_group_and_gets_results_in_order(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 3);
    state_is(on, "J1", "running", 4);
    struct task *parts[3];
    for (int i = 0; i < 3; i++)
        parts[i] = claim(on, "g");
    static const char *const results[] = {"first", "", "third"};
    static const int order[] = {2, 0, 1};
    for (int i = 0; i < 3; i++) {
        int k = order[i];
        assert_null(claim(on, "c"));
        assert_int_equal(
            queue_complete(on->q, parts[k], results[k], strlen(results[k]), NULL, &on->err), 0);
    }
    _cleanup_(task_freep) struct task *join = claim(on, "c");
    assert_non_null(join);
    assert_string_equal(join->kind, "join");
    assert_memory_equal(join->payload, "p", 1);
    assert_int_equal(join->n_results, 3);
    for (int i = 0; i < 3; i++) {
        assert_non_null(join->results[i]);
        assert_null(join->failures[i]);
        assert_int_equal(join->result_bytes[i], strlen(results[i]));
        assert_memory_equal(join->results[i], results[i], strlen(results[i]));
        task_free(parts[i]);
    }
    assert_null(claim(on, "c"));
}

static void a_dead_member_counts_as_ended_with_its_reason(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 2);
    _cleanup_(task_freep) struct task *a = claim(on, "g"), *b = claim(on, "g");
    assert_int_equal(queue_fail(on->q, a, false, "no such layer", &on->err), 0);
    last_event_is(on, "J1", "dead");
    assert_int_equal(queue_complete(on->q, b, "b", 1, NULL, &on->err), 0);
    _cleanup_(task_freep) struct task *join = claim(on, "c");
    assert_non_null(join);
    assert_null(join->results[0]);
    assert_string_equal(join->failures[0], "no such layer");
    assert_memory_equal(join->results[1], "b", 1);
    state_is(on, "J1", "running", 1);
}

static void a_group_of_none_continues_at_once(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 0);
    _cleanup_(task_freep) struct task *join = claim(on, "c");
    assert_non_null(join);
    assert_int_equal(join->n_results, 0);
}

static void a_continuation_redelivered_has_its_results_again(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 1);
    _cleanup_(task_freep) struct task *part = claim(on, "g");
    assert_int_equal(queue_complete(on->q, part, "r", 1, NULL, &on->err), 0);
    for (int i = 0; i < 2; i++) {
        _cleanup_(task_freep) struct task *join = claim(on, "c");
        assert_non_null(join);
        assert_memory_equal(join->results[0], "r", 1);
        assert_int_equal(queue_release(on->q, join, &on->err), 0);
    }
}

static void many_tasks_follow_in_one_step(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 3000);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "g", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 3000);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    assert_int_equal(queue_depth(on->q, "g", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 0);
    assert_null(claim(on, "g"));
    assert_int_equal(test_redis_number(&on->redis, "XLEN {test}:queue:g"), 0);
    struct follow too_many = {NULL, 10001, NULL};
    create(on, "J2");
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    assert_int_equal(queue_complete(on->q, task, "", 0, &too_many, &on->err),
                     -ERR_INVALID_ARGUMENT);
}

static void a_refused_follow_up_changes_nothing(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    struct task_spec specs[] = {{.queue = "good", .kind = "k"}, {.queue = "not good", .kind = "k"}};
    struct follow follow = {specs, 2, NULL};
    assert_int_equal(queue_complete(on->q, task, "", 0, &follow, &on->err), -ERR_INVALID_ARGUMENT);
    assert_null(claim(on, "good"));
    bool cancelled = false;
    assert_int_equal(queue_heartbeat(on->q, task, 1000, &cancelled, &on->err), 0);
}

static void a_job_whose_tasks_all_ended_unfinished_has_failed(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    assert_int_equal(queue_complete(on->q, task, "", 0, NULL, &on->err), 0);
    state_is(on, "J1", "failed", 0);
    last_event_is(on, "J1", "failed");
}

static void a_failed_job_takes_its_other_tasks_with_it(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *first = claim(on, "q");
    struct task_spec specs[] = {
        {.queue = "a", .kind = "k"}, {.queue = "b", .kind = "k"}, {.queue = "c", .kind = "k"}};
    struct follow follow = {specs, 3, NULL};
    assert_int_equal(queue_complete(on->q, first, "", 0, &follow, &on->err), 0);
    _cleanup_(task_freep) struct task *a = claim(on, "a"), *b = claim(on, "b");
    assert_int_equal(queue_fail(on->q, a, false, "broken", &on->err), 0);
    state_is(on, "J1", "failed", 0);
    assert_null(claim(on, "c"));
    bool cancelled = false;
    assert_int_equal(queue_heartbeat(on->q, b, 1000, &cancelled, &on->err), 0);
    assert_true(cancelled);
    assert_int_equal(queue_complete(on->q, b, "", 0, NULL, &on->err), -ERR_CANCELLED);
    last_event_is(on, "J1", "failed");
    for (const char *queue = "abc"; *queue; queue++) {
        struct queue_depth depth;
        assert_int_equal(queue_depth(on->q, (char[]){*queue, 0}, &depth, &on->err), 0);
        assert_int_equal(depth.ready + depth.leased + depth.delayed, 0);
    }
}

static void cancelling_ends_what_is_open_and_is_idempotent(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 3);
    _cleanup_(task_freep) struct task *leased = claim(on, "g"), *delayed = claim(on, "g");
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    state_is(on, "J1", "cancelled", 0);
    bool cancelled = false;
    assert_int_equal(queue_heartbeat(on->q, leased, 1000, &cancelled, &on->err), 0);
    assert_true(cancelled);
    assert_int_equal(queue_complete(on->q, leased, "", 0, NULL, &on->err), -ERR_CANCELLED);
    assert_int_equal(queue_fail(on->q, delayed, true, "x", &on->err), -ERR_CANCELLED);
    assert_null(claim(on, "g"));
    assert_null(claim(on, "c"));
    last_event_is(on, "J1", "cancelled");
}

static void an_ended_job_cannot_be_cancelled(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    assert_int_equal(queue_job_finish(on->q, task, "", 0, &on->err), 0);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), -ERR_FAILED_PRECONDITION);
    state_is(on, "J1", "succeeded", 0);
}

static void a_delayed_task_of_a_cancelled_job_does_not_come_back(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    _cleanup_(task_freep) struct task *task = claim(on, "q");
    assert_int_equal(queue_fail(on->q, task, true, "x", &on->err), 0);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    static const char *const queue = "q";
    struct task *again = NULL;
    /* the backoff of these tests ends within 5 ms */
    assert_int_equal(queue_claim(on->q, &queue, 1, "w", 1000, 20, &again, &on->err), 0);
    assert_null(again);
    assert_int_equal(test_redis_number(&on->redis, "ZCARD {test}:timers:q"), 0);
}

static void what_has_ended_expires_and_what_goes_on_does_not(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 2);
    _cleanup_(task_freep) struct task *a = claim(on, "g"), *b = claim(on, "g");
    assert_int_equal(queue_complete(on->q, a, "a", 1, NULL, &on->err), 0);
    /* the first task stands alone and is over; a member is needed by its continuation */
    assert_in_range(test_redis_number(&on->redis, "PTTL {test}:task:J1-1"), 1, 600000);
    assert_int_equal(test_redis_number(&on->redis, "PTTL {test}:task:J1-2"), -1);
    assert_int_equal(queue_complete(on->q, b, "b", 1, NULL, &on->err), 0);
    assert_int_equal(test_redis_number(&on->redis, "PTTL {test}:events:J1"), -2); /* none yet */
    _cleanup_(task_freep) struct task *join = claim(on, "c");
    assert_int_equal(test_redis_number(&on->redis, "PTTL {test}:task:J1-2"), -1);
    assert_int_equal(queue_job_finish(on->q, join, "", 0, &on->err), 0);
    static const char *const ended[] = {"task:J1-2", "task:J1-3", "task:J1-4", "events:J1"};
    for (size_t i = 0; i < sizeof(ended) / sizeof(ended[0]); i++) {
        _cleanup_(freep) char *line = str_printf("PTTL {test}:%s", ended[i]);
        assert_in_range(test_redis_number(&on->redis, line), 1, 600000);
    }
    assert_int_equal(test_redis_number(&on->redis, "PTTL {test}:job:J1"), -1);
    assert_int_equal(test_redis_number(&on->redis, "EXISTS {test}:group:J1-4 {test}:open:J1"), 0);
}

static void open_groups_of_a_cancelled_job_expire_too(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 2);
    _cleanup_(task_freep) struct task *a = claim(on, "g");
    assert_int_equal(queue_complete(on->q, a, "a", 1, NULL, &on->err), 0);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    static const char *const ended[] = {"task:J1-2", "task:J1-3", "task:J1-4", "events:J1"};
    for (size_t i = 0; i < sizeof(ended) / sizeof(ended[0]); i++) {
        _cleanup_(freep) char *line = str_printf("PTTL {test}:%s", ended[i]);
        assert_in_range(test_redis_number(&on->redis, line), 1, 600000);
    }
    assert_int_equal(test_redis_number(&on->redis, "EXISTS {test}:group:J1-4"), 0);
}

static void every_key_lies_in_the_slot_of_the_prefix(void **state)
{
    struct on_redis *on = *state;
    fan_out(on, "J1", 2);
    _cleanup_(task_freep) struct task *a = claim(on, "g"), *b = claim(on, "g");
    assert_int_equal(queue_fail(on->q, a, true, "x", &on->err), 0);
    assert_int_equal(queue_event_add(on->q, "J1", "{}", &on->err), 0);
    assert_int_equal(queue_memo_put(on->q, "k", "v", 1, &on->err), 0);
    assert_int_equal(queue_table_put(on->q, "t", "f", "v", &on->err), 0);
    assert_int_equal(queue_lease_take(on->q, "l", "h", 1000, &on->err), 1);
    char all[32], ours[32];
    assert_int_equal(
        test_redis_ask(&on->redis, "EVAL \"return #redis.call('KEYS','*')\" 0", all, sizeof(all)),
        0);
    assert_int_equal(test_redis_ask(&on->redis, "EVAL \"return #redis.call('KEYS','{test}:*')\" 0",
                                    ours, sizeof(ours)),
                     0);
    assert_string_equal(all, ours);
}

static void titles_are_cut_between_characters(void **state)
{
    struct on_redis *on = *state;
    char title[300];
    for (size_t i = 0; i + 2 < sizeof(title); i += 2)
        memcpy(title + i, "\xc3\xa4", 3);
    struct task_spec first = {.queue = "q", .kind = "k"};
    assert_int_equal(queue_job_create(on->q, "J1", title, "", 0, &first, &on->err), 0);
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, "J1", &job, &on->err), 0);
    assert_int_equal(strlen(job.title), 126); /* 63 whole characters of the 127 bytes there are */
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_job_knows_how_long_nobody_was_there),
        cmocka_unit_test(a_job_is_found_as_it_was_created),
        cmocka_unit_test(an_id_is_taken_once),
        cmocka_unit_test(an_unknown_job_is_not_found),
        cmocka_unit_test(jobs_are_listed_newest_first),
        cmocka_unit_test(a_list_of_no_jobs_is_empty),
        cmocka_unit_test(finishing_ends_the_job_with_its_result),
        cmocka_unit_test(a_continuation_waits_for_the_last_of_its_group_and_gets_results_in_order),
        cmocka_unit_test(a_dead_member_counts_as_ended_with_its_reason),
        cmocka_unit_test(a_group_of_none_continues_at_once),
        cmocka_unit_test(a_continuation_redelivered_has_its_results_again),
        cmocka_unit_test(many_tasks_follow_in_one_step),
        cmocka_unit_test(a_refused_follow_up_changes_nothing),
        cmocka_unit_test(a_job_whose_tasks_all_ended_unfinished_has_failed),
        cmocka_unit_test(a_failed_job_takes_its_other_tasks_with_it),
        cmocka_unit_test(cancelling_ends_what_is_open_and_is_idempotent),
        cmocka_unit_test(an_ended_job_cannot_be_cancelled),
        cmocka_unit_test(a_delayed_task_of_a_cancelled_job_does_not_come_back),
        cmocka_unit_test(what_has_ended_expires_and_what_goes_on_does_not),
        cmocka_unit_test(open_groups_of_a_cancelled_job_expire_too),
        cmocka_unit_test(every_key_lies_in_the_slot_of_the_prefix),
        cmocka_unit_test(titles_are_cut_between_characters),
    };
    return ON_REDIS_RUN("queue: jobs", tests);
}
