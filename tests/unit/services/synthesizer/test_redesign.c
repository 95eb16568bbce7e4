/* The stages "redesign" and "enroll", and what "choose" decides about them. */
#include "tests/support/stage_design.h"

#include <math.h>

#include "services/synthesizer/students.h"
#include "services/synthesizer/synthesizer.h"

static struct stage stage;

/* Where nothing else is said the job may be redesigned, and has 3000 s. */
static int begin(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.budget_s = 3000;
    stage_begin(&stage, &spec);
    return 0;
}

static int end(void **state)
{
    (void)state;
    stage_end(&stage);
    return 0;
}

/* Another job instead. */
static void ask(const char *what, double budget_s)
{
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    stage_end(&stage);
    spec.space = (char *)what;
    spec.budget_s = budget_s;
    stage_begin(&stage, &spec);
}

static int run(work_handler *handle, job_state *s, struct err *err)
{
    Hone__V1__StageTask task = HONE__V1__STAGE_TASK__INIT;
    task.state = s;
    return stage_run(&stage, handle, &task, err);
}

/* ---- is there to be a redesign? ---- */

/* What "choose" says before the first report. */
static job_state *decided(job_state *s)
{
    Hone__V1__MeasureResult measured = HONE__V1__MEASURE_RESULT__INIT;
    Hone__V1__Timing *timings[] = {s->baseline->timings[0], s->plain_int8->timings[0]};
    measured.timings = timings;
    measured.n_timings = 2;
    stage_result(&stage, &measured);
    STAGE_OK(run(synthesizer_choose, s, err));
    return stage_handed_on(&stage, "exporter", "report");
}

static void refused(job_state *s, const char *why)
{
    _cleanup_(message_freep) job_state *after = decided(s);
    assert_true(after->redesigned);
    if (!stage_decided(after, why))
        fail_msg("no decision holds '%s'", why);
    stage_forget(&stage);
}

static void what_can_be_redesigned_is_left_to_it(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    _cleanup_(message_freep) job_state *after = decided(s);
    assert_false(after->redesigned);
    assert_false(stage_decided(after, "redesign"));
}

static void who_asks_for_precisions_gets_no_students_and_no_excuse(void **state)
{
    (void)state;
    ask("precision", 3000);
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    _cleanup_(message_freep) job_state *after = decided(s);
    assert_true(after->redesigned);
    assert_false(stage_decided(after, "redesign"));
}

/* They are judged by agreement then. */
static void students_need_no_labels(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    s->data->labels_usable = false;
    _cleanup_(message_freep) job_state *after = decided(s);
    assert_false(after->redesigned);
}

static struct graph *two_inputs(void)
{
    struct graph *g = stage_designed("conv:8 head", &stage_pictures, false);
    const struct shape shape = shape_make(2, (int64_t[]){DIM_BATCH, 10});
    const int more = graph_add_input(g, "more", DTYPE_F32, &shape, NULL);
    const int both[] = {g->outputs[0], more};
    const int sum = graph_add_node(g, -1, OP_ADD, "sum", 2, both, 1, NULL, NULL);
    assert_true(sum >= 0);
    g->outputs[0] = g->nodes[sum]->outputs[0];
    STAGE_OK(graph_infer(g, err));
    return g;
}

static struct graph *two_outputs(void)
{
    struct graph *g = stage_designed("conv:8 head", &stage_pictures, false);
    assert_true(graph_add_output(g, g->nodes[0]->outputs[0], NULL) >= 0);
    return g;
}

static struct graph *no_pictures(void)
{
    struct graph *g = graph_new(13, NULL);
    const struct shape shape = shape_make(2, (int64_t[]){DIM_BATCH, 10});
    const int x = graph_add_input(g, "x", DTYPE_F32, &shape, NULL);
    const int node = graph_add_node(g, -1, OP_RELU, "relu", 1, &x, 1, NULL, NULL);
    assert_true(node >= 0 && graph_add_output(g, g->nodes[node]->outputs[0], NULL) >= 0);
    STAGE_OK(graph_infer(g, err));
    return g;
}

static struct graph *no_classes(void)
{
    return stage_designed("conv:8", &stage_pictures, false);
}

static struct graph *one_class(void)
{
    struct design_ends ends = stage_pictures;
    ends.outputs = 1;
    return stage_designed("conv:8 head", &ends, false);
}

