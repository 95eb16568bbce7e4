/* The stages "redesign", "imitate" and "join" of jobs whose blocks may be replaced. */
#include "tests/support/stage_design.h"

#include <math.h>

#include "services/synthesizer/blocks.h"
#include "services/synthesizer/paths.h"
#include "services/synthesizer/students.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/graph/passes.h"

static struct stage stage;
static char *precisions[] = {(char *)"fp32", (char *)"int8"};

static int begin(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.budget_s = 3000;
    stage_begin(&stage, &spec);
    stage_rate(&stage, "1e12");
    return 0;
}

static int end(void **state)
{
    (void)state;
    stage_end(&stage);
    return 0;
}

/* Each layer takes 20 us in fp32 and 10 in int8, and hurts by 0.01 in int8. */
static void add_layer(Hone__V1__Profile *profile, Hone__V1__Scores *scores, const char *name)
{
    Hone__V1__Profile__Layer *layer = message_new(&hone__v1__profile__layer__descriptor, NULL);
    Hone__V1__Scores__Score *score = message_new(&hone__v1__scores__score__descriptor, NULL);
    STAGE_OK(message_set(&layer->layer, name, err));
    STAGE_OK(message_append_f64(&layer->us, &layer->n_us, 20, err));
    STAGE_OK(message_append_f64(&layer->us, &layer->n_us, 10, err));
    STAGE_OK(message_append(&profile->layers, &profile->n_layers, layer, err));
    STAGE_OK(message_set(&score->layer, name, err));
    STAGE_OK(message_set(&score->precision, "int8", err));
    score->kl = 0.01;
    STAGE_OK(message_append(&scores->scores, &scores->n_scores, score, err));
}

static void keep_profile(job_state *s, const struct graph *g)
{
    _cleanup_(message_freep) Hone__V1__Profile *profile =
        message_new(&hone__v1__profile__descriptor, NULL);
    _cleanup_(message_freep) Hone__V1__Scores *scores =
        message_new(&hone__v1__scores__descriptor, NULL);
    char name[HASH_HEX_BYTES];
    for (int p = 0; p < 2; p++)
        STAGE_OK(
            message_append_text(&profile->precisions, &profile->n_precisions, precisions[p], err));
    for (int n = 0; n < g->n_nodes; n++)
        if (graph_node_cost(g, g->nodes[n]).macs > 0)
            add_layer(profile, scores, g->nodes[n]->name);
    STAGE_OK(message_store(stage.store, profile, name, err));
    STAGE_OK(message_set(&s->profile, name, err));
    STAGE_OK(message_store(stage.store, scores, name, err));
    STAGE_OK(message_set(&s->scores, name, err));
}

static job_state *job_with(const char *design, const char *space)
{
    job_state *s = stage_redesigned(&stage);
    _cleanup_(graph_freep) struct graph *g = stage_designed(design, &stage_pictures, false);
    STAGE_OK(pass_simplify(g, err));
    stage_original(&stage, s, g);
    keep_profile(s, g);
    STAGE_OK(message_set(&s->spec->space, space, err));
    s->replaced = false;
    return s;
}

/* A job whose original is a small ResNet: 6 units, 9 layers. */
static job_state *job_of(const char *space)
{
    return job_with("conv:8 residual:16:s2 residual:16*3 head", space);
}

static int run(work_handler *handle, job_state *s, struct err *err)
{
    Hone__V1__StageTask payload = HONE__V1__STAGE_TASK__INIT;
    payload.state = s;
    free(stage.task.payload);
    stage.task.payload = NULL;
    return stage_run(&stage, handle, &payload, err);
}

static job_library *library_of(const job_state *s)
{
    job_library *library = NULL;
    STAGE_OK(message_load(stage.store, s->library, &hone__v1__library__descriptor, &library, err));
    return library;
}

