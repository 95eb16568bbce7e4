/* Preprocessing as text and as numbers; views of parts. */
#include "tests/unit/data/make.h"

#include <math.h>

#include "shared/data/preprocess.h"

/* ---- text ---- */

static struct preprocess parse(const char *text)
{
    struct preprocess pre = {0};
    struct err err = {0};
    if (preprocess_parse(text, &pre, &err) < 0)
        fail_msg("%s: %s", text, err.message);
    return pre;
}

static void expect_refused(const char *text, const char *words)
{
    struct preprocess pre;
    struct err err = {0};
    int r = preprocess_parse(text, &pre, &err);
    if (r != -ERR_INVALID_ARGUMENT || !strstr(err.message, words))
        fail_msg("'%s' gave %d '%s', expected '%s'", text, r, err.message, words);
}

static void assert_same(const struct preprocess *a, const struct preprocess *b)
{
    assert_true(a->scale == b->scale);
    for (int c = 0; c < 4; c++)
        assert_true(a->mean[c] == b->mean[c] && a->std[c] == b->std[c]);
    assert_int_equal(a->bgr, b->bgr);
}

static void the_example_of_the_manual_is_understood(void **state)
{
    (void)state;
    struct preprocess p =
        parse("scale=1/255 mean=0.485,0.456,0.406 std=0.229,0.224,0.225 order=rgb");
    assert_true(p.scale == 1.0 / 255);
    assert_true(p.mean[0] == 0.485 && p.mean[2] == 0.406 && p.mean[3] == 0.406);
    assert_true(p.std[1] == 0.224);
    assert_false(p.bgr);
}

static void everything_is_optional_and_one_number_serves_all_channels(void **state)
{
    (void)state;
    struct preprocess p = parse("");
    assert_same(&p, &preprocess_identity);
    p = parse("  order=bgr\tmean=128 ");
    assert_true(p.bgr && p.scale == 1 && p.mean[0] == 128 && p.mean[3] == 128 && p.std[2] == 1);
}

static void mistakes_are_named(void **state)
{
    (void)state;
    expect_refused("scale", "'scale' is not of the form");
    expect_refused("scale=abc", "abc");
    expect_refused("scale=0", "all pictures equal");
    expect_refused("scale=nan", "scale");
    expect_refused("mean=1,2,3,4,5", "more than four");
    expect_refused("mean=1,,2", "mean");
    expect_refused("mean=", "mean");
    expect_refused("std=1,0,1", "above 0");
    expect_refused("std=-1", "above 0");
    expect_refused("order=gbr", "'gbr'");
    expect_refused("Scale=1", "no 'Scale'");
    expect_refused("mean=1 mean=2", "mean is given twice");
    expect_refused("mean=1,2,3 std=1,2", "2 numbers, where the other has 3");
}

static void conventions_come_back_from_their_text(void **state)
{
    (void)state;
    int n;
    const struct preprocess_convention *list = preprocess_conventions(&n);
    assert_true(n >= 12);
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *text = preprocess_text(&list[i].pre);
        assert_non_null(text);
        struct preprocess back = parse(text);
        assert_same(&back, &list[i].pre);
    }
}

static void odd_numbers_come_back_from_their_text(void **state)
{
    (void)state;
    struct preprocess p = {
        1.0 / 3, {0.1, 1e-9, 123.456789012345, -5}, {M_PI, 1.0 / 7, 1, 2}, true, 0};
    _cleanup_(freep) char *text = preprocess_text(&p);
    struct preprocess back = parse(text);
    assert_same(&back, &p);
}

static void text_is_as_people_write_it(void **state)
{
    (void)state;
    struct preprocess p = parse("scale=1/255 mean=0.485,0.456,0.406 std=0.5 order=bgr");
    _cleanup_(freep) char *text = preprocess_text(&p);
    assert_string_equal(text, "scale=1/255 mean=0.485,0.456,0.406 std=0.5 order=bgr");
    _cleanup_(freep) char *plain = preprocess_text(&preprocess_identity);
    assert_string_equal(plain, "scale=1 mean=0 std=1 order=rgb");
}

static void no_two_conventions_are_the_same_function(void **state)
{
    (void)state;
    int n;
    const struct preprocess_convention *list = preprocess_conventions(&n);
    for (int i = 0; i < n; i++) {
        assert_non_null(strstr(list[i].name, list[i].pre.bgr ? "BGR" : "RGB"));
        for (int k = 0; k < i; k++) {
            const struct preprocess *a = &list[i].pre, *b = &list[k].pre;
            double difference = a->bgr != b->bgr;
            for (int c = 0; c < 3; c++)
                for (int x = 0; x <= 255; x += 255)
                    difference += fabs((x * a->scale - a->mean[c]) / a->std[c] -
                                       (x * b->scale - b->mean[c]) / b->std[c]);
            if (difference < 1e-6)
                fail_msg("%s = %s", list[i].name, list[k].name);
        }
    }
}

/* ---- views ---- */

static struct dataset *open_two_classes(void)
{
    struct dataset_pack_options options = options_for(3, 8, 8);
    struct dataset_report report = {0};
    make_two_classes("data");
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    dataset_report_release(&report);
    return ds;
}

static void filling_computes_what_the_text_says(void **state)
{
    (void)state;
    struct dataset *ds = open_two_classes();
    struct preprocess pre = parse("scale=1/255 mean=0.5,0.4,0.3 std=0.2,0.25,0.3 order=bgr");
    struct sample_view view;
    float out[2 * 3 * 64];
    assert_int_equal(sample_view_init(&view, ds, PART_TEST, &pre, 0, 1, NULL), 0);
    assert_int_equal(view.n, 8);
    assert_int_equal(sample_view_fill(&view, 3, 2, out, NULL), 0);
    for (int i = 0; i < 2; i++) {
        const uint8_t *planes = dataset_u8(ds, PART_TEST, 3 + i);
        for (int c = 0; c < 3; c++) {
            for (int k = 0; k < 64; k++) {
                double expected = (planes[(2 - c) * 64 + k] / 255.0 - pre.mean[c]) / pre.std[c];
                assert_true(fabs((double)out[(i * 3 + c) * 64 + k] - expected) < 1e-5);
            }
        }
    }
    sample_view_release(&view);
    dataset_close(ds);
}

