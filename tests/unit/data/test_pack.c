/* Packing pictures: what folders and archives mean. */
#include "tests/unit/data/make.h"

/* The label of the sample whose pixels make_png gives for this number; -1: not in the part. */
static int label_of(const struct dataset *ds, enum part part, int number)
{
    uint8_t rgb[8 * 8 * 3];
    fill_rgb(rgb, 8, 8, number);
    for (int64_t i = 0; i < dataset_count(ds, part); i++) {
        const uint8_t *planes = dataset_u8(ds, part, i);
        bool same = true;
        for (int k = 0; k < 192 && same; k++)
            same = planes[k % 3 * 64 + k / 3] == rgb[k];
        if (same)
            return dataset_labels(ds, part) ? dataset_labels(ds, part)[i] : 0;
    }
    return -1;
}

static int32_t sum_of_labels(const struct dataset *ds, enum part part)
{
    int32_t sum = 0;
    for (int64_t i = 0; i < dataset_count(ds, part); i++)
        sum += dataset_labels(ds, part)[i];
    return sum;
}

static void a_folder_with_train_and_test_is_packed(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    options.search_fraction = 0.25;
    struct dataset_report report;
    make_two_classes("data");
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[PART_TRAIN], 18);
    assert_int_equal(report.n[PART_SEARCH], 6);
    assert_int_equal(report.n[PART_TEST], 8);
    assert_int_equal(report.n_classes, 2);
    assert_string_equal(report.classes[0], "cat");
    assert_true(report.labelled);
    assert_int_equal(report.n_warnings, 0);
    assert_int_equal(dataset_count(ds, PART_SEARCH), 6);
    assert_int_equal(dataset_classes(ds), 2);
    assert_string_equal(dataset_class_name(ds, 1), "dog");
    assert_true(dataset_is_picture(ds));
    int64_t shape[3];
    dataset_sample_shape(ds, shape);
    assert_true(shape[0] == 3 && shape[1] == 8 && shape[2] == 8);
    for (int i = 0; i < 8; i++)
        assert_int_equal(label_of(ds, PART_TEST, 100 + i), i % 2);
    for (int i = 0; i < 24; i++) {
        int train = label_of(ds, PART_TRAIN, i), search = label_of(ds, PART_SEARCH, i);
        assert_int_equal(train < 0 ? search : train, i % 2);
        assert_true((train < 0) != (search < 0));
    }
    dataset_join_search(ds);
    assert_int_equal(dataset_count(ds, PART_TRAIN), 24);
    assert_int_equal(dataset_count(ds, PART_SEARCH), 0);
    assert_int_equal(dataset_count(ds, PART_TEST), 8);
    for (int i = 0; i < 24; i++)
        assert_int_equal(label_of(ds, PART_TRAIN, i), i % 2);
    dataset_report_release(&report);
    dataset_close(ds);
}

static void the_search_part_has_as_much_of_each_class(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    options.search_fraction = 0.5;
    struct dataset_report report;
    make_two_classes("data");
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[PART_SEARCH], 12);
    assert_int_equal(sum_of_labels(ds, PART_SEARCH), 6);
    assert_int_equal(sum_of_labels(ds, PART_TRAIN), 6);
    dataset_report_release(&report);
    dataset_close(ds);
}

static void search_max_bounds_the_search_part(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    options.search_fraction = 0.5;
    options.search_max = 4;
    struct dataset_report report;
    make_two_classes("data");
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[PART_SEARCH], 4);
    assert_int_equal(report.n[PART_TRAIN], 20);
    dataset_report_release(&report);
    dataset_close(ds);
}

/* SHA-256 would do; the bytes show where they differ. */
static void assert_same_file(const char *a, const char *b)
{
    struct fs_map x, y;
    assert_int_equal(fs_map(a, &x, NULL), 0);
    assert_int_equal(fs_map(b, &y, NULL), 0);
    assert_int_equal(x.bytes, y.bytes);
    assert_memory_equal(x.data, y.data, x.bytes);
    fs_unmap(&x);
    fs_unmap(&y);
}

