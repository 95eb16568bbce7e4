#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/graph.h"
#include "shared/graph/infer.h"

static const struct shape image = {.rank = 4, .dim = {DIM_BATCH, 2, 4, 4}};

static int add(struct graph *g, enum op op, const char *name, int input, const char *output)
{
    int n = graph_add_node(g, -1, op, name, 1, &input, 1, &output, NULL);
    assert_true(n >= 0);
    return g->nodes[n]->outputs[0];
}

/* x -> Relu a -> Sigmoid b -> Tanh c -> output */
static struct graph *chain(void)
{
    struct graph *g = graph_new(13, NULL);
    int x = graph_add_input(g, "x", DTYPE_F32, &image, NULL);
    int a = add(g, OP_RELU, "relu", x, "a");
    int b = add(g, OP_SIGMOID, "sigmoid", a, "b");
    int c = add(g, OP_TANH, "tanh", b, "c");
    assert_true(graph_add_output(g, c, NULL) >= 0);
    return g;
}

static void a_taken_name_gets_a_suffix(void **state)
{
    (void)state;
    struct graph *g = graph_new(13, NULL);
    int a = graph_add_input(g, "x", DTYPE_F32, &image, NULL);
    int b = graph_add_input(g, "x", DTYPE_F32, &image, NULL);
    int c = graph_add_input(g, NULL, DTYPE_F32, &image, NULL);
    assert_string_equal(g->values[a]->name, "x");
    assert_string_not_equal(g->values[b]->name, "x");
    assert_true(*g->values[c]->name);
    assert_int_equal(graph_find_value(g, g->values[b]->name), b);
    assert_int_equal(graph_find_value(g, "nothing"), -1);
    graph_free(g);
}

static void thousands_of_equal_names_stay_unique(void **state)
{
    (void)state;
    struct graph *g = graph_new(13, NULL);
    for (int i = 0; i < 5000; i++) {
        int v = graph_add_input(g, "same", DTYPE_F32, &image, NULL);
        assert_int_equal(v, i);
        assert_int_equal(graph_find_value(g, g->values[v]->name), v);
    }
    graph_free(g);
}

static void inserting_a_node_moves_the_later_ones(void **state)
{
    (void)state;
    struct graph *g = chain();
    int input = g->inputs[0];
    int n = graph_add_node(g, 1, OP_RELU, "early", 1, &input, 1, NULL, NULL);
    assert_int_equal(n, 1);
    assert_string_equal(g->nodes[2]->name, "sigmoid");
    assert_int_equal(g->values[graph_find_value(g, "b")]->producer, 2);
    assert_int_equal(g->values[graph_find_value(g, "a")]->producer, 0);
    assert_int_equal(g->values[g->nodes[1]->outputs[0]]->producer, 1);
    graph_free(g);
}

static void an_input_that_is_no_value_is_refused(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct err err = {0};
    int wrong = 99;
    assert_int_equal(graph_add_node(g, -1, OP_RELU, "bad", 1, &wrong, 1, NULL, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "bad"));
    assert_int_equal(graph_add_output(g, -1, &err), -ERR_INVALID_ARGUMENT);
    graph_free(g);
}

static void attributes_are_set_read_replaced_and_removed(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct node *node = g->nodes[0];
    int64_t pads[4] = {1, 2, 3, 4}, read[4] = {0};
    assert_int_equal(graph_set_attr_int(g, node, "axis", 3, NULL), 0);
    assert_int_equal(graph_set_attr_float(g, node, "alpha", 0.5f, NULL), 0);
    assert_int_equal(graph_set_attr_string(g, node, "mode", "edge", NULL), 0);
    assert_int_equal(graph_set_attr_ints(g, node, "pads", 4, pads, NULL), 0);
    assert_int_equal(graph_set_attr_int(g, node, "axis", -1, NULL), 0);
    assert_int_equal(node->n_attrs, 4);
    assert_int_equal(node_int(node, "axis", 7), -1);
    assert_int_equal(node_int(node, "alpha", 7), 7); /* another kind */
    assert_true(node_float(node, "alpha", 0) == 0.5f);
    assert_string_equal(node_string(node, "mode", "constant"), "edge");
    assert_int_equal(node_ints(node, "pads", 2, read), 4);
    assert_int_equal(read[1], 2);
    assert_int_equal(read[2], 0); /* no more than asked for */
    graph_remove_attr(node, "axis");
    assert_null(node_attr(node, "axis"));
    assert_int_equal(node->n_attrs, 3);
    graph_free(g);
}

