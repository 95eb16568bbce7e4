/* Ranges of known distributions. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#include "shared/base/rng.h"
#include "shared/nn/quantize_priv.h"

#define N 200000

static float numbers[N];

static struct quant_range range_of(const float *x, int64_t n)
{
    struct histogram h;
    struct quant_range range = {0};
    struct err err = {0};
    assert_int_equal(histogram_init(&h, &err), 0);
    for (int64_t from = 0; from < n; from += 1000) /* in pieces, as batches come */
        assert_int_equal(histogram_add(&h, x + from, n - from < 1000 ? n - from : 1000, &err), 0);
    assert_int_equal(histogram_range(&h, &range, &err), 0);
    histogram_release(&h);
    return range;
}

/* What 8 bits really do to the numbers. */
static double true_error(const float *x, int64_t n, double low, double high)
{
    const struct quant_scale q = quant_scale_of(low, high);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        double level = nearbyint((double)x[i] / (double)q.scale) + q.zero;
        level = fmin(fmax(level, 0), 255);
        const double d = (double)x[i] - (level - q.zero) * (double)q.scale;
        sum += d * d;
    }
    return sum / (double)n;
}

static void uniform_numbers_keep_their_full_range(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 1);
    for (int i = 0; i < N; i++)
        numbers[i] = (float)(rng_f64(&rng) * 5 - 1);
    const struct quant_range r = range_of(numbers, N);
    assert_true(r.low <= -0.98 && r.low >= -1.03);
    assert_true(r.high >= 3.96 && r.high <= 4.03);
    const double step = 5.0 / 255;
    assert_true(fabs(r.mse - step * step / 12) < 0.05 * step * step / 12);
}

static void heavy_tails_are_clipped_and_the_error_falls(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 2);
    for (int i = 0; i < N; i++) {
        const double x = rng_normal(&rng);
        numbers[i] = (float)(x * x * x);
    }
    const struct quant_range r = range_of(numbers, N);
    assert_true(r.high - r.low < 0.85 * (r.max - r.min));
    assert_true(true_error(numbers, N, r.low, r.high) < 0.9 * true_error(numbers, N, r.min, r.max));
}

static void the_error_reported_is_the_true_one(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 3);
    for (int i = 0; i < N; i++)
        numbers[i] = (float)fmax(rng_normal(&rng), 0);
    const struct quant_range r = range_of(numbers, N);
    const double truth = true_error(numbers, N, r.low, r.high);
    assert_true(fabs(r.mse - truth) < 0.05 * truth);
    assert_true(r.low == 0);
}

static void no_other_range_is_much_better(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 4);
    for (int i = 0; i < N; i++)
        numbers[i] = (float)(rng_normal(&rng) * (rng_f64(&rng) < 0.01 ? 10 : 1) + 0.5);
    const struct quant_range r = range_of(numbers, N);
    const double error = true_error(numbers, N, r.low, r.high);
    for (double f = 0.05; f <= 1; f += 0.05)
        for (double k = 0.05; k <= 1; k += 0.05)
            assert_true(error <= 1.02 * true_error(numbers, N, r.min * f, r.max * k));
}

static void zero_is_exactly_representable(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 5);
    for (int trial = 0; trial < 50; trial++) {
        for (int i = 0; i < 1000; i++)
            numbers[i] = (float)(rng_normal(&rng) + trial - 25);
        const struct quant_range r = range_of(numbers, 1000);
        assert_true(r.low <= 0 && r.high >= 0);
        const struct quant_scale q = quant_scale_of(r.low, r.high);
        assert_true(fabs(-(double)q.zero * (double)q.scale - r.low) <= 1e-6 * fabs(r.low));
    }
}

static void constant_numbers_get_a_usable_range(void **state)
{
    (void)state;
    const float values[] = {0.0f, 3.0f, -2.0f, 1e-30f, -1e-38f, 1e30f, -1e32f};
    for (size_t k = 0; k < sizeof(values) / sizeof(values[0]); k++) {
        for (int i = 0; i < 1000; i++)
            numbers[i] = values[k];
        const struct quant_range r = range_of(numbers, 1000);
        const struct quant_scale q = quant_scale_of(r.low, r.high);
        assert_true(isfinite(q.scale) && q.scale > 0);
        assert_true(r.low <= 0 && r.high >= 0);
        if (fabsf(values[k]) > 1e-9f)
            assert_true(sqrt(true_error(numbers, 1000, r.low, r.high)) <=
                        0.01 * fabs((double)values[k]));
    }
}

static void histograms_do_not_depend_on_the_order(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 6);
    for (int i = 0; i < N; i++)
        numbers[i] = (float)(rng_normal(&rng) * exp(3 * rng_normal(&rng)));
    const struct quant_range forward = range_of(numbers, N);
    for (int i = 0; i < N / 2; i++) {
        const float x = numbers[i];
        numbers[i] = numbers[N - 1 - i];
        numbers[N - 1 - i] = x;
    }
    const struct quant_range backward = range_of(numbers, N);
    assert_true(forward.low == backward.low && forward.high == backward.high);
    assert_true(forward.min == backward.min && forward.max == backward.max);
    assert_true(forward.mse == backward.mse);
}

static void numbers_that_are_not_finite_are_refused(void **state)
{
    (void)state;
    const float strange[] = {NAN, INFINITY, -INFINITY};
    for (int k = 0; k < 3; k++) {
        struct histogram h;
        struct err err = {0};
        assert_int_equal(histogram_init(&h, &err), 0);
        const float x[] = {1.0f, strange[k], 2.0f};
        assert_int_equal(histogram_add(&h, x, 3, &err), -ERR_OUT_OF_RANGE);
        histogram_release(&h);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(uniform_numbers_keep_their_full_range),
        cmocka_unit_test(heavy_tails_are_clipped_and_the_error_falls),
        cmocka_unit_test(the_error_reported_is_the_true_one),
        cmocka_unit_test(no_other_range_is_much_better),
        cmocka_unit_test(zero_is_exactly_representable),
        cmocka_unit_test(constant_numbers_get_a_usable_range),
        cmocka_unit_test(histograms_do_not_depend_on_the_order),
        cmocka_unit_test(numbers_that_are_not_finite_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
