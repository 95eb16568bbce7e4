/* A first layer that is known without training: pictures' patches, whitened. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/eigen.h"
#include "shared/base/mem.h"
#include "shared/graph/infer.h"
#include "shared/train/unfold.h"

#define EPSILON 5e-4 /* added to variances: what hardly varies is not blown up */
#define PIECE 64     /* samples read together */

struct whitening {
    struct arena *arena;
    const struct node *node;
    struct window w;
    int64_t channels, height, width; /* of a sample */
    int64_t d;                       /* numbers of a patch */
    int64_t *offset;                 /* [d]: where they lie from the patch's corner */
    double *sum, *square, *patch;    /* [d], [d * d], [d] */
    double *vectors, *values;        /* [d * d]: row i belongs to values[i] */
    int64_t n;                       /* patches seen */
};

static void whitening_release(struct whitening *h)
{
    arena_free(h->arena);
}

/* ---- covariance ---- */

static void add_patch(struct whitening *h, const float *corner)
{
    for (int64_t i = 0; i < h->d; i++) {
        h->patch[i] = (double)corner[h->offset[i]];
        h->sum[i] += h->patch[i];
    }
    for (int64_t i = 0; i < h->d; i++)
        for (int64_t j = 0; j <= i; j++)
            h->square[i * h->d + j] += h->patch[i] * h->patch[j];
    h->n++;
}

static void add_sample(struct whitening *h, const float *x)
{
    const int64_t down = h->height - (h->w.kernel[0] - 1) * h->w.dilation[0],
                  right = h->width - (h->w.kernel[1] - 1) * h->w.dilation[1];
    for (int64_t y = 0; y < down; y += h->w.stride[0])
        for (int64_t z = 0; z < right; z += h->w.stride[1])
            add_patch(h, x + y * h->width + z);
}

static int add_samples(struct whitening *h, int64_t n, infer_fill *fill, void *ctx, struct err *err)
{
    const int64_t size = h->channels * h->height * h->width;
    float *x = arena_alloc(h->arena, (size_t)PIECE, (size_t)size * sizeof(*x));
    if (!x)
        return err_oom(err, "patches");
    for (int64_t first = 0; first < n; first += PIECE) {
        const int64_t count = n - first < PIECE ? n - first : PIECE;
        int rc = fill(ctx, first, count, x, err);
        if (rc < 0)
            return rc;
        for (int64_t i = 0; i < count; i++)
            add_sample(h, x + i * size);
    }
    if (h->n < 2 * h->d)
        return err_set(err, ERR_FAILED_PRECONDITION, "%lld patches are too few to whiten",
                       (long long)h->n);
    for (int64_t i = 0; i < h->d; i++)
        for (int64_t j = 0; j <= i; j++) {
            const double mean = h->square[i * h->d + j] / (double)h->n;
            const double c = mean - h->sum[i] * h->sum[j] / (double)h->n / (double)h->n;
            h->square[i * h->d + j] = h->square[j * h->d + i] = c;
        }
    return 0;
}

/* ---- components ---- */

static void find_components(struct whitening *h)
{
    eigen_symmetric(h->square, h->vectors, h->values, h->d);
    for (int64_t i = 0; i < h->d; i++)
        h->values[i] = fmax(h->values[i], 0);
}

/* The largest value's vector that was not taken yet, its largest number positive. */
static const double *take_largest(struct whitening *h, double *ret_value)
{
    int64_t best = 0, largest = 0;
    for (int64_t i = 0; i < h->d; i++)
        if (h->values[i] > h->values[best])
            best = i;
    double *v = h->vectors + best * h->d;
    for (int64_t i = 0; i < h->d; i++)
        if (fabs(v[i]) > fabs(v[largest]))
            largest = i;
    const double sign = copysign(1, v[largest]);
    for (int64_t i = 0; i < h->d; i++)
        v[i] *= sign;
    *ret_value = h->values[best];
    h->values[best] = -1;
    return v;
}

