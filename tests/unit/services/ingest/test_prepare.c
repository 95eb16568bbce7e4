/* The task "prepare", on a small network with data that it labels itself; a real Redis remembers.
 */
#include "tests/support/quant_task.h"

#include <onnx.pb-c.h>
#include <unistd.h>
#include <yyjson.h>

#include "services/ingest/prepare.h"
#include "tests/support/onnx_text.h"
#include "tests/support/redis.h"

static struct job job;
static struct test_redis redis;
static char model[160], data[160];

/* ---- a job's files ---- */

static void copy_data(const char *to)
{
    static const char *const names[] = {"x_train.npy", "y_train.npy", "x_test.npy", "y_test.npy"};
    JOB_OK(fs_mkdirs(job_path(&job, to), err));
    for (int i = 0; i < 4; i++) {
        char from[160], path[160];
        str_copy(from, sizeof(from), job_path(&job, names[i]));
        if (!fs_exists(from))
            continue;
        snprintf(path, sizeof(path), "%s/%s/%s", job.folder, to, names[i]);
        JOB_OK(fs_copy(from, path, err));
    }
}

static void begin_job(bool labelled)
{
    char answer[64];
    assert_int_equal(test_redis_ask(&redis, "FLUSHALL", answer, sizeof(answer)), 0);
    job_begin(&job, labelled);
    struct queue_options options = {.url = redis.url};
    JOB_OK(queue_open(&options, &job.queue, err));
    str_copy(model, sizeof(model), job_path(&job, "net.onnx"));
    JOB_OK(onnx_write_file(job.net.g, model, err));
    copy_data("data");
    str_copy(data, sizeof(data), job_path(&job, "data"));
}

static int begin(void **state)
{
    (void)state;
    begin_job(true);
    return 0;
}

static int begin_without_labels(void **state)
{
    (void)state;
    begin_job(false);
    return 0;
}

static int end(void **state)
{
    (void)state;
    job.queue = queue_close(job.queue);
    job_end(&job);
    return 0;
}

/* ---- running ---- */

static int prepare(const char *preprocess, struct err *err)
{
    Hone__V1__StageTask stage = HONE__V1__STAGE_TASK__INIT;
    Hone__V1__JobState state = HONE__V1__JOB_STATE__INIT;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    stage.state = &state;
    state.version = 1;
    state.spec = &spec;
    spec.version = 1;
    spec.title = (char *)"a title";
    spec.model_path = model;
    spec.data_path = data;
    spec.preprocess = (char *)preprocess;
    spec.target = (char *)"cpu:test";
    spec.seed = 3;
    spec.batch = 64;
    return job_run(&job, ingest_prepare, &stage, err);
}

/* Must work; the state that the next stage gets, the caller's. */
static job_state *prepared(const char *preprocess)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    JOB_OK(prepare(preprocess, err));
    assert_int_equal(job.out.n_tasks, 1);
    assert_string_equal(job.out.tasks[0].queue, "exporter");
    assert_string_equal(job.out.tasks[0].kind, "calibrate");
    JOB_OK(message_unpack(&hone__v1__stage_task__descriptor, job.out.tasks[0].payload,
                          job.out.tasks[0].payload_bytes, &stage, err));
    job_state *state = stage->state;
    stage->state = NULL;
    return state;
}

static int count_events(const char *type, const char *words)
{
    int n = 0;
    for (size_t i = 0; i < job.running.n_records; i++)
        n += strcmp(job.running.records[i].type, type) == 0 &&
             (!words || strstr(job.running.records[i].fields, words));
    return n;
}

static void refuses(int code, const char *words)
{
    struct err err = {0};
    int r = prepare("scale=1", &err);
    if (r != -code || (int)err.code != code || !strstr(err.message, words))
        fail_msg("got %d '%s', expected %d with '%s'", r, err.message, -code, words);
    assert_true(work_is_permanent(r));
}

static void write_text_file(const char *name, const char *text)
{
    char path[200];
    snprintf(path, sizeof(path), "%s/%s", job.folder, name);
    JOB_OK(fs_write_atomic(path, text, strlen(text), err));
}

static void states_equal(const job_state *a, const job_state *b)
{
    _cleanup_(freep) void *x = NULL;
    _cleanup_(freep) void *y = NULL;
    size_t n = 0, m = 0;
    JOB_OK(message_pack(a, &x, &n, err));
    JOB_OK(message_pack(b, &y, &m, err));
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
}

