/*
 * Quantized networks on three engines: plain C, the plan's integer kernels, ONNX Runtime. They
 * agree up to roundings of single steps, and with the original up to the noise of 8 bits.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/onnx.h"
#include "shared/nn/ort.h"
#include "shared/nn/quantize_priv.h"
#include "tests/support/quant_nets.h"

enum { SAMPLES = 24, SEED = 9, MAX_LAYERS = 16 };

static const int64_t picture[] = {DIM_BATCH, 8, 8, 8};
static const struct net_conv conv8 = {.in = 8, .out = 8, .kernel = 3};

/* The samples of net_run with this seed, scale 1, shift 0. */
static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)err;
    const int64_t elements = *(const int64_t *)ctx;
    for (int64_t i = 0; i < count; i++) {
        struct rng rng;
        rng_seed2(&rng, SEED, (uint64_t)(first + i));
        for (int64_t k = 0; k < elements; k++)
            out[i * elements + k] = (float)rng_normal(&rng);
    }
    return 0;
}

static struct graph *all_int8(const struct graph *g, int64_t elements)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const struct infer_options options = {.threads = 1};
    struct quant_choice choices[MAX_LAYERS];
    const char *const *names;
    struct graph *q = NULL;
    struct err err = {0};
    int n;
    if (quant_calibrate(g, &options, SAMPLES, fill, &elements, &ranges, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(quant_layers(g, arena, &names, &n, &err), 0);
    assert_true(n > 0 && n <= MAX_LAYERS);
    for (int i = 0; i < n; i++)
        choices[i] = (struct quant_choice){.layer = names[i], .precision = PRECISION_INT8};
    const struct quant_options bits = {.weight_bits = nn_has_int8() ? 8 : 7};
    if (quant_rewrite(g, choices, n, &ranges, &bits, &q, &err) < 0)
        fail_msg("%s", err.message);
    return q;
}

static struct tensor *like(const struct tensor *t)
{
    struct tensor *same = tensor_new(DTYPE_F32, &t->shape, NULL);
    assert_non_null(same);
    return same;
}

static struct tensor *by_plan(const struct graph *q, int64_t elements, const struct tensor *shape)
{
    struct tensor *out = like(shape);
    const struct infer_options options = {.threads = 1, .batch = 8};
    struct err err = {0};
    if (infer_run(q, &options, SAMPLES, fill, &elements, out->data, &err) < 0)
        fail_msg("the plan: %s", err.message);
    return out;
}

static struct tensor *by_ort(const struct graph *q, int64_t elements, const struct tensor *shape)
{
    struct tensor *out = like(shape);
    struct ort *ort = NULL;
    _cleanup_(freep) void *file = NULL;
    _cleanup_(freep) float *in = calloc((size_t)(SAMPLES * elements), sizeof(*in));
    size_t bytes;
    struct err err = {0};
    assert_int_equal(fill(&elements, 0, SAMPLES, in, &err), 0);
    assert_int_equal(onnx_write_bytes(q, &file, &bytes, &err), 0);
    if (ort_open(file, bytes, 1, &ort, &err) < 0 ||
        ort_run(ort, SAMPLES, in, out->data, shape_elements(&shape->shape) / SAMPLES, &err) < 0)
        fail_msg("ONNX Runtime: %s", err.message);
    ort_close(ort);
    return out;
}

static void check(struct net *net, int output, double least_snr)
{
    net_finish(net, output);
    least_snr -= nn_has_int8() ? 0 : 4;
    const int64_t elements = shape_elements_at(&net->g->values[net->g->inputs[0]]->shape, 1);
    _cleanup_(graph_freep) struct graph *q = all_int8(net->g, elements);
    _cleanup_(tensor_freep) struct tensor *original = net_run(net->g, SEED, SAMPLES, 1, 0);
    _cleanup_(tensor_freep) struct tensor *plain = net_run(q, SEED, SAMPLES, 1, 0);
    _cleanup_(tensor_freep) struct tensor *plan = by_plan(q, elements, original);
    _cleanup_(tensor_freep) struct tensor *ort = by_ort(q, elements, original);
    assert_true(net_snr(original, plain) > least_snr);
    assert_true(net_snr(original, plan) > least_snr);
    assert_true(net_snr(original, ort) > least_snr);
    assert_true(net_snr(plain, plan) > least_snr + 5);
    assert_true(net_snr(plain, ort) > least_snr + 5);
}

static void a_chain_of_convolutions(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 1);
    const struct net_conv strided = {.in = 8, .out = 16, .kernel = 3, .stride = 2};
    int x = net_conv(&net, "conv1", net_input(&net, "input", 4, picture), &conv8);
    x = net_conv(&net, "conv2", net_unary(&net, OP_RELU, "relu1", x), &strided);
    check(&net, net_unary(&net, OP_RELU, "relu2", x), 32);
}

static void a_residual_block(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 2);
    const int a = net_unary(&net, OP_RELU, "relu1",
                            net_conv(&net, "conv1", net_input(&net, "input", 4, picture), &conv8));
    int x = net_unary(&net, OP_RELU, "relu2", net_conv(&net, "conv2", a, &conv8));
    x = net_add(&net, "add", net_conv(&net, "conv3", x, &conv8), a);
    check(&net, net_conv(&net, "conv4", net_unary(&net, OP_RELU, "relu3", x), &conv8), 30);
}