static void the_profiler_is_asked_for_every_alternative_in_every_precision(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "imitate");
    _cleanup_(message_freep) job_library *library = library_of(after);
    const struct task_spec *follow = stage_follow(&stage, "price", 0);
    assert_string_equal(follow->queue, "profiler:cpu:test");
    _cleanup_(message_freep) Hone__V1__PriceTask *price =
        stage_payload(follow, &hone__v1__price_task__descriptor);
    size_t nets = 0;
    for (size_t i = 0; i < library->n_arcs; i++)
        nets += *library->arcs[i]->network != 0;
    assert_true(nets > 5 && nets < library->n_arcs);
    assert_int_equal(price->n_pieces, 2 * nets);
    assert_true(price->seconds > 0);
    for (size_t i = 0; i < price->n_pieces; i++) {
        _cleanup_(freep) void *data = NULL;
        _cleanup_(graph_freep) struct graph *g = NULL;
        size_t bytes = 0;
        bool own = false, other = false;
        const Hone__V1__PriceTask__Piece *piece = price->pieces[i];
        assert_string_equal(piece->precision, precisions[i % 2]);
        STAGE_OK(store_get(stage.store, piece->network, 1 << 28, &data, &bytes, err));
        STAGE_OK(onnx_read_bytes(data, bytes, NULL, NULL, &g, err));
        for (int n = 0; n < g->n_nodes; n++) {
            const bool is_own = str_starts_with(g->nodes[n]->name, "arc.");
            own |= is_own;
            other |= !is_own;
        }
        assert_string_equal(piece->text, "arc");
        assert_true(own && other);
    }
}

static void who_does_not_ask_for_blocks_gets_students_at_once(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,students");
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "enroll");
    assert_string_equal(after->library, "");
}

/* What one step of a lesson holds is bounded. */
static void large_values_are_learned_in_small_batches_and_short_lessons(void **state)
{
    (void)state;
    job_arc arcs[20], *list[20];
    job_library library = HONE__V1__LIBRARY__INIT;
    for (int i = 0; i < 20; i++) {
        hone__v1__library__arc__init(&arcs[i]);
        arcs[i].from = (char *)"a";
        arcs[i].to = (char *)(i % 2 ? "b" : "c");
        list[i] = &arcs[i];
    }
    library.arcs = list;
    library.n_arcs = 20;
    assert_int_equal(blocks_batch(&library), 64);
    assert_int_equal(blocks_lesson(&library, 0), 16); /* as many as a lesson has at most */
    assert_int_equal(blocks_lesson(&library, 16), 20);
    assert_int_equal(blocks_lesson(&library, 20), 20);
    for (int i = 0; i < 20; i++)
        arcs[i].values = 500000;
    assert_int_equal(blocks_batch(&library), 64);
    assert_int_equal(blocks_lesson(&library, 0), 3);
    arcs[19].values = 100000000;
    assert_int_equal(blocks_batch(&library), 8);
    assert_int_equal(blocks_lesson(&library, 19), 20); /* one alone in any case */
    arcs[19].out = (char *)"it is not faster";
    assert_int_equal(blocks_batch(&library), 64);
    assert_int_equal(blocks_batch_within(32, 1000, 50000), 32);
    assert_int_equal(blocks_batch_within(32, 1e7, 50000), 8);
    assert_int_equal(blocks_batch_within(32, 1e9, 50000), 8);
    assert_int_equal(blocks_batch_within(32, 1000, 20), 16);
    assert_int_equal(blocks_batch_within(32, 1e9, 3), 2);
}

/* The largest of one number is always the same: nothing would tell how much anything hurts. */
static void networks_of_one_answer_keep_their_blocks(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    struct design_ends ends = stage_pictures;
    ends.outputs = 1;
    _cleanup_(graph_freep) struct graph *g =
        stage_designed("conv:8 residual:16:s2 residual:16*3 head", &ends, false);
    STAGE_OK(pass_simplify(g, err));
    stage_original(&stage, s, g);
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    assert_null(stage_follow(&stage, "price", 0));
    assert_true(stage_decided(after, "no alternatives of blocks: the network has one answer"));
}

/* Prices of 4 us in int8 for what has one layer, of 1000 for everything else. */
static job_state *priced(job_state *s)
{
    STAGE_OK(run(synthesizer_redesign, s, err));
    job_state *after = stage_handed_on(&stage, "synthesizer", "imitate");
    _cleanup_(message_freep) job_library *library = library_of(after);
    Hone__V1__PriceResult result = HONE__V1__PRICE_RESULT__INIT;
    double us[256];
    for (size_t i = 0; i < library->n_arcs; i++) {
        if (!*library->arcs[i]->network)
            continue;
        const bool fast = str_starts_with(library->arcs[i]->text, "conv");
        us[result.n_us++] = 1000;
        us[result.n_us++] = fast ? 4 : 1000;
    }
    result.us = us;
    stage_forget(&stage);
    stage_result(&stage, &result);
    return after;
}

