/* The loop of a worker, as a process of its own, on a real Redis and a real store. */
#include "tests/support/redis_work.h"

#include <semaphore.h>
#include <sys/mman.h>

#include "hone/v1/tasks.pb-c.h"
#include "shared/base/pool.h"

/* Shared with the workers, which are children of this process. */
static struct shared {
    sem_t started, go;
    atomic_int calls, left;
} *shared;

/* ---- handlers ---- */

static int copy_result(struct work_output *out, const void *data, size_t bytes, struct err *err)
{
    out->result = malloc(bytes + 1);
    if (!out->result)
        return err_oom(err, "a result");
    memcpy(out->result, data, bytes);
    out->result_bytes = bytes;
    return 0;
}

/* Finishes the job with its payload. */
static int finish(struct work_task *task, struct work_output *out, struct err *err)
{
    atomic_fetch_add(&shared->calls, 1);
    int r = work_event(task, "best", "\"p50_us\":12.5", err);
    if (r == 0)
        r = work_progress(task, "counting", 1, 2, "images", err);
    if (r < 0)
        return r;
    out->finish_job = true;
    return copy_result(out, task->task->payload, task->task->payload_bytes, err);
}

static int echo(struct work_task *task, struct work_output *out, struct err *err)
{
    Hone__V1__BuildResult result = HONE__V1__BUILD_RESULT__INIT;
    Hone__V1__Network network = HONE__V1__NETWORK__INIT;
    ProtobufCMessage *payload = NULL;
    int r = work_payload(task, &hone__v1__build_task__descriptor, &payload, err);
    if (r < 0)
        return r;
    network.name = ((Hone__V1__BuildTask *)payload)->name;
    result.network = &network;
    if (!strcmp(network.name, "2"))
        r = err_set(err, ERR_INVALID_ARGUMENT, "two is refused");
    else
        r = work_result(out, &result.base, err);
    protobuf_c_message_free_unpacked(payload, NULL);
    return r;
}

/* Three echoes and a join. */
static int fan(struct work_task *task, struct work_output *out, struct err *err)
{
    (void)task;
    static char names[3][2] = {"1", "2", "3"};
    int r = 0;
    for (int i = 0; i < 3 && r == 0; i++) {
        Hone__V1__BuildTask build = HONE__V1__BUILD_TASK__INIT;
        build.name = names[i];
        r = work_follow(out, "tester", "echo", &build.base, err);
    }
    Hone__V1__StageTask stage = HONE__V1__STAGE_TASK__INIT;
    return r < 0 ? r : work_continue(out, "tester", "join", &stage.base, err);
}

static int join(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    for (int i = 0; i < task->task->n_results; i++) {
        ProtobufCMessage *message = NULL;
        struct err why = {0};
        int r = work_group_result(task, i, &hone__v1__build_result__descriptor, &message, &why);
        const Hone__V1__BuildResult *result = (Hone__V1__BuildResult *)message;
        strbuf_printf(&text, "[%s]", r < 0 ? why.message : result->network->name);
        if (r == 0)
            protobuf_c_message_free_unpacked(message, NULL);
    }
    out->finish_job = true;
    return copy_result(out, text.data, text.length, err);
}

/* Runs until it is told to stop. */
static int endless(struct work_task *task, struct work_output *out, struct err *err)
{
    (void)out;
    sem_post(&shared->started);
    for (int r;;) {
        r = work_check(task, err);
        if (r < 0)
            return r;
        usleep(1000);
    }
}

static int flaky(struct work_task *task, struct work_output *out, struct err *err)
{
    atomic_fetch_add(&shared->calls, 1);
    if (atomic_fetch_sub(&shared->left, 1) > 0)
        return err_set(err, ERR_UNAVAILABLE, "not now");
    return finish(task, out, err);
}

static int broken(struct work_task *task, struct work_output *out, struct err *err)
{
    (void)task, (void)out;
    atomic_fetch_add(&shared->calls, 1);
    return err_set(err, ERR_INVALID_ARGUMENT, "node conv1: no such thing");
}

