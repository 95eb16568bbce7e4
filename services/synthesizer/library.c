#include "services/synthesizer/library.h"

#include <math.h>
#include <string.h>

#include "services/synthesizer/propose.h"
#include "shared/base/mem.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/splice.h"

#define PART "arc"            /* what the profiler is to time */
#define MOST_BYTES (1u << 30) /* of networks in the store; alternatives beyond are left out */

/* ---- the original ---- */

int library_parts_load(struct work_task *task, const job_state *state, struct library_parts *ret,
                       struct err *err)
{
    *ret = (struct library_parts){.arena = arena_new()};
    int rc = ret->arena ? load_graph(task, state->network, &ret->g, err)
                        : err_oom(err, "the original's parts");
    if (rc == 0)
        rc = message_load(task->store, state->profile, &hone__v1__profile__descriptor,
                          &ret->profile, err);
    return rc == 0 ? units_find(ret->g, ret->arena, &ret->units, err) : rc;
}

void library_parts_release(struct library_parts *parts)
{
    graph_free(parts->g);
    arena_free(parts->arena);
    message_free(parts->profile);
}

/* ---- making ---- */

static int put_graph(struct work_task *task, const struct graph *g, char **field, size_t *bytes,
                     struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    char name[HASH_HEX_BYTES];
    size_t size = 0;
    int rc = onnx_write_bytes(g, &data, &size, err);
    if (rc == 0)
        rc = store_put(task->store, data, size, name, err);
    *bytes += size;
    return rc == 0 ? message_set(field, name, err) : rc;
}

/* The alternative between the units before and behind it, its nodes named PART and ".". */
static int between(const struct library_parts *parts, const struct alternative *a,
                   struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    const struct units *units = &parts->units;
    const int first = a->first > 0 ? a->first - 1 : 0;
    const int last = a->last + 1 < units->n ? a->last + 1 : a->last;
    const char *from = parts->g->values[units->units[a->first].from]->name;
    const char *to = parts->g->values[units->units[a->last].to]->name;
    int rc = units_extract(parts->g, units, first, last, &g, err);
    if (rc < 0)
        return rc;
    const int old = graph_find_value(g, to);
    const int made = graph_splice(g, a->graph, graph_find_value(g, from), PART ".", err);
    if (made < 0)
        return made;
    graph_replace_value(g, old, made);
    rc = graph_compact(g, err);
    if (rc >= 0)
        rc = graph_infer(g, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

static int ask(Hone__V1__PriceTask *price, const char *network, const char *precision,
               struct err *err)
{
    Hone__V1__PriceTask__Piece *piece = message_new(&hone__v1__price_task__piece__descriptor, err);
    if (!piece)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = message_set(&piece->text, PART, err);
    if (rc == 0)
        rc = message_set(&piece->network, network, err);
    if (rc == 0)
        rc = message_set(&piece->precision, precision, err);
    if (rc == 0)
        rc = message_append(&price->pieces, &price->n_pieces, piece, err);
    if (rc < 0)
        message_free(piece);
    return rc;
}

static int ask_all(struct work_task *task, const struct library_parts *parts,
                   const struct alternative *a, Hone__V1__PriceTask *price, size_t *bytes,
                   struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) char *name = NULL;
    int rc = between(parts, a, &g, err);
    if (rc == 0)
        rc = put_graph(task, g, &name, bytes, err);
    for (size_t p = 0; rc == 0 && p < parts->profile->n_precisions; p++)
        rc = ask(price, name, parts->profile->precisions[p], err);
    return rc;
}

uint64_t library_values(const struct graph *g)
{
    uint64_t n = 0;
    for (int v = 0; g && v < g->n_values; v++) {
        const struct value *value = g->values[v];
        if (!value->constant && value->producer >= 0 && value->shape_known)
            n += (uint64_t)shape_elements_at(&value->shape, 1);
    }
    return n;
}

static int describe(const struct library_parts *parts, const struct alternative *a, job_arc *arc,
                    struct err *err)
{
    const struct unit *units = parts->units.units;
    const struct cost cost = a->graph ? graph_cost(a->graph) : (struct cost){0};
    arc->first = (uint32_t)a->first;
    arc->last = (uint32_t)a->last;
    arc->macs = (uint64_t)cost.macs;
    arc->parameters = (uint64_t)cost.parameters;
    arc->values = library_values(a->graph);
    arc->loss = NAN;
    int rc = message_set(&arc->text, a->text, err);
    if (rc == 0)
        rc = message_set(&arc->from, parts->g->values[units[a->first].from]->name, err);
    return rc == 0 ? message_set(&arc->to, parts->g->values[units[a->last].to]->name, err) : rc;
}

static int add(struct work_task *task, const struct library_parts *parts,
               const struct alternative *a, Hone__V1__PriceTask *price, job_library *library,
               size_t *bytes, struct err *err)
{
    job_arc *arc = message_new(&hone__v1__library__arc__descriptor, err);
    if (!arc)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = describe(parts, a, arc, err);
    if (rc == 0 && a->graph)
        rc = put_graph(task, a->graph, &arc->network, bytes, err);
    if (rc == 0 && a->graph)
        rc = ask_all(task, parts, a, price, bytes, err);
    if (rc == 0)
        rc = message_append(&library->arcs, &library->n_arcs, arc, err);
    if (rc < 0)
        message_free(arc);
    return rc;
}

/* Where samples cannot be looked at (a network of several inputs) weights alone decide. */
static int look_at_channels(struct work_task *task, job_state *state,
                            const struct library_parts *parts, struct activity *ret,
                            struct err *err)
{
    struct err why = {0};
    int rc = activity_measure(task, state, parts->g, parts->arena, ret, &why);
    if (rc == 0)
        return 0;
    ret->mean = NULL;
    return work_is_permanent(why.code)
               ? state_decide(state, err, "blocks: channels are chosen by their weights alone: %s",
                              why.message)
               : err_set(err, why.code, "%s", why.message);
}

/* Their networks in the store, as many as may be; the others are left out. */
static int add_all(struct work_task *task, const struct library_parts *parts,
                   const struct alternatives *all, Hone__V1__PriceTask *price, job_library *library,
                   int *ret_left_out, struct err *err)
{
    size_t bytes = 0;
    int rc = 0, i = 0;
    for (; rc == 0 && i < all->n && bytes < MOST_BYTES; i++) {
        rc = work_check(task, err);
        if (rc == 0)
            rc = add(task, parts, &all->list[i], price, library, &bytes, err);
    }
    *ret_left_out = all->left_out + all->n - i;
    return rc;
}

int library_make(struct work_task *task, job_state *state, const struct library_parts *parts,
                 Hone__V1__PriceTask *price, job_library **ret, struct err *err)
{
    _cleanup_(alternatives_release) struct alternatives all = {0};
    _cleanup_(message_freep) job_library *library =
        message_new(&hone__v1__library__descriptor, err);
    struct activity activity;
    int left_out = 0;
    if (!library)
        return -ERR_RESOURCE_EXHAUSTED;
    int rc = look_at_channels(task, state, parts, &activity, err);
    if (rc == 0)
        rc = alternatives_find(parts->g, &parts->units, activity.mean ? &activity : NULL,
                               state->spec->seed, parts->arena, &all, err);
    for (size_t p = 0; rc == 0 && p < parts->profile->n_precisions; p++)
        rc = message_append_text(&library->precisions, &library->n_precisions,
                                 parts->profile->precisions[p], err);
    if (rc == 0)
        rc = add_all(task, parts, &all, price, library, &left_out, err);
    if (rc == 0 && left_out > 0)
        rc = state_decide(state, err,
                          "blocks: %d alternatives are left out: they have as many products as "
                          "what is there, or too many bytes",
                          left_out);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(library);
    return 0;
}

int library_price(job_library *library, const Hone__V1__PriceResult *prices, struct err *err)
{
    size_t next = 0;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < library->n_arcs; i++) {
        job_arc *arc = library->arcs[i];
        for (size_t p = 0; rc == 0 && *arc->network && p < library->n_precisions; p++)
            rc = next < prices->n_us
                     ? message_append_f64(&arc->us, &arc->n_us, prices->us[next++], err)
                     : err_set(err, ERR_INTERNAL, "%zu prices are too few", prices->n_us);
    }
    if (rc == 0 && next != prices->n_us)
        return err_set(err, ERR_INTERNAL, "%zu prices of %zu", prices->n_us, next);
    return rc;
}

