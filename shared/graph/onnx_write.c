/* Graph to ModelProto. The messages are built in an arena and point into the graph; only packing
 * copies. Everything is written in the graph's own order, so that equal graphs give equal bytes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx_priv.h"

/* protobuf's own limit: readers refuse larger messages. */
#define MODEL_MAX_BYTES ((size_t)INT32_MAX)

struct writer {
    const struct graph *g;
    struct arena *arena;
    bool failed; /* out of memory: checked once, at the end */
};

/* Zeroed memory, or NULL, noted in `failed`. */
static void *take(struct writer *w, size_t n, size_t size)
{
    void *p = w->failed ? NULL : arena_alloc(w->arena, n, size);
    w->failed = w->failed || !p;
    return p;
}

#define NEW(w, type, init)                                                                         \
    ({                                                                                             \
        type *_m = take((w), 1, sizeof(type));                                                     \
        if (_m)                                                                                    \
            init(_m);                                                                              \
        _m;                                                                                        \
    })

/* protobuf-c's structs want char *; they are only read. */
static char *text(const char *s)
{
    return (char *)(uintptr_t)s;
}

/* ---- types ---- */

static Onnx__TensorShapeProto__Dimension *make_dim(struct writer *w, int64_t dim)
{
    Onnx__TensorShapeProto__Dimension *d =
        NEW(w, Onnx__TensorShapeProto__Dimension, onnx__tensor_shape_proto__dimension__init);
    if (!d)
        return NULL;
    if (dim == DIM_BATCH) {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
        d->dim_param = text("N");
    } else {
        d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
        d->dim_value = dim;
    }
    return d;
}

static Onnx__TensorShapeProto *make_shape(struct writer *w, const struct shape *shape)
{
    Onnx__TensorShapeProto *p = NEW(w, Onnx__TensorShapeProto, onnx__tensor_shape_proto__init);
    if (!p)
        return NULL;
    p->dim = take(w, (size_t)shape->rank, sizeof(*p->dim));
    for (int i = 0; p->dim && i < shape->rank; i++)
        p->dim[i] = make_dim(w, shape->dim[i]);
    p->n_dim = (size_t)shape->rank;
    return p;
}

static Onnx__ValueInfoProto *make_value_info(struct writer *w, const struct value *value)
{
    Onnx__ValueInfoProto *info = NEW(w, Onnx__ValueInfoProto, onnx__value_info_proto__init);
    Onnx__TypeProto *type = NEW(w, Onnx__TypeProto, onnx__type_proto__init);
    Onnx__TypeProto__Tensor *tensor =
        NEW(w, Onnx__TypeProto__Tensor, onnx__type_proto__tensor__init);
    if (!info || !type || !tensor)
        return NULL;
    info->name = text(value->name);
    info->type = type;
    type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    type->tensor_type = tensor;
    tensor->has_elem_type = 1;
    tensor->elem_type = (int32_t)value->dtype;
    if (value->shape_known)
        tensor->shape = make_shape(w, &value->shape);
    return info;
}

static Onnx__TensorProto *make_tensor(struct writer *w, const char *name, const struct tensor *t)
{
    Onnx__TensorProto *p = NEW(w, Onnx__TensorProto, onnx__tensor_proto__init);
    if (!p)
        return NULL;
    p->dims = take(w, (size_t)t->shape.rank, sizeof(*p->dims));
    for (int i = 0; p->dims && i < t->shape.rank; i++)
        p->dims[i] = t->shape.dim[i];
    p->n_dims = (size_t)t->shape.rank;
    p->has_data_type = 1;
    p->data_type = (int32_t)t->dtype;
    p->name = text(name);
    p->has_raw_data = 1;
    p->raw_data = (ProtobufCBinaryData){.len = tensor_bytes(t), .data = t->data};
    return p;
}

/* ---- nodes ---- */

static void set_attr(struct writer *w, Onnx__AttributeProto *p, const struct attr *a)
{
    switch (a->kind) {
    case ATTR_INT:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
        p->has_i = 1;
        p->i = a->i;
        break;
    case ATTR_FLOAT:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
        p->has_f = 1;
        p->f = a->f;
        break;
    case ATTR_STRING:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
        p->has_s = 1;
        p->s = (ProtobufCBinaryData){.len = strlen(a->s), .data = (uint8_t *)text(a->s)};
        break;
    case ATTR_INTS:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
        p->n_ints = (size_t)a->n;
        p->ints = a->ints;
        break;
    case ATTR_FLOATS:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS;
        p->n_floats = (size_t)a->n;
        p->floats = a->floats;
        break;
    case ATTR_TENSOR:
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
        p->t = make_tensor(w, NULL, a->tensor);
        break;
    }
}

static Onnx__AttributeProto *make_attr(struct writer *w, const struct attr *a)
{
    Onnx__AttributeProto *p = NEW(w, Onnx__AttributeProto, onnx__attribute_proto__init);
    if (!p)
        return NULL;
    p->name = text(a->name);
    p->has_type = 1;
    set_attr(w, p, a);
    return p;
}

