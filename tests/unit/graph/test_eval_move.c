/* The evaluator: operators that move elements and change shapes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/support/expect.h"

#define NODE(n, op, opset)                                                                         \
    _cleanup_(one_node_release) struct one_node n;                                                 \
    one_node_init(&n, op, opset, 1)

static struct tensor *list(int n, const int64_t *values)
{
    struct shape shape = shape_make(1, (int64_t[]){n});
    struct tensor *t = tensor_new(DTYPE_S64, &shape, NULL);
    for (int i = 0; i < n; i++)
        tensor_set_s64(t, i, values[i]);
    return t;
}
#define LIST(...)                                                                                  \
    list((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[]){__VA_ARGS__})

static void slice_one(int64_t start, int64_t end, int64_t step, int n, const double *want)
{
    NODE(s, OP_SLICE, 13);
    one_node_input(&s, TENSOR(DTYPE_F32, SHAPE(5), 0, 1, 2, 3, 4));
    one_node_input(&s, LIST(start));
    one_node_input(&s, LIST(end));
    one_node_input(&s, LIST(0));
    one_node_input(&s, LIST(step));
    if (one_node_run(&s) < 0)
        fail_msg("%s", s.err.message);
    expect_tensor(s.out[0], DTYPE_F32, shape_make(1, (int64_t[]){n}), n, want);
}

static void slices_clamp_bounds_and_step_backward(void **state)
{
    (void)state;
    slice_one(1, 4, 2, 2, (double[]){1, 3});
    slice_one(-2, INT64_MAX, 1, 2, (double[]){3, 4});
    slice_one(INT64_MIN, INT64_MAX, INT64_MAX, 1, (double[]){0});
    slice_one(INT64_MAX, INT64_MIN, -2, 3, (double[]){4, 2, 0});
    slice_one(INT64_MAX, INT64_MIN, INT64_MIN, 1, (double[]){4});
    slice_one(-100, -100, -1, 1, (double[]){0}); /* the start counts as the first element */
    slice_one(3, 3, 1, 0, (double[]){0});
    slice_one(2, 4, -1, 0, (double[]){0});
}

static void a_slice_of_an_empty_dimension_is_empty(void **state)
{
    (void)state;
    NODE(n, OP_SLICE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(0, 2), 0));
    one_node_input(&n, LIST(-1, 0));
    one_node_input(&n, LIST(INT64_MIN, 2));
    one_node_input(&n, LIST(0, 1));
    one_node_input(&n, LIST(-1, 1));
    assert_int_equal(one_node_run(&n), 0);
    assert_int_equal(shape_elements(&n.out[0]->shape), 0);
}

static void a_slice_step_of_zero_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_SLICE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(5), 1));
    one_node_input(&n, LIST(0));
    one_node_input(&n, LIST(5));
    one_node_input(&n, LIST(0));
    one_node_input(&n, LIST(0));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "a step of 0");
}

static void a_slice_that_names_an_axis_twice_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_SLICE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(5, 5), 1));
    one_node_input(&n, LIST(0, 0));
    one_node_input(&n, LIST(5, 5));
    one_node_input(&n, LIST(1, -1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "axis 1 is named twice");
}

static void bounds_that_are_no_integers_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_SLICE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(5), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 0));
    one_node_input(&n, LIST(5));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "starts is float32, not int64");
}

static void an_index_out_of_range_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_GATHER, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1));
    one_node_input(&n, LIST(0, -4));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "index -4 is outside of dimension 0, which is 3");
}

static void a_scalar_index_drops_the_axis(void **state)
{
    (void)state;
    NODE(n, OP_GATHER, 13);
    one_node_input(&n, TENSOR(DTYPE_U8, SHAPE(2, 3), 0, 1, 2, 3, 4, 5));
    one_node_input(&n, TENSOR(DTYPE_S32, SCALAR, -1));
    one_node_int(&n, "axis", 1);
    EXPECT(&n, DTYPE_U8, SHAPE(2), 2, 5);
}

static void a_permutation_must_be_one(void **state)
{
    (void)state;
    NODE(n, OP_TRANSPOSE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    ONE_NODE_INTS(&n, "perm", 0, 0);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "axis 0 is named twice");
    NODE(m, OP_TRANSPOSE, 13);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    ONE_NODE_INTS(&m, "perm", 1, 0, 2);
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "perm has 3 values for rank 2");
}

static void parts_that_do_not_fit_are_refused_by_concat(void **state)
{
    (void)state;
    NODE(n, OP_CONCAT, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 4), 1));
    one_node_int(&n, "axis", 0);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "input 1 of shape [2,4] does not fit to [2,3]");
}

static void concat_joins_empty_parts(void **state)
{
    (void)state;
    NODE(n, OP_CONCAT, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(0), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1, 2));
    one_node_int(&n, "axis", -1);
    EXPECT(&n, DTYPE_F32, SHAPE(2), 1, 2);
}

