/* Optimizers against the papers' formulas computed by hand, in double. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/train/optimizer.h"

enum { N = 37 }; /* no multiple of a vector */

struct setup {
    struct train_param params[2];
    struct train_param *list[2];
    float value[2][N], grad[2][N];
    struct rng rng;
    struct optimizer *o;
};

static void open_setup(struct setup *s, const struct optimizer_options *options,
                       enum train_role second)
{
    memset(s, 0, sizeof(*s));
    rng_seed(&s->rng, 3);
    for (int p = 0; p < 2; p++) {
        s->params[p] = (struct train_param){.name = p ? "b" : "w",
                                            .role = p ? second : TRAIN_WEIGHT,
                                            .n = N,
                                            .value = s->value[p],
                                            .grad = s->grad[p]};
        s->list[p] = &s->params[p];
        for (int i = 0; i < N; i++)
            s->value[p][i] = (float)rng_normal(&s->rng);
    }
    assert_int_equal(optimizer_new(s->list, 2, options, &s->o, NULL), 0);
}

static void draw_gradients(struct setup *s)
{
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < N; i++)
            s->grad[p][i] = (float)rng_normal(&s->rng);
}

static void step(struct setup *s, double rate)
{
    struct err err = {0};
    if (optimizer_step(s->o, rate, NULL, &err) < 0)
        fail_msg("%s", err.message);
}

static void near(double got, double want)
{
    if (fabs(got - want) > 2e-6 * (1 + fabs(want)))
        fail_msg("%.9g instead of %.9g", got, want);
}

/* ---- SGD ---- */

/* Sutskever and others' form, as everybody computes it: three steps at changing rates. */
static void check_sgd(const struct optimizer_options *options)
{
    struct setup s;
    double w[2][N], v[2][N] = {{0}};
    open_setup(&s, options, TRAIN_BIAS);
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < N; i++)
            w[p][i] = (double)s.value[p][i];
    for (int t = 0; t < 3; t++) {
        const double rate = 0.1 / (t + 1);
        draw_gradients(&s);
        step(&s, rate);
        for (int p = 0; p < 2; p++)
            for (int i = 0; i < N; i++) {
                const double decay = p == 0 ? options->decay : 0;
                const double g = (double)s.grad[p][i] + (options->decoupled ? 0 : decay * w[p][i]);
                v[p][i] = options->momentum * v[p][i] + g;
                const double d = options->nesterov ? g + options->momentum * v[p][i] : v[p][i];
                w[p][i] -= rate * (d + (options->decoupled ? decay * w[p][i] : 0));
                near((double)s.value[p][i], w[p][i]);
            }
    }
    optimizer_free(s.o);
}

static void sgd_is_sgd(void **state)
{
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        struct optimizer_options options = optimizer_defaults(OPTIMIZER_SGD);
        options.nesterov = kind & 1;
        options.decoupled = kind & 2;
        options.decay = 0.1;
        options.momentum = kind & 4 ? 0.9 : 0;
        check_sgd(&options);
    }
}

/* ---- Adam ---- */

static void check_adam(bool decoupled)
{
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_ADAM);
    struct setup s;
    double w[2][N], m[2][N] = {{0}}, v[2][N] = {{0}};
    options.decay = 0.1;
    options.decoupled = decoupled;
    open_setup(&s, &options, TRAIN_NORM_SCALE);
    for (int p = 0; p < 2; p++)
        for (int i = 0; i < N; i++)
            w[p][i] = (double)s.value[p][i];
    for (int t = 1; t <= 4; t++) {
        draw_gradients(&s);
        step(&s, 0.01);
        for (int p = 0; p < 2; p++)
            for (int i = 0; i < N; i++) {
                const double decay = p == 0 ? 0.1 : 0;
                const double g = (double)s.grad[p][i] + (decoupled ? 0 : decay * w[p][i]);
                m[p][i] = 0.9 * m[p][i] + 0.1 * g;
                v[p][i] = 0.999 * v[p][i] + 0.001 * g * g;
                const double d =
                    m[p][i] / (1 - pow(0.9, t)) / (sqrt(v[p][i] / (1 - pow(0.999, t))) + 1e-8);
                w[p][i] -= 0.01 * (d + (decoupled ? decay * w[p][i] : 0));
                near((double)s.value[p][i], w[p][i]);
            }
    }
    assert_int_equal(optimizer_steps(s.o), 4);
    optimizer_free(s.o);
}