/* Says when it runs, and waits for a word before it ends. */
static int measure(struct work_task *task, struct work_output *out, struct err *err)
{
    sem_post(&shared->started);
    sem_wait(&shared->go);
    int r = work_check(task, err);
    if (r < 0)
        return r;
    out->finish_job = true;
    return copy_result(out, "m", 1, err);
}

/* The first time, measures until it is told that the measurement is worth nothing. */
static int remeasure(struct work_task *task, struct work_output *out, struct err *err)
{
    if (atomic_fetch_add(&shared->calls, 1) == 0)
        return endless(task, out, err);
    out->finish_job = true;
    return copy_result(out, "m", 1, err);
}

static int leaves_files(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(freep) char *path = str_printf("%s/file", task->scratch);
    int r = fs_write_atomic(path, "x", 1, err);
    if (r < 0)
        return r;
    out->finish_job = true;
    return copy_result(out, path, strlen(path), err);
}

static int talks_nonsense(struct work_task *task, struct work_output *out, struct err *err)
{
    (void)out;
    return work_event(task, "best", "\"p50_us\":nan", err);
}

/* Many threads report at once. */
static int report_some(void *ctx, int64_t index, int worker, struct err *err)
{
    (void)worker;
    char fields[64];
    snprintf(fields, sizeof(fields), "\"n\":%d,\"file\":\"\xff\"", (int)index);
    int r = work_event(ctx, "seen", fields, err);
    return r < 0 ? r : work_progress(ctx, index % 2 ? "odd" : "even", 1, 2, "\"x\"", err);
}

static int chatty(struct work_task *task, struct work_output *out, struct err *err)
{
    int r = pool_for(200, 4, report_some, task, err);
    out->finish_job = true;
    return r < 0 ? r : copy_result(out, "said", 4, err);
}

static const struct work_kind kinds[] = {
    {.kind = "finish", .handle = finish, .version = 1, .memo = true},
    {.kind = "echo", .handle = echo, .version = 1},
    {.kind = "fan", .handle = fan, .version = 1, .memo = true},
    {.kind = "join", .handle = join, .version = 1},
    {.kind = "endless", .handle = endless},
    {.kind = "flaky", .handle = flaky, .memo = true},
    {.kind = "broken", .handle = broken, .memo = true},
    {.kind = "measure", .handle = measure, .measures = true},
    {.kind = "remeasure", .handle = remeasure, .measures = true},
    {.kind = "files", .handle = leaves_files},
    {.kind = "chatty", .handle = chatty, .memo = true},
    {.kind = "nonsense", .handle = talks_nonsense},
};
static const struct work_config config = {
    .service = "tester", .kinds = kinds, .n_kinds = sizeof(kinds) / sizeof(kinds[0])};

static pid_t start(struct on_redis *on, const char *lease_ms, const char *name, const char *value)
{
    return worker_start(on, &config, ENV("HONE_LEASE_MS", lease_ms, name, value));
}

static void begin(void)
{
    *shared = (struct shared){0};
    sem_init(&shared->started, 1, 0);
    sem_init(&shared->go, 1, 0);
    workers_begin();
}

/* ---- tests ---- */

static void a_task_is_handled_and_the_job_gets_its_result(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "finish", "hello");
    job_result_is(on, "J1", "hello");
    worker_stop(pid);
    workers_end();
}

static void events_of_a_handler_reach_the_watcher_before_the_end(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "finish", "hello");
    _cleanup_(freep) char *events = job_events(on, "J1");
    const char *best = strstr(events, "{\"type\":\"best\",\"p50_us\":12.5,\"service\":\"tester\","
                                      "\"kind\":\"finish\",\"task\":\"J1-1\",\"time_ms\":");
    const char *progress =
        strstr(events, "{\"type\":\"progress\",\"stage\":\"counting\",\"done\":1,"
                       "\"total\":2,\"unit\":\"images\"");
    const char *last = strstr(events, "{\"type\":\"succeeded\"");
    assert_non_null(best);
    assert_non_null(progress);
    assert_true(best < progress && progress < last);
    worker_stop(pid);
    workers_end();
}

