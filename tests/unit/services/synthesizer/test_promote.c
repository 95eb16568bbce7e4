/* The stage "promote": what becomes of students after a rung. */
#include "tests/support/stage_design.h"

#include <math.h>

#include "services/synthesizer/students.h"
#include "services/synthesizer/synthesizer.h"

#define EPOCHS 10   /* of each rung */
#define EPOCH_S 2.0 /* where nothing else is said */
#define MACS 2000000
#define PARAMETERS 100000

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

/* Whose rung of this number is over. */
static job_state *race(uint32_t rung)
{
    job_state *s = stage_redesigned(&stage);
    s->baseline->accuracies[0]->value = 0.92; /* it learned nothing by heart */
    s->reserve_s = 30;
    s->rung = rung;
    s->enrolments = 1;
    return s;
}

/* They were enrolled after others, which are out. */
static void enrolled_last(job_state *s)
{
    s->enrolments = RUNGS_MOST_ENROLMENTS;
    s->rung++;
    for (size_t i = 0; i < s->n_students; i++)
        s->students[i]->rung++;
}

/* student-N, whose network is net-N, and which was right on `value` of the search part in each of
 * the rungs before. */
static job_student *add(job_state *s, double us, uint32_t rungs, double value)
{
    job_student *student = message_new(&hone__v1__student__descriptor, NULL);
    STAGE_OK(message_setf(&student->name, err, "student-%zu", s->n_students + 1));
    STAGE_OK(message_setf(&student->network, err, "net-%zu", s->n_students + 1));
    STAGE_OK(message_set(&student->design, "conv:8 head", err));
    student->predicted_us = us;
    student->macs = MACS;
    student->parameters = PARAMETERS;
    student->rungs = rungs;
    student->rung = rungs + 1; /* it learned in the one that is over */
    student->seconds = rungs * EPOCHS * EPOCH_S;
    for (uint32_t i = 0; i < rungs; i++) {
        STAGE_OK(message_append_f64(&student->accuracies, &student->n_accuracies, value, err));
        STAGE_OK(message_append_f64(&student->epochs, &student->n_epochs, EPOCHS, err));
    }
    STAGE_OK(message_append(&s->students, &s->n_students, student, err));
    return student;
}

static void add_out(job_state *s, double us, uint32_t rungs, double value, const char *why)
{
    job_student *student = add(s, us, rungs, value);
    student->rung = rungs;
    STAGE_OK(message_set(&student->out, why, err));
}

static const char *next_trunk; /* of those that learn; NULL: none */

/* The next of the group: a network of this name, right on `value` (NULL: nobody looked). */
static void learned_in(const char *network, const double *value, double seconds)
{
    _cleanup_(message_freep) Hone__V1__TrainResult *r =
        message_new(&hone__v1__train_result__descriptor, NULL);
    r->network = stage_network("student", "");
    STAGE_OK(message_set(&r->network->artifact, network, err));
    r->network->macs = MACS;
    if (value)
        stage_accuracy(r->network, "search", *value, 0, 0);
    r->epochs = EPOCHS;
    r->seconds = seconds;
    if (next_trunk)
        STAGE_OK(message_set(&r->trunk, next_trunk, err));
    stage_result(&stage, r);
}

static void learned(const char *network, double value)
{
    learned_in(network, &value, EPOCHS * EPOCH_S);
}

static int run(job_state *s, struct err *err)
{
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    task.state = s;
    return stage_run(&stage, synthesizer_promote, &task, err);
}

/* The next rung begins with these, by number, ended by 0; the others are out, if they were not. */
static job_state *next_rung(job_state *s, const int *who)
{
    STAGE_OK(run(s, err));
    job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    int n = 0;
    assert_int_equal(after->rung, s->rung + 1);
    assert_false(after->redesigned);
    for (size_t i = 0; i < after->n_students; i++) {
        const job_student *student = after->students[i];
        if (who[n] != (int)i + 1) {
            assert_string_not_equal(student->out, "");
            continue;
        }
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, n++);
        assert_non_null(train);
        assert_string_equal(student->out, "");
        assert_string_equal(train->name, student->name);
        assert_string_equal(train->network, *student->trunk ? student->trunk : student->network);
        assert_int_equal(train->settings->warmup > 0, *student->trunk != 0);
    }
    assert_int_equal(who[n], 0);
    assert_int_equal(stage.out.n_tasks, n);
    return after;
}

