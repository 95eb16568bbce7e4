/* Passes find what they promise to find, and leave the function as it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/passes.h"
#include "tests/support/onnx_text.h"

static int count(const struct graph *g, enum op op)
{
    int n = 0;
    for (int i = 0; i < g->n_nodes; i++)
        n += g->nodes[i]->op == op;
    return n;
}

static struct graph *clone(const struct graph *g)
{
    struct graph *copy = NULL;
    assert_int_equal(graph_clone(g, &copy, NULL), 0);
    return copy;
}

/* Runs the pass; checks the function, the names, and that a second run finds nothing. */
static struct graph *run(const char *text, int (*pass)(struct graph *, struct err *), bool changes)
{
    struct graph *before = onnx_text_graph(text), *g = clone(before);
    struct err err = {0};
    int rc = pass(g, &err);
    if (rc < 0 || (rc > 0) != changes)
        fail_msg("%d %s in: %s", rc, err.message, text);
    assert_int_equal(pass(g, &err), 0);
    double difference = graph_difference(before, g);
    if (!(difference < 1e-5))
        fail_msg("difference %g in: %s", difference, text);
    for (int i = 0; i < g->n_outputs; i++)
        assert_string_equal(g->values[g->outputs[i]]->name,
                            before->values[before->outputs[i]]->name);
    for (int i = 0; i < g->n_inputs; i++)
        assert_string_equal(g->values[g->inputs[i]]->name, before->values[before->inputs[i]]->name);
    graph_free(before);
    return g;
}

static void expect_nodes(const char *text, int (*pass)(struct graph *, struct err *), int nodes,
                         enum op op)
{
    struct graph *probe = onnx_text_graph(text);
    bool changes = probe->n_nodes != nodes || count(probe, op) == 0;
    graph_free(probe);
    struct graph *g = run(text, pass, changes);
    if (g->n_nodes != nodes || count(g, op) == 0)
        fail_msg("%d nodes, %d %s in: %s", g->n_nodes, count(g, op), op_name(op), text);
    graph_free(g);
}

static void expect_unchanged(const char *text, int (*pass)(struct graph *, struct err *))
{
    graph_free(run(text, pass, false));
}

#define X "input x float N,4,6,6\n"
#define CONV X "init w float 5,4,3,3 rand\ninit b float 5 rand\nConv conv x,w,b -> c\n"
#define STATS                                                                                      \
    "init s float 5 rand\ninit h float 5 rand\ninit m float 5 rand\ninit v float 5 positive\n"

/* ---- identities ---- */

static void nodes_that_change_nothing_go(void **state)
{
    (void)state;
#define GONE(node)                                                                                 \
    expect_nodes(X "Relu first x -> a\n" node "\nTanh last b -> y\noutput y",                      \
                 pass_remove_identities, 2, OP_TANH)
    GONE("Identity i a -> b");
    GONE("Dropout i a -> b");
    GONE("Cast i a -> b to=1");
    GONE("init p int64 8 = 0 0 0 0 0 0 0 0\nPad i a,p -> b");
    GONE("Transpose i a -> b perm=[0,1,2,3]");
    GONE("init t int64 4 = 0 4 -1 6\nReshape i a,t -> b");
    GONE("init z int64 1 = 0\ninit e int64 1 = 100\ninit ax int64 1 = 2\nSlice i a,z,e,ax -> b");
    GONE("Concat i a -> b axis=1");
    GONE("Split i a -> b axis=1");
    GONE("Clip i a -> b");
    GONE("init t int64 1 = 1\nExpand i a,t -> b");
    GONE("Identity i a -> a1\nIdentity j a1 -> a2\nDropout k a2 -> b");
}

