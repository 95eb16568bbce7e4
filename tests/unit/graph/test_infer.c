/* Shapes and types of every operator, with a symbolic batch, and what contradicts itself. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/infer.h"
#include "tests/support/onnx_text.h"

/* The shapes of the outputs of a model of one node. */
static void check(const char *text, const char *expected)
{
    struct graph *g = NULL;
    struct err err = {0};
    struct onnx_limits limits = onnx_default_limits;
    limits.keep_constant_nodes = true;
    if (onnx_text_read(text, &limits, &g, &err) < 0)
        fail_msg("%s\nin: %s", err.message, text);
    if (graph_infer(g, &err) < 0)
        fail_msg("%s\nin: %s", err.message, text);
    char all[1024] = "", shape[128];
    for (int i = 0; i < g->n_outputs; i++) {
        const struct value *value = g->values[g->outputs[i]];
        size_t n = strlen(all);
        snprintf(all + n, sizeof(all) - n, "%s%s %s", i ? "; " : "", dtype_name(value->dtype),
                 shape_text(&value->shape, shape));
    }
    if (strcmp(all, expected) != 0)
        fail_msg("expected %s, got %s\nin: %s", expected, all, text);
    graph_free(g);
}

static void refuse(const char *text, int code, const char *part)
{
    struct graph *g = NULL;
    struct err err = {0};
    int rc = onnx_text_read(text, NULL, &g, &err);
    if (rc >= 0)
        fail_msg("accepted: %s", text);
    if (rc != -code || !strstr(err.message, part))
        fail_msg("%s (%s), expected %s with '%s'", err.message, err_code_name(-rc),
                 err_code_name(code), part);
}

#define X "input x float N,4,8,6\n"

static void elementwise_operators_keep_or_broadcast_shapes(void **state)
{
    (void)state;
    check(X "Relu a x -> y\noutput y", "float32 [N,4,8,6]");
    check(X "Softplus a x -> y\noutput y", "float32 [N,4,8,6]");
    check("input x int8 N,5\nAbs a x -> y\noutput y", "int8 [N,5]");
    check(X "init b float 4,1,1 rand\nAdd a x,b -> y\noutput y", "float32 [N,4,8,6]");
    check(X "init b float 3,1,4,1,6 rand\nMul a x,b -> y\noutput y", "float32 [3,N,4,8,6]");
    check(X "input z float N,1,8,6\nSub a x,z -> y\noutput y", "float32 [N,4,8,6]");
    check(X "init s float 4,1,1 rand\nPRelu a x,s -> y\noutput y", "float32 [N,4,8,6]");
    check(X "init lo float - = 0\nClip a x,lo -> y\noutput y", "float32 [N,4,8,6]");
    check(X "Cast a x -> y to=7\noutput y", "int64 [N,4,8,6]");
    check(X "Dropout a x -> y,m\noutput y\noutput m", "float32 [N,4,8,6]; bool [N,4,8,6]");
    check(X "Softmax a x -> y axis=1\noutput y", "float32 [N,4,8,6]");
    check(X "LRN a x -> y size=3\noutput y", "float32 [N,4,8,6]");
}

static void elementwise_contradictions_are_named(void **state)
{
    (void)state;
    refuse(X "init b float 5,1,1 rand\nAdd plus x,b -> y\noutput y", ERR_INVALID_ARGUMENT, "plus");
    refuse(X "init b double 4,1,1 rand\nAdd plus x,b -> y\noutput y", ERR_INVALID_ARGUMENT,
           "different types");
    refuse(X "init b float 2,4,8,6 rand\nAdd plus x,b -> y\noutput y", ERR_INVALID_ARGUMENT,
           "plus");
    refuse(X "init s float 2,1,4,8,6 rand\nPRelu p x,s -> y\noutput y", ERR_INVALID_ARGUMENT,
           "slope");
    refuse(X "Softmax soft x -> y axis=4\noutput y", ERR_INVALID_ARGUMENT, "axis 4");
    refuse(X "Cast c x -> y to=8\noutput y", ERR_UNIMPLEMENTED, "type 8");
    refuse(X "LRN l x -> y size=0\noutput y", ERR_INVALID_ARGUMENT, "size");
}

