/* Opening packed files, whole and damaged. */
#include "tests/unit/data/make.h"

#include "shared/data/packed.h"
#include "shared/data/preprocess.h"

static struct dataset_report report;

/* A packed file as bytes. */
static void pack_bytes(struct bytes *out)
{
    struct dataset_pack_options options = options_for(3, 8, 8);
    make_two_classes("data");
    dataset_close(pack_open(in_dir("data"), &options, &report));
    dataset_report_release(&report);
    void *data;
    assert_int_equal(fs_read(in_dir("packed"), sizeof(out->data), &data, &out->n, NULL), 0);
    memcpy(out->data, data, out->n);
    free(data);
}

/* Opens and, if that works, touches everything that is in it. */
static int open_and_read(const struct bytes *in, struct err *err)
{
    struct dataset *ds;
    const char *path = in_dir("damaged");
    write_bytes(path, in->data, in->n);
    int r = dataset_open(path, &ds, err);
    if (r < 0)
        return r;
    int64_t shape[3], sum = 0;
    dataset_sample_shape(ds, shape);
    size_t size = (size_t)(shape[0] * shape[1] * shape[2]) * (dataset_is_picture(ds) ? 1 : 4);
    for (int part = 0; part < PART_COUNT; part++) {
        for (int64_t i = 0; i < dataset_count(ds, (enum part)part); i++) {
            const uint8_t *sample = dataset_u8(ds, (enum part)part, i);
            sum += sample[0] + sample[size - 1];
            if (dataset_classes(ds))
                sum +=
                    (int64_t)strlen(dataset_class_name(ds, dataset_labels(ds, (enum part)part)[i]));
        }
    }
    assert_true(sum >= 0);
    dataset_close(ds);
    return 0;
}

static void a_whole_file_opens(void **state)
{
    (void)state;
    struct bytes packed;
    struct err err = {0};
    pack_bytes(&packed);
    assert_int_equal(open_and_read(&packed, &err), 0);
}

static void a_file_cut_off_anywhere_is_data_loss(void **state)
{
    (void)state;
    struct bytes packed;
    pack_bytes(&packed);
    size_t whole = packed.n;
    for (packed.n = 0; packed.n < whole;
         packed.n += packed.n < 200 || packed.n > whole - 200 ? 1 : 97) {
        struct err err = {0};
        assert_int_equal(open_and_read(&packed, &err), -ERR_DATA_LOSS);
        assert_non_null(strstr(err.message, "damaged"));
    }
}

static void no_value_in_the_header_can_crash(void **state)
{
    (void)state;
    static const int64_t values[] = {0,         1,         -1,        4095,      4097,
                                     INT64_MAX, INT64_MIN, 1LL << 32, 1LL << 48, 0x7fffffff};
    struct bytes packed;
    pack_bytes(&packed);
    for (size_t at = 8; at + 8 <= sizeof(struct packed_header); at += 4) {
        for (size_t v = 0; v < sizeof(values) / sizeof(*values); v++) {
            struct bytes damaged = packed;
            struct err err = {0};
            memcpy(damaged.data + at, &values[v], 8);
            int r = open_and_read(&damaged, &err);
            if (r != 0 && r != -ERR_DATA_LOSS && r != -ERR_FAILED_PRECONDITION)
                fail_msg("byte %zu: %d %s", at, r, err.message);
        }
    }
}

static void labels_outside_the_classes_are_data_loss(void **state)
{
    (void)state;
    struct bytes packed;
    struct packed_header header;
    struct err err = {0};
    pack_bytes(&packed);
    memcpy(&header, packed.data, sizeof(header));
    packed.data[header.labels_at + 5] = 1; /* label 256 and up */
    assert_int_equal(open_and_read(&packed, &err), -ERR_DATA_LOSS);
    assert_non_null(strstr(err.message, "label"));
}

static void names_without_an_end_are_data_loss(void **state)
{
    (void)state;
    struct bytes packed;
    struct err err = {0};
    pack_bytes(&packed);
    packed.data[packed.n - 1] = 'x';
    assert_int_equal(open_and_read(&packed, &err), -ERR_DATA_LOSS);
}

static void another_version_is_refused_with_both_numbers(void **state)
{
    (void)state;
    struct bytes packed;
    struct err err = {0};
    pack_bytes(&packed);
    packed.data[8] = 9;
    assert_int_equal(open_and_read(&packed, &err), -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "version 9"));
}

static void a_file_that_is_not_there_is_not_found(void **state)
{
    (void)state;
    struct dataset *ds;
    struct err err = {0};
    assert_int_equal(dataset_open(in_dir("nothing"), &ds, &err), -ERR_NOT_FOUND);
    assert_null(dataset_close(NULL));
}

static void names_of_parts_are_parsed(void **state)
{
    (void)state;
    enum part part;
    struct err err = {0};
    for (int i = 0; i < PART_COUNT; i++) {
        assert_int_equal(part_parse(part_name((enum part)i), &part, &err), 0);
        assert_int_equal(part, i);
    }
    assert_int_equal(part_parse("validation", &part, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "'validation'"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(a_whole_file_opens),
        DATA_TEST(a_file_cut_off_anywhere_is_data_loss),
        DATA_TEST(no_value_in_the_header_can_crash),
        DATA_TEST(labels_outside_the_classes_are_data_loss),
        DATA_TEST(names_without_an_end_are_data_loss),
        DATA_TEST(another_version_is_refused_with_both_numbers),
        DATA_TEST(a_file_that_is_not_there_is_not_found),
        cmocka_unit_test(names_of_parts_are_parsed),
    };
    return cmocka_run_group_tests_name("dataset", tests, NULL, NULL);
}