static void threads_of_a_handler_may_report_at_once(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    for (int again = 0; again < 2; again++) {
        char id[16];
        snprintf(id, sizeof(id), "J%d", again);
        job_put(on, id, "chatty", "x");
        _cleanup_(freep) char *events = job_events(on, id);
        for (int i = 0; i < 200; i++) {
            char text[64];
            snprintf(text, sizeof(text), "{\"type\":\"seen\",\"n\":%d,\"file\":\"?\",", i);
            assert_non_null(strstr(events, text));
        }
    }
    worker_stop(pid);
    workers_end();
}

static void the_same_task_again_is_answered_from_memory_with_its_events(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "finish", "hello");
    job_result_is(on, "J1", "hello");
    job_put(on, "J2", "finish", "hello");
    job_result_is(on, "J2", "hello");
    assert_int_equal(atomic_load(&shared->calls), 1);
    _cleanup_(freep) char *events = job_events(on, "J2");
    assert_non_null(strstr(events, "{\"type\":\"reused\",\"service\":\"tester\""));
    assert_non_null(strstr(events, "{\"type\":\"best\",\"p50_us\":12.5"));
    assert_null(strstr(events, "progress"));
    job_put(on, "J3", "finish", "another");
    job_result_is(on, "J3", "another");
    assert_int_equal(atomic_load(&shared->calls), 2);
    worker_stop(pid);
    workers_end();
}

static void another_store_does_not_believe_what_was_remembered(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "finish", "hello");
    job_result_is(on, "J1", "hello");
    worker_stop(pid);
    _cleanup_(freep) char *url = str_printf("file://%s/other", worker_folder);
    pid = start(on, "15000", "HONE_STORE", url);
    job_put(on, "J2", "finish", "hello");
    job_result_is(on, "J2", "hello");
    assert_int_equal(atomic_load(&shared->calls), 2);
    worker_stop(pid);
    workers_end();
}

static void a_group_is_joined_with_results_and_failures_in_order(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "fan", "");
    job_result_is(on, "J1", "[1][tester echo: two is refused][3]");
    /* remembered: the follow-ups come again */
    job_put(on, "J2", "fan", "");
    job_result_is(on, "J2", "[1][tester echo: two is refused][3]");
    _cleanup_(freep) char *events = job_events(on, "J2");
    assert_non_null(strstr(events, "{\"type\":\"reused\""));
    worker_stop(pid);
    workers_end();
}

static void a_passing_failure_is_retried(void **state)
{
    struct on_redis *on = *state;
    begin();
    atomic_store(&shared->left, 1);
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "flaky", "x");
    job_result_is(on, "J1", "x");
    assert_int_equal(atomic_load(&shared->calls), 3); /* twice flaky, once in it finish */
    _cleanup_(freep) char *events = job_events(on, "J1");
    assert_non_null(strstr(events, "{\"type\":\"retried\""));
    worker_stop(pid);
    workers_end();
}

static void a_permanent_failure_is_not_retried(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "broken", "x");
    job_error_is(on, "J1", "tester broken: node conv1: no such thing");
    job_put(on, "J2", "never-heard-of", "x");
    job_error_is(on, "J2", "tester never-heard-of: there is no such kind of task here");
    job_put(on, "J3", "echo", "\xff\xff\xff");
    _cleanup_(freep) char *events = job_events(on, "J3");
    assert_non_null(strstr(events, "the payload of echo: "));
    job_put(on, "J4", "nonsense", "x");
    _cleanup_(freep) char *more = job_events(on, "J4");
    assert_non_null(strstr(more, "is not JSON"));
    assert_int_equal(atomic_load(&shared->calls), 1);
    worker_stop(pid);
    workers_end();
}

