/* Data that are damaged, hostile or do not fit, through the whole command line: each ends the job
 * with one sentence that names the place. */
#include "tests/support/model_file.h"

#include <math.h>
#include <sys/stat.h>

#include "tests/support/hone.h"

#define GIVEN "scale=1/255"

static const char *net(void)
{
    return model_file("net.onnx", SMALL_NET);
}

/* `hone optimize` with the network and this data ends with these words, and leaves nothing. */
static void refuses(const char *data, const char *preprocess, const char *const *words)
{
    char path[512];
    str_copy(path, sizeof(path), data);
    const char *out = in_dir("out");
    HONE("optimize", net(), "--data", path, "--out", out, "--preprocess", preprocess);
    hone_assert_refused(words);
    assert_false(fs_exists(out));
}
#define REFUSES(data, ...) refuses(data, GIVEN, (const char *const[]){__VA_ARGS__, NULL})

/* ---- folders ---- */

static void one_class_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        write_png(in_dir("one/%s/only/%02d.png", i < 15 ? "train" : "test", i), 8, 8, i);
    REFUSES(in_dir("one"), "/one: ", "'only'", "at least two");
}

static void an_empty_folder_is_refused(void **state)
{
    (void)state;
    assert_int_equal(fs_mkdirs(in_dir("empty/x"), NULL), 0);
    REFUSES(in_dir("empty"), "/empty: ", "no pictures");
}

static void an_empty_test_part_is_refused(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        write_png(in_dir("half/train/%s/%02d.png", i % 2 ? "dog" : "cat", i), 8, 8, i);
    assert_int_equal(fs_mkdirs(in_dir("half/test/cat"), NULL), 0);
    REFUSES(in_dir("half"), "/half: ", "the test part is empty");
}

static void more_classes_than_outputs_are_refused_with_both_numbers(void **state)
{
    (void)state;
    for (int i = 0; i < 60; i++)
        write_png(in_dir("five/%s/class%d/%02d.png", i < 40 ? "train" : "test", i % 5, i), 8, 8, i);
    REFUSES(in_dir("five"), "/five: ", "5 classes", "4 outputs");
}

static void data_that_are_not_there_are_named(void **state)
{
    (void)state;
    HONE("optimize", net(), "--data", in_dir("nowhere"));
    assert_refused("--data", "nowhere", "No such file");
    HONE("optimize", net(), "--data", "/dev/zero", "--out", in_dir("out"));
    assert_refused("/dev/zero", "not a folder or file");
    HONE("eval", net(), "--data", "/dev/zero");
    assert_refused("/dev/zero");
}

/* Names that are a pipe: opening one would wait for ever. */
static void pipes_in_a_folder_do_not_hang(void **state)
{
    (void)state;
    make_two_classes("pipes");
    for (int i = 0; i < 9; i++)
        assert_int_equal(mkfifo(in_dir("pipes/train/cat/pipe%d.png", i), 0600), 0);
    assert_int_equal(mkfifo(in_dir("pipes/train/cat/notes.txt"), 0600), 0);
    HONE("eval", net(), "--data", in_dir("pipes"), "--preprocess", GIVEN, "--reference",
         in_dir("net.onnx"));
    hone_assert_code(0);
}

static void links_in_a_circle_do_not_hang(void **state)
{
    (void)state;
    make_two_classes("circle");
    assert_int_equal(symlink("..", in_dir("circle/train/cat/up")), 0);
    assert_int_equal(symlink("self", in_dir("circle/train/cat/self")), 0);
    HONE("eval", net(), "--data", in_dir("circle"), "--preprocess", GIVEN, "--limit", "4",
         "--reference", in_dir("net.onnx"));
    hone_assert_code(0);
}

/* ---- pictures ---- */

static void a_few_unreadable_pictures_are_left_out_and_named(void **state)
{
    (void)state;
    make_two_classes("few");
    write_text(in_dir("few/train/cat/broken.png"), "this is no picture");
    HONE("eval", net(), "--data", in_dir("few"), "--preprocess", GIVEN, "--reference",
         in_dir("net.onnx"));
    hone_assert_code(0);
    assert_says("1 of 33 pictures could not be read", "train/cat/broken.png");
}

static void many_unreadable_pictures_are_refused(void **state)
{
    (void)state;
    make_two_classes("many");
    for (int i = 0; i < 8; i++)
        write_text(in_dir("many/train/cat/broken%d.png", i), "\x89PNG\r\n\x1a\nand nothing else");
    REFUSES(in_dir("many"), "/many: ", "8 of 40 pictures cannot be read", "train/cat/broken0.png");
}

