/* Predictions: what runs teach about students, known and unknown. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/synthesizer/predict.h"

#define EPOCH 50e3
#define MOST 64
#define DRAWS 4000

static struct arena *arena;

static int begin(void **state)
{
    (void)state;
    arena = arena_new();
    return arena ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    arena = arena_free(arena);
    return 0;
}

static void learn(const struct predict_run *runs, int n, struct predictor *ret)
{
    struct err err = {0};
    if (predict_learn(runs, n, arena, ret, &err) < 0)
        fail_msg("%s", err.message);
}

/* A network like the original but for these shares of its products and parameters, in powers of
 * two, and of this depth. */
static void traits_of(double macs, double parameters, double *ret)
{
    for (int i = 0; i < PREDICT_TRAITS; i++)
        ret[i] = 0;
    ret[PREDICT_LEVEL] = 1;
    ret[PREDICT_MACS] = macs;
    ret[PREDICT_PARAMETERS] = parameters;
}

static double way(double epochs)
{
    return log1p(PREDICT_HALF / (epochs * EPOCH));
}

static struct predict_run run_of(int student, double macs, double epochs, double log_error)
{
    struct predict_run run = {
        .student = student, .samples = epochs * EPOCH, .log_error = log_error, .deviation = 0.01};
    traits_of(macs, macs, run.traits);
    return run;
}

static struct predicted at(const struct predictor *model, int student, double macs, double epochs)
{
    double traits[PREDICT_TRAITS];
    traits_of(macs, macs, traits);
    return predict_at(model, traits, student, epochs * EPOCH);
}

static void beforehand_more_is_better_and_little_is_sure(void **state)
{
    (void)state;
    struct predictor model;
    learn(NULL, 0, &model);
    const struct predicted big = at(&model, PREDICT_NOBODY, -1, 100),
                           small = at(&model, PREDICT_NOBODY, -3, 100),
                           young = at(&model, PREDICT_NOBODY, -1, 5);
    assert_true(big.log_error < small.log_error);
    assert_true(big.log_error < young.log_error);
    assert_true(big.deviation > 0.2);
    assert_true(small.deviation > big.deviation);
    /* ResNet-20, with a third of ResNet-56's products and parameters, makes 1.25 times its errors
     */
    const double ratio = small.log_error - at(&model, PREDICT_NOBODY, -3 + 1.63, 100).log_error;
    assert_true(fabs(ratio - log(8.27 / 6.61)) < 0.06);
}

/* A student's own run says more about it than others' do, and long ones more than short ones. */
static void what_was_seen_is_believed(void **state)
{
    (void)state;
    const struct predict_run runs[] = {run_of(0, -1, 5, 1.4), run_of(0, -1, 25, 0.7),
                                       run_of(1, -1, 5, 1.0)};
    struct predictor model;
    learn(runs, 3, &model);
    assert_true(fabs(at(&model, 0, -1, 25).log_error - 0.7) < 0.03);
    assert_true(fabs(at(&model, 1, -1, 5).log_error - 1.0) < 0.05);
    const struct predicted known = at(&model, 0, -1, 100), begun = at(&model, 1, -1, 100),
                           unknown = at(&model, PREDICT_NOBODY, -1, 100);
    assert_true(known.log_error < 0.7);
    assert_true(begun.log_error < known.log_error);
    assert_true(known.deviation < begun.deviation);
    assert_true(begun.deviation < unknown.deviation);
}

/* As errors might come about; a student's own level is drawn beside it. */
static double truth(double macs, double epochs, double own)
{
    return 0.1 - 0.2 * macs + 0.8 * way(epochs) + own;
}

static int many_runs(struct predict_run *runs, double own)
{
    struct rng rng;
    int n = 0;
    rng_seed(&rng, 3);
    for (int student = 0; student < 16; student++) {
        const double macs = -(student % 4), level = own * rng_normal(&rng);
        for (double epochs = 5; epochs < (student < 4 ? 100 : 6); epochs *= 4)
            runs[n++] = run_of(student, macs, epochs, truth(macs, epochs, level));
    }
    return n;
}

static void others_runs_tell_what_newcomers_will_reach(void **state)
{
    (void)state;
    struct predict_run runs[MOST];
    struct predictor model;
    learn(runs, many_runs(runs, 0.03), &model);
    for (double macs = -3.5; macs <= 0; macs += 0.5) {
        const struct predicted p = at(&model, PREDICT_NOBODY, macs, 80);
        const double miss = p.log_error - truth(macs, 80, 0);
        if (fabs(miss) > 0.06)
            fail_msg("2^%g: off by %g", macs, miss);
        assert_true(p.deviation < 0.12);
        assert_true(fabs(miss) < 2 * p.deviation);
    }
}

