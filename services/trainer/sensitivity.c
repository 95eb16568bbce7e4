#include "services/trainer/sensitivity.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/pool.h"
#include "shared/graph/cuts.h"
#include "shared/nn/quantize_stream.h"

#define SAMPLES_MOST 512
#define SAMPLES_LEAST 256
#define SAMPLES_TINY 32               /* where memory is short */
#define WORK ((int64_t)1200000000000) /* multiply-accumulates to spend on all scores */
#define KEPT_BYTES ((int64_t)256 << 20)

struct layer {
    const char *name;
    int block;
};

struct scoring {
    const struct graph *g;
    const struct quant_ranges *ranges;
    const struct sensitivity_options *options;
    struct arena *arena;
    struct cuts cuts;
    int n_layers;
    struct layer *layers; /* by block */
    struct sensitivity *scores;
    int64_t n, width;
    float *reference; /* [n, width]: the original's outputs */
    char *rows;  /* [n]: the original's activations at the cut point reached; NULL: the start */
    int64_t row; /* bytes of one */
    pthread_mutex_t lock; /* of progress */
    int64_t done;
};

static void scoring_release(struct scoring *s)
{
    free(s->reference);
    free(s->rows);
    pthread_mutex_destroy(&s->lock);
}

/* ---- layers and blocks ---- */

/* The block of each node; -1: none. */
static int *blocks_of_nodes(const struct scoring *s)
{
    int *block = arena_alloc(s->arena, (size_t)s->g->n_nodes + 1, sizeof(*block));
    for (int n = 0; n < s->g->n_nodes && block; n++)
        block[n] = -1;
    for (int b = 0; b < s->cuts.n_blocks && block; b++)
        for (int i = 0; i < s->cuts.blocks[b].n_nodes; i++)
            block[s->cuts.blocks[b].nodes[i]] = b;
    return block;
}

