/* bf16: what is asked for, where it is kept, how close it comes. The arithmetic may be emulated
 * here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/nn/plan_priv.h"
#include "tests/unit/nn/plan_nets.h"

static const struct mesh_conv conv16 = {.ic = 16, .oc = 16, .kernel = 3, .pad = 1};

/* conv -> pool -> conv + residual -> conv -> slice/pad -> concat -> mean -> gemm */
static void network(struct mesh *m)
{
    mesh_init(m, 5);
    int x = mesh_input(m, DIMS(DIM_BATCH, 16, 10, 10));
    int h = mesh_unary(m, OP_RELU, mesh_conv(m, x, conv16));
    h = mesh_pool(m, OP_MAX_POOL, h, 3, 2, 1);
    int y = mesh_unary(m, OP_RELU, mesh_binary(m, OP_ADD, mesh_conv(m, h, conv16), h));
    y = mesh_node(m, OP_CONCAT, VALUES(y, mesh_unary(m, OP_TANH, mesh_conv(m, y, conv16))));
    mesh_attr_int(m, y, "axis", 1);
    y = mesh_conv(m, y, (struct mesh_conv){.ic = 32, .oc = 24, .kernel = 1});
    y = mesh_unary(m, OP_FLATTEN, mesh_unary(m, OP_GLOBAL_AVERAGE_POOL, y));
    y = mesh_node(m, OP_GEMM,
                  VALUES(y, mesh_normal(m, 0.2, DIMS(24, 5)), mesh_normal(m, 1, DIMS(5))));
    mesh_output(m, y);
    mesh_finish(m);
}

static bool can_emulate(void)
{
    return strncmp(nn_isa(), "avx512", 6) == 0;
}

static int count_precision(const struct plan *plan, enum precision precision)
{
    int n = 0;
    for (int i = 0; i < plan_n_steps(plan); i++)
        n += plan_step(plan, i)->kind == STEP_COMPUTE && plan_step(plan, i)->precision == precision;
    return n;
}

static void every_layer_that_can_computes_in_bf16(void **state)
{
    (void)state;
    if (!can_emulate()) {
        print_message("skip: this CPU cannot even emulate bf16\n");
        skip();
    }
    struct mesh m;
    network(&m);
    plan_emulate_bf16 = true;
    const struct plan_options o = {.batch = 2, .precision = PRECISION_BF16, .choose_by_name = true};
    struct plan *plan = mesh_check(&m, &o, 0.05, "bf16");
    plan_emulate_bf16 = false;
    assert_in_range(count_precision(plan, PRECISION_BF16), 5, 20);
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const struct plan_step *s = plan_step(plan, i);
        assert_string_not_equal(s->implementation, "reference");
        if (strcmp(s->op, "Conv") == 0 || strcmp(s->op, "Gemm") == 0)
            assert_int_equal(s->precision, PRECISION_BF16);
        /* between bf16 layers nothing is widened and narrowed again */
        if (s->kind == STEP_CONVERT && i > 0 && s->to == PRECISION_BF16)
            assert_int_not_equal(s->from, PRECISION_BF16);
    }
    plan_free(plan);
    mesh_release(&m);
}

static void a_hint_concerns_its_node_only(void **state)
{
    (void)state;
    if (!can_emulate()) {
        print_message("skip: this CPU cannot even emulate bf16\n");
        skip();
    }
    struct mesh m;
    network(&m);
    int convs = 0;
    for (int i = 0; i < m.g->n_nodes; i++)
        if (m.g->nodes[i]->op == OP_CONV && convs++ == 1)
            m.g->nodes[i]->hint = PRECISION_BF16;
    plan_emulate_bf16 = true;
    struct plan *plan =
        mesh_check(&m, &(struct plan_options){.choose_by_name = true}, 0.05, "hint");
    assert_int_equal(count_precision(plan, PRECISION_BF16), 1);
    plan_free(plan);
    /* unless fp32 is asked for */
    const struct plan_options o = {.precision = PRECISION_FP32, .choose_by_name = true};
    plan = mesh_check(&m, &o, 1e-5, "fp32");
    plan_emulate_bf16 = false;
    assert_int_equal(count_precision(plan, PRECISION_BF16), 0);
    plan_free(plan);
    mesh_release(&m);
}

static void without_the_arithmetic_hints_are_ignored(void **state)
{
    (void)state;
    if (nn_has_bf16()) {
        print_message("skip: this CPU has the arithmetic\n");
        skip();
    }
    struct mesh m;
    network(&m);
    const struct plan_options o = {.precision = PRECISION_BF16, .choose_by_name = true};
    struct plan *plan = mesh_check(&m, &o, 1e-5, "no bf16");
    assert_int_equal(count_precision(plan, PRECISION_BF16), 0);
    plan_free(plan);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_layer_that_can_computes_in_bf16),
        cmocka_unit_test(a_hint_concerns_its_node_only),
        cmocka_unit_test(without_the_arithmetic_hints_are_ignored),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
