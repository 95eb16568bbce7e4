/*
 * Real networks ($HONE_DATA/models, else ../shared/data/models beside the checkout): the plain-C
 * reference and the fp32 plan on oneDNN give what ONNX Runtime gives, within 1e-4 of the largest
 * output.
 */
#include <dirent.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/rng.h"
#include "shared/base/str.h"
#include "shared/graph/eval.h"
#include "shared/graph/onnx.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan.h"

#define TOLERANCE 1e-4
#define MAX_MODEL ((size_t)1 << 30)
#define SAMPLES 2 /* where the model leaves the batch open */

/* malloc'ed; NULL when there are none. */
static char *models_folder(void)
{
    const char *data = getenv("HONE_DATA");
    char *path = data ? str_printf("%s/models", data)
                      : str_printf("%s/../shared/data/models", HONE_SOURCE_DIR);
    assert_non_null(path);
    if (fs_is_dir(path))
        return path;
    free(path);
    return NULL;
}

/* One model, its input and what ONNX Runtime makes of it. */
struct subject {
    struct graph *graph;
    struct tensor *input, *expected;
    int64_t batch;
};

static void subject_release(struct subject *s)
{
    graph_free(s->graph);
    tensor_free(s->input);
    tensor_free(s->expected);
}

static void fill_random(struct tensor *t, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    for (int64_t i = 0; i < shape_elements(&t->shape); i++)
        tensor_set_f64(t, i, rng_normal(&rng));
}

static int run_ort(struct subject *s, const void *model, size_t bytes, struct err *err)
{
    _cleanup_(ort_closep) struct ort *ort = NULL;
    int rc = ort_open(model, bytes, 1, &ort, err);
    if (rc < 0)
        return rc;
    return ort_run(ort, s->batch, s->input->data, s->expected->data,
                   shape_elements(&s->expected->shape) / s->batch, err);
}

static int subject_open(const char *path, struct subject *s, struct err *err)
{
    _cleanup_(freep) void *model = NULL;
    size_t bytes;
    int rc = fs_read(path, MAX_MODEL, &model, &bytes, err);
    if (rc == 0)
        rc = onnx_read_bytes(model, bytes, NULL, NULL, &s->graph, err);
    if (rc < 0)
        return rc;
    if (s->graph->n_inputs != 1)
        return err_set(err, ERR_UNIMPLEMENTED, "%d inputs", s->graph->n_inputs);
    const struct value *input = s->graph->values[s->graph->inputs[0]];
    const struct value *output = s->graph->values[s->graph->outputs[0]];
    s->batch = shape_has_batch(&input->shape) ? SAMPLES : input->shape.dim[0];
    struct shape in = shape_at(&input->shape, s->batch), out = shape_at(&output->shape, s->batch);
    s->input = tensor_new(input->dtype, &in, err);
    s->expected = tensor_new(output->dtype, &out, err);
    if (!s->input || !s->expected)
        return -ERR_RESOURCE_EXHAUSTED;
    fill_random(s->input, 20);
    return run_ort(s, model, bytes, err);
}

/* Largest difference as a part of the largest expected value. */
static double distance(const struct tensor *got, const struct tensor *want)
{
    double most = 0, off = 0;
    for (int64_t i = 0; i < shape_elements(&want->shape); i++) {
        double x = tensor_get_f64(got, i), y = tensor_get_f64(want, i);
        if (!isfinite(x) || !isfinite(y))
            return INFINITY;
        most = fmax(most, fabs(y));
        off = fmax(off, fabs(x - y));
    }
    return most > 0 ? off / most : off;
}

static int run_reference(const struct subject *s, double *ret, struct err *err)
{
    struct tensor *outputs[16] = {0};
    assert_true(s->graph->n_outputs <= 16);
    int rc = eval_graph(s->graph, (const struct tensor *const *)&s->input, outputs, err);
    if (rc == 0)
        *ret = distance(outputs[0], s->expected);
    for (int i = 0; i < s->graph->n_outputs; i++)
        tensor_free(outputs[i]);
    return rc;
}

static int run_plan(const struct subject *s, double *ret, struct err *err)
{
    struct plan_options options = {
        .batch = s->batch, .threads = 1, .precision = PRECISION_FP32, .choose_by_name = true};
    _cleanup_(plan_freep) struct plan *plan = NULL;
    int rc = plan_compile(s->graph, &options, &plan, err);
    if (rc < 0)
        return rc;
    assert_int_equal(plan_n_outputs(plan), 1);
    _cleanup_(tensor_freep) struct tensor *out =
        tensor_new(s->expected->dtype, &s->expected->shape, err);
    if (!out)
        return -ERR_RESOURCE_EXHAUSTED;
    rc = plan_run(plan, (const void *const *)&s->input->data, &out->data, err);
    if (rc == 0)
        *ret = distance(out, s->expected);
    return rc;
}

typedef int run_fn(const struct subject *s, double *ret, struct err *err);

static int is_model(const struct dirent *entry)
{
    return str_ends_with(entry->d_name, ".onnx");
}

/* Says how each model did; the number of those that did not match. */
static int run_all(const char *folder, run_fn *fn)
{
    struct dirent **entries = NULL;
    int failures = 0, n = scandir(folder, &entries, is_model, alphasort);
    assert_true(n > 0);
    for (int i = 0; i < n; i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s", folder, entries[i]->d_name);
        _cleanup_(subject_release) struct subject s = {0};
        struct err err = {0};
        double off = INFINITY;
        int rc = subject_open(path, &s, &err);
        if (rc == 0)
            rc = fn(&s, &off, &err);
        print_message("  %-36s off by %.1e%s%s\n", entries[i]->d_name, off, rc < 0 ? ": " : "",
                      rc < 0 ? err.message : "");
        failures += rc < 0 || off > TOLERANCE;
        free(entries[i]);
    }
    free(entries);
    return failures;
}

static void compare_with_ort(run_fn *fn)
{
    _cleanup_(freep) char *folder = models_folder();
    if (!folder) {
        print_message("skip: no models (set HONE_DATA)\n");
        skip();
    }
    print_message("against ONNX Runtime %s\n", ort_version());
    assert_int_equal(run_all(folder, fn), 0);
}

static void the_reference_matches_onnx_runtime_on_every_model(void **state)
{
    (void)state;
    compare_with_ort(run_reference);
}

static void the_fp32_plan_matches_onnx_runtime_on_every_model(void **state)
{
    (void)state;
    compare_with_ort(run_plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_reference_matches_onnx_runtime_on_every_model),
        cmocka_unit_test(the_fp32_plan_matches_onnx_runtime_on_every_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
