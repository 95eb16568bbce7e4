/* Broken, hostile and unfit networks, through the whole command line: `hone inspect` with little
 * memory, and `hone optimize` with services that run. Each ends in one sentence that names the
 * place; the services stay up and small. */
#include "tests/support/model_file.h"

#include <sys/stat.h>

#include "shared/base/rng.h"
#include "tests/support/hone.h"

#define MB ((size_t)1 << 20)
static const struct hone_how small = {.max_memory = 1024 * MB, .limit_s = 60};

/* Both commands refuse the file with these words. */
static void refuses(const char *path, const char *const *words)
{
    char model[512];
    str_copy(model, sizeof(model), path); /* in_dir has few buffers */
    const char *data = data_folder(), *out = in_dir("out");
    HONE_HOW(&small, "inspect", model);
    hone_assert_refused(words);
    HONE("optimize", model, "--data", data, "--out", out, "--preprocess", "scale=1/255");
    hone_assert_refused(words);
    assert_says("failed: ingest prepare: ");
    assert_false(fs_exists(out)); /* nothing is left behind */
}
#define REFUSES(path, ...) refuses(path, (const char *const[]){__VA_ARGS__, NULL})

/* ---- damaged files ---- */

static void a_truncated_model_is_named(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct model_bytes b = pack_model(onnx_text_model(arena, SMALL_NET));
    write_bytes(in_dir("cut.onnx"), b.data, b.n * 2 / 3);
    free(b.data);
    REFUSES(in_dir("cut.onnx"), "cut.onnx: ");
}

static void random_bytes_are_named(void **state)
{
    (void)state;
    uint8_t noise[5000];
    struct rng rng;
    rng_seed(&rng, 1);
    for (size_t i = 0; i < sizeof(noise); i++)
        noise[i] = (uint8_t)rng_below(&rng, 256);
    write_bytes(in_dir("noise.onnx"), noise, sizeof(noise));
    REFUSES(in_dir("noise.onnx"), "noise.onnx: ");
}

static void an_empty_file_is_named(void **state)
{
    (void)state;
    write_bytes(in_dir("empty.onnx"), "", 0);
    REFUSES(in_dir("empty.onnx"), "empty.onnx: ", "no ONNX model");
}

/* graph > node > attribute > graph > ... */
static void nesting_without_end_is_refused(void **state)
{
    (void)state;
    static const uint8_t tags[] = {7 << 3 | 2, 1 << 3 | 2, 5 << 3 | 2, 6 << 3 | 2};
    enum { DEPTH = 20000 };
    static uint8_t data[DEPTH * 6];
    size_t at = sizeof(data);
    for (int level = DEPTH - 1; level >= 0; level--) {
        size_t length = sizeof(data) - at;
        uint8_t varint[5];
        int n = 0;
        for (; length > 127; length >>= 7)
            varint[n++] = (uint8_t)(length | 128);
        varint[n++] = (uint8_t)length;
        at -= (size_t)n;
        memcpy(data + at, varint, (size_t)n);
        data[--at] = level == 0 ? tags[0] : tags[1 + (level - 1) % 3];
    }
    write_bytes(in_dir("deep.onnx"), data + at, sizeof(data) - at);
    REFUSES(in_dir("deep.onnx"), "deep.onnx: ", "nested more than");
}

static void a_tensor_that_claims_three_gigabytes_costs_nothing(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL_NET);
    m->graph->initializer[0]->dims[0] = (int64_t)805306368 / 27;
    write_model(in_dir("claims.onnx"), m);
    REFUSES(in_dir("claims.onnx"), "claims.onnx: ", "initializer 'w'");
}

/* A file of 3 GB (with nothing in it) is neither read nor copied into the store. */
static void a_file_of_three_gigabytes_is_refused_at_once(void **state)
{
    (void)state;
    const char *path = model_file("large.onnx", SMALL_NET);
    assert_int_equal(truncate(path, (off_t)3 << 30), 0);
    REFUSES(path, "large.onnx: ", "above the limit");
    assert_true(ran.seconds < 10);
}

