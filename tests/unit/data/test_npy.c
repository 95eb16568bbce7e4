/* The .npy parser alone. */
#include "tests/unit/data/make.h"

#include "shared/data/npy.h"

static void expect_refused(const struct bytes *in, const char *words)
{
    struct npy a;
    struct err err = {0};
    int r = npy_parse(in->data, in->n, &a, &err);
    if (r != -ERR_INVALID_ARGUMENT || !strstr(err.message, words))
        fail_msg("got %d '%s', expected '%s'", r, err.message, words);
}

static struct npy parse(const struct bytes *in)
{
    struct npy a = {0};
    struct err err = {0};
    if (npy_parse(in->data, in->n, &a, &err) < 0)
        fail_msg("%s", err.message);
    return a;
}

static void floats_in_c_order_are_read_row_by_row(void **state)
{
    (void)state;
    const float data[6] = {1, 2, 3, 4, 5, 6};
    struct bytes npy = make_npy("<f4", "(2, 3)", "False", data, sizeof(data));
    struct npy a = parse(&npy);
    float row[3];
    assert_int_equal(a.rank, 2);
    assert_int_equal(a.shape[0], 2);
    assert_int_equal(a.shape[1], 3);
    assert_int_equal(a.count, 6);
    npy_row_f32(&a, 1, row);
    assert_memory_equal(row, data + 3, sizeof(row));
}

static void fortran_order_is_turned_into_c_order(void **state)
{
    (void)state;
    uint8_t data[24];
    float row[12];
    for (int i = 0; i < 24; i++)
        data[i] = (uint8_t)i;
    struct bytes npy = make_npy("|u1", "(2, 3, 4)", "True", data, sizeof(data));
    struct npy a = parse(&npy);
    for (int i = 0; i < 2; i++) {
        uint8_t bytes[12];
        npy_row_f32(&a, i, row);
        npy_row_u8(&a, i, bytes);
        for (int j = 0; j < 3; j++) {
            for (int k = 0; k < 4; k++) {
                assert_int_equal((int)row[j * 4 + k], i + 2 * j + 6 * k);
                assert_int_equal(bytes[j * 4 + k], i + 2 * j + 6 * k);
            }
        }
    }
}

static void every_number_type_is_understood(void **state)
{
    (void)state;
    const struct {
        const char *descr;
        size_t bytes;
        union {
            int8_t i1;
            int16_t i2;
            int32_t i4;
            int64_t i8;
            float f4;
            double f8;
            uint16_t f2;
        } value;
        float expected;
    } cases[] = {
        {"|i1", 1, {.i1 = -5}, -5},         {"|u1", 1, {.i1 = -1}, 255},
        {"<i2", 2, {.i2 = -300}, -300},     {"<u2", 2, {.i2 = -1}, 65535},
        {"<i4", 4, {.i4 = -70000}, -70000}, {"<u4", 4, {.i4 = -1}, 4294967296.0f},
        {"<i8", 8, {.i8 = -5}, -5},         {"<u8", 8, {.i8 = 12}, 12},
        {"<f4", 4, {.f4 = 0.25f}, 0.25f},   {"<f8", 8, {.f8 = -1.5}, -1.5f},
        {"<f2", 2, {.f2 = 0x3e00}, 1.5f},   {"<f2", 2, {.f2 = 0x8001}, -0x1p-24f},
        {"|b1", 1, {.i1 = 1}, 1},           {"=f4", 4, {.f4 = 3}, 3},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct bytes npy =
            make_npy(cases[i].descr, "(1,)", "False", &cases[i].value, cases[i].bytes);
        struct npy a = parse(&npy);
        float got;
        npy_row_f32(&a, 0, &got);
        if (got != cases[i].expected)
            fail_msg("%s: %g, expected %g", cases[i].descr, (double)got, (double)cases[i].expected);
    }
}

static void large_unsigned_labels_do_not_become_negative(void **state)
{
    (void)state;
    const uint64_t data = UINT64_MAX;
    struct bytes npy = make_npy("<u8", "(1,)", "False", &data, 8);
    struct npy a = parse(&npy);
    assert_int_equal(npy_get_i64(&a, 0), INT64_MAX);
}

static void formats_two_and_three_have_longer_headers(void **state)
{
    (void)state;
    const float data[2] = {7, 8};
    struct bytes one = make_npy("<f4", "(2,)", "False", data, sizeof(data));
    for (uint8_t version = 2; version <= 3; version++) {
        struct bytes in = one;
        memmove(in.data + 12, one.data + 10, one.n - 10);
        in.data[6] = version;
        in.data[10] = in.data[11] = 0;
        in.n += 2;
        struct npy a = parse(&in);
        float row;
        npy_row_f32(&a, 1, &row);
        assert_true(row == 8);
    }
    one.data[6] = 4;
    expect_refused(&one, "format 4.0");
}

static void objects_are_never_read(void **state)
{
    (void)state;
    struct bytes npy = make_npy("|O", "(1,)", "False", "\x80\x04.", 3);
    expect_refused(&npy, "Python objects");
}

