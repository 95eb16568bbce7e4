#include "shared/nn/runner.h"

#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/graph/onnx.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan_buffers.h"

#define TEAM_SECONDS 0.02 /* of one run of streams side by side: far above the cost of a start */

/* One inference after the other on a thread. */
struct stream {
    struct plan *plan;
    struct ort *ort; /* then the plan only says how large the buffers are */
    struct plan_buffers buffers;
    int64_t batch, out_width;
};

struct runner {
    int n_streams;
    struct stream *streams;
    struct bench_team *team; /* NULL: one stream */
    int rounds;              /* runs of each stream in one run of the team */
};

struct runner *runner_free(struct runner *r)
{
    if (!r)
        return NULL;
    bench_team_free(r->team);
    for (int i = 0; r->streams && i < r->n_streams; i++) {
        plan_free(r->streams[i].plan);
        ort_close(r->streams[i].ort);
        plan_buffers_release(&r->streams[i].buffers);
    }
    free(r->streams);
    free(r);
    return NULL;
}

void runner_freep(struct runner **runner)
{
    *runner = runner_free(*runner);
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

static int open_streams(struct runner *r, const void *onnx, size_t bytes,
                        const struct runner_options *o, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    const struct plan_options options = {
        .batch = o->batch, .threads = o->threads, .precision = o->precision};
    r->n_streams = o->streams;
    r->streams = mem_calloc((size_t)r->n_streams, sizeof(*r->streams));
    if (!r->streams)
        return err_oom(err, "streams");
    int k = onnx_read_bytes(onnx, bytes, NULL, NULL, &g, err);
    for (int i = 0; k == 0 && i < r->n_streams; i++)
        k = stream_open(&r->streams[i], onnx, bytes, g, &options, o->peer, err);
    return k == 0 && r->n_streams > 1 ? team_up(r, err) : k;
}

int runner_open(const void *onnx, size_t bytes, const struct runner_options *options,
                struct runner **ret, struct err *err)
{
    _cleanup_(runner_freep) struct runner *r = mem_calloc(1, sizeof(*r));
    int k = r ? open_streams(r, onnx, bytes, options, err) : err_oom(err, "a network to be timed");
    if (k == 0)
        *ret = TAKE_PTR(r);
    return k;
}

struct bench_item runner_item(struct runner *r)
{
    return r->team ? (struct bench_item){bench_team_run, r->team}
                   : (struct bench_item){stream_run, &r->streams[0]};
}

struct runner_times runner_times(const struct runner *r, const struct bench_result *bench)
{
    const double rounds = r->team ? r->rounds : 1, us = bench->p50_us / rounds;
    const double samples = (double)(r->streams[0].batch * r->n_streams);
    return (struct runner_times){
        .p50_us = us,
        .p90_us = bench->p90_us / rounds,
        .images_per_s = us > 0 ? 1e6 * samples / us : 0,
        .runs = (int64_t)((double)bench->runs * rounds * r->n_streams),
        .noisy = bench->noisy,
    };
}

int runner_streams(int threads)
{
    const int streams = pool_cpus() / (threads > 0 ? threads : 1);
    return streams > 1 ? streams : 1;
}