static char **make_names(struct writer *w, const int *values, int n)
{
    char **names = take(w, (size_t)n, sizeof(*names));
    for (int i = 0; names && i < n; i++)
        names[i] = text(values[i] < 0 ? "" : w->g->values[values[i]]->name);
    return names;
}

static Onnx__NodeProto *make_node(struct writer *w, const struct node *node)
{
    Onnx__NodeProto *p = NEW(w, Onnx__NodeProto, onnx__node_proto__init);
    if (!p)
        return NULL;
    int n_outputs = node->n_outputs; /* trailing outputs that nobody has are left out */
    while (n_outputs > 1 && node->outputs[n_outputs - 1] < 0)
        n_outputs--;
    p->name = text(node->name);
    p->op_type = text(op_name(node->op));
    p->input = make_names(w, node->inputs, node->n_inputs);
    p->n_input = (size_t)node->n_inputs;
    p->output = make_names(w, node->outputs, n_outputs);
    p->n_output = (size_t)n_outputs;
    p->attribute = take(w, (size_t)node->n_attrs, sizeof(*p->attribute));
    for (int i = 0; p->attribute && i < node->n_attrs; i++)
        p->attribute[i] = make_attr(w, &node->attrs[i]);
    p->n_attribute = (size_t)node->n_attrs;
    return p;
}

/* ---- graph ---- */

static void add_nodes(struct writer *w, Onnx__GraphProto *p)
{
    p->node = take(w, (size_t)w->g->n_nodes, sizeof(*p->node));
    for (int n = 0; p->node && n < w->g->n_nodes; n++)
        if (!w->g->nodes[n]->dead)
            p->node[p->n_node++] = make_node(w, w->g->nodes[n]);
}

static void mark(bool *flags, const int *values, int n)
{
    for (int i = 0; i < n; i++)
        if (values[i] >= 0)
            flags[values[i]] = true;
}

/* Constants that are read become initializers. */
static void add_initializers(struct writer *w, Onnx__GraphProto *p)
{
    const struct graph *g = w->g;
    bool *is_read = take(w, (size_t)g->n_values, sizeof(bool));
    p->initializer = take(w, (size_t)g->n_values, sizeof(*p->initializer));
    if (w->failed)
        return;
    for (int n = 0; n < g->n_nodes; n++)
        if (!g->nodes[n]->dead)
            mark(is_read, g->nodes[n]->inputs, g->nodes[n]->n_inputs);
    mark(is_read, g->outputs, g->n_outputs);
    for (int v = 0; v < g->n_values; v++)
        if (g->values[v]->constant && is_read[v])
            p->initializer[p->n_initializer++] =
                make_tensor(w, g->values[v]->name, g->values[v]->constant);
}

/* Types and shapes of what goes from node to node, in the order of the nodes: value indices do not
 * survive a file. */
static void add_value_infos(struct writer *w, Onnx__GraphProto *p)
{
    const struct graph *g = w->g;
    bool *is_output = take(w, (size_t)g->n_values, sizeof(bool));
    p->value_info = take(w, (size_t)g->n_values, sizeof(*p->value_info));
    if (w->failed)
        return;
    mark(is_output, g->outputs, g->n_outputs);
    for (int n = 0; n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        for (int i = 0; !node->dead && i < node->n_outputs; i++) {
            const struct value *value = graph_output_of(g, node, i);
            if (value && value->shape_known && !is_output[node->outputs[i]])
                p->value_info[p->n_value_info++] = make_value_info(w, value);
        }
    }
}

static Onnx__ValueInfoProto **make_infos(struct writer *w, const int *values, int n)
{
    Onnx__ValueInfoProto **infos = take(w, (size_t)n, sizeof(*infos));
    for (int i = 0; infos && i < n; i++)
        infos[i] = make_value_info(w, w->g->values[values[i]]);
    return infos;
}

static Onnx__GraphProto *make_graph(struct writer *w)
{
    Onnx__GraphProto *p = NEW(w, Onnx__GraphProto, onnx__graph_proto__init);
    if (!p)
        return NULL;
    p->name = text(w->g->name);
    add_nodes(w, p);
    add_initializers(w, p);
    add_value_infos(w, p);
    p->input = make_infos(w, w->g->inputs, w->g->n_inputs);
    p->n_input = (size_t)w->g->n_inputs;
    p->output = make_infos(w, w->g->outputs, w->g->n_outputs);
    p->n_output = (size_t)w->g->n_outputs;
    return p;
}

/* ---- model ---- */

static Onnx__StringStringEntryProto *make_entry(struct writer *w, const char *key,
                                                const char *value)
{
    Onnx__StringStringEntryProto *entry =
        NEW(w, Onnx__StringStringEntryProto, onnx__string_string_entry_proto__init);
    if (!entry)
        return NULL;
    entry->key = text(key);
    entry->value = text(value);
    return entry;
}

