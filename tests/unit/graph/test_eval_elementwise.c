/* The evaluator: operators on single elements, types, rounding. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/support/expect.h"

#define NODE(n, op, opset)                                                                         \
    _cleanup_(one_node_release) struct one_node n;                                                 \
    one_node_init(&n, op, opset, 1)

static void integers_add_with_wrap_around(void **state)
{
    (void)state;
    NODE(n, OP_ADD, 14);
    one_node_input(&n, TENSOR(DTYPE_U8, SHAPE(2), 250, 1));
    one_node_input(&n, TENSOR(DTYPE_U8, SHAPE(2), 10, 2));
    EXPECT(&n, DTYPE_U8, SHAPE(2), 4, 3);
}

static void large_int64_are_added_exactly(void **state)
{
    (void)state;
    NODE(n, OP_ADD, 14);
    one_node_input(&n, TENSOR(DTYPE_S64, SHAPE(1), 0x1p62));
    one_node_input(&n, TENSOR(DTYPE_S64, SHAPE(1), 1));
    assert_int_equal(one_node_run(&n), 0);
    assert_true(tensor_get_s64(n.out[0], 0) == ((int64_t)1 << 62) + 1);
}

static void integers_divide_towards_zero(void **state)
{
    (void)state;
    NODE(n, OP_DIV, 14);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(4), 7, -7, 7, INT32_MIN));
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(4), 2, 2, -2, -1));
    EXPECT(&n, DTYPE_S32, SHAPE(4), 3, -3, -3, INT32_MIN);
}

static void uint64_division_is_unsigned(void **state)
{
    (void)state;
    NODE(n, OP_DIV, 14);
    one_node_input(&n, TENSOR(DTYPE_U64, SHAPE(1), 0x1p63));
    one_node_input(&n, TENSOR(DTYPE_U64, SHAPE(1), 2));
    EXPECT(&n, DTYPE_U64, SHAPE(1), 0x1p62);
}

static void an_integer_divided_by_zero_is_refused_with_the_node_name(void **state)
{
    (void)state;
    NODE(n, OP_DIV, 14);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(2), 1, 2));
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(1), 0));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "divided by zero");
}

static void floats_divided_by_zero_are_infinite(void **state)
{
    (void)state;
    NODE(n, OP_DIV, 14);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1, -1, 0));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 0));
    EXPECT(&n, DTYPE_F32, SHAPE(3), (double)INFINITY, (double)-INFINITY, (double)NAN);
}

static void f16_sums_round_once(void **state)
{
    (void)state;
    NODE(n, OP_ADD, 14);
    /* 1 + (tie + a little): in f16 arithmetic by steps the little would be lost. */
    one_node_input(&n, TENSOR(DTYPE_F16, SHAPE(2), 2048, 1));
    one_node_input(&n, TENSOR(DTYPE_F16, SHAPE(2), 1.0009765625, 0x1p-11));
    EXPECT(&n, DTYPE_F16, SHAPE(2), 2050, 1);
}

static void operands_of_different_types_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_MUL, 14);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    one_node_input(&n, TENSOR(DTYPE_F16, SHAPE(1), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "input 1 is float16, but input 0 is float32");
}

static void operands_that_do_not_broadcast_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_SUB, 7);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "shapes [2,3] and [2] do not broadcast");
}

static void empty_operands_give_empty_results(void **state)
{
    (void)state;
    NODE(n, OP_ADD, 14);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(0, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    assert_int_equal(one_node_run(&n), 0);
    assert_int_equal(shape_elements(&n.out[0]->shape), 0);
}

static void a_slope_may_not_widen_its_input(void **state)
{
    (void)state;
    NODE(n, OP_PRELU, 9);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 1), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "slope of shape [2,1]");
}

