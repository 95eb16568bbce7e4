/* The stage "choose": which networks become finals, before and after a redesign. */
#include "tests/support/stage_task.h"

#include "services/synthesizer/synthesizer.h"

static struct stage stage;

static int begin(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.space = (char *)"precision"; /* no redesign comes */
    stage_begin(&stage, &spec);
    return 0;
}

static int end(void **state)
{
    (void)state;
    stage_end(&stage);
    return 0;
}

/* Measured already. */
static void candidate(job_state *s, const char *name, const char *design, double us, double value,
                      double kl, double drop)
{
    job_network *n = stage_network(name, design);
    stage_accuracy(n, "search", value, kl, drop);
    stage_timing(n, us);
    STAGE_OK(message_append(&s->candidates, &s->n_candidates, n, err));
}

static void final(job_state *s, const job_network *like)
{
    job_network *n = message_clone(like, NULL);
    stage_accuracy(n, "test", 0.919, 0.01, 0.1);
    STAGE_OK(message_append(&s->finals, &s->n_finals, n, err));
}

/* Runs the stage on the state; the state that it hands on, whose finals are these. */
static job_state *choose(job_state *s, const char *const *names)
{
    Hone__V1__MeasureResult measured = HONE__V1__MEASURE_RESULT__INIT;
    Hone__V1__Timing *timings[] = {s->baseline->timings[0], s->plain_int8->timings[0]};
    measured.timings = timings;
    measured.n_timings = 2;
    stage_result(&stage, &measured);
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    task.state = s;
    STAGE_OK(stage_run(&stage, synthesizer_choose, &task, err));
    job_state *ret = stage_handed_on(&stage, "exporter", "report");
    size_t n = 0;
    for (; names[n]; n++) {
        assert_true(n < ret->n_finals);
        assert_string_equal(ret->finals[n]->name, names[n]);
    }
    assert_int_equal(ret->n_finals, n);
    return ret;
}

static int count(const char *kind)
{
    int n = 0;
    while (stage_follow(&stage, kind, n))
        n++;
    return n;
}

static void finals_are_the_fastest_that_promise_to_keep_the_limit(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    candidate(s, "candidate-1", "", 40, 0.98, 0.05, 0.65);
    candidate(s, "candidate-2", "", 30, 0.90, 0.5, 9);
    candidate(s, "candidate-3", "", 45, 0.98, 0.06, 0.6); /* not gentler than a faster one */
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"candidate-1", "int8", NULL});
    assert_int_equal(count("prove"), 2);
    assert_int_equal(count("measure"), 1);
}

/* The drop against the original on the search part, which it has learned, says nothing of them; of
 * the 7 points that it is better there they are taken to have 0.13. */
static void students_are_judged_by_the_originals_value_on_the_test_part(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    candidate(s, "student-1", "conv:16 head", 10, 0.9271, 1, 7);
    candidate(s, "student-2", "conv:8 head", 5, 0.894, 1, 11);
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"student-1", "int8", NULL});
    assert_true(stage_decided(after, "student-1 (search part: drop 0.200"));
}

static void a_further_student_must_be_more_accurate(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    candidate(s, "student-1", "a", 10, 0.932, 1, 7);
    candidate(s, "student-2", "b", 11, 0.931, 0.5, 7); /* gentler, but slower and worse */
    candidate(s, "student-3", "c", 12, 0.934, 2, 7);
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"student-1", "student-3", "int8", NULL});
    assert_int_equal(count("prove"), 3);
}

/* They stay, are not proved again, and take nobody's place; all are measured side by side. */
static void finals_of_the_round_before_stay(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    candidate(s, "candidate-1", "", 40, 0.98, 0.05, 0.65);
    final(s, s->candidates[0]);
    final(s, s->plain_int8);
    stage_accuracy(s->plain_int8, "test", 0.919, 0.01, 0.1);
    candidate(s, "student-1", "a", 10, 0.931, 1, 7);
    candidate(s, "student-2", "b", 12, 0.932, 1, 7);
    candidate(s, "student-3", "c", 14, 0.933, 1, 7);
    candidate(s, "student-4", "d", 16, 0.934, 1, 7);
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"candidate-1", "int8", "student-1", "student-2",
                                        "student-3", NULL});
    assert_int_equal(count("prove"), 3);
    _cleanup_(message_freep) Hone__V1__MeasureTask *measure =
        stage_payload(stage_follow(&stage, "measure", 0), &hone__v1__measure_task__descriptor);
    assert_int_equal(measure->n_items, 4 + 2 * 5);
    assert_non_null(strstr(stage_event(&stage, "best"), "student-1"));
    assert_null(strstr(stage_event(&stage, "best"), "drop_points"));
}

/* What is slower than a final that keeps the limit has nothing to add. */
static void nobody_is_proved_for_nothing(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    candidate(s, "candidate-1", "", 12, 0.98, 0.05, 0.65);
    final(s, s->candidates[0]);
    s->finals[0]->within_limit = true;
    candidate(s, "student-1", "a", 10, 0.917, 1, 7);
    candidate(s, "student-2", "b", 14, 0.93, 1, 7);
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"candidate-1", "student-1", NULL});
    assert_int_equal(count("prove"), 1 + 1); /* and plain int8, which is no final */
}

/* Other limits than when they were proved: what keeps them now leaves room for what is faster. */
static void a_looser_limit_has_faster_networks_proved(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    s->redesigned = true;
    s->spec->max_drop = 20;
    candidate(s, "student-1", "a", 10, 0.918, 1, 7);
    final(s, s->candidates[0]);
    s->finals[0]->within_limit = true;
    candidate(s, "student-2", "b", 5, 0.85, 1, 14);
    candidate(s, "student-3", "c", 2, 0.60, 1, 39); /* loses too much, and more than a final */
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"student-1", "student-2", NULL});
}

static void within_a_limit_on_costs_who_loses_least_is_proved(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    s->redesigned = true;
    s->spec->max_drop = 100;
    s->spec->max_us = 20;
    candidate(s, "student-1", "a", 19, 0.915, 1, 7);
    candidate(s, "student-2", "b", 5, 0.85, 1, 14);
    candidate(s, "student-3", "c", 21, 0.92, 1, 7); /* too slow */
    candidate(s, "student-4", "d", 18, 0.80, 1, 7);
    final(s, s->candidates[1]);
    s->finals[0]->within_limit = true;
    _cleanup_(message_freep) job_state *after =
        choose(s, (const char *const[]){"student-2", "student-1", NULL});
}

/* A job has a final, whatever its limits. */
static void where_nothing_keeps_a_limit_on_costs_the_cheapest_is_proved(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_state();
    s->redesigned = true;
    s->spec->max_drop = 100;
    s->spec->max_us = 1;
    candidate(s, "student-1", "a", 19, 0.915, 1, 7);
    candidate(s, "student-2", "b", 5, 0.85, 1, 14);
    _cleanup_(message_freep) job_state *after = choose(s, (const char *const[]){"student-2", NULL});
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(finals_are_the_fastest_that_promise_to_keep_the_limit),
        TEST(students_are_judged_by_the_originals_value_on_the_test_part),
        TEST(a_further_student_must_be_more_accurate),
        TEST(finals_of_the_round_before_stay),
        TEST(nobody_is_proved_for_nothing),
        TEST(a_looser_limit_has_faster_networks_proved),
        TEST(within_a_limit_on_costs_who_loses_least_is_proved),
        TEST(where_nothing_keeps_a_limit_on_costs_the_cheapest_is_proved),
    };
    return cmocka_run_group_tests_name("choose", tests, NULL, NULL);
}
