#include "services/profiler/piece.h"

#include <stdlib.h>
#include <string.h>

#include "services/profiler/timing.h"
#include "shared/base/clock.h"
#include "shared/base/hash.h"
#include "shared/base/str.h"
#include "shared/design/design.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"

/* Of timing, in the keys of prices: raised when the same piece would get another price. */
#define METHOD "4"
#define BEFORE 2 /* pieces before the one that is timed */
#define BEHIND 3
#define NARROW 3      /* channels of the first and the last */
#define SHRINK 4      /* stride of the last but one */
#define TRIAL_SIDE 64 /* of pictures that show whether a piece shrinks them */
#define LEAST_TURNS 6
#define MOST_TURNS 256
#define LEAST_SECONDS 0.5

struct piece_bench {
    struct plan *plan;
    struct plan_buffers buffers;
    bool *own;   /* [n_steps]: steps of the piece */
    bool failed; /* it could not run */
    double *us;
    struct turn {
        double us, whole, rest;
    } turns[MOST_TURNS];
};

/* ---- building ---- */

static bool ends_network(const struct design *design)
{
    return design_is_head(&design->pieces[design->n - 1]);
}

static int convolution(int64_t width, struct arena *arena, struct piece *ret, struct err *err)
{
    struct design plain;
    int r = design_parse("conv", arena, &plain, err);
    if (r < 0)
        return r;
    *ret = plain.pieces[0];
    ret->width = width;
    return 0;
}

/* A neighbour of the piece that yields `width` channels and keeps height and width: one like it, so
 * that both like the same layouts; a plain convolution where it shrinks what it reads, or ends the
 * network. */
static int neighbour(const struct piece *piece, int64_t width, struct arena *arena,
                     struct piece *ret, struct err *err)
{
    struct piece like = *piece;
    like.width = width;
    like.stride = 1;
    like.pool = like.attention = false;
    const struct design alone = {.n = 1, .pieces = &like};
    const struct design_ends ends = {
        .channels = width, .height = TRIAL_SIDE, .width = TRIAL_SIDE, .outputs = 1};
    struct design_ends out;
    if (design_shape_at(&alone, &ends, 1, &out, NULL) < 0 || out.height != TRIAL_SIDE)
        return convolution(width, arena, ret, err);
    *ret = like;
    return 0;
}

