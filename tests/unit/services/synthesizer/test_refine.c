/* A job that begins where another one stood: the stage "refine", and the race beside students who
 * learned before. */
#include "tests/support/stage_design.h"

#include <math.h>

#include "services/synthesizer/race.h"
#include "services/synthesizer/synthesizer.h"

static struct stage stage;

static void begin_with(double budget_s)
{
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.budget_s = budget_s;
    stage_begin(&stage, &spec);
}

static int begin(void **state)
{
    (void)state;
    begin_with(3000);
    return 0;
}

static int end(void **state)
{
    (void)state;
    stage_end(&stage);
    return 0;
}

static int run(work_handler *handle, job_state *s, struct err *err)
{
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    task.state = s;
    return stage_run(&stage, handle, &task, err);
}

/* It learned for 20 epochs in two rungs. */
static job_student *student(job_state *s, const char *design, double us, double accuracy)
{
    job_student *student = message_new(&hone__v1__student__descriptor, NULL);
    STAGE_OK(message_setf(&student->name, err, "student-%zu", s->n_students + 1));
    STAGE_OK(message_set(&student->design, design, err));
    STAGE_OK(message_setf(&student->network, err, "network of %s", student->name));
    STAGE_OK(message_set(&student->out, "after rung 2 others promise more", err));
    student->predicted_us = us;
    student->parameters = 1000;
    student->macs = 1000000;
    student->rungs = student->rung = 2;
    student->seconds = 100;
    for (int i = 0; i < 2; i++) {
        const double value = accuracy - 0.05 * (1 - i);
        STAGE_OK(message_append_f64(&student->accuracies, &student->n_accuracies, value, err));
        STAGE_OK(message_append_f64(&student->epochs, &student->n_epochs, i ? 15 : 5, err));
    }
    STAGE_OK(message_append(&s->students, &s->n_students, student, err));
    return student;
}

/* A job that ended: plain int8 was proved, two students of 10 and 30 us learned, the first was
 * built, one more could not learn. */
static job_state *ended(void)
{
    job_state *s = stage_redesigned(&stage);
    s->taken = message_new(&hone__v1__taken__descriptor, NULL);
    STAGE_OK(message_set(&s->taken->job, "J0", err));
    s->taken->prepared_s = 40;
    s->redesigned = true;
    s->rung = 2;
    s->reserve_s = 40;
    job_network *final = message_clone(s->plain_int8, NULL);
    stage_accuracy(final, "test", 0.918, 0.02, 0.2);
    final->drop_points = 0.2;
    final->drop_upper95_points = 0.5;
    STAGE_OK(message_append(&s->finals, &s->n_finals, final, err));
    job_student *built = student(s, "conv:16 head", 10, 0.90);
    STAGE_OK(message_set(&built->built, built->network, err));
    STAGE_OK(message_set(&built->out, "", err));
    student(s, "conv:32 head", 30, 0.91);
    job_student *failed = student(s, "conv:48 head", 5, 0.5);
    failed->rungs = failed->rung = 0;
    failed->n_accuracies = failed->n_epochs = 0;
    STAGE_OK(message_set(&failed->out, "lost", err));
    return s;
}

/* ---- refine ---- */

/* It is not over: a redesign comes after its first result. */
static job_state *refined(job_state *s)
{
    STAGE_OK(run(synthesizer_refine, s, err));
    job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    assert_false(after->redesigned);
    assert_false(after->replaced); /* with other limits, or more time */
    assert_int_equal(after->rung, 0);
    return after;
}

