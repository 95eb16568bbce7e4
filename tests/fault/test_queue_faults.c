/*
 * The queue under kill -9, SIGSTOP and Redis restarts. What must hold whatever happens: each task
 * is completed exactly once, each continuation goes on exactly once, nothing that was acknowledged
 * is lost. The random test prints its seed; HONE_SEED=n repeats it.
 */
#include "tests/support/redis_both.h"

#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/base/str.h"

enum { JOBS = 20, MEMBERS = 10, WORKERS = 2, LEASE_MS = 100, BLOWS = 40 };

/* What the worker processes say to the test. */
static struct shared {
    atomic_int holds;                /* a worker holds its task */
    atomic_int outcome;              /* code of its completion, 1000: none yet */
    atomic_int acked[JOBS][MEMBERS]; /* completions that some worker was told of */
    atomic_int joined[JOBS];         /* finishes that some worker was told of */
    atomic_int again;                /* deliveries that were not the first */
    atomic_int wrong;                /* a continuation saw results that cannot be */
} *shared;

static const char *const queues[] = {"q"};

static struct queue *child_open(const struct on_redis *on)
{
    struct queue *q = NULL;
    struct queue_options options = {.url = on->redis.url,
                                    .prefix = "test",
                                    .patience_ms = 30000,
                                    .backoff_ms = 1,
                                    .backoff_max_ms = 5};
    return queue_open(&options, &q, NULL) < 0 ? NULL : q;
}

static pid_t fork_child(void)
{
    pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
    }
    return pid;
}

