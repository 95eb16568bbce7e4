/* Logits as artifacts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/nn/logits.h"

static const float rows[6] = {1.5f, -2.0f, 3.25f, 0.0f, 1e-30f, -1e30f};

static void pack(void **data, size_t *bytes)
{
    struct err err = {0};
    assert_int_equal(logits_pack(rows, 2, 3, data, bytes, &err), 0);
}

static void what_was_packed_is_unpacked(void **state)
{
    (void)state;
    void *data;
    size_t bytes;
    struct logits logits;
    struct err err = {0};
    pack(&data, &bytes);
    assert_int_equal(bytes, LOGITS_HEADER_BYTES + sizeof(rows));
    assert_int_equal(logits_unpack(data, bytes, &logits, &err), 0);
    assert_int_equal(logits.n, 2);
    assert_int_equal(logits.width, 3);
    assert_memory_equal(logits.rows, rows, sizeof(rows));
    logits_release(&logits);
    assert_null(logits.rows);
}

static void bytes_that_are_cut_short_are_refused(void **state)
{
    (void)state;
    void *data;
    size_t bytes;
    struct logits logits;
    pack(&data, &bytes);
    for (size_t n = 0; n < bytes; n++)
        assert_int_equal(logits_unpack(data, n, &logits, NULL), -ERR_DATA_LOSS);
    free(data);
}

static void headers_that_claim_too_much_are_refused(void **state)
{
    (void)state;
    void *data;
    size_t bytes;
    struct logits logits;
    pack(&data, &bytes);
    const uint64_t claims[] = {0, 1, 3, UINT64_MAX, UINT64_MAX / 4, (uint64_t)1 << 62};
    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        memcpy((char *)data + 8, &claims[i], 8);
        assert_int_equal(logits_unpack(data, bytes, &logits, NULL), -ERR_DATA_LOSS);
    }
    free(data);
}

static void other_files_are_refused(void **state)
{
    (void)state;
    void *data;
    size_t bytes;
    struct logits logits;
    pack(&data, &bytes);
    ((char *)data)[3] = 'X';
    assert_int_equal(logits_unpack(data, bytes, &logits, NULL), -ERR_DATA_LOSS);
    free(data);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_packed_is_unpacked),
        cmocka_unit_test(bytes_that_are_cut_short_are_refused),
        cmocka_unit_test(headers_that_claim_too_much_are_refused),
        cmocka_unit_test(other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
