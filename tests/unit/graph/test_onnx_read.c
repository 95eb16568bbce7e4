/* Reading ONNX: what is understood, and what is refused with a sentence that names the place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/rng.h"
#include "shared/base/str.h"
#include "tests/support/onnx_text.h"

#define SMALL                                                                                      \
    "input x float N,2,4,4\ninit w float 3,2,3,3 rand\nConv conv1 x,w -> y pads=[1,1,1,1]\n"       \
    "Relu relu1 y -> z\noutput z\n"

static struct arena *arena;

static int set_up(void **state)
{
    (void)state;
    arena = arena_new();
    return arena ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    arena = arena_free(arena);
    return 0;
}

static void expect(int rc, const struct err *err, int code, const char *part, const char *also)
{
    if (rc != -code || !strstr(err->message, part) || !strstr(err->message, also))
        fail_msg("%d %s: %s (expected %s with '%s' and '%s')", rc, err_code_name(-rc), err->message,
                 err_code_name(code), part, also);
}

static void refuse_model(const Onnx__ModelProto *model, int code, const char *part,
                         const char *also)
{
    struct graph *g = NULL;
    struct err err = {0};
    expect(onnx_text_read_model(model, NULL, NULL, &g, &err), &err, code, part, also);
}

static void refuse(const char *text, int code, const char *part, const char *also)
{
    refuse_model(onnx_text_model(arena, text), code, part, also);
}

/* ---- what is understood ---- */

static void names_types_and_shapes_come_over(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(SMALL);
    char text[128];
    assert_int_equal(g->opset, 13);
    assert_string_equal(g->name, "test");
    assert_int_equal(g->n_inputs, 1);
    assert_int_equal(g->n_outputs, 1);
    assert_int_equal(g->n_nodes, 2);
    assert_string_equal(g->values[g->inputs[0]]->name, "x");
    assert_string_equal(g->values[g->outputs[0]]->name, "z");
    assert_string_equal(g->nodes[0]->name, "conv1");
    assert_string_equal(shape_text(&g->values[g->outputs[0]]->shape, text), "[N,3,4,4]");
    assert_int_equal(g->values[g->outputs[0]]->dtype, DTYPE_F32);
    graph_free(g);
}

static void the_batch_may_be_a_name_nothing_or_minus_one(void **state)
{
    (void)state;
    static const char *const firsts[] = {"N", "batch_size", "?", "-1"};
    for (size_t i = 0; i < 4; i++) {
        struct graph *g = onnx_text_graph(
            arena_printf(arena, "input x float %s,2\nRelu r x -> y\noutput y", firsts[i]));
        assert_int_equal(g->values[g->outputs[0]]->shape.dim[0], DIM_BATCH);
        graph_free(g);
    }
}

static void nodes_in_any_order_are_sorted(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("input x float N,2\nRelu second a -> y\n"
                                      "Tanh first x -> a\noutput y");
    assert_string_equal(g->nodes[0]->name, "first");
    assert_string_equal(g->nodes[1]->name, "second");
    graph_free(g);
}

static void initializers_listed_as_inputs_are_constants(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("input x float N,2\ninput b float 2\ninit b float 2 rand\n"
                                      "Add a x,b -> y\noutput y");
    assert_int_equal(g->n_inputs, 1);
    assert_non_null(g->values[graph_find_value(g, "b")]->constant);
    graph_free(g);
}

static void constant_nodes_become_constants(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("input x float N,2\nConstant c -> b value_floats=[1.5,2.0]\n"
                                      "Add a x,b -> y\noutput y");
    assert_int_equal(g->n_nodes, 1);
    const struct tensor *b = graph_input_of(g, g->nodes[0], 1)->constant;
    assert_true(tensor_get_f64(b, 0) == 1.5);
    graph_free(g);
}