static void a_job_begins_with_what_another_one_learned(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended();
    _cleanup_(message_freep) job_state *after = refined(s);
    assert_int_equal(stage.out.n_tasks, 0); /* nobody is as good as the limit asks */
    assert_true(after->reserve_s == 40);    /* known from the job before */
    assert_true(after->finals[0]->within_limit);
    assert_int_equal(after->n_students, 3);
    for (int i = 0; i < 2; i++) {
        assert_string_equal(after->students[i]->out, "");
        assert_int_equal(after->students[i]->rungs, 2);
        assert_int_equal(after->students[i]->rung, 0);
    }
    assert_string_equal(after->students[2]->out, "lost");
    assert_int_equal(after->taken->students, 2);
    assert_true(after->taken->training_s == 200);
    assert_true(after->taken->prepared_s == 40);
    assert_true(stage_decided(after, "refines job J0 within 1.00 points"));
    assert_string_equal(stage_event(&stage, "refines"),
                        "\"job\":\"J0\",\"students\":2,\"training_s\":200.0,\"prepared_s\":40.0");
}

/* Who was not built, and keeps the limits of this job, is built now. */
static void other_limits_meet_what_is_there(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended();
    s->spec->max_drop = 5;
    _cleanup_(message_freep) job_state *after = refined(s);
    assert_int_equal(stage.out.n_tasks, 1);
    _cleanup_(message_freep) Hone__V1__BuildTask *build =
        stage_payload(stage_follow(&stage, "build", 0), &hone__v1__build_task__descriptor);
    assert_string_equal(build->name, "student-2");
    assert_string_equal(after->students[1]->built, "network of student-2");
}

static void proofs_are_held_against_other_limits(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended();
    s->spec->max_drop = 0.3;
    _cleanup_(message_freep) job_state *after = refined(s);
    assert_false(after->finals[0]->within_limit); /* at most 0.5 */
}

static void whom_the_limits_exclude_takes_no_part_and_saves_nothing(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended();
    s->spec->max_us = 20;
    s->spec->max_drop = 100;
    _cleanup_(message_freep) job_state *after = refined(s);
    assert_string_equal(after->students[0]->out, "");
    assert_string_equal(after->students[1]->out, "the limits exclude it");
    assert_false(after->finals[0]->within_limit); /* 50 us */
    assert_int_equal(after->taken->students, 1);
    assert_true(after->taken->training_s == 100);
    assert_int_equal(stage.out.n_tasks, 0);
}

static void what_had_no_result_is_not_refined(void **state)
{
    (void)state;
    struct err err = {0};
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    assert_int_equal(run(synthesizer_refine, s, &err), -ERR_FAILED_PRECONDITION);
}

/* ---- another target ---- */

static const char *const here = "cpu:here", *const there = "cpu:there";

/* Measured there, and to be refined here. A third student is made of the original's blocks. */
static job_state *ended_there(void)
{
    job_state *s = ended();
    job_student *heir = student(s, "1-4 5=keep:1", 20, 0.92);
    heir->inherits = true;
    s->taken->prepared_s = 0;
    STAGE_OK(message_set(&s->taken->target, there, err));
    STAGE_OK(message_set(&s->spec->target, here, err));
    STAGE_OK(message_set(&s->profile, "profile", err));
    STAGE_OK(message_set(&s->scores, "scores", err));
    STAGE_OK(message_set(&s->library, "library", err));
    STAGE_OK(state_decide(s, err, "something there"));
    return s;
}

/* A piece takes 3 us, and 4 those of whom `twice` names a part; `broken`: cannot run. */
static void prices_of(const Hone__V1__PriceTask *asked, const char *twice, const char *broken)
{
    Hone__V1__PriceResult result = HONE__V1__PRICE_RESULT__INIT;
    _cleanup_(freep) double *us = mem_calloc(asked->n_pieces, sizeof(*us));
    for (size_t i = 0; i < asked->n_pieces; i++)
        us[i] = strstr(asked->pieces[i]->text, broken)  ? 0
                : strstr(asked->pieces[i]->text, twice) ? 4
                                                        : 3;
    result.us = us;
    result.n_us = asked->n_pieces;
    result.floor_us = 1;
    stage_result(&stage, &result);
}

