/*
 * Fuzzes the evaluator: one node of any operator with any attributes, over tensors of any type and
 * small shape. Whatever a file may say, eval_node answers with tensors or an error; constant
 * folding runs it on files from outside.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval.h"

struct bytes {
    const uint8_t *at;
    size_t left;
};

static uint8_t next(struct bytes *b)
{
    if (b->left == 0)
        return 0;
    b->left--;
    return *b->at++;
}

/* Mostly small, sometimes extreme. */
static int64_t next_int(struct bytes *b)
{
    static const int64_t extremes[] = {INT64_MIN,  INT64_MAX, INT32_MIN,        INT32_MAX, 1 << 20,
                                       -(1 << 20), 1000,      (int64_t)1 << 40, 255,       -128};
    uint8_t x = next(b);
    return x < 240 ? x % 16 - 6 : extremes[x % 10];
}

static enum dtype next_dtype(struct bytes *b)
{
    static const enum dtype types[] = {
        DTYPE_F32, DTYPE_F32, DTYPE_F32, DTYPE_S64, DTYPE_S64, DTYPE_U8,  DTYPE_S8,   DTYPE_S32,
        DTYPE_F16, DTYPE_F64, DTYPE_U64, DTYPE_S16, DTYPE_U16, DTYPE_U32, DTYPE_BF16, DTYPE_BOOL,
    };
    return types[next(b) % 16];
}

static struct tensor *next_tensor(struct bytes *b)
{
    uint8_t kind = next(b);
    if (kind % 8 == 7)
        return NULL; /* left out */
    enum dtype dtype = next_dtype(b);
    struct shape shape = {.rank = kind % 6};
    for (int i = 0; i < shape.rank; i++)
        shape.dim[i] = next(b) % 5;
    struct tensor *t = tensor_new(dtype, &shape, NULL);
    if (!t)
        abort();
    for (int64_t i = 0; i < shape_elements(&shape) && b->left > 0; i++) {
        if (dtype_is_float(dtype))
            tensor_set_f64(t, i, (double)next_int(b) / 4);
        else
            tensor_set_s64(t, i, next_int(b));
    }
    return t;
}

static void next_attribute(struct bytes *b, struct graph *g, struct node *node)
{
    static const char *const ints[] = {"kernel_shape", "strides", "dilations",      "pads",
                                       "perm",         "axes",    "output_padding", "output_shape",
                                       "starts",       "ends",    "split"};
    static const char *const one[] = {
        "axis",      "group",           "ceil_mode", "count_include_pad",
        "keepdims",  "storage_order",   "transA",    "transB",
        "to",        "block_size",      "allowzero", "num_outputs",
        "antialias", "exclude_outside", "size",      "start",
        "end",       "output_dtype",    "spatial",   "noop_with_empty_axes"};
    static const char *const texts[][2] = {
        {"auto_pad", "SAME_UPPER"},
        {"auto_pad", "SAME_LOWER"},
        {"auto_pad", "VALID"},
        {"mode", "linear"},
        {"mode", "cubic"},
        {"mode", "reflect"},
        {"mode", "edge"},
        {"mode", "wrap"},
        {"nearest_mode", "ceil"},
        {"nearest_mode", "floor"},
        {"coordinate_transformation_mode", "tf_crop_and_resize"},
        {"coordinate_transformation_mode", "align_corners"},
        {"coordinate_transformation_mode", "half_pixel_symmetric"},
        {"keep_aspect_ratio_policy", "not_larger"},
        {"keep_aspect_ratio_policy", "not_smaller"},
    };
    uint8_t kind = next(b) % 3, which = next(b);
    if (kind == 0) {
        int64_t list[10];
        int n = next(b) % 10;
        for (int i = 0; i < n; i++)
            list[i] = next_int(b);
        graph_set_attr_ints(g, node, ints[which % 11], n, list, NULL);
    } else if (kind == 1) {
        graph_set_attr_int(g, node, one[which % 20], next_int(b), NULL);
    } else {
        graph_set_attr_string(g, node, texts[which % 15][0], texts[which % 15][1], NULL);
    }
}

/* Gives the node as many inputs as tensors, and values for them. */
static struct node *make_node(struct bytes *b, struct graph *g, struct tensor *const *in, int n)
{
    int values[6], n_out = next(b) % 3 + 1;
    for (int i = 0; i < n; i++)
        values[i] = in[i] ? graph_add_input(g, NULL, in[i]->dtype, &in[i]->shape, NULL) : -1;
    enum op op = (enum op)(next(b) % OP_COUNT);
    int index = graph_add_node(g, -1, op, "fuzzed", n, values, n_out, NULL, NULL);
    if (index < 0)
        abort();
    struct node *node = g->nodes[index];
    for (int k = next(b) % 6; k > 0; k--)
        next_attribute(b, g, node);
    return node;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct bytes b = {data, size};
    struct tensor *in[6] = {0}, *out[3] = {0};
    struct graph *g = graph_new(7 + next(&b) % 16, NULL);
    if (!g)
        abort();
    int n = next(&b) % 6;
    for (int i = 0; i < n; i++)
        in[i] = next_tensor(&b);
    struct node *node = make_node(&b, g, in, n);
    struct err err = {0};
    int rc = eval_node(g, node, (const struct tensor *const *)in, out, &err);
    if (rc < 0 && (!err.code || !strstr(err.message, "fuzzed")))
        abort(); /* every error names the node */
    for (int i = 0; i < 3; i++) {
        if (rc < 0 && out[i])
            abort();
        tensor_free(out[i]);
    }
    for (int i = 0; i < n; i++)
        tensor_free(in[i]);
    graph_free(g);
    return 0;
}