static void masks_and_indices_that_nobody_reads_are_dropped(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("opset 9\ninput x float N,2,4,4\n"
                                      "MaxPool p x -> a,i kernel_shape=[2,2]\n"
                                      "Dropout d a -> y,m ratio=0.5\noutput y");
    assert_int_equal(g->nodes[0]->n_outputs, 1);
    assert_int_equal(g->nodes[1]->n_outputs, 1);
    graph_free(g);
    g = onnx_text_graph("input x float N,2,4,4\nMaxPool p x -> a,i kernel_shape=[2,2]\n"
                        "output a\noutput i");
    assert_int_equal(g->nodes[0]->n_outputs, 2);
    graph_free(g);
    refuse("opset 9\ninput x float N,2\nDropout drop x -> y,m\noutput y\noutput m",
           ERR_UNIMPLEMENTED, "drop", "mask");
}

static void a_sum_of_two_is_an_addition(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph("input x float N,2\ninit b float 2 rand\n"
                                      "Sum s x,b -> y\noutput y");
    assert_int_equal(g->nodes[0]->op, OP_ADD);
    graph_free(g);
    refuse("input x float N,2\nSum s x,x,x -> y\noutput y", ERR_UNIMPLEMENTED, "'s'", "Sum");
}

static void single_operators_can_be_kept_as_they_are(void **state)
{
    (void)state;
    struct onnx_limits limits = onnx_default_limits;
    limits.keep_constant_nodes = true;
    struct graph *g = NULL;
    assert_int_equal(onnx_text_read("opset 9\ninput x float 2,3\ninput t int64 2\n"
                                    "Constant c -> k value={float 1 = 1}\n"
                                    "Reshape r x,t -> y\noutput y float 3,2\noutput k",
                                    &limits, &g, NULL),
                     0);
    assert_int_equal(g->n_nodes, 2);
    assert_int_equal(g->opset, 9);
    assert_false(g->values[graph_find_value(g, "y")]->shape_known); /* t is not known */
    graph_free(g);
}

static void old_attribute_types_follow_from_the_operator(void **state)
{
    (void)state;
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    m->graph->node[0]->attribute[0]->has_type = 0;
    struct graph *g = NULL;
    assert_int_equal(onnx_text_read_model(m, NULL, NULL, &g, NULL), 0);
    assert_int_equal(node_attr(g->nodes[0], "pads")->n, 4);
    graph_free(g);
}

static void metadata_and_hints_are_read(void **state)
{
    (void)state;
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    Onnx__StringStringEntryProto a = ONNX__STRING_STRING_ENTRY_PROTO__INIT, b = a;
    a.key = "author";
    a.value = "me";
    b.key = ONNX_META_BF16;
    b.value = "relu\nconv1\nrelu12";
    m->metadata_props = (Onnx__StringStringEntryProto *[]){&a, &b};
    m->n_metadata_props = 2;
    struct graph *g = NULL;
    assert_int_equal(onnx_text_read_model(m, NULL, NULL, &g, NULL), 0);
    assert_string_equal(graph_metadata(g, "author"), "me");
    assert_null(graph_metadata(g, ONNX_META_BF16));
    assert_int_equal(g->nodes[0]->hint, PRECISION_BF16);
    assert_int_equal(g->nodes[1]->hint, PRECISION_AUTO);
    graph_free(g);
}

/* ---- what is not supported ---- */

static void an_unsupported_operator_is_named_with_its_node_and_opset(void **state)
{
    (void)state;
    refuse("input x float N,2\nLSTM my_lstm x -> y\noutput y", ERR_UNIMPLEMENTED,
           "node 'my_lstm' (LSTM)", "opset 13");
    refuse("input x float N,2\nRelu r x -> z\nGRU _ z -> y\noutput y", ERR_UNIMPLEMENTED,
           "node 1 (GRU)", "not supported");
    refuse("input x float N,2\ncom.microsoft::Gelu g x -> y\noutput y", ERR_UNIMPLEMENTED, "'g'",
           "com.microsoft");
    refuse("input x float N,2\nIf branch x -> y\noutput y", ERR_UNIMPLEMENTED, "branch",
           "control flow");
    refuse("input x float N,2\nHardSwish h x -> y\noutput y", ERR_UNIMPLEMENTED, "'h'", "opset 13");
}

