/* Training runs: they learn, give the same bits again, go on where they were stopped, and refuse
 * checkpoints that are not theirs. */
#include "tests/unit/train/drawn.h"

#include <math.h>

#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/train/loop.h"

static struct drawn data;

static int open_data(void **state)
{
    (void)state;
    drawn_open(&data);
    return 0;
}

static int close_data(void **state)
{
    (void)state;
    drawn_close(&data);
    return 0;
}

static struct train_options quick(void)
{
    struct train_options o = train_defaults();
    o.epochs = 3;
    o.batch = 48;
    o.threads = 2;
    o.slice = 12;
    o.seed = 4;
    o.precision = PRECISION_FP32;
    o.augment = (struct augment){.crop = 1};
    o.evaluate_every = 0;
    return o;
}

/* ONNX bytes of what the run makes of a network. */
struct outcome {
    void *bytes;
    size_t n;
    struct train_result result;
};

static struct outcome run(const struct train_options *options)
{
    struct graph *g = drawn_network(8, 1);
    struct outcome out = {0};
    OK(train_run(g, data.ds, &data.pre, options, &out.result, err));
    OK(onnx_write_bytes(out.result.graph, &out.bytes, &out.n, err));
    graph_free(g);
    return out;
}

static void release(struct outcome *out)
{
    free(out->bytes);
    train_result_release(&out->result);
}

static void assert_same(const struct outcome *a, const struct outcome *b)
{
    assert_int_equal(a->n, b->n);
    assert_memory_equal(a->bytes, b->bytes, a->n);
}

/* ---- learning ---- */

static void a_small_network_learns_in_a_few_epochs(void **state)
{
    (void)state;
    struct train_options options = quick();
    options.epochs = 12;
    options.evaluate_every = 4;
    struct graph *fresh = drawn_network(8, 1);
    const double before = drawn_score(&data, fresh, PART_TEST);
    struct outcome out = run(&options);
    OK(pass_simplify(out.result.graph, err));
    const double after = drawn_score(&data, out.result.graph, PART_TEST);
    print_message("test part: %.3f before, %.3f after %d epochs; %.0f samples/s\n", before, after,
                  options.epochs, out.result.images_per_second);
    assert_true(before < 0.5);
    assert_true(after > 0.9);
    const struct train_epoch *curve = out.result.curve;
    assert_int_equal(out.result.n_epochs, 12);
    assert_true(curve[11].loss < curve[0].loss / 2);
    assert_true(curve[11].search_accuracy > 0.85);
    for (int e = 0; e < 12; e++) {
        assert_int_equal(curve[e].epoch, e);
        assert_int_equal(isnan(curve[e].search_accuracy), e % 4 != 3);
        assert_true(curve[e].accuracy > 0 && curve[e].images_per_second > 0);
    }
    graph_free(fresh);
    release(&out);
}

static void every_ingredient_can_be_used_at_once(void **state)
{
    (void)state;
    struct train_options options = quick();
    options.epochs = 12;
    options.optimizer = optimizer_defaults(OPTIMIZER_ADAM);
    options.optimizer.clip = 5;
    options.schedule = schedule_make(SCHEDULE_ONE_CYCLE, 0.01);
    options.smoothing = 0.1;
    options.mixup = 0.2;
    options.ema = 0.9;
    options.lookahead = 5;
    options.augment.cutout = 2;
    struct outcome out = run(&options);
    assert_true(drawn_score(&data, out.result.graph, PART_TEST) > 0.8);
    release(&out);
}

/* The end is looked at in any case: a slow average that was never renewed would be the beginning.
 */
static void looking_ahead_further_than_the_run_does_no_harm(void **state)
{
    (void)state;
    struct train_options options = quick();
    options.epochs = 8;
    options.lookahead = 100000;
    struct outcome out = run(&options);
    assert_true(drawn_score(&data, out.result.graph, PART_TEST) > 0.8);
    release(&out);
}

static void one_seed_gives_one_result_and_another_another(void **state)
{
    (void)state;
    struct train_options options = quick();
    struct outcome a = run(&options), b = run(&options);
    assert_same(&a, &b);
    options.seed = 5;
    struct outcome c = run(&options);
    assert_true(a.n != c.n || memcmp(a.bytes, c.bytes, a.n) != 0);
    release(&a);
    release(&b);
    release(&c);
}

