/* NodeProto and AttributeProto to nodes. */
#include <string.h>

#include "shared/graph/infer.h"
#include "shared/graph/onnx_priv.h"

/* "node 'conv1' (Conv)" or "node 17 (Conv)" */
static int wrap_node(int rc, struct err *err, const Onnx__NodeProto *node, size_t index)
{
    const char *op = onnx_text(node->op_type);
    if (node->name && *node->name)
        err_wrap(err, "node '%.128s' (%.64s)", node->name, op);
    else
        err_wrap(err, "node %zu (%.64s)", index, op);
    return rc;
}

static bool is_control_flow(const char *op)
{
    static const char *const names[] = {"If", "Loop", "Scan", "SequenceMap", NULL};
    for (int i = 0; names[i]; i++)
        if (strcmp(op, names[i]) == 0)
            return true;
    return false;
}

static int read_op(const struct onnx_reader *r, const Onnx__NodeProto *node, struct err *err)
{
    const char *op = onnx_text(node->op_type);
    if (!onnx_default_domain(node->domain))
        return err_set(err, ERR_UNIMPLEMENTED,
                       "operator '%.64s' of the domain '%.64s' is not supported (opset %d)", op,
                       node->domain, r->g->opset);
    /* Up to opset 6 there was no broadcasting Add: old exporters write Sum. */
    int parsed = strcmp(op, "Sum") == 0 && node->n_input == 2 ? OP_ADD : op_parse(op);
    if (parsed < 0)
        return err_set(err, ERR_UNIMPLEMENTED, "%s '%.64s' is not supported (opset %d)",
                       is_control_flow(op) ? "control flow" : "operator", op, r->g->opset);
    return parsed;
}

/* The kind of an attribute: as declared, or (up to IR version 1 the type was left out) as the
 * operator expects. */
static int kind_of(const Onnx__AttributeProto *p, enum op op, int *ret, struct err *err)
{
    static const char *const refused[] = {
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPH] = "a graph",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRINGS] = "a list of strings",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSORS] = "a list of tensors",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__GRAPHS] = "a list of graphs",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSOR] = "a sparse tensor",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__SPARSE_TENSORS] = "a list of sparse tensors",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTO] = "a type",
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TYPE_PROTOS] = "a list of types",
    };
    static const int kinds[] = {
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT] = ATTR_FLOAT,
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT] = ATTR_INT,
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING] = ATTR_STRING,
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR] = ATTR_TENSOR,
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS] = ATTR_FLOATS,
        [ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS] = ATTR_INTS,
    };
    int type = p->has_type ? (int)p->type : 0;
    if (type > 0 && type < (int)(sizeof(refused) / sizeof(*refused)) && refused[type])
        return err_set(err, ERR_UNIMPLEMENTED, "it is %s", refused[type]);
    if (type >= 1 && type <= ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS) {
        *ret = kinds[type];
        return 0;
    }
    if (type != 0 || !op_attr_kind(op, onnx_text(p->name), ret))
        return err_set(err, ERR_INVALID_ARGUMENT, "it is of unknown type %d", type);
    return 0;
}

static int read_string_attr(struct graph *g, struct node *node, const Onnx__AttributeProto *p,
                            struct err *err)
{
    if (!p->has_s)
        return graph_set_attr_string(g, node, p->name, "", err);
    char *text = arena_alloc(g->arena, 1, p->s.len + 1);
    if (!text)
        return err_oom(err, "an attribute");
    if (p->s.len > 0)
        memcpy(text, p->s.data, p->s.len);
    return graph_set_attr_string(g, node, p->name, text, err);
}

