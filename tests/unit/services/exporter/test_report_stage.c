/* The stage "report": what ends a job, what goes on with other architectures. */
#include "tests/support/stage_task.h"

#include "services/exporter/exporter.h"
#include "shared/graph/onnx.h"
#include "shared/work/so_far.h"
#include "tests/support/quant_nets.h"

static struct stage stage;
static job_state *job;

/* Two finals, and plain int8 beside them. */
static void begin_with(const char *space, double budget_s)
{
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.space = (char *)space;
    spec.budget_s = budget_s;
    stage_begin(&stage, &spec);
    job = stage_state();
    static const char *const names[] = {"candidate-1", "candidate-2"};
    for (int i = 0; i < 2; i++) {
        job_network *n = stage_network(names[i], "");
        stage_accuracy(n, "search", 0.98, 0.05, 0.5);
        stage_timing(n, 40);
        STAGE_OK(message_append(&job->finals, &job->n_finals, n, err));
    }
    Hone__V1__Profile profile = HONE__V1__PROFILE__INIT;
    Hone__V1__Scores scores = HONE__V1__SCORES__INIT;
    char name[HASH_HEX_BYTES];
    profile.cpu = (char *)"CPU of the profile";
    STAGE_OK(message_store(stage.store, &profile, name, err));
    STAGE_OK(message_set(&job->profile, name, err));
    STAGE_OK(message_store(stage.store, &scores, name, err));
    STAGE_OK(message_set(&job->scores, name, err));
}

static int end(void **state)
{
    (void)state;
    message_free(job);
    stage_end(&stage);
    return 0;
}

/* A small network in the store. */
static void store_network(char ret_name[HASH_HEX_BYTES])
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv conv = {.in = 3, .out = 16, .kernel = 3};
    struct net net;
    net_init(&net, 9);
    net_finish(&net, net_conv(&net, "conv9", net_input(&net, "input", 4, dims), &conv));
    _cleanup_(freep) void *data = NULL;
    size_t bytes;
    STAGE_OK(onnx_write_bytes(net.g, &data, &bytes, err));
    STAGE_OK(store_put(stage.store, data, bytes, ret_name, err));
    net_release(&net);
}

static void proof_packed(const char *name, const char *design, double value, double drop,
                         uint64_t packed_bytes)
{
    Hone__V1__ProveResult proved = HONE__V1__PROVE_RESULT__INIT;
    proved.network = stage_network(name, design);
    STAGE_OK(message_set(&proved.network->packed, packed_bytes ? "0123abcd" : "", err));
    proved.network->packed_bytes = packed_bytes;
    if (*design) {
        char artifact[HASH_HEX_BYTES];
        store_network(artifact);
        STAGE_OK(message_set(&proved.network->artifact, artifact, err));
        STAGE_OK(message_set(&job->network, artifact, err));
    }
    stage_accuracy(proved.network, "test", value, 0.1, drop);
    proved.network->drop_points = drop;
    proved.network->drop_upper95_points = drop + 0.3;
    proved.network->within_limit = drop + 0.3 <= 1;
    stage_result(&stage, &proved);
    message_free(proved.network);
}

static void proof(const char *name, const char *design, double value, double drop)
{
    proof_packed(name, design, value, drop, 0);
}

/* Of the original, plain int8 and so many finals: 100, 50, 40, 30 ... us. */
static void measurement(int finals)
{
    Hone__V1__MeasureResult measured = HONE__V1__MEASURE_RESULT__INIT;
    Hone__V1__Timing *timings[16];
    for (int i = 0; i < 2 * (2 + finals); i++) {
        const double us = i < 2 ? 100 : i < 4 ? 50 : 40 - 10 * (i / 2 - 2);
        timings[i] = stage_us(i % 2 ? "onnxruntime" : "hone", us);
    }
    measured.timings = timings;
    measured.n_timings = (size_t)(2 * (2 + finals));
    measured.cpu = (char *)"CPU of the measurement";
    stage_result(&stage, &measured);
    for (size_t i = 0; i < measured.n_timings; i++)
        message_free(timings[i]);
}

static void first_results(void)
{
    proof("candidate-1", "", 0.918, 0.2);
    proof("candidate-2", "", 0.90, 2);
    proof("int8", "", 0.917, 0.3);
    measurement(2);
}

static int report(struct err *err)
{
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    task.state = job;
    return stage_run(&stage, exporter_report, &task, err);
}

static const char *const files[] = {
    "model.onnx",
    "result.json",
    "report.html",
    "alternative-candidate-2.onnx",
    "alternative-int8.onnx",
    "manifest.json",
};

