/* Sensitivity: the same as running the whole network with one layer lowered. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/trainer/sensitivity.h"
#include "tests/support/quant_nets.h"

#define SAMPLES 48
#define LAYERS 7

static const int64_t picture[] = {DIM_BATCH, 8, 8, 8};
static const struct quant_choice int8_only[] = {{.precision = PRECISION_INT8}};

static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++) {
        struct rng rng;
        rng_seed2(&rng, 11, (uint64_t)(first + i));
        for (int64_t k = 0; k < 512; k++)
            out[i * 512 + k] = (float)rng_normal(&rng);
    }
    return 0;
}

/* Chain, residual block, two branches of a concat, head: blocks of one, two and more layers. */
static void make(struct net *net)
{
    const struct net_conv conv8 = {.in = 8, .out = 8, .kernel = 3};
    const struct net_conv half = {.in = 8, .out = 4, .kernel = 1};
    struct err err = {0};
    net_init(net, 1);
    const int input = net_input(net, "input", 4, picture);
    const int a = net_unary(net, OP_RELU, "relu1", net_conv(net, "conv1", input, &conv8));
    int x = net_unary(net, OP_RELU, "relu2", net_conv(net, "conv2", a, &conv8));
    x = net_add(net, "add", net_conv(net, "conv3", x, &conv8), a);
    x = net_unary(net, OP_RELU, "relu3", x);
    const int left = net_unary(net, OP_RELU, "relu4", net_conv(net, "left", x, &half));
    const int right = net_unary(net, OP_RELU, "relu5", net_conv(net, "right", x, &half));
    x = net_node(net, OP_CONCAT, "concat", 2, (int[]){left, right});
    assert_int_equal(graph_set_attr_int(net->g, net_of(net, "concat"), "axis", 1, &err), 0);
    x = net_unary(net, OP_RELU, "relu6", net_conv(net, "conv4", x, &conv8));
    x = net_unary(net, OP_FLATTEN, "flat", net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(net, net_gemm(net, "gemm", x, 8, 5, true));
}

struct found {
    struct arena *arena;
    struct sensitivity *scores;
    int n;
};

static void found_release(struct found *f)
{
    arena_freep(&f->arena);
}

static int measure(const struct net *net, const struct sensitivity_options *options,
                   struct found *ret, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct infer_options infer = {.threads = 1};
    ret->arena = arena_new();
    assert_int_equal(quant_calibrate(net->g, &infer, SAMPLES, fill, NULL, &ranges, err), 0);
    return sensitivity_measure(net->g, &ranges, options, ret->arena, &ret->scores, &ret->n, err);
}

static struct sensitivity_options options_of(int threads)
{
    return (struct sensitivity_options){.threads = threads,
                                        .n = SAMPLES,
                                        .fill = fill,
                                        .choices = int8_only,
                                        .n_choices = 1,
                                        .weight_bits = nn_has_int8() ? 8 : 7};
}

static void scores_are_those_of_the_whole_network_with_one_layer_lowered(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(found_release) struct found found = {0};
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct sensitivity_options options = options_of(2);
    const struct infer_options infer = {.threads = 1};
    struct err err = {0};
    make(&net);
    assert_int_equal(measure(&net, &options, &found, &err), 0);
    assert_int_equal(found.n, LAYERS);
    assert_int_equal(quant_calibrate(net.g, &infer, SAMPLES, fill, NULL, &ranges, &err), 0);
    float parent[SAMPLES * 5], child[SAMPLES * 5];
    assert_int_equal(infer_run(net.g, &infer, SAMPLES, fill, NULL, parent, &err), 0);
    for (int i = 0; i < found.n; i++) {
        _cleanup_(graph_freep) struct graph *q = NULL;
        const struct quant_options bits = {.weight_bits = options.weight_bits};
        assert_int_equal(quant_rewrite(net.g, &found.scores[i].choice, 1, &ranges, &bits, &q, &err),
                         0);
        assert_int_equal(infer_run(q, &infer, SAMPLES, fill, NULL, child, &err), 0);
        struct infer_metrics m;
        infer_metrics(child, parent, NULL, SAMPLES, 5, &m);
        assert_true(m.kl > 0);
        assert_true(fabs(found.scores[i].kl - m.kl) <= 0.05 * m.kl + 1e-9);
        assert_true(fabs(found.scores[i].agreement - m.agreement) <= 1.01 / SAMPLES);
    }
}

static void a_layer_with_an_outlier_hurts_more(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(found_release) struct found before = {0};
    _cleanup_(found_release) struct found after = {0};
    const struct sensitivity_options options = options_of(2);
    struct err err = {0};
    make(&net);
    assert_int_equal(measure(&net, &options, &before, &err), 0);
    /* One weight in each channel of conv4, on a channel that is always zero, eats the scale. */
    float *relu = net.g->values[graph_find_value(net.g, "right_b")]->constant->data;
    float *w = net.g->values[graph_find_value(net.g, "conv4_w")]->constant->data;
    relu[3] = -1e6f;
    for (int c = 0; c < 8; c++)
        w[c * 72 + 7 * 9] = 1e3f;
    assert_int_equal(measure(&net, &options, &after, &err), 0);
    for (int i = 0; i < after.n; i++)
        if (strcmp(after.scores[i].choice.layer, "conv4") == 0)
            assert_true(after.scores[i].kl > 10 * before.scores[i].kl);
}

static void the_number_of_threads_hardly_matters(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(found_release) struct found one = {0};
    _cleanup_(found_release) struct found five = {0};
    const struct sensitivity_options with_one = options_of(1), with_five = options_of(5);
    struct err err = {0};
    make(&net);
    assert_int_equal(measure(&net, &with_one, &one, &err), 0);
    assert_int_equal(measure(&net, &with_five, &five, &err), 0);
    assert_int_equal(one.n, five.n);
    for (int i = 0; i < one.n; i++) {
        assert_string_equal(one.scores[i].choice.layer, five.scores[i].choice.layer);
        assert_true(fabs(one.scores[i].kl - five.scores[i].kl) < 0.05 * one.scores[i].kl + 1e-9);
    }
}

static void every_precision_is_scored(void **state)
{
    (void)state;
    static const struct quant_choice both[] = {{.precision = PRECISION_INT8},
                                               {.precision = PRECISION_BF16}};
    _cleanup_(net_release) struct net net;
    _cleanup_(found_release) struct found found = {0};
    struct sensitivity_options options = options_of(2);
    options.choices = both;
    options.n_choices = 2;
    struct err err = {0};
    make(&net);
    assert_int_equal(measure(&net, &options, &found, &err), 0);
    assert_int_equal(found.n, 2 * LAYERS);
    for (int i = 0; i < found.n; i++)
        assert_int_equal(found.scores[i].choice.precision, both[i % 2].precision);
}

static void fewer_bits_take_less_room_and_hurt_more(void **state)
{
    (void)state;
    static const struct quant_choice small[] = {{.precision = PRECISION_INT8, .weight_bits = 6},
                                                {.precision = PRECISION_INT8, .weight_bits = 5},
                                                {.precision = PRECISION_INT8, .weight_bits = 3}};
    _cleanup_(net_release) struct net net;
    _cleanup_(found_release) struct found found = {0};
    struct sensitivity_options options = options_of(2);
    options.choices = small;
    options.n_choices = 3;
    struct err err = {0};
    make(&net);
    assert_int_equal(measure(&net, &options, &found, &err), 0);
    assert_int_equal(found.n, 3 * LAYERS);
    for (int i = 0; i < found.n; i += 3) {
        const struct sensitivity *s = &found.scores[i];
        assert_true(s[0].bytes > s[1].bytes && s[1].bytes > s[2].bytes && s[2].bytes > 0);
        assert_true(s[2].kl > s[0].kl);
    }
}

static int watch(void *ctx, int64_t done, int64_t total, struct err *err)
{
    int64_t *last = ctx;
    assert_true(done >= *last && done <= total);
    assert_int_equal(total, SAMPLES * LAYERS);
    *last = done;
    (void)err;
    return 0;
}

static int refuse(void *ctx, int64_t done, int64_t total, struct err *err)
{
    (void)ctx;
    (void)total;
    return done > 2 * SAMPLES ? err_set(err, ERR_CANCELLED, "enough") : 0;
}

static void progress_reaches_its_total_and_can_stop(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    _cleanup_(found_release) struct found found = {0};
    _cleanup_(found_release) struct found stopped = {0};
    struct sensitivity_options options = options_of(2);
    int64_t last = 0;
    struct err err = {0};
    make(&net);
    options.progress = watch;
    options.progress_ctx = &last;
    assert_int_equal(measure(&net, &options, &found, &err), 0);
    assert_int_equal(last, SAMPLES * LAYERS);
    options.progress = refuse;
    assert_int_equal(measure(&net, &options, &stopped, &err), -ERR_CANCELLED);
}

static void samples_are_between_256_and_512(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    int64_t n;
    struct err err = {0};
    make(&net);
    assert_int_equal(sensitivity_samples(net.g, 1, &n, &err), 0);
    assert_int_equal(n, 512);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scores_are_those_of_the_whole_network_with_one_layer_lowered),
        cmocka_unit_test(a_layer_with_an_outlier_hurts_more),
        cmocka_unit_test(the_number_of_threads_hardly_matters),
        cmocka_unit_test(every_precision_is_scored),
        cmocka_unit_test(fewer_bits_take_less_room_and_hurt_more),
        cmocka_unit_test(progress_reaches_its_total_and_can_stop),
        cmocka_unit_test(samples_are_between_256_and_512),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