static void external_data_outside_of_the_folder_is_not_read(void **state)
{
    (void)state;
    static const char *const places[] = {"../secret.bin", "/etc/passwd", "a/../../secret.bin"};
    write_bytes(in_dir("secret.bin"), "not for the network", 19);
    for (int i = 0; i < 3; i++) {
        _cleanup_(arena_freep) struct arena *arena = arena_new();
        Onnx__ModelProto *m = onnx_text_model(arena, SMALL_NET);
        Onnx__TensorProto *w = m->graph->initializer[0];
        Onnx__StringStringEntryProto entry, *entries[] = {&entry};
        onnx__string_string_entry_proto__init(&entry);
        entry.key = (char *)"location";
        entry.value = (char *)places[i];
        w->has_raw_data = 0;
        w->has_data_location = 1;
        w->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
        w->n_external_data = 1;
        w->external_data = entries;
        write_model(in_dir("models/external.onnx"), m);
        REFUSES(in_dir("models/external.onnx"), "external.onnx: ", "'w'", places[i],
                "outside the model's folder");
    }
}

/* ---- networks that cannot be ---- */

static void a_cycle_is_named_by_a_node(void **state)
{
    (void)state;
    REFUSES(model_file("cycle.onnx", "input x float N,4\n"
                                     "Add first x,b -> a\n"
                                     "Relu second a -> b\n"
                                     "output b float N,4\n"),
            "cycle.onnx: ", "cycle", "first");
}

static void an_input_that_nobody_gives_is_named(void **state)
{
    (void)state;
    REFUSES(model_file("missing.onnx", "input x float N,4\n"
                                       "Add sum x,nowhere -> y\n"
                                       "output y float N,4\n"),
            "missing.onnx: ", "sum", "nowhere");
}

static void shapes_that_do_not_fit_are_named_with_their_node(void **state)
{
    (void)state;
    REFUSES(model_file("shapes.onnx", "input x float N,3,8,8\n"
                                      "init w float 4,5,3,3 rand\n"
                                      "Conv conv_wrong x,w -> y\n"
                                      "output y\n"),
            "shapes.onnx: ", "conv_wrong");
    REFUSES(model_file("gemm.onnx", "input x float N,7\n"
                                    "init w float 8,4 rand\n"
                                    "Gemm dense_wrong x,w -> y\n"
                                    "output y\n"),
            "gemm.onnx: ", "dense_wrong");
}

static void weights_that_are_no_numbers_are_named(void **state)
{
    (void)state;
    REFUSES(model_file("nan.onnx", "input x float N,3,8,8\n"
                                   "init bias_of_conv float 3,1,1 = 1 nan 0\n"
                                   "Add add x,bias_of_conv -> y\n"
                                   "output y\n"),
            "nan.onnx: ", "'bias_of_conv'", "NaN");
}

static void dimensions_of_zero_are_named(void **state)
{
    (void)state;
    REFUSES(model_file("zero.onnx", "input x float N,3,0,8\n"
                                    "Relu relu x -> y\n"
                                    "output y\n"),
            "zero.onnx: ", "'x'");
}

static void an_unknown_operator_is_named_with_its_node(void **state)
{
    (void)state;
    REFUSES(model_file("fancy.onnx", "input x float N,3,8,8\n"
                                     "FancyOp strange_one x -> y\n"
                                     "output y\n"),
            "fancy.onnx: ", "FancyOp", "strange_one");
}

/* ---- networks that Hone does not optimize (yet); inspecting them is fine ---- */

static void only_optimize_refuses(const char *path, const char *const *words)
{
    char model[512];
    str_copy(model, sizeof(model), path);
    const char *data = data_folder(), *out = in_dir("out");
    HONE("optimize", model, "--data", data, "--out", out, "--preprocess", "scale=1/255");
    hone_assert_refused(words);
    assert_false(fs_exists(out));
}
#define ONLY_OPTIMIZE_REFUSES(path, ...)                                                           \
    only_optimize_refuses(path, (const char *const[]){__VA_ARGS__, NULL})

