/* The teacher's logits: what the network says about each view, kept in a file that can be built in
 * parts and is checked when it is read. */
#include "tests/unit/train/drawn.h"

#include <fcntl.h>
#include <math.h>
#include <sys/file.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "shared/train/loop.h"

enum { VIEWS = 3 };

static struct drawn data;
static struct graph *network;

static int open_data(void **state)
{
    (void)state;
    drawn_open(&data);
    network = drawn_network(8, 1);
    return 0;
}

static int close_data(void **state)
{
    (void)state;
    network = graph_free(network);
    drawn_close(&data);
    return 0;
}

static struct augmenter views_of(uint64_t seed)
{
    return (struct augmenter){.ds = data.ds,
                              .part = PART_TRAIN,
                              .pre = data.pre,
                              .how = {.crop = 2, .cutout = 2},
                              .seed = seed};
}

static struct teacher_options quick(void)
{
    return (struct teacher_options){
        .views = VIEWS, .data = "d", .threads = 2, .precision = PRECISION_FP32};
}

static struct teacher *build(const char *name, const struct augmenter *views,
                             const struct teacher_options *options, double *rate)
{
    struct teacher *t = NULL;
    OK(teacher_build(network, views, options, drawn_path(&data, name), rate, err));
    OK(teacher_open(drawn_path(&data, name), &t, err));
    return t;
}

/* Views as batches of the network's own inference. */
struct one_view {
    const struct augmenter *views;
    uint64_t view;
};

static int fill_view(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    const struct one_view *v = ctx;
    int rc = 0;
    for (int64_t k = 0; k < count && rc == 0; k++) {
        const uint32_t i = (uint32_t)(first + k);
        rc = augment_fill(v->views, v->view, &i, 1, out + k * DRAWN_WIDTH, err);
    }
    return rc;
}

static void check_logits(enum dtype dtype, double tolerance)
{
    const struct augmenter views = views_of(7);
    struct teacher_options options = quick();
    double rate = 0;
    options.dtype = dtype;
    struct teacher *t = build(dtype == DTYPE_F32 ? "f32" : "f16", &views, &options, &rate);
    const int64_t n = dataset_count(data.ds, PART_TRAIN);
    assert_int_equal(teacher_samples(t), n);
    assert_int_equal(teacher_views(t), VIEWS);
    assert_int_equal(teacher_width(t), DRAWN_CLASSES);
    assert_true(rate > 0);
    float *want = mem_calloc((size_t)n * DRAWN_CLASSES, sizeof(*want));
    for (int v = 0; v < VIEWS; v++) {
        struct one_view one = {&views, (uint64_t)v};
        OK(infer_run(network, &(struct infer_options){.threads = 2}, n, fill_view, &one, want,
                     err));
        for (int64_t i = 0; i < n; i++) {
            float got[DRAWN_CLASSES];
            teacher_logits(t, v, i, got);
            for (int c = 0; c < DRAWN_CLASSES; c++) {
                const double x = (double)want[i * DRAWN_CLASSES + c];
                if (fabs((double)got[c] - x) > tolerance * (1 + fabs(x)))
                    fail_msg("view %d, sample %lld: %g, not %g", v, (long long)i, (double)got[c],
                             x);
            }
        }
    }
    free(want);
    teacher_close(t);
}

static void logits_are_those_of_each_view(void **state)
{
    (void)state;
    check_logits(DTYPE_F32, 1e-5);
    check_logits(DTYPE_F16, 1e-3);
}

/* Somebody else's build: a lock on the part, which goes when we have asked a few times; `from`:
 * with the file finished. */
struct other {
    int fd, asked;
    const char *from, *to;
};

static int watch_other(void *ctx, int64_t done, int64_t total, struct err *err)
{
    struct other *o = ctx;
    (void)done, (void)total;
    if (++o->asked != 3)
        return 0;
    int rc = o->from ? fs_copy(o->from, o->to, err) : 0;
    assert_int_equal(close(o->fd), 0);
    return rc;
}

