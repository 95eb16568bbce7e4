/* Learning rates over a run. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/train/schedule.h"

static void near(double got, double want)
{
    if (fabs(got - want) > 1e-12)
        fail_msg("%.15g instead of %.15g", got, want);
}

static void cosine_rises_in_a_line_and_falls_in_half_a_wave(void **state)
{
    (void)state;
    const struct schedule s = {SCHEDULE_COSINE, 0.4, 0.1, 0.25, 0, 0};
    near(schedule_rate(&s, 0, 100), 0.1);
    near(schedule_rate(&s, 5, 100), 0.25);
    near(schedule_rate(&s, 10, 100), 0.4);
    near(schedule_rate(&s, 55, 100), 0.2);
    near(schedule_rate(&s, 40, 100), 0.2 * (1 + cos(M_PI / 3)));
    assert_true(schedule_rate(&s, 99, 100) > 0 && schedule_rate(&s, 99, 100) < 0.001);
}

static void one_cycle_is_a_triangle(void **state)
{
    (void)state;
    const struct schedule s = {SCHEDULE_ONE_CYCLE, 1, 0.2, 0.2, 0.1, 0};
    near(schedule_rate(&s, 0, 1000), 0.2);
    near(schedule_rate(&s, 100, 1000), 0.6);
    near(schedule_rate(&s, 200, 1000), 1);
    near(schedule_rate(&s, 600, 1000), 0.55);
}

static void step_falls_at_one_half_and_three_quarters(void **state)
{
    (void)state;
    const struct schedule s = schedule_make(SCHEDULE_STEP, 0.1);
    near(schedule_rate(&s, 49, 100), 0.1);
    near(schedule_rate(&s, 50, 100), 0.01);
    near(schedule_rate(&s, 74, 100), 0.01);
    near(schedule_rate(&s, 75, 100), 0.001);
}

static void constant_stays_after_warming_up(void **state)
{
    (void)state;
    const struct schedule s = {SCHEDULE_CONSTANT, 0.3, 0, 0, 0, 0};
    for (int i = 0; i < 10; i++)
        near(schedule_rate(&s, i, 10), 0.3);
}

static void a_trapezoid_is_level_between_its_sides(void **state)
{
    (void)state;
    const struct schedule s = {SCHEDULE_TRAPEZOID, 0.4, 0.1, 0.5, 0.25, 0.4};
    near(schedule_rate(&s, 0, 100), 0.2);
    near(schedule_rate(&s, 5, 100), 0.3);
    near(schedule_rate(&s, 10, 100), 0.4);
    near(schedule_rate(&s, 60, 100), 0.4);
    near(schedule_rate(&s, 61, 100), 0.4 * (1 - 0.75 / 40));
    near(schedule_rate(&s, 80, 100), 0.4 * 0.625);
    assert_int_equal(schedule_level_end(&s, 100), 60);
    assert_int_equal(schedule_level_end(&s, 9), 6);
    const struct schedule other = schedule_make(SCHEDULE_ONE_CYCLE, 1);
    assert_int_equal(schedule_level_end(&other, 100), 100);
    /* Sides that would meet: up comes first. */
    const struct schedule steep = {SCHEDULE_TRAPEZOID, 1, 0.8, 0.1, 0, 0.4};
    assert_int_equal(schedule_level_end(&steep, 100), 80);
    near(schedule_rate(&steep, 80, 100), 1);
    for (int64_t total = 1; total < 6; total++) /* there is always a way down */
        assert_true(schedule_level_end(&steep, total) < total);
}

static void every_kind_stays_between_nothing_and_its_peak(void **state)
{
    (void)state;
    for (int kind = 0; kind <= SCHEDULE_TRAPEZOID; kind++) {
        const struct schedule s = schedule_make((enum schedule_kind)kind, 0.7);
        double most = 0;
        for (int i = 0; i < 1000; i++) {
            const double rate = schedule_rate(&s, i, 1000);
            assert_true(rate > 0 && rate <= 0.7 + 1e-12);
            most = fmax(most, rate);
        }
        assert_true(most > 0.69);
        near(schedule_rate(&s, 0, 1), s.rate * s.start); /* a run of a single step */
    }
}

static void names_come_back(void **state)
{
    (void)state;
    enum schedule_kind kind;
    struct err err = {0};
    for (int i = 0; i <= SCHEDULE_TRAPEZOID; i++) {
        assert_int_equal(schedule_parse(schedule_name((enum schedule_kind)i), &kind, NULL), 0);
        assert_int_equal(kind, i);
    }
    assert_int_equal(schedule_parse("cosin", &kind, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "'cosin'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cosine_rises_in_a_line_and_falls_in_half_a_wave),
        cmocka_unit_test(one_cycle_is_a_triangle),
        cmocka_unit_test(step_falls_at_one_half_and_three_quarters),
        cmocka_unit_test(constant_stays_after_warming_up),
        cmocka_unit_test(a_trapezoid_is_level_between_its_sides),
        cmocka_unit_test(every_kind_stays_between_nothing_and_its_peak),
        cmocka_unit_test(names_come_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
