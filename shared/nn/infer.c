#include "shared/nn/infer.h"

#include <math.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/pool.h"

/* One stream: a plan and its buffers. */
struct stream {
    struct plan *plan;
    float *in;
    struct tensor *out; /* of the first output */
    void **outputs;     /* all outputs; [0] is out->data */
};

struct run {
    const struct graph *g;
    const struct infer_options *options;
    int64_t n, batch, sample, width;
    infer_fill *fill;
    void *ctx;
    float *out;
    struct stream *streams;
    int n_streams;
    pthread_mutex_t mutex; /* guards done and calls of progress */
    int64_t done;
};

static void stream_release(struct stream *s)
{
    for (int i = 1; s->outputs && i < plan_n_outputs(s->plan); i++)
        free(s->outputs[i]);
    free(s->outputs);
    tensor_free(s->out);
    free(s->in);
    plan_free(s->plan);
}

static void run_release(struct run *r)
{
    for (int i = 0; r->streams && i < r->n_streams; i++)
        stream_release(&r->streams[i]);
    free(r->streams);
    pthread_mutex_destroy(&r->mutex);
}

/* ---- what the network takes and gives ---- */

static int check_ports(const struct graph *g, struct err *err)
{
    if (g->n_inputs != 1)
        return err_set(err, ERR_UNIMPLEMENTED, "the network has %d inputs; one is needed",
                       g->n_inputs);
    if (g->n_outputs < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "the network has no output");
    const struct value *in = g->values[g->inputs[0]], *out = g->values[g->outputs[0]];
    if (in->dtype != DTYPE_F32 || !in->shape_known || in->shape.rank < 1)
        return err_set(err, ERR_UNIMPLEMENTED, "input '%s' is %s; a float batch is needed",
                       in->name, dtype_name(in->dtype));
    if (!out->shape_known)
        return err_set(err, ERR_FAILED_PRECONDITION, "the shape of output '%s' is not known",
                       out->name);
    if (in->shape.dim[0] == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "input '%s' is an empty batch", in->name);
    return 0;
}

/* Samples that the network takes at once: the wish, unless its shapes say. */
static int64_t network_batch(const struct graph *g, int64_t wish)
{
    const struct shape *in = &g->values[g->inputs[0]]->shape;
    if (shape_has_batch(in))
        return wish;
    return in->dim[0];
}

int infer_output_width(const struct graph *g, int64_t *ret, struct err *err)
{
    int rc = check_ports(g, err);
    if (rc < 0)
        return rc;
    const struct value *out = g->values[g->outputs[0]];
    int64_t batch = network_batch(g, 1);
    int64_t elements = shape_elements_at(&out->shape, batch);
    if (elements % batch != 0)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "output '%s' has %lld elements for a batch of %lld: no whole number for "
                       "each sample",
                       out->name, (long long)elements, (long long)batch);
    *ret = elements / batch;
    return 0;
}

/* ---- streams ---- */

static int stream_open(struct run *r, struct stream *s, struct err *err)
{
    const struct plan_options options = {
        .batch = r->batch,
        .threads = 1,
        .precision = r->options->precision,
        .choose_by_name = r->options->choose_by_name,
    };
    int rc = plan_compile(r->g, &options, &s->plan, err);
    if (rc < 0)
        return rc;
    int outputs = plan_n_outputs(s->plan);
    const struct plan_port *first = plan_output(s->plan, 0);
    s->in = mem_calloc((size_t)(r->batch * r->sample), sizeof(*s->in));
    s->outputs = mem_calloc((size_t)outputs, sizeof(*s->outputs));
    s->out = tensor_new(first->dtype, &first->shape, err);
    if (!s->in || !s->outputs || !s->out)
        return err_oom(err, "the buffers of an inference stream");
    s->outputs[0] = s->out->data;
    for (int i = 1; i < outputs; i++) {
        s->outputs[i] = mem_aligned(plan_output(s->plan, i)->bytes);
        if (!s->outputs[i])
            return err_oom(err, "the buffers of an inference stream");
    }
    return 0;
}

static int report(struct run *r, int64_t count, struct err *err)
{
    int rc = 0;
    pthread_mutex_lock(&r->mutex);
    r->done += count;
    if (r->options->progress)
        rc = r->options->progress(r->options->progress_ctx, r->done, r->n, err);
    pthread_mutex_unlock(&r->mutex);
    return rc;
}