static void convolutions_follow_kernel_stride_dilation_and_pads(void **state)
{
    (void)state;
    check(X "init w float 5,4,3,3 rand\nConv c x,w -> y\noutput y", "float32 [N,5,6,4]");
    check(X "init w float 5,4,3,3 rand\nConv c x,w -> y pads=[1,1,1,1] strides=[2,3]\noutput y",
          "float32 [N,5,4,2]");
    check(X "init w float 4,1,3,2 rand\nConv c x,w -> y group=4 dilations=[2,1]\noutput y",
          "float32 [N,4,4,5]");
    check(X "init w float 5,4,3,3 rand\nConv c x,w -> y auto_pad=\"SAME_UPPER\" strides=[3,3]\n"
            "output y",
          "float32 [N,5,3,2]");
    check(X
          "init w float 5,4,3,3 rand\nConv c x,w -> y auto_pad=\"VALID\" pads=[9,9,9,9]\noutput y",
          "float32 [N,5,6,4]");
    check("input x float N,4,9\ninit w float 2,4,3 rand\nConv c x,w -> y\noutput y",
          "float32 [N,2,7]");
    check("input x float N,1,5,6,7\ninit w float 2,1,3,3,3 rand\nConv c x,w -> y\noutput y",
          "float32 [N,2,3,4,5]");
}

static void convolutions_refuse_what_does_not_fit(void **state)
{
    (void)state;
#define CONV(w, attrs) X "init w float " w " rand\nConv conv1 x,w -> y " attrs "\noutput y"
    refuse(CONV("5,3,3,3", ""), ERR_INVALID_ARGUMENT, "conv1");
    refuse(CONV("5,4,9,3", ""), ERR_INVALID_ARGUMENT, "larger than the padded input");
    refuse(CONV("5,4,3", ""), ERR_INVALID_ARGUMENT, "conv1");
    refuse(CONV("5,4,3,3", "strides=[0,1]"), ERR_INVALID_ARGUMENT, "strides holds 0");
    refuse(CONV("5,4,3,3", "strides=[1]"), ERR_INVALID_ARGUMENT, "strides");
    refuse(CONV("5,4,3,3", "dilations=[-1,1]"), ERR_INVALID_ARGUMENT, "dilations holds -1");
    refuse(CONV("5,4,3,3", "pads=[-1,0,0,0]"), ERR_INVALID_ARGUMENT, "pads holds -1");
    refuse(CONV("5,4,3,3", "kernel_shape=[3,-3]"), ERR_INVALID_ARGUMENT, "kernel_shape");
    refuse(CONV("5,4,3,3", "kernel_shape=[5,5]"), ERR_INVALID_ARGUMENT, "kernel_shape");
    refuse(CONV("5,4,3,3", "group=0"), ERR_INVALID_ARGUMENT, "group is 0");
    refuse(CONV("5,4,3,3", "group=-2"), ERR_INVALID_ARGUMENT, "group is -2");
    refuse(CONV("5,2,3,3", "group=2"), ERR_INVALID_ARGUMENT, "2 groups");
    refuse(CONV("5,4,3,3", "auto_pad=\"SAME\""), ERR_INVALID_ARGUMENT, "auto_pad");
    refuse(CONV("5,4,3,3", "dilations=[4611686018427387904,1]"), ERR_INVALID_ARGUMENT, "dilations");
    refuse(CONV("5,4,0,3", ""), ERR_INVALID_ARGUMENT, "weights");
    refuse(X "init w float 5,4,3,3 rand\ninit b float 4 rand\nConv conv1 x,w,b -> y\noutput y",
           ERR_INVALID_ARGUMENT, "bias");
    refuse("input x int32 N,4,8,6\ninit w int32 5,4,3,3 rand\nConv conv1 x,w -> y\noutput y",
           ERR_INVALID_ARGUMENT, "floating point");
    refuse("input x float N,4\ninit w float 5,4 rand\nConv conv1 x,w -> y\noutput y",
           ERR_INVALID_ARGUMENT, "dimensions");
}

static void transposed_convolutions_take_output_shape_and_padding(void **state)
{
    (void)state;
#define UP(attrs)                                                                                  \
    "input x float N,4,3,3\ninit w float 4,2,3,3 rand\nConvTranspose c x,w -> y " attrs "\noutput y"
    check(UP(""), "float32 [N,2,5,5]");
    check(UP("strides=[3,2] output_padding=[1,1]"), "float32 [N,2,10,8]");
    check(UP("strides=[3,2] output_shape=[10,8]"), "float32 [N,2,10,8]");
    check(UP("strides=[2,2] auto_pad=\"SAME_UPPER\""), "float32 [N,2,6,6]");
    check(UP("pads=[1,2,1,2] strides=[3,2]"), "float32 [N,2,7,3]");
    check(UP("group=2"), "float32 [N,4,5,5]");
    refuse(UP("pads=[9,9,9,9]"), ERR_INVALID_ARGUMENT, "would be");
    refuse(UP("group=3"), ERR_INVALID_ARGUMENT, "groups");
}

