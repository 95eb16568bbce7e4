/* Branches that are added become one convolution with the same function. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "tests/support/onnx_text.h"

static const struct node *find(const struct graph *g, enum op op)
{
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == op)
            return g->nodes[n];
    return NULL;
}

/* After the pass the network has so many nodes, the same function and the same output. */
static struct graph *merged(const char *text, int (*pass)(struct graph *, struct err *), int nodes)
{
    struct graph *g = NULL;
    _cleanup_(graph_freep) struct graph *before = onnx_text_graph(text);
    struct err err = {0};
    assert_int_equal(graph_clone(before, &g, NULL), 0);
    const bool changes = before->n_nodes != nodes;
    int rc = pass(g, &err);
    if (rc < 0 || (rc > 0) != changes || g->n_nodes != nodes)
        fail_msg("%d changes, %d nodes, %s in: %s", rc, g->n_nodes, err.message, text);
    assert_int_equal(pass(g, &err), 0);
    const double difference = graph_difference(before, g);
    if (!(difference < 1e-5))
        fail_msg("difference %g in: %s", difference, text);
    assert_string_equal(g->values[g->outputs[0]]->name, before->values[before->outputs[0]]->name);
    return g;
}

static void expect_merged(const char *text, int nodes)
{
    graph_free(merged(text, pass_merge_branches, nodes));
}

#define X "input x float N,4,7,6\n"
#define W3 "init w3 float 5,4,3,3 rand\ninit b3 float 5 rand\n"
#define W1 "init w1 float 5,4,1,1 rand\ninit b1 float 5 rand\n"
#define SQUARE "init w3 float 4,4,3,3 rand\ninit w1 float 4,4,1,1 rand\n"
#define STATS                                                                                      \
    "init s float 4 rand\ninit h float 4 rand\ninit m float 4 rand\ninit v float 4 positive\n"
#define NORM "BatchNormalization bn x,s,h,m,v -> n epsilon=0.01\n"
#define SUM "Add add a,b -> y\noutput y"

static void convolutions_of_different_sizes_become_one(void **state)
{
    (void)state;
    static const char *const same_stride[] = {
        "Conv p x,w3,b3 -> a pads=[1,1,1,1]\nConv q x,w1,b1 -> b\n",
        "Conv q x,w1,b1 -> a\nConv p x,w3,b3 -> b pads=[1,1,1,1]\n",
        "Conv p x,w3 -> a pads=[1,1,1,1]\nConv q x,w1,b1 -> b\n",
        "Conv p x,w3 -> a pads=[1,1,1,1]\nConv q x,w1 -> b\n",
        "Conv p x,w3,b3 -> a pads=[1,1,1,1] strides=[2,2]\nConv q x,w1,b1 -> b strides=[2,2]\n",
        "Conv p x,w3,b3 -> a pads=[1,1,1,1] strides=[2,1]\nConv q x,w1,b1 -> b strides=[2,1]\n",
        "Conv p x,w3,b3 -> a auto_pad=\"SAME_UPPER\"\nConv q x,w1,b1 -> b\n",
        "Conv p x,w3,b3 -> a pads=[1,1,1,1]\nConv q x,w3 -> b pads=[1,1,1,1]\n",
        /* two filters on different places */
        "Conv p x,w3,b3 -> a pads=[2,1,0,1]\nConv q x,w3 -> b pads=[1,1,1,1]\n",
        "Conv p x,w3,b3 -> a pads=[0,0,0,0]\nConv q x,w3 -> b pads=[0,0,0,0]\n",
    };
    for (size_t i = 0; i < sizeof(same_stride) / sizeof(*same_stride); i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s%s%s%s", X, W3, W1, same_stride[i], SUM);
        expect_merged(text, 1);
    }
    expect_merged("input x float N,4,9\ninit w float 5,4,5 rand\ninit u float 5,4,1 rand\n"
                  "Conv p x,w -> a pads=[2,2]\nConv q x,u -> b\n" SUM,
                  1);
    expect_merged(
        "input x float N,2,5,4,6\ninit w float 3,2,3,3,3 rand\ninit u float 3,2,1,1,3 "
        "rand\nConv p x,w -> a pads=[1,1,1,1,1,1]\nConv q x,u -> b pads=[0,0,1,0,0,1]\n" SUM,
        1);
    expect_merged(X "init w float 8,2,3,3 rand\ninit u float 8,2,1,1 rand\n"
                    "Conv p x,w -> a pads=[1,1,1,1] group=2\nConv q x,u -> b group=2\n" SUM,
                  1);
}

static void a_norm_is_a_diagonal(void **state)
{
    (void)state;
    expect_merged(X SQUARE STATS "Conv p x,w3 -> a pads=[1,1,1,1]\n" NORM "Add add a,n -> y\n"
                                 "output y",
                  1);
    expect_merged(X SQUARE STATS "Conv p x,w1 -> a\n" NORM "Add add n,a -> y\noutput y", 1);
    expect_merged(X "init w float 4,1,3,3 rand\n" STATS
                    "Conv p x,w -> a pads=[1,1,1,1] group=4\n" NORM "Add add n,a -> y\noutput y",
                  1);
    expect_merged(X "init w float 4,2,3,3 rand\n" STATS
                    "Conv p x,w -> a pads=[1,1,1,1] group=2\n" NORM "Add add n,a -> y\noutput y",
                  1);
}

