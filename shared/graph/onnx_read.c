/* ModelProto to graph: names, types, nodes. What the nodes mean comes after, in onnx_import.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx_priv.h"

const struct onnx_limits onnx_default_limits = {
    .max_file_bytes = (size_t)2 << 30,
    .max_depth = 32,
    .max_nodes = 100000,
    .max_elements = (int64_t)1 << 28,
};

struct reader {
    const Onnx__ModelProto *model;
    const Onnx__GraphProto *proto;
    const char *folder;
    const struct onnx_limits *limits;
    struct graph *g;
    const char *batch_name; /* the first symbolic first dimension */
    const char *batch_of;   /* and whose it is */
};

static const char *text_or_empty(const char *s)
{
    return s ? s : "";
}

/* ---- model ---- */

static bool is_default_domain(const char *domain)
{
    return !domain || !*domain || strcmp(domain, "ai.onnx") == 0;
}

static int read_opset(const Onnx__ModelProto *model, int *ret, struct err *err)
{
    int64_t opset = -1;
    for (size_t i = 0; i < model->n_opset_import; i++)
        if (is_default_domain(model->opset_import[i]->domain))
            opset = model->opset_import[i]->has_version ? model->opset_import[i]->version : 1;
    if (opset < 0 && model->n_opset_import > 0)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "the model uses no opset of the default domain, only of '%.64s'",
                       model->opset_import[0]->domain);
    if (opset < 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the model names no opset: damaged, or no ONNX model");
    if (opset < ONNX_OPSET_MIN || opset > ONNX_OPSET_MAX)
        return err_set(err, ERR_UNIMPLEMENTED, "opset %" PRId64 " (%d to %d are known)", opset,
                       ONNX_OPSET_MIN, ONNX_OPSET_MAX);
    *ret = (int)opset;
    return 0;
}

static int check_model(const Onnx__ModelProto *model, const struct onnx_limits *limits,
                       struct err *err)
{
    if (!model->graph)
        return err_set(err, ERR_INVALID_ARGUMENT, "no graph: damaged, or no ONNX model");
    if (model->n_functions > 0)
        return err_set(err, ERR_UNIMPLEMENTED, "the model defines functions ('%.128s')",
                       text_or_empty(model->functions[0]->name));
    if (model->graph->n_sparse_initializer > 0)
        return err_set(err, ERR_UNIMPLEMENTED, "the model has sparse initializers");
    if (model->graph->n_node > (size_t)limits->max_nodes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%zu nodes; the limit is %d",
                       model->graph->n_node, limits->max_nodes);
    if (model->graph->n_output == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "the graph has no outputs");
    return 0;
}

/* ---- inputs ---- */

static const char *type_name(const Onnx__TypeProto *type)
{
    switch (type->value_case) {
    case ONNX__TYPE_PROTO__VALUE_SEQUENCE_TYPE:
        return "a sequence";
    case ONNX__TYPE_PROTO__VALUE_MAP_TYPE:
        return "a map";
    case ONNX__TYPE_PROTO__VALUE_OPTIONAL_TYPE:
        return "an optional";
    case ONNX__TYPE_PROTO__VALUE_SPARSE_TENSOR_TYPE:
        return "a sparse tensor";
    default:
        return "of no type";
    }
}

static int read_tensor_type(const Onnx__ValueInfoProto *info, const Onnx__TypeProto__Tensor **ret,
                            enum dtype *ret_dtype, struct err *err)
{
    if (!info->type || info->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE)
        return err_set(err, ERR_UNIMPLEMENTED, "it is %s, not a tensor",
                       info->type ? type_name(info->type) : "of no type");
    *ret = info->type->tensor_type;
    const char *name;
    int32_t type = (*ret)->has_elem_type ? (*ret)->elem_type : 0;
    *ret_dtype = onnx_dtype(type, &name);
    if (*ret_dtype == DTYPE_NONE)
        return err_set(err, ERR_UNIMPLEMENTED, "elements of ONNX type %d (%s)", type, name);
    return 0;
}

/* The first dimension is the batch where it has no number; two inputs with different symbols there
 * do not share a batch. */
