/*
 * Residual units x + B f(A x): of one unit fewer inner channels ("narrow:16"), of several in a row
 * one with more ("merge:32"), which adds up what each of them would add to what comes in. Few wide
 * layers take less time than many narrow ones. Channels are chosen by how active they are times how
 * much the weights before and behind them weigh, and keep those weights; in multiples of 16.
 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/alternatives.h"
#include "shared/graph/infer.h"

#define MULTIPLE 16
#define MOST_UNITS 4

/* One unit: A, the activation behind it, B, the sum, and what follows that. */
struct residual {
    const struct node *before, *activation, *behind;
    int64_t outer, inner;
};

/* An inner channel of one of the units. */
struct channel {
    int unit;
    int64_t index;
    double score;
};

/* ---- which units are such ---- */

static const struct node *node_of(const struct alternatives *a, const struct unit *u, enum op op,
                                  int nth)
{
    for (int b = u->first; b <= u->last; b++) {
        const struct block *block = &a->units->cuts.blocks[b];
        for (int i = 0; i < block->n_nodes; i++) {
            const struct node *node = a->g->nodes[block->nodes[i]];
            if (node->op == op && nth-- == 0)
                return node;
        }
    }
    return NULL;
}

static int count_nodes(const struct alternatives *a, const struct unit *u)
{
    int n = 0;
    for (int b = u->first; b <= u->last; b++)
        n += a->units->cuts.blocks[b].n_nodes;
    return n;
}

/* With constant weights and bias, in one group. */
static bool plain(const struct graph *g, const struct node *conv)
{
    const struct value *w = graph_input_of(g, conv, 1), *bias = graph_input_of(g, conv, 2);
    return w && w->constant && w->dtype == DTYPE_F32 && w->shape.rank == 4 &&
           node_int(conv, "group", 1) == 1 &&
           (!bias || (bias->constant && bias->dtype == DTYPE_F32));
}

static bool find(const struct alternatives *a, int unit, struct residual *ret)
{
    const struct unit *u = &a->units->units[unit];
    const struct node *before = node_of(a, u, OP_CONV, 0), *behind = node_of(a, u, OP_CONV, 1);
    const struct node *sum = node_of(a, u, OP_ADD, 0), *act = node_of(a, u, OP_RELU, 0);
    const struct node *last = node_of(a, u, OP_RELU, 1);
    if (!before || !behind || !sum || !act || !units_keep_shape(a->g, a->units, unit, unit) ||
        !plain(a->g, before) || !plain(a->g, behind) || count_nodes(a, u) != (last ? 5 : 4))
        return false;
    const int side = sum->inputs[0] == behind->outputs[0] ? sum->inputs[1] : sum->inputs[0];
    const bool joined =
        before->inputs[0] == u->from && act->inputs[0] == before->outputs[0] &&
        behind->inputs[0] == act->outputs[0] && side == u->from &&
        (sum->inputs[0] == behind->outputs[0] || sum->inputs[1] == behind->outputs[0]);
    const struct shape *inner = &graph_input_of(a->g, before, 1)->shape;
    *ret = (struct residual){before, act, behind, inner->dim[1], inner->dim[0]};
    return joined && graph_input_of(a->g, behind, 1)->shape.dim[1] == ret->inner;
}

/* ---- which channels stay ---- */

/* Of the weights that make inner channel k, or that read it. */
static double length(const struct tensor *w, int64_t k, bool makes)
{
    const int64_t *d = w->shape.dim, plane = d[2] * d[3];
    const float *x = w->data;
    double sum = 0;
    for (int64_t o = 0; o < d[0]; o++)
        for (int64_t i = 0; i < d[1]; i++)
            for (int64_t p = 0; (makes ? o : i) == k && p < plane; p++) {
                const double v = (double)x[(o * d[1] + i) * plane + p];
                sum += v * v;
            }
    return sqrt(sum);
}

/* Without samples the weights before stand for the activity. */
static double score_of(const struct alternatives *a, const struct residual *r, int64_t k)
{
    const struct tensor *before = graph_input_of(a->g, r->before, 1)->constant;
    const struct tensor *behind = graph_input_of(a->g, r->behind, 1)->constant;
    const double *active = a->activity ? a->activity->mean[r->behind->inputs[0]] : NULL;
    return (active ? active[k] : length(before, k, true)) * length(behind, k, false);
}

static int by_score(const void *pa, const void *pb)
{
    const struct channel *a = pa, *b = pb;
    if (a->score != b->score)
        return a->score > b->score ? -1 : 1;
    return a->unit != b->unit ? a->unit - b->unit : (a->index > b->index) - (a->index < b->index);
}

static int by_place(const void *pa, const void *pb)
{
    const struct channel *a = pa, *b = pb;
    return a->unit != b->unit ? a->unit - b->unit : (a->index > b->index) - (a->index < b->index);
}

/* All of them, the first `width` of which matter most and are in order. */
static int choose(const struct alternatives *a, const struct residual *units, int n, int64_t width,
                  struct channel **ret, struct err *err)
{
    const size_t all = (size_t)(n * units[0].inner);
    struct channel *list = arena_alloc(a->arena, all, sizeof(*list));
    if (!list)
        return err_oom(err, "channels");
    for (size_t i = 0; i < all; i++) {
        const int unit = (int)((int64_t)i / units[0].inner);
        const int64_t index = (int64_t)i % units[0].inner;
        list[i] = (struct channel){unit, index, score_of(a, &units[unit], index)};
    }
    qsort(list, all, sizeof(*list), by_score);
    qsort(list, (size_t)width, sizeof(*list), by_place);
    *ret = list;
    return 0;
}

/* ---- the network ---- */

