/* Any bytes as a model: read, simplified, run when it is small, written, and read again. What was
 * read must be writable and readable, with the shapes that were inferred. Half of the mutations
 * change the model's fields (operators, connections, attributes, shapes) rather than its bytes. */
#include <onnx.pb-c.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/rng.h"
#include "shared/graph/cuts.h"
#include "shared/graph/eval.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"

static const struct onnx_limits limits = {
    .max_file_bytes = 1 << 20,
    .max_depth = 32,
    .max_nodes = 200,
    .max_elements = 1 << 16,
    .allow_nonfinite = true,
};

static void fail(const char *what, const struct err *err)
{
    fprintf(stderr, "%s: %s\n", what, err->message);
    abort();
}

static int64_t elements_of(const struct graph *g)
{
    int64_t sum = 0;
    for (int i = 0; i < g->n_values; i++)
        if (g->values[i]->shape_known)
            sum += shape_elements_at(&g->values[i]->shape, 1);
    return sum;
}

/* Runs the graph on zeros; its outputs must have the inferred types and shapes. */
static void run(const struct graph *g)
{
    struct tensor *inputs[16] = {0}, *outputs[16] = {0};
    struct err err = {0};
    if (g->n_inputs > 16 || g->n_outputs > 16 || elements_of(g) > 200000 ||
        graph_cost(g).macs > 1000000)
        return;
    for (int i = 0; i < g->n_inputs; i++) {
        const struct value *value = g->values[g->inputs[i]];
        struct shape shape = shape_at(&value->shape, 1);
        inputs[i] = tensor_new(value->dtype, &shape, &err);
        if (!inputs[i])
            fail("input", &err);
    }
    if (eval_graph(g, (const struct tensor *const *)inputs, outputs, &err) == 0) {
        for (int i = 0; i < g->n_outputs; i++) {
            const struct value *value = g->values[g->outputs[i]];
            struct shape shape = shape_at(&value->shape, 1);
            if (!shape_equal(&shape, &outputs[i]->shape) || value->dtype != outputs[i]->dtype)
                fail("another shape than inferred", &(struct err){0});
        }
    }
    for (int i = 0; i < g->n_inputs; i++)
        tensor_free(inputs[i]);
    for (int i = 0; i < g->n_outputs; i++)
        tensor_free(outputs[i]);
}

static void cut(const struct graph *g)
{
    struct arena *arena = arena_new();
    struct cuts cuts;
    struct err err = {0};
    if (graph_cuts(g, arena, &cuts, &err) < 0)
        fail("cuts", &err);
    for (int b = 0; b < cuts.n_blocks && b < 8; b++) {
        struct graph *part = NULL;
        if (graph_extract_blocks(g, &cuts, b, b, &part, &err) < 0 || graph_infer(part, &err) < 0)
            fail("block", &err);
        graph_free(part);
    }
    arena_free(arena);
}

static struct graph *again(const struct graph *g)
{
    struct graph *copy = NULL;
    struct err err = {0};
    void *data = NULL;
    size_t bytes = 0;
    struct onnx_limits wide = limits;
    wide.max_file_bytes = (size_t)1 << 30;
    if (onnx_write_bytes(g, &data, &bytes, &err) < 0)
        fail("write", &err);
    if (onnx_read_bytes(data, bytes, NULL, &wide, &copy, &err) < 0)
        fail("read again", &err);
    free(data);
    return copy;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes)
{
    struct graph *g = NULL, *copy = NULL;
    struct err err = {0};
    int rc = onnx_read_bytes(data, bytes, NULL, &limits, &g, &err);
    if (rc < 0) {
        if (!*err.message || err.code == ERR_OK)
            fail("an error without words", &err);
        return 0;
    }
    run(g);
    cut(g);
    (void)graph_make_batch_symbolic(g, &err);
    if (pass_simplify(g, &err) < 0) {
        /* only what folding brings to light may be wrong still: Gather's indices */
        if (!strstr(err.message, "(Gather): index"))
            fail("simplify", &err);
        graph_free(g);
        return 0;
    }
    run(g);
    copy = again(g);
    run(copy);
    graph_free(copy);
    graph_free(g);
    return 0;
}

/* ---- mutation ---- */

static int64_t odd_number(struct rng *rng)
{
    static const int64_t odd[] = {0,
                                  1,
                                  -1,
                                  2,
                                  3,
                                  4,
                                  5,
                                  6,
                                  8,
                                  13,
                                  64,
                                  -2,
                                  -3,
                                  255,
                                  INT32_MAX,
                                  (int64_t)1 << 31,
                                  INT64_MAX,
                                  INT64_MIN,
                                  (int64_t)1 << 40,
                                  (int64_t)1 << 62};
    return odd[rng_below(rng, sizeof(odd) / sizeof(*odd))];
}

/* The name of some value of the graph. */
static char *some_name(const Onnx__GraphProto *g, struct rng *rng)
{
    size_t kind = rng_below(rng, 3);
    if (kind == 0 && g->n_initializer > 0)
        return g->initializer[rng_below(rng, g->n_initializer)]->name;
    if (kind == 1 && g->n_input > 0)
        return g->input[rng_below(rng, g->n_input)]->name;
    if (g->n_node == 0)
        return NULL;
    const Onnx__NodeProto *node = g->node[rng_below(rng, g->n_node)];
    return node->n_output > 0 ? node->output[rng_below(rng, node->n_output)] : NULL;
}