/* ---- the layer ---- */

static const struct node *find_first(const struct graph *g)
{
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_CONV && g->n_inputs == 1 &&
            g->nodes[n]->inputs[0] == g->inputs[0])
            return g->nodes[n];
    return NULL;
}

static int open_layer(struct whitening *h, const struct graph *g, struct err *err)
{
    h->node = find_first(g);
    if (!h->node)
        return err_set(err, ERR_FAILED_PRECONDITION, "%s",
                       "no convolution reads the network's input: nothing can be whitened");
    int rc = graph_window(g, h->node, &h->w, err);
    if (rc < 0)
        return rc;
    const struct value *x = graph_input_of(g, h->node, 0), *w = graph_input_of(g, h->node, 1);
    if (h->w.rank != 2 || h->w.group != 1 || !w->constant || w->constant->dtype != DTYPE_F32)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "'%s' is no plain convolution of pictures: it cannot be whitened",
                       h->node->name);
    h->channels = x->shape.dim[1];
    h->height = x->shape.dim[2];
    h->width = x->shape.dim[3];
    h->d = h->channels * h->w.kernel[0] * h->w.kernel[1];
    if (h->d > WHITEN_MOST_PATCH)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "'%s' reads patches of %lld numbers: whitening takes at most %d",
                       h->node->name, (long long)h->d, WHITEN_MOST_PATCH);
    return 0;
}

static int take_memory(struct whitening *h, struct err *err)
{
    const size_t d = (size_t)h->d;
    h->offset = arena_alloc(h->arena, d, sizeof(*h->offset));
    h->sum = arena_alloc(h->arena, d, sizeof(double));
    h->patch = arena_alloc(h->arena, d, sizeof(double));
    h->values = arena_alloc(h->arena, d, sizeof(double));
    h->square = arena_alloc(h->arena, d * d, sizeof(double));
    h->vectors = arena_alloc(h->arena, d * d, sizeof(double));
    if (!h->offset || !h->sum || !h->patch || !h->values || !h->square || !h->vectors)
        return err_oom(err, "whitening");
    int64_t i = 0;
    for (int64_t c = 0; c < h->channels; c++)
        for (int64_t y = 0; y < h->w.kernel[0]; y++)
            for (int64_t z = 0; z < h->w.kernel[1]; z++)
                h->offset[i++] =
                    (c * h->height + y * h->w.dilation[0]) * h->width + z * h->w.dilation[1];
    return 0;
}

static void set_weights(struct whitening *h, const struct graph *g)
{
    struct tensor *t = graph_input_of(g, h->node, 1)->constant;
    /* where there are more filters than directions the others stay as they began */
    const int64_t most = 2 * h->d, filters = t->shape.dim[0] < most ? t->shape.dim[0] : most;
    const int64_t components = (filters + 1) / 2;
    float *w = t->data;
    for (int64_t o = 0; o < components; o++) {
        double value;
        const double *v = take_largest(h, &value);
        for (int64_t i = 0; i < h->d; i++) {
            const float x = (float)(v[i] / sqrt(value + EPSILON));
            w[o * h->d + i] = x;
            if (o + components < filters)
                w[(o + components) * h->d + i] = -x;
        }
    }
}

int whiten_first(struct graph *g, int64_t n, infer_fill *fill, void *ctx, const char **ret_weights,
                 struct err *err)
{
    _cleanup_(whitening_release) struct whitening h = {.arena = arena_new()};
    if (!h.arena)
        return err_oom(err, "whitening");
    int rc = open_layer(&h, g, err);
    if (rc == 0)
        rc = take_memory(&h, err);
    if (rc == 0)
        rc = add_samples(&h, n, fill, ctx, err);
    if (rc < 0)
        return rc;
    find_components(&h);
    set_weights(&h, g);
    *ret_weights = graph_input_of(g, h.node, 1)->name;
    return 0;
}