static void adam_is_adam(void **state)
{
    (void)state;
    check_adam(false);
    check_adam(true);
}

/* ---- what both do ---- */

static void only_weights_decay(void **state)
{
    (void)state;
    static const enum train_role roles[] = {TRAIN_BIAS, TRAIN_NORM_SCALE, TRAIN_NORM_SHIFT,
                                            TRAIN_SLOPE};
    for (int kind = 0; kind < 8; kind++) {
        struct optimizer_options options =
            optimizer_defaults(kind & 1 ? OPTIMIZER_ADAM : OPTIMIZER_SGD);
        struct setup s;
        options.decay = 0.5;
        open_setup(&s, &options, roles[kind / 2]);
        const float weight = s.value[0][0], other = s.value[1][0];
        step(&s, 0.1); /* all gradients are zero */
        assert_true(fabsf(s.value[0][0]) < fabsf(weight));
        assert_true(s.value[1][0] == other);
        optimizer_free(s.o);
    }
}

static void long_gradients_are_shortened_and_short_ones_kept(void **state)
{
    (void)state;
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_SGD);
    options.momentum = 0;
    options.decay = 0;
    options.clip = 2;
    struct setup s;
    double norm = 0;
    open_setup(&s, &options, TRAIN_BIAS);
    memset(s.value, 0, sizeof(s.value));
    s.grad[0][3] = 3;
    s.grad[1][5] = 4; /* the length is 5, over both parameters */
    assert_int_equal(optimizer_step(s.o, 1, &norm, NULL), 0);
    near(norm, 5);
    near((double)s.value[0][3], -3 * 2.0 / 5);
    near((double)s.value[1][5], -4 * 2.0 / 5);
    memset(s.value, 0, sizeof(s.value));
    s.grad[0][3] = 1;
    s.grad[1][5] = 1;
    step(&s, 1);
    near((double)s.value[0][3], -1);
    optimizer_free(s.o);
}

static void shifts_of_norms_may_go_at_a_rate_of_their_own(void **state)
{
    (void)state;
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_SGD);
    options.momentum = 0;
    options.decay = 0;
    options.shift_rate = 64;
    struct setup s;
    open_setup(&s, &options, TRAIN_NORM_SHIFT);
    memset(s.value, 0, sizeof(s.value));
    s.grad[0][0] = s.grad[1][0] = 1;
    step(&s, 0.5);
    near((double)s.value[0][0], -0.5);
    near((double)s.value[1][0], -32);
    optimizer_free(s.o);
}

static void shifts_of_norms_may_decay_as_weights_do(void **state)
{
    (void)state;
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_SGD);
    options.momentum = 0;
    options.decay = 0.1;
    options.shift_rate = 64;
    options.decay_shifts = true;
    struct setup s;
    open_setup(&s, &options, TRAIN_NORM_SHIFT);
    s.value[0][0] = s.value[1][0] = 3;
    s.grad[0][0] = s.grad[1][0] = 0;
    step(&s, 0.5);
    near((double)s.value[0][0], 3 * 0.95);
    near((double)s.value[1][0], 3 * 0.95);
    optimizer_free(s.o);
}

