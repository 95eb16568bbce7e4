/* The evaluator: convolutions, pools, products, normalisation, and what they refuse. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/support/expect.h"

#define NODE(n, op, opset)                                                                         \
    _cleanup_(one_node_release) struct one_node n;                                                 \
    one_node_init(&n, op, opset, 1)

static void same_lower_puts_the_odd_pad_in_front(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1, 2, 3));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 2), 1, 10));
    one_node_string(&n, "auto_pad", "SAME_LOWER");
    EXPECT(&n, DTYPE_F32, SHAPE(1, 1, 3), 10, 21, 32);
}

static void convolutions_add_up_in_double(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 3, 1), 1e8, 1, -1e8));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 3, 1), 1));
    EXPECT(&n, DTYPE_F32, SHAPE(1, 1, 1), 1);
}

static void depthwise_f16_convolutions_work(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F16, SHAPE(1, 2, 2), 1, 2, 3, 4));
    one_node_input(&n, TENSOR(DTYPE_F16, SHAPE(2, 1, 1), 2, 3));
    one_node_input(&n, TENSOR(DTYPE_F16, SHAPE(2), 0.5, -0.5));
    one_node_int(&n, "group", 2);
    EXPECT(&n, DTYPE_F16, SHAPE(1, 2, 2), 2.5, 4.5, 8.5, 11.5);
}

static void an_empty_batch_gives_an_empty_output(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(0, 1, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4, 1, 3), 1));
    assert_int_equal(one_node_run(&n), 0);
    struct shape want = SHAPE(0, 4, 1);
    assert_true(shape_equal(&n.out[0]->shape, &want));
}

/* A Conv of input x and weights w with nothing else. */
static void refuse_conv(struct shape x, struct shape w, const char *text)
{
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, x, 1));
    one_node_input(&n, TENSOR(DTYPE_F32, w, 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, text);
}

static void weights_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    refuse_conv(SHAPE(1, 3, 8), SHAPE(4, 2, 3), "other channels");
    refuse_conv(SHAPE(1, 3, 8), SHAPE(4, 3, 3, 3), "input [1,3,8] with weights [4,3,3,3]");
    refuse_conv(SHAPE(1, 3), SHAPE(4, 3), "input [1,3]");
    refuse_conv(SHAPE(1, 3, 2), SHAPE(4, 3, 3), "does not fit an input of 2");
    refuse_conv(SHAPE(1, 3, 2), SHAPE(4, 3, 0), "a kernel of size 0");
}

static void a_bias_of_another_size_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4, 1, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "bias of shape [3] for 4 output channels");
}

static void geometry_of_another_rank_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4, 1, 3), 1));
    ONE_NODE_INTS(&n, "strides", 1, 1);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "strides has 2 values for 1 spatial dimensions");
    NODE(m, OP_CONV, 11);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1));
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(4, 1, 3), 1));
    ONE_NODE_INTS(&m, "strides", 0);
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "strides holds 0");
}

static void absurd_paddings_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4, 1, 3), 1));
    ONE_NODE_INTS(&n, "pads", INT64_MAX, 1);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "pads holds");
}

static void a_group_that_does_not_divide_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_CONV, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 3, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4, 1, 3), 1));
    one_node_int(&n, "group", 2);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "group 2");
}

static void a_transposed_convolution_crops_by_output_shape(void **state)
{
    (void)state;
    NODE(n, OP_CONV_TRANSPOSE, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 2), 1, 2));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1, 10, 100));
    ONE_NODE_INTS(&n, "strides", 2);
    ONE_NODE_INTS(&n, "output_shape", 4); /* of 5: the odd pad in front */
    EXPECT(&n, DTYPE_F32, SHAPE(1, 1, 4), 10, 102, 20, 200);
}

static void a_last_window_in_the_padding_does_not_count(void **state)
{
    (void)state;
    NODE(n, OP_MAX_POOL, 12);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 2), 1, 2));
    ONE_NODE_INTS(&n, "kernel_shape", 1);
    ONE_NODE_INTS(&n, "strides", 2);
    ONE_NODE_INTS(&n, "pads", 0, 1);
    one_node_int(&n, "ceil_mode", 1);
    EXPECT(&n, DTYPE_F32, SHAPE(1, 1, 1), 1);
}

static void pools_of_padding_alone_are_the_lowest_value(void **state)
{
    (void)state;
    NODE(n, OP_MAX_POOL, 12);
    one_node_input(&n, TENSOR(DTYPE_S8, SHAPE(1, 1, 1), 5));
    ONE_NODE_INTS(&n, "kernel_shape", 1);
    ONE_NODE_INTS(&n, "pads", 1, 0);
    EXPECT(&n, DTYPE_S8, SHAPE(1, 1, 2), -128, 5);
}

static void indices_count_columns_first_when_asked(void **state)
{
    (void)state;
    _cleanup_(one_node_release) struct one_node n;
    one_node_init(&n, OP_MAX_POOL, 12, 2);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2, 2, 3), 0, 0, 9, 0, 0, 0, 0, 0, 0, 9, 0, 0));
    ONE_NODE_INTS(&n, "kernel_shape", 2, 3);
    one_node_int(&n, "storage_order", 1);
    EXPECT(&n, DTYPE_F32, SHAPE(1, 2, 1, 1), 9, 9);
    assert_int_equal(tensor_get_s64(n.out[1], 0), 4);
    assert_int_equal(tensor_get_s64(n.out[1], 1), 6 + 1);
}

