#pragma once
/*
 * The network as data: a small typed IR, close to ONNX.
 *
 * A graph is a list of nodes in topological order. A node applies an operator to values and yields
 * values; a value is an input of the network, a constant (weights), or a node's output. Everything
 * lives in the graph's arena and dies with it. Values and nodes are named by their index, which
 * stays valid while passes rewrite the graph: removed nodes are marked dead until graph_compact.
 *
 * Quantized networks are QDQ: QuantizeLinear and DequantizeLinear are ordinary nodes here, and the
 * inference plan (shared/nn/plan.h) recognises them and runs integer kernels. bf16 is a hint on a
 * node, since ONNX has no portable way to say it; export keeps it in the metadata.
 *
 * Layout is NCHW. One dimension of a shape may be DIM_BATCH.
 * A graph is not thread-safe while it is changed; reading it from many threads is fine.
 */
#include "shared/graph/tensor.h"

/* Every operator that Hone knows: ONNX's names (default domain). */
#define GRAPH_OPS(X)                                                                               \
    X(ABS, "Abs")                                                                                  \
    X(ADD, "Add")                                                                                  \
    X(AVERAGE_POOL, "AveragePool")                                                                 \
    X(BATCH_NORMALIZATION, "BatchNormalization")                                                   \
    X(CAST, "Cast")                                                                                \
    X(CLIP, "Clip")                                                                                \
    X(CONCAT, "Concat")                                                                            \
    X(CONSTANT, "Constant")                                                                        \
    X(CONSTANT_OF_SHAPE, "ConstantOfShape")                                                        \
    X(CONV, "Conv")                                                                                \
    X(CONV_TRANSPOSE, "ConvTranspose")                                                             \
    X(DEQUANTIZE_LINEAR, "DequantizeLinear")                                                       \
    X(DIV, "Div")                                                                                  \
    X(DROPOUT, "Dropout")                                                                          \
    X(ELU, "Elu")                                                                                  \
    X(EXPAND, "Expand")                                                                            \
    X(FLATTEN, "Flatten")                                                                          \
    X(GATHER, "Gather")                                                                            \
    X(GEMM, "Gemm")                                                                                \
    X(GLOBAL_AVERAGE_POOL, "GlobalAveragePool")                                                    \
    X(GLOBAL_MAX_POOL, "GlobalMaxPool")                                                            \
    X(HARD_SIGMOID, "HardSigmoid")                                                                 \
    X(HARD_SWISH, "HardSwish")                                                                     \
    X(IDENTITY, "Identity")                                                                        \
    X(LEAKY_RELU, "LeakyRelu")                                                                     \
    X(LRN, "LRN")                                                                                  \
    X(MATMUL, "MatMul")                                                                            \
    X(MAX_POOL, "MaxPool")                                                                         \
    X(MUL, "Mul")                                                                                  \
    X(PAD, "Pad")                                                                                  \
    X(PRELU, "PRelu")                                                                              \
    X(QUANTIZE_LINEAR, "QuantizeLinear")                                                           \
    X(REDUCE_MEAN, "ReduceMean")                                                                   \
    X(RELU, "Relu")                                                                                \
    X(RESHAPE, "Reshape")                                                                          \
    X(RESIZE, "Resize")                                                                            \
    X(SHAPE, "Shape")                                                                              \
    X(SIGMOID, "Sigmoid")                                                                          \
    X(SLICE, "Slice")                                                                              \
    X(SOFTMAX, "Softmax")                                                                          \
    X(SOFTPLUS, "Softplus")                                                                        \
    X(SPLIT, "Split")                                                                              \
    X(SQUEEZE, "Squeeze")                                                                          \
    X(SUB, "Sub")                                                                                  \
    X(TANH, "Tanh")                                                                                \
    X(TRANSPOSE, "Transpose")                                                                      \
    X(UNSQUEEZE, "Unsqueeze")                                                                      \
    X(UPSAMPLE, "Upsample") /* what Resize was called up to opset 9 */

enum op {
#define X(id, name) OP_##id,
    GRAPH_OPS(X)
#undef X
        OP_COUNT
};

enum attr_kind { ATTR_INT, ATTR_FLOAT, ATTR_STRING, ATTR_INTS, ATTR_FLOATS, ATTR_TENSOR };

struct attr {
    const char *name;
    enum attr_kind kind;
    int64_t i;
    float f;
    const char *s;
    int n; /* elements of ints or floats */
    int64_t *ints;
    float *floats;
    struct tensor *tensor;
};

/* The precision that a node should compute in. AUTO: as the graph says (int8 where QDQ surrounds
 * it, else fp32). Only BF16 is ever stored as a hint on nodes. */
enum precision { PRECISION_AUTO, PRECISION_FP32, PRECISION_BF16, PRECISION_INT8 };
const char *precision_name(enum precision precision); /* "auto", "fp32", "bf16", "int8" */
int precision_parse(const char *text, enum precision *ret, struct err *err);

struct value {
    const char *name; /* unique in the graph, never empty */
    enum dtype dtype; /* DTYPE_NONE: not inferred yet */
    struct shape shape;
    bool shape_known;
    struct tensor *constant; /* NULL for inputs and node outputs */
    int producer;            /* node index; -1 for inputs and constants */
};

struct node {
    const char *name; /* unique in the graph, never empty */
    enum op op;
    int since; /* opset by whose rules the node is read: the graph's own */
    enum precision hint;
    bool dead;
    int n_inputs, n_outputs;
    int *inputs;  /* value indices; -1 for an optional input left out */
    int *outputs; /* value indices; -1 for an optional output left out */
    int n_attrs;
    struct attr *attrs;
};

