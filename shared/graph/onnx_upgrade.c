/* Operators as opsets 7 to 12 wrote them, in the form of opset 13. From ONNX's Changelog.md. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "shared/graph/infer_priv.h"
#include "shared/graph/onnx_priv.h"

/* Sets input i of the node, which may be behind its last. */
static int set_input(struct graph *g, struct node *node, int i, int value, struct err *err)
{
    int inputs[16];
    int n = node->n_inputs > i + 1 ? node->n_inputs : i + 1;
    if (n > 16)
        return node_err(err, ERR_INTERNAL, node, "has %d inputs", n);
    for (int k = 0; k < n; k++)
        inputs[k] = k < node->n_inputs ? node->inputs[k] : -1;
    inputs[i] = value;
    return graph_set_inputs(g, node, n, inputs, err);
}

static int add_constant(struct graph *g, const struct node *node, const char *what,
                        enum dtype dtype, const struct shape *shape, const void *data,
                        struct err *err)
{
    char name[256];
    snprintf(name, sizeof(name), "%.200s_%s", node->name, what);
    return graph_add_constant(g, name, dtype, shape, data, err);
}

/* A list attribute becomes input i. */
static int list_to_input(struct graph *g, struct node *node, const char *attr, int i,
                         struct err *err)
{
    const struct attr *a = node_attr(node, attr);
    if (!a || a->kind != ATTR_INTS)
        return 0;
    struct shape shape = shape_make(1, (int64_t[]){a->n});
    int value = add_constant(g, node, attr, DTYPE_S64, &shape, a->ints, err);
    if (value < 0)
        return value;
    graph_remove_attr(node, attr);
    return set_input(g, node, i, value, err);
}

/* A number becomes input i, in the type of input 0. */
static int number_to_input(struct graph *g, struct node *node, const char *attr, int i,
                           struct err *err)
{
    const struct attr *a = node_attr(node, attr);
    const struct value *x = graph_input_of(g, node, 0);
    if (!a || a->kind != ATTR_FLOAT || !x)
        return 0;
    struct shape shape = {.rank = 0};
    int value = add_constant(g, node, attr, x->dtype, &shape, NULL, err);
    if (value < 0)
        return value;
    tensor_set_f64(g->values[value]->constant, 0, (double)a->f);
    graph_remove_attr(node, attr);
    return set_input(g, node, i, value, err);
}

static int upgrade_clip(struct graph *g, struct node *node, struct err *err)
{
    int rc = number_to_input(g, node, "min", 1, err);
    return rc < 0 ? rc : number_to_input(g, node, "max", 2, err);
}

static int upgrade_pad(struct graph *g, struct node *node, struct err *err)
{
    int rc = list_to_input(g, node, "pads", 1, err);
    return rc < 0 ? rc : number_to_input(g, node, "value", 2, err);
}

static int upgrade_slice(struct graph *g, struct node *node, struct err *err)
{
    int rc = list_to_input(g, node, "starts", 1, err);
    if (rc == 0)
        rc = list_to_input(g, node, "ends", 2, err);
    return rc < 0 ? rc : list_to_input(g, node, "axes", 3, err);
}

/* Inference only: the input passes through. */
static int upgrade_dropout(struct graph *g, struct node *node, struct err *err)
{
    if (node->since >= 12)
        return 0;
    if (node->since < 10 && graph_output_of(g, node, 1))
        return node_err(err, ERR_UNIMPLEMENTED, node, "yields its mask");
    graph_remove_attr(node, "ratio");
    return 0;
}

/* Upsample and Resize 10 sample at x / scale, rounded down. */
static int upgrade_resize(struct graph *g, struct node *node, struct err *err)
{
    if (node->op == OP_RESIZE && node->since >= 11) {
        for (int i = 1; i < node->n_inputs; i++) {
            const struct tensor *t = graph_constant_of(g, node, i);
            if (t && shape_elements(&t->shape) == 0)
                node->inputs[i] = -1; /* how opset 11 leaves out */
        }
        return 0;
    }
    const struct attr *a = node_attr(node, "scales");
    int scales = node->n_inputs > 1 ? node->inputs[1] : -1;
    if (a && a->kind == ATTR_FLOATS) {
        struct shape shape = shape_make(1, (int64_t[]){a->n});
        scales = add_constant(g, node, "scales", DTYPE_F32, &shape, a->floats, err);
        if (scales < 0)
            return scales;
        graph_remove_attr(node, "scales");
    }
    const struct tensor *t = scales >= 0 ? g->values[scales]->constant : NULL;
    bool shrinks = false;
    for (int64_t i = 0; t && i < shape_elements(&t->shape); i++)
        shrinks = shrinks || tensor_get_f64(t, i) < 1.0;
    node->op = OP_RESIZE;
    int rc = graph_set_inputs(g, node, 3, (int[]){node->inputs[0], -1, scales}, err);
    if (rc == 0)
        rc = graph_set_attr_string(g, node, "coordinate_transformation_mode", "asymmetric", err);
    /* ONNX leaves the rounding of Resize 10 open; ONNX Runtime rounds up where it shrinks. */
    if (rc == 0)
        rc = graph_set_attr_string(g, node, "nearest_mode", shrinks ? "ceil" : "floor", err);
    return rc;
}

