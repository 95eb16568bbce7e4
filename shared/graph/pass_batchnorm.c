/* What scales and shifts channels behind a convolution goes into its weights and bias. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "shared/graph/infer_priv.h"
#include "shared/graph/passes.h"
#include "shared/graph/rewrite.h"

/* y = x * scale[c] + shift[c] for each channel c. */
struct affine {
    int64_t channels;
    double *scale, *shift;
};

static bool is_f32(const struct tensor *t)
{
    return t && t->dtype == DTYPE_F32;
}

static struct affine new_affine(struct arena *arena, int64_t channels)
{
    struct affine a = {.channels = channels};
    a.scale = arena_alloc(arena, (size_t)channels, sizeof(double));
    a.shift = arena_alloc(arena, (size_t)channels, sizeof(double));
    return a;
}

/* ---- what the node does to channels ---- */

static bool read_batchnorm(const struct graph *g, const struct node *node, struct affine *a)
{
    if (node_int(node, "training_mode", 0) != 0)
        return false;
    for (int i = 1; i < node->n_outputs; i++)
        if (node->outputs[i] >= 0)
            return false;
    const struct tensor *t[5] = {0};
    for (int i = 1; i < 5; i++) {
        t[i] = graph_constant_of(g, node, i);
        if (!is_f32(t[i]) || shape_elements(&t[i]->shape) != a->channels)
            return false;
    }
    double epsilon = (double)node_float(node, "epsilon", 1e-5f);
    for (int64_t c = 0; c < a->channels; c++) {
        double deviation = sqrt(tensor_get_f64(t[4], c) + epsilon);
        a->scale[c] = tensor_get_f64(t[1], c) / deviation;
        a->shift[c] = tensor_get_f64(t[2], c) - tensor_get_f64(t[3], c) * a->scale[c];
    }
    return true;
}

/* The constant's element for each channel (dimension 1 of x), when it varies along no other. */
static bool per_channel(const struct tensor *t, const struct shape *x, int64_t channels,
                        double *ret)
{
    if (!is_f32(t) || t->shape.rank > x->rank)
        return false;
    int channel_at = 1 - (x->rank - t->shape.rank); /* its index in t; negative: t is not so long */
    for (int i = 0; i < t->shape.rank; i++)
        if (t->shape.dim[i] != 1 && (i != channel_at || t->shape.dim[i] != channels))
            return false;
    int64_t n = shape_elements(&t->shape);
    for (int64_t c = 0; c < channels; c++)
        ret[c] = tensor_get_f64(t, n == 1 ? 0 : c);
    return true;
}

static bool read_arithmetic(const struct graph *g, const struct node *node, int x, struct affine *a)
{
    const struct value *in = graph_input_of(g, node, x), *out = graph_output_of(g, node, 0);
    const struct tensor *t = graph_constant_of(g, node, 1 - x);
    if (!shape_equal(&in->shape, &out->shape) || !per_channel(t, &in->shape, a->channels, a->shift))
        return false;
    for (int64_t c = 0; c < a->channels; c++) {
        double k = a->shift[c];
        switch (node->op) {
        case OP_ADD:
            a->scale[c] = 1;
            break;
        case OP_SUB:
            a->scale[c] = x == 0 ? 1 : -1;
            a->shift[c] = x == 0 ? -k : k;
            break;
        case OP_MUL:
            a->scale[c] = k;
            a->shift[c] = 0;
            break;
        default: /* Div by the constant; the other way round is refused below as infinite */
            a->scale[c] = x == 0 ? 1 / k : INFINITY;
            a->shift[c] = 0;
        }
    }
    return true;
}

static bool all_finite(const struct affine *a)
{
    for (int64_t c = 0; c < a->channels; c++)
        if (!isfinite(a->scale[c]) || !isfinite(a->shift[c]) || fabs(a->scale[c]) > 1e30 ||
            fabs(a->shift[c]) > 1e30)
            return false;
    return true;
}

/* ---- into the weights ---- */

/* Elements of the weights that follow each other and belong to the same output channel. */
static int64_t run_length(const struct node *node, const struct shape *w)
{
    int64_t inner = 1;
    for (int d = 2; d < w->rank; d++)
        inner *= w->dim[d];
    switch (node->op) {
    case OP_CONV: /* [M, C/group, k...] */
        return w->dim[1] * inner;
    case OP_CONV_TRANSPOSE: /* [C, M/group, k...] */
        return inner;
    default: /* Gemm: [K, M], or [M, K] transposed */
        return node_int(node, "transB", 0) != 0 ? w->dim[1] : 1;
    }
}

