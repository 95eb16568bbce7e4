/* Writing ONNX: what is written can be read again, and says the same. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/infer.h"
#include "tests/support/onnx_text.h"

#define NETWORK                                                                                    \
    "input x float N,3,8,8\ninit w float 4,3,3,3 rand\ninit b float 4 rand\n"                      \
    "Conv conv1 x,w,b -> c pads=[1,1,1,1] strides=[2,2]\ninit hi float - = 6\n"                    \
    "Clip act c,,hi -> d\nGlobalAveragePool pool d -> e\nFlatten flat e -> f\n"                    \
    "init v float 4,5 rand\nGemm fc f,v -> y alpha=0.5\noutput y float N,5"

static struct graph *again(const struct graph *g)
{
    void *data = NULL;
    size_t bytes = 0;
    struct graph *copy = NULL;
    struct err err = {0};
    if (onnx_write_bytes(g, &data, &bytes, &err) < 0 ||
        onnx_read_bytes(data, bytes, NULL, NULL, &copy, &err) < 0)
        fail_msg("%s", err.message);
    free(data);
    return copy;
}

static Onnx__ModelProto *message_of(const struct graph *g)
{
    void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(onnx_write_bytes(g, &data, &bytes, NULL), 0);
    Onnx__ModelProto *m = onnx__model_proto__unpack(NULL, bytes, data);
    free(data);
    assert_non_null(m);
    return m;
}

static void the_same_bytes_come_out_again(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(NETWORK), *h = again(g);
    void *a = NULL, *b = NULL;
    size_t n = 0, m = 0;
    assert_int_equal(onnx_write_bytes(g, &a, &n, NULL), 0);
    assert_int_equal(onnx_write_bytes(h, &b, &m, NULL), 0);
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    assert_true(graph_difference(g, h) == 0);
    free(a);
    free(b);
    graph_free(g);
    graph_free(h);
}

static void names_left_out_inputs_and_attributes_survive(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(NETWORK), *h = again(g);
    assert_string_equal(h->values[h->inputs[0]]->name, "x");
    assert_string_equal(h->values[h->outputs[0]]->name, "y");
    assert_string_equal(h->nodes[1]->name, "act");
    assert_int_equal(h->nodes[1]->n_inputs, 3);
    assert_null(graph_input_of(h, h->nodes[1], 1));
    assert_true(node_float(h->nodes[4], "alpha", 1) == 0.5f);
    assert_int_equal(h->values[h->inputs[0]]->shape.dim[0], DIM_BATCH);
    graph_free(g);
    graph_free(h);
}

static void the_batch_is_written_as_n(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("input x float batch_size,3\nRelu r x -> y\noutput y");
    Onnx__ModelProto *m = message_of(g);
    Onnx__TensorShapeProto *shape = m->graph->input[0]->type->tensor_type->shape;
    assert_string_equal(shape->dim[0]->dim_param, "N");
    assert_int_equal(shape->dim[1]->dim_value, 3);
    assert_string_equal(m->graph->output[0]->type->tensor_type->shape->dim[0]->dim_param, "N");
    onnx__model_proto__free_unpacked(m, NULL);
    graph_free(g);
}

static void the_opset_stays_and_gives_the_ir_version(void **state)
{
    (void)state;
    static const int opsets[][2] = {{13, 7}, {15, 8}, {19, 9}, {22, 10}};
    for (int i = 0; i < 4; i++) {
        char text[128];
        snprintf(text, sizeof(text), "opset %d\ninput x float N,3\nRelu r x -> y\noutput y",
                 opsets[i][0]);
        struct graph *g = onnx_text_graph(text);
        Onnx__ModelProto *m = message_of(g);
        assert_int_equal(m->opset_import[0]->version, opsets[i][0]);
        assert_int_equal(m->ir_version, opsets[i][1]);
        assert_int_equal(m->n_opset_import, 1);
        onnx__model_proto__free_unpacked(m, NULL);
        graph_free(g);
    }
}

static void constants_that_nobody_reads_are_left_out(void **state)
{
    (void)state;
    struct graph *g =
        onnx_text_graph("input x float N,3\ninit unread float 1000\nRelu r x -> y\noutput y");
    Onnx__ModelProto *m = message_of(g);
    assert_int_equal(m->graph->n_initializer, 0);
    onnx__model_proto__free_unpacked(m, NULL);
    graph_free(g);
}

static void metadata_and_bf16_hints_survive(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(NETWORK);
    graph_set_metadata(g, "hone.seed", "42", NULL);
    g->nodes[0]->hint = PRECISION_BF16;
    g->nodes[4]->hint = PRECISION_BF16;
    struct graph *h = again(g);
    assert_string_equal(graph_metadata(h, "hone.seed"), "42");
    assert_int_equal(h->nodes[0]->hint, PRECISION_BF16);
    assert_int_equal(h->nodes[1]->hint, PRECISION_AUTO);
    assert_int_equal(h->nodes[4]->hint, PRECISION_BF16);
    graph_free(g);
    graph_free(h);
}

static void a_constant_output_survives(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(
        "input x float N,3\nConstant c -> k value_ints=[1,2]\nRelu r x -> y\noutput y\noutput k");
    struct graph *h = again(g);
    assert_int_equal(h->n_outputs, 2);
    assert_non_null(h->values[h->outputs[1]]->constant);
    assert_string_equal(h->values[h->outputs[1]]->name, "k");
    graph_free(g);
    graph_free(h);
}

static void every_type_of_constant_survives(void **state)
{
    (void)state;
    static const char *const types[] = {"double", "float16", "bfloat16", "int8", "uint8",
                                        "int16",  "int32",   "int64",    "bool"};
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        char text[256];
        snprintf(text, sizeof(text),
                 "input x float N,3\ninit k %s 2 = 1 0\nRelu r x -> y\noutput y\n"
                 "Identity i k -> z\noutput z",
                 types[i]);
        struct graph *g = onnx_text_graph(text), *h = again(g);
        const struct tensor *k = h->values[h->outputs[1]]->constant;
        assert_string_equal(dtype_name(k->dtype),
                            dtype_name(g->values[g->outputs[1]]->constant->dtype));
        assert_true(tensor_get_f64(k, 0) == 1 && tensor_get_f64(k, 1) == 0);
        graph_free(g);
        graph_free(h);
    }
}

static void a_graph_of_an_older_opset_is_raised_to_13(void **state)
{
    (void)state;
    struct onnx_limits limits = onnx_default_limits;
    limits.keep_constant_nodes = true; /* keeps opset 9 */
    struct graph *g = NULL, *h = NULL;
    assert_int_equal(onnx_text_read("opset 9\ninput x float N,3,1,1\nSqueeze s x -> y axes=[2,3]\n"
                                    "Clip c y -> z min=0.0 max=6.0\noutput z",
                                    &limits, &g, NULL),
                     0);
    assert_int_equal(g->opset, 9);
    h = again(g);
    assert_int_equal(h->opset, 13);
    assert_int_equal(g->opset, 9); /* the graph itself is left alone */
    assert_true(graph_difference(g, h) == 0);
    graph_free(g);
    graph_free(h);
}

