/* Losses: their values against formulas, their gradients against differences. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/rng.h"
#include "shared/train/loss.h"

enum { WIDTH = 7 };

struct example {
    float logits[WIDTH], teacher[WIDTH], other[WIDTH];
};

static struct example make(uint64_t seed)
{
    struct example e;
    struct rng rng;
    rng_seed(&rng, seed);
    for (int i = 0; i < WIDTH; i++) {
        e.logits[i] = (float)(2 * rng_normal(&rng));
        e.teacher[i] = (float)(3 * rng_normal(&rng));
        e.other[i] = (float)(3 * rng_normal(&rng));
    }
    return e;
}

static double value(const struct loss *l, const struct loss_target *t, const float *logits)
{
    float gradient[WIDTH] = {0};
    double spare[3 * WIDTH];
    assert_true(loss_spare(l) <= 3 * WIDTH);
    return loss_sample(l, t, logits, 1, gradient, spare);
}

/* softmax(z / T)[i], without tricks */
static double probability(const float *z, double temperature, int i)
{
    double sum = 0;
    for (int k = 0; k < WIDTH; k++)
        sum += exp((double)z[k] / temperature);
    return exp((double)z[i] / temperature) / sum;
}

static void cross_entropy_is_the_labels_surprise(void **state)
{
    (void)state;
    const struct loss l = {.width = WIDTH};
    const struct example e = make(1);
    const struct loss_target t = {.label = 3, .share = 1};
    assert_true(fabs(value(&l, &t, e.logits) + log(probability(e.logits, 1, 3))) < 1e-9);
}

static void smoothing_spreads_the_target_over_all_classes(void **state)
{
    (void)state;
    const struct loss l = {.width = WIDTH, .smoothing = 0.2};
    const struct example e = make(2);
    const struct loss_target t = {.label = 0, .share = 1};
    double expected = 0;
    for (int i = 0; i < WIDTH; i++)
        expected -= (0.2 / (double)WIDTH + (i == 0 ? 0.8 : 0)) * log(probability(e.logits, 1, i));
    assert_true(fabs(value(&l, &t, e.logits) - expected) < 1e-9);
}

static void distillation_is_the_divergence_times_t_squared(void **state)
{
    (void)state;
    const struct loss l = {.width = WIDTH, .distil = 1, .temperature = 4};
    const struct example e = make(3);
    const struct loss_target t = {.label = -1, .share = 1, .teacher = e.teacher};
    double expected = 0;
    for (int i = 0; i < WIDTH; i++) {
        const double p = probability(e.teacher, 4, i);
        expected += 16 * p * log(p / probability(e.logits, 4, i));
    }
    assert_true(fabs(value(&l, &t, e.logits) - expected) < 1e-9);
    const struct loss_target itself = {.label = -1, .share = 1, .teacher = e.logits};
    assert_true(fabs(value(&l, &itself, e.logits)) < 1e-12);
}

static void both_losses_mix_by_the_share_of_the_teacher(void **state)
{
    (void)state;
    struct loss l = {.width = WIDTH, .smoothing = 0.1, .temperature = 2};
    const struct example e = make(4);
    const struct loss_target t = {.label = 5, .share = 1, .teacher = e.teacher};
    const double labels = value(&l, &t, e.logits);
    l.distil = 1;
    const double teacher = value(&l, &t, e.logits);
    l.distil = 0.3;
    assert_true(fabs(value(&l, &t, e.logits) - (0.7 * labels + 0.3 * teacher)) < 1e-9);
}

static void mixed_samples_have_the_mixture_of_both_targets(void **state)
{
    (void)state;
    /* cross-entropy is linear in the target, so mixing losses and mixing targets are one */
    const struct loss l = {.width = WIDTH, .smoothing = 0.1};
    const struct example e = make(5);
    const struct loss_target a = {.label = 1, .share = 1}, b = {.label = 6, .share = 1};
    const struct loss_target mixed = {.label = 1, .other = 6, .share = 0.75f};
    assert_true(fabs(value(&l, &mixed, e.logits) -
                     (0.75 * value(&l, &a, e.logits) + 0.25 * value(&l, &b, e.logits))) < 1e-9);
}