struct metadata {
    const char *key, *text;
};

struct graph {
    struct arena *arena;
    const char *name;
    int opset; /* of the default domain */
    int n_nodes, n_values, n_inputs, n_outputs, n_metadata;
    int cap_nodes, cap_values, cap_inputs, cap_outputs, cap_metadata;
    struct node **nodes; /* topological order, dead ones included until graph_compact */
    struct value **values;
    int *inputs;  /* value indices, without constants */
    int *outputs; /* value indices */
    struct metadata *metadata;
    struct name_table *value_names, *node_names; /* names taken; private to this floor */
    int next_suffix;
};

/* ---- life ---- */
struct graph *graph_new(int opset, struct err *err);
struct graph *graph_free(struct graph *graph); /* NULL-safe, returns NULL */
void graph_freep(struct graph **graph);
int graph_clone(const struct graph *graph, struct graph **ret, struct err *err);

/* ---- building; each returns the new index, or a negative code ---- */
/* A name that is taken (or NULL) is made unique by a suffix. */
int graph_add_input(struct graph *g, const char *name, enum dtype dtype, const struct shape *shape,
                    struct err *err);
/* `data` is copied; NULL: zeros. */
int graph_add_constant(struct graph *g, const char *name, enum dtype dtype,
                       const struct shape *shape, const void *data, struct err *err);
/* Adds a node at the end (before = -1) or before node index `before`. Its outputs are new values
 * with the given names (NULL: made from the node's name). With `before` >= 0, node indices from
 * there on move up by one. */
int graph_add_node(struct graph *g, int before, enum op op, const char *name, int n_inputs,
                   const int *inputs, int n_outputs, const char *const *output_names,
                   struct err *err);
int graph_add_output(struct graph *g, int value, struct err *err);
int graph_set_attr_int(struct graph *g, struct node *node, const char *name, int64_t i,
                       struct err *err);
int graph_set_attr_float(struct graph *g, struct node *node, const char *name, float f,
                         struct err *err);
int graph_set_attr_string(struct graph *g, struct node *node, const char *name, const char *s,
                          struct err *err);
int graph_set_attr_ints(struct graph *g, struct node *node, const char *name, int n,
                        const int64_t *ints, struct err *err);
int graph_set_attr_floats(struct graph *g, struct node *node, const char *name, int n,
                          const float *floats, struct err *err);
int graph_set_attr_tensor(struct graph *g, struct node *node, const char *name,
                          const struct tensor *tensor, struct err *err); /* copied */
void graph_remove_attr(struct node *node, const char *name);             /* absent is no error */
int graph_set_metadata(struct graph *g, const char *key, const char *text, struct err *err);
void graph_remove_metadata(struct graph *g, const char *key); /* absent is no error */

/* ---- reading ---- */
const char *op_name(enum op op);
int op_parse(const char *name);                                          /* enum op, or -1 */
const struct attr *node_attr(const struct node *node, const char *name); /* NULL: absent */
int64_t node_int(const struct node *node, const char *name, int64_t otherwise);
float node_float(const struct node *node, const char *name, float otherwise);
const char *node_string(const struct node *node, const char *name, const char *otherwise);
/* Copies up to `max` ints; returns how many the attribute has, 0 when absent. */
int node_ints(const struct node *node, const char *name, int max, int64_t *ret);
const char *graph_metadata(const struct graph *g, const char *key); /* NULL: absent */
/* The value behind input i of the node, NULL where left out. */
struct value *graph_input_of(const struct graph *g, const struct node *node, int i);
struct value *graph_output_of(const struct graph *g, const struct node *node, int i);
int graph_find_value(const struct graph *g, const char *name); /* -1: none */
int graph_logits(const struct graph *g); /* what a final Softmax reads; else the first output */

/* Who reads each value: arrays indexed by value, in the caller's arena. Counts network outputs as a
 * use, too. Rebuild after changing the graph. */
struct uses {
    int *first; /* [n_values + 1]: uses of value v are node_of[first[v] .. first[v+1]) */
    int *node_of;
    bool *is_output; /* [n_values] */
};
int graph_uses(const struct graph *g, struct arena *arena, struct uses *ret, struct err *err);
static inline int uses_count(const struct uses *u, int value)
{
    return u->first[value + 1] - u->first[value];
}
/* The only node that reads the value, when the value is no network output; else -1. */
int uses_sole(const struct uses *u, int value);

/* ---- rewriting ---- */
/* Every reader of value `from` (and the outputs of the network) reads `to` instead. When `from` is
 * an output of the network, the two swap names, so that the outputs keep theirs. */
void graph_replace_value(struct graph *g, int from, int to);
/* Whether that keeps every name of the network's inputs and outputs: an output cannot be replaced
 * by an input, a constant or another output. */
bool graph_can_replace(const struct graph *g, int from, int to);
/* Values change their names by this only. ALREADY_EXISTS when the name is another value's. */
int graph_rename_value(struct graph *g, int value, const char *name, struct err *err);
/* The inputs of a node become these (a longer or shorter list). */
int graph_set_inputs(struct graph *g, struct node *node, int n_inputs, const int *inputs,
                     struct err *err);
/* A node's output, or an input of the network, becomes a constant (copied); its producer is killed
 * when it has no other output. Dtype and shape follow the tensor's. */
int graph_make_constant(struct graph *g, int value, const struct tensor *tensor, struct err *err);
void graph_kill_node(struct graph *g, int node);
/* Removes dead nodes and nodes whose outputs nobody reads; renumbers nodes (not values), restores
 * topological order; fails with INVALID_ARGUMENT, naming a node, on a cycle. */
int graph_compact(struct graph *g, struct err *err);
