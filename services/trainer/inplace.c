#include "services/trainer/inplace.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/cuts.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "shared/graph/splice.h"

#define PREFIX "arc."

struct placing {
    const struct graph *g;
    const struct inplace_options *options;
    struct arena *arena;
    struct cuts cuts;
    int64_t width; /* of the answers */
    float *reference, *answers;
    int reached; /* blocks that `rows` is behind of */
    float *rows; /* [n, row]: the network's values there; NULL: the samples themselves */
    int64_t row;
    int part, n_parts; /* which of them is being scored: for progress */
};

static void placing_release(struct placing *p)
{
    arena_free(p->arena);
    free(p->reference);
    free(p->answers);
    free(p->rows);
}

/* ---- the network up to a cut point ---- */

static int fill_rows(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    const struct placing *p = ctx;
    if (!p->rows)
        return p->options->fill(p->options->fill_ctx, first, count, out, err);
    memcpy(out, p->rows + first * p->row, (size_t)(count * p->row) * sizeof(*out));
    return 0;
}

/* In parts, however many samples: a large network takes long enough to be asked in between. */
static int on_progress(void *ctx, int64_t done, int64_t total, struct err *err)
{
    (void)done;
    (void)total;
    const struct placing *p = ctx;
    const struct inplace_options *o = p->options;
    return o->progress ? o->progress(o->progress_ctx, p->part, p->n_parts, err) : 0;
}

static struct infer_options running(struct placing *p)
{
    return (struct infer_options){
        .threads = p->options->threads, .progress = on_progress, .progress_ctx = p};
}

static int run(struct placing *p, const struct graph *g, float *to, struct err *err)
{
    const struct infer_options options = running(p);
    return infer_run(g, &options, p->options->n, fill_rows, p, to, err);
}

/* How many blocks lie before the cut point; -1: it is none. */
static int blocks_before(const struct placing *p, const char *point)
{
    const int v = graph_find_value(p->g, point);
    for (int b = 0; v >= 0 && b < p->cuts.n_blocks; b++) {
        if (p->cuts.blocks[b].from == v)
            return b;
        if (p->cuts.blocks[b].to == v)
            return b + 1;
    }
    return -1;
}

static int advance(struct placing *p, int blocks, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    if (blocks < p->reached) {
        free(p->rows);
        p->rows = NULL;
        p->reached = 0;
    }
    if (blocks == p->reached)
        return 0;
    int64_t row = 0;
    int rc = graph_extract_blocks(p->g, &p->cuts, p->reached, blocks - 1, &g, err);
    if (rc == 0)
        rc = infer_output_width(g, &row, err);
    if (rc < 0)
        return rc;
    _cleanup_(freep) float *rows = mem_aligned((size_t)(p->options->n * row) * sizeof(*rows));
    rc = rows ? run(p, g, rows, err) : err_oom(err, "the values at a cut point");
    if (rc < 0)
        return rc;
    free(p->rows);
    p->rows = TAKE_PTR(rows);
    p->row = row;
    p->reached = blocks;
    return 0;
}

/* ---- one part ---- */

/* The part between the two values, and its inside in one piece. */
static int insert(const struct graph *part, struct graph *g, int from, int to, struct err *err)
{
    _cleanup_(graph_freep) struct graph *merged = NULL;
    int rc = part ? graph_clone(part, &merged, err) : 0;
    if (rc >= 0 && part)
        rc = pass_simplify(merged, err);
    if (rc < 0)
        return rc;
    const int out = part ? graph_splice(g, merged, from, PREFIX, err) : from;
    if (out < 0)
        return out;
    if (!graph_can_replace(g, to, out))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s", "nothing can stand there");
    graph_replace_value(g, to, out);
    rc = graph_compact(g, err);
    return rc < 0 ? rc : graph_infer(g, err);
}