/* The output channel of such a run. */
static int64_t channel_of(const struct node *node, const struct shape *w, int64_t run)
{
    if (node->op == OP_CONV)
        return run;
    if (node->op == OP_GEMM)
        return node_int(node, "transB", 0) != 0 ? run : run % w->dim[1];
    /* inputs of group k make outputs of group k */
    int64_t group = node_int(node, "group", 1);
    int64_t in = run / w->dim[1], out = run % w->dim[1];
    return in / (w->dim[0] / group) * w->dim[1] + out;
}

static int64_t output_channels(const struct graph *g, const struct node *node)
{
    const struct value *out = graph_output_of(g, node, 0);
    return out->shape.rank >= 2 && out->shape.dim[1] > 0 ? out->shape.dim[1] : 0;
}

/* A new constant in place of an old one, which others may read. */
static int new_constant(struct graph *g, const struct node *node, const char *what,
                        const struct shape *shape, struct err *err)
{
    char name[256];
    snprintf(name, sizeof(name), "%.200s_%s", node->name, what);
    return graph_add_constant(g, name, DTYPE_F32, shape, NULL, err);
}

static int new_vector(struct graph *g, const struct node *node, const char *what, int64_t n,
                      const double *data, struct err *err)
{
    struct shape shape = shape_make(1, &n);
    int index = new_constant(g, node, what, &shape, err);
    for (int64_t i = 0; index >= 0 && i < n; i++)
        ((float *)g->values[index]->constant->data)[i] = (float)data[i];
    return index;
}

static int scaled_weights(struct graph *g, const struct node *node, const struct affine *a,
                          struct err *err)
{
    const struct tensor *w = graph_constant_of(g, node, 1);
    int index = new_constant(g, node, "weight", &w->shape, err);
    if (index < 0)
        return index;
    int64_t length = run_length(node, &w->shape), runs = shape_elements(&w->shape) / length;
    const float *from = w->data;
    float *to = g->values[index]->constant->data;
    for (int64_t r = 0; r < runs; r++) {
        double scale = a->scale[channel_of(node, &w->shape, r)];
        for (int64_t i = r * length; i < (r + 1) * length; i++)
            to[i] = (float)((double)from[i] * scale);
    }
    return index;
}

/* The bias per channel as it acts now; Gemm's is scaled by beta. False when it is no constant, or
 * none per channel. */
static bool read_bias(const struct graph *g, const struct node *node, int64_t channels, double *ret)
{
    const struct value *bias = graph_input_of(g, node, 2);
    if (!bias)
        return true;
    const struct tensor *t = bias->constant;
    if (!is_f32(t))
        return false;
    int64_t n = shape_elements(&t->shape);
    bool row = t->shape.rank == 0 || t->shape.dim[t->shape.rank - 1] == n;
    if (!row || (n != channels && n != 1))
        return false;
    double beta = node->op == OP_GEMM ? (double)node_float(node, "beta", 1) : 1;
    for (int64_t c = 0; c < channels; c++)
        ret[c] = beta * tensor_get_f64(t, n == 1 ? 0 : c);
    return true;
}

static int absorb(struct rewrite *r, struct node *layer, const struct affine *a, double *bias,
                  struct err *err)
{
    for (int64_t c = 0; c < a->channels; c++)
        bias[c] = bias[c] * a->scale[c] + a->shift[c];
    int weights = scaled_weights(r->g, layer, a, err);
    int biases = weights < 0 ? weights : new_vector(r->g, layer, "bias", a->channels, bias, err);
    if (biases < 0)
        return biases;
    graph_remove_attr(layer, "beta");
    return graph_set_inputs(r->g, layer, 3, (int[]){layer->inputs[0], weights, biases}, err);
}

