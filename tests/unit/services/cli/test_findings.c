/* Numbers as they were reported beside the same numbers found again; manifests as they are read. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "services/cli/findings.h"
#include "services/cli/manifest.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    const char *top = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/cli.XXXXXX", top ? top : "/tmp");
    return mkdtemp(folder) && chdir(folder) == 0 ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return chdir("/") == 0 ? fs_remove_tree(folder, NULL) : -1;
}

/* ---- findings ---- */

static void numbers_are_compared_as_they_were_written(void **state)
{
    (void)state;
    static const struct {
        double was, is;
        int digits;
        double tolerance;
        enum verdict verdict;
    } cases[] = {
        {0.9173, 0.9173, 6, 0, SAME},
        {0.917333, 0.9173333333, 6, 0, SAME},
        {0.9173, 0.9174, 6, 0.0002, CLOSE},
        {0.9173, 0.9176, 6, 0.0002, DIFFERS},
        {48, 48, 0, 0, SAME},
        {48, 49, 0, 0, DIFFERS},
        {-0.15, 0.15, 4, 0.1, DIFFERS},
        {0.5, NAN, 6, 1, DIFFERS},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        _cleanup_(findings_release) struct findings f = {0};
        assert_int_equal(findings_number(&f, "s", "n", cases[i].was, cases[i].is, cases[i].digits,
                                         cases[i].tolerance, NULL),
                         0);
        assert_int_equal(f.n, 1);
        if (f.list[0].verdict != cases[i].verdict)
            fail_msg("case %zu: %s", i, verdict_name(f.list[0].verdict));
        assert_int_equal(f.count[cases[i].verdict], 1);
    }
}

static void what_was_not_reported_is_not_compared(void **state)
{
    (void)state;
    _cleanup_(findings_release) struct findings f = {0};
    assert_int_equal(findings_number(&f, "s", "n", NAN, 1, 6, 0, NULL), 0);
    assert_int_equal(f.n, 0);
}

static void the_table_names_what_differs(void **state)
{
    (void)state;
    char text[1024];
    _cleanup_(findings_release) struct findings f = {0};
    assert_int_equal(findings_text(&f, "model.onnx", "sha256", "0a", "0b", NULL), 0);
    assert_int_equal(findings_text(&f, "model.onnx", "design", "conv:8\x1b[2J", "x", NULL), 0);
    FILE *file = tmpfile();
    findings_print(&f, file);
    rewind(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = 0;
    fclose(file);
    assert_non_null(strstr(text, "model.onnx\n"));
    assert_non_null(strstr(text, "DIFFERS"));
    assert_null(strchr(text, 0x1b));
}

/* ---- manifests ---- */

static void expect_refusal(const char *text, int code, const char *why)
{
    struct manifest m = {0};
    struct err err = {0};
    assert_int_equal(fs_write_atomic("m.json", text, strlen(text), NULL), 0);
    assert_int_equal(manifest_read("m.json", &m, &err), code);
    if (!strstr(err.message, why))
        fail_msg("'%s' lacks '%s'", err.message, why);
}

static void what_is_no_manifest_is_refused(void **state)
{
    (void)state;
    struct manifest m = {0};
    struct err err = {0};
    expect_refusal("{\"schema\":", -ERR_DATA_LOSS, "m.json: not a JSON object");
    expect_refusal("[1]", -ERR_DATA_LOSS, "not a JSON object");
    expect_refusal("{\"schema\":\"hone.result/1\"}", -ERR_DATA_LOSS, "no manifest of a job");
    expect_refusal("{\"schema\":\"hone.manifest/1\"}", -ERR_FAILED_PRECONDITION,
                   "it is hone.manifest/1, and hone.manifest/2 is needed");
    assert_int_equal(manifest_read("none.json", &m, &err), -ERR_NOT_FOUND);
}

static void the_last_word_about_a_network_counts(void **state)
{
    (void)state;
    static const char text[] =
        "{\"schema\":\"hone.manifest/2\",\"networks\":[{\"name\":\"a\",\"timings\":["
        "{\"engine\":\"hone\",\"p50_us\":5.5},{\"engine\":\"hone\",\"p50_us\":4.5},"
        "{\"engine\":\"onnxruntime\",\"p50_us\":0,\"error\":\"no\"}],\"accuracies\":["
        "{\"engine\":\"hone\",\"part\":\"test\",\"value\":0.5}]}]}";
    _cleanup_(manifest_release) struct manifest m = {0};
    assert_int_equal(fs_write_atomic("m.json", text, strlen(text), NULL), 0);
    assert_int_equal(manifest_read("m.json", &m, NULL), 0);
    yyjson_val *a = manifest_find(yyjson_obj_get(m.root, "networks"), "name", "a");
    assert_non_null(a);
    assert_true(manifest_number(manifest_timing(a, "hone"), "p50_us") == 4.5);
    assert_null(manifest_timing(a, "onnxruntime")); /* it did not run */
    assert_true(manifest_number(manifest_accuracy(a, "test", "hone"), "value") == 0.5);
    assert_null(manifest_accuracy(a, "search", "hone"));
    assert_true(isnan(manifest_number(a, "macs")));
    assert_string_equal(manifest_text(a, "design"), "");
    assert_string_equal(m.folder, ".");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_compared_as_they_were_written),
        cmocka_unit_test(what_was_not_reported_is_not_compared),
        cmocka_unit_test(the_table_names_what_differs),
        cmocka_unit_test(what_is_no_manifest_is_refused),
        cmocka_unit_test(the_last_word_about_a_network_counts),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
