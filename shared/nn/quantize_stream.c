/* Runs samples through a graph in small batches on several threads, and hands on what comes out. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/pool.h"
#include "shared/nn/quantize_stream.h"

#define BATCH_MAX 16
#define BATCH_BYTES ((int64_t)24 << 20) /* of the outputs of one batch */

struct worker {
    struct plan *plan;
    void *input;
    void **outputs;
};

struct run {
    const struct quant_stream *stream;
    int64_t batch, sample_bytes;
    int n_workers;
    struct worker *workers;
    pthread_mutex_t lock; /* of progress */
    int64_t done;
};

static const struct value *only_input(const struct graph *g, struct err *err)
{
    if (g->n_inputs == 1)
        return g->values[g->inputs[0]];
    err_set(err, ERR_UNIMPLEMENTED, "the network has %d inputs; samples can be fed to one only",
            g->n_inputs);
    return NULL;
}

static int64_t choose_batch(const struct quant_stream *s, const struct value *input)
{
    if (!shape_has_batch(&input->shape))
        return input->shape.rank > 0 ? input->shape.dim[0] : 1;
    if (s->batch > 0)
        return s->batch;
    int64_t bytes = 1;
    for (int i = 0; i < s->graph->n_outputs; i++) {
        const struct value *v = s->graph->values[s->graph->outputs[i]];
        bytes += shape_elements_at(&v->shape, 1) * (int64_t)dtype_bytes(v->dtype);
    }
    const int64_t fits = BATCH_BYTES / bytes;
    return fits < 1 ? 1 : fits > BATCH_MAX ? BATCH_MAX : fits;
}

static int64_t round_up(int64_t a, int64_t b)
{
    return (a + b - 1) / b;
}

static int64_t piece_of(const struct quant_stream *s, int64_t batch)
{
    return round_up(round_up(s->n, batch), QUANT_PIECES_MAX) * batch;
}

int64_t quant_stream_piece(const struct quant_stream *stream)
{
    if (stream->graph->n_inputs != 1)
        return 0;
    const int64_t batch = choose_batch(stream, stream->graph->values[stream->graph->inputs[0]]);
    return batch < 1 ? 0 : piece_of(stream, batch);
}

static void worker_release(const struct run *r, struct worker *w)
{
    for (int i = 0; w->outputs && i < r->stream->graph->n_outputs; i++)
        free(w->outputs[i]);
    free(w->outputs);
    free(w->input);
    plan_freep(&w->plan);
}

static void run_release(struct run *r)
{
    for (int i = 0; r->workers && i < r->n_workers; i++)
        worker_release(r, &r->workers[i]);
    free(r->workers);
    pthread_mutex_destroy(&r->lock);
}

static int worker_init(const struct run *r, struct worker *w, struct err *err)
{
    const struct graph *g = r->stream->graph;
    w->input = mem_aligned((size_t)(r->batch * r->sample_bytes));
    w->outputs = mem_calloc((size_t)g->n_outputs + 1, sizeof(*w->outputs));
    if (!w->input || !w->outputs)
        return err_oom(err, "a batch");
    memset(w->input, 0, (size_t)(r->batch * r->sample_bytes));
    if (g->n_outputs == 0)
        return 0; /* only the input is wanted */
    const struct plan_options options = {
        .batch = r->batch,
        .threads = 1,
        .precision = r->stream->precision,
        .choose_by_name = true,
    };
    int rc = plan_compile(g, &options, &w->plan, err);
    for (int i = 0; i < g->n_outputs && rc == 0; i++) {
        w->outputs[i] = mem_aligned(plan_output(w->plan, i)->bytes);
        if (!w->outputs[i])
            rc = err_oom(err, "a batch's outputs");
    }
    return rc;
}

static int report(struct run *r, int64_t count, struct err *err)
{
    const struct quant_stream *s = r->stream;
    if (!s->progress)
        return 0;
    pthread_mutex_lock(&r->lock);
    r->done += count;
    int rc = s->progress(s->progress_ctx, s->done + r->done, s->total ? s->total : s->n, err);
    pthread_mutex_unlock(&r->lock);
    return rc < 0 ? rc : 0;
}

static int run_batch(struct run *r, int worker, int64_t first, int64_t count, struct err *err)
{
    const struct quant_stream *s = r->stream;
    struct worker *w = &r->workers[worker];
    int rc = s->fill(s->fill_ctx, first, count, w->input, err);
    if (rc < 0)
        return rc;
    if (w->plan) {
        const void *inputs[] = {w->input};
        rc = plan_run(w->plan, inputs, w->outputs, err);
        if (rc < 0)
            return rc;
    }
    rc = s->take(s->take_ctx, worker, first, count, w->input, w->outputs, err);
    return rc < 0 ? rc : report(r, count, err);
}

static int run_piece(void *ctx, int64_t index, int worker, struct err *err)
{
    struct run *r = ctx;
    const int64_t piece = piece_of(r->stream, r->batch);
    const int64_t end = (index + 1) * piece < r->stream->n ? (index + 1) * piece : r->stream->n;
    int rc = 0;
    for (int64_t first = index * piece; first < end && rc == 0; first += r->batch)
        rc = run_batch(r, worker, first, end - first < r->batch ? end - first : r->batch, err);
    return rc;
}

int quant_stream_run(const struct quant_stream *stream, struct err *err)
{
    const struct value *input = only_input(stream->graph, err);
    if (!input)
        return -ERR_UNIMPLEMENTED;
    _cleanup_(run_release) struct run r = {.stream = stream, .lock = PTHREAD_MUTEX_INITIALIZER};
    r.batch = choose_batch(stream, input);
    const int64_t elements = shape_elements_at(&input->shape, r.batch);
    if (r.batch < 1 || elements < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "input '%s' holds nothing", input->name);
    r.sample_bytes = elements / r.batch * (int64_t)dtype_bytes(input->dtype);
    const int64_t pieces = round_up(stream->n, piece_of(stream, r.batch));
    const int threads = stream->threads > 0 ? stream->threads : pool_cpus();
    r.n_workers = (int)(pieces < threads ? pieces : threads);
    r.workers = mem_calloc((size_t)r.n_workers + 1, sizeof(*r.workers));
    if (!r.workers)
        return err_oom(err, "a stream of samples");
    for (int i = 0; i < r.n_workers; i++) {
        int rc = worker_init(&r, &r.workers[i], err);
        if (rc < 0)
            return rc;
    }
    return pool_for(pieces, r.n_workers, run_piece, &r, err);
}
