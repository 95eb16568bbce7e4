/* Bias correction: what quantization shifts on average is taken back. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/nn/quantize_priv.h"
#include "tests/support/quant_nets.h"

#define SAMPLES 96
#define MAX_LAYERS 16

static const int64_t picture[] = {DIM_BATCH, 8, 8, 8};
static const struct net_conv conv8 = {.in = 8, .out = 8, .kernel = 3};

static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++) {
        struct rng rng;
        rng_seed2(&rng, 9, (uint64_t)(first + i));
        for (int64_t k = 0; k < 512; k++)
            out[i * 512 + k] = (float)rng_normal(&rng);
    }
    return 0;
}

/* All layers in int8, with 7-bit weights and ranges a third too narrow: the means shift. */
static struct graph *crude(const struct graph *g)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const struct infer_options infer = {.threads = 1};
    const struct quant_options options = {.weight_bits = 7};
    const char *const *names;
    struct quant_choice choices[MAX_LAYERS];
    struct err err = {0};
    int n;
    struct graph *q = NULL;
    assert_int_equal(quant_calibrate(g, &infer, SAMPLES, fill, NULL, &ranges, &err), 0);
    for (int i = 0; i < ranges.n; i++)
        ranges.ranges[i].high *= 0.67;
    assert_int_equal(quant_layers(g, arena, &names, &n, &err), 0);
    assert_true(n <= MAX_LAYERS);
    for (int i = 0; i < n; i++)
        choices[i] = (struct quant_choice){.layer = names[i], .precision = PRECISION_INT8};
    assert_int_equal(quant_rewrite(g, choices, n, &ranges, &options, &q, &err), 0);
    return q;
}

static void correct(const struct graph *g, struct graph *q, int threads)
{
    const struct infer_options options = {.threads = threads};
    struct err err = {0};
    if (quant_correct_bias(g, q, &options, SAMPLES, fill, NULL, &err) < 0)
        fail_msg("%s", err.message);
}

/* Means per channel of a layer's output over the same samples, by plain C. */
static void means_of(const struct graph *g, const char *layer, double *ret, int64_t *ret_n)
{
    _cleanup_(graph_freep) struct graph *copy = NULL;
    struct err err = {0};
    int output;
    assert_int_equal(graph_clone(g, &copy, &err), 0);
    const int value = copy->nodes[quant_find_node(copy, layer)]->outputs[0];
    assert_int_equal(quant_set_outputs(copy, 1, &value, &output, &err), 0);
    _cleanup_(tensor_freep) struct tensor *x = net_run(copy, 9, SAMPLES, 1, 0);
    const int64_t channels = x->shape.dim[1];
    const int64_t inner = shape_elements(&x->shape) / SAMPLES / channels;
    memset(ret, 0, (size_t)channels * sizeof(*ret));
    for (int64_t i = 0; i < shape_elements(&x->shape); i++)
        ret[i / inner % channels] += tensor_get_f64(x, i) / (double)(SAMPLES * inner);
    *ret_n = channels;
}

/* Root of the mean squared shift of the channels' means. */
static double shift_of(const struct graph *g, const struct graph *q, const char *layer)
{
    double a[64], b[64], sum = 0;
    int64_t n;
    means_of(g, layer, a, &n);
    means_of(q, layer, b, &n);
    for (int64_t i = 0; i < n; i++)
        sum += (a[i] - b[i]) * (a[i] - b[i]);
    return sqrt(sum / (double)n);
}

