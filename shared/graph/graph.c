#include "shared/graph/graph.h"

#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/graph_priv.h"

/* ---- names ---- */

/* FNV-1a. The seed keeps files from being made whose names all collide; nothing depends on it. */
static uint32_t name_hash(uint32_t seed, const char *name)
{
    uint32_t h = 2166136261u ^ seed;
    for (const char *p = name; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    return h;
}

static struct name_slot *name_slot(const struct name_table *table, const char *name)
{
    uint32_t mask = (uint32_t)table->capacity - 1;
    uint32_t h = name_hash(table->seed, name), i = (h ^ h >> 15) & mask;
    while (table->slots[i].name && strcmp(table->slots[i].name, name) != 0)
        i = (i + 1) & mask;
    return &table->slots[i];
}

int name_table_get(const struct name_table *table, const char *name)
{
    if (table->capacity == 0)
        return -1;
    const struct name_slot *slot = name_slot(table, name);
    return slot->name ? slot->index : -1;
}

int name_table_put(struct arena *arena, struct name_table *table, const char *name, int index,
                   struct err *err)
{
    if (table->n >= table->capacity / 2) {
        struct name_table bigger = {.n = table->n,
                                    .capacity = table->capacity ? table->capacity * 2 : 64,
                                    .seed = (uint32_t)((uintptr_t)table >> 6)};
        bigger.slots = arena_alloc(arena, (size_t)bigger.capacity, sizeof(*bigger.slots));
        if (!bigger.slots)
            return err_oom(err, "names of a graph");
        for (int i = 0; i < table->capacity; i++)
            if (table->slots[i].name)
                *name_slot(&bigger, table->slots[i].name) = table->slots[i];
        *table = bigger;
    }
    *name_slot(table, name) = (struct name_slot){.name = name, .index = index};
    table->n++;
    return 0;
}

void name_table_move(struct name_table *table, const char *name, int index)
{
    struct name_slot *slot = name_slot(table, name);
    if (slot->name)
        slot->index = index;
}

/* A copy of `name` (or of `otherwise` where it is NULL or empty) that the table lacks; puts it. */
static const char *name_claim(struct graph *g, struct name_table *table, const char *name,
                              const char *otherwise, int index, struct err *err)
{
    const char *wanted = name && *name ? name : otherwise;
    char *unique = arena_strdup(g->arena, wanted);
    while (unique && name_table_get(table, unique) >= 0)
        unique = arena_printf(g->arena, "%s_%d", wanted, ++g->next_suffix);
    if (!unique) {
        err_oom(err, "a name");
        return NULL;
    }
    return name_table_put(g->arena, table, unique, index, err) < 0 ? NULL : unique;
}

/* ---- life ---- */

struct graph *graph_new(int opset, struct err *err)
{
    struct graph *g = calloc(1, sizeof(*g));
    if (!g) {
        err_oom(err, "a graph");
        return NULL;
    }
    g->arena = arena_new();
    if (g->arena) {
        g->value_names = arena_alloc(g->arena, 1, sizeof(*g->value_names));
        g->node_names = arena_alloc(g->arena, 1, sizeof(*g->node_names));
        g->name = arena_strdup(g->arena, "graph");
    }
    g->opset = opset;
    if (!g->arena || !g->value_names || !g->node_names || !g->name) {
        err_oom(err, "a graph");
        return graph_free(g);
    }
    return g;
}

struct graph *graph_free(struct graph *graph)
{
    if (!graph)
        return NULL;
    arena_free(graph->arena);
    free(graph);
    return NULL;
}

void graph_freep(struct graph **graph)
{
    *graph = graph_free(*graph);
}

/* ---- building ---- */

int graph_grow(struct arena *arena, void *items, int n, int *cap, size_t size, struct err *err)
{
    if (n < *cap)
        return 0;
    void **array = items;
    int bigger = *cap ? *cap * 2 : 16;
    char *moved = *cap > INT_MAX / 2 ? NULL : arena_alloc(arena, (size_t)bigger, size);
    if (!moved)
        return err_oom(err, "a graph");
    if (n > 0)
        memcpy(moved, *array, (size_t)n * size);
    *array = moved;
    *cap = bigger;
    return 0;
}

int graph_add_value(struct graph *g, const char *name, const char *otherwise, struct err *err)
{
    int rc = graph_grow(g->arena, &g->values, g->n_values, &g->cap_values, sizeof(*g->values), err);
    if (rc < 0)
        return rc;
    struct value *value = arena_alloc(g->arena, 1, sizeof(*value));
    if (!value)
        return err_oom(err, "a value");
    value->producer = -1;
    value->name = name_claim(g, g->value_names, name, otherwise, g->n_values, err);
    if (!value->name)
        return -ERR_RESOURCE_EXHAUSTED;
    g->values[g->n_values] = value;
    return g->n_values++;
}

int graph_add_input(struct graph *g, const char *name, enum dtype dtype, const struct shape *shape,
                    struct err *err)
{
    int rc = shape ? shape_check(shape, err) : 0;
    if (rc == 0)
        rc = graph_grow(g->arena, &g->inputs, g->n_inputs, &g->cap_inputs, sizeof(*g->inputs), err);
    int index = rc < 0 ? rc : graph_add_value(g, name, "input", err);
    if (index < 0)
        return index;
    struct value *value = g->values[index];
    value->dtype = dtype;
    if (shape) {
        value->shape = *shape;
        value->shape_known = true;
    }
    g->inputs[g->n_inputs++] = index;
    return index;
}

int graph_add_constant(struct graph *g, const char *name, enum dtype dtype,
                       const struct shape *shape, const void *data, struct err *err)
{
    int rc = shape_check(shape, err);
    if (rc < 0)
        return rc;
    if (shape_has_batch(shape))
        return err_set(err, ERR_INVALID_ARGUMENT, "constant '%s' has no fixed shape",
                       name ? name : "");
    struct tensor *tensor = tensor_in_arena(g->arena, dtype, shape, err);
    if (!tensor)
        return -ERR_RESOURCE_EXHAUSTED;
    if (data && tensor_bytes(tensor) > 0)
        memcpy(tensor->data, data, tensor_bytes(tensor));
    int index = graph_add_value(g, name, "constant", err);
    if (index < 0)
        return index;
    struct value *value = g->values[index];
    value->dtype = dtype;
    value->shape = *shape;
    value->shape_known = true;
    value->constant = tensor;
    return index;
}

/* Opens a gap in the node list and renumbers the producers behind it. */
static int make_room(struct graph *g, int before, struct err *err)
{
    int rc = graph_grow(g->arena, &g->nodes, g->n_nodes, &g->cap_nodes, sizeof(*g->nodes), err);
    if (rc < 0)
        return rc;
    if (before < 0 || before >= g->n_nodes)
        return g->n_nodes;
    memmove(g->nodes + before + 1, g->nodes + before,
            (size_t)(g->n_nodes - before) * sizeof(*g->nodes));
    for (int v = 0; v < g->n_values; v++)
        if (g->values[v]->producer >= before)
            g->values[v]->producer++;
    return before;
}

static const char *node_claim_name(struct graph *g, enum op op, const char *name, struct err *err)
{
    char otherwise[64];
    snprintf(otherwise, sizeof(otherwise), "%s_%d", op_name(op), g->n_nodes);
    return name_claim(g, g->node_names, name, otherwise, g->n_nodes, err);
}

int graph_add_node(struct graph *g, int before, enum op op, const char *name, int n_inputs,
                   const int *inputs, int n_outputs, const char *const *output_names,
                   struct err *err)
{
    struct node *node = arena_alloc(g->arena, 1, sizeof(*node));
    if (!node)
        return err_oom(err, "a node");
    node->op = op;
    node->since = g->opset;
    node->name = node_claim_name(g, op, name, err);
    node->outputs = arena_alloc(g->arena, (size_t)n_outputs, sizeof(*node->outputs));
    if (!node->name || !node->outputs)
        return err_oom(err, "a node");
    int rc = graph_set_inputs(g, node, n_inputs, inputs, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < n_outputs; i++) {
        char otherwise[256];
        snprintf(otherwise, sizeof(otherwise), i == 0 ? "%.200s_out" : "%.200s_out%d", node->name,
                 i);
        const char *wanted = output_names ? output_names[i] : NULL;
        node->outputs[i] = graph_add_value(g, wanted, otherwise, err);
        if (node->outputs[i] < 0)
            return node->outputs[i];
    }
    node->n_outputs = n_outputs;
    int index = make_room(g, before, err);
    if (index < 0)
        return index;
    g->nodes[index] = node;
    g->n_nodes++;
    for (int i = 0; i < n_outputs; i++)
        g->values[node->outputs[i]]->producer = index;
    return index;
}

int graph_set_inputs(struct graph *g, struct node *node, int n_inputs, const int *inputs,
                     struct err *err)
{
    for (int i = 0; i < n_inputs; i++)
        if (inputs[i] >= g->n_values || inputs[i] < -1)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "input %d is no value", i);
    int *copy = arena_alloc(g->arena, (size_t)n_inputs, sizeof(*copy));
    if (!copy)
        return err_oom(err, "a node");
    if (n_inputs > 0)
        memcpy(copy, inputs, (size_t)n_inputs * sizeof(*copy));
    node->inputs = copy;
    node->n_inputs = n_inputs;
    return 0;
}