static void clip_keeps_nan_and_lets_max_win(void **state)
{
    (void)state;
    NODE(n, OP_CLIP, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), (double)NAN, 0, 9));
    one_node_input(&n, TENSOR(DTYPE_F32, SCALAR, 5));
    one_node_input(&n, TENSOR(DTYPE_F32, SCALAR, 3));
    EXPECT(&n, DTYPE_F32, SHAPE(3), (double)NAN, 3, 3);
}

static void clip_before_opset_11_takes_attributes(void **state)
{
    (void)state;
    NODE(n, OP_CLIP, 7);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), -1, 9));
    one_node_float(&n, "max", 6);
    EXPECT(&n, DTYPE_F32, SHAPE(2), -1, 6);
}

static void clip_of_uint64_compares_unsigned(void **state)
{
    (void)state;
    NODE(n, OP_CLIP, 13);
    one_node_input(&n, TENSOR(DTYPE_U64, SHAPE(2), 0x1p63, 5));
    one_node_input(&n, NULL);
    one_node_input(&n, TENSOR(DTYPE_U64, SCALAR, 7));
    EXPECT(&n, DTYPE_U64, SHAPE(2), 7, 5);
}

static void a_bound_of_clip_must_be_a_scalar(void **state)
{
    (void)state;
    NODE(n, OP_CLIP, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "min is no scalar");
}

static void activations_keep_nan_and_far_values_finite(void **state)
{
    (void)state;
    NODE(n, OP_SIGMOID, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), -1000, 1000, (double)NAN));
    EXPECT(&n, DTYPE_F32, SHAPE(3), 0, 1, (double)NAN);
}

static void softplus_neither_overflows_nor_loses_small_results(void **state)
{
    (void)state;
    NODE(n, OP_SOFTPLUS, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(9), 0, 1, -1, 1000, -1000, -20, (double)INFINITY,
                              (double)-INFINITY, (double)NAN));
    /* log(2), log(1 + e), log(1 + 1 / e); far below 0 it is exp(x). */
    EXPECT(&n, DTYPE_F32, SHAPE(9), 0.693147181, 1.313261688, 0.313261688, 1000, 0, 2.06115362e-9,
           (double)INFINITY, 0, (double)NAN);
}

static void softplus_is_for_floats_only(void **state)
{
    (void)state;
    NODE(n, OP_SOFTPLUS, 13);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(1), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "not defined for int32");
}

static void abs_of_floats_drops_the_sign(void **state)
{
    (void)state;
    NODE(n, OP_ABS, 13);
    one_node_input(&n,
                   TENSOR(DTYPE_F32, SHAPE(5), -2.5, 2.5, -0.0, (double)-INFINITY, (double)NAN));
    EXPECT(&n, DTYPE_F32, SHAPE(5), 2.5, 2.5, 0, (double)INFINITY, (double)NAN);
    assert_false(signbit(((const float *)n.out[0]->data)[2]));
}

static void abs_of_the_least_integer_wraps_around(void **state)
{
    (void)state;
    NODE(n, OP_ABS, 13);
    one_node_input(&n, TENSOR(DTYPE_S8, SHAPE(4), -128, -127, 0, 127));
    EXPECT(&n, DTYPE_S8, SHAPE(4), -128, 127, 0, 127);
    NODE(wide, OP_ABS, 13);
    one_node_input(&wide, TENSOR(DTYPE_S64, SHAPE(2), -0x1p63, -7));
    EXPECT(&wide, DTYPE_S64, SHAPE(2), -0x1p63, 7);
}

static void abs_leaves_unsigned_integers_alone(void **state)
{
    (void)state;
    NODE(n, OP_ABS, 13);
    one_node_input(&n, TENSOR(DTYPE_U64, SHAPE(2), 0x1p63 + 0x1p62, 5));
    EXPECT(&n, DTYPE_U64, SHAPE(2), 0x1p63 + 0x1p62, 5);
}

static void casts_cut_towards_zero_and_saturate(void **state)
{
    (void)state;
    NODE(n, OP_CAST, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4), 2.9, -2.9, 300, -300));
    one_node_int(&n, "to", DTYPE_S8);
    EXPECT(&n, DTYPE_S8, SHAPE(4), 2, -2, 127, -128);
}

