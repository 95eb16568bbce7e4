/*
 * The ONNX conformance suite (Debian's libonnx-testdata): every case whose operators and data types
 * are Hone's is imported and must give the expected outputs, by the plain-C reference and by the
 * inference plan on oneDNN in fp32. Prints how many of how many, per operator, and why the others
 * are left out.
 */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shared/base/str.h"
#include "shared/graph/cuts.h"
#include "shared/graph/eval.h"
#include "shared/graph/onnx.h"
#include "shared/nn/plan.h"
#include "tests/support/onnx_case.h"

#define RTOL 1e-3
#define ATOL 1e-7

/* A line of a table: cases of one operator, or left out for one reason. */
struct line {
    char name[64];
    int total, reference, plan;
    int kernels; /* of `plan`: some step is a kernel of oneDNN's, not plain C */
};

struct table {
    struct line lines[128];
    int n;
};

static struct line *line_of(struct table *table, const char *name)
{
    for (int i = 0; i < table->n; i++) {
        if (strcmp(table->lines[i].name, name) == 0)
            return &table->lines[i];
    }
    assert_true(table->n < 128);
    struct line *line = &table->lines[table->n++];
    str_copy(line->name, sizeof(line->name), name);
    return line;
}

static int by_name(const void *a, const void *b)
{
    const struct line *x = a, *y = b;
    return strcmp(x->name, y->name);
}

static void print_line(const struct line *l)
{
    print_message("  %-20s %3d of %3d / %3d of %3d (%d)\n", l->name, l->reference, l->total,
                  l->plan, l->total, l->kernels);
}

static void print_table(struct table *cases, struct table *reasons)
{
    struct line sum = {.name = "all"};
    qsort(cases->lines, (size_t)cases->n, sizeof(cases->lines[0]), by_name);
    print_message("operator: passed of total (plain C / plan on oneDNN; of the latter, those with "
                  "kernels of oneDNN's)\n");
    for (int i = 0; i < cases->n; i++) {
        const struct line *l = &cases->lines[i];
        print_line(l);
        sum.total += l->total;
        sum.reference += l->reference;
        sum.plan += l->plan;
        sum.kernels += l->kernels;
    }
    print_line(&sum);
    qsort(reasons->lines, (size_t)reasons->n, sizeof(reasons->lines[0]), by_name);
    for (int i = 0; i < reasons->n; i++)
        print_message("left out: %4d with %s\n", reasons->lines[i].total, reasons->lines[i].name);
}

/* ---- running ------------------------------------------------------------------------------ */

static int compare_all(const struct onnx_case_run *run, struct tensor *const *outputs,
                       struct err *err)
{
    for (int i = 0; i < run->graph->n_outputs; i++) {
        int rc = onnx_case_compare(outputs[i], run->expected[i], RTOL, ATOL, err);
        if (rc < 0)
            return err_wrap(err, "output %d", i);
    }
    return 0;
}

static void release_all(struct tensor **outputs)
{
    for (int i = 0; i < ONNX_CASE_MAX_VALUES; i++)
        outputs[i] = tensor_free(outputs[i]);
}

static int run_reference(const struct onnx_case_run *run, bool *ret_kernels, struct err *err)
{
    *ret_kernels = false;
    struct tensor *outputs[ONNX_CASE_MAX_VALUES] = {0};
    int rc = eval_graph(run->graph, (const struct tensor *const *)run->inputs, outputs, err);
    if (rc == 0)
        rc = compare_all(run, outputs, err);
    release_all(outputs);
    return rc;
}

static int64_t batch_of(const struct onnx_case_run *run)
{
    for (int i = 0; i < run->graph->n_inputs; i++) {
        const struct shape *shape = &run->graph->values[run->graph->inputs[i]]->shape;
        for (int k = 0; k < shape->rank; k++) {
            if (shape->dim[k] == DIM_BATCH)
                return run->inputs[i]->shape.dim[k];
        }
    }
    return 1;
}

static bool has_kernels(const struct plan *plan)
{
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const struct plan_step *step = plan_step(plan, i);
        if (step->kind == STEP_COMPUTE && strncmp(step->implementation, "reference", 9) != 0)
            return true;
    }
    return false;
}

/* Part of the names of the implementations that steps must have where they can; NULL: any. */
static const char *forced;
static int forced_steps; /* that had */

static void count_forced(const struct plan *plan)
{
    for (int i = 0; forced && i < plan_n_steps(plan); i++)
        forced_steps += strstr(plan_step(plan, i)->implementation, forced) != NULL;
}

