/* Calibration: what ranges the values of a network take on real samples. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/rng.h"
#include "shared/nn/quantize_priv.h"

#define NOISE_SAMPLES 16

struct calibration {
    struct graph *graph; /* a copy whose outputs are the values */
    int n;
    int *values;
    int *output; /* of the graph, for each value; -1: the network's input */
    struct histogram *histograms;
    pthread_mutex_t *locks; /* one for each */
};

static void calibration_release(struct calibration *c)
{
    for (int i = 0; c->histograms && i < c->n; i++)
        histogram_release(&c->histograms[i]);
    for (int i = 0; c->locks && i < c->n; i++)
        pthread_mutex_destroy(&c->locks[i]);
    free(c->histograms);
    free(c->locks);
    free(c->values);
    free(c->output);
    graph_freep(&c->graph);
}

/* Every value that some set of int8 layers could want in 8 bits. */
static int list_values(const struct graph *g, struct calibration *c, struct err *err)
{
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    bool *all = scratch ? arena_alloc(scratch, (size_t)g->n_nodes + 1, sizeof(bool)) : NULL;
    c->values = mem_calloc((size_t)g->n_values + 1, sizeof(int));
    c->output = mem_calloc((size_t)g->n_values + 1, sizeof(int));
    if (!all || !c->values || !c->output)
        return err_oom(err, "calibration");
    memset(all, 1, (size_t)g->n_nodes);
    struct quant_spread spread;
    int rc = quant_spread_make(g, all, scratch, &spread, err);
    for (int v = 0; v < g->n_values && rc == 0; v++)
        if (spread.wanted[v])
            c->values[c->n++] = v;
    return rc;
}

static int calibration_init(const struct graph *g, struct calibration *c, struct err *err)
{
    int rc = list_values(g, c, err);
    if (rc < 0 || (rc = graph_clone(g, &c->graph, err)) < 0)
        return rc;
    rc = quant_set_outputs(c->graph, c->n, c->values, c->output, err);
    if (rc < 0)
        return rc;
    c->histograms = mem_calloc((size_t)c->n + 1, sizeof(*c->histograms));
    c->locks = mem_calloc((size_t)c->n + 1, sizeof(*c->locks));
    if (!c->histograms || !c->locks)
        return err_oom(err, "calibration");
    for (int i = 0; i < c->n; i++)
        pthread_mutex_init(&c->locks[i], NULL);
    for (int i = 0; i < c->n && rc == 0; i++)
        rc = histogram_init(&c->histograms[i], err);
    return rc;
}

static int take_batch(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                      void *const *outputs, struct err *err)
{
    (void)worker;
    struct calibration *c = ctx;
    for (int i = 0; i < c->n; i++) {
        const struct value *v = c->graph->values[c->values[i]];
        const float *x = c->output[i] < 0 ? input : outputs[c->output[i]];
        pthread_mutex_lock(&c->locks[i]);
        int rc = histogram_add(&c->histograms[i], x, shape_elements_at(&v->shape, count), err);
        pthread_mutex_unlock(&c->locks[i]);
        if (rc < 0)
            return err_wrap(err, "value '%s', samples %lld to %lld", v->name, (long long)first,
                            (long long)(first + count - 1));
    }
    return 0;
}

static int collect(const struct calibration *c, int64_t n, struct quant_ranges *ret,
                   struct err *err)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {.samples = n};
    for (int i = 0; i < c->n; i++) {
        struct quant_range range = {.value = c->graph->values[c->values[i]]->name};
        int rc = histogram_range(&c->histograms[i], &range, err);
        if (rc == 0)
            rc = quant_ranges_add(&ranges, &range, err);
        if (rc < 0)
            return rc;
    }
    *ret = ranges;
    ranges = (struct quant_ranges){0};
    return 0;
}

struct filler {
    infer_fill *fill;
    void *ctx;
};

static int fill_floats(void *ctx, int64_t first, int64_t count, void *out, struct err *err)
{
    const struct filler *f = ctx;
    return f->fill(f->ctx, first, count, out, err);
}

int quant_calibrate(const struct graph *g, const struct infer_options *options, int64_t n,
                    infer_fill *fill, void *ctx, struct quant_ranges *ret, struct err *err)
{
    if (n < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "calibration needs samples");
    _cleanup_(calibration_release) struct calibration c = {0};
    int rc = calibration_init(g, &c, err);
    if (rc < 0)
        return rc;
    struct filler filler = {.fill = fill, .ctx = ctx};
    const struct quant_stream stream = {
        .graph = c.graph,
        .n = n,
        .threads = options->threads,
        .batch = options->batch,
        .precision = PRECISION_FP32,
        .fill = fill_floats,
        .fill_ctx = &filler,
        .take = take_batch,
        .take_ctx = &c,
        .progress = options->progress,
        .progress_ctx = options->progress_ctx,
    };
    rc = c.n > 0 ? quant_stream_run(&stream, err) : 0;
    return rc < 0 ? rc : collect(&c, n, ret, err);
}

struct noise {
    uint64_t seed;
    int64_t elements; /* of one sample */
};

static int fill_noise(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)err;
    const struct noise *noise = ctx;
    for (int64_t s = 0; s < count; s++) {
        struct rng rng;
        rng_seed2(&rng, noise->seed, (uint64_t)(first + s));
        for (int64_t i = 0; i < noise->elements; i++)
            out[s * noise->elements + i] = (float)rng_normal(&rng);
    }
    return 0;
}

int quant_calibrate_noise(const struct graph *g, uint64_t seed, struct quant_ranges *ret,
                          struct err *err)
{
    if (g->n_inputs != 1)
        return err_set(err, ERR_UNIMPLEMENTED, "the network has %d inputs; noise is made for one",
                       g->n_inputs);
    const struct shape *shape = &g->values[g->inputs[0]]->shape;
    struct noise noise = {.seed = seed, .elements = shape_elements_at(shape, 1)};
    if (!shape_has_batch(shape) && shape->rank > 0 && shape->dim[0] > 0)
        noise.elements /= shape->dim[0];
    const struct infer_options options = {.threads = 1};
    return quant_calibrate(g, &options, NOISE_SAMPLES, fill_noise, &noise, ret, err);
}
