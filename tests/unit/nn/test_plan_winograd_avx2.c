/* Winograd's convolutions on a process that is held to AVX2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/winograd_cases.h"

static int hold_to_avx2(void **state)
{
    static struct err err;
    *state = nn_limit_isa("avx2", &err) < 0 ? err.message : NULL;
    return 0;
}

static void the_kernel_for_avx2_is_right(void **state)
{
    if (*state) {
        print_message("skip: %s\n", (const char *)*state);
        skip();
    }
    winograd_check_all("winograd:vectors");
}

static void its_plain_twin_of_eight_lanes_is_right(void **state)
{
    if (*state) {
        print_message("skip: %s\n", (const char *)*state);
        skip();
    }
    winograd_check_all("winograd:plain");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_for_avx2_is_right),
        cmocka_unit_test(its_plain_twin_of_eight_lanes_is_right),
    };
    return cmocka_run_group_tests(tests, hold_to_avx2, NULL);
}
