/* The types of pieces, and what they are made of. */
#include "shared/design/pieces.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#define MAX_PARAMETERS ((int64_t)1 << 27)
#define MAX_ELEMENTS ((int64_t)1 << 30) /* of a value, for one sample */

/* ---- registry ---- */

#define X(name) extern const struct piece_type piece_type_##name;
PIECE_TYPES(X)
#undef X

#define X(name) #name,
static const char *const names[] = {PIECE_TYPES(X) NULL};
#undef X

#define X(name) &piece_type_##name,
static const struct piece_type *const types[] = {PIECE_TYPES(X)};
#undef X

const char *const *design_types(void)
{
    return names;
}

const struct piece_type *piece_type_find(const char *name)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if (strcmp(types[i]->name, name) == 0)
            return types[i];
    return NULL;
}

const char *design_summary(const char *type)
{
    const struct piece_type *found = piece_type_find(type);
    return found ? found->summary : NULL;
}

const char *design_type(const struct piece *piece)
{
    return piece->type->name;
}

bool design_is_head(const struct piece *piece)
{
    return piece->type->head;
}

int64_t piece_width(const struct piece *piece, const struct pieces *p)
{
    return piece->width ? piece->width : p->at.channels;
}

int piece_kernel(const struct piece *piece)
{
    return piece->kernel ? piece->kernel : piece->type->usual_kernel;
}

int piece_expand(const struct piece *piece)
{
    return piece->expand ? piece->expand : piece->type->usual_expand;
}

/* ---- nodes ---- */

/* Counts weights before they are made. */
static int count(struct pieces *p, int64_t parameters, struct err *err)
{
    p->parameters += parameters;
    return p->parameters <= MAX_PARAMETERS
               ? 0
               : err_set(err, ERR_FAILED_PRECONDITION, "more than %lld parameters",
                         (long long)MAX_PARAMETERS);
}

/* A constant of the network, normal with this mean and deviation. */
static int constant(struct pieces *p, const char *what, int rank, const int64_t *dims, float mean,
                    double deviation, struct err *err)
{
    char name[128];
    const struct shape shape = shape_make(rank, dims);
    snprintf(name, sizeof(name), "%s.%s", p->name, what);
    int v = graph_add_constant(p->g, name, DTYPE_F32, &shape, NULL, err);
    if (v < 0)
        return v;
    float *x = p->g->values[v]->constant->data;
    for (int64_t i = 0; !p->bare && i < shape_elements(&shape); i++)
        x[i] = deviation > 0 ? mean + (float)(deviation * rng_normal(&p->rng)) : mean;
    return v;
}

/* "3.residual.conv", "3.residual.conv2", ...: the first whose output is not there yet. ("%.0d"
 * writes nothing for 0.) */
static void name_node(const struct pieces *p, const char *what, char *name, size_t size)
{
    char output[160];
    for (int k = 1; k <= DESIGN_MAX_PIECES; k++) {
        snprintf(name, size, "%s.%s%.0d", p->name, what, k == 1 ? 0 : k);
        snprintf(output, sizeof(output), "%s_out", name);
        if (graph_find_value(p->g, output) < 0)
            return;
    }
}

/* Adds a node that makes *value. Inputs below 0 are errors of theirs. */
static int apply(struct pieces *p, enum op op, const char *what, int n, const int *inputs,
                 int *value, struct err *err)
{
    char name[128];
    for (int i = 0; i < n; i++)
        if (inputs[i] < 0)
            return inputs[i];
    name_node(p, what, name, sizeof(name));
    int node = graph_add_node(p->g, -1, op, name, n, inputs, 1, NULL, err);
    if (node < 0)
        return node;
    *value = p->g->nodes[node]->outputs[0];
    return 0;
}

static struct node *producer(const struct pieces *p, const struct flow *x)
{
    return p->g->nodes[p->g->values[x->value]->producer];
}

