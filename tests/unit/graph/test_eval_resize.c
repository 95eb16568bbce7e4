/* The evaluator: Resize, Upsample, QuantizeLinear, DequantizeLinear. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/support/expect.h"

#define NODE(n, op, opset)                                                                         \
    _cleanup_(one_node_release) struct one_node n;                                                 \
    one_node_init(&n, op, opset, 1)

/* Resize of one row by scale or (scale 0) to a size. */
static void row(struct one_node *n, int opset, double scale, int64_t size)
{
    one_node_init(n, OP_RESIZE, opset, 1);
    one_node_input(n, TENSOR(DTYPE_F32, SHAPE(4), 1, 2, 3, 4));
    one_node_input(n, NULL);
    one_node_input(n, scale > 0 ? TENSOR(DTYPE_F32, SHAPE(1), scale) : NULL);
    one_node_input(n, scale > 0 ? NULL : TENSOR(DTYPE_S64, SHAPE(1), (double)size));
}

static void nearest_modes_round_ties_as_they_say(void **state)
{
    (void)state;
    static const struct {
        const char *mode;
        double values[2];
    } cases[] = {
        {"round_prefer_floor", {1, 3}}, /* half_pixel: 0.5 and 2.5 */
        {"round_prefer_ceil", {2, 4}},
        {"floor", {1, 3}},
        {"ceil", {2, 4}},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(one_node_release) struct one_node n;
        row(&n, 13, 0.5, 0);
        one_node_string(&n, "nearest_mode", cases[i].mode);
        EXPECT(&n, DTYPE_F32, SHAPE(2), cases[i].values[0], cases[i].values[1]);
    }
}

static void float_scales_mean_what_they_say(void **state)
{
    (void)state;
    _cleanup_(one_node_release) struct one_node n;
    one_node_init(&n, OP_RESIZE, 13, 1);
    double values[10] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};
    one_node_input(&n, one_tensor(DTYPE_F32, SHAPE(10), 10, values));
    one_node_input(&n, NULL);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 0.7)); /* slightly below 0.7 as a float */
    one_node_string(&n, "coordinate_transformation_mode", "asymmetric");
    one_node_string(&n, "nearest_mode", "floor");
    EXPECT(&n, DTYPE_F32, SHAPE(7), 0, 1, 2, 4, 5, 7, 8);
}

static void axes_of_scale_one_stay_as_they_are(void **state)
{
    (void)state;
    NODE(n, OP_RESIZE, 11);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 2), 1, 2, 3, 4));
    one_node_input(&n, NULL);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1, 2));
    one_node_string(&n, "coordinate_transformation_mode", "tf_half_pixel_for_nn");
    one_node_string(&n, "nearest_mode", "floor");
    EXPECT(&n, DTYPE_F32, SHAPE(2, 4), 1, 1, 2, 2, 3, 3, 4, 4);
}

static void resize_10_rounds_up_where_it_shrinks(void **state)
{
    (void)state;
    NODE(n, OP_RESIZE, 10);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 4), 1, 2, 3, 4));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1, 0.6));
    EXPECT(&n, DTYPE_F32, SHAPE(1, 2), 1, 3);
}

static void upsample_interpolates_from_the_corner(void **state)
{
    (void)state;
    NODE(n, OP_UPSAMPLE, 9);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1, 2), 1, 2));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1, 2));
    one_node_string(&n, "mode", "linear");
    EXPECT(&n, DTYPE_F32, SHAPE(1, 4), 1, 1.5, 2, 2);
}

static void either_scales_or_sizes_must_be_given(void **state)
{
    (void)state;
    NODE(n, OP_RESIZE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "one of scales and sizes");
    NODE(m, OP_RESIZE, 13);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(4), 1));
    one_node_input(&m, NULL);
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(1), 2));
    one_node_input(&m, TENSOR(DTYPE_S64, SHAPE(1), 8));
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "one of scales and sizes");
}

static void scales_must_be_positive_and_sane(void **state)
{
    (void)state;
    static const double bad[] = {-1, (double)NAN, (double)INFINITY, 1e30};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        NODE(n, OP_RESIZE, 13);
        one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4), 1));
        one_node_input(&n, NULL);
        one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), bad[i]));
        EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "scale");
    }
}

static void lists_of_another_length_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_RESIZE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(4, 4), 1));
    one_node_input(&n, NULL);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), 2));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "scales of shape [1], where 2 values are needed");
}

static void an_unknown_mode_is_refused(void **state)
{
    (void)state;
    _cleanup_(one_node_release) struct one_node n;
    row(&n, 13, 2, 0);
    one_node_string(&n, "mode", "lanczos");
    EXPECT_ERROR(&n, ERR_UNIMPLEMENTED, "mode 'lanczos'");
}

static void a_tiny_scale_cannot_exhaust_memory(void **state)
{
    (void)state;
    NODE(n, OP_RESIZE, 18);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1 << 22), 1));
    one_node_input(&n, NULL);
    one_node_input(&n, NULL);
    one_node_input(&n, TENSOR(DTYPE_S64, SHAPE(1), 1));
    one_node_string(&n, "mode", "linear");
    one_node_int(&n, "antialias", 1);
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "too small to antialias");
}

