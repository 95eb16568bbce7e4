/* The rewrite to QDQ: where quantization is placed, and that the function stays. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/nn/quantize_priv.h"
#include "tests/support/quant_nets.h"

#define MAX_CHOICES 16

static const int64_t picture[] = {DIM_BATCH, 8, 8, 8};

/* Ranges for every value of the graph, as samples of plain-C runs give them. */
static void ranges_of(const struct graph *g, uint64_t seed, double scale, double shift,
                      struct quant_ranges *ret)
{
    struct err err = {0};
    *ret = (struct quant_ranges){0};
    for (int v = 0; v < g->n_values; v++) {
        if (g->values[v]->constant || g->values[v]->dtype != DTYPE_F32)
            continue;
        struct graph *copy = NULL;
        int output;
        assert_int_equal(graph_clone(g, &copy, &err), 0);
        assert_int_equal(quant_set_outputs(copy, 1, &v, &output, &err), 0);
        if (output < 0) /* the input: seen through an Identity */
            assert_true(graph_add_node(copy, -1, OP_IDENTITY, "see", 1, &v, 1, NULL, &err) >= 0 &&
                        graph_add_output(copy, copy->nodes[copy->n_nodes - 1]->outputs[0], &err) >=
                            0);
        _cleanup_(tensor_freep) struct tensor *x = net_run(copy, seed, 16, scale, shift);
        struct histogram h;
        assert_int_equal(histogram_init(&h, &err), 0);
        assert_int_equal(histogram_add(&h, x->data, shape_elements(&x->shape), &err), 0);
        struct quant_range range = {.value = g->values[v]->name};
        assert_int_equal(histogram_range(&h, &range, &err), 0);
        assert_int_equal(quant_ranges_add(ret, &range, &err), 0);
        histogram_release(&h);
        graph_free(copy);
    }
}

/* The named layers (separated by spaces; NULL: all) in int8. */
static struct graph *rewrite(const struct graph *g, const char *layers,
                             const struct quant_options *options, double scale, double shift)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    ranges_of(g, 7, scale, shift, &ranges);
    struct quant_choice choices[MAX_CHOICES];
    struct err err = {0};
    int n = 0;
    if (layers) {
        for (char *rest = arena_strdup(arena, layers), *name; (name = strsep(&rest, " "));)
            choices[n++] = (struct quant_choice){.layer = name, .precision = PRECISION_INT8};
    } else {
        const char *const *names;
        int n_names;
        assert_int_equal(quant_layers(g, arena, &names, &n_names, &err), 0);
        assert_true(n_names > 0 && n_names <= MAX_CHOICES);
        for (; n < n_names; n++)
            choices[n] = (struct quant_choice){.layer = names[n], .precision = PRECISION_INT8};
    }
    struct graph *q = NULL;
    if (quant_rewrite(g, choices, n, &ranges, options, &q, &err) < 0)
        fail_msg("%s", err.message);
    return q;
}

static double snr_of(const struct graph *g, const struct graph *q, double scale, double shift)
{
    _cleanup_(tensor_freep) struct tensor *a = net_run(g, 9, 8, scale, shift);
    _cleanup_(tensor_freep) struct tensor *b = net_run(q, 9, 8, scale, shift);
    assert_true(shape_equal(&a->shape, &b->shape));
    return net_snr(a, b);
}

/* The node whose output the value `name` is. */
static const struct node *maker(const struct graph *g, const char *value)
{
    const int v = graph_find_value(g, value);
    assert_true(v >= 0 && g->values[v]->producer >= 0);
    return g->nodes[g->values[v]->producer];
}

static const struct node *node_named(const struct graph *g, const char *name)
{
    const int n = quant_find_node(g, name);
    assert_true(n >= 0);
    return g->nodes[n];
}

/* The node that makes input i of the named node; NULL: an input or a constant. */
static const struct node *feeder(const struct graph *g, const char *name, int i)
{
    const struct value *v = graph_input_of(g, node_named(g, name), i);
    return v->producer >= 0 ? g->nodes[v->producer] : NULL;
}

