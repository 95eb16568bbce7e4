/* Cut points, blocks, extraction, cost, and opening a fixed batch. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/cuts.h"
#include "shared/graph/eval.h"
#include "shared/graph/infer.h"
#include "tests/support/onnx_text.h"

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

static struct cuts cuts_of(const struct graph *g)
{
    struct cuts cuts;
    struct err err = {0};
    if (graph_cuts(g, arena, &cuts, &err) < 0)
        fail_msg("%s", err.message);
    return cuts;
}

/* The names of the points, joined by blanks; "|" and the numbers of nodes in the blocks. */
static void check(const char *text, const char *expected)
{
    struct graph *g = onnx_text_graph(text);
    struct cuts cuts = cuts_of(g);
    char all[512] = "";
    for (int i = 0; i < cuts.n_points; i++)
        snprintf(all + strlen(all), sizeof(all) - strlen(all), "%s ",
                 g->values[cuts.points[i]]->name);
    snprintf(all + strlen(all), sizeof(all) - strlen(all), "|");
    for (int i = 0; i < cuts.n_blocks; i++)
        snprintf(all + strlen(all), sizeof(all) - strlen(all), " %d", cuts.blocks[i].n_nodes);
    if (strcmp(all, expected) != 0)
        fail_msg("%s instead of %s in: %s", all, expected, text);
    graph_free(g);
}

#define X "input x float N,4\n"

static void a_chain_is_cut_everywhere(void **state)
{
    (void)state;
    check(X "Relu a x -> p\nTanh b p -> q\nRelu c q -> y\noutput y", "x p q y | 1 1 1");
}

static void a_branch_hides_what_it_goes_around(void **state)
{
    (void)state;
    check(X "Relu a x -> p\nTanh b p -> q\nRelu c q -> r\nAdd d r,p -> s\nRelu e s -> y\noutput y",
          "x p s y | 1 3 1");
    /* a skip within a skip */
    check(X "Relu a x -> p\nTanh b p -> q\nRelu c q -> r\nAdd d r,q -> s\nAdd e s,p -> y\noutput y",
          "x p y | 1 4");
    /* around everything */
    check(X "Relu a x -> p\nTanh b p -> q\nAdd c q,x -> y\noutput y", "x y | 3");
}

static void parallel_branches_make_one_block(void **state)
{
    (void)state;
    check(X "Relu a x -> p\nTanh b p -> q\nSigmoid c p -> r\nElu d p -> s\n"
            "Concat e q,r,s -> t axis=1\nRelu f t -> y\noutput y",
          "x p t y | 1 4 1");
    check(X "Split a x -> p,q axis=1\nRelu b p -> r\nTanh c q -> s\nAdd d r,s -> t\nRelu e t -> y\n"
            "output y",
          "x t y | 4 1");
}

static void a_value_read_twice_by_one_node_is_a_point(void **state)
{
    (void)state;
    check(X "Relu a x -> p\nMul b p,p -> q\nTanh c q -> y\noutput y", "x p q y | 1 1 1");
}

static void constants_are_no_paths(void **state)
{
    (void)state;
    check(X "init k float 4 rand\nAdd a x,k -> p\nMul b p,k -> y\noutput y", "x p y | 1 1");
    check(X "init w int8 4,4 bytes\ninit s float - = 1\nDequantizeLinear dq w,s -> wf\n"
            "Relu a x -> p\nMatMul b p,wf -> y\noutput y",
          "x p y | 1 2");
    /* dequantized once, read in two blocks: listed in the first */
    check(X "init w int8 4,4 bytes\ninit s float - = 1\nDequantizeLinear dq w,s -> wf\n"
            "MatMul a x,wf -> p\nMatMul b p,wf -> y\noutput y",
          "x p y | 2 1");
}

static void several_inputs_and_outputs_have_open_ends(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(X "input z float N,4\nAdd a x,z -> p\nRelu b p -> q\n"
                                        "Tanh c q -> y\nSigmoid d q -> u\noutput y\noutput u");
    struct cuts cuts = cuts_of(g);
    assert_int_equal(cuts.n_points, 2);
    assert_int_equal(cuts.n_blocks, 3);
    assert_int_equal(cuts.blocks[0].from, -1);
    assert_int_equal(cuts.blocks[0].to, cuts.points[0]);
    assert_int_equal(cuts.blocks[2].from, cuts.points[1]);
    assert_int_equal(cuts.blocks[2].to, -1);
    assert_int_equal(cuts.blocks[2].n_nodes, 2);
    graph_free(g);
    /* an output in the middle is a path of its own from there on */
    check(X "Relu a x -> p\nTanh b p -> q\nRelu c q -> y\noutput y\noutput p", "x p | 1 2");
}