static void opsets_out_of_range_are_refused(void **state)
{
    (void)state;
    refuse("opset 6\n" SMALL, ERR_UNIMPLEMENTED, "opset 6", "7 to 22");
    refuse("opset 23\n" SMALL, ERR_UNIMPLEMENTED, "opset 23", "7 to 22");
    refuse("opset -4611686018427387904\n" SMALL, ERR_UNIMPLEMENTED, "opset", "");
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    m->n_opset_import = 0;
    refuse_model(m, ERR_INVALID_ARGUMENT, "no opset", "");
    m = onnx_text_model(arena, SMALL);
    m->opset_import[0]->domain = "ai.onnx.ml";
    refuse_model(m, ERR_UNIMPLEMENTED, "ai.onnx.ml", "");
    m->opset_import[0]->domain = "ai.onnx";
    struct graph *g = NULL;
    assert_int_equal(onnx_text_read_model(m, NULL, NULL, &g, NULL), 0);
    graph_free(g);
}

static void functions_and_sparse_initializers_are_refused(void **state)
{
    (void)state;
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    Onnx__FunctionProto f = ONNX__FUNCTION_PROTO__INIT;
    f.name = "myfunction";
    m->functions = (Onnx__FunctionProto *[]){&f};
    m->n_functions = 1;
    refuse_model(m, ERR_UNIMPLEMENTED, "functions", "myfunction");
    m = onnx_text_model(arena, SMALL);
    Onnx__SparseTensorProto s = ONNX__SPARSE_TENSOR_PROTO__INIT;
    m->graph->sparse_initializer = (Onnx__SparseTensorProto *[]){&s};
    m->graph->n_sparse_initializer = 1;
    refuse_model(m, ERR_UNIMPLEMENTED, "sparse", "");
}

static void inputs_that_are_no_tensors_are_refused(void **state)
{
    (void)state;
    refuse("input x string N,2\nIdentity i x -> y\noutput y", ERR_UNIMPLEMENTED, "input 'x'",
           "string");
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    Onnx__TypeProto__Sequence s = ONNX__TYPE_PROTO__SEQUENCE__INIT;
    m->graph->input[0]->type->value_case = ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE;
    m->graph->input[0]->type->sequence_type = &s;
    refuse_model(m, ERR_UNIMPLEMENTED, "input 'x'", "sequence");
    m->graph->input[0]->type = NULL;
    refuse_model(m, ERR_UNIMPLEMENTED, "input 'x'", "no type");
}

static void symbolic_dimensions_other_than_the_batch_are_refused(void **state)
{
    (void)state;
    refuse("input x float N,3,H,W\nRelu r x -> y\noutput y", ERR_UNIMPLEMENTED, "'x'", "'H'");
    refuse("input x float N,3\ninput z float M,3\nAdd a x,z -> y\noutput y", ERR_UNIMPLEMENTED,
           "'z'", "'M'");
    refuse("input x float\nRelu r x -> y\noutput y", ERR_UNIMPLEMENTED, "'x'", "shape");
    refuse("input x float N,-2\nRelu r x -> y\noutput y", ERR_INVALID_ARGUMENT, "'x'", "-2");
    refuse("input x float N,2,2,2,2,2,2,2,2\nRelu r x -> y\noutput y", ERR_UNIMPLEMENTED, "'x'",
           "9 dimensions");
}

static void graph_and_string_attributes_are_refused(void **state)
{
    (void)state;
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    m->graph->node[0]->attribute[0]->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH;
    refuse_model(m, ERR_UNIMPLEMENTED, "conv1", "a graph");
    m->graph->node[0]->attribute[0]->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS;
    refuse_model(m, ERR_UNIMPLEMENTED, "conv1", "strings");
}

/* ---- what is broken ---- */

static void a_cycle_is_refused_with_a_node_name(void **state)
{
    (void)state;
    refuse("input x float N,2\nAdd ring1 x,b -> a\nRelu ring2 a -> b\noutput b",
           ERR_INVALID_ARGUMENT, "cycle", "ring");
    refuse("input x float N,2\nAdd self x,a -> a\noutput a", ERR_INVALID_ARGUMENT, "cycle", "self");
}

