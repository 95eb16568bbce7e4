/* BatchNormalization put back, folded again, and new weights. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/train/unfold.h"
#include "tests/support/quant_nets.h"

enum { SAMPLES = 200 };

#define OK(call)                                                                                   \
    ({                                                                                             \
        struct err ok_err = {0};                                                                   \
        struct err *err = &ok_err;                                                                 \
        const int ok_rc = (call);                                                                  \
        if (ok_rc < 0)                                                                             \
            fail_msg("%s: %s", #call, ok_err.message);                                             \
        ok_rc;                                                                                     \
    })

/* Noise, the same for each index. ctx: floats of a sample. */
static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)err;
    const int64_t width = *(const int64_t *)ctx;
    for (int64_t s = 0; s < count; s++) {
        struct rng rng;
        rng_seed(&rng, (uint64_t)(first + s));
        for (int64_t i = 0; i < width; i++)
            out[s * width + i] = (float)(rng_normal(&rng) + 0.3);
    }
    return 0;
}

static int unfold(struct graph *g, int64_t n)
{
    int64_t width = shape_elements_at(&g->values[g->inputs[0]]->shape, 1);
    const struct unfold_options options = {.threads = 2};
    return OK(unfold_batchnorm(g, &options, n, fill, &width, err));
}

static double distance(const struct graph *a, const struct graph *b, int64_t n)
{
    struct tensor *x = net_run(a, 99, n, 1, 0.3), *y = net_run(b, 99, n, 1, 0.3);
    double most = 0, size = 0;
    for (int64_t i = 0; i < shape_elements(&x->shape); i++) {
        most = fmax(most, fabs(tensor_get_f64(x, i) - tensor_get_f64(y, i)));
        size = fmax(size, fabs(tensor_get_f64(x, i)));
    }
    tensor_free(x);
    tensor_free(y);
    return most / fmax(size, 1);
}

/* A residual network: conv, block with a projection, transposed conv, hidden Gemm, classifier. */
static void make_network(struct net *net)
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    net_init(net, 11);
    int x = net_unary(net, OP_RELU, "relu0",
                      net_conv(net, "stem", net_input(net, "input", 4, dims),
                               &(struct net_conv){.in = 3, .out = 8, .kernel = 3}));
    int y = net_conv(net, "body1", x, &(struct net_conv){.in = 8, .out = 12, .kernel = 3});
    y = net_conv(net, "body2", net_unary(net, OP_RELU, "relu1", y),
                 &(struct net_conv){.in = 12, .out = 12, .kernel = 3});
    x = net_conv(net, "project", x,
                 &(struct net_conv){.in = 8, .out = 12, .kernel = 1, .no_bias = true});
    x = net_unary(net, OP_RELU, "relu2", net_add(net, "add", x, y));
    x = net_conv(net, "up", x,
                 &(struct net_conv){.in = 12, .out = 6, .kernel = 3, .transpose = true});
    x = net_unary(net, OP_FLATTEN, "flat",
                  net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", net_unary(net, OP_RELU, "r3", x)));
    x = net_unary(net, OP_RELU, "r4", net_gemm(net, "hidden", x, 6, 16, true));
    net_finish(net, net_gemm(net, "answer", x, 16, 5, false));
}

static void unfolding_changes_nothing_and_folding_gives_it_back(void **state)
{
    (void)state;
    struct net net;
    struct graph *g = NULL;
    make_network(&net);
    OK(graph_clone(net.g, &g, err));
    assert_int_equal(unfold(g, SAMPLES), 6); /* all but the classifier */
    assert_int_equal(net_count(g, OP_BATCH_NORMALIZATION), 6);
    assert_true(distance(net.g, g, 16) < 1e-5);
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_CONV)
            assert_null(graph_input_of(g, g->nodes[n], 2)); /* the norm has the bias */
    assert_int_equal(unfold(g, SAMPLES), 0);                /* nothing is left to do */
    OK(pass_fold_batchnorm(g, err));
    assert_int_equal(net_count(g, OP_BATCH_NORMALIZATION), 0);
    assert_int_equal(g->n_nodes, net.g->n_nodes);
    assert_true(distance(net.g, g, 16) < 1e-5);
    assert_string_equal(g->values[g->outputs[0]]->name, net.g->values[net.g->outputs[0]]->name);
    graph_free(g);
    net_release(&net);
}

