/*
 * Bias correction. Rounding weights and clipping activations shifts the mean of what a layer gives;
 * the shift goes back into its bias. A layer can be corrected only when those before it are, so the
 * quantized network is walked from cut point to cut point: what flows there is kept for all samples
 * (mostly in 8 bits), and only the layers in between run again.
 */
#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/cuts.h"
#include "shared/nn/quantize_priv.h"

#define PASSES_MAX 3                    /* over one segment: exact for the first three layers */
#define KEPT_BYTES ((int64_t)128 << 20) /* at one cut point */
#define SAMPLES_MIN 32

struct corrected {
    const char *name; /* of the node, in both networks */
    int node;         /* in q */
    int bias;         /* value in q: s32 constant */
    const float *scales;
    int64_t channels;
    double *mean; /* [channels]: of the parent */
};

struct correction {
    const struct graph *parent;
    struct graph *q;
    const struct infer_options *options;
    infer_fill *fill;
    void *fill_ctx;
    struct arena *arena;
    int n;
    struct corrected *layers; /* in the order of q's nodes */
    int64_t samples;
    int64_t done, total; /* progress */
    struct cuts cuts;
    int64_t row; /* bytes that one sample takes at the cut point reached; 0: at the start */
    char *rows;  /* [samples]: what flows there */
};

static void correction_release(struct correction *c)
{
    free(c->rows);
    arena_freep(&c->arena);
}

/* ---- which layers ---- */

static bool corrected_of(const struct graph *q, int n, struct corrected *ret)
{
    const struct node *node = q->nodes[n];
    const struct value *bias = node->n_inputs > 2 ? graph_input_of(q, node, 2) : NULL;
    if (node->dead || !bias || bias->producer < 0 ||
        (node->op != OP_CONV && node->op != OP_CONV_TRANSPOSE && node->op != OP_GEMM))
        return false;
    const struct node *dq = q->nodes[bias->producer];
    const struct value *x = graph_input_of(q, dq, 0), *scale = graph_input_of(q, dq, 1);
    if (dq->op != OP_DEQUANTIZE_LINEAR || !x->constant || x->dtype != DTYPE_S32 ||
        !scale->constant || scale->dtype != DTYPE_F32 || x->shape.rank != 1 ||
        shape_elements(&scale->shape) != x->shape.dim[0])
        return false;
    *ret = (struct corrected){.name = node->name,
                              .node = n,
                              .bias = dq->inputs[0],
                              .scales = scale->constant->data,
                              .channels = x->shape.dim[0]};
    return true;
}

static int list_layers(struct correction *c, struct err *err)
{
    c->layers = arena_alloc(c->arena, (size_t)c->q->n_nodes + 1, sizeof(*c->layers));
    if (!c->layers)
        return err_oom(err, "bias correction");
    for (int n = 0; n < c->q->n_nodes; n++) {
        struct corrected *layer = &c->layers[c->n];
        if (!corrected_of(c->q, n, layer))
            continue;
        layer->mean = arena_alloc(c->arena, (size_t)layer->channels, sizeof(double));
        if (!layer->mean)
            return err_oom(err, "bias correction");
        c->n++;
    }
    return 0;
}

/* ---- means ---- */

/* Means of the outputs of some layers over all samples. Sums are kept for each piece of the stream
 * and added in order at the end, so that the result does not depend on the threads. */
struct means {
    const struct corrected *layers;
    int n;
    const int *output; /* of the graph, for each layer */
    const struct graph *g;
    int64_t piece, width; /* width: channels of all layers together */
    double *sums;         /* [pieces, width] */
};