static void a_split_that_does_not_add_up_is_refused(void **state)
{
    (void)state;
    _cleanup_(one_node_release) struct one_node n;
    one_node_init(&n, OP_SPLIT, 13, 2);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(5), 1));
    one_node_input(&n, LIST(2, 2));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "split does not divide 5 into 2 outputs");
}

static void an_uneven_split_before_opset_18_is_refused(void **state)
{
    (void)state;
    _cleanup_(one_node_release) struct one_node n;
    one_node_init(&n, OP_SPLIT, 13, 2);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(5), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "does not divide into 2 equal parts");
}

static void negative_pads_crop(void **state)
{
    (void)state;
    NODE(n, OP_PAD, 13);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(4), 1, 2, 3, 4));
    one_node_input(&n, LIST(-1, 2));
    one_node_input(&n, TENSOR(DTYPE_S32, SCALAR, 9));
    EXPECT(&n, DTYPE_S32, SHAPE(5), 2, 3, 4, 9, 9);
}

static void a_reflection_longer_than_the_input_bounces(void **state)
{
    (void)state;
    NODE(n, OP_PAD, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1, 2, 3));
    one_node_input(&n, LIST(5, 0));
    one_node_string(&n, "mode", "reflect");
    EXPECT(&n, DTYPE_F32, SHAPE(8), 2, 1, 2, 3, 2, 1, 2, 3);
}

static void cropping_more_than_there_is_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_PAD, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1));
    one_node_input(&n, LIST(-2, -2));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "cannot be padded by -2 and -2");
}

static void an_unknown_pad_mode_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_PAD, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1));
    one_node_input(&n, LIST(1, 1));
    one_node_string(&n, "mode", "wrap"); /* since opset 19 */
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "mode 'wrap'");
}

static void an_output_too_large_is_refused_not_allocated(void **state)
{
    (void)state;
    NODE(n, OP_EXPAND, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    one_node_input(&n, LIST(1 << 20, 1 << 19));
    EXPECT_ERROR(&n, ERR_RESOURCE_EXHAUSTED, "too large");
    NODE(m, OP_CONSTANT_OF_SHAPE, 13);
    one_node_input(&m, LIST(INT64_MAX, INT64_MAX));
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "too many elements");
}

static void reshape_keeps_and_infers_dimensions(void **state)
{
    (void)state;
    NODE(n, OP_RESHAPE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 2, 1), 1, 2, 3, 4));
    one_node_input(&n, LIST(0, 1, -1));
    EXPECT(&n, DTYPE_F32, SHAPE(2, 1, 2), 1, 2, 3, 4);
}

static void a_reshape_that_does_not_fit_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_RESHAPE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&n, LIST(4, -1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "6 elements do not fill a multiple of 4");
    NODE(m, OP_RESHAPE, 13);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&m, LIST(-1, -1));
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "shape holds -1");
    NODE(k, OP_RESHAPE, 13);
    one_node_input(&k, TENSOR(DTYPE_F32, SHAPE(6), 1));
    one_node_input(&k, LIST(INT64_MAX, 3));
    EXPECT_ERROR(&k, ERR_INVALID_ARGUMENT, "too many elements");
}

static void only_dimensions_of_one_are_squeezed(void **state)
{
    (void)state;
    NODE(n, OP_SQUEEZE, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 3), 1));
    ONE_NODE_INTS(&n, "axes", -1);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "dimension 1 is 3, not 1");
}

static void unsqueeze_needs_different_axes(void **state)
{
    (void)state;
    NODE(n, OP_UNSQUEEZE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1));
    one_node_input(&n, LIST(0, -3));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "axis 0 is named twice");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_clamp_bounds_and_step_backward),
        cmocka_unit_test(a_slice_of_an_empty_dimension_is_empty),
        cmocka_unit_test(a_slice_step_of_zero_is_refused),
        cmocka_unit_test(a_slice_that_names_an_axis_twice_is_refused),
        cmocka_unit_test(bounds_that_are_no_integers_are_refused),
        cmocka_unit_test(an_index_out_of_range_is_refused),
        cmocka_unit_test(a_scalar_index_drops_the_axis),
        cmocka_unit_test(a_permutation_must_be_one),
        cmocka_unit_test(parts_that_do_not_fit_are_refused_by_concat),
        cmocka_unit_test(concat_joins_empty_parts),
        cmocka_unit_test(a_split_that_does_not_add_up_is_refused),
        cmocka_unit_test(an_uneven_split_before_opset_18_is_refused),
        cmocka_unit_test(negative_pads_crop),
        cmocka_unit_test(a_reflection_longer_than_the_input_bounces),
        cmocka_unit_test(cropping_more_than_there_is_is_refused),
        cmocka_unit_test(an_unknown_pad_mode_is_refused),
        cmocka_unit_test(an_output_too_large_is_refused_not_allocated),
        cmocka_unit_test(reshape_keeps_and_infers_dimensions),
        cmocka_unit_test(a_reshape_that_does_not_fit_is_refused),
        cmocka_unit_test(only_dimensions_of_one_are_squeezed),
        cmocka_unit_test(unsqueeze_needs_different_axes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
