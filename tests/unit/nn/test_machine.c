/* What this machine is said to be, and holding it to less. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

static void the_machine_has_a_name(void **state)
{
    (void)state;
    assert_true(strlen(nn_cpu()) > 3);
    assert_null(strstr(nn_cpu(), "  "));
    assert_string_not_equal(nn_isa(), "none");
    assert_true(strncmp(nn_version(), "oneDNN 3.", 9) == 0);
}

static void an_unknown_isa_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    assert_int_equal(nn_limit_isa("mmx", &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "mmx"));
    assert_int_equal(nn_limit_isa("", &err), 0);
    assert_int_equal(nn_limit_isa(NULL, &err), 0);
}

/* Once in a process, before the ISA is asked for: the tests of this file run in this order. */
static void a_limited_process_uses_no_more(void **state)
{
    (void)state;
    struct err err = {0};
    if (nn_limit_isa("avx2", &err) < 0) {
        print_message("skip: %s\n", err.message);
        skip();
    }
    assert_string_equal(nn_isa(), "avx2");
    assert_false(nn_has_int8());
    assert_false(nn_has_bf16());
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 8));
    const struct mesh_conv conv = {.ic = 16, .oc = 16, .kernel = 3, .pad = 1};
    int y = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv));
    y = mesh_conv(&m, y, conv);
    mesh_output(&m, mesh_qdq(&m, y, DTYPE_U8, 0.05f, 128));
    mesh_finish(&m);
    /* rounding to a quantum may differ where the sums lie between two */
    struct plan *plan = mesh_check(&m, NULL, 0.05, "limited");
    for (int i = 0; i < plan_n_steps(plan); i++)
        assert_null(strstr(plan_step(plan, i)->implementation, "avx512"));
    plan_free(plan);
    mesh_release(&m);
}

static void the_limit_cannot_be_lifted_afterwards(void **state)
{
    (void)state;
    struct err err = {0};
    if (strcmp(nn_isa(), "avx2") != 0) {
        print_message("skip: the limit was not set\n");
        skip();
    }
    assert_int_equal(nn_limit_isa("avx2", &err), 0);
    assert_int_equal(nn_limit_isa("avx512_core", &err), -ERR_FAILED_PRECONDITION);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_unknown_isa_is_refused),
        cmocka_unit_test(a_limited_process_uses_no_more),
        cmocka_unit_test(the_limit_cannot_be_lifted_afterwards),
        cmocka_unit_test(the_machine_has_a_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