/* ---- what comes out ---- */

static void everything_the_next_stages_need_is_found(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    assert_string_equal(s->metric, "top1");
    assert_true(s->data->labels_usable);
    assert_int_equal(s->data->n_train + s->data->n_search, JOB_TRAIN);
    assert_int_equal(s->data->n_test, JOB_TEST);
    assert_int_equal(s->data->n_classes, JOB_CLASSES);
    assert_string_equal(s->preprocess->how, "given");
    assert_true(s->preprocess->scale == 1);
    assert_string_equal(s->baseline->artifact, s->network);
    assert_true(s->baseline->macs > 0 && s->baseline->parameters > 0);
    const Hone__V1__Accuracy *search = state_accuracy(s->baseline, "search", "hone");
    const Hone__V1__Accuracy *test = state_accuracy(s->baseline, "test", "hone");
    assert_non_null(search);
    assert_non_null(test);
    assert_int_equal(test->n, JOB_TEST);
    assert_true(test->value == 1); /* it made the labels itself */
    assert_true(search->value == 1 && search->n == s->data->n_search);
    _cleanup_(logits_release) struct logits logits = {0};
    JOB_OK(logits_read(job.store, test->predictions, &logits, err));
    assert_int_equal(logits.n, JOB_TEST);
    assert_int_equal(logits.width, JOB_CLASSES);
    assert_int_equal(count_events("baseline", "\"n\":20"), 1);
}

/* It is measured with the batch that it has, whatever was asked for. */
static void a_batch_that_cannot_be_opened_stays(void **state)
{
    (void)state;
    static const char text[] = "input x float 1,3,8,8\n"
                               "init w float 4,192 rand\n"
                               "Softmax over x -> y axis=0\n"
                               "Flatten flat y -> z\n"
                               "Gemm gemm z,w -> q transB=1\n"
                               "output q float 1,4\n";
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const Onnx__ModelProto *m = onnx_text_model(arena, text);
    const size_t n = onnx__model_proto__get_packed_size(m);
    _cleanup_(freep) uint8_t *packed = malloc(n);
    onnx__model_proto__pack(m, packed);
    JOB_OK(fs_write_atomic(model, packed, n, err));
    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    assert_int_equal(s->spec->batch, 1);
    assert_non_null(strstr(s->decisions[0], "the batch size stays fixed at 1: "));
}

static void the_original_is_kept_byte_by_byte(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    _cleanup_(freep) void *file = NULL;
    _cleanup_(freep) void *kept = NULL;
    size_t n = 0, m = 0;
    JOB_OK(fs_read(model, 1 << 20, &file, &n, err));
    JOB_OK(store_get(job.store, s->model, 1 << 20, &kept, &m, err));
    assert_int_equal(n, m);
    assert_memory_equal(file, kept, n);
    assert_int_equal(s->baseline->bytes, n);
}

static void nothing_that_goes_on_depends_on_paths_or_titles(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    assert_string_equal(s->spec->model_path, "");
    assert_string_equal(s->spec->data_path, "");
    assert_string_equal(s->spec->title, "");
    assert_string_equal(s->spec->target, "cpu:test");
    assert_int_equal(s->spec->seed, 3);
}

static void without_labels_the_original_is_the_measure(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    assert_string_equal(s->metric, "agreement");
    assert_false(s->data->labels_usable);
    assert_true(state_accuracy(s->baseline, "test", "hone")->value == 1);
    assert_true(s->n_decisions >= 1);
    assert_non_null(strstr(s->decisions[0], "fidelity to the original"));
    assert_int_equal(count_events("warning", "its labels are not used"), 1);
}