/* Statistics computed here from the layer's own output. */
static void the_statistics_are_those_of_the_samples(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 2, 4, 4};
    int64_t width = 32;
    struct net net;
    net_init(&net, 5);
    int conv = net_conv(&net, "conv", net_input(&net, "input", 4, dims),
                        &(struct net_conv){.in = 2, .out = 3, .kernel = 3});
    int x = net_conv(&net, "next", net_unary(&net, OP_RELU, "relu", conv),
                     &(struct net_conv){.in = 3, .out = 2, .kernel = 1});
    net_finish(&net, x);
    struct graph *probe = NULL;
    OK(graph_clone(net.g, &probe, err));
    OK(graph_add_output(probe, conv, err));
    probe->outputs[0] = probe->outputs[1];
    probe->n_outputs = 1;
    OK(graph_compact(probe, err));
    float *out = mem_calloc(SAMPLES * 48, sizeof(*out));
    OK(infer_run(probe, NULL, SAMPLES, fill, &width, out, err));
    assert_int_equal(unfold(net.g, SAMPLES), 1);
    const struct node *norm = NULL;
    for (int n = 0; n < net.g->n_nodes; n++)
        if (net.g->nodes[n]->op == OP_BATCH_NORMALIZATION)
            norm = net.g->nodes[n];
    assert_non_null(norm);
    for (int c = 0; c < 3; c++) {
        double mean = 0, square = 0;
        for (int s = 0; s < SAMPLES; s++)
            for (int i = 0; i < 16; i++)
                mean += (double)out[(s * 3 + c) * 16 + i] / (SAMPLES * 16);
        for (int s = 0; s < SAMPLES; s++)
            for (int i = 0; i < 16; i++)
                square += pow((double)out[(s * 3 + c) * 16 + i] - mean, 2) / (SAMPLES * 16);
        const double shift = tensor_get_f64(graph_input_of(net.g, norm, 2)->constant, c);
        const double variance = tensor_get_f64(graph_input_of(net.g, norm, 4)->constant, c);
        assert_true(fabs(shift - mean) < 1e-5);
        assert_true(fabs(variance - square) < 1e-5 * (1 + square));
    }
    free(out);
    graph_free(probe);
    net_release(&net);
}

static void channels_that_never_change_are_kept(void **state)
{
    (void)state;
    struct net net;
    struct graph *g = NULL;
    make_network(&net);
    const struct node *stem = net_of(&net, "stem");
    float *w = graph_input_of(net.g, stem, 1)->constant->data;
    memset(w, 0, 27 * sizeof(*w)); /* channel 0 is its bias and nothing else */
    OK(graph_clone(net.g, &g, err));
    unfold(g, SAMPLES);
    assert_true(distance(net.g, g, 16) < 1e-5);
    OK(pass_fold_batchnorm(g, err));
    assert_true(distance(net.g, g, 16) < 1e-5);
    graph_free(g);
    net_release(&net);
}

static void without_samples_the_function_stays_as_well(void **state)
{
    (void)state;
    struct net net;
    struct graph *g = NULL;
    make_network(&net);
    OK(graph_clone(net.g, &g, err));
    assert_int_equal(OK(unfold_batchnorm(g, NULL, 0, NULL, NULL, err)), 6);
    assert_true(distance(net.g, g, 16) < 1e-5);
    graph_free(g);
    net_release(&net);
}

static void the_same_samples_give_the_same_bits_on_any_threads(void **state)
{
    (void)state;
    struct net net;
    void *bytes[2];
    size_t n[2];
    make_network(&net);
    for (int i = 0; i < 2; i++) {
        struct graph *g = NULL;
        int64_t width = 192;
        const struct unfold_options options = {.threads = 1 + 2 * i};
        OK(graph_clone(net.g, &g, err));
        OK(unfold_batchnorm(g, &options, SAMPLES, fill, &width, err));
        OK(onnx_write_bytes(g, &bytes[i], &n[i], err));
        graph_free(g);
    }
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(bytes[0], bytes[1], n[0]);
    free(bytes[0]);
    free(bytes[1]);
    net_release(&net);
}

static int fail_to_fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx, (void)first, (void)count, (void)out;
    return err_set(err, ERR_DATA_LOSS, "no samples today");
}

