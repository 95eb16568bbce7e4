/* Which plain network is set beside a result. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/cli/control.h"
#include "shared/base/mem.h"
#include "shared/design/design.h"

static void a_design_is_written_as_by_hand(void **state)
{
    (void)state;
    char text[96];
    control_design(16, 2, 32, text);
    assert_string_equal(text, "conv:16 residual:16*2 residual:32:s2*2 residual:64:s2*2 head");
    control_design(24, 1, 224, text);
    assert_string_equal(text, "conv:24:s2 residual:24*1 residual:48:s2*1 residual:96:s2*1 head");
}

/* Nothing is cut off, and it is a design. */
static void the_largest_is_one(void **state)
{
    (void)state;
    char text[96];
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct err err = {0};
    control_design(128, 3, 224, text);
    if (design_parse(text, arena, &design, &err) < 0)
        fail_msg("%s: %s", text, err.message);
    assert_int_equal(design.n, 1 + 9 + 1);
}

static void of_those_as_fast_the_one_of_most_products_is_taken(void **state)
{
    (void)state;
    const double ratios[] = {0.5, 0.92, 0.99, 1.01};
    const int64_t macs[] = {900, 40, 30, 800};
    assert_int_equal(control_choose(ratios, macs, 4), 1);
}

static void where_none_is_nearly_as_slow_the_slowest_is_taken(void **state)
{
    (void)state;
    const double ratios[] = {0.5, 0.8, 0.7, 1.2};
    const int64_t macs[] = {900, 10, 30, 800};
    assert_int_equal(control_choose(ratios, macs, 4), 1);
    const double one[] = {0.3, 0.95};
    assert_int_equal(control_choose(one, macs, 2), 1);
}

static void none_is_taken_that_is_slower(void **state)
{
    (void)state;
    const double ratios[] = {1.2, 1.05};
    const int64_t macs[] = {10, 20};
    assert_int_equal(control_choose(ratios, macs, 2), -1);
    assert_int_equal(control_choose(ratios, macs, 0), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_design_is_written_as_by_hand),
        cmocka_unit_test(the_largest_is_one),
        cmocka_unit_test(of_those_as_fast_the_one_of_most_products_is_taken),
        cmocka_unit_test(where_none_is_nearly_as_slow_the_slowest_is_taken),
        cmocka_unit_test(none_is_taken_that_is_slower),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
