/* Whole networks, on our kernels and on ONNX Runtime, interleaved in one run. */
#include <stdlib.h>
#include <string.h>

#include "services/profiler/profiler.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/nn/runner.h"
#include "shared/work/state.h"

/* A run of many samples is a mean already: so many runs are enough. */
#define LARGE_BATCH 16
#define BATCH_RUNS 10

/* One network of a measurement, in an engine. */
struct entry {
    struct runner *runner;       /* NULL: it cannot run */
    char error[ERR_MESSAGE_MAX]; /* why */
};

static int entry_open(struct entry *e, struct store *store, const Hone__V1__MeasureTask__Item *item,
                      struct runner_options options, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    options.peer = strcmp(item->engine, "onnxruntime") == 0;
    int r = precision_parse(item->precision, &options.precision, err);
    if (r == 0)
        r = store_get(store, item->artifact, onnx_default_limits.max_file_bytes, &data, &bytes,
                      err);
    return r < 0 ? r : runner_open(data, bytes, &options, &e->runner, err);
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
                    struct entry *entries, struct err *err)
{
    struct runner_options options = {.batch = measure->batch ? measure->batch : 1,
                                     .threads = measure->threads ? (int)measure->threads : 1};
    for (size_t i = 0; i < measure->n_items; i++) {
        const Hone__V1__MeasureTask__Item *item = measure->items[i];
        int r =
            work_progress(task, "compile", (double)i, (double)measure->n_items, "networks", err);
        if (r < 0)
            return r;
        struct err local = {0};
        r = entry_open(&entries[i], task->store, item, options, &local);
        if (r == 0)
            continue;
        bool peer = strcmp(item->engine, "onnxruntime") == 0;
        if (!peer) {
            if (err)
                *err = local;
            return err_wrap(err, "%s", item->name);
        }
        /* A peer that cannot run a file is a finding, not a failure. */
        str_copy(entries[i].error, sizeof(entries[i].error), local.message);
    }
    return 0;
}

/* bench: of its runner's item; NULL: it has none. */
static int add_timing(Hone__V1__MeasureResult *result, const Hone__V1__MeasureTask *measure,
                      size_t at, const struct entry *entry, const struct bench_result *bench,
                      struct err *err)
{
    const Hone__V1__MeasureTask__Item *item = measure->items[at];
    Hone__V1__Timing *t = message_new(&hone__v1__timing__descriptor, err);
    if (!t)
        return -ERR_RESOURCE_EXHAUSTED;
    if (bench) {
        const double batch = measure->batch ? measure->batch : 1;
        t->p50_us = bench->p50_us;
        t->p90_us = bench->p90_us;
        t->images_per_s = bench->p50_us > 0 ? 1e6 * batch / bench->p50_us : 0;
        t->runs = (uint32_t)bench->runs;
        t->noisy = bench->noisy;
    }
    int r = message_set(&t->engine, item->engine, err);
    if (r == 0)
        r = message_set(&t->precision, item->precision, err);
    if (r == 0)
        r = message_set(&t->error, entry->error, err);
    if (r == 0)
        r = message_append(&result->timings, &result->n_timings, t, err);
    if (r < 0)
        message_free(t);
    return r;
}

struct entries {
    struct entry *items;
    size_t n;
};

static void entries_release(struct entries *e)
{
    for (size_t i = 0; e->items && i < e->n; i++)
        runner_free(e->items[i].runner);
    free(e->items);
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
    _cleanup_(entries_release) struct entries entries = {
        .items = mem_calloc(measure->n_items, sizeof(struct entry)), .n = measure->n_items};
    _cleanup_(freep) struct bench_item *items = mem_calloc(measure->n_items, sizeof(*items));
    _cleanup_(freep) struct bench_result *times = mem_calloc(measure->n_items, sizeof(*times));
    if (!entries.items || !items || !times)
        return err_oom(err, "the measurement");
    r = open_all(task, measure, entries.items, err);
    if (r < 0)
        return r;
    int n = 0;
    for (size_t i = 0; i < measure->n_items; i++)
        if (entries.items[i].runner)
            items[n++] = runner_item(entries.items[i].runner);
    struct progress progress = {task};
    const struct profiler *profiler = task->ctx;
    struct bench_options options = {.seconds = profiler->seconds,
                                    .min_runs = measure->batch >= LARGE_BATCH ? BATCH_RUNS : 0,
                                    .progress = on_progress,
                                    .progress_ctx = &progress};
    r = bench_run(items, n, &options, times, err);
    for (size_t i = 0, k = 0; r == 0 && i < measure->n_items; i++) {
        const struct entry *entry = &entries.items[i];
        r = add_timing(result, measure, i, entry, entry->runner ? &times[k++] : NULL, err);
    }
    if (r == 0)
        r = message_set(&result->cpu, nn_cpu(), err);
    if (r == 0)
        r = message_set(&result->isa, nn_isa(), err);
    return r < 0 ? r : work_result(out, &result->base, err);
}