static void missing_and_doubled_names_are_refused(void **state)
{
    (void)state;
    refuse("input x float N,2\nAdd plus x,gone -> y\noutput y", ERR_INVALID_ARGUMENT, "'plus'",
           "'gone'");
    refuse("input x float N,2\nRelu r x -> y\noutput z", ERR_INVALID_ARGUMENT, "output 'z'", "");
    refuse("input x float N,2\nRelu r x -> y\nTanh t x -> y\noutput y", ERR_INVALID_ARGUMENT, "'t'",
           "twice");
    refuse("input x float N,2\nRelu r x -> x\noutput x", ERR_INVALID_ARGUMENT, "'r'", "twice");
    refuse("input x float N,2\ninput x float N,2\nRelu r x -> y\noutput y", ERR_INVALID_ARGUMENT,
           "'x'", "twice");
    refuse("input x float N,2\ninit w float 2\ninit w float 2\nAdd a x,w -> y\noutput y",
           ERR_INVALID_ARGUMENT, "'w'", "twice");
    refuse("input x float N,2\nRelu r x -> y\noutput y\noutput y", ERR_INVALID_ARGUMENT,
           "output 'y'", "twice");
    refuse("input x float N,2\nRelu r x -> y\n", ERR_INVALID_ARGUMENT, "no outputs", "");
}

static void inputs_and_outputs_of_a_node_are_counted(void **state)
{
    (void)state;
    refuse("input x float N,2\nAdd plus x -> y\noutput y", ERR_INVALID_ARGUMENT, "plus",
           "1 inputs");
    refuse("input x float N,2\nRelu r x,x -> y\noutput y", ERR_INVALID_ARGUMENT, "'r'", "2 inputs");
    refuse("input x float N,2\nRelu r x -> y,z\noutput y", ERR_INVALID_ARGUMENT, "'r'",
           "2 outputs");
    refuse("input x float N,2\nAdd plus ,x -> y\noutput y", ERR_INVALID_ARGUMENT, "plus",
           "input 0 is missing");
    refuse("input x float N,2\nConcat join x,,x -> y axis=1\noutput y", ERR_INVALID_ARGUMENT,
           "join", "input 1 is missing");
}

static void attributes_are_checked(void **state)
{
    (void)state;
    refuse("input x float N,2\nElu e x -> y alpha=2\noutput y", ERR_INVALID_ARGUMENT, "'alpha'",
           "a float is needed");
    refuse("input x float N,2\nElu e x -> y beta=2.0\noutput y", ERR_INVALID_ARGUMENT, "'beta'",
           "not one of Elu's");
    refuse("input x float N,2\nElu e x -> y alpha=2.0 alpha=1.0\noutput y", ERR_INVALID_ARGUMENT,
           "'alpha'", "twice");
    refuse("input x float N,2\nConcat c x,x -> y\noutput y", ERR_INVALID_ARGUMENT, "'axis'",
           "missing");
    refuse("input x float N,2,4,4\nMaxPool p x -> y\noutput y", ERR_INVALID_ARGUMENT,
           "'kernel_shape'", "missing");
    refuse("input x float N,2,4,4\nSqueeze s x -> y axes=[2]\noutput y", ERR_INVALID_ARGUMENT,
           "'axes'", "opset 13");
    refuse("Constant c -> y\noutput y", ERR_INVALID_ARGUMENT, "'c'", "one attribute");
}

static void weights_that_are_not_finite_are_refused_unless_allowed(void **state)
{
    (void)state;
    const char *text = "input x float N,2\ninit w float 2 = 1 nan\nAdd a x,w -> y\noutput y";
    refuse(text, ERR_INVALID_ARGUMENT, "'w'", "NaN");
    refuse("input x float N,2\ninit w float16 2 = 1 inf\nAdd a x,w -> y\noutput y",
           ERR_INVALID_ARGUMENT, "'w'", "infinite");
    struct onnx_limits limits = onnx_default_limits;
    limits.allow_nonfinite = true;
    struct graph *g = NULL;
    assert_int_equal(onnx_text_read(text, &limits, &g, NULL), 0);
    graph_free(g);
}

static void empty_dimensions_of_a_network_are_refused(void **state)
{
    (void)state;
    refuse("input x float N,0,4\nRelu r x -> y\noutput y", ERR_INVALID_ARGUMENT, "'x'", "empty");
    refuse("input x float N,2,2,2\ninit w float 0,2,1,1\nConv c x,w -> y\noutput y",
           ERR_INVALID_ARGUMENT, "'c'", "weights");
}