static void nodes_that_look_alike_stay(void **state)
{
    (void)state;
#define STAYS(node)                                                                                \
    expect_unchanged(X "Relu first x -> a\n" node "\nTanh last b -> y\noutput y",                  \
                     pass_remove_identities)
    STAYS("Transpose i a -> b perm=[0,1,3,2]"); /* square: same shape, other order */
    STAYS("init p int64 8 = 0 0 1 0 0 0 -1 0\nPad i a,p -> b");
    STAYS("init z int64 1 = -1\ninit e int64 1 = -99\ninit ax int64 1 = 2\ninit st int64 1 = -1\n"
          "Slice i a,z,e,ax,st -> b");
    STAYS("init lo float - = -1\nClip i a,lo -> b");
    STAYS("Cast c a -> c1 to=11\nCast i c1 -> b to=1");
}

static void identities_beside_inputs_and_outputs_keep_the_names(void **state)
{
    (void)state;
    expect_nodes(X "Relu r x -> a\nIdentity i a -> y\noutput y", pass_remove_identities, 1,
                 OP_RELU);
    expect_unchanged(X "Identity i x -> y\noutput y", pass_remove_identities);
    expect_unchanged(X "Relu r x -> a\nIdentity i a -> y\noutput y\noutput a",
                     pass_remove_identities);
    struct graph *g =
        run(X "Relu r x -> a\nIdentity i a -> y\nIdentity j a -> z\noutput y\noutput z",
            pass_remove_identities, true);
    assert_int_equal(g->n_nodes, 2); /* one output takes the name, the other keeps its node */
    graph_free(g);
}

/* ---- BatchNormalization ---- */

static void batchnorm_goes_into_the_layer_before(void **state)
{
    (void)state;
#define BN "BatchNormalization bn c,s,h,m,v -> y epsilon=0.01\noutput y"
    expect_nodes(CONV STATS BN, pass_fold_batchnorm, 1, OP_CONV);
    expect_nodes(X "init w float 5,4,3,3 rand\nConv conv x,w -> c\n" STATS BN, pass_fold_batchnorm,
                 1, OP_CONV);
    expect_nodes(X "init w float 4,1,3,3 rand\nConv conv x,w -> c group=4\n"
                   "init s float 4 rand\ninit v float 4 positive\n"
                   "BatchNormalization bn c,s,s,s,v -> y\noutput y",
                 pass_fold_batchnorm, 1, OP_CONV);
    expect_nodes(X "init w float 4,5,3,3 rand\nConvTranspose conv x,w -> c\n" STATS BN,
                 pass_fold_batchnorm, 1, OP_CONV_TRANSPOSE);
    expect_nodes(X "init w float 4,3,2,2 rand\nConvTranspose conv x,w -> c group=2 strides=[2,2]\n"
                   "init s float 6 rand\ninit v float 6 positive\n"
                   "BatchNormalization bn c,s,s,s,v -> y\noutput y",
                 pass_fold_batchnorm, 1, OP_CONV_TRANSPOSE);
    expect_nodes("input x float N,7\ninit w float 7,5 rand\ninit b float 1,5 rand\n"
                 "Gemm fc x,w,b -> c alpha=0.5 beta=2.0\n" STATS BN,
                 pass_fold_batchnorm, 1, OP_GEMM);
    expect_nodes("input x float N,7\ninit w float 5,7 rand\nGemm fc x,w -> c transB=1\n" STATS BN,
                 pass_fold_batchnorm, 1, OP_GEMM);
}

static void batchnorm_goes_through_pools_where_it_rises(void **state)
{
    (void)state;
#define POOLED CONV "MaxPool p c -> q kernel_shape=[2,2] strides=[2,2]\n"
#define BEHIND                                                                                     \
    "init h float 5 rand\ninit m float 5 rand\ninit v float 5 positive\n"                          \
    "BatchNormalization bn q,s,h,m,v -> y\noutput y"
    expect_nodes(POOLED "init s float 5 positive\n" BEHIND, pass_fold_batchnorm, 2, OP_MAX_POOL);
    expect_nodes(POOLED "MaxPool p2 q -> q2 kernel_shape=[2,2]\ninit s float 5 positive\n"
                        "init v float 5 positive\nBatchNormalization bn q2,s,s,s,v -> y\noutput y",
                 pass_fold_batchnorm, 3, OP_MAX_POOL);
    expect_unchanged(POOLED "init s float 5 = 1 1 -1 1 1\n" BEHIND, pass_fold_batchnorm);
    expect_unchanged(POOLED "init s float 5 positive\n" BEHIND "\noutput q", pass_fold_batchnorm);
    expect_unchanged(POOLED "init s float 5 positive\n" BEHIND "\noutput c", pass_fold_batchnorm);
}