static int read_attr(struct onnx_reader *r, struct node *node, const Onnx__AttributeProto *p,
                     struct err *err)
{
    int kind = 0;
    struct tensor *tensor = NULL;
    if (!p->name || !*p->name)
        return err_set(err, ERR_INVALID_ARGUMENT, "it has no name");
    if (node_attr(node, p->name))
        return err_set(err, ERR_INVALID_ARGUMENT, "it is given twice");
    if (p->ref_attr_name && *p->ref_attr_name)
        return err_set(err, ERR_INVALID_ARGUMENT, "it refers to an attribute of a function");
    if (!op_attr_kind(node->op, p->name, &kind))
        return err_set(err, ERR_INVALID_ARGUMENT, "it is not one of %s's", op_name(node->op));
    int rc = kind_of(p, node->op, &kind, err);
    if (rc < 0)
        return rc;
    switch ((enum attr_kind)kind) {
    case ATTR_INT:
        return graph_set_attr_int(r->g, node, p->name, p->has_i ? p->i : 0, err);
    case ATTR_FLOAT:
        return graph_set_attr_float(r->g, node, p->name, p->has_f ? p->f : 0, err);
    case ATTR_STRING:
        return read_string_attr(r->g, node, p, err);
    case ATTR_INTS:
        return p->n_ints > INT32_MAX
                   ? err_set(err, ERR_INVALID_ARGUMENT, "it is too long")
                   : graph_set_attr_ints(r->g, node, p->name, (int)p->n_ints, p->ints, err);
    case ATTR_FLOATS:
        return p->n_floats > INT32_MAX
                   ? err_set(err, ERR_INVALID_ARGUMENT, "it is too long")
                   : graph_set_attr_floats(r->g, node, p->name, (int)p->n_floats, p->floats, err);
    case ATTR_TENSOR:
        break;
    }
    if (!p->t)
        return err_set(err, ERR_INVALID_ARGUMENT, "the tensor is missing");
    rc = onnx_tensor(p->t, r->folder, r->limits, r->g->arena, &tensor, err);
    return rc < 0 ? rc : graph_set_attr_tensor(r->g, node, p->name, tensor, err);
}

/* The node with its outputs; inputs follow when all values have names. */
static int read_node(struct onnx_reader *r, const Onnx__NodeProto *p, struct err *err)
{
    int op = read_op(r, p, err);
    if (op < 0)
        return op;
    int index = graph_add_node(r->g, -1, (enum op)op, p->name, 0, NULL, 0, NULL, err);
    if (index < 0)
        return index;
    struct node *node = r->g->nodes[index];
    node->outputs = arena_alloc(r->g->arena, p->n_output, sizeof(*node->outputs));
    if (!node->outputs)
        return err_oom(err, "a node");
    node->n_outputs = (int)p->n_output;
    for (int i = 0; i < node->n_outputs; i++) {
        node->outputs[i] = -1;
        if (!*p->output[i])
            continue;
        int rc = onnx_new_name(r, p->output[i], err);
        if (rc < 0)
            return rc;
        node->outputs[i] = graph_add_value(r->g, p->output[i], NULL, err);
        if (node->outputs[i] < 0)
            return node->outputs[i];
        r->g->values[node->outputs[i]]->producer = index;
    }
    for (size_t i = 0; i < p->n_attribute; i++) {
        int rc = read_attr(r, node, p->attribute[i], err);
        if (rc < 0) {
            err_wrap(err, "attribute '%.64s'", onnx_text(p->attribute[i]->name));
            return rc;
        }
    }
    return 0;
}

static int connect(struct onnx_reader *r, const Onnx__NodeProto *p, struct node *node,
                   struct err *err)
{
    size_t n = p->n_input;
    while (n > 0 && !*p->input[n - 1])
        n--;
    node->inputs = arena_alloc(r->g->arena, n, sizeof(*node->inputs));
    if (!node->inputs)
        return err_oom(err, "a node");
    for (size_t i = 0; i < n; i++) {
        node->inputs[i] = *p->input[i] ? graph_find_value(r->g, p->input[i]) : -1;
        if (*p->input[i] && node->inputs[i] < 0)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "input '%.128s' is produced by no node and is no input or initializer",
                           p->input[i]);
    }
    node->n_inputs = (int)n;
    return 0;
}

int onnx_read_nodes(struct onnx_reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_node; i++) {
        int rc = read_node(r, r->proto->node[i], err);
        if (rc < 0)
            return wrap_node(rc, err, r->proto->node[i], i);
    }
    for (size_t i = 0; i < r->proto->n_node; i++) {
        int rc = connect(r, r->proto->node[i], r->g->nodes[i], err);
        if (rc < 0)
            return wrap_node(rc, err, r->proto->node[i], i);
    }
    for (int i = 0; i < r->g->n_nodes; i++) {
        int rc = graph_check_node(r->g, r->g->nodes[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}