static void declared_outputs_must_agree(void **state)
{
    (void)state;
    refuse("input x float N,4\nRelu act x -> y\noutput y float N,5", ERR_INVALID_ARGUMENT,
           "output 'y'", "'act'");
    refuse("input x float N,4\nRelu act x -> y\noutput y float N,4,1", ERR_INVALID_ARGUMENT,
           "contradicts", "[N,4]");
    refuse("input x float N,4\nRelu act x -> y\noutput y int64 N,4", ERR_INVALID_ARGUMENT, "int64",
           "float32");
    graph_free(onnx_text_graph("input x float N,4\nRelu r x -> y\noutput y float batch,C"));
    graph_free(onnx_text_graph("input x float N,4\nRelu r x -> y\noutput y float 1,4"));
}

static void sizes_are_checked_before_anything_is_allocated(void **state)
{
    (void)state;
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    m->graph->initializer[0]->dims[0] = (int64_t)1 << 31;
    refuse_model(m, ERR_RESOURCE_EXHAUSTED, "'w'", "elements");
    m->graph->initializer[0]->dims[0] = (int64_t)1 << 62;
    refuse_model(m, ERR_INVALID_ARGUMENT, "'w'", "");
    m->graph->initializer[0]->dims[0] = -3;
    refuse_model(m, ERR_INVALID_ARGUMENT, "'w'", "-3");
    m->graph->initializer[0]->dims[0] = 1 << 20;
    refuse_model(m, ERR_INVALID_ARGUMENT, "'w'", "75497472 bytes");
    refuse("input x float N,4611686018427387904,4611686018427387904\nRelu r x -> y\noutput y",
           ERR_INVALID_ARGUMENT, "'x'", "");
    refuse("input x float N,1000000000\nRelu r x -> y\noutput y", ERR_RESOURCE_EXHAUSTED, "'r'",
           "limit");
    refuse("input x float N,2\ninit s int64 1 = 1000000000\nConstantOfShape fill s -> b\n"
           "Add a x,b -> y\noutput y",
           ERR_RESOURCE_EXHAUSTED, "fill", "limit");
}

static void constants_grow_to_a_limit_in_sum(void **state)
{
    (void)state;
    struct onnx_limits limits = onnx_default_limits;
    limits.max_elements = 1000;
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_add(&text, "input x float N,1\ninit s int64 1 = 900\n");
    for (int i = 0; i < 20; i++)
        strbuf_printf(&text, "ConstantOfShape c%d s -> k%d\nAdd a%d x,k%d -> y%d\noutput y%d\n", i,
                      i, i, i, i, i);
    struct graph *g = NULL;
    struct err err = {0};
    assert_int_equal(onnx_text_read(text.data, &limits, &g, &err), 0);
    int folded = 0; /* the first only: the rest would take 20 times what the file is allowed */
    for (int i = 0; i < g->n_values; i++)
        folded += g->values[i]->constant && g->values[i]->shape.dim[0] == 900;
    assert_int_equal(folded, 1);
    graph_free(g);
}

static void numbers_and_sizes_are_limited(void **state)
{
    (void)state;
    struct onnx_limits limits = onnx_default_limits;
    struct graph *g = NULL;
    struct err err = {0};
    limits.max_nodes = 1;
    expect(onnx_text_read(SMALL, &limits, &g, &err), &err, ERR_RESOURCE_EXHAUSTED, "2 nodes",
           "limit");
    Onnx__ModelProto *m = onnx_text_model(arena, SMALL);
    m->graph->n_output = 5000;
    m->graph->output = arena_alloc(arena, 5000, sizeof(*m->graph->output));
    for (int i = 0; i < 5000; i++) {
        m->graph->output[i] = arena_alloc(arena, 1, sizeof(**m->graph->output));
        onnx__value_info_proto__init(m->graph->output[i]);
    }
    refuse_model(m, ERR_RESOURCE_EXHAUSTED, "5000 outputs", "limit");
    limits.max_nodes = 2;
    m = onnx_text_model(arena, SMALL);
    m->graph->node[0]->n_input = 10000;
    m->graph->node[0]->input = arena_alloc(arena, 10000, sizeof(char *));
    for (int i = 0; i < 10000; i++)
        m->graph->node[0]->input[i] = "x";
    expect(onnx_text_read_model(m, NULL, &limits, &g, &err), &err, ERR_RESOURCE_EXHAUSTED, "1000",
           "limit");
    limits = onnx_default_limits;
    limits.max_file_bytes = 50;
    expect(onnx_text_read(SMALL, &limits, &g, &err), &err, ERR_RESOURCE_EXHAUSTED, "bytes",
           "limit");
}