static int64_t least_of(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

/* The pieces between their neighbours; `ends`: of the pieces before, of the whole behind. The ends
 * of the whole are narrow, and few numbers are float: what is slow there shall steer nothing. */
static int put_in_place(const struct piece_place *place, struct design_ends *ends,
                        const struct design *own, struct arena *arena, struct design *ret,
                        struct err *err)
{
    struct piece *pieces = arena_alloc(arena, (size_t)own->n + BEFORE + BEHIND, sizeof(*pieces));
    struct design_ends out;
    int n = 0;
    int r = pieces ? design_shape_at(own, ends, own->n, &out, err) : err_oom(err, "a piece");
    if (r == 0 && !place->first)
        r = convolution(ends->channels, arena, &pieces[n++], err);
    if (r == 0 && !place->first)
        r = neighbour(&own->pieces[0], ends->channels, arena, &pieces[n++], err);
    for (int i = 0; r == 0 && i < own->n; i++)
        pieces[n++] = own->pieces[i];
    if (r == 0 && !ends_network(own))
        r = neighbour(&own->pieces[own->n - 1], out.channels, arena, &pieces[n++], err);
    for (int i = 0; r == 0 && i < 2 && !ends_network(own); i++) {
        r = convolution(NARROW, arena, &pieces[n++], err);
        if (r == 0 && i == 0)
            pieces[n - 1].stride = (int)least_of(SHRINK, least_of(out.height, out.width));
    }
    if (!place->first)
        ends->channels = NARROW;
    *ret = (struct design){.n = n, .pieces = pieces};
    return r;
}

/* ---- parts of networks ---- */

/* The name of a node or value of the part. */
static bool of_part(const struct piece_place *place, const char *name)
{
    const size_t n = strlen(place->text);
    return strncmp(name, place->text, n) == 0 && name[n] == '.';
}

static void write_attr(const struct attr *a, struct strbuf *to)
{
    strbuf_printf(to, " %s", a->name);
    if (a->kind == ATTR_INT)
        strbuf_printf(to, "=%lld", (long long)a->i);
    for (int i = 0; a->kind == ATTR_INTS && i < a->n; i++)
        strbuf_printf(to, "%s%lld", i ? "," : "=", (long long)a->ints[i]);
    if (a->kind == ATTR_FLOAT)
        strbuf_printf(to, "=%.9g", (double)a->f);
}

static void write_shapes(const struct graph *g, const int *values, int n, struct strbuf *to)
{
    char text[128];
    for (int i = 0; i < n; i++)
        if (values[i] >= 0)
            strbuf_printf(to, " %s", shape_text(&g->values[values[i]]->shape, text));
}

/* All that its time depends on, but for the numbers in it. */
static void write_network(const struct piece_place *place, struct strbuf *to)
{
    const struct graph *g = place->network;
    for (int i = 0; i < g->n_nodes; i++) {
        const struct node *node = g->nodes[i];
        if (node->dead)
            continue;
        strbuf_printf(to, "%s%s", op_name(node->op), of_part(place, node->name) ? "!" : "");
        for (int k = 0; k < node->n_attrs; k++)
            write_attr(&node->attrs[k], to);
        write_shapes(g, node->inputs, node->n_inputs, to);
        strbuf_add(to, " ->");
        write_shapes(g, node->outputs, node->n_outputs, to);
        strbuf_add(to, "\n");
    }
}

static int network_key(const struct piece_place *place, char **ret, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    char hex[HASH_HEX_BYTES];
    write_network(place, &text);
    int r = text.failed ? err_oom(err, "a piece") : hash_bytes(text.data, text.length, hex, err);
    if (r < 0)
        return r;
    *ret = str_printf("part" METHOD ":%s %s b%lld", hex, precision_name(place->precision),
                      (long long)place->batch);
    return *ret ? 0 : err_oom(err, "a piece");
}

int piece_key(const struct piece_place *place, char **ret, struct err *err)
{
    if (place->network)
        return network_key(place, ret, err);
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design own;
    int r = arena ? design_parse(place->text, arena, &own, err) : err_oom(err, "a piece");
    if (r < 0)
        return r;
    _cleanup_(freep) char *text = design_text(&own, 0, own.n);
    if (!text)
        return err_oom(err, "a piece");
    *ret = str_printf("piece" METHOD ":%s@%lldx%lldx%lld>%lld b%lld%s", text,
                      (long long)place->channels, (long long)place->height, (long long)place->width,
                      (long long)(ends_network(&own) ? place->outputs : 0), (long long)place->batch,
                      place->first ? " first" : "");
    return *ret ? 0 : err_oom(err, "a piece");
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

static void find_own(const struct piece_place *place, const struct design *own,
                     struct piece_bench *b)
{
    const int64_t begin = place->first ? 1 : BEFORE + 1;
    for (int i = 0; i < plan_n_steps(b->plan); i++) {
        const char *name = plan_step(b->plan, i)->layer;
        const int64_t piece = piece_of(name);
        const bool enters = piece == begin - 1 && plan_step(b->plan, i)->kind == STEP_CONVERT;
        b->own[i] = piece > 0 ? (piece >= begin && piece < begin + own->n) || enters
                              : (place->first && str_starts_with(name, "input")) ||
                                    (ends_network(own) && str_starts_with(name, "output"));
    }
}

static void find_part(const struct piece_place *place, struct piece_bench *b)
{
    for (int i = 0; i < plan_n_steps(b->plan); i++)
        b->own[i] = of_part(place, plan_step(b->plan, i)->layer);
}

static int in_float(struct graph *g, struct graph **ret, struct err *err)
{
    int r = pass_simplify(g, err);
    return r < 0 ? r : graph_clone(g, ret, err);
}

static int compile(const struct piece_place *place, struct graph *g, struct piece_bench *b,
                   struct err *err)
{
    const bool narrow = place->precision == PRECISION_AUTO || place->precision == PRECISION_INT8;
    const struct plan_options options = {.batch = place->batch,
                                         .threads = place->threads,
                                         .precision = narrow ? PRECISION_AUTO : place->precision};
    _cleanup_(graph_freep) struct graph *q = NULL;
    int r = narrow ? to_int8(g, &q, err) : in_float(g, &q, err);
    if (r == 0)
        r = plan_compile(q, &options, &b->plan, err);
    if (r == 0)
        r = plan_buffers_make(b->plan, 2, &b->buffers, err);
    if (r < 0)
        return r;
    const size_t n = (size_t)plan_n_steps(b->plan);
    b->own = mem_calloc(n + 1, sizeof(*b->own));
    b->us = mem_calloc(n + 1, sizeof(*b->us));
    return b->own && b->us ? 0 : err_oom(err, "times");
}

static void closep(struct piece_bench **bench)
{
    piece_close(*bench);
}

static int open_part(const struct piece_place *place, struct piece_bench **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) struct piece_bench *b = mem_calloc(1, sizeof(*b));
    int r = b ? graph_clone(place->network, &g, err) : err_oom(err, "a piece");
    if (r == 0)
        r = compile(place, g, b, err);
    if (r < 0)
        return r;
    find_part(place, b);
    *ret = TAKE_PTR(b);
    return 0;
}

int piece_open(const struct piece_place *place, struct piece_bench **ret, struct err *err)
{
    if (place->network)
        return open_part(place, ret, err);
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(closep) struct piece_bench *b = mem_calloc(1, sizeof(*b));
    struct design own, whole;
    struct design_ends ends = {.channels = place->channels,
                               .height = place->height,
                               .width = place->width,
                               .outputs = place->outputs};
    int r = arena && b ? design_parse(place->text, arena, &own, err) : err_oom(err, "a piece");
    if (r == 0)
        r = put_in_place(place, &ends, &own, arena, &whole, err);
    if (r == 0)
        r = design_build(&whole, &ends, &g, err);
    if (r == 0)
        r = compile(place, g, b, err);
    if (r < 0)
        return r;
    find_own(place, &own, b);
    *ret = TAKE_PTR(b);
    return 0;
}

struct piece_bench *piece_close(struct piece_bench *bench)
{
    if (!bench)
        return NULL;
    plan_free(bench->plan);
    plan_buffers_release(&bench->buffers);
    free(bench->own);
    free(bench->us);
    free(bench);
    return NULL;
}

size_t piece_memory(const struct piece_bench *bench)
{
    return plan_memory(bench->plan);
}

/* ---- timing ---- */

static int take_turn(struct piece_bench *b, int turn, struct err *err)
{
    static const struct timing_options how = {.warm = 2, .runs = 15, .least = 2, .seconds = 0.01};
    const int n = plan_n_steps(b->plan);
    int r = timing_plan(b->plan, &b->buffers, &how, b->us, err);
    if (r < 0)
        return r;
    struct turn *t = &b->turns[turn];
    *t = (struct turn){.whole = b->us[n], .rest = b->us[n]};
    for (int i = 0; i < n; i++) {
        t->us += b->own[i] ? b->us[i] : 0;
        t->rest -= b->us[i];
    }
    return 0;
}

static int quieter(const void *a, const void *b)
{
    const struct turn *p = a, *q = b;
    return (p->whole > q->whole) - (p->whole < q->whole);
}

/* The middle of the quieter half: below it as many turns as between it and the median. */
static struct piece_time settle(struct piece_bench *b, int turns)
{
    qsort(b->turns, (size_t)turns, sizeof(*b->turns), quieter);
    const struct turn *t = &b->turns[turns / 4];
    return (struct piece_time){.us = t->us, .rest = t->rest};
}

int piece_time_all(struct piece_bench *const *benches, int n, struct work_task *task,
                   struct piece_time *ret, struct err *err)
{
    const int64_t begin = clock_now_ns(NULL);
    int turns = 0;
    while (turns < LEAST_TURNS ||
           (turns < MOST_TURNS && (double)(clock_now_ns(NULL) - begin) < LEAST_SECONDS * 1e9)) {
        for (int i = 0; i < n; i++) {
            int r = task ? work_check(task, err) : 0;
            if (r < 0)
                return r;
            if (!benches[i]->failed)
                benches[i]->failed = take_turn(benches[i], turns, NULL) < 0;
        }
        turns++;
    }
    for (int i = 0; i < n; i++)
        ret[i] = benches[i]->failed ? (struct piece_time){0} : settle(benches[i], turns);
    return 0;
}
