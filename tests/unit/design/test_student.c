/* A network by design in the place of another one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/mem.h"
#include "shared/design/student.h"
#include "shared/graph/onnx.h"
#include "tests/support/quant_nets.h"

#define DESIGN "conv:8 residual:16:s2 head"

/* Pictures [N, 3, 8, 8] -> answers [N, 10], as probabilities or not. */
static void make_original(struct net *net, bool softmax)
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv conv = {.in = 3, .out = 8, .kernel = 3};
    net_init(net, 5);
    int x = net_conv(net, "conv1", net_input(net, "picture", 4, dims), &conv);
    x = net_unary(net, OP_FLATTEN, "flat", net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    x = net_gemm(net, "answers", x, 8, 10, true);
    net_finish(net, softmax ? net_unary(net, OP_SOFTMAX, "chances", x) : x);
}

static struct graph *build(const struct graph *original, uint64_t seed)
{
    struct design_ends ends;
    struct graph *g = NULL;
    struct err err = {0};
    if (student_ends(original, seed, &ends, &err) < 0 ||
        student_build(DESIGN, original, &ends, &g, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(ends.channels, 3);
    assert_int_equal(ends.height, 8);
    assert_int_equal(ends.outputs, 10);
    return g;
}

static const char *name_of(const struct graph *g, int value)
{
    return g->values[value]->name;
}

static void it_reads_and_answers_under_the_same_names(void **state)
{
    (void)state;
    for (int softmax = 0; softmax < 2; softmax++) {
        struct net net;
        make_original(&net, softmax);
        _cleanup_(graph_freep) struct graph *g = build(net.g, 1);
        const struct value *out = g->values[g->outputs[0]];
        assert_string_equal(name_of(g, g->inputs[0]), name_of(net.g, net.g->inputs[0]));
        assert_string_equal(out->name, name_of(net.g, net.g->outputs[0]));
        assert_int_equal(g->nodes[out->producer]->op == OP_SOFTMAX, softmax);
        assert_int_equal(out->shape.dim[1], 10);
        assert_string_equal(graph_metadata(g, "hone.design"), DESIGN);
        net_release(&net);
    }
}

static void the_same_seed_gives_the_same_bytes(void **state)
{
    (void)state;
    struct net net;
    void *files[3] = {NULL};
    size_t bytes[3];
    make_original(&net, false);
    for (int i = 0; i < 3; i++) {
        _cleanup_(graph_freep) struct graph *g = build(net.g, i < 2 ? 7 : 8);
        assert_int_equal(onnx_write_bytes(g, &files[i], &bytes[i], NULL), 0);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_memory_equal(files[0], files[1], bytes[0]);
    assert_true(bytes[0] != bytes[2] || memcmp(files[0], files[2], bytes[0]) != 0);
    for (int i = 0; i < 3; i++)
        free(files[i]);
    net_release(&net);
}

static void what_answers_no_classes_has_no_student(void **state)
{
    (void)state;
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv conv = {.in = 3, .out = 8, .kernel = 3};
    struct net net;
    struct design_ends ends;
    struct err err = {0};
    net_init(&net, 5);
    net_finish(&net, net_conv(&net, "conv1", net_input(&net, "picture", 4, dims), &conv));
    assert_int_equal(student_ends(net.g, 0, &ends, &err), -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "answers are no classes"));
    net_release(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_reads_and_answers_under_the_same_names),
        cmocka_unit_test(the_same_seed_gives_the_same_bytes),
        cmocka_unit_test(what_answers_no_classes_has_no_student),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