/* ---- bytes ---- */

static void *small_bytes(size_t *bytes)
{
    struct graph *g = onnx_text_graph(SMALL);
    void *data = NULL;
    assert_int_equal(onnx_write_bytes(g, &data, bytes, NULL), 0);
    graph_free(g);
    return data;
}

static void every_truncation_is_an_error(void **state)
{
    (void)state;
    size_t bytes;
    _cleanup_(freep) char *data = small_bytes(&bytes);
    int accepted = 0;
    for (size_t n = 0; n < bytes; n++) {
        struct graph *g = NULL;
        struct err err = {0};
        /* a copy of exactly n bytes, so that a sanitizer sees every byte read behind them */
        void *copy = malloc(n ? n : 1);
        memcpy(copy, data, n);
        int rc = onnx_read_bytes(copy, n, NULL, NULL, &g, &err);
        free(copy);
        assert_true(rc < 0 ? *err.message != 0 : g != NULL);
        accepted += rc == 0;
        graph_free(g);
    }
    assert_true(accepted <= 2); /* cut between two whole fields behind the graph */
}

static void random_changes_never_crash(void **state)
{
    (void)state;
    size_t bytes;
    _cleanup_(freep) unsigned char *data = small_bytes(&bytes);
    _cleanup_(freep) unsigned char *copy = malloc(bytes);
    struct rng rng;
    rng_seed(&rng, 5);
    for (int i = 0; i < 3000; i++) {
        memcpy(copy, data, bytes);
        for (int k = 0; k < 1 + i % 4; k++)
            copy[rng_below(&rng, bytes)] = (unsigned char)rng_u64(&rng);
        struct graph *g = NULL;
        struct err err = {0};
        if (onnx_read_bytes(copy, bytes, NULL, NULL, &g, &err) < 0)
            assert_true(*err.message);
        graph_free(g);
    }
}

static void random_bytes_are_no_model(void **state)
{
    (void)state;
    unsigned char data[300];
    struct rng rng;
    rng_seed(&rng, 6);
    for (int i = 0; i < 2000; i++) {
        size_t n = (size_t)rng_below(&rng, sizeof(data));
        for (size_t k = 0; k < n; k++)
            data[k] = (unsigned char)rng_u64(&rng);
        struct graph *g = NULL;
        struct err err = {0};
        assert_true(onnx_read_bytes(data, n, NULL, NULL, &g, &err) < 0);
        assert_true(*err.message);
    }
}

static void deep_nesting_is_refused_before_unpacking(void **state)
{
    (void)state;
    /* graph (7) in node (1), attribute (5), graph (6), node, ... each with a length of 4 bytes */
    enum { LEVELS = 3000, HEAD = 6 };
    static const unsigned char fields[] = {1, 5, 6};
    unsigned char *data = calloc(LEVELS, HEAD);
    size_t left = (size_t)LEVELS * HEAD;
    for (int i = 0; i < LEVELS; i++) {
        unsigned char *p = data + (size_t)i * HEAD;
        left -= HEAD;
        p[0] = (unsigned char)((i == 0 ? 7 : fields[(i - 1) % 3]) << 3 | 2);
        for (int k = 0; k < 5; k++)
            p[1 + k] = (unsigned char)((left >> (7 * k) & 0x7f) | (k < 4 ? 0x80 : 0));
    }
    struct graph *g = NULL;
    struct err err = {0};
    expect(onnx_read_bytes(data, (size_t)LEVELS * HEAD, NULL, NULL, &g, &err), &err,
           ERR_INVALID_ARGUMENT, "nested", "deep");
    free(data);
}