static void students_stand_in_for_classifiers_of_pictures_only(void **state)
{
    (void)state;
    static const struct {
        struct graph *(*make)(void);
        const char *why;
    } cases[] = {
        {two_inputs, "no redesign: the network has several inputs or outputs"},
        {two_outputs, "no redesign: the network has several inputs or outputs"},
        {no_pictures, "no redesign: the network does not read pictures"},
        {no_classes, "no redesign: the network's answers are no classes"},
        {one_class, "no redesign: the network's answers are no classes"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        _cleanup_(graph_freep) struct graph *g = cases[i].make();
        stage_original(&stage, s, g);
        refused(s, cases[i].why);
    }
}

static void a_redesign_needs_time(void **state)
{
    (void)state;
    ask("", 10);
    _cleanup_(message_freep) job_state *none = stage_redesigned(&stage);
    refused(none, "no redesign: the budget leaves 0 s for training");
    ask("", 55); /* of which the end gets 30 s */
    _cleanup_(message_freep) job_state *little = stage_redesigned(&stage);
    refused(little, "no redesign: the budget leaves 2");
}

/* The end takes as long as the job took until now: of 1000 s, 600 are over and 540 kept. */
static void what_the_job_took_until_now_is_kept_for_the_end(void **state)
{
    (void)state;
    ask("", 1000);
    stage_age(&stage, 600);
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    refused(s, "no redesign: the budget leaves 0 s for training");
    stage_age(&stage, 400);
    _cleanup_(message_freep) job_state *after = decided(s);
    assert_false(after->redesigned);
}

/* ---- redesign ---- */

static Hone__V1__PriceTask *asked_price(void)
{
    const struct task_spec *price = stage_follow(&stage, "price", 0);
    assert_non_null(price);
    assert_string_equal(price->queue, "profiler:cpu:test");
    assert_int_equal(stage.out.n_tasks, 1);
    return stage_payload(price, &hone__v1__price_task__descriptor);
}

/* What the stages make of it, in the caller's arena. */
static struct space space_of(const job_state *s, const struct design_ends *ends,
                             struct arena *arena)
{
    struct space space;
    STAGE_OK(space_build(ends, students_original(s), arena, &space, err));
    assert_true(space.n_students > 100);
    return space;
}

static void the_profiler_is_asked_for_every_piece(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    s->spec->threads = 3;
    s->spec->batch = 2;
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) Hone__V1__PriceTask *price = asked_price();
    const struct space space = space_of(s, &stage_pictures, arena);
    assert_string_equal(price->target, "cpu:test");
    assert_int_equal(price->threads, 3);
    assert_int_equal(price->batch, 2);
    assert_int_equal(price->n_pieces, space.n_pieces);
    for (int i = 0; i < space.n_pieces; i++) {
        const struct space_piece *want = &space.pieces[i];
        const Hone__V1__PriceTask__Piece *got = price->pieces[i];
        assert_string_equal(got->text, want->text);
        assert_int_equal(got->channels, want->at.channels);
        assert_int_equal(got->height, want->at.height);
        assert_int_equal(got->width, want->at.width);
        assert_int_equal(got->outputs, want->at.outputs);
        assert_int_equal(got->first, want->first);
    }
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "enroll");
    char said[64];
    snprintf(said, sizeof(said), "redesign: %d students of %d pieces", space.n_students,
             space.n_pieces);
    assert_true(stage_decided(after, said));
    assert_false(after->redesigned);
}

/* In tens of seconds: 0.9 of what it took until now, at least 30. A tenth of the rest may go into
 * prices. */
static void the_end_has_a_reserve_and_pricing_a_limit(void **state)
{
    (void)state;
    static const struct {
        double budget_s, reserve_s;
        int age_s;
        double most_s; /* of pricing */
    } cases[] = {
        {3000, 30, 0, 297}, {3000, 290, 315, 239.5}, {0, 30, 0, 717}, {3000, 90, 95, 281.5}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        ask("", cases[i].budget_s);
        stage_age(&stage, cases[i].age_s);
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        STAGE_OK(run(synthesizer_redesign, s, err));
        _cleanup_(message_freep) Hone__V1__PriceTask *price = asked_price();
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", "enroll");
        assert_true(after->reserve_s == cases[i].reserve_s);
        assert_true(price->seconds <= cases[i].most_s);
        assert_true(price->seconds > cases[i].most_s / 2);
    }
}