/* Attributes of a window over rows and columns, the same in both. */
static int set_window(struct pieces *p, const struct flow *x, int kernel, int stride, int pad,
                      struct err *err)
{
    struct node *node = producer(p, x);
    const int64_t kernels[] = {kernel, kernel}, strides[] = {stride, stride};
    const int64_t pads[] = {pad / 2, pad / 2, pad - pad / 2, pad - pad / 2};
    int rc = graph_set_attr_ints(p->g, node, "kernel_shape", 2, kernels, err);
    if (rc >= 0)
        rc = graph_set_attr_ints(p->g, node, "strides", 2, strides, err);
    return rc < 0 || pad == 0 ? rc : graph_set_attr_ints(p->g, node, "pads", 4, pads, err);
}

/* The shape behind a window. */
static int slide(struct flow *x, int64_t channels, int kernel, int stride, int pad, struct err *err)
{
    const int64_t least = x->height < x->width ? x->height : x->width;
    if (least + pad < kernel || least < stride)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "a kernel of %d with stride %d does not fit into %lldx%lld", kernel, stride,
                       (long long)x->height, (long long)x->width);
    x->channels = channels;
    x->height = (x->height + pad - kernel) / stride + 1;
    x->width = (x->width + pad - kernel) / stride + 1;
    return x->height * x->width <= MAX_ELEMENTS / channels
               ? 0
               : err_set(err, ERR_FAILED_PRECONDITION, "more than %lld elements",
                         (long long)MAX_ELEMENTS);
}

static int conv_node(struct pieces *p, struct flow *x, const struct piece_conv *c, int64_t from,
                     int64_t group, struct err *err)
{
    const int64_t dims[] = {c->width, from / group, c->kernel, c->kernel};
    const double fan_in = (double)(dims[1] * dims[2] * dims[3]);
    const int w = constant(p, "weight", 4, dims, 0, sqrt(2 / fan_in), err);
    const int inputs[] = {x->value, w,
                          w >= 0 && c->bias ? constant(p, "bias", 1, dims, 0, 0, err) : w};
    int rc = apply(p, OP_CONV, "conv", c->bias ? 3 : 2, inputs, &x->value, err);
    return rc < 0 || group == 1 ? rc
                                : graph_set_attr_int(p->g, producer(p, x), "group", group, err);
}

int piece_conv(struct pieces *p, struct flow *x, const struct piece_conv *conv, struct err *err)
{
    struct piece_conv c = *conv;
    const int64_t from = x->channels, group = c.depthwise ? from : 1;
    const int pad = c.unpadded ? 0 : c.kernel - 1;
    c.width = c.depthwise ? from : c.width;
    c.stride = c.stride ? c.stride : 1;
    int rc = slide(x, c.width, c.kernel, c.stride, pad, err);
    if (rc == 0)
        rc = count(p, c.width * (from / group) * c.kernel * c.kernel + c.width, err);
    if (rc < 0 || !p->g)
        return rc;
    rc = conv_node(p, x, &c, from, group, err);
    return rc < 0 ? rc : set_window(p, x, c.kernel, c.stride, pad, err);
}

int piece_norm(struct pieces *p, struct flow *x, struct err *err)
{
    static const char *const what[] = {"scale", "shift", "mean", "variance"};
    int inputs[5] = {x->value};
    int rc = count(p, 4 * x->channels, err);
    if (rc < 0 || !p->g)
        return rc;
    for (int i = 0; i < 4; i++) {
        inputs[i + 1] = constant(p, what[i], 1, &x->channels, i == 0 || i == 3 ? 1 : 0, 0, err);
        if (inputs[i + 1] < 0)
            return inputs[i + 1];
    }
    return apply(p, OP_BATCH_NORMALIZATION, "norm", 5, inputs, &x->value, err);
}

int piece_relu(struct pieces *p, struct flow *x, struct err *err)
{
    return p->g ? apply(p, OP_RELU, "relu", 1, &x->value, &x->value, err) : 0;
}