static void a_window_says_where_its_kernel_lies(void **state)
{
    (void)state;
    struct graph *g = onnx_text_graph(X "init w float 5,4,3,3 rand\n"
                                        "Conv c x,w -> y auto_pad=\"SAME_LOWER\" strides=[2,2]\n"
                                        "output y");
    struct window w;
    assert_int_equal(graph_window(g, g->nodes[0], &w, NULL), 0);
    assert_int_equal(w.rank, 2);
    assert_int_equal(w.out[0], 4);
    assert_int_equal(w.pad_begin[0], 1);
    assert_int_equal(w.pad_end[0], 0);
    assert_int_equal(w.stride[1], 2);
    assert_int_equal(w.group, 1);
    graph_free(g);
    g = onnx_text_graph("input x float N,1,3,3\ninit w float 1,1,2,2 rand\n"
                        "ConvTranspose c x,w -> y strides=[2,2] output_shape=[9,6]\noutput y");
    assert_int_equal(graph_window(g, g->nodes[0], &w, NULL), 0);
    assert_int_equal(w.out[0], 9); /* three more than the kernel reaches: bias alone */
    assert_int_equal(w.output_pad[0], 3);
    assert_int_equal(w.pad_begin[0], 0);
    graph_free(g);
}

static void pools_round_down_or_up(void **state)
{
    (void)state;
    check(X "MaxPool p x -> y kernel_shape=[3,3] strides=[2,2]\noutput y", "float32 [N,4,3,2]");
    check(X "MaxPool p x -> y kernel_shape=[3,3] strides=[2,2] ceil_mode=1\noutput y",
          "float32 [N,4,4,3]");
    /* a last window that would begin on the padding behind does not count */
    check("input x float N,1,2,2\nMaxPool p x -> y kernel_shape=[1,1] strides=[2,2] ceil_mode=1\n"
          "output y",
          "float32 [N,1,1,1]");
    check(X "AveragePool p x -> y kernel_shape=[2,2] pads=[1,1,0,0]\noutput y",
          "float32 [N,4,8,6]");
    check(X "MaxPool p x -> y,i kernel_shape=[2,2]\noutput y\noutput i",
          "float32 [N,4,7,5]; int64 [N,4,7,5]");
    check(X "GlobalAveragePool p x -> y\noutput y", "float32 [N,4,1,1]");
    refuse(X "MaxPool pool x -> y kernel_shape=[2]\noutput y", ERR_INVALID_ARGUMENT,
           "kernel_shape");
    refuse(X "MaxPool pool x -> y kernel_shape=[9,9]\noutput y", ERR_INVALID_ARGUMENT, "larger");
    refuse(X "MaxPool pool x -> y kernel_shape=[0,2]\noutput y", ERR_INVALID_ARGUMENT, "pool");
}

static void matrices_must_fit_each_other(void **state)
{
    (void)state;
#define A "input a float N,6\n"
    check(A "init b float 6,5 rand\nGemm g a,b -> y\noutput y", "float32 [N,5]");
    check(A "init b float 5,6 rand\ninit c float 5 rand\nGemm g a,b,c -> y transB=1\noutput y",
          "float32 [N,5]");
    check(A "init b float 6,5 rand\nMatMul m a,b -> y\noutput y", "float32 [N,5]");
    check(A "init b float 6 rand\nMatMul m a,b -> y\noutput y", "float32 [N]");
    check("input a float N,3,4,6\ninit b float 3,6,2 rand\nMatMul m a,b -> y\noutput y",
          "float32 [N,3,4,2]");
    refuse(A "init b float 7,5 rand\nGemm g a,b -> y\noutput y", ERR_INVALID_ARGUMENT, "inner");
    refuse(A "init b float 7,5 rand\nMatMul m a,b -> y\noutput y", ERR_INVALID_ARGUMENT, "inner");
    refuse(A "init b float 6,5 rand\ninit c float 4 rand\nGemm g a,b,c -> y\noutput y",
           ERR_INVALID_ARGUMENT, "g");
    refuse(A "init b float 4,5 rand\nGemm g a,b -> y transA=1\noutput y", ERR_INVALID_ARGUMENT,
           "inner");
    refuse(A "input b float N,5\nGemm g a,b -> y transA=1\noutput y", ERR_UNIMPLEMENTED,
           "sums over the batch");
}