/* Draws are spread as predictions say, around the same mean. */
static void draws_are_as_likely_as_predictions_say(void **state)
{
    (void)state;
    struct predict_run runs[MOST];
    struct predictor model;
    struct rng rng;
    struct err err = {0};
    double traits[PREDICT_TRAITS], sum = 0, squares = 0;
    learn(runs, many_runs(runs, 0.03), &model);
    traits_of(-1.5, -1.5, traits);
    traits[PREDICT_SEPARABLE] = 0.5; /* which no run says anything about */
    rng_seed(&rng, 1);
    for (int i = 0; i < DRAWS; i++) {
        struct predict_weights weights;
        assert_int_equal(predict_draw(&model, &rng, NULL, 0, NULL, &weights, &err), 0);
        const double drawn = predict_drawn(&weights, traits, 80 * EPOCH);
        sum += drawn;
        squares += drawn * drawn;
    }
    const double mean = sum / DRAWS, deviation = sqrt(squares / DRAWS - mean * mean);
    const struct predicted p = predict_at(&model, traits, PREDICT_NOBODY, 80 * EPOCH);
    assert_true(fabs(mean - p.log_error) < 0.01);
    /* but for what is particular to one student: 0.06, its pace, and the seed's 0.02 */
    const double own = hypot(hypot(0.06, 0.1 * way(80)), 0.02);
    assert_true(fabs(hypot(deviation, own) - p.deviation) < 0.01);
}

/* What students may reach together: each as its prediction says, and those that are alike reach
 * more or less together. */
static void samples_go_together_as_students_do(void **state)
{
    (void)state;
    enum { POINTS = 3 };
    struct predict_run runs[MOST];
    double traits[POINTS][PREDICT_TRAITS], sum[POINTS] = {0}, product[POINTS][POINTS] = {{0}};
    struct predictor model;
    struct rng rng;
    struct err err = {0};
    learn(runs, many_runs(runs, 0.03), &model);
    const struct predict_point points[POINTS] = {
        {traits[0], 5, 80 * EPOCH}, {traits[1], 9, 80 * EPOCH}, {traits[2], 1, 20 * EPOCH}};
    for (int i = 0; i < POINTS; i++) /* which are those of the runs */
        traits_of(-(points[i].student % 4), -(points[i].student % 4), traits[i]);
    rng_seed(&rng, 2);
    for (int draw = 0; draw < DRAWS; draw++) {
        double y[POINTS];
        assert_int_equal(predict_draw(&model, &rng, points, POINTS, y, NULL, &err), 0);
        for (int i = 0; i < POINTS; i++) {
            sum[i] += y[i] / DRAWS;
            for (int k = 0; k < POINTS; k++)
                product[i][k] += y[i] * y[k] / DRAWS;
        }
    }
    for (int i = 0; i < POINTS; i++) {
        const struct predicted p =
            predict_at(&model, traits[i], points[i].student, points[i].samples);
        assert_true(fabs(sum[i] - p.log_error) < 0.005);
        assert_true(fabs(sqrt(product[i][i] - sum[i] * sum[i]) - p.deviation) < 0.005);
    }
    const double alike = product[0][1] - sum[0] * sum[1], own = product[0][0] - sum[0] * sum[0];
    assert_true(alike > 0);
    assert_true(alike < own);
}

static void the_same_seed_draws_the_same(void **state)
{
    (void)state;
    struct predict_run runs[MOST];
    struct predictor model;
    struct err err = {0};
    struct predict_weights a, b;
    learn(runs, many_runs(runs, 0.03), &model);
    for (int i = 0; i < 2; i++) {
        struct rng rng;
        rng_seed(&rng, 5);
        assert_int_equal(predict_draw(&model, &rng, NULL, 0, NULL, i ? &b : &a, &err), 0);
    }
    for (int i = 0; i < PREDICT_WEIGHTS; i++)
        assert_true(a.of[i] == b.of[i]);
}

static void what_is_no_number_is_an_error(void **state)
{
    (void)state;
    const struct predict_run runs[] = {run_of(0, NAN, 5, 1)};
    struct predictor model;
    struct err err = {0};
    assert_int_equal(predict_learn(runs, 1, arena, &model, &err), -ERR_INTERNAL);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(beforehand_more_is_better_and_little_is_sure),
        TEST(what_was_seen_is_believed),
        TEST(others_runs_tell_what_newcomers_will_reach),
        TEST(draws_are_as_likely_as_predictions_say),
        TEST(samples_go_together_as_students_do),
        TEST(the_same_seed_draws_the_same),
        TEST(what_is_no_number_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