static bool reads_8_bits(const struct graph *g, const char *name, int i)
{
    const struct node *node = feeder(g, name, i);
    return node && node->op == OP_DEQUANTIZE_LINEAR;
}

static bool is_quantized(const struct graph *g, const char *value)
{
    const int v = graph_find_value(g, value);
    assert_true(v >= 0);
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_QUANTIZE_LINEAR && g->nodes[n]->inputs[0] == v)
            return true;
    return false;
}

static float scale_behind(const struct graph *g, const char *value)
{
    const int v = graph_find_value(g, value);
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_QUANTIZE_LINEAR && g->nodes[n]->inputs[0] == v)
            return *(const float *)graph_input_of(g, g->nodes[n], 1)->constant->data;
    fail_msg("value '%s' is not quantized", value);
    return 0;
}

/* ---- placement ---- */

/* conv1 -> Relu -> conv2 -> Add (conv1's Relu) -> Relu -> conv3 */
static int residual_net(struct net *net)
{
    net_init(net, 1);
    const struct net_conv c = {.in = 8, .out = 8, .kernel = 3};
    const int x = net_input(net, "input", 4, picture);
    const int a = net_unary(net, OP_RELU, "relu1", net_conv(net, "conv1", x, &c));
    const int b = net_conv(net, "conv2", a, &c);
    const int s = net_unary(net, OP_RELU, "relu2", net_add(net, "add", b, a));
    const int y = net_conv(net, "conv3", s, &c);
    net_finish(net, y);
    return y;
}

static void a_network_in_int8_computes_nearly_the_same(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    assert_true(snr_of(net.g, q, 1, 0) > 30);
}

static void quantization_sits_behind_activations_and_residual_additions(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    assert_true(is_quantized(q, "input"));
    assert_true(is_quantized(q, "relu1_out"));
    assert_true(is_quantized(q, "relu2_out"));
    assert_int_equal(net_count(q, OP_QUANTIZE_LINEAR), 3);
    assert_ptr_equal(feeder(q, "relu1", 0), node_named(q, "conv1"));
    assert_ptr_equal(feeder(q, "add", 0), node_named(q, "conv2"));
    assert_ptr_equal(feeder(q, "relu2", 0), node_named(q, "add"));
}

static void all_readers_of_a_value_see_the_same_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, "conv2", NULL, 1, 0);
    assert_int_equal(net_count(q, OP_QUANTIZE_LINEAR), 1);
    assert_true(reads_8_bits(q, "conv2", 0));
    assert_ptr_equal(feeder(q, "add", 1), feeder(q, "conv2", 0));
}

static void layers_that_were_not_chosen_stay_as_they_are(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, "conv2", NULL, 1, 0);
    assert_int_equal(graph_input_of(q, node_named(q, "conv1"), 1)->dtype, DTYPE_F32);
    assert_non_null(graph_input_of(q, node_named(q, "conv1"), 1)->constant);
    assert_false(is_quantized(q, "input"));
    _cleanup_(graph_freep) struct graph *none = NULL;
    struct err err = {0};
    assert_int_equal(quant_rewrite(net.g, NULL, 0, NULL, NULL, &none, &err), 0);
    assert_int_equal(none->n_nodes, net.g->n_nodes);
}

static void biases_have_the_scale_of_input_times_weights(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    const struct node *w = feeder(q, "conv2", 1), *b = feeder(q, "conv2", 2);
    const float data = scale_behind(q, "relu1_out");
    assert_int_equal(graph_input_of(q, b, 0)->dtype, DTYPE_S32);
    assert_int_equal(graph_input_of(q, w, 0)->dtype, DTYPE_S8);
    const float *ws = graph_input_of(q, w, 1)->constant->data;
    const float *bs = graph_input_of(q, b, 1)->constant->data;
    for (int i = 0; i < 8; i++)
        assert_true(fabsf(bs[i] - data * ws[i]) <= 1e-6f * bs[i]);
}