static void uses_count_readers_and_know_outputs(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct arena *arena = arena_new();
    struct uses u;
    int a = graph_find_value(g, "a"), b = graph_find_value(g, "b"), c = graph_find_value(g, "c");
    graph_add_node(g, -1, OP_ADD, "twice", 2, (int[]){a, a}, 1, NULL, NULL);
    assert_int_equal(graph_uses(g, arena, &u, NULL), 0);
    assert_int_equal(uses_count(&u, a), 3);
    assert_int_equal(uses_sole(&u, a), -1);
    assert_int_equal(uses_sole(&u, b), 2);
    assert_int_equal(uses_sole(&u, c), -1);
    assert_true(u.is_output[c]);
    arena_free(arena);
    graph_free(g);
}

static void replacing_an_output_keeps_its_name(void **state)
{
    (void)state;
    struct graph *g = chain();
    int b = graph_find_value(g, "b"), c = graph_find_value(g, "c");
    assert_true(graph_can_replace(g, c, b));
    assert_false(graph_can_replace(g, c, g->inputs[0]));
    graph_replace_value(g, c, b);
    assert_int_equal(g->outputs[0], b);
    assert_string_equal(g->values[b]->name, "c");
    assert_int_equal(graph_find_value(g, "c"), b);
    assert_int_equal(graph_compact(g, NULL), 0);
    assert_int_equal(g->n_nodes, 2);
    graph_free(g);
}

static void renaming_refuses_the_name_of_another(void **state)
{
    (void)state;
    struct graph *g = chain();
    int a = graph_find_value(g, "a");
    assert_int_equal(graph_rename_value(g, a, "b", NULL), -ERR_ALREADY_EXISTS);
    assert_int_equal(graph_rename_value(g, a, "first", NULL), 0);
    assert_int_equal(graph_rename_value(g, a, "first", NULL), 0);
    assert_int_equal(graph_find_value(g, "first"), a);
    graph_free(g);
}

static void compacting_drops_what_nobody_reads(void **state)
{
    (void)state;
    struct graph *g = chain();
    int a = graph_find_value(g, "a");
    int unread = add(g, OP_ELU, "unread", a, "u");
    add(g, OP_ELU, "unread too", unread, "v");
    assert_int_equal(graph_compact(g, NULL), 0);
    assert_int_equal(g->n_nodes, 3);
    assert_int_equal(g->values[unread]->producer, -1);
    graph_free(g);
}

static void compacting_restores_the_order(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct node *last = g->nodes[2];
    g->nodes[2] = g->nodes[0];
    g->nodes[0] = last;
    g->values[g->nodes[0]->outputs[0]]->producer = 0;
    g->values[g->nodes[2]->outputs[0]]->producer = 2;
    assert_int_equal(graph_compact(g, NULL), 0);
    assert_string_equal(g->nodes[0]->name, "relu");
    assert_string_equal(g->nodes[1]->name, "sigmoid");
    assert_string_equal(g->nodes[2]->name, "tanh");
    assert_int_equal(g->values[graph_find_value(g, "c")]->producer, 2);
    graph_free(g);
}

static void a_cycle_is_refused_with_a_node_name(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct err err = {0};
    g->nodes[0]->inputs[0] = graph_find_value(g, "b");
    assert_int_equal(graph_compact(g, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "cycle"));
    assert_true(strstr(err.message, "relu") || strstr(err.message, "sigmoid"));
    graph_free(g);
}

static void a_reader_of_a_removed_value_is_named(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct err err = {0};
    graph_kill_node(g, 1);
    assert_int_equal(graph_compact(g, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "tanh"));
    assert_non_null(strstr(err.message, "'b'"));
    graph_free(g);
}

