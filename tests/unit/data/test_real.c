/* Real data: CIFAR-10 as 60,000 PNGs in a tar, flower photographs as JPEGs. */
#include "tests/unit/data/make.h"

#include "shared/base/clock.h"

/* $HONE_DATA or ../shared/data beside the checkout; skips the test where the file is absent. */
static const char *real(const char *name)
{
    static char path[512];
    const char *top = getenv("HONE_DATA");
    snprintf(path, sizeof(path), "%s/%s", top ? top : HONE_SOURCE_DIR "/../shared/data", name);
    if (!fs_exists(path)) {
        print_message("skip: %s is not there\n", path);
        skip();
    }
    return path;
}

static struct dataset *pack_real(const char *source, int64_t size, struct dataset_report *report)
{
    struct dataset_pack_options options = options_for(3, size, size);
    int64_t begin = clock_now_ns(NULL);
    struct dataset *ds = pack_open(source, &options, report);
    print_message("# packed %s in %.1f s\n", source, (double)(clock_now_ns(NULL) - begin) * 1e-9);
    return ds;
}

static void cifar10_is_packed_whole(void **state)
{
    (void)state;
    static const char *const names[] = {"airplane", "automobile", "bird",  "cat",  "deer",
                                        "dog",      "frog",       "horse", "ship", "truck"};
    struct dataset_report report;
    struct dataset *ds = pack_real(real("cifar10.tar"), 32, &report);
    assert_int_equal(report.n[PART_TRAIN], 45000);
    assert_int_equal(report.n[PART_SEARCH], 5000);
    assert_int_equal(report.n[PART_TEST], 10000);
    assert_int_equal(report.unreadable, 0);
    assert_int_equal(report.resized, 0);
    assert_int_equal(dataset_classes(ds), 10);
    int per_class[PART_COUNT][10] = {0};
    for (int part = 0; part < PART_COUNT; part++)
        for (int64_t i = 0; i < dataset_count(ds, (enum part)part); i++)
            per_class[part][dataset_labels(ds, (enum part)part)[i]]++;
    for (int c = 0; c < 10; c++) {
        assert_string_equal(dataset_class_name(ds, c), names[c]);
        assert_int_equal(per_class[PART_TRAIN][c], 4500);
        assert_int_equal(per_class[PART_SEARCH][c], 500);
        assert_int_equal(per_class[PART_TEST][c], 1000);
    }
    /* the known mean of the training pictures, 0.4914 of 255 in red */
    double sum = 0;
    for (int64_t i = 0; i < 45000; i++)
        for (int k = 0; k < 1024; k++)
            sum += dataset_u8(ds, PART_TRAIN, i)[k];
    sum /= 45000.0 * 1024 * 255;
    assert_true(sum > 0.489 && sum < 0.494);
    dataset_report_release(&report);
    dataset_close(ds);
}

static void flowers_are_packed_with_their_duplicates_named(void **state)
{
    (void)state;
    struct dataset_report report;
    struct dataset *ds = pack_real(real("flowers5.tar"), 160, &report);
    assert_int_equal(report.n[PART_TRAIN] + report.n[PART_SEARCH], 3555);
    assert_int_equal(report.n[PART_TEST], 509);
    assert_int_equal(report.n_classes, 5);
    assert_int_equal(report.resized, 4064);
    assert_true(report.duplicates > 0);
    assert_true(has_warning(&report, "also in the training part"));
    dataset_report_release(&report);
    dataset_close(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(cifar10_is_packed_whole),
        DATA_TEST(flowers_are_packed_with_their_duplicates_named),
    };
    return cmocka_run_group_tests_name("real data", tests, NULL, NULL);
}