static int read_batch(struct reader *r, const char *input, const char *symbol, struct err *err)
{
    if (*symbol && r->batch_name && strcmp(symbol, r->batch_name) != 0)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "its first dimension is '%.64s', but '%.64s' in input '%.128s': one batch "
                       "dimension is possible",
                       symbol, r->batch_name, r->batch_of);
    if (*symbol && !r->batch_name) {
        r->batch_name = symbol;
        r->batch_of = input;
    }
    return 0;
}

static int read_dim(struct reader *r, const char *input, const Onnx__TensorShapeProto__Dimension *d,
                    int i, int64_t *ret, struct err *err)
{
    bool number = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    bool symbol = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
    if (number && d->dim_value >= 0) {
        *ret = d->dim_value;
        return 0;
    }
    if (number && d->dim_value < -1)
        return err_set(err, ERR_INVALID_ARGUMENT, "dimension %d is %" PRId64, i, d->dim_value);
    const char *name = symbol ? text_or_empty(d->dim_param) : "";
    if (i > 0)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "dimension %d is symbolic%s%.64s%s: only the first one, the batch, may be; "
                       "export the model with fixed sizes",
                       i, *name ? " ('" : "", name, *name ? "')" : "");
    *ret = DIM_BATCH;
    return read_batch(r, input, name, err);
}

static int read_shape(struct reader *r, const char *input, const Onnx__TensorShapeProto *proto,
                      struct shape *ret, struct err *err)
{
    if (!proto)
        return err_set(err, ERR_UNIMPLEMENTED, "it has no declared shape");
    if (proto->n_dim > SHAPE_MAX_RANK)
        return err_set(err, ERR_UNIMPLEMENTED, "%zu dimensions (at most %d)", proto->n_dim,
                       SHAPE_MAX_RANK);
    ret->rank = (int)proto->n_dim;
    int rc = 0;
    for (int i = 0; i < ret->rank && rc == 0; i++)
        rc = read_dim(r, input, proto->dim[i], i, &ret->dim[i], err);
    return rc < 0 ? rc : shape_check(ret, err);
}

static int check_new_name(const struct reader *r, const char *name, struct err *err)
{
    if (!*name)
        return err_set(err, ERR_INVALID_ARGUMENT, "it has no name");
    if (graph_find_value(r->g, name) >= 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "the name '%.128s' is used twice", name);
    return 0;
}

static int read_input(struct reader *r, const Onnx__ValueInfoProto *info, struct err *err)
{
    const char *name = text_or_empty(info->name);
    const Onnx__TypeProto__Tensor *type = NULL;
    enum dtype dtype = DTYPE_NONE;
    struct shape shape = {0};
    /* Up to IR version 3 every initializer is listed as an input, too. */
    int known = graph_find_value(r->g, name);
    if (*name && known >= 0 && r->g->values[known]->constant)
        return 0;
    int rc = check_new_name(r, name, err);
    if (rc == 0)
        rc = read_tensor_type(info, &type, &dtype, err);
    if (rc < 0)
        return rc;
    rc = read_shape(r, name, type->shape, &shape, err);
    bool unknown = rc == -ERR_UNIMPLEMENTED && r->limits->keep_constant_nodes;
    if (rc < 0 && !unknown)
        return rc;
    rc = graph_add_input(r->g, name, dtype, unknown ? NULL : &shape, err);
    return rc < 0 ? rc : 0;
}

static int read_inputs(struct reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_input; i++) {
        int rc = read_input(r, r->proto->input[i], err);
        if (rc < 0) {
            err_wrap(err, "input '%.128s'", text_or_empty(r->proto->input[i]->name));
            return rc;
        }
    }
    return 0;
}

static int read_initializer(struct reader *r, const Onnx__TensorProto *proto, struct err *err)
{
    const char *name = text_or_empty(proto->name);
    struct tensor *tensor = NULL;
    int rc = check_new_name(r, name, err);
    if (rc == 0)
        rc = onnx_tensor(proto, r->folder, r->limits, r->g->arena, &tensor, err);
    if (rc < 0)
        return rc;
    int index = graph_add_value(r->g, name, name, err);
    if (index < 0)
        return index;
    struct value *value = r->g->values[index];
    value->dtype = tensor->dtype;
    value->shape = tensor->shape;
    value->shape_known = true;
    value->constant = tensor;
    return 0;
}