static int run_plan(const struct onnx_case_run *run, bool *ret_kernels, struct err *err)
{
    struct plan_options options = {.batch = batch_of(run),
                                   .threads = 1,
                                   .precision = PRECISION_FP32,
                                   .choose_by_name = true,
                                   .implementation = forced};
    _cleanup_(plan_freep) struct plan *plan = NULL;
    int rc = plan_compile(run->graph, &options, &plan, err);
    if (rc < 0)
        return rc;
    *ret_kernels = has_kernels(plan);
    count_forced(plan);
    struct tensor *outputs[ONNX_CASE_MAX_VALUES] = {0};
    const void *in[ONNX_CASE_MAX_VALUES];
    void *out[ONNX_CASE_MAX_VALUES];
    for (int i = 0; i < plan_n_inputs(plan); i++)
        in[i] = run->inputs[i]->data;
    for (int i = 0; i < plan_n_outputs(plan) && rc == 0; i++) {
        const struct plan_port *port = plan_output(plan, i);
        outputs[i] = tensor_new(port->dtype, &port->shape, err);
        rc = outputs[i] ? 0 : -ERR_RESOURCE_EXHAUSTED;
        out[i] = outputs[i] ? outputs[i]->data : NULL;
    }
    if (rc == 0)
        rc = plan_run(plan, in, out, err);
    if (rc == 0)
        rc = compare_all(run, outputs, err);
    release_all(outputs);
    return rc;
}

typedef int run_fn(const struct onnx_case_run *run, bool *ret_kernels, struct err *err);

/* Whether all data sets of the case pass. */
static bool passes(const struct onnx_case *c, enum onnx_case_binding binding, run_fn *fn,
                   const char *how, bool *ret_kernels)
{
    for (int set = 0; set < c->n_data_sets; set++) {
        _cleanup_(onnx_case_run_release) struct onnx_case_run run = {0};
        struct err err = {0};
        int rc = onnx_case_load(c, set, binding, &run, &err);
        if (rc == 0)
            rc = fn(&run, ret_kernels, &err);
        if (rc < 0) {
            print_error("FAILED %s, data set %d, %s: %s\n", c->name, set, how, err.message);
            return false;
        }
    }
    return c->n_data_sets > 0;
}

static void run_case(const struct onnx_case *c, struct table *cases, struct table *reasons)
{
    if (c->left_out) {
        line_of(reasons, c->left_out)->total++;
        return;
    }
    struct line *line = line_of(cases, c->operators);
    line->total++;
    bool ignored = false, kernels = false;
    line->reference += passes(c, BIND_STEERING, run_reference, "reference", &ignored);
    /* Weights as inputs and as constants: oneDNN's kernels want them constant. */
    bool passed = passes(c, BIND_STEERING, run_plan, "oneDNN", &ignored) &&
                  passes(c, BIND_ALL_BUT_FIRST, run_plan, "oneDNN, constant weights", &kernels);
    line->plan += passed;
    line->kernels += passed && (kernels || ignored);
}

static int is_case(const struct dirent *entry)
{
    return str_starts_with(entry->d_name, "test_");
}

static void run_folder(const char *folder, struct table *cases, struct table *reasons)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, is_case, alphasort);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s", folder, entries[i]->d_name);
        struct onnx_case c;
        struct err err = {0};
        assert_non_null(path);
        if (onnx_case_open(path, &c, &err) < 0)
            fail_msg("%s: %s", path, err.message);
        run_case(&c, cases, reasons);
        free(entries[i]);
    }
    free(entries);
}

static void every_case_with_our_operators_gives_the_expected_outputs(void **state)
{
    (void)state;
    static const char *const folders[] = {"node", "simple", "pytorch-operator",
                                          "pytorch-converted"};
    const char *root = onnx_case_root();
    if (!root) {
        print_message("skip: no ONNX conformance data (Debian package libonnx-testdata)\n");
        skip();
    }
    struct table cases = {0}, reasons = {0};
    for (size_t i = 0; i < sizeof(folders) / sizeof(folders[0]); i++) {
        char path[512];
        snprintf(path, sizeof(path), "%s/%s", root, folders[i]);
        run_folder(path, &cases, &reasons);
    }
    print_table(&cases, &reasons);
    for (int i = 0; i < cases.n; i++) {
        assert_int_equal(cases.lines[i].reference, cases.lines[i].total);
        assert_int_equal(cases.lines[i].plan, cases.lines[i].total);
    }
}

/* ---- every implementation in turn ---------------------------------------------------------- */