static void arithmetic_per_channel_goes_in_too(void **state)
{
    (void)state;
#define IN(nodes)                                                                                  \
    expect_nodes(CONV "init k float 5,1,1 rand\n" nodes "\noutput y", pass_fold_batchnorm, 1,      \
                 OP_CONV)
    IN("Mul a c,k -> y");
    IN("Mul a k,c -> y");
    IN("Add a c,k -> y");
    IN("Sub a c,k -> y");
    IN("Sub a k,c -> y");
    IN("Div a c,k -> y");
    IN("init one float - = 3\nMul a c,one -> y");
    IN("Mul a c,k -> d\nAdd e d,k -> f\nSub g k,f -> y");
    expect_nodes(CONV STATS "BatchNormalization bn c,s,h,m,v -> d\ninit k float 1,5,1,1 rand\n"
                            "Mul a d,k -> e\nRelu r e -> y\noutput y",
                 pass_fold_batchnorm, 2, OP_RELU);
}

static void a_batchnorm_without_a_layer_takes_up_arithmetic(void **state)
{
    (void)state;
    expect_nodes(X "init s float 4 rand\ninit v float 4 positive\ninit k float 4,1,1 rand\n"
                   "Relu r x -> c\nBatchNormalization bn c,s,s,s,v -> d\nMul m d,k -> e\n"
                   "Add a k,e -> y\noutput y",
                 pass_fold_batchnorm, 2, OP_BATCH_NORMALIZATION);
    expect_nodes(X "init s float 4 rand\ninit v float 4 positive\n"
                   "Relu r x -> c\nBatchNormalization bn c,s,s,s,v -> d\n"
                   "BatchNormalization bm d,v,s,s,v -> y\noutput y",
                 pass_fold_batchnorm, 2, OP_BATCH_NORMALIZATION);
}

static void what_is_not_per_channel_stays_out(void **state)
{
    (void)state;
    expect_unchanged(CONV "init k float 4,1 rand\nAdd a c,k -> y\noutput y", pass_fold_batchnorm);
    expect_unchanged(CONV "init k float 5,1,1 positive\nDiv a k,c -> y\noutput y",
                     pass_fold_batchnorm);
    expect_unchanged(CONV "init k float 5,1,1\nDiv a c,k -> d\nRelu r c -> y\noutput y",
                     pass_fold_batchnorm);
    expect_unchanged(CONV STATS "BatchNormalization bn c,s,h,m,v -> y\noutput y\noutput c",
                     pass_fold_batchnorm);
    expect_unchanged(CONV STATS "BatchNormalization bn c,s,h,m,v -> d\nAdd a c,d -> y\noutput y",
                     pass_fold_batchnorm);
    expect_unchanged(X "init w float 5,4,3,3 rand\ninit u float 5,4,3,3 rand\nConv p x,w -> a\n"
                       "Conv q x,u -> b\nAdd plus a,b -> y\noutput y",
                     pass_fold_batchnorm);
}

static void weights_that_two_layers_share_are_not_spoiled(void **state)
{
    (void)state;
    expect_nodes(CONV STATS "Conv other x,w,b -> d\nBatchNormalization bn c,s,h,m,v -> e\n"
                            "Add a d,e -> y\noutput y",
                 pass_fold_batchnorm, 3, OP_ADD);
}

/* ---- Pad ---- */