static void a_handler_outlives_its_lease_many_times_by_heartbeats(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "100", NULL, NULL);
    job_put(on, "J1", "endless", "");
    sem_wait(&shared->started);
    /* anybody who claims would sweep an expired lease: ten leases long nobody gets it */
    static const char *const queue = "tester";
    _cleanup_(task_freep) struct task *task = NULL;
    assert_int_equal(queue_claim(on->q, &queue, 1, "thief", 1000, 1000, &task, &on->err), 0);
    assert_null(task);
    worker_stop(pid);
    workers_end();
}

static void a_cancelled_job_stops_its_handler(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "300", NULL, NULL);
    job_put(on, "J1", "endless", "");
    sem_wait(&shared->started);
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    job_put(on, "J2", "finish", "free again");
    job_result_is(on, "J2", "free again");
    worker_stop(pid);
    workers_end();
}

static void a_stopped_worker_gives_its_task_back_uncounted(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "60000", NULL, NULL);
    job_put(on, "J1", "endless", "");
    sem_wait(&shared->started);
    worker_stop(pid);
    static const char *const queue = "tester";
    _cleanup_(task_freep) struct task *task = NULL;
    assert_int_equal(queue_claim(on->q, &queue, 1, "next", 1000, 0, &task, &on->err), 0);
    assert_non_null(task);
    assert_int_equal(task->delivery, 1);
    workers_end();
}

static void a_measurement_waits_for_quiet_and_others_wait_for_it(void **state)
{
    struct on_redis *on = *state;
    begin();
    /* somebody else measures on this host: a handler that asks is held */
    assert_int_equal(queue_lease_take(on->q, "measure:here", "me", 60000, &on->err), 1);
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "measure", "");
    struct event *events = NULL;
    int n = 0;
    assert_int_equal(queue_events(on->q, "J1", "", 1, 30000, &events, &n, &on->err), 0);
    assert_int_equal(n, 1);
    assert_non_null(strstr(events[0].text, "waiting for others that measure"));
    events_free(events, n);
    assert_int_equal(sem_trywait(&shared->started), -1);
    assert_int_equal(queue_lease_drop(on->q, "measure:here", "me", &on->err), 0);
    sem_wait(&shared->started);
    assert_int_equal(queue_lease_take(on->q, "measure:here", "me", 60000, &on->err), 0);
    sem_post(&shared->go);
    job_result_is(on, "J1", "m");
    assert_int_equal(queue_lease_take(on->q, "measure:here", "me", 60000, &on->err), 1);
    worker_stop(pid);
    workers_end();
}

static void a_handler_pauses_while_somebody_measures_on_its_host(void **state)
{
    struct on_redis *on = *state;
    begin();
    char after[32] = "0";
    assert_int_equal(queue_lease_take(on->q, "measure:here", "me", 60000, &on->err), 1);
    assert_int_equal(queue_lease_take(on->q, "measure:elsewhere", "me", 60000, &on->err), 1);
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "endless", "");
    job_wait_event(on, "J1", "paused", after);
    assert_int_equal(sem_trywait(&shared->started), -1); /* it has not even begun */
    assert_int_equal(queue_lease_drop(on->q, "measure:here", "me", &on->err), 0);
    sem_wait(&shared->started);
    job_wait_event(on, "J1", "resumed", after);
    assert_int_equal(queue_lease_take(on->q, "measure:here", "me", 60000, &on->err), 1);
    job_wait_event(on, "J1", "paused", after);
    worker_stop(pid); /* a pause does not keep it from stopping */
    workers_end();
}

static void a_measurement_whose_quiet_was_lost_is_repeated(void **state)
{
    struct on_redis *on = *state;
    begin();
    char after[32] = "0";
    pid_t pid = start(on, "300", NULL, NULL);
    job_put(on, "J1", "remeasure", "");
    sem_wait(&shared->started);
    /* as if it had been away for longer than its lease */
    char answer[64];
    assert_int_equal(
        test_redis_ask(&on->redis, "SET {test}:lease:measure:here thief", answer, sizeof(answer)),
        0);
    job_wait_event(on, "J1", "retried", after);
    assert_int_equal(queue_lease_drop(on->q, "measure:here", "thief", &on->err), 0);
    job_result_is(on, "J1", "m");
    worker_stop(pid);
    workers_end();
}

