/* One way to write what can be written in several. */
#include <stdio.h>
#include <string.h>

#include "shared/graph/eval.h"
#include "shared/graph/infer_priv.h"
#include "shared/graph/pass_priv.h"
#include "shared/graph/passes.h"

void pass_become(struct node *node, enum op op)
{
    node->op = op;
    node->n_attrs = 0;
}

/* ---- chains of Reshape, Flatten, Squeeze and Unsqueeze ---- */

static bool only_reshapes(const struct node *node)
{
    return node->op == OP_RESHAPE || node->op == OP_FLATTEN || node->op == OP_SQUEEZE ||
           node->op == OP_UNSQUEEZE;
}

/* [N,...] to [N,all the rest] is what Flatten does. */
static bool flattens(const struct shape *x, const struct shape *out)
{
    return x->rank >= 1 && out->rank == 2 && out->dim[0] == x->dim[0] && x->dim[0] != 0;
}

static int become_flatten(struct graph *g, struct node *node, int x, struct err *err)
{
    pass_become(node, OP_FLATTEN);
    int rc = graph_set_inputs(g, node, 1, &x, err);
    return rc < 0 ? rc : graph_set_attr_int(g, node, "axis", 1, err);
}

static int become_reshape(struct graph *g, struct node *node, int x, const struct shape *out,
                          struct err *err)
{
    const struct shape *in = &g->values[x]->shape;
    int64_t target[SHAPE_MAX_RANK];
    for (int i = 0; i < out->rank; i++) {
        bool copies = out->dim[i] == DIM_BATCH && i < in->rank && in->dim[i] == DIM_BATCH;
        target[i] = copies ? 0 : out->dim[i]; /* DIM_BATCH is -1: the rest */
    }
    char name[256];
    snprintf(name, sizeof(name), "%.200s_shape", node->name);
    struct shape shape = shape_make(1, (int64_t[]){out->rank});
    int constant = graph_add_constant(g, name, DTYPE_S64, &shape, target, err);
    if (constant < 0)
        return constant;
    pass_become(node, OP_RESHAPE);
    return graph_set_inputs(g, node, 2, (int[]){x, constant}, err);
}

static int merge_reshapes(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    const struct value *out = graph_output_of(g, node, 0);
    if (!only_reshapes(node) || !out || !out->shape_known || shape_elements_at(&out->shape, 1) == 0)
        return 0;
    int x = node->inputs[0];
    bool merged = false;
    const struct value *in = g->values[x];
    if (in->producer >= 0 && only_reshapes(g->nodes[in->producer]) && rewrite_sole(r, x) == n) {
        x = g->nodes[in->producer]->inputs[0];
        merged = true;
    }
    bool flat = flattens(&g->values[x]->shape, &out->shape);
    if (!merged && (!flat || node->op == OP_FLATTEN))
        return 0;
    int rc = flat ? become_flatten(g, node, x, err) : become_reshape(g, node, x, &out->shape, err);
    rewrite_touch(r, x);
    r->changes += rc == 0;
    return rc;
}

/* ---- Slice after Slice along other axes ---- */

struct slice {
    int n;
    int64_t starts[SHAPE_MAX_RANK], ends[SHAPE_MAX_RANK], axes[SHAPE_MAX_RANK],
        steps[SHAPE_MAX_RANK];
};

/* Adds the bounds of a Slice to those collected; false when it has an axis that is there already.
 */
static bool add_slice(const struct graph *g, const struct node *node, struct slice *s)
{
    struct int_list starts, ends, axes, steps;
    int rank = infer_shape_of(g, node, 0)->rank;
    if (node->since < 10 || infer_list(g, node, NULL, 1, &starts, NULL) < 0 ||
        infer_list(g, node, NULL, 2, &ends, NULL) < 0 ||
        infer_list(g, node, NULL, 3, &axes, NULL) < 0 ||
        infer_list(g, node, NULL, 4, &steps, NULL) < 0)
        return false;
    for (int i = 0; i < starts.n; i++) {
        int64_t axis = !axes.given ? i : axes.v[i] < 0 ? axes.v[i] + rank : axes.v[i];
        for (int k = 0; k < s->n; k++)
            if (s->axes[k] == axis)
                return false;
        s->starts[s->n] = starts.v[i];
        s->ends[s->n] = ends.v[i];
        s->axes[s->n] = axis;
        s->steps[s->n++] = steps.given ? steps.v[i] : 1;
    }
    return true;
}

static int merge_slices(struct rewrite *r, int n, struct err *err)
{
    static const char *const names[] = {"starts", "ends", "axes", "steps"};
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    struct slice s = {0};
    if (node->op != OP_SLICE || rewrite_sole(r, node->inputs[0]) != n)
        return 0;
    const struct node *inner = rewrite_producer(r, node, 0, OP_SLICE);
    if (!inner || !add_slice(g, inner, &s) || !add_slice(g, node, &s))
        return 0;
    const int64_t *lists[] = {s.starts, s.ends, s.axes, s.steps};
    int inputs[5] = {inner->inputs[0]};
    struct shape shape = shape_make(1, (int64_t[]){s.n});
    for (int i = 0; i < 4; i++) {
        char name[256];
        snprintf(name, sizeof(name), "%.200s_%s", node->name, names[i]);
        inputs[i + 1] = graph_add_constant(g, name, DTYPE_S64, &shape, lists[i], err);
        if (inputs[i + 1] < 0)
            return inputs[i + 1];
    }
    rewrite_touch(r, node->inputs[0]);
    rewrite_touch(r, inputs[0]);
    r->changes++;
    return graph_set_inputs(g, node, 5, inputs, err);
}