/* The race is over: these are built, in this order. */
static job_state *the_end(job_state *s, const int *who)
{
    STAGE_OK(run(s, err));
    job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    int n = 0;
    assert_true(after->redesigned);
    assert_int_equal(after->rung, s->rung);
    for (; who[n]; n++) {
        const job_student *student = after->students[who[n] - 1];
        const struct task_spec *spec = stage_follow(&stage, "build", n);
        assert_non_null(spec);
        assert_string_equal(spec->queue, "exporter");
        _cleanup_(message_freep) Hone__V1__BuildTask *build =
            stage_payload(spec, &hone__v1__build_task__descriptor);
        assert_string_equal(build->name, student->name);
        assert_string_equal(build->network, student->network);
        assert_string_equal(build->student->name, student->name);
        assert_true(build->predicted_us == student->predicted_us);
        assert_true(build->all_int8);
        assert_true(build->state->redesigned);
        assert_string_equal(student->out, "");
    }
    assert_int_equal(stage.out.n_tasks, n);
    return after;
}

#define WHO(...) (const int[]){__VA_ARGS__, 0}
#define NOBODY (const int[]){0}

/* ---- what came back ---- */

static void when_all_trainings_fail_nothing_is_built(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(1);
    add(s, 10, 0, 0);
    add(s, 20, 0, 0);
    stage_failure(&stage, "out of memory");
    stage_failure(&stage, NULL);
    _cleanup_(message_freep) job_state *after = the_end(s, NOBODY);
    assert_string_equal(after->students[0]->out, "out of memory");
    assert_string_equal(after->students[1]->out, "lost");
    assert_true(stage_decided(after, "student-1 is given up: out of memory"));
    assert_true(stage_decided(after, "student-2 is given up: lost"));
}

/* What the first rung gave is there. */
static void when_a_further_rung_fails_what_was_learned_is_built(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(2);
    add(s, 10, 1, 0.93);
    add_out(s, 5, 0, 0, "out of memory");
    stage_failure(&stage, "out of memory");
    _cleanup_(message_freep) job_state *after = the_end(s, WHO(1));
    assert_string_equal(after->students[0]->network, "net-1");
    assert_string_equal(after->students[1]->out, "out of memory");
}

static void who_fails_is_given_up_and_the_others_go_on(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(1);
    for (int i = 0; i < 5; i++)
        add(s, 50, 0, 0);
    learned("a", 0.90);
    stage_failure(&stage, "out of memory");
    learned("c", 0.85);
    learned("d", 0.91);
    learned("e", 0.84);
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(1, 4));
    assert_string_equal(after->students[1]->out, "out of memory");
    assert_string_equal(after->students[2]->out, "after rung 1 others promise more");
    assert_string_equal(after->students[4]->out, "after rung 1 others promise more");
    assert_string_equal(after->students[0]->network, "a");
    assert_string_equal(after->students[1]->network, "net-2");
    assert_string_equal(after->students[3]->network, "d");
}

static void a_result_without_an_accuracy_is_a_failure(void **state)
{
    (void)state;
    const double nothing = NAN;
    _cleanup_(message_freep) job_state *s = race(1);
    for (int i = 0; i < 3; i++)
        add(s, 50, 0, 0);
    learned_in("a", NULL, 20);
    learned_in("b", &nothing, 20);
    learned("c", 0.5);
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(3));
    for (int i = 0; i < 2; i++) {
        const job_student *student = after->students[i];
        assert_string_equal(student->out, "its training did not succeed");
        assert_int_equal(student->n_accuracies, 0);
        assert_int_equal(student->rungs, 0);
        assert_int_equal(student->n_trained, 1); /* for the report's curves */
    }
}

static void what_a_student_learned_is_taken_down(void **state)
{
    (void)state;
    const double value = 0.9;
    _cleanup_(message_freep) job_state *s = race(2);
    add(s, 50, 1, 0.8)->macs = 5; /* before norms are folded */
    learned_in("better", &value, 70);
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(1));
    const job_student *got = after->students[0];
    assert_string_equal(got->network, "better");
    assert_int_equal(got->rungs, 2);
    assert_int_equal(got->macs, MACS);
    assert_true(got->seconds == 20 + 70);
    assert_int_equal(got->n_accuracies, 2);
    assert_true(got->accuracies[1] == 0.9);
    assert_int_equal(got->n_epochs, 2);
    assert_true(got->epochs[1] == EPOCHS);
    assert_int_equal(got->n_trained, 1);
    _cleanup_(message_freep) Hone__V1__TrainResult *kept = NULL;
    STAGE_OK(message_load(stage.store, got->trained[0], &hone__v1__train_result__descriptor, &kept,
                          err));
    assert_string_equal(kept->network->artifact, "better");
}

