/* 3x3 convolutions of our own, with the CPU's products of bf16 where it has them. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/train/conv3_cases.h"

static void shapes_that_leave_tiles_empty_do_not_fit(void **state)
{
    (void)state;
    const struct conv3 good = {.n = 2,
                               .h = 8,
                               .w = 16,
                               .ic = 16,
                               .oh = 8,
                               .ow = 16,
                               .oc = 16,
                               .stride = 1,
                               .top = 1,
                               .left = 1};
    assert_true(conv3_fits(&good));
    struct conv3 c = good;
    c.ic = 24;
    assert_false(conv3_fits(&c));
    c = good;
    c.oc = 8;
    assert_false(conv3_fits(&c));
    c = good;
    c.w = c.ow = 8; /* 16 channels take 16 columns */
    assert_false(conv3_fits(&c));
    c = good;
    c.stride = 2; /* and so does each parity of the gradient */
    c.oc = 32;
    c.oh = 4;
    c.ow = 8;
    assert_false(conv3_fits(&c));
    c = good;
    c.top = 3;
    assert_false(conv3_fits(&c));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(conv3_grid),
        cmocka_unit_test(shapes_that_leave_tiles_empty_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
