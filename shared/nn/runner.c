#include "shared/nn/runner.h"

#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/graph/onnx.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan_buffers.h"

struct runner {
    struct plan *plan;
    struct ort *ort; /* then the plan only says how large the buffers are */
    struct plan_buffers buffers;
    int64_t batch, out_width;
};

struct runner *runner_free(struct runner *r)
{
    if (!r)
        return NULL;
    plan_free(r->plan);
    ort_close(r->ort);
    plan_buffers_release(&r->buffers);
    free(r);
    return NULL;
}

void runner_freep(struct runner **runner)
{
    *runner = runner_free(*runner);
}

static int run(void *ctx, struct err *err)
{
    struct runner *r = ctx;
    if (r->ort)
        return ort_run(r->ort, r->batch, r->buffers.in[0], r->buffers.out[0], r->out_width, err);
    return plan_buffers_run(r->plan, &r->buffers, err);
}

static int make(struct runner *r, const struct graph *g, const struct plan_options *options,
                struct err *err)
{
    int rc = plan_compile(g, options, &r->plan, err);
    if (rc < 0)
        return rc;
    const struct plan_port *in = plan_input(r->plan, 0), *out = plan_output(r->plan, 0);
    if (plan_n_inputs(r->plan) != 1 || plan_n_outputs(r->plan) != 1 || in->dtype != DTYPE_F32 ||
        out->dtype != DTYPE_F32)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "only networks with one float input and one float output are measured");
    r->batch = options->batch;
    r->out_width = (int64_t)(out->bytes / sizeof(float)) / r->batch;
    return plan_buffers_make(r->plan, 1, &r->buffers, err);
}

int runner_open(const void *onnx, size_t bytes, const struct runner_options *o, struct runner **ret,
                struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(runner_freep) struct runner *r = mem_calloc(1, sizeof(*r));
    /* nothing is computed with a peer's plan */
    const struct plan_options options = {.batch = o->batch,
                                         .threads = o->threads,
                                         .precision = o->precision,
                                         .choose_by_name = o->peer};
    if (!r)
        return err_oom(err, "a network to be timed");
    int rc = onnx_read_bytes(onnx, bytes, NULL, NULL, &g, err);
    if (rc == 0)
        rc = make(r, g, &options, err);
    if (rc == 0 && o->peer)
        rc = ort_open(onnx, bytes, o->threads, &r->ort, err);
    if (rc == 0)
        rc = run(r, err);
    if (rc == 0)
        *ret = TAKE_PTR(r);
    return rc;
}

struct bench_item runner_item(struct runner *runner)
{
    return (struct bench_item){run, runner};
}