static void other_types_are_refused_by_name(void **state)
{
    (void)state;
    const double zero[4] = {0};
    struct bytes npy = make_npy(">f4", "(1,)", "False", zero, 4);
    expect_refused(&npy, "big-endian");
    npy = make_npy("<U8", "(1,)", "False", zero, 32);
    expect_refused(&npy, "'<U8'");
    npy = make_npy("<c8", "(1,)", "False", zero, 8);
    expect_refused(&npy, "'<c8'");
    npy = make_npy("x", "(1,)", "False", zero, 8);
    expect_refused(&npy, "'x'");
    npy = make_npy("", "(1,)", "False", zero, 8);
    expect_refused(&npy, "element type");
}

static void records_are_refused(void **state)
{
    (void)state;
    struct bytes npy = make_npy("<f4', 'descr': [('a", "(1,)", "False", NULL, 0);
    expect_refused(&npy, "records");
}

static void shapes_beyond_the_file_are_refused(void **state)
{
    (void)state;
    const float data[2] = {7, 8};
    struct bytes npy = make_npy("<f4", "(3,)", "False", data, sizeof(data));
    expect_refused(&npy, "cut off");
    npy = make_npy("<f4", "(4611686018427387904, 4)", "False", data, sizeof(data));
    expect_refused(&npy, "beyond all memory");
    npy = make_npy("<f4", "(99999999999999999999999,)", "False", data, sizeof(data));
    expect_refused(&npy, "bad shape");
    npy = make_npy("<f4", "(-1,)", "False", data, sizeof(data));
    expect_refused(&npy, "bad shape");
    npy = make_npy("<f4", "(1,1,1,1,1,1,1,1,1)", "False", data, sizeof(data));
    expect_refused(&npy, "more than 8 axes");
    npy = make_npy("<f4", "(1 2)", "False", data, sizeof(data));
    expect_refused(&npy, "bad shape");
}

static void an_array_of_nothing_is_no_error_here(void **state)
{
    (void)state;
    struct bytes npy = make_npy("<f4", "(0, 3)", "False", NULL, 0);
    assert_int_equal(parse(&npy).count, 0);
    npy = make_npy("<f4", "(5, 0, 4611686018427387904)", "True", NULL, 0);
    struct npy a = parse(&npy);
    float none = 3;
    npy_row_f32(&a, 4, &none);
    assert_true(none == 3);
}

static void a_header_cut_off_anywhere_is_refused(void **state)
{
    (void)state;
    const float data[2] = {7, 8};
    struct bytes npy = make_npy("<f4", "(2,)", "False", data, sizeof(data));
    for (size_t n = 0; n < npy.n; n++) {
        /* its own memory, so that a sanitizer sees a read behind its end */
        _cleanup_(freep) uint8_t *copy = malloc(n + !n);
        struct npy a;
        memcpy(copy, npy.data, n);
        assert_int_equal(npy_parse(copy, n, &a, NULL), -ERR_INVALID_ARGUMENT);
    }
}

static void broken_headers_are_refused(void **state)
{
    (void)state;
    static const char *const dicts[] = {
        "",
        "{}",
        "{'descr': '<f4'}",
        "{'descr': '<f4', 'fortran_order': Maybe, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,), 'more': 1}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4\\x00', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4' 'fortran_order': False, 'shape': (1,)}",
        "{descr: '<f4', 'fortran_order': False, 'shape': (1,)}",
    };
    for (size_t i = 0; i < sizeof(dicts) / sizeof(*dicts); i++) {
        struct bytes in = {.n = 10 + strlen(dicts[i]) + 4};
        memcpy(in.data, "\x93NUMPY\x01\x00", 8);
        in.data[8] = (uint8_t)strlen(dicts[i]);
        in.data[9] = 0;
        memcpy(in.data + 10, dicts[i], strlen(dicts[i]));
        struct npy a;
        struct err err = {0};
        if (npy_parse(in.data, in.n, &a, &err) != -ERR_INVALID_ARGUMENT)
            fail_msg("accepted: %s", dicts[i]);
        assert_non_null(strstr(err.message, ".npy header"));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_in_c_order_are_read_row_by_row),
        cmocka_unit_test(fortran_order_is_turned_into_c_order),
        cmocka_unit_test(every_number_type_is_understood),
        cmocka_unit_test(large_unsigned_labels_do_not_become_negative),
        cmocka_unit_test(formats_two_and_three_have_longer_headers),
        cmocka_unit_test(objects_are_never_read),
        cmocka_unit_test(other_types_are_refused_by_name),
        cmocka_unit_test(records_are_refused),
        cmocka_unit_test(shapes_beyond_the_file_are_refused),
        cmocka_unit_test(an_array_of_nothing_is_no_error_here),
        cmocka_unit_test(a_header_cut_off_anywhere_is_refused),
        cmocka_unit_test(broken_headers_are_refused),
    };
    return cmocka_run_group_tests_name("npy", tests, NULL, NULL);
}
