#include "services/synthesizer/select.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* A partial path: its last arc and the label before it. */
struct label {
    double cost, score;
    int arc, previous; /* index into the pool; -1: the source */
};

struct search {
    const struct select_problem *problem;
    struct select_options options;
    struct label *pool; /* every label that was ever kept */
    int n_pool, cap_pool;
    int *first, *count; /* [n_nodes]: the kept labels of each node, consecutive in the pool */
    int *arc_order, *arc_first; /* arcs by target */
    bool exact;
};

static void search_release(struct search *s)
{
    free(s->pool);
    free(s->first);
    free(s->count);
    free(s->arc_order);
    free(s->arc_first);
}

static int check(const struct select_problem *p, struct err *err)
{
    if (p->n_nodes < 1 || p->source < 0 || p->sink >= p->n_nodes || p->source > p->sink)
        return err_set(err, ERR_INVALID_ARGUMENT, "selection: source or sink outside the graph");
    for (int i = 0; i < p->n_arcs; i++) {
        const struct select_arc *a = &p->arcs[i];
        bool ordered = a->from >= 0 && a->from < a->to && a->to < p->n_nodes;
        bool additive = isfinite(a->cost) && isfinite(a->score) && a->cost >= 0 && a->score >= 0;
        if (!ordered || !additive)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "selection: arc %d (%d -> %d, cost %g, score %g) is not valid", i,
                           a->from, a->to, a->cost, a->score);
    }
    return 0;
}

/* Sorts arcs by target (counting sort, stable). */
static int order_arcs(struct search *s, struct err *err)
{
    const struct select_problem *p = s->problem;
    s->arc_first = mem_calloc((size_t)p->n_nodes + 2, sizeof(int));
    s->arc_order = mem_calloc((size_t)p->n_arcs + 1, sizeof(int));
    s->first = mem_calloc((size_t)p->n_nodes, sizeof(int));
    s->count = mem_calloc((size_t)p->n_nodes, sizeof(int));
    if (!s->arc_first || !s->arc_order || !s->first || !s->count)
        return err_oom(err, "the selection");
    for (int i = 0; i < p->n_arcs; i++)
        s->arc_first[p->arcs[i].to + 2]++;
    for (int v = 2; v <= p->n_nodes + 1; v++)
        s->arc_first[v] += s->arc_first[v - 1];
    for (int i = 0; i < p->n_arcs; i++)
        s->arc_order[s->arc_first[p->arcs[i].to + 1]++] = i;
    return 0;
}

static int push(struct search *s, struct label label, struct err *err)
{
    if (s->n_pool == s->cap_pool) {
        int cap = s->cap_pool ? s->cap_pool * 2 : 1024;
        struct label *pool = mem_realloc(s->pool, (size_t)cap, sizeof(*pool));
        if (!pool)
            return err_oom(err, "the selection's labels");
        s->pool = pool;
        s->cap_pool = cap;
    }
    s->pool[s->n_pool++] = label;
    return 0;
}

static int by_cost(const void *a, const void *b)
{
    const struct label *x = a, *y = b;
    if (x->cost != y->cost)
        return x->cost < y->cost ? -1 : 1;
    if (x->score != y->score)
        return x->score < y->score ? -1 : 1;
    /* Equal in both: any fixed order will do, as long as it is one. */
    if (x->previous != y->previous)
        return x->previous < y->previous ? -1 : 1;
    return x->arc - y->arc;
}

/* Keeps, of labels sorted by cost, those with fewer than k others no worse in both. `best` holds
 * the k lowest scores so far, ascending. */
static int prune_dominated(struct label *labels, int n, int k, double *best)
{
    int kept = 0, n_best = 0;
    for (int i = 0; i < n; i++) {
        if (n_best == k && best[k - 1] <= labels[i].score)
            continue;
        int at = n_best < k ? n_best++ : k - 1;
        while (at > 0 && best[at - 1] > labels[i].score) {
            best[at] = best[at - 1];
            at--;
        }
        best[at] = labels[i].score;
        labels[kept++] = labels[i];
    }
    return kept;
}