static double sum_of(const float *x, int64_t n)
{
    enum { LANES = 4 };
    double lanes[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int k = 0; k < LANES; k++)
            lanes[k] += (double)x[i + k];
    for (; i < n; i++)
        lanes[0] += (double)x[i];
    return (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
}

static void sum_channels(const float *x, int64_t samples, int64_t channels, int64_t inner,
                         double *sums)
{
    for (int64_t row = 0; row < samples * channels; row++)
        sums[row % channels] += sum_of(x + row * inner, inner);
}

static int take_means(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                      void *const *outputs, struct err *err)
{
    (void)worker;
    (void)input;
    (void)err;
    const struct means *m = ctx;
    double *sums = m->sums + first / m->piece * m->width;
    for (int i = 0; i < m->n; i++) {
        const struct shape *shape = &m->g->values[m->g->outputs[m->output[i]]]->shape;
        const int64_t channels = m->layers[i].channels;
        const int64_t inner = shape_elements_at(shape, 1) / channels;
        sum_channels(outputs[m->output[i]], count, channels, inner, sums);
        sums += channels;
    }
    return 0;
}

/* ret: [channels] of the first layer, then of the second, ... */
static int finish_means(const struct means *m, int64_t samples, double *ret, struct err *err)
{
    const int64_t pieces = (samples + m->piece - 1) / m->piece;
    int64_t at = 0;
    for (int i = 0; i < m->n; i++) {
        const struct shape *shape = &m->g->values[m->g->outputs[m->output[i]]]->shape;
        const double count =
            (double)(samples * (shape_elements_at(shape, 1) / m->layers[i].channels));
        for (int64_t c = 0; c < m->layers[i].channels; c++, at++) {
            double sum = 0;
            for (int64_t p = 0; p < pieces; p++)
                sum += m->sums[p * m->width + at];
            ret[at] = sum / count;
            if (!isfinite(ret[at]))
                return err_set(err, ERR_OUT_OF_RANGE, "layer '%s': its output is not finite",
                               m->layers[i].name);
        }
    }
    return 0;
}

/* Makes the layers' outputs those of g. */
static int expose(struct graph *g, const struct corrected *layers, int n, int *ret_output,
                  struct err *err)
{
    _cleanup_(freep) int *values = mem_calloc((size_t)n + 1, sizeof(*values));
    if (!values)
        return err_oom(err, "bias correction");
    for (int i = 0; i < n; i++) {
        const int node = quant_find_node(g, layers[i].name);
        if (node < 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "the original has no layer '%s'",
                           layers[i].name);
        const struct value *v = g->values[g->nodes[node]->outputs[0]];
        if (v->shape.rank < 2 || v->shape.dim[1] != layers[i].channels)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "layer '%s' does not give %lld channels in both networks",
                           layers[i].name, (long long)layers[i].channels);
        values[i] = g->nodes[node]->outputs[0];
    }
    return quant_set_outputs(g, n, values, ret_output, err);
}

static int fill_rows(void *ctx, int64_t first, int64_t count, void *out, struct err *err)
{
    struct correction *c = ctx;
    if (!c->rows)
        return c->fill(c->fill_ctx, first, count, out, err);
    memcpy(out, c->rows + first * c->row, (size_t)(count * c->row));
    return 0;
}

static struct quant_stream stream_of(struct correction *c, const struct graph *g)
{
    return (struct quant_stream){
        .graph = g,
        .n = c->samples,
        .threads = c->options->threads,
        .batch = c->options->batch,
        .fill = fill_rows,
        .fill_ctx = c,
        .progress = c->options->progress,
        .progress_ctx = c->options->progress_ctx,
        .done = c->done,
        .total = c->total,
    };
}

