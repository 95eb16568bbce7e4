/* How time is spent on students: rungs, predictions, what is worth going on with. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/synthesizer/predict.h"
#include "services/synthesizer/rungs.h"

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * fmax(1, fabs(b))))
        fail_msg("%.12g is not %.12g", a, b);
}

/* ---- rungs ---- */

/* What a race spends, all students alike, and how many are in each rung. */
static int race(double seconds, double epoch_s, int students[4], double spent[4])
{
    int n = 0, way = 0;
    const struct rung_first *first;
    while ((first = rungs_first(way++)) != NULL)
        if (seconds * first->share >= epoch_s * first->epochs * first->students)
            break;
    if (!first)
        return 0;
    struct rung r = {first->students, seconds * first->share};
    double left = seconds, spent_on_one = 0;
    while (r.students > 0 && n < 4) {
        students[n] = r.students;
        spent[n++] = r.seconds;
        left -= r.seconds;
        spent_on_one += r.seconds / r.students;
        r = rungs_next(n, r.students, left, spent_on_one);
    }
    return n;
}

static void the_finals_get_half_of_two_hours(void **state)
{
    (void)state;
    int students[4];
    double spent[4];
    assert_int_equal(race(6600, 25, students, spent), 3);
    assert_int_equal(students[0], 8);
    assert_int_equal(students[1], 3);
    assert_int_equal(students[2], 1);
    near(spent[0], 0.2 * 6600);
    near(spent[1], 0.3 * 6600);
    near(spent[2], 0.5 * 6600);
}

static void any_time_is_spent_to_the_end_and_no_more(void **state)
{
    (void)state;
    for (double seconds = 60; seconds < 40000; seconds *= 1.3) {
        int students[4];
        double spent[4], sum = 0;
        const int n = race(seconds, 14, students, spent);
        assert_in_range(n, 1, RUNGS_MOST);
        for (int i = 0; i < n; i++) {
            sum += spent[i];
            assert_true(i == 0 || students[i] < students[i - 1]);
        }
        near(sum, seconds);
    }
    int students[4];
    double spent[4];
    assert_int_equal(race(20, 14, students, spent), 0);
    assert_int_equal(race(-5, 14, students, spent), 0);
}

/* Each way is easier than the one before. */
static void ways_to_begin_fall(void **state)
{
    (void)state;
    int n = 1;
    for (; rungs_first(n); n++) {
        const struct rung_first *a = rungs_first(n - 1), *b = rungs_first(n);
        assert_true(b->students < a->students);
        assert_true(b->students * b->epochs / b->share < a->students * a->epochs / a->share);
    }
    assert_int_equal(rungs_first(n - 1)->students, 1);
    assert_null(rungs_first(-1));
}

static void one_alone_goes_on_where_it_pays(void **state)
{
    (void)state;
    assert_int_equal(rungs_next(1, 1, 49, 100).students, 0);
    assert_int_equal(rungs_next(1, 1, 500, 100).students, 1);
    near(rungs_next(1, 1, 500, 100).seconds, 500);
    assert_int_equal(rungs_next(RUNGS_MOST, 4, 1000, 10).students, 0);
    assert_int_equal(rungs_next(1, 4, 0, 10).students, 0);
    assert_int_equal(rungs_next(1, 0, 1000, 10).students, 0);
    assert_int_equal(rungs_next(1, 3, 1000, 10).students, 1);
    near(rungs_next(1, 3, 1000, 10).seconds, 1000);
}

static void epochs_are_shared_evenly(void **state)
{
    (void)state;
    const double epoch_s[] = {10, 20, 30};
    assert_int_equal(rungs_epochs(600, epoch_s, 3), 10);
    assert_int_equal(rungs_epochs(659, epoch_s, 3), 10);
    assert_int_equal(rungs_epochs(119, epoch_s, 3), 0);
    assert_int_equal(rungs_epochs(1e9, epoch_s, 3), RUNGS_MOST_EPOCHS);
    assert_int_equal(rungs_epochs(100, epoch_s, 0), 0);
}