int graph_add_output(struct graph *g, int value, struct err *err)
{
    if (value < 0 || value >= g->n_values)
        return err_set(err, ERR_INVALID_ARGUMENT, "output %d of the network is no value", value);
    int rc =
        graph_grow(g->arena, &g->outputs, g->n_outputs, &g->cap_outputs, sizeof(*g->outputs), err);
    if (rc < 0)
        return rc;
    g->outputs[g->n_outputs] = value;
    return g->n_outputs++;
}

int graph_set_metadata(struct graph *g, const char *key, const char *text, struct err *err)
{
    char *copy = arena_strdup(g->arena, text);
    if (!copy)
        return err_oom(err, "metadata");
    for (int i = 0; i < g->n_metadata; i++) {
        if (strcmp(g->metadata[i].key, key) == 0) {
            g->metadata[i].text = copy;
            return 0;
        }
    }
    int rc = graph_grow(g->arena, &g->metadata, g->n_metadata, &g->cap_metadata,
                        sizeof(*g->metadata), err);
    if (rc < 0)
        return rc;
    const char *key_copy = arena_strdup(g->arena, key);
    if (!key_copy)
        return err_oom(err, "metadata");
    g->metadata[g->n_metadata++] = (struct metadata){.key = key_copy, .text = copy};
    return 0;
}

