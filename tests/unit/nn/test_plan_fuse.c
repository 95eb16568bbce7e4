/* What is fused into one step, and that it computes the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

static const double close_enough = 2e-5;
static const struct mesh_conv conv16 = {.ic = 16, .oc = 16, .kernel = 3, .pad = 1};

static struct plan *compiled(struct mesh *m, int output, bool by_name, const char *what)
{
    mesh_output(m, output);
    mesh_finish(m);
    const struct plan_options options = {.batch = 2, .choose_by_name = by_name};
    return mesh_check(m, &options, close_enough, what);
}

/* One compute step in all, with these operations in it. */
static void fuses(struct mesh *m, int output, const char *fused)
{
    struct plan *plan = compiled(m, output, true, fused);
    const struct plan_step *step = only_step(plan);
    assert_string_equal(step->fused, fused);
    assert_string_not_equal(step->implementation, "reference");
    plan_free(plan);
    mesh_release(m);
}

static const struct {
    enum op op;
    const char *fused;
} activations[] = {{OP_RELU, "relu"},         {OP_LEAKY_RELU, "leakyrelu"},
                   {OP_ELU, "elu"},           {OP_SIGMOID, "sigmoid"},
                   {OP_TANH, "tanh"},         {OP_HARD_SIGMOID, "hardsigmoid"},
                   {OP_CLIP, "clip"},         {OP_HARD_SWISH, "hardswish"},
                   {OP_SOFTPLUS, "softplus"}, {OP_ABS, "abs"}};
enum { N_ACTIVATIONS = sizeof(activations) / sizeof(activations[0]) };

static int activation(struct mesh *m, enum op op, int x)
{
    m->g->opset = 14;
    if (op == OP_CLIP)
        return mesh_node(m, op, VALUES(x, mesh_float(m, 0), mesh_float(m, 6)));
    return mesh_unary(m, op, x);
}

static void activations_go_into_the_convolution(void **state)
{
    (void)state;
    for (int i = 0; i < N_ACTIVATIONS; i++) {
        struct mesh m;
        char fused[32];
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
        snprintf(fused, sizeof(fused), "bias+%s", activations[i].fused);
        fuses(&m, activation(&m, activations[i].op, mesh_conv(&m, x, conv16)), fused);
    }
}

static void activations_go_into_the_product(void **state)
{
    (void)state;
    for (int i = 0; i < N_ACTIVATIONS; i++) {
        struct mesh m;
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 40));
        int y = mesh_node(&m, OP_GEMM, VALUES(x, mesh_normal(&m, 0.2, DIMS(40, 24))));
        fuses(&m, activation(&m, activations[i].op, y), activations[i].fused);
    }
}

static void a_bias_added_behind_a_product_is_its_bias(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 40));
    int y = mesh_binary(&m, OP_MATMUL, x, mesh_normal(&m, 0.2, DIMS(40, 24)));
    y = mesh_binary(&m, OP_ADD, y, mesh_normal(&m, 1, DIMS(24)));
    struct plan *plan = compiled(&m, mesh_unary(&m, OP_RELU, y), true, "MatMul + Add");
    assert_string_equal(only_step(plan)->fused, "bias+shift+relu");
    plan_free(plan);
    mesh_release(&m);
}

static void gates_of_two_nodes_are_one_activation(void **state)
{
    (void)state;
    for (int hard = 0; hard < 2; hard++) {
        struct mesh m;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
        int y = mesh_conv(&m, x, conv16);
        int gate = mesh_unary(&m, hard ? OP_HARD_SIGMOID : OP_SIGMOID, y);
        y = hard ? mesh_binary(&m, OP_MUL, y, gate) : mesh_binary(&m, OP_MUL, gate, y);
        fuses(&m, y, hard ? "bias+hardswish" : "bias+swish");
    }
}

static void factors_and_terms_for_each_channel_are_fused(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
    int y = mesh_conv(&m, x, conv16);
    y = mesh_binary(&m, OP_MUL, mesh_normal(&m, 1, DIMS(16, 1, 1)), y);
    y = mesh_binary(&m, OP_SUB, y, mesh_normal(&m, 1, DIMS(1, 16, 1, 1)));
    y = mesh_binary(&m, OP_DIV, y, mesh_float(&m, 3));
    y = mesh_unary(&m, OP_RELU, y);
    fuses(&m, y, "bias+scale+shift+scale+relu");
}