static int run_block(void *ctx, int64_t index, int worker, struct err *err)
{
    struct run *r = ctx;
    struct stream *s = &r->streams[worker];
    if (!s->plan) {
        int rc = stream_open(r, s, err);
        if (rc < 0)
            return rc;
    }
    int64_t first = index * r->batch;
    int64_t count = r->n - first < r->batch ? r->n - first : r->batch;
    int rc = r->fill(r->ctx, first, count, s->in, err);
    if (rc < 0)
        return rc;
    const void *inputs[] = {s->in};
    rc = plan_run(s->plan, inputs, s->outputs, err);
    if (rc < 0)
        return rc;
    float *to = r->out + first * r->width;
    if (s->out->dtype == DTYPE_F32)
        memcpy(to, s->out->data, (size_t)(count * r->width) * sizeof(*to));
    else
        for (int64_t i = 0; i < count * r->width; i++)
            to[i] = (float)tensor_get_f64(s->out, i);
    return report(r, count, err);
}

int infer_run(const struct graph *g, const struct infer_options *options, int64_t n,
              infer_fill *fill, void *ctx, float *ret_out, struct err *err)
{
    static const struct infer_options defaults;
    _cleanup_(run_release) struct run r = {.g = g,
                                           .options = options ? options : &defaults,
                                           .n = n,
                                           .fill = fill,
                                           .ctx = ctx,
                                           .out = ret_out,
                                           .mutex = PTHREAD_MUTEX_INITIALIZER};
    int rc = infer_output_width(g, &r.width, err);
    if (rc < 0)
        return rc;
    if (n <= 0)
        return n == 0 ? 0 : err_set(err, ERR_INVALID_ARGUMENT, "%lld samples", (long long)n);
    int threads = r.options->threads > 0 ? r.options->threads : pool_cpus();
    int64_t share = (n + threads - 1) / threads;
    int64_t wish = r.options->batch > 0 ? r.options->batch : 16;
    r.batch = network_batch(g, share < wish ? share : wish);
    r.sample = shape_elements_at(&g->values[g->inputs[0]]->shape, r.batch) / r.batch;
    int64_t blocks = (n + r.batch - 1) / r.batch;
    r.n_streams = blocks < threads ? (int)blocks : threads;
    r.streams = mem_calloc((size_t)r.n_streams, sizeof(*r.streams));
    if (!r.streams)
        return err_oom(err, "inference streams");
    /* The first plan chooses implementations by measurement while nothing else runs; the others
     * find the choices made. */
    rc = stream_open(&r, &r.streams[0], err);
    if (rc < 0)
        return rc;
    return pool_for(blocks, r.n_streams, run_block, &r, err);
}

/* ---- metrics ---- */

int32_t infer_top(const float *row, int64_t width)
{
    int64_t best = 0;
    for (int64_t i = 1; i < width; i++)
        if (row[i] > row[best])
            best = i;
    return (int32_t)best;
}

static bool is_distribution(const float *x, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++) {
        if (!(x[i] >= 0))
            return false;
        sum += (double)x[i];
    }
    return fabs(sum - 1) < 1e-3;
}

/* log p of a row; -INFINITY where p is 0. */
static void log_probabilities(const float *x, int64_t n, double *ret)
{
    if (is_distribution(x, n)) {
        for (int64_t i = 0; i < n; i++)
            ret[i] = log((double)x[i]);
        return;
    }
    double top = (double)x[infer_top(x, n)], sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += exp((double)x[i] - top);
    for (int64_t i = 0; i < n; i++)
        ret[i] = (double)x[i] - top - log(sum);
}

/* KL(p || q) from their logarithms; q is kept above 1e-12, so that one hard zero in a network that
 * ends in Softmax does not make the mean infinite. */
static double divergence(const double *log_p, const double *log_q, int64_t n)
{
    const double least = -27.631021; /* log 1e-12 */
    double kl = 0;
    for (int64_t i = 0; i < n; i++)
        if (log_p[i] > -INFINITY)
            kl += exp(log_p[i]) * (log_p[i] - fmax(log_q[i], least));
    return kl;
}