static int read_initializers(struct reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_initializer; i++) {
        int rc = read_initializer(r, r->proto->initializer[i], err);
        if (rc < 0) {
            err_wrap(err, "initializer '%.128s'", text_or_empty(r->proto->initializer[i]->name));
            return rc;
        }
    }
    return 0;
}

/* ---- nodes ---- */

/* "node 'conv1' (Conv)" or "node 17 (Conv)" */
static int wrap_node(int rc, struct err *err, const Onnx__NodeProto *node, size_t index)
{
    const char *op = text_or_empty(node->op_type);
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

static int read_op(const struct reader *r, const Onnx__NodeProto *node, struct err *err)
{
    const char *op = text_or_empty(node->op_type);
    if (!is_default_domain(node->domain))
        return err_set(err, ERR_UNIMPLEMENTED,
                       "operator '%.64s' of the domain '%.64s' is not supported (opset %d)", op,
                       node->domain, r->g->opset);
    int parsed = op_parse(op);
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
    if (type != 0 || !op_attr_kind(op, text_or_empty(p->name), ret))
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

static int read_attr(struct reader *r, struct node *node, const Onnx__AttributeProto *p,
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
static int read_node(struct reader *r, const Onnx__NodeProto *p, struct err *err)
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
        int rc = check_new_name(r, p->output[i], err);
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
            err_wrap(err, "attribute '%.64s'", text_or_empty(p->attribute[i]->name));
            return rc;
        }
    }
    return 0;
}

static int connect(struct reader *r, const Onnx__NodeProto *p, struct node *node, struct err *err)
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

static int read_nodes(struct reader *r, struct err *err)
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

/* ---- outputs ---- */

static int read_output(struct reader *r, const Onnx__ValueInfoProto *info, struct err *err)
{
    const char *name = text_or_empty(info->name);
    int value = *name ? graph_find_value(r->g, name) : -1;
    if (value < 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "it is produced by no node");
    for (int i = 0; i < r->g->n_outputs; i++)
        if (r->g->outputs[i] == value)
            return err_set(err, ERR_INVALID_ARGUMENT, "it is listed twice");
    if (info->type && info->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE &&
        info->type->value_case != ONNX__TYPE_PROTO__VALUE__NOT_SET)
        return err_set(err, ERR_UNIMPLEMENTED, "it is %s, not a tensor", type_name(info->type));
    int rc = graph_add_output(r->g, value, err);
    return rc < 0 ? rc : 0;
}

static int read_outputs(struct reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_output; i++) {
        int rc = read_output(r, r->proto->output[i], err);
        if (rc < 0) {
            err_wrap(err, "output '%.128s'", text_or_empty(r->proto->output[i]->name));
            return rc;
        }
    }
    return 0;
}

/* Whether a declared dimension leaves room for the one that was computed. A file whose batch was
 * opened by hand often still says 1 at its outputs. */
static bool dim_agrees(const Onnx__TensorShapeProto__Dimension *d, int64_t dim)
{
    if (d->value_case != ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE || d->dim_value < 0)
        return true;
    return d->dim_value == dim || (dim == DIM_BATCH && d->dim_value == 1);
}

/* The declared type and shape of an output against what was inferred; taken over where nothing
 * could be inferred. */
static int check_output(const struct reader *r, const Onnx__ValueInfoProto *info,
                        struct value *value, struct err *err)
{
    const Onnx__TypeProto__Tensor *type = NULL;
    enum dtype dtype = DTYPE_NONE;
    if (!info->type || info->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ||
        !info->type->tensor_type->has_elem_type || info->type->tensor_type->elem_type == 0)
        return 0;
    int rc = read_tensor_type(info, &type, &dtype, err);
    if (rc < 0)
        return rc;
    if (value->dtype == DTYPE_NONE)
        value->dtype = dtype;
    if (value->dtype != dtype)
        return err_set(err, ERR_INVALID_ARGUMENT, "declared as %s, but the network yields %s",
                       dtype_name(dtype), dtype_name(value->dtype));
    const Onnx__TensorShapeProto *shape = type->shape;
    if (!shape || !value->shape_known || r->limits->keep_constant_nodes)
        return 0;
    bool agrees = shape->n_dim == (size_t)value->shape.rank;
    for (int i = 0; i < value->shape.rank && agrees; i++)
        agrees = dim_agrees(shape->dim[i], value->shape.dim[i]);
    char text[128];
    if (!agrees)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the declared shape contradicts %s, which the network yields",
                       shape_text(&value->shape, text));
    return 0;
}

