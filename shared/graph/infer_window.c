/* Convolutions and pools: geometry and shapes. */
#include <inttypes.h>
#include <string.h>

#include "shared/graph/infer_priv.h"

/* Attribute values beyond this are refused, so that sums and products below cannot overflow. */
#define WINDOW_MAX ((int64_t)1 << 30)

enum auto_pad { PAD_EXPLICIT, PAD_SAME_UPPER, PAD_SAME_LOWER, PAD_VALID };

static int read_auto_pad(const struct node *node, enum auto_pad *ret, struct err *err)
{
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *text = node_string(node, "auto_pad", "NOTSET");
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum auto_pad)i;
            return 0;
        }
    }
    return node_err(err, ERR_INVALID_ARGUMENT, node,
                    "auto_pad is '%.64s' (NOTSET, SAME_UPPER, SAME_LOWER, VALID are known)", text);
}

/* Up to `max` numbers of an attribute, each at least `least`; `otherwise` where it is absent. */
static int read_sizes(const struct node *node, const char *name, int n, int64_t least,
                      int64_t otherwise, int64_t *ret, struct err *err)
{
    const struct attr *a = node_attr(node, name);
    for (int i = 0; i < n; i++)
        ret[i] = otherwise;
    if (!a || (a->n == 0 && n > 0))
        return 0;
    if (a->n != n)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "%s has %d entries where %d are needed",
                        name, a->n, n);
    for (int i = 0; i < n; i++) {
        if (a->ints[i] < least || a->ints[i] > WINDOW_MAX)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "%s holds %" PRId64, name, a->ints[i]);
        ret[i] = a->ints[i];
    }
    return 0;
}

static int read_input(const struct graph *g, const struct node *node, struct window *w,
                      struct err *err)
{
    const struct shape *x = infer_shape_of(g, node, 0);
    char text[128];
    if (x->rank < 3 || x->rank > 5)
        return node_err(err, x->rank > 5 ? ERR_UNIMPLEMENTED : ERR_INVALID_ARGUMENT, node,
                        "input %s: 3 to 5 dimensions are possible", shape_text(x, text));
    w->rank = x->rank - 2;
    for (int i = 0; i < w->rank; i++) {
        w->in[i] = x->dim[i + 2];
        if (w->in[i] == DIM_BATCH)
            return node_err(err, ERR_UNIMPLEMENTED, node,
                            "input %s: the batch is a spatial dimension", shape_text(x, text));
        if (w->in[i] > WINDOW_MAX)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "input %s is too large",
                            shape_text(x, text));
    }
    return 0;
}

/* The kernel of a convolution comes from its weights; kernel_shape may only repeat it. */
static int read_kernel(const struct graph *g, const struct node *node, struct window *w,
                       struct err *err)
{
    if (node->op == OP_AVERAGE_POOL || node->op == OP_MAX_POOL) {
        const struct attr *shape = node_attr(node, "kernel_shape");
        if (!shape || shape->n != w->rank)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "kernel_shape needs %d entries",
                            w->rank);
        return read_sizes(node, "kernel_shape", w->rank, 1, 0, w->kernel, err);
    }
    const struct shape *weights = infer_shape_of(g, node, 1);
    char a[128], b[128];
    if (weights->rank != w->rank + 2)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "weights %s do not fit input %s",
                        shape_text(weights, a), shape_text(infer_shape_of(g, node, 0), b));
    for (int i = 0; i < weights->rank; i++)
        if (weights->dim[i] < 1 || weights->dim[i] > WINDOW_MAX)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "weights have shape %s",
                            shape_text(weights, a));
    int64_t told[3];
    int rc = read_sizes(node, "kernel_shape", w->rank, 1, 0, told, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < w->rank; i++) {
        w->kernel[i] = weights->dim[i + 2];
        if (told[i] != 0 && told[i] != w->kernel[i])
            return node_err(err, ERR_INVALID_ARGUMENT, node,
                            "kernel_shape contradicts the weights %s", shape_text(weights, a));
    }
    return 0;
}

static int64_t extent(const struct window *w, int i)
{
    return (w->kernel[i] - 1) * w->dilation[i] + 1;
}

