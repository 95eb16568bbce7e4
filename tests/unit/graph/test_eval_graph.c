/* The evaluator: whole graphs. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <cmocka.h>

#include "tests/support/expect.h"

static int add(struct graph *g, enum op op, const char *name, int a, int b)
{
    int index = graph_add_node(g, -1, op, name, b < 0 ? 1 : 2, (int[]){a, b}, 1, NULL, NULL);
    assert_true(index >= 0);
    return g->nodes[index]->outputs[0];
}

static int input(struct graph *g, const char *name, struct shape shape)
{
    int value = graph_add_input(g, name, DTYPE_F32, &shape, NULL);
    assert_true(value >= 0);
    return value;
}

static int constant(struct graph *g, const char *name, float x)
{
    struct shape scalar = SCALAR;
    int value = graph_add_constant(g, name, DTYPE_F32, &scalar, &x, NULL);
    assert_true(value >= 0);
    return value;
}

static void values_flow_and_the_batch_comes_from_the_input(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "x", SHAPE(DIM_BATCH, 2));
    int r = add(g, OP_RELU, "relu", x, -1);
    int y = add(g, OP_ADD, "sum", r, x); /* x is read twice */
    graph_add_output(g, y, NULL);
    for (int64_t batch = 0; batch < 3; batch++) {
        _cleanup_(tensor_freep) struct tensor *in = TENSOR(DTYPE_F32, SHAPE(batch, 2), 1.5);
        _cleanup_(tensor_freep) struct tensor *out = NULL;
        struct err err = {0};
        if (eval_graph(g, (const struct tensor *const *)&in, &out, &err) < 0)
            fail_msg("%s", err.message);
        assert_int_equal(out->shape.dim[0], batch);
        for (int64_t i = 0; i < 2 * batch; i++)
            assert_true(tensor_get_f64(out, i) == 3);
    }
}

static void inputs_that_disagree_on_the_batch_are_refused(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int a = input(g, "a", SHAPE(DIM_BATCH, 1)), b = input(g, "b", SHAPE(DIM_BATCH, 1));
    graph_add_output(g, add(g, OP_ADD, "sum", a, b), NULL);
    struct tensor *in[] = {TENSOR(DTYPE_F32, SHAPE(2, 1), 1), TENSOR(DTYPE_F32, SHAPE(3, 1), 1)};
    struct tensor *out = NULL;
    struct err err = {0};
    assert_int_equal(eval_graph(g, (const struct tensor *const *)in, &out, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "input 'b' has shape [3,1], not [N,1]");
    assert_null(out);
    tensor_free(in[0]);
    tensor_free(in[1]);
}

static void an_input_of_another_type_is_refused_by_name(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "picture", SHAPE(2));
    graph_add_output(g, add(g, OP_RELU, "relu", x, -1), NULL);
    _cleanup_(tensor_freep) struct tensor *in = TENSOR(DTYPE_U8, SHAPE(2), 1);
    struct tensor *out = NULL;
    struct err err = {0};
    assert_int_equal(eval_graph(g, (const struct tensor *const *)&in, &out, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "input 'picture' is uint8, not float32");
    struct tensor *none = NULL;
    assert_int_equal(eval_graph(g, (const struct tensor *const *)&none, &out, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_string_equal(err.message, "input 'picture' is missing");
}

static void an_error_names_the_node_and_the_value(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "x", SHAPE(2)), y = input(g, "y", SHAPE(3));
    const char *names[] = {"total"};
    int index = graph_add_node(g, -1, OP_ADD, "adder", 2, (int[]){x, y}, 1, names, NULL);
    graph_add_output(g, g->nodes[index]->outputs[0], NULL);
    struct tensor *in[] = {TENSOR(DTYPE_F32, SHAPE(2), 1), TENSOR(DTYPE_F32, SHAPE(3), 1)};
    struct tensor *out = NULL;
    struct err err = {0};
    assert_int_equal(eval_graph(g, (const struct tensor *const *)in, &out, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "value 'total'"));
    assert_non_null(strstr(err.message, "node 'adder' (Add)"));
    tensor_free(in[0]);
    tensor_free(in[1]);
}

static void outputs_that_nothing_computes_are_copies(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "x", SHAPE(1)), c = constant(g, "c", 7);
    int r = add(g, OP_RELU, "relu", x, -1);
    const int outputs[] = {x, c, r, r};
    for (int i = 0; i < 4; i++)
        assert_true(graph_add_output(g, outputs[i], NULL) >= 0);
    _cleanup_(tensor_freep) struct tensor *in = TENSOR(DTYPE_F32, SHAPE(1), 3);
    struct tensor *out[4] = {0};
    struct err err = {0};
    if (eval_graph(g, (const struct tensor *const *)&in, out, &err) < 0)
        fail_msg("%s", err.message);
    static const double want[] = {3, 7, 3, 3};
    for (int i = 0; i < 4; i++)
        assert_true(tensor_get_f64(out[i], 0) == want[i]);
    for (int i = 0; i < 4; i++)
        tensor_free(out[i]); /* each its own: no double free */
}

static void an_output_left_out_and_one_unread_are_dropped(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "x", SHAPE(1, 1, 2));
    int index = graph_add_node(g, -1, OP_MAX_POOL, "pool", 1, &x, 2, NULL, NULL);
    struct node *pool = g->nodes[index];
    int64_t kernel = 2;
    graph_set_attr_ints(g, pool, "kernel_shape", 1, &kernel, NULL);
    graph_add_output(g, pool->outputs[0], NULL);
    _cleanup_(tensor_freep) struct tensor *in = TENSOR(DTYPE_F32, SHAPE(1, 1, 2), 3, 4);
    for (int i = 0; i < 2; i++) {
        _cleanup_(tensor_freep) struct tensor *out = NULL;
        struct err err = {0};
        if (eval_graph(g, (const struct tensor *const *)&in, &out, &err) < 0)
            fail_msg("%s", err.message);
        assert_true(tensor_get_f64(out, 0) == 4);
        pool->outputs[1] = -1;
    }
}