static void a_residual_block_with_a_convolution_beside_it(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 3);
    const struct net_conv half = {.in = 8, .out = 16, .kernel = 3, .stride = 2};
    const struct net_conv beside = {.in = 8, .out = 16, .kernel = 1, .stride = 2};
    const struct net_conv conv16 = {.in = 16, .out = 16, .kernel = 3};
    const int a = net_unary(&net, OP_RELU, "relu0", net_input(&net, "input", 4, picture));
    int x = net_unary(&net, OP_RELU, "relu1", net_conv(&net, "conv1", a, &half));
    x = net_add(&net, "add", net_conv(&net, "conv2", x, &conv16),
                net_conv(&net, "beside", a, &beside));
    check(&net, net_conv(&net, "conv3", net_unary(&net, OP_RELU, "relu2", x), &conv16), 30);
}

static void depthwise_and_grouped_convolutions(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 4);
    const struct net_conv depthwise = {.in = 8, .out = 8, .kernel = 3, .group = 8};
    const struct net_conv grouped = {.in = 8, .out = 16, .kernel = 3, .group = 2};
    const float zero = 0, six = 6;
    int x = net_conv(&net, "conv1", net_input(&net, "input", 4, picture), &depthwise);
    x = net_node(&net, OP_CLIP, "clip", 3,
                 (int[]){x, net_floats(&net, "zero", 0, NULL, &zero),
                         net_floats(&net, "six", 0, NULL, &six)});
    check(&net, net_conv(&net, "conv2", x, &grouped), 32);
}

static void transposed_convolutions(void **state)
{
    (void)state;
    for (int64_t group = 1; group <= 2; group++) {
        _cleanup_(net_release) struct net net;
        net_init(&net, 5);
        const struct net_conv up = {
            .in = 8, .out = 6, .kernel = 3, .stride = 2, .group = group, .transpose = true};
        const int x =
            net_unary(&net, OP_RELU, "relu1",
                      net_conv(&net, "conv1", net_input(&net, "input", 4, picture), &conv8));
        check(&net, net_conv(&net, "up", x, &up), 30);
    }
}

static void pools_concat_and_shortcuts_in_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 6);
    struct err err = {0};
    const int64_t two[] = {2, 2}, starts[] = {0, 0}, ends[] = {8, 8}, axes[] = {2, 3};
    const int64_t pads[] = {0, 4, 0, 0, 0, 4, 0, 0};
    const struct net_conv half = {.in = 8, .out = 8, .kernel = 3, .stride = 2};
    const struct net_conv conv16 = {.in = 16, .out = 16, .kernel = 3};
    const int a = net_unary(&net, OP_RELU, "relu1",
                            net_conv(&net, "conv1", net_input(&net, "input", 4, picture), &conv8));
    const int pool = net_unary(&net, OP_MAX_POOL, "pool", a);
    assert_int_equal(graph_set_attr_ints(net.g, net_of(&net, "pool"), "kernel_shape", 2, two, &err),
                     0);
    assert_int_equal(graph_set_attr_ints(net.g, net_of(&net, "pool"), "strides", 2, two, &err), 0);
    const int other = net_unary(&net, OP_RELU, "relu2", net_conv(&net, "conv2", a, &half));
    const int both = net_node(&net, OP_CONCAT, "concat", 2, (int[]){pool, other});
    assert_int_equal(graph_set_attr_int(net.g, net_of(&net, "concat"), "axis", 1, &err), 0);
    const int slice =
        net_node(&net, OP_SLICE, "slice", 5,
                 (int[]){a, net_ints(&net, "starts", 2, starts), net_ints(&net, "ends", 2, ends),
                         net_ints(&net, "axes", 2, axes), net_ints(&net, "steps", 2, two)});
    const int shortcut =
        net_node(&net, OP_PAD, "pad", 2, (int[]){slice, net_ints(&net, "pads", 8, pads)});
    int x = net_add(&net, "add", net_conv(&net, "conv3", both, &conv16), shortcut);
    x = net_unary(&net, OP_RELU, "relu3", x);
    check(&net, net_conv(&net, "conv4", x, &conv16), 30);
}

static void a_head_of_pooling_and_gemm(void **state)
{
    (void)state;
    for (int trans = 0; trans < 2; trans++) {
        _cleanup_(net_release) struct net net;
        net_init(&net, 7);
        int x = net_conv(&net, "conv1", net_input(&net, "input", 4, picture), &conv8);
        x = net_unary(&net, OP_GLOBAL_AVERAGE_POOL, "gap", net_unary(&net, OP_RELU, "relu1", x));
        x = net_unary(&net, OP_FLATTEN, "flat", x);
        check(&net, net_gemm(&net, "gemm", x, 8, 10, trans), 28);
    }
}

static void multiplication_by_a_matrix(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 8);
    const int64_t rows[] = {DIM_BATCH, 48}, weights[] = {48, 10};
    const int x = net_input(&net, "input", 2, rows);
    check(
        &net,
        net_node(&net, OP_MATMUL, "matmul", 2, (int[]){x, net_normal(&net, "w", 2, weights, 0.2)}),
        32);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_of_convolutions),
        cmocka_unit_test(a_residual_block),
        cmocka_unit_test(a_residual_block_with_a_convolution_beside_it),
        cmocka_unit_test(depthwise_and_grouped_convolutions),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(pools_concat_and_shortcuts_in_8_bits),
        cmocka_unit_test(a_head_of_pooling_and_gemm),
        cmocka_unit_test(multiplication_by_a_matrix),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