static void batch_normalisation_and_slopes_are_fused(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
    int variance = mesh_normal(&m, 1, DIMS(16));
    float *v = m.g->values[variance]->constant->data;
    for (int i = 0; i < 16; i++)
        v[i] = 0.1f + fabsf(v[i]);
    int y = mesh_node(&m, OP_BATCH_NORMALIZATION,
                      VALUES(mesh_conv(&m, x, conv16), mesh_normal(&m, 1, DIMS(16)),
                             mesh_normal(&m, 1, DIMS(16)), mesh_normal(&m, 1, DIMS(16)), variance));
    fuses(&m, mesh_binary(&m, OP_PRELU, y, mesh_normal(&m, 1, DIMS(16, 1, 1))),
          "bias+scale+shift+prelu");
}

/* conv -> + residual -> relu; the residual is another layer's output, so its memory serves. */
static void a_residual_addition_is_in_place(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
    int r = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv16));
    int y = mesh_unary(&m, OP_RELU, mesh_conv(&m, r, conv16));
    y = mesh_binary(&m, OP_ADD, mesh_conv(&m, y, conv16), r);
    struct plan *plan = compiled(&m, mesh_unary(&m, OP_RELU, y), true, "residual");
    assert_int_equal(count_steps(plan, STEP_COMPUTE), 3);
    const struct plan_step *last = NULL;
    for (int i = 0; i < plan_n_steps(plan); i++)
        if (plan_step(plan, i)->kind == STEP_COMPUTE)
            last = plan_step(plan, i);
    assert_string_equal(last->fused, "bias+sum+relu");
    assert_non_null(strstr(last->signature, "inplace"));
    plan_free(plan);
    mesh_release(&m);
}

/* Residuals whose memory must survive: the network's input, a value that is an output as well, one
 * that is read again, one that the convolution itself reads, a constant. */
static void a_residual_that_is_needed_again_survives(void **state)
{
    (void)state;
    for (int kind = 0; kind < 5; kind++) {
        struct mesh m;
        char what[32];
        mesh_init(&m, (uint64_t)kind);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
        int h = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv16));
        int g = mesh_unary(&m, OP_RELU, mesh_conv(&m, h, conv16));
        int r = kind == 0   ? x
                : kind == 3 ? g
                : kind == 4 ? mesh_normal(&m, 1, DIMS(1, 16, 9, 7))
                            : h;
        int y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, mesh_conv(&m, g, conv16), r));
        if (kind == 1)
            mesh_output(&m, h);
        if (kind == 2)
            y = mesh_binary(&m, OP_ADD, y, mesh_conv(&m, h, conv16));
        if (kind == 4) /* of one sample, so that shapes agree */
            m.g->values[x]->shape.dim[0] = 1;
        snprintf(what, sizeof(what), "residual of kind %d", kind);
        for (int by_name = 0; by_name < 2; by_name++) {
            struct mesh copy = {0};
            struct err err = {0};
            must(graph_clone(m.g, &copy.g, &err), &err);
            plan_free(compiled(&copy, y, by_name, what));
            mesh_release(&copy);
        }
        mesh_release(&m);
    }
}

/* Two convolutions of one input, added: one of them takes the addition. */
static void of_two_convolutions_one_takes_the_addition(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
    int y = mesh_binary(&m, OP_ADD, mesh_conv(&m, x, conv16), mesh_conv(&m, x, conv16));
    struct plan *plan = compiled(&m, mesh_unary(&m, OP_RELU, y), true, "two convolutions");
    assert_int_equal(count_steps(plan, STEP_COMPUTE), 2);
    plan_free(plan);
    mesh_release(&m);
}

/* The other operand's nodes stand behind the convolution in the graph's order. */
static void an_operand_that_comes_later_is_computed_first(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
    int y = mesh_conv(&m, x, conv16);
    int r = mesh_pool(&m, OP_MAX_POOL, x, 3, 1, 1);
    r = mesh_pool(&m, OP_MAX_POOL, r, 3, 1, 1);
    y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, y, r));
    struct plan *plan = compiled(&m, y, true, "late operand");
    assert_int_equal(count_steps(plan, STEP_COMPUTE), 3);
    assert_non_null(strstr(find_step(plan, "Conv")->fused, "sum"));
    plan_free(plan);
    mesh_release(&m);
}