static int add_target(struct graph *g, const struct node *node, const char *what, int n,
                      const int64_t *target, struct err *err)
{
    struct shape shape = shape_make(1, (int64_t[]){n});
    return add_constant(g, node, what, DTYPE_S64, &shape, target, err);
}

/* The dimensions from `from` on become one, Softmax runs over it, and they come back. Two nodes are
 * added before node n, which keeps its name and output. */
static int softmax_by_reshape(struct graph *g, int n, int from, struct err *err)
{
    struct node *node = g->nodes[n];
    const struct shape x = graph_input_of(g, node, 0)->shape;
    int64_t flat[SHAPE_MAX_RANK + 1] = {0}, full[SHAPE_MAX_RANK]; /* 0: as the input */
    flat[from] = -1;
    for (int i = 0; i < x.rank; i++)
        full[i] = x.dim[i]; /* DIM_BATCH is -1: the rest */
    int to = add_target(g, node, "flat", from + 1, flat, err);
    int back = to < 0 ? to : add_target(g, node, "shape", x.rank, full, err);
    if (back < 0)
        return back;
    int rc = graph_add_node(g, n, OP_RESHAPE, NULL, 2, (int[]){node->inputs[0], to}, 1, NULL, err);
    if (rc >= 0)
        rc = graph_add_node(g, n + 1, OP_SOFTMAX, NULL, 1, g->nodes[n]->outputs, 1, NULL, err);
    if (rc < 0)
        return rc;
    g->nodes[n]->since = g->nodes[n + 1]->since = ONNX_OPSET_BASE;
    rc = graph_set_attr_int(g, g->nodes[n + 1], "axis", -1, err);
    if (rc < 0)
        return rc;
    graph_remove_attr(node, "axis");
    node->op = OP_RESHAPE;
    rc = graph_set_inputs(g, node, 2, (int[]){g->nodes[n + 1]->outputs[0], back}, err);
    return rc < 0 ? rc : 2;
}

/* Up to opset 12 Softmax runs over all dimensions from the axis on, together. That is one axis when
 * at most one of them is larger than 1; else the tensor is reshaped before and after. */
static int upgrade_softmax(struct graph *g, int n, struct err *err)
{
    struct node *node = g->nodes[n];
    const struct value *x = graph_input_of(g, node, 0);
    if (!x->shape_known)
        return node_err(err, ERR_UNIMPLEMENTED, node, "the shape of its input is not known");
    int rank = x->shape.rank;
    int64_t from = node_int(node, "axis", 1);
    from = from < 0 ? from + rank : from;
    if (from < 0 || from > rank)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "axis %" PRId64, from);
    int axis = -1, larger = 0;
    for (int i = (int)from; i < rank; i++) {
        if (x->shape.dim[i] != 1) {
            axis = i;
            larger++;
        }
    }
    if (larger <= 1 && rank > 0 && from < rank)
        return graph_set_attr_int(g, node, "axis", larger == 1 ? axis : from, err);
    if (rank == 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "its input is a scalar");
    return softmax_by_reshape(g, n, (int)from, err);
}

int onnx_upgrade_node(struct graph *g, int n, struct err *err)
{
    struct node *node = g->nodes[n];
    int rc = 0;
    switch (node->op) {
    case OP_BATCH_NORMALIZATION:
        if (node_int(node, "spatial", 1) == 0)
            return node_err(err, ERR_UNIMPLEMENTED, node, "spatial = 0");
        graph_remove_attr(node, "spatial");
        break;
    case OP_CLIP:
        rc = upgrade_clip(g, node, err);
        break;
    case OP_DROPOUT:
        rc = upgrade_dropout(g, node, err);
        break;
    case OP_PAD:
        rc = upgrade_pad(g, node, err);
        break;
    case OP_RESIZE:
    case OP_UPSAMPLE:
        rc = upgrade_resize(g, node, err);
        break;
    case OP_SLICE:
        rc = upgrade_slice(g, node, err);
        break;
    case OP_SOFTMAX:
        rc = upgrade_softmax(g, n, err);
        break;
    case OP_SPLIT:
        rc = list_to_input(g, node, "split", 1, err);
        break;
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
        rc = list_to_input(g, node, "axes", 1, err);
        break;
    default:
        break;
    }
    node->since = ONNX_OPSET_BASE;
    return rc;
}