static void assert_files(const Hone__V1__JobResult *result)
{
    assert_int_equal(result->n_files, 6);
    for (int i = 0; i < 6; i++)
        assert_string_equal(result->files[i]->name, files[i]);
    assert_non_null(strstr(result->verdict, "2.50x faster"));
}

static char *text_of(const Hone__V1__JobResult *result, int file)
{
    void *text = NULL;
    size_t bytes = 0;
    STAGE_OK(store_get(stage.store, result->files[file]->artifact, 1 << 20, &text, &bytes, err));
    return text;
}

static void small_networks_come_packed_too(void **state)
{
    (void)state;
    begin_with("precision", 0);
    job->spec->objective = HONE__V1__OBJECTIVE__SIZE;
    job->baseline->bytes = 40000;
    proof_packed("candidate-1", "", 0.918, 0.2, 1000);
    proof_packed("candidate-2", "", 0.90, 2, 500);
    proof("int8", "", 0.917, 0.3);
    measurement(2);
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    assert_int_equal(result->n_files, 6);
    assert_string_equal(result->files[1]->name, "model.hone");
    assert_string_equal(result->files[1]->artifact, "0123abcd");
    assert_int_equal(result->files[1]->bytes, 1000);
    assert_non_null(strstr(result->verdict, "40.0x smaller than the original (1.0 KB packed, "
                                            "instead of 40.0 KB), 2.50x faster"));
    _cleanup_(freep) char *json = text_of(result, 2);
    assert_non_null(strstr(json, "\"packed_bytes\": 1000"));
}

static void precision_alone_ends_the_job(void **state)
{
    (void)state;
    begin_with("precision", 0);
    first_results();
    STAGE_OK(report(err));
    assert_true(stage.out.finish_job);
    assert_int_equal(stage.out.n_tasks, 0);
    _cleanup_(message_freep) Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    assert_files(result);
    _cleanup_(message_freep) Hone__V1__JobResult *so_far = NULL;
    STAGE_OK(so_far_get(stage.store, "J1", &so_far, err));
    assert_null(so_far);
    assert_null(stage_event(&stage, "result"));
    _cleanup_(freep) char *text = text_of(result, 1);
    assert_non_null(strstr(text, "\"final\": true"));
}

static void the_verdict_of_throughput_is_in_images_a_second(void **state)
{
    (void)state;
    begin_with("precision", 0);
    first_results();
    job->spec->objective = HONE__V1__OBJECTIVE__THROUGHPUT;
    job->spec->batch = 64;
    job->spec->threads = 2;
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    /* 64 of them in 40 and in 100 us */
    assert_non_null(
        strstr(result->verdict, "(1600000 images/s instead of 640000, batch 64, 2 threads)"));
    assert_non_null(strstr(stage_event(&stage, "best"), "\"images_per_s\":1600000"));
}

static void a_job_that_may_change_more_keeps_its_result_and_goes_on(void **state)
{
    (void)state;
    begin_with("", 0);
    first_results();
    STAGE_OK(report(err));
    assert_false(stage.out.finish_job);
    _cleanup_(message_freep) Hone__V1__JobResult *so_far = NULL;
    STAGE_OK(so_far_get(stage.store, "J1", &so_far, err));
    assert_files(so_far);
    _cleanup_(freep) char *text = text_of(so_far, 1);
    assert_non_null(strstr(text, "\"final\": false"));
    assert_non_null(strstr(stage_event(&stage, "result"), "\"final\":false,\"verdict\":\"2.50x"));
    assert_int_equal(stage.out.n_tasks, 1);
    assert_string_equal(stage.out.tasks[0].queue, "synthesizer");
    _cleanup_(message_freep) Hone__V1__StageTask *next =
        stage_payload(stage_follow(&stage, "redesign", 0), &hone__v1__stage_task__descriptor);
    assert_int_equal(next->state->n_finals, 2);
    assert_true(state_proved(next->state->finals[0]) && state_proved(next->state->plain_int8));
}

static void the_redesign_is_told_what_may_change(void **state)
{
    (void)state;
    begin_with("precision,students", 3600);
    first_results();
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__StageTask *next =
        stage_payload(stage_follow(&stage, "redesign", 0), &hone__v1__stage_task__descriptor);
    assert_string_equal(next->state->spec->space, "precision,students");
}

static void a_budget_that_is_over_ends_the_job(void **state)
{
    (void)state;
    begin_with("", 1e-6);
    first_results();
    STAGE_OK(report(err));
    assert_true(stage.out.finish_job);
    assert_int_equal(stage.out.n_tasks, 0);
}