static void pack_to(const char *source, int threads, uint64_t seed, const char *out)
{
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    struct err err = {0};
    options.threads = threads;
    options.seed = seed;
    if (dataset_pack(source, &options, out, &report, &err) < 0)
        fail_msg("%s", err.message);
    dataset_report_release(&report);
}

static void the_bytes_do_not_depend_on_threads(void **state)
{
    (void)state;
    make_two_classes("data");
    pack_to(in_dir("data"), 1, 3, in_dir("a"));
    for (int threads = 2; threads < 9; threads++) {
        pack_to(in_dir("data"), threads, 3, in_dir("b"));
        assert_same_file(in_dir("a"), in_dir("b"));
    }
}

static void another_seed_splits_otherwise(void **state)
{
    (void)state;
    make_two_classes("data");
    pack_to(in_dir("data"), 1, 3, in_dir("a"));
    pack_to(in_dir("data"), 1, 4, in_dir("b"));
    struct fs_map x, y;
    assert_int_equal(fs_map(in_dir("a"), &x, NULL), 0);
    assert_int_equal(fs_map(in_dir("b"), &y, NULL), 0);
    assert_int_equal(x.bytes, y.bytes);
    assert_memory_not_equal(x.data, y.data, x.bytes);
    fs_unmap(&x);
    fs_unmap(&y);
}

