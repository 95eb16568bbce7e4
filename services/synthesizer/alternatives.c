#include "services/synthesizer/alternatives.h"

#include <stdarg.h>
#include <stdio.h>

#include "shared/design/design.h"

#define MOST_STRIDE 4
#define MOST_PERIOD 3

#define X(name) extern const struct alternative_type alternative_##name;
ALTERNATIVE_TYPES(X)
#undef X

#define X(name) &alternative_##name,
static const struct alternative_type *const types[] = {ALTERNATIVE_TYPES(X)};
#undef X

#define N_TYPES (sizeof(types) / sizeof(*types))

/* ---- the list ---- */

void alternatives_release(struct alternatives *a)
{
    for (int i = 0; i < a->n; i++)
        graph_free(a->list[i].graph);
    a->n = 0;
}

static int make_room(struct alternatives *a, struct err *err)
{
    if (a->n < a->cap)
        return 0;
    const int cap = a->cap ? 2 * a->cap : 64;
    struct alternative *list = arena_alloc(a->arena, (size_t)cap, sizeof(*list));
    if (!list)
        return err_oom(err, "alternatives");
    for (int i = 0; i < a->n; i++)
        list[i] = a->list[i];
    a->list = list;
    a->cap = cap;
    return 0;
}

int alternatives_add(struct alternatives *to, int first, int last, struct graph *graph,
                     struct err *err, const char *fmt, ...)
{
    _cleanup_(graph_freep) struct graph *taken = graph;
    va_list args;
    if (to->n == ALTERNATIVES_MOST) {
        to->left_out++;
        return 0;
    }
    int rc = make_room(to, err);
    if (rc < 0)
        return rc;
    char text[96];
    va_start(args, fmt);
    vsnprintf(text, sizeof(text), fmt, args);
    va_end(args);
    struct alternative *a = &to->list[to->n];
    a->text = arena_strdup(to->arena, text);
    if (!a->text)
        return err_oom(err, "alternatives");
    a->first = first;
    a->last = last;
    a->graph = TAKE_PTR(taken);
    to->n++;
    return 0;
}

/* ---- for types ---- */

static bool is_picture(const struct graph *g, int v)
{
    if (v < 0)
        return false;
    const struct value *value = g->values[v];
    bool known = value->dtype == DTYPE_F32 && value->shape_known && value->shape.rank == 4;
    for (int i = 1; known && i < 4; i++)
        known = value->shape.dim[i] > 0;
    return known;
}

bool alternatives_pictures(const struct alternatives *a, int first, int last, int64_t *ret_width,
                           int *ret_stride)
{
    const int from = a->units->units[first].from, to = a->units->units[last].to;
    if (!is_picture(a->g, from) || !is_picture(a->g, to))
        return false;
    const int64_t *in = a->g->values[from]->shape.dim, *out = a->g->values[to]->shape.dim;
    const int64_t stride = (in[2] + out[2] - 1) / out[2];
    *ret_width = out[1];
    *ret_stride = (int)stride;
    return stride >= 1 && stride <= MOST_STRIDE;
}

/* Whether the design has at least as many products as the units, or is out of all proportion. */
static int is_costly(const struct alternatives *a, const struct design *design,
                     const struct design_ends *ends, int first, int last, bool *ret,
                     struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct design_ends bare = *ends;
    int64_t macs = 0;
    bare.bare = true;
    for (int u = first; u <= last; u++)
        macs += a->units->units[u].macs;
    int rc = design_build(design, &bare, &g, err);
    *ret = rc == 0 ? graph_cost(g).macs >= macs : rc == -ERR_FAILED_PRECONDITION;
    return *ret ? 0 : rc;
}

