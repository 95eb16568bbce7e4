/* The same convolutions with products written out: the process is held to AVX2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/nn/kernel.h"
#include "shared/nn/plan.h"
#include "tests/unit/train/conv3_cases.h"

static void conv3_grid_without_avx512(void **state)
{
    struct err err = {0};
    if (nn_limit_isa("avx2", &err) < 0) {
        print_message("skip: %s\n", err.message);
        skip();
    }
    assert_false(nn_has_bf16());
    conv3_grid(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(conv3_grid_without_avx512)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