void graph_remove_metadata(struct graph *g, const char *key)
{
    int n = 0;
    for (int i = 0; i < g->n_metadata; i++)
        if (strcmp(g->metadata[i].key, key) != 0)
            g->metadata[n++] = g->metadata[i];
    g->n_metadata = n;
}

/* ---- attributes ---- */

/* The attribute of that name, cleared; made when absent. */
static struct attr *attr_claim(struct graph *g, struct node *node, const char *name,
                               enum attr_kind kind, struct err *err)
{
    struct attr *attr = NULL;
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0)
            attr = &node->attrs[i];
    if (!attr) {
        struct attr *attrs = arena_alloc(g->arena, (size_t)node->n_attrs + 1, sizeof(*attrs));
        if (attrs && node->n_attrs > 0)
            memcpy(attrs, node->attrs, (size_t)node->n_attrs * sizeof(*attrs));
        if (attrs) {
            node->attrs = attrs;
            attr = &attrs[node->n_attrs];
        }
    }
    char *copy = attr ? arena_strdup(g->arena, name) : NULL;
    if (!copy) {
        err_oom(err, "an attribute");
        return NULL;
    }
    if (attr == &node->attrs[node->n_attrs])
        node->n_attrs++;
    *attr = (struct attr){.name = copy, .kind = kind};
    return attr;
}

int graph_set_attr_int(struct graph *g, struct node *node, const char *name, int64_t i,
                       struct err *err)
{
    struct attr *attr = attr_claim(g, node, name, ATTR_INT, err);
    if (!attr)
        return -ERR_RESOURCE_EXHAUSTED;
    attr->i = i;
    return 0;
}

int graph_set_attr_float(struct graph *g, struct node *node, const char *name, float f,
                         struct err *err)
{
    struct attr *attr = attr_claim(g, node, name, ATTR_FLOAT, err);
    if (!attr)
        return -ERR_RESOURCE_EXHAUSTED;
    attr->f = f;
    return 0;
}

int graph_set_attr_string(struct graph *g, struct node *node, const char *name, const char *s,
                          struct err *err)
{
    char *copy = arena_strdup(g->arena, s);
    struct attr *attr = copy ? attr_claim(g, node, name, ATTR_STRING, err) : NULL;
    if (!attr)
        return err_oom(err, "an attribute");
    attr->s = copy;
    return 0;
}

int graph_set_attr_ints(struct graph *g, struct node *node, const char *name, int n,
                        const int64_t *ints, struct err *err)
{
    int64_t *copy = arena_memdup(g->arena, ints, (size_t)n * sizeof(*ints));
    struct attr *attr = copy ? attr_claim(g, node, name, ATTR_INTS, err) : NULL;
    if (!attr)
        return err_oom(err, "an attribute");
    attr->n = n;
    attr->ints = copy;
    return 0;
}

int graph_set_attr_floats(struct graph *g, struct node *node, const char *name, int n,
                          const float *floats, struct err *err)
{
    float *copy = arena_memdup(g->arena, floats, (size_t)n * sizeof(*floats));
    struct attr *attr = copy ? attr_claim(g, node, name, ATTR_FLOATS, err) : NULL;
    if (!attr)
        return err_oom(err, "an attribute");
    attr->n = n;
    attr->floats = copy;
    return 0;
}