static const float *stem_weights(const struct graph *g)
{
    return graph_input_of(g, g->nodes[0], 1)->constant->data;
}

static void frozen_weights_stay_and_others_do_not(void **state)
{
    (void)state;
    struct train_options options = quick();
    _cleanup_(graph_freep) struct graph *before = drawn_network(8, 1);
    const struct tensor *stem = graph_input_of(before, before->nodes[0], 1)->constant;
    options.epochs = 1;
    struct outcome free_ = run(&options);
    assert_memory_not_equal(stem_weights(free_.result.graph), stem->data, tensor_bytes(stem));
    options.frozen = graph_input_of(before, before->nodes[0], 1)->name;
    struct outcome frozen = run(&options);
    assert_memory_equal(stem_weights(frozen.result.graph), stem->data, tensor_bytes(stem));
    assert_true(free_.n != frozen.n || memcmp(free_.bytes, frozen.bytes, free_.n) != 0);
    release(&free_);
    release(&frozen);
}

static void the_average_is_what_is_exported(void **state)
{
    (void)state;
    struct train_options options = quick();
    struct outcome plain = run(&options);
    options.ema = 0.95;
    struct outcome averaged = run(&options);
    /* training itself goes the same way: the curves of losses are equal, the weights are not */
    for (int e = 0; e < options.epochs; e++)
        assert_true(plain.result.curve[e].loss == averaged.result.curve[e].loss);
    assert_true(plain.n != averaged.n || memcmp(plain.bytes, averaged.bytes, plain.n) != 0);
    release(&plain);
    release(&averaged);
}

/* ---- stopping and going on ---- */

struct stopper {
    int64_t after; /* steps of this part */
    int64_t steps;
};

static bool stop_after(void *ctx)
{
    struct stopper *s = ctx;
    return ++s->steps >= s->after;
}

/* In parts of so many steps; each part is a run of its own. */
static struct outcome run_in_parts(struct train_options options, int64_t steps)
{
    struct outcome out = {0};
    const char *path = drawn_path(&data, "checkpoint");
    struct stopper stopper = {.after = steps};
    options.checkpoint = path;
    options.resume = true;
    options.stop = stop_after;
    options.stop_ctx = &stopper;
    struct graph *g = drawn_network(8, 1);
    fs_remove_tree(path, NULL);
    for (int part = 0; part < 100; part++) {
        struct err err = {0};
        stopper.steps = 0;
        const int rc = train_run(g, data.ds, &data.pre, &options, &out.result, &err);
        if (rc == 0)
            break;
        if (rc != -ERR_CANCELLED || !strstr(err.message, "stopped in epoch"))
            fail_msg("%s", err.message);
        assert_null(out.result.graph);
        assert_int_equal(out.result.samples_seen, steps * options.batch);
        train_result_release(&out.result);
    }
    assert_non_null(out.result.graph);
    OK(onnx_write_bytes(out.result.graph, &out.bytes, &out.n, err));
    graph_free(g);
    return out;
}

static void check_resume(const struct train_options *options)
{
    struct outcome whole = run(options);
    for (int64_t steps = 1; steps <= 10; steps += 3) { /* an epoch has 9 steps */
        struct outcome parts = run_in_parts(*options, steps);
        assert_same(&whole, &parts);
        assert_int_equal(parts.result.n_epochs, options->epochs);
        for (int e = 0; e < options->epochs; e++) {
            const struct train_epoch *a = &whole.result.curve[e], *b = &parts.result.curve[e];
            assert_true(a->loss == b->loss && a->accuracy == b->accuracy);
            assert_true(a->search_accuracy == b->search_accuracy ||
                        (isnan(a->search_accuracy) && isnan(b->search_accuracy)));
        }
        release(&parts);
    }
    release(&whole);
}

static void a_run_that_was_stopped_gives_the_same_bits(void **state)
{
    (void)state;
    struct train_options options = quick();
    options.epochs = 2;
    check_resume(&options);
}

