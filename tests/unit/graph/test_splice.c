/* One network put into another. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/cuts.h"
#include "shared/graph/infer.h"
#include "shared/graph/splice.h"
#include "tests/support/quant_nets.h"

/* x -> a -> b -> c, three convolutions. */
static struct graph *chain(struct net *net, uint64_t seed)
{
    static const int64_t dims[] = {DIM_BATCH, 4, 6, 6};
    const struct net_conv conv = {.in = 4, .out = 4, .kernel = 3};
    net_init(net, seed);
    int x = net_input(net, "x", 4, dims);
    x = net_conv(net, "a", x, &conv);
    x = net_conv(net, "b", x, &conv);
    x = net_conv(net, "c", x, &conv);
    net_finish(net, x);
    return net->g;
}

static int blocks(const struct graph *g, int first, int last, struct graph **ret)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct cuts cuts;
    int rc = graph_cuts(g, arena, &cuts, NULL);
    return rc < 0 ? rc : graph_extract_blocks(g, &cuts, first, last, ret, NULL);
}

/* What was cut out and put back computes the same. */
static void a_part_that_is_put_back_changes_nothing(void **state)
{
    (void)state;
    struct net net = {0};
    const struct graph *g = chain(&net, 1);
    for (int last = 1; last < 3; last++) {
        _cleanup_(graph_freep) struct graph *part = NULL, *copy = NULL;
        assert_int_equal(blocks(g, 1, last, &part), 0);
        assert_int_equal(graph_clone(g, &copy, NULL), 0);
        const int from = graph_find_value(copy, "a_out");
        const int to = graph_find_value(copy, last == 1 ? "b_out" : "c_out");
        const int made = graph_splice(copy, part, from, "new.", NULL);
        assert_true(made >= 0);
        graph_replace_value(copy, to, made);
        assert_true(graph_compact(copy, NULL) >= 0);
        assert_int_equal(graph_infer(copy, NULL), 0);
        assert_int_equal(copy->n_nodes, 3);
        assert_string_equal(copy->nodes[1]->name, "new.b");
        assert_string_equal(copy->values[copy->outputs[0]]->name, "c_out");
        struct tensor *a = net_run(g, 3, 2, 1, 0), *b = net_run(copy, 3, 2, 1, 0);
        assert_memory_equal(a->data, b->data, tensor_bytes(a));
        tensor_free(a);
        tensor_free(b);
    }
    net_release(&net);
}

static void names_that_are_taken_get_others(void **state)
{
    (void)state;
    struct net net = {0};
    const struct graph *g = chain(&net, 1);
    _cleanup_(graph_freep) struct graph *copy = NULL;
    assert_int_equal(graph_clone(g, &copy, NULL), 0);
    const int made = graph_splice(copy, g, copy->outputs[0], "", NULL);
    assert_true(made >= 0);
    copy->outputs[0] = made;
    assert_true(graph_compact(copy, NULL) >= 0);
    assert_int_equal(graph_infer(copy, NULL), 0);
    assert_int_equal(copy->n_nodes, 6);
    for (int i = 0; i < 6; i++)
        for (int k = 0; k < i; k++)
            assert_string_not_equal(copy->nodes[i]->name, copy->nodes[k]->name);
    net_release(&net);
}

static void a_part_has_one_input_and_one_output(void **state)
{
    (void)state;
    struct net net = {0}, two = {0};
    static const int64_t dims[] = {DIM_BATCH, 4};
    const struct graph *g = chain(&net, 1);
    _cleanup_(graph_freep) struct graph *copy = NULL;
    assert_int_equal(graph_clone(g, &copy, NULL), 0);
    net_init(&two, 1);
    const int a = net_input(&two, "p", 2, dims), b = net_input(&two, "q", 2, dims);
    net_finish(&two, net_add(&two, "sum", a, b));
    struct err err = {0};
    assert_int_equal(graph_splice(copy, two.g, copy->inputs[0], "", &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "2 inputs"));
    net_release(&net);
    net_release(&two);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_part_that_is_put_back_changes_nothing),
        cmocka_unit_test(names_that_are_taken_get_others),
        cmocka_unit_test(a_part_has_one_input_and_one_output),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