static void an_empty_dimension_cannot_grow(void **state)
{
    (void)state;
    NODE(n, OP_RESIZE, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(0), 1));
    one_node_input(&n, NULL);
    one_node_input(&n, NULL);
    one_node_input(&n, TENSOR(DTYPE_S64, SHAPE(1), 3));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "size 3 of dimension 0, which is 0");
}

/* ---- quantization ------------------------------------------------------------------------- */

static void quantization_rounds_to_even_and_saturates(void **state)
{
    (void)state;
    NODE(n, OP_QUANTIZE_LINEAR, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(6), 1, 3, -1, 1e9, -1e9, 5));
    one_node_input(&n, TENSOR(DTYPE_F32, SCALAR, 2));
    one_node_input(&n, TENSOR(DTYPE_S8, SCALAR, 1));
    EXPECT(&n, DTYPE_S8, SHAPE(6), 1, 3, 1, 127, -128, 3);
}

static void quotients_are_rounded_to_float_first(void **state)
{
    (void)state;
    /* In double the quotient is just below 2.5 and would give 2 either way; 0.3 / 0.1 style ties
     * are decided by the float quotient: 1.7 / 0.2 = 8.5 in float, 8.4999998... exactly. */
    float x = 1.7F, scale = 0.2F;
    assert_true((double)(x / scale) == 8.5 && (double)x / (double)scale != 8.5);
    NODE(n, OP_QUANTIZE_LINEAR, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(1), (double)x));
    one_node_input(&n, TENSOR(DTYPE_F32, SCALAR, (double)scale));
    EXPECT(&n, DTYPE_U8, SHAPE(1), 8);
}

static void the_output_type_may_be_an_attribute(void **state)
{
    (void)state;
    NODE(n, OP_QUANTIZE_LINEAR, 21);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), -70000, 5));
    one_node_input(&n, TENSOR(DTYPE_F32, SCALAR, 1));
    one_node_int(&n, "output_dtype", DTYPE_S16);
    EXPECT(&n, DTYPE_S16, SHAPE(2), -32768, 5);
}

static void the_last_block_may_be_shorter(void **state)
{
    (void)state;
    NODE(n, OP_DEQUANTIZE_LINEAR, 21);
    one_node_input(&n, TENSOR(DTYPE_S8, SHAPE(2, 3), 1, 2, 3, 4, 5, 6));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 2), 1, 10, 100, 1000));
    one_node_int(&n, "block_size", 2);
    EXPECT(&n, DTYPE_F32, SHAPE(2, 3), 1, 2, 30, 400, 500, 6000);
}

static void scales_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    NODE(n, OP_QUANTIZE_LINEAR, 13);
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(2), 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "scale of shape [2] does not fit to axis 1");
    NODE(m, OP_DEQUANTIZE_LINEAR, 21);
    one_node_input(&m, TENSOR(DTYPE_S8, SHAPE(2, 3), 1));
    one_node_input(&m, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_int(&m, "block_size", 2);
    EXPECT_ERROR(&m, ERR_INVALID_ARGUMENT, "in blocks of 2");
    NODE(k, OP_QUANTIZE_LINEAR, 13);
    one_node_input(&k, TENSOR(DTYPE_F32, SHAPE(2, 3), 1));
    one_node_input(&k, TENSOR(DTYPE_F32, SHAPE(3), 1));
    one_node_input(&k, TENSOR(DTYPE_U8, SHAPE(2), 1));
    EXPECT_ERROR(&k, ERR_INVALID_ARGUMENT, "differ in shape: [3] and [2]");
}

static void a_zero_point_of_another_type_is_refused(void **state)
{
    (void)state;
    NODE(n, OP_DEQUANTIZE_LINEAR, 13);
    one_node_input(&n, TENSOR(DTYPE_S8, SHAPE(2), 1));
    one_node_input(&n, TENSOR(DTYPE_F32, SCALAR, 1));
    one_node_input(&n, TENSOR(DTYPE_U8, SCALAR, 1));
    EXPECT_ERROR(&n, ERR_INVALID_ARGUMENT, "zero point is uint8, but the input int8");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nearest_modes_round_ties_as_they_say),
        cmocka_unit_test(float_scales_mean_what_they_say),
        cmocka_unit_test(axes_of_scale_one_stay_as_they_are),
        cmocka_unit_test(resize_10_rounds_up_where_it_shrinks),
        cmocka_unit_test(upsample_interpolates_from_the_corner),
        cmocka_unit_test(either_scales_or_sizes_must_be_given),
        cmocka_unit_test(scales_must_be_positive_and_sane),
        cmocka_unit_test(lists_of_another_length_are_refused),
        cmocka_unit_test(an_unknown_mode_is_refused),
        cmocka_unit_test(a_tiny_scale_cannot_exhaust_memory),
        cmocka_unit_test(an_empty_dimension_cannot_grow),
        cmocka_unit_test(quantization_rounds_to_even_and_saturates),
        cmocka_unit_test(quotients_are_rounded_to_float_first),
        cmocka_unit_test(the_output_type_may_be_an_attribute),
        cmocka_unit_test(the_last_block_may_be_shorter),
        cmocka_unit_test(scales_that_do_not_fit_are_refused),
        cmocka_unit_test(a_zero_point_of_another_type_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
