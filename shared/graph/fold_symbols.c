/* Symbolic values that decide about shapes: constants that mean the same take their place. */
#include <inttypes.h>
#include <stdio.h>

#include "shared/graph/fold.h"
#include "shared/graph/graph_priv.h"
#include "shared/graph/infer_priv.h"

/* The elements a[i] * N + b[i] of a short list. */
struct terms {
    int n;
    int64_t a[LIST_MAX], b[LIST_MAX];
};

/* Whether input i is symbolic; then ret holds its terms. */
static bool read_terms(const struct fold *fold, const struct node *node, int i, struct terms *ret)
{
    int v = i < node->n_inputs ? node->inputs[i] : -1;
    if (v < 0 || v >= fold->n_symbolic || !fold->symbolic[v].a)
        return false;
    const struct symbolic *s = &fold->symbolic[v];
    int64_t n = shape_elements(&s->a->shape);
    if (n > LIST_MAX || s->a->shape.rank > 1)
        return false;
    ret->n = (int)n;
    for (int k = 0; k < ret->n; k++) {
        ret->a[k] = tensor_get_s64(s->a, k);
        ret->b[k] = tensor_get_s64(s->b, k);
    }
    return true;
}

static int refuse(const struct node *node, const char *what, struct err *err)
{
    return node_err(err, ERR_UNIMPLEMENTED, node,
                    "%s depends on the batch size in a way that cannot be followed", what);
}

/* Input i becomes a constant list of its own. */
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

/* ---- Reshape ---- */

/* What the target's -1 stands for, given that element `batch` is a * N; -1: nothing fits. */
static int64_t solve_wildcard(const struct shape *x, const struct terms *t, int batch, int wildcard)
{
    int64_t total = shape_elements_at(x, 1), others = t->a[batch];
    for (int i = 0; i < t->n; i++) {
        if (i == batch || i == wildcard)
            continue;
        int64_t dim = t->b[i] == 0 && i < x->rank ? x->dim[i] : t->b[i];
        if (__builtin_mul_overflow(others, dim, &others))
            return -1;
    }
    return others > 0 && total % others == 0 ? total / others : -1;
}

static int reshape_symbols(struct fold *fold, struct node *node, struct err *err)
{
    struct terms t;
    const struct value *in = graph_input_of(fold->g, node, 0);
    if (!read_terms(fold, node, 1, &t))
        return 0;
    int batch = -1, wildcard = -1, batches = 0;
    for (int i = 0; i < t.n; i++) {
        if (t.a[i] != 0) {
            batch = i;
            batches++;
        } else if (t.b[i] == -1) {
            wildcard = i;
        }
    }
    if (batches != 1 || t.b[batch] != 0 || t.a[batch] < 1 || !in || !in->shape_known)
        return refuse(node, "the target shape", err);
    bool copies = t.a[batch] == 1 && batch < in->shape.rank && in->shape.dim[batch] == DIM_BATCH &&
                  node_int(node, "allowzero", 0) == 0;
    if (!copies && wildcard >= 0) {
        t.b[wildcard] = solve_wildcard(&in->shape, &t, batch, wildcard);
        if (t.b[wildcard] < 0)
            return refuse(node, "the target shape", err);
    }
    t.b[batch] = copies ? 0 : -1;
    return set_list(fold->g, node, 1, t.n, t.b, err);
}

/* ---- Expand ---- */

/* Expanding the batch to the batch changes nothing: 1 says so. */
static int expand_symbols(struct fold *fold, struct node *node, struct err *err)
{
    struct terms t;
    const struct value *in = graph_input_of(fold->g, node, 0);
    if (!read_terms(fold, node, 1, &t))
        return 0;
    for (int i = 0; i < t.n; i++) {
        if (t.a[i] == 0)
            continue;
        int at = i + (in ? in->shape.rank : 0) - t.n;
        if (t.a[i] != 1 || t.b[i] != 0 || at < 0 || !in || in->shape.dim[at] != DIM_BATCH)
            return refuse(node, "the target shape", err);
        t.b[i] = 1;
    }
    return set_list(fold->g, node, 1, t.n, t.b, err);
}

/* ---- Slice ---- */

/* Up to the end of the batch, on the batch: all of it. */
static int slice_symbols(struct fold *fold, struct node *node, struct err *err)
{
    struct terms t;
    struct int_list axes;
    const struct value *in = graph_input_of(fold->g, node, 0);
    if (read_terms(fold, node, 1, &t))
        return refuse(node, "where the slice starts", err);
    if (!read_terms(fold, node, 2, &t))
        return 0;
    int rc = infer_list(fold->g, node, NULL, 3, &axes, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < t.n; i++) {
        if (t.a[i] == 0)
            continue;
        int axis = 0;
        rc = infer_axis(node, axes.given && i < axes.n ? axes.v[i] : i, in ? in->shape.rank : 0,
                        &axis, err);
        if (rc < 0)
            return rc;
        if (t.a[i] != 1 || t.b[i] != 0 || in->shape.dim[axis] != DIM_BATCH)
            return refuse(node, "where the slice ends", err);
        t.b[i] = INT64_MAX;
    }
    return set_list(fold->g, node, 2, t.n, t.b, err);
}

/* ---- Resize ---- */

/* Sizes that repeat the batch size cannot be constants: scales say the same. */
static int resize_symbols(struct fold *fold, struct node *node, struct err *err)
{
    struct terms t;
    struct int_list axes;
    float scales[LIST_MAX];
    const struct value *in = graph_input_of(fold->g, node, 0);
    if (!read_terms(fold, node, 3, &t))
        return 0;
    int rc = infer_list(fold->g, node, "axes", -1, &axes, err);
    for (int i = 0; i < t.n && rc == 0; i++) {
        int axis = 0;
        rc = infer_axis(node, axes.given && i < axes.n ? axes.v[i] : i, in ? in->shape.rank : 0,
                        &axis, err);
        if (rc < 0)
            return rc;
        int64_t dim = in->shape.dim[axis];
        bool same = t.a[i] == 1 && t.b[i] == 0 && dim == DIM_BATCH;
        bool fixed = t.a[i] == 0 && dim > 0 && t.b[i] > 0 && t.b[i] < (1 << 24);
        if (!same && !fixed)
            return refuse(node, "the output size", err);
        scales[i] = same ? 1.0f : graph_scale_between(dim, t.b[i]);
    }
    if (rc < 0)
        return rc;
    char name[256];
    snprintf(name, sizeof(name), "%.200s_scales", node->name);
    struct shape shape = shape_make(1, (int64_t[]){t.n});
    int index = graph_add_constant(fold->g, name, DTYPE_F32, &shape, scales, err);
    if (index < 0)
        return index;
    node->inputs[2] = index;
    node->inputs[3] = -1;
    node->n_inputs = 3;
    return 0;
}

int fold_symbols_in(struct fold *fold, struct node *node, struct err *err)
{
    struct terms t;
    switch (node->op) {
    case OP_RESHAPE:
        return reshape_symbols(fold, node, err);
    case OP_EXPAND:
        return expand_symbols(fold, node, err);
    case OP_SLICE:
        return slice_symbols(fold, node, err);
    case OP_RESIZE:
        return resize_symbols(fold, node, err);
    case OP_CONSTANT_OF_SHAPE:
        return read_terms(fold, node, 0, &t) ? refuse(node, "the shape", err) : 0;
    default:
        return 0;
    }
}