static void a_layer_without_bias_gets_one_of_zeros(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 2);
    const struct net_conv c = {.in = 8, .out = 4, .kernel = 3, .no_bias = true};
    net_finish(&net, net_conv(&net, "conv", net_input(&net, "input", 4, picture), &c));
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    const struct tensor *b = graph_input_of(q, feeder(q, "conv", 2), 0)->constant;
    for (int i = 0; i < 4; i++)
        assert_true(tensor_get_s64(b, i) == 0);
    assert_true(snr_of(net.g, q, 1, 0) > 30);
}

static void names_of_layers_inputs_and_outputs_are_kept(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    for (int n = 0; n < net.g->n_nodes; n++)
        assert_true(quant_find_node(q, net.g->nodes[n]->name) >= 0);
    assert_string_equal(q->values[q->inputs[0]]->name, "input");
    assert_string_equal(q->values[q->outputs[0]]->name, "conv3_out");
    assert_int_equal(q->values[q->outputs[0]]->dtype, DTYPE_F32);
}

static void an_output_that_is_also_read_stays_float(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    struct err err = {0};
    assert_true(graph_add_output(net.g, graph_find_value(net.g, "relu1_out"), &err) >= 0);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    assert_int_equal(q->n_outputs, 2);
    assert_ptr_equal(maker(q, "relu1_out"), node_named(q, "relu1"));
    assert_string_equal(q->values[q->outputs[1]]->name, "relu1_out");
    assert_true(is_quantized(q, "relu1_out"));
}

static void bf16_is_a_hint_on_the_layer(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    const struct quant_choice choice = {.layer = "conv2", .precision = PRECISION_BF16};
    _cleanup_(graph_freep) struct graph *q = NULL;
    struct err err = {0};
    assert_int_equal(quant_rewrite(net.g, &choice, 1, NULL, NULL, &q, &err), 0);
    assert_int_equal(node_named(q, "conv2")->hint, PRECISION_BF16);
    assert_int_equal(net_count(q, OP_QUANTIZE_LINEAR), 0);
    assert_int_equal(node_named(net.g, "conv2")->hint, PRECISION_AUTO);
}

static void the_opset_is_raised_to_thirteen(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    net.g->opset = 11;
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    assert_int_equal(q->opset, 13);
}

/* ---- what cannot be done ---- */

static void a_layer_that_is_not_there_is_named(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    struct graph *q = NULL;
    struct err err = {0};
    struct quant_choice choice = {.layer = "conv99", .precision = PRECISION_INT8};
    assert_int_equal(quant_rewrite(net.g, &choice, 1, NULL, NULL, &q, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "conv99"));
    choice.layer = "relu1";
    assert_int_equal(quant_rewrite(net.g, &choice, 1, NULL, NULL, &q, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "relu1"));
    assert_null(q);
}

static void a_value_without_a_range_is_named(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    struct graph *q = NULL;
    struct err err = {0};
    const struct quant_choice choice = {.layer = "conv2", .precision = PRECISION_INT8};
    assert_int_equal(quant_rewrite(net.g, &choice, 1, NULL, NULL, &q, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "relu1_out"));
}

static void weights_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    ranges_of(net.g, 7, 1, 0, &ranges);
    struct tensor *w = net.g->values[graph_find_value(net.g, "conv2_w")]->constant;
    tensor_set_f64(w, 3, NAN);
    struct graph *q = NULL;
    struct err err = {0};
    const struct quant_choice choice = {.layer = "conv2", .precision = PRECISION_INT8};
    assert_int_equal(quant_rewrite(net.g, &choice, 1, &ranges, NULL, &q, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "conv2"));
}

/* ---- strange numbers ---- */

static void seven_bits_stay_within_63(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    const struct quant_options options = {.weight_bits = 7};
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, &options, 1, 0);
    const struct tensor *w = graph_input_of(q, feeder(q, "conv1", 1), 0)->constant;
    for (int64_t i = 0; i < shape_elements(&w->shape); i++)
        assert_true(llabs(tensor_get_s64(w, i)) <= 63);
    assert_true(snr_of(net.g, q, 1, 0) > 26);
}

