/* Events, memos, tables and leases on things. */
#include "tests/support/redis_both.h"

#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

static void create(struct on_redis *on, const char *job)
{
    struct task_spec first = {.queue = "q", .kind = "start"};
    assert_int_equal(queue_job_create(on->q, job, "", "", 0, &first, &on->err), 0);
}

static void events_come_in_order_and_resume_after_an_id(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    for (int i = 0; i < 5; i++) {
        char text[32];
        snprintf(text, sizeof(text), "{\"n\":%d}", i);
        assert_int_equal(queue_event_add(on->q, "J1", text, &on->err), 0);
    }
    char after[32] = "";
    for (int i = 0; i < 5;) {
        struct event *events = NULL;
        int n = 0;
        assert_int_equal(queue_events(on->q, "J1", after, 2, 0, &events, &n, &on->err), 0);
        assert_in_range(n, 1, 2);
        for (int k = 0; k < n; k++, i++) {
            char text[32];
            snprintf(text, sizeof(text), "{\"n\":%d}", i);
            assert_string_equal(events[k].text, text);
            str_copy(after, sizeof(after), events[k].id);
        }
        events_free(events, n);
    }
    struct event *events = NULL;
    int n = 1;
    assert_int_equal(queue_events(on->q, "J1", after, 2, 0, &events, &n, &on->err), 0);
    assert_int_equal(n, 0);
    assert_int_equal(queue_events(on->q, "J1", after, 2, 1, &events, &n, &on->err), 0);
    assert_int_equal(n, 0);
}

static void a_waiting_reader_is_woken(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    pid_t pid = fork();
    if (pid == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        struct queue *q = NULL;
        struct queue_options options = {.url = on->redis.url, .prefix = "test"};
        _exit(queue_open(&options, &q, NULL) == 0 &&
                      queue_event_add(q, "J1", "{\"late\":1}", NULL) == 0
                  ? 0
                  : 1);
    }
    struct event *events = NULL;
    int n = 0, status = 1;
    assert_int_equal(queue_events(on->q, "J1", "", 10, 60000, &events, &n, &on->err), 0);
    assert_int_equal(n, 1);
    assert_string_equal(events[0].text, "{\"late\":1}");
    events_free(events, n);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
}

static void nothing_is_added_after_the_last_event(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    assert_int_equal(queue_job_cancel(on->q, "J1", &on->err), 0);
    assert_int_equal(queue_event_add(on->q, "J1", "{}", &on->err), -ERR_FAILED_PRECONDITION);
    struct event *events = NULL;
    int n = 0;
    assert_int_equal(queue_events(on->q, "J1", "", 10, 0, &events, &n, &on->err), 0);
    assert_int_equal(n, 1);
    assert_non_null(strstr(events[0].text, "\"type\":\"cancelled\""));
    events_free(events, n);
}

static void the_log_of_a_job_is_bounded(void **state)
{
    struct on_redis *on = *state;
    create(on, "J1");
    char answer[64];
    /* 12,000 events at once, as the server would see them */
    assert_int_equal(test_redis_ask(&on->redis,
                                    "EVAL \"for i=1,12000 do redis.call('XADD',"
                                    "'{test}:events:J1','*','json','{}') end return 1\" 0",
                                    answer, sizeof(answer)),
                     0);
    assert_int_equal(queue_event_add(on->q, "J1", "{}", &on->err), 0);
    assert_in_range(test_redis_number(&on->redis, "XLEN {test}:events:J1"), 10000, 10200);
}

static void odd_event_ids_and_sizes_are_refused(void **state)
{
    struct on_redis *on = *state;
    struct event *events = NULL;
    int n = 0;
    create(on, "J1");
    assert_int_equal(queue_events(on->q, "J1", "$", 10, 0, &events, &n, &on->err),
                     -ERR_INVALID_ARGUMENT);
    assert_int_equal(queue_events(on->q, "J1", "", 0, 0, &events, &n, &on->err),
                     -ERR_INVALID_ARGUMENT);
    _cleanup_(freep) char *large = malloc((size_t)300 * 1024);
    memset(large, 'x', (size_t)300 * 1024 - 1);
    large[(size_t)300 * 1024 - 1] = 0;
    assert_int_equal(queue_event_add(on->q, "J1", large, &on->err), -ERR_INVALID_ARGUMENT);
}