static int forced_folder(const char *folder, int *ret_cases)
{
    struct dirent **entries = NULL;
    int n = scandir(folder, &entries, is_case, alphasort), failures = 0;
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s", folder, entries[i]->d_name);
        struct onnx_case c;
        bool kernels = false;
        free(entries[i]);
        if (!path || onnx_case_open(path, &c, NULL) < 0 || c.left_out)
            continue;
        failures += !passes(&c, BIND_ALL_BUT_FIRST, run_plan, forced, &kernels);
        ++*ret_cases;
    }
    free(entries);
    return failures;
}

/* Steps for which an implementation of the name exists run on it, all others as they like. */
static void every_implementation_forced_in_turn_gives_the_expected_outputs(void **state)
{
    (void)state;
    static const char *const names[] = {"jit:", "jit_1x1",          "jit_dw",        "brg",
                                        "gemm", "winograd:vectors", "winograd:plain"};
    const char *root = onnx_case_root();
    if (!root) {
        print_message("skip: no ONNX conformance data (Debian package libonnx-testdata)\n");
        skip();
    }
    int failures = 0, any = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        int cases = 0;
        char path[512];
        forced = names[i];
        forced_steps = 0;
        snprintf(path, sizeof(path), "%s/node", root);
        failures += forced_folder(path, &cases);
        snprintf(path, sizeof(path), "%s/pytorch-operator", root);
        failures += forced_folder(path, &cases);
        snprintf(path, sizeof(path), "%s/pytorch-converted", root);
        failures += forced_folder(path, &cases);
        print_message("  %-18s %4d steps of %d cases ran on it\n", forced, forced_steps, cases);
        any += forced_steps > 0;
    }
    forced = NULL;
    assert_int_equal(failures, 0);
    assert_true(any >= 2); /* names differ between CPUs, but some of these are everywhere */
}

/* ---- well-known networks with trivial weights --------------------------------------------- */

/* The reference would take too long for larger ones. */
#define REFERENCE_MAX_MACS ((int64_t)1000000000)

/* As ONNX's runner feeds them: 0, 1/n, 2/n, ... */
static void fill_ramp(struct tensor *t)
{
    int64_t n = shape_elements(&t->shape);
    for (int64_t i = 0; i < n; i++)
        tensor_set_f64(t, i, (double)i / (double)n);
}

static int load_light(const char *root, const char *name, struct onnx_case_run *run,
                      struct err *err)
{
    char path[512];
    snprintf(path, sizeof(path), "%s/light/light_%s.onnx", root, name);
    int rc = onnx_read_file(path, NULL, &run->graph, err);
    if (rc < 0)
        return rc;
    const struct value *input = run->graph->values[run->graph->inputs[0]];
    struct shape shape = shape_at(&input->shape, 1);
    run->inputs[0] = tensor_new(input->dtype, &shape, err);
    if (!run->inputs[0])
        return -ERR_RESOURCE_EXHAUSTED;
    fill_ramp(run->inputs[0]);
    snprintf(path, sizeof(path), "%s/light/light_%s_output_0.pb", root, name);
    return onnx_read_tensor(path, &run->expected[0], err);
}

static void well_known_networks_give_the_expected_outputs(void **state)
{
    (void)state;
    static const char *const names[] = {"bvlc_alexnet", "densenet121", "inception_v1",
                                        "inception_v2", "squeezenet",  "vgg19",
                                        "zfnet512"};
    const char *root = onnx_case_root();
    if (!root) {
        print_message("skip: no ONNX conformance data (Debian package libonnx-testdata)\n");
        skip();
    }
    int failures = 0;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        _cleanup_(onnx_case_run_release) struct onnx_case_run run = {0};
        struct err err = {0};
        bool ignored, small = false;
        int rc = load_light(root, names[i], &run, &err);
        if (rc == 0)
            small = graph_cost(run.graph).macs <= REFERENCE_MAX_MACS;
        if (rc == 0 && small)
            rc = run_reference(&run, &ignored, &err);
        if (rc == 0)
            rc = run_plan(&run, &ignored, &err);
        print_message("  %-14s %s%s\n", names[i],
                      rc < 0  ? "FAILED: "
                      : small ? "plain C and oneDNN"
                              : "oneDNN",
                      rc < 0 ? err.message : "");
        failures += rc < 0;
    }
    assert_int_equal(failures, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_case_with_our_operators_gives_the_expected_outputs),
        cmocka_unit_test(every_implementation_forced_in_turn_gives_the_expected_outputs),
        cmocka_unit_test(well_known_networks_give_the_expected_outputs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