static void a_result_unlike_the_declared_shape_is_refused(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "x", SHAPE(2));
    int r = add(g, OP_RELU, "relu", x, -1);
    graph_add_output(g, r, NULL);
    g->values[r]->dtype = DTYPE_F32;
    g->values[r]->shape = SHAPE(3);
    g->values[r]->shape_known = true;
    _cleanup_(tensor_freep) struct tensor *in = TENSOR(DTYPE_F32, SHAPE(2), 1);
    struct tensor *out = NULL;
    struct err err = {0};
    assert_int_equal(eval_graph(g, (const struct tensor *const *)&in, &out, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "node 'relu' (Relu)"));
    assert_non_null(strstr(err.message, "has shape [2], not [3]"));
}

static void what_nobody_needs_any_more_is_freed(void **state)
{
    (void)state;
    enum { LAYERS = 200, ELEMENTS = 1 << 20 }; /* 4 MB each: 800 MB if all were kept */
    _cleanup_(graph_freep) struct graph *g = graph_new(13, NULL);
    int x = input(g, "x", SHAPE(ELEMENTS));
    for (int i = 0; i < LAYERS; i++)
        x = add(g, OP_IDENTITY, NULL, x, -1);
    graph_add_output(g, x, NULL);
    _cleanup_(tensor_freep) struct tensor *in = TENSOR(DTYPE_F32, SHAPE(ELEMENTS), 1);
    _cleanup_(tensor_freep) struct tensor *out = NULL;
    struct rusage usage;
    assert_int_equal(eval_graph(g, (const struct tensor *const *)&in, &out, NULL), 0);
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    assert_true(usage.ru_maxrss < 500 * 1024); /* sanitizers hold some freed memory back */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_flow_and_the_batch_comes_from_the_input),
        cmocka_unit_test(inputs_that_disagree_on_the_batch_are_refused),
        cmocka_unit_test(an_input_of_another_type_is_refused_by_name),
        cmocka_unit_test(an_error_names_the_node_and_the_value),
        cmocka_unit_test(outputs_that_nothing_computes_are_copies),
        cmocka_unit_test(an_output_left_out_and_one_unread_are_dropped),
        cmocka_unit_test(a_result_unlike_the_declared_shape_is_refused),
        cmocka_unit_test(what_nobody_needs_any_more_is_freed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