static void zero_padding_goes_into_convolutions(void **state)
{
    (void)state;
#define PAD(p) X "init w float 5,4,3,3 rand\ninit p int64 8 = " p "\nPad pad x,p -> a\n"
    expect_nodes(PAD("0 0 1 2 0 0 3 0") "Conv c a,w -> y\noutput y", pass_fold_pad, 1, OP_CONV);
    expect_nodes(PAD("0 0 1 1 0 0 1 1") "Conv c a,w -> y pads=[1,0,1,0] strides=[2,2]\noutput y",
                 pass_fold_pad, 1, OP_CONV);
    expect_nodes(
        PAD("0 0 1 1 0 0 1 1") "Conv c a,w -> b\nConv d a,w -> e\nAdd f b,e -> y\noutput y",
        pass_fold_pad, 3, OP_ADD);
    expect_nodes(PAD("0 0 1 1 0 0 1 1") "AveragePool c a -> y kernel_shape=[3,3]\noutput y",
                 pass_fold_pad, 1, OP_AVERAGE_POOL);
    expect_nodes(PAD("0 0 1 1 0 0 1 1") "AveragePool c a -> y kernel_shape=[3,3] "
                                        "pads=[1,1,1,1] count_include_pad=1\noutput y",
                 pass_fold_pad, 1, OP_AVERAGE_POOL);
    expect_nodes("opset 18\n" X "init w float 5,4,3,3 rand\ninit p int64 4 = 1 2 0 1\n"
                 "init ax int64 2 = -2 3\nPad pad x,p,,ax -> a\nConv c a,w -> y\noutput y",
                 pass_fold_pad, 1, OP_CONV);
}

static void several_pads_in_a_row_go_in_together(void **state)
{
    (void)state;
    expect_nodes(PAD("0 0 1 1 0 0 1 1") "Pad more a,p -> b\nPad most b,p -> d\nConv c d,w -> y\n"
                                        "output y",
                 pass_fold_pad, 1, OP_CONV);
}

static void other_padding_stays(void **state)
{
    (void)state;
    expect_unchanged(PAD("0 0 1 1 0 0 1 1") "MaxPool c a -> y kernel_shape=[3,3]\noutput y",
                     pass_fold_pad);
    expect_unchanged(PAD("0 0 1 1 0 0 1 1") "AveragePool c a -> y kernel_shape=[3,3] "
                                            "pads=[1,1,1,1]\noutput y",
                     pass_fold_pad);
    expect_unchanged(PAD("0 0 1 1 0 0 1 1") "AveragePool c a -> y kernel_shape=[3,3] "
                                            "strides=[2,2] ceil_mode=1\noutput y",
                     pass_fold_pad);
    expect_unchanged(PAD("0 0 1 1 0 0 1 1") "Conv c a,w -> y auto_pad=\"SAME_UPPER\"\noutput y",
                     pass_fold_pad);
    expect_unchanged(PAD("0 0 -1 1 0 0 1 1") "Conv c a,w -> y\noutput y", pass_fold_pad);
    expect_unchanged(X "init w float 5,5,3,3 rand\ninit p int64 8 = 0 1 1 1 0 0 1 1\n"
                       "Pad pad x,p -> a\nConv c a,w -> y\noutput y",
                     pass_fold_pad);
    expect_unchanged(X "init w float 5,4,3,3 rand\ninit p int64 8 = 0 0 1 1 0 0 1 1\n"
                       "init k float - = 2\nPad pad x,p,k -> a\nConv c a,w -> y\noutput y",
                     pass_fold_pad);
    expect_unchanged(X "init w float 5,4,3,3 rand\ninit p int64 8 = 0 0 1 1 0 0 1 1\n"
                       "Pad pad x,p -> a mode=\"edge\"\nConv c a,w -> y\noutput y",
                     pass_fold_pad);
}

/* ---- canonical forms ---- */

