/* Conv and ConvTranspose: direct loops; the innermost runs along a row of the output (or input), so
 * that the compiler can use vectors. */
#include <string.h>

#include "shared/graph/eval_internal.h"

struct conv {
    struct box box;
    int64_t batch, group, in_channels, out_channels; /* channels of all groups together */
    const double *w;
    double *x, *y;
};

static int64_t volume(const int64_t dim[3])
{
    return dim[0] * dim[1] * dim[2];
}

/* Calls row(ctx, small, large, n, step) for every row segment that a kernel position at offset
 * `at` connects: `small` is the side whose positions count by one, `large` = small * stride + at -
 * pad the other one. Of a convolution, small is the output; of a transposed one, the input. */
typedef void segment_fn(double w, double *x, double *y, int64_t x_step, int64_t y_step, int64_t n);

static void multiply_row(double w, double *x, double *y, int64_t x_step, int64_t y_step, int64_t n)
{
    if (x_step == 1 && y_step == 1) {
        for (int64_t i = 0; i < n; i++)
            y[i] += w * x[i];
    } else {
        for (int64_t i = 0; i < n; i++)
            y[i * y_step] += w * x[i * x_step];
    }
}

/* Adds w times the input channel x to the output channel y for one kernel position. `small` and
 * `large` are the two volumes; `from_small`: x is the small one. */
static void connect(const struct box *box, const int64_t small[3], const int64_t large[3],
                    const int64_t at[3], bool from_small, double w, double *x, double *y)
{
    int64_t lo[3], hi[3], offset[3];
    for (int i = 0; i < 3; i++) {
        offset[i] = at[i] * box->dilation[i] - box->pad_begin[i];
        eval_range(small[i], box->stride[i], offset[i], large[i], &lo[i], &hi[i]);
    }
    int64_t n = hi[2] - lo[2];
    if (n <= 0)
        return;
    for (int64_t d = lo[0]; d < hi[0]; d++) {
        for (int64_t h = lo[1]; h < hi[1]; h++) {
            int64_t s = (d * small[1] + h) * small[2] + lo[2];
            int64_t ld = d * box->stride[0] + offset[0], lh = h * box->stride[1] + offset[1];
            int64_t l = (ld * large[1] + lh) * large[2] + lo[2] * box->stride[2] + offset[2];
            if (from_small)
                multiply_row(w, x + s, y + l, 1, box->stride[2], n);
            else
                multiply_row(w, x + l, y + s, box->stride[2], 1, n);
        }
    }
}

/* Output channel m of a sample from input channel c, with the kernel w. */
static void channel(const struct box *box, bool transposed, const double *w, double *x, double *y)
{
    const int64_t *small = transposed ? box->in : box->out;
    const int64_t *large = transposed ? box->out : box->in;
    int64_t at[3];
    for (at[0] = 0; at[0] < box->kernel[0]; at[0]++) {
        for (at[1] = 0; at[1] < box->kernel[1]; at[1]++) {
            for (at[2] = 0; at[2] < box->kernel[2]; at[2]++)
                connect(box, small, large, at, transposed, *w++, x, y);
        }
    }
}

/* A 1x1 convolution that keeps every position is one long row. */
static void flatten_pointwise(struct box *box)
{
    for (int i = 0; i < 3; i++) {
        if (box->kernel[i] != 1 || box->stride[i] != 1 || box->in[i] != box->out[i] ||
            box->pad_begin[i] != 0)
            return;
    }
    box->in[2] = box->out[2] = volume(box->in);
    box->in[0] = box->in[1] = box->out[0] = box->out[1] = 1;
}

static void run(struct conv *c, bool transposed)
{
    flatten_pointwise(&c->box);
    int64_t in = volume(c->box.in), out = volume(c->box.out), taps = volume(c->box.kernel);
    int64_t ic = c->in_channels / c->group, oc = c->out_channels / c->group;
    for (int64_t n = 0; n < c->batch; n++) {
        for (int64_t o = 0; o < c->out_channels; o++) {
            int64_t g = o / oc;
            double *y = c->y + (n * c->out_channels + o) * out;
            for (int64_t i = 0; i < ic; i++) {
                double *x = c->x + (n * c->in_channels + g * ic + i) * in;
                /* Conv: [out, in / group, k...]; ConvTranspose: [in, out / group, k...] */
                int64_t kernel = transposed ? (g * ic + i) * oc + o % oc : o * ic + i;
                channel(&c->box, transposed, c->w + kernel * taps, x, y);
            }
        }
    }
}