static void reshapes_carry_the_batch(void **state)
{
    (void)state;
#define RESHAPE(n, t) X "init t int64 " n " = " t "\nReshape r x,t -> y\noutput y"
    check(RESHAPE("2", "0 -1"), "float32 [N,192]");
    check(RESHAPE("2", "-1 192"), "float32 [N,192]");
    check(RESHAPE("4", "0 2 2 -1"), "float32 [N,2,2,48]");
    check(RESHAPE("3", "4 48 -1"), "float32 [4,48,N]");
    refuse(RESHAPE("2", "-1 96"), ERR_UNIMPLEMENTED, "merges the batch");
    refuse(RESHAPE("2", "1 192"), ERR_UNIMPLEMENTED, "fixes the batch");
    refuse(RESHAPE("2", "0 100"), ERR_INVALID_ARGUMENT, "cannot become");
    refuse(RESHAPE("3", "0 -1 -1"), ERR_INVALID_ARGUMENT, "two -1");
    refuse(RESHAPE("2", "0 -2"), ERR_INVALID_ARGUMENT, "-2");
    refuse(RESHAPE("2", "0 4611686018427387904"), ERR_INVALID_ARGUMENT, "too large");
    refuse(RESHAPE("5", "0 4 8 6 0"), ERR_INVALID_ARGUMENT, "copies");
    refuse(X "input t int64 2\nReshape shaper x,t -> y\noutput y", ERR_UNIMPLEMENTED, "constant");
    check("opset 14\ninput x float 0,4\ninit t int64 2 = 2 0\nReshape r x,t -> y allowzero=1\n"
          "output y",
          "float32 [2,0]");
}

static void flatten_splits_dimensions_in_two(void **state)
{
    (void)state;
    check(X "Flatten f x -> y\noutput y", "float32 [N,192]");
    check("input x float 2,3,4\nFlatten f x -> y axis=-1\noutput y", "float32 [6,4]");
    check("input x float 2,3,4\nFlatten f x -> y axis=3\noutput y", "float32 [24,1]");
    refuse(X "Flatten flat x -> y axis=2\noutput y", ERR_UNIMPLEMENTED, "merges the batch");
    refuse(X "Flatten flat x -> y axis=5\noutput y", ERR_INVALID_ARGUMENT, "axis 5");
}

static void transposes_permute(void **state)
{
    (void)state;
    check(X "Transpose t x -> y perm=[0,2,3,1]\noutput y", "float32 [N,8,6,4]");
    check(X "Transpose t x -> y\noutput y", "float32 [6,8,4,N]");
    refuse(X "Transpose t x -> y perm=[0,1,2]\noutput y", ERR_INVALID_ARGUMENT, "perm");
    refuse(X "Transpose t x -> y perm=[0,1,2,2]\noutput y", ERR_INVALID_ARGUMENT, "twice");
    refuse(X "Transpose t x -> y perm=[0,1,2,-1]\noutput y", ERR_INVALID_ARGUMENT, "perm");
}

static void squeezes_drop_and_add_ones(void **state)
{
    (void)state;
#define ONES "input x float N,4,1,1\n"
    check(ONES "init a int64 2 = 2 -1\nSqueeze s x,a -> y\noutput y", "float32 [N,4]");
    check(ONES "Squeeze s x -> y\noutput y", "float32 [N,4]");
    check(ONES "init a int64 2 = 0 -1\nUnsqueeze s x,a -> y\noutput y", "float32 [1,N,4,1,1,1]");
    check("opset 11\n" ONES "Squeeze s x -> y axes=[2,3]\noutput y", "float32 [N,4]");
    refuse(ONES "init a int64 1 = 1\nSqueeze s x,a -> y\noutput y", ERR_INVALID_ARGUMENT, "not 1");
    refuse(ONES "init a int64 1 = 0\nSqueeze s x,a -> y\noutput y", ERR_UNIMPLEMENTED, "not 1");
    refuse(ONES "init a int64 2 = 1 1\nUnsqueeze s x,a -> y\noutput y", ERR_INVALID_ARGUMENT,
           "twice");
}

