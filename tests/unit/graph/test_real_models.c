/* The real networks: they import without leftovers, cost what is published, have the blocks that
 * they were built of, and stay what they are through every pass and export. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/cuts.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "tests/support/onnx_text.h"

static const struct {
    const char *file;
    double mega_macs; /* to a tenth */
    int nodes;        /* after simplification */
} models[] = {
    {"resnet20-cifar10.onnx", 40.6, 54},
    {"resnet32-cifar10.onnx", 68.9, 84},
    {"resnet44-cifar10.onnx", 97.2, 114},
    {"resnet56-cifar10.onnx", 125.5, 144},
    {"resnet56-cifar10-torch-export.onnx", 125.5, 144},
    {"resnet8-cifar10-mlperf.onnx", 12.5, 23},
    {"squeezenet10-imagenet.onnx", 861.3, 65},
    {"mobilenetv1-05-160-imagenet.onnx", 76.5, 58},
    {"dscnn-kws-mlperf.onnx", 2.7, 22},
};
enum { MODELS = sizeof(models) / sizeof(*models) };

/* The graph; skips the test where there are no models. */
static struct graph *load(const char *file)
{
    const char *data = getenv("HONE_DATA");
    _cleanup_(freep) char *path =
        str_printf("%s/models/%s", data ? data : HONE_SOURCE_DIR "/../shared/data", file);
    struct graph *g = NULL;
    struct err err = {0};
    if (!fs_exists(path)) {
        print_message("skip: %s is not there\n", path);
        skip();
    }
    if (onnx_read_file(path, NULL, &g, &err) < 0)
        fail_msg("%s", err.message);
    return g;
}

static void they_cost_what_is_published(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        struct graph *g = load(models[i].file);
        double macs = (double)graph_cost(g).macs / 1e6;
        if (macs < models[i].mega_macs - 0.05 || macs > models[i].mega_macs + 0.05)
            fail_msg("%s: %.2f M MACs instead of %.1f", models[i].file, macs, models[i].mega_macs);
        graph_free(g);
    }
}

static void no_computed_shapes_are_left(void **state)
{
    (void)state;
    static const enum op leftovers[] = {OP_CONSTANT, OP_CONSTANT_OF_SHAPE, OP_SHAPE,     OP_GATHER,
                                        OP_CAST,     OP_UNSQUEEZE,         OP_TRANSPOSE, OP_EXPAND,
                                        OP_IDENTITY};
    for (int i = 0; i < MODELS; i++) {
        struct graph *g = load(models[i].file);
        for (int n = 0; n < g->n_nodes; n++)
            for (size_t k = 0; k < sizeof(leftovers) / sizeof(*leftovers); k++)
                if (g->nodes[n]->op == leftovers[k])
                    fail_msg("%s: %s", models[i].file, op_name(leftovers[k]));
        graph_free(g);
    }
}

static void simplification_folds_and_keeps_the_function(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        struct graph *g = load(models[i].file), *before = NULL;
        struct err err = {0};
        assert_int_equal(graph_clone(g, &before, NULL), 0);
        if (pass_simplify(g, &err) < 0)
            fail_msg("%s: %s", models[i].file, err.message);
        if (g->n_nodes != models[i].nodes)
            fail_msg("%s: %d nodes", models[i].file, g->n_nodes);
        double difference = graph_difference(before, g);
        if (!(difference < 1e-5))
            fail_msg("%s: difference %g", models[i].file, difference);
        graph_free(before);
        graph_free(g);
    }
}

static void both_exports_of_resnet56_are_the_same_network(void **state)
{
    (void)state;
    struct graph *a = load("resnet56-cifar10.onnx"),
                 *b = load("resnet56-cifar10-torch-export.onnx");
    assert_true(pass_simplify(a, NULL) >= 0 && pass_simplify(b, NULL) >= 0);
    assert_int_equal(a->n_nodes, b->n_nodes);
    assert_string_equal(a->values[a->inputs[0]]->name, "input");
    assert_true(graph_cost(a).macs == graph_cost(b).macs);
    double difference = graph_difference(a, b);
    if (!(difference < 1e-4))
        fail_msg("difference %g", difference);
    graph_free(a);
    graph_free(b);
}