static void reap(pid_t pid)
{
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

/* Until a worker process has said so; it dies with us if it never does. */
static void wait_until_set(atomic_int *flag, int unset)
{
    for (int i = 0; i < 60000 && atomic_load(flag) == unset; i++)
        clock_sleep_ms(1);
    assert_int_not_equal(atomic_load(flag), unset);
}

/* A worker that claims one task, says so, and completes it when it is woken by SIGCONT. */
static pid_t start_holder(const struct on_redis *on)
{
    *shared = (struct shared){0};
    atomic_store(&shared->outcome, 1000);
    pid_t pid = fork_child();
    if (pid)
        return pid;
    struct queue *q = child_open(on);
    struct task *task = NULL;
    if (!q || queue_claim(q, queues, 1, "holder", LEASE_MS, 30000, &task, NULL) < 0 || !task)
        _exit(1);
    atomic_store(&shared->holds, 1);
    raise(SIGSTOP);
    atomic_store(&shared->outcome, queue_complete(q, task, "old", 3, NULL, NULL));
    _exit(0);
}

static void create(struct on_redis *on, const char *job, int max_deliveries)
{
    struct task_spec spec = {.queue = "q", .kind = "start", .max_deliveries = max_deliveries};
    assert_int_equal(queue_job_create(on->q, job, "", "", 0, &spec, &on->err), 0);
}

static struct task *claim(struct on_redis *on)
{
    struct task *task = NULL;
    if (queue_claim(on->q, queues, 1, "test", 60000, 60000, &task, &on->err) < 0)
        fail_msg("%s", on->err.message);
    assert_non_null(task);
    return task;
}

static void a_task_of_a_killed_worker_is_delivered_again(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1", 0);
    pid_t pid = start_holder(on);
    wait_until_set(&shared->holds, 0);
    kill(pid, SIGKILL);
    reap(pid);
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_int_equal(task->delivery, 2);
    assert_int_equal(queue_job_finish(on->q, task, "new", 3, &on->err), 0);
}

static void a_worker_stopped_past_its_lease_is_refused_when_it_comes_back(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1", 0);
    pid_t pid = start_holder(on);
    wait_until_set(&shared->holds, 0);
    _cleanup_(task_freep) struct task *task = claim(on); /* waits for the lease to run out */
    assert_int_equal(task->delivery, 2);
    kill(pid, SIGCONT);
    reap(pid);
    assert_int_equal(atomic_load(&shared->outcome), -ERR_ABORTED);
    assert_int_equal(queue_job_finish(on->q, task, "new", 3, &on->err), 0);
    _cleanup_(job_info_release) struct job_info job = {0};
    assert_int_equal(queue_job_get(on->q, "J1", &job, &on->err), 0);
    assert_memory_equal(job.result, "new", 3);
}

static void a_worker_stopped_past_its_lease_may_complete_what_nobody_took(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1", 0);
    pid_t pid = start_holder(on);
    wait_until_set(&shared->holds, 0);
    /* PTTL of the claim note tells that the lease is over without claiming anything */
    for (int i = 0; i < 60000; i++) {
        if (test_redis_number(&on->redis, "EXISTS {test}:claim:holder") == 0)
            break;
        clock_sleep_ms(1);
    }
    kill(pid, SIGCONT);
    reap(pid);
    assert_int_equal(atomic_load(&shared->outcome), 0);
}

static void leases_survive_a_killed_redis(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1", 0);
    _cleanup_(task_freep) struct task *mine = claim(on);
    create(on, "J2", 0);
    pid_t pid = start_holder(on);
    wait_until_set(&shared->holds, 0);
    kill(pid, SIGKILL);
    reap(pid);
    test_redis_kill(&on->redis);
    assert_int_equal(test_redis_restart(&on->redis), 0);
    /* the dead worker's task comes back, the living one's does not */
    _cleanup_(task_freep) struct task *task = claim(on);
    assert_string_equal(task->job, "J2");
    assert_int_equal(queue_job_finish(on->q, mine, "", 0, &on->err), 0);
    assert_int_equal(queue_job_finish(on->q, task, "", 0, &on->err), 0);
}

static void a_task_that_kills_every_worker_is_dead_in_the_end(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1", 3);
    for (int i = 1; i <= 3; i++) {
        pid_t pid = start_holder(on);
        wait_until_set(&shared->holds, 0);
        kill(pid, SIGKILL);
        reap(pid);
    }
    struct task *task = NULL;
    _cleanup_(job_info_release) struct job_info job = {0};
    for (int i = 0; i < 600 && strcmp(job.state, "failed"); i++) {
        assert_int_equal(queue_claim(on->q, queues, 1, "w", 60000, 100, &task, &on->err), 0);
        assert_null(task);
        job_info_release(&job);
        assert_int_equal(queue_job_get(on->q, "J1", &job, &on->err), 0);
    }
    assert_string_equal(job.error,
                        "worker holder was not heard of any more (delivery 3, the last)");
}

/* ---- two workers, 200 tasks, many deaths ---- */

static void work_start(struct queue *q, const struct task *task)
{
    struct task_spec parts[MEMBERS];
    char payload[MEMBERS][16];
    for (int i = 0; i < MEMBERS; i++) {
        snprintf(payload[i], sizeof(payload[i]), "%d", i);
        parts[i] = (struct task_spec){.queue = "q",
                                      .kind = "part",
                                      .max_deliveries = 99,
                                      .payload = payload[i],
                                      .payload_bytes = strlen(payload[i])};
    }
    struct task_spec join = {.queue = "q", .kind = "join", .max_deliveries = 99};
    struct follow follow = {parts, MEMBERS, &join};
    queue_complete(q, task, NULL, 0, &follow, NULL);
}

/* Each part starts one more task, on a queue that nobody reads: two would tell on us. */
static void work_part(struct queue *q, const struct task *task, int job)
{
    int64_t i = 0;
    char result[128];
    struct task_spec trace = {.queue = "traces", .kind = "trace"};
    struct follow follow = {&trace, 1, NULL};
    if (str_parse_i64(task->payload, 0, MEMBERS - 1, &i, NULL) < 0)
        atomic_fetch_add(&shared->wrong, 1);
    snprintf(result, sizeof(result), "%s:%d", task->job, (int)i);
    if (queue_complete(q, task, result, strlen(result), &follow, NULL) == 0)
        atomic_fetch_add(&shared->acked[job][i], 1);
}

static void work_join(struct queue *q, const struct task *task, int job)
{
    char expected[128];
    bool good = task->n_results == MEMBERS;
    for (int i = 0; good && i < MEMBERS; i++) {
        snprintf(expected, sizeof(expected), "%s:%d", task->job, i);
        good = task->results[i] && !strcmp(task->results[i], expected);
    }
    if (!good)
        atomic_fetch_add(&shared->wrong, 1);
    if (queue_job_finish(q, task, "joined", 6, NULL) == 0)
        atomic_fetch_add(&shared->joined[job], 1);
}

static pid_t start_worker(const struct on_redis *on, uint64_t seed)
{
    static const char *const places[] = {"queue.send=kill", "queue.send=error", "queue.reply=kill",
                                         "queue.reply=error"};
    pid_t pid = fork_child();
    if (pid)
        return pid;
    struct rng rng;
    char rule[64], name[64];
    rng_seed(&rng, seed);
    snprintf(rule, sizeof(rule), "%s@%d", places[rng_below(&rng, 4)], 1 + (int)rng_below(&rng, 60));
    failpoint_set(rule, NULL);
    snprintf(name, sizeof(name), "worker-%016llx", (unsigned long long)seed);
    struct queue *q = child_open(on);
    for (;;) {
        struct task *task = NULL;
        int64_t job = 0;
        if (!q || queue_claim(q, queues, 1, name, LEASE_MS, 1000, &task, NULL) < 0)
            _exit(1);
        if (!task)
            continue;
        str_parse_i64(task->job + 1, 0, JOBS - 1, &job, NULL);
        atomic_fetch_add(&shared->again, task->delivery > 1);
        if (!strcmp(task->kind, "start"))
            work_start(q, task);
        else if (!strcmp(task->kind, "part"))
            work_part(q, task, (int)job);
        else
            work_join(q, task, (int)job);
        task_free(task);
    }
}

/* One blow: to a worker or, seldom, to Redis. */
static void strike(struct on_redis *on, struct rng *rng, pid_t workers[WORKERS])
{
    size_t victim = rng_below(rng, WORKERS);
    switch (rng_below(rng, 8)) {
    case 0:
        test_redis_kill(&on->redis);
        assert_int_equal(test_redis_restart(&on->redis), 0);
        break;
    case 1:
    case 2: /* past the lease: what it held goes to somebody else */
        kill(workers[victim], SIGSTOP);
        clock_sleep_ms(LEASE_MS + (int64_t)rng_below(rng, LEASE_MS));
        kill(workers[victim], SIGCONT);
        break;
    default:
        kill(workers[victim], SIGKILL);
        break;
    }
}

static int64_t running_jobs(struct on_redis *on)
{
    int64_t n = 0;
    if (queue_running_jobs(on->q, &n, &on->err) < 0)
        fail_msg("%s", on->err.message);
    return n;
}

static void check_job(struct on_redis *on, int j)
{
    char id[16], line[128];
    _cleanup_(job_info_release) struct job_info job = {0};
    snprintf(id, sizeof(id), "J%d", j);
    assert_int_equal(queue_job_get(on->q, id, &job, &on->err), 0);
    assert_string_equal(job.error, "");
    assert_string_equal(job.state, "succeeded");
    assert_memory_equal(job.result, "joined", 6);
    assert_in_range(atomic_load(&shared->joined[j]), 0, 1);
    for (int i = 0; i < MEMBERS; i++)
        assert_in_range(atomic_load(&shared->acked[j][i]), 0, 1);
    /* start, parts, continuation and one trace for each part: twice done would be more */
    snprintf(line, sizeof(line),
             "EVAL \"return tonumber(redis.call('HGET','{test}:job:%s','tasks'))\" 0", id);
    assert_int_equal(test_redis_number(&on->redis, line), 1 + MEMBERS + 1 + MEMBERS);
    struct event *events = NULL;
    int n = 0, ends = 0;
    _cleanup_(strbuf_release) struct strbuf all = {0};
    assert_int_equal(queue_events(on->q, id, "", 10000, 0, &events, &n, &on->err), 0);
    for (int i = 0; i < n; i++) {
        ends += strstr(events[i].text, "\"type\":\"succeeded\"") != NULL;
        strbuf_printf(&all, "%s %s\n", events[i].id, events[i].text);
    }
    if (ends != 1)
        fail_msg("%s ended %d times; its %d events: %s", id, ends, n, all.data ? all.data : "");
    assert_non_null(strstr(events[n - 1].text, "\"type\":\"succeeded\""));
    events_free(events, n);
}

static void two_workers_complete_each_task_once_whatever_is_killed(void **state)
{
    struct on_redis *on = *state;
    const char *given = getenv("HONE_SEED");
    int64_t seed = clock_wall_ms();
    if (given)
        assert_int_equal(str_parse_i64(given, 0, INT64_MAX, &seed, &on->err), 0);
    print_message("HONE_SEED=%lld\n", (long long)seed);
    struct rng rng;
    rng_seed(&rng, (uint64_t)seed);
    *shared = (struct shared){0};
    on->q = queue_close(on->q);
    on->q = on_redis_open(on, 30000);

    pid_t workers[WORKERS];
    for (int i = 0; i < WORKERS; i++)
        workers[i] = start_worker(on, rng_u64(&rng));
    int64_t begin = clock_now_ns(NULL);
    for (int blows = 0; blows < BLOWS || running_jobs(on) > 0; blows++) {
        if (blows < JOBS) { /* there is always work while blows fall */
            char id[16];
            snprintf(id, sizeof(id), "J%d", blows);
            create(on, id, 99);
        }
        for (int i = 0; i < WORKERS; i++) {
            if (waitpid(workers[i], NULL, WNOHANG) == workers[i])
                workers[i] = start_worker(on, rng_u64(&rng));
        }
        clock_sleep_ms((int64_t)rng_below(&rng, 20));
        if (blows < BLOWS)
            strike(on, &rng, workers);
        if (clock_now_ns(NULL) - begin > 120 * 1000000000LL)
            fail_msg("%lld jobs are still running", (long long)running_jobs(on));
    }
    for (int i = 0; i < WORKERS; i++) {
        kill(workers[i], SIGKILL);
        reap(workers[i]);
    }
    print_message("%d blows, %d tasks delivered again\n", BLOWS, atomic_load(&shared->again));
    assert_int_equal(atomic_load(&shared->wrong), 0);
    for (int j = 0; j < JOBS; j++)
        check_job(on, j);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "q", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 0);
    assert_int_equal(depth.leased, 0);
    assert_int_equal(depth.delayed, 0);
    assert_int_equal(test_redis_number(&on->redis, "ZCARD {test}:timers:q"), 0);
    assert_int_equal(test_redis_number(&on->redis, "XLEN {test}:queue:q"), 0);
}

int main(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_of_a_killed_worker_is_delivered_again),
        cmocka_unit_test(a_worker_stopped_past_its_lease_is_refused_when_it_comes_back),
        cmocka_unit_test(a_worker_stopped_past_its_lease_may_complete_what_nobody_took),
        cmocka_unit_test(leases_survive_a_killed_redis),
        cmocka_unit_test(a_task_that_kills_every_worker_is_dead_in_the_end),
        cmocka_unit_test(two_workers_complete_each_task_once_whatever_is_killed),
    };
    return ON_REDIS_RUN("faults: queue", tests);
}