static void joins_and_parts(void **state)
{
    (void)state;
    check(X "input z float N,2,8,6\nConcat c x,z,x -> y axis=1\noutput y", "float32 [N,10,8,6]");
    check(X "Split s x -> a,b axis=2\noutput a\noutput b", "float32 [N,4,4,6]; float32 [N,4,4,6]");
    check(X "init p int64 2 = 1 3\nSplit s x,p -> a,b axis=-3\noutput a\noutput b",
          "float32 [N,1,8,6]; float32 [N,3,8,6]");
    check("opset 18\n" X "Split s x -> a,b,c axis=2 num_outputs=3\noutput a\noutput b\noutput c",
          "float32 [N,4,3,6]; float32 [N,4,3,6]; float32 [N,4,2,6]");
    refuse(X "input z float N,2,8,7\nConcat join x,z -> y axis=1\noutput y", ERR_INVALID_ARGUMENT,
           "join");
    refuse(X "Concat join x,x -> y axis=0\noutput y", ERR_UNIMPLEMENTED, "batch");
    refuse(X "Split part x -> a,b,c axis=2\noutput a", ERR_INVALID_ARGUMENT, "part");
    refuse(X "init p int64 2 = 1 9\nSplit part x,p -> a,b axis=2\noutput a", ERR_INVALID_ARGUMENT,
           "does not fit");
    refuse(X "init p int64 2 = -1 9\nSplit part x,p -> a,b axis=2\noutput a", ERR_INVALID_ARGUMENT,
           "does not fit");
    refuse(X "Split part x -> a,b axis=0\noutput a", ERR_UNIMPLEMENTED, "batch");
}

static void slices_clamp_and_step(void **state)
{
    (void)state;
#define SLICE(s, e, a, st)                                                                         \
    X "init s int64 1 = " s "\ninit e int64 1 = " e "\ninit a int64 1 = " a                        \
      "\ninit t int64 1 = " st "\nSlice cut x,s,e,a,t -> y\noutput y"
    check(SLICE("1", "3", "2", "1"), "float32 [N,4,2,6]");
    check(SLICE("0", "99", "2", "3"), "float32 [N,4,3,6]");
    check(SLICE("-3", "9223372036854775807", "2", "1"), "float32 [N,4,3,6]");
    check(SLICE("-1", "-9223372036854775808", "2", "-2"), "float32 [N,4,4,6]");
    check(SLICE("5", "2", "2", "1"), "float32 [N,4,0,6]");
    check(SLICE("7", "0", "2", "-9223372036854775808"), "float32 [N,4,1,6]");
    check(SLICE("0", "9223372036854775807", "0", "1"), "float32 [N,4,8,6]");
    refuse(SLICE("0", "1", "0", "1"), ERR_UNIMPLEMENTED, "part of the batch");
    refuse(SLICE("0", "1", "2", "0"), ERR_INVALID_ARGUMENT, "step of 0");
    refuse(SLICE("0", "1", "4", "1"), ERR_INVALID_ARGUMENT, "axis 4");
    refuse(SLICE("5", "2", "2", "1"), ERR_INVALID_ARGUMENT, "empty");
}

static void pads_grow_and_crop(void **state)
{
    (void)state;
#define PAD(p, attrs) X "init p int64 8 = " p "\nPad pad1 x,p -> y " attrs "\noutput y"
    check(PAD("0 1 2 3 0 0 1 0", ""), "float32 [N,5,11,9]");
    check(PAD("0 0 -1 0 0 0 -2 0", ""), "float32 [N,4,5,6]");
    check(PAD("0 0 7 0 0 0 0 0", "mode=\"reflect\""), "float32 [N,4,15,6]");
    refuse(PAD("0 0 8 0 0 0 0 0", "mode=\"reflect\""), ERR_INVALID_ARGUMENT, "reflect");
    refuse(PAD("1 0 0 0 0 0 0 0", ""), ERR_UNIMPLEMENTED, "pads the batch");
    refuse(PAD("0 0 -9 0 0 0 0 0", ""), ERR_INVALID_ARGUMENT, "crops");
    refuse(PAD("0 0 4611686018427387904 0 0 0 0 0", ""), ERR_INVALID_ARGUMENT, "pad1");
    refuse(PAD("0 0 0 0 0 0 0 0", "mode=\"mirror\""), ERR_INVALID_ARGUMENT, "mirror");
    refuse(X "init p int64 4 = 0 0 0 0\nPad pad1 x,p -> y\noutput y", ERR_INVALID_ARGUMENT,
           "4 pads");
}

