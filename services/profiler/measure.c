/* Whole networks, on our kernels and on ONNX Runtime, interleaved in one run. */
#include <stdlib.h>
#include <string.h>

#include "services/profiler/profiler.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/nn/bench.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan_buffers.h"
#include "shared/work/state.h"

#define TEAM_SECONDS 0.02 /* of one run of streams side by side: far above the cost of a start */

/* One inference after the other on a thread. */
struct stream {
    struct plan *plan;
    struct ort *ort; /* then the plan only says how large the buffers are */
    struct plan_buffers buffers;
    int64_t batch, out_width;
};

/* One network, ready to run: a stream, or several side by side for throughput. */
struct runner {
    int n_streams;
    struct stream *streams;
    struct bench_team *team;     /* NULL: one stream */
    int rounds;                  /* runs of each stream in one run of the team */
    char error[ERR_MESSAGE_MAX]; /* why it cannot run */
};

static void runner_release(struct runner *r)
{
    bench_team_free(r->team);
    for (int i = 0; r->streams && i < r->n_streams; i++) {
        plan_free(r->streams[i].plan);
        ort_close(r->streams[i].ort);
        plan_buffers_release(&r->streams[i].buffers);
    }
    free(r->streams);
}

static int stream_run(void *ctx, struct err *err)
{
    struct stream *s = ctx;
    if (s->ort)
        return ort_run(s->ort, s->batch, s->buffers.in[0], s->buffers.out[0], s->out_width, err);
    return plan_buffers_run(s->plan, &s->buffers, err);
}

static int stream_make(struct stream *s, const struct graph *g, const struct plan_options *options,
                       struct err *err)
{
    int r = plan_compile(g, options, &s->plan, err);
    if (r < 0)
        return r;
    const struct plan_port *in = plan_input(s->plan, 0), *out = plan_output(s->plan, 0);
    if (plan_n_inputs(s->plan) != 1 || plan_n_outputs(s->plan) != 1 || in->dtype != DTYPE_F32 ||
        out->dtype != DTYPE_F32)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "only networks with one float input and one float "
                       "output are measured");
    s->batch = options->batch;
    s->out_width = (int64_t)(out->bytes / sizeof(float)) / s->batch;
    return plan_buffers_make(s->plan, 1, &s->buffers, err);
}

static int stream_open(struct stream *s, const void *onnx, size_t bytes, const struct graph *g,
                       const struct plan_options *options, bool peer, struct err *err)
{
    struct plan_options own = *options;
    own.choose_by_name = peer; /* nothing is computed with this plan */
    int r = stream_make(s, g, &own, err);
    if (r == 0 && peer)
        r = ort_open(onnx, bytes, options->threads, &s->ort, err);
    return r == 0 ? stream_run(s, err) : r;
}

/* How often each stream runs in one run of the team. */
static int rounds_for(struct stream *s, int *ret, struct err *err)
{
    const struct bench_item once = {stream_run, s};
    const struct bench_options quick = {.seconds = TEAM_SECONDS, .rounds = 1, .min_runs = 3};
    struct bench_result t;
    int r = bench_run(&once, 1, &quick, &t, err);
    if (r == 0)
        *ret = t.p50_us < TEAM_SECONDS * 1e6 ? (int)(TEAM_SECONDS * 1e6 / t.p50_us) : 1;
    return r;
}

static int team_up(struct runner *r, struct err *err)
{
    _cleanup_(freep) struct bench_item *members =
        mem_calloc((size_t)r->n_streams, sizeof(*members));
    if (!members)
        return err_oom(err, "streams");
    for (int i = 0; i < r->n_streams; i++)
        members[i] = (struct bench_item){stream_run, &r->streams[i]};
    int rc = rounds_for(&r->streams[0], &r->rounds, err);
    return rc < 0 ? rc : bench_team_new(members, r->n_streams, r->rounds, &r->team, err);
}

static int runner_open(struct runner *r, struct store *store,
                       const Hone__V1__MeasureTask__Item *item, int64_t batch, int threads,
                       struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    size_t bytes = 0;
    struct plan_options options = {.batch = batch, .threads = threads};
    r->streams = mem_calloc((size_t)r->n_streams, sizeof(*r->streams));
    if (!r->streams)
        return err_oom(err, "streams");
    int k = precision_parse(item->precision, &options.precision, err);
    if (k == 0)
        k = store_get(store, item->artifact, onnx_default_limits.max_file_bytes, &data, &bytes,
                      err);
    if (k == 0)
        k = onnx_read_bytes(data, bytes, NULL, NULL, &g, err);
    const bool peer = strcmp(item->engine, "onnxruntime") == 0;
    for (int i = 0; k == 0 && i < r->n_streams; i++)
        k = stream_open(&r->streams[i], data, bytes, g, &options, peer, err);
    return k == 0 && r->n_streams > 1 ? team_up(r, err) : k;
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
    int streams = 1;
    if (measure->objective == HONE__V1__OBJECTIVE__THROUGHPUT && pool_cpus() / threads > 1)
        streams = pool_cpus() / threads;
    for (size_t i = 0; i < measure->n_items; i++) {
        const Hone__V1__MeasureTask__Item *item = measure->items[i];
        int r =
            work_progress(task, "compile", (double)i, (double)measure->n_items, "networks", err);
        if (r < 0)
            return r;
        struct err local = {0};
        runners[i].n_streams = streams;
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

/* `bench` is of the runner's item: of a team, `rounds` runs. */
static int add_timing(Hone__V1__MeasureResult *result, const Hone__V1__MeasureTask__Item *item,
                      const struct runner *runner, const struct bench_result *bench, int64_t batch,
                      struct err *err)
{
    Hone__V1__Timing *t = message_new(&hone__v1__timing__descriptor, err);
    if (!t)
        return -ERR_RESOURCE_EXHAUSTED;
    const double rounds = runner->team ? runner->rounds : 1;
    t->p50_us = bench->p50_us / rounds;
    t->p90_us = bench->p90_us / rounds;
    t->streams = (uint32_t)runner->n_streams;
    t->images_per_s = t->p50_us > 0 ? 1e6 * (double)(batch * runner->n_streams) / t->p50_us : 0;
    t->runs = (uint32_t)((double)bench->runs * rounds * runner->n_streams);
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
        if (runner->error[0])
            continue;
        items[n++] = runner->team ? (struct bench_item){bench_team_run, runner->team}
                                  : (struct bench_item){stream_run, &runner->streams[0]};
    }
    struct progress progress = {task};
    const struct profiler *profiler = task->ctx;
    struct bench_options options = {
        .seconds = profiler->seconds, .progress = on_progress, .progress_ctx = &progress};
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