/* What blocks took to learn says nothing about the end: the reserve was kept before. */
static void lessons_of_blocks_do_not_add_to_the_reserve(void **state)
{
    (void)state;
    stage_age(&stage, 1000);
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    STAGE_OK(message_set(&s->spec->space, "precision,blocks,students", err));
    s->reserve_s = 60;
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) Hone__V1__PriceTask *price = asked_price();
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "enroll");
    assert_true(after->reserve_s == 60);
    assert_true(price->seconds > 190 && price->seconds <= 194); /* a tenth of 3000 - 1000 - 60 */
}

/* 0 would be no limit. */
static void pricing_is_limited_where_no_time_is_left(void **state)
{
    (void)state;
    stage_age(&stage, 4000);
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) Hone__V1__PriceTask *price = asked_price();
    assert_true(price->seconds > 0 && price->seconds <= 1);
}

/* ---- enroll ---- */

#define FLOOR_US 2.0

static bool has_piece(const struct space_student *student, int piece)
{
    for (int i = 0; i < student->n; i++)
        if (student->pieces[i] == piece)
            return true;
    return false;
}

/* A piece takes a microsecond, and `us` for each million of its products. only: no other pieces
 * than this student's have a price; NULL: all have. */
static void price_only(struct space *space, double us, const struct space_student *only)
{
    Hone__V1__PriceResult result = HONE__V1__PRICE_RESULT__INIT;
    _cleanup_(freep) double *all = mem_calloc((size_t)space->n_pieces, sizeof(*all));
    for (int i = 0; i < space->n_pieces; i++)
        if (!only || has_piece(only, i))
            all[i] = 1 + us * 1e-6 * (double)space->pieces[i].macs;
    result.us = all;
    result.n_us = (size_t)space->n_pieces;
    result.floor_us = FLOOR_US;
    space_price(space, all, FLOOR_US);
    stage_result(&stage, &result);
}

static void price(struct space *space, double us)
{
    price_only(space, us, NULL);
}

/* The redesign costs itself only: the job goes on with what it has. */
static job_state *without_students(void)
{
    job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    assert_int_equal(stage.out.n_tasks, 0);
    assert_int_equal(after->n_students, 0);
    assert_true(after->redesigned);
    return after;
}

static void without_prices_there_is_no_redesign(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    stage_failure(&stage, "no worker of this target");
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = without_students();
    assert_true(stage_decided(after, "redesign: pricing pieces failed: no worker of this target"));
}

static void prices_of_other_pieces_are_an_error(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    Hone__V1__PriceResult result = HONE__V1__PRICE_RESULT__INIT;
    double us[] = {1, 2};
    struct err err = {0};
    result.us = us;
    result.n_us = 2;
    stage_result(&stage, &result);
    assert_int_equal(run(synthesizer_enroll, s, &err), -ERR_INTERNAL);
    assert_non_null(strstr(err.message, "2 prices of"));
}

static void nobody_is_trained_who_is_not_faster(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct space space = space_of(s, &stage_pictures, arena);
    price(&space, 1e6);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = without_students();
    assert_true(stage_decided(after, "redesign: no student is cheaper than the best network"));
}

/* The best network is a final where one keeps the limit: one that does not says nothing. */
static void a_final_within_the_limit_is_what_is_to_beat(void **state)
{
    (void)state;
    for (int within = 0; within < 2; within++) {
        _cleanup_(arena_freep) struct arena *arena = arena_new();
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        struct space space = space_of(s, &stage_pictures, arena);
        job_network *final = stage_network("int8", "");
        stage_timing(final, 5);
        final->within_limit = within;
        STAGE_OK(message_append(&s->finals, &s->n_finals, final, err));
        stage_rate(&stage, "1e12");
        price(&space, 10);
        STAGE_OK(run(synthesizer_enroll, s, err));
        assert_int_equal(stage_follow(&stage, "train", 0) == NULL, within);
        stage_forget(&stage);
    }
}

static void training_that_is_too_slow_is_not_begun(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct space space = space_of(s, &stage_pictures, arena);
    stage_rate(&stage, "1e6");
    price(&space, 10);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = without_students();
    assert_true(stage_decided(after, "s of training are not enough"));
}

/* The student's network as the store has it. */
static struct graph *network_of(const job_student *student)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct graph *g = NULL;
    STAGE_OK(store_get(stage.store, student->network, 1 << 28, &data, &bytes, err));
    STAGE_OK(onnx_read_bytes(data, bytes, NULL, NULL, &g, err));
    return g;
}

static double seconds_of_epoch(const job_student *student, double mac_per_s)
{
    return 3 * (double)student->macs * 50000 / mac_per_s;
}