static void those_that_are_faster_learn(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *with_prices = priced(s);
    STAGE_OK(run(synthesizer_imitate, with_prices, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "join");
    _cleanup_(message_freep) job_library *library = library_of(after);
    size_t taught = 0, in = 0;
    for (size_t i = 0; i < library->n_arcs; i++) {
        const job_arc *arc = library->arcs[i];
        const bool fast = str_starts_with(arc->text, "conv") || strcmp(arc->text, "identity") == 0;
        assert_string_equal(arc->out, fast ? "" : "it is not faster");
        in += fast;
        if (i > 0)
            assert_true(arc->first >= library->arcs[i - 1]->first);
    }
    for (int i = 0; stage_follow(&stage, "imitate", i); i++) {
        const struct task_spec *follow = stage_follow(&stage, "imitate", i);
        assert_string_equal(follow->queue, "trainer");
        _cleanup_(message_freep) Hone__V1__ImitateTask *lesson =
            stage_payload(follow, &hone__v1__imitate_task__descriptor);
        taught += lesson->n_arcs;
        assert_string_equal(lesson->network, s->network);
        assert_int_equal(lesson->samples, library->samples);
        assert_int_equal(lesson->n_precisions, 2);
        assert_int_equal(lesson->settings->seed, 7);
        assert_string_equal(lesson->settings->flip, "alternating");
    }
    assert_true(in > 5);
    assert_int_equal(taught, in);
    assert_true(library->samples > 0);
    assert_non_null(stage_event(&stage, "blocks"));
}

static void without_prices_the_job_goes_on_as_it_did(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks,students");
    stage_failure(&stage, "nobody measures");
    STAGE_OK(run(synthesizer_imitate, s, err));
    _cleanup_(message_freep) Hone__V1__StageTask *next =
        stage_payload(stage_follow(&stage, "redesign", 0), &hone__v1__stage_task__descriptor);
    assert_true(next->state->replaced);
    assert_true(stage_decided(next->state, "no alternatives of blocks: "));
    assert_true(stage_decided(next->state, "nobody measures"));
    assert_string_equal(next->state->library, "");
}

/* 0.3 of 2970 s are for lessons; a sample takes 2 ms through the original. */
static void lessons_leave_time_to_score(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *with_prices = priced(s);
    double seconds = 0;
    size_t taught = 0;
    int n = 0;
    stage_rate(&stage, "1e9");
    STAGE_OK(run(synthesizer_imitate, with_prices, err));
    for (; stage_follow(&stage, "imitate", n); n++) {
        _cleanup_(message_freep) Hone__V1__ImitateTask *lesson =
            stage_payload(stage_follow(&stage, "imitate", n), &hone__v1__imitate_task__descriptor);
        seconds += lesson->seconds;
        taught += lesson->n_arcs;
    }
    assert_true(taught > 5);
    const double scoring =
        (double)taught * 256 * 3 * 2e-3; /* half of it, as small ones take twice */
    assert_true(seconds <= 891 - scoring + n && seconds > 891 - scoring - 10);
}

static void what_is_too_large_does_not_learn(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *with_prices = priced(s);
    _cleanup_(message_freep) job_library *library = library_of(with_prices);
    char name[HASH_HEX_BYTES];
    size_t large = 0;
    for (; !str_starts_with(library->arcs[large]->text, "conv"); large++)
        assert_true(large + 1 < library->n_arcs);
    library->arcs[large]->values = 1000000000;
    STAGE_OK(message_store(stage.store, library, name, err));
    STAGE_OK(message_set(&with_prices->library, name, err));
    STAGE_OK(run(synthesizer_imitate, with_prices, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "join");
    _cleanup_(message_freep) job_library *then = library_of(after);
    size_t out = 0;
    for (size_t i = 0; i < then->n_arcs; i++)
        out += strcmp(then->arcs[i]->out, "it is too large to learn") == 0;
    assert_int_equal(out, 1);
    assert_int_equal(blocks_batch(then), 64);
}

/* Listed by a job whose prices or lessons failed. */
static void a_library_that_nobody_was_taught_of_is_made_anew(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    STAGE_OK(run(synthesizer_redesign, s, err));
    _cleanup_(message_freep) job_state *listed = stage_handed_on(&stage, "synthesizer", "imitate");
    assert_string_not_equal(listed->library, "");
    stage_forget(&stage);
    STAGE_OK(run(synthesizer_redesign, listed, err));
    message_free(stage_handed_on(&stage, "synthesizer", "imitate"));
    assert_non_null(stage_follow(&stage, "price", 0));
}

static void without_time_to_learn_nobody_does(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *with_prices = priced(s);
    stage_age(&stage, 4000); /* of 3000 */
    STAGE_OK(run(synthesizer_imitate, with_prices, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "assemble");
    assert_null(stage_follow(&stage, "imitate", 0));
    assert_true(stage_decided(after, "there is no time for any of them to learn"));
}

/* A batch of more than there are could not be made. */
static void few_samples_are_learned_in_batches_that_they_fill(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    s->data->n_train = 40;
    _cleanup_(message_freep) job_state *with_prices = priced(s);
    STAGE_OK(run(synthesizer_imitate, with_prices, err));
    _cleanup_(message_freep) Hone__V1__ImitateTask *lesson =
        stage_payload(stage_follow(&stage, "imitate", 0), &hone__v1__imitate_task__descriptor);
    assert_int_equal(lesson->settings->batch, 32);
}

/* The lessons' results: every arc learned, and hurts by so much in each precision. */
static job_state *learned(job_state *s, double kl)
{
    _cleanup_(message_freep) job_state *with_prices = priced(s);
    STAGE_OK(run(synthesizer_imitate, with_prices, err));
    job_state *after = stage_handed_on(&stage, "synthesizer", "join");
    Hone__V1__ImitateResult *results[STAGE_RESULTS];
    int n = 0;
    for (; stage_follow(&stage, "imitate", n); n++) {
        _cleanup_(message_freep) Hone__V1__ImitateTask *lesson =
            stage_payload(stage_follow(&stage, "imitate", n), &hone__v1__imitate_task__descriptor);
        results[n] = message_new(&hone__v1__imitate_result__descriptor, NULL);
        results[n]->seconds = 2;
        for (size_t i = 0; i < lesson->n_arcs; i++) {
            job_arc *arc = message_clone(lesson->arcs[i], NULL);
            for (int p = 0; p < 2; p++)
                STAGE_OK(message_append_f64(&arc->kl, &arc->n_kl, kl * (p + 1), err));
            STAGE_OK(message_append(&results[n]->arcs, &results[n]->n_arcs, arc, err));
        }
    }
    stage_forget(&stage);
    for (int i = 0; i < n; i++) {
        stage_result(&stage, results[i]);
        message_free(results[i]);
    }
    return after;
}

static struct graph *network_of(const job_student *student)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct graph *g = NULL;
    STAGE_OK(store_get(stage.store, student->network, 1 << 28, &data, &bytes, err));
    STAGE_OK(onnx_read_bytes(data, bytes, NULL, NULL, &g, err));
    return g;
}

/* The original takes 90 us in int8; 100 in all is what is to beat. */
static void the_best_paths_become_students_that_inherit(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    STAGE_OK(run(synthesizer_join, taught, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_true(after->replaced);
    assert_in_range(after->n_students, 2, 4);
    for (size_t i = 0; i < after->n_students; i++) {
        const job_student *student = after->students[i];
        assert_true(student->inherits);
        assert_non_null(strchr(student->design, '='));
        assert_true(student->predicted_us <= 0.9 * 100);
        if (i > 0)
            assert_true(student->predicted_us < after->students[i - 1]->predicted_us);
        _cleanup_(graph_freep) struct graph *g = network_of(student);
        assert_string_equal(graph_metadata(g, "hone.design"), student->design);
        assert_int_equal(g->values[g->outputs[0]]->shape.dim[1], 10);
        assert_int_equal(graph_cost(g).macs, student->macs);
        _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, (int)i);
        assert_false(train->settings->reinit);
        assert_true(train->settings->rate < 0.1);
        assert_string_equal(train->network, student->network);
    }
    _cleanup_(message_freep) job_library *library = library_of(after);
    assert_true(library->seconds >= 2);
    assert_true(library->samples > 0); /* where some had nothing to learn */
}

/* Layers without activations, all alike: where all are left out, the answers are the input. */
static struct graph *layers_alike(void)
{
    const struct shape in = shape_make(2, (int64_t[]){DIM_BATCH, 64});
    const struct shape square = shape_make(2, (int64_t[]){64, 64});
    struct graph *g = graph_new(13, NULL);
    int x = graph_add_input(g, "input", DTYPE_F32, &in, NULL);
    for (int i = 0; i < 2; i++) {
        const char *names[] = {"a", "b"};
        const int w = graph_add_constant(g, NULL, DTYPE_F32, &square, NULL, NULL);
        const int n =
            graph_add_node(g, -1, OP_GEMM, names[i], 2, (const int[]){x, w}, 1, NULL, NULL);
        assert_true(n >= 0);
        x = g->nodes[n]->outputs[0];
    }
    assert_true(graph_add_output(g, x, NULL) >= 0);
    STAGE_OK(graph_infer(g, err));
    return g;
}

static void a_path_that_cannot_stand_leaves_the_others(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(graph_freep) struct graph *g = layers_alike();
    stage_original(&stage, s, g);
    keep_profile(s, g);
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    STAGE_OK(run(synthesizer_join, taught, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_true(stage_decided(after, "1=identity 2=identity is left out: "));
    assert_in_range(after->n_students, 1, 2);
}

static Hone__V1__ImitateTask *lesson_of(int nth)
{
    return stage_payload(stage_follow(&stage, "imitate", nth), &hone__v1__imitate_task__descriptor);
}

/* Maps, no classes: there is nothing like logits to learn from. */
static void paths_of_other_networks_learn_what_the_original_yields(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s =
        job_with("conv:8 residual:16:s2 residual:16*3", "precision,blocks,students");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    STAGE_OK(run(synthesizer_join, taught, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "settle");
    assert_in_range(after->n_students, 2, 4);
    _cleanup_(message_freep) Hone__V1__ImitateTask *lesson = lesson_of(0);
    assert_int_equal(lesson->n_arcs, after->n_students);
    assert_true(lesson->reserve_s == 30 && after->reserve_s == 30);
    Hone__V1__ImitateResult result = HONE__V1__IMITATE_RESULT__INIT;
    for (size_t i = 0; i < lesson->n_arcs; i++) {
        job_arc *arc = lesson->arcs[i];
        assert_string_equal(arc->text, after->students[i]->name);
        assert_string_equal(arc->network, after->students[i]->network);
        assert_string_equal(arc->from, "input");
        assert_string_equal(arc->to, "output");
        STAGE_OK(message_set(&arc->network, "what it learned", err));
        STAGE_OK(message_append_f64(&arc->agreement, &arc->n_agreement, 0.9, err));
    }
    STAGE_OK(message_set(&lesson->arcs[0]->out, "numbers grew too large", err));
    result.arcs = lesson->arcs;
    result.n_arcs = lesson->n_arcs;
    result.samples = 100000;
    stage_forget(&stage);
    stage_result(&stage, &result);
    STAGE_OK(run(synthesizer_settle, after, err));
    _cleanup_(message_freep) job_state *settled =
        stage_handed_on(&stage, "synthesizer", "assemble");
    assert_true(settled->redesigned);
    assert_string_equal(settled->students[0]->out, "numbers grew too large");
    assert_int_equal(settled->students[0]->rungs, 0);
    assert_true(settled->students[1]->accuracies[0] == 0.9);
    assert_true(settled->students[1]->epochs[0] == 2);
    _cleanup_(message_freep) Hone__V1__BuildTask *build =
        stage_payload(stage_follow(&stage, "build", 0), &hone__v1__build_task__descriptor);
    assert_string_equal(build->network, "what it learned");
}

static void whole_students_race_them_where_they_may(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks,students");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    STAGE_OK(run(synthesizer_join, taught, err));
    assert_null(stage.out.continuation);
    _cleanup_(message_freep) Hone__V1__StageTask *next =
        stage_payload(stage_follow(&stage, "redesign", 0), &hone__v1__stage_task__descriptor);
    assert_true(next->state->replaced);
    assert_true(next->state->n_students >= 2);
    assert_false(next->state->redesigned);
}

/* They have been paid for: where whole students cannot be priced they race each other. */
static void paths_race_alone_where_whole_students_fail(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks,students");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    STAGE_OK(run(synthesizer_join, taught, err));
    _cleanup_(message_freep) Hone__V1__StageTask *next =
        stage_payload(stage_follow(&stage, "redesign", 0), &hone__v1__stage_task__descriptor);
    stage_forget(&stage);
    stage_failure(&stage, "nobody measures");
    STAGE_OK(run(synthesizer_enroll, next->state, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    _cleanup_(message_freep) Hone__V1__TrainTask *train = stage_training(&stage, 0);
    assert_true(stage_decided(after, "nobody measures"));
    assert_string_equal(train->network, after->students[0]->network);
    assert_true(train->settings->views > 0);
}

/* Nothing is taught again, and no path comes twice. */
static void a_job_that_refines_selects_again_from_what_was_learned(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    STAGE_OK(run(synthesizer_join, taught, err));
    _cleanup_(message_freep) job_state *first = stage_handed_on(&stage, "synthesizer", "promote");
    const size_t before = first->n_students;
    stage_forget(&stage);
    first->replaced = false;
    first->spec->max_us = first->students[0]->predicted_us + 5; /* a little slower than all */
    STAGE_OK(run(synthesizer_redesign, first, err));
    assert_null(stage_follow(&stage, "price", 0));
    assert_null(stage_follow(&stage, "imitate", 0));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    assert_true(after->n_students >= before);
    for (size_t i = 0; i < after->n_students; i++) {
        assert_true(after->students[i]->predicted_us <= first->spec->max_us);
        for (size_t k = 0; k < i; k++)
            assert_string_not_equal(after->students[i]->design, after->students[k]->design);
    }
    assert_true(after->replaced);
}

/* As many as can have two epochs; the slowest, which hurt least. */
static void with_little_time_fewer_paths_race(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    stage_rate(&stage, "1.5e8");
    STAGE_OK(run(synthesizer_join, taught, err));
    _cleanup_(message_freep) job_state *after = stage_handed_on(&stage, "synthesizer", "promote");
    int learning = 0;
    for (size_t i = 0; i < after->n_students; i++) {
        learning += *after->students[i]->out == 0;
        if (i > 0 && *after->students[i - 1]->out)
            assert_string_equal(after->students[i]->out, "there is no time for it to learn");
    }
    assert_in_range(learning, 1, after->n_students - 1);
    assert_non_null(stage_follow(&stage, "train", learning - 1));
    assert_null(stage_follow(&stage, "train", learning));
}

static void lessons_that_failed_leave_the_others(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = job_of("precision,blocks");
    _cleanup_(message_freep) job_state *taught = learned(s, 0.02);
    const int n = stage.task.n_results;
    free(stage.results[0]);
    stage.results[0] = NULL;
    stage.failures[0] = (char *)"out of memory";
    STAGE_OK(run(synthesizer_join, taught, err));
    assert_non_null(stage.out.continuation);
    _cleanup_(message_freep) job_state *after =
        stage_handed_on(&stage, "synthesizer", n > 1 ? "promote" : "assemble");
    assert_true(stage_decided(after, "some alternatives did not learn: out of memory"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_profiler_is_asked_for_every_alternative_in_every_precision),
        TEST(who_does_not_ask_for_blocks_gets_students_at_once),
        TEST(large_values_are_learned_in_small_batches_and_short_lessons),
        TEST(networks_of_one_answer_keep_their_blocks),
        TEST(those_that_are_faster_learn),
        TEST(without_prices_the_job_goes_on_as_it_did),
        TEST(a_library_that_nobody_was_taught_of_is_made_anew),
        TEST(without_time_to_learn_nobody_does),
        TEST(lessons_leave_time_to_score),
        TEST(what_is_too_large_does_not_learn),
        TEST(few_samples_are_learned_in_batches_that_they_fill),
        TEST(the_best_paths_become_students_that_inherit),
        TEST(a_path_that_cannot_stand_leaves_the_others),
        TEST(paths_of_other_networks_learn_what_the_original_yields),
        TEST(whole_students_race_them_where_they_may),
        TEST(paths_race_alone_where_whole_students_fail),
        TEST(a_job_that_refines_selects_again_from_what_was_learned),
        TEST(with_little_time_fewer_paths_race),
        TEST(lessons_that_failed_leave_the_others),
    };
    return cmocka_run_group_tests_name("blocks", tests, NULL, NULL);
}