/* Too many labels: keeps every n-th, and both ends. */
static int thin(struct label *labels, int n, int max)
{
    for (int i = 0; i < max; i++)
        labels[i] = labels[(int64_t)i * (n - 1) / (max - 1)];
    return max;
}

static int extend_node(struct search *s, int node, double *best, struct err *err)
{
    const struct select_problem *p = s->problem;
    int start = s->n_pool;
    if (node == p->source) {
        int r = push(s, (struct label){.arc = -1, .previous = -1}, err);
        if (r < 0)
            return r;
    }
    for (int i = s->arc_first[node]; i < s->arc_first[node + 1]; i++) {
        const struct select_arc *arc = &p->arcs[s->arc_order[i]];
        for (int j = 0; j < s->count[arc->from]; j++) {
            int previous = s->first[arc->from] + j;
            struct label label = {.cost = s->pool[previous].cost + arc->cost,
                                  .score = s->pool[previous].score + arc->score,
                                  .arc = s->arc_order[i],
                                  .previous = previous};
            if (s->options.max_score >= 0 && label.score > s->options.max_score)
                continue;
            int r = push(s, label, err);
            if (r < 0)
                return r;
        }
    }
    int n = s->n_pool - start;
    if (n > 1)
        qsort(s->pool + start, (size_t)n, sizeof(*s->pool), by_cost);
    n = prune_dominated(s->pool + start, n, s->options.k, best);
    if (n > s->options.max_labels) {
        n = thin(s->pool + start, n, s->options.max_labels);
        s->exact = false;
    }
    s->first[node] = start;
    s->count[node] = n;
    s->n_pool = start + n;
    return 0;
}

static int path_of(const struct search *s, int label, struct arena *arena, struct select_path *ret,
                   struct err *err)
{
    int n = 0;
    for (int l = label; s->pool[l].arc >= 0; l = s->pool[l].previous)
        n++;
    *ret = (struct select_path){.cost = s->pool[label].cost,
                                .score = s->pool[label].score,
                                .n_arcs = n,
                                .arcs = arena_alloc(arena, (size_t)n, sizeof(int))};
    if (!ret->arcs)
        return err_oom(err, "a path");
    for (int l = label; s->pool[l].arc >= 0; l = s->pool[l].previous)
        ret->arcs[--n] = s->pool[l].arc;
    return 0;
}

int select_front(const struct select_problem *problem, const struct select_options *options,
                 struct arena *arena, struct select_front *ret, struct err *err)
{
    int r = check(problem, err);
    if (r < 0)
        return r;
    _cleanup_(search_release) struct search s = {
        .problem = problem, .options = *options, .exact = true};
    if (s.options.k < 1)
        s.options.k = 1;
    if (s.options.max_labels < 2)
        s.options.max_labels = 20000;
    _cleanup_(freep) double *best = mem_calloc((size_t)s.options.k, sizeof(double));
    if (!best)
        return err_oom(err, "the selection");
    r = order_arcs(&s, err);
    for (int node = problem->source; r == 0 && node <= problem->sink; node++)
        r = extend_node(&s, node, best, err);
    if (r < 0)
        return r;
    int n = s.count[problem->sink];
    *ret = (struct select_front){.n_paths = n,
                                 .exact = s.exact,
                                 .paths = arena_alloc(arena, (size_t)n, sizeof(*ret->paths))};
    if (!ret->paths)
        return err_oom(err, "the front");
    for (int i = 0; r == 0 && i < n; i++)
        r = path_of(&s, s.first[problem->sink] + i, arena, &ret->paths[i], err);
    return r;
}

int select_best(const struct select_front *front, double max_score, int k, int *ret)
{
    int n = 0;
    for (int i = 0; i < front->n_paths && n < k; i++)
        if (front->paths[i].score <= max_score)
            ret[n++] = i;
    return n;
}

int select_gentlest(const struct select_front *front, double max_cost)
{
    int best = -1;
    for (int i = 0; i < front->n_paths && front->paths[i].cost <= max_cost; i++)
        if (best < 0 || front->paths[i].score < front->paths[best].score)
            best = i;
    return best;
}