static void scales_of_norms_may_stay(void **state)
{
    (void)state;
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_SGD);
    options.keep_scales = true;
    struct setup s;
    open_setup(&s, &options, TRAIN_NORM_SCALE);
    const float before = s.value[1][0], weight = s.value[0][0];
    s.grad[0][0] = s.grad[1][0] = 1;
    step(&s, 0.5);
    assert_true(s.value[1][0] == before);
    assert_true(s.value[0][0] < weight);
    optimizer_free(s.o);
}

static void gradients_that_are_not_finite_change_nothing(void **state)
{
    (void)state;
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_SGD);
    struct setup s;
    struct err err = {0};
    float before[2][N];
    open_setup(&s, &options, TRAIN_BIAS);
    draw_gradients(&s);
    memcpy(before, s.value, sizeof(before));
    s.grad[1][N - 1] = NAN;
    assert_int_equal(optimizer_step(s.o, 0.1, NULL, &err), -ERR_OUT_OF_RANGE);
    assert_non_null(strstr(err.message, "no longer finite"));
    s.grad[1][N - 1] = INFINITY;
    assert_int_equal(optimizer_step(s.o, 0.1, NULL, &err), -ERR_OUT_OF_RANGE);
    assert_memory_equal(before, s.value, sizeof(before));
    assert_int_equal(optimizer_steps(s.o), 0);
    optimizer_free(s.o);
}

/* A network large enough for threads: the same bits with one and with three, and when state and
 * weights are carried over to a new optimizer half-way. */
static void run_large(float *value, int threads, int carry_at)
{
    enum { LARGE = (1 << 20) + 12345 };
    _cleanup_(freep) float *grad = mem_calloc(LARGE, sizeof(*grad));
    struct train_param param = {
        .name = "w", .role = TRAIN_WEIGHT, .n = LARGE, .value = value, .grad = grad};
    struct train_param *list[] = {&param};
    struct optimizer_options options = optimizer_defaults(OPTIMIZER_ADAM);
    struct optimizer *o = NULL;
    options.threads = threads;
    options.clip = 1;
    assert_int_equal(optimizer_new(list, 1, &options, &o, NULL), 0);
    for (int t = 0; t < 3; t++) {
        struct rng rng;
        rng_seed(&rng, (uint64_t)t);
        for (int i = 0; i < LARGE; i++)
            grad[i] = (float)rng_f64(&rng) - 0.5f;
        if (t == carry_at) {
            struct optimizer *next = NULL;
            int64_t n, m;
            assert_int_equal(optimizer_new(list, 1, &options, &next, NULL), 0);
            const float *from = optimizer_state(o, &n);
            float *to = optimizer_state(next, &m);
            assert_int_equal(n, m);
            assert_int_equal(n, 2 * LARGE);
            memcpy(to, from, (size_t)n * sizeof(*to));
            optimizer_set_steps(next, optimizer_steps(o));
            optimizer_free(o);
            o = next;
        }
        assert_int_equal(optimizer_step(o, 0.01, NULL, NULL), 0);
    }
    optimizer_free(o);
}

static void threads_and_carrying_over_change_no_bit(void **state)
{
    (void)state;
    enum { LARGE = (1 << 20) + 12345 };
    float *first = mem_calloc(LARGE, sizeof(float)), *other = mem_calloc(LARGE, sizeof(float));
    run_large(first, 1, -1);
    run_large(other, 3, 2);
    assert_memory_equal(first, other, LARGE * sizeof(float));
    free(first);
    free(other);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sgd_is_sgd),
        cmocka_unit_test(adam_is_adam),
        cmocka_unit_test(only_weights_decay),
        cmocka_unit_test(long_gradients_are_shortened_and_short_ones_kept),
        cmocka_unit_test(shifts_of_norms_may_go_at_a_rate_of_their_own),
        cmocka_unit_test(shifts_of_norms_may_decay_as_weights_do),
        cmocka_unit_test(scales_of_norms_may_stay),
        cmocka_unit_test(gradients_that_are_not_finite_change_nothing),
        cmocka_unit_test(threads_and_carrying_over_change_no_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
