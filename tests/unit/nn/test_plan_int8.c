/* QDQ networks become integer arithmetic, with the meaning of the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

/* Largest difference of the first output, in units of `quantum`. */
static double quanta(struct mesh *m, const struct plan_options *options, double quantum,
                     struct plan **ret)
{
    struct err err = {0};
    must(plan_compile(m->g, options, ret, &err), &err);
    struct trial_run t = {0};
    trial_run(&t, m->g, *ret, 5);
    double most = 0;
    for (int64_t k = 0; k < shape_elements(&t.got[0]->shape); k++) {
        double d = fabs(tensor_get_f64(t.got[0], k) - tensor_get_f64(t.want[0], k));
        if (!(d <= most))
            most = d;
    }
    trial_release(&t);
    return most / quantum;
}

/* At most one quantum off (rounding), with one 8-bit compute step of this operator. */
static void is_narrow(struct mesh *m, int output, const char *op, double quantum, const char *what)
{
    mesh_output(m, output);
    mesh_finish(m);
    struct plan *plan = NULL;
    const struct plan_options options = {.batch = 2, .choose_by_name = true};
    double off = quanta(m, &options, quantum, &plan);
    if (!(off <= 1.001))
        fail_msg("%s: %g quanta off", what, off);
    const struct plan_step *step = find_step(plan, op);
    if (!step)
        fail_msg("%s: no step for %s", what, op);
    if (nn_has_int8() || strcmp(op, "Gemm") != 0) /* signed activations need dot products */
        assert_int_equal(step->precision, PRECISION_INT8);
    assert_string_not_equal(step->implementation, "reference");
    for (int i = 0; i < plan_n_steps(plan); i++)
        if (strcmp(plan_step(plan, i)->implementation, "reference") == 0)
            fail_msg("%s: '%s' runs on the reference", what, plan_step(plan, i)->layer);
    plan_free(plan);
    mesh_release(m);
}

static int input_u8(struct mesh *m, int x, int zero)
{
    return mesh_qdq(m, x, DTYPE_U8, 0.03f, zero);
}

static void convolutions_are_within_one_quantum(void **state)
{
    (void)state;
    static const struct {
        struct mesh_conv conv;
        int in_zero, out_zero;
    } cases[] = {
        {{.ic = 16, .oc = 16, .kernel = 3, .pad = 1}, 0, 0},
        {{.ic = 3, .oc = 16, .kernel = 3, .pad = 1}, 117, 0},
        {{.ic = 19, .oc = 33, .kernel = 3, .pad = 1, .stride = 2}, 128, 130},
        {{.ic = 32, .oc = 64, .kernel = 1}, 0, 7},
        {{.ic = 24, .oc = 24, .kernel = 3, .pad = 1, .group = 24}, 0, 0},
        {{.ic = 24, .oc = 24, .kernel = 3, .pad = 1, .group = 24}, 99, 10},
        {{.ic = 24, .oc = 12, .kernel = 3, .pad = 1, .group = 3}, 128, 0},
        {{.ic = 16, .oc = 8, .kernel = 3, .pad = 2, .dilation = 2, .no_bias = true}, 3, 128},
        {{.ic = 8, .oc = 8, .kernel = 5, .pad = 2, .rank = 1}, 0, 0},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int relu = 0; relu < 2; relu++) {
            struct mesh m;
            char what[64];
            mesh_init(&m, i);
            int rank = cases[i].conv.rank ? cases[i].conv.rank : 2;
            int x = mesh_input(&m, 2 + rank, (int64_t[]){DIM_BATCH, cases[i].conv.ic, 10, 7});
            int y = mesh_narrow_conv(&m, input_u8(&m, x, cases[i].in_zero), cases[i].conv);
            if (relu)
                y = mesh_unary(&m, OP_RELU, y);
            y = mesh_qdq(&m, y, DTYPE_U8, 0.02f, cases[i].out_zero);
            snprintf(what, sizeof(what), "convolution %zu%s", i, relu ? " + relu" : "");
            is_narrow(&m, y, "Conv", 0.02, what);
        }
    }
}