static void weights_in_other_files_are_taken_along(void **state)
{
    (void)state;
    _cleanup_(freep) uint8_t *file = NULL;
    size_t n = 0;
    JOB_OK(fs_read(model, 1 << 20, (void **)&file, &n, err));
    Onnx__ModelProto *m = onnx__model_proto__unpack(NULL, n, file);
    Onnx__TensorProto *w = NULL;
    for (size_t i = 0; i < m->graph->n_initializer; i++)
        if (m->graph->initializer[i]->raw_data.len > 500)
            w = m->graph->initializer[i];
    assert_non_null(w);
    JOB_OK(fs_write_atomic(job_path(&job, "weights.bin"), w->raw_data.data, w->raw_data.len, err));
    Onnx__StringStringEntryProto entry, *entries[] = {&entry};
    onnx__string_string_entry_proto__init(&entry);
    entry.key = (char *)"location";
    entry.value = (char *)"weights.bin";
    w->has_raw_data = 0;
    w->has_data_location = 1;
    w->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    w->n_external_data = 1;
    w->external_data = entries;
    size_t bytes = onnx__model_proto__get_packed_size(m);
    _cleanup_(freep) uint8_t *packed = malloc(bytes);
    onnx__model_proto__pack(m, packed);
    JOB_OK(fs_write_atomic(model, packed, bytes, err));
    w->n_external_data = 0;
    w->external_data = NULL;
    onnx__model_proto__free_unpacked(m, NULL);

    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    _cleanup_(freep) void *kept = NULL;
    _cleanup_(graph_freep) struct graph *alone = NULL;
    JOB_OK(store_get(job.store, s->model, 1 << 20, &kept, &n, err));
    JOB_OK(onnx_read_bytes(kept, n, NULL, NULL, &alone, err));
    assert_true(graph_difference(alone, job.net.g) < 1e-6);
    assert_int_equal(s->baseline->bytes, n);
}

static void warnings_of_the_data_are_said(void **state)
{
    (void)state;
    /* the same samples on both sides */
    char from[200], to[200];
    static const char *const arrays[] = {"x", "y"};
    for (int i = 0; i < 2; i++) {
        snprintf(from, sizeof(from), "%s/%s_train.npy", data, arrays[i]);
        snprintf(to, sizeof(to), "%s/%s_test.npy", data, arrays[i]);
        JOB_OK(fs_copy(from, to, err));
    }
    _cleanup_(message_freep) job_state *s = prepared("scale=1");
    assert_true(s->data->duplicates > 0);
    assert_int_equal(count_events("warning", NULL), s->data->n_warnings);
    assert_true(s->data->n_warnings > 0);
    for (size_t i = 0; i < job.running.n_records; i++) {
        _cleanup_(freep) char *text = str_printf("{%s}", job.running.records[i].fields);
        yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
        if (!doc)
            fail_msg("not JSON: %s", text);
        yyjson_doc_free(doc);
    }
}

/* ---- preprocessing ---- */

static void dataset_json_says_how_and_the_command_line_goes_before(void **state)
{
    (void)state;
    write_text_file("data/dataset.json", "{\"preprocess\": \"scale=2 mean=1\"}");
    for (int again = 0; again < 2; again++) { /* the second time it is remembered */
        _cleanup_(message_freep) job_state *s = prepared("");
        assert_string_equal(s->preprocess->how, "dataset.json");
        assert_true(s->preprocess->scale == 2);
        assert_int_equal(count_events("reused", NULL), 2 * again);
    }
    _cleanup_(message_freep) job_state *given = prepared("scale=3");
    assert_string_equal(given->preprocess->how, "given");
    assert_true(given->preprocess->scale == 3);
}

static void what_the_network_was_trained_with_is_found_in_it(void **state)
{
    (void)state;
    JOB_OK(graph_set_metadata(job.net.g, "hone.preprocess", "scale=2 mean=1", err));
    JOB_OK(onnx_write_file(job.net.g, model, err));
    _cleanup_(message_freep) job_state *s = prepared("");
    assert_string_equal(s->preprocess->how, "of the network");
    assert_true(s->preprocess->scale == 2);
    write_text_file("data/dataset.json", "{\"preprocess\": \"scale=3\"}");
    _cleanup_(message_freep) job_state *other = prepared("");
    assert_string_equal(other->preprocess->how, "dataset.json");
}

/* ---- memory ---- */

static void the_same_content_is_known_wherever_it_lies(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *first = prepared("scale=1");
    assert_int_equal(count_events("reused", NULL), 0);
    char other[160];
    str_copy(other, sizeof(other), job_path(&job, "copy.onnx"));
    JOB_OK(fs_copy(model, other, err));
    str_copy(model, sizeof(model), other);
    copy_data("elsewhere");
    str_copy(data, sizeof(data), job_path(&job, "elsewhere"));
    _cleanup_(message_freep) job_state *second = prepared("scale=1");
    assert_int_equal(count_events("reused", NULL), 2);
    assert_int_equal(count_events("baseline", "\"n\":20"), 1); /* watchers see the same */
    states_equal(first, second);
}

