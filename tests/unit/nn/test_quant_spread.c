/* Quantization moves through operators that do not compute: one test for each. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/nn/quantize_priv.h"
#include "tests/support/quant_nets.h"

static const int64_t picture[] = {DIM_BATCH, 8, 8, 8};
static const struct net_conv conv8 = {.in = 8, .out = 8, .kernel = 3};

/* Every value of the graph ranges over [-1, its index + 1]: the union of several is seen. */
static struct graph *rewrite(const struct graph *g, const char *layer)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    struct err err = {0};
    for (int v = 0; v < g->n_values; v++) {
        const struct quant_range r = {.value = g->values[v]->name, .low = -1, .high = v + 1};
        assert_int_equal(quant_ranges_add(&ranges, &r, &err), 0);
    }
    const struct quant_choice choice = {.layer = layer, .precision = PRECISION_INT8};
    struct graph *q = NULL;
    if (quant_rewrite(g, &choice, 1, &ranges, NULL, &q, &err) < 0)
        fail_msg("%s", err.message);
    return q;
}

/* The constants (scale, zero point) that quantize the value; -1 where it stays float. */
struct pair {
    int scale, zero;
};

static struct pair pair_of(const struct graph *q, const char *value)
{
    const int v = graph_find_value(q, value);
    assert_true(v >= 0);
    for (int n = 0; n < q->n_nodes; n++)
        if (q->nodes[n]->op == OP_QUANTIZE_LINEAR && q->nodes[n]->inputs[0] == v)
            return (struct pair){q->nodes[n]->inputs[1], q->nodes[n]->inputs[2]};
    return (struct pair){-1, -1};
}

static bool same_8_bits(const struct graph *q, const char *a, const char *b)
{
    const struct pair x = pair_of(q, a), y = pair_of(q, b);
    return x.scale >= 0 && x.scale == y.scale && x.zero == y.zero;
}

static bool is_float(const struct graph *q, const char *value)
{
    return pair_of(q, value).scale < 0;
}

/* input -> Relu -> `op` -> (Relu's and op's values "relu_out", "op_out") */
static int begin(struct net *net)
{
    net_init(net, 1);
    return net_unary(net, OP_RELU, "relu", net_input(net, "input", 4, picture));
}

static void set_ints(struct net *net, const char *node, const char *attr, int n,
                     const int64_t *ints)
{
    struct err err = {0};
    assert_int_equal(graph_set_attr_ints(net->g, net_of(net, node), attr, n, ints, &err), 0);
}

static void set_int(struct net *net, const char *node, const char *attr, int64_t i)
{
    struct err err = {0};
    assert_int_equal(graph_set_attr_int(net->g, net_of(net, node), attr, i, &err), 0);
}

/* A convolution behind `y`: it wants y in 8 bits. */
static struct graph *with_conv(struct net *net, int y)
{
    net_finish(net, net_conv(net, "conv", y, &conv8));
    return rewrite(net->g, "conv");
}

static int add_pool(struct net *net, enum op op, int x)
{
    const int64_t two[] = {2, 2};
    const int y = net_unary(net, op, "op", x);
    set_ints(net, "op", "kernel_shape", 2, two);
    set_ints(net, "op", "strides", 2, two);
    return y;
}

static void max_pool_runs_on_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int y = add_pool(&net, OP_MAX_POOL, begin(&net));
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(same_8_bits(q, "relu_out", "op_out"));
    assert_true(is_float(q, "input"));
}

static void average_pool_computes_and_keeps_its_input_float(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int y = add_pool(&net, OP_AVERAGE_POOL, begin(&net));
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_false(is_float(q, "op_out"));
    assert_true(is_float(q, "relu_out"));
}

static int add_slice(struct net *net, int x)
{
    const int64_t starts[] = {0, 0}, ends[] = {8, 8}, axes[] = {2, 3}, steps[] = {2, 2};
    const int inputs[] = {x, net_ints(net, "starts", 2, starts), net_ints(net, "ends", 2, ends),
                          net_ints(net, "axes", 2, axes), net_ints(net, "steps", 2, steps)};
    return net_node(net, OP_SLICE, "op", 5, inputs);
}

static void slice_runs_on_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int y = add_slice(&net, begin(&net));
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(same_8_bits(q, "relu_out", "op_out"));
}

static int add_pad(struct net *net, const char *name, int x, const float *fill)
{
    const int64_t pads[] = {0, 0, 1, 1, 0, 0, 1, 1};
    const int inputs[] = {x, net_ints(net, "pads", 8, pads),
                          fill ? net_floats(net, "fill", 0, NULL, fill) : -1};
    return net_node(net, OP_PAD, name, fill ? 3 : 2, inputs);
}