/* After a redesign: what was proved before stays, the students' proofs come in order. */
static void finals_that_were_proved_before_stand_beside_students(void **state)
{
    (void)state;
    begin_with("", 0);
    job->redesigned = true;
    stage_accuracy(job->plain_int8, "test", 0.917, 0.1, 0.3);
    stage_accuracy(job->finals[0], "test", 0.918, 0.1, 0.2);
    stage_accuracy(job->finals[1], "test", 0.90, 0.1, 2);
    job->finals[0]->within_limit = true;
    job->finals[0]->drop_upper95_points = 0.5;
    job->finals[1]->drop_upper95_points = 2.3;
    static const char *const names[] = {"student-1", "student-2"};
    for (int i = 0; i < 2; i++) {
        job_network *n = stage_network(names[i], "conv:16 head");
        STAGE_OK(message_append(&job->finals, &job->n_finals, n, err));
    }
    stage_failure(&stage, "no memory");
    proof("student-2", "conv:16 head", 0.915, 0.5);
    measurement(4); /* student-2: 10 us */
    STAGE_OK(report(err));
    assert_true(stage.out.finish_job);
    _cleanup_(message_freep) Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    assert_non_null(strstr(result->verdict, "10.00x faster"));
    assert_string_equal(result->files[0]->artifact, job->network); /* the same, in this test */
    assert_int_equal(result->n_files, 7);
    assert_string_equal(result->files[3]->name, "alternative-candidate-1.onnx");
    assert_string_equal(result->files[5]->name, "alternative-int8.onnx");
    _cleanup_(freep) char *html = text_of(result, 2);
    assert_non_null(strstr(html, "<td>conv9</td><td class=left>Conv</td><td>16 x 8 x 8</td>"));
}

/* The redesign tried nothing: no group, and all that is needed in the state. */
static void a_state_that_is_whole_needs_no_results(void **state)
{
    (void)state;
    begin_with("", 0);
    job->redesigned = true;
    stage_accuracy(job->plain_int8, "test", 0.917, 0.1, 0.3);
    stage_accuracy(job->finals[0], "test", 0.918, 0.1, 0.2);
    stage_accuracy(job->finals[1], "test", 0.90, 0.1, 2);
    job->finals[0]->within_limit = true;
    STAGE_OK(report(err));
    assert_true(stage.out.finish_job);
    _cleanup_(message_freep) Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    assert_files(result);
    _cleanup_(freep) char *text = text_of(result, 1);
    assert_non_null(strstr(text, "CPU of the profile"));
}

/* ---- the test part ---- */

/* Once for those of the first report; the next adds whoever is new. */
static void openings_of_the_test_part_are_on_record(void **state)
{
    (void)state;
    begin_with("precision,students", 3600);
    first_results();
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    STAGE_OK(so_far_get_state(stage.store, "J1", &record, err));
    assert_int_equal(record->n_openings, 1);
    assert_int_equal(record->openings[0]->n_networks, 3);
    assert_string_equal(record->openings[0]->networks[0], "candidate-1");
    assert_string_equal(record->openings[0]->networks[2], "int8");
    assert_true(record->openings[0]->time_ms > 1700000000000);
    _cleanup_(message_freep) Hone__V1__JobResult *so_far = NULL;
    STAGE_OK(so_far_get(stage.store, "J1", &so_far, err));
    _cleanup_(freep) char *html = text_of(so_far, 2);
    assert_non_null(strstr(html, "the test part was opened 1 time, for 3 networks: "));
    assert_non_null(strstr(html, "The bounds on the drops of the 2 finals hold together (Holm)"));
    _cleanup_(freep) char *json = text_of(so_far, 1);
    assert_non_null(strstr(json, "\"correction\": \"Holm\""));
}

static void what_was_opened_before_is_not_opened_again(void **state)
{
    (void)state;
    begin_with("", 0);
    Hone__V1__JobSpec asked = HONE__V1__JOB_SPEC__INIT;
    Hone__V1__JobRecord opened = HONE__V1__JOB_RECORD__INIT;
    Hone__V1__Opening opening = HONE__V1__OPENING__INIT, *list[] = {&opening};
    char *names[] = {(char *)"candidate-1"}, *artifacts[] = {(char *)"candidate-1"};
    opening.time_ms = 1600000000000;
    opening.networks = names;
    opening.artifacts = artifacts;
    opening.n_networks = opening.n_artifacts = 1;
    opened.openings = list;
    opened.n_openings = 1;
    job->redesigned = true;
    STAGE_OK(so_far_put_state(stage.store, "J1", job, &asked, &opened, 5, err));
    first_results();
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    STAGE_OK(so_far_get_state(stage.store, "J1", &record, err));
    assert_int_equal(record->n_openings, 2);
    assert_true(record->openings[0]->time_ms == 1600000000000);
    assert_int_equal(record->openings[1]->n_networks, 2);
    assert_string_equal(record->openings[1]->networks[0], "candidate-2");
}