static void another_network_in_the_same_place_is_another(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *first = prepared("scale=1");
    Onnx__ModelProto *m;
    _cleanup_(freep) uint8_t *file = NULL;
    size_t n = 0;
    JOB_OK(fs_read(model, 1 << 20, (void **)&file, &n, err));
    m = onnx__model_proto__unpack(NULL, n, file);
    for (size_t i = 0; i < m->graph->n_initializer; i++) {
        ProtobufCBinaryData raw = m->graph->initializer[i]->raw_data;
        for (size_t k = 3; k < raw.len; k += 4)
            raw.data[k] ^= 0x80; /* all weights with the other sign */
    }
    onnx__model_proto__pack(m, file);
    JOB_OK(fs_write_atomic(model, file, n, err));
    onnx__model_proto__free_unpacked(m, NULL);
    _cleanup_(message_freep) job_state *second = prepared("scale=1");
    assert_int_equal(count_events("reused", "packed data"), 1);
    assert_int_equal(count_events("reused", NULL), 1);
    assert_string_not_equal(first->network, second->network);
    assert_true(state_accuracy(second->baseline, "test", "hone")->value < 0.9);
}

static void other_data_in_the_same_place_are_others(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *first = prepared("scale=1");
    int32_t labels[JOB_TEST];
    for (int i = 0; i < JOB_TEST; i++)
        labels[i] = i % JOB_CLASSES;
    job_npy(&job, "data/y_test.npy", "<i4", "20,", labels, sizeof(labels));
    _cleanup_(message_freep) job_state *second = prepared("scale=1");
    assert_int_equal(count_events("reused", NULL), 0);
    assert_true(state_accuracy(second->baseline, "test", "hone")->value < 0.9);
}

static void another_preprocessing_is_judged_anew(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *first = prepared("scale=1");
    _cleanup_(message_freep) job_state *second = prepared("scale=0.001");
    assert_int_equal(count_events("reused", NULL), 1); /* the packed data */
    assert_string_not_equal(state_accuracy(first->baseline, "test", "hone")->predictions,
                            state_accuracy(second->baseline, "test", "hone")->predictions);
}

static void what_is_gone_from_the_store_is_made_again(void **state)
{
    (void)state;
    _cleanup_(message_freep) job_state *first = prepared("scale=1");
    const char *name = state_accuracy(first->baseline, "test", "hone")->predictions;
    char path[256];
    snprintf(path, sizeof(path), "%s/store/objects/%.2s/%s", job.folder, name, name);
    assert_int_equal(unlink(path), 0);
    _cleanup_(message_freep) job_state *second = prepared("scale=1");
    assert_int_equal(count_events("reused", NULL), 1); /* the packed data */
    states_equal(first, second);
    assert_int_equal(store_has(job.store, name, NULL), 1);
}

/* ---- refusals: all of them for good ---- */

static void a_damaged_model_is_named_and_not_kept(void **state)
{
    (void)state;
    JOB_OK(fs_write_atomic(model, "\x0a\x7fthis is no network", 20, err));
    refuses(ERR_INVALID_ARGUMENT, "net.onnx: ");
    char name[HASH_HEX_BYTES];
    JOB_OK(hash_bytes("\x0a\x7fthis is no network", 20, name, err));
    assert_int_equal(store_has(job.store, name, NULL), 0);
}

static void a_model_above_the_limit_is_refused_unread(void **state)
{
    (void)state;
    assert_int_equal(truncate(model, (off_t)3 << 30), 0);
    refuses(ERR_INVALID_ARGUMENT, "net.onnx: 3221225472 bytes, above the limit");
}

static void a_model_that_is_gone_is_named(void **state)
{
    (void)state;
    assert_int_equal(unlink(model), 0);
    refuses(ERR_NOT_FOUND, "net.onnx: ");
}

