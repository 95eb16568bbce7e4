/* ONNX Runtime as the peer: the same numbers from an exported file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/graph/onnx.h"
#include "shared/nn/ort.h"
#include "tests/unit/nn/plan_nets.h"

static void exported(int64_t batch, struct mesh *m, void **ret, size_t *ret_bytes)
{
    struct err err = {0};
    mesh_init(m, 3);
    int x = mesh_input(m, DIMS(batch, 3, 6, 6));
    int y = mesh_conv(m, x, (struct mesh_conv){.ic = 3, .oc = 8, .kernel = 3, .pad = 1});
    y = mesh_unary(m, OP_FLATTEN, mesh_unary(m, OP_RELU, y));
    mesh_output(m, y);
    mesh_finish(m);
    must(onnx_write_bytes(m->g, ret, ret_bytes, &err), &err);
}

static void a_file_runs_at_any_batch(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    _cleanup_(freep) void *file = NULL;
    size_t bytes = 0;
    exported(DIM_BATCH, &m, &file, &bytes);
    _cleanup_(ort_closep) struct ort *ort = NULL;
    must(ort_open(file, bytes, 1, &ort, &err), &err);
    assert_int_equal(ort_fixed_batch(ort), 0);
    for (int64_t batch = 1; batch <= 3; batch++) {
        struct plan *plan = NULL;
        struct trial_run t = {0};
        must(plan_compile(m.g, &(struct plan_options){.batch = batch}, &plan, &err), &err);
        trial_run(&t, m.g, plan, 1);
        float out[3 * 288];
        must(ort_run(ort, batch, t.in[0]->data, out, 288, &err), &err);
        for (int64_t i = 0; i < batch * 288; i++)
            assert_true(fabsf(out[i] - ((float *)t.got[0]->data)[i]) < 1e-4f);
        trial_release(&t);
        plan_free(plan);
    }
    mesh_release(&m);
}

static void a_fixed_batch_is_run_in_parts(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    _cleanup_(freep) void *file = NULL;
    size_t bytes = 0;
    exported(2, &m, &file, &bytes);
    _cleanup_(ort_closep) struct ort *ort = NULL;
    must(ort_open(file, bytes, 1, &ort, &err), &err);
    assert_int_equal(ort_fixed_batch(ort), 2);
    static float in[4 * 108], out[4 * 288];
    must(ort_run(ort, 4, in, out, 288, &err), &err);
    assert_memory_equal(out, out + 2 * 288, 2 * 288 * sizeof(float));
    assert_int_equal(ort_run(ort, 3, in, out, 288, &err), -ERR_INVALID_ARGUMENT);
    mesh_release(&m);
}

static void a_wrong_width_is_refused(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    _cleanup_(freep) void *file = NULL;
    size_t bytes = 0;
    exported(DIM_BATCH, &m, &file, &bytes);
    _cleanup_(ort_closep) struct ort *ort = NULL;
    must(ort_open(file, bytes, 1, &ort, &err), &err);
    static float in[108], out[288];
    assert_int_equal(ort_run(ort, 1, in, out, 287, &err), -ERR_INVALID_ARGUMENT);
    mesh_release(&m);
}

static void garbage_is_refused_with_a_message(void **state)
{
    (void)state;
    struct ort *ort = NULL;
    struct err err = {0};
    assert_true(ort_open("no model", 8, 1, &ort, &err) < 0);
    assert_null(ort);
    assert_non_null(strstr(err.message, "ONNX Runtime"));
}

static void the_version_is_a_number(void **state)
{
    (void)state;
    assert_in_range(ort_version()[0], '1', '9');
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_file_runs_at_any_batch),
        cmocka_unit_test(a_fixed_batch_is_run_in_parts),
        cmocka_unit_test(a_wrong_width_is_refused),
        cmocka_unit_test(garbage_is_refused_with_a_message),
        cmocka_unit_test(the_version_is_a_number),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