static void identity_leaves_every_value_exact(void **state)
{
    (void)state;
    struct dataset *ds = open_two_classes();
    struct sample_view view;
    float out[3 * 64];
    assert_int_equal(sample_view_init(&view, ds, PART_TRAIN, NULL, 0, 1, NULL), 0);
    assert_int_equal(sample_view_fill(&view, 0, 1, out, NULL), 0);
    for (int k = 0; k < 3 * 64; k++)
        assert_true(out[k] == (float)dataset_u8(ds, PART_TRAIN, 0)[k]);
    sample_view_release(&view);
    dataset_close(ds);
}

static void a_subset_is_stratified_and_follows_from_its_seed(void **state)
{
    (void)state;
    struct dataset *ds = open_two_classes();
    struct sample_view a, b, c;
    assert_int_equal(sample_view_init(&a, ds, PART_TEST, NULL, 4, 1, NULL), 0);
    assert_int_equal(sample_view_init(&b, ds, PART_TEST, NULL, 4, 1, NULL), 0);
    assert_int_equal(sample_view_init(&c, ds, PART_TEST, NULL, 4, 2, NULL), 0);
    assert_memory_equal(a.index, b.index, 4 * sizeof(uint32_t));
    assert_memory_not_equal(a.index, c.index, 4 * sizeof(uint32_t));
    int32_t *labels;
    assert_int_equal(sample_view_labels(&a, &labels, NULL), 0);
    assert_int_equal(labels[0] + labels[1] + labels[2] + labels[3], 2);
    for (int i = 0; i < 4; i++) {
        assert_int_equal(labels[i], dataset_labels(ds, PART_TEST)[a.index[i]]);
        for (int k = 0; k < i; k++)
            assert_int_not_equal(a.index[i], a.index[k]);
    }
    free(labels);
    sample_view_release(&a);
    sample_view_release(&b);
    sample_view_release(&c);
    dataset_close(ds);
}

static void asking_for_more_than_there_is_gives_all(void **state)
{
    (void)state;
    struct dataset *ds = open_two_classes();
    struct sample_view view;
    assert_int_equal(sample_view_init(&view, ds, PART_TEST, NULL, 1000, 1, NULL), 0);
    assert_int_equal(view.n, 8);
    assert_null(view.index);
    float out[3 * 64];
    struct err err = {0};
    assert_int_equal(sample_view_fill(&view, 8, 1, out, &err), -ERR_OUT_OF_RANGE);
    assert_int_equal(sample_view_fill(&view, INT64_MAX, 1, out, &err), -ERR_OUT_OF_RANGE);
    sample_view_release(&view);
    dataset_close(ds);
}

static void bgr_of_gray_data_is_refused(void **state)
{
    (void)state;
    struct dataset_pack_options options = options_for(1, 8, 8);
    struct dataset_report report = {0};
    make_two_classes("data");
    struct dataset *ds = pack_open(in_dir("data"), &options, &report);
    struct preprocess pre = parse("order=bgr");
    struct sample_view view;
    struct err err = {0};
    assert_int_equal(sample_view_init(&view, ds, PART_TEST, &pre, 0, 1, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "3 channels"));
    dataset_report_release(&report);
    dataset_close(ds);
}

static void fewer_numbers_than_channels_are_refused(void **state)
{
    (void)state;
    static const char *const good[] = {"mean=1", "mean=1,2,3", "mean=1,2,3,4 std=2", "mean=1,2,2"};
    struct dataset *ds = open_two_classes();
    struct sample_view view;
    struct err err = {0};
    struct preprocess pre = parse("mean=1,2");
    assert_int_equal(sample_view_init(&view, ds, PART_TEST, &pre, 0, 1, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "mean or std has 2 numbers; the data has 3 channels"));
    for (int i = 0; i < 4; i++) {
        _cleanup_(freep) char *text = NULL;
        pre = parse(good[i]);
        assert_int_equal(sample_view_init(&view, ds, PART_TEST, &pre, 0, 1, &err), 0);
        sample_view_release(&view);
        text = preprocess_text(&pre);
        struct preprocess back = parse(text);
        assert_same(&pre, &back);
        assert_int_equal(pre.given, back.given);
    }
    dataset_close(ds);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(fewer_numbers_than_channels_are_refused, make_folder,
                                        remove_folder),
        cmocka_unit_test(the_example_of_the_manual_is_understood),
        cmocka_unit_test(everything_is_optional_and_one_number_serves_all_channels),
        cmocka_unit_test(mistakes_are_named),
        cmocka_unit_test(conventions_come_back_from_their_text),
        cmocka_unit_test(odd_numbers_come_back_from_their_text),
        cmocka_unit_test(text_is_as_people_write_it),
        cmocka_unit_test(no_two_conventions_are_the_same_function),
        DATA_TEST(filling_computes_what_the_text_says),
        DATA_TEST(identity_leaves_every_value_exact),
        DATA_TEST(a_subset_is_stratified_and_follows_from_its_seed),
        DATA_TEST(asking_for_more_than_there_is_gives_all),
        DATA_TEST(bgr_of_gray_data_is_refused),
    };
    return cmocka_run_group_tests_name("preprocess", tests, NULL, NULL);
}
