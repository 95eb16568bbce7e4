/* How many candidates and finals a budget allows. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/synthesizer/budget.h"

static void without_a_budget_everything_is_tried(void **state)
{
    (void)state;
    assert_int_equal(budget_candidates(50, INFINITY, 4), 4);
    assert_int_equal(budget_finals(50, INFINITY, 3), 3);
}

static void an_hour_is_enough_for_everything(void **state)
{
    (void)state;
    assert_int_equal(budget_candidates(60, 3540, 4), 4);
    assert_int_equal(budget_finals(100, 3500, 3), 3);
}

static void when_time_is_over_one_network_is_proved(void **state)
{
    (void)state;
    const double left[] = {0, -1, -1e9, 5};
    for (size_t i = 0; i < sizeof(left) / sizeof(left[0]); i++) {
        assert_int_equal(budget_candidates(60, left[i], 4), 0);
        assert_int_equal(budget_finals(60, left[i], 3), 1);
    }
}

static void more_time_never_allows_less(void **state)
{
    (void)state;
    int candidates = 0, finals = 1, steps = 0;
    for (double left = -10; left < 300; left += 0.5) {
        int c = budget_candidates(54, left, 4), f = budget_finals(80, left, 3);
        assert_true(c >= candidates && c <= 4);
        assert_true(f >= finals && f <= 3);
        steps += (c > candidates) + (f > finals);
        candidates = c;
        finals = f;
    }
    assert_int_equal(candidates, 4);
    assert_int_equal(finals, 3);
    assert_int_equal(steps, 4 + 2); /* one more at a time */
}

static void a_job_that_took_longer_until_here_fits_less(void **state)
{
    (void)state;
    assert_true(budget_candidates(10, 40, 4) > budget_candidates(100, 40, 4));
    assert_true(budget_finals(10, 25, 3) > budget_finals(200, 25, 3));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_a_budget_everything_is_tried),
        cmocka_unit_test(an_hour_is_enough_for_everything),
        cmocka_unit_test(when_time_is_over_one_network_is_proved),
        cmocka_unit_test(more_time_never_allows_less),
        cmocka_unit_test(a_job_that_took_longer_until_here_fits_less),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