/* All get the same number of epochs, as many as there is time for, but for what the test itself
 * takes. */
static void shares(const job_state *s, double seconds, double mac_per_s)
{
    double each = 0;
    for (size_t i = 0; i < s->n_students; i++)
        each += seconds_of_epoch(s->students[i], mac_per_s);
    for (size_t i = 0; i < s->n_students; i++) {
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, (int)i);
        assert_non_null(train);
        assert_true(train->settings->epochs * each <= seconds);
        assert_true((train->settings->epochs + 1) * each > 0.96 * seconds);
    }
    assert_null(stage_follow(&stage, "train", (int)s->n_students));
}

static const struct space_student *find(const struct space *space, const char *design)
{
    for (int i = 0; i < space->n_students; i++)
        if (strcmp(space->students[i].text, design) == 0)
            return &space->students[i];
    fail_msg("no student '%s'", design);
    return NULL;
}

static void students_are_enrolled(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct space space = space_of(s, &stage_pictures, arena);
    s->reserve_s = 40;
    stage_rate(&stage, "1e11");
    price(&space, 20);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_false(after->redesigned);
    assert_int_equal(after->rung, 1);
    assert_int_equal(after->views, 12); /* one for 240 s of training */
    const int n = (int)after->n_students;
    assert_int_equal(n, 12);
    assert_int_equal(after->enrolments, 1);
    for (int i = 0; i < n; i++) {
        const struct space_student *want = find(&space, after->students[i]->design);
        const job_student *got = after->students[i];
        char name[24], said[96];
        snprintf(name, sizeof(name), "student-%d", i + 1);
        snprintf(said, sizeof(said), "%s: %s (", name, want->text);
        assert_string_equal(got->name, name);
        assert_string_equal(got->design, want->text);
        assert_true(got->predicted_us == want->us);
        assert_true(got->predicted_us <= 0.8 * 100);
        assert_int_equal(got->macs, want->macs);
        assert_int_equal(got->parameters, want->parameters);
        assert_int_equal(got->rungs, 0);
        assert_string_equal(got->out, "");
        assert_true(stage_decided(after, said));
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, i);
        assert_string_equal(train->name, name);
        assert_string_equal(train->network, got->network);
    }
    shares(after, 0.15 * (3000 - 40), 1e11);
    assert_non_null(strstr(stage_event(&stage, "enrolled"), "\"name\":\"student-1\""));
    assert_non_null(strstr(stage_event(&stage, "rung"), "\"rung\":1,"));
    assert_true(stage_decided(after, "rung 1: "));
}

/* Others, knowing what the first reached; what is like one of those is not tried again. */
static void newcomers_are_others_than_those_before(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct space space = space_of(s, &stage_pictures, arena);
    stage_rate(&stage, "2e11");
    price(&space, 20);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *first = stage_handed_on(&stage, "synthesizer", "promote");
    const size_t n = first->n_students;
    for (size_t i = 0; i < n; i++) {
        job_student *student = first->students[i];
        STAGE_OK(message_append_f64(&student->accuracies, &student->n_accuracies, 0.8, err));
        STAGE_OK(message_append_f64(&student->epochs, &student->n_epochs, 5, err));
        student->rungs = 1;
    }
    stage_forget(&stage);
    price(&space, 20);
    STAGE_OK(run(synthesizer_enroll, first, err));
    _cleanup_(message_freep) job_state *second = stage_handed_on(&stage, "synthesizer", "promote");
    assert_int_equal(second->enrolments, 2);
    assert_int_equal(second->rung, 2);
    assert_int_equal(second->n_students, n + 8);
    for (size_t i = n; i < n + 8; i++) {
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, (int)(i - n));
        assert_string_equal(train->name, second->students[i]->name);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(second->students[i]->design, second->students[k]->design);
    }
    assert_null(stage_training(&stage, 8));
    assert_int_equal(second->views, first->views);
}

/* Where that leaves one alone, it races nobody, and has all of the time. */
static void what_has_no_price_is_not_enrolled(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct space space = space_of(s, &stage_pictures, arena);
    s->reserve_s = 30;
    stage_rate(&stage, "1e10");
    price_only(&space, 20, &space.students[0]);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_int_equal(after->n_students, 1);
    assert_string_equal(after->students[0]->design, space.students[0].text);
    shares(after, 3000 - 30, 1e10);
}

