/* The loop of a worker under kill -9 at its worst moments, and a Redis that goes away. */
#include "tests/support/redis_work.h"

#include <semaphore.h>
#include <sys/mman.h>

#include "shared/base/clock.h"

static struct shared {
    sem_t started, go;
    atomic_int calls;
} *shared;

static int give(struct work_task *task, struct work_output *out, struct err *err)
{
    out->finish_job = true;
    out->result = malloc(task->task->payload_bytes + 1);
    if (!out->result)
        return err_oom(err, "a result");
    memcpy(out->result, task->task->payload, task->task->payload_bytes);
    out->result_bytes = task->task->payload_bytes;
    return 0;
}

static int quick(struct work_task *task, struct work_output *out, struct err *err)
{
    atomic_fetch_add(&shared->calls, 1);
    int r = work_event(task, "best", "\"p50_us\":1", err);
    return r < 0 ? r : give(task, out, err);
}

/* Computes until it is told that it has its result. */
static int patient(struct work_task *task, struct work_output *out, struct err *err)
{
    atomic_fetch_add(&shared->calls, 1);
    sem_post(&shared->started);
    while (sem_trywait(&shared->go) < 0) {
        int r = work_check(task, err);
        if (r < 0)
            return r;
        clock_sleep_ms(1);
    }
    return give(task, out, err);
}

static const struct work_kind kinds[] = {
    {.kind = "quick", .handle = quick, .version = 1, .memo = true},
    {.kind = "patient", .handle = patient},
};
static const struct work_config config = {
    .service = "tester", .kinds = kinds, .n_kinds = sizeof(kinds) / sizeof(kinds[0])};

static void begin(void)
{
    *shared = (struct shared){0};
    sem_init(&shared->started, 1, 0);
    sem_init(&shared->go, 1, 0);
    workers_begin();
}

static pid_t start(struct on_redis *on, const char *lease_ms, const char *failpoints)
{
    return worker_start(on, &config, ENV("HONE_LEASE_MS", lease_ms, "HONE_FAILPOINT", failpoints));
}

static void is_killed(pid_t pid)
{
    int status = worker_wait(pid);
    assert_true(WIFSIGNALED(status));
    assert_int_equal(WTERMSIG(status), SIGKILL);
}

/* A worker dies at a failpoint; the next one ends the job. How often was it computed? */
static int calls_after_death_at(struct on_redis *on, const char *failpoint)
{
    begin();
    job_put(on, "J1", "quick", "r");
    is_killed(start(on, "100", failpoint));
    pid_t pid = start(on, "15000", "");
    job_result_is(on, "J1", "r");
    /* it may have been done before the death: this one is the new worker's, and remembered */
    job_put(on, "J2", "quick", "r");
    job_result_is(on, "J2", "r");
    worker_stop(pid);
    workers_end();
    return atomic_load(&shared->calls);
}

static void death_after_a_claim_costs_a_delivery(void **state)
{
    assert_int_equal(calls_after_death_at(*state, "work.after_claim=kill"), 1);
}

static void death_before_the_handler_costs_a_delivery(void **state)
{
    assert_int_equal(calls_after_death_at(*state, "work.before_handle=kill"), 1);
}

static void death_before_completion_does_not_cost_the_result(void **state)
{
    assert_int_equal(calls_after_death_at(*state, "work.before_complete=kill"), 1);
}

static void death_after_completion_costs_nothing(void **state)
{
    assert_int_equal(calls_after_death_at(*state, "work.after_complete=kill"), 1);
}

static void lost_answers_are_not_noticed(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000",
                      "queue.reply=error@1;queue.reply=error@3;queue.reply=error@4;"
                      "queue.reply=error@5;queue.reply=error@6;queue.reply=error@8");
    for (int i = 0; i < 3; i++) {
        char id[16];
        snprintf(id, sizeof(id), "J%d", i);
        job_put(on, id, "quick", id);
        job_result_is(on, id, id);
    }
    assert_int_equal(atomic_load(&shared->calls), 3);
    worker_stop(pid);
    workers_end();
}

static void a_result_waits_for_a_redis_that_is_away(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", "");
    job_put(on, "J1", "patient", "kept");
    sem_wait(&shared->started);
    test_redis_kill(&on->redis);
    sem_post(&shared->go);
    worker_wait_log(on, "the result is kept for");
    assert_int_equal(test_redis_restart(&on->redis), 0);
    job_result_is(on, "J1", "kept");
    assert_int_equal(atomic_load(&shared->calls), 1);
    worker_stop(pid);
    workers_end();
}

static void an_idle_loop_goes_on_when_redis_is_back(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", "");
    job_put(on, "J1", "quick", "one");
    job_result_is(on, "J1", "one");
    test_redis_kill(&on->redis);
    worker_wait_log(on, "no tasks can be claimed");
    assert_int_equal(test_redis_restart(&on->redis), 0);
    job_put(on, "J2", "quick", "two");
    job_result_is(on, "J2", "two");
    worker_stop(pid);
    workers_end();
}

static void a_loop_without_redis_still_stops_when_told(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", "");
    job_put(on, "J1", "patient", "x");
    sem_wait(&shared->started);
    test_redis_kill(&on->redis);
    worker_stop(pid);
    workers_end();
}

static void a_stopped_process_loses_its_task_and_lets_the_other_finish(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t first = start(on, "200", "");
    job_put(on, "J1", "patient", "x");
    sem_wait(&shared->started);
    kill(first, SIGSTOP);
    pid_t second = start(on, "200", "");
    sem_wait(&shared->started); /* delivered again */
    kill(first, SIGCONT);
    /* the first one learns that it has lost, ends its handler and is free for another task */
    worker_stop(first);
    sem_post(&shared->go);
    job_result_is(on, "J1", "x");
    assert_int_equal(atomic_load(&shared->calls), 2);
    worker_stop(second);
    workers_end();
}

int main(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(death_after_a_claim_costs_a_delivery),
        cmocka_unit_test(death_before_the_handler_costs_a_delivery),
        cmocka_unit_test(death_before_completion_does_not_cost_the_result),
        cmocka_unit_test(death_after_completion_costs_nothing),
        cmocka_unit_test(lost_answers_are_not_noticed),
        cmocka_unit_test(a_result_waits_for_a_redis_that_is_away),
        cmocka_unit_test(an_idle_loop_goes_on_when_redis_is_back),
        cmocka_unit_test(a_loop_without_redis_still_stops_when_told),
        cmocka_unit_test(a_stopped_process_loses_its_task_and_lets_the_other_finish),
    };
    return ON_REDIS_RUN("faults: work", tests);
}
