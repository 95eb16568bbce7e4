#include "shared/graph/splice.h"

#include <stdio.h>

#include "shared/base/str.h"
#include "shared/graph/graph_priv.h"

/* ---- nodes from one graph into another ---- */

/* The name in `to`, malloc'ed; NULL: memory is out. */
static char *name_of(const struct graph_copying *x, const char *name)
{
    return str_printf("%s%s", x->prefix ? x->prefix : "", name);
}

static int copy_constant(struct graph_copying *x, int value, struct err *err)
{
    const struct value *v = x->from->values[value];
    if (!v->constant || x->map[value] >= 0)
        return 0;
    _cleanup_(freep) char *name = name_of(x, v->name);
    if (!name)
        return err_oom(err, "a constant");
    x->map[value] =
        graph_add_constant(x->to, name, v->dtype, &v->constant->shape, v->constant->data, err);
    return x->map[value] < 0 ? x->map[value] : 0;
}

static int copy_output(struct graph_copying *x, int value, int producer, int *ret, struct err *err)
{
    *ret = -1;
    if (value < 0)
        return 0;
    const struct value *v = x->from->values[value];
    _cleanup_(freep) char *name = name_of(x, v->name);
    if (!name)
        return err_oom(err, "a value");
    const int made = graph_add_value(x->to, name, name, err);
    if (made < 0)
        return made;
    struct value *to = x->to->values[made];
    to->dtype = v->dtype;
    to->shape = v->shape;
    to->shape_known = v->shape_known;
    to->producer = producer;
    x->map[value] = *ret = made;
    return 0;
}

static int copy_inputs(struct graph_copying *x, struct node *copy, const struct node *node,
                       struct err *err)
{
    copy->inputs = arena_alloc(x->to->arena, (size_t)node->n_inputs, sizeof(int));
    if (!copy->inputs)
        return err_oom(err, "a node");
    copy->n_inputs = node->n_inputs;
    for (int i = 0; i < node->n_inputs; i++) {
        const int v = node->inputs[i];
        int rc = v < 0 ? 0 : copy_constant(x, v, err);
        if (rc < 0)
            return rc;
        copy->inputs[i] = v < 0 ? -1 : x->map[v];
    }
    return 0;
}

int graph_copy_node(struct graph_copying *x, const struct node *node, struct err *err)
{
    _cleanup_(freep) char *name = name_of(x, node->name);
    if (!name)
        return err_oom(err, "a node");
    const int index = graph_add_node(x->to, -1, node->op, name, 0, NULL, 0, NULL, err);
    if (index < 0)
        return index;
    struct node *copy = x->to->nodes[index];
    copy->since = x->from->opset == x->to->opset ? node->since : x->to->opset;
    copy->hint = node->hint;
    int rc = copy_inputs(x, copy, node, err);
    copy->outputs = arena_alloc(x->to->arena, (size_t)node->n_outputs, sizeof(int));
    if (rc < 0 || !copy->outputs)
        return rc < 0 ? rc : err_oom(err, "a node");
    copy->n_outputs = node->n_outputs;
    for (int i = 0; i < node->n_outputs && rc == 0; i++)
        rc = copy_output(x, node->outputs[i], index, &copy->outputs[i], err);
    return rc < 0 ? rc : graph_copy_attrs(x->to, copy, node, err);
}

/* ---- a whole one ---- */

int graph_splice(struct graph *g, const struct graph *part, int from, const char *prefix,
                 struct err *err)
{
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    struct graph_copying x = {.from = part, .to = g, .prefix = prefix};
    if (part->n_inputs != 1 || part->n_outputs != 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "a part with %d inputs and %d outputs",
                       part->n_inputs, part->n_outputs);
    x.map = scratch ? arena_alloc(scratch, (size_t)part->n_values, sizeof(*x.map)) : NULL;
    if (!x.map)
        return err_oom(err, "a part of a network");
    for (int v = 0; v < part->n_values; v++)
        x.map[v] = -1;
    x.map[part->inputs[0]] = from;
    for (int n = 0; n < part->n_nodes; n++) {
        int rc = part->nodes[n]->dead ? 0 : graph_copy_node(&x, part->nodes[n], err);
        if (rc < 0)
            return rc;
    }
    const int out = x.map[part->outputs[0]];
    return out >= 0 ? out
                    : err_set(err, ERR_INVALID_ARGUMENT, "%s", "a part whose output nobody makes");
}