static const float *bias_of(const struct graph *g, const struct node *conv)
{
    const struct value *bias = graph_input_of(g, conv, 2);
    return bias ? bias->constant->data : NULL;
}

/* Rows of A, with their biases. */
static void fill_before(const struct alternatives *a, const struct residual *units,
                        const struct channel *list, int64_t width, float *w, float *bias)
{
    for (int64_t k = 0; k < width; k++) {
        const struct node *from = units[list[k].unit].before;
        const struct tensor *t = graph_input_of(a->g, from, 1)->constant;
        const int64_t row = t->shape.dim[1] * t->shape.dim[2] * t->shape.dim[3];
        const float *x = (const float *)t->data + list[k].index * row, *b = bias_of(a->g, from);
        for (int64_t i = 0; i < row; i++)
            w[k * row + i] = x[i];
        bias[k] = b ? b[list[k].index] : 0;
    }
}

/* Columns of B; the biases of all units add up. */
static void fill_behind(const struct alternatives *a, const struct residual *units, int n,
                        const struct channel *list, int64_t width, float *w, float *bias)
{
    const struct shape *shape = &graph_input_of(a->g, units[0].behind, 1)->shape;
    const int64_t outer = shape->dim[0], inner = shape->dim[1];
    const int64_t plane = shape->dim[2] * shape->dim[3];
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; k < width; k++) {
            const struct residual *r = &units[list[k].unit];
            const float *x = graph_input_of(a->g, r->behind, 1)->constant->data;
            for (int64_t p = 0; p < plane; p++)
                w[(o * width + k) * plane + p] = x[(o * inner + list[k].index) * plane + p];
        }
    for (int u = 0; u < n; u++) {
        const float *b = bias_of(a->g, units[u].behind);
        for (int64_t o = 0; b && o < outer; o++)
            bias[o] += b[o];
    }
}

/* New weights and biases in place of a convolution's; *ret_w and *ret_bias are to be filled. */
static int resize(struct graph *g, const char *name, int64_t out, int64_t in, float **ret_w,
                  float **ret_bias, struct err *err)
{
    for (int n = 0; n < g->n_nodes; n++) {
        struct node *node = g->nodes[n];
        if (node->op != OP_CONV || strcmp(node->name, name) != 0)
            continue;
        const struct shape old = graph_input_of(g, node, 1)->shape;
        const struct shape shape = shape_make(4, (int64_t[]){out, in, old.dim[2], old.dim[3]});
        const struct shape row = shape_make(1, &out);
        const int w = graph_add_constant(g, NULL, DTYPE_F32, &shape, NULL, err);
        const int b = w < 0 ? w : graph_add_constant(g, NULL, DTYPE_F32, &row, NULL, err);
        if (b < 0)
            return b;
        *ret_w = g->values[w]->constant->data;
        *ret_bias = g->values[b]->constant->data;
        return graph_set_inputs(g, node, 3, (const int[]){node->inputs[0], w, b}, err);
    }
    return err_set(err, ERR_INTERNAL, "no convolution '%s'", name);
}

/* The first unit, with these channels of all in its inside. */
static int build(const struct alternatives *a, int first, const struct residual *units, int n,
                 int64_t width, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct channel *list = NULL;
    float *w = NULL, *bias = NULL;
    int rc = choose(a, units, n, width, &list, err);
    if (rc == 0)
        rc = units_extract(a->g, a->units, first, first, &g, err);
    if (rc == 0)
        rc = resize(g, units[0].before->name, width, units[0].outer, &w, &bias, err);
    if (rc < 0)
        return rc;
    fill_before(a, units, list, width, w, bias);
    rc = resize(g, units[0].behind->name, units[0].outer, width, &w, &bias, err);
    if (rc < 0)
        return rc;
    fill_behind(a, units, n, list, width, w, bias);
    rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_infer(g, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

/* ---- offers ---- */

static int add(struct alternatives *to, int first, const struct residual *units, int n,
               int64_t width, struct err *err)
{
    struct graph *g = NULL;
    const bool fits = width > 0 && width % MULTIPLE == 0 && width < n * units[0].inner;
    int rc = fits ? build(to, first, units, n, width, &g, err) : 0;
    return rc < 0 || !g ? rc
                        : alternatives_add(to, first, first + n - 1, g, err, "%s:%lld",
                                           n > 1 ? "merge" : "narrow", (long long)width);
}

/* Runs begin at multiples of their length, counted from the first of units that are alike. */
static bool is_aligned(const struct alternatives *a, int first, int n)
{
    int begin = first;
    while (begin > 0 && units_alike(a->g, a->units, begin - 1, first))
        begin--;
    return (first - begin) % n == 0;
}

static int offer(struct alternatives *to, int first, int last, struct err *err)
{
    struct residual units[MOST_UNITS] = {{0}};
    const int n = last - first + 1;
    for (int i = 0; i < n; i++)
        if (!find(to, first + i, &units[i]) ||
            (i > 0 && !units_alike(to->g, to->units, first, first + i)))
            return 0;
    const int64_t inner = units[0].inner;
    if (n == 3 || !is_aligned(to, first, n))
        return 0;
    int rc = n == 1 ? add(to, first, units, n, inner / 2 / MULTIPLE * MULTIPLE, err)
                    : add(to, first, units, n, inner, err);
    if (rc == 0)
        rc = n == 1 ? add(to, first, units, n, inner / 4 / MULTIPLE * MULTIPLE, err)
                    : add(to, first, units, n, 2 * inner, err);
    return rc;
}

const struct alternative_type alternative_inside = {
    .name = "inside",
    .summary = "residual units with fewer inner channels, or several of them in one wider one",
    .most_units = MOST_UNITS,
    .offer = offer,
};
