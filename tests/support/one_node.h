#pragma once
/*
 * Graphs of one node, for tests of the evaluator:
 *
 *     struct one_node n;
 *     one_node_init(&n, OP_SLICE, 13, 1);
 *     one_node_input(&n, TENSOR(DTYPE_F32, SHAPE(3), 1, 2, 3));
 *     one_node_input(&n, NULL);                  // left out
 *     assert_int_equal(one_node_run(&n), 0);     // n.out[0], n.err
 *     one_node_release(&n);
 */
#include "shared/graph/eval.h"

#define SHAPE(...)                                                                                 \
    shape_make((int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),                          \
               (const int64_t[]){__VA_ARGS__})
#define SCALAR ((struct shape){0})
#define TENSOR(dtype, shape, ...)                                                                  \
    one_tensor(dtype, shape, (int)(sizeof((double[]){__VA_ARGS__}) / sizeof(double)),              \
               (const double[]){__VA_ARGS__})

#define ONE_NODE_MAX 8

struct one_node {
    struct graph *g;
    struct node *node;
    enum op op;
    int opset, n_in, n_out;
    struct tensor *in[ONE_NODE_MAX], *out[ONE_NODE_MAX];
    struct err err;
};

/* Heap tensor with these values; one value fills it. */
struct tensor *one_tensor(enum dtype dtype, struct shape shape, int n, const double *values);

void one_node_init(struct one_node *n, enum op op, int opset, int n_out);
void one_node_input(struct one_node *n, struct tensor *t); /* takes the tensor */
/* The node, made at the first call, to set attributes on; no more inputs then. */
struct node *one_node_node(struct one_node *n);
void one_node_int(struct one_node *n, const char *name, int64_t i);
void one_node_float(struct one_node *n, const char *name, float f);
void one_node_string(struct one_node *n, const char *name, const char *s);
#define ONE_NODE_INTS(n, name, ...)                                                                \
    one_node_ints(n, name, (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)),              \
                  (const int64_t[]){__VA_ARGS__})
void one_node_ints(struct one_node *n, const char *name, int count, const int64_t *ints);
int one_node_run(struct one_node *n);
void one_node_release(struct one_node *n);