/* Total padding, split so that the odd one lies at the end (SAME_UPPER) or at the begin. */
static void split_pad(struct window *w, int i, int64_t total, bool more_at_end)
{
    total = total < 0 ? 0 : total;
    w->pad_begin[i] = more_at_end ? total / 2 : total - total / 2;
    w->pad_end[i] = total - w->pad_begin[i];
}

static int place_forward(const struct node *node, struct window *w, int i, enum auto_pad pad,
                         struct err *err)
{
    if (pad == PAD_SAME_UPPER || pad == PAD_SAME_LOWER) {
        w->out[i] = (w->in[i] + w->stride[i] - 1) / w->stride[i];
        split_pad(w, i, (w->out[i] - 1) * w->stride[i] + extent(w, i) - w->in[i],
                  pad == PAD_SAME_UPPER);
        return 0;
    }
    int64_t room = w->in[i] + w->pad_begin[i] + w->pad_end[i] - extent(w, i);
    if (room < 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "a kernel of %" PRId64 " is larger than the padded input of %" PRId64,
                        extent(w, i), w->in[i] + w->pad_begin[i] + w->pad_end[i]);
    w->out[i] = room / w->stride[i] + 1;
    if (w->ceil_mode && pad == PAD_EXPLICIT && room % w->stride[i] != 0) {
        /* A last window counts only when it begins on the input or the padding before it. */
        if (w->out[i] * w->stride[i] < w->in[i] + w->pad_begin[i])
            w->out[i]++;
    }
    return 0;
}

/* ConvTranspose: out = stride * (in - 1) + output_padding + extent - pads, where output_shape or
 * auto_pad may ask for an out, and the pads follow. */
static int place_transposed(const struct node *node, struct window *w, int i, enum auto_pad pad,
                            int64_t asked, struct err *err)
{
    int64_t full = w->stride[i] * (w->in[i] - 1) + w->output_pad[i] + extent(w, i);
    bool same = pad == PAD_SAME_UPPER || pad == PAD_SAME_LOWER;
    if (asked > 0 || same) {
        w->out[i] = asked > 0 ? asked : w->in[i] * w->stride[i];
        split_pad(w, i, full - w->out[i], pad == PAD_SAME_UPPER);
    } else {
        w->out[i] = full - w->pad_begin[i] - w->pad_end[i];
    }
    if (w->out[i] < 1 || w->in[i] < 1)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "dimension %d of the output would be %" PRId64, i + 2, w->out[i]);
    w->output_pad[i] = w->out[i] - (full - w->output_pad[i] - w->pad_begin[i] - w->pad_end[i]);
    return 0;
}

static int read_attributes(const struct node *node, struct window *w, enum auto_pad *pad,
                           struct err *err)
{
    int64_t pads[6];
    int rc = read_auto_pad(node, pad, err);
    if (rc == 0)
        rc = read_sizes(node, "strides", w->rank, 1, 1, w->stride, err);
    if (rc == 0)
        rc = read_sizes(node, "dilations", w->rank, 1, 1, w->dilation, err);
    if (rc == 0)
        rc = read_sizes(node, "pads", 2 * w->rank, 0, 0, pads, err);
    if (rc == 0)
        rc = read_sizes(node, "output_padding", w->rank, 0, 0, w->output_pad, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < w->rank && *pad == PAD_EXPLICIT; i++) {
        w->pad_begin[i] = pads[i];
        w->pad_end[i] = pads[w->rank + i];
    }
    w->group = node_int(node, "group", 1);
    w->ceil_mode = node_int(node, "ceil_mode", 0) != 0;
    w->count_include_pad = node_int(node, "count_include_pad", 0) != 0;
    if (w->group < 1 || w->group > WINDOW_MAX)
        return node_err(err, ERR_INVALID_ARGUMENT, node, "group is %" PRId64, w->group);
    return 0;
}

