/* The stages "tune" and "tuned": what has few bits learns on in them. */
#include "tests/support/stage_design.h"

#include "services/synthesizer/race.h"
#include "services/synthesizer/students.h"
#include "services/synthesizer/synthesizer.h"

static struct stage stage;

/* A job of 1000 s, of which 970 are for training. */
static int begin(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.budget_s = 1000;
    stage_begin(&stage, &spec);
    return 0;
}

static int end(void **state)
{
    (void)state;
    stage_end(&stage);
    return 0;
}

/* student-N, of which an epoch took so many seconds. */
static void add_student(job_state *s, const char *design, double epoch_s)
{
    job_student *student = message_new(&hone__v1__student__descriptor, NULL);
    STAGE_OK(message_setf(&student->name, err, "student-%zu", s->n_students + 1));
    STAGE_OK(message_setf(&student->network, err, "net-%zu", s->n_students + 1));
    STAGE_OK(message_set(&student->design, design, err));
    student->predicted_us = 40;
    student->seconds = 10 * epoch_s;
    student->rungs = 1;
    STAGE_OK(message_append_f64(&student->accuracies, &student->n_accuracies, 0.9, err));
    STAGE_OK(message_append_f64(&student->epochs, &student->n_epochs, 10, err));
    STAGE_OK(message_append(&s->students, &s->n_students, student, err));
}

static job_state *small_job(void)
{
    job_state *s = stage_redesigned(&stage);
    s->spec->objective = HONE__V1__OBJECTIVE__SIZE;
    s->reserve_s = 30;
    s->views = 8;
    return s;
}

static job_network *built(const char *name, const char *design, const char *precision)
{
    job_network *n = stage_network(name, design);
    Hone__V1__LayerChoice *choice = message_new(&hone__v1__layer_choice__descriptor, NULL);
    STAGE_OK(message_set(&choice->layer, "conv1", err));
    STAGE_OK(message_set(&choice->precision, precision, err));
    STAGE_OK(message_append(&n->layers, &n->n_layers, choice, err));
    return n;
}

static void build_result(const char *name, const char *design, const char *precision)
{
    Hone__V1__BuildResult result = HONE__V1__BUILD_RESULT__INIT;
    result.network = built(name, design, precision);
    stage_result(&stage, &result);
    message_free(result.network);
}

static void run(job_state *s, work_handler *handle)
{
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    task.state = s;
    STAGE_OK(stage_run(&stage, handle, &task, err));
}

static void the_fewest_bits_learn_on(void **state)
{
    (void)state;
    job_state *s = small_job();
    add_student(s, "conv:8 head", 5);
    build_result("student-1-int4", "conv:8 head", "int4");
    build_result("student-1-int5", "conv:8 head", "int5");
    run(s, synthesizer_tune);
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "tuned");
    _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, 0);
    assert_int_equal(stage.out.n_tasks, 1);
    assert_int_equal(after->n_candidates, 2);
    assert_int_equal(after->n_tuning, 1);
    assert_string_equal(after->tuning[0], "student-1-int4");
    assert_string_equal(train->network, "student-1-int4");
    assert_string_equal(train->original, "net-1");
    assert_string_equal(train->judge, s->network);
    assert_string_equal(train->settings->optimizer, "adam");
    assert_int_equal(train->settings->epochs, 20); /* no more, however much time there is */
    assert_false(train->settings->reinit);
    message_free(s);
}

static void who_has_no_time_left_is_left_as_it_is(void **state)
{
    (void)state;
    job_state *s = small_job();
    add_student(s, "conv:8 head", 20);  /* in few bits some 80 s */
    add_student(s, "conv:16 head", 40); /* some 160 s */
    stage_age(&stage, 770);             /* 200 s are left, of which 180 are spent */
    build_result("student-1-int4", "conv:8 head", "int4");
    build_result("student-2-int4", "conv:16 head", "int4");
    run(s, synthesizer_tune);
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "tuned");
    _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, 0);
    assert_int_equal(stage.out.n_tasks, 1);
    assert_string_equal(train->name, "student-1-int4");
    assert_int_equal(train->settings->epochs, 2);
    assert_int_equal(train->settings->views, 2);
    message_free(s);
}

static void without_time_or_anything_in_few_bits_all_are_measured(void **state)
{
    (void)state;
    for (int late = 0; late < 2; late++) {
        job_state *s = small_job();
        add_student(s, "conv:8 head", 20);
        if (late)
            stage_age(&stage, 960);
        build_result("student-1-int5", "conv:8 head", late ? "int4" : "int5");
        run(s, synthesizer_tune);
        message_free(stage_handed_on(&stage, "synthesizer", "choose"));
        assert_non_null(stage_follow(&stage, "measure", 0));
        assert_int_equal(stage.out.n_tasks, 1);
        stage_forget(&stage);
        message_free(s);
    }
}