/* Alone, 0.83 points of 10000 samples keep one point; beside one that breaks it they do not. */
static void finals_are_judged_together(void **state)
{
    (void)state;
    begin_with("precision", 0);
    proof("candidate-1", "", 0.918, 0.83);
    proof("candidate-2", "", 0.90, 2);
    proof("int8", "", 0.917, 0.3);
    measurement(2);
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    STAGE_OK(so_far_get_state(stage.store, "J1", &record, err));
    assert_false(record->state->finals[0]->within_limit);
    assert_true(record->state->finals[0]->drop_bound_points > 1);
}

/* ---- jobs that refine others ---- */

/* From the first result on, and with the time that this took. */
static void who_refines_the_job_finds_where_it_stands(void **state)
{
    (void)state;
    begin_with("precision,students", 3600);
    stage_age(&stage, 50);
    first_results();
    STAGE_OK(report(err));
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    STAGE_OK(so_far_get_state(stage.store, "J1", &record, err));
    assert_non_null(record);
    assert_int_equal(record->version, 1);
    assert_string_equal(record->asked->space, "precision,students");
    assert_int_equal(record->state->n_finals, 2);
    assert_true(record->state->finals[0]->within_limit);
    assert_false(record->state->finals[1]->within_limit);
    assert_true(state_proved(record->state->plain_int8));
    assert_true(record->prepared_s >= 50 && record->prepared_s < 1000);

    stage_age(&stage, 2000);
    const double first = record->prepared_s;
    Hone__V1__JobSpec asked = HONE__V1__JOB_SPEC__INIT;
    STAGE_OK(so_far_put_state(stage.store, "J1", record->state, &asked, NULL, 2000, err));
    message_free(record);
    record = NULL;
    STAGE_OK(so_far_get_state(stage.store, "J1", &record, err));
    assert_true(record->prepared_s == first);
}

/* What it took over serves the next, too. */
static void who_refines_a_refined_job_saves_as_much(void **state)
{
    (void)state;
    begin_with("", 0);
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    Hone__V1__JobSpec asked = HONE__V1__JOB_SPEC__INIT;
    job->taken = message_new(&hone__v1__taken__descriptor, NULL);
    job->taken->prepared_s = 77;
    STAGE_OK(so_far_put_state(stage.store, "J1", job, &asked, NULL, 5, err));
    STAGE_OK(so_far_get_state(stage.store, "J1", &record, err));
    assert_true(record->prepared_s == 77);
}

static void another_versions_record_is_not_read(void **state)
{
    (void)state;
    begin_with("", 0);
    Hone__V1__JobRecord *record = NULL, other = HONE__V1__JOB_RECORD__INIT;
    Hone__V1__JobSpec asked = HONE__V1__JOB_SPEC__INIT;
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    other.version = 2;
    other.state = job;
    other.asked = &asked;
    STAGE_OK(message_pack(&other, &data, &bytes, err));
    STAGE_OK(store_record_put(stage.store, "jobs/J1/state", data, bytes, err));
    assert_int_equal(so_far_get_state(stage.store, "J1", &record, NULL), -ERR_FAILED_PRECONDITION);
    assert_null(record);
}

/* The job is done with two finals: 40 us and at most 0.5 points, 30 us and at most 2.3. */
static void done(void)
{
    begin_with("", 0);
    job->redesigned = true;
    stage_accuracy(job->plain_int8, "test", 0.917, 0.1, 0.3);
    stage_accuracy(job->finals[0], "test", 0.918, 0.1, 0.2);
    stage_accuracy(job->finals[1], "test", 0.90, 0.1, 2);
    job->finals[0]->drop_points = 0.2;
    job->finals[0]->drop_upper95_points = 0.5;
    job->finals[1]->drop_points = 2;
    job->finals[1]->drop_upper95_points = 2.3;
    job->finals[1]->timings[0]->p50_us = 30;
    job->taken = message_new(&hone__v1__taken__descriptor, NULL);
    STAGE_OK(message_set(&job->taken->job, "J0", err));
    job->taken->prepared_s = 40;
    job->taken->training_s = 200.25;
    job->taken->students = 2;
}