static void reshapes_in_a_row_become_one(void **state)
{
    (void)state;
    expect_nodes("input x float N,4,1,1\ninit a int64 2 = 2 3\nSqueeze s x,a -> y\noutput y",
                 pass_canonicalise, 1, OP_FLATTEN);
    expect_nodes(X "init t int64 3 = 0 4 -1\nReshape r x,t -> a\ninit u int64 2 = 0 -1\n"
                   "Reshape s a,u -> b\nFlatten f b -> y\noutput y",
                 pass_canonicalise, 1, OP_FLATTEN);
    expect_nodes(X "Flatten f x -> a\ninit t int64 4 = 0 2 -1 6\nReshape r a,t -> y\noutput y",
                 pass_canonicalise, 1, OP_RESHAPE);
    expect_nodes(X "init t int64 3 = 4 36 -1\nReshape r x,t -> a\ninit u int64 4 = 2 2 36 -1\n"
                   "Reshape s a,u -> y\noutput y",
                 pass_canonicalise, 1, OP_RESHAPE);
    expect_unchanged(X "Flatten f x -> a\nRelu r a -> b\ninit t int64 4 = 0 4 6 6\n"
                       "Reshape s b,t -> y\noutput y\noutput a",
                     pass_canonicalise);
}

static void slices_along_different_axes_become_one(void **state)
{
    (void)state;
#define SLICES(ax)                                                                                 \
    X "init s int64 1 = 0\ninit e int64 1 = 99\ninit t int64 1 = 2\n"                              \
      "init a2 int64 1 = 2\ninit a3 int64 1 = " ax "\nSlice p x,s,e,a2,t -> a\n"                   \
      "Slice q a,s,e,a3,t -> y\noutput y"
    expect_nodes(SLICES("3"), pass_canonicalise, 1, OP_SLICE);
    expect_nodes(SLICES("-1"), pass_canonicalise, 1, OP_SLICE);
    expect_unchanged(SLICES("2"), pass_canonicalise);
}

static void means_over_the_image_become_global_pools(void **state)
{
    (void)state;
    expect_nodes(X "ReduceMean m x -> y axes=[2,3]\noutput y", pass_canonicalise, 1,
                 OP_GLOBAL_AVERAGE_POOL);
    expect_nodes(X "ReduceMean m x -> y axes=[-1,-2] keepdims=0\noutput y", pass_canonicalise, 2,
                 OP_GLOBAL_AVERAGE_POOL);
    expect_nodes("opset 18\n" X "init a int64 2 = 3 2\nReduceMean m x,a -> y keepdims=0\noutput y",
                 pass_canonicalise, 2, OP_FLATTEN);
    expect_nodes(X "AveragePool p x -> y kernel_shape=[6,6]\noutput y", pass_canonicalise, 1,
                 OP_GLOBAL_AVERAGE_POOL);
    expect_nodes(X "MaxPool p x -> y kernel_shape=[6,6] strides=[3,3]\noutput y", pass_canonicalise,
                 1, OP_GLOBAL_MAX_POOL);
    expect_unchanged(X "ReduceMean m x -> y axes=[1,2]\noutput y", pass_canonicalise);
    expect_unchanged(X "AveragePool p x -> y kernel_shape=[6,5]\noutput y", pass_canonicalise);
    expect_unchanged(X "MaxPool p x -> y,i kernel_shape=[6,6]\noutput y\noutput i",
                     pass_canonicalise);
}

static void a_matmul_and_its_addition_become_one_gemm(void **state)
{
    (void)state;
    expect_nodes("input x float N,4\ninit w float 4,5 rand\ninit b float 5 rand\n"
                 "MatMul m x,w -> a\nAdd p a,b -> y\noutput y",
                 pass_simplify, 1, OP_GEMM);
    expect_nodes("input x float N,4\ninit w float 4,5 rand\ninit b float 1,5 rand\n"
                 "MatMul m x,w -> a\nAdd p b,a -> y\noutput y",
                 pass_simplify, 1, OP_GEMM);
    expect_unchanged("input x float N,3,4\ninit w float 4,5 rand\nMatMul m x,w -> y\noutput y",
                     pass_simplify);
}

