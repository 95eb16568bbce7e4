/* New weights. */
#include <math.h>
#include <string.h>

#include "shared/base/rng.h"
#include "shared/train/unfold.h"

#define SLOPE 0.25f /* of PRelu: He and others, 2015 */

struct reinit {
    struct graph *g;
    const struct reinit_options *options;
    bool *done; /* [n_values]: constants that have their numbers */
};

/* The constant behind input i, when its numbers are still to be given; NULL else. */
static struct tensor *claim(struct reinit *r, const struct node *node, int i)
{
    if (i >= node->n_inputs || node->inputs[i] < 0)
        return NULL;
    struct tensor *t = r->g->values[node->inputs[i]]->constant;
    if (!t || t->dtype != DTYPE_F32 || r->done[node->inputs[i]])
        return NULL;
    r->done[node->inputs[i]] = true;
    return t;
}

static void set_all(struct tensor *t, float value)
{
    for (int64_t i = 0; t && i < shape_elements(&t->shape); i++)
        ((float *)t->data)[i] = value;
}

static double fan_in(const struct node *node, const struct shape *w)
{
    int64_t kernel = 1, stride[3] = {1, 1, 1}, strides = 1;
    for (int d = 2; d < w->rank; d++)
        kernel *= w->dim[d];
    switch (node->op) {
    case OP_CONV: /* [M, C/group, k...] */
        return (double)(w->dim[1] * kernel);
    case OP_CONV_TRANSPOSE: /* [C, M/group, k...]: an output meets every stride-th weight */
        node_ints(node, "strides", 3, stride);
        for (int d = 0; d < 3; d++)
            strides *= stride[d];
        return (double)(w->dim[0] / node_int(node, "group", 1) * kernel) / (double)strides;
    case OP_GEMM:
        return (double)w->dim[node_int(node, "transB", 0) != 0 ? 1 : 0];
    default: /* MatMul [..., K, N] */
        return (double)w->dim[w->rank >= 2 ? w->rank - 2 : 0];
    }
}

/* Filter o reads channel o alone, in the middle of the window: of each group the first filters, as
 * many as it has inputs. */
static void hand_on(const struct node *node, struct tensor *w)
{
    const int64_t group = node_int(node, "group", 1), filters = w->shape.dim[0] / group,
                  channels = w->shape.dim[1], size = shape_elements(&w->shape) / w->shape.dim[0];
    int64_t middle = 0;
    for (int d = 2; d < w->shape.rank; d++)
        middle = middle * w->shape.dim[d] + w->shape.dim[d] / 2;
    for (int64_t o = 0; o < w->shape.dim[0]; o++) {
        const int64_t channel = o % filters;
        if (channel >= channels)
            continue;
        float *filter = (float *)w->data + o * size;
        memset(filter, 0, (size_t)size * sizeof(*filter));
        filter[channel * (size / channels) + middle] = 1;
    }
}

static void draw_weights(struct reinit *r, const struct node *node, int place)
{
    struct tensor *w = claim(r, node, 1);
    struct rng rng;
    if (!w)
        return;
    const bool identity = r->options->identity && node->op == OP_CONV;
    const double deviation = sqrt((identity ? 1. / 3 : 2.) / fmax(1, fan_in(node, &w->shape)));
    rng_seed2(&rng, r->options->seed, (uint64_t)place);
    for (int64_t i = 0; i < shape_elements(&w->shape); i++)
        ((float *)w->data)[i] = (float)(deviation * rng_normal(&rng));
    if (identity)
        hand_on(node, w);
}

static void renew(struct reinit *r, const struct node *node, int *layers)
{
    switch (node->op) {
    case OP_CONV:
    case OP_CONV_TRANSPOSE:
    case OP_GEMM:
    case OP_MATMUL:
        draw_weights(r, node, (*layers)++);
        if (node->op != OP_MATMUL)
            set_all(claim(r, node, 2), 0);
        break;
    case OP_BATCH_NORMALIZATION:
        set_all(claim(r, node, 1), 1);
        set_all(claim(r, node, 2), 0);
        set_all(claim(r, node, 3), 0);
        set_all(claim(r, node, 4), 1);
        break;
    case OP_PRELU:
        set_all(claim(r, node, 1), SLOPE);
        break;
    default:
        break;
    }
}

/* ---- residual branches ---- */

/* Layers with weights on the longest way from the network's input to each value. */
static int *find_depths(const struct graph *g, struct arena *arena)
{
    int *depth = arena_alloc(arena, (size_t)g->n_values + 1, sizeof(*depth));
    for (int n = 0; depth && n < g->n_nodes; n++) {
        const struct node *node = g->nodes[n];
        int most = 0;
        for (int i = 0; i < node->n_inputs; i++)
            if (node->inputs[i] >= 0 && depth[node->inputs[i]] > most)
                most = depth[node->inputs[i]];
        most += node->op == OP_CONV || node->op == OP_CONV_TRANSPOSE || node->op == OP_GEMM;
        for (int i = 0; i < node->n_outputs; i++)
            if (node->outputs[i] >= 0)
                depth[node->outputs[i]] = most;
    }
    return depth;
}

/* The norm that makes the deeper of an addition's two inputs; NULL where there is none. */
static const struct node *branch_end(const struct graph *g, const struct uses *uses,
                                     const int *depth, const struct node *add)
{
    const int a = add->inputs[0], b = add->inputs[1];
    if (depth[a] == depth[b])
        return NULL;
    const int deeper = depth[a] > depth[b] ? a : b;
    const int producer = g->values[deeper]->producer;
    if (producer < 0 || g->nodes[producer]->op != OP_BATCH_NORMALIZATION ||
        uses_sole(uses, deeper) < 0)
        return NULL;
    return g->nodes[producer];
}

static int zero_residuals(struct graph *g, struct arena *arena, struct err *err)
{
    struct uses uses;
    const int *depth = find_depths(g, arena);
    int rc = depth ? graph_uses(g, arena, &uses, err) : err_oom(err, "new weights");
    for (int n = 0; rc >= 0 && n < g->n_nodes; n++) {
        if (g->nodes[n]->op != OP_ADD)
            continue;
        const struct node *norm = branch_end(g, &uses, depth, g->nodes[n]);
        if (norm)
            set_all(graph_input_of(g, norm, 1)->constant, 0);
    }
    return rc;
}

int reinit_weights(struct graph *g, const struct reinit_options *options, struct err *err)
{
    int rc = graph_compact(g, err);
    if (rc < 0)
        return rc;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct reinit r = {.g = g, .options = options};
    r.done = arena ? arena_alloc(arena, (size_t)g->n_values + 1, sizeof(bool)) : NULL;
    if (!r.done)
        return err_oom(err, "new weights");
    int layers = 0;
    for (int n = 0; n < g->n_nodes; n++)
        renew(&r, g->nodes[n], &layers);
    return options->zero_residual ? zero_residuals(g, arena, err) : 0;
}