static void fill_bias(const struct conv *c, const double *bias)
{
    int64_t out = volume(c->box.out);
    for (int64_t i = 0; i < c->batch * c->out_channels; i++) {
        for (int64_t k = 0; k < out; k++)
            c->y[i * out + k] = bias[i % c->out_channels];
    }
}

static int compute(struct eval *e, struct conv *c, bool transposed)
{
    const struct tensor *bias = eval_in(e, 2);
    if (bias && (bias->shape.rank != 1 || bias->shape.dim[0] != c->out_channels)) {
        char text[128];
        return eval_bad(e, "bias of shape %s for %lld output channels",
                        shape_text(&bias->shape, text), (long long)c->out_channels);
    }
    struct shape shape = eval_box_shape(c->batch, c->out_channels, &c->box);
    struct tensor *out = eval_out(e, 0, e->in[0]->dtype, &shape);
    if (!out)
        return eval_failed(e);
    _cleanup_(freep) double *x = eval_doubles(e, e->in[0]);
    _cleanup_(freep) double *w = eval_doubles(e, e->in[1]);
    _cleanup_(freep) double *y = eval_doubles(e, out);
    _cleanup_(freep) double *b = bias ? eval_doubles(e, bias) : NULL;
    if (!x || !w || !y || (bias && !b))
        return eval_failed(e);
    c->x = x;
    c->w = w;
    c->y = y;
    if (b)
        fill_bias(c, b);
    if (shape_elements(&shape) > 0)
        run(c, transposed);
    eval_store_doubles(out, y);
    return 0;
}

/* The checks that both share. */
static int check(struct eval *e, struct conv *c)
{
    const struct shape *x = &e->in[0]->shape, *w = &e->in[1]->shape;
    char tx[128], tw[128];
    if (x->rank < 3 || x->rank > 5 || w->rank != x->rank)
        return eval_bad(e, "input %s with weights %s", shape_text(x, tx), shape_text(w, tw));
    c->group = node_int(e->node, "group", 1);
    c->batch = x->dim[0];
    c->in_channels = x->dim[1];
    if (c->group < 1 || c->in_channels % c->group != 0 || w->dim[0] % c->group != 0)
        return eval_bad(e, "group %lld with input %s and weights %s", (long long)c->group,
                        shape_text(x, tx), shape_text(w, tw));
    return 0;
}

int eval_conv(struct eval *e)
{
    struct conv c = {0};
    int rc = check(e, &c);
    if (rc < 0)
        return rc;
    const struct shape *x = &e->in[0]->shape, *w = &e->in[1]->shape;
    char tx[128], tw[128];
    c.out_channels = w->dim[0];
    if (w->dim[1] != c.in_channels / c.group)
        return eval_bad(e, "input %s has other channels than weights %s", shape_text(x, tx),
                        shape_text(w, tw));
    rc = eval_window(e, x, w->dim + 2, false, &c.box);
    return rc < 0 ? rc : compute(e, &c, false);
}

int eval_conv_transpose(struct eval *e)
{
    struct conv c = {0};
    int rc = check(e, &c);
    if (rc < 0)
        return rc;
    const struct shape *x = &e->in[0]->shape, *w = &e->in[1]->shape;
    char tx[128], tw[128];
    if (w->dim[0] != c.in_channels)
        return eval_bad(e, "input %s has other channels than weights %s", shape_text(x, tx),
                        shape_text(w, tw));
    if (__builtin_mul_overflow(w->dim[1], c.group, &c.out_channels))
        return eval_bad(e, "group %lld", (long long)c.group);
    rc = eval_window_transposed(e, x, w->dim + 2, &c.box);
    return rc < 0 ? rc : compute(e, &c, true);
}
