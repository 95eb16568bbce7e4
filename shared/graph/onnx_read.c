/* ModelProto to graph: names, types, nodes. What the nodes mean comes after, in onnx_import.c. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/coding/packed.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx_priv.h"

const struct onnx_limits onnx_default_limits = {
    .max_file_bytes = (size_t)2 << 30,
    .max_depth = 32,
    .max_nodes = 20000,
    .max_elements = (int64_t)1 << 28,
};

const char *onnx_text(const char *s)
{
    return s ? s : "";
}

/* ---- model ---- */

bool onnx_default_domain(const char *domain)
{
    return !domain || !*domain || strcmp(domain, "ai.onnx") == 0;
}

static int read_opset(const Onnx__ModelProto *model, int *ret, struct err *err)
{
    int64_t opset = -1;
    for (size_t i = 0; i < model->n_opset_import; i++)
        if (onnx_default_domain(model->opset_import[i]->domain))
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

/* Outputs and metadata are searched one after the other. */
enum { LISTED_MAX = 4096, VALUES_PER_NODE = 16 };

/* A value takes more room in memory than its name in the file. */
static int check_values(const Onnx__GraphProto *graph, const struct onnx_limits *limits,
                        struct err *err)
{
    size_t values = graph->n_initializer + graph->n_input;
    size_t most = LISTED_MAX + (size_t)limits->max_nodes * VALUES_PER_NODE;
    for (size_t i = 0; i < graph->n_node; i++)
        values += graph->node[i]->n_input + graph->node[i]->n_output;
    if (values > most)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "%zu initializers, inputs and outputs of nodes; the limit is %zu", values,
                       most);
    return 0;
}

static int check_model(const Onnx__ModelProto *model, const struct onnx_limits *limits,
                       struct err *err)
{
    if (!model->graph)
        return err_set(err, ERR_INVALID_ARGUMENT, "no graph: damaged, or no ONNX model");
    if (model->n_functions > 0)
        return err_set(err, ERR_UNIMPLEMENTED, "the model defines functions ('%.128s')",
                       onnx_text(model->functions[0]->name));
    if (model->graph->n_sparse_initializer > 0)
        return err_set(err, ERR_UNIMPLEMENTED, "the model has sparse initializers");
    if (model->graph->n_node > (size_t)limits->max_nodes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%zu nodes; the limit is %d",
                       model->graph->n_node, limits->max_nodes);
    if (model->graph->n_output == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "the graph has no outputs");
    if (model->graph->n_output > LISTED_MAX || model->n_metadata_props > LISTED_MAX)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "%zu outputs and %zu entries of metadata; the limit is %d",
                       model->graph->n_output, model->n_metadata_props, LISTED_MAX);
    return check_values(model->graph, limits, err);
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
static int read_batch(struct onnx_reader *r, const char *input, const char *symbol, struct err *err)
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

static int read_dim(struct onnx_reader *r, const char *input,
                    const Onnx__TensorShapeProto__Dimension *d, int i, int64_t *ret,
                    struct err *err)
{
    bool number = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
    bool symbol = d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
    if (number && d->dim_value >= 0) {
        *ret = d->dim_value;
        return 0;
    }
    if (number && d->dim_value < -1)
        return err_set(err, ERR_INVALID_ARGUMENT, "dimension %d is %" PRId64, i, d->dim_value);
    const char *name = symbol ? onnx_text(d->dim_param) : "";
    if (i > 0)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "dimension %d is symbolic%s%.64s%s: only the first one, the batch, may be; "
                       "export the model with fixed sizes",
                       i, *name ? " ('" : "", name, *name ? "')" : "");
    *ret = DIM_BATCH;
    return read_batch(r, input, name, err);
}

