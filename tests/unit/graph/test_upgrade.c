/* Operators in the forms of opsets 7 to 12 compute the same after import, in opset 13's forms. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/support/onnx_text.h"

/* The model as it is written against its upgraded form, by the reference. */
static struct graph *check(const char *text)
{
    struct graph *raised = onnx_text_graph(text), *plain = NULL;
    struct onnx_limits limits = onnx_default_limits;
    struct err err = {0};
    limits.keep_constant_nodes = true;
    if (onnx_text_read(text, &limits, &plain, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(raised->opset, 13);
    for (int i = 0; i < raised->n_nodes; i++)
        assert_int_equal(raised->nodes[i]->since, 13);
    double difference = graph_difference(plain, raised);
    if (!(difference <= 1e-6))
        fail_msg("difference %g in: %s", difference, text);
    graph_free(plain);
    return raised;
}

#define X "input x float N,4,3,2\n"

static void attributes_become_inputs(void **state)
{
    (void)state;
    graph_free(check("opset 7\n" X "Clip c x -> y min=-0.5 max=0.5\noutput y"));
    graph_free(check("opset 7\n" X "Clip c x -> y\noutput y"));
    graph_free(check("opset 10\n" X "Clip c x -> y max=0.5\noutput y"));
    graph_free(check("opset 8\n" X "Pad p x -> y pads=[0,1,0,2,0,0,3,0] value=1.5\noutput y"));
    graph_free(check("opset 8\n" X "Pad p x -> y pads=[0,0,1,0,0,0,1,0] mode=\"edge\"\noutput y"));
    graph_free(check("opset 9\n" X "Slice s x -> y axes=[1,3] starts=[1,0] ends=[3,-1]\noutput y"));
    graph_free(check("opset 9\n" X "Slice s x -> y starts=[0,1] ends=[999999999999,9]\noutput y"));
    graph_free(check("opset 12\n" X "Split s x -> y,z axis=1 split=[1,3]\noutput y\noutput z"));
    graph_free(check("opset 11\n" X "Split s x -> y,z axis=1\noutput y\noutput z"));
    graph_free(check("opset 12\n" X "Unsqueeze u x -> y axes=[0,4]\noutput y"));
    graph_free(check("opset 12\ninput x float N,1,4,1\nSqueeze u x -> y axes=[1,3]\noutput y"));
}

static void batchnorm_and_dropout_lose_old_attributes(void **state)
{
    (void)state;
    graph_free(check("opset 7\n" X "init s float 4 positive\n"
                     "BatchNormalization b x,s,s,s,s -> y spatial=1\noutput y"));
    graph_free(check("opset 7\n" X "Dropout d x -> y ratio=0.3\noutput y"));
    struct graph *g = NULL;
    struct err err = {0};
    assert_int_equal(onnx_text_read("opset 7\n" X "init s float 4,3,2 positive\n"
                                    "BatchNormalization b x,s,s,s,s -> y spatial=0\noutput y",
                                    NULL, &g, &err),
                     -ERR_UNIMPLEMENTED);
    assert_non_null(strstr(err.message, "spatial"));
}

static void upsampling_becomes_resizing(void **state)
{
    (void)state;
    struct graph *g = check("opset 7\n" X "Upsample u x -> y scales=[1.0,1.0,2.0,3.0]\noutput y");
    assert_int_equal(g->nodes[0]->op, OP_RESIZE);
    graph_free(g);
    graph_free(check("opset 9\n" X "init s float 4 = 1 1 2 2\n"
                     "Upsample u x,s -> y mode=\"linear\"\noutput y"));
    graph_free(check("opset 10\n" X "init s float 4 = 1 1 1.5 2\nResize u x,s -> y\noutput y"));
    graph_free(check("opset 10\n" X "init s float 4 = 1 1 1.5 2\n"
                     "Resize u x,s -> y mode=\"linear\"\noutput y"));
    graph_free(check("opset 11\n" X "init s float 4 = 1 1 2 2\ninit roi float 0\n"
                     "Resize u x,roi,s -> y mode=\"cubic\"\noutput y"));
}

static void softmax_over_several_axes_is_flattened(void **state)
{
    (void)state;
    struct graph *g = check("opset 11\n" X "Softmax s x -> y\noutput y");
    assert_int_equal(g->n_nodes, 3);
    assert_string_equal(g->values[g->outputs[0]]->name, "y");
    graph_free(g);
    graph_free(check("opset 11\n" X "Softmax s x -> y axis=2\nRelu r y -> z\noutput z"));
    g = check("opset 11\n" X "Softmax s x -> y axis=3\noutput y");
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
    g = check("opset 9\ninput x float N,10\nSoftmax s x -> y\noutput y");
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
    g = check("opset 9\ninput x float N,10,1,1\nSoftmax s x -> y\noutput y");
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
    graph_free(check("opset 11\ninput x float 2,3\nSoftmax s x -> y axis=0\noutput y"));
}

static void several_old_operators_follow_each_other(void **state)
{
    (void)state;
    graph_free(check("opset 9\n" X "init w float 5,4,1,1 rand\nConv c x,w -> a\n"
                     "Clip k a -> b min=0.0 max=6.0\nSoftmax s b -> d axis=1\n"
                     "Upsample u d,sc -> e mode=\"nearest\"\ninit sc float 4 = 1 1 2 2\n"
                     "Slice cut e -> f axes=[2] starts=[1] ends=[5]\nSqueeze q g -> h axes=[2,3]\n"
                     "GlobalAveragePool p f -> g\noutput h"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attributes_become_inputs),
        cmocka_unit_test(batchnorm_and_dropout_lose_old_attributes),
        cmocka_unit_test(upsampling_becomes_resizing),
        cmocka_unit_test(softmax_over_several_axes_is_flattened),
        cmocka_unit_test(several_old_operators_follow_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