/* In an order of its own, below `top`. */
static void make_two_class_archive(const char *path, int kind, const char *top)
{
    struct archive *a = open_archive(path, kind);
    char name[256];
    for (int k = 0; k < 24; k++) {
        int i = k * 7 % 24;
        snprintf(name, sizeof(name), "%strain/%s/%02d.png", top, i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    for (int i = 7; i >= 0; i--) {
        snprintf(name, sizeof(name), "%stest/%s/%02d.png", top, i % 2 ? "dog" : "cat", i);
        add_png(a, name, 100 + i);
    }
    close_archive(a);
}

static void archives_and_folders_give_the_same_bytes(void **state)
{
    (void)state;
    make_two_classes("data");
    pack_to(in_dir("data"), 2, 3, in_dir("a"));
    const struct {
        const char *name, *top;
        int kind;
    } cases[] = {
        {"x.tar", "", MAKE_TAR},   {"x.tar.gz", "", MAKE_TAR_GZ},  {"x.zip", "", MAKE_ZIP},
        {"y.tar", "./", MAKE_TAR}, {"z.tar", "mydata/", MAKE_TAR}, {"w.tar", "./a//b/", MAKE_TAR},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        make_two_class_archive(in_dir("%s", cases[i].name), cases[i].kind, cases[i].top);
        pack_to(in_dir("%s", cases[i].name), 2, 3, in_dir("b"));
        assert_same_file(in_dir("a"), in_dir("b"));
    }
}

static void without_parts_a_test_part_is_split_off(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    for (int i = 0; i < 40; i++)
        write_png(in_dir("data/%s/%02d.png", i % 4 ? "dog" : "cat", i), 8, 8, i);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[PART_TEST], 8);
    assert_int_equal(report.n[PART_SEARCH], 3);
    assert_int_equal(report.n[PART_TRAIN], 29);
    assert_int_equal(sum_of_labels(ds, PART_TEST), 6); /* as 3 to 1 */
    assert_true(has_warning(&report, "there is no test part: 8 samples"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void pictures_without_class_folders_have_no_labels(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    for (int i = 0; i < 20; i++)
        write_png(in_dir("data/%02d.png", i), 8, 8, i);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_false(report.labelled);
    assert_int_equal(report.n_classes, 0);
    assert_int_equal(dataset_classes(ds), 0);
    assert_null(dataset_labels(ds, PART_TRAIN));
    assert_int_equal(report.n[0] + report.n[1] + report.n[2], 20);
    dataset_report_release(&report);
    dataset_close(ds);
}

static void a_validation_part_serves_the_search(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    make_two_classes("data");
    for (int i = 0; i < 4; i++)
        write_png(in_dir("data/val/%s/%02d.png", i % 2 ? "dog" : "cat", i), 8, 8, 200 + i);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[PART_TRAIN], 24);
    assert_int_equal(report.n[PART_SEARCH], 4);
    assert_int_equal(label_of(ds, PART_SEARCH, 203), 1);
    assert_true(has_warning(&report, "validation part"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void classes_are_sorted_by_name_not_by_path(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    static const char *const names[] = {"b", "a b", "a", "Z", "10", "9", "a.b"};
    for (int i = 0; i < 70; i++)
        write_png(in_dir("data/train/%s/%02d.png", names[i % 7], i), 8, 8, i);
    for (int i = 0; i < 7; i++)
        write_png(in_dir("data/test/%s/%02d.png", names[i], i), 8, 8, 100 + i);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    static const char *const sorted[] = {"10", "9", "Z", "a", "a b", "a.b", "b"};
    assert_int_equal(report.n_classes, 7);
    for (int i = 0; i < 7; i++) {
        assert_string_equal(report.classes[i], sorted[i]);
        assert_string_equal(dataset_class_name(ds, label_of(ds, PART_TEST, 100 + i)), names[i]);
    }
    dataset_report_release(&report);
    dataset_close(ds);
}

static void pictures_of_other_sizes_are_resized_and_counted(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    make_two_classes("data");
    write_png(in_dir("data/train/cat/big.png"), 32, 20, 300);
    write_png(in_dir("data/train/dog/small.png"), 3, 5, 301);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.resized, 2);
    dataset_report_release(&report);
    dataset_close(ds);
}

static void equal_pictures_are_reported(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    make_two_classes("data");
    write_png(in_dir("data/train/cat/again.png"), 8, 8, 0);        /* twice in train */
    write_png(in_dir("data/test/dog/known.png"), 8, 8, 1);         /* of train in test */
    write_png(in_dir("data/test/cat/contradiction.png"), 8, 8, 3); /* a dog in train */
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.duplicates, 2);
    assert_int_equal(report.duplicates_within, 1);
    assert_int_equal(report.conflicting, 2);
    assert_true(has_warning(&report, "2 test samples are also in the training part"));
    assert_true(has_warning(&report, "another label"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void twins_stay_on_one_side_of_the_split(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    options.search_fraction = 0.4;
    for (int i = 0; i < 40; i++) /* each picture twice */
        write_png(in_dir("data/%s/%02d.png", i % 4 < 2 ? "dog" : "cat", i), 8, 8, i / 2);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[PART_TEST], 8);
    assert_int_equal(report.n[PART_SEARCH], 12);
    for (int i = 0; i < 20; i++) {
        int parts = 0;
        for (int part = 0; part < PART_COUNT; part++)
            parts += label_of(ds, (enum part)part, i) >= 0;
        assert_int_equal(parts, 1);
    }
    dataset_report_release(&report);
    dataset_close(ds);
}

static void labels_can_be_switched_off(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    make_two_classes("data");
    write_text(in_dir("data/dataset.json"), "{\"labels\": false, \"search_fraction\": 0.5,"
                                            " \"preprocess\": \"scale=1/255\", \"note\": 1}");
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_false(report.labelled);
    assert_int_equal(dataset_classes(ds), 0);
    assert_int_equal(report.n[PART_SEARCH], 12);
    assert_string_equal(report.preprocess, "scale=1/255");
    assert_true(has_warning(&report, "\"note\" is not known"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void settings_come_from_beside_an_archive_or_from_inside(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    struct archive *a = open_archive(in_dir("x.tar"), MAKE_TAR);
    static const char inside[] = "{\"preprocess\": \"scale=2\"}";
    char name[64];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "top/%s/%02d.png", i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    add_file(a, "top/dataset.json", inside, sizeof(inside) - 1);
    close_archive(a);
    dataset_close(pack_open(in_dir("x.tar"), &options, &report));
    assert_string_equal(report.preprocess, "scale=2");
    dataset_report_release(&report);
    write_text(in_dir("x.tar.dataset.json"), "{\"preprocess\": \"scale=3\"}");
    dataset_close(pack_open(in_dir("x.tar"), &options, &report));
    assert_string_equal(report.preprocess, "scale=3");
    dataset_report_release(&report);
}

static void other_and_hidden_files_are_skipped(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    make_two_classes("data");
    write_text(in_dir("data/README.txt"), "hello");
    write_text(in_dir("data/train/cat/old.gif"), "GIF89a");
    write_text(in_dir("data/train/cat/.hidden.png"), "no picture");
    write_text(in_dir("data/.git/train/cat/x.png"), "no picture");
    write_png(in_dir("data/extra/cat/x.png"), 8, 8, 400);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[0] + report.n[1] + report.n[2], 32);
    assert_int_equal(report.unreadable, 0);
    assert_true(has_warning(&report, "2 files that are not .png"));
    assert_true(has_warning(&report, "1 pictures outside train/ and test/"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void links_in_folders_are_followed_but_not_in_circles(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    make_two_classes("real");
    in_dir("data/x"); /* makes data */
    assert_int_equal(symlink("../real/train", in_dir("data/train")), 0);
    assert_int_equal(symlink("../real/test", in_dir("data/test")), 0);
    assert_int_equal(symlink("..", in_dir("real/train/cat/up")), 0);
    assert_int_equal(symlink("nowhere", in_dir("real/train/cat/lost.png")), 0);
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    assert_int_equal(report.n[0] + report.n[1] + report.n[2], 32);
    dataset_report_release(&report);
    dataset_close(ds);
}

static void unsafe_names_in_archives_are_ignored(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    struct archive *a = open_archive(in_dir("x.tar"), MAKE_TAR);
    char name[64];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "%s/%02d.png", i % 2 ? "dog" : "cat", i);
        add_png(a, name, i);
    }
    add_png(a, "../outside/x.png", 50);
    add_png(a, "cat/../../x.png", 51);
    add_png(a, "/etc/x.png", 52);
    add_entry(a, "cat/link.png", AE_IFLNK, "/etc/passwd", NULL, 0);
    add_entry(a, "cat/fifo.png", AE_IFIFO, NULL, NULL, 0);
    close_archive(a);
    struct dataset *ds = pack_open(in_dir("x.tar"), &options, &report);
    assert_int_equal(report.n[0] + report.n[1] + report.n[2], 20);
    assert_int_equal(report.n_classes, 2);
    assert_true(has_warning(&report, "5 entries with an unsafe name"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void the_last_entry_of_a_name_counts(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    struct archive *a = open_archive(in_dir("x.tar"), MAKE_TAR);
    char name[64];
    for (int i = 0; i < 20; i++) {
        snprintf(name, sizeof(name), "test/%s/%02d.png", i % 2 ? "dog" : "cat", i % 10);
        add_png(a, name, i);
        snprintf(name, sizeof(name), "train/%s/%02d.png", i % 2 ? "dog" : "cat", i);
        add_png(a, name, 100 + i);
    }
    close_archive(a);
    struct dataset *ds = pack_open(in_dir("x.tar"), &options, &report);
    assert_int_equal(report.n[PART_TEST], 10);
    assert_int_equal(label_of(ds, PART_TEST, 3), -1);
    assert_int_equal(label_of(ds, PART_TEST, 13), 1);
    assert_true(has_warning(&report, "10 names are in the archive more than once"));
    dataset_report_release(&report);
    dataset_close(ds);
}

struct steps {
    int64_t calls, done, total, stop_at;
};

static int count_steps(void *ctx, int64_t done, int64_t total, struct err *err)
{
    struct steps *s = ctx;
    s->calls++;
    s->done = done;
    s->total = total;
    return s->calls == s->stop_at ? err_set(err, ERR_CANCELLED, "enough") : 0;
}

static void progress_reaches_the_end_and_can_stop(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report;
    struct steps steps = {0};
    make_two_classes("data");
    options.progress = count_steps;
    options.progress_ctx = &steps;
    dataset_close(pack_open(in_dir("data"), &options, &report));
    assert_int_equal(steps.done, 32);
    assert_int_equal(steps.total, 32);
    dataset_report_release(&report);
    steps = (struct steps){.stop_at = 1};
    pack_refuses(in_dir("data"), &options, ERR_CANCELLED, "enough");
}

static void the_hash_of_a_source_sees_names_and_contents(void **state)
{
    (void)state;
    char a[65], b[65], c[65], d[65], e[65];
    write_text(in_dir("data/train/cat/x"), "1");
    write_text(in_dir("data/train/cat/y"), "2");
    assert_int_equal(dataset_source_hash(in_dir("data"), a, NULL), 0);
    assert_int_equal(dataset_source_hash(in_dir("data"), b, NULL), 0);
    assert_string_equal(a, b);
    write_text(in_dir("data/train/cat/y"), "3");
    assert_int_equal(dataset_source_hash(in_dir("data"), b, NULL), 0);
    assert_string_not_equal(a, b);
    assert_int_equal(rename(in_dir("data/train/cat/y"), in_dir("data/train/cat/z")), 0);
    assert_int_equal(dataset_source_hash(in_dir("data"), c, NULL), 0);
    assert_string_not_equal(b, c);
    in_dir("data/test/none"); /* makes an empty folder */
    assert_int_equal(dataset_source_hash(in_dir("data"), d, NULL), 0);
    assert_string_not_equal(c, d);
    write_text(in_dir("file"), "abc");
    assert_int_equal(dataset_source_hash(in_dir("file"), a, NULL), 0);
    assert_string_equal(a, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    write_text(in_dir("file.dataset.json"), "{}");
    assert_int_equal(dataset_source_hash(in_dir("file"), e, NULL), 0);
    assert_string_not_equal(a, e);
    struct err err = {0};
    assert_int_equal(dataset_source_hash(in_dir("nothing"), a, &err), -ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(a_folder_with_train_and_test_is_packed),
        DATA_TEST(the_search_part_has_as_much_of_each_class),
        DATA_TEST(search_max_bounds_the_search_part),
        DATA_TEST(the_bytes_do_not_depend_on_threads),
        DATA_TEST(another_seed_splits_otherwise),
        DATA_TEST(archives_and_folders_give_the_same_bytes),
        DATA_TEST(without_parts_a_test_part_is_split_off),
        DATA_TEST(pictures_without_class_folders_have_no_labels),
        DATA_TEST(a_validation_part_serves_the_search),
        DATA_TEST(classes_are_sorted_by_name_not_by_path),
        DATA_TEST(pictures_of_other_sizes_are_resized_and_counted),
        DATA_TEST(equal_pictures_are_reported),
        DATA_TEST(twins_stay_on_one_side_of_the_split),
        DATA_TEST(labels_can_be_switched_off),
        DATA_TEST(settings_come_from_beside_an_archive_or_from_inside),
        DATA_TEST(other_and_hidden_files_are_skipped),
        DATA_TEST(links_in_folders_are_followed_but_not_in_circles),
        DATA_TEST(unsafe_names_in_archives_are_ignored),
        DATA_TEST(the_last_entry_of_a_name_counts),
        DATA_TEST(progress_reaches_the_end_and_can_stop),
        DATA_TEST(the_hash_of_a_source_sees_names_and_contents),
    };
    return cmocka_run_group_tests_name("pack", tests, NULL, NULL);
}
