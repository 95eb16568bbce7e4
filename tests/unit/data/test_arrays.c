/* Packing arrays: .npz, folders of .npy, one .npy. */
#include "tests/unit/data/make.h"

#include <math.h>

#define TRAIN 20
#define TEST 6

/* Samples of 2x3 numbers: sample i holds 10 i, 10 i + 1, ... */
static float x_train[TRAIN * 6], x_test[TEST * 6];
static int64_t y_train[TRAIN], y_test[TEST];

static void fill_arrays(void)
{
    for (int i = 0; i < TRAIN * 6; i++)
        x_train[i] = (float)(i / 6 * 10 + i % 6);
    for (int i = 0; i < TEST * 6; i++)
        x_test[i] = (float)(1000 + i / 6 * 10 + i % 6);
    for (int i = 0; i < TRAIN; i++)
        y_train[i] = i % 3;
    for (int i = 0; i < TEST; i++)
        y_test[i] = i % 3;
}

static void write_arrays(const char *folder)
{
    fill_arrays();
    write_npy(in_dir("%s/x_train.npy", folder), "<f4", "(20, 2, 3)", x_train, sizeof(x_train));
    write_npy(in_dir("%s/y_train.npy", folder), "<i8", "(20,)", y_train, sizeof(y_train));
    write_npy(in_dir("%s/x_test.npy", folder), "<f4", "(6, 2, 3)", x_test, sizeof(x_test));
    write_npy(in_dir("%s/y_test.npy", folder), "<i8", "(6, 1)", y_test, sizeof(y_test));
}

/* A network that takes 2x3 numbers. */
static const struct dataset_pack_options *two_by_three(void)
{
    static struct dataset_pack_options options;
    options = (struct dataset_pack_options){
        .sample_shape = {2, 3}, .sample_rank = 2, .seed = 7, .threads = 2};
    return &options;
}

static void check_arrays(const struct dataset *ds, const struct dataset_report *report)
{
    int64_t shape[3];
    dataset_sample_shape(ds, shape);
    assert_true(shape[0] == 1 && shape[1] == 2 && shape[2] == 3);
    assert_false(dataset_is_picture(ds));
    assert_int_equal(dataset_count(ds, PART_TEST), TEST);
    assert_int_equal(dataset_count(ds, PART_TRAIN), 18);
    assert_int_equal(dataset_count(ds, PART_SEARCH), 2);
    assert_int_equal(report->n_classes, 3);
    assert_string_equal(dataset_class_name(ds, 2), "2");
    for (int i = 0; i < TEST; i++) {
        assert_int_equal(dataset_labels(ds, PART_TEST)[i], i % 3);
        assert_true(dataset_f32(ds, PART_TEST, i)[5] == (float)(1005 + i * 10));
    }
    for (int i = 0; i < 18; i++) {
        const float *x = dataset_f32(ds, PART_TRAIN, i);
        assert_int_equal((int)x[0] / 10 % 3, dataset_labels(ds, PART_TRAIN)[i]);
    }
}

static void a_folder_of_arrays_is_packed(void **state)
{
    (void)state;
    struct dataset_report report;
    write_arrays("data");
    write_text(in_dir("data/dataset.json"), "{\"preprocess\": \"mean=3\"}");
    struct dataset *ds = pack_open(in_dir("data"), two_by_three(), &report);
    check_arrays(ds, &report);
    assert_string_equal(report.preprocess, "mean=3");
    dataset_report_release(&report);
    dataset_close(ds);
}

static void zip_arrays(const char *path, bool compressed)
{
    static const char *const names[] = {"x_test", "y_test", "x_train", "y_train"};
    struct archive *a = archive_write_new();
    archive_write_set_format_zip(a);
    if (!compressed)
        archive_write_zip_set_compression_store(a);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    write_arrays("arrays");
    for (int i = 0; i < 4; i++) {
        void *data;
        size_t n;
        char name[64];
        assert_int_equal(fs_read(in_dir("arrays/%s.npy", names[i]), 1 << 20, &data, &n, NULL), 0);
        snprintf(name, sizeof(name), "%s.npy", names[i]);
        add_file(a, name, data, n);
        free(data);
    }
    add_file(a, "more.npy", "x", 1);
    close_archive(a);
}