static void a_failing_fill_is_passed_on(void **state)
{
    (void)state;
    struct net net;
    struct err err = {0};
    make_network(&net);
    assert_int_equal(unfold_batchnorm(net.g, NULL, 10, fail_to_fill, NULL, &err), -ERR_DATA_LOSS);
    assert_non_null(strstr(err.message, "no samples today"));
    assert_int_equal(net_count(net.g, OP_BATCH_NORMALIZATION), 0);
    net_release(&net);
}

/* ---- real networks ---- */

static void check_real(const char *file, int norms, int64_t n)
{
    const char *data = getenv("HONE_DATA");
    _cleanup_(freep) char *path =
        str_printf("%s/models/%s", data ? data : HONE_SOURCE_DIR "/../shared/data", file);
    if (!fs_exists(path)) {
        print_message("skip: %s is not there\n", path);
        freep(&path); /* skip does not return */
        skip();
    }
    struct graph *g = NULL, *whole = NULL;
    OK(onnx_read_file(path, NULL, &whole, err));
    OK(pass_simplify(whole, err));
    OK(graph_clone(whole, &g, err));
    const int found = unfold(g, n);
    const double unfolded = distance(whole, g, 2);
    OK(pass_fold_batchnorm(g, err));
    const double folded = distance(whole, g, 2);
    print_message("%s: %d norms; unfolded %.2g, folded again %.2g\n", file, found, unfolded,
                  folded);
    assert_int_equal(found, norms);
    assert_true(unfolded < 1e-5 && folded < 1e-5);
    assert_int_equal(g->n_nodes, whole->n_nodes);
    graph_free(g);
    graph_free(whole);
}

static void real_residual_networks_survive(void **state)
{
    (void)state;
    check_real("resnet20-cifar10.onnx", 19, 48);
    check_real("resnet56-cifar10-torch-export.onnx", 55, 16);
    check_real("resnet8-cifar10-mlperf.onnx", 9, 48);
}

static void real_separable_networks_survive(void **state)
{
    (void)state;
    check_real("dscnn-kws-mlperf.onnx", 9, 48);
    check_real("mobilenetv1-05-160-imagenet.onnx", 27, 8);
}

