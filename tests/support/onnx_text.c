#include "tests/support/onnx_text.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/rng.h"
#include "shared/base/str.h"
#include "shared/graph/eval.h"

enum { LIST_MAX = 4096, NODES_MAX = 256 };

static void *get(struct arena *arena, size_t n, size_t size)
{
    void *p = arena_alloc(arena, n, size);
    assert_non_null(p);
    return p;
}

#define MAKE(arena, type, init)                                                                    \
    ({                                                                                             \
        type *_m = get((arena), 1, sizeof(type));                                                  \
        init(_m);                                                                                  \
        _m;                                                                                        \
    })

/* ---- words ---- */

/* The next word, in the arena: up to a blank, but brackets and quotes hold blanks. NULL at the end.
 */
static char *next_word(struct arena *arena, const char **at)
{
    while (**at == ' ')
        (*at)++;
    if (!**at)
        return NULL;
    const char *begin = *at;
    int depth = 0;
    bool quoted = false;
    for (; **at && (**at != ' ' || depth > 0 || quoted); (*at)++) {
        quoted = **at == '"' ? !quoted : quoted;
        depth += **at == '[' || **at == '{';
        depth -= **at == ']' || **at == '}';
    }
    return arena_printf(arena, "%.*s", (int)(*at - begin), begin);
}

/* Splits at `separator`; "" gives one empty part. */
static int split(struct arena *arena, const char *text, char separator, char **parts, int max)
{
    int n = 0;
    for (;;) {
        const char *end = strchr(text, separator);
        size_t length = end ? (size_t)(end - text) : strlen(text);
        assert_true(n < max);
        parts[n++] = arena_printf(arena, "%.*s", (int)length, text);
        if (!end)
            return n;
        text = end + 1;
    }
}

static int64_t integer(const char *text)
{
    int64_t x = 0;
    if (str_parse_i64(text, INT64_MIN, INT64_MAX, &x, NULL) < 0)
        fail_msg("'%s' is no integer", text);
    return x;
}

static double number(const char *text)
{
    double x = 0;
    if (strcmp(text, "nan") == 0)
        return (double)NAN;
    if (strcmp(text, "inf") == 0)
        return (double)INFINITY;
    if (str_parse_f64(text, &x, NULL) < 0)
        fail_msg("'%s' is no number", text);
    return x;
}

static int dtype_of(const char *text)
{
    static const struct {
        const char *name;
        int dtype;
    } names[] = {{"float", DTYPE_F32},  {"uint8", DTYPE_U8},    {"int8", DTYPE_S8},
                 {"int32", DTYPE_S32},  {"int64", DTYPE_S64},   {"bool", DTYPE_BOOL},
                 {"double", DTYPE_F64}, {"float16", DTYPE_F16}, {"bfloat16", DTYPE_BF16},
                 {"string", 8},         {"int16", DTYPE_S16}};
    for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++)
        if (strcmp(names[i].name, text) == 0)
            return names[i].dtype;
    fail_msg("'%s' is no type", text);
    return 0;
}

/* ---- tensors ---- */

static uint64_t seed_of(const char *name)
{
    uint64_t seed = 7;
    for (; *name; name++)
        seed = seed * 131 + (unsigned char)*name;
    return seed;
}

/* "float 2,3 = 1 2 3 4 5 6", "float 2,3 rand", "float 2,3 positive", "float 2,3" (zeros) */
static Onnx__TensorProto *parse_tensor(struct arena *arena, const char *name, const char *text)
{
    Onnx__TensorProto *p = MAKE(arena, Onnx__TensorProto, onnx__tensor_proto__init);
    enum dtype dtype = (enum dtype)dtype_of(next_word(arena, &text));
    char *dims[SHAPE_MAX_RANK];
    char *list = next_word(arena, &text);
    struct shape shape = {0};
    shape.rank = strcmp(list, "-") == 0 ? 0 : split(arena, list, ',', dims, SHAPE_MAX_RANK);
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = integer(dims[i]);
    struct tensor *t = tensor_in_arena(arena, dtype, &shape, NULL);
    assert_non_null(t);
    const char *how = next_word(arena, &text);
    struct rng rng;
    rng_seed(&rng, seed_of(name));
    for (int64_t i = 0; how && i < shape_elements(&shape); i++) {
        if (strcmp(how, "rand") == 0)
            tensor_set_f64(t, i, rng_normal(&rng));
        else if (strcmp(how, "positive") == 0)
            tensor_set_f64(t, i, 0.5 + rng_f64(&rng));
        else if (strcmp(how, "bytes") == 0)
            tensor_set_f64(t, i, (double)rng_below(&rng, 200) - 100);
        else
            tensor_set_f64(t, i, number(next_word(arena, &text)));
    }
    p->name = arena_strdup(arena, name);
    p->has_data_type = 1;
    p->data_type = (int)dtype;
    p->n_dims = (size_t)shape.rank;
    p->dims = arena_memdup(arena, shape.dim, sizeof(shape.dim));
    p->has_raw_data = 1;
    p->raw_data = (ProtobufCBinaryData){.len = tensor_bytes(t), .data = t->data};
    return p;
}

