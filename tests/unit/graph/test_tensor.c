/* Tensors, shapes and the conversions of 16-bit floats. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "tests/support/one_node.h"

static void every_f16_survives_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= UINT16_MAX; i++) {
        float x = f16_to_f32((uint16_t)i);
        if (isnan(x))
            assert_true(isnan(f16_to_f32(f32_to_f16(x))));
        else
            assert_int_equal(f32_to_f16(x), i);
    }
}

static void every_bf16_survives_f32_and_back(void **state)
{
    (void)state;
    for (uint32_t i = 0; i <= UINT16_MAX; i++) {
        float x = bf16_to_f32((uint16_t)i);
        if (isnan(x))
            assert_true(isnan(bf16_to_f32(f32_to_bf16(x))));
        else
            assert_int_equal(f32_to_bf16(x), i);
    }
}

static void f16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(f32_to_f16(1.0F), 0x3c00);
    assert_int_equal(f32_to_f16(1.0F + 0x1p-11F), 0x3c00);            /* tie: down to even */
    assert_int_equal(f32_to_f16(1.0F + 0x1p-11F + 0x1p-20F), 0x3c01); /* above the tie */
    assert_int_equal(f32_to_f16(1.0F + 0x1p-10F + 0x1p-11F), 0x3c02); /* tie: up to even */
    assert_int_equal(f32_to_f16(0x1p-25F), 0);                        /* tie with zero */
    assert_int_equal(f32_to_f16(0x1.8p-25F), 1);                      /* smallest subnormal */
    assert_int_equal(f32_to_f16(0x1.ffcp-15F), 0x0400);               /* rounds up to normal */
    assert_int_equal(f32_to_f16(-65519.996F), 0xfbff);
    assert_int_equal(f32_to_f16(65520.0F), 0x7c00);
    assert_int_equal(f32_to_f16(INFINITY), 0x7c00);
    assert_int_equal(f32_to_f16(-0.0F), 0x8000);
}

static void bf16_rounds_to_nearest_even(void **state)
{
    (void)state;
    assert_int_equal(f32_to_bf16(1.0F + 0x1p-8F), 0x3f80);
    assert_int_equal(f32_to_bf16(1.0F + 0x1p-8F + 0x1p-20F), 0x3f81);
    assert_int_equal(f32_to_bf16(1.0F + 0x1p-7F + 0x1p-8F), 0x3f82);
    assert_int_equal(f32_to_bf16(0x1.ffp+127F), 0x7f80); /* beyond the largest: infinity */
}

static void doubles_round_only_once(void **state)
{
    (void)state;
    /* Just above a tie of f16: through f32 the excess would be lost, and the tie go down to even.
     */
    assert_int_equal(f32_to_f16((float)(1.0 + 0x1p-11 + 0x1p-40)), 0x3c00);
    assert_int_equal(f64_to_f16(1.0 + 0x1p-11 + 0x1p-40), 0x3c01);
    assert_int_equal(f64_to_f16(1.0 + 0x1p-10 + 0x1p-11 - 0x1p-40), 0x3c01);
    assert_int_equal(f64_to_bf16(1.0 + 0x1p-8 + 0x1p-40), 0x3f81);
    assert_int_equal(f64_to_bf16(-(1.0 + 0x1p-8 + 0x1p-40)), 0xbf81);
    assert_int_equal(f64_to_bf16(1e300), 0x7f80);
    assert_int_equal(f64_to_f16(1e-300), 0);
    assert_true(isnan(f16_to_f32(f64_to_f16((double)NAN))));
}

/* set_f64 of `value` into the type, read back. */
static double through(enum dtype dtype, double value)
{
    struct tensor *t = TENSOR(dtype, SHAPE(1), 0);
    tensor_set_f64(t, 0, value);
    double back = tensor_get_f64(t, 0);
    tensor_free(t);
    return back;
}

static void integers_round_to_even_and_saturate(void **state)
{
    (void)state;
    assert_true(through(DTYPE_U8, 2.5) == 2);
    assert_true(through(DTYPE_U8, 3.5) == 4);
    assert_true(through(DTYPE_U8, -1) == 0);
    assert_true(through(DTYPE_U8, 300) == 255);
    assert_true(through(DTYPE_S8, -1000) == -128);
    assert_true(through(DTYPE_U16, 1e9) == 65535);
    assert_true(through(DTYPE_S16, -1e9) == -32768);
    assert_true(through(DTYPE_S32, 1e18) == INT32_MAX);
    assert_true(through(DTYPE_U32, -5) == 0);
    assert_true(through(DTYPE_S64, 1e300) == 0x1p63);
    assert_true(through(DTYPE_U64, 1e300) == 0x1p64);
    assert_true(through(DTYPE_S32, (double)NAN) == 0);
    assert_true(through(DTYPE_BOOL, 0.25) == 1);
}