static void replace_text(char **text, const char *with)
{
    char *copy = with ? strdup(with) : NULL;
    if (!copy)
        return;
    if (*text != protobuf_c_empty_string)
        free(*text);
    *text = copy;
}

static void change_attribute(Onnx__AttributeProto *a, struct rng *rng)
{
    if (a->n_ints > 0)
        a->ints[rng_below(rng, a->n_ints)] = odd_number(rng);
    else if (a->n_floats > 0)
        a->floats[rng_below(rng, a->n_floats)] = (float)odd_number(rng);
    else if (a->has_i)
        a->i = odd_number(rng);
    else
        a->f = (float)odd_number(rng) / 4;
}

static void change_node(const Onnx__GraphProto *g, Onnx__NodeProto *node, struct rng *rng)
{
    switch (rng_below(rng, 4)) {
    case 0:
        replace_text(&node->op_type, op_name((enum op)rng_below(rng, OP_COUNT)));
        break;
    case 1:
        if (node->n_input > 0)
            replace_text(&node->input[rng_below(rng, node->n_input)], some_name(g, rng));
        break;
    default:
        if (node->n_attribute > 0)
            change_attribute(node->attribute[rng_below(rng, node->n_attribute)], rng);
    }
}

/* Another number in a constant of integers, or another small size of one dimension with as many
 * bytes as it needs. */
static void change_tensor(Onnx__TensorProto *t, struct rng *rng)
{
    if (t->data_type == DTYPE_S64 && t->raw_data.len >= 8) {
        int64_t x = odd_number(rng);
        memcpy(t->raw_data.data + 8 * rng_below(rng, t->raw_data.len / 8), &x, 8);
        return;
    }
    if (t->n_dims == 0 || t->n_dims > SHAPE_MAX_RANK || dtype_bytes((enum dtype)t->data_type) == 0)
        return;
    t->dims[rng_below(rng, t->n_dims)] = (int64_t)rng_below(rng, 7);
    size_t n = dtype_bytes((enum dtype)t->data_type);
    for (size_t i = 0; i < t->n_dims; i++)
        n *= t->dims[i] >= 0 && t->dims[i] < 64 ? (size_t)t->dims[i] : 0;
    if (n > 4096)
        return;
    void *data = realloc(t->raw_data.data, n + 1);
    if (!data)
        return;
    if (n > t->raw_data.len)
        memset((char *)data + t->raw_data.len, 1, n - t->raw_data.len);
    t->has_raw_data = 1;
    t->raw_data = (ProtobufCBinaryData){.len = n, .data = data};
}

static void change_input(const Onnx__ValueInfoProto *input, struct rng *rng)
{
    if (!input->type || input->type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE ||
        !input->type->tensor_type->shape || input->type->tensor_type->shape->n_dim == 0)
        return;
    const Onnx__TensorShapeProto *shape = input->type->tensor_type->shape;
    Onnx__TensorShapeProto__Dimension *d = shape->dim[rng_below(rng, shape->n_dim)];
    if (d->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE)
        d->dim_value = rng_below(rng, 3) ? (int64_t)rng_below(rng, 9) : odd_number(rng);
}

static void change_model(Onnx__ModelProto *m, struct rng *rng)
{
    Onnx__GraphProto *g = m->graph;
    uint64_t kind = rng_below(rng, 16);
    if (kind == 0 && m->n_opset_import > 0)
        m->opset_import[0]->version = 7 + (int64_t)rng_below(rng, 16);
    else if (kind < 4 && g->n_initializer > 0)
        change_tensor(g->initializer[rng_below(rng, g->n_initializer)], rng);
    else if (kind < 6 && g->n_input > 0)
        change_input(g->input[rng_below(rng, g->n_input)], rng);
    else if (kind < 7 && g->n_output > 0)
        replace_text(&g->output[0]->name, some_name(g, rng));
    else if (g->n_node > 0)
        change_node(g, g->node[rng_below(rng, g->n_node)], rng);
}

size_t LLVMFuzzerMutate(uint8_t *data, size_t bytes, size_t max_bytes);
size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max_bytes, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t bytes, size_t max_bytes, unsigned seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    Onnx__ModelProto *m =
        rng_below(&rng, 4) > 0 ? onnx__model_proto__unpack(NULL, bytes, data) : NULL;
    if (!m || !m->graph) {
        if (m)
            onnx__model_proto__free_unpacked(m, NULL);
        return LLVMFuzzerMutate(data, bytes, max_bytes);
    }
    for (uint64_t n = 1 + rng_below(&rng, 3); n > 0; n--)
        change_model(m, &rng);
    size_t packed = onnx__model_proto__get_packed_size(m);
    if (packed <= max_bytes)
        bytes = onnx__model_proto__pack(m, data);
    onnx__model_proto__free_unpacked(m, NULL);
    return bytes;
}