int piece_max_pool(struct pieces *p, struct flow *x, int side, struct err *err)
{
    int rc = slide(x, x->channels, side, side, 0, err);
    if (rc < 0 || !p->g)
        return rc;
    rc = apply(p, OP_MAX_POOL, "pool", 1, &x->value, &x->value, err);
    return rc < 0 ? rc : set_window(p, x, side, side, 0, err);
}

int piece_global_pool(struct pieces *p, struct flow *x, bool most, struct err *err)
{
    const enum op op = most ? OP_GLOBAL_MAX_POOL : OP_GLOBAL_AVERAGE_POOL;
    x->height = 1;
    x->width = 1;
    return p->g ? apply(p, op, "pool", 1, &x->value, &x->value, err) : 0;
}

int piece_hard_sigmoid(struct pieces *p, struct flow *x, struct err *err)
{
    if (!p->g)
        return 0;
    int rc = apply(p, OP_HARD_SIGMOID, "gate", 1, &x->value, &x->value, err);
    return rc < 0 ? rc : graph_set_attr_float(p->g, producer(p, x), "alpha", 1.0f / 6, err);
}

/* Answers begin small, and learn more slowly than what they are made of (Jordan, 2024: "94 % on
 * CIFAR-10 in 3.29 seconds"); folded into the weights when the network is quantized. */
#define ANSWER_SCALE (1 / 9.0F)

int piece_answers(struct pieces *p, struct flow *x, struct err *err)
{
    const int64_t dims[] = {x->channels * x->height * x->width, p->outputs};
    int rc = count(p, (dims[0] + 1) * dims[1], err);
    *x = (struct flow){x->value, p->outputs, 1, 1};
    if (rc < 0 || !p->g)
        return rc;
    rc = apply(p, OP_FLATTEN, "flatten", 1, &x->value, &x->value, err);
    if (rc < 0)
        return rc;
    const int w = constant(p, "weight", 2, dims, 0, sqrt(1 / (double)dims[0]), err);
    const int inputs[] = {x->value, w, w < 0 ? w : constant(p, "bias", 1, dims + 1, 0, 0, err)};
    rc = apply(p, OP_GEMM, "gemm", 3, inputs, &x->value, err);
    if (rc < 0)
        return rc;
    struct node *gemm = p->g->nodes[p->g->values[x->value]->producer];
    return graph_set_attr_float(p->g, gemm, "alpha", ANSWER_SCALE, err);
}

static int join(struct pieces *p, enum op op, const char *what, struct flow *x,
                const struct flow *other, struct err *err)
{
    const int inputs[] = {x->value, other->value};
    return p->g ? apply(p, op, what, 2, inputs, &x->value, err) : 0;
}

int piece_add(struct pieces *p, struct flow *x, const struct flow *other, struct err *err)
{
    return join(p, OP_ADD, "add", x, other, err);
}

int piece_scale(struct pieces *p, struct flow *x, const struct flow *other, struct err *err)
{
    return join(p, OP_MUL, "scale", x, other, err);
}

/* ---- what several pieces are made of ---- */

int piece_conv_norm(struct pieces *p, struct flow *x, const struct piece_conv *conv,
                    struct err *err)
{
    int rc = piece_conv(p, x, conv, err);
    return rc < 0 ? rc : piece_norm(p, x, err);
}

int piece_conv_norm_relu(struct pieces *p, struct flow *x, const struct piece_conv *conv,
                         struct err *err)
{
    int rc = piece_conv_norm(p, x, conv, err);
    return rc < 0 ? rc : piece_relu(p, x, err);
}

int piece_shortcut(struct pieces *p, struct flow *x, int64_t width, int stride, struct err *err)
{
    if (width == x->channels && stride == 1)
        return 0;
    return piece_conv_norm(
        p, x, &(struct piece_conv){.width = width, .kernel = 1, .stride = stride}, err);
}
