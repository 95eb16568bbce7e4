/* The loops of smaller instruction sets: the process is held to AVX2. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/nn/kernel.h"
#include "tests/unit/train/train_nets.h"

static void gradients_are_right_without_avx512(void **state)
{
    (void)state;
    struct err err = {0};
    if (nn_limit_isa("avx2", &err) < 0) {
        print_message("skip: %s\n", err.message);
        skip();
    }
    assert_int_equal(kernel_level(), KERNEL_AVX2);
    const int64_t widths[] = {6, 16};
    for (int i = 0; i < 2; i++) {
        struct mesh m;
        mesh_resnet(&m, widths[i], 8);
        trial_gradients(
            &m, (struct train_net_options){.batch = 4, .slice = 4, .precision = PRECISION_FP32},
            "resnet with AVX2");
        mesh_release(&m);
    }
}

static void bf16_is_not_emulated(void **state)
{
    (void)state;
    struct err err = {0};
    if (nn_limit_isa("avx2", &err) < 0)
        skip();
    struct mesh m;
    mesh_resnet(&m, 6, 8);
    struct train_net *net =
        trial_net(&m, (struct train_net_options){.batch = 4, .precision = PRECISION_BF16});
    assert_int_equal(train_net_precision(net), PRECISION_FP32);
    train_net_free(net);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_are_right_without_avx512),
        cmocka_unit_test(bf16_is_not_emulated),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