static void cut_points_of_a_long_network_come_in_linear_time(void **state)
{
    (void)state;
    struct graph *g = graph_new(13, NULL);
    struct shape shape = shape_make(2, (int64_t[]){DIM_BATCH, 3});
    int v = graph_add_input(g, "x", DTYPE_F32, &shape, NULL);
    for (int i = 0; i < 20000; i++) {
        int n = graph_add_node(g, -1, OP_RELU, NULL, 1, &v, 1, NULL, NULL);
        int both[2] = {g->nodes[n]->outputs[0], v};
        n = graph_add_node(g, -1, OP_ADD, NULL, 2, both, 1, NULL, NULL);
        v = g->nodes[n]->outputs[0];
    }
    graph_add_output(g, v, NULL);
    assert_int_equal(cuts_of(g).n_blocks, 20000);
    graph_free(g);
}

/* ---- extraction ---- */

#define RESIDUAL                                                                                   \
    "input x float N,2,4,4\ninit w float 2,2,3,3 rand\ninit b float 2 rand\n"                      \
    "Conv c1 x,w,b -> a pads=[1,1,1,1]\nRelu r1 a -> p\nConv c2 p,w -> c pads=[1,1,1,1]\n"         \
    "Add add c,p -> d\nRelu r2 d -> q\nGlobalAveragePool gap q -> e\nFlatten f e -> y\noutput y"

static void blocks_run_one_after_the_other_are_the_network(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(RESIDUAL);
    struct cuts cuts = cuts_of(g);
    struct tensor *x = random_input(g->values[g->inputs[0]], 3), *whole = NULL;
    assert_int_equal(eval_graph(g, (const struct tensor *const *)&x, &whole, NULL), 0);
    for (int b = 0; b < cuts.n_blocks; b++) {
        struct graph *part = NULL;
        struct tensor *y = NULL;
        assert_int_equal(graph_extract_blocks(g, &cuts, b, b, &part, NULL), 0);
        assert_int_equal(part->n_inputs, 1);
        assert_int_equal(part->n_outputs, 1);
        assert_string_equal(part->values[part->inputs[0]]->name, g->values[cuts.points[b]]->name);
        assert_true(shape_equal(&part->values[part->outputs[0]]->shape,
                                &g->values[cuts.points[b + 1]]->shape));
        assert_int_equal(graph_infer(part, NULL), 0);
        assert_int_equal(eval_graph(part, (const struct tensor *const *)&x, &y, NULL), 0);
        tensor_free(x);
        x = y;
        graph_free(part);
    }
    assert_memory_equal(x->data, whole->data, tensor_bytes(whole));
    tensor_free(x);
    tensor_free(whole);
    graph_free(g);
}

static void an_extracted_block_is_a_model(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(RESIDUAL), *part = NULL, *copy = NULL;
    struct cuts cuts = cuts_of(g);
    void *data = NULL;
    size_t bytes;
    g->nodes[2]->hint = PRECISION_BF16;
    assert_int_equal(graph_extract_blocks(g, &cuts, 2, 3, &part, NULL), 0);
    graph_free(g);
    assert_int_equal(onnx_write_bytes(part, &data, &bytes, NULL), 0);
    assert_int_equal(onnx_read_bytes(data, bytes, NULL, NULL, &copy, NULL), 0);
    assert_int_equal(copy->n_nodes, 3);
    assert_string_equal(copy->values[copy->inputs[0]]->name, "p");
    assert_string_equal(copy->values[copy->outputs[0]]->name, "q");
    assert_int_equal(copy->nodes[0]->hint, PRECISION_BF16);
    assert_int_equal(graph_cost(copy).parameters, 2 * 2 * 9);
    free(data);
    graph_free(part);
    graph_free(copy);
}

static void weights_dequantized_elsewhere_come_along(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(
        X "init w int8 4,4 bytes\ninit s float - = 1\nDequantizeLinear dq w,s -> wf\n"
          "MatMul a x,wf -> p\nMatMul b p,wf -> y\noutput y");
    struct graph *part = NULL;
    struct cuts cuts = cuts_of(g);
    assert_int_equal(graph_extract_blocks(g, &cuts, 1, 1, &part, NULL), 0);
    assert_int_equal(part->n_nodes, 2);
    assert_int_equal(graph_infer(part, NULL), 0);
    graph_free(part);
    graph_free(g);
}