static void activations_behind_narrow_convolutions_are_fused(void **state)
{
    (void)state;
    static const enum op ops[] = {OP_RELU,         OP_LEAKY_RELU, OP_SIGMOID, OP_TANH,     OP_ELU,
                                  OP_HARD_SIGMOID, OP_HARD_SWISH, OP_CLIP,    OP_SOFTPLUS, OP_ABS};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        struct mesh m;
        mesh_init(&m, i);
        m.g->opset = 14;
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 6, 6));
        int y = mesh_narrow_conv(&m, input_u8(&m, x, 0),
                                 (struct mesh_conv){.ic = 16, .oc = 16, .kernel = 3, .pad = 1});
        y = ops[i] == OP_CLIP
                ? mesh_node(&m, ops[i], VALUES(y, mesh_float(&m, 0), mesh_float(&m, 1.5f)))
                : mesh_unary(&m, ops[i], y);
        y = mesh_qdq(&m, y, DTYPE_U8, 0.011f, 100);
        mesh_output(&m, y);
        mesh_finish(&m);
        struct plan *plan = NULL;
        double off = quanta(&m, &(struct plan_options){.batch = 2}, 0.011, &plan);
        if (!(off <= 1.001))
            fail_msg("%s: %g quanta off", op_name(ops[i]), off);
        assert_string_equal(only_step(plan)->op, "Conv");
        assert_string_not_equal(only_step(plan)->implementation, "reference");
        plan_free(plan);
        mesh_release(&m);
    }
}

/* conv + residual + relu, in 8 bits; kinds of residuals and zero points. */
static void residuals_are_within_one_quantum(void **state)
{
    (void)state;
    for (int kind = 0; kind < 12; kind++) {
        bool wide = kind & 1, again = kind & 2;
        int zero = kind / 4 * 60;
        struct mesh m;
        char what[64];
        mesh_init(&m, (uint64_t)kind);
        const struct mesh_conv conv = {.ic = 16, .oc = 16, .kernel = 3, .pad = 1};
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 9, 7));
        int u = mesh_qdq(&m, mesh_narrow_conv(&m, input_u8(&m, x, 0), conv), DTYPE_U8, 0.02f, zero);
        int r = wide ? mesh_unary(&m, OP_TANH, u) : u;
        int y = mesh_narrow_conv(&m, u, conv);
        y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, y, r));
        y = mesh_qdq(&m, y, DTYPE_U8, 0.02f, zero);
        if (again) /* the residual is read again */
            mesh_output(&m, mesh_unary(&m, OP_TANH, r));
        snprintf(what, sizeof(what), "residual %d", kind);
        struct mesh ordered = m;
        if (again) {
            ordered.g->outputs[0] = y;
            ordered.g->n_outputs = 0;
            mesh_output(&ordered, y);
            mesh_output(&ordered, mesh_unary(&ordered, OP_TANH, r));
        } else {
            mesh_output(&ordered, y);
        }
        mesh_finish(&ordered);
        struct plan *plan = NULL;
        double off = quanta(&ordered, &(struct plan_options){.batch = 2}, 0.02, &plan);
        /* the first convolution may be one quantum off, too, which the second spreads */
        if (!(off <= 2.001))
            fail_msg("%s: %g quanta off", what, off);
        for (int i = 0; i < plan_n_steps(plan); i++)
            assert_string_not_equal(plan_step(plan, i)->implementation, "reference");
        plan_free(plan);
        mesh_release(&ordered);
    }
}

/* The sum is made in a copy of the residual, which later readers must not see. */
static void a_residual_that_later_convolutions_read_survives(void **state)
{
    (void)state;
    for (int by_name = 0; by_name < 2; by_name++) {
        struct mesh m;
        mesh_init(&m, 3);
        const struct mesh_conv conv = {.ic = 16, .oc = 16, .kernel = 3, .pad = 1};
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 8));
        int r = mesh_qdq(&m, x, DTYPE_U8, 0.02f, 128);
        int y = mesh_binary(&m, OP_ADD, mesh_narrow_conv(&m, r, conv), r);
        y = mesh_qdq(&m, y, DTYPE_U8, 0.02f, 128);
        y = mesh_binary(&m, OP_ADD, mesh_narrow_conv(&m, y, conv), r);
        y = mesh_qdq(&m, y, DTYPE_U8, 0.02f, 128);
        int z = mesh_narrow_conv(&m, r, conv);
        mesh_output(&m, mesh_binary(&m, OP_ADD, z, mesh_unary(&m, OP_TANH, y)));
        mesh_finish(&m);
        const struct plan_options o = {.batch = 2, .choose_by_name = by_name};
        struct plan *plan = NULL;
        double off = quanta(&m, &o, 0.02, &plan);
        if (!(off <= 3))
            fail_msg("%g quanta off", off);
        plan_free(plan);
        mesh_release(&m);
    }
}