static char *bf16_names(struct writer *w)
{
    _cleanup_(strbuf_release) struct strbuf names = {0};
    for (int n = 0; n < w->g->n_nodes; n++)
        if (!w->g->nodes[n]->dead && w->g->nodes[n]->hint == PRECISION_BF16)
            strbuf_printf(&names, "%s%s", names.length ? "\n" : "", w->g->nodes[n]->name);
    w->failed = w->failed || names.failed;
    if (names.length == 0 || w->failed)
        return NULL;
    char *copy = arena_strdup(w->arena, names.data);
    w->failed = !copy;
    return copy;
}

static void add_metadata(struct writer *w, Onnx__ModelProto *p)
{
    p->metadata_props = take(w, (size_t)w->g->n_metadata + 1, sizeof(*p->metadata_props));
    if (!p->metadata_props)
        return;
    for (int i = 0; i < w->g->n_metadata; i++)
        p->metadata_props[p->n_metadata_props++] =
            make_entry(w, w->g->metadata[i].key, w->g->metadata[i].text);
    const char *names = bf16_names(w);
    if (names)
        p->metadata_props[p->n_metadata_props++] = make_entry(w, ONNX_META_BF16, names);
}

/* The IR version that came with the opset: readers of that age accept the file. */
static int64_t ir_version(int opset)
{
    return opset >= 21 ? 10 : opset >= 19 ? 9 : opset >= 15 ? 8 : 7;
}

static Onnx__ModelProto *make_model(struct writer *w)
{
    Onnx__ModelProto *p = NEW(w, Onnx__ModelProto, onnx__model_proto__init);
    Onnx__OperatorSetIdProto *opset =
        NEW(w, Onnx__OperatorSetIdProto, onnx__operator_set_id_proto__init);
    Onnx__OperatorSetIdProto **opsets = take(w, 1, sizeof(*opsets));
    if (!p || !opset || !opsets)
        return NULL;
    p->has_ir_version = 1;
    p->ir_version = ir_version(w->g->opset);
    p->producer_name = text("hone");
    p->producer_version = text(HONE_VERSION);
    p->graph = make_graph(w);
    opset->domain = text("");
    opset->has_version = 1;
    opset->version = w->g->opset;
    opsets[0] = opset;
    p->opset_import = opsets;
    p->n_opset_import = 1;
    add_metadata(w, p);
    return p;
}

/* ---- */

static int pack(const struct graph *g, void **ret_data, size_t *ret_bytes, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    if (!arena)
        return err_oom(err, "writing a model");
    struct writer w = {.g = g, .arena = arena};
    Onnx__ModelProto *model = make_model(&w);
    if (w.failed || !model)
        return err_oom(err, "writing a model");
    size_t bytes = onnx__model_proto__get_packed_size(model);
    if (bytes > MODEL_MAX_BYTES)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "the model would have %zu bytes; an ONNX file can have %zu", bytes,
                       MODEL_MAX_BYTES);
    void *data = malloc(bytes ? bytes : 1);
    if (!data)
        return err_oom(err, "writing a model");
    *ret_bytes = onnx__model_proto__pack(model, data);
    *ret_data = data;
    return 0;
}

/* Opset 13 brought quantization per axis: older graphs are raised to it in a copy. */
static int raise_opset(const struct graph *g, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *copy = NULL;
    int rc = graph_clone(g, &copy, err);
    if (rc == 0)
        rc = onnx_drop_unread_outputs(copy, err);
    for (int n = 0; rc == 0 && n < copy->n_nodes; n++) {
        bool old = !copy->nodes[n]->dead && copy->nodes[n]->since < ONNX_OPSET_BASE;
        int added = old ? onnx_upgrade_node(copy, n, err) : 0;
        if (added < 0)
            return added;
        n += added;
    }
    if (rc < 0)
        return rc;
    copy->opset = ONNX_OPSET_BASE;
    rc = graph_infer(copy, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(copy);
    return 0;
}

int onnx_write_bytes(const struct graph *g, void **ret_data, size_t *ret_bytes, struct err *err)
{
    _cleanup_(graph_freep) struct graph *raised = NULL;
    if (g->opset < ONNX_OPSET_BASE) {
        int rc = raise_opset(g, &raised, err);
        if (rc < 0)
            return rc;
        g = raised;
    }
    for (int n = 0; n < g->n_nodes; n++)
        if (!g->nodes[n]->dead && g->nodes[n]->since != g->opset)
            return node_err(err, ERR_FAILED_PRECONDITION, g->nodes[n],
                            "written by the rules of opset %d in a graph of opset %d",
                            g->nodes[n]->since, g->opset);
    return pack(g, ret_data, ret_bytes, err);
}

int onnx_write_file(const struct graph *g, const char *path, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int rc = onnx_write_bytes(g, &data, &bytes, err);
    if (rc < 0) {
        err_wrap(err, "%s", path);
        return rc;
    }
    return fs_write_atomic(path, data, bytes, err);
}