static void an_npz_is_packed_compressed_or_not(void **state)
{
    (void)state;
    for (int compressed = 0; compressed < 2; compressed++) {
        struct dataset_report report;
        zip_arrays(in_dir("data.npz"), compressed);
        struct dataset *ds = pack_open(in_dir("data.npz"), two_by_three(), &report);
        check_arrays(ds, &report);
        assert_true(has_warning(&report, "for example more.npy"));
        dataset_report_release(&report);
        dataset_close(ds);
    }
}

static void one_npy_is_training_data_without_labels(void **state)
{
    (void)state;
    struct dataset_report report;
    fill_arrays();
    write_npy(in_dir("x.npy"), "<f4", "(20, 6)", x_train, sizeof(x_train)); /* flat samples */
    struct dataset *ds = pack_open(in_dir("x.npy"), two_by_three(), &report);
    assert_false(report.labelled);
    assert_int_equal(report.n[PART_TEST], 4);
    assert_int_equal(report.n[PART_SEARCH], 2);
    assert_int_equal(report.n[PART_TRAIN], 14);
    assert_true(has_warning(&report, "there is no test part"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void bytes_with_channels_last_become_planes(void **state)
{
    (void)state;
    struct dataset_report report;
    struct dataset_pack_options options = options_for(3, 4, 5);
    static uint8_t x[10 * 4 * 5 * 3];
    for (size_t i = 0; i < sizeof(x); i++)
        x[i] = (uint8_t)(i * 11 + i / 60);
    write_npy(in_dir("x.npy"), "|u1", "(10, 4, 5, 3)", x, sizeof(x));
    struct dataset *ds = pack_open(in_dir("x.npy"), &options, &report);
    assert_true(dataset_is_picture(ds));
    for (int part = 0; part < PART_COUNT; part++) {
        for (int64_t i = 0; i < dataset_count(ds, (enum part)part); i++) {
            const uint8_t *planes = dataset_u8(ds, (enum part)part, i);
            int found = 0;
            for (int k = 0; k < 10; k++) {
                bool same = true;
                for (int at = 0; at < 60; at++)
                    same &= planes[at % 3 * 20 + at / 3] == x[k * 60 + at];
                found += same;
            }
            assert_int_equal(found, 1);
        }
    }
    dataset_report_release(&report);
    dataset_close(ds);
}

static void arrays_are_packed_alike_by_any_number_of_threads(void **state)
{
    (void)state;
    write_arrays("data");
    char hex[3][65];
    for (int threads = 1; threads <= 3; threads++) {
        struct dataset_pack_options options = *two_by_three();
        struct dataset_report report;
        options.threads = threads;
        dataset_close(pack_open(in_dir("data"), &options, &report));
        dataset_report_release(&report);
        assert_int_equal(dataset_source_hash(in_dir("packed"), hex[threads - 1], NULL), 0);
    }
    assert_string_equal(hex[0], hex[1]);
    assert_string_equal(hex[0], hex[2]);
}

static void labels_can_be_left_out(void **state)
{
    (void)state;
    struct dataset_report report;
    write_arrays("data");
    assert_int_equal(unlink(in_dir("data/y_train.npy")), 0);
    assert_int_equal(unlink(in_dir("data/y_test.npy")), 0);
    struct dataset *ds = pack_open(in_dir("data"), two_by_three(), &report);
    assert_false(report.labelled);
    assert_null(dataset_labels(ds, PART_TEST));
    dataset_report_release(&report);
    dataset_close(ds);
}

/* ---- refusals ---- */

static void refuse(enum err_code code, const char *words)
{
    pack_refuses(in_dir("data"), two_by_three(), code, words);
}

static void arrays_of_another_shape_are_refused(void **state)
{
    (void)state;
    write_arrays("data");
    write_npy(in_dir("data/x_test.npy"), "<f4", "(6, 3, 2)", x_test, sizeof(x_test));
    refuse(ERR_INVALID_ARGUMENT,
           "x_test has the shape [6,3,2], but the network takes samples of [1,2,3]");
    write_npy(in_dir("data/x_test.npy"), "<f4", "()", x_test, 4);
    refuse(ERR_INVALID_ARGUMENT, "holds no samples");
    write_npy(in_dir("data/x_test.npy"), "<f4", "(0, 2, 3)", x_test, 0);
    refuse(ERR_INVALID_ARGUMENT, "holds no samples");
}

static void labels_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    write_arrays("data");
    write_npy(in_dir("data/y_test.npy"), "<i8", "(5,)", y_test, 40);
    refuse(ERR_INVALID_ARGUMENT, "y_test has 5 labels for 6 samples");
    write_npy(in_dir("data/y_test.npy"), "<i8", "(2, 3)", y_test, 48);
    refuse(ERR_INVALID_ARGUMENT, "one number a sample");
    write_npy(in_dir("data/y_test.npy"), "<f4", "(6,)", x_test, 24);
    refuse(ERR_INVALID_ARGUMENT, "labels must be integers");
    y_test[4] = -1;
    write_npy(in_dir("data/y_test.npy"), "<i8", "(6,)", y_test, 48);
    refuse(ERR_INVALID_ARGUMENT, "y_test[4] is -1");
    y_test[4] = 1LL << 40;
    write_npy(in_dir("data/y_test.npy"), "<i8", "(6,)", y_test, 48);
    refuse(ERR_INVALID_ARGUMENT, "labels are 0 to 999999");
    assert_int_equal(unlink(in_dir("data/y_test.npy")), 0);
    refuse(ERR_INVALID_ARGUMENT, "only one of y_train and y_test");
}

static void one_label_only_is_refused(void **state)
{
    (void)state;
    write_arrays("data");
    memset(y_train, 0, sizeof(y_train));
    memset(y_test, 0, sizeof(y_test));
    write_npy(in_dir("data/y_train.npy"), "<i8", "(20,)", y_train, sizeof(y_train));
    write_npy(in_dir("data/y_test.npy"), "<i8", "(6,)", y_test, sizeof(y_test));
    refuse(ERR_INVALID_ARGUMENT, "one class, '0'");
}

static void numbers_that_are_none_are_refused_by_place(void **state)
{
    (void)state;
    write_arrays("data");
    x_train[17 * 6 + 2] = NAN;
    write_npy(in_dir("data/x_train.npy"), "<f4", "(20, 2, 3)", x_train, sizeof(x_train));
    refuse(ERR_INVALID_ARGUMENT, "x_train[17] holds NaN");
    fill_arrays();
    x_train[3 * 6] = INFINITY;
    write_npy(in_dir("data/x_train.npy"), "<f4", "(20, 2, 3)", x_train, sizeof(x_train));
    refuse(ERR_INVALID_ARGUMENT, "x_train[3] holds NaN or infinity");
}

static void pickles_are_refused(void **state)
{
    (void)state;
    write_arrays("data");
    write_npy(in_dir("data/x_train.npy"), "|O", "(20,)", "\x80\x04.", 3);
    refuse(ERR_INVALID_ARGUMENT, "x_train: it holds Python objects");
}

static void missing_arrays_are_named(void **state)
{
    (void)state;
    struct archive *a = open_archive(in_dir("data.npz"), MAKE_ZIP);
    add_file(a, "images.npy", "x", 1);
    close_archive(a);
    pack_refuses(in_dir("data.npz"), two_by_three(), ERR_INVALID_ARGUMENT,
                 "no array x_train in it, but images.npy");
    write_arrays("data");
    assert_int_equal(unlink(in_dir("data/x_test.npy")), 0);
    refuse(ERR_INVALID_ARGUMENT, "y_test is there, but x_test is not");
}

static void a_broken_npz_is_refused(void **state)
{
    (void)state;
    zip_arrays(in_dir("data.npz"), true);
    assert_int_equal(truncate(in_dir("data.npz"), 400), 0);
    struct err err = {0};
    assert_true(dataset_pack(in_dir("data.npz"), two_by_three(), in_dir("packed"), NULL, &err) < 0);
    assert_non_null(strstr(err.message, "data.npz"));
    write_text(in_dir("text.npz"), "this is text");
    pack_refuses(in_dir("text.npz"), two_by_three(), ERR_INVALID_ARGUMENT, "text.npz");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(a_folder_of_arrays_is_packed),
        DATA_TEST(an_npz_is_packed_compressed_or_not),
        DATA_TEST(one_npy_is_training_data_without_labels),
        DATA_TEST(bytes_with_channels_last_become_planes),
        DATA_TEST(arrays_are_packed_alike_by_any_number_of_threads),
        DATA_TEST(labels_can_be_left_out),
        DATA_TEST(arrays_of_another_shape_are_refused),
        DATA_TEST(labels_that_do_not_fit_are_refused),
        DATA_TEST(one_label_only_is_refused),
        DATA_TEST(numbers_that_are_none_are_refused_by_place),
        DATA_TEST(pickles_are_refused),
        DATA_TEST(missing_arrays_are_named),
        DATA_TEST(a_broken_npz_is_refused),
    };
    return cmocka_run_group_tests_name("arrays", tests, NULL, NULL);
}