int graph_set_attr_tensor(struct graph *g, struct node *node, const char *name,
                          const struct tensor *tensor, struct err *err)
{
    struct tensor *copy = graph_copy_tensor(g, tensor, err);
    struct attr *attr = copy ? attr_claim(g, node, name, ATTR_TENSOR, err) : NULL;
    if (!attr)
        return -ERR_RESOURCE_EXHAUSTED;
    attr->tensor = copy;
    return 0;
}

void graph_remove_attr(struct node *node, const char *name)
{
    int kept = 0;
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) != 0)
            node->attrs[kept++] = node->attrs[i];
    node->n_attrs = kept;
}

/* ---- reading ---- */

static const char *const op_names[OP_COUNT] = {
#define X(id, name) [OP_##id] = name,
    GRAPH_OPS(X)
#undef X
};

const char *op_name(enum op op)
{
    return (unsigned)op < OP_COUNT ? op_names[op] : "?";
}

int op_parse(const char *name)
{
    for (int op = 0; op < OP_COUNT; op++)
        if (strcmp(op_names[op], name) == 0)
            return op;
    return -1;
}

static const char *const precision_names[] = {"auto", "fp32", "bf16", "int8"};

const char *precision_name(enum precision precision)
{
    return (unsigned)precision <= PRECISION_INT8 ? precision_names[precision] : "?";
}

int precision_parse(const char *text, enum precision *ret, struct err *err)
{
    for (int i = 0; i <= PRECISION_INT8; i++) {
        if (strcmp(precision_names[i], text) == 0) {
            *ret = (enum precision)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "'%s' is no precision: give one of auto, fp32, bf16, int8", text);
}

const struct attr *node_attr(const struct node *node, const char *name)
{
    for (int i = 0; i < node->n_attrs; i++)
        if (strcmp(node->attrs[i].name, name) == 0)
            return &node->attrs[i];
    return NULL;
}

int64_t node_int(const struct node *node, const char *name, int64_t otherwise)
{
    const struct attr *attr = node_attr(node, name);
    return attr && attr->kind == ATTR_INT ? attr->i : otherwise;
}

float node_float(const struct node *node, const char *name, float otherwise)
{
    const struct attr *attr = node_attr(node, name);
    return attr && attr->kind == ATTR_FLOAT ? attr->f : otherwise;
}

const char *node_string(const struct node *node, const char *name, const char *otherwise)
{
    const struct attr *attr = node_attr(node, name);
    return attr && attr->kind == ATTR_STRING ? attr->s : otherwise;
}

int node_ints(const struct node *node, const char *name, int max, int64_t *ret)
{
    const struct attr *attr = node_attr(node, name);
    if (!attr || attr->kind != ATTR_INTS)
        return 0;
    for (int i = 0; i < attr->n && i < max; i++)
        ret[i] = attr->ints[i];
    return attr->n;
}

const char *graph_metadata(const struct graph *g, const char *key)
{
    for (int i = 0; i < g->n_metadata; i++)
        if (strcmp(g->metadata[i].key, key) == 0)
            return g->metadata[i].text;
    return NULL;
}

struct value *graph_input_of(const struct graph *g, const struct node *node, int i)
{
    return i < 0 || i >= node->n_inputs || node->inputs[i] < 0 ? NULL : g->values[node->inputs[i]];
}

struct value *graph_output_of(const struct graph *g, const struct node *node, int i)
{
    return i < 0 || i >= node->n_outputs || node->outputs[i] < 0 ? NULL
                                                                 : g->values[node->outputs[i]];
}

const struct tensor *graph_constant_of(const struct graph *g, const struct node *node, int i)
{
    const struct value *value = graph_input_of(g, node, i);
    return value ? value->constant : NULL;
}

int graph_logits(const struct graph *g)
{
    const int v = g->outputs[0], at = g->values[v]->producer;
    return at >= 0 && g->nodes[at]->op == OP_SOFTMAX ? g->nodes[at]->inputs[0] : v;
}

int graph_find_value(const struct graph *g, const char *name)
{
    const int value = name_table_get(g->value_names, name);
    /* names that were given up stay taken */
    return value >= 0 && strcmp(g->values[value]->name, name) == 0 ? value : -1;
}

int node_err(struct err *err, enum err_code code, const struct node *node, const char *fmt, ...)
{
    char text[ERR_MESSAGE_MAX - 256];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    return err_set(err, code, "node '%.128s' (%s): %s", node->name, op_name(node->op), text);
}

int node_wrap(int rc, struct err *err, const struct node *node)
{
    err_wrap(err, "node '%.128s' (%s)", node->name, op_name(node->op));
    return rc;
}
