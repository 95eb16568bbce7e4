/* BatchNormalization put back behind the layers that it was folded into. */
#include "shared/train/unfold.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "shared/graph/infer.h"
#include "shared/nn/quantize_stream.h"

#define EPSILON 1e-5f

/* A layer that gets a norm, and what its output is like. */
struct layer {
    struct node *node;
    struct node *end; /* whose output the norm reads: the layer's, or a MaxPool's behind it, which
                         has fewer values and changes nothing about channels */
    int output;       /* of the copy that is measured */
    int64_t channels; /* of its output [N, channels, ...] */
    int64_t first;    /* its first channel among those of all layers */
};

/* Count, mean and sum of squared deviations. */
struct moments {
    double n, mean, square;
};

struct unfolding {
    struct graph *g;
    struct arena *arena;
    int n_layers;
    struct layer *layers;
    int64_t n_channels;      /* of all layers */
    int64_t piece;           /* samples */
    struct moments *moments; /* [QUANT_PIECES_MAX][n_channels] */
    struct graph *copy;      /* whose outputs are the layers' */
    infer_fill *fill;
    void *ctx;
};

static void unfolding_release(struct unfolding *u)
{
    arena_free(u->arena);
    graph_free(u->copy);
    free(u->moments);
}

/* ---- which layers ---- */

static bool has_weights(const struct node *node)
{
    return node->op == OP_CONV || node->op == OP_CONV_TRANSPOSE || node->op == OP_GEMM ||
           node->op == OP_MATMUL;
}

static bool is_activation(enum op op)
{
    return op == OP_RELU || op == OP_CLIP || op == OP_LEAKY_RELU || op == OP_ELU ||
           op == OP_PRELU || op == OP_SIGMOID || op == OP_TANH || op == OP_HARD_SIGMOID ||
           op == OP_HARD_SWISH;
}

/* Of each node, whether a layer with weights comes behind it. */
static int find_followed(const struct graph *g, struct arena *arena, bool **ret, struct err *err)
{
    bool *wanted = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(bool));
    bool *followed = arena_alloc(arena, (size_t)g->n_nodes + 1, sizeof(bool));
    if (!wanted || !followed)
        return err_oom(err, "the layers of a network");
    for (int n = g->n_nodes - 1; n >= 0; n--) {
        const struct node *node = g->nodes[n];
        for (int i = 0; i < node->n_outputs; i++)
            followed[n] |= node->outputs[i] >= 0 && wanted[node->outputs[i]];
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0)
                wanted[node->inputs[i]] |= followed[n] || has_weights(node);
    }
    *ret = followed;
    return 0;
}

static bool plain_bias(const struct graph *g, const struct node *node, int64_t channels)
{
    const struct value *bias = graph_input_of(g, node, 2);
    return !bias ||
           (bias->constant && bias->dtype == DTYPE_F32 && shape_elements(&bias->shape) == channels);
}

/* The only node that reads the node's output; NULL where there is not exactly one. */
static struct node *only_reader(const struct graph *g, const struct uses *uses,
                                const struct node *node)
{
    const int sole = uses_sole(uses, node->outputs[0]);
    return sole >= 0 ? g->nodes[sole] : NULL;
}

static struct node *behind_pools(const struct graph *g, const struct uses *uses, struct node *node)
{
    struct node *next = only_reader(g, uses, node);
    while (next && next->op == OP_MAX_POOL && next->n_outputs == 1) {
        node = next;
        next = only_reader(g, uses, node);
    }
    return node;
}

static bool takes_norm(const struct graph *g, const struct uses *uses, const struct node *node,
                       const struct node *end, bool followed)
{
    if (!followed || node->op == OP_MATMUL || !has_weights(node))
        return false;
    const struct value *w = graph_input_of(g, node, 1), *out = graph_output_of(g, node, 0);
    if (!w->constant || w->dtype != DTYPE_F32 || !out->shape_known || out->shape.rank < 2 ||
        out->shape.dim[1] < 1 || !plain_bias(g, node, out->shape.dim[1]))
        return false;
    const struct node *next = only_reader(g, uses, node);
    if (node->op == OP_GEMM && !(next && is_activation(next->op)))
        return false;
    const struct node *behind = only_reader(g, uses, end);
    if (behind && behind->op == OP_BATCH_NORMALIZATION)
        return false;
    if (node->op != OP_GEMM)
        return true;
    return node_float(node, "alpha", 1) == 1 && node_float(node, "beta", 1) == 1;
}