static void gathers_pick_within_bounds(void **state)
{
    (void)state;
    check(X "init i int64 2,3 = 0 1 2 3 0 -1\nGather g x,i -> y axis=1\noutput y",
          "float32 [N,2,3,8,6]");
    check(X "init i int64 - = 1\nGather g x,i -> y axis=-1\noutput y", "float32 [N,4,8]");
    refuse(X "init i int64 1 = 4\nGather pick x,i -> y axis=1\noutput y", ERR_INVALID_ARGUMENT,
           "index 4");
    refuse(X "init i int64 - = 0\nGather pick x,i -> y\noutput y", ERR_UNIMPLEMENTED, "batch");
    refuse(X "init i float 1 = 0\nGather pick x,i -> y axis=1\noutput y", ERR_INVALID_ARGUMENT,
           "integers");
}

static void means_reduce_axes(void **state)
{
    (void)state;
    check(X "ReduceMean m x -> y axes=[2,3]\noutput y", "float32 [N,4,1,1]");
    check(X "ReduceMean m x -> y axes=[-1,1] keepdims=0\noutput y", "float32 [N,8]");
    check("opset 18\n" X "init a int64 2 = 2 3\nReduceMean m x,a -> y keepdims=0\noutput y",
          "float32 [N,4]");
    check("opset 18\n" X "ReduceMean m x -> y noop_with_empty_axes=1\noutput y",
          "float32 [N,4,8,6]");
    refuse(X "ReduceMean mean x -> y axes=[0]\noutput y", ERR_UNIMPLEMENTED, "over the batch");
    refuse(X "ReduceMean mean x -> y\noutput y", ERR_UNIMPLEMENTED, "over the batch");
}

static void resizes_by_scales_or_sizes(void **state)
{
    (void)state;
    check(X "init s float 4 = 1 1 2 1.5\nResize r x,,s -> y\noutput y", "float32 [N,4,16,9]");
    check("opset 18\n" X "init s int64 2 = 5 7\nResize r x,,,s -> y axes=[2,3]\noutput y",
          "float32 [N,4,5,7]");
    check("opset 18\n" X "init s int64 2 = 16 16\n"
          "Resize r x,,,s -> y axes=[2,3] keep_aspect_ratio_policy=\"not_larger\"\noutput y",
          "float32 [N,4,16,12]");
    check("input x float 1,4,8,6\ninit s int64 4 = 1 4 5 7\nResize r x,,,s -> y\noutput y",
          "float32 [1,4,5,7]");
    refuse(X "init s float 4 = 2 1 2 2\nResize big x,,s -> y\noutput y", ERR_UNIMPLEMENTED,
           "resizes the batch");
    refuse(X "init s float 4 = 1 1 0 2\nResize big x,,s -> y\noutput y", ERR_INVALID_ARGUMENT,
           "scale");
    refuse(X "init s float 4 = 1 1 nan 2\nResize big x,,s -> y\noutput y", ERR_INVALID_ARGUMENT,
           "NaN");
    refuse(X "init s float 4 = 1 1 -1 2\nResize big x,,s -> y\noutput y", ERR_INVALID_ARGUMENT,
           "scale");
    refuse(X "init s float 3 = 1 1 2\nResize big x,,s -> y\noutput y", ERR_INVALID_ARGUMENT,
           "3 scales");
    refuse("opset 18\n" X "init s int64 2 = 8 9223372036854775807\nResize big x,,,s -> y axes=[2,3]"
           "\noutput y",
           ERR_INVALID_ARGUMENT, "size");
    refuse("opset 18\n" X "init s int64 2 = 1000000000000 1\nResize big x,,,s -> y axes=[0,2] "
           "keep_aspect_ratio_policy=\"not_smaller\"\noutput y",
           ERR_UNIMPLEMENTED, "batch");
    refuse(X "Resize big x -> y\noutput y", ERR_INVALID_ARGUMENT, "scales or sizes");
    refuse(X "init s float 4 = 1 1 2 2\nResize big x,,s -> y mode=\"area\"\noutput y",
           ERR_INVALID_ARGUMENT, "area");
}

