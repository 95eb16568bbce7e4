/* Addresses, and what a call does when Redis is away, restarts, or its answer is lost. */
#include "tests/support/redis_both.h"

#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static const struct task_spec first = {.queue = "q", .kind = "k"};
static const char *const queue_name = "q";

static struct task *claim(struct on_redis *on)
{
    struct task *task = NULL;
    assert_int_equal(queue_claim(on->q, &queue_name, 1, "w", 60000, 0, &task, &on->err), 0);
    return task;
}

/* The next answer of Redis is lost after it was done; what is called must do it once. */
static void lose_next_answer(void)
{
    assert_int_equal(failpoint_set("queue.reply=error@1", NULL), 0);
}

static void odd_addresses_are_refused_without_repeating_a_password(void **state)
{
    struct on_redis *on = *state;
    static const char *const bad[] = {
        "",
        "localhost:6379",
        "http://localhost",
        "unix:relative/path",
        "redis://",
        "redis://:secret@",
        "redis://:secret@host:0",
        "redis://:secret@host:99999",
        "redis://:secret@host:12x",
        "redis://:secret@host/x",
        "redis://:secret@[::1",
        "redis://:secret@[::1]x",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct queue *q = NULL;
        struct queue_options options = {.url = bad[i]};
        assert_int_not_equal(queue_open(&options, &q, &on->err), 0);
        assert_null(q);
        assert_null(strstr(on->err.message, "secret"));
    }
    static const char *const good[][2] = {
        {"unix:/tmp/s", "unix:/tmp/s"},
        {"redis://host", "redis://host:6379/0"},
        {"redis://:secret@host:7000/3", "redis://host:7000/3"},
        {"redis://user:p%40s@[::1]:7000", "redis://::1:7000/0"},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        _cleanup_(queue_closep) struct queue *q = NULL;
        struct queue_options options = {.url = good[i][0]};
        assert_int_equal(queue_open(&options, &q, &on->err), 0);
        assert_string_equal(queue_address(q), good[i][1]);
    }
    struct queue *q = NULL;
    struct queue_options options = {.url = "unix:/tmp/s", .prefix = "a{b"};
    assert_int_equal(queue_open(&options, &q, &on->err), -ERR_INVALID_ARGUMENT);
}

static void an_absent_redis_is_named_after_patience(void **state)
{
    struct on_redis *on = *state;
    _cleanup_(queue_closep) struct queue *q = NULL;
    struct queue_options options = {.url = "unix:/nowhere/socket", .patience_ms = 30};
    assert_int_equal(queue_open(&options, &q, &on->err), 0);
    assert_int_equal(queue_ping(q, &on->err), -ERR_UNAVAILABLE);
    assert_non_null(strstr(on->err.message, "unix:/nowhere/socket: No such file"));
}

static void in_a_hurry_an_absent_redis_is_not_waited_for(void **state)
{
    struct on_redis *on = *state;
    static const atomic_bool hurry = true;
    _cleanup_(queue_closep) struct queue *q = NULL;
    struct queue_options options = {
        .url = "unix:/nowhere/socket", .patience_ms = 3600000, .hurry = &hurry};
    assert_int_equal(queue_open(&options, &q, &on->err), 0);
    assert_int_equal(queue_ping(q, &on->err), -ERR_UNAVAILABLE);
}

static void a_password_is_given_and_a_wrong_one_is_said(void **state)
{
    struct on_redis *on = *state;
    char answer[64];
    /* on a TCP port of the same server: it takes the first that is free */
    int port = 0;
    for (int p = 20000 + getpid() % 20000; port == 0 && p < 60000; p++) {
        _cleanup_(freep) char *line = str_printf("CONFIG SET port %d", p);
        assert_int_equal(test_redis_ask(&on->redis, line, answer, sizeof(answer)), 0);
        port = strcmp(answer, "+OK") ? 0 : p;
    }
    static const struct {
        const char *login;
        int code;
    } cases[] = {{":s%65cret@", 0},
                 {"default:secret@", 0},
                 {":wrong@", -ERR_UNAUTHENTICATED},
                 {"", -ERR_UNAUTHENTICATED}};
    assert_int_equal(
        test_redis_ask(&on->redis, "CONFIG SET requirepass secret", answer, sizeof(answer)), 0);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(freep) char *url = str_printf("redis://%s127.0.0.1:%d/2", cases[i].login, port);
        _cleanup_(queue_closep) struct queue *q = NULL;
        struct queue_options options = {.url = url};
        assert_int_equal(queue_open(&options, &q, &on->err), 0);
        assert_int_equal(queue_ping(q, &on->err), cases[i].code);
    }
    /* the next test finds it without */
    test_redis_stop(&on->redis);
}

static void scripts_are_loaded_again_when_redis_forgets_them(void **state)
{
    struct on_redis *on = *state;
    char answer[64];
    assert_null(claim(on));
    assert_int_equal(test_redis_ask(&on->redis, "SCRIPT FLUSH", answer, sizeof(answer)), 0);
    assert_null(claim(on));
}