static void blocks_out_of_range_are_refused(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(RESIDUAL), *part = NULL;
    struct cuts cuts = cuts_of(g);
    assert_int_equal(graph_extract_blocks(g, &cuts, 0, cuts.n_blocks, &part, NULL),
                     -ERR_OUT_OF_RANGE);
    assert_int_equal(graph_extract_blocks(g, &cuts, 2, 1, &part, NULL), -ERR_OUT_OF_RANGE);
    assert_int_equal(graph_extract_blocks(g, &cuts, -1, 1, &part, NULL), -ERR_OUT_OF_RANGE);
    graph_free(g);
}

/* ---- cost ---- */

static struct cost cost_of(const char *text)
{
    struct graph *g = onnx_text_graph(text);
    struct cost cost = graph_cost(g);
    graph_free(g);
    return cost;
}

static void costs_are_counted_for_one_sample(void **state)
{
    (void)state;
    struct cost c = cost_of("input x float 8,4,6,6\ninit w float 6,2,3,3 rand\ninit b float 6\n"
                            "Conv c x,w,b -> y group=2 pads=[1,1,1,1] strides=[2,2]\noutput y");
    assert_int_equal(c.parameters, 6 * 2 * 9 + 6);
    assert_int_equal(c.bytes, 4 * c.parameters);
    c = cost_of("input x float N,4,6,6\ninit w float 6,2,3,3 rand\n"
                "Conv c x,w -> y group=2 pads=[1,1,1,1] strides=[2,2]\noutput y");
    assert_int_equal(c.macs, 6 * 3 * 3 * 2 * 9);
    c = cost_of("input x float N,4,3,3\ninit w float 4,5,2,2 rand\n"
                "ConvTranspose c x,w -> y strides=[2,2]\noutput y");
    assert_int_equal(c.macs, 4 * 9 * 5 * 4);
    c = cost_of("input x float N,7\ninit w float 5,7 rand\nGemm g x,w -> y transB=1\noutput y");
    assert_int_equal(c.macs, 35);
    c = cost_of("input x float N,3,7\ninit w float 7,5 rand\nMatMul g x,w -> y\noutput y");
    assert_int_equal(c.macs, 3 * 35);
}

static void a_constant_read_twice_counts_once(void **state)
{
    (void)state;
    struct cost c = cost_of(RESIDUAL);
    assert_int_equal(c.parameters, 2 * 2 * 9 + 2);
    assert_int_equal(c.macs, 2 * 2 * 2 * 9 * 16);
    c = cost_of(X "init k float 4 rand\nMul a k,x -> p\nAdd b p,k -> y\noutput y");
    assert_int_equal(c.parameters, 4);
    c = cost_of(X "init t int64 2 = 0 -1\nReshape r x,t -> y\noutput y");
    assert_int_equal(c.parameters, 0); /* shapes are no parameters */
}

static void quantized_weights_count_their_own_bytes(void **state)
{
    (void)state;
    struct cost c = cost_of(X "init w int8 4,4 bytes\ninit s float - = 1\n"
                              "DequantizeLinear dq w,s -> wf\nMatMul b x,wf -> y\noutput y");
    assert_int_equal(c.parameters, 16 + 1);
    assert_int_equal(c.bytes, 16 + 4);
    assert_int_equal(c.macs, 16);
}

/* ---- batch ---- */

/* The network opened from a batch of `fixed` gives, for that batch, what it gave before. */
static void open_batch(const char *text)
{
    struct graph *g = onnx_text_graph(text), *before = NULL;
    struct err err = {0};
    assert_int_equal(graph_clone(g, &before, NULL), 0);
    if (graph_make_batch_symbolic(g, &err) < 0)
        fail_msg("%s in: %s", err.message, text);
    assert_int_equal(g->values[g->inputs[0]]->shape.dim[0], DIM_BATCH);
    assert_true(shape_has_batch(&g->values[g->outputs[0]]->shape));
    assert_true(graph_difference(before, g) == 0);
    graph_free(before);
    /* and sample by sample the same for any other */
    struct shape shape = shape_at(&g->values[g->inputs[0]]->shape, 3);
    struct tensor *x = tensor_new(DTYPE_F32, &shape, NULL), *y = NULL;
    for (int64_t i = 0; i < shape_elements(&shape); i++)
        ((float *)x->data)[i] = (float)(i % 17) / 5 - 1;
    assert_int_equal(eval_graph(g, (const struct tensor *const *)&x, &y, NULL), 0);
    assert_int_equal(graph_infer(g, NULL), 0);
    struct shape expected = shape_at(&g->values[g->outputs[0]]->shape, 3);
    assert_true(shape_equal(&y->shape, &expected));
    tensor_free(x);
    tensor_free(y);
    graph_free(g);
}