/* ---- types ---- */

static Onnx__ValueInfoProto *parse_info(struct arena *arena, const char *text)
{
    Onnx__ValueInfoProto *info = MAKE(arena, Onnx__ValueInfoProto, onnx__value_info_proto__init);
    info->name = next_word(arena, &text);
    const char *dtype = next_word(arena, &text), *list = next_word(arena, &text);
    if (!dtype)
        return info;
    info->type = MAKE(arena, Onnx__TypeProto, onnx__type_proto__init);
    info->type->value_case = ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE;
    Onnx__TypeProto__Tensor *type =
        MAKE(arena, Onnx__TypeProto__Tensor, onnx__type_proto__tensor__init);
    info->type->tensor_type = type;
    type->has_elem_type = 1;
    type->elem_type = dtype_of(dtype);
    if (!list)
        return info;
    char *dims[16];
    int n = strcmp(list, "-") == 0 ? 0 : split(arena, list, ',', dims, 16);
    type->shape = MAKE(arena, Onnx__TensorShapeProto, onnx__tensor_shape_proto__init);
    type->shape->n_dim = (size_t)n;
    type->shape->dim = get(arena, (size_t)n, sizeof(*type->shape->dim));
    for (int i = 0; i < n; i++) {
        Onnx__TensorShapeProto__Dimension *d = MAKE(arena, Onnx__TensorShapeProto__Dimension,
                                                    onnx__tensor_shape_proto__dimension__init);
        bool digits = *dims[i] == '-' || (*dims[i] >= '0' && *dims[i] <= '9');
        if (digits) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            d->dim_value = integer(dims[i]);
        } else if (strcmp(dims[i], "?") != 0) {
            d->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_PARAM;
            d->dim_param = dims[i];
        }
        type->shape->dim[i] = d;
    }
    return info;
}

/* ---- nodes ---- */

static void parse_list(struct arena *arena, Onnx__AttributeProto *p, char *text)
{
    char **parts = get(arena, LIST_MAX, sizeof(*parts));
    text[strlen(text) - 1] = 0;
    int n = *text ? split(arena, text, ',', parts, LIST_MAX) : 0;
    bool floats = strchr(text, '.') != NULL;
    p->type = floats ? ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOATS
                     : ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS;
    p->ints = get(arena, (size_t)n, sizeof(*p->ints));
    p->floats = get(arena, (size_t)n, sizeof(*p->floats));
    for (int i = 0; i < n; i++) {
        if (floats)
            p->floats[p->n_floats++] = (float)number(parts[i]);
        else
            p->ints[p->n_ints++] = integer(parts[i]);
    }
}

static Onnx__AttributeProto *parse_attr(struct arena *arena, char *text)
{
    Onnx__AttributeProto *p = MAKE(arena, Onnx__AttributeProto, onnx__attribute_proto__init);
    char *value = strchr(text, '=');
    assert_non_null(value);
    *value++ = 0;
    p->name = text;
    p->has_type = 1;
    if (*value == '[') {
        parse_list(arena, p, value + 1);
    } else if (*value == '{') {
        value[strlen(value) - 1] = 0;
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__TENSOR;
        p->t = parse_tensor(arena, text, value + 1);
    } else if (*value == '"') {
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING;
        p->has_s = 1;
        p->s = (ProtobufCBinaryData){.len = strlen(value) - 2, .data = (uint8_t *)value + 1};
    } else if (strchr(value, '.')) {
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT;
        p->has_f = 1;
        p->f = (float)number(value);
    } else {
        p->type = ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT;
        p->has_i = 1;
        p->i = integer(value);
    }
    return p;
}

static Onnx__NodeProto *parse_node(struct arena *arena, char *op, const char *text)
{
    Onnx__NodeProto *p = MAKE(arena, Onnx__NodeProto, onnx__node_proto__init);
    char *colons = strstr(op, "::");
    if (colons) {
        *colons = 0;
        p->domain = op;
        op = colons + 2;
    }
    p->op_type = op;
    p->name = next_word(arena, &text);
    if (p->name && strcmp(p->name, "_") == 0)
        p->name = NULL;
    p->input = get(arena, LIST_MAX, sizeof(*p->input));
    p->output = get(arena, LIST_MAX, sizeof(*p->output));
    p->attribute = get(arena, 64, sizeof(*p->attribute));
    char *word = next_word(arena, &text);
    if (word && strcmp(word, "->") != 0) {
        p->n_input = (size_t)split(arena, word, ',', p->input, LIST_MAX);
        word = next_word(arena, &text);
    }
    assert_string_equal(word, "->");
    p->n_output = (size_t)split(arena, next_word(arena, &text), ',', p->output, LIST_MAX);
    for (word = next_word(arena, &text); word; word = next_word(arena, &text))
        p->attribute[p->n_attribute++] = parse_attr(arena, word);
    return p;
}

/* ---- models ---- */

