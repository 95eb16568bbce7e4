/* Chains that compute shapes, with the symbolic batch in them, are gone after import. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/eval.h"
#include "shared/graph/passes.h"
#include "tests/support/onnx_text.h"

/* How many nodes of the operator the graph has. */
static int count(const struct graph *g, enum op op)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i]->op == op;
    return n;
}

/* Nothing is left but `nodes` nodes, and the function is that of the model as it was written. */
static void check(const char *text, int nodes, const char *shape)
{
    struct graph *folded = onnx_text_graph(text), *plain = NULL;
    struct onnx_limits limits = onnx_default_limits;
    struct err err = {0};
    char all[128];
    limits.keep_constant_nodes = true;
    if (onnx_text_read(text, &limits, &plain, &err) < 0)
        fail_msg("%s", err.message);
    if (folded->n_nodes != nodes)
        fail_msg("%d nodes in: %s", folded->n_nodes, text);
    assert_string_equal(shape_text(&folded->values[folded->outputs[0]]->shape, all), shape);
    assert_true(graph_difference(plain, folded) == 0);
    graph_free(folded);
    graph_free(plain);
}

#define X "input x float N,4,2,2\n"
#define ZERO "init zero int64 1 = 0\ninit one int64 1 = 1\n"

static void a_view_by_the_batch_size_copies_the_batch(void **state)
{
    (void)state;
    /* x.view(x.size(0), -1) */
    check(X ZERO "init i int64 - = 0\ninit rest int64 1 = -1\nShape s x -> s0\n"
                 "Gather g s0,i -> s1\nUnsqueeze u s1,zero -> s2\nConcat c s2,rest -> t axis=0\n"
                 "Reshape r x,t -> y\noutput y",
          1, "[N,16]");
}

static void a_view_that_names_all_sizes_is_followed(void **state)
{
    (void)state;
    /* x.view(n, c, h * w) */
    check(X ZERO
          "init i0 int64 - = 0\ninit i1 int64 - = 1\ninit i2 int64 - = 2\n"
          "init i3 int64 - = 3\nShape s x -> s0\nGather g0 s0,i0 -> n\nGather g1 s0,i1 -> c\n"
          "Gather g2 s0,i2 -> h\nGather g3 s0,i3 -> w\nMul m h,w -> hw\n"
          "Unsqueeze u0 n,zero -> n1\nUnsqueeze u1 c,zero -> c1\nUnsqueeze u2 hw,zero -> hw1\n"
          "Concat k n1,c1,hw1 -> t axis=0\nReshape r x,t -> y\noutput y",
          1, "[N,4,4]");
}

static void the_batch_at_another_place_takes_the_wildcard(void **state)
{
    (void)state;
    check(X ZERO "init four int64 2 = 4 4\nShape s x -> s0\nSlice cut s0,zero,one -> n\n"
                 "Concat k four,n -> t axis=0\nReshape r x,t -> y\noutput y",
          1, "[4,4,N]");
    /* -1 there already: it is computed, so that the batch can have it */
    check(X ZERO "init p int64 2 = 4 -1\nShape s x -> s0\nSlice cut s0,zero,one -> n\n"
                 "Concat k p,n -> t axis=0\nReshape r x,t -> y\noutput y",
          1, "[4,4,N]");
}

static void sums_products_and_exact_quotients_of_the_batch_are_followed(void **state)
{
    (void)state;
    /* (n * 16 + 0) / 16 */
    check(X ZERO "init k int64 1 = 16\nShape s x -> s0\nSlice cut s0,zero,one -> n\n"
                 "Mul m n,k -> a\nSub b a,zero -> c\nDiv d c,k -> e\ninit rest int64 1 = -1\n"
                 "Concat cat e,rest -> t axis=0\nReshape r x,t -> y\noutput y",
          1, "[N,16]");
    check(X ZERO "Shape s x -> s0\nSlice cut s0,zero,one -> n\nAdd a n,zero -> b\n"
                 "Cast f b -> c to=1\nCast i c -> d to=7\nIdentity j d -> e\n"
                 "init rest int64 1 = -1\nConcat cat e,rest -> t axis=0\n"
                 "Reshape r x,t -> y\noutput y",
          1, "[N,16]");
}

static void a_slice_up_to_the_batch_takes_all_of_it(void **state)
{
    (void)state;
    check(X ZERO "Shape s x -> s0\nSlice cut s0,zero,one -> n\nSlice all x,zero,n -> y\noutput y",
          1, "[N,4,2,2]");
}

static void a_resize_to_sizes_that_repeat_the_batch_goes_by_scales(void **state)
{
    (void)state;
    check(X "init two int64 1 = 2\ninit zero int64 1 = 0\ninit hw int64 2 = 5 7\n"
            "Shape s x -> s0\nSlice cut s0,zero,two -> nc\nConcat k nc,hw -> sizes axis=0\n"
            "Resize up x,,,sizes -> y mode=\"linear\"\noutput y",
          1, "[N,4,5,7]");
    check("opset 11\n" X "init two int64 1 = 2\ninit zero int64 1 = 0\ninit hw int64 2 = 6 4\n"
          "init none float 0\nShape s x -> s0\nSlice cut s0,zero,two -> nc\n"
          "Concat k nc,hw -> sizes axis=0\n"
          "Resize up x,none,none,sizes -> y coordinate_transformation_mode=\"asymmetric\" "
          "nearest_mode=\"floor\"\noutput y",
          1, "[N,4,6,4]");
}

