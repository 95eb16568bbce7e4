/* Inference over many samples on ONNX Runtime, a session for each thread. */
#include <pthread.h>
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/nn/infer.h"
#include "shared/nn/ort.h"

#define ORT_BATCH 50

struct session {
    struct ort *ort;
    float *in; /* a batch */
};

struct run {
    const struct infer_options *options;
    int64_t n, batch, sample, width;
    infer_fill *fill;
    void *ctx;
    float *out;
    struct session *sessions;
    int threads;
    pthread_mutex_t mutex; /* guards done and calls of progress */
    int64_t done;
};

static void run_release(struct run *r)
{
    for (int i = 0; r->sessions && i < r->threads; i++) {
        ort_close(r->sessions[i].ort);
        free(r->sessions[i].in);
    }
    free(r->sessions);
    pthread_mutex_destroy(&r->mutex);
}

static int open_sessions(struct run *r, const void *onnx, size_t bytes, struct err *err)
{
    r->sessions = mem_calloc((size_t)r->threads, sizeof(*r->sessions));
    if (!r->sessions)
        return err_oom(err, "ONNX Runtime");
    for (int i = 0; i < r->threads; i++) {
        struct session *s = &r->sessions[i];
        int rc = ort_open(onnx, bytes, 1, &s->ort, err);
        if (rc < 0)
            return rc;
        const int64_t fixed = ort_fixed_batch(s->ort);
        r->batch = fixed > 0 ? fixed : ORT_BATCH;
        s->in = mem_calloc((size_t)(r->batch * r->sample), sizeof(*s->in));
        if (!s->in)
            return err_oom(err, "ONNX Runtime");
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

static int run_batch(void *ctx, int64_t index, int worker, struct err *err)
{
    struct run *r = ctx;
    struct session *s = &r->sessions[worker];
    const int64_t first = index * r->batch;
    const int64_t count = r->n - first < r->batch ? r->n - first : r->batch;
    int rc = r->fill(r->ctx, first, count, s->in, err);
    if (rc == 0)
        rc = ort_run(s->ort, count, s->in, r->out + first * r->width, r->width, err);
    return rc < 0 ? rc : report(r, count, err);
}

int infer_run_ort(const void *onnx, size_t bytes, const struct graph *g,
                  const struct infer_options *options, int64_t n, infer_fill *fill, void *ctx,
                  float *ret_out, struct err *err)
{
    _cleanup_(run_release) struct run r = {.options = options,
                                           .n = n,
                                           .fill = fill,
                                           .ctx = ctx,
                                           .out = ret_out,
                                           .threads = options->threads > 0 ? options->threads : 1,
                                           .mutex = PTHREAD_MUTEX_INITIALIZER};
    int rc = infer_output_width(g, &r.width, err);
    if (rc < 0)
        return rc;
    r.sample = shape_elements_at(&g->values[g->inputs[0]]->shape, 1);
    rc = open_sessions(&r, onnx, bytes, err);
    return rc < 0 ? rc : pool_for((n + r.batch - 1) / r.batch, r.threads, run_batch, &r, err);
}