static void two_builds_of_a_file_come_one_after_the_other(void **state)
{
    (void)state;
    const struct augmenter views = views_of(7);
    struct teacher_options options = quick();
    struct fs_map want = {0}, got = {0};
    double rate = 0;
    char alone[160], path[160], part[168];
    str_copy(alone, sizeof(alone), drawn_path(&data, "alone"));
    str_copy(path, sizeof(path), drawn_path(&data, "shared"));
    snprintf(part, sizeof(part), "%s.part", path);
    teacher_close(build("alone", &views, &options, &rate));
    OK(fs_map(alone, &want, err));
    for (int finished = 0; finished < 2; finished++) {
        struct other other = {.from = finished ? alone : NULL, .to = path};
        options.progress = watch_other;
        options.progress_ctx = &other;
        unlink(path);
        other.fd = open(part, O_RDWR | O_CREAT, 0644);
        assert_true(other.fd >= 0);
        assert_int_equal(flock(other.fd, LOCK_EX), 0);
        teacher_close(build("shared", &views, &options, &rate));
        assert_true(other.asked >= 3);
        assert_int_equal(rate > 0, !finished);
        assert_false(fs_exists(part));
        OK(fs_map(path, &got, err));
        assert_int_equal(got.bytes, want.bytes);
        assert_memory_equal(got.data, want.data, want.bytes);
        fs_unmap(&got);
    }
    fs_unmap(&want);
}

/* Of probabilities the losses would take the softmax again. */
static void a_final_softmax_is_left_out(void **state)
{
    (void)state;
    const struct augmenter views = views_of(7);
    const struct teacher_options options = quick();
    struct graph *plain = network, *g = NULL;
    double rate;
    OK(graph_clone(network, &g, err));
    const int n = OK(graph_add_node(g, -1, OP_SOFTMAX, "soft", 1, g->outputs, 1, NULL, err));
    g->n_outputs = 0;
    OK(graph_add_output(g, g->nodes[n]->outputs[0], err));
    OK(graph_infer(g, err));
    struct teacher *want = build("plain", &views, &options, &rate);
    network = g;
    struct teacher *got = build("soft", &views, &options, &rate);
    network = plain;
    for (int64_t i = 0; i < teacher_samples(want); i++) {
        float a[DRAWN_CLASSES], b[DRAWN_CLASSES];
        teacher_logits(want, 1, i, a);
        teacher_logits(got, 1, i, b);
        assert_memory_equal(a, b, sizeof(a));
    }
    teacher_close(want);
    teacher_close(got);
    graph_free(g);
}

static void a_file_that_is_there_is_not_made_again(void **state)
{
    (void)state;
    const struct augmenter views = views_of(7), other = views_of(8);
    const struct teacher_options options = quick();
    double rate;
    teacher_close(build("again", &views, &options, &rate));
    assert_true(rate > 0);
    teacher_close(build("again", &views, &options, &rate));
    assert_true(rate == 0);
    struct teacher *t = build("again", &other, &options, &rate); /* of another seed */
    assert_true(rate > 0);
    char key[65];
    OK(teacher_views_key(&other, "d", key, err));
    assert_string_equal(teacher_key(t), key);
    OK(teacher_views_key(&views, "d", key, err));
    assert_string_not_equal(teacher_key(t), key);
    OK(teacher_views_key(&other, "e", key, err));
    assert_string_not_equal(teacher_key(t), key);
    teacher_close(t);
}

static int stop_later(void *ctx, int64_t done, int64_t total, struct err *err)
{
    const int64_t *at = ctx;
    assert_true(done <= total);
    return done >= *at ? err_set(err, ERR_CANCELLED, "enough") : 0;
}

/* A round is larger than this data, so a part is made by hand: the beginning of a finished file
 * under the header of one that is not. */