static void little_time_is_for_few_students(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct space space = space_of(s, &stage_pictures, arena);
    s->reserve_s = 30;
    stage_rate(&stage, "1e7");
    price(&space, 20);
    STAGE_OK(run(synthesizer_enroll, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_int_equal(after->n_students, 1);
    shares(after, 3000 - 30, 1e7);
}

/* The first follow-up of a job with these; the caller's. */
static Hone__V1__TrainTask *first_training(job_state *s, const struct design_ends *ends)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space = space_of(s, ends, arena);
    stage_rate(&stage, "1e12");
    price(&space, 20);
    STAGE_OK(run(synthesizer_enroll, s, err));
    Hone__V1__TrainTask *train = stage_training(&stage, 0);
    assert_non_null(train);
    return train;
}

static void how_students_are_trained(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    s->preprocess->scale = 0.25;
    _cleanup_(message_freep) Hone__V1__TrainTask *train = first_training(s, &stage_pictures);
    const Hone__V1__TrainSettings *got = train->settings;
    assert_string_equal(train->data, "data");
    assert_true(train->preprocess->scale == 0.25);
    assert_null(train->teacher_preprocess);
    assert_true(got->reinit);
    assert_true(got->zero_residual);
    assert_true(got->identity);
    assert_true(got->whiten);
    assert_int_equal(got->lookahead, 5);
    assert_int_equal(got->seed, 7);
    assert_int_equal(got->views, 12);
    assert_int_equal(got->evaluate, -1);
    assert_string_equal(got->schedule, "trapezoid");
    assert_true(got->warmup == 0);
    assert_true(got->distil == 0.9);
    assert_true(got->temperature == 4);
    assert_string_equal(got->flip, "alternating");
    assert_string_equal(got->border, "reflect");
    assert_int_equal(got->crop, 2);
}

/* Patches of so many channels would have more numbers than can be whitened. */
static void pictures_of_many_channels_are_not_whitened(void **state)
{
    (void)state;
    for (int many = 0; many < 2; many++) {
        struct design_ends ends = stage_pictures;
        ends.channels = many ? 300 : 10;
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        _cleanup_(graph_freep) struct graph *g =
            stage_designed("conv:8 residual:16:s2 head", &ends, false);
        stage_original(&stage, s, g);
        s->baseline->macs = 40000000;
        _cleanup_(message_freep) Hone__V1__TrainTask *train = first_training(s, &ends);
        assert_int_equal(train->settings->whiten, !many);
        assert_true(train->settings->identity);
        stage_forget(&stage);
    }
}

/* An epoch has some hundred steps. */
static void few_samples_are_learned_in_small_batches(void **state)
{
    (void)state;
    static const struct {
        uint64_t n_train;
        uint32_t batch;
        double rate;
    } cases[] = {
        {50000, 64, 0.1}, {6400, 64, 0.1}, {6399, 32, 0.05}, {3199, 16, 0.025}, {400, 16, 0.025}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        s->data->n_train = cases[i].n_train;
        _cleanup_(message_freep) Hone__V1__TrainTask *train = first_training(s, &stage_pictures);
        assert_int_equal(train->settings->batch, cases[i].batch);
        assert_true(fabs(train->settings->rate - cases[i].rate) < 1e-12);
        stage_forget(&stage);
    }
}

/* What has one channel may be writing, and tiny pictures lose too much by being moved. */
static void not_all_pictures_are_moved_and_mirrored(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    struct design_ends ends = stage_pictures;
    ends.channels = 1;
    ends.width = 15;
    _cleanup_(graph_freep) struct graph *g = stage_designed("conv:8 head", &ends, false);
    stage_original(&stage, s, g);
    _cleanup_(message_freep) Hone__V1__TrainTask *train = first_training(s, &ends);
    assert_string_equal(train->settings->flip, "none");
    assert_int_equal(train->settings->crop, 0);
}

static void the_teacher_is_the_original_in_8_bits_where_that_loses_little(void **state)
{
    (void)state;
    for (int little = 0; little < 2; little++) {
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        s->plain_int8->accuracies[0]->drop_points = little ? 0.5 : 0.51;
        _cleanup_(message_freep) Hone__V1__TrainTask *train = first_training(s, &stage_pictures);
        assert_string_equal(train->teacher, little ? "int8" : s->network);
        stage_forget(&stage);
    }
}

static void students_answer_as_the_original_does(void **state)
{
    (void)state;
    static const struct {
        const char *input, *output;
        bool probabilities;
    } cases[] = {
        {NULL, NULL, false},
        {"serving_default_x:0", "StatefulPartitionedCall:0", false},
        {"serving_default_x:0", "StatefulPartitionedCall:0", true},
        {"input", "output", true},
        /* names that students have for something else */
        {"output", "input", false},
        {"output", "input", true},
        {"input", "logits", true},
        {"logits", "output", true},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct design_ends ends = stage_pictures;
        ends.input = cases[i].input;
        ends.output = cases[i].output;
        _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
        _cleanup_(graph_freep) struct graph *original =
            stage_designed("conv:8 residual:16:s2 head", &ends, cases[i].probabilities);
        stage_original(&stage, s, original);
        _cleanup_(message_freep) Hone__V1__TrainTask *train = first_training(s, &stage_pictures);
        _cleanup_(message_freep) job_state *after =
            stage_handed_on(&stage, "synthesizer", "promote");
        for (size_t k = 0; k < after->n_students; k++) {
            _cleanup_(graph_freep) struct graph *g = network_of(after->students[k]);
            const struct value *in = g->values[g->inputs[0]], *out = g->values[g->outputs[0]];
            const struct node *last = g->nodes[out->producer];
            assert_int_equal(g->n_inputs, 1);
            assert_int_equal(g->n_outputs, 1);
            assert_string_equal(in->name, cases[i].input ? cases[i].input : "input");
            assert_string_equal(out->name, cases[i].output ? cases[i].output : "output");
            assert_true(shape_equal(&in->shape, &original->values[original->inputs[0]]->shape));
            assert_true(shape_equal(&out->shape, &original->values[original->outputs[0]]->shape));
            assert_int_equal(last->op == OP_SOFTMAX, cases[i].probabilities);
            assert_true(!cases[i].probabilities || node_int(last, "axis", -1) == 1);
            assert_string_equal(graph_metadata(g, "hone.design"), after->students[k]->design);
        }
        stage_forget(&stage);
    }
}

/* Students for pictures of more channels than a design can have cannot be built. */
static void what_no_student_can_stand_in_for_keeps_what_it_has(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    const struct shape shape = shape_make(4, (int64_t[]){DIM_BATCH, 70000, 8, 8});
    const int x = graph_add_input(g, "x", DTYPE_F32, &shape, NULL);
    const int pool = graph_add_node(g, -1, OP_GLOBAL_AVERAGE_POOL, "pool", 1, &x, 1, NULL, NULL);
    const int flat =
        graph_add_node(g, -1, OP_FLATTEN, "flat", 1, &g->nodes[pool]->outputs[0], 1, NULL, NULL);
    assert_true(graph_add_output(g, g->nodes[flat]->outputs[0], NULL) >= 0);
    STAGE_OK(graph_infer(g, err));
    _cleanup_(message_freep) job_state *s = stage_redesigned(&stage);
    stage_original(&stage, s, g);
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) job_state *after = without_students();
    assert_true(stage_decided(after, "redesign: channels 70000"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_can_be_redesigned_is_left_to_it),
        TEST(who_asks_for_precisions_gets_no_students_and_no_excuse),
        TEST(students_need_no_labels),
        TEST(students_stand_in_for_classifiers_of_pictures_only),
        TEST(a_redesign_needs_time),
        TEST(what_the_job_took_until_now_is_kept_for_the_end),
        TEST(the_profiler_is_asked_for_every_piece),
        TEST(the_end_has_a_reserve_and_pricing_a_limit),
        TEST(lessons_of_blocks_do_not_add_to_the_reserve),
        TEST(pricing_is_limited_where_no_time_is_left),
        TEST(without_prices_there_is_no_redesign),
        TEST(prices_of_other_pieces_are_an_error),
        TEST(nobody_is_trained_who_is_not_faster),
        TEST(a_final_within_the_limit_is_what_is_to_beat),
        TEST(training_that_is_too_slow_is_not_begun),
        TEST(students_are_enrolled),
        TEST(newcomers_are_others_than_those_before),
        TEST(what_has_no_price_is_not_enrolled),
        TEST(little_time_is_for_few_students),
        TEST(how_students_are_trained),
        TEST(pictures_of_many_channels_are_not_whitened),
        TEST(few_samples_are_learned_in_small_batches),
        TEST(not_all_pictures_are_moved_and_mirrored),
        TEST(the_teacher_is_the_original_in_8_bits_where_that_loses_little),
        TEST(students_answer_as_the_original_does),
        TEST(what_no_student_can_stand_in_for_keeps_what_it_has),
    };
    return cmocka_run_group_tests_name("redesign", tests, NULL, NULL);
}
