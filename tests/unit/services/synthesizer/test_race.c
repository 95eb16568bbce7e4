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

/* What a race spends, all students alike, and how many are in each rung. Newcomers are a rung of
 * their own. */
static int race(double seconds, double epoch_s, int students[4], double spent[4])
{
    int n = 0, active = 0;
    double left = seconds, spent_on_one = 0;
    for (int enrolment = 1; enrolment == 1 || (n && rungs_enrol_again(enrolment - 1, students[0]));
         enrolment++) {
        const struct rung_first *first;
        for (int way = 0; (first = rungs_first(enrolment, way)) != NULL; way++)
            if (left * first->share >= epoch_s * first->epochs * first->students)
                break;
        if (!first)
            break;
        students[n] = first->students;
        spent[n] = left * first->share;
        active += students[n];
        spent_on_one = spent[n] / students[n];
        left -= spent[n++];
    }
    if (n == 0)
        return 0;
    struct rung r;
    for (int done = 1; (r = rungs_next(done, active, left, spent_on_one)).students > 0; done++) {
        assert_true(r.students < active || done + 1 == RUNGS_MOST);
        students[n] = active = r.students;
        spent[n++] = r.seconds;
        left -= r.seconds;
        spent_on_one += r.seconds / r.students;
    }
    return n;
}

static void the_finals_get_half_of_two_hours(void **state)
{
    (void)state;
    int students[4];
    double spent[4];
    assert_int_equal(race(6600, 16, students, spent), 4);
    assert_int_equal(students[0], 12);
    assert_int_equal(students[1], 8);
    assert_int_equal(students[2], 4);
    assert_int_equal(students[3], 3); /* at most */
    near(spent[0], 0.15 * 6600);
    near(spent[1], 0.15 * 0.85 * 6600);
    assert_true(spent[3] > 0.45 * 6600);
}

static void any_time_is_spent_to_the_end_and_no_more(void **state)
{
    (void)state;
    for (double seconds = 60; seconds < 40000; seconds *= 1.3) {
        int students[4];
        double spent[4], sum = 0;
        const int n = race(seconds, 14, students, spent);
        assert_in_range(n, 1, RUNGS_MOST + RUNGS_MOST_ENROLMENTS - 1);
        for (int i = 0; i < n; i++)
            sum += spent[i];
        near(sum, seconds);
    }
    int students[4];
    double spent[4];
    assert_int_equal(race(20, 14, students, spent), 0);
    assert_int_equal(race(-5, 14, students, spent), 0);
}

/* Newcomers' rung is not one of the halving. */
static void rungs_are_counted_from_the_first_of_all(void **state)
{
    (void)state;
    assert_int_equal(rungs_done(1, 1), 1);
    assert_int_equal(rungs_done(2, 1), 2);
    assert_int_equal(rungs_done(2, 2), 1);
    assert_int_equal(rungs_done(4, 2), 3);
    assert_int_equal(rungs_done(1, 0), 1); /* those of a job before, trained on */
    assert_true(rungs_enrol_again(1, RUNGS_ENROL_AGAIN));
    assert_false(rungs_enrol_again(1, RUNGS_ENROL_AGAIN - 1)); /* so little time that few began */
    assert_false(rungs_enrol_again(2, 8));
}

/* Each way is easier than the one before. */
static void ways_to_begin_fall(void **state)
{
    (void)state;
    for (int enrolment = 1; enrolment <= RUNGS_MOST_ENROLMENTS; enrolment++) {
        int n = 1;
        for (; rungs_first(enrolment, n); n++) {
            const struct rung_first *a = rungs_first(enrolment, n - 1),
                                    *b = rungs_first(enrolment, n);
            assert_true(a->students <= RUNGS_MOST_STUDENTS);
            assert_true(b->students < a->students);
            assert_true(b->students * b->epochs / b->share < a->students * a->epochs / a->share);
        }
        assert_true(n > 1);
        assert_int_equal(rungs_first(1, 5)->students, 1); /* the last resort */
        assert_null(rungs_first(enrolment, -1));
    }
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
    assert_int_equal(rungs_next(2, 2, 1000, 10).students, 2); /* the finals: at most */
    near(rungs_next(2, 2, 1000, 10).seconds, 1000);
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

/* ---- what it is worth ---- */

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
        cmocka_unit_test(rungs_are_counted_from_the_first_of_all),
        cmocka_unit_test(ways_to_begin_fall),
        cmocka_unit_test(one_alone_goes_on_where_it_pays),
        cmocka_unit_test(epochs_are_shared_evenly),
        cmocka_unit_test(chances_and_worth),
        cmocka_unit_test(a_gain_is_weighed_by_its_chance),
        cmocka_unit_test(many_that_come_are_no_more_that_go_on),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