static void padding_by_zero_runs_on_8_bits(void **state)
{
    (void)state;
    const float zero = 0;
    const float *const fills[] = {NULL, &zero};
    for (int i = 0; i < 2; i++) {
        _cleanup_(net_release) struct net net;
        const int y = add_pad(&net, "op", begin(&net), fills[i]);
        _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
        assert_true(same_8_bits(q, "relu_out", "op_out"));
    }
}

static void padding_by_another_number_is_not_passed(void **state)
{
    (void)state;
    const float one = 1;
    _cleanup_(net_release) struct net net;
    const int y = add_pad(&net, "op", begin(&net), &one);
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_false(is_float(q, "op_out"));
    assert_true(is_float(q, "relu_out"));
}

static void reshape_runs_on_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int64_t to[] = {0, 8, 4, 16};
    const int x = begin(&net);
    const int inputs[] = {x, net_ints(&net, "to", 4, to)};
    const int y = net_node(&net, OP_RESHAPE, "op", 2, inputs);
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(same_8_bits(q, "relu_out", "op_out"));
}

static void transpose_runs_on_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int64_t perm[] = {0, 2, 1, 3};
    const int y = net_unary(&net, OP_TRANSPOSE, "op", begin(&net));
    set_ints(&net, "op", "perm", 4, perm);
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(same_8_bits(q, "relu_out", "op_out"));
}

static void flatten_runs_on_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int y = net_unary(&net, OP_FLATTEN, "op", begin(&net));
    net_finish(&net, net_gemm(&net, "gemm", y, 512, 4, true));
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, "gemm");
    assert_true(same_8_bits(q, "relu_out", "op_out"));
}

static void unsqueeze_and_squeeze_run_on_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int64_t axis[] = {2};
    const int x = begin(&net), axes = net_ints(&net, "axes", 1, axis);
    const int wide = net_node(&net, OP_UNSQUEEZE, "wide", 2, (int[]){x, axes});
    const int y = net_node(&net, OP_SQUEEZE, "op", 2, (int[]){wide, axes});
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(same_8_bits(q, "relu_out", "wide_out"));
    assert_true(same_8_bits(q, "relu_out", "op_out"));
}

static int add_resize(struct net *net, int x, const char *mode)
{
    const int64_t four = 4;
    const float scales[] = {1, 1, 2, 2};
    struct err err = {0};
    const int inputs[] = {x, -1, net_floats(net, "scales", 1, &four, scales)};
    const int y = net_node(net, OP_RESIZE, "op", 3, inputs);
    assert_int_equal(graph_set_attr_string(net->g, net_of(net, "op"), "mode", mode, &err), 0);
    return y;
}

static void resizing_to_nearest_runs_on_8_bits_and_linear_does_not(void **state)
{
    (void)state;
    for (int linear = 0; linear < 2; linear++) {
        _cleanup_(net_release) struct net net;
        const int y = add_resize(&net, begin(&net), linear ? "linear" : "nearest");
        _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
        assert_int_equal(is_float(q, "relu_out"), linear);
        assert_false(is_float(q, "op_out"));
    }
}

static int add_concat(struct net *net, int a, int b)
{
    const int y = net_node(net, OP_CONCAT, "op", 2, (int[]){a, b});
    set_int(net, "op", "axis", 2);
    return y;
}

static void inputs_of_a_concat_share_the_union_of_their_ranges(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int a = begin(&net);
    const int b = net_unary(&net, OP_SIGMOID, "sigmoid", a);
    const int c = net_unary(&net, OP_TANH, "tanh", b);
    const int y = add_concat(&net, b, c);
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(same_8_bits(q, "sigmoid_out", "tanh_out"));
    assert_true(same_8_bits(q, "sigmoid_out", "op_out"));
    assert_true(is_float(q, "relu_out"));
    /* [-1, c + 1], where c is the later of the two; not the concat's own. */
    const float scale = *(const float *)q->values[pair_of(q, "op_out").scale]->constant->data;
    assert_true(scale > ((float)c + 1.99f) / 255 && scale < ((float)c + 2.01f) / 255);
}

static void a_concat_with_a_constant_is_not_passed(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int64_t dims[] = {1, 8, 1, 8};
    const int64_t fixed[] = {1, 8, 8, 8};
    net_init(&net, 1);
    const int a = net_unary(&net, OP_RELU, "relu", net_input(&net, "input", 4, fixed));
    const int y = add_concat(&net, a, net_normal(&net, "constant", 4, dims, 1));
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    assert_true(is_float(q, "relu_out"));
    assert_false(is_float(q, "op_out"));
}