static void a_deep_chain_needs_no_deep_stack(void **state)
{
    (void)state;
    struct graph *g = graph_new(13, NULL);
    int v = graph_add_input(g, "x", DTYPE_F32, &image, NULL);
    enum { DEEP = 60000 };
    for (int i = 0; i < DEEP; i++)
        v = add(g, OP_RELU, NULL, v, NULL);
    graph_add_output(g, v, NULL);
    assert_int_equal(graph_compact(g, NULL), 0);
    assert_int_equal(graph_infer(g, NULL), 0);
    assert_int_equal(g->n_nodes, DEEP);
    graph_free(g);
}

static void an_input_can_become_a_constant(void **state)
{
    (void)state;
    struct graph *g = chain();
    struct shape shape = shape_at(&image, 3);
    struct tensor *t = tensor_new(DTYPE_F32, &shape, NULL);
    assert_int_equal(graph_make_constant(g, g->inputs[0], t, NULL), 0);
    tensor_free(t);
    assert_int_equal(g->n_inputs, 0);
    assert_int_equal(graph_infer(g, NULL), 0);
    assert_int_equal(g->values[g->outputs[0]]->shape.dim[0], 3);
    graph_free(g);
}

static void a_clone_is_equal_and_apart(void **state)
{
    (void)state;
    struct graph *g = chain(), *copy = NULL;
    graph_set_metadata(g, "seed", "7", NULL);
    g->nodes[0]->op = OP_LEAKY_RELU;
    graph_set_attr_float(g, g->nodes[0], "alpha", 0.5f, NULL);
    g->nodes[1]->hint = PRECISION_BF16;
    assert_int_equal(graph_clone(g, &copy, NULL), 0);
    graph_free(g);
    assert_int_equal(copy->n_nodes, 3);
    assert_int_equal(copy->nodes[1]->hint, PRECISION_BF16);
    assert_true(node_float(copy->nodes[0], "alpha", 0) == 0.5f);
    assert_string_equal(graph_metadata(copy, "seed"), "7");
    assert_string_equal(copy->values[copy->outputs[0]]->name, "c");
    assert_int_equal(graph_find_value(copy, "c"), copy->outputs[0]);
    assert_int_equal(graph_infer(copy, NULL), 0);
    graph_free(copy);
}

static void metadata_is_replaced_by_key(void **state)
{
    (void)state;
    struct graph *g = chain();
    graph_set_metadata(g, "k", "1", NULL);
    graph_set_metadata(g, "k", "2", NULL);
    assert_int_equal(g->n_metadata, 1);
    assert_string_equal(graph_metadata(g, "k"), "2");
    assert_null(graph_metadata(g, "other"));
    graph_free(g);
}

static void operators_and_precisions_have_names(void **state)
{
    (void)state;
    for (int op = 0; op < OP_COUNT; op++)
        assert_int_equal(op_parse(op_name((enum op)op)), op);
    assert_int_equal(op_parse("LSTM"), -1);
    enum precision p;
    assert_int_equal(precision_parse("bf16", &p, NULL), 0);
    assert_int_equal(p, PRECISION_BF16);
    assert_string_equal(precision_name(PRECISION_INT8), "int8");
    assert_int_equal(precision_parse("fp64", &p, NULL), -ERR_INVALID_ARGUMENT);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_taken_name_gets_a_suffix),
        cmocka_unit_test(thousands_of_equal_names_stay_unique),
        cmocka_unit_test(inserting_a_node_moves_the_later_ones),
        cmocka_unit_test(an_input_that_is_no_value_is_refused),
        cmocka_unit_test(attributes_are_set_read_replaced_and_removed),
        cmocka_unit_test(uses_count_readers_and_know_outputs),
        cmocka_unit_test(replacing_an_output_keeps_its_name),
        cmocka_unit_test(renaming_refuses_the_name_of_another),
        cmocka_unit_test(compacting_drops_what_nobody_reads),
        cmocka_unit_test(compacting_restores_the_order),
        cmocka_unit_test(a_cycle_is_refused_with_a_node_name),
        cmocka_unit_test(a_reader_of_a_removed_value_is_named),
        cmocka_unit_test(a_deep_chain_needs_no_deep_stack),
        cmocka_unit_test(an_input_can_become_a_constant),
        cmocka_unit_test(a_clone_is_equal_and_apart),
        cmocka_unit_test(metadata_is_replaced_by_key),
        cmocka_unit_test(operators_and_precisions_have_names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
