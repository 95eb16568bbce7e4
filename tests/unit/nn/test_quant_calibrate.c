/* Calibration on samples: every value that could be quantized, and nothing else. */
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

#define SAMPLES 40

static const int64_t picture[] = {DIM_BATCH, 8, 8, 8};
static const struct net_conv conv8 = {.in = 8, .out = 8, .kernel = 3};

/* Normal noise; sample `strange` begins with `number`. */
struct source {
    int64_t elements, strange;
    float number;
    int rc;
};

static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    const struct source *s = ctx;
    for (int64_t i = 0; i < count; i++) {
        struct rng rng;
        rng_seed2(&rng, 9, (uint64_t)(first + i));
        for (int64_t k = 0; k < s->elements; k++)
            out[i * s->elements + k] = (float)rng_normal(&rng);
        if (first + i == s->strange)
            out[i * s->elements] = s->number;
    }
    return s->rc < 0 ? err_set(err, (enum err_code) - s->rc, "no samples") : 0;
}

static const struct source plain = {.elements = 512, .strange = -1};

/* conv1 -> Relu -> MaxPool -> conv2 -> Sigmoid -> GlobalAveragePool -> Flatten -> Gemm */
static void make(struct net *net, const int64_t *dims)
{
    net_init(net, 1);
    struct err err = {0};
    const int64_t two[] = {2, 2};
    int x = net_conv(net, "conv1", net_input(net, "input", 4, dims), &conv8);
    x = net_unary(net, OP_MAX_POOL, "pool", net_unary(net, OP_RELU, "relu", x));
    assert_int_equal(graph_set_attr_ints(net->g, net_of(net, "pool"), "kernel_shape", 2, two, &err),
                     0);
    assert_int_equal(graph_set_attr_ints(net->g, net_of(net, "pool"), "strides", 2, two, &err), 0);
    x = net_unary(net, OP_SIGMOID, "sigmoid", net_conv(net, "conv2", x, &conv8));
    x = net_unary(net, OP_FLATTEN, "flat", net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(net, net_gemm(net, "gemm", x, 8, 4, true));
}

static void calibrate(const struct graph *g, int threads, struct quant_ranges *ret)
{
    const struct infer_options options = {.threads = threads};
    struct source source = plain;
    struct err err = {0};
    if (quant_calibrate(g, &options, SAMPLES, fill, &source, ret, &err) < 0)
        fail_msg("%s", err.message);
}

static void values_that_layers_read_are_calibrated_and_others_are_not(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    make(&net, picture);
    calibrate(net.g, 2, &ranges);
    const char *const wanted[] = {"input", "relu_out", "pool_out", "gap_out", "flat_out"};
    const char *const unwanted[] = {"conv1_out", "conv2_out", "sigmoid_out", "gemm_out", "conv1_w"};
    for (int i = 0; i < 5; i++) {
        assert_non_null(quant_range_find(&ranges, wanted[i]));
        assert_null(quant_range_find(&ranges, unwanted[i]));
    }
    assert_int_equal(ranges.n, 5);
    assert_int_equal(ranges.samples, SAMPLES);
}

static void ranges_are_those_of_the_values(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(graph_freep) struct graph *copy = NULL;
    struct err err = {0};
    make(&net, picture);
    calibrate(net.g, 2, &ranges);
    assert_int_equal(graph_clone(net.g, &copy, &err), 0);
    int relu = graph_find_value(copy, "relu_out"), output;
    assert_int_equal(quant_set_outputs(copy, 1, &relu, &output, &err), 0);
    _cleanup_(tensor_freep) struct tensor *x = net_run(copy, 9, SAMPLES, 1, 0);
    struct histogram h;
    struct quant_range expected = {0};
    assert_int_equal(histogram_init(&h, &err), 0);
    assert_int_equal(histogram_add(&h, x->data, shape_elements(&x->shape), &err), 0);
    assert_int_equal(histogram_range(&h, &expected, &err), 0);
    histogram_release(&h);
    const struct quant_range *r = quant_range_find(&ranges, "relu_out");
    assert_true(fabs(r->max - expected.max) < 1e-4 * expected.max);
    assert_true(r->min == 0 && r->low == 0);
    assert_true(fabs(r->high - expected.high) < 0.01 * expected.high);
}

static void the_number_of_threads_does_not_matter(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges one = {0}, three = {0};
    make(&net, picture);
    calibrate(net.g, 1, &one);
    calibrate(net.g, 3, &three);
    assert_int_equal(one.n, three.n);
    for (int i = 0; i < one.n; i++) {
        assert_string_equal(one.ranges[i].value, three.ranges[i].value);
        assert_true(one.ranges[i].low == three.ranges[i].low);
        assert_true(one.ranges[i].high == three.ranges[i].high);
        assert_true(one.ranges[i].mse == three.ranges[i].mse);
    }
}

static void networks_of_a_fixed_batch_are_calibrated_too(void **state)
{
    (void)state;
    const int64_t single[] = {1, 8, 8, 8}, three[] = {3, 8, 8, 8};
    _cleanup_(quant_ranges_release) struct quant_ranges any = {0};
    _cleanup_(net_release) struct net net;
    make(&net, picture);
    calibrate(net.g, 1, &any);
    const int64_t *const fixed[] = {single, three};
    for (int i = 0; i < 2; i++) {
        _cleanup_(net_release) struct net other;
        _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
        make(&other, fixed[i]);
        calibrate(other.g, 1, &ranges);
        assert_int_equal(ranges.n, any.n);
        assert_true(fabs(ranges.ranges[1].max - any.ranges[1].max) < 1e-4 * any.ranges[1].max);
    }
}

static void a_value_that_is_not_finite_is_named_with_its_samples(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    struct source source = {.elements = 512, .strange = 17, .number = NAN};
    const struct infer_options options = {.threads = 1, .batch = 4};
    struct err err = {0};
    make(&net, picture);
    assert_int_equal(quant_calibrate(net.g, &options, SAMPLES, fill, &source, &ranges, &err),
                     -ERR_OUT_OF_RANGE);
    assert_non_null(strstr(err.message, "'input'"));
    assert_non_null(strstr(err.message, "16 to 19"));
}

static void a_failure_to_read_samples_is_passed_on(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    struct source source = {.elements = 512, .strange = -1, .rc = -ERR_DATA_LOSS};
    const struct infer_options options = {.threads = 2};
    struct err err = {0};
    make(&net, picture);
    assert_int_equal(quant_calibrate(net.g, &options, SAMPLES, fill, &source, &ranges, &err),
                     -ERR_DATA_LOSS);
    assert_int_equal(quant_calibrate(net.g, &options, 0, fill, &source, &ranges, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_int_equal(ranges.n, 0);
}

static int stop_at_20(void *ctx, int64_t done, int64_t total, struct err *err)
{
    int64_t *last = ctx;
    assert_true(done > *last && done <= total);
    *last = done;
    return done >= 20 ? err_set(err, ERR_CANCELLED, "enough") : 0;
}

static void progress_counts_samples_and_can_stop(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    struct source source = plain;
    int64_t last = 0;
    const struct infer_options options = {
        .threads = 1, .batch = 5, .progress = stop_at_20, .progress_ctx = &last};
    struct err err = {0};
    make(&net, picture);
    assert_int_equal(quant_calibrate(net.g, &options, SAMPLES, fill, &source, &ranges, &err),
                     -ERR_CANCELLED);
    assert_int_equal(last, 20);
}

static void noise_gives_the_same_ranges_for_the_same_seed(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(quant_ranges_release) struct quant_ranges a = {0}, b = {0}, c = {0};
    struct err err = {0};
    make(&net, picture);
    assert_int_equal(quant_calibrate_noise(net.g, 1, &a, &err), 0);
    assert_int_equal(quant_calibrate_noise(net.g, 1, &b, &err), 0);
    assert_int_equal(quant_calibrate_noise(net.g, 2, &c, &err), 0);
    assert_int_equal(a.n, 5);
    assert_true(a.ranges[1].max == b.ranges[1].max);
    assert_true(a.ranges[1].max != c.ranges[1].max);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_that_layers_read_are_calibrated_and_others_are_not),
        cmocka_unit_test(ranges_are_those_of_the_values),
        cmocka_unit_test(the_number_of_threads_does_not_matter),
        cmocka_unit_test(networks_of_a_fixed_batch_are_calibrated_too),
        cmocka_unit_test(a_value_that_is_not_finite_is_named_with_its_samples),
        cmocka_unit_test(a_failure_to_read_samples_is_passed_on),
        cmocka_unit_test(progress_counts_samples_and_can_stop),
        cmocka_unit_test(noise_gives_the_same_ranges_for_the_same_seed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