/* ---- predictions ---- */

static void a_power_law_is_found_and_carried_on(void **state)
{
    (void)state;
    double epochs[3], errors[3];
    for (int i = 0; i < 3; i++) {
        epochs[i] = 5 * pow(3, i);
        errors[i] = 0.4 * pow(epochs[i], -0.3);
    }
    const struct learned known = {3, epochs, errors}, fresh = {1, epochs, errors};
    const struct learned both[] = {fresh, known};
    near(predict_exponent(both, 2), 0.3);
    near(predict_error(&known, 0.3, 200), 0.4 * pow(200, -0.3));
    near(predict_error(&fresh, 0.3, 200), 0.4 * pow(200, -0.3));
    near(predict_error(&known, 0.3, 1), errors[2]); /* what is learned is not forgotten */
}

static void without_knowledge_the_usual_exponent_is_taken(void **state)
{
    (void)state;
    const double epochs[] = {5, 10}, worse[] = {0.2, 0.3}, none[] = {0, 0};
    const struct learned fresh = {1, epochs, worse}, rising = {2, epochs, worse},
                         perfect = {2, epochs, none};
    near(predict_exponent(&fresh, 1), PREDICT_EXPONENT);
    near(predict_exponent(&fresh, 0), PREDICT_EXPONENT);
    near(predict_exponent(&perfect, 1), PREDICT_EXPONENT);
    near(predict_exponent(&rising, 1), 0); /* nothing is to be hoped for */
}

static void chances_and_worth(void **state)
{
    (void)state;
    near(predict_chance(0.08, 0.08, 0.01), 0.5);
    assert_true(predict_chance(0.06, 0.08, 0.01) > 0.97);
    assert_true(predict_chance(0.10, 0.08, 0.01) < 0.03);
    near(predict_chance(0.07, 0.08, 0), 1);
    near(predict_chance(0.09, 0.08, 0), 0);
    near(predict_worth(0.5, 100, 200), 0.5 * log(2));
    near(predict_worth(1, 200, 200), 0);
    near(predict_worth(1, 300, 200), 0);
    /* Twice as fast with half of the chance is worth less than a certain 1.5. */
    assert_true(predict_worth(0.5, 100, 200) < predict_worth(1, 200 / 1.5, 200));
}

/* What is expected to be no better may turn out to be, but not by much. */
static void a_gain_is_weighed_by_its_chance(void **state)
{
    (void)state;
    near(predict_gain(0.05, 0.08, 0), 0.03);
    near(predict_gain(0.09, 0.08, 0), 0);
    near(predict_gain(0.08, 0.08, 0.01), 0.01 / sqrt(2 * acos(-1)));
    assert_true(fabs(predict_gain(0.02, 0.08, 0.01) - 0.06) < 1e-6);
    assert_true(predict_gain(0.09, 0.08, 0.01) > 0);
    assert_true(predict_gain(0.09, 0.08, 0.01) < predict_gain(0.085, 0.08, 0.01));
}

/* Those of a job before may be many: no more go on for that. */
static void many_that_come_are_no_more_that_go_on(void **state)
{
    (void)state;
    assert_int_equal(rungs_next(1, 12, 1000, 10).students, 4);
    assert_int_equal(rungs_next(1, 30, 1000, 10).students, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_finals_get_half_of_two_hours),
        cmocka_unit_test(any_time_is_spent_to_the_end_and_no_more),
        cmocka_unit_test(ways_to_begin_fall),
        cmocka_unit_test(one_alone_goes_on_where_it_pays),
        cmocka_unit_test(epochs_are_shared_evenly),
        cmocka_unit_test(a_power_law_is_found_and_carried_on),
        cmocka_unit_test(without_knowledge_the_usual_exponent_is_taken),
        cmocka_unit_test(chances_and_worth),
        cmocka_unit_test(a_gain_is_weighed_by_its_chance),
        cmocka_unit_test(many_that_come_are_no_more_that_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