static void a_narrow_layer_can_end_in_floats(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 6, 6));
    int y = mesh_narrow_conv(&m, input_u8(&m, x, 3),
                             (struct mesh_conv){.ic = 16, .oc = 10, .kernel = 3});
    mesh_output(&m, mesh_unary(&m, OP_RELU, y));
    mesh_finish(&m);
    struct plan *plan = mesh_check(&m, NULL, 1e-5, "float output");
    assert_int_equal(only_step(plan)->precision, PRECISION_INT8);
    plan_free(plan);
    mesh_release(&m);
}

static void products_are_within_one_quantum(void **state)
{
    (void)state;
    for (int i = 0; i < 8; i++) {
        bool trans = i & 1, signed_in = i & 2, floats = i & 4;
        struct mesh m;
        char what[64];
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 64));
        x = signed_in ? mesh_qdq(&m, x, DTYPE_S8, 0.03f, 0) : mesh_qdq(&m, x, DTYPE_U8, 0.03f, 128);
        int w = trans ? mesh_normal(&m, 0.1, DIMS(10, 64)) : mesh_normal(&m, 0.1, DIMS(64, 10));
        w = mesh_narrow(&m, w, trans ? 0 : 1);
        int y = mesh_node(&m, OP_GEMM, VALUES(x, w, mesh_normal(&m, 1, DIMS(10))));
        mesh_attr_int(&m, y, "transB", trans);
        if (!floats)
            y = mesh_qdq(&m, y, DTYPE_U8, 0.02f, 120);
        snprintf(what, sizeof(what), "product %d", i);
        is_narrow(&m, y, "Gemm", floats ? 1e-3 : 0.02, what);
    }
}

/* Operators that move 8-bit values between equal quantizations. */
static void moves_stay_in_8_bits(void **state)
{
    (void)state;
    static const char *const ops[] = {"Slice",   "Pad",       "Concat", "MaxPool",
                                      "Flatten", "Transpose", "Relu",   "Resize"};
    for (int i = 0; i < 8; i++) {
        struct mesh m;
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 8));
        int q = mesh_qdq(&m, x, DTYPE_U8, 0.02f, 31), y = -1;
        switch (i) {
        case 0:
            y = mesh_node(&m, OP_SLICE,
                          VALUES(q, mesh_ints(&m, DIMS(0, 0)), mesh_ints(&m, DIMS(8, 8)),
                                 mesh_ints(&m, DIMS(2, 3)), mesh_ints(&m, DIMS(2, 2))));
            break;
        case 1:
            y = mesh_node(&m, OP_PAD, VALUES(q, mesh_ints(&m, DIMS(0, 8, 0, 1, 0, 8, 1, 0))));
            break;
        case 2:
            y = mesh_node(&m, OP_CONCAT, VALUES(q, q));
            mesh_attr_int(&m, y, "axis", 1);
            break;
        case 3:
            y = mesh_pool(&m, OP_MAX_POOL, q, 3, 2, 1);
            break;
        case 4:
            y = mesh_unary(&m, OP_FLATTEN, q);
            break;
        case 5:
            y = mesh_unary(&m, OP_TRANSPOSE, q);
            mesh_attr_ints(&m, y, "perm", DIMS(0, 2, 3, 1));
            break;
        case 7:
            y = mesh_node(
                &m, OP_RESIZE,
                VALUES(q, -1, mesh_constant(&m, DTYPE_F32, DIMS(4), (float[]){1, 1, 2, 2})));
            break;
        default:
            y = mesh_unary(&m, OP_RELU, q);
        }
        mesh_output(&m, mesh_qdq(&m, y, DTYPE_U8, 0.02f, 31));
        mesh_finish(&m);
        struct plan *plan = NULL;
        double off = quanta(&m, &(struct plan_options){.batch = 2}, 0.02, &plan);
        if (!(off <= 1.001))
            fail_msg("%s: %g quanta off", ops[i], off);
        const struct plan_step *step = find_step(plan, ops[i]);
        if (i == 4) /* only another name for the same bytes */
            assert_null(step);
        else
            assert_int_equal(step->precision, PRECISION_INT8);
        plan_free(plan);
        mesh_release(&m);
    }
}