static void a_build_goes_on_where_it_was(void **state)
{
    (void)state;
    const struct augmenter views = views_of(9);
    struct teacher_options options = quick();
    const int64_t n = dataset_count(data.ds, PART_TRAIN);
    int64_t at = 100;
    options.progress = stop_later;
    options.progress_ctx = &at;
    assert_int_equal(
        teacher_build(network, &views, &options, drawn_path(&data, "stop"), NULL, NULL),
        -ERR_CANCELLED);
    assert_false(fs_exists(drawn_path(&data, "stop")));
    assert_true(fs_exists(drawn_path(&data, "stop.part")));
    options.progress = NULL;
    teacher_close(build("whole", &views, &options, NULL));
    void *bytes;
    size_t size;
    OK(fs_read(drawn_path(&data, "whole"), 1 << 30, &bytes, &size, err));
    const int64_t done = n + 17;
    memcpy((char *)bytes + 40, &done, sizeof(done)); /* rows_done */
    memset((char *)bytes + 48 + 130, 0, 65);         /* hash of the data */
    OK(fs_write_atomic(drawn_path(&data, "stop.part"), bytes,
                       4096 + (size_t)done * DRAWN_CLASSES * 2, err));
    at = 1 << 30;
    options.progress = stop_later;
    struct teacher *t = build("stop", &views, &options, NULL);
    teacher_close(t);
    char a[65], b[65];
    OK(hash_file(drawn_path(&data, "stop"), a, err));
    OK(hash_file(drawn_path(&data, "whole"), b, err));
    assert_string_equal(a, b);
    assert_false(fs_exists(drawn_path(&data, "stop.part")));
    free(bytes);
}

static void expect_damage(const char *words)
{
    struct teacher *t = NULL;
    struct err err = {0};
    if (teacher_open(drawn_path(&data, "damaged"), &t, &err) != -ERR_DATA_LOSS ||
        !strstr(err.message, words) || !strstr(err.message, "damaged"))
        fail_msg("'%s' lacks '%s'", err.message, words);
}

static void damaged_files_are_refused(void **state)
{
    (void)state;
    const struct augmenter views = views_of(7);
    const struct teacher_options options = quick();
    teacher_close(build("sound", &views, &options, NULL));
    void *bytes;
    size_t n;
    OK(fs_read(drawn_path(&data, "sound"), 1 << 30, &bytes, &n, err));
    const struct {
        size_t at;
        const char *words;
    } flips[] = {{0, "not a file"},          {8, "version"},
                 {12, "header is damaged"},  {17, "header is damaged"},
                 {24, "header is damaged"},  {40, "header is damaged"},
                 {4096, "what was written"}, {n - 1, "what was written"}};
    for (size_t i = 0; i < sizeof(flips) / sizeof(*flips); i++) {
        ((uint8_t *)bytes)[flips[i].at] ^= 2;
        OK(fs_write_atomic(drawn_path(&data, "damaged"), bytes, n, err));
        ((uint8_t *)bytes)[flips[i].at] ^= 2;
        expect_damage(flips[i].words);
    }
    const size_t cuts[] = {0, 100, 4096, n - 1};
    for (size_t i = 0; i < sizeof(cuts) / sizeof(*cuts); i++) {
        OK(fs_write_atomic(drawn_path(&data, "damaged"), bytes, cuts[i], err));
        expect_damage("bytes");
    }
    free(bytes);
}

/* ---- learning from it ---- */

static struct train_options distil_options(const struct teacher *t, const struct augmenter *views)
{
    struct train_options o = train_defaults();
    o.epochs = 12;
    o.batch = 48;
    o.threads = 2;
    o.slice = 12;
    o.precision = PRECISION_FP32;
    o.seed = views->seed;
    o.augment = views->how;
    o.teacher = t;
    o.temperature = 2;
    o.evaluate_every = 0;
    return o;
}

static void a_student_learns_from_the_teacher_alone(void **state)
{
    (void)state;
    struct augmenter views = views_of(3);
    struct train_options teach = distil_options(NULL, &views);
    struct train_result taught = {0}, learned = {0};
    struct graph *student = drawn_network(6, 5);
    struct teacher *t = NULL;
    OK(train_run(network, data.ds, &data.pre, &teach, &taught, err));
    const struct teacher_options options = quick();
    OK(teacher_build(taught.graph, &views, &options, drawn_path(&data, "taught"), NULL, err));
    OK(teacher_open(drawn_path(&data, "taught"), &t, err));
    struct train_options learn = distil_options(t, &views);
    OK(train_run(student, data.ds, &data.pre, &learn, &learned, err));
    const double score = drawn_score(&data, learned.graph, PART_TEST);
    print_message("teacher %.3f, student %.3f\n", drawn_score(&data, taught.graph, PART_TEST),
                  score);
    assert_true(score > 0.85);
    assert_true(learned.curve[11].loss < learned.curve[0].loss / 3);
    teacher_close(t);
    train_result_release(&taught);
    train_result_release(&learned);
    graph_free(student);
}