static void averages_moments_and_mixing_are_resumed_as_well(void **state)
{
    (void)state;
    struct train_options options = quick();
    options.epochs = 2;
    options.optimizer = optimizer_defaults(OPTIMIZER_ADAM);
    options.schedule.rate = 0.01;
    options.mixup = 0.4;
    options.ema = 0.9;
    options.lookahead = 4;
    check_resume(&options);
}

/* ---- trunks ---- */

static struct train_options trapezoid(void)
{
    struct train_options options = quick();
    options.epochs = 4;
    options.lookahead = 4;
    options.schedule = schedule_make(SCHEDULE_TRAPEZOID, 0.1);
    options.schedule.down = 0.5;
    return options;
}

/* Bytes of the run's trunk in place of those of its network. */
static struct outcome trunk_of(struct outcome out)
{
    assert_non_null(out.result.trunk);
    freep(&out.bytes);
    OK(onnx_write_bytes(out.result.trunk, &out.bytes, &out.n, err));
    return out;
}

/* As a run would give it that stops there, with nothing of the way down. */
static void a_trunk_is_what_was_learned_on_the_level(void **state)
{
    (void)state;
    struct train_options options = trapezoid();
    struct outcome whole = trunk_of(run(&options));
    options.stop_after = 2;
    struct outcome level = run(&options);
    assert_null(level.result.trunk); /* it did not go down */
    assert_same(&whole, &level);
    options.epochs = 8; /* the way up and down of another length: another trunk */
    options.stop_after = 0;
    struct outcome longer = trunk_of(run(&options));
    assert_true(longer.n != whole.n || memcmp(longer.bytes, whole.bytes, whole.n) != 0);
    release(&whole);
    release(&level);
    release(&longer);
}

static void averages_are_not_in_a_trunk(void **state)
{
    (void)state;
    struct train_options options = trapezoid();
    struct outcome plain = trunk_of(run(&options));
    options.ema = 0.9;
    struct outcome averaged = trunk_of(run(&options));
    assert_same(&plain, &averaged);
    release(&plain);
    release(&averaged);
}

static void a_trunk_survives_stops(void **state)
{
    (void)state;
    const struct train_options options = trapezoid();
    struct outcome whole = trunk_of(run(&options));
    for (int64_t steps = 5; steps <= 20; steps += 5) { /* of 36; the level ends after 18 */
        struct outcome parts = trunk_of(run_in_parts(options, steps));
        assert_same(&whole, &parts);
        release(&parts);
    }
    release(&whole);
}

static void other_schedules_have_no_trunk(void **state)
{
    (void)state;
    const struct train_options options = quick();
    struct outcome out = run(&options);
    assert_null(out.result.trunk);
    release(&out);
}

/* ---- checkpoints ---- */

static int resume(const struct train_options *options, struct err *err)
{
    struct train_result result = {0};
    struct graph *g = drawn_network(8, 1);
    int rc = train_run(g, data.ds, &data.pre, options, &result, err);
    train_result_release(&result);
    graph_free(g);
    return rc;
}

/* Options whose checkpoint is half-way. */
static struct train_options stopped_run(struct stopper *stopper)
{
    struct train_options options = quick();
    struct err err = {0};
    *stopper = (struct stopper){.after = 5};
    options.checkpoint = drawn_path(&data, "half");
    options.stop = stop_after;
    options.stop_ctx = stopper;
    assert_int_equal(resume(&options, &err), -ERR_CANCELLED);
    options.stop = NULL;
    options.resume = true;
    return options;
}

