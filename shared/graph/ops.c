/* The operators' definitions: how many inputs and outputs, which attributes, since which opset.
 * From ONNX's Operators.md and Changelog.md. */
#include <string.h>

#include "shared/graph/graph_priv.h"
#include "shared/graph/infer.h"

enum { MANY = 1 << 20, LAST = 99 };

/* An attribute exists in opsets [since, until), and must be given when `required`. */
struct attr_spec {
    const char *name;
    enum attr_kind kind;
    int since, until;
    bool required;
};

/* Inputs and outputs of an operator in opsets [since, until). */
struct form {
    int since, until, min_in, max_in, min_out, max_out;
};

struct op_spec {
    struct form form[4];
    struct attr_spec attr[9];
};

#define I(name) {name, ATTR_INT, 0, LAST, false}
#define F(name) {name, ATTR_FLOAT, 0, LAST, false}
#define S(name) {name, ATTR_STRING, 0, LAST, false}
#define IS(name) {name, ATTR_INTS, 0, LAST, false}
#define UNARY {{0, LAST, 1, 1, 1, 1}}
#define BINARY {{0, LAST, 2, 2, 1, 1}}

static const struct op_spec specs[OP_COUNT] = {
    [OP_ABS] = {UNARY, {{0}}},
    [OP_ADD] = {BINARY, {{0}}},
    [OP_AVERAGE_POOL] = {UNARY,
                         {S("auto_pad"),
                          {"ceil_mode", ATTR_INT, 10, LAST, false},
                          I("count_include_pad"),
                          {"dilations", ATTR_INTS, 19, LAST, false},
                          {"kernel_shape", ATTR_INTS, 0, LAST, true},
                          IS("pads"),
                          IS("strides")}},
    [OP_BATCH_NORMALIZATION] = {{{0, 14, 5, 5, 1, 5}, {14, LAST, 5, 5, 1, 3}},
                                {F("epsilon"),
                                 F("momentum"),
                                 {"spatial", ATTR_INT, 0, 9, false},
                                 {"training_mode", ATTR_INT, 14, LAST, false}}},
    [OP_CAST] = {UNARY, {{"to", ATTR_INT, 0, LAST, true}, {"saturate", ATTR_INT, 19, LAST, false}}},
    [OP_CLIP] = {{{0, 11, 1, 1, 1, 1}, {11, LAST, 1, 3, 1, 1}},
                 {{"max", ATTR_FLOAT, 0, 11, false}, {"min", ATTR_FLOAT, 0, 11, false}}},
    [OP_CONCAT] = {{{0, LAST, 1, MANY, 1, 1}}, {{"axis", ATTR_INT, 0, LAST, true}}},
    [OP_CONSTANT] = {{{0, LAST, 0, 0, 1, 1}},
                     {{"value", ATTR_TENSOR, 0, LAST, false},
                      {"value_float", ATTR_FLOAT, 12, LAST, false},
                      {"value_floats", ATTR_FLOATS, 12, LAST, false},
                      {"value_int", ATTR_INT, 12, LAST, false},
                      {"value_ints", ATTR_INTS, 12, LAST, false}}},
    [OP_CONSTANT_OF_SHAPE] = {{{9, LAST, 1, 1, 1, 1}}, {{"value", ATTR_TENSOR, 0, LAST, false}}},
    [OP_CONV] = {{{0, LAST, 2, 3, 1, 1}},
                 {S("auto_pad"), IS("dilations"), I("group"), IS("kernel_shape"), IS("pads"),
                  IS("strides")}},
    [OP_CONV_TRANSPOSE] = {{{0, LAST, 2, 3, 1, 1}},
                           {S("auto_pad"), IS("dilations"), I("group"), IS("kernel_shape"),
                            IS("output_padding"), IS("output_shape"), IS("pads"), IS("strides")}},
    [OP_DEQUANTIZE_LINEAR] = {{{10, LAST, 2, 3, 1, 1}},
                              {{"axis", ATTR_INT, 13, LAST, false},
                               {"block_size", ATTR_INT, 21, LAST, false}}},
    [OP_DIV] = {BINARY, {{0}}},
    [OP_DROPOUT] = {{{0, 12, 1, 1, 1, 2}, {12, LAST, 1, 3, 1, 2}},
                    {{"ratio", ATTR_FLOAT, 0, 12, false}, {"seed", ATTR_INT, 12, LAST, false}}},
    [OP_ELU] = {UNARY, {F("alpha")}},
    [OP_EXPAND] = {{{8, LAST, 2, 2, 1, 1}}, {{0}}},
    [OP_FLATTEN] = {UNARY, {I("axis")}},
    [OP_GATHER] = {BINARY, {I("axis")}},
    [OP_GEMM] = {{{0, 11, 3, 3, 1, 1}, {11, LAST, 2, 3, 1, 1}},
                 {F("alpha"), F("beta"), I("transA"), I("transB")}},
    [OP_GLOBAL_AVERAGE_POOL] = {UNARY, {{0}}},
    [OP_GLOBAL_MAX_POOL] = {UNARY, {{0}}},
    [OP_HARD_SIGMOID] = {UNARY, {F("alpha"), F("beta")}},
    [OP_HARD_SWISH] = {{{14, LAST, 1, 1, 1, 1}}, {{0}}},
    [OP_IDENTITY] = {UNARY, {{0}}},
    [OP_LEAKY_RELU] = {UNARY, {F("alpha")}},
    [OP_LRN] = {UNARY, {F("alpha"), F("beta"), F("bias"), {"size", ATTR_INT, 0, LAST, true}}},
    [OP_MATMUL] = {BINARY, {{0}}},
    [OP_MAX_POOL] = {{{0, 8, 1, 1, 1, 1}, {8, LAST, 1, 1, 1, 2}},
                     {S("auto_pad"),
                      {"ceil_mode", ATTR_INT, 10, LAST, false},
                      {"dilations", ATTR_INTS, 10, LAST, false},
                      {"kernel_shape", ATTR_INTS, 0, LAST, true},
                      IS("pads"),
                      {"storage_order", ATTR_INT, 8, LAST, false},
                      IS("strides")}},
    [OP_MUL] = {BINARY, {{0}}},
    [OP_PAD] = {{{0, 11, 1, 1, 1, 1}, {11, 18, 2, 3, 1, 1}, {18, LAST, 2, 4, 1, 1}},
                {S("mode"), {"pads", ATTR_INTS, 0, 11, true}, {"value", ATTR_FLOAT, 0, 11, false}}},
    [OP_PRELU] = {BINARY, {{0}}},
    [OP_QUANTIZE_LINEAR] = {{{10, LAST, 2, 3, 1, 1}},
                            {{"axis", ATTR_INT, 13, LAST, false},
                             {"saturate", ATTR_INT, 19, LAST, false},
                             {"block_size", ATTR_INT, 21, LAST, false},
                             {"output_dtype", ATTR_INT, 21, LAST, false}}},
    [OP_REDUCE_MEAN] = {{{0, 18, 1, 1, 1, 1}, {18, LAST, 1, 2, 1, 1}},
                        {{"axes", ATTR_INTS, 0, 18, false},
                         I("keepdims"),
                         {"noop_with_empty_axes", ATTR_INT, 18, LAST, false}}},
    [OP_RELU] = {UNARY, {{0}}},
    [OP_RESHAPE] = {BINARY, {{"allowzero", ATTR_INT, 14, LAST, false}}},
    [OP_RESIZE] = {{{10, 11, 2, 2, 1, 1}, {11, 13, 3, 4, 1, 1}, {13, LAST, 1, 4, 1, 1}},
                   {{"coordinate_transformation_mode", ATTR_STRING, 11, LAST, false},
                    {"cubic_coeff_a", ATTR_FLOAT, 11, LAST, false},
                    {"exclude_outside", ATTR_INT, 11, LAST, false},
                    {"extrapolation_value", ATTR_FLOAT, 11, LAST, false},
                    S("mode"),
                    {"nearest_mode", ATTR_STRING, 11, LAST, false},
                    {"antialias", ATTR_INT, 18, LAST, false},
                    {"axes", ATTR_INTS, 18, LAST, false},
                    {"keep_aspect_ratio_policy", ATTR_STRING, 18, LAST, false}}},
    [OP_SHAPE] = {UNARY,
                  {{"end", ATTR_INT, 15, LAST, false}, {"start", ATTR_INT, 15, LAST, false}}},
    [OP_SIGMOID] = {UNARY, {{0}}},
    [OP_SLICE] = {{{0, 10, 1, 1, 1, 1}, {10, LAST, 3, 5, 1, 1}},
                  {{"axes", ATTR_INTS, 0, 10, false},
                   {"ends", ATTR_INTS, 0, 10, true},
                   {"starts", ATTR_INTS, 0, 10, true}}},
    [OP_SOFTMAX] = {UNARY, {I("axis")}},
    [OP_SOFTPLUS] = {UNARY, {{0}}},
    [OP_SPLIT] = {{{0, 13, 1, 1, 1, MANY}, {13, LAST, 1, 2, 1, MANY}},
                  {I("axis"),
                   {"split", ATTR_INTS, 0, 13, false},
                   {"num_outputs", ATTR_INT, 18, LAST, false}}},
    [OP_SQUEEZE] = {{{0, 13, 1, 1, 1, 1}, {13, LAST, 1, 2, 1, 1}},
                    {{"axes", ATTR_INTS, 0, 13, false}}},
    [OP_SUB] = {BINARY, {{0}}},
    [OP_TANH] = {UNARY, {{0}}},
    [OP_TRANSPOSE] = {UNARY, {IS("perm")}},
    [OP_UNSQUEEZE] = {{{0, 13, 1, 1, 1, 1}, {13, LAST, 2, 2, 1, 1}},
                      {{"axes", ATTR_INTS, 0, 13, true}}},
    [OP_UPSAMPLE] = {{{0, 9, 1, 1, 1, 1}, {9, 10, 2, 2, 1, 1}},
                     {S("mode"), {"scales", ATTR_FLOATS, 0, 9, true}}},
};