static void activations_get_their_usual_names(void **state)
{
    (void)state;
    expect_nodes(X "init z float - = 0\nClip c x,z -> y\noutput y", pass_canonicalise, 1, OP_RELU);
    expect_nodes(X "init six float - = 6\nRelu r x -> a\nClip c a,,six -> y\noutput y",
                 pass_canonicalise, 1, OP_CLIP);
    expect_nodes(X "Tanh t x -> b\nRelu r b -> a\nRelu c a -> y\noutput y", pass_canonicalise, 2,
                 OP_RELU);
#define RELU6                                                                                      \
    "init three float - = 3\ninit z float - = 0\ninit six float - = 6\n"                           \
    "Add p x,three -> a\nClip q a,z,six -> b\n"
    expect_nodes(X RELU6 "Div d b,six -> y\noutput y", pass_canonicalise, 1, OP_HARD_SIGMOID);
    expect_nodes(X RELU6 "Div d b,six -> e\nMul m x,e -> y\noutput y", pass_canonicalise, 1,
                 OP_HARD_SWISH);
    expect_nodes(X RELU6 "Mul m x,b -> e\nDiv d e,six -> y\noutput y", pass_canonicalise, 1,
                 OP_HARD_SWISH);
    expect_nodes(X RELU6 "init sixth float - = 0.16666667\nMul m b,x -> e\nMul d sixth,e -> y\n"
                         "output y",
                 pass_canonicalise, 1, OP_HARD_SWISH);
    expect_nodes(X "HardSigmoid h x -> a alpha=0.16666667 beta=0.5\nMul m a,x -> y\noutput y",
                 pass_canonicalise, 1, OP_HARD_SWISH);
    expect_unchanged(X "HardSigmoid h x -> a\nMul m a,x -> y\noutput y", pass_canonicalise);
    expect_unchanged(X "init z float - = 1\nClip c x,z -> y\noutput y", pass_canonicalise);
    expect_unchanged(X "init z float - = 0\ninit six float - = 6\nClip c x,z,six -> y\noutput y",
                     pass_canonicalise);
}

static void hardswish_raises_the_opset_to_14(void **state)
{
    (void)state;
    struct graph *g = run(X "HardSigmoid h x -> a alpha=0.16666667\nMul m a,x -> b\nRelu r b -> y\n"
                            "output y",
                          pass_canonicalise, true);
    assert_int_equal(g->opset, 14);
    assert_int_equal(g->nodes[1]->since, 14);
    void *data = NULL;
    size_t bytes;
    assert_int_equal(onnx_write_bytes(g, &data, &bytes, NULL), 0);
    free(data);
    graph_free(g);
}

/* ---- quantized networks ---- */

#define QDQ                                                                                        \
    X "init sx float - = 0.05\ninit zx uint8 - = 128\ninit w int8 5,4,3,3 bytes\n"                 \
      "init sw float 5 positive\ninit zw int8 5\ninit b int32 5 bytes\ninit sb float 5 positive\n" \
      "init zb int32 5\ninit sy float - = 20\ninit zy uint8 - = 0\n"                               \
      "QuantizeLinear q1 x,sx,zx -> a\nDequantizeLinear d1 a,sx,zx -> c\n"                         \
      "DequantizeLinear dw w,sw,zw -> wf axis=0\nDequantizeLinear db b,sb,zb -> bf axis=0\n"       \
      "Conv conv c,wf,bf -> e\nRelu relu e -> f\nQuantizeLinear q2 f,sy,zy -> g\n"                 \
      "DequantizeLinear d2 g,sy,zy -> h\n"

static void quantized_networks_survive_simplification(void **state)
{
    (void)state;
    struct graph *g =
        run(QDQ "GlobalAveragePool p h -> i\nFlatten f i -> y\noutput y", pass_simplify, false);
    assert_int_equal(count(g, OP_QUANTIZE_LINEAR), 2);
    assert_int_equal(count(g, OP_DEQUANTIZE_LINEAR), 4);
    graph_free(g);
    g = run(QDQ "Identity i h -> j\nReduceMean m j -> y axes=[2,3] keepdims=0\noutput y",
            pass_simplify, true);
    assert_int_equal(count(g, OP_DEQUANTIZE_LINEAR), 4);
    assert_int_equal(count(g, OP_GLOBAL_AVERAGE_POOL), 1);
    graph_free(g);
    expect_unchanged(QDQ "init k float 5,1,1 rand\nAdd p h,k -> y\noutput y", pass_simplify);
}