void infer_metrics(const float *logits, const float *reference, const int32_t *labels, int64_t n,
                   int64_t width, struct infer_metrics *ret)
{
    *ret =
        (struct infer_metrics){.n = n, .top1 = NAN, .agreement = NAN, .kl = NAN, .confidence = NAN};
    _cleanup_(freep) double *own = mem_calloc((size_t)width, 2 * sizeof(*own));
    if (!own || n <= 0 || width <= 0)
        return;
    double *theirs = own + width;
    int64_t right = 0, same = 0;
    double kl = 0, confidence = 0;
    for (int64_t i = 0; i < n; i++) {
        const float *row = logits + i * width;
        int64_t top = infer_top(row, width);
        log_probabilities(row, width, own);
        confidence += exp(own[top]);
        if (labels)
            right += top == labels[i];
        if (!reference)
            continue;
        same += top == infer_top(reference + i * width, width);
        log_probabilities(reference + i * width, width, theirs);
        kl += divergence(theirs, own, width);
    }
    ret->confidence = confidence / (double)n;
    if (labels)
        ret->top1 = (double)right / (double)n;
    if (reference) {
        ret->agreement = (double)same / (double)n;
        ret->kl = fmax(0, kl / (double)n);
    }
}

/* ---- the paired bound ---- */

/* P(X <= k) for X ~ Binomial(n, p), 0 < p < 1. */
static double binomial_cdf(int64_t n, int64_t k, double p)
{
    double total = 0;
    for (int64_t i = 0; i <= k; i++)
        total += exp(lgamma((double)n + 1) - lgamma((double)i + 1) - lgamma((double)(n - i) + 1) +
                     (double)i * log(p) + (double)(n - i) * log1p(-p));
    return total;
}

/* Clopper and Pearson's one-sided upper limit of a share of which k of n were seen. */
static double share_bound(int64_t n, int64_t k, double miss)
{
    if (k >= n)
        return 1;
    double low = 0, high = 1;
    for (int i = 0; i < 60; i++) {
        double p = (low + high) / 2;
        if (binomial_cdf(n, k, p) > miss)
            low = p;
        else
            high = p;
    }
    return high;
}

/* z with P(Z > z) = miss, for a normal Z; 1.645 for 0.05. */
static double normal_bound(double miss)
{
    double low = 0, high = 40;
    for (int i = 0; i < 60; i++) {
        const double z = (low + high) / 2;
        if (erfc(z / M_SQRT2) / 2 > miss)
            low = z;
        else
            high = z;
    }
    return round(low * 1000) / 1000; /* as tables have it */
}

double infer_drop_bound(int64_t worse, int64_t better, int64_t n, double miss)
{
    if (n <= 0)
        return 0;
    const double count = (double)n;
    const int64_t discordant = worse + better;
    const double mean = (double)(worse - better) / count;
    const double variance = n > 1 ? ((double)discordant - count * mean * mean) / (count - 1) : 0;
    double upper = mean + normal_bound(miss) * sqrt(fmax(variance, 0) / count);
    if (discordant < 30) {
        const double among = discordant > 0 ? share_bound(discordant, worse, miss) : 0.5;
        const double given_discordant = (2 * among - 1) * (double)discordant / count;
        upper = fmax(given_discordant, share_bound(n, worse, miss) - (double)better / count);
    }
    return 100 * fmax(upper, mean);
}

void infer_drop_bounds(struct drop_case *cases, int n, double miss, double limit)
{
    for (int i = 0; i < n; i++)
        cases[i].bound = INFINITY;
    int left = n, kept = 1;
    while (kept > 0) {
        const double share = miss / left;
        kept = 0;
        for (int i = 0; i < n; i++) {
            struct drop_case *c = &cases[i];
            if (c->bound <= limit)
                continue;
            c->bound = infer_drop_bound(c->worse, c->better, c->n, share);
            kept += c->bound <= limit;
        }
        left -= kept;
    }
}

void infer_paired_drop(const float *logits, const float *original, const int32_t *labels, int64_t n,
                       int64_t width, struct paired_drop *ret)
{
    *ret = (struct paired_drop){0};
    for (int64_t i = 0; i < n; i++) {
        const int32_t was = infer_top(original + i * width, width);
        const int32_t is = infer_top(logits + i * width, width);
        const int32_t truth = labels ? labels[i] : was;
        ret->worse += was == truth && is != truth;
        ret->better += was != truth && is == truth;
    }
    if (n > 0)
        ret->points = 100 * (double)(ret->worse - ret->better) / (double)n;
    ret->upper95_points = infer_drop_bound(ret->worse, ret->better, n, 0.05);
}