static void scratch_is_removed_after_the_task_and_after_a_crash(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t pid = start(on, "15000", NULL, NULL);
    job_put(on, "J1", "files", "");
    _cleanup_(freep) char *events = job_events(on, "J1");
    _cleanup_(job_info_release) struct job_info info = {0};
    assert_int_equal(queue_job_get(on->q, "J1", &info, &on->err), 0);
    assert_false(fs_exists(info.result));
    /* killed: its folder stays until the next one starts */
    job_put(on, "J2", "endless", "");
    sem_wait(&shared->started);
    worker_kill(pid);
    _cleanup_(freep) char *mine = strndup(info.result, strlen(info.result) - strlen("/J1-1/file"));
    assert_true(fs_is_dir(mine));
    pid = start(on, "15000", NULL, NULL);
    job_put(on, "J3", "finish", "x");
    job_result_is(on, "J3", "x");
    assert_false(fs_exists(mine));
    worker_stop(pid);
    workers_end();
}

static void the_loop_ends_with_its_parent_process(void **state)
{
    struct on_redis *on = *state;
    begin();
    pid_t parent = fork();
    if (parent == 0) {
        pause();
        _exit(0);
    }
    char text[32];
    snprintf(text, sizeof(text), "%d", (int)parent);
    pid_t pid = start(on, "15000", "HONE_PARENT_PID", text);
    job_put(on, "J1", "endless", "");
    sem_wait(&shared->started);
    worker_kill(parent);
    int status = worker_wait(pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    /* and does not begin without it */
    pid = start(on, "15000", "HONE_PARENT_PID", text);
    status = worker_wait(pid);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    workers_end();
}

static void a_wrong_environment_is_said_and_ends_with_1(void **state)
{
    struct on_redis *on = *state;
    begin();
    static const char *const wrong[][2] = {
        {"HONE_REDIS", ""},         {"HONE_REDIS", "http://x"}, {"HONE_STORE", ""},
        {"HONE_STORE", "s3://b/p"}, {"HONE_THREADS", "0"},      {"HONE_LEASE_MS", "soon"},
        {"HONE_FAILPOINT", "x=y"},  {"HONE_PARENT_PID", "-1"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        pid_t pid = start(on, "15000", wrong[i][0], wrong[i][1]);
        int status = worker_wait(pid);
        assert_true(WIFEXITED(status));
        assert_int_equal(WEXITSTATUS(status), 1);
    }
    workers_end();
}

int main(void)
{
    shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (shared == MAP_FAILED)
        return 1;
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_task_is_handled_and_the_job_gets_its_result),
        cmocka_unit_test(events_of_a_handler_reach_the_watcher_before_the_end),
        cmocka_unit_test(threads_of_a_handler_may_report_at_once),
        cmocka_unit_test(the_same_task_again_is_answered_from_memory_with_its_events),
        cmocka_unit_test(another_store_does_not_believe_what_was_remembered),
        cmocka_unit_test(a_group_is_joined_with_results_and_failures_in_order),
        cmocka_unit_test(a_passing_failure_is_retried),
        cmocka_unit_test(a_permanent_failure_is_not_retried),
        cmocka_unit_test(a_handler_outlives_its_lease_many_times_by_heartbeats),
        cmocka_unit_test(a_cancelled_job_stops_its_handler),
        cmocka_unit_test(a_stopped_worker_gives_its_task_back_uncounted),
        cmocka_unit_test(a_measurement_waits_for_quiet_and_others_wait_for_it),
        cmocka_unit_test(a_handler_pauses_while_somebody_measures_on_its_host),
        cmocka_unit_test(a_measurement_whose_quiet_was_lost_is_repeated),
        cmocka_unit_test(scratch_is_removed_after_the_task_and_after_a_crash),
        cmocka_unit_test(the_loop_ends_with_its_parent_process),
        cmocka_unit_test(a_wrong_environment_is_said_and_ends_with_1),
    };
    return ON_REDIS_RUN("work: the loop", tests);
}