static void casts_between_integers_wrap(void **state)
{
    (void)state;
    NODE(n, OP_CAST, 13);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(3), 257, -1, 128));
    one_node_int(&n, "to", DTYPE_U8);
    EXPECT(&n, DTYPE_U8, SHAPE(3), 1, 255, 128);
}

static void a_cast_to_bool_asks_for_nonzero(void **state)
{
    (void)state;
    NODE(n, OP_CAST, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4), 0.25, 0, (double)-0.0, (double)NAN));
    one_node_int(&n, "to", DTYPE_BOOL);
    EXPECT(&n, DTYPE_BOOL, SHAPE(4), 1, 0, 0, 1);
}

static void a_cast_of_uint64_beyond_int64_is_right(void **state)
{
    (void)state;
    NODE(n, OP_CAST, 13);
    one_node_input(&n, TENSOR(DTYPE_U64, SHAPE(1), 0x1p63));
    one_node_int(&n, "to", DTYPE_BF16);
    EXPECT(&n, DTYPE_BF16, SHAPE(1), 0x1p63);
}

static void a_cast_to_an_unknown_type_is_unimplemented(void **state)
{
    (void)state;
    NODE(n, OP_CAST, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    one_node_int(&n, "to", 17);
    EXPECT_ERROR(&n, ERR_UNIMPLEMENTED, "type 17");
}

static void an_operator_refuses_types_it_is_not_defined_for(void **state)
{
    (void)state;
    NODE(n, OP_TANH, 13);
    one_node_input(&n, TENSOR(DTYPE_S32, SHAPE(1), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "not defined for int32");
}

static void a_missing_input_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_ADD, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    one_node_input(&n, NULL);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "input 1 is left out");
}

static void a_wrong_number_of_inputs_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_RELU, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "2 inputs");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(integers_add_with_wrap_around),
        cmocka_unit_test(large_int64_are_added_exactly),
        cmocka_unit_test(integers_divide_towards_zero),
        cmocka_unit_test(uint64_division_is_unsigned),
        cmocka_unit_test(an_integer_divided_by_zero_is_refused_with_the_node_name),
        cmocka_unit_test(floats_divided_by_zero_are_infinite),
        cmocka_unit_test(f16_sums_round_once),
        cmocka_unit_test(operands_of_different_types_are_refused),
        cmocka_unit_test(operands_that_do_not_broadcast_are_refused),
        cmocka_unit_test(empty_operands_give_empty_results),
        cmocka_unit_test(a_slope_may_not_widen_its_input),
        cmocka_unit_test(clip_keeps_nan_and_lets_max_win),
        cmocka_unit_test(clip_before_opset_11_takes_attributes),
        cmocka_unit_test(clip_of_uint64_compares_unsigned),
        cmocka_unit_test(a_bound_of_clip_must_be_a_scalar),
        cmocka_unit_test(activations_keep_nan_and_far_values_finite),
        cmocka_unit_test(softplus_neither_overflows_nor_loses_small_results),
        cmocka_unit_test(softplus_is_for_floats_only),
        cmocka_unit_test(abs_of_floats_drops_the_sign),
        cmocka_unit_test(abs_of_the_least_integer_wraps_around),
        cmocka_unit_test(abs_leaves_unsigned_integers_alone),
        cmocka_unit_test(casts_cut_towards_zero_and_saturate),
        cmocka_unit_test(casts_between_integers_wrap),
        cmocka_unit_test(a_cast_to_bool_asks_for_nonzero),
        cmocka_unit_test(a_cast_of_uint64_beyond_int64_is_right),
        cmocka_unit_test(a_cast_to_an_unknown_type_is_unimplemented),
        cmocka_unit_test(an_operator_refuses_types_it_is_not_defined_for),
        cmocka_unit_test(a_missing_input_is_refused),
        cmocka_unit_test(a_wrong_number_of_inputs_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