/* Maps, no classes: paths of blocks come here too. */
static void where_answers_are_no_classes_all_are_measured_as_they_are(void **state)
{
    (void)state;
    for (int lost = 0; lost < 2; lost++) {
        job_state *s = small_job();
        _cleanup_(graph_freep) struct graph *g =
            stage_designed("conv:8 residual:16:s2", &stage_pictures, false);
        stage_original(&stage, s, g);
        if (lost)
            STAGE_OK(message_set(&s->network, "no such network", err));
        add_student(s, "1-2 3=identity", 5);
        build_result("student-1-int4", "1-2 3=identity", "int4");
        run(s, synthesizer_tune);
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", "choose");
        assert_non_null(stage_follow(&stage, "measure", 0));
        assert_int_equal(stage.out.n_tasks, 1);
        assert_int_equal(after->n_candidates, 1);
        assert_int_equal(stage_decided(after, "few bits: nothing learns on in them: "), lost);
        stage_forget(&stage);
        message_free(s);
    }
}

/* Before a race the first result is due; after it there is time to learn on. */
static void the_best_are_built_in_four_and_five_bits(void **state)
{
    (void)state;
    for (int before = 0; before < 2; before++) {
        Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
        task.state = small_job();
        add_student(task.state, "conv:8 head", 5);
        task.state->students[0]->accuracies[0] = 0.95;
        STAGE_OK(before ? race_resume(&stage.out, &task, err)
                        : race_finish(&stage.out, &task, err));
        message_free(stage_handed_on(&stage, "synthesizer", before ? "assemble" : "tune"));
        assert_int_equal(stage.out.n_tasks, 2);
        for (int i = 0; i < 2; i++) {
            _cleanup_(message_freep) Hone__V1__BuildTask *build =
                stage_payload(stage_follow(&stage, "build", i), &hone__v1__build_task__descriptor);
            assert_int_equal(build->weight_bits, 4 + i);
            assert_string_equal(build->name, i ? "student-1-int5" : "student-1-int4");
            assert_true(build->all_int8);
        }
        stage_forget(&stage);
        message_free(task.state);
    }
}

/* What "tune" has handed on. */
static job_state *tuning_job(void)
{
    job_state *s = small_job();
    add_student(s, "conv:8 head", 5);
    job_network *n = built("student-1-int4", "conv:8 head", "int4");
    STAGE_OK(message_append(&s->candidates, &s->n_candidates, n, err));
    STAGE_OK(message_append_text(&s->tuning, &s->n_tuning, "student-1-int4", err));
    return s;
}

static void what_learned_is_scored_as_it_is(void **state)
{
    (void)state;
    job_state *s = tuning_job();
    Hone__V1__TrainResult result = HONE__V1__TRAIN_RESULT__INIT;
    result.network = stage_network("tuned network", "");
    stage_result(&stage, &result);
    run(s, synthesizer_tuned);
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    _cleanup_(message_freep) Hone__V1__BuildTask *build =
        stage_payload(stage_follow(&stage, "build", 0), &hone__v1__build_task__descriptor);
    assert_int_equal(stage.out.n_tasks, 1);
    assert_int_equal(after->n_tuning, 0);
    assert_int_equal(after->n_candidates, 1); /* beside what comes of it */
    assert_string_equal(build->name, "student-1-int4-tuned");
    assert_string_equal(build->network, "tuned network");
    assert_string_equal(build->student->name, "student-1");
    assert_int_equal(build->n_layers, 1);
    assert_string_equal(build->layers[0]->precision, "int4");
    assert_false(build->all_int8);
    message_free(result.network);
    message_free(s);
}

static void who_did_not_learn_costs_itself_alone(void **state)
{
    (void)state;
    job_state *s = tuning_job();
    stage_failure(&stage, "no memory");
    run(s, synthesizer_tuned);
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "choose");
    assert_non_null(stage_follow(&stage, "measure", 0));
    assert_true(stage_decided(after, "student-1-int4 did not learn on: no memory"));
    message_free(s);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
    const struct CMUnitTest tests[] = {
        TEST(the_best_are_built_in_four_and_five_bits),
        TEST(the_fewest_bits_learn_on),
        TEST(who_has_no_time_left_is_left_as_it_is),
        TEST(without_time_or_anything_in_few_bits_all_are_measured),
        TEST(where_answers_are_no_classes_all_are_measured_as_they_are),
        TEST(what_learned_is_scored_as_it_is),
        TEST(who_did_not_learn_costs_itself_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