static void a_rung_that_made_a_student_worse_keeps_its_better_network(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(2);
    add(s, 50, 1, 0.91);
    learned("worse", 0.85);
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(1));
    assert_string_equal(after->students[0]->network, "net-1");
    assert_int_equal(after->students[0]->rungs, 2);
    assert_true(after->students[0]->accuracies[1] == 0.85);
    assert_non_null(strstr(stage_event(&stage, "student"), "\"value\":0.9100"));
}

/* From there the next rung goes on: also where the way down went wrong. */
static void who_goes_on_does_so_from_its_trunk(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(2);
    STAGE_OK(message_set(&add(s, 50, 1, 0.91)->trunk, "old trunk", err));
    next_trunk = "new trunk";
    learned("worse", 0.85);
    next_trunk = NULL;
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(1));
    assert_string_equal(after->students[0]->network, "net-1");
    assert_string_equal(after->students[0]->trunk, "new trunk");
    _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, 0);
    assert_string_equal(train->network, "new trunk");
    assert_false(train->settings->reinit);
}

/* With no time left what is expected is what was reached, whatever a further rung would begin with.
 */
static void at_the_end_nobody_is_expected_to_forget(void **state)
{
    (void)state;
    double predicted[2];
    for (int trunk = 0; trunk < 2; trunk++) {
        _cleanup_(message_freep) job_state *s = race(3);
        add(s, 40, 0, 0)->rung = 3;
        next_trunk = trunk ? "trunk" : NULL;
        learned("net", 0.915);
        next_trunk = NULL;
        _cleanup_(message_freep) job_state *after = the_end(s, WHO(1));
        predicted[trunk] = after->students[0]->predicted;
        stage_forget(&stage);
    }
    assert_true(fabs(predicted[0] - 0.915) < 0.01);
    assert_true(fabs(predicted[0] - predicted[1]) < 1e-9);
}

static void results_of_others_are_an_error(void **state)
{
    (void)state;
    struct err err = {0};
    _cleanup_(message_freep) job_state *s = race(1);
    add(s, 10, 0, 0);
    add(s, 20, 0, 0);
    add_out(s, 30, 0, 0, "it was slow");
    learned("a", 0.9);
    assert_int_equal(run(s, &err), -ERR_INTERNAL);
    assert_non_null(strstr(err.message, "1 results of 2 students"));
}

/* The middle one of this job's: 3 products in training for each of a forward pass. */
static void the_speed_of_training_is_remembered(void **state)
{
    (void)state;
    static const double seconds[] = {10, 40, 20};
    const double value = 0.9;
    _cleanup_(message_freep) job_state *s = race(1);
    for (int i = 0; i < 4; i++)
        add(s, 50, 0, 0);
    for (int i = 0; i < 3; i++)
        learned_in("net", &value, seconds[i]);
    stage_failure(&stage, "out of memory");
    STAGE_OK(run(s, err));
    _cleanup_(freep) char *plain = NULL, *bf16 = NULL;
    STAGE_OK(queue_table_get(stage.queue, "training", stage_rate_fields[0], &plain, err));
    STAGE_OK(queue_table_get(stage.queue, "training", stage_rate_fields[1], &bf16, err));
    assert_true(!plain != !bf16);
    assert_string_equal(plain ? plain : bf16, "1.5e+11");
}

/* ---- who goes on ---- */

static void fewer_go_on_from_rung_to_rung(void **state)
{
    (void)state;
    static const struct {
        int students, go_on;
    } cases[] = {{8, 3}, {7, 2}, {4, 2}, {3, 1}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(message_freep) job_state *s = race(1);
        for (int k = 0; k < cases[i].students; k++) {
            add(s, 50, 0, 0.8);
            learned("net", 0.91 - 0.015 * k);
        }
        enrolled_last(s);
        STAGE_OK(run(s, err));
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", "promote");
        assert_int_equal(stage.out.n_tasks, cases[i].go_on);
        assert_string_equal(after->students[0]->out, ""); /* all cost as much: the best does */
        assert_string_equal(after->students[cases[i].students - 1]->out,
                            "after rung 2 others promise more");
        stage_forget(&stage);
    }
}

/* Those that went on learned less than was expected of them: who was given up for them comes back,
 * but nobody whose training failed. */
static void who_was_given_up_comes_back_where_others_disappoint(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(2);
    add_out(s, 40, 1, 0.90, "after rung 1 others promise more");
    add_out(s, 40, 1, 0.92, "out of memory");
    s->students[1]->failed = true;
    add(s, 10, 1, 0.80);
    add(s, 12, 1, 0.81);
    learned("no better", 0.805);
    learned("hardly better", 0.815);
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(1));
    assert_string_equal(after->students[1]->out, "out of memory");
    assert_int_equal(after->students[0]->rung, 3);
}