static void a_checkpoint_of_other_settings_is_refused_by_name(void **state)
{
    (void)state;
    struct stopper stopper;
    const struct train_options options = stopped_run(&stopper);
    struct {
        struct train_options o;
        const char *words;
    } others[] = {
        {options, "rate=0.1"},      {options, "has epochs=4"},        {options, "seed=4"},
        {options, "crop=1"},        {options, "ema=0, this run has"}, {options, "batch=48"},
        {options, "optimizer=sgd"}, {options, "data=other"},
    };
    others[0].o.schedule.rate = 0.2;
    others[1].o.epochs = 4;
    others[2].o.seed = 9;
    others[3].o.augment.crop = 2;
    others[4].o.ema = 0.5;
    others[5].o.batch = 24;
    others[5].o.slice = 12;
    others[6].o.optimizer.kind = OPTIMIZER_ADAM;
    others[7].o.identity = "data=other\n";
    for (size_t i = 0; i < sizeof(others) / sizeof(*others) - 1; i++) {
        struct err err = {0};
        if (resume(&others[i].o, &err) != -ERR_FAILED_PRECONDITION ||
            !strstr(err.message, others[i].words) || !strstr(err.message, "another run"))
            fail_msg("'%s' lacks '%s'", err.message, others[i].words);
    }
    struct err err = {0};
    assert_int_equal(resume(&others[7].o, &err), -ERR_FAILED_PRECONDITION);
    assert_int_equal(resume(&options, &err), 0);
}

static void a_checkpoint_of_another_network_is_refused(void **state)
{
    (void)state;
    struct stopper stopper;
    const struct train_options options = stopped_run(&stopper);
    struct train_result result = {0};
    struct err err = {0};
    struct graph *g = drawn_network(12, 1);
    assert_int_equal(train_run(g, data.ds, &data.pre, &options, &result, &err),
                     -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "network="));
    graph_free(g);
}

static void damaged_checkpoints_are_refused(void **state)
{
    (void)state;
    struct stopper stopper;
    struct train_options options = stopped_run(&stopper);
    void *bytes;
    size_t n;
    OK(fs_read(options.checkpoint, 1 << 30, &bytes, &n, err));
    options.checkpoint = drawn_path(&data, "damaged");
    const size_t cuts[] = {0, 4, 100, n / 2, n - 1};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        OK(fs_write_atomic(options.checkpoint, bytes, cuts[i], err));
        struct err err = {0};
        if (resume(&options, &err) != -ERR_DATA_LOSS || !strstr(err.message, "damaged"))
            fail_msg("cut to %zu: %s", cuts[i], err.message);
    }
    const size_t places[] = {0, 8, 20, 60, n / 3, n / 2, n - 70, n - 1};
    for (size_t i = 0; i < sizeof(places) / sizeof(*places); i++) {
        ((uint8_t *)bytes)[places[i]] ^= 0x10;
        OK(fs_write_atomic(options.checkpoint, bytes, n, err));
        ((uint8_t *)bytes)[places[i]] ^= 0x10;
        struct err err = {0};
        if (resume(&options, &err) != -ERR_DATA_LOSS)
            fail_msg("byte %zu: %s", places[i], err.message);
    }
    OK(fs_write_atomic(options.checkpoint, bytes, n, err));
    struct err err = {0};
    assert_int_equal(resume(&options, &err), 0);
    free(bytes);
}

static void checkpoints_come_by_themselves(void **state)
{
    (void)state;
    struct train_options options = quick();
    struct err err = {0};
    options.epochs = 1;
    options.checkpoint = drawn_path(&data, "timed");
    options.checkpoint_seconds = 1e-9;
    assert_int_equal(resume(&options, &err), 0);
    assert_true(fs_exists(options.checkpoint));
    options.checkpoint = drawn_path(&data, "none/of/these/folders");
    assert_true(resume(&options, &err) < 0);
    assert_non_null(strstr(err.message, "writing the checkpoint"));
}

/* ---- reports and refusals ---- */

struct seen {
    int calls, epochs;
    int64_t last_step;
    double left;
    int fail_at;
};

static int see(void *ctx, const struct train_progress *p, struct err *err)
{
    struct seen *s = ctx;
    s->calls++;
    assert_true(p->step >= 1 && p->step <= p->steps && p->steps == 9 && p->epochs == 2);
    assert_true(isfinite(p->loss) && p->accuracy >= 0 && p->accuracy <= 1);
    assert_true(p->images_per_second > 0 && p->left >= 0 && p->rate > 0);
    if (p->finished) {
        assert_int_equal(p->step, p->steps);
        assert_int_equal(p->finished->epoch, s->epochs);
        assert_int_equal(p->epoch, s->epochs);
        s->epochs++;
    }
    s->left = p->left;
    return s->calls == s->fail_at ? err_set(err, ERR_ABORTED, "enough") : 0;
}

