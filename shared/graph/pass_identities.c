/* Nodes that change nothing. */
#include <string.h>

#include "shared/graph/infer_priv.h"
#include "shared/graph/passes.h"
#include "shared/graph/rewrite.h"

static bool same_shape(const struct graph *g, const struct node *node)
{
    const struct value *in = graph_input_of(g, node, 0), *out = graph_output_of(g, node, 0);
    return in && out && in->shape_known && out->shape_known && in->dtype == out->dtype &&
           shape_equal(&in->shape, &out->shape);
}

/* Whether a list of the node, where it is given, holds nothing but `number`. */
static bool is_all(const struct graph *g, const struct node *node, int i, int64_t number)
{
    struct int_list list;
    if (infer_list(g, node, NULL, i, &list, NULL) < 0)
        return false;
    for (int k = 0; k < list.n; k++)
        if (list.v[k] != number)
            return false;
    return true;
}

static bool keeps_order(const struct graph *g, const struct node *node)
{
    struct int_list perm;
    const struct shape *x = infer_shape_of(g, node, 0);
    if (infer_list(g, node, "perm", -1, &perm, NULL) < 0)
        return false;
    /* Dimensions of size 1 may move freely: the others must stay in order. */
    int last = -1;
    for (int i = 0; i < x->rank; i++) {
        int from = perm.given ? (int)perm.v[i] : x->rank - 1 - i;
        if (x->dim[from] == 1)
            continue;
        if (from < last)
            return false;
        last = from;
    }
    return true;
}

static bool drops_nothing(const struct graph *g, const struct node *node)
{
    const struct value *mode = graph_input_of(g, node, 2);
    bool inference = !mode || (mode->constant && shape_elements(&mode->shape) == 1 &&
                               tensor_get_s64(mode->constant, 0) == 0);
    return inference && !graph_output_of(g, node, 1);
}

static bool is_identity(const struct graph *g, const struct node *node)
{
    switch (node->op) {
    case OP_IDENTITY:
        return true;
    case OP_DROPOUT:
        return drops_nothing(g, node);
    case OP_CAST:
    case OP_RESHAPE:
    case OP_FLATTEN:
    case OP_SQUEEZE:
    case OP_UNSQUEEZE:
    case OP_EXPAND:
        return same_shape(g, node);
    case OP_PAD:
        return is_all(g, node, 1, 0) && same_shape(g, node);
    case OP_TRANSPOSE:
        return same_shape(g, node) && keeps_order(g, node);
    case OP_SLICE:
        return same_shape(g, node) && is_all(g, node, 4, 1);
    case OP_CONCAT:
        return node->n_inputs == 1;
    case OP_SPLIT:
        return node->n_outputs == 1;
    case OP_CLIP:
        return !graph_input_of(g, node, 1) && !graph_input_of(g, node, 2) &&
               !node_attr(node, "min") && !node_attr(node, "max");
    default:
        return false;
    }
}

static int remove_identity(struct rewrite *r, int n, struct err *err)
{
    (void)err;
    struct node *node = r->g->nodes[n];
    if (!is_identity(r->g, node) || node->outputs[0] < 0 || node->inputs[0] < 0)
        return 0;
    bool sole = rewrite_sole(r, node->inputs[0]) == n;
    bool done = sole ? rewrite_splice(r, node->outputs[0], node->inputs[0])
                     : rewrite_replace(r, node->outputs[0], node->inputs[0]);
    if (!done)
        return 0;
    graph_kill_node(r->g, n);
    r->changes++;
    return 0;
}

int pass_remove_identities(struct graph *g, struct err *err)
{
    return rewrite_run(g, remove_identity, err);
}