static void keep_fixed(const char *text, const char *part)
{
    struct graph *g = onnx_text_graph(text);
    struct shape shape = g->values[g->inputs[0]]->shape;
    struct err err = {0};
    int rc = graph_make_batch_symbolic(g, &err);
    if (rc != -ERR_UNIMPLEMENTED || !strstr(err.message, part))
        fail_msg("%d: %s in: %s", rc, err.message, text);
    assert_true(shape_equal(&g->values[g->inputs[0]]->shape, &shape));
    assert_int_equal(graph_infer(g, NULL), 0);
    graph_free(g);
}

static void a_fixed_batch_can_be_opened(void **state)
{
    (void)state;
    open_batch("input x float 1,2,4,4\ninit w float 3,2,1,1 rand\nConv c x,w -> a\n"
               "GlobalAveragePool p a -> b\nFlatten f b -> y\noutput y");
    open_batch("input x float 1,2,4\ninit t int64 2 = 1 8\nReshape r x,t -> y\noutput y");
    open_batch("input x float 2,2,4\ninit t int64 2 = 2 -1\nReshape r x,t -> y\noutput y");
    open_batch("input x float 1,2,4\ninit t int64 3 = -1 2 2\nTranspose p x -> a perm=[1,2,0]\n"
               "init u int64 2 = 8 1\nReshape r a,u -> y\noutput y");
    open_batch("input x float 2,3,4\ninit s int64 2 = 0 1\ninit e int64 2 = 2 3\n"
               "Slice cut x,s,e -> y\noutput y");
    open_batch("input x float 1,3,1\ninit t int64 3 = 1 3 4\nExpand e x,t -> y\noutput y");
    open_batch("input x float 1,2,4,4\ninit s int64 4 = 1 2 6 7\n"
               "Resize up x,,,s -> y mode=\"linear\"\noutput y");
    open_batch("input x float N,2\nRelu r x -> y\noutput y");
}

static void a_batch_that_is_mixed_stays_fixed(void **state)
{
    (void)state;
    keep_fixed("input x float 1,4\nSoftmax soft x -> y axis=0\noutput y", "soft");
    keep_fixed("input x float 2,4\ninit k float 2,4 rand\nAdd plus x,k -> y\noutput y", "plus");
    keep_fixed("input x float 2,4\ninit t int64 1 = 8\nReshape view x,t -> y\noutput y", "view");
    keep_fixed("input x float 1,4\nSqueeze sq x -> y\noutput y", "sq");
    keep_fixed("input x float 2,4\ninit i int64 - = 0\nGather pick x,i -> y\noutput y", "pick");
    keep_fixed("input x float 2,4\nReduceMean mean x -> y axes=[0]\noutput y", "mean");
    keep_fixed("input x float 2,4\ninput z float 3,4\nRelu r x -> y\nRelu s z -> u\n"
               "output y\noutput u",
               "'z'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_is_cut_everywhere),
        cmocka_unit_test(a_branch_hides_what_it_goes_around),
        cmocka_unit_test(parallel_branches_make_one_block),
        cmocka_unit_test(a_value_read_twice_by_one_node_is_a_point),
        cmocka_unit_test(constants_are_no_paths),
        cmocka_unit_test(several_inputs_and_outputs_have_open_ends),
        cmocka_unit_test(cut_points_of_a_long_network_come_in_linear_time),
        cmocka_unit_test(blocks_run_one_after_the_other_are_the_network),
        cmocka_unit_test(an_extracted_block_is_a_model),
        cmocka_unit_test(weights_dequantized_elsewhere_come_along),
        cmocka_unit_test(blocks_out_of_range_are_refused),
        cmocka_unit_test(costs_are_counted_for_one_sample),
        cmocka_unit_test(a_constant_read_twice_counts_once),
        cmocka_unit_test(quantized_weights_count_their_own_bytes),
        cmocka_unit_test(a_fixed_batch_can_be_opened),
        cmocka_unit_test(a_batch_that_is_mixed_stays_fixed),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