/* 60000 x 60000 in the header: 10 GB if it were believed. */
static void huge_pictures_are_refused_by_their_header(void **state)
{
    (void)state;
    make_two_classes("huge");
    for (int i = 0; i < 8; i++) {
        struct bytes png = make_png(8, 8, i);
        const uint8_t size[] = {0, 0, 0xea, 0x60, 0, 0, 0xea, 0x60};
        memcpy(png.data + 16, size, sizeof(size));
        /* the checksum of the header, by hand: CRC-32 */
        uint32_t crc = 0xffffffff;
        for (size_t k = 12; k < 29; k++) {
            crc ^= png.data[k];
            for (int bit = 0; bit < 8; bit++)
                crc = crc & 1 ? crc >> 1 ^ 0xedb88320 : crc >> 1;
        }
        for (int k = 0; k < 4; k++)
            png.data[29 + k] = (uint8_t)(~crc >> (24 - 8 * k));
        write_bytes(in_dir("huge/train/cat/huge%d.png", i), png.data, png.n);
    }
    REFUSES(in_dir("huge"), "/huge: ", "8 of 40 pictures", "60000");
}

/* ---- archives ---- */

static void make_tar(const char *path, int kind)
{
    struct archive *a = open_archive(path, kind);
    for (int i = 0; i < 60; i++) {
        char name[64];
        snprintf(name, sizeof(name), "%s/%s/%02d.png", i < 40 ? "train" : "test",
                 i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    close_archive(a);
}

static void an_archive_that_is_cut_is_refused_once(void **state)
{
    (void)state;
    static const int kinds[] = {MAKE_TAR, MAKE_TAR_GZ};
    for (int i = 0; i < 2; i++) {
        struct stat st;
        const char *path = in_dir("cut%d.tar", i);
        make_tar(path, kinds[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(truncate(path, st.st_size * 6 / 10 + 100), 0);
        REFUSES(path, i ? "cut1.tar: " : "cut0.tar: ",
                i ? "truncated gzip" : "broken archive: Truncated");
        assert_null(strstr(ran.out, "again")); /* it will not get better */
    }
}

static void a_file_of_anything_else_is_refused(void **state)
{
    (void)state;
    write_text(in_dir("letter.txt"), "Dear reader, these are no pictures.\n");
    REFUSES(in_dir("letter.txt"), "letter.txt: ", "not a folder, tar, zip");
}

/* 200 MB of zeros in 200 KB, as one picture. */
static void a_picture_that_unpacks_without_end_is_cut_off(void **state)
{
    (void)state;
    struct archive *a = open_archive(in_dir("bomb.tar.gz"), MAKE_TAR_GZ);
    for (int i = 0; i < 60; i++) {
        char name[64];
        snprintf(name, sizeof(name), "%s/%s/%02d.png", i < 40 ? "train" : "test",
                 i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    enum { BOMB = 200 << 20 };
    _cleanup_(freep) void *zeros = calloc(1, BOMB);
    assert_non_null(zeros);
    add_file(a, "train/cat/bomb.png", zeros, BOMB);
    close_archive(a);
    HONE("eval", net(), "--data", in_dir("bomb.tar.gz"), "--preprocess", GIVEN, "--reference",
         in_dir("net.onnx"));
    hone_assert_code(0);
    assert_says("1 of 61 pictures could not be read", "train/cat/bomb.png", "above the limit");
}

/* ---- arrays ---- */

static void write_arrays(const char *top, const char *x_shape, int n_x, const char *y_shape,
                         const int64_t *y, int n_y, float odd)
{
    _cleanup_(freep) float *x = calloc((size_t)n_x, sizeof(float));
    assert_non_null(x);
    for (int i = 0; i < n_x; i++)
        x[i] = (float)(i % 17);
    x[n_x / 2] = odd;
    for (int part = 0; part < 2; part++) {
        const char *name = part ? "test" : "train";
        write_npy(in_dir("%s/x_%s.npy", top, name), "<f4", x_shape, x, (size_t)n_x * 4);
        write_npy(in_dir("%s/y_%s.npy", top, name), "<i8", y_shape, y, (size_t)n_y * 8);
    }
}

static void arrays_that_do_not_fit_are_named(void **state)
{
    (void)state;
    static const int64_t y[] = {0, 1, 2, 3, 0, 1, 2, 3, 0, 1},
                         bad[] = {0, 1, 2, -3, 0, 1, 2, 3, 0, 1};
    write_arrays("shape", "(10, 3, 8, 9)", 10 * 3 * 8 * 9, "(10,)", y, 10, 0);
    REFUSES(in_dir("shape"), "/shape", "x_train", "[10,3,8,9]");
    write_arrays("nan", "(10, 3, 8, 8)", 10 * 3 * 8 * 8, "(10,)", y, 10, NAN);
    REFUSES(in_dir("nan"), "/nan", "x_train[5]", "NaN");
    write_arrays("labels", "(10, 3, 8, 8)", 10 * 3 * 8 * 8, "(7,)", y, 7, 0);
    REFUSES(in_dir("labels"), "/labels", "y_train", "7");
    write_arrays("below", "(10, 3, 8, 8)", 10 * 3 * 8 * 8, "(10,)", bad, 10, 0);
    REFUSES(in_dir("below"), "/below", "y_train", "-3");
    write_arrays("claims", "(100000000, 3, 8, 8)", 10 * 3 * 8 * 8, "(10,)", y, 10, 0);
    REFUSES(in_dir("claims"), "/claims", "x_train");
    assert_true(ran.seconds < 20);
}

static void an_npz_that_is_damaged_is_named(void **state)
{
    (void)state;
    struct stat st;
    float x[10 * 3 * 8 * 8] = {0};
    struct archive *a = open_archive(in_dir("cut.npz"), MAKE_ZIP);
    struct bytes npy = make_npy("<f4", "(10, 3, 8, 8)", "False", x, sizeof(x));
    add_file(a, "x_train.npy", npy.data, npy.n);
    add_file(a, "x_test.npy", npy.data, npy.n);
    close_archive(a);
    assert_int_equal(stat(in_dir("cut.npz"), &st), 0);
    assert_int_equal(truncate(in_dir("cut.npz"), st.st_size / 3), 0);
    REFUSES(in_dir("cut.npz"), "cut.npz");
}

/* ---- preprocessing ---- */

static void a_preprocessing_that_is_none_is_refused_before_anything_starts(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "sclae=1",     "scale=",           "mean=1,,2", "std=0",
        "order=green", "scale=1e999",      "std=nan",   "mean=a,b,c",
        "=",           "\x01\xff\xfe%s%n", "scale=1/0"};
    make_two_classes("data");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        HONE("optimize", net(), "--data", in_dir("data"), "--out", in_dir("out"), "--preprocess",
             texts[i]);
        hone_assert_code(1);
        assert_refused("--preprocess: ");
        assert_true(ran.seconds < 5);
        assert_false(fs_exists(in_dir("out")));
    }
}

static void fewer_means_than_channels_are_refused(void **state)
{
    (void)state;
    make_two_classes("data");
    refuses(in_dir("data"), "mean=1,2",
            (const char *const[]){"mean or std has 2 numbers", "3 channels", NULL});
}

static void a_dataset_json_that_is_damaged_is_named(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{", "[]", "{\"preprocess\": 3}", "{\"search_fraction\": 7}", "{\"preprocess\": \"std=0\"}",
        ""};
    make_two_classes("data");
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_text(in_dir("data/dataset.json"), texts[i]);
        HONE("optimize", net(), "--data", in_dir("data"), "--out", in_dir("out"));
        assert_refused("dataset.json");
        assert_false(fs_exists(in_dir("out")));
    }
}

static void a_preprocessing_that_cannot_be_found_is_asked_for(void **state)
{
    (void)state;
    make_two_classes("data");
    HONE("optimize", net(), "--data", in_dir("data"), "--out", in_dir("out"));
    assert_refused("--preprocess");
}

/* Last. */
static void ingest_stayed_up_and_small(void **state)
{
    (void)state;
    pid_t ingest = hone_service("hone-ingest");
    assert_true(ingest > 0);
    if (!HONE_SANITIZED)
        assert_in_range(hone_peak_mb(ingest), 1, 600);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(one_class_is_refused),
        DATA_TEST(an_empty_folder_is_refused),
        DATA_TEST(an_empty_test_part_is_refused),
        DATA_TEST(more_classes_than_outputs_are_refused_with_both_numbers),
        DATA_TEST(data_that_are_not_there_are_named),
        DATA_TEST(pipes_in_a_folder_do_not_hang),
        DATA_TEST(links_in_a_circle_do_not_hang),
        DATA_TEST(a_few_unreadable_pictures_are_left_out_and_named),
        DATA_TEST(many_unreadable_pictures_are_refused),
        DATA_TEST(huge_pictures_are_refused_by_their_header),
        DATA_TEST(an_archive_that_is_cut_is_refused_once),
        DATA_TEST(a_file_of_anything_else_is_refused),
        DATA_TEST(a_picture_that_unpacks_without_end_is_cut_off),
        DATA_TEST(arrays_that_do_not_fit_are_named),
        DATA_TEST(an_npz_that_is_damaged_is_named),
        DATA_TEST(a_preprocessing_that_is_none_is_refused_before_anything_starts),
        DATA_TEST(fewer_means_than_channels_are_refused),
        DATA_TEST(a_dataset_json_that_is_damaged_is_named),
        DATA_TEST(a_preprocessing_that_cannot_be_found_is_asked_for),
        cmocka_unit_test(ingest_stayed_up_and_small),
    };
    return cmocka_run_group_tests_name("bad data", tests, hone_set_up, hone_tear_down);
}