int alternatives_design(struct alternatives *a, const char *text, int first, int last,
                        struct graph **ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const struct value *in = a->g->values[a->units->units[first].from];
    const struct value *out = a->g->values[a->units->units[last].to];
    const struct design_ends ends = {.channels = in->shape.dim[1],
                                     .height = in->shape.dim[2],
                                     .width = in->shape.dim[3],
                                     .seed = a->seed};
    struct design design;
    struct design_ends made;
    *ret = NULL;
    int rc = arena ? design_parse(text, arena, &design, err) : err_oom(err, "an alternative");
    if (rc < 0)
        return rc;
    if (design_shape_at(&design, &ends, design.n, &made, NULL) < 0 ||
        made.channels != out->shape.dim[1] || made.height != out->shape.dim[2] ||
        made.width != out->shape.dim[3])
        return 0;
    bool costly = false;
    rc = is_costly(a, &design, &ends, first, last, &costly, err);
    a->left_out += costly;
    return rc < 0 || costly ? rc : design_build(&design, &ends, ret, err);
}

int alternatives_layers(const struct alternatives *a, int first, int last)
{
    int layers = 0;
    for (int u = first; u <= last; u++)
        layers += a->units->units[u].layers;
    return layers;
}

int alternatives_offer_piece(struct alternatives *to, const char *type, int first, int last,
                             struct err *err)
{
    char text[64];
    int64_t width;
    int stride;
    struct graph *g = NULL;
    if (alternatives_layers(to, first, last) < 2 ||
        !alternatives_pictures(to, first, last, &width, &stride) || width > DESIGN_MAX_WIDTH)
        return 0;
    snprintf(text, sizeof(text), stride > 1 ? "%s:%lld:s%d" : "%s:%lld", type, (long long)width,
             stride);
    int rc = alternatives_design(to, text, first, last, &g, err);
    return rc < 0 || !g ? rc : alternatives_add(to, first, last, g, err, "%s", text);
}

/* ---- all of them ---- */

static int offer_runs(struct alternatives *a, const struct alternative_type *type, struct err *err)
{
    int rc = 0;
    for (int first = 0; first < a->units->n; first++)
        for (int n = 1; rc == 0 && n <= type->most_units && first + n <= a->units->n; n++)
            if (a->units->units[first].from >= 0 && a->units->units[first + n - 1].to >= 0)
                rc = type->offer(a, first, first + n - 1, err);
    return rc;
}

/* The last unit up to which those from `first` on are there again and again; below `first` where
 * they are not, or are themselves a repetition of less. */
static int end_of_stage(const struct alternatives *a, int first, int period)
{
    const int n = a->units->n;
    int last = first + period - 1;
    if (last >= n || !units_keep_shape(a->g, a->units, first, last))
        return first - 1;
    bool smaller = period > 1;
    for (int i = first; smaller && i < last; i++)
        smaller = units_alike(a->g, a->units, i, i + 1);
    while (last + 1 < n && a->units->units[last + 1].to >= 0 &&
           units_alike(a->g, a->units, last + 1 - period, last + 1))
        last++;
    const int times = (last + 1 - first) / period;
    return smaller || times < 2 ? first - 1 : first + times * period - 1;
}

static int offer_stages(struct alternatives *a, const struct alternative_type *type,
                        struct err *err)
{
    int rc = 0;
    for (a->period = 1; rc == 0 && a->period <= MOST_PERIOD; a->period++)
        for (int first = 0, last; rc == 0 && first < a->units->n;
             first = last >= first ? last + 1 : first + 1) {
            last = end_of_stage(a, first, a->period);
            if (last >= first)
                rc = type->offer(a, first, last, err);
        }
    return rc;
}

int alternatives_find(const struct graph *g, const struct units *units,
                      const struct activity *activity, uint64_t seed, struct arena *arena,
                      struct alternatives *ret, struct err *err)
{
    *ret = (struct alternatives){
        .g = g, .units = units, .activity = activity, .seed = seed, .arena = arena};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < N_TYPES; i++)
        rc = types[i]->stage ? offer_stages(ret, types[i], err) : offer_runs(ret, types[i], err);
    return rc;
}
