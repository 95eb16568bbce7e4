/* What a job asks of networks: limits, and which of two is better. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/work/goal.h"

struct job {
    job_state state;
    Hone__V1__JobSpec spec;
    Hone__V1__DataInfo data;
    job_network original, network, *finals[1];
    Hone__V1__Timing timing, *timings[1];
    Hone__V1__Accuracy searched, tested, *accuracies[2];
};

static void accuracy(Hone__V1__Accuracy *a, const char *part, double drop)
{
    hone__v1__accuracy__init(a);
    a->part = (char *)part;
    a->engine = (char *)"hone";
    a->drop_points = drop;
    a->drop_upper95_points = drop + 0.25;
}

/* A network of 50 us and 1000 bytes that drops 0.5 points, at most 0.75, of one point allowed. */
static struct job *make(void)
{
    static struct job j;
    hone__v1__job_state__init(&j.state);
    hone__v1__job_spec__init(&j.spec);
    hone__v1__data_info__init(&j.data);
    hone__v1__network__init(&j.original);
    hone__v1__network__init(&j.network);
    hone__v1__timing__init(&j.timing);
    j.timing.engine = (char *)"hone";
    j.timing.p50_us = 50;
    j.timings[0] = &j.timing;
    accuracy(&j.searched, "search", 0.4);
    accuracy(&j.tested, "test", 0.5);
    j.accuracies[0] = &j.searched;
    j.accuracies[1] = &j.tested;
    j.network.timings = j.timings;
    j.network.n_timings = 1;
    j.network.accuracies = j.accuracies;
    j.network.n_accuracies = 2;
    j.network.bytes = 1000;
    j.network.drop_points = 0.5;
    j.network.drop_upper95_points = 0.75;
    j.finals[0] = &j.network;
    j.spec.max_drop = 1;
    j.state.spec = &j.spec;
    j.state.data = &j.data;
    j.state.baseline = &j.original;
    j.state.finals = j.finals;
    j.state.n_finals = 1;
    return &j;
}

static void near(double a, double b)
{
    if (!(fabs(a - b) <= 1e-9 * fmax(1, fabs(b))))
        fail_msg("%.12g is not %.12g", a, b);
}

static void usually_what_costs_least_is_wanted(void **state)
{
    (void)state;
    struct job *j = make();
    assert_false(goal_turned(&j->spec));
    near(goal_value(&j->state, &j->network), 50);
    near(goal_expected(&j->state, &j->network), 50);
    assert_true(goal_kept(&j->state, &j->network));
    j->spec.objective = HONE__V1__OBJECTIVE__SIZE;
    near(goal_value(&j->state, &j->network), 1000);
    near(goal_cost(&j->spec, INFINITY, 7), 7);
    j->network.packed_bytes = 400;
    near(goal_value(&j->state, &j->network), 400);
}

static void with_a_limit_on_costs_what_loses_least_is_wanted(void **state)
{
    (void)state;
    struct job *j = make();
    j->spec.max_us = 100;
    assert_true(goal_turned(&j->spec));
    near(goal_value(&j->state, &j->network), 0.75);
    near(goal_expected(&j->state, &j->network), 0.4);
    near(goal_value(&j->state, &j->original), 0);
}

static void costs_are_shares_of_their_limits(void **state)
{
    (void)state;
    struct job *j = make();
    j->spec.max_us = 100;
    near(goal_cost_of(&j->state, &j->network), 0.5);
    j->spec.max_bytes = 800;
    near(goal_cost_of(&j->state, &j->network), 1.25);
    j->spec.max_us = 0;
    near(goal_cost(&j->spec, INFINITY, 400), 0.5);
    assert_true(goal_affordable(&j->spec, 1));
    assert_false(goal_affordable(&j->spec, 1.001));
}

static void every_limit_is_to_be_kept(void **state)
{
    (void)state;
    struct job *j = make();
    j->spec.max_us = 50;
    j->spec.max_bytes = 1000;
    goal_judge(&j->state);
    assert_true(j->network.within_limit);
    j->spec.max_us = 49;
    assert_false(goal_kept(&j->state, &j->network));
    j->spec.max_us = 50;
    j->spec.max_bytes = 999;
    assert_false(goal_kept(&j->state, &j->network));
    j->spec.max_bytes = 0;
    j->spec.max_drop = 0.74;
    assert_false(goal_kept(&j->state, &j->network));
    j->spec.max_drop = GOAL_ANY_DROP;
    j->network.n_timings = 0; /* it did not run */
    goal_judge(&j->state);
    assert_false(j->network.within_limit);
}

static void without_a_proof_no_limit_is_kept(void **state)
{
    (void)state;
    struct job *j = make();
    j->network.n_accuracies = 1;
    assert_false(goal_kept(&j->state, &j->network));
}

static void a_drop_may_be_limited_with_another_confidence(void **state)
{
    (void)state;
    struct job *j = make();
    near(goal_bound(&j->spec, 0.5, 0.75), 0.75);
    assert_true(fabs(goal_deviations(&j->spec) - 1.6448536) < 1e-6);
    j->spec.confidence = 0.99; /* 2.3263479 deviations */
    assert_true(fabs(goal_bound(&j->spec, 0.5, 0.75) - 0.8535797) < 1e-6);
    j->spec.confidence = 0.5;
    near(goal_bound(&j->spec, 0.5, 0.75), 0.5);
    near(goal_bound(&j->spec, 0.5, INFINITY), 0.5);
    assert_true(isinf(goal_bound(&j->spec, INFINITY, INFINITY)));
    j->spec.max_drop = 0.5;
    assert_true(goal_kept(&j->state, &j->network));
    j->spec.max_drop = 0.49;
    assert_false(goal_kept(&j->state, &j->network));
}

static void limits_have_names(void **state)
{
    (void)state;
    struct job *j = make();
    char text[GOAL_TEXT_BYTES];
    assert_string_equal(goal_text(&j->spec, text), "within 1.00 points");
    j->spec.confidence = 0.5;
    assert_string_equal(goal_text(&j->spec, text), "within 1.00 points (with 50 % confidence)");
    j->spec.confidence = 0;
    j->spec.max_us = 12500;
    assert_string_equal(goal_text(&j->spec, text), "within 1.00 points and 12.5 ms");
    j->spec.max_us = 200;
    assert_string_equal(goal_text(&j->spec, text), "within 1.00 points and 200 us");
    j->spec.max_drop = GOAL_ANY_DROP;
    assert_string_equal(goal_text(&j->spec, text), "within 200 us");
    j->spec.max_bytes = 300 * 1024;
    assert_string_equal(goal_text(&j->spec, text), "within 200 us and 307.2 KB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(usually_what_costs_least_is_wanted),
        cmocka_unit_test(with_a_limit_on_costs_what_loses_least_is_wanted),
        cmocka_unit_test(costs_are_shares_of_their_limits),
        cmocka_unit_test(every_limit_is_to_be_kept),
        cmocka_unit_test(without_a_proof_no_limit_is_kept),
        cmocka_unit_test(a_drop_may_be_limited_with_another_confidence),
        cmocka_unit_test(limits_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
