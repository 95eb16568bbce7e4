/* Whole networks, on our kernels and on ONNX Runtime, interleaved in one run. */
#include <stdlib.h>
#include <string.h>

#include "services/profiler/profiler.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/nn/bench.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan_buffers.h"
#include "shared/work/state.h"

/* A run of many samples is a mean already: so many runs are enough. */
#define LARGE_BATCH 16
#define BATCH_RUNS 10

/* One network, ready to run. */
struct runner {
    struct plan *plan;
    struct ort *ort; /* then the plan only says how large the buffers are */
    struct plan_buffers buffers;
    int64_t batch, out_width;
    char error[ERR_MESSAGE_MAX]; /* why it cannot run */
};

static void runner_release(struct runner *r)
{
    plan_free(r->plan);
    ort_close(r->ort);
    plan_buffers_release(&r->buffers);
}

static int runner_run(void *ctx, struct err *err)
{
    struct runner *r = ctx;
    if (r->ort)
        return ort_run(r->ort, r->batch, r->buffers.in[0], r->buffers.out[0], r->out_width, err);
    return plan_buffers_run(r->plan, &r->buffers, err);
}

static int runner_make(struct runner *runner, const struct graph *g,
                       const struct plan_options *options, struct err *err)
{
    int r = plan_compile(g, options, &runner->plan, err);
    if (r < 0)
        return r;
    const struct plan_port *in = plan_input(runner->plan, 0), *out = plan_output(runner->plan, 0);
    if (plan_n_inputs(runner->plan) != 1 || plan_n_outputs(runner->plan) != 1 ||
        in->dtype != DTYPE_F32 || out->dtype != DTYPE_F32)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "only networks with one float input and one float "
                       "output are measured");
    runner->batch = options->batch;
    runner->out_width = (int64_t)(out->bytes / sizeof(float)) / runner->batch;
    return plan_buffers_make(runner->plan, 1, &runner->buffers, err);
}

static int runner_open(struct runner *runner, struct store *store,
                       const Hone__V1__MeasureTask__Item *item, int64_t batch, int threads,
                       struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    const bool peer = strcmp(item->engine, "onnxruntime") == 0;
    size_t bytes = 0;
    /* nothing is computed with a peer's plan */
    struct plan_options options = {.batch = batch, .threads = threads, .choose_by_name = peer};
    int r = precision_parse(item->precision, &options.precision, err);
    if (r == 0)
        r = store_get(store, item->artifact, onnx_default_limits.max_file_bytes, &data, &bytes,
                      err);
    if (r == 0)
        r = onnx_read_bytes(data, bytes, NULL, NULL, &g, err);
    if (r == 0)
        r = runner_make(runner, g, &options, err);
    if (r == 0 && peer)
        r = ort_open(data, bytes, threads, &runner->ort, err);
    return r == 0 ? runner_run(runner, err) : r;
}

struct progress {
    struct work_task *task;
};

static int on_progress(void *ctx, double done, double total, struct err *err)
{
    struct progress *p = ctx;
    return work_progress(p->task, "measure", done, total, "turns", err);
}

static int open_all(struct work_task *task, const Hone__V1__MeasureTask *measure,
                    struct runner *runners, struct err *err)
{
    const int threads = measure->threads ? (int)measure->threads : 1;
    for (size_t i = 0; i < measure->n_items; i++) {
        const Hone__V1__MeasureTask__Item *item = measure->items[i];
        int r =
            work_progress(task, "compile", (double)i, (double)measure->n_items, "networks", err);
        if (r < 0)
            return r;
        struct err local = {0};
        r = runner_open(&runners[i], task->store, item, measure->batch ? measure->batch : 1,
                        threads, &local);
        if (r == 0)
            continue;
        bool peer = strcmp(item->engine, "onnxruntime") == 0;
        if (!peer) {
            if (err)
                *err = local;
            return err_wrap(err, "%s", item->name);
        }
        /* A peer that cannot run a file is a finding, not a failure. */
        str_copy(runners[i].error, sizeof(runners[i].error), local.message);
    }
    return 0;
}

static int add_timing(Hone__V1__MeasureResult *result, const Hone__V1__MeasureTask__Item *item,
                      const struct runner *runner, const struct bench_result *bench, int64_t batch,
                      struct err *err)
{
    Hone__V1__Timing *t = message_new(&hone__v1__timing__descriptor, err);
    if (!t)
        return -ERR_RESOURCE_EXHAUSTED;
    t->p50_us = bench->p50_us;
    t->p90_us = bench->p90_us;
    t->images_per_s = t->p50_us > 0 ? 1e6 * (double)batch / t->p50_us : 0;
    t->runs = (uint32_t)bench->runs;
    t->noisy = bench->noisy;
    int r = message_set(&t->engine, item->engine, err);
    if (r == 0)
        r = message_set(&t->precision, item->precision, err);
    if (r == 0)
        r = message_set(&t->error, runner->error, err);
    if (r == 0)
        r = message_append(&result->timings, &result->n_timings, t, err);
    if (r < 0)
        message_free(t);
    return r;
}

struct runners {
    struct runner *items;
    size_t n;
};

static void runners_release(struct runners *r)
{
    for (size_t i = 0; r->items && i < r->n; i++)
        runner_release(&r->items[i]);
    free(r->items);
}

int profiler_measure(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__MeasureTask *measure = NULL;
    _cleanup_(message_freep) Hone__V1__MeasureResult *result =
        message_new(&hone__v1__measure_result__descriptor, err);
    if (!result)
        return -ERR_RESOURCE_EXHAUSTED;
    int r =
        work_payload(task, &hone__v1__measure_task__descriptor, (ProtobufCMessage **)&measure, err);
    if (r < 0)
        return r;
    _cleanup_(runners_release) struct runners runners = {
        .items = mem_calloc(measure->n_items, sizeof(struct runner)), .n = measure->n_items};
    _cleanup_(freep) struct bench_item *items = mem_calloc(measure->n_items, sizeof(*items));
    _cleanup_(freep) struct bench_result *times = mem_calloc(measure->n_items, sizeof(*times));
    _cleanup_(freep) struct bench_result *placed = mem_calloc(measure->n_items, sizeof(*placed));
    if (!runners.items || !items || !times || !placed)
        return err_oom(err, "the measurement");
    r = open_all(task, measure, runners.items, err);
    if (r < 0)
        return r;
    int n = 0;
    for (size_t i = 0; i < measure->n_items; i++) {
        struct runner *runner = &runners.items[i];
        if (!runner->error[0])
            items[n++] = (struct bench_item){runner_run, runner};
    }
    struct progress progress = {task};
    const struct profiler *profiler = task->ctx;
    struct bench_options options = {.seconds = profiler->seconds,
                                    .min_runs = measure->batch >= LARGE_BATCH ? BATCH_RUNS : 0,
                                    .progress = on_progress,
                                    .progress_ctx = &progress};
    r = bench_run(items, n, &options, times, err);
    for (size_t i = 0, k = 0; r == 0 && i < measure->n_items; i++) {
        if (!runners.items[i].error[0])
            placed[i] = times[k++];
        r = add_timing(result, measure->items[i], &runners.items[i], &placed[i],
                       measure->batch ? measure->batch : 1, err);
    }
    if (r == 0)
        r = message_set(&result->cpu, nn_cpu(), err);
    if (r == 0)
        r = message_set(&result->isa, nn_isa(), err);
    return r < 0 ? r : work_result(out, &result->base, err);
}
