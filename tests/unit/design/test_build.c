/* Networks from designs: their shapes, their cost, and that the form which runs does the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/cuts.h"
#include "tests/unit/design/designs.h"

/* One of each type and of each of its options. */
static const char *const pieces[] = {
    "conv:8",
    "conv:8:s2",
    "conv:8:k5",
    "conv:8:k4:s2",
    "conv:8:pool",
    "conv:8:s3:pool",
    "conv:8:k1",
    "conv",
    "patch:8",
    "patch:12:k4:s2",
    "patch:8:k3:s3",
    "residual:8",
    "residual",
    "residual:8:s2",
    "conv:8 residual:8:s2",
    "bottleneck:24",
    "bottleneck:24:e2:s2",
    "bottleneck",
    "rep:8",
    "rep",
    "rep:8:s2",
    "conv:8 rep:8*2",
    "separable:8",
    "separable:8:s2:k5",
    "separable:8:se",
    "separable:se",
    "head",
    "head:pool",
    "patch:8:k4:s2 residual*2 rep head",
};
#define N_PIECES (sizeof(pieces) / sizeof(*pieces))

static const int64_t sizes[][3] = {{3, 32, 32}, {1, 49, 10}, {5, 9, 17}, {16, 6, 6}};
#define N_SIZES (sizeof(sizes) / sizeof(*sizes))

static struct design_ends ends_of(const int64_t size[3])
{
    return (struct design_ends){
        .channels = size[0], .height = size[1], .width = size[2], .outputs = 7, .seed = 5};
}

static void shapes_are_known_before_anything_is_built(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    for (size_t i = 0; i < N_PIECES * N_SIZES; i++) {
        const struct design_ends ends = ends_of(sizes[i % N_SIZES]);
        const char *text = pieces[i / N_SIZES];
        struct design design;
        struct design_ends at;
        struct err err = {0};
        expect_ok(design_parse(text, arena, &design, &err), &err);
        expect_ok(design_shape_at(&design, &ends, design.n, &at, &err), &err);
        _cleanup_(graph_freep) struct graph *g = design_graph(text, &ends);
        const struct shape *out = &g->values[g->outputs[0]]->shape;
        const bool head = design_is_head(&design.pieces[design.n - 1]);
        struct shape want = shape_make(4, (int64_t[]){DIM_BATCH, at.channels, at.height, at.width});
        want.rank = head ? 2 : 4;
        char said[128], built[128];
        if (!shape_equal(&want, out))
            fail_msg("%s: %s, not %s", text, shape_text(out, built), shape_text(&want, said));
        assert_int_equal(at.outputs, 7);
        expect_ok(design_shape_at(&design, &ends, 0, &at, &err), &err);
        assert_true(at.channels == ends.channels && at.height == ends.height);
        assert_int_equal(design_shape_at(&design, &ends, design.n + 1, &at, &err),
                         -ERR_INVALID_ARGUMENT);
    }
}

static void the_form_that_runs_has_no_norms_and_the_same_function(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_PIECES * N_SIZES; i++) {
        const struct design_ends ends = ends_of(sizes[i % N_SIZES]);
        const char *text = pieces[i / N_SIZES];
        _cleanup_(graph_freep) struct graph *g = design_graph(text, &ends), *run = NULL;
        struct err err = {0};
        shake_norms(g, i);
        expect_ok(graph_clone(g, &run, &err), &err);
        expect_ok(pass_simplify(run, &err), &err);
        const double difference = graph_difference(g, run);
        if (strstr(text, "rep") && !strstr(text, "residual"))
            assert_int_equal(count_op(run, OP_ADD), 0);
        if (count_op(run, OP_BATCH_NORMALIZATION) != 0 || !(difference < 1e-5))
            fail_msg("%s: %d norms, difference %g", text, count_op(run, OP_BATCH_NORMALIZATION),
                     difference);
    }
}

