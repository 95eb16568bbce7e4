/* Rules of failpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/failpoint.h"

static int teardown(void **state)
{
    (void)state;
    return failpoint_set(NULL, NULL);
}

static void without_rules_nothing_fails(void **state)
{
    (void)state;
    assert_int_equal(failpoint_set(NULL, NULL), 0);
    assert_false(failpoint_active);
    assert_int_equal(failpoint("a.b", NULL), 0);
}

static void a_rule_concerns_its_name_only(void **state)
{
    (void)state;
    assert_int_equal(failpoint_set("a.b=error", NULL), 0);
    struct err err = {0};
    assert_int_equal(failpoint("a.b", &err), -ERR_UNAVAILABLE);
    assert_string_equal(err.message, "failpoint a.b");
    assert_int_equal(failpoint("a.c", &err), 0);
    assert_int_equal(failpoint("a.b", &err), -ERR_UNAVAILABLE);
}

static void a_numbered_rule_strikes_once(void **state)
{
    (void)state;
    assert_int_equal(failpoint_set("x=sleep:0;a=error@2;b=error@1", NULL), 0);
    assert_int_equal(failpoint("a", NULL), 0);
    assert_int_equal(failpoint("a", NULL), -ERR_UNAVAILABLE);
    assert_int_equal(failpoint("a", NULL), 0);
    assert_int_equal(failpoint("b", NULL), -ERR_UNAVAILABLE);
}

static void kill_ends_the_process(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        setenv("HONE_FAILPOINT", "a=kill", 1);
        failpoint_init(NULL);
        failpoint("a", NULL);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
}

static void what_is_no_rule_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"a",         "a=",       "a=explode", "a=sleep",
                                      "a=sleep:x", "a=kill@0", "a=kill@x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_not_equal(failpoint_set(bad[i], NULL), 0);
        assert_false(failpoint_active);
    }
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(without_rules_nothing_fails, teardown),
        cmocka_unit_test_teardown(a_rule_concerns_its_name_only, teardown),
        cmocka_unit_test_teardown(a_numbered_rule_strikes_once, teardown),
        cmocka_unit_test_teardown(kill_ends_the_process, teardown),
        cmocka_unit_test_teardown(what_is_no_rule_is_refused, teardown),
    };
    return cmocka_run_group_tests_name("base: failpoints", tests, NULL, NULL);
}
