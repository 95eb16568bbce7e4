#include "tests/support/one_node.h"

#include <stdio.h>
#include <stdlib.h>

/* Test code: without memory there is no test. */
#define MUST(x)                                                                                    \
    do {                                                                                           \
        if (!(x)) {                                                                                \
            fprintf(stderr, "%s:%d: " #x "\n", __FILE__, __LINE__);                                \
            abort();                                                                               \
        }                                                                                          \
    } while (0)

struct tensor *one_tensor(enum dtype dtype, struct shape shape, int n, const double *values)
{
    struct tensor *t = tensor_new(dtype, &shape, NULL);
    MUST(t);
    int64_t count = shape_elements(&shape);
    MUST(count == n || n == 1);
    for (int64_t i = 0; i < count; i++)
        tensor_set_f64(t, i, values[n == 1 ? 0 : i]);
    return t;
}

void one_node_init(struct one_node *n, enum op op, int opset, int n_out)
{
    *n = (struct one_node){.op = op, .opset = opset, .n_out = n_out};
    n->g = graph_new(opset, NULL);
    MUST(n->g);
}

void one_node_input(struct one_node *n, struct tensor *t)
{
    MUST(!n->node && n->n_in < ONE_NODE_MAX);
    n->in[n->n_in++] = t;
}

struct node *one_node_node(struct one_node *n)
{
    if (n->node)
        return n->node;
    int inputs[ONE_NODE_MAX];
    for (int i = 0; i < n->n_in; i++) {
        inputs[i] = -1;
        if (!n->in[i])
            continue;
        inputs[i] = graph_add_input(n->g, NULL, n->in[i]->dtype, &n->in[i]->shape, NULL);
        MUST(inputs[i] >= 0);
    }
    int index = graph_add_node(n->g, -1, n->op, "the_node", n->n_in, inputs, n->n_out, NULL, NULL);
    MUST(index >= 0);
    n->node = n->g->nodes[index];
    return n->node;
}

void one_node_int(struct one_node *n, const char *name, int64_t i)
{
    MUST(graph_set_attr_int(n->g, one_node_node(n), name, i, NULL) == 0);
}

void one_node_float(struct one_node *n, const char *name, float f)
{
    MUST(graph_set_attr_float(n->g, one_node_node(n), name, f, NULL) == 0);
}

void one_node_string(struct one_node *n, const char *name, const char *s)
{
    MUST(graph_set_attr_string(n->g, one_node_node(n), name, s, NULL) == 0);
}

void one_node_ints(struct one_node *n, const char *name, int count, const int64_t *ints)
{
    MUST(graph_set_attr_ints(n->g, one_node_node(n), name, count, ints, NULL) == 0);
}

int one_node_run(struct one_node *n)
{
    const struct node *node = one_node_node(n);
    for (int i = 0; i < n->n_out; i++)
        n->out[i] = tensor_free(n->out[i]);
    n->err = (struct err){0};
    return eval_node(n->g, node, (const struct tensor *const *)n->in, n->out, &n->err);
}

void one_node_release(struct one_node *n)
{
    for (int i = 0; i < ONE_NODE_MAX; i++) {
        tensor_free(n->in[i]);
        tensor_free(n->out[i]);
    }
    graph_free(n->g);
}
