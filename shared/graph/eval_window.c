/* Geometry of convolutions and pools. */
#include <string.h>

#include "shared/graph/eval_internal.h"

/* Products of two such values, and sums of a few products, fit in int64_t. */
#define LIMIT ((int64_t)1 << 30)

/* The attribute's values, or `otherwise` for each when it is absent, aligned right in ret[3]. */
static int read_list(struct eval *e, const char *name, int rank, int64_t min, int64_t otherwise,
                     int64_t ret[3])
{
    int64_t list[3] = {otherwise, otherwise, otherwise};
    int n = node_ints(e->node, name, 3, list);
    if (n != 0 && n != rank)
        return eval_bad(e, "%s has %d values for %d spatial dimensions", name, n, rank);
    for (int i = 0; i < rank; i++) {
        if (list[i] < min || list[i] > LIMIT)
            return eval_bad(e, "%s holds %lld", name, (long long)list[i]);
        ret[3 - rank + i] = list[i];
    }
    return 0;
}

static int read_pads(struct eval *e, struct box *box)
{
    int64_t list[6] = {0};
    int n = node_ints(e->node, "pads", 6, list), rank = box->rank;
    if (n != 0 && n != 2 * rank)
        return eval_bad(e, "pads has %d values for %d spatial dimensions", n, rank);
    for (int i = 0; i < 2 * rank; i++) {
        if (list[i] < 0 || list[i] > LIMIT)
            return eval_bad(e, "pads holds %lld", (long long)list[i]);
    }
    for (int i = 0; i < rank; i++) {
        box->pad_begin[3 - rank + i] = list[i];
        box->pad_end[3 - rank + i] = list[rank + i];
    }
    return 0;
}

enum auto_pad { NOTSET, SAME_UPPER, SAME_LOWER, VALID };

static int read_auto_pad(struct eval *e, enum auto_pad *ret)
{
    static const char *const names[] = {"NOTSET", "SAME_UPPER", "SAME_LOWER", "VALID"};
    const char *text = node_string(e->node, "auto_pad", "NOTSET");
    for (int i = 0; i < 4; i++) {
        if (strcmp(text, names[i]) == 0) {
            *ret = (enum auto_pad)i;
            return 0;
        }
    }
    return eval_bad(e, "auto_pad '%s'", text);
}

/* Everything but pads and outputs. */
static int read_box(struct eval *e, const struct shape *in, const int64_t *kernel, struct box *box)
{
    int rank = in->rank - 2;
    if (rank < 1 || rank > 3)
        return eval_bad(e, "an input of rank %d (3 to 5 are possible)", in->rank);
    *box = (struct box){.rank = rank};
    for (int i = 0; i < 3; i++)
        box->in[i] = box->out[i] = box->kernel[i] = box->stride[i] = box->dilation[i] = 1;
    for (int i = 0; i < rank; i++) {
        box->in[3 - rank + i] = in->dim[2 + i];
        if (in->dim[2 + i] > LIMIT)
            return eval_bad(e, "a spatial dimension of %lld", (long long)in->dim[2 + i]);
    }
    bool named = node_attr(e->node, "kernel_shape") != NULL;
    if (!kernel && !named)
        return eval_bad(e, "kernel_shape is missing");
    int rc = named ? read_list(e, "kernel_shape", rank, 1, 0, box->kernel) : 0;
    if (rc < 0)
        return rc;
    for (int i = 0; kernel && i < rank; i++) {
        int64_t *k = &box->kernel[3 - rank + i];
        if (named && *k != kernel[i])
            return eval_bad(e, "kernel_shape does not match the weights");
        if (kernel[i] < 1 || kernel[i] > LIMIT)
            return eval_bad(e, "a kernel of size %lld", (long long)kernel[i]);
        *k = kernel[i];
    }
    rc = read_list(e, "strides", rank, 1, 1, box->stride);
    return rc < 0 ? rc : read_list(e, "dilations", rank, 1, 1, box->dilation);
}

static int64_t extent(const struct box *box, int i)
{
    return (box->kernel[i] - 1) * box->dilation[i] + 1;
}

static void spread(int64_t total, bool more_at_end, int64_t *begin, int64_t *end)
{
    if (total < 0)
        total = 0;
    *begin = more_at_end ? total / 2 : total - total / 2;
    *end = total - *begin;
}

