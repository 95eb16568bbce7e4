/* Data that cannot be packed ends in one clear sentence, and nothing is left behind. */
#include "tests/unit/data/make.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>

static const struct dataset_pack_options *usual(void)
{
    static struct dataset_pack_options options;
    options = options_for(3, 8, 8);
    return &options;
}

static void a_source_that_is_not_there_is_refused(void **state)
{
    (void)state;
    pack_refuses(in_dir("nothing"), usual(), ERR_NOT_FOUND, "nothing");
}

static void a_folder_without_pictures_is_refused(void **state)
{
    (void)state;
    write_text(in_dir("data/readme.txt"), "hello");
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "no pictures");
}

static void one_class_only_is_refused_by_its_name(void **state)
{
    (void)state;
    for (int i = 0; i < 20; i++)
        write_png(in_dir("data/kitten/%02d.png", i), 8, 8, i);
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "one class, 'kitten'");
    for (int i = 0; i < 20; i++) {
        write_png(in_dir("parts/train/kitten/%02d.png", i), 8, 8, i);
        write_png(in_dir("parts/test/kitten/%02d.png", i), 8, 8, 100 + i);
    }
    pack_refuses(in_dir("parts"), usual(), ERR_INVALID_ARGUMENT, "one class, 'kitten'");
}

static void an_empty_test_part_is_refused(void **state)
{
    (void)state;
    make_two_classes("data");
    assert_int_equal(fs_remove_tree(in_dir("data/test"), NULL), 0);
    in_dir("data/test/cat/x");
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "test part is empty");
}

static void an_empty_train_part_is_refused(void **state)
{
    (void)state;
    make_two_classes("data");
    assert_int_equal(fs_remove_tree(in_dir("data/train"), NULL), 0);
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "train part is empty");
}

static void a_test_part_without_class_folders_is_refused_where_train_has_some(void **state)
{
    (void)state;
    make_two_classes("data");
    assert_int_equal(fs_remove_tree(in_dir("data/test"), NULL), 0);
    write_png(in_dir("data/test/1.png"), 8, 8, 100);
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "test part is empty");
}

static void too_few_pictures_to_split_are_refused(void **state)
{
    (void)state;
    write_png(in_dir("data/a/1.png"), 8, 8, 1);
    write_png(in_dir("data/b/2.png"), 8, 8, 2);
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "part is empty");
}

static void many_unreadable_pictures_are_refused_by_name(void **state)
{
    (void)state;
    make_two_classes("data");
    for (int i = 0; i < 6; i++)
        write_text(in_dir("data/train/cat/broken%d.png", i), "not a picture");
    pack_refuses(
        in_dir("data"), usual(), ERR_INVALID_ARGUMENT,
        "6 of 38 pictures cannot be read (train/cat/broken0.png: neither a PNG nor a JPEG");
}