/* Of those that may keep the limit the fastest. */
static void what_counts_is_the_chance_times_the_speed(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(1);
    for (int i = 0; i < 8; i++)
        add(s, i < 7 ? 80 - 10 * i : 19, 0, 0);
    for (int i = 0; i < 7; i++)
        learned("net", 0.9);
    learned("hopeless", 0.4);
    enrolled_last(s);
    STAGE_OK(run(s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_int_equal(stage.out.n_tasks, 3);
    assert_string_equal(after->students[6]->out, "");
    assert_string_not_equal(after->students[0]->out, "");
    assert_string_not_equal(after->students[7]->out, "");
    assert_non_null(strstr(stage_event(&stage, "student"), "\"name\":\"student-7\""));
    assert_non_null(strstr(stage_event(&stage, "student"), "\"goes_on\":true"));
    for (int i = 0; i < 8; i++)
        assert_true(after->students[i]->predicted > after->students[i]->accuracies[0]);
    assert_true(stage_decided(after, "student-8: 40.00 % after rung 1"));
}

/* A network that keeps the limit is what the speed is set against: slower ones are worth nothing.
 */
static void who_is_slower_than_a_final_is_worth_nothing(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(1);
    job_network *final = stage_network("int8", "");
    stage_timing(final, 40);
    final->within_limit = true;
    STAGE_OK(message_append(&s->finals, &s->n_finals, final, err));
    add(s, 45, 0, 0);
    add(s, 35, 0, 0);
    learned("net", 0.93);
    learned("net", 0.6); /* hardly a chance, but one */
    _cleanup_(message_freep) job_state *after = next_rung(s, WHO(2));
}

/* Three of eight get 3/8 of the time, and the finals all that is left; new weights come only once.
 * The test itself may take a while. */
static void the_next_rung_has_its_share_of_the_time(void **state)
{
    (void)state;
    struct {
        uint32_t rung;
        int go_on;
        double seconds;
    } cases[] = {{1, 3, 970 * 3 / 8.0}, {2, 0, 970}};
    for (int i = 0; i < 2; i++) {
        _cleanup_(message_freep) job_state *s = race(cases[i].rung);
        for (int k = 0; k < 8; k++) {
            add(s, 80 - 10 * k, cases[i].rung - 1, 0.8);
            learned("net", 0.9);
        }
        if (cases[i].rung == 1)
            enrolled_last(s);
        STAGE_OK(run(s, err));
        if (cases[i].go_on == 0) /* as many as promise most together */
            cases[i].go_on = stage.out.n_tasks;
        assert_in_range(cases[i].go_on, 1, RUNGS_MOST_FINALISTS);
        for (int k = 0; k < cases[i].go_on; k++) {
            _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, k);
            const double each = cases[i].go_on * EPOCH_S;
            assert_non_null(train);
            assert_true(train->settings->epochs * each <= cases[i].seconds);
            assert_true((train->settings->epochs + 1) * each > 0.9 * cases[i].seconds ||
                        train->settings->epochs == RUNGS_MOST_EPOCHS);
            assert_false(train->settings->reinit);
            assert_false(train->settings->zero_residual);
        }
        stage_forget(&stage);
    }
}

/* Of what is left: one alone where it is sure to keep the limit and others are no cheaper, several
 * where one or the other may. */
static void the_finals_are_for_as_many_as_promise_most_together(void **state)
{
    (void)state;
    for (int sure = 0; sure < 2; sure++) {
        _cleanup_(message_freep) job_state *s = race(2);
        for (int k = 0; k < 4; k++) {
            add(s, sure ? 20 + 10 * k : 20 + k, 1, sure ? 0.93 : 0.88);
            learned("net", sure ? 0.94 : 0.9);
        }
        STAGE_OK(run(s, err));
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", "promote");
        if (sure)
            assert_int_equal(stage.out.n_tasks, 1);
        else
            assert_in_range(stage.out.n_tasks, 2, RUNGS_MOST_FINALISTS);
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, 0);
        assert_string_equal(train->name, "student-1");
        stage_forget(&stage);
    }
}

/* Once: they are told from by what the first reached. */
static void when_the_first_have_learned_others_are_enrolled(void **state)
{
    (void)state;
    for (int first = 0; first < 2; first++) {
        _cleanup_(message_freep) job_state *s = race(1);
        _cleanup_(graph_freep) struct graph *g =
            stage_designed("conv:8 residual:16:s2 head", &stage_pictures, false);
        for (int i = 0; i < 8; i++) {
            add(s, 80 - 10 * i, 0, 0);
            learned("net", 0.9);
        }
        if (!first)
            enrolled_last(s);
        stage_original(&stage, s, g);
        STAGE_OK(run(s, err));
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", first ? "enroll" : "promote");
        assert_int_equal(stage_follow(&stage, "price", 0) != NULL, first);
        assert_int_equal(after->students[0]->rungs, 1);
        assert_string_equal(after->students[0]->network, "net");
        stage_forget(&stage);
    }
}

