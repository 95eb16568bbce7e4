/* Who is enrolled. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/synthesizer/enrol.h"

#define STUDENTS 200
#define ORIGINAL_MACS 100e6

static struct arena *arena;
static struct space_student students[STUDENTS];
static const struct space space = {.n_students = STUDENTS, .students = students};

/* Of ever fewer products, which cost as much; every other one is separable. */
static int begin(void **state)
{
    (void)state;
    arena = arena_new();
    for (int i = 0; i < STUDENTS; i++) {
        const double share = -5.0 * i / STUDENTS;
        students[i] = (struct space_student){.macs = (int64_t)(ORIGINAL_MACS * exp2(share)),
                                             .cost = 1000 * exp2(share)};
        students[i].traits[PREDICT_LEVEL] = 1;
        students[i].traits[PREDICT_MACS] = students[i].traits[PREDICT_PARAMETERS] = share;
        students[i].traits[PREDICT_SEPARABLE] = i % 2;
    }
    return arena ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    arena = arena_free(arena);
    return 0;
}

static struct forecast forecast_of(const struct predict_run *runs, int n)
{
    struct forecast f = {.reference = 0.06, .n_train = 50000};
    struct err err = {0};
    assert_int_equal(predict_learn(runs, n, arena, &f.model, &err), 0);
    return f;
}

static const struct enrolment usual = {.most_cost = 800,
                                       .least_cost = 20,
                                       .error_limit = 0.065,
                                       .samples_macs = 5e6 * ORIGINAL_MACS / 2,
                                       .seed = 1};

static int choose(const struct forecast *f, const struct enrolment *e, int most, int *ret)
{
    struct err err = {0};
    const int n = enrol_choose(f, &space, e, most, ret, &err);
    assert_in_range(n, 0, most);
    for (int i = 0; i < n; i++) {
        const struct space_student *s = &students[ret[i]];
        assert_true(s->cost <= e->most_cost && s->cost > e->least_cost);
        for (int k = 0; k < i; k++)
            assert_false(
                enrol_alike(s->traits, s->cost, students[ret[k]].traits, students[ret[k]].cost));
    }
    return n;
}

/* Who knows little tries this and that. */
static void those_who_know_little_spread(void **state)
{
    (void)state;
    const struct forecast f = forecast_of(NULL, 0);
    int chosen[8], separable = 0;
    double least = INFINITY, most = 0;
    assert_int_equal(choose(&f, &usual, 8, chosen), 8);
    for (int i = 0; i < 8; i++) {
        separable += students[chosen[i]].traits[PREDICT_SEPARABLE] == 1;
        least = fmin(least, students[chosen[i]].cost);
        most = fmax(most, students[chosen[i]].cost);
    }
    assert_in_range(separable, 1, 7);
    assert_true(most > 2 * least);
}

/* Runs of students that only differ in their products, to the end: those with a fifth of them just
 * keep the limit. Separable ones are twice as bad. */
static int much_is_known(struct predict_run *runs)
{
    int n = 0;
    for (int i = 0; i < STUDENTS; i += 8)
        for (int k = 0; k < 2; k++) {
            const struct space_student *s = &students[i + k];
            const double samples = usual.samples_macs / (double)s->macs;
            struct predict_run run = {.student = n, .samples = samples, .deviation = 0.01};
            for (int t = 0; t < PREDICT_TRAITS; t++)
                run.traits[t] = s->traits[t];
            run.log_error = log(0.065 / 0.06) - 0.2 * (s->traits[PREDICT_MACS] + log2(5)) +
                            k * log(2) + log1p(PREDICT_HALF / samples);
            runs[n++] = run;
        }
    return n;
}