static void a_dead_node_is_not_written(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("input x float N,3\nRelu a x -> y\nTanh b y -> z\noutput z");
    graph_replace_value(g, g->nodes[0]->outputs[0], g->inputs[0]);
    graph_kill_node(g, 0);
    Onnx__ModelProto *m = message_of(g);
    assert_int_equal(m->graph->n_node, 1);
    assert_string_equal(m->graph->node[0]->input[0], "x");
    onnx__model_proto__free_unpacked(m, NULL);
    graph_free(g);
}

static void a_folder_that_is_gone_is_named(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(NETWORK);
    struct err err = {0};
    assert_true(onnx_write_file(g, "/nowhere/at/all/model.onnx", &err) < 0);
    assert_non_null(strstr(err.message, "/nowhere/at/all"));
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_bytes_come_out_again),
        cmocka_unit_test(names_left_out_inputs_and_attributes_survive),
        cmocka_unit_test(the_batch_is_written_as_n),
        cmocka_unit_test(the_opset_stays_and_gives_the_ir_version),
        cmocka_unit_test(constants_that_nobody_reads_are_left_out),
        cmocka_unit_test(metadata_and_bf16_hints_survive),
        cmocka_unit_test(a_constant_output_survives),
        cmocka_unit_test(every_type_of_constant_survives),
        cmocka_unit_test(a_graph_of_an_older_opset_is_raised_to_13),
        cmocka_unit_test(a_dead_node_is_not_written),
        cmocka_unit_test(a_folder_that_is_gone_is_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