static void an_export_reads_back_to_the_same_bytes(void **state)
{
    (void)state;
    for (int i = 0; i < MODELS; i++) {
        struct graph *g = load(models[i].file), *h = NULL;
        void *a = NULL, *b = NULL;
        size_t n = 0, m = 0;
        assert_true(pass_simplify(g, NULL) >= 0);
        assert_int_equal(onnx_write_bytes(g, &a, &n, NULL), 0);
        assert_int_equal(onnx_read_bytes(a, n, NULL, NULL, &h, NULL), 0);
        assert_int_equal(onnx_write_bytes(h, &b, &m, NULL), 0);
        assert_int_equal(n, m);
        assert_memory_equal(a, b, n);
        free(a);
        free(b);
        graph_free(g);
        graph_free(h);
    }
}

/* Residual blocks end in Add and Relu; the value behind each is a cut point, with nothing between
 * the Add and the cut point before the block. */
static void check_residual_blocks(const char *file, int blocks)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct graph *g = load(file);
    struct cuts cuts;
    assert_true(pass_simplify(g, NULL) >= 0);
    assert_int_equal(graph_cuts(g, arena, &cuts, NULL), 0);
    assert_int_equal(cuts.n_points, cuts.n_blocks + 1);
    assert_int_equal(cuts.points[0], g->inputs[0]);
    assert_int_equal(cuts.points[cuts.n_points - 1], g->outputs[0]);
    int found = 0, nodes = 0;
    for (int b = 0; b < cuts.n_blocks; b++) {
        const struct block *block = &cuts.blocks[b];
        nodes += block->n_nodes;
        int adds = 0, convs = 0;
        for (int i = 0; i < block->n_nodes; i++) {
            adds += g->nodes[block->nodes[i]]->op == OP_ADD;
            convs += g->nodes[block->nodes[i]]->op == OP_CONV;
        }
        assert_true(adds <= 1);
        if (adds == 0)
            continue;
        found++;
        assert_int_equal(convs >= 2, 1);
        assert_int_equal(g->nodes[g->values[block->to]->producer]->op, OP_ADD);
        assert_int_equal(cuts.blocks[b + 1].n_nodes, 1); /* the Relu behind */
    }
    assert_int_equal(found, blocks);
    assert_int_equal(nodes, g->n_nodes);
    graph_free(g);
}

static void resnets_are_cut_at_every_residual_block(void **state)
{
    (void)state;
    check_residual_blocks("resnet20-cifar10.onnx", 9);
    check_residual_blocks("resnet56-cifar10.onnx", 27);
    check_residual_blocks("resnet56-cifar10-torch-export.onnx", 27);
    check_residual_blocks("resnet8-cifar10-mlperf.onnx", 3);
}

static void squeezenet_opens_for_any_batch(void **state)
{
    (void)state;
    struct graph *g = load("squeezenet10-imagenet.onnx");
    struct err err = {0};
    assert_int_equal(g->values[g->inputs[0]]->shape.dim[0], 1);
    if (graph_make_batch_symbolic(g, &err) < 0)
        fail_msg("%s", err.message);
    char text[128];
    assert_string_equal(shape_text(&g->values[g->outputs[0]]->shape, text), "[N,1000]");
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(they_cost_what_is_published),
        cmocka_unit_test(no_computed_shapes_are_left),
        cmocka_unit_test(simplification_folds_and_keeps_the_function),
        cmocka_unit_test(both_exports_of_resnet56_are_the_same_network),
        cmocka_unit_test(an_export_reads_back_to_the_same_bytes),
        cmocka_unit_test(resnets_are_cut_at_every_residual_block),
        cmocka_unit_test(squeezenet_opens_for_any_batch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
