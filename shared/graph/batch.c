/* A network exported for one batch size, opened for any. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "shared/graph/infer_priv.h"

/* The batch that all inputs have as their first dimension; DIM_BATCH when they are open already. */
static int common_batch(const struct graph *g, int64_t *ret, struct err *err)
{
    if (g->n_inputs == 0)
        return err_set(err, ERR_UNIMPLEMENTED, "the network has no input");
    for (int i = 0; i < g->n_inputs; i++) {
        const struct value *value = g->values[g->inputs[i]];
        char text[128];
        if (!value->shape_known || value->shape.rank < 1)
            return err_set(err, ERR_UNIMPLEMENTED, "input '%.128s' has no first dimension",
                           value->name);
        if (i > 0 && value->shape.dim[0] != *ret)
            return err_set(err, ERR_UNIMPLEMENTED,
                           "input '%.128s' of shape %s has another first dimension than '%.128s'",
                           value->name, shape_text(&value->shape, text),
                           g->values[g->inputs[0]]->name);
        *ret = value->shape.dim[0];
    }
    return 0;
}

static int set_list(struct graph *g, struct node *node, int i, int n, const int64_t *list,
                    struct err *err)
{
    char name[256];
    snprintf(name, sizeof(name), "%.200s_in%d", node->name, i);
    struct shape shape = shape_make(1, (int64_t[]){n});
    int index = graph_add_constant(g, name, DTYPE_S64, &shape, list, err);
    if (index < 0)
        return index;
    node->inputs[i] = index;
    return 0;
}

static int batch_axis(const struct shape *shape)
{
    for (int i = 0; i < shape->rank; i++)
        if (shape->dim[i] == DIM_BATCH)
            return i;
    return -1;
}

/* Where the batch of x lies in the old output: the dimension with as much before it. */
static int batch_in(const struct shape *x, int axis, int64_t batch, const struct shape *old)
{
    int64_t before = 1, sum = 1;
    for (int i = 0; i < axis; i++)
        before *= x->dim[i];
    for (int i = 0; i < old->rank; i++) {
        if (sum == before && old->dim[i] == batch)
            return i;
        sum *= old->dim[i];
    }
    return -1;
}

static int open_reshape(struct graph *g, struct node *node, int64_t batch, const struct shape *old,
                        struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    int axis = batch_axis(x);
    if (axis < 0)
        return 0;
    int at = batch_in(x, axis, batch, old);
    if (at < 0)
        return node_err(err, ERR_UNIMPLEMENTED, node, "merges the batch with other dimensions");
    int64_t target[SHAPE_MAX_RANK];
    memcpy(target, old->dim, sizeof(target));
    target[at] = -1;
    graph_remove_attr(node, "allowzero");
    return set_list(g, node, 1, old->rank, target, err);
}

static int open_expand(struct graph *g, struct node *node, const struct shape *old, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    int axis = batch_axis(x);
    if (axis < 0)
        return 0;
    int64_t target[SHAPE_MAX_RANK];
    memcpy(target, old->dim, sizeof(target));
    target[axis + old->rank - x->rank] = 1;
    return set_list(g, node, 1, old->rank, target, err);
}

/* A slice that takes the whole batch takes it up to its end. */
static int open_slice(struct graph *g, struct node *node, int64_t batch, struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    struct int_list starts, ends, axes, steps;
    int axis = batch_axis(x);
    int rc = infer_list(g, node, "starts", 1, &starts, err);
    if (rc == 0)
        rc = infer_list(g, node, "ends", 2, &ends, err);
    if (rc == 0)
        rc = infer_list(g, node, "axes", 3, &axes, err);
    if (rc == 0)
        rc = infer_list(g, node, NULL, 4, &steps, err);
    if (rc < 0 || node->n_inputs < 3)
        return rc;
    for (int i = 0; i < ends.n; i++) {
        int64_t named = !axes.given ? i : axes.v[i] < 0 ? axes.v[i] + x->rank : axes.v[i];
        bool whole = (starts.v[i] == 0 || starts.v[i] == -batch) && ends.v[i] >= batch &&
                     (!steps.given || steps.v[i] == 1);
        if (named == axis && whole) {
            starts.v[i] = 0;
            ends.v[i] = INT64_MAX;
        }
    }
    rc = set_list(g, node, 1, starts.n, starts.v, err);
    return rc < 0 ? rc : set_list(g, node, 2, ends.n, ends.v, err);
}