static void the_whole_window_divides_when_pads_count(void **state)
{
    (void)state;
    NODE(n, OP_AVERAGE_POOL, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1, 2, 3));
    ONE_NODE_INTS(&n, "kernel_shape", 2);
    ONE_NODE_INTS(&n, "strides", 2);
    one_node_int(&n, "ceil_mode", 1);
    one_node_int(&n, "count_include_pad", 1);
    EXPECT(&n, DTYPE_F32, SHAPE(1, 1, 2), 1.5, 1.5);
}

static void a_pool_without_a_kernel_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_AVERAGE_POOL, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 3), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "kernel_shape is missing");
}

static void a_global_pool_of_nothing_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_GLOBAL_MAX_POOL, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 1, 0), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "nothing to pool");
}

static void matrices_that_do_not_match_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_MATMUL, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "shapes [2,3] and [2,3] do not match");
    NODE(m, OP_GEMM, 13);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_int(&m, "transA", 1);
    one_node_int(&m, "transB", 1);
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "do not match");
}

static void a_gemm_addend_must_broadcast(void **state)
{
    (void)state;
    NODE(n, OP_GEMM, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3, 4), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2, 4), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "C of shape [1,2,4] does not broadcast to [2,4]");
}

static void products_over_nothing_are_zero(void **state)
{
    (void)state;
    NODE(n, OP_MATMUL, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 0), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(0, 1), 1));
    EXPECT(&n, DTYPE_F32, SHAPE(2, 1), 0, 0);
}

static void softmax_before_opset_13_runs_over_all_that_follows(void **state)
{
    (void)state;
    NODE(n, OP_SOFTMAX, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2, 2), 0));
    EXPECT(&n, DTYPE_F32, SHAPE(1, 2, 2), 0.25, 0.25, 0.25, 0.25);
    NODE(m, OP_SOFTMAX, 13);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(1, 2, 2), 0));
    EXPECT(&m, DTYPE_F32, SHAPE(1, 2, 2), 0.5, 0.5, 0.5, 0.5);
}

static void training_is_unimplemented(void **state)
{
    (void)state;
    NODE(n, OP_BATCH_NORMALIZATION, 15);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2, 2), 1));
    for (int i = 0; i < 4; i++)
        one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1));
    one_node_int(&n, "training_mode", 1);
    EXPECT_ERROR(&n, ERR_UNIMPLEMENTED, "training");
}

static void statistics_must_fit_the_channels(void **state)
{
    (void)state;
    NODE(n, OP_BATCH_NORMALIZATION, 9);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2, 2), 1));
    for (int i = 0; i < 4; i++)
        one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(i == 2 ? 3 : 2), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "input 3 is float32 [3] for 2 channels");
}

static void means_of_integers_cut_towards_zero(void **state)
{
    (void)state;
    NODE(n, OP_REDUCE_MEAN, 13);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(2, 2), 1, 2, -1, -2));
    ONE_NODE_INTS(&n, "axes", -1);
    one_node_int(&n, "keepdims", 0);
    EXPECT(&n, DTYPE_S32, SHAPE(2), 1, -1);
}

static void a_mean_over_no_axes_may_be_the_identity(void **state)
{
    (void)state;
    NODE(n, OP_REDUCE_MEAN, 18);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1, 2));
    one_node_int(&n, "noop_with_empty_axes", 1);
    EXPECT(&n, DTYPE_F32, SHAPE(2), 1, 2);
    one_node_int(&n, "noop_with_empty_axes", 0);
    EXPECT(&n, DTYPE_F32, SHAPE(1), 1.5);
}

static void an_axis_out_of_range_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_SOFTMAX, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2), 0));
    one_node_int(&n, "axis", 2);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "axis 2 is outside of rank 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_lower_puts_the_odd_pad_in_front),
        cmocka_unit_test(convolutions_add_up_in_double),
        cmocka_unit_test(depthwise_f16_convolutions_work),
        cmocka_unit_test(an_empty_batch_gives_an_empty_output),
        cmocka_unit_test(weights_that_do_not_fit_are_refused),
        cmocka_unit_test(a_bias_of_another_size_is_refused),
        cmocka_unit_test(geometry_of_another_rank_is_refused),
        cmocka_unit_test(absurd_paddings_are_refused),
        cmocka_unit_test(a_group_that_does_not_divide_is_refused),
        cmocka_unit_test(a_transposed_convolution_crops_by_output_shape),
        cmocka_unit_test(a_last_window_in_the_padding_does_not_count),
        cmocka_unit_test(pools_of_padding_alone_are_the_lowest_value),
        cmocka_unit_test(indices_count_columns_first_when_asked),
        cmocka_unit_test(the_whole_window_divides_when_pads_count),
        cmocka_unit_test(a_pool_without_a_kernel_is_refused),
        cmocka_unit_test(a_global_pool_of_nothing_is_refused),
        cmocka_unit_test(matrices_that_do_not_match_are_refused),
        cmocka_unit_test(a_gemm_addend_must_broadcast),
        cmocka_unit_test(products_over_nothing_are_zero),
        cmocka_unit_test(softmax_before_opset_13_runs_over_all_that_follows),
        cmocka_unit_test(training_is_unimplemented),
        cmocka_unit_test(statistics_must_fit_the_channels),
        cmocka_unit_test(means_of_integers_cut_towards_zero),
        cmocka_unit_test(a_mean_over_no_axes_may_be_the_identity),
        cmocka_unit_test(an_axis_out_of_range_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
