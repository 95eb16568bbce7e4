/*
 * Low rank: each large convolution of a unit becomes one with fewer channels and a 1x1 convolution
 * behind it. The two are what is nearest to the weights: W ~ U (U' W), U the first eigenvectors of
 * W W' (Denton and others, 2014).
 */
#include "services/synthesizer/alternatives.h"
#include "shared/base/eigen.h"
#include "shared/graph/infer.h"

#define MULTIPLE 16
#define MOST_CHANNELS 256
#define WIDE 128 /* channels that a 1x1 convolution reads: below it is not worth two */

/* ---- factors of a convolution's weights ---- */

struct factors {
    float *first, *second; /* [rank, row], [n, rank] */
};

/* The largest value that is not taken yet, which it is then. */
static int next_largest(const double *values, int n, bool *taken)
{
    int best = -1;
    for (int i = 0; i < n; i++)
        if (!taken[i] && (best < 0 || values[i] > values[best]))
            best = i;
    taken[best] = true;
    return best;
}

/* w: [n, row]. The factors are filled. */
static int factorise(const float *w, int n, int64_t row, int rank, const struct factors *to,
                     struct arena *arena, struct err *err)
{
    double *a = arena_alloc(arena, (size_t)n * (size_t)n, sizeof(*a));
    double *v = arena_alloc(arena, (size_t)n * (size_t)n, sizeof(*v));
    double *values = arena_alloc(arena, (size_t)n, sizeof(*values));
    bool *taken = arena_alloc(arena, (size_t)n, sizeof(*taken));
    if (!a || !v || !values || !taken)
        return err_oom(err, "factors");
    for (int i = 0; i < n; i++)
        for (int k = 0; k < n; k++)
            for (int64_t x = 0; x < row; x++)
                a[i * n + k] += (double)w[i * row + x] * (double)w[k * row + x];
    eigen_symmetric(a, v, values, n);
    for (int r = 0; r < rank; r++) {
        const double *vector = v + (int64_t)next_largest(values, n, taken) * n;
        for (int i = 0; i < n; i++)
            to->second[i * rank + r] = (float)vector[i];
        for (int64_t x = 0; x < row; x++) {
            double sum = 0;
            for (int i = 0; i < n; i++)
                sum += vector[i] * (double)w[i * row + x];
            to->first[r * row + x] = (float)sum;
        }
    }
    return 0;
}

/* ---- the network ---- */

/* Whether two factors of half the rank have clearly fewer products. */
static bool is_large(const struct graph *g, const struct node *node, int *ret_rank)
{
    const struct value *w = node->op == OP_CONV ? graph_input_of(g, node, 1) : NULL;
    if (!w || !w->constant || w->dtype != DTYPE_F32 || w->shape.rank != 4 ||
        node_int(node, "group", 1) != 1)
        return false;
    const int64_t *d = w->shape.dim, row = d[1] * d[2] * d[3];
    const int64_t least = d[0] < row ? d[0] : row;
    *ret_rank = (int)(least / 2 / MULTIPLE * MULTIPLE);
    const bool wide = d[2] * d[3] > 1 || d[1] >= WIDE;
    return wide && d[0] <= MOST_CHANNELS && *ret_rank >= MULTIPLE &&
           10 * *ret_rank * (row + d[0]) < 8 * d[0] * row;
}

/* The second factor behind the node, which has the first one's weights then. */
static int split(struct graph *g, int index, int rank, struct arena *arena, struct err *err)
{
    struct node *node = g->nodes[index];
    const struct tensor *w = graph_input_of(g, node, 1)->constant;
    const int64_t *d = w->shape.dim, row = d[1] * d[2] * d[3];
    const struct shape one = shape_make(4, (int64_t[]){rank, d[1], d[2], d[3]});
    const struct shape two = shape_make(4, (int64_t[]){d[0], rank, 1, 1});
    const int first = graph_add_constant(g, NULL, DTYPE_F32, &one, NULL, err);
    const int second = first < 0 ? first : graph_add_constant(g, NULL, DTYPE_F32, &two, NULL, err);
    if (second < 0)
        return second;
    const struct factors to = {g->values[first]->constant->data, g->values[second]->constant->data};
    int rc = factorise(w->data, (int)d[0], row, rank, &to, arena, err);
    if (rc < 0)
        return rc;
    const int out = node->outputs[0], bias = node->n_inputs > 2 ? node->inputs[2] : -1;
    const int behind =
        graph_add_node(g, -1, OP_CONV, NULL, 2, (const int[]){out, second}, 1, NULL, err);
    if (behind < 0)
        return behind;
    const int made = g->nodes[behind]->outputs[0];
    graph_replace_value(g, out, made);
    rc = graph_set_inputs(g, g->nodes[behind], bias < 0 ? 2 : 3, (const int[]){out, second, bias},
                          err);
    return rc < 0 ? rc
                  : graph_set_inputs(g, g->nodes[index], 2,
                                     (const int[]){g->nodes[index]->inputs[0], first}, err);
}

static int build(const struct alternatives *a, int unit, struct graph **ret, int *ret_rank,
                 struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    int rc = arena ? units_extract(a->g, a->units, unit, unit, &g, err) : err_oom(err, "factors");
    const int n = rc == 0 ? g->n_nodes : 0;
    *ret = NULL;
    *ret_rank = 0;
    for (int i = 0; rc == 0 && i < n; i++) {
        int rank;
        if (!is_large(g, g->nodes[i], &rank))
            continue;
        rc = split(g, i, rank, arena, err);
        *ret_rank = rank > *ret_rank ? rank : *ret_rank;
    }
    if (rc < 0 || *ret_rank == 0)
        return rc;
    rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_infer(g, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    struct graph *g = NULL;
    int rank;
    int64_t width;
    int stride;
    if (!alternatives_pictures(to, first, last, &width, &stride))
        return 0;
    int rc = build(to, first, &g, &rank, err);
    return rc < 0 || !g ? rc : alternatives_add(to, first, last, g, err, "rank:%d", rank);
}

const struct alternative_type alternative_rank = {
    .name = "rank",
    .summary = "each large convolution as two: to half the channels, and back by 1x1",
    .most_units = 1,
    .offer = offer,
};
