#include "services/profiler/piece.h"

#include <stdlib.h>

#include "services/profiler/timing.h"
#include "shared/base/str.h"
#include "shared/design/design.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"

#define NEIGHBOUR 8 /* channels of the layers before and behind */

static bool ends_network(const struct design *design)
{
    return design_is_head(&design->pieces[design->n - 1]);
}

/* The pieces with the neighbours around them. */
static int put_in_place(const struct piece_place *place, const struct design *own,
                        struct arena *arena, struct design *ret, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    if (!place->first)
        strbuf_printf(&text, "conv:%lld:k1 ", (long long)place->channels);
    strbuf_add(&text, place->text);
    if (!ends_network(own))
        strbuf_printf(&text, " conv:%d:k1", NEIGHBOUR);
    return text.failed ? err_oom(err, "a piece") : design_parse(text.data, arena, ret, err);
}

static int to_int8(struct graph *g, struct graph **ret, struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct quant_options options = {.weight_bits = nn_has_int8() ? 8 : 7};
    int r = pass_simplify(g, err);
    if (r >= 0)
        r = quant_ranges_guess(g, &ranges, err);
    return r < 0 ? r : quant_rewrite_all(g, &ranges, &options, ret, err);
}

/* Nodes and values of piece i are called "i.TYPE...". 0: not of a piece. */
static int64_t piece_of(const char *name)
{
    int64_t i = 0;
    for (; *name >= '0' && *name <= '9' && i < DESIGN_MAX_PIECES; name++)
        i = 10 * i + *name - '0';
    return *name == '.' ? i : 0;
}

static double add_up(const struct piece_place *place, const struct design *own,
                     const struct plan *plan, const double *us)
{
    const int64_t begin = place->first ? 1 : 2;
    double sum = 0;
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const char *name = plan_step(plan, i)->layer;
        const int64_t piece = piece_of(name);
        const bool inside = piece >= begin && piece < begin + own->n;
        const bool end = piece == 0 && ((place->first && str_starts_with(name, "input")) ||
                                        (ends_network(own) && str_starts_with(name, "output")));
        sum += inside || end ? us[i] : 0;
    }
    return sum;
}

static int measure(const struct piece_place *place, const struct design *own, struct graph *g,
                   struct piece_time *ret, struct err *err)
{
    static const struct timing_options how = {.warm = 3, .runs = 40, .least = 5, .seconds = 0.15};
    const struct plan_options options = {.batch = place->batch, .threads = place->threads};
    _cleanup_(graph_freep) struct graph *q = NULL;
    _cleanup_(plan_freep) struct plan *plan = NULL;
    int r = to_int8(g, &q, err);
    if (r == 0)
        r = plan_compile(q, &options, &plan, err);
    if (r < 0)
        return r;
    const int n = plan_n_steps(plan);
    _cleanup_(freep) double *us = mem_calloc((size_t)n + 1, sizeof(*us));
    r = us ? timing_plan(plan, &how, us, err) : err_oom(err, "times");
    if (r < 0)
        return r;
    *ret = (struct piece_time){.us = add_up(place, own, plan, us), .rest = us[n]};
    for (int i = 0; i < n; i++)
        ret->rest -= us[i];
    return 0;
}

int piece_measure(const struct piece_place *place, struct piece_time *ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct design own, whole;
    const struct design_ends ends = {.channels = place->first ? place->channels : NEIGHBOUR,
                                     .height = place->height,
                                     .width = place->width,
                                     .outputs = place->outputs};
    int r = arena ? design_parse(place->text, arena, &own, err) : err_oom(err, "a piece");
    if (r == 0)
        r = put_in_place(place, &own, arena, &whole, err);
    if (r == 0)
        r = design_build(&whole, &ends, &g, err);
    return r < 0 ? r : measure(place, &own, g, ret, err);
}

int piece_key(const struct piece_place *place, char **ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design own;
    int r = arena ? design_parse(place->text, arena, &own, err) : err_oom(err, "a piece");
    if (r < 0)
        return r;
    _cleanup_(freep) char *text = design_text(&own, 0, own.n);
    if (!text)
        return err_oom(err, "a piece");
    *ret = str_printf("piece:%s@%lldx%lldx%lld>%lld b%lld%s", text, (long long)place->channels,
                      (long long)place->height, (long long)place->width,
                      (long long)(ends_network(&own) ? place->outputs : 0), (long long)place->batch,
                      place->first ? " first" : "");
    return *ret ? 0 : err_oom(err, "a piece");
}