static void claims_of_three_gigabytes_cost_nothing(void **state)
{
    (void)state;
    /* graph { initializer { raw_data: 3 GB } } in a file of 20 bytes */
    static const unsigned char raw[] = {0x3a, 0x0b, 0x2a, 0x09, 0x4a, 0x80, 0x80,
                                        0x80, 0x80, 0x0c, 1,    2,    3};
    struct graph *g = NULL;
    struct err err = {0};
    expect(onnx_read_bytes(raw, sizeof(raw), NULL, NULL, &g, &err), &err, ERR_INVALID_ARGUMENT,
           "more bytes than there are", "byte");
}

static void empty_messages_cannot_exhaust_memory(void **state)
{
    (void)state;
    /* a graph of ten million empty nodes, two bytes each: 1.5 GB in memory */
    size_t nodes = 10000000, body = 2 * nodes;
    unsigned char *data = malloc(body + 6);
    data[0] = 0x3a;
    for (int k = 0; k < 5; k++)
        data[1 + k] = (unsigned char)((body >> (7 * k) & 0x7f) | (k < 4 ? 0x80 : 0));
    for (size_t i = 0; i < nodes; i++) {
        data[6 + 2 * i] = 0x0a;
        data[7 + 2 * i] = 0;
    }
    struct graph *g = NULL;
    struct err err = {0};
    assert_true(onnx_read_bytes(data, body + 6, NULL, NULL, &g, &err) < 0);
    assert_true(*err.message);
    free(data);
}

static void a_missing_file_is_named(void **state)
{
    (void)state;
    struct graph *g = NULL;
    struct err err = {0};
    expect(onnx_read_file("/nowhere/model.onnx", NULL, &g, &err), &err, ERR_NOT_FOUND,
           "/nowhere/model.onnx", "");
    expect(onnx_read_file("/", NULL, &g, &err), &err, ERR_INVALID_ARGUMENT, "/", "");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_types_and_shapes_come_over),
        cmocka_unit_test(the_batch_may_be_a_name_nothing_or_minus_one),
        cmocka_unit_test(nodes_in_any_order_are_sorted),
        cmocka_unit_test(initializers_listed_as_inputs_are_constants),
        cmocka_unit_test(constant_nodes_become_constants),
        cmocka_unit_test(masks_and_indices_that_nobody_reads_are_dropped),
        cmocka_unit_test(a_sum_of_two_is_an_addition),
        cmocka_unit_test(single_operators_can_be_kept_as_they_are),
        cmocka_unit_test(old_attribute_types_follow_from_the_operator),
        cmocka_unit_test(metadata_and_hints_are_read),
        cmocka_unit_test(an_unsupported_operator_is_named_with_its_node_and_opset),
        cmocka_unit_test(opsets_out_of_range_are_refused),
        cmocka_unit_test(functions_and_sparse_initializers_are_refused),
        cmocka_unit_test(inputs_that_are_no_tensors_are_refused),
        cmocka_unit_test(symbolic_dimensions_other_than_the_batch_are_refused),
        cmocka_unit_test(graph_and_string_attributes_are_refused),
        cmocka_unit_test(a_cycle_is_refused_with_a_node_name),
        cmocka_unit_test(missing_and_doubled_names_are_refused),
        cmocka_unit_test(inputs_and_outputs_of_a_node_are_counted),
        cmocka_unit_test(attributes_are_checked),
        cmocka_unit_test(weights_that_are_not_finite_are_refused_unless_allowed),
        cmocka_unit_test(empty_dimensions_of_a_network_are_refused),
        cmocka_unit_test(declared_outputs_must_agree),
        cmocka_unit_test(sizes_are_checked_before_anything_is_allocated),
        cmocka_unit_test(constants_grow_to_a_limit_in_sum),
        cmocka_unit_test(numbers_and_sizes_are_limited),
        cmocka_unit_test(every_truncation_is_an_error),
        cmocka_unit_test(random_changes_never_crash),
        cmocka_unit_test(random_bytes_are_no_model),
        cmocka_unit_test(deep_nesting_is_refused_before_unpacking),
        cmocka_unit_test(claims_of_three_gigabytes_cost_nothing),
        cmocka_unit_test(empty_messages_cannot_exhaust_memory),
        cmocka_unit_test(a_missing_file_is_named),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