/* A BatchNormalization that stays one takes up arithmetic in its scale (input 1) and bias (2). */
static int absorb_in_batchnorm(struct rewrite *r, struct node *layer, const struct affine *a,
                               struct err *err)
{
    struct graph *g = r->g;
    const struct tensor *scale = graph_constant_of(g, layer, 1);
    const struct tensor *bias = graph_constant_of(g, layer, 2);
    struct affine sum = new_affine(r->arena, a->channels);
    if (!sum.scale || !sum.shift)
        return err_oom(err, "folding into a BatchNormalization");
    for (int64_t c = 0; c < a->channels; c++) {
        sum.scale[c] = tensor_get_f64(scale, c) * a->scale[c];
        sum.shift[c] = tensor_get_f64(bias, c) * a->scale[c] + a->shift[c];
    }
    int scales = new_vector(g, layer, "scale", a->channels, sum.scale, err);
    int biases = scales < 0 ? scales : new_vector(g, layer, "bias", a->channels, sum.shift, err);
    if (biases < 0)
        return biases;
    layer->inputs[1] = scales;
    layer->inputs[2] = biases;
    return 0;
}

/* The layer whose output is input x of node n and goes nowhere else, also when a MaxPool lies
 * between them: what rises maps the largest onto the largest. */
static struct node *layer_before(const struct rewrite *r, const struct node *node, int n, int x,
                                 bool *ret_pooled)
{
    static const enum op ops[] = {OP_CONV, OP_CONV_TRANSPOSE, OP_GEMM, OP_BATCH_NORMALIZATION};
    *ret_pooled = false;
    if (x >= node->n_inputs || rewrite_sole(r, node->inputs[x]) != n)
        return NULL;
    const struct node *pool = rewrite_producer(r, node, x, OP_MAX_POOL);
    if (pool && pool->n_outputs == 1) {
        const int at = r->g->values[node->inputs[x]]->producer;
        struct node *layer = layer_before(r, pool, at, 0, ret_pooled);
        *ret_pooled = true;
        return layer;
    }
    for (size_t i = 0; i < sizeof(ops) / sizeof(*ops); i++) {
        struct node *layer = rewrite_producer(r, node, x, ops[i]);
        if (layer && is_f32(graph_constant_of(r->g, layer, 1)))
            return layer;
    }
    return NULL;
}

static bool read_affine(const struct graph *g, const struct node *node, int x, struct affine *a)
{
    return node->op == OP_BATCH_NORMALIZATION ? read_batchnorm(g, node, a)
                                              : read_arithmetic(g, node, x, a);
}

/* Whether the layer can take up the affine map; its bias as it acts now. */
static bool can_absorb(const struct graph *g, const struct node *layer, int64_t channels,
                       double *bias)
{
    if (layer->op == OP_BATCH_NORMALIZATION)
        return is_f32(graph_constant_of(g, layer, 2)) && node_int(layer, "training_mode", 0) == 0;
    return read_bias(g, layer, channels, bias);
}

static bool rises(const struct affine *a)
{
    for (int64_t c = 0; c < a->channels; c++)
        if (a->scale[c] < 0)
            return false;
    return true;
}

static bool is_affine(const struct node *node)
{
    return node->op == OP_BATCH_NORMALIZATION || node->op == OP_ADD || node->op == OP_SUB ||
           node->op == OP_MUL || node->op == OP_DIV;
}

static int fold_into_layer(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    if (!is_affine(node) || node->outputs[0] < 0)
        return 0;
    int x = 0;
    bool pooled = false;
    struct node *layer = layer_before(r, node, n, x, &pooled);
    if (!layer && node->op != OP_BATCH_NORMALIZATION)
        layer = layer_before(r, node, n, ++x, &pooled);
    if (!layer || output_channels(g, layer) == 0)
        return 0;
    struct affine a = new_affine(r->arena, output_channels(g, layer));
    double *bias = arena_alloc(r->arena, (size_t)a.channels, sizeof(*bias));
    if (!a.scale || !a.shift || !bias)
        return err_oom(err, "folding a BatchNormalization");
    if (!read_affine(g, node, x, &a) || !all_finite(&a) || (pooled && !rises(&a)) ||
        !can_absorb(g, layer, a.channels, bias) ||
        !rewrite_splice(r, node->outputs[0], node->inputs[x]))
        return 0;
    int rc = layer->op == OP_BATCH_NORMALIZATION ? absorb_in_batchnorm(r, layer, &a, err)
                                                 : absorb(r, layer, &a, bias, err);
    if (rc < 0)
        return rc;
    graph_kill_node(g, n);
    r->changes++;
    return 0;
}

int pass_fold_batchnorm(struct graph *g, struct err *err)
{
    return rewrite_run(g, fold_into_layer, err);
}