static void an_archive_that_is_cut_is_not_read_again_and_again(void **state)
{
    (void)state;
    /* the head of a tar: one entry of 1000 bytes, of which 100 are there */
    char tar[612] = "train/a/1.png";
    memcpy(tar + 100, "0000644\0000000000\0000000000\00000000001750\00000000000000\0", 48);
    memcpy(tar + 257, "ustar\00000", 8);
    tar[156] = '0';
    memset(tar + 148, ' ', 8);
    unsigned sum = 0;
    for (int i = 0; i < 512; i++)
        sum += (unsigned char)tar[i];
    snprintf(tar + 148, 8, "%06o", sum);
    str_copy(data, sizeof(data), job_path(&job, "cut.tar"));
    JOB_OK(fs_write_atomic(data, tar, sizeof(tar), err));
    refuses(ERR_INVALID_ARGUMENT, "broken archive");
}

static void more_classes_than_outputs_are_refused(void **state)
{
    (void)state;
    int32_t labels[JOB_TEST];
    for (int i = 0; i < JOB_TEST; i++)
        labels[i] = i;
    job_npy(&job, "data/y_test.npy", "<i4", "20,", labels, sizeof(labels));
    refuses(ERR_INVALID_ARGUMENT, "20 classes, the network only 4 outputs");
}

static void write_model(const char *text)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    Onnx__ModelProto *m = onnx_text_model(arena, text);
    size_t bytes = onnx__model_proto__get_packed_size(m);
    _cleanup_(freep) uint8_t *packed = malloc(bytes);
    onnx__model_proto__pack(m, packed);
    JOB_OK(fs_write_atomic(model, packed, bytes, err));
}

/* The largest of one is always the same: every network would agree with it. */
static void a_network_of_one_answer_is_refused(void **state)
{
    (void)state;
    write_model("input x float N,3,8,8\n"
                "init w float 1,3,3,3 rand\n"
                "Conv conv x,w -> y\n"
                "GlobalAveragePool pool y -> p\n"
                "Flatten flat p -> q\n"
                "output q\n");
    refuses(ERR_UNIMPLEMENTED, "the network answers with one number");
}

static void answers_that_are_no_numbers_are_refused(void **state)
{
    (void)state;
    write_model("input x float N,3,8,8\n"
                "init w float 4,3,3,3 rand\n"
                "Conv conv x,w -> y\n"
                "GlobalAveragePool pool y -> p\n"
                "Flatten flat p -> q\n"
                "Sub nothing q,q -> n\n"
                "Div divided n,n -> r\n"
                "output r\n");
    refuses(ERR_INVALID_ARGUMENT, "the network answers sample 0 of the search part with NaN");
}

int main(void)
{
    if (test_redis_start(&redis, "redis-server", "no") < 0)
        return 1;
#define PREPARE_TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)
    static const struct CMUnitTest tests[] = {
        PREPARE_TEST(everything_the_next_stages_need_is_found),
        PREPARE_TEST(a_batch_that_cannot_be_opened_stays),
        PREPARE_TEST(the_original_is_kept_byte_by_byte),
        PREPARE_TEST(nothing_that_goes_on_depends_on_paths_or_titles),
        cmocka_unit_test_setup_teardown(without_labels_the_original_is_the_measure,
                                        begin_without_labels, end),
        PREPARE_TEST(weights_in_other_files_are_taken_along),
        PREPARE_TEST(warnings_of_the_data_are_said),
        PREPARE_TEST(dataset_json_says_how_and_the_command_line_goes_before),
        PREPARE_TEST(what_the_network_was_trained_with_is_found_in_it),
        PREPARE_TEST(the_same_content_is_known_wherever_it_lies),
        PREPARE_TEST(another_network_in_the_same_place_is_another),
        PREPARE_TEST(other_data_in_the_same_place_are_others),
        PREPARE_TEST(another_preprocessing_is_judged_anew),
        PREPARE_TEST(what_is_gone_from_the_store_is_made_again),
        PREPARE_TEST(a_damaged_model_is_named_and_not_kept),
        PREPARE_TEST(a_model_above_the_limit_is_refused_unread),
        PREPARE_TEST(a_model_that_is_gone_is_named),
        PREPARE_TEST(an_archive_that_is_cut_is_not_read_again_and_again),
        PREPARE_TEST(more_classes_than_outputs_are_refused),
        cmocka_unit_test_setup_teardown(a_network_of_one_answer_is_refused, begin_without_labels,
                                        end),
        PREPARE_TEST(answers_that_are_no_numbers_are_refused),
    };
    int failed = cmocka_run_group_tests_name("prepare", tests, NULL, NULL);
    test_redis_stop(&redis);
    return failed;
}