static bool is_layer(const char *name, const char *const *names, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static int list_layers(struct scoring *s, struct err *err)
{
    const char *const *names;
    int n;
    int rc = graph_cuts(s->g, s->arena, &s->cuts, err);
    if (rc == 0)
        rc = quant_layers(s->g, s->arena, &names, &n, err);
    if (rc < 0)
        return rc;
    const int *block = blocks_of_nodes(s);
    s->layers = arena_alloc(s->arena, (size_t)n + 1, sizeof(*s->layers));
    if (!block || !s->layers)
        return err_oom(err, "the layers");
    /* Nodes are in order, and so are blocks: layers come out by block. */
    for (int i = 0; i < s->g->n_nodes; i++)
        if (block[i] >= 0 && is_layer(s->g->nodes[i]->name, names, n))
            s->layers[s->n_layers++] =
                (struct layer){.name = s->g->nodes[i]->name, .block = block[i]};
    return s->n_layers == n
               ? 0
               : err_set(err, ERR_INTERNAL, "%d of %d layers lie in no block", n - s->n_layers, n);
}

/* Blocks from `first` on until they hold at least `wanted` layers: enough for all threads. */
static int segment_end(const struct scoring *s, int first, int wanted)
{
    int last = first;
    for (int b = first, found = 0; b < s->cuts.n_blocks && found < wanted; b++) {
        for (int k = 0; k < s->n_layers; k++)
            found += s->layers[k].block == b;
        last = b;
    }
    return last;
}

static int64_t row_bytes(const struct scoring *s, int block)
{
    const int to = s->cuts.blocks[block].to;
    if (to < 0)
        return 0;
    const struct value *v = s->g->values[to];
    return shape_elements_at(&v->shape, 1) * (int64_t)dtype_bytes(v->dtype);
}

/* ---- running ---- */

static int fill_rows(void *ctx, int64_t first, int64_t count, void *out, struct err *err)
{
    const struct scoring *s = ctx;
    if (!s->rows)
        return s->options->fill(s->options->fill_ctx, first, count, out, err);
    memcpy(out, s->rows + first * s->row, (size_t)(count * s->row));
    return 0;
}

struct keeper {
    char *rows;
    int64_t row;
};

static int take_rows(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                     void *const *outputs, struct err *err)
{
    (void)worker;
    (void)input;
    (void)err;
    const struct keeper *k = ctx;
    memcpy(k->rows + first * k->row, outputs[0], (size_t)(count * k->row));
    return 0;
}

/* Adds up what the streams of several jobs have done. */
struct meter {
    struct scoring *scoring;
    bool counts;
    int64_t seen;
};

static int on_progress(void *ctx, int64_t done, int64_t total, struct err *err)
{
    (void)total;
    struct meter *m = ctx;
    struct scoring *s = m->scoring;
    if (!s->options->progress)
        return 0;
    pthread_mutex_lock(&s->lock);
    if (m->counts)
        s->done += done - m->seen;
    m->seen = done;
    const int64_t all = s->n * s->n_layers * s->options->n_choices;
    int rc = s->options->progress(s->options->progress_ctx, s->done, all, err);
    pthread_mutex_unlock(&s->lock);
    return rc;
}

/* Runs all samples from the cut point reached through g, keeps its first output. */
static int run(struct scoring *s, const struct graph *g, int threads, bool counts, char *rows,
               int64_t row, struct err *err)
{
    struct keeper keeper = {.rows = rows, .row = row};
    struct meter meter = {.scoring = s, .counts = counts};
    const struct quant_stream stream = {
        .graph = g,
        .n = s->n,
        .threads = threads,
        .fill = fill_rows,
        .fill_ctx = s,
        .take = take_rows,
        .take_ctx = &keeper,
        .progress = on_progress,
        .progress_ctx = &meter,
    };
    return quant_stream_run(&stream, err);
}

static int run_reference(struct scoring *s, struct err *err)
{
    int rc = infer_output_width(s->g, &s->width, err);
    if (rc < 0)
        return rc;
    s->reference = mem_aligned((size_t)(s->n * s->width) * sizeof(float));
    if (!s->reference)
        return err_oom(err, "the original's outputs");
    return run(s, s->g, s->options->threads, false, (char *)s->reference,
               s->width * (int64_t)sizeof(float), err);
}

/* ---- scores ---- */

/* The layers of one segment, times the choices. */
struct segment {
    struct scoring *scoring;
    int first, last;
    int layer; /* the first */
};

static int score_one(void *ctx, int64_t index, int worker, struct err *err)
{
    (void)worker;
    const struct segment *seg = ctx;
    struct scoring *s = seg->scoring;
    const int n_choices = s->options->n_choices;
    struct sensitivity *score = &s->scores[seg->layer * n_choices + index];
    const struct quant_options options = {.weight_bits = s->options->weight_bits};
    _cleanup_(graph_freep) struct graph *rest = NULL;
    _cleanup_(graph_freep) struct graph *lowered = NULL;
    int rc = graph_extract_blocks(s->g, &s->cuts, seg->first, s->cuts.n_blocks - 1, &rest, err);
    if (rc == 0)
        rc = quant_rewrite(rest, &score->choice, 1, s->ranges, &options, &lowered, err);
    if (rc < 0)
        return rc;
    _cleanup_(freep) float *logits = mem_aligned((size_t)(s->n * s->width) * sizeof(float));
    if (!logits)
        return err_oom(err, "a layer's score");
    rc = run(s, lowered, 1, true, (char *)logits, s->width * (int64_t)sizeof(float), err);
    if (rc < 0)
        return rc;
    struct infer_metrics metrics;
    infer_metrics(logits, s->reference, NULL, s->n, s->width, &metrics);
    score->kl = metrics.kl;
    score->agreement = metrics.agreement;
    score->bytes = quant_packed_bytes(lowered, score->choice.layer);
    return 0;
}

static int score_segment(const struct segment *seg, int n_layers, struct err *err)
{
    const struct sensitivity_options *o = seg->scoring->options;
    const int threads = o->threads > 0 ? o->threads : pool_cpus();
    return pool_for((int64_t)n_layers * o->n_choices, threads, score_one, (void *)seg, err);
}

/* The original runs on to the cut point behind the segment. */
static int advance(struct scoring *s, const struct segment *seg, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = graph_extract_blocks(s->g, &s->cuts, seg->first, seg->last, &g, err);
    if (rc < 0)
        return rc;
    const int64_t row = row_bytes(s, seg->last);
    _cleanup_(freep) char *rows = mem_aligned((size_t)(s->n * row));
    if (!rows)
        return err_oom(err, "the activations at a cut point");
    rc = run(s, g, s->options->threads, false, rows, row, err);
    if (rc < 0)
        return rc;
    free(s->rows);
    s->rows = TAKE_PTR(rows);
    s->row = row;
    return 0;
}

static int score_all(struct scoring *s, struct err *err)
{
    const int threads = s->options->threads > 0 ? s->options->threads : pool_cpus();
    int block = 0, layer = 0, rc = 0;
    while (layer < s->n_layers && rc == 0) {
        struct segment seg = {.scoring = s, .first = block, .layer = layer};
        seg.last = segment_end(s, block, threads);
        int n = 0;
        while (layer + n < s->n_layers && s->layers[layer + n].block <= seg.last)
            n++;
        rc = score_segment(&seg, n, err);
        layer += n;
        block = seg.last + 1;
        if (rc == 0 && layer < s->n_layers)
            rc = advance(s, &seg, err);
    }
    return rc;
}

static int list_scores(struct scoring *s, struct err *err)
{
    const int n = s->options->n_choices;
    s->scores = arena_alloc(s->arena, (size_t)(s->n_layers * n) + 1, sizeof(*s->scores));
    if (!s->scores)
        return err_oom(err, "the scores");
    for (int k = 0; k < s->n_layers; k++)
        for (int p = 0; p < n; p++) {
            s->scores[k * n + p].choice = s->options->choices[p];
            s->scores[k * n + p].choice.layer = s->layers[k].name;
        }
    return 0;
}

int sensitivity_measure(const struct graph *g, const struct quant_ranges *ranges,
                        const struct sensitivity_options *options, struct arena *arena,
                        struct sensitivity **ret, int *ret_n, struct err *err)
{
    _cleanup_(scoring_release) struct scoring s = {.g = g,
                                                   .ranges = ranges,
                                                   .options = options,
                                                   .arena = arena,
                                                   .n = options->n,
                                                   .lock = PTHREAD_MUTEX_INITIALIZER};
    int rc = s.n > 0 ? 0 : sensitivity_samples(g, options->n_choices, &s.n, err);
    if (rc == 0)
        rc = list_layers(&s, err);
    if (rc == 0)
        rc = list_scores(&s, err);
    if (rc == 0 && s.n_layers > 0)
        rc = run_reference(&s, err);
    if (rc == 0)
        rc = score_all(&s, err);
    if (rc < 0)
        return rc;
    *ret = s.scores;
    *ret_n = s.n_layers * options->n_choices;
    return 0;
}

/* ---- how many samples ---- */

int sensitivity_samples(const struct graph *g, int n_choices, int64_t *ret, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct scoring s = {.g = g, .arena = arena};
    if (!arena)
        return err_oom(err, "the layers");
    int rc = list_layers(&s, err);
    if (rc < 0)
        return rc;
    /* Multiply-accumulates of one sample over all scores: for each layer what lies behind it. */
    int64_t work = 1, rest = 0, row = 1;
    for (int b = s.cuts.n_blocks - 1; b >= 0; b--) {
        for (int i = 0; i < s.cuts.blocks[b].n_nodes; i++)
            rest += graph_node_cost(g, g->nodes[s.cuts.blocks[b].nodes[i]]).macs;
        for (int k = 0; k < s.n_layers; k++)
            work += s.layers[k].block == b ? rest * n_choices : 0;
        row = b + 1 < s.cuts.n_blocks && row_bytes(&s, b) > row ? row_bytes(&s, b) : row;
    }
    int64_t n = WORK / work;
    n = n < SAMPLES_LEAST ? SAMPLES_LEAST : n > SAMPLES_MOST ? SAMPLES_MOST : n;
    const int64_t fits = KEPT_BYTES / row > SAMPLES_TINY ? KEPT_BYTES / row : SAMPLES_TINY;
    *ret = n < fits ? n : fits;
    return 0;
}