int graph_window(const struct graph *g, const struct node *node, struct window *ret,
                 struct err *err)
{
    struct window w = {0};
    enum auto_pad pad = PAD_EXPLICIT;
    int64_t asked[3] = {0};
    int rc = read_input(g, node, &w, err);
    if (rc == 0)
        rc = read_kernel(g, node, &w, err);
    if (rc == 0)
        rc = read_attributes(node, &w, &pad, err);
    const struct attr *shape = node_attr(node, "output_shape");
    if (rc == 0 && shape && shape->n == w.rank + 2)
        memcpy(asked, shape->ints + 2, (size_t)w.rank * sizeof(*asked)); /* written in full */
    else if (rc == 0)
        rc = read_sizes(node, "output_shape", w.rank, 1, 0, asked, err);
    for (int i = 0; i < w.rank && rc == 0; i++) {
        if (extent(&w, i) > WINDOW_MAX || asked[i] < 0 || asked[i] > WINDOW_MAX)
            rc = node_err(err, ERR_INVALID_ARGUMENT, node, "the kernel spans too much");
        else if (node->op == OP_CONV_TRANSPOSE)
            rc = place_transposed(node, &w, i, pad, asked[i], err);
        else
            rc = place_forward(node, &w, i, pad, err);
    }
    if (rc == 0)
        *ret = w;
    return rc;
}

static int check_bias(const struct graph *g, const struct node *node, int64_t channels,
                      struct err *err)
{
    const struct value *bias = graph_input_of(g, node, 2);
    char text[128];
    if (bias && (bias->shape.rank != 1 || bias->shape.dim[0] != channels))
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "bias %s where there are %" PRId64 " output channels",
                        shape_text(&bias->shape, text), channels);
    const enum dtype dtype = graph_input_of(g, node, 0)->dtype;
    for (int i = 1; i < node->n_inputs; i++)
        if (graph_input_of(g, node, i) && graph_input_of(g, node, i)->dtype != dtype)
            return node_err(err, ERR_INVALID_ARGUMENT, node, "inputs of different types: %s and %s",
                            dtype_name(dtype), dtype_name(graph_input_of(g, node, i)->dtype));
    if (!dtype_is_float(dtype))
        return node_err(err, ERR_INVALID_ARGUMENT, node, "needs floating point, not %s",
                        dtype_name(dtype));
    return 0;
}

static int set_windowed(struct graph *g, const struct node *node, const struct window *w,
                        int64_t channels, struct err *err)
{
    const struct value *x = graph_input_of(g, node, 0);
    struct shape shape = {.rank = w->rank + 2, .dim = {x->shape.dim[0], channels}};
    for (int i = 0; i < w->rank; i++)
        shape.dim[i + 2] = w->out[i];
    return infer_set(g, node, 0, x->dtype, &shape, err);
}

int infer_conv(struct graph *g, const struct node *node, struct err *err)
{
    struct window w;
    int rc = graph_window(g, node, &w, err);
    if (rc < 0)
        return rc;
    const struct shape *x = infer_shape_of(g, node, 0), *weights = infer_shape_of(g, node, 1);
    char a[128], b[128];
    if (x->dim[1] != weights->dim[1] * w.group || weights->dim[0] % w.group != 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "weights %s in %" PRId64 " groups do not fit input %s",
                        shape_text(weights, a), w.group, shape_text(x, b));
    rc = check_bias(g, node, weights->dim[0], err);
    return rc < 0 ? rc : set_windowed(g, node, &w, weights->dim[0], err);
}

int infer_conv_transpose(struct graph *g, const struct node *node, struct err *err)
{
    struct window w;
    int rc = graph_window(g, node, &w, err);
    if (rc < 0)
        return rc;
    const struct shape *x = infer_shape_of(g, node, 0), *weights = infer_shape_of(g, node, 1);
    char a[128], b[128];
    if (x->dim[1] != weights->dim[0] || weights->dim[0] % w.group != 0)
        return node_err(err, ERR_INVALID_ARGUMENT, node,
                        "weights %s in %" PRId64 " groups do not fit input %s",
                        shape_text(weights, a), w.group, shape_text(x, b));
    int64_t channels = weights->dim[1] * w.group;
    rc = check_bias(g, node, channels, err);
    return rc < 0 ? rc : set_windowed(g, node, &w, channels, err);
}

int infer_pool(struct graph *g, const struct node *node, struct err *err)
{
    struct window w;
    int rc = graph_window(g, node, &w, err);
    if (rc < 0)
        return rc;
    rc = set_windowed(g, node, &w, infer_shape_of(g, node, 0)->dim[1], err);
    struct value *indices = graph_output_of(g, node, 1);
    if (rc < 0 || !indices)
        return rc;
    return infer_set(g, node, 1, DTYPE_S64, &graph_output_of(g, node, 0)->shape, err);
}