static void a_few_unreadable_pictures_are_left_out_with_a_warning(void **state)
{
    (void)state;
    struct dataset_report report;
    struct bytes png = make_png(8, 8, 5);
    make_two_classes("data");
    write_text(in_dir("data/train/cat/empty.png"), "");
    write_bytes(in_dir("data/train/dog/cut.png"), png.data, png.n / 2);
    struct dataset *ds = pack_open(in_dir("data"), usual(), &report);
    assert_int_equal(report.unreadable, 2);
    assert_int_equal(report.n[0] + report.n[1] + report.n[2], 32);
    assert_true(has_warning(&report, "2 of 34 pictures could not be read"));
    assert_true(has_warning(&report, "train/cat/empty.png: the file is empty"));
    assert_true(has_warning(&report, "train/dog/cut.png: broken PNG"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void a_huge_picture_is_left_out_with_a_warning(void **state)
{
    (void)state;
    struct dataset_report report;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_limits limits = dataset_default_limits;
    limits.max_picture_pixels = 1000;
    options.limits = &limits;
    make_two_classes("data");
    write_png(in_dir("data/train/cat/huge.png"), 40, 40, 5);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.unreadable, 1);
    assert_true(has_warning(&report, "huge.png: 40 x 40 pixels, above the limit of 1000"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void a_large_file_is_left_out_before_it_is_read(void **state)
{
    (void)state;
    struct dataset_report report;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_limits limits = dataset_default_limits;
    struct archive *a = open_archive(in_dir("x.tar"), MAKE_TAR);
    static uint8_t large[100000];
    char name[64];
    limits.max_picture_bytes = 5000;
    options.limits = &limits;
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "%s/%02d.png", i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    add_file(a, "cat/large.png", large, sizeof(large));
    close_archive(a);
    struct dataset *ds = pack_open(in_dir("x.tar"), &options, &report);
    assert_true(has_warning(&report, "cat/large.png: above the limit of 5000 bytes"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void more_samples_than_the_limit_are_refused(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_limits limits = dataset_default_limits;
    limits.max_samples = 31;
    options.limits = &limits;
    make_two_classes("data");
    pack_refuses(in_dir("data"), &options, ERR_RESOURCE_EXHAUSTED, "limit of 31 samples");
}

static void a_packed_file_above_the_limit_is_refused(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_limits limits = dataset_default_limits;
    limits.max_bytes = 4096 + 31 * 192;
    options.limits = &limits;
    make_two_classes("data");
    pack_refuses(in_dir("data"), &options, ERR_RESOURCE_EXHAUSTED, "above the limit of");
}

static void a_disk_that_fills_up_leaves_nothing_behind(void **state)
{
    (void)state;
    struct rlimit before, small;
    make_two_classes("data");
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = 4096 + 20 * 192;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    struct err err = {0};
    int r = dataset_pack(in_dir("data"), usual(), in_dir("out/packed"), NULL, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_true(r < 0);
    assert_non_null(strstr(err.message, "writing the packed data set"));
    assert_int_equal(rmdir(in_dir("out")), 0);
}

static void an_output_folder_that_is_not_there_is_named(void **state)
{
    (void)state;
    struct err err = {0};
    char out[512];
    make_two_classes("data");
    snprintf(out, sizeof(out), "%s/missing/packed", make_dir);
    assert_int_equal(dataset_pack(in_dir("data"), usual(), out, NULL, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "missing/packed"));
}

static void networks_with_other_channels_do_not_take_pictures(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(4, 8, 8);
    make_two_classes("data");
    pack_refuses(in_dir("data"), &options, ERR_INVALID_ARGUMENT, "takes 4 channels");
}

static void inputs_of_strange_shapes_are_refused(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    make_two_classes("data");
    options.sample_rank = 4;
    pack_refuses(in_dir("data"), &options, ERR_INVALID_ARGUMENT, "4 axes");
    options = options_for(3, -1, 8);
    pack_refuses(in_dir("data"), &options, ERR_INVALID_ARGUMENT, "axis of -1");
    options = options_for(3, 60000, 60000);
    pack_refuses(in_dir("data"), &options, ERR_INVALID_ARGUMENT, "2^30");
    options = options_for(3, 8, 8);
    options.search_fraction = 1;
    pack_refuses(in_dir("data"), &options, ERR_INVALID_ARGUMENT, "search_fraction");
}

static void a_file_that_is_no_archive_is_refused(void **state)
{
    (void)state;
    write_text(in_dir("data.bin"), "this is not an archive, whatever it is called");
    pack_refuses(in_dir("data.bin"), usual(), ERR_INVALID_ARGUMENT, "not a folder, tar, zip");
    write_text(in_dir("empty.tar"), "");
    pack_refuses(in_dir("empty.tar"), usual(), ERR_INVALID_ARGUMENT, "empty.tar");
}

static void an_archive_that_is_cut_off_is_refused(void **state)
{
    (void)state;
    struct archive *a = open_archive(in_dir("x.tar"), MAKE_TAR);
    char name[64];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "%s/%02d.png", i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    close_archive(a);
    assert_int_equal(truncate(in_dir("x.tar"), 9300), 0);
    pack_refuses(in_dir("x.tar"), usual(), ERR_DATA_LOSS, "x.tar");
}

static void settings_with_mistakes_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *words;
    } cases[] = {
        {"{", "dataset.json: byte"},
        {"[]", "not a JSON object"},
        {"{\"preprocess\": 3}", "must be a string"},
        {"{\"preprocess\": \"scale=x\"}", "dataset.json: \"preprocess\": preprocessing, scale"},
        {"{\"labels\": \"no\"}", "true or false"},
        {"{\"search_fraction\": 2}", "between 0 and 1"},
    };
    make_two_classes("data");
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        write_text(in_dir("data/dataset.json"), cases[i].text);
        pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, cases[i].words);
    }
}

static void folders_without_end_are_refused(void **state)
{
    (void)state;
    char path[400] = "data";
    for (int i = 0; i < 40; i++)
        snprintf(path + 4 + i * 5, sizeof(path) - 4 - (size_t)i * 5, "/deep");
    write_png(in_dir("%s/x.png", path), 8, 8, 1);
    pack_refuses(in_dir("data"), usual(), ERR_INVALID_ARGUMENT, "nested");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(a_source_that_is_not_there_is_refused),
        DATA_TEST(a_folder_without_pictures_is_refused),
        DATA_TEST(one_class_only_is_refused_by_its_name),
        DATA_TEST(an_empty_test_part_is_refused),
        DATA_TEST(an_empty_train_part_is_refused),
        DATA_TEST(a_test_part_without_class_folders_is_refused_where_train_has_some),
        DATA_TEST(too_few_pictures_to_split_are_refused),
        DATA_TEST(many_unreadable_pictures_are_refused_by_name),
        DATA_TEST(a_few_unreadable_pictures_are_left_out_with_a_warning),
        DATA_TEST(a_huge_picture_is_left_out_with_a_warning),
        DATA_TEST(a_large_file_is_left_out_before_it_is_read),
        DATA_TEST(more_samples_than_the_limit_are_refused),
        DATA_TEST(a_packed_file_above_the_limit_is_refused),
        DATA_TEST(a_disk_that_fills_up_leaves_nothing_behind),
        DATA_TEST(an_output_folder_that_is_not_there_is_named),
        DATA_TEST(networks_with_other_channels_do_not_take_pictures),
        DATA_TEST(inputs_of_strange_shapes_are_refused),
        DATA_TEST(a_file_that_is_no_archive_is_refused),
        DATA_TEST(an_archive_that_is_cut_off_is_refused),
        DATA_TEST(settings_with_mistakes_are_refused),
        DATA_TEST(folders_without_end_are_refused),
    };
    return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