static void a_memo_is_found_as_it_was_put(void **state)
{
    struct on_redis *on = *state;
    static const char data[] = "\0\xff\r\n";
    void *found = on;
    size_t bytes = 0;
    assert_int_equal(queue_memo_get(on->q, "key", &found, &bytes, &on->err), 0);
    assert_null(found);
    assert_int_equal(queue_memo_put(on->q, "key", data, sizeof(data), &on->err), 0);
    assert_int_equal(queue_memo_put(on->q, "empty", NULL, 0, &on->err), 0);
    assert_int_equal(queue_memo_get(on->q, "key", &found, &bytes, &on->err), 0);
    assert_int_equal(bytes, sizeof(data));
    assert_memory_equal(found, data, sizeof(data));
    free(found);
    assert_int_equal(queue_memo_get(on->q, "empty", &found, &bytes, &on->err), 0);
    assert_non_null(found);
    assert_int_equal(bytes, 0);
    free(found);
    assert_int_equal(test_redis_number(&on->redis, "PTTL {test}:memo:key"), -1);
}

static void a_table_holds_fields(void **state)
{
    struct on_redis *on = *state;
    char *text = NULL;
    assert_int_equal(queue_table_put(on->q, "latency", "conv 3x3 [16,32]", "12.5", &on->err), 0);
    assert_int_equal(queue_table_get(on->q, "latency", "conv 3x3 [16,32]", &text, &on->err), 0);
    assert_string_equal(text, "12.5");
    free(text);
    assert_int_equal(queue_table_get(on->q, "latency", "conv 1x1", &text, &on->err), 0);
    assert_null(text);
    assert_int_equal(queue_table_get(on->q, "energy", "conv 1x1", &text, &on->err), 0);
    assert_null(text);
    assert_int_equal(queue_table_put(on->q, "latency", "a\nb", "1", &on->err),
                     -ERR_INVALID_ARGUMENT);
}

static void a_lease_has_one_holder(void **state)
{
    struct on_redis *on = *state;
    struct queue *q = on->q;
    assert_int_equal(queue_lease_held(q, "host", NULL, &on->err), 0);
    assert_int_equal(queue_lease_take(q, "host", "a", 60000, &on->err), 1);
    assert_int_equal(queue_lease_take(q, "host", "b", 60000, &on->err), 0);
    assert_int_equal(queue_lease_take(q, "host", "a", 60000, &on->err), 1);
    assert_int_equal(queue_lease_held(q, "host", NULL, &on->err), 1);
    assert_int_equal(queue_lease_held(q, "host", "a", &on->err), 0);
    assert_int_equal(queue_lease_held(q, "host", "b", &on->err), 1);
    assert_int_equal(queue_lease_drop(q, "host", "b", &on->err), 0); /* not b's: stays */
    assert_int_equal(queue_lease_held(q, "host", "b", &on->err), 1);
    assert_int_equal(queue_lease_drop(q, "host", "a", &on->err), 0);
    assert_int_equal(queue_lease_take(q, "host", "b", 60000, &on->err), 1);
    assert_int_equal(queue_lease_take(q, "host", "", 60000, &on->err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(queue_lease_take(q, "host", "b", 0, &on->err), -ERR_INVALID_ARGUMENT);
}

static void a_lease_ends_by_itself(void **state)
{
    struct on_redis *on = *state;
    assert_int_equal(queue_lease_take(on->q, "host", "a", 1, &on->err), 1);
    int r = 0;
    for (int i = 0; i < 100000 && r == 0; i++)
        r = queue_lease_take(on->q, "host", "b", 60000, &on->err);
    assert_int_equal(r, 1);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(events_come_in_order_and_resume_after_an_id),
        cmocka_unit_test(a_waiting_reader_is_woken),
        cmocka_unit_test(nothing_is_added_after_the_last_event),
        cmocka_unit_test(the_log_of_a_job_is_bounded),
        cmocka_unit_test(odd_event_ids_and_sizes_are_refused),
        cmocka_unit_test(a_memo_is_found_as_it_was_put),
        cmocka_unit_test(a_table_holds_fields),
        cmocka_unit_test(a_lease_has_one_holder),
        cmocka_unit_test(a_lease_ends_by_itself),
    };
    return ON_REDIS_RUN("queue: events, memos, tables, leases", tests);
}