static void an_expand_to_the_batch_is_no_expand(void **state)
{
    (void)state;
    check("input x float N,4,1\ninit last int64 1 = 3\ninit two int64 1 = 2\n"
          "init zero int64 1 = 0\nShape s x -> s0\nSlice cut s0,zero,two -> nc\n"
          "Concat k nc,last -> t axis=0\nExpand e x,t -> y\noutput y",
          1, "[N,4,3]");
}

static void pads_computed_as_torch_does_are_constants(void **state)
{
    (void)state;
    /* [0,0,0,0,2,2] for dimensions from the last: filled up, turned, and flattened */
    check(X "init given int64 6 = 0 0 0 0 2 1\ninit n int64 1 = 2\n"
            "ConstantOfShape fill n -> f value={int64 1 = 0}\nConcat cat given,f -> p axis=0\n"
            "init two int64 2 = -1 2\nReshape r1 p,two -> q\ninit m1 int64 1 = -1\n"
            "init zero int64 1 = 0\ninit low int64 1 = -9223372036854775807\n"
            "Slice turn q,m1,low,zero,m1 -> t\nTranspose tr t -> u perm=[1,0]\n"
            "Reshape r2 u,m1 -> v\nCast cast v -> w to=7\ninit none float -\n"
            "Pad pad x,w,none -> y\noutput y",
          1, "[N,7,2,2]");
}

static void a_shape_that_is_asked_for_stays(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(X "Shape s x -> y\nRelu r x -> z\noutput y\noutput z");
    assert_int_equal(count(g, OP_SHAPE), 1);
    graph_free(g);
    g = onnx_text_graph("input x float 3,4\nShape s x -> y\nRelu r x -> z\noutput y\noutput z");
    assert_int_equal(count(g, OP_SHAPE), 0);
    assert_int_equal(tensor_get_s64(g->values[graph_find_value(g, "y")]->constant, 0), 3);
    graph_free(g);
}

static void what_cannot_be_followed_is_named(void **state)
{
    (void)state;
    static const struct {
        const char *text, *part;
    } cases[] = {
        {X ZERO "Shape s x -> s0\nSlice cut s0,zero,one -> n\nMul m n,n -> a\n"
                "init r int64 1 = -1\nConcat c a,r -> t axis=0\nReshape view x,t -> y\noutput y",
         "'view'"},
        {X ZERO "Shape s x -> s0\nSlice cut s0,zero,one -> n\nAdd a n,one -> b\n"
                "init r int64 1 = -1\nConcat c b,r -> t axis=0\nReshape view x,t -> y\noutput y",
         "'view'"},
        {X "Shape s x -> s0\nConstantOfShape zeros s0 -> z\nConcat c x,z -> y axis=1\noutput y",
         "'zeros'"},
        {X ZERO "Shape s x -> s0\nSlice cut s0,zero,one -> n\nSlice part x,n,n,one -> y\noutput y",
         "'part'"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct graph *g = NULL;
        struct err err = {0};
        int rc = onnx_text_read(cases[i].text, NULL, &g, &err);
        if (rc != -ERR_UNIMPLEMENTED || !strstr(err.message, cases[i].part))
            fail_msg("%d: %s", rc, err.message);
    }
}

static void folding_that_would_take_too_long_is_left_out(void **state)
{
    (void)state;
    /* 30000 outputs, each from 90000 elements */
    struct graph *g = onnx_text_graph("init s int64 4 = 1 1 473 473\nConstantOfShape fill s -> a\n"
                                      "MaxPool p a -> y kernel_shape=[300,300]\noutput y");
    assert_int_equal(count(g, OP_MAX_POOL), 1);
    assert_int_equal(count(g, OP_CONSTANT_OF_SHAPE), 0);
    graph_free(g);
}

static void dequantized_weights_stay_quantized(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(
        "input x float N,2,4,4\ninit w int8 3,2,1,1 bytes\ninit s float 3 positive\n"
        "init z int8 3 = 0 0 0\nDequantizeLinear dq w,s,z -> wf axis=0\nConv c x,wf -> y\n"
        "output y");
    assert_int_equal(pass_fold_constants(g, NULL), 0);
    assert_int_equal(count(g, OP_DEQUANTIZE_LINEAR), 1);
    graph_free(g);
}

static void weights_behind_a_quantizer_are_quantized_once(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(
        "input x float N,2,4,4\ninit w float 3,2,1,1 rand\ninit s float - = 0.02\n"
        "init z int8 - = 0\nQuantizeLinear q w,s,z -> wq\nDequantizeLinear dq wq,s,z -> wf\n"
        "Conv c x,wf -> y\noutput y");
    assert_int_equal(count(g, OP_QUANTIZE_LINEAR), 0);
    assert_int_equal(count(g, OP_DEQUANTIZE_LINEAR), 1);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_view_by_the_batch_size_copies_the_batch),
        cmocka_unit_test(a_view_that_names_all_sizes_is_followed),
        cmocka_unit_test(the_batch_at_another_place_takes_the_wildcard),
        cmocka_unit_test(sums_products_and_exact_quotients_of_the_batch_are_followed),
        cmocka_unit_test(a_slice_up_to_the_batch_takes_all_of_it),
        cmocka_unit_test(a_resize_to_sizes_that_repeat_the_batch_goes_by_scales),
        cmocka_unit_test(an_expand_to_the_batch_is_no_expand),
        cmocka_unit_test(pads_computed_as_torch_does_are_constants),
        cmocka_unit_test(a_shape_that_is_asked_for_stays),
        cmocka_unit_test(what_cannot_be_followed_is_named),
        cmocka_unit_test(folding_that_would_take_too_long_is_left_out),
        cmocka_unit_test(dequantized_weights_stay_quantized),
        cmocka_unit_test(weights_behind_a_quantizer_are_quantized_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