static void progress_counts_steps_and_epochs(void **state)
{
    (void)state;
    struct train_options options = quick();
    struct seen seen = {0};
    struct err err = {0};
    options.epochs = 2;
    options.progress = see;
    options.progress_ctx = &seen;
    assert_int_equal(resume(&options, &err), 0);
    assert_int_equal(seen.calls, 18);
    assert_int_equal(seen.epochs, 2);
    assert_true(seen.left == 0);
    seen = (struct seen){.fail_at = 3};
    assert_int_equal(resume(&options, &err), -ERR_ABORTED);
    assert_string_equal(err.message, "enough");
}

static void a_rate_that_is_too_high_is_said(void **state)
{
    (void)state;
    struct train_options options = quick();
    struct err err = {0};
    options.schedule = schedule_make(SCHEDULE_CONSTANT, 1e30);
    options.schedule.warmup = 0;
    if (resume(&options, &err) != -ERR_OUT_OF_RANGE ||
        !strstr(err.message, "learning rate is too high") || !strstr(err.message, "epoch 1, step"))
        fail_msg("%s", err.message);
}

static void what_cannot_be_trained_is_refused(void **state)
{
    (void)state;
    struct train_options options = quick();
    struct err err = {0};
    options.batch = 10000;
    options.slice = 0;
    assert_int_equal(resume(&options, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "432 samples"));
    options = quick();
    options.epochs = 0;
    assert_int_equal(resume(&options, &err), -ERR_INVALID_ARGUMENT);
    options = quick();
    options.augment.crop = 100;
    assert_int_equal(resume(&options, &err), -ERR_INVALID_ARGUMENT);
    options = quick();
    options.frozen = "nobody";
    assert_int_equal(resume(&options, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "no weights 'nobody' to freeze"));
}

static void the_curve_is_json(void **state)
{
    (void)state;
    const struct train_epoch curve[] = {{0, 1.5, 0.25, NAN, NAN, 0.1, 2, 100},
                                        {1, 0.5, 0.75, 0.125, 0.5, 0.05, 2, 200}};
    _cleanup_(freep) char *text = train_curve_json(curve, 2);
    assert_string_equal(text,
                        "{\"epochs\":[{\"epoch\":1,\"loss\":1.5,\"accuracy\":0.25,\"rate\":0.1,"
                        "\"seconds\":2.0,\"images_per_second\":100.0},{\"epoch\":2,\"loss\":0.5,"
                        "\"feature_loss\":0.125,\"accuracy\":0.75,\"search_accuracy\":0.5,"
                        "\"rate\":0.05,\"seconds\":2.0,"
                        "\"images_per_second\":200.0}]}");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_small_network_learns_in_a_few_epochs),
        cmocka_unit_test(every_ingredient_can_be_used_at_once),
        cmocka_unit_test(looking_ahead_further_than_the_run_does_no_harm),
        cmocka_unit_test(one_seed_gives_one_result_and_another_another),
        cmocka_unit_test(frozen_weights_stay_and_others_do_not),
        cmocka_unit_test(the_average_is_what_is_exported),
        cmocka_unit_test(a_run_that_was_stopped_gives_the_same_bits),
        cmocka_unit_test(averages_moments_and_mixing_are_resumed_as_well),
        cmocka_unit_test(a_trunk_is_what_was_learned_on_the_level),
        cmocka_unit_test(averages_are_not_in_a_trunk),
        cmocka_unit_test(a_trunk_survives_stops),
        cmocka_unit_test(other_schedules_have_no_trunk),
        cmocka_unit_test(a_checkpoint_of_other_settings_is_refused_by_name),
        cmocka_unit_test(a_checkpoint_of_another_network_is_refused),
        cmocka_unit_test(damaged_checkpoints_are_refused),
        cmocka_unit_test(checkpoints_come_by_themselves),
        cmocka_unit_test(progress_counts_steps_and_epochs),
        cmocka_unit_test(a_rate_that_is_too_high_is_said),
        cmocka_unit_test(what_cannot_be_trained_is_refused),
        cmocka_unit_test(the_curve_is_json),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