static void unequal_quantizations_are_converted(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 8));
    int a = mesh_qdq(&m, x, DTYPE_U8, 0.02f, 31), b = mesh_qdq(&m, x, DTYPE_U8, 0.03f, 0);
    int y = mesh_node(&m, OP_CONCAT, VALUES(a, b));
    mesh_attr_int(&m, y, "axis", 1);
    is_narrow(&m, mesh_qdq(&m, y, DTYPE_U8, 0.025f, 20), "QuantizeLinear", 0.025, "concat");
}

static void requantization_is_a_table(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 5, 7));
    int y = mesh_qdq(&m, x, DTYPE_U8, 0.02f, 31);
    y = mesh_qdq(&m, y, DTYPE_S8, 0.05f, -3);
    mesh_output(&m, y);
    mesh_finish(&m);
    struct plan *plan = NULL;
    assert_true(quanta(&m, NULL, 0.05, &plan) <= 1.001);
    assert_string_equal(plan_step(plan, 1)->implementation, "table");
    plan_free(plan);
    mesh_release(&m);
}

static void chains_of_activations_are_a_table(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    m.g->opset = 14;
    int x = mesh_input(&m, DIMS(DIM_BATCH, 5, 7));
    int y = mesh_qdq(&m, x, DTYPE_U8, 0.02f, 128);
    y = mesh_unary(&m, OP_TANH, mesh_unary(&m, OP_HARD_SWISH, y));
    is_narrow(&m, mesh_qdq(&m, y, DTYPE_U8, 0.01f, 90), "HardSwish", 0.01, "table");
}

static void sums_of_two_narrow_values_are_within_one_quantum(void **state)
{
    (void)state;
    static const enum op ops[] = {OP_ADD, OP_SUB, OP_MUL};
    for (int i = 0; i < 12; i++) {
        bool relu = i & 1, wide = i & 2;
        struct mesh m;
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 9));
        int a = mesh_qdq(&m, x, DTYPE_U8, 0.02f, 100);
        int b = wide ? mesh_unary(&m, OP_TANH, mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 9)))
                     : mesh_qdq(&m, x, DTYPE_S8, 0.03f, 5);
        int y = mesh_binary(&m, ops[i / 4], a, b);
        if (relu)
            y = mesh_unary(&m, OP_RELU, y);
        is_narrow(&m, mesh_qdq(&m, y, DTYPE_U8, 0.03f, relu ? 0 : 128), op_name(ops[i / 4]), 0.03,
                  op_name(ops[i / 4]));
    }
}

static void means_of_8_bits_are_exact(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        bool narrow = i & 1, is_signed = i & 2;
        struct mesh m;
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 19, 8, 9));
        int y = is_signed ? mesh_qdq(&m, x, DTYPE_S8, 0.03f, -7)
                          : mesh_qdq(&m, x, DTYPE_U8, 0.03f, 100);
        y = mesh_unary(&m, OP_GLOBAL_AVERAGE_POOL, y);
        if (narrow)
            y = mesh_qdq(&m, y, DTYPE_U8, 0.004f, 128);
        is_narrow(&m, y, "GlobalAveragePool", narrow ? 0.004 : 1e-5, "mean");
    }
}

static void averages_keep_their_quantization(void **state)
{
    (void)state;
    for (int include = 0; include < 2; include++) {
        struct mesh m;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 9));
        int y = mesh_pool(&m, OP_AVERAGE_POOL, mesh_qdq(&m, x, DTYPE_U8, 0.03f, 0), 3, 2, 1);
        mesh_attr_int(&m, y, "count_include_pad", include);
        is_narrow(&m, mesh_qdq(&m, y, DTYPE_U8, 0.03f, 0), "AveragePool", 0.03, "average");
    }
}