static void those_who_know_go_to_the_limit(void **state)
{
    (void)state;
    struct predict_run runs[2 * STUDENTS];
    const struct forecast f = forecast_of(runs, much_is_known(runs));
    int chosen[4];
    const int n = choose(&f, &usual, 4, chosen);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        const struct space_student *s = &students[chosen[i]];
        print_message("%.1f, separable %g\n", s->cost, s->traits[PREDICT_SEPARABLE]);
        assert_true(s->traits[PREDICT_SEPARABLE] == 0);
        assert_in_range((int)s->cost, 150, 420);
    }
}

/* Who is there already and keeps the limit for sure is to be beaten; who does not is no bar. */
static void whoever_begins_may_be_better_than_those_there(void **state)
{
    (void)state;
    const struct space_student *one = &students[STUDENTS / 2];
    struct predict_run run = {.samples = 1e7, .log_error = -3, .deviation = 0.01};
    const struct enrol_known known = {.cost = 200, .at = {one->traits, 0, 1e7}};
    struct enrolment e = usual;
    int chosen[8], without[8];
    for (int t = 0; t < PREDICT_TRAITS; t++)
        run.traits[t] = one->traits[t];
    struct forecast f = forecast_of(&run, 1);
    e.known = &known;
    e.n_known = 1;
    int n = choose(&f, &e, 8, chosen);
    assert_true(n > 0);
    for (int i = 0; i < n; i++)
        assert_true(students[chosen[i]].cost <= 0.95 * 200);
    run.log_error = 3;
    f = forecast_of(&run, 1);
    n = choose(&f, &e, 8, chosen);
    e.n_known = 0;
    assert_int_equal(choose(&f, &e, 8, without), n);
    for (int i = 0; i < n; i++)
        assert_int_equal(chosen[i], without[i]);
}

/* With a limit on costs who is there is a bar by its errors: those with fewer products, of whom
 * much is known, have more. */
static void whoever_begins_within_a_limit_on_costs_may_have_fewer_errors(void **state)
{
    (void)state;
    struct predict_run runs[2 * STUDENTS];
    const struct forecast f = forecast_of(runs, much_is_known(runs));
    const struct enrol_known known = {.cost = 1, .at = {students[0].traits, 0, 1e8}};
    struct enrolment e = usual;
    int chosen[8];
    e.turned = true;
    e.most_cost = 200;
    assert_true(choose(&f, &e, 8, chosen) > 0);
    e.known = &known;
    e.n_known = 1;
    assert_int_equal(choose(&f, &e, 8, chosen), 0);
}

/* With a limit on costs, and where nobody is likely to keep the limit on the error, the best are
 * tried. */
static void without_a_way_to_be_cheaper_the_best_are_tried(void **state)
{
    (void)state;
    struct predict_run runs[2 * STUDENTS];
    const struct forecast f = forecast_of(runs, much_is_known(runs));
    for (int turned = 0; turned < 2; turned++) {
        struct enrolment e = usual;
        int chosen[2];
        e.turned = turned;
        e.error_limit = turned ? 1 : 0.001;
        e.samples_macs *= 1000; /* everybody has time to learn */
        assert_true(choose(&f, &e, 2, chosen) > 0);
        assert_true(students[chosen[0]].cost > 600);
    }
}

static void nobody_is_eligible_where_bounds_exclude_all(void **state)
{
    (void)state;
    const struct forecast f = forecast_of(NULL, 0);
    struct enrolment e = usual;
    int chosen[4];
    e.most_cost = 15;
    e.least_cost = 10;
    assert_int_equal(choose(&f, &e, 4, chosen), 0);
    e = usual;
    assert_int_equal(choose(&f, &e, 0, chosen), 0);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(those_who_know_little_spread),
        TEST(those_who_know_go_to_the_limit),
        TEST(whoever_begins_may_be_better_than_those_there),
        TEST(whoever_begins_within_a_limit_on_costs_may_have_fewer_errors),
        TEST(without_a_way_to_be_cheaper_the_best_are_tried),
        TEST(nobody_is_eligible_where_bounds_exclude_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