/* Central differences; the loss is smooth, and its values are doubles. */
static void check_gradient(const struct loss *l, const struct loss_target *t, const float *logits)
{
    float gradient[WIDTH], moved[WIDTH];
    double spare[3 * WIDTH];
    for (int i = 0; i < WIDTH; i++)
        gradient[i] = 10; /* it is added to */
    loss_sample(l, t, logits, 0.5, gradient, spare);
    for (int i = 0; i < WIDTH; i++) {
        const float h = 1.0f / 256;
        memcpy(moved, logits, sizeof(moved));
        moved[i] = logits[i] + h;
        const double up = value(l, t, moved), at = (double)moved[i];
        moved[i] = logits[i] - h;
        const double slope = 0.5 * (up - value(l, t, moved)) / (at - (double)moved[i]);
        if (fabs(slope - ((double)gradient[i] - 10)) > 2e-5 * (1 + fabs(slope)))
            fail_msg("logit %d: %.8g instead of %.8g", i, (double)gradient[i] - 10, slope);
    }
}

static void gradients_are_the_differences(void **state)
{
    (void)state;
    for (uint64_t seed = 10; seed < 30; seed++) {
        const struct example e = make(seed);
        struct loss_target t = {.label = (int32_t)(seed % WIDTH),
                                .other = (int32_t)(seed * 3 % WIDTH),
                                .share = 1,
                                .teacher = e.teacher,
                                .teacher_other = e.other};
        const struct loss losses[] = {
            {.width = WIDTH},
            {.width = WIDTH, .smoothing = 0.2},
            {.width = WIDTH, .distil = 1, .temperature = 1},
            {.width = WIDTH, .distil = 1, .temperature = 4},
            {.width = WIDTH, .smoothing = 0.1, .distil = 0.6, .temperature = 2},
        };
        for (size_t i = 0; i < sizeof(losses) / sizeof(*losses); i++) {
            t.share = 1;
            check_gradient(&losses[i], &t, e.logits);
            t.share = 0.625f;
            check_gradient(&losses[i], &t, e.logits);
        }
    }
}

static void huge_logits_stay_finite(void **state)
{
    (void)state;
    const struct loss l = {.width = WIDTH, .smoothing = 0.1, .distil = 0.5, .temperature = 1};
    const float logits[WIDTH] = {1e4f, -1e4f, 0, 1, 2, 3, 4};
    const float teacher[WIDTH] = {-1e4f, 1e4f, 0, 1, 2, 3, 4};
    const struct loss_target t = {.label = 1, .share = 1, .teacher = teacher};
    float gradient[WIDTH] = {0};
    double spare[3 * WIDTH];
    assert_true(isfinite(loss_sample(&l, &t, logits, 1, gradient, spare)));
    for (int i = 0; i < WIDTH; i++)
        assert_true(isfinite(gradient[i]));
}

static void features_are_compared_relative_to_the_parents_power(void **state)
{
    (void)state;
    enum { N = 24 };
    float out[N], parent[N], gradient[N] = {0}, unused[N];
    struct rng rng;
    rng_seed(&rng, 7);
    for (int i = 0; i < N; i++) {
        parent[i] = (float)rng_normal(&rng);
        out[i] = (float)rng_normal(&rng);
    }
    const double power = loss_power(parent, N);
    const float nothing[N] = {0};
    memset(unused, 0, sizeof(unused));
    assert_true(fabs(loss_feature(nothing, parent, N, power, 1, unused) - 1) < 1e-12);
    assert_true(loss_feature(parent, parent, N, power, 1, unused) == 0);
    const double whole = loss_feature(out, parent, N, power, 3, gradient);
    const double halves = loss_feature(out, parent, N / 2, power, 1, unused) +
                          loss_feature(out + N / 2, parent + N / 2, N / 2, power, 1, unused);
    assert_true(fabs(whole - halves) < 1e-12);
    for (int i = 0; i < N; i++) {
        const float kept = out[i], h = 1.0f / 64;
        out[i] = kept + h;
        const double up = loss_feature(out, parent, N, power, 0, unused);
        out[i] = kept - h;
        const double down = loss_feature(out, parent, N, power, 0, unused);
        out[i] = kept;
        assert_true(fabs(3 * (up - down) / (2 * (double)h) - (double)gradient[i]) < 1e-5);
    }
    assert_true(loss_feature(out, nothing, N, loss_power(nothing, N), 1, unused) == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cross_entropy_is_the_labels_surprise),
        cmocka_unit_test(smoothing_spreads_the_target_over_all_classes),
        cmocka_unit_test(distillation_is_the_divergence_times_t_squared),
        cmocka_unit_test(both_losses_mix_by_the_share_of_the_teacher),
        cmocka_unit_test(mixed_samples_have_the_mixture_of_both_targets),
        cmocka_unit_test(gradients_are_the_differences),
        cmocka_unit_test(huge_logits_stay_finite),
        cmocka_unit_test(features_are_compared_relative_to_the_parents_power),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