static void quantization_fits_its_axis(void **state)
{
    (void)state;
    check(X "init s float - = 0.1\ninit z uint8 - = 3\nQuantizeLinear q x,s,z -> y\noutput y",
          "uint8 [N,4,8,6]");
    check(X "init s float - = 0.1\nQuantizeLinear q x,s -> y\noutput y", "uint8 [N,4,8,6]");
    check("input x int8 N,4,8,6\ninit s float 4 positive\nDequantizeLinear q x,s -> y axis=1\n"
          "output y",
          "float32 [N,4,8,6]");
    refuse(X "init s float 5 positive\nQuantizeLinear quant x,s -> y axis=1\noutput y",
           ERR_INVALID_ARGUMENT, "quant");
    refuse("input x int8 N,4\ninit s float - = 1\ninit z uint8 - = 0\n"
           "DequantizeLinear quant x,s,z -> y\noutput y",
           ERR_INVALID_ARGUMENT, "zero point");
}

static void constants_have_shapes(void **state)
{
    (void)state;
    check("Constant c -> y value={int64 2,1 = 5 6}\noutput y", "int64 [2,1]");
    check("Constant c -> y value_floats=[1.0,2.0]\noutput y", "float32 [2]");
    check("Constant c -> y value_int=3\noutput y", "int64 []");
    check("init s int64 2 = 2 3\nConstantOfShape c s -> y value={int32 1 = 7}\noutput y",
          "int32 [2,3]");
    check(X "Shape s x -> y\noutput y", "int64 [4]");
    check("opset 15\n" X "Shape s x -> y start=1 end=-1\noutput y", "int64 [2]");
    check("opset 15\n" X "Shape s x -> y start=3 end=1\noutput y", "int64 [0]");
    check("input x float N,1,6\ninit t int64 4 = 2 1 5 6\nExpand e x,t -> y\noutput y",
          "float32 [2,N,5,6]");
    refuse("init s int64 2 = 2 -3\nConstantOfShape fill s -> y\noutput y", ERR_INVALID_ARGUMENT,
           "-3");
    refuse("init s int64 2 = 2147483648 2147483648\nConstantOfShape fill s -> y\noutput y",
           ERR_INVALID_ARGUMENT, "fill");
    refuse("init s int64 2 = 65536 65536\nConstantOfShape fill s -> y\noutput y",
           ERR_RESOURCE_EXHAUSTED, "fill");
}

static void batchnorm_knows_its_channels(void **state)
{
    (void)state;
#define BN(n) X "init s float " n " rand\nBatchNormalization bn x,s,s,s,s -> y\noutput y"
    check(BN("4"), "float32 [N,4,8,6]");
    refuse(BN("5"), ERR_INVALID_ARGUMENT, "4 channels");
    refuse("opset 14\n" X "init s float 4 rand\n"
           "BatchNormalization bn x,s,s,s,s -> y,m,v training_mode=1\noutput y",
           ERR_UNIMPLEMENTED, "training");
    refuse(X "init s float 4 rand\nBatchNormalization bn x,s,s,s,s -> y,m,v\noutput y",
           ERR_UNIMPLEMENTED, "training");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(elementwise_operators_keep_or_broadcast_shapes),
        cmocka_unit_test(elementwise_contradictions_are_named),
        cmocka_unit_test(convolutions_follow_kernel_stride_dilation_and_pads),
        cmocka_unit_test(convolutions_refuse_what_does_not_fit),
        cmocka_unit_test(transposed_convolutions_take_output_shape_and_padding),
        cmocka_unit_test(a_window_says_where_its_kernel_lies),
        cmocka_unit_test(pools_round_down_or_up),
        cmocka_unit_test(matrices_must_fit_each_other),
        cmocka_unit_test(reshapes_carry_the_batch),
        cmocka_unit_test(flatten_splits_dimensions_in_two),
        cmocka_unit_test(transposes_permute),
        cmocka_unit_test(squeezes_drop_and_add_ones),
        cmocka_unit_test(joins_and_parts),
        cmocka_unit_test(slices_clamp_and_step),
        cmocka_unit_test(pads_grow_and_crop),
        cmocka_unit_test(gathers_pick_within_bounds),
        cmocka_unit_test(means_reduce_axes),
        cmocka_unit_test(resizes_by_scales_or_sizes),
        cmocka_unit_test(quantization_fits_its_axis),
        cmocka_unit_test(constants_have_shapes),
        cmocka_unit_test(batchnorm_knows_its_channels),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