static int check_outputs(const struct reader *r, struct err *err)
{
    for (int i = 0; i < r->g->n_outputs; i++) {
        struct value *value = r->g->values[r->g->outputs[i]];
        int rc = check_output(r, r->proto->output[i], value, err);
        if (rc < 0 && value->producer >= 0)
            node_wrap(rc, err, r->g->nodes[value->producer]);
        if (rc < 0) {
            err_wrap(err, "output '%.128s'", value->name);
            return rc;
        }
    }
    return 0;
}

/* ---- metadata ---- */

/* Names of nodes, one a line, that compute in bf16. */
static void read_hints(struct graph *g, const char *text)
{
    for (int i = 0; i < g->n_nodes; i++) {
        size_t n = strlen(g->nodes[i]->name);
        for (const char *line = text; *line;) {
            size_t length = strcspn(line, "\n");
            if (length == n && strncmp(line, g->nodes[i]->name, n) == 0)
                g->nodes[i]->hint = PRECISION_BF16;
            line += length;
            line += *line == '\n';
        }
    }
}

static int read_metadata(struct reader *r, struct err *err)
{
    for (size_t i = 0; i < r->model->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *entry = r->model->metadata_props[i];
        const char *key = text_or_empty(entry->key), *value = text_or_empty(entry->value);
        if (strcmp(key, ONNX_META_BF16) == 0) {
            read_hints(r->g, value);
            continue;
        }
        int rc = graph_set_metadata(r->g, key, value, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- */

static int read_graph(struct reader *r, struct err *err)
{
    if (r->proto->name && *r->proto->name) {
        r->g->name = arena_strdup(r->g->arena, r->proto->name);
        if (!r->g->name)
            return err_oom(err, "a name");
    }
    int rc = read_initializers(r, err);
    if (rc == 0)
        rc = read_inputs(r, err);
    if (rc == 0)
        rc = read_nodes(r, err);
    if (rc == 0)
        rc = read_outputs(r, err);
    if (rc == 0)
        rc = read_metadata(r, err);
    if (rc == 0)
        rc = graph_compact(r->g, err);
    if (rc == 0)
        rc = onnx_import(r->g, r->limits, err);
    return rc < 0 ? rc : check_outputs(r, err);
}

int onnx_read_bytes(const void *data, size_t bytes, const char *folder,
                    const struct onnx_limits *limits, struct graph **ret, struct err *err)
{
    _cleanup_(onnx_free) struct onnx_unpacked unpacked = {0};
    _cleanup_(graph_freep) struct graph *g = NULL;
    int opset = 0;
    limits = limits ? limits : &onnx_default_limits;
    int rc = onnx_unpack(data, bytes, &onnx__model_proto__descriptor, limits, &unpacked, err);
    if (rc < 0)
        return rc;
    const Onnx__ModelProto *model = (const Onnx__ModelProto *)unpacked.message;
    rc = check_model(model, limits, err);
    if (rc == 0)
        rc = read_opset(model, &opset, err);
    if (rc < 0)
        return rc;
    g = graph_new(opset, err);
    if (!g)
        return -ERR_RESOURCE_EXHAUSTED;
    struct reader r = {
        .model = model, .proto = model->graph, .folder = folder, .limits = limits, .g = g};
    rc = read_graph(&r, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

int onnx_read_file(const char *path, const struct onnx_limits *limits, struct graph **ret,
                   struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    limits = limits ? limits : &onnx_default_limits;
    int rc = fs_read(path, limits->max_file_bytes, &data, &bytes, err);
    if (rc < 0)
        return rc;
    const char *slash = strrchr(path, '/');
    _cleanup_(freep) char *folder =
        slash ? str_printf("%.*s", (int)(slash - path + 1), path) : str_printf(".");
    if (!folder)
        return err_oom(err, "a path");
    rc = onnx_read_bytes(data, bytes, folder, limits, ret, err);
    if (rc < 0)
        err_wrap(err, "%s", path);
    return rc;
}
