#include "services/synthesizer/paths.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "services/synthesizer/propose.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/splice.h"

#define K_BEST 4
#define STEP 0.75 /* from one cost to the next lower one */
#define LEVELS 16

/* ---- selection ---- */

/* What there is to choose from. */
struct choice {
    const struct library_parts *parts;
    const struct arcs *arcs;
    const struct select_front *front;
    bool by_size;
};

static bool same_alternatives(const struct path *a, const struct path *b)
{
    bool same = a->n == b->n;
    for (int i = 0; same && i < a->n; i++)
        same = a->alternatives[i]->instead == b->alternatives[i]->instead;
    return same;
}

static bool is_new(const struct path *path, const struct path *list, int n)
{
    for (int i = 0; i < n; i++)
        if (same_alternatives(path, &list[i]))
            return false;
    return path->n > 0;
}

/* Of the original in its fastest precision, and with each alternative as fast as it can be. */
static double fastest_us(const struct library_parts *parts, const struct path *path)
{
    const Hone__V1__Profile *profile = parts->profile;
    double us = INFINITY;
    for (size_t p = 0; p < profile->n_total_us; p++)
        us = profile->total_us[p] > 0 ? fmin(us, profile->total_us[p]) : us;
    for (int i = 0; i < path->n; i++)
        us -= library_saving(parts, path->alternatives[i]->instead);
    return isfinite(us) && us > 0 ? us : 0;
}

static int read_path(const struct choice *c, const struct select_path *from, struct arena *arena,
                     struct path *ret, struct err *err)
{
    const struct arcs *arcs = c->arcs;
    *ret = (struct path){.cost = from->cost + arcs->floor_us, .kl = from->score};
    int rc = arcs_path_alternatives(arcs, from, arena, &ret->alternatives, err);
    if (rc < 0)
        return rc;
    ret->n = rc;
    ret->us = c->by_size ? fastest_us(c->parts, ret) : ret->cost;
    return arcs_path_choice(arcs, from, arena, &ret->kept, err);
}

static int pick(const struct choice *c, double most_cost, int most, struct arena *arena,
                struct path *ret, int *ret_n, struct err *err)
{
    const struct select_front *front = c->front;
    const double floor = c->arcs->floor_us;
    double limit = most_cost - floor;
    *ret_n = 0;
    for (int level = 0; level < LEVELS && *ret_n < most; level++) {
        const int best = select_gentlest(front, limit);
        if (best < 0)
            break;
        int rc = read_path(c, &front->paths[best], arena, &ret[*ret_n], err);
        if (rc < 0)
            return rc;
        *ret_n += is_new(&ret[*ret_n], ret, *ret_n);
        limit = STEP * (front->paths[best].cost + floor) - floor;
    }
    return 0;
}

int paths_select(const struct library_parts *parts, const Hone__V1__Scores *scores,
                 const job_library *library, bool by_size, double most_cost, int most,
                 struct arena *arena, struct path *ret, int *ret_n, struct paths_found *ret_found,
                 struct err *err)
{
    const struct select_options options = {.k = K_BEST, .max_score = -1};
    struct arcs arcs;
    struct select_front front;
    const struct choice c = {parts, &arcs, &front, by_size};
    int rc = arcs_build(parts->g, parts->profile, scores, library, by_size, arena, &arcs, err);
    if (rc == 0)
        rc = select_front(&arcs.problem, &options, arena, &front, err);
    if (rc < 0)
        return rc;
    *ret_found = (struct paths_found){.n_front = front.n_paths,
                                      .n_arcs = arcs.problem.n_arcs,
                                      .exact = front.exact && arcs.exact};
    /* Room for one more, which is looked at last. */
    struct path *list = arena_alloc(arena, (size_t)most + 1, sizeof(*list));
    if (!list)
        return err_oom(err, "paths");
    rc = pick(&c, most_cost, most, arena, list, ret_n, err);
    if (rc == 0)
        memcpy(ret, list, (size_t)*ret_n * sizeof(*ret));
    return rc;
}

/* ---- for people ---- */

static void write_units(struct strbuf *to, int first, int last)
{
    if (first > last)
        return;
    strbuf_printf(to, first == last ? "%s%d" : "%s%d-%d", to->length ? " " : "", first + 1,
                  last + 1);
}

char *paths_text(const struct path *path, int n_units)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    int next = 0;
    for (int i = 0; i < path->n; i++) {
        const job_arc *arc = path->alternatives[i]->instead;
        write_units(&text, next, (int)arc->first - 1);
        write_units(&text, (int)arc->first, (int)arc->last);
        strbuf_printf(&text, "=%s", arc->text);
        next = (int)arc->last + 1;
    }
    write_units(&text, next, n_units - 1);
    return text.failed ? NULL : strbuf_take(&text);
}

/* ---- assembly ---- */

const char *paths_prefix(const job_arc *arc, char text[PATHS_PREFIX_BYTES])
{
    snprintf(text, PATHS_PREFIX_BYTES, "%u-%u.", arc->first + 1, arc->last + 1);
    return text;
}

static int put_in(struct work_task *task, struct graph *g, const job_arc *arc, int *now,
                  struct err *err)
{
    _cleanup_(graph_freep) struct graph *part = NULL;
    char prefix[PATHS_PREFIX_BYTES];
    const int from = graph_find_value(g, arc->from), to = graph_find_value(g, arc->to);
    if (from < 0 || to < 0)
        return err_set(err, ERR_INTERNAL, "the original has no '%s' or '%s'", arc->from, arc->to);
    int made = now[from];
    if (*arc->network) {
        int rc = load_graph(task, arc->network, &part, err);
        made = rc < 0 ? rc : graph_splice(g, part, now[from], paths_prefix(arc, prefix), err);
    }
    if (made < 0)
        return made;
    if (!graph_can_replace(g, to, made))
        return err_set(err, ERR_FAILED_PRECONDITION, "'%s' cannot stand for '%s'", arc->text,
                       arc->to);
    graph_replace_value(g, to, made);
    now[to] = made;
    return 0;
}

int paths_assemble(struct work_task *task, const struct library_parts *parts,
                   const struct path *path, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    const int n = parts->g->n_values;
    _cleanup_(freep) int *now = mem_calloc((size_t)n + 1, sizeof(*now));
    int rc = now ? graph_clone(parts->g, &g, err) : err_oom(err, "a path");
    for (int v = 0; rc >= 0 && v < n; v++)
        now[v] = v; /* values keep their numbers */
    for (int i = 0; rc >= 0 && i < path->n; i++)
        rc = put_in(task, g, path->alternatives[i]->instead, now, err);
    if (rc >= 0)
        rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_infer(g, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}