/* ---- what it saves ---- */

static bool is_replaced(const struct library_parts *parts, const job_arc *arc, const char *layer)
{
    const struct unit *units = parts->units.units;
    for (int b = units[arc->first].first; b <= units[arc->last].last; b++) {
        const struct block *block = &parts->units.cuts.blocks[b];
        for (int i = 0; i < block->n_nodes; i++)
            if (strcmp(parts->g->nodes[block->nodes[i]]->name, layer) == 0)
                return true;
    }
    return false;
}

/* A layer that does not run in the precision (a pool) takes as long as in the first. */
double library_kept_us(const struct library_parts *parts, const job_arc *arc, size_t precision)
{
    double sum = 0;
    for (size_t i = 0; i < parts->profile->n_layers; i++) {
        const Hone__V1__Profile__Layer *layer = parts->profile->layers[i];
        if (precision >= layer->n_us || !is_replaced(parts, arc, layer->layer))
            continue;
        sum += layer->us[precision] > 0 ? layer->us[precision] : layer->us[0];
    }
    return sum;
}

double library_saving(const struct library_parts *parts, const job_arc *arc)
{
    double kept = INFINITY, own = *arc->network ? INFINITY : 0;
    for (size_t p = 0; p < parts->profile->n_precisions; p++) {
        const double us = library_kept_us(parts, arc, p);
        if (us > 0)
            kept = fmin(kept, us);
        if (p < arc->n_us && arc->us[p] > 0)
            own = fmin(own, arc->us[p]);
    }
    return isfinite(kept) && isfinite(own) ? kept - own : 0;
}

/* ---- as an artifact ---- */

int library_load(struct work_task *task, const job_state *state, job_library **ret, struct err *err)
{
    return message_load(task->store, state->library, &hone__v1__library__descriptor, ret, err);
}

int library_keep(struct work_task *task, job_state *state, const job_library *library,
                 struct err *err)
{
    char name[HASH_HEX_BYTES];
    int rc = message_store(task->store, library, name, err);
    return rc == 0 ? message_set(&state->library, name, err) : rc;
}