static void hints_stay_on_their_nodes(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(CONV STATS "BatchNormalization bn c,s,h,m,v -> d\n"
                                                 "Identity i d -> e\n"
                                                 "ReduceMean rm e -> y axes=[2,3] keepdims=0\n"
                                                 "output y");
    for (int i = 0; i < g->n_nodes; i++)
        g->nodes[i]->hint = PRECISION_BF16;
    assert_true(pass_simplify(g, NULL) > 0);
    assert_int_equal(g->n_nodes, 3);
    for (int i = 0; i < g->n_nodes; i++)
        assert_int_equal(g->nodes[i]->hint, PRECISION_BF16);
    graph_free(g);
}

/* ---- all together ---- */

static void simplification_finds_what_follows_from_its_own_changes(void **state)
{
    (void)state;
    /* the identity hides the BatchNormalization, and the Pad hides behind another */
    expect_nodes(CONV STATS
                 "Identity i c -> d\nBatchNormalization bn d,s,h,m,v -> e\nDropout j e -> f\n"
                 "Relu r f -> y\noutput y",
                 pass_simplify, 2, OP_RELU);
    expect_nodes(X "init w float 5,4,3,3 rand\nConstant k -> p value={int64 8 = 0 0 1 1 0 0 1 1}\n"
                   "Pad pad x,p -> a\nIdentity i a -> b\nConv c b,w -> y\noutput y",
                 pass_simplify, 1, OP_CONV);
}

static void long_chains_of_identities_take_linear_time(void **state)
{
    (void)state;
    struct graph *g = graph_new(13, NULL);
    struct shape shape = shape_make(2, (int64_t[]){DIM_BATCH, 3});
    int v = graph_add_input(g, "x", DTYPE_F32, &shape, NULL);
    for (int i = 0; i < 50000; i++) {
        static const enum op ops[] = {OP_IDENTITY, OP_DROPOUT, OP_RELU};
        int n = graph_add_node(g, -1, ops[i % 3], NULL, 1, &v, 1, NULL, NULL);
        v = g->nodes[n]->outputs[0];
    }
    graph_add_output(g, v, NULL);
    assert_true(pass_simplify(g, NULL) > 0);
    assert_int_equal(g->n_nodes, 1);
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nodes_that_change_nothing_go),
        cmocka_unit_test(nodes_that_look_alike_stay),
        cmocka_unit_test(identities_beside_inputs_and_outputs_keep_the_names),
        cmocka_unit_test(batchnorm_goes_into_the_layer_before),
        cmocka_unit_test(batchnorm_goes_through_pools_where_it_rises),
        cmocka_unit_test(arithmetic_per_channel_goes_in_too),
        cmocka_unit_test(a_batchnorm_without_a_layer_takes_up_arithmetic),
        cmocka_unit_test(what_is_not_per_channel_stays_out),
        cmocka_unit_test(weights_that_two_layers_share_are_not_spoiled),
        cmocka_unit_test(zero_padding_goes_into_convolutions),
        cmocka_unit_test(several_pads_in_a_row_go_in_together),
        cmocka_unit_test(other_padding_stays),
        cmocka_unit_test(reshapes_in_a_row_become_one),
        cmocka_unit_test(slices_along_different_axes_become_one),
        cmocka_unit_test(means_over_the_image_become_global_pools),
        cmocka_unit_test(a_matmul_and_its_addition_become_one_gemm),
        cmocka_unit_test(activations_get_their_usual_names),
        cmocka_unit_test(hardswish_raises_the_opset_to_14),
        cmocka_unit_test(quantized_networks_survive_simplification),
        cmocka_unit_test(hints_stay_on_their_nodes),
        cmocka_unit_test(simplification_finds_what_follows_from_its_own_changes),
        cmocka_unit_test(long_chains_of_identities_take_linear_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