/* Consumes g: afterwards the layers' outputs are its only ones. */
static int measure(struct correction *c, struct graph *g, enum precision precision,
                   const struct corrected *layers, int n, double *ret, struct err *err)
{
    _cleanup_(freep) int *output = mem_calloc((size_t)n + 1, sizeof(*output));
    if (!output)
        return err_oom(err, "bias correction");
    int rc = expose(g, layers, n, output, err);
    if (rc < 0)
        return rc;
    struct quant_stream stream = stream_of(c, g);
    stream.precision = precision;
    struct means m = {.layers = layers, .n = n, .output = output, .g = g};
    m.piece = quant_stream_piece(&stream);
    for (int i = 0; i < n; i++)
        m.width += layers[i].channels;
    const int64_t pieces = m.piece > 0 ? (c->samples + m.piece - 1) / m.piece : 0;
    _cleanup_(freep) double *sums = mem_calloc((size_t)(pieces * m.width) + 1, sizeof(*sums));
    if (!sums)
        return err_oom(err, "bias correction");
    m.sums = sums;
    stream.take = take_means;
    stream.take_ctx = &m;
    rc = quant_stream_run(&stream, err);
    c->done += c->samples;
    return rc < 0 ? rc : finish_means(&m, c->samples, ret, err);
}

static int measure_parent(struct correction *c, struct err *err)
{
    int64_t width = 0;
    for (int i = 0; i < c->n; i++)
        width += c->layers[i].channels;
    _cleanup_(freep) double *means = mem_calloc((size_t)width + 1, sizeof(*means));
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = means ? graph_clone(c->parent, &g, err) : err_oom(err, "bias correction");
    if (rc == 0)
        rc = measure(c, g, PRECISION_FP32, c->layers, c->n, means, err);
    const double *from = means;
    for (int i = 0; i < c->n && rc == 0; i++) {
        memcpy(c->layers[i].mean, from, (size_t)c->layers[i].channels * sizeof(double));
        from += c->layers[i].channels;
    }
    return rc;
}

/* ---- segments ---- */

/* Blocks from first to last, and the layers in them. */
struct segment {
    int first, last;
    int layer, n_layers;
};

static int layers_in(const struct correction *c, int block)
{
    int count = 0;
    for (int i = 0; i < c->cuts.blocks[block].n_nodes; i++)
        for (int k = 0; k < c->n; k++)
            count += c->layers[k].node == c->cuts.blocks[block].nodes[i];
    return count;
}

static int64_t row_bytes(const struct correction *c, int value)
{
    const struct value *v = value >= 0 ? c->q->values[value] : NULL;
    return v ? shape_elements_at(&v->shape, 1) * (int64_t)dtype_bytes(v->dtype) : INT64_MAX;
}

/* From block `first` over the next layers to the cut point behind them where the least flows. */
static struct segment next_segment(const struct correction *c, int first, int layer)
{
    struct segment s = {.first = first, .last = first, .layer = layer};
    int block = first;
    while (block < c->cuts.n_blocks && s.n_layers == 0)
        s.n_layers = layers_in(c, block++);
    s.last = block - 1;
    int64_t least = row_bytes(c, c->cuts.blocks[s.last].to);
    for (; block < c->cuts.n_blocks && layers_in(c, block) == 0; block++) {
        const int64_t bytes = row_bytes(c, c->cuts.blocks[block].to);
        if (bytes < least) {
            least = bytes;
            s.last = block;
        }
    }
    return s;
}

static void shift_bias(struct correction *c, const struct corrected *layer, const double *mean)
{
    int32_t *bias = c->q->values[layer->bias]->constant->data;
    for (int64_t i = 0; i < layer->channels; i++) {
        const double steps = nearbyint((layer->mean[i] - mean[i]) / (double)layer->scales[i]);
        bias[i] = (int32_t)fmin(fmax((double)bias[i] + steps, -1073741824.0), 1073741824.0);
    }
}