static void norms_stand_behind_pools_that_follow(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8}, two[] = {2, 2};
    struct net net;
    net_init(&net, 12);
    int x = net_conv(&net, "stem", net_input(&net, "input", 4, dims),
                     &(struct net_conv){.in = 3, .out = 8, .kernel = 3});
    x = net_unary(&net, OP_MAX_POOL, "pool", x);
    OK(graph_set_attr_ints(net.g, net_of(&net, "pool"), "kernel_shape", 2, two, err));
    OK(graph_set_attr_ints(net.g, net_of(&net, "pool"), "strides", 2, two, err));
    x = net_conv(&net, "body", net_unary(&net, OP_RELU, "relu", x),
                 &(struct net_conv){.in = 8, .out = 8, .kernel = 3});
    x = net_unary(&net, OP_FLATTEN, "flat", net_unary(&net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(&net, net_gemm(&net, "answer", x, 8, 5, false));
    struct graph *before = NULL;
    OK(graph_clone(net.g, &before, err));
    assert_int_equal(unfold(net.g, SAMPLES), 2);
    const struct node *norm = net_of(&net, "stem_norm");
    assert_int_equal(norm->inputs[0], net_of(&net, "pool")->outputs[0]);
    assert_int_equal(net_of(&net, "relu")->inputs[0], norm->outputs[0]);
    assert_true(distance(net.g, before, 8) < 1e-5);
    OK(pass_simplify(net.g, err));
    for (int n = 0; n < net.g->n_nodes; n++)
        assert_int_not_equal(net.g->nodes[n]->op, OP_BATCH_NORMALIZATION);
    assert_true(distance(net.g, before, 8) < 1e-5);
    graph_free(before);
    net_release(&net);
}

/* ---- new weights ---- */

static void new_weights_have_the_variance_of_their_fan_in(void **state)
{
    (void)state;
    struct net net;
    make_network(&net);
    unfold(net.g, SAMPLES);
    OK(reinit_weights(net.g, &(struct reinit_options){.seed = 1}, err));
    const struct {
        const char *layer;
        double fan_in;
    } layers[] = {{"body2", 108}, {"stem", 27}, {"hidden", 6}, {"up", 108}};
    for (size_t k = 0; k < sizeof(layers) / sizeof(*layers); k++) {
        const struct tensor *w = graph_input_of(net.g, net_of(&net, layers[k].layer), 1)->constant;
        const int64_t n = shape_elements(&w->shape);
        double square = 0;
        for (int64_t i = 0; i < n; i++)
            square += pow(tensor_get_f64(w, i), 2) / (double)n;
        const double ratio = square * layers[k].fan_in / 2;
        if (ratio < 1 - 5 * sqrt(2.0 / (double)n) || ratio > 1 + 5 * sqrt(2.0 / (double)n))
            fail_msg("%s: %g of the variance", layers[k].layer, ratio);
    }
    for (int n = 0; n < net.g->n_nodes; n++) {
        const struct node *node = net.g->nodes[n];
        static const double expected[] = {0, 1, 0, 0, 1};
        for (int i = 1; node->op == OP_BATCH_NORMALIZATION && i < 5; i++)
            assert_true(tensor_get_f64(graph_input_of(net.g, node, i)->constant, 1) == expected[i]);
        if (node->op == OP_GEMM && node->n_inputs > 2)
            assert_true(tensor_get_f64(graph_input_of(net.g, node, 2)->constant, 0) == 0);
    }
    net_release(&net);
}

static void one_seed_gives_one_network(void **state)
{
    (void)state;
    struct net net;
    struct graph *g[3] = {NULL};
    make_network(&net);
    unfold(net.g, SAMPLES);
    for (int i = 0; i < 3; i++) {
        OK(graph_clone(net.g, &g[i], err));
        OK(reinit_weights(g[i], &(struct reinit_options){.seed = i < 2 ? 7 : 8}, err));
    }
    assert_true(distance(g[0], g[1], 4) == 0);
    assert_true(distance(g[0], g[2], 4) > 0.01);
    for (int i = 0; i < 3; i++)
        graph_free(g[i]);
    net_release(&net);
}

static void residual_branches_can_start_at_zero(void **state)
{
    (void)state;
    struct net net;
    make_network(&net);
    unfold(net.g, SAMPLES);
    OK(reinit_weights(net.g, &(struct reinit_options){.seed = 1, .zero_residual = true}, err));
    int zero = 0;
    for (int n = 0; n < net.g->n_nodes; n++) {
        const struct node *node = net.g->nodes[n];
        if (node->op != OP_BATCH_NORMALIZATION)
            continue;
        if (tensor_get_f64(graph_input_of(net.g, node, 1)->constant, 0) == 0) {
            zero++;
            assert_string_equal(node->name, "body2_norm");
        }
    }
    assert_int_equal(zero, 1);
    net_release(&net);
}

static void convolutions_can_start_by_handing_on(void **state)
{
    (void)state;
    struct net net;
    make_network(&net);
    OK(reinit_weights(net.g, &(struct reinit_options){.seed = 1, .identity = true}, err));
    const float *w = graph_input_of(net.g, net_of(&net, "body1"), 1)->constant->data;
    for (int o = 0; o < 12; o++)
        for (int c = 0; c < 8; c++)
            for (int k = 0; k < 9; k++)
                if (o < 8)
                    assert_true(w[(o * 8 + c) * 9 + k] == (o == c && k == 4 ? 1 : 0));
                else
                    assert_true(fabsf(w[(o * 8 + c) * 9 + k]) < 0.6f &&
                                w[(o * 8 + c) * 9 + k] != 0);
    net_release(&net);
}

/* ---- whitening ---- */

enum { SIDE = 8, PATCH = 27 };

/* Pictures whose pixels go together: sums of neighbours, channels alike. */
static int fill_smooth(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t s = 0; s < count; s++) {
        struct rng rng;
        float noise[SIDE + 1][SIDE + 1];
        rng_seed(&rng, (uint64_t)(first + s));
        for (int i = 0; i < (SIDE + 1) * (SIDE + 1); i++)
            noise[i / (SIDE + 1)][i % (SIDE + 1)] = (float)rng_normal(&rng);
        for (int c = 0; c < 3; c++)
            for (int y = 0; y < SIDE; y++)
                for (int x = 0; x < SIDE; x++)
                    *out++ = noise[y][x] + noise[y + 1][x + 1] + (float)rng_normal(&rng) / 2 + 5;
    }
    return 0;
}