static void a_known_design_costs_what_it_must(void **state)
{
    (void)state;
    const struct design_ends ends = {.channels = 3, .height = 32, .width = 32, .outputs = 10};
    _cleanup_(graph_freep) struct graph *g =
        design_graph("conv:16 residual:16 residual:32:s2*2 head", &ends);
    struct err err = {0};
    expect_ok(pass_simplify(g, &err), &err);
    const int64_t macs = 1024 * (16 * 3 * 9)                           /* conv */
                         + 2 * 1024 * (16 * 16 * 9)                    /* residual:16 */
                         + 256 * (32 * 16 * 9 + 32 * 32 * 9 + 32 * 16) /* residual:32:s2 */
                         + 2 * 256 * (32 * 32 * 9) + 32 * 10;          /* residual:32, head */
    const int64_t weights = 16 * 3 * 9 + 16 + 2 * (16 * 16 * 9 + 16) + 32 * 16 * 9 + 32 +
                            32 * 32 * 9 + 32 + 32 * 16 + 32 + 2 * (32 * 32 * 9 + 32) + 330;
    const struct cost cost = graph_cost(g);
    assert_int_equal(cost.macs, macs);
    assert_int_equal(cost.parameters, weights);
}

static void names_and_seeds_are_the_callers(void **state)
{
    (void)state;
    struct design_ends ends = {.input = "picture",
                               .output = "what",
                               .channels = 1,
                               .height = 8,
                               .width = 8,
                               .outputs = 3,
                               .seed = 1};
    _cleanup_(graph_freep) struct graph *a = design_graph("conv:8 head", &ends);
    _cleanup_(graph_freep) struct graph *b = design_graph("conv:8 head", &ends);
    ends.seed = 2;
    _cleanup_(graph_freep) struct graph *c = design_graph("conv:8 head", &ends);
    assert_string_equal(a->values[a->inputs[0]]->name, "picture");
    assert_string_equal(a->values[a->outputs[0]]->name, "what");
    assert_true(graph_difference(a, b) == 0);
    assert_true(graph_difference(a, c) > 1e-3);
    ends.output = "picture";
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct graph *none = NULL;
    expect_ok(design_parse("conv:8", arena, &design, NULL), NULL);
    assert_int_equal(design_build(&design, &ends, &none, NULL), -ERR_ALREADY_EXISTS);
    assert_null(none);
}

/* Refused, before memory is taken, with this code and words. */
static void expect_refused(const char *text, const struct design_ends *ends, int code,
                           const char *says)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct graph *g = NULL;
    struct design_ends at;
    struct err err = {0}, again = {0};
    expect_ok(design_parse(text, arena, &design, &err), &err);
    int rc = design_build(&design, ends, &g, &err);
    if (rc != -code || !strstr(err.message, says))
        fail_msg("%s: %d %s", text, rc, err.message);
    assert_null(g);
    assert_int_equal(design_shape_at(&design, ends, design.n, &at, &again), -code);
    assert_string_equal(again.message, err.message);
}

static void what_does_not_fit_is_refused_with_the_piece(void **state)
{
    (void)state;
    struct design_ends ends = {.channels = 3, .height = 4, .width = 40, .outputs = 10};
    const int code = ERR_FAILED_PRECONDITION;
    expect_refused("conv:8:s2*2 conv:8:s4", &ends, code, "piece 3 'conv:8:s4'");
    expect_refused("conv:8 conv:8:s5:pool", &ends, code, "piece 2 'conv:8:s5:pool'");
    expect_refused("residual:8:s8", &ends, code, "piece 1 'residual:8:s8'");
    expect_refused("conv:4096*255 head", &ends, code, "parameters");
    ends.height = ends.width = 65536;
    expect_refused("conv:4096", &ends, code, "elements");
    ends.width = 65537;
    expect_refused("conv:8", &ends, ERR_INVALID_ARGUMENT, "width 65537");
    ends.width = 8;
    ends.channels = 0;
    expect_refused("conv:8", &ends, ERR_INVALID_ARGUMENT, "channels 0");
    ends.channels = 3;
    ends.height = INT64_MIN;
    expect_refused("conv:8", &ends, ERR_INVALID_ARGUMENT, "height");
    ends.height = 8;
    ends.outputs = 0;
    expect_refused("conv:8 head", &ends, ERR_INVALID_ARGUMENT, "outputs 0");
    ends.outputs = 1 << 20;
    expect_refused("conv:4096:k1 head", &ends, code, "piece 2 'head'");
    ends.outputs = 0; /* without a head nobody asks */
    _cleanup_(graph_freep) struct graph *g = design_graph("conv:8", &ends);
    assert_int_equal(g->n_outputs, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(shapes_are_known_before_anything_is_built),
        cmocka_unit_test(the_form_that_runs_has_no_norms_and_the_same_function),
        cmocka_unit_test(a_known_design_costs_what_it_must),
        cmocka_unit_test(names_and_seeds_are_the_callers),
        cmocka_unit_test(what_does_not_fit_is_refused_with_the_piece),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