static int64_t largest_weight(const struct graph *q, const char *layer)
{
    const struct tensor *w = graph_input_of(q, feeder(q, layer, 1), 0)->constant;
    int64_t most = 0;
    for (int64_t i = 0; i < shape_elements(&w->shape); i++)
        most = llabs(tensor_get_s64(w, i)) > most ? llabs(tensor_get_s64(w, i)) : most;
    return most;
}

static void each_layer_has_the_bits_that_were_chosen(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    ranges_of(net.g, 7, 1, 0, &ranges);
    struct quant_choice choices[] = {{.layer = "conv1"}, {.layer = "conv2"}};
    struct err err = {0};
    double before = INFINITY;
    for (int bits = 8; bits >= 2; bits--) {
        _cleanup_(graph_freep) struct graph *q = NULL;
        char text[8];
        snprintf(text, sizeof(text), "int%d", bits);
        assert_int_equal(quant_choice_parse("int8", &choices[0], &err), 0);
        assert_int_equal(quant_choice_parse(text, &choices[1], &err), 0);
        assert_string_equal(quant_choice_name(&choices[1], (char[8]){0}), text);
        assert_int_equal(quant_rewrite(net.g, choices, 2, &ranges, NULL, &q, &err), 0);
        assert_int_equal(largest_weight(q, "conv1"), 127);
        assert_int_equal(largest_weight(q, "conv2"), (1 << (bits - 1)) - 1);
        const double bytes = quant_packed_bytes(q, "conv2");
        assert_true(bytes > 0 && bytes < before);
        before = bytes;
    }
    assert_int_equal(quant_choice_parse("int1", &choices[0], &err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(quant_choice_parse("int9", &choices[0], &err), -ERR_INVALID_ARGUMENT);
}

static void channels_of_zeros_keep_their_bias(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    float *w = net.g->values[graph_find_value(net.g, "conv2_w")]->constant->data;
    float *b = net.g->values[graph_find_value(net.g, "conv2_b")]->constant->data;
    memset(w, 0, 2 * 72 * sizeof(*w)); /* channels 0 and 1 */
    b[0] = 0;
    b[1] = 5;
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    assert_true(snr_of(net.g, q, 1, 0) > 30);
}

static void a_bias_beyond_its_weights_still_fits_32_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    float *w = net.g->values[graph_find_value(net.g, "conv2_w")]->constant->data;
    float *b = net.g->values[graph_find_value(net.g, "conv2_b")]->constant->data;
    for (int i = 0; i < 72; i++)
        w[i] *= 1e-12f;
    b[0] = 100;
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    const struct tensor *bias = graph_input_of(q, feeder(q, "conv2", 2), 0)->constant;
    assert_true(tensor_get_s64(bias, 0) > 1000000);
    assert_true(snr_of(net.g, q, 1, 0) > 30);
}

static void huge_and_tiny_activations_keep_their_ratio(void **state)
{
    (void)state;
    const double scales[] = {1e12, 1e-9};
    for (int i = 0; i < 2; i++) {
        _cleanup_(net_release) struct net net;
        net_init(&net, 3);
        const struct net_conv c = {.in = 8, .out = 8, .kernel = 3, .no_bias = true};
        const int x = net_input(&net, "input", 4, picture);
        const int a = net_unary(&net, OP_RELU, "relu1", net_conv(&net, "conv1", x, &c));
        net_finish(&net, net_conv(&net, "conv2", a, &c));
        _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, scales[i], 0);
        assert_true(snr_of(net.g, q, scales[i], 0) > 30);
    }
}

static void constant_activations_survive(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    residual_net(&net);
    _cleanup_(graph_freep) struct graph *zeros = rewrite(net.g, NULL, NULL, 0, 0);
    assert_true(snr_of(net.g, zeros, 0, 0) > 25);
    _cleanup_(graph_freep) struct graph *threes = rewrite(net.g, NULL, NULL, 0, 3);
    assert_true(snr_of(net.g, threes, 0, 3) > 25);
}

/* ---- axes ---- */