static int read_shape(struct onnx_reader *r, const char *input, const Onnx__TensorShapeProto *proto,
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

int onnx_new_name(const struct onnx_reader *r, const char *name, struct err *err)
{
    if (!*name)
        return err_set(err, ERR_INVALID_ARGUMENT, "it has no name");
    if (graph_find_value(r->g, name) >= 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "the name '%.128s' is used twice", name);
    return 0;
}

static int read_input(struct onnx_reader *r, const Onnx__ValueInfoProto *info, struct err *err)
{
    const char *name = onnx_text(info->name);
    const Onnx__TypeProto__Tensor *type = NULL;
    enum dtype dtype = DTYPE_NONE;
    struct shape shape = {0};
    /* Up to IR version 3 every initializer is listed as an input, too. */
    int known = graph_find_value(r->g, name);
    if (*name && known >= 0 && r->g->values[known]->constant)
        return 0;
    int rc = onnx_new_name(r, name, err);
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

static int read_inputs(struct onnx_reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_input; i++) {
        int rc = read_input(r, r->proto->input[i], err);
        if (rc < 0) {
            err_wrap(err, "input '%.128s'", onnx_text(r->proto->input[i]->name));
            return rc;
        }
    }
    return 0;
}

static int read_initializer(struct onnx_reader *r, const Onnx__TensorProto *proto, struct err *err)
{
    const char *name = onnx_text(proto->name);
    struct tensor *tensor = NULL;
    int rc = onnx_new_name(r, name, err);
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

static int read_initializers(struct onnx_reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_initializer; i++) {
        int rc = read_initializer(r, r->proto->initializer[i], err);
        if (rc < 0) {
            err_wrap(err, "initializer '%.128s'", onnx_text(r->proto->initializer[i]->name));
            return rc;
        }
    }
    return 0;
}

/* ---- outputs ---- */

static int read_output(struct onnx_reader *r, const Onnx__ValueInfoProto *info, struct err *err)
{
    const char *name = onnx_text(info->name);
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

static int read_outputs(struct onnx_reader *r, struct err *err)
{
    for (size_t i = 0; i < r->proto->n_output; i++) {
        int rc = read_output(r, r->proto->output[i], err);
        if (rc < 0) {
            err_wrap(err, "output '%.128s'", onnx_text(r->proto->output[i]->name));
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
static int check_output(const struct onnx_reader *r, const Onnx__ValueInfoProto *info,
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

static int check_outputs(const struct onnx_reader *r, struct err *err)
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
static int read_hints(struct graph *g, const char *text, struct err *err)
{
    while (*text) {
        size_t n = strcspn(text, "\n");
        _cleanup_(freep) char *name = str_printf("%.*s", (int)n, text);
        if (!name)
            return err_oom(err, "metadata");
        /* before graph_compact, nodes are where they were added */
        int index = name_table_get(g->node_names, name);
        if (index >= 0 && index < g->n_nodes && strcmp(g->nodes[index]->name, name) == 0)
            g->nodes[index]->hint = PRECISION_BF16;
        text += n;
        text += *text == '\n';
    }
    return 0;
}

static int read_metadata(struct onnx_reader *r, struct err *err)
{
    for (size_t i = 0; i < r->model->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *entry = r->model->metadata_props[i];
        const char *key = onnx_text(entry->key), *value = onnx_text(entry->value);
        int rc = strcmp(key, ONNX_META_BF16) == 0 ? read_hints(r->g, value, err)
                                                  : graph_set_metadata(r->g, key, value, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- */

static int read_graph(struct onnx_reader *r, struct err *err)
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
        rc = onnx_read_nodes(r, err);
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

static int read_model(const void *data, size_t bytes, const char *folder,
                      const struct onnx_limits *limits, struct graph **ret, struct err *err)
{
    _cleanup_(onnx_free) struct onnx_unpacked unpacked = {0};
    _cleanup_(graph_freep) struct graph *g = NULL;
    int opset = 0;
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
    struct onnx_reader r = {
        .model = model, .proto = model->graph, .folder = folder, .limits = limits, .g = g};
    rc = read_graph(&r, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

int onnx_read_bytes(const void *data, size_t bytes, const char *folder,
                    const struct onnx_limits *limits, struct graph **ret, struct err *err)
{
    _cleanup_(freep) void *unpacked = NULL;
    limits = limits ? limits : &onnx_default_limits;
    if (packed_is(data, bytes)) {
        int rc = packed_read(data, bytes, limits->max_file_bytes, &unpacked, &bytes, err);
        if (rc < 0)
            return rc;
        data = unpacked;
    }
    return read_model(data, bytes, folder, limits, ret, err);
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