static void parse_line(struct arena *arena, Onnx__ModelProto *m, const char *line)
{
    Onnx__GraphProto *g = m->graph;
    char *word = next_word(arena, &line);
    if (!word)
        return;
    if (strcmp(word, "opset") == 0) {
        m->opset_import[0]->version = integer(next_word(arena, &line));
    } else if (strcmp(word, "input") == 0) {
        g->input[g->n_input++] = parse_info(arena, line);
    } else if (strcmp(word, "output") == 0) {
        g->output[g->n_output++] = parse_info(arena, line);
    } else if (strcmp(word, "init") == 0) {
        char *name = next_word(arena, &line);
        g->initializer[g->n_initializer++] = parse_tensor(arena, name, line);
    } else {
        g->node[g->n_node++] = parse_node(arena, word, line);
    }
    assert_true(g->n_node < NODES_MAX && g->n_initializer < NODES_MAX && g->n_input < NODES_MAX);
}

Onnx__ModelProto *onnx_text_model(struct arena *arena, const char *text)
{
    Onnx__ModelProto *m = MAKE(arena, Onnx__ModelProto, onnx__model_proto__init);
    m->graph = MAKE(arena, Onnx__GraphProto, onnx__graph_proto__init);
    m->graph->name = arena_strdup(arena, "test");
    m->has_ir_version = 1;
    m->ir_version = 8;
    m->opset_import = get(arena, 4, sizeof(*m->opset_import));
    m->opset_import[0] = MAKE(arena, Onnx__OperatorSetIdProto, onnx__operator_set_id_proto__init);
    m->opset_import[0]->has_version = 1;
    m->opset_import[0]->version = 13;
    m->n_opset_import = 1;
    Onnx__GraphProto *g = m->graph;
    g->node = get(arena, NODES_MAX, sizeof(*g->node));
    g->initializer = get(arena, NODES_MAX, sizeof(*g->initializer));
    g->input = get(arena, NODES_MAX, sizeof(*g->input));
    g->output = get(arena, NODES_MAX, sizeof(*g->output));
    char *lines[NODES_MAX];
    int n = split(arena, text, '\n', lines, NODES_MAX);
    for (int i = 0; i < n; i++)
        parse_line(arena, m, lines[i]);
    return m;
}

int onnx_text_read_model(const Onnx__ModelProto *model, const char *folder,
                         const struct onnx_limits *limits, struct graph **ret, struct err *err)
{
    size_t bytes = onnx__model_proto__get_packed_size(model);
    _cleanup_(freep) uint8_t *data = malloc(bytes + 1);
    assert_non_null(data);
    assert_int_equal(onnx__model_proto__pack(model, data), bytes);
    return onnx_read_bytes(data, bytes, folder, limits, ret, err);
}

int onnx_text_read(const char *text, const struct onnx_limits *limits, struct graph **ret,
                   struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    assert_non_null(arena);
    return onnx_text_read_model(onnx_text_model(arena, text), NULL, limits, ret, err);
}

struct graph *onnx_text_graph(const char *text)
{
    struct graph *g = NULL;
    struct err err = {0};
    if (onnx_text_read(text, NULL, &g, &err) < 0)
        fail_msg("%s", err.message);
    return g;
}

/* ---- comparison ---- */

struct tensor *random_input(const struct value *value, int64_t batch)
{
    struct shape shape = shape_at(&value->shape, batch);
    struct tensor *t = tensor_new(value->dtype, &shape, NULL);
    assert_non_null(t);
    struct rng rng;
    rng_seed(&rng, seed_of(value->name));
    for (int64_t i = 0; i < shape_elements(&shape); i++)
        tensor_set_f64(t, i,
                       dtype_is_float(t->dtype) ? rng_normal(&rng) : (double)rng_below(&rng, 50));
    return t;
}

static void run(const struct graph *g, const struct graph *like, struct tensor **outputs)
{
    struct tensor *inputs[8];
    struct err err = {0};
    assert_true(g->n_inputs <= 8 && g->n_inputs == like->n_inputs);
    for (int i = 0; i < g->n_inputs; i++)
        inputs[i] = random_input(like->values[like->inputs[i]], 2);
    if (eval_graph(g, (const struct tensor *const *)inputs, outputs, &err) < 0)
        fail_msg("%s", err.message);
    for (int i = 0; i < g->n_inputs; i++)
        tensor_free(inputs[i]);
}

double graph_difference(const struct graph *a, const struct graph *b)
{
    struct tensor *x[8] = {0}, *y[8] = {0};
    double largest = 1e-30, difference = 0;
    assert_int_equal(a->n_outputs, b->n_outputs);
    assert_true(a->n_outputs <= 8);
    run(a, a, x);
    run(b, a, y);
    for (int i = 0; i < a->n_outputs; i++) {
        assert_true(shape_equal(&x[i]->shape, &y[i]->shape));
        for (int64_t k = 0; k < shape_elements(&x[i]->shape); k++) {
            double p = tensor_get_f64(x[i], k), q = tensor_get_f64(y[i], k);
            largest = fabs(p) > largest ? fabs(p) : largest;
            difference = fabs(p - q) <= difference ? difference : fabs(p - q); /* NaN stays */
        }
        tensor_free(x[i]);
        tensor_free(y[i]);
    }
    return difference / largest;
}
