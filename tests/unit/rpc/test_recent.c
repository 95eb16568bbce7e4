#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <pthread.h>
#include <cmocka.h>

#include "shared/base/clock.h"
#include "shared/rpc/internal.h"

#define SOON (clock_now_ns(NULL) + (int64_t)60 * 1000000000)

#define id_of(n) ((const uint8_t[CALL_ID_BYTES]){(uint8_t)(n)})

static enum recent_state begin(struct recent *r, int id, uint64_t fingerprint, char *ret_text)
{
    void *reply = NULL;
    size_t bytes = 0;
    enum recent_state state = recent_begin(r, id_of(id), fingerprint, SOON, &reply, &bytes);
    if (reply)
        memcpy(ret_text, reply, bytes);
    free(reply);
    return state;
}

static void a_repeat_gets_the_reply_that_was_given(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 1);
    char text[16] = "";
    assert_int_equal(begin(r, 1, 7, text), RECENT_NEW);
    recent_end(r, id_of(1), "pong", 5);
    assert_int_equal(begin(r, 1, 7, text), RECENT_REPEAT);
    assert_string_equal(text, "pong");
    recent_free(r);
}

static void an_id_reused_for_another_call_is_noticed(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 1);
    char text[16];
    assert_int_equal(begin(r, 1, 7, text), RECENT_NEW);
    recent_end(r, id_of(1), "pong", 5);
    assert_int_equal(begin(r, 1, 8, text), RECENT_MISUSED);
    recent_free(r);
}

static void the_oldest_call_is_forgotten_first(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 1);
    char text[16];
    for (int i = 0; i < 5; i++) {
        assert_int_equal(begin(r, i, 7, text), RECENT_NEW);
        recent_end(r, id_of(i), "pong", 5);
    }
    assert_int_equal(begin(r, 4, 7, text), RECENT_REPEAT);
    assert_int_equal(begin(r, 1, 7, text), RECENT_REPEAT);
    assert_int_equal(begin(r, 0, 7, text), RECENT_NEW);
    recent_free(r);
}

static void a_call_that_is_being_answered_is_never_forgotten(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 1);
    char text[16] = "";
    assert_int_equal(begin(r, 100, 7, text), RECENT_NEW);
    for (int i = 0; i < 50; i++) {
        assert_int_equal(begin(r, i, 7, text), RECENT_NEW);
        recent_end(r, id_of(i), "pong", 5);
    }
    recent_end(r, id_of(100), "late", 5);
    assert_int_equal(begin(r, 100, 7, text), RECENT_REPEAT);
    assert_string_equal(text, "late");
    recent_free(r);
}

static void more_calls_at_once_than_places_are_dropped(void **state)
{
    (void)state;
    struct recent *r = recent_new(2, 1000, 1);
    char text[16];
    assert_int_equal(begin(r, 1, 7, text), RECENT_NEW);
    assert_int_equal(begin(r, 2, 7, text), RECENT_NEW);
    assert_int_equal(begin(r, 3, 7, text), RECENT_DROP);
    recent_end(r, id_of(1), "pong", 5);
    assert_int_equal(begin(r, 3, 7, text), RECENT_NEW);
    recent_free(r);
}

static void replies_together_stay_under_the_limit(void **state)
{
    (void)state;
    struct recent *r = recent_new(100, 12, 1);
    char text[16];
    for (int i = 0; i < 3; i++) {
        assert_int_equal(begin(r, i, 7, text), RECENT_NEW);
        recent_end(r, id_of(i), "pong", 5);
    }
    assert_int_equal(begin(r, 2, 7, text), RECENT_REPEAT);
    assert_int_equal(begin(r, 1, 7, text), RECENT_REPEAT);
    assert_int_equal(begin(r, 0, 7, text), RECENT_NEW);
    recent_free(r);
}

static void *repeat_in_a_thread(void *arg)
{
    static char text[16];
    return begin(arg, 1, 7, text) == RECENT_REPEAT ? text : NULL;
}

static void a_repeat_of_a_running_call_waits_for_its_reply(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 1);
    char text[16];
    void *got = NULL;
    pthread_t thread;
    assert_int_equal(begin(r, 1, 7, text), RECENT_NEW);
    assert_int_equal(pthread_create(&thread, NULL, repeat_in_a_thread, r), 0);
    recent_end(r, id_of(1), "pong", 5);
    pthread_join(thread, &got);
    assert_non_null(got);
    assert_string_equal((char *)got, "pong");
    recent_free(r);
}

static void a_repeat_that_waits_too_long_is_dropped(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 1);
    char text[16];
    void *reply = NULL;
    size_t bytes = 0;
    assert_int_equal(begin(r, 1, 7, text), RECENT_NEW);
    assert_int_equal(recent_begin(r, id_of(1), 7, clock_now_ns(NULL) + 1000000, &reply, &bytes),
                     RECENT_DROP);
    recent_free(r);
}

static void a_repeat_without_room_to_wait_is_dropped_at_once(void **state)
{
    (void)state;
    struct recent *r = recent_new(4, 1000, 0);
    char text[16];
    assert_int_equal(begin(r, 1, 7, text), RECENT_NEW);
    assert_int_equal(begin(r, 1, 7, text), RECENT_DROP);
    recent_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_repeat_gets_the_reply_that_was_given),
        cmocka_unit_test(an_id_reused_for_another_call_is_noticed),
        cmocka_unit_test(the_oldest_call_is_forgotten_first),
        cmocka_unit_test(a_call_that_is_being_answered_is_never_forgotten),
        cmocka_unit_test(more_calls_at_once_than_places_are_dropped),
        cmocka_unit_test(replies_together_stay_under_the_limit),
        cmocka_unit_test(a_repeat_of_a_running_call_waits_for_its_reply),
        cmocka_unit_test(a_repeat_that_waits_too_long_is_dropped),
        cmocka_unit_test(a_repeat_without_room_to_wait_is_dropped_at_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
