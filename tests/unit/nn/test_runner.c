/* Networks that are ready to be timed, in either engine. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/graph/onnx.h"
#include "shared/nn/runner.h"
#include "tests/unit/nn/plan_nets.h"

static void exported(int outputs, void **ret, size_t *ret_bytes)
{
    struct mesh m;
    struct err err = {0};
    mesh_init(&m, 3);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 3, 6, 6));
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 8, .kernel = 3, .pad = 1});
    mesh_output(&m, mesh_unary(&m, OP_RELU, y));
    if (outputs > 1)
        mesh_output(&m, y);
    mesh_finish(&m);
    must(onnx_write_bytes(m.g, ret, ret_bytes, &err), &err);
    mesh_release(&m);
}

static void both_engines_take_turns(void **state)
{
    (void)state;
    struct err err = {0};
    _cleanup_(freep) void *file = NULL;
    size_t bytes = 0;
    struct runner *runners[2];
    struct bench_item items[2];
    struct bench_result results[2];
    exported(1, &file, &bytes);
    for (int i = 0; i < 2; i++) {
        const struct runner_options o = {.batch = 2, .threads = 1, .peer = i == 1};
        must(runner_open(file, bytes, &o, &runners[i], &err), &err);
        items[i] = runner_item(runners[i]);
    }
    memset(file, 0, bytes); /* needed no longer */
    const struct bench_options how = {.seconds = 0.001, .rounds = 2, .min_runs = 4};
    must(bench_run(items, 2, &how, results, &err), &err);
    for (int i = 0; i < 2; i++) {
        assert_true(results[i].runs >= 4 && results[i].p50_us > 0);
        runners[i] = runner_free(runners[i]);
    }
    assert_null(runner_free(NULL));
}

static void other_ports_and_other_files_are_refused(void **state)
{
    (void)state;
    struct err err = {0};
    struct runner *runner = NULL;
    const struct runner_options o = {.batch = 1, .threads = 1};
    _cleanup_(freep) void *file = NULL;
    size_t bytes = 0;
    exported(2, &file, &bytes);
    assert_int_equal(runner_open(file, bytes, &o, &runner, &err), -ERR_UNIMPLEMENTED);
    assert_true(runner_open("no model", 8, &o, &runner, &err) < 0);
    assert_null(runner);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_engines_take_turns),
        cmocka_unit_test(other_ports_and_other_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