/* From the part's beginning on: to its own end, or to that of the network. */
static int build(struct placing *p, const struct inplace_part *part, int last, struct graph **ret,
                 struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = graph_extract_blocks(p->g, &p->cuts, p->reached, last, &g, err);
    if (rc < 0)
        return rc;
    rc = insert(part->network, g, graph_find_value(g, part->from), graph_find_value(g, part->to),
                err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(g);
    return 0;
}

/* Precisions of the part's layers. */
static int choose(const struct graph *alone, enum precision precision, struct arena *arena,
                  struct quant_choice **ret, int *ret_n, struct err *err)
{
    const char *const *names;
    int rc = quant_layers(alone, arena, &names, ret_n, err);
    *ret = rc == 0 ? arena_alloc(arena, (size_t)*ret_n + 1, sizeof(**ret)) : NULL;
    if (rc < 0 || !*ret)
        return rc < 0 ? rc : err_oom(err, "precisions");
    for (int i = 0; i < *ret_n; i++)
        (*ret)[i] = (struct quant_choice){.layer = names[i], .precision = precision};
    return 0;
}

/* A copy of `whole` with the layers of the part lowered. */
static int lower(struct placing *p, const struct graph *whole, const struct graph *alone,
                 const struct quant_ranges *ranges, enum precision precision, struct graph **ret,
                 struct err *err)
{
    const struct quant_options options = {.weight_bits = p->options->weight_bits};
    struct quant_choice *choices;
    int n;
    int rc = choose(alone, precision, p->arena, &choices, &n, err);
    return rc < 0 ? rc : quant_rewrite(whole, choices, n, ranges, &options, ret, err);
}

static int score(struct placing *p, const struct graph *g, struct inplace_part *part, int i,
                 struct err *err)
{
    struct infer_metrics metrics;
    int rc = run(p, g, p->answers, err);
    if (rc < 0)
        return rc;
    infer_metrics(p->answers, p->reference, NULL, p->options->n, p->width, &metrics);
    part->kl[i] = metrics.kl;
    part->agreement[i] = metrics.agreement;
    return 0;
}

/* Nothing has no precision. */
static int score_nothing(struct placing *p, struct inplace_part *part, struct err *err)
{
    _cleanup_(graph_freep) struct graph *whole = NULL;
    int rc = build(p, part, p->cuts.n_blocks - 1, &whole, err);
    if (rc == 0 && p->options->n_precisions > 0)
        rc = score(p, whole, part, 0, err);
    for (int i = 1; rc == 0 && i < p->options->n_precisions; i++) {
        part->kl[i] = part->kl[0];
        part->agreement[i] = part->agreement[0];
    }
    return rc;
}

static int score_layers(struct placing *p, struct inplace_part *part, int blocks, struct err *err)
{
    _cleanup_(graph_freep) struct graph *whole = NULL, *alone = NULL;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct infer_options options = running(p);
    int rc = build(p, part, p->cuts.n_blocks - 1, &whole, err);
    if (rc == 0)
        rc = build(p, part, blocks - 1, &alone, err);
    if (rc == 0)
        rc = quant_calibrate(alone, &options, p->options->n, fill_rows, p, &ranges, err);
    for (int i = 0; rc == 0 && i < p->options->n_precisions; i++) {
        _cleanup_(graph_freep) struct graph *lowered = NULL;
        const enum precision precision = p->options->precisions[i];
        if (precision != PRECISION_FP32)
            rc = lower(p, whole, alone, &ranges, precision, &lowered, err);
        if (rc == 0)
            rc = score(p, lowered ? lowered : whole, part, i, err);
    }
    return rc;
}

static int place(struct placing *p, struct inplace_part *part, struct err *err)
{
    const int before = blocks_before(p, part->from), behind = blocks_before(p, part->to);
    if (before < 0 || behind <= before)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.80s' and '%.80s' are no cut points",
                       part->from, part->to);
    int rc = advance(p, before, err);
    if (rc < 0)
        return rc;
    return part->network ? score_layers(p, part, behind, err) : score_nothing(p, part, err);
}

/* ---- all of them ---- */

static int begin(struct placing *p, struct err *err)
{
    p->arena = arena_new();
    int rc = p->arena ? graph_cuts(p->g, p->arena, &p->cuts, err) : err_oom(err, "scores");
    if (rc == 0)
        rc = infer_output_width(p->g, &p->width, err);
    if (rc < 0)
        return rc;
    const size_t bytes = (size_t)(p->options->n * p->width) * sizeof(float);
    p->reference = mem_aligned(bytes);
    p->answers = mem_aligned(bytes);
    return p->reference && p->answers ? run(p, p->g, p->reference, err) : err_oom(err, "scores");
}

/* Of the part, not of the machine or of the samples. */
static bool is_its_own(enum err_code code)
{
    return code == ERR_INVALID_ARGUMENT || code == ERR_FAILED_PRECONDITION ||
           code == ERR_UNIMPLEMENTED;
}

int inplace_score(const struct graph *network, const struct inplace_options *options,
                  struct inplace_part *list, int n, struct err *err)
{
    _cleanup_(placing_release) struct placing p = {.g = network, .options = options, .n_parts = n};
    int rc = begin(&p, err);
    for (int i = 0; rc == 0 && i < n; i++) {
        p.part = i;
        for (int k = 0; k < INPLACE_PRECISIONS; k++)
            list[i].kl[k] = list[i].agreement[k] = NAN;
        rc = on_progress(&p, 0, 0, err);
        list[i].why = (struct err){0};
        if (rc < 0 || place(&p, &list[i], &list[i].why) == 0)
            continue;
        if (!is_its_own(list[i].why.code))
            return err_set(err, list[i].why.code, "%s", list[i].why.message);
        for (int k = 0; k < INPLACE_PRECISIONS; k++)
            list[i].kl[k] = list[i].agreement[k] = NAN;
    }
    return rc;
}