static void an_addition_behind_an_activation_is_right(void **state)
{
    (void)state;
    for (int by_name = 0; by_name < 2; by_name++) {
        struct mesh m;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
        int r = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv16));
        int y = mesh_unary(&m, OP_TANH, mesh_conv(&m, r, conv16));
        y = mesh_binary(&m, OP_ADD, y, r);
        plan_free(compiled(&m, mesh_unary(&m, OP_ELU, y), by_name, "tanh, then sum"));
        mesh_release(&m);
    }
}

static void two_additions_in_a_row_are_right(void **state)
{
    (void)state;
    for (int by_name = 0; by_name < 2; by_name++) {
        struct mesh m;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
        int a = mesh_conv(&m, x, conv16), b = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv16));
        a = mesh_unary(&m, OP_RELU, a);
        int y = mesh_binary(&m, OP_ADD, mesh_conv(&m, x, conv16), a);
        y = mesh_binary(&m, OP_ADD, b, y);
        plan_free(compiled(&m, mesh_unary(&m, OP_RELU, y), by_name, "two sums"));
        mesh_release(&m);
    }
}

static void slice_and_pad_are_one_copy(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 8));
    int y = mesh_node(&m, OP_SLICE,
                      VALUES(x, mesh_ints(&m, DIMS(0, 0)), mesh_ints(&m, DIMS(8, 8)),
                             mesh_ints(&m, DIMS(2, 3)), mesh_ints(&m, DIMS(2, 2))));
    y = mesh_node(&m, OP_PAD, VALUES(y, mesh_ints(&m, DIMS(0, 8, 0, 0, 0, 8, 0, 0))));
    fuses(&m, y, "pad");
}

/* A residual network's stage change: no conversion but the network's own input and output. */
static void a_residual_network_keeps_one_layout(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 8));
    int h = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv16));
    int y = mesh_unary(
        &m, OP_RELU,
        mesh_conv(&m, h,
                  (struct mesh_conv){.ic = 16, .oc = 32, .kernel = 3, .pad = 1, .stride = 2}));
    y = mesh_conv(&m, y, (struct mesh_conv){.ic = 32, .oc = 32, .kernel = 3, .pad = 1});
    int s = mesh_node(&m, OP_SLICE,
                      VALUES(h, mesh_ints(&m, DIMS(0, 0)), mesh_ints(&m, DIMS(8, 8)),
                             mesh_ints(&m, DIMS(2, 3)), mesh_ints(&m, DIMS(2, 2))));
    s = mesh_node(&m, OP_PAD, VALUES(s, mesh_ints(&m, DIMS(0, 8, 0, 0, 0, 8, 0, 0))));
    y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, y, s));
    y = mesh_unary(&m, OP_GLOBAL_AVERAGE_POOL, y);
    struct plan *plan = compiled(&m, mesh_unary(&m, OP_FLATTEN, y), true, "stage change");
    assert_in_range(count_steps(plan, STEP_CONVERT), 0, 1);
    assert_int_equal(count_steps(plan, STEP_COMPUTE), 5);
    plan_free(plan);
    mesh_release(&m);
}

static void without_fusion_each_node_is_a_step(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
    int r = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv16));
    int y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, mesh_conv(&m, r, conv16), r));
    mesh_output(&m, y);
    mesh_finish(&m);
    const struct plan_options options = {.no_fusion = true, .choose_by_name = true};
    struct plan *plan = mesh_check(&m, &options, close_enough, "no fusion");
    assert_int_equal(count_steps(plan, STEP_COMPUTE), 5);
    plan_free(plan);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_go_into_the_convolution),
        cmocka_unit_test(activations_go_into_the_product),
        cmocka_unit_test(a_bias_added_behind_a_product_is_its_bias),
        cmocka_unit_test(gates_of_two_nodes_are_one_activation),
        cmocka_unit_test(factors_and_terms_for_each_channel_are_fused),
        cmocka_unit_test(batch_normalisation_and_slopes_are_fused),
        cmocka_unit_test(a_residual_addition_is_in_place),
        cmocka_unit_test(a_residual_that_is_needed_again_survives),
        cmocka_unit_test(of_two_convolutions_one_takes_the_addition),
        cmocka_unit_test(an_operand_that_comes_later_is_computed_first),
        cmocka_unit_test(an_addition_behind_an_activation_is_right),
        cmocka_unit_test(two_additions_in_a_row_are_right),
        cmocka_unit_test(slice_and_pad_are_one_copy),
        cmocka_unit_test(a_residual_network_keeps_one_layout),
        cmocka_unit_test(without_fusion_each_node_is_a_step),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