/* A Resize by sizes becomes one by scales. */
static int open_resize(struct graph *g, struct node *node, int64_t batch, struct err *err)
{
    const struct value *sizes = graph_input_of(g, node, 3);
    const struct shape *x = infer_shape_of(g, node, 0);
    if (!sizes || !sizes->constant || node_attr(node, "axes") ||
        shape_elements(&sizes->shape) != x->rank)
        return 0;
    float scales[SHAPE_MAX_RANK];
    for (int i = 0; i < x->rank; i++) {
        int64_t from = x->dim[i] == DIM_BATCH ? batch : x->dim[i];
        scales[i] = graph_scale_between(from, tensor_get_s64(sizes->constant, i));
    }
    char name[256];
    snprintf(name, sizeof(name), "%.200s_scales", node->name);
    int index = graph_add_constant(g, name, DTYPE_F32, &sizes->shape, scales, err);
    if (index < 0)
        return index;
    return graph_set_inputs(g, node, 3, (int[]){node->inputs[0], node->inputs[1], index}, err);
}

/* What runs over the samples of a batch is fine for one batch size only. */
static int check_apart(const struct graph *g, const struct node *node, struct err *err)
{
    const struct value *x = graph_input_of(g, node, 0);
    if (!x || !shape_has_batch(&x->shape))
        return 0;
    int at = batch_axis(&x->shape);
    if (node->op == OP_SOFTMAX) {
        int64_t axis = node_int(node, "axis", node->since < 13 ? 1 : -1);
        axis = axis < 0 ? axis + x->shape.rank : axis;
        if (axis == at || (node->since < 13 && at > axis))
            return node_err(err, ERR_UNIMPLEMENTED, node, "runs over the batch");
    }
    if ((node->op == OP_LRN || node->op == OP_BATCH_NORMALIZATION) && at == 1)
        return node_err(err, ERR_UNIMPLEMENTED, node, "runs over the batch");
    return 0;
}

static int open_node(struct graph *g, int n, int64_t batch, struct err *err)
{
    struct node *node = g->nodes[n];
    const struct value *out = graph_output_of(g, node, 0);
    const struct shape old = out ? out->shape : (struct shape){0};
    int rc = 0;
    switch (node->op) {
    case OP_RESHAPE:
        rc = open_reshape(g, node, batch, &old, err);
        break;
    case OP_EXPAND:
        rc = open_expand(g, node, &old, err);
        break;
    case OP_SLICE:
        rc = open_slice(g, node, batch, err);
        break;
    case OP_RESIZE:
        rc = open_resize(g, node, batch, err);
        break;
    default:
        break;
    }
    if (rc == 0)
        rc = graph_infer_node(g, node, err);
    if (rc == 0)
        rc = check_apart(g, node, err);
    if (rc < 0 || !out)
        return rc;
    struct shape now = shape_at(&out->shape, batch);
    char a[128], b[128];
    if (!shape_equal(&now, &old))
        return node_err(err, ERR_UNIMPLEMENTED, node, "%s becomes %s", shape_text(&old, a),
                        shape_text(&out->shape, b));
    return 0;
}

static bool leads_with_batch(const struct graph *g, int n, const int *values)
{
    for (int i = 0; i < n; i++) {
        const struct value *v = g->values[values[i]];
        if (!v->shape_known || v->shape.rank < 1 || v->shape.dim[0] != DIM_BATCH)
            return false;
    }
    return n > 0;
}

bool graph_samples_apart(const struct graph *g)
{
    /* Shapes with a symbolic batch exist only where no operator merges, cuts or sums over it. */
    for (int n = 0; n < g->n_nodes; n++)
        if (!g->nodes[n]->dead && check_apart(g, g->nodes[n], NULL) < 0)
            return false;
    return leads_with_batch(g, g->n_inputs, g->inputs) &&
           leads_with_batch(g, g->n_outputs, g->outputs);
}

int graph_make_batch_symbolic(struct graph *g, struct err *err)
{
    int64_t batch = 0;
    int rc = common_batch(g, &batch, err);
    if (rc < 0 || batch == DIM_BATCH)
        return rc;
    _cleanup_(graph_freep) struct graph *copy = NULL;
    rc = graph_clone(g, &copy, err);
    if (rc == 0)
        rc = graph_infer(copy, err); /* the shapes to compare with */
    for (int i = 0; rc == 0 && i < copy->n_inputs; i++)
        copy->values[copy->inputs[i]]->shape.dim[0] = DIM_BATCH;
    for (int n = 0; rc == 0 && n < copy->n_nodes; n++)
        rc = copy->nodes[n]->dead ? 0 : open_node(copy, n, batch, err);
    for (int i = 0; rc == 0 && i < copy->n_outputs; i++)
        if (!shape_has_batch(&copy->values[copy->outputs[i]]->shape))
            rc = err_set(err, ERR_UNIMPLEMENTED, "output '%.128s' does not follow the batch",
                         copy->values[copy->outputs[i]]->name);
    if (rc < 0) {
        err_wrap(err, "the batch size is fixed to %" PRId64 " and cannot be opened", batch);
        return -ERR_UNIMPLEMENTED;
    }
    struct graph old = *g;
    *g = *copy;
    *copy = old;
    return 0;
}
