/* Shapes and types that are inferred for the ONNX conformance suite are those of the expected
 * outputs; and what can be read can be written and read again. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "tests/support/onnx_case.h"

typedef void case_fn(const struct onnx_case *c, struct onnx_case_run *run);

/* Calls fn for each case that Hone runs; returns how many. */
static int for_each_case(case_fn *fn)
{
    const char *root = onnx_case_root();
    if (!root) {
        print_message("skip: the ONNX conformance suite (libonnx-testdata) is not there\n");
        skip();
    }
    _cleanup_(freep) char *folder = str_printf("%s/node", root);
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, NULL, alphasort), used = 0;
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s", folder, entries[i]->d_name);
        struct onnx_case c;
        struct onnx_case_run run = {0};
        struct err err = {0};
        bool wanted = entries[i]->d_name[0] != '.' && onnx_case_open(path, &c, &err) == 0 &&
                      !c.left_out && c.n_data_sets > 0;
        free(entries[i]);
        if (!wanted)
            continue;
        if (onnx_case_load(&c, 0, BIND_STEERING, &run, &err) < 0)
            fail_msg("%s: %s", c.name, err.message);
        fn(&c, &run);
        onnx_case_run_release(&run);
        used++;
    }
    free(entries);
    return used;
}

static void check_shapes(const struct onnx_case *c, struct onnx_case_run *run)
{
    struct err err = {0};
    char a[128], b[128];
    if (graph_infer(run->graph, &err) < 0)
        fail_msg("%s: %s", c->name, err.message);
    for (int i = 0; i < run->graph->n_outputs; i++) {
        const struct value *value = run->graph->values[run->graph->outputs[i]];
        const struct tensor *want = run->expected[i];
        if (want && (value->dtype != want->dtype || !shape_equal(&value->shape, &want->shape)))
            fail_msg("%s: inferred %s %s, expected %s %s", c->name, dtype_name(value->dtype),
                     shape_text(&value->shape, a), dtype_name(want->dtype),
                     shape_text(&want->shape, b));
    }
}

static void inferred_shapes_are_those_of_the_expected_outputs(void **state)
{
    (void)state;
    int used = for_each_case(check_shapes);
    print_message("%d cases\n", used);
    assert_true(used > 200);
}

static void check_round_trip(const struct onnx_case *c, struct onnx_case_run *run)
{
    struct err err = {0};
    struct onnx_limits limits = onnx_default_limits;
    limits.keep_constant_nodes = limits.allow_nonfinite = true;
    void *data = NULL, *again = NULL;
    size_t n = 0, m = 0;
    struct graph *copy = NULL;
    if (run->graph->opset < 13) /* raised on the way out: other bytes */
        return;
    if (onnx_write_bytes(run->graph, &data, &n, &err) < 0 ||
        onnx_read_bytes(data, n, NULL, &limits, &copy, &err) < 0 ||
        onnx_write_bytes(copy, &again, &m, &err) < 0)
        fail_msg("%s: %s", c->name, err.message);
    if (n != m || memcmp(data, again, n) != 0)
        fail_msg("%s: other bytes the second time", c->name);
    free(data);
    free(again);
    graph_free(copy);
}

static void what_is_read_can_be_written_and_read_again(void **state)
{
    (void)state;
    for_each_case(check_round_trip);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(inferred_shapes_are_those_of_the_expected_outputs),
        cmocka_unit_test(what_is_read_can_be_written_and_read_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