/* The verdict and result.json under these limits; the caller's. */
static char *reported(double max_drop, double max_us, uint64_t max_bytes, char **ret_json)
{
    done();
    job->spec->max_drop = max_drop;
    job->spec->max_us = max_us;
    job->spec->max_bytes = max_bytes;
    STAGE_OK(report(err));
    Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    *ret_json = text_of(result, 1);
    char *verdict = strdup(result->verdict);
    message_free(result);
    return verdict;
}

static void limits_decide_what_is_chosen(void **state)
{
    (void)state;
    static const struct {
        double max_drop, max_us;
        uint64_t max_bytes;
        const char *chosen, *verdict;
    } cases[] = {
        {1, 0, 0, "candidate-1", "2.50x faster"},
        {20, 0, 0, "candidate-2", "3.33x faster"},
        {100, 45, 0, "candidate-1",
         "Of the networks within 45 us candidate-1 loses least: 2.50x faster"},
        {100, 35, 0, "candidate-2", "Of the networks within 35 us candidate-2 loses least: 3.33x"},
        {1, 35, 0, "baseline",
         "No network stayed within 1.00 points and 35 us and was better than the original: the "
         "original stays. The closest, candidate-2, takes 30 us"},
        {100, 5, 0, "baseline", "The closest, candidate-2, takes 30 us and 1.0 KB, is 3.33x"},
        /* it loses nothing, and keeps the limit */
        {100, 200, 0, "baseline", "The original is within 200 us itself, and nothing loses less: "},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char *json = NULL, said[64];
        char *verdict = reported(cases[i].max_drop, cases[i].max_us, cases[i].max_bytes, &json);
        snprintf(said, sizeof(said), "\"chosen\": \"%s\"", cases[i].chosen);
        if (!strstr(json, said) || !strstr(verdict, cases[i].verdict))
            fail_msg("case %zu: %s", i, verdict);
        assert_non_null(strstr(json, cases[i].max_drop == 100 ? "\"max_drop_points\": null"
                                                              : "\"max_drop_points\": "));
        assert_int_equal(strstr(json, "\"max_us\"") != NULL, cases[i].max_us > 0);
        free(json);
        free(verdict);
        if (i + 1 < sizeof(cases) / sizeof(cases[0]))
            end(NULL);
    }
}

static void what_was_saved_is_said(void **state)
{
    (void)state;
    char *json = NULL;
    _cleanup_(freep) char *verdict = reported(1, 0, 0, &json);
    _cleanup_(freep) char *text = json;
    assert_non_null(strstr(text, "\"seconds\": 240.3"));
    assert_non_null(strstr(text, "\"training_s\": 200.3"));
    assert_non_null(strstr(text, "\"prepared_s\": 40.0"));
    assert_non_null(strstr(text, "\"students\": 2"));
    _cleanup_(message_freep) Hone__V1__JobResult *result = NULL;
    STAGE_OK(message_unpack(&hone__v1__job_result__descriptor, stage.out.result,
                            stage.out.result_bytes, &result, err));
    _cleanup_(freep) char *html = text_of(result, 2);
    assert_non_null(strstr(html, "Refines job J0, whose work was not done again: "));
    assert_non_null(strstr(html, "training 2 students"));
    assert_non_null(strstr(html, "hone refine JOB --max-drop 1<"));
}

static void results_that_are_missing_are_an_error(void **state)
{
    (void)state;
    begin_with("", 0);
    measurement(2);
    struct err err = {0};
    assert_int_equal(report(&err), -ERR_INTERNAL);
    assert_non_null(strstr(err.message, "1 results, 4 expected"));
}

#define TEST(fn) cmocka_unit_test_teardown(fn, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(small_networks_come_packed_too),
        TEST(precision_alone_ends_the_job),
        TEST(the_verdict_of_throughput_is_in_images_a_second),
        TEST(a_job_that_may_change_more_keeps_its_result_and_goes_on),
        TEST(the_redesign_is_told_what_may_change),
        TEST(a_budget_that_is_over_ends_the_job),
        TEST(finals_that_were_proved_before_stand_beside_students),
        TEST(a_state_that_is_whole_needs_no_results),
        TEST(openings_of_the_test_part_are_on_record),
        TEST(what_was_opened_before_is_not_opened_again),
        TEST(finals_are_judged_together),
        TEST(who_refines_the_job_finds_where_it_stands),
        TEST(who_refines_a_refined_job_saves_as_much),
        TEST(another_versions_record_is_not_read),
        TEST(limits_decide_what_is_chosen),
        TEST(what_was_saved_is_said),
        TEST(results_that_are_missing_are_an_error),
    };
    return cmocka_run_group_tests_name("report stage", tests, NULL, NULL);
}