enum {
    FORMS = sizeof(specs[0].form) / sizeof(specs[0].form[0]),
    ATTRS = sizeof(specs[0].attr) / sizeof(specs[0].attr[0])
};

static const char *const kind_names[] = {"an int",         "a float",          "a string",
                                         "a list of ints", "a list of floats", "a tensor"};

static const struct form *form_of(const struct node *node)
{
    const struct op_spec *spec = &specs[node->op];
    for (int i = 0; i < FORMS; i++)
        if (node->since >= spec->form[i].since && node->since < spec->form[i].until)
            return &spec->form[i];
    return NULL;
}

const char *op_attr_kind(enum op op, const char *name, int *ret_kind)
{
    for (int i = 0; i < ATTRS && specs[op].attr[i].name; i++) {
        if (strcmp(specs[op].attr[i].name, name) == 0) {
            *ret_kind = (int)specs[op].attr[i].kind;
            return kind_names[specs[op].attr[i].kind];
        }
    }
    return NULL;
}

static const struct attr_spec *attr_of(const struct node *node, const char *name)
{
    const struct op_spec *spec = &specs[node->op];
    for (int i = 0; i < ATTRS && spec->attr[i].name; i++)
        if (strcmp(spec->attr[i].name, name) == 0 && node->since >= spec->attr[i].since &&
            node->since < spec->attr[i].until)
            return &spec->attr[i];
    return NULL;
}