static void one_alone_goes_on_where_half_as_much_again_is_left(void **state)
{
    (void)state;
    for (int much = 0; much < 2; much++) {
        const double value = 0.9;
        _cleanup_(message_freep) job_state *s = race(1);
        add(s, 50, 0, 0);
        learned_in("net", &value, much ? 20 : 2000);
        _cleanup_(message_freep) job_state *after =
            much ? next_rung(s, WHO(1)) : the_end(s, WHO(1));
        stage_forget(&stage);
    }
}

/* ---- the end ---- */

static void when_the_time_is_over_the_best_are_built(void **state)
{
    (void)state;
    stage_age(&stage, 2000);
    _cleanup_(message_freep) job_state *s = race(1);
    add(s, 50, 0, 0);
    add(s, 40, 0, 0);
    learned("a", 0.93);
    learned("b", 0.93);
    _cleanup_(message_freep) job_state *after = the_end(s, WHO(2, 1));
    assert_string_equal(after->students[0]->network, "a");
}

/* Who would have had to wait for the others is built all the same. */
static void a_rung_without_time_for_two_epochs_is_not_begun(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = race(1);
    for (int i = 0; i < 4; i++) {
        const double value = 0.80 + 0.01 * i;
        add(s, 50, 0, 0);
        learned_in("net", &value, 2000 * EPOCHS);
    }
    _cleanup_(message_freep) job_state *after = the_end(s, WHO(4, 3, 2));
    assert_string_equal(after->students[0]->out, "after rung 1 others promise more");
}

/* An error of 0.0853 is as much as the limit allows: 0.08 of the original, a point, less what the
 * bound will add. */
static void built_are_the_fastest_within_the_limit_then_the_most_accurate(void **state)
{
    (void)state;
    for (int keeps = 0; keeps < 2; keeps++) {
        _cleanup_(message_freep) job_state *s = race(3);
        add(s, 40, 2, 0.90);
        add(s, 30, 2, 0.75);
        add_out(s, 20, 2, 0.918, "after rung 2");
        add_out(s, 10, 2, keeps ? 0.9145 : 0.9135, "after rung 2");
        add_out(s, 5, 1, 0.95, "after rung 1"); /* too long ago */
        add_out(s, 50, 2, 0.9134, "after rung 2");
        learned("first", 0.92);
        learned("second", 0.89);
        _cleanup_(message_freep) job_state *after = the_end(s, keeps ? WHO(4, 3, 1) : WHO(3, 1, 4));
        assert_string_equal(after->students[0]->network, "first");
        assert_string_equal(after->students[1]->network, "second");
        assert_string_equal(after->students[4]->out, "after rung 1");
        assert_string_equal(after->students[5]->out, "after rung 2");
        stage_forget(&stage);
    }
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(when_all_trainings_fail_nothing_is_built),
        TEST(when_a_further_rung_fails_what_was_learned_is_built),
        TEST(who_fails_is_given_up_and_the_others_go_on),
        TEST(a_result_without_an_accuracy_is_a_failure),
        TEST(what_a_student_learned_is_taken_down),
        TEST(a_rung_that_made_a_student_worse_keeps_its_better_network),
        TEST(who_goes_on_does_so_from_its_trunk),
        TEST(at_the_end_nobody_is_expected_to_forget),
        TEST(results_of_others_are_an_error),
        TEST(the_speed_of_training_is_remembered),
        TEST(fewer_go_on_from_rung_to_rung),
        TEST(who_was_given_up_comes_back_where_others_disappoint),
        TEST(what_counts_is_the_chance_times_the_speed),
        TEST(who_is_slower_than_a_final_is_worth_nothing),
        TEST(the_next_rung_has_its_share_of_the_time),
        TEST(the_finals_are_for_as_many_as_promise_most_together),
        TEST(when_the_first_have_learned_others_are_enrolled),
        TEST(one_alone_goes_on_where_half_as_much_again_is_left),
        TEST(when_the_time_is_over_the_best_are_built),
        TEST(a_rung_without_time_for_two_epochs_is_not_begun),
        TEST(built_are_the_fastest_within_the_limit_then_the_most_accurate),
    };
    return cmocka_run_group_tests_name("promote", tests, NULL, NULL);
}