static void chain(struct net *net)
{
    net_init(net, 1);
    const struct net_conv depthwise = {.in = 8, .out = 8, .kernel = 3, .group = 8};
    int x = net_conv(net, "conv1", net_input(net, "input", 4, picture), &conv8);
    x = net_conv(net, "conv2", net_unary(net, OP_RELU, "relu1", x), &depthwise);
    x = net_conv(net, "conv3", net_unary(net, OP_RELU, "relu2", x), &conv8);
    x = net_unary(net, OP_FLATTEN, "flat", net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(net, net_gemm(net, "gemm", x, 8, 4, true));
}

static void residual(struct net *net)
{
    net_init(net, 2);
    const int a = net_unary(net, OP_RELU, "relu1",
                            net_conv(net, "conv1", net_input(net, "input", 4, picture), &conv8));
    int x = net_unary(net, OP_RELU, "relu2", net_conv(net, "conv2", a, &conv8));
    x = net_add(net, "add", net_conv(net, "conv3", x, &conv8), a);
    net_finish(net, net_conv(net, "conv4", net_unary(net, OP_RELU, "relu3", x), &conv8));
}

/* Two branches from the input on: no cut point but the ends, seven layers between them. */
static void branches(struct net *net)
{
    net_init(net, 3);
    const int input = net_input(net, "input", 4, picture);
    int x = input, y = input;
    const char *const left[] = {"a1", "a2", "a3"}, *const right[] = {"b1", "b2", "b3"};
    const char *const left_relu[] = {"ra1", "ra2", "ra3"};
    const char *const right_relu[] = {"rb1", "rb2", "rb3"};
    for (int i = 0; i < 3; i++) {
        x = net_unary(net, OP_RELU, left_relu[i], net_conv(net, left[i], x, &conv8));
        y = net_unary(net, OP_RELU, right_relu[i], net_conv(net, right[i], y, &conv8));
    }
    net_finish(net, net_conv(net, "last", net_add(net, "add", x, y), &conv8));
}

static void check_layers(void (*make)(struct net *), const char *const *layers, int n,
                         double factor)
{
    _cleanup_(net_release) struct net net;
    make(&net);
    _cleanup_(graph_freep) struct graph *before = crude(net.g);
    _cleanup_(graph_freep) struct graph *after = crude(net.g);
    correct(net.g, after, 2);
    for (int i = 0; i < n; i++) {
        const double was = shift_of(net.g, before, layers[i]);
        const double is = shift_of(net.g, after, layers[i]);
        assert_true(is < factor * was);
    }
}

static void shifts_along_a_chain_vanish(void **state)
{
    (void)state;
    const char *const layers[] = {"conv1", "conv2", "conv3", "gemm"};
    check_layers(chain, layers, 4, 0.1);
}

static void shifts_inside_residual_blocks_vanish(void **state)
{
    (void)state;
    const char *const layers[] = {"conv2", "conv3", "conv4"};
    check_layers(residual, layers, 3, 0.1);
}

static void shifts_between_distant_cut_points_shrink(void **state)
{
    (void)state;
    const char *const layers[] = {"a3", "b3", "last"};
    check_layers(branches, layers, 3, 0.3);
}

static void the_outputs_come_closer_to_the_originals(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    chain(&net);
    _cleanup_(graph_freep) struct graph *before = crude(net.g);
    _cleanup_(graph_freep) struct graph *after = crude(net.g);
    correct(net.g, after, 2);
    _cleanup_(tensor_freep) struct tensor *a = net_run(net.g, 123, 64, 1, 0);
    _cleanup_(tensor_freep) struct tensor *b = net_run(before, 123, 64, 1, 0);
    _cleanup_(tensor_freep) struct tensor *c = net_run(after, 123, 64, 1, 0);
    assert_true(net_snr(a, c) > net_snr(a, b) + 3);
}

static void the_number_of_threads_does_not_matter(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual(&net);
    _cleanup_(graph_freep) struct graph *one = crude(net.g);
    _cleanup_(graph_freep) struct graph *three = crude(net.g);
    correct(net.g, one, 1);
    correct(net.g, three, 3);
    for (int v = 0; v < one->n_values; v++) {
        const struct tensor *a = one->values[v]->constant, *b = three->values[v]->constant;
        if (a && a->dtype == DTYPE_S32)
            assert_memory_equal(a->data, b->data, tensor_bytes(a));
    }
}

static void a_network_without_int8_layers_stays_as_it_is(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    chain(&net);
    _cleanup_(graph_freep) struct graph *q = NULL;
    struct err err = {0};
    assert_int_equal(quant_rewrite(net.g, NULL, 0, NULL, NULL, &q, &err), 0);
    correct(net.g, q, 1);
    _cleanup_(tensor_freep) struct tensor *a = net_run(net.g, 1, 4, 1, 0);
    _cleanup_(tensor_freep) struct tensor *b = net_run(q, 1, 4, 1, 0);
    assert_true(net_snr(a, b) >= 200);
}

static void an_original_without_the_layer_is_refused(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(net_release) struct net other;
    chain(&net);
    residual(&other);
    _cleanup_(graph_freep) struct graph *q = crude(net.g);
    const struct infer_options options = {.threads = 1};
    struct err err = {0};
    assert_int_equal(quant_correct_bias(other.g, q, &options, SAMPLES, fill, NULL, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "gemm"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shifts_along_a_chain_vanish),
        cmocka_unit_test(shifts_inside_residual_blocks_vanish),
        cmocka_unit_test(shifts_between_distant_cut_points_shrink),
        cmocka_unit_test(the_outputs_come_closer_to_the_originals),
        cmocka_unit_test(the_number_of_threads_does_not_matter),
        cmocka_unit_test(a_network_without_int8_layers_stays_as_it_is),
        cmocka_unit_test(an_original_without_the_layer_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