static void both_parts_of_a_split_stay_in_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    struct err err = {0};
    const int x = begin(&net);
    const int n = graph_add_node(net.g, -1, OP_SPLIT, "split", 1, &x, 2, NULL, &err);
    assert_true(n >= 0);
    set_int(&net, "split", "axis", 1);
    const int a = net.g->nodes[n]->outputs[0], b = net.g->nodes[n]->outputs[1];
    const struct net_conv conv4 = {.in = 4, .out = 4, .kernel = 3};
    const int left = net_conv(&net, "conv", a, &conv4);
    net_finish(&net, net_add(&net, "add", left, b));
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, "conv");
    assert_true(same_8_bits(q, "relu_out", "split_out"));
    assert_true(same_8_bits(q, "relu_out", "split_out1"));
}

/* The CIFAR ResNets' shortcut: Slice and Pad beside an int8 convolution. */
static void a_shortcut_of_slice_and_pad_stays_in_8_bits(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int x = begin(&net);
    const int shortcut = add_pad(&net, "pad", add_slice(&net, x), NULL);
    const struct net_conv half = {.in = 8, .out = 8, .kernel = 3, .stride = 2};
    const int main = add_pad(&net, "grow", net_conv(&net, "conv", x, &half), NULL);
    net_finish(&net, net_add(&net, "add", main, shortcut));
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, "conv");
    assert_true(same_8_bits(q, "relu_out", "op_out"));
    assert_true(same_8_bits(q, "relu_out", "pad_out"));
    assert_true(is_float(q, "conv_out"));
    assert_true(is_float(q, "grow_out"));
}

static void what_only_the_networks_output_reads_stays_float(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    struct err err = {0};
    const int x = begin(&net);
    const int flat = net_unary(&net, OP_FLATTEN, "flat", x);
    const int y = net_conv(&net, "conv", x, &conv8);
    assert_true(graph_add_output(net.g, flat, &err) >= 0);
    net_finish(&net, y);
    _cleanup_(graph_freep) struct graph *q = rewrite(net.g, "conv");
    assert_false(is_float(q, "relu_out"));
    assert_true(is_float(q, "flat_out"));
}

static void a_clip_bounds_the_range_whatever_was_observed(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const float zero = 0, half = 0.5f;
    net_init(&net, 1);
    const int x = net_input(&net, "input", 4, picture);
    const int y = net_node(&net, OP_CLIP, "clip", 3,
                           (int[]){x, net_floats(&net, "zero", 0, NULL, &zero),
                                   net_floats(&net, "half", 0, NULL, &half)});
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, y);
    const struct pair p = pair_of(q, "clip_out");
    assert_true(*(const float *)q->values[p.scale]->constant->data == 0.5f / 255);
    assert_int_equal(*(const uint8_t *)q->values[p.zero]->constant->data, 0);
}

static void relu_makes_the_zero_point_zero(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    const int x = begin(&net);
    _cleanup_(graph_freep) struct graph *q = with_conv(&net, x);
    const struct pair p = pair_of(q, "relu_out");
    assert_int_equal(*(const uint8_t *)q->values[p.zero]->constant->data, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(max_pool_runs_on_8_bits),
        cmocka_unit_test(average_pool_computes_and_keeps_its_input_float),
        cmocka_unit_test(slice_runs_on_8_bits),
        cmocka_unit_test(padding_by_zero_runs_on_8_bits),
        cmocka_unit_test(padding_by_another_number_is_not_passed),
        cmocka_unit_test(reshape_runs_on_8_bits),
        cmocka_unit_test(transpose_runs_on_8_bits),
        cmocka_unit_test(flatten_runs_on_8_bits),
        cmocka_unit_test(unsqueeze_and_squeeze_run_on_8_bits),
        cmocka_unit_test(resizing_to_nearest_runs_on_8_bits_and_linear_does_not),
        cmocka_unit_test(inputs_of_a_concat_share_the_union_of_their_ranges),
        cmocka_unit_test(a_concat_with_a_constant_is_not_passed),
        cmocka_unit_test(both_parts_of_a_split_stay_in_8_bits),
        cmocka_unit_test(a_shortcut_of_slice_and_pad_stays_in_8_bits),
        cmocka_unit_test(what_only_the_networks_output_reads_stays_float),
        cmocka_unit_test(a_clip_bounds_the_range_whatever_was_observed),
        cmocka_unit_test(relu_makes_the_zero_point_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