#define THREE X SQUARE STATS "Conv p x,w3 -> a pads=[1,1,1,1]\nConv q x,w1 -> b\n" NORM

static void three_branches_become_one_and_keep_the_largest_name(void **state)
{
    (void)state;
    static const char *const orders[] = {
        "Add u a,b -> c\nAdd add c,n -> y\noutput y",
        "Add u a,n -> c\nAdd add b,c -> y\noutput y",
        "Add u n,b -> c\nAdd add c,a -> y\noutput y",
    };
    for (int i = 0; i < 3; i++) {
        char text[1024];
        snprintf(text, sizeof(text), "%s%s", THREE, orders[i]);
        _cleanup_(graph_freep) struct graph *g = merged(text, pass_merge_branches, 1);
        const struct node *conv = find(g, OP_CONV);
        int64_t kernel[2] = {0};
        assert_string_equal(conv->name, i < 2 ? "p" : conv->name);
        assert_int_equal(node_ints(conv, "kernel_shape", 2, kernel), 2);
        assert_true(kernel[0] == 3 && kernel[1] == 3);
    }
}

static void simplification_folds_norms_first(void **state)
{
    (void)state;
    const char *text = X SQUARE STATS "Conv p x,w3 -> a1\n"
                                      "BatchNormalization na a1,s,h,m,v -> a\nConv q x,w1 -> b1\n"
                                      "BatchNormalization nb b1,s,v,h,v -> b\n" NORM
                                      "Add u a,b -> c\nAdd t c,n -> d\nRelu r d -> y\noutput y";
    char padded[2048];
    const char *at = strstr(text, "-> a1\n");
    snprintf(padded, sizeof(padded), "%.*s-> a1 pads=[1,1,1,1]\n%s", (int)(at - text), text,
             at + strlen("-> a1\n"));
    graph_free(merged(padded, pass_simplify, 2));
    /* for those who go on learning: norms folded, branches there */
    graph_free(merged(padded, pass_simplify_branched, 6));
}

static void what_does_not_add_up_stays(void **state)
{
    (void)state;
#define STAYS(nodes, body) expect_merged(X W3 W1 SQUARE_ STATS body, nodes)
#define SQUARE_ "init w4 float 4,4,3,3 rand\ninit u4 float 4,4,1,1 rand\n"
    /* different inputs */
    STAYS(4, "Relu r x -> z\nConv p x,w3 -> a pads=[1,1,1,1]\nConv q z,w1 -> b\n" SUM);
    /* somebody else reads a branch, or it is an output */
    STAYS(4, "Conv p x,w3 -> a pads=[1,1,1,1]\nConv q x,w1 -> b\nRelu r a -> z\n" SUM "\noutput z");
    STAYS(3, "Conv p x,w3 -> a pads=[1,1,1,1]\nConv q x,w1 -> b\n" SUM "\noutput b");
    /* different strides, with the same shapes as it happens */
    STAYS(3, "init k float 5,4,4,4 rand\nConv p x,k -> a pads=[0,0,0,0] strides=[1,1]\n"
             "init l float 5,4,1,1 rand\nConv q x,l -> b0 strides=[2,2]\nAdd add a,b0 -> y\n"
             "output y");
    /* holes in the filter; groups that differ; a sum that is broadcast; no convolution at all */
    STAYS(3, "Conv p x,w3 -> a pads=[2,2,2,2] dilations=[2,2]\nConv q x,w1 -> b\n" SUM);
    STAYS(3, "init k float 4,2,3,3 rand\nConv p x,k -> a pads=[1,1,1,1] group=2\n"
             "Conv q x,u4 -> b\n" SUM);
    STAYS(3, "init k float 1,4,1,1 rand\nConv p x,w3 -> a pads=[1,1,1,1]\nConv q x,k -> b\n" SUM);
    STAYS(3, NORM "BatchNormalization bn2 x,s,h,m,v -> a\nAdd add a,n -> y\noutput y");
    /* the whole would be dearer: 1x5 and 5x1 make 5x5 */
    STAYS(3, "init k float 5,4,1,5 rand\ninit l float 5,4,5,1 rand\n"
             "Conv p x,k -> a pads=[0,2,0,2]\nConv q x,l -> b pads=[2,0,2,0]\n" SUM);
    /* the same value twice */
    STAYS(2, "Conv p x,w3 -> a pads=[1,1,1,1]\nAdd add a,a -> y\noutput y");
}

static void filters_that_others_read_are_not_spoiled(void **state)
{
    (void)state;
    expect_merged(X W3 W1 "Conv p x,w3,b3 -> a pads=[1,1,1,1]\nConv q x,w1,b3 -> b\n"
                          "Add add a,b -> y\nConv o x,w3,b3 -> z\noutput y\noutput z",
                  2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_of_different_sizes_become_one),
        cmocka_unit_test(a_norm_is_a_diagonal),
        cmocka_unit_test(three_branches_become_one_and_keep_the_largest_name),
        cmocka_unit_test(simplification_folds_norms_first),
        cmocka_unit_test(what_does_not_add_up_stays),
        cmocka_unit_test(filters_that_others_read_are_not_spoiled),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