/* A student that is the teacher has nothing to learn: its loss is zero up to rounding, but only if
 * it sees in every epoch just the views that the teacher saw. */
static void student_and_teacher_see_the_same_views(void **state)
{
    (void)state;
    const struct augmenter views = views_of(5);
    struct teacher_options options = quick();
    struct graph *bare = NULL; /* a norm over a batch's statistics is not the one of inference */
    OK(graph_clone(network, &bare, err));
    OK(pass_fold_batchnorm(bare, err));
    struct teacher *t = NULL;
    options.dtype = DTYPE_F32;
    OK(teacher_build(bare, &views, &options, drawn_path(&data, "same"), NULL, err));
    OK(teacher_open(drawn_path(&data, "same"), &t, err));
    struct train_options learn = distil_options(t, &views);
    struct train_result result = {0};
    learn.epochs = 5; /* more than there are views */
    learn.schedule = schedule_make(SCHEDULE_CONSTANT, 1e-12);
    OK(train_run(bare, data.ds, &data.pre, &learn, &result, err));
    for (int e = 0; e < 5; e++)
        assert_true(result.curve[e].loss < 1e-8);
    train_result_release(&result);
    learn.seed = 6; /* other views */
    OK(train_run(bare, data.ds, &data.pre, &learn, &result, err));
    assert_true(result.curve[0].loss > 1e-4);
    train_result_release(&result);
    learn.seed = views.seed;
    learn.mixup = 0.5; /* mixed pictures are not what the teacher's mixed answers are of */
    OK(train_run(bare, data.ds, &data.pre, &learn, &result, err));
    assert_true(result.curve[0].loss > 1e-6);
    train_result_release(&result);
    teacher_close(t);
    graph_free(bare);
}

static void a_teacher_of_other_views_is_refused(void **state)
{
    (void)state;
    const struct augmenter views = views_of(5);
    const struct teacher_options options = quick();
    struct train_result result = {0};
    struct teacher *t = build("other", &views, &options, NULL);
    struct train_options learn = distil_options(t, &views);
    learn.epochs = 1;
    for (int kind = 0; kind < 4; kind++) {
        struct err err = {0};
        struct train_options o = learn;
        o.data = kind == 1 ? "e" : "d";
        o.seed += kind == 2;
        o.augment.crop -= kind == 3;
        const int rc = train_run(network, data.ds, &data.pre, &o, &result, &err);
        train_result_release(&result);
        assert_int_equal(rc, kind == 0 ? 0 : -ERR_FAILED_PRECONDITION);
        assert_true(kind == 0 || strstr(err.message, "other views"));
    }
    teacher_close(t);
}

static void a_teacher_of_other_samples_is_refused(void **state)
{
    (void)state;
    struct augmenter views = views_of(5);
    const struct teacher_options options = quick();
    struct train_result result = {0};
    struct err err = {0};
    views.part = PART_TEST;
    struct teacher *t = build("test", &views, &options, NULL);
    struct train_options learn = distil_options(t, &views);
    assert_int_equal(train_run(network, data.ds, &data.pre, &learn, &result, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "120 samples"));
    teacher_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(logits_are_those_of_each_view),
        cmocka_unit_test(two_builds_of_a_file_come_one_after_the_other),
        cmocka_unit_test(a_final_softmax_is_left_out),
        cmocka_unit_test(a_file_that_is_there_is_not_made_again),
        cmocka_unit_test(a_build_goes_on_where_it_was),
        cmocka_unit_test(damaged_files_are_refused),
        cmocka_unit_test(a_student_learns_from_the_teacher_alone),
        cmocka_unit_test(student_and_teacher_see_the_same_views),
        cmocka_unit_test(a_teacher_of_other_views_is_refused),
        cmocka_unit_test(a_teacher_of_other_samples_is_refused),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