/* What the filters give over all patches of the samples. */
static void respond(const float *w, int filters, double *mean, double *square)
{
    float x[3 * SIDE * SIDE];
    const int64_t n = (int64_t)SAMPLES * (SIDE - 2) * (SIDE - 2);
    for (int s = 0; s < SAMPLES; s++) {
        fill_smooth(NULL, s, 1, x, NULL);
        for (int at = 0; at < (SIDE - 2) * (SIDE - 2); at++) {
            double y[PATCH * 2];
            const float *corner = x + at / (SIDE - 2) * SIDE + at % (SIDE - 2);
            for (int o = 0; o < filters; o++) {
                y[o] = 0;
                for (int i = 0; i < PATCH; i++)
                    y[o] += (double)(w[o * PATCH + i] *
                                     corner[i / 9 * SIDE * SIDE + i / 3 % 3 * SIDE + i % 3]);
                mean[o] += y[o] / (double)n;
            }
            for (int o = 0; o < filters; o++)
                for (int p = 0; p < filters; p++)
                    square[o * filters + p] += y[o] * y[p] / (double)n;
        }
    }
}

static void a_whitened_layer_gives_uncorrelated_values_of_deviation_one(void **state)
{
    (void)state;
    enum { FILTERS = 2 * PATCH, MORE = FILTERS + 2 };
    static double mean[FILTERS], square[FILTERS * FILTERS];
    const int64_t dims[] = {DIM_BATCH, 3, SIDE, SIDE};
    struct net net;
    const char *name = NULL;
    net_init(&net, 11);
    net_finish(&net, net_conv(&net, "stem", net_input(&net, "input", 4, dims),
                              &(struct net_conv){.in = 3, .out = MORE, .kernel = 3}));
    const struct value *weights = graph_input_of(net.g, net_of(&net, "stem"), 1);
    const float *w = weights->constant->data;
    float others[2 * PATCH]; /* there is nothing left that they could whiten */
    memcpy(others, w + FILTERS * PATCH, sizeof(others));
    OK(whiten_first(net.g, SAMPLES, fill_smooth, NULL, &name, err));
    assert_memory_equal(others, w + FILTERS * PATCH, sizeof(others));
    assert_string_equal(name, weights->name);
    respond(w, FILTERS, mean, square);
    for (int o = 0; o < FILTERS; o++)
        for (int p = 0; p < FILTERS; p++) {
            const double c = square[o * FILTERS + p] - mean[o] * mean[p];
            const double expected = o == p ? 1 : o % PATCH == p % PATCH ? -1 : 0;
            if (fabs(c - expected) > 0.01)
                fail_msg("covariance of %d and %d: %g", o, p, c);
        }
    for (int i = 0; i < PATCH * PATCH; i++)
        assert_true(w[i] == -w[PATCH * PATCH + i]);
    net_release(&net);
}

static void what_cannot_be_whitened_is_refused(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 3, SIDE, SIDE};
    struct net net;
    struct err err = {0};
    const char *name = NULL;
    net_init(&net, 11);
    net_finish(&net, net_conv(&net, "stem", net_input(&net, "input", 4, dims),
                              &(struct net_conv){.in = 3, .out = 8, .kernel = 19}));
    assert_int_equal(whiten_first(net.g, SAMPLES, fill_smooth, NULL, &name, &err),
                     -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "'stem' reads patches of 1083 numbers"));
    net_release(&net);
    net_init(&net, 11);
    net_finish(&net, net_unary(&net, OP_RELU, "relu", net_input(&net, "input", 4, dims)));
    assert_int_equal(whiten_first(net.g, SAMPLES, fill_smooth, NULL, &name, &err),
                     -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "no convolution reads the network's input"));
    net_release(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(unfolding_changes_nothing_and_folding_gives_it_back),
        cmocka_unit_test(the_statistics_are_those_of_the_samples),
        cmocka_unit_test(channels_that_never_change_are_kept),
        cmocka_unit_test(without_samples_the_function_stays_as_well),
        cmocka_unit_test(the_same_samples_give_the_same_bits_on_any_threads),
        cmocka_unit_test(a_failing_fill_is_passed_on),
        cmocka_unit_test(norms_stand_behind_pools_that_follow),
        cmocka_unit_test(real_residual_networks_survive),
        cmocka_unit_test(real_separable_networks_survive),
        cmocka_unit_test(new_weights_have_the_variance_of_their_fan_in),
        cmocka_unit_test(one_seed_gives_one_network),
        cmocka_unit_test(residual_branches_can_start_at_zero),
        cmocka_unit_test(convolutions_can_start_by_handing_on),
        cmocka_unit_test(a_whitened_layer_gives_uncorrelated_values_of_deviation_one),
        cmocka_unit_test(what_cannot_be_whitened_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