int eval_window(struct eval *e, const struct shape *in, const int64_t *kernel, bool ceil_mode,
                struct box *ret)
{
    struct box box;
    enum auto_pad mode = NOTSET;
    int rc = read_box(e, in, kernel, &box);
    if (rc == 0)
        rc = read_auto_pad(e, &mode);
    if (rc == 0 && mode == NOTSET)
        rc = read_pads(e, &box);
    if (rc < 0)
        return rc;
    for (int i = 3 - box.rank; i < 3; i++) {
        int64_t stride = box.stride[i], size = extent(&box, i);
        if (mode == SAME_UPPER || mode == SAME_LOWER) {
            box.out[i] = (box.in[i] + stride - 1) / stride;
            spread((box.out[i] - 1) * stride + size - box.in[i], mode == SAME_UPPER,
                   &box.pad_begin[i], &box.pad_end[i]);
            continue;
        }
        int64_t room = box.in[i] + box.pad_begin[i] + box.pad_end[i] - size;
        if (room < 0)
            return eval_bad(e, "a kernel of extent %lld does not fit an input of %lld with padding",
                            (long long)size, (long long)box.in[i]);
        /* ONNX's formula for VALID is the same with and without ceil_mode. */
        bool up = ceil_mode && mode == NOTSET;
        box.out[i] = (up ? room + stride - 1 : room) / stride + 1;
        /* Rounding up, no window begins in the padding behind the input. */
        if (up && (box.out[i] - 1) * stride >= box.in[i] + box.pad_begin[i])
            box.out[i]--;
    }
    *ret = box;
    return 0;
}

/* Takes output_shape's spatial values: some files give the batch and the channels as well. */
static int read_output_shape(struct eval *e, int rank, bool *ret_given, int64_t ret[3])
{
    int64_t list[5];
    int n = node_ints(e->node, "output_shape", 5, list);
    *ret_given = n > 0;
    if (n == 0)
        return 0;
    if (n != rank && n != rank + 2)
        return eval_bad(e, "output_shape has %d values for %d spatial dimensions", n, rank);
    for (int i = 0; i < rank; i++) {
        ret[3 - rank + i] = list[n - rank + i];
        if (list[n - rank + i] < 0 || list[n - rank + i] > LIMIT)
            return eval_bad(e, "output_shape holds %lld", (long long)list[n - rank + i]);
    }
    return 0;
}

int eval_window_transposed(struct eval *e, const struct shape *in, const int64_t *kernel,
                           struct box *ret)
{
    struct box box;
    enum auto_pad mode = NOTSET;
    int64_t extra[3] = {0}, wanted[3] = {1, 1, 1};
    bool given = false;
    int rc = read_box(e, in, kernel, &box);
    if (rc == 0)
        rc = read_auto_pad(e, &mode);
    if (rc == 0 && mode == NOTSET)
        rc = read_pads(e, &box);
    if (rc == 0)
        rc = read_list(e, "output_padding", box.rank, 0, 0, extra);
    if (rc == 0)
        rc = read_output_shape(e, box.rank, &given, wanted);
    if (rc < 0)
        return rc;
    for (int i = 3 - box.rank; i < 3; i++) {
        int64_t natural = (box.in[i] - 1) * box.stride[i] + extra[i] + extent(&box, i);
        if (box.in[i] == 0)
            natural = 0;
        if (given || mode == SAME_UPPER || mode == SAME_LOWER) {
            box.out[i] = given ? wanted[i] : box.in[i] * box.stride[i];
            spread(natural - box.out[i], mode == SAME_UPPER, &box.pad_begin[i], &box.pad_end[i]);
        } else {
            box.out[i] = natural - box.pad_begin[i] - box.pad_end[i];
        }
        if (box.out[i] < 0)
            return eval_bad(e, "an output of size %lld", (long long)box.out[i]);
    }
    *ret = box;
    return 0;
}

struct shape eval_box_shape(int64_t n, int64_t c, const struct box *box)
{
    struct shape shape = {.rank = box->rank + 2, .dim = {n, c}};
    for (int i = 0; i < box->rank; i++)
        shape.dim[2 + i] = box->out[3 - box->rank + i];
    return shape;
}

void eval_range(int64_t n, int64_t stride, int64_t offset, int64_t limit, int64_t *lo, int64_t *hi)
{
    *lo = offset >= 0 ? 0 : (-offset + stride - 1) / stride;
    *hi = limit > offset ? (limit - 1 - offset) / stride + 1 : 0;
    if (*hi > n)
        *hi = n;
    if (*lo > *hi)
        *lo = *hi;
}
