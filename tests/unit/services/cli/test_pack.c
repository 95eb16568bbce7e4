/* hone pack, hone unpack: there and back, and what is refused. */
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
#include "shared/base/mem.h"
#include "tests/support/cli_run.h"
#include "tests/support/onnx_text.h"

#define NETWORK                                                                                    \
    "input x float N,3,8,8\ninit w float 16,3,3,3 rand\n"                                          \
    "Conv conv1 x,w -> c pads=[1,1,1,1]\nRelu _ c -> y\noutput y float N,16,8,8"

static char folder[256], printed[8192];

#define EXPECT(command, code, text, ...)                                                           \
    do {                                                                                           \
        const char *const words[] = {__VA_ARGS__};                                                 \
        const int got = cli_run(&(command), (int)(sizeof(words) / sizeof(*words)), words, printed, \
                                sizeof(printed));                                                  \
        if (got != (code) || !strstr(printed, text))                                               \
            fail_msg("%d, and '%s' lacks '%s'", got, printed, text);                               \
    } while (0)

static int make_folder(void **state)
{
    (void)state;
    const char *top = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/cli.XXXXXX", top ? top : "/tmp");
    if (!mkdtemp(folder) || chdir(folder) != 0)
        return -1;
    struct graph *g = onnx_text_graph(NETWORK);
    const int rc = onnx_write_file(g, "model.onnx", NULL);
    graph_free(g);
    return rc;
}

static int remove_folder(void **state)
{
    (void)state;
    return chdir("/") == 0 ? fs_remove_tree(folder, NULL) : -1;
}

static void expect_same(const char *a, const char *b)
{
    _cleanup_(freep) void *x = NULL;
    _cleanup_(freep) void *y = NULL;
    size_t n, m;
    assert_int_equal(fs_read(a, 1 << 20, &x, &n, NULL), 0);
    assert_int_equal(fs_read(b, 1 << 20, &y, &m, NULL), 0);
    assert_int_equal(n, m);
    assert_memory_equal(x, y, n);
}

static void a_network_comes_back(void **state)
{
    (void)state;
    EXPECT(cmd_pack, CLI_OK, "model.hone: ", "model.onnx");
    EXPECT(cmd_unpack, CLI_OK, "again.onnx: ", "model.hone", "--out", "again.onnx");
    expect_same("model.onnx", "again.onnx");
    EXPECT(cmd_pack, CLI_OK, "\"from_bytes\": ", "again.onnx", "--out=x.hone", "--json");
    expect_same("model.hone", "x.hone");
}

static void packed_networks_are_taken_as_they_are(void **state)
{
    (void)state;
    EXPECT(cmd_pack, CLI_OK, "", "model.onnx");
    EXPECT(cmd_inspect, CLI_OK, "Conv 1, Relu 1", "model.hone");
    EXPECT(cmd_bench, CLI_OK, "us", "model.hone", "--seconds", "0.1");
}

static void what_cannot_be_is_refused(void **state)
{
    (void)state;
    assert_int_equal(fs_write_atomic("text.onnx", "no network", 10, NULL), 0);
    EXPECT(cmd_pack, CLI_FAILED, "text.onnx: ", "text.onnx");
    assert_false(fs_exists("text.hone"));
    EXPECT(cmd_pack, CLI_FAILED, "none.onnx", "none.onnx");
    EXPECT(cmd_pack, CLI_FAILED, "overwrite", "model.onnx", "--out", "./model.onnx");
    EXPECT(cmd_unpack, CLI_FAILED, "text.onnx: this is no packed network", "text.onnx", "--out",
           "b.onnx");
    EXPECT(cmd_pack, CLI_OK, "", "model.onnx");
    EXPECT(cmd_pack, CLI_FAILED, "packed already", "model.hone", "--out", "twice.hone");
    EXPECT(cmd_pack, CLI_USAGE, "an argument is missing");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_comes_back),
        cmocka_unit_test(packed_networks_are_taken_as_they_are),
        cmocka_unit_test(what_cannot_be_is_refused),
    };
    return cmocka_run_group_tests(tests, make_folder, remove_folder);
}
