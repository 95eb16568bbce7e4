/* What an imported graph goes through, node by node in order: its old form becomes a new one, its
 * shapes are inferred, and what is constant is folded. */
#include <inttypes.h>
#include <string.h>

#include "shared/graph/fold.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx_priv.h"

static int check_training(const struct graph *g, const struct node *node, struct err *err)
{
    bool training = node->op == OP_BATCH_NORMALIZATION && node_int(node, "training_mode", 0) != 0;
    /* Up to opset 13 more outputs than one mean training. */
    for (int i = 1; node->op == OP_BATCH_NORMALIZATION && i < node->n_outputs; i++)
        training = training || node->outputs[i] >= 0;
    const struct tensor *mode = node->op == OP_DROPOUT ? graph_constant_of(g, node, 2) : NULL;
    training = training || (mode && shape_elements(&mode->shape) == 1 && tensor_get_s64(mode, 0));
    if (training)
        return node_err(err, ERR_UNIMPLEMENTED, node,
                        "computes as in training; export the model for inference");
    return 0;
}

static int check_sizes(const struct graph *g, const struct node *node,
                       const struct onnx_limits *limits, struct err *err)
{
    char text[128];
    for (int i = 0; i < node->n_outputs; i++) {
        const struct value *value = graph_output_of(g, node, i);
        if (!value || !value->shape_known)
            continue;
        if (shape_elements_at(&value->shape, 1) > limits->max_elements)
            return node_err(err, ERR_RESOURCE_EXHAUSTED, node,
                            "yields %s; the limit is %" PRId64 " elements",
                            shape_text(&value->shape, text), limits->max_elements);
    }
    return 0;
}

/* Nothing that a network computes from its inputs may be empty. */
static int check_empty(const struct graph *g, struct err *err)
{
    char text[128];
    for (int i = 0; i < g->n_inputs; i++) {
        const struct value *value = g->values[g->inputs[i]];
        if (value->shape_known && shape_elements_at(&value->shape, 1) == 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "input '%.128s' of shape %s is empty",
                           value->name, shape_text(&value->shape, text));
    }
    for (int n = 0; n < g->n_nodes; n++) {
        for (int i = 0; i < g->nodes[n]->n_outputs; i++) {
            const struct value *value = graph_output_of(g, g->nodes[n], i);
            if (value && value->shape_known && shape_elements_at(&value->shape, 1) == 0)
                return node_err(err, ERR_INVALID_ARGUMENT, g->nodes[n],
                                "output '%.128s' of shape %s is empty", value->name,
                                shape_text(&value->shape, text));
        }
    }
    return 0;
}

/* The single operators of a test: shapes as far as they can be known, nothing else. */
static int infer_what_is_known(struct graph *g, const struct onnx_limits *limits, struct err *err)
{
    for (int n = 0; n < g->n_nodes; n++) {
        struct err ignored;
        int rc = graph_infer_node(g, g->nodes[n], &ignored);
        if (rc < 0 && rc != -ERR_UNIMPLEMENTED) {
            if (err)
                *err = ignored;
            return rc;
        }
        rc = check_sizes(g, g->nodes[n], limits, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int import_node(struct fold *fold, int n, const struct onnx_limits *limits, struct err *err)
{
    struct graph *g = fold->g;
    int rc = fold_symbols_in(fold, g->nodes[n], err);
    if (rc == 0)
        rc = graph_infer_node(g, g->nodes[n], err);
    if (rc == 0)
        rc = check_sizes(g, g->nodes[n], limits, err);
    if (rc == 0)
        rc = check_training(g, g->nodes[n], err);
    if (rc == 0)
        rc = fold_node(fold, n, err);
    return rc < 0 ? rc : 0;
}

int onnx_drop_unread_outputs(struct graph *g, struct err *err)
{
    struct uses uses;
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    if (!scratch)
        return err_oom(err, "importing a model");
    int rc = graph_uses(g, scratch, &uses, err);
    for (int n = 0; n < g->n_nodes && rc == 0; n++) {
        struct node *node = g->nodes[n];
        if (node->n_outputs != 2 || (node->op != OP_DROPOUT && node->op != OP_MAX_POOL))
            continue;
        int second = node->outputs[1];
        if (second >= 0 && (uses_count(&uses, second) > 0 || uses.is_output[second]))
            continue;
        if (second >= 0)
            g->values[second]->producer = -1;
        node->n_outputs = 1;
    }
    return rc;
}

int onnx_import(struct graph *g, const struct onnx_limits *limits, struct err *err)
{
    if (limits->keep_constant_nodes)
        return infer_what_is_known(g, limits, err);
    _cleanup_(fold_release) struct fold fold = {0};
    int rc = fold_begin(&fold, g, true, limits->max_elements, err);
    if (rc == 0)
        rc = onnx_drop_unread_outputs(g, err);
    for (int n = 0; n < g->n_nodes && rc == 0; n++) {
        int added = g->opset < ONNX_OPSET_BASE ? onnx_upgrade_node(g, n, err) : 0;
        if (added < 0)
            return added;
        for (int last = n + added; n <= last && rc == 0; n++)
            rc = import_node(&fold, n, limits, err);
        n--;
    }
    if (rc < 0)
        return rc;
    g->opset = g->opset < ONNX_OPSET_BASE ? ONNX_OPSET_BASE : g->opset;
    rc = graph_compact(g, err);
    return rc < 0 ? rc : check_empty(g, err);
}
