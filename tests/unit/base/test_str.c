/* Numbers with units. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/str.h"

static void times_that_are_short_have_a_unit(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        double us;
    } cases[] = {{"200us", 200}, {"1.5ms", 1500}, {"2s", 2e6}, {"0us", 0}, {"1e2us", 100}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        double us = -1;
        struct err err = {0};
        if (str_parse_micros(cases[i].text, &us, &err) < 0)
            fail_msg("%s", err.message);
        assert_true(us == cases[i].us);
    }
}

static void what_is_no_time_is_refused_and_quoted(void **state)
{
    (void)state;
    static const char *const bad[] = {"",       "200",   "us",   "-1us", "200 us", "1m",
                                      "1.5mss", "nanus", "infs", " 1us", "1e20s",  "1us1us"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        double us = -1;
        struct err err = {0};
        assert_int_equal(str_parse_micros(bad[i], &us, &err), -ERR_INVALID_ARGUMENT);
        assert_true(us == -1);
        assert_non_null(strstr(err.message, bad[i]));
    }
}

static void sizes_count_in_powers_of_1024(void **state)
{
    (void)state;
    uint64_t bytes = 0;
    assert_int_equal(str_parse_bytes("300K", &bytes, NULL), 0);
    assert_int_equal(bytes, 300 * 1024);
    assert_int_equal(str_parse_bytes("1.5m", &bytes, NULL), 0);
    assert_int_equal(bytes, 1536 * 1024);
    assert_int_equal(str_parse_bytes("77", &bytes, NULL), 0);
    assert_int_equal(bytes, 77);
    assert_int_equal(str_parse_bytes("-1K", &bytes, NULL), -ERR_INVALID_ARGUMENT);
    assert_int_equal(str_parse_bytes("3KB", &bytes, NULL), -ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times_that_are_short_have_a_unit),
        cmocka_unit_test(what_is_no_time_is_refused_and_quoted),
        cmocka_unit_test(sizes_count_in_powers_of_1024),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