static void nothing_that_was_measured_elsewhere_stays(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended_there();
    STAGE_OK(run(synthesizer_refine, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "retarget");
    assert_null(after->plain_int8);
    assert_int_equal(after->n_candidates + after->n_finals + after->n_decisions, 0);
    assert_int_equal(after->baseline->n_timings, 0);
    assert_int_equal(after->baseline->n_accuracies, s->baseline->n_accuracies);
    assert_string_equal(after->profile, "");
    assert_string_equal(after->scores, "");
    assert_string_equal(after->library, "");
    assert_true(after->reserve_s == 0);
    assert_string_equal(after->network, s->network);
    assert_string_equal(after->data->artifact, "data");
    for (int i = 0; i < 2; i++) {
        assert_string_equal(after->students[i]->network, s->students[i]->network);
        assert_string_equal(after->students[i]->built, "");
        assert_int_equal(after->students[i]->rungs, 2);
    }
    assert_string_equal(after->students[2]->out, "lost");
    assert_string_equal(after->students[3]->out, "blocks begin anew on another target");
    const struct task_spec *spec = stage_follow(&stage, "price", 0);
    assert_non_null(spec);
    assert_string_equal(spec->queue, "profiler:cpu:here");
    _cleanup_(message_freep) Hone__V1__PriceTask *price =
        stage_payload(spec, &hone__v1__price_task__descriptor);
    assert_string_equal(price->target, here);
    assert_int_equal(price->n_pieces, 4); /* two convolutions, the head behind each */
    assert_int_equal(stage.out.n_tasks, 1);
}

static void students_are_priced_on_another_target(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended_there();
    STAGE_OK(run(synthesizer_refine, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "retarget");
    _cleanup_(message_freep) Hone__V1__PriceTask *price =
        stage_payload(stage_follow(&stage, "price", 0), &hone__v1__price_task__descriptor);
    stage_forget(&stage);
    prices_of(price, "conv:32", "none");
    STAGE_OK(run(synthesizer_retarget, after, err));
    const struct task_spec *next = stage_follow(&stage, "calibrate", 0);
    assert_non_null(next);
    assert_string_equal(next->queue, "exporter");
    _cleanup_(message_freep) Hone__V1__StageTask *begun =
        stage_payload(next, &hone__v1__stage_task__descriptor);
    const job_state *now = begun->state;
    assert_true(now->students[0]->predicted_us == 7);
    assert_true(now->students[1]->predicted_us == 8);
    assert_string_equal(now->students[0]->out, "");
    assert_string_equal(now->students[1]->out, "");
    assert_string_equal(now->students[2]->out, "lost");
    assert_int_equal(now->taken->students, 2);
    assert_true(now->taken->training_s == 200);
    assert_true(stage_decided(now, "refines job J0 for cpu:here instead of cpu:there"));
}

static void who_cannot_be_priced_there_is_left_out(void **state)
{
    (void)state;
    for (int failed = 0; failed < 2; failed++) {
        _cleanup_(message_freep) job_state *s = ended_there();
        STAGE_OK(run(synthesizer_refine, s, err));
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", "retarget");
        _cleanup_(message_freep) Hone__V1__PriceTask *price =
            stage_payload(stage_follow(&stage, "price", 0), &hone__v1__price_task__descriptor);
        stage_forget(&stage);
        if (failed)
            stage_failure(&stage, "out of order");
        else
            prices_of(price, "none", "conv:16");
        STAGE_OK(run(synthesizer_retarget, after, err));
        _cleanup_(message_freep) Hone__V1__StageTask *begun =
            stage_payload(stage_follow(&stage, "calibrate", 0), &hone__v1__stage_task__descriptor);
        const job_state *now = begun->state;
        assert_string_equal(now->students[0]->out, "its time on this target is not known");
        assert_int_equal(*now->students[1]->out != 0, failed);
        assert_int_equal(now->taken->students, 1 - failed);
        stage_forget(&stage);
    }
}

/* Neither built nor trained, though they learned well. */
static void who_has_no_price_takes_no_part(void **state)
{
    (void)state;
    struct work_output out = {0};
    _cleanup_(message_freep) job_state *s = ended_there();
    s->spec->max_drop = 100; /* all keep it */
    STAGE_OK(run(synthesizer_refine, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "retarget");
    stage_forget(&stage);
    stage_failure(&stage, "out of order");
    STAGE_OK(run(synthesizer_retarget, after, err));
    _cleanup_(message_freep) Hone__V1__StageTask *begun =
        stage_payload(stage_follow(&stage, "calibrate", 0), &hone__v1__stage_task__descriptor);
    job_state *now = begun->state;
    for (size_t i = 0; i < now->n_students; i++) {
        assert_false(race_affordable(now, now->students[i]));
        assert_string_not_equal(now->students[i]->out, "");
    }
    STAGE_OK(race_ask_known(&out, now, err));
    assert_int_equal(out.n_tasks, 0);
    now->students[1]->predicted_us = 8;
    assert_true(race_affordable(now, now->students[1]));
    assert_false(race_affordable(now, now->students[3])); /* of the original's blocks */
}

static void a_job_without_students_begins_at_once_on_another_target(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = ended_there();
    for (size_t i = 0; i < s->n_students; i++)
        message_free(s->students[i]);
    s->n_students = 0;
    STAGE_OK(run(synthesizer_refine, s, err));
    assert_non_null(stage_follow(&stage, "calibrate", 0));
    assert_int_equal(stage.out.n_tasks, 1);
}

/* ---- enroll ---- */

/* A microsecond a piece, and 20 for each million products; what the stages make of it. */
static struct space priced(const job_state *s, struct arena *arena)
{
    struct space space;
    Hone__V1__PriceResult result = HONE__V1__PRICE_RESULT__INIT;
    STAGE_OK(space_build(&stage_pictures, students_original(s), arena, &space, err));
    _cleanup_(freep) double *all = mem_calloc((size_t)space.n_pieces, sizeof(*all));
    for (int i = 0; i < space.n_pieces; i++)
        all[i] = 1 + 20e-6 * (double)space.pieces[i].macs;
    result.us = all;
    result.n_us = (size_t)space.n_pieces;
    result.floor_us = 2;
    space_price(&space, all, 2);
    stage_result(&stage, &result);
    return space;
}

/* As the stage refine leaves it. */
static job_state *taken_over(void)
{
    job_state *s = ended();
    s->rung = 0;
    s->redesigned = false;
    for (size_t i = 0; i < 2; i++) {
        s->students[i]->rung = 0;
        STAGE_OK(message_set(&s->students[i]->out, "", err));
    }
    return s;
}

static void newcomers_stand_beside_them_and_learn_first(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = taken_over();
    struct space space = priced(s, arena);
    const char *known = NULL;
    for (int i = 0; i < space.n_students && !known; i++)
        known = space.students[i].us < 0.8 * 50 ? space.students[i].text : NULL;
    assert_non_null(known);
    STAGE_OK(message_set(&s->students[0]->design, known, err));
    stage_rate(&stage, "1e12");
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_int_equal(after->rung, 1);
    assert_true(after->n_students > 3);
    for (size_t i = 3; i < after->n_students; i++) {
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, (int)i - 3);
        assert_string_equal(train->name, after->students[i]->name);
        assert_string_not_equal(after->students[i]->design, known);
        assert_int_equal(after->students[i]->rung, 1);
    }
    assert_null(stage_training(&stage, (int)after->n_students - 3));
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(after->students[i]->rung, 0);
        assert_string_equal(after->students[i]->out, "");
    }
}

static void nobody_is_enrolled_above_a_limit_on_costs(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = taken_over();
    s->spec->max_us = 35;
    s->spec->max_bytes = 30000;
    s->spec->max_drop = 100;
    priced(s, arena);
    stage_rate(&stage, "1e12");
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_true(after->n_students > 3);
    for (size_t i = 3; i < after->n_students; i++) {
        const double cost = race_cost(after, after->students[i]);
        assert_true(after->students[i]->predicted_us <= 35);
        assert_true(space_bytes(false, (double)after->students[i]->parameters) <= 30000);
        assert_true(cost <= 1 && cost > 0.4);
    }
}

/* Nobody new is cheap enough: who learned before goes on at once. */
static void without_newcomers_those_who_learned_go_on(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = taken_over();
    s->spec->max_us = 3;
    s->spec->max_drop = 100;
    s->students[0]->predicted_us = s->students[1]->predicted_us = 2;
    priced(s, arena);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_true(stage_decided(after, "redesign: no further student is within the limits"));
    assert_int_equal(after->n_students, 3);
    /* what is expected to lose least */
    _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, 0);
    assert_string_equal(train->name, "student-2");
    assert_string_equal(train->network, "network of student-2");
    assert_false(train->settings->reinit);
    assert_null(stage_training(&stage, 1));
    assert_int_equal(after->students[1]->rung, 1);
    assert_true(after->students[1]->predicted > 0.91);
}