/* All readers of a value see one 8-bit buffer, though the file quantizes it several times. */
static void a_value_is_quantized_once(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    const struct mesh_conv conv = {.ic = 16, .oc = 16, .kernel = 3, .pad = 1};
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 8, 9));
    int a = mesh_narrow_conv(&m, mesh_qdq(&m, x, DTYPE_U8, 0.03f, 9), conv);
    int b = mesh_narrow_conv(&m, mesh_qdq(&m, x, DTYPE_U8, 0.03f, 9), conv);
    mesh_output(&m, a);
    mesh_output(&m, b);
    mesh_finish(&m);
    struct plan *plan = mesh_check(&m, NULL, 1e-5, "two quantizations");
    int quantizations = 0;
    for (int i = 0; i < plan_n_steps(plan); i++)
        quantizations +=
            plan_step(plan, i)->from == PRECISION_FP32 && plan_step(plan, i)->to == PRECISION_INT8;
    assert_int_equal(quantizations, 1);
    plan_free(plan);
    mesh_release(&m);
}

/* ResNet's block: nothing between the input's quantization and the output's floats is a
 * conversion. */
static void a_quantized_block_needs_no_conversions(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 3, 8, 8));
    const struct mesh_conv stem = {.ic = 3, .oc = 16, .kernel = 3, .pad = 1},
                           down = {.ic = 16, .oc = 32, .kernel = 3, .pad = 1, .stride = 2},
                           conv = {.ic = 32, .oc = 32, .kernel = 3, .pad = 1};
    int h = mesh_unary(&m, OP_RELU, mesh_narrow_conv(&m, input_u8(&m, x, 117), stem));
    h = mesh_qdq(&m, h, DTYPE_U8, 0.01f, 0);
    int y =
        mesh_qdq(&m, mesh_unary(&m, OP_RELU, mesh_narrow_conv(&m, h, down)), DTYPE_U8, 0.01f, 0);
    y = mesh_narrow_conv(&m, y, conv);
    int s = mesh_node(&m, OP_SLICE,
                      VALUES(h, mesh_ints(&m, DIMS(0, 0)), mesh_ints(&m, DIMS(8, 8)),
                             mesh_ints(&m, DIMS(2, 3)), mesh_ints(&m, DIMS(2, 2))));
    s = mesh_qdq(&m, s, DTYPE_U8, 0.01f, 0);
    s = mesh_node(&m, OP_PAD, VALUES(s, mesh_ints(&m, DIMS(0, 8, 0, 0, 0, 8, 0, 0))));
    s = mesh_qdq(&m, s, DTYPE_U8, 0.01f, 0);
    y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, y, s));
    y = mesh_unary(&m, OP_GLOBAL_AVERAGE_POOL, mesh_qdq(&m, y, DTYPE_U8, 0.01f, 0));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct err err = {0};
    struct plan *plan = NULL;
    must(plan_compile(m.g, &(struct plan_options){.choose_by_name = true}, &plan, &err), &err);
    assert_int_equal(count_steps(plan, STEP_CONVERT), 1);
    for (int i = 1; i < plan_n_steps(plan); i++)
        assert_int_equal(plan_step(plan, i)->precision, PRECISION_INT8);
    plan_free(plan);
    mesh_release(&m);
}

static void a_quantized_network_can_end_and_begin_in_8_bits(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_typed_input(&m, DTYPE_U8, DIMS(DIM_BATCH, 16, 8, 8));
    uint8_t zero = 3;
    int s = mesh_float(&m, 0.01f), z = mesh_constant(&m, DTYPE_U8, 0, NULL, &zero);
    int y = mesh_node(&m, OP_DEQUANTIZE_LINEAR, VALUES(x, s, z));
    y = mesh_narrow_conv(&m, y, (struct mesh_conv){.ic = 16, .oc = 16, .kernel = 3, .pad = 1});
    y = mesh_node(&m, OP_QUANTIZE_LINEAR, VALUES(y, s, z));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct plan *plan = NULL;
    assert_true(quanta(&m, NULL, 1, &plan) <= 1.001);
    plan_free(plan);
    mesh_release(&m);
}