static int find_layers(struct unfolding *u, struct err *err)
{
    struct graph *g = u->g;
    struct uses uses;
    bool *followed = NULL;
    int rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_uses(g, u->arena, &uses, err);
    if (rc >= 0)
        rc = find_followed(g, u->arena, &followed, err);
    if (rc < 0)
        return rc;
    u->layers = arena_alloc(u->arena, (size_t)g->n_nodes + 1, sizeof(*u->layers));
    if (!u->layers)
        return err_oom(err, "the layers of a network");
    for (int n = 0; n < g->n_nodes; n++) {
        struct node *node = g->nodes[n];
        struct node *end = behind_pools(g, &uses, node);
        if (!takes_norm(g, &uses, node, end, followed[n]))
            continue;
        const int64_t channels = graph_output_of(g, node, 0)->shape.dim[1];
        u->layers[u->n_layers++] =
            (struct layer){.node = node, .end = end, .channels = channels, .first = u->n_channels};
        u->n_channels += channels;
    }
    return 0;
}

/* ---- what their outputs are like ---- */

/* Chan, Golub and LeVeque (1979). */
static void merge(struct moments *to, const struct moments *from)
{
    const double n = to->n + from->n, d = from->mean - to->mean;
    if (from->n == 0)
        return;
    to->mean += d * from->n / n;
    to->square += from->square + d * d * to->n * from->n / n;
    to->n = n;
}

/* x: [count][channels][pixels] */
static void measure(const float *x, int64_t count, int64_t channels, int64_t pixels,
                    struct moments *moments)
{
    for (int64_t c = 0; c < channels; c++) {
        struct moments m = {.n = (double)(count * pixels)};
        for (int64_t s = 0; s < count; s++)
            for (int64_t i = 0; i < pixels; i++)
                m.mean += (double)x[(s * channels + c) * pixels + i];
        m.mean /= m.n;
        for (int64_t s = 0; s < count; s++)
            for (int64_t i = 0; i < pixels; i++) {
                const double d = (double)x[(s * channels + c) * pixels + i] - m.mean;
                m.square += d * d;
            }
        merge(&moments[c], &m);
    }
}

static int take(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                void *const *outputs, struct err *err)
{
    (void)worker;
    (void)input;
    (void)err;
    struct unfolding *u = ctx;
    struct moments *piece = u->moments + first / u->piece * u->n_channels;
    for (int i = 0; i < u->n_layers; i++) {
        const struct layer *l = &u->layers[i];
        const struct shape *shape = &u->copy->values[u->copy->outputs[l->output]]->shape;
        const int64_t elements = shape_elements_at(shape, count);
        measure(outputs[l->output], count, l->channels, elements / count / l->channels,
                piece + l->first);
    }
    return 0;
}

static int fill_floats(void *ctx, int64_t first, int64_t count, void *out, struct err *err)
{
    const struct unfolding *u = ctx;
    return u->fill(u->ctx, first, count, out, err);
}

/* A copy of the graph that gives the layers' outputs behind its own. */
static int make_copy(struct unfolding *u, struct err *err)
{
    int rc = graph_clone(u->g, &u->copy, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < u->n_layers; i++) {
        const char *name = graph_output_of(u->g, u->layers[i].end, 0)->name;
        const int value = graph_find_value(u->copy, name);
        int at = 0;
        while (at < u->copy->n_outputs && u->copy->outputs[at] != value)
            at++;
        if (at == u->copy->n_outputs && (rc = graph_add_output(u->copy, value, err)) < 0)
            return rc;
        u->layers[i].output = at;
    }
    return 0;
}

static int measure_layers(struct unfolding *u, const struct unfold_options *options, int64_t n,
                          struct err *err)
{
    u->moments = mem_calloc((size_t)u->n_channels * QUANT_PIECES_MAX + 1, sizeof(*u->moments));
    if (!u->moments)
        return err_oom(err, "statistics");
    if (n == 0) {
        for (int64_t c = 0; c < u->n_channels; c++)
            u->moments[c] = (struct moments){1, 0, 1};
        return 0;
    }
    int rc = make_copy(u, err);
    if (rc < 0)
        return rc;
    const struct quant_stream stream = {.graph = u->copy,
                                        .n = n,
                                        .threads = options ? options->threads : 0,
                                        .precision = PRECISION_FP32,
                                        .fill = fill_floats,
                                        .fill_ctx = u,
                                        .take = take,
                                        .take_ctx = u,
                                        .progress = options ? options->progress : NULL,
                                        .progress_ctx = options ? options->progress_ctx : NULL};
    u->piece = quant_stream_piece(&stream);
    if (u->piece < 1)
        return err_set(err, ERR_UNIMPLEMENTED, "%s", "a network with one input is needed");
    rc = quant_stream_run(&stream, err);
    for (int p = 1; p < QUANT_PIECES_MAX; p++)
        for (int64_t c = 0; c < u->n_channels; c++)
            merge(&u->moments[c], &u->moments[p * u->n_channels + c]);
    return rc;
}