/* ---- pools over everything ---- */

static bool reduces_space(const struct graph *g, const struct node *node)
{
    struct int_list axes;
    bool named[SHAPE_MAX_RANK];
    const struct shape *x = infer_shape_of(g, node, 0);
    if (x->rank < 3 || !dtype_is_float(graph_input_of(g, node, 0)->dtype) ||
        infer_list(g, node, "axes", 1, &axes, NULL) < 0 || axes.n != x->rank - 2 ||
        infer_axes(node, &axes, x->rank, named, NULL) < 0)
        return false;
    return !named[0] && !named[1];
}

static int mean_to_pool(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    if (node->op != OP_REDUCE_MEAN || !reduces_space(g, node))
        return 0;
    int x = node->inputs[0], rc;
    r->changes++;
    if (node_int(node, "keepdims", 1) != 0) {
        pass_become(node, OP_GLOBAL_AVERAGE_POOL);
        return graph_set_inputs(g, node, 1, &x, err);
    }
    char name[256];
    snprintf(name, sizeof(name), "%.200s_pool", node->name);
    int pool = graph_add_node(g, -1, OP_GLOBAL_AVERAGE_POOL, name, 1, &x, 1, NULL, err);
    if (pool < 0)
        return pool;
    node = g->nodes[n];
    g->nodes[pool]->hint = node->hint;
    rc = graph_infer_node(g, g->nodes[pool], err);
    return rc < 0 ? rc : become_flatten(g, node, g->nodes[pool]->outputs[0], err);
}

static int pool_to_global(struct rewrite *r, int n, struct err *err)
{
    (void)err;
    struct node *node = r->g->nodes[n];
    struct window w;
    if ((node->op != OP_AVERAGE_POOL && node->op != OP_MAX_POOL) ||
        graph_output_of(r->g, node, 1) || graph_window(r->g, node, &w, NULL) < 0)
        return 0;
    for (int i = 0; i < w.rank; i++)
        if (w.out[i] != 1 || w.kernel[i] != w.in[i] || w.dilation[i] != 1 || w.pad_begin[i] != 0 ||
            w.pad_end[i] != 0)
            return 0;
    pass_become(node, node->op == OP_MAX_POOL ? OP_GLOBAL_MAX_POOL : OP_GLOBAL_AVERAGE_POOL);
    r->changes++;
    return 0;
}

/* ---- MatMul by a constant matrix ---- */

static int matmul_to_gemm(struct rewrite *r, int n, struct err *err)
{
    (void)err;
    struct node *node = r->g->nodes[n];
    if (node->op != OP_MATMUL)
        return 0;
    const struct value *a = graph_input_of(r->g, node, 0), *b = graph_input_of(r->g, node, 1);
    if (a->dtype != DTYPE_F32 || a->shape.rank != 2 || b->shape.rank != 2 || !b->constant ||
        node->since < 11)
        return 0;
    pass_become(node, OP_GEMM);
    r->changes++;
    return 0;
}

/* ---- */

static int constants(struct graph *g, struct err *err)
{
    int changes = 0;
    for (int n = 0; n < g->n_nodes; n++) {
        struct node *node = g->nodes[n];
        if (node->dead || node->op != OP_CONSTANT || node->outputs[0] < 0)
            continue;
        _cleanup_(tensor_freep) struct tensor *tensor = NULL;
        int rc = eval_node(g, node, NULL, &tensor, err);
        if (rc == 0)
            rc = graph_make_constant(g, node->outputs[0], tensor, err);
        if (rc < 0)
            return rc;
        changes++;
    }
    return changes;
}

static int canonicalise(struct rewrite *r, int n, struct err *err)
{
    static rewrite_rule *const rules[] = {
        merge_reshapes, merge_slices, mean_to_pool, pool_to_global, matmul_to_gemm, pass_activation,
    };
    int before = r->changes, rc = 0;
    for (size_t i = 0; i < sizeof(rules) / sizeof(*rules) && rc >= 0; i++) {
        rc = rules[i](r, n, err);
        if (r->changes != before)
            return rc; /* the next sweep looks at what the node is now */
    }
    return rc;
}

int pass_canonicalise(struct graph *g, struct err *err)
{
    int changed = constants(g, err);
    int rewritten = changed < 0 ? changed : rewrite_run(g, canonicalise, err);
    if (rewritten < 0)
        return rewritten;
    int rc = changed > 0 ? graph_compact(g, err) : 0;
    return rc < 0 ? rc : changed + rewritten;
}