static void weights_that_are_not_symmetric_are_computed_in_floats(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 4, 6, 6));
    int8_t q[8 * 4], zero = 5;
    for (int i = 0; i < 32; i++)
        q[i] = (int8_t)(i * 7 % 120 - 50);
    int w = mesh_node(&m, OP_DEQUANTIZE_LINEAR,
                      VALUES(mesh_constant(&m, DTYPE_S8, DIMS(8, 4, 1, 1), q),
                             mesh_float(&m, 0.01f), mesh_constant(&m, DTYPE_S8, 0, NULL, &zero)));
    int y = mesh_node(&m, OP_CONV, VALUES(mesh_qdq(&m, x, DTYPE_U8, 0.03f, 128), w));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct plan *plan = mesh_check(&m, NULL, 1e-5, "asymmetric weights");
    assert_int_equal(find_step(plan, "Conv")->precision, PRECISION_FP32);
    plan_free(plan);
    mesh_release(&m);
}

/* Large weights where pairs of products are added in 16 bits. */
static void without_dot_products_large_weights_are_computed_in_floats(void **state)
{
    (void)state;
    for (int large = 0; large < 2; large++) {
        struct mesh m;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 4, 6, 6));
        int8_t q[8 * 4];
        for (int i = 0; i < 32; i++)
            q[i] = (int8_t)(64 + (large && i % 2));
        int w = mesh_node(
            &m, OP_DEQUANTIZE_LINEAR,
            VALUES(mesh_constant(&m, DTYPE_S8, DIMS(8, 4, 1, 1), q), mesh_float(&m, 0.01f)));
        int y = mesh_node(&m, OP_CONV, VALUES(mesh_qdq(&m, x, DTYPE_U8, 0.01f, 0), w));
        mesh_output(&m, y);
        mesh_finish(&m);
        struct plan *plan = mesh_check(&m, NULL, 1e-5, "weights of 7 bits");
        assert_int_equal(find_step(plan, "Conv")->precision,
                         large && !nn_has_int8() ? PRECISION_FP32 : PRECISION_INT8);
        plan_free(plan);
        mesh_release(&m);
    }
}

static void unsigned_weights_around_128_are_integers_too(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 4, 6, 6));
    uint8_t q[8 * 4], zero = 128;
    for (int i = 0; i < 32; i++)
        q[i] = (uint8_t)(64 + i * 37 % 129);
    int w = mesh_node(&m, OP_DEQUANTIZE_LINEAR,
                      VALUES(mesh_constant(&m, DTYPE_U8, DIMS(8, 4, 1, 1), q),
                             mesh_float(&m, 0.01f), mesh_constant(&m, DTYPE_U8, 0, NULL, &zero)));
    int y = mesh_node(&m, OP_CONV, VALUES(mesh_qdq(&m, x, DTYPE_U8, 0.03f, 128), w));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct plan *plan = mesh_check(&m, NULL, 1e-5, "unsigned weights");
    assert_int_equal(find_step(plan, "Conv")->precision, PRECISION_INT8);
    plan_free(plan);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_are_within_one_quantum),
        cmocka_unit_test(activations_behind_narrow_convolutions_are_fused),
        cmocka_unit_test(residuals_are_within_one_quantum),
        cmocka_unit_test(a_residual_that_later_convolutions_read_survives),
        cmocka_unit_test(a_narrow_layer_can_end_in_floats),
        cmocka_unit_test(products_are_within_one_quantum),
        cmocka_unit_test(moves_stay_in_8_bits),
        cmocka_unit_test(unequal_quantizations_are_converted),
        cmocka_unit_test(requantization_is_a_table),
        cmocka_unit_test(chains_of_activations_are_a_table),
        cmocka_unit_test(sums_of_two_narrow_values_are_within_one_quantum),
        cmocka_unit_test(means_of_8_bits_are_exact),
        cmocka_unit_test(averages_keep_their_quantization),
        cmocka_unit_test(a_value_is_quantized_once),
        cmocka_unit_test(a_quantized_block_needs_no_conversions),
        cmocka_unit_test(a_quantized_network_can_end_and_begin_in_8_bits),
        cmocka_unit_test(weights_that_are_not_symmetric_are_computed_in_floats),
        cmocka_unit_test(without_dot_products_large_weights_are_computed_in_floats),
        cmocka_unit_test(unsigned_weights_around_128_are_integers_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