/* ---- the norm ---- */

enum { SCALE, SHIFT, MEAN, VARIANCE, PARTS };

static int add_constants(struct graph *g, const struct node *node, int64_t channels, int ret[PARTS],
                         float *data[PARTS], struct err *err)
{
    static const char *const parts[PARTS] = {"norm_scale", "norm_shift", "norm_mean",
                                             "norm_variance"};
    const struct shape shape = shape_make(1, &channels);
    for (int i = 0; i < PARTS; i++) {
        char name[256];
        snprintf(name, sizeof(name), "%.200s_%s", node->name, parts[i]);
        ret[i] = graph_add_constant(g, name, DTYPE_F32, &shape, NULL, err);
        if (ret[i] < 0)
            return ret[i];
        data[i] = g->values[ret[i]]->constant->data;
    }
    return 0;
}

static int fill_constants(const struct layer *l, const struct moments *moments, float epsilon,
                          const struct value *bias, float *const data[PARTS], struct err *err)
{
    for (int64_t c = 0; c < l->channels; c++) {
        const double b = bias ? tensor_get_f64(bias->constant, c) : 0;
        const double variance = moments[c].square / moments[c].n;
        if (!isfinite(moments[c].mean) || !isfinite(variance) || variance > 1e30)
            return err_set(err, ERR_OUT_OF_RANGE, "node '%s': channel %lld is not finite",
                           l->node->name, (long long)c);
        /* from the rounded numbers, so that rounding does not change the function */
        data[VARIANCE][c] = (float)variance;
        data[MEAN][c] = (float)(moments[c].mean - b);
        data[SCALE][c] = (float)sqrt((double)data[VARIANCE][c] + (double)epsilon);
        data[SHIFT][c] = (float)((double)data[MEAN][c] + b);
    }
    return 0;
}

static int insert(struct unfolding *u, const struct layer *l, float epsilon, bool measured,
                  struct err *err)
{
    struct graph *g = u->g;
    struct node *node = l->node;
    const int out = l->end->outputs[0];
    int parts[PARTS];
    float *data[PARTS];
    int rc = add_constants(g, node, l->channels, parts, data, err);
    if (rc == 0)
        rc = fill_constants(l, u->moments + l->first, epsilon, graph_input_of(g, node, 2), data,
                            err);
    if (rc < 0)
        return rc;
    if (!measured) /* the numbers that were made up are those of the layer without its bias */
        for (int64_t c = 0; c < l->channels; c++) {
            data[SHIFT][c] -= data[MEAN][c];
            data[MEAN][c] = 0;
        }
    /* The new node reads a value of its own until all others read what it gives. */
    char name[256];
    snprintf(name, sizeof(name), "%.200s_norm", node->name);
    const int inputs[] = {out, parts[SCALE], parts[SHIFT], parts[MEAN], parts[VARIANCE]};
    const int at = graph_add_node(g, -1, OP_BATCH_NORMALIZATION, name, 5, inputs, 1, NULL, err);
    if (at < 0)
        return at;
    struct node *norm = g->nodes[at];
    rc = graph_set_attr_float(g, norm, "epsilon", epsilon, err);
    graph_replace_value(g, out, norm->outputs[0]);
    norm->inputs[0] = out;
    return rc < 0 ? rc
                  : graph_set_inputs(g, node, 2, (int[]){node->inputs[0], node->inputs[1]}, err);
}

int unfold_batchnorm(struct graph *g, const struct unfold_options *options, int64_t n,
                     infer_fill *fill, void *ctx, struct err *err)
{
    _cleanup_(unfolding_release) struct unfolding u = {
        .g = g, .arena = arena_new(), .fill = fill, .ctx = ctx};
    const float epsilon = options && options->epsilon > 0 ? options->epsilon : EPSILON;
    int rc = u.arena ? find_layers(&u, err) : err_oom(err, "the layers of a network");
    if (rc == 0 && u.n_layers > 0)
        rc = measure_layers(&u, options, n, err);
    for (int i = 0; i < u.n_layers && rc >= 0; i++)
        rc = insert(&u, &u.layers[i], epsilon, n > 0, err);
    if (rc >= 0)
        rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_infer(g, err);
    return rc < 0 ? rc : u.n_layers;
}
