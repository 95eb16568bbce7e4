/* What a job leaves out for ablations, and that a usual one leaves out nothing. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "services/synthesizer/ablate.h"

struct job {
    job_state state;
    Hone__V1__JobSpec spec;
    job_student student;
    Hone__V1__TrainTask train;
    Hone__V1__TrainSettings settings;
};

/* A job without this, and a training of 40 epochs. */
static struct job *make(const char *without, const char *student)
{
    static struct job j;
    hone__v1__job_state__init(&j.state);
    hone__v1__job_spec__init(&j.spec);
    hone__v1__student__init(&j.student);
    hone__v1__train_task__init(&j.train);
    hone__v1__train_settings__init(&j.settings);
    j.state.spec = &j.spec;
    j.spec.without = (char *)without;
    j.spec.seed = 7;
    j.student.name = (char *)student;
    j.train.settings = &j.settings;
    j.train.teacher = (char *)"int8";
    j.settings.distil = 0.9;
    j.settings.views = 12;
    j.settings.epochs = 40;
    j.settings.seed = 7;
    ablate_training(&j.state, &j.student, &j.train);
    return &j;
}

static void usually_nothing_is_left_out(void **state)
{
    (void)state;
    const struct job *j = make("", "student-1");
    assert_string_equal(j->train.teacher, "int8");
    assert_true(j->settings.distil == 0.9);
    assert_int_equal(j->settings.views, 12);
    assert_int_equal(j->settings.seed, 7);
}

static void students_may_learn_from_labels_alone(void **state)
{
    (void)state;
    const struct job *j = make("cache,teacher", "student-1");
    assert_string_equal(j->train.teacher, "");
    assert_true(j->settings.distil < 0); /* stands for 0: the usual one is 1 */
}

/* Answers are kept by views and seed. */
static void without_a_cache_no_answer_is_given_twice(void **state)
{
    (void)state;
    const struct job *j = make("cache", "student-1");
    const uint64_t seed = j->settings.seed;
    assert_string_equal(j->train.teacher, "int8");
    assert_int_equal(j->settings.views, 40);
    assert_int_equal(make("cache", "student-1")->settings.seed, seed); /* a run can be repeated */
    assert_true(make("cache", "student-2")->settings.seed != seed);
}

/* Equal budgets buy fewer epochs then. */
static void answers_that_are_not_kept_cost_time(void **state)
{
    (void)state;
    Hone__V1__DataInfo data = HONE__V1__DATA_INFO__INIT;
    job_network original = HONE__V1__NETWORK__INIT;
    struct job *j = make("cache", "student-1");
    j->state.data = &data;
    j->state.baseline = &original;
    data.n_train = 1000;
    original.macs = 5000000;
    assert_true(fabs(ablate_teacher_s(&j->state, 1e9) - 2) < 1e-9);
    j->spec.without = (char *)"teacher";
    assert_true(ablate_teacher_s(&j->state, 1e9) == 0);
}

enum { STUDENTS = 40 };

static void how_often(uint64_t seeds, int n, double most, double least, int hits[STUDENTS])
{
    struct job *j = make("race", "");
    struct space_student students[STUDENTS] = {{.cost = INFINITY}};
    const struct space space = {.n_students = n, .students = students};
    for (int i = 1; i < STUDENTS; i++)
        students[i].cost = i;
    for (uint64_t seed = 0; seed < seeds; seed++) {
        int drawn[ABLATE_DRAWN];
        j->spec.seed = seed;
        const int count = ablate_enrol(&j->state, &space, most, least, drawn);
        for (int i = 0; i < count; i++)
            hits[drawn[i]]++;
    }
}

static void all_students_between_the_costs_are_as_likely(void **state)
{
    (void)state;
    int hits[STUDENTS] = {0};
    how_often(2000, STUDENTS, 30, 10, hits);
    for (int i = 0; i < STUDENTS; i++)
        if (i <= 10 || i > 30)
            assert_int_equal(hits[i], 0);
        else
            assert_true(hits[i] > 300 && hits[i] < 500); /* 400 are expected */
}

static void where_there_are_few_all_take_part(void **state)
{
    (void)state;
    int hits[STUDENTS] = {0};
    how_often(1, 4, 30, 0.5, hits);
    assert_int_equal(hits[0] + hits[1] + hits[2] + hits[3], 3);
    assert_int_equal(hits[0], 0); /* it has no price */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usually_nothing_is_left_out),
        cmocka_unit_test(students_may_learn_from_labels_alone),
        cmocka_unit_test(without_a_cache_no_answer_is_given_twice),
        cmocka_unit_test(answers_that_are_not_kept_cost_time),
        cmocka_unit_test(all_students_between_the_costs_are_as_likely),
        cmocka_unit_test(where_there_are_few_all_take_part),
    };
    return cmocka_run_group_tests_name("ablate", tests, NULL, NULL);
}