/* A network of one layer whose output channels have very different sizes: with one scale for each
 * of them the error of each stays small against it. */
static void check_channels(struct net *net, int64_t channels, int64_t inner)
{
    _cleanup_(graph_freep) struct graph *q = rewrite(net->g, NULL, NULL, 1, 0);
    _cleanup_(tensor_freep) struct tensor *a = net_run(net->g, 9, 8, 1, 0);
    _cleanup_(tensor_freep) struct tensor *b = net_run(q, 9, 8, 1, 0);
    for (int64_t c = 0; c < channels; c++) {
        double power = 0, noise = 0;
        for (int64_t s = 0; s < 8; s++) {
            for (int64_t i = 0; i < inner; i++) {
                const int64_t at = (s * channels + c) * inner + i;
                const double x = tensor_get_f64(a, at), d = x - tensor_get_f64(b, at);
                power += x * x;
                noise += d * d;
            }
        }
        assert_true(noise < power * 1e-3);
    }
}

/* Scales slice c of the weights around the axis by 10^-c. */
static void spread_channels(struct net *net, const char *weights, int axis)
{
    struct tensor *w = net->g->values[graph_find_value(net->g, weights)]->constant;
    int64_t inner = 1;
    for (int i = axis + 1; i < w->shape.rank; i++)
        inner *= w->shape.dim[i];
    for (int64_t i = 0; i < shape_elements(&w->shape); i++) {
        const double channel = (double)(i / inner % w->shape.dim[axis]);
        tensor_set_f64(w, i, tensor_get_f64(w, i) * pow(10, -channel));
    }
}

static void check_conv(const struct net_conv *conv, int axis, int64_t side)
{
    _cleanup_(net_release) struct net net;
    net_init(&net, 4);
    struct net_conv c = *conv;
    c.no_bias = true;
    net_finish(&net, net_conv(&net, "conv", net_input(&net, "input", 4, picture), &c));
    spread_channels(&net, "conv_w", axis);
    check_channels(&net, c.out, side * side);
}

static void convolutions_have_a_scale_for_each_output_channel(void **state)
{
    (void)state;
    check_conv(&(struct net_conv){.in = 8, .out = 6, .kernel = 3}, 0, 8);
}

static void grouped_convolutions_have_a_scale_for_each_output_channel(void **state)
{
    (void)state;
    check_conv(&(struct net_conv){.in = 8, .out = 4, .kernel = 3, .group = 2}, 0, 8);
}

static void depthwise_convolutions_have_a_scale_for_each_channel(void **state)
{
    (void)state;
    check_conv(&(struct net_conv){.in = 8, .out = 8, .kernel = 3, .group = 8}, 0, 8);
}

static void transposed_convolutions_have_a_scale_for_each_output_channel(void **state)
{
    (void)state;
    check_conv(&(struct net_conv){.in = 8, .out = 5, .kernel = 3, .transpose = true}, 1, 8);
}

static void groups_of_transposed_convolutions_share_their_scales(void **state)
{
    (void)state;
    check_conv(&(struct net_conv){.in = 8, .out = 6, .kernel = 3, .group = 2, .transpose = true}, 1,
               8);
}

static void gemm_has_a_scale_for_each_output_in_both_layouts(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 32};
    for (int trans = 0; trans < 2; trans++) {
        _cleanup_(net_release) struct net net;
        net_init(&net, 5);
        const int x = net_input(&net, "input", 2, dims);
        net_finish(&net, net_gemm(&net, "gemm", x, 32, 6, trans));
        float *b = net.g->values[graph_find_value(net.g, "gemm_b")]->constant->data;
        memset(b, 0, 6 * sizeof(*b));
        spread_channels(&net, "gemm_w", trans ? 0 : 1);
        check_channels(&net, 6, 1);
    }
}