static int correct_segment(struct correction *c, const struct segment *s, struct err *err)
{
    const struct corrected *layers = c->layers + s->layer;
    int64_t width = 0;
    for (int i = 0; i < s->n_layers; i++)
        width += layers[i].channels;
    _cleanup_(freep) double *means = mem_calloc((size_t)width + 1, sizeof(*means));
    if (!means)
        return err_oom(err, "bias correction");
    const int passes = s->n_layers < PASSES_MAX ? s->n_layers : PASSES_MAX;
    for (int pass = 0; pass < passes; pass++) {
        _cleanup_(graph_freep) struct graph *g = NULL;
        int rc = graph_extract_blocks(c->q, &c->cuts, s->first, s->last, &g, err);
        if (rc == 0)
            rc = measure(c, g, PRECISION_AUTO, layers, s->n_layers, means, err);
        if (rc < 0)
            return rc;
        const double *mean = means;
        for (int i = 0; i < s->n_layers; i++) {
            shift_bias(c, &layers[i], mean);
            mean += layers[i].channels;
        }
    }
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
    struct keeper *k = ctx;
    memcpy(k->rows + first * k->row, outputs[0], (size_t)(count * k->row));
    return 0;
}

/* Runs the corrected segment and keeps what flows behind it. */
static int advance(struct correction *c, const struct segment *s, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    struct keeper k = {.row = row_bytes(c, c->cuts.blocks[s->last].to)};
    _cleanup_(freep) char *rows = mem_aligned((size_t)(c->samples * k.row));
    if (!rows)
        return err_oom(err, "what flows at a cut point");
    int rc = graph_extract_blocks(c->q, &c->cuts, s->first, s->last, &g, err);
    if (rc < 0)
        return rc;
    k.rows = rows;
    struct quant_stream stream = stream_of(c, g);
    stream.take = take_rows;
    stream.take_ctx = &k;
    rc = quant_stream_run(&stream, err);
    if (rc < 0)
        return rc;
    c->done += c->samples;
    free(c->rows);
    c->rows = TAKE_PTR(rows);
    c->row = k.row;
    return 0;
}

/* Walks the segments; with `plan_only` adds up the passes and the largest row instead. */
static int walk(struct correction *c, bool plan_only, int64_t *ret_passes, int64_t *ret_row,
                struct err *err)
{
    int block = 0, rc = 0;
    for (int layer = 0; layer < c->n && rc == 0;) {
        const struct segment s = next_segment(c, block, layer);
        if (s.n_layers == 0)
            return err_set(err, ERR_INTERNAL, "layer '%s' lies in no block", c->layers[layer].name);
        layer += s.n_layers;
        block = s.last + 1;
        if (plan_only) {
            *ret_passes += 1 + (s.n_layers < PASSES_MAX ? s.n_layers : PASSES_MAX);
            const int64_t row = layer < c->n ? row_bytes(c, c->cuts.blocks[s.last].to) : 1;
            *ret_row = row > *ret_row ? row : *ret_row;
            continue;
        }
        rc = correct_segment(c, &s, err);
        if (rc == 0 && layer < c->n)
            rc = advance(c, &s, err);
    }
    return rc;
}

int quant_correct_bias(const struct graph *parent, struct graph *q,
                       const struct infer_options *options, int64_t n, infer_fill *fill, void *ctx,
                       struct err *err)
{
    _cleanup_(correction_release) struct correction c = {.parent = parent,
                                                         .q = q,
                                                         .options = options,
                                                         .fill = fill,
                                                         .fill_ctx = ctx,
                                                         .arena = arena_new()};
    if (!c.arena)
        return err_oom(err, "bias correction");
    int rc = list_layers(&c, err);
    if (rc < 0 || c.n == 0 || n < 1)
        return rc;
    rc = graph_cuts(q, c.arena, &c.cuts, err);
    if (rc < 0)
        return rc;
    int64_t passes = 1, row = 1;
    rc = walk(&c, true, &passes, &row, err);
    if (rc < 0)
        return rc;
    const int64_t fits = KEPT_BYTES / row > SAMPLES_MIN ? KEPT_BYTES / row : SAMPLES_MIN;
    c.samples = n < fits ? n : fits;
    c.total = passes * c.samples;
    rc = measure_parent(&c, err);
    return rc < 0 ? rc : walk(&c, false, NULL, NULL, err);
}