/* ---- promote ---- */

static void learned(double value, const char *network)
{
    Hone__V1__TrainResult result = HONE__V1__TRAIN_RESULT__INIT;
    result.network = stage_network(network, "");
    result.network->macs = 1000000;
    stage_accuracy(result.network, "search", value, 1, 5);
    result.epochs = 60;
    result.seconds = 300;
    stage_result(&stage, &result);
    message_free(result.network);
}

/* The rest of the time is too short for a further rung.
 *
 * One that was built before and learned on is built under another name. */
static void results_belong_to_who_learned_in_this_rung(void **state)
{
    (void)state;
    stage_end(&stage);
    begin_with(50); /* no further rung */
    _cleanup_(message_freep) job_state *s = taken_over();
    s->rung = 1;
    s->students[0]->rung = 1;
    learned(0.93, "better");
    STAGE_OK(run(synthesizer_promote, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    assert_string_equal(after->students[0]->network, "better");
    assert_int_equal(after->students[0]->rungs, 3);
    assert_int_equal(after->students[0]->n_accuracies, 3);
    assert_int_equal(after->students[1]->rungs, 2);
    _cleanup_(message_freep) Hone__V1__BuildTask *first =
        stage_payload(stage_follow(&stage, "build", 0), &hone__v1__build_task__descriptor);
    _cleanup_(message_freep) Hone__V1__BuildTask *second =
        stage_payload(stage_follow(&stage, "build", 1), &hone__v1__build_task__descriptor);
    assert_string_equal(first->name, "student-1-after-3");
    assert_string_equal(first->network, "better");
    assert_string_equal(second->name, "student-2");
}

static void other_results_than_were_asked_for_are_an_error(void **state)
{
    (void)state;
    struct err err = {0};
    _cleanup_(message_freep) job_state *s = taken_over();
    s->rung = 1;
    learned(0.93, "a");
    assert_int_equal(run(synthesizer_promote, s, &err), -ERR_INTERNAL);
    stage_forget(&stage);
    learned(0.93, "a");
    s->students[0]->rung = s->students[1]->rung = 1;
    assert_int_equal(run(synthesizer_promote, s, &err), -ERR_INTERNAL);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_begins_with_what_another_one_learned),
        TEST(other_limits_meet_what_is_there),
        TEST(proofs_are_held_against_other_limits),
        TEST(whom_the_limits_exclude_takes_no_part_and_saves_nothing),
        TEST(what_had_no_result_is_not_refined),
        TEST(nothing_that_was_measured_elsewhere_stays),
        TEST(students_are_priced_on_another_target),
        TEST(who_cannot_be_priced_there_is_left_out),
        TEST(who_has_no_price_takes_no_part),
        TEST(a_job_without_students_begins_at_once_on_another_target),
        TEST(newcomers_stand_beside_them_and_learn_first),
        TEST(nobody_is_enrolled_above_a_limit_on_costs),
        TEST(without_newcomers_those_who_learned_go_on),
        TEST(results_belong_to_who_learned_in_this_rung),
        TEST(other_results_than_were_asked_for_are_an_error),
    };
    return cmocka_run_group_tests_name("refine", tests, NULL, NULL);
}