static void alpha_and_beta_of_gemm_go_into_weights_and_bias(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 32};
    _cleanup_(net_release) struct net net;
    net_init(&net, 6);
    struct err err = {0};
    net_finish(&net, net_gemm(&net, "gemm", net_input(&net, "input", 2, dims), 32, 6, true));
    assert_int_equal(graph_set_attr_float(net.g, net_of(&net, "gemm"), "alpha", 0.25f, &err), 0);
    assert_int_equal(graph_set_attr_float(net.g, net_of(&net, "gemm"), "beta", 3.0f, &err), 0);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, NULL, NULL, 1, 0);
    assert_null(node_attr(node_named(q, "gemm"), "alpha"));
    assert_true(snr_of(net.g, q, 1, 0) > 30);
}

static void matmul_has_a_scale_for_each_column(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 32}, weights[] = {32, 6};
    _cleanup_(net_release) struct net net;
    net_init(&net, 7);
    const int inputs[] = {net_input(&net, "input", 2, dims),
                          net_normal(&net, "matmul_w", 2, weights, 0.2)};
    net_finish(&net, net_node(&net, OP_MATMUL, "matmul", 2, inputs));
    spread_channels(&net, "matmul_w", 1);
    check_channels(&net, 6, 1);
}

static void layers_with_weights_that_are_computed_are_not_listed(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 32}, square[] = {32, 32};
    _cleanup_(net_release) struct net net;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    net_init(&net, 8);
    const int x = net_input(&net, "input", 2, dims);
    const int w = net_unary(&net, OP_RELU, "relu", net_normal(&net, "w", 2, square, 0.2));
    const int inputs[] = {x, w};
    const int y = net_node(&net, OP_MATMUL, "matmul", 2, inputs);
    net_finish(&net, net_gemm(&net, "gemm", y, 32, 4, true));
    const char *const *names;
    int n;
    struct err err = {0};
    assert_int_equal(quant_layers(net.g, arena, &names, &n, &err), 0);
    assert_int_equal(n, 1);
    assert_string_equal(names[0], "gemm");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_in_int8_computes_nearly_the_same),
        cmocka_unit_test(quantization_sits_behind_activations_and_residual_additions),
        cmocka_unit_test(all_readers_of_a_value_see_the_same_8_bits),
        cmocka_unit_test(layers_that_were_not_chosen_stay_as_they_are),
        cmocka_unit_test(biases_have_the_scale_of_input_times_weights),
        cmocka_unit_test(a_layer_without_bias_gets_one_of_zeros),
        cmocka_unit_test(names_of_layers_inputs_and_outputs_are_kept),
        cmocka_unit_test(an_output_that_is_also_read_stays_float),
        cmocka_unit_test(bf16_is_a_hint_on_the_layer),
        cmocka_unit_test(the_opset_is_raised_to_thirteen),
        cmocka_unit_test(a_layer_that_is_not_there_is_named),
        cmocka_unit_test(a_value_without_a_range_is_named),
        cmocka_unit_test(weights_that_are_not_finite_are_refused),
        cmocka_unit_test(seven_bits_stay_within_63),
        cmocka_unit_test(each_layer_has_the_bits_that_were_chosen),
        cmocka_unit_test(channels_of_zeros_keep_their_bias),
        cmocka_unit_test(a_bias_beyond_its_weights_still_fits_32_bits),
        cmocka_unit_test(huge_and_tiny_activations_keep_their_ratio),
        cmocka_unit_test(constant_activations_survive),
        cmocka_unit_test(convolutions_have_a_scale_for_each_output_channel),
        cmocka_unit_test(grouped_convolutions_have_a_scale_for_each_output_channel),
        cmocka_unit_test(depthwise_convolutions_have_a_scale_for_each_channel),
        cmocka_unit_test(transposed_convolutions_have_a_scale_for_each_output_channel),
        cmocka_unit_test(groups_of_transposed_convolutions_share_their_scales),
        cmocka_unit_test(gemm_has_a_scale_for_each_output_in_both_layouts),
        cmocka_unit_test(alpha_and_beta_of_gemm_go_into_weights_and_bias),
        cmocka_unit_test(matmul_has_a_scale_for_each_column),
        cmocka_unit_test(layers_with_weights_that_are_computed_are_not_listed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