static void a_restarted_redis_is_found_again_with_all_it_acknowledged(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    _cleanup_(task_freep) struct task *task = claim(on);
    test_redis_kill(&on->redis);
    assert_int_equal(test_redis_restart(&on->redis), 0);
    bool cancelled = true;
    assert_int_equal(queue_heartbeat(on->q, task, 60000, &cancelled, &on->err), 0);
    assert_false(cancelled);
    assert_int_equal(queue_job_finish(on->q, task, "r", 1, &on->err), 0);
}

static void a_call_outlasts_a_redis_that_comes_back_later(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_ping(on->q, &on->err), 0);
    kill(on->redis.pid, SIGSTOP);
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        clock_sleep_ms(700); /* longer than the first attempt waits */
        kill(on->redis.pid, SIGCONT);
        _exit(0);
    }
    _cleanup_(queue_closep) struct queue *q = on_redis_open(on, 30000);
    assert_int_equal(queue_ping(q, &on->err), 0);
    waitpid(pid, NULL, 0);
}

static void a_lost_answer_creates_one_job(void **state)
{
    struct on_redis *on = *state;
    lose_next_answer();
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "q", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 1);
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err),
                     -ERR_ALREADY_EXISTS);
}

static void a_lost_answer_claims_one_task_once(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    assert_int_equal(queue_job_create(on->q, "J2", "", "", 0, &first, &on->err), 0);
    lose_next_answer();
    _cleanup_(task_freep) struct task *a = claim(on);
    assert_non_null(a);
    assert_string_equal(a->job, "J1");
    assert_int_equal(a->delivery, 1);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "q", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 1);
    assert_int_equal(depth.leased, 1);
    _cleanup_(task_freep) struct task *b = claim(on);
    assert_string_equal(b->job, "J2");
}

static void a_lost_answer_completes_once(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    _cleanup_(task_freep) struct task *task = claim(on);
    struct task_spec next = {.queue = "next", .kind = "k"};
    struct follow follow = {&next, 1, &next};
    lose_next_answer();
    assert_int_equal(queue_complete(on->q, task, "r", 1, &follow, &on->err), 0);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "next", &depth, &on->err), 0);
    assert_int_equal(depth.ready, 1);
}

static void a_lost_answer_fails_and_releases_once(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    _cleanup_(task_freep) struct task *task = claim(on);
    lose_next_answer();
    assert_int_equal(queue_release(on->q, task, &on->err), 0);
    _cleanup_(task_freep) struct task *again = claim(on);
    assert_int_equal(again->delivery, 1);
    lose_next_answer();
    assert_int_equal(queue_fail(on->q, again, true, "x", &on->err), 0);
    struct queue_depth depth;
    assert_int_equal(queue_depth(on->q, "q", &depth, &on->err), 0);
    assert_int_equal(depth.ready + depth.delayed, 1);
}

static void a_lost_answer_adds_one_event(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    lose_next_answer();
    assert_int_equal(queue_event_add(on->q, "J1", "{}", &on->err), 0);
    assert_int_equal(test_redis_number(&on->redis, "XLEN {test}:events:J1"), 1);
}

static void a_full_redis_is_said_and_changes_nothing(void **state)
{
    struct on_redis *on = *state;
    char answer[64];
    assert_int_equal(queue_job_create(on->q, "J1", "", "", 0, &first, &on->err), 0);
    assert_int_equal(test_redis_ask(&on->redis, "CONFIG SET maxmemory 1", answer, sizeof(answer)),
                     0);
    assert_int_equal(queue_job_create(on->q, "J2", "", "", 0, &first, &on->err),
                     -ERR_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(on->err.message, on->redis.url));
    assert_int_equal(test_redis_ask(&on->redis, "CONFIG SET maxmemory 0", answer, sizeof(answer)),
                     0);
    int64_t running = 0;
    assert_int_equal(queue_running_jobs(on->q, &running, &on->err), 0);
    assert_int_equal(running, 1);
    assert_int_equal(queue_job_create(on->q, "J2", "", "", 0, &first, &on->err), 0);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_addresses_are_refused_without_repeating_a_password),
        cmocka_unit_test(an_absent_redis_is_named_after_patience),
        cmocka_unit_test(in_a_hurry_an_absent_redis_is_not_waited_for),
        cmocka_unit_test(a_password_is_given_and_a_wrong_one_is_said),
        cmocka_unit_test(scripts_are_loaded_again_when_redis_forgets_them),
        cmocka_unit_test(a_restarted_redis_is_found_again_with_all_it_acknowledged),
        cmocka_unit_test(a_call_outlasts_a_redis_that_comes_back_later),
        cmocka_unit_test(a_lost_answer_creates_one_job),
        cmocka_unit_test(a_lost_answer_claims_one_task_once),
        cmocka_unit_test(a_lost_answer_completes_once),
        cmocka_unit_test(a_lost_answer_fails_and_releases_once),
        cmocka_unit_test(a_lost_answer_adds_one_event),
        cmocka_unit_test(a_full_redis_is_said_and_changes_nothing),
    };
    return ON_REDIS_RUN("queue: the connection", tests);
}