static int check_attrs(const struct node *node, struct err *err)
{
    for (int i = 0; i < node->n_attrs; i++) {
        const struct attr *a = &node->attrs[i];
        const struct attr_spec *spec = attr_of(node, a->name);
        if (!spec)
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "attribute '%.64s' is not one of %s's in opset %d", a->name,
                            op_name(node->op), node->since);
        if (spec->kind != a->kind)
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "attribute '%.64s' is %s where %s is needed", a->name,
                            kind_names[a->kind], kind_names[spec->kind]);
    }
    const struct op_spec *spec = &specs[node->op];
    for (int i = 0; i < ATTRS && spec->attr[i].name; i++) {
        const struct attr_spec *s = &spec->attr[i];
        if (s->required && node->since >= s->since && node->since < s->until &&
            !node_attr(node, s->name))
            return node_err(err, ERR_INVALID_ARGUMENT, node, "attribute '%s' is missing", s->name);
    }
    return 0;
}

int graph_check_node(const struct graph *g, const struct node *node, struct err *err)
{
    const struct form *form = form_of(node);
    if (!form)
        return node_err(err, ERR_UNIMPLEMENTED, node, "opset %d has no such operator", node->since);
    if (node->n_inputs < form->min_in || node->n_inputs > form->max_in)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "has %d inputs", node->n_inputs);
    if (node->n_outputs < form->min_out || node->n_outputs > form->max_out)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "has %d outputs", node->n_outputs);
    int required = form->max_in == MANY ? node->n_inputs : form->min_in;
    for (int i = 0; i < required; i++)
        if (!graph_input_of(g, node, i))
            return node_err(err, ERR_INVALID_ARGUMENT, node, "input %d is missing", i);
    return check_attrs(node, err);
}
