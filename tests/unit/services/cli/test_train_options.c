/* hone train: what is refused before anything is read or written. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "tests/support/cli_run.h"

static char folder[256], printed[4096];

#define EXPECT(code, text, ...)                                                                    \
    do {                                                                                           \
        const char *const words[] = {__VA_ARGS__};                                                 \
        const int got = cli_run(&cmd_train, (int)(sizeof(words) / sizeof(*words)), words, printed, \
                                sizeof(printed));                                                  \
        if (got != (code) || !strstr(printed, text))                                               \
            fail_msg("%d, and '%s' lacks '%s'", got, printed, text);                               \
    } while (0)

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

static void wrong_usage_is_named(void **state)
{
    (void)state;
    EXPECT(CLI_USAGE, "an argument is missing", "--data", "d");
    EXPECT(CLI_USAGE, "--data is missing", "m.onnx");
    EXPECT(CLI_USAGE, "did you mean --epochs?", "m.onnx", "--data", "d", "--epoch", "3");
    EXPECT(CLI_USAGE, "'alternate' is none of", "m.onnx", "--data", "d", "--flip", "alternate");
    EXPECT(CLI_USAGE, "'linear' is none of", "m.onnx", "--data", "d", "--schedule", "linear");
    EXPECT(CLI_USAGE, "--trunk needs --schedule trapezoid", "m.onnx", "--data", "d", "--trunk",
           "t");
    EXPECT(CLI_USAGE, "--whiten need --reinit", "m.onnx", "--data", "d", "--zero-residual");
    EXPECT(CLI_USAGE, "--whiten need --reinit", "m.onnx", "--data", "d", "--whiten");
    EXPECT(CLI_USAGE, "need --teacher", "m.onnx", "--data", "d", "--views", "4");
    EXPECT(CLI_USAGE, "need --teacher", "m.onnx", "--data", "d", "--teacher-cache", "f");
}

static void numbers_have_their_limits(void **state)
{
    (void)state;
    EXPECT(CLI_USAGE, "--epochs", "m.onnx", "--data", "d", "--epochs", "0");
    EXPECT(CLI_USAGE, "--batch", "m.onnx", "--data", "d", "--batch", "0");
    EXPECT(CLI_USAGE, "--lr", "m.onnx", "--data", "d", "--lr", "-0.1");
    EXPECT(CLI_USAGE, "--ema", "m.onnx", "--data", "d", "--ema", "1");
    EXPECT(CLI_USAGE, "--label-smoothing", "m.onnx", "--data", "d", "--label-smoothing", "1");
    EXPECT(CLI_USAGE, "--distil", "m.onnx", "--data", "d", "--distil", "1.5");
    EXPECT(CLI_USAGE, "--temperature", "m.onnx", "--data", "d", "--temperature", "0");
    EXPECT(CLI_USAGE, "--lr", "m.onnx", "--data", "d", "--lr", "nan");
}

static void files_are_looked_for_before_anything_is_done(void **state)
{
    (void)state;
    EXPECT(CLI_FAILED, "m.onnx", "m.onnx", "--data", "d");
    EXPECT(CLI_FAILED, "no checkpoint to go on from", "m.onnx", "--data", "d", "--resume");
    assert_int_equal(fs_write_atomic("m-trained.onnx.checkpoint", "x", 1, NULL), 0);
    EXPECT(CLI_FAILED, "a run was stopped there", "dir/m.onnx", "--data", "d");
    EXPECT(CLI_FAILED, "a run was stopped there", "m", "--data", "d", "--checkpoint",
           "m-trained.onnx.checkpoint");
}

static void help_lists_every_option(void **state)
{
    (void)state;
    EXPECT(CLI_OK, "--frequency-mask", "--help");
    assert_non_null(strstr(printed, "--resume"));
    assert_non_null(strstr(printed, "--teacher"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(wrong_usage_is_named),
        cmocka_unit_test(numbers_have_their_limits),
        cmocka_unit_test(files_are_looked_for_before_anything_is_done),
        cmocka_unit_test(help_lists_every_option),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