static void networks_of_another_form_are_refused_with_the_reason(void **state)
{
    (void)state;
    ONLY_OPTIMIZE_REFUSES(model_file("two.onnx", "input a float N,3,8,8\n"
                                                 "input b float N,3,8,8\n"
                                                 "Add add a,b -> y\n"
                                                 "output y\n"),
                          "two.onnx: ", "2 inputs");
    ONLY_OPTIMIZE_REFUSES(model_file("both.onnx", "input x float N,3,8,8\n"
                                                  "Relu relu x -> y\n"
                                                  "Add add x,y -> z\n"
                                                  "output y\n"
                                                  "output z\n"),
                          "both.onnx: ", "2 outputs");
    ONLY_OPTIMIZE_REFUSES(model_file("tokens.onnx", "input x int64 N,8\n"
                                                    "Cast cast x -> y to=1\n"
                                                    "output y\n"),
                          "tokens.onnx: ", "int64");
    ONLY_OPTIMIZE_REFUSES(model_file("video.onnx", "input x float N,3,4,8,8\n"
                                                   "Relu relu x -> y\n"
                                                   "output y\n"),
                          "video.onnx: ", "'x'");
    ONLY_OPTIMIZE_REFUSES(model_file("channels.onnx", "input x float N,5,8,8\n"
                                                      "GlobalAveragePool pool x -> p\n"
                                                      "Flatten flat p -> q\n"
                                                      "output q\n"),
                          "5 channels");
}

static void a_network_that_answers_with_nan_is_refused(void **state)
{
    (void)state;
    ONLY_OPTIMIZE_REFUSES(model_file("log.onnx", "input x float N,3,8,8\n"
                                                 "init w float 4,3,3,3 rand\n"
                                                 "Conv conv1 x,w -> y\n"
                                                 "GlobalAveragePool pool y -> p\n"
                                                 "Flatten flat p -> q\n"
                                                 "Sub nothing q,q -> n\n"
                                                 "Div root n,n -> r\n"
                                                 "output r\n"),
                          "NaN");
}

/* ---- what is no file at all ---- */

static void a_model_that_is_no_file_is_named(void **state)
{
    (void)state;
    const char *data = data_folder();
    HONE("optimize", in_dir("none.onnx"), "--data", data);
    assert_refused("none.onnx", "No such file");
    HONE("optimize", data, "--data", data);
    assert_refused("is a folder");
    assert_int_equal(mkfifo(in_dir("pipe.onnx"), 0600), 0);
    HONE("optimize", in_dir("pipe.onnx"), "--data", data, "--out", in_dir("out"));
    assert_refused("pipe.onnx", "not a");
    HONE_HOW(&small, "inspect", in_dir("pipe.onnx"));
    assert_refused("pipe.onnx", "not a regular file");
    HONE_HOW(&small, "inspect", "/dev/zero");
    assert_refused("/dev/zero", "not a regular file");
}

/* Last: what all of this did to the service. */
static void ingest_stayed_up_and_small(void **state)
{
    (void)state;
    pid_t ingest = hone_service("hone-ingest");
    assert_true(ingest > 0);
    if (!HONE_SANITIZED)
        assert_in_range(hone_peak_mb(ingest), 1, 400);
    HONE("jobs", "--json", "--max", "1000");
    hone_assert_code(0);
    assert_null(strstr(ran.out, "\"running\""));
    assert_null(strstr(ran.out, "\"succeeded\""));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(a_truncated_model_is_named),
        DATA_TEST(random_bytes_are_named),
        DATA_TEST(an_empty_file_is_named),
        DATA_TEST(nesting_without_end_is_refused),
        DATA_TEST(a_tensor_that_claims_three_gigabytes_costs_nothing),
        DATA_TEST(a_file_of_three_gigabytes_is_refused_at_once),
        DATA_TEST(external_data_outside_of_the_folder_is_not_read),
        DATA_TEST(a_cycle_is_named_by_a_node),
        DATA_TEST(an_input_that_nobody_gives_is_named),
        DATA_TEST(shapes_that_do_not_fit_are_named_with_their_node),
        DATA_TEST(weights_that_are_no_numbers_are_named),
        DATA_TEST(dimensions_of_zero_are_named),
        DATA_TEST(an_unknown_operator_is_named_with_its_node),
        DATA_TEST(networks_of_another_form_are_refused_with_the_reason),
        DATA_TEST(a_network_that_answers_with_nan_is_refused),
        DATA_TEST(a_model_that_is_no_file_is_named),
        cmocka_unit_test(ingest_stayed_up_and_small),
    };
    return cmocka_run_group_tests_name("bad models", tests, hone_set_up, hone_tear_down);
}