static void large_integers_stay_exact(void **state)
{
    (void)state;
    struct tensor *t = TENSOR(DTYPE_S64, SHAPE(1), 0);
    tensor_set_s64(t, 0, INT64_MAX - 1);
    assert_true(tensor_get_s64(t, 0) == INT64_MAX - 1);
    tensor_free(t);
    t = TENSOR(DTYPE_U64, SHAPE(1), 0);
    ((uint64_t *)t->data)[0] = UINT64_MAX;
    assert_true(tensor_get_s64(t, 0) == INT64_MAX);
    tensor_free(t);
    /* 2^60 + half a step of bf16 + 1: rounds up, though the double of it is the tie itself. */
    t = TENSOR(DTYPE_BF16, SHAPE(1), 0);
    tensor_set_s64(t, 0, ((int64_t)1 << 60) + ((int64_t)1 << 52) + 1);
    assert_true(tensor_get_f64(t, 0) == 0x1p60 + 0x1p53);
    tensor_free(t);
}

static void a_shape_with_too_many_elements_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct shape shape = SHAPE(INT64_MAX, INT64_MAX);
    assert_int_equal(shape_check(&shape, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "too many elements"));
    shape = SHAPE(INT64_MAX, 0); /* the strides would overflow */
    assert_int_equal(shape_check(&shape, &err), -ERR_INVALID_ARGUMENT);
    shape = SHAPE(0, 3);
    assert_int_equal(shape_check(&shape, &err), 0);
    shape = SHAPE(DIM_BATCH, 3, -1);
    assert_int_equal(shape_check(&shape, &err), -ERR_INVALID_ARGUMENT);
    shape.rank = 9;
    assert_int_equal(shape_check(&shape, &err), -ERR_INVALID_ARGUMENT);
}

static void shapes_broadcast_as_in_numpy(void **state)
{
    (void)state;
    struct err err = {0};
    struct shape a = SHAPE(DIM_BATCH, 3, 1), b = SHAPE(1, 5), out;
    assert_int_equal(shape_broadcast(&a, &b, &out, &err), 0);
    struct shape want = SHAPE(DIM_BATCH, 3, 5);
    assert_true(shape_equal(&out, &want));
    b = SHAPE(4, 1);
    assert_int_equal(shape_broadcast(&a, &b, &out, &err), -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "shapes [N,3,1] and [4,1] do not broadcast");
}

static void a_text_shows_the_batch_and_never_overflows(void **state)
{
    (void)state;
    char text[128];
    struct shape shape = SHAPE(DIM_BATCH, 3, 32, 32);
    assert_string_equal(shape_text(&shape, text), "[N,3,32,32]");
    shape = SCALAR;
    assert_string_equal(shape_text(&shape, text), "[]");
    shape = (struct shape){.rank = 8};
    for (int i = 0; i < 8; i++)
        shape.dim[i] = INT64_MIN;
    assert_true(strlen(shape_text(&shape, text)) < 128);
}

static void tensors_are_zeroed_and_aligned(void **state)
{
    (void)state;
    struct shape shape = SHAPE(3, 5);
    struct tensor *t = tensor_new(DTYPE_F32, &shape, NULL);
    assert_non_null(t);
    assert_int_equal((uintptr_t)t->data % 64, 0);
    for (int64_t i = 0; i < 15; i++)
        assert_true(tensor_get_f64(t, i) == 0);
    assert_int_equal(tensor_bytes(t), 60);
    tensor_free(t);
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    t = tensor_in_arena(arena, DTYPE_S8, &shape, NULL);
    assert_non_null(t);
    assert_int_equal((uintptr_t)t->data % 64, 0);
}

static void a_tensor_of_symbolic_shape_or_no_type_is_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct shape shape = SHAPE(DIM_BATCH, 5);
    assert_null(tensor_new(DTYPE_F32, &shape, &err));
    assert_int_equal(err.code, ERR_INVALID_ARGUMENT);
    shape = SHAPE(5);
    assert_null(tensor_new(DTYPE_NONE, &shape, &err));
    assert_null(tensor_new((enum dtype)99, &shape, &err));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_survives_f32_and_back),
        cmocka_unit_test(every_bf16_survives_f32_and_back),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(doubles_round_only_once),
        cmocka_unit_test(integers_round_to_even_and_saturate),
        cmocka_unit_test(large_integers_stay_exact),
        cmocka_unit_test(a_shape_with_too_many_elements_is_refused),
        cmocka_unit_test(shapes_broadcast_as_in_numpy),
        cmocka_unit_test(a_text_shows_the_batch_and_never_overflows),
        cmocka_unit_test(tensors_are_zeroed_and_aligned),
        cmocka_unit_test(a_tensor_of_symbolic_shape_or_no_type_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
