/*
 * A batch on several threads: each thread carries its share of the samples through the whole
 * network. Threads meet once at the end instead of once for each layer, a share's activations stay
 * in one core's cache, and kernels that run on one thread serve.
 */
#include <omp.h>
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/nn/plan_priv.h"

bool lanes_wanted(const struct graph *g, const struct plan_options *o)
{
    return o->threads > 1 && o->batch >= o->threads && !o->one_lane && graph_samples_apart(g);
}

static size_t sample_bytes(const struct port *port, int64_t batch)
{
    return port->info.bytes / (size_t)batch;
}

/* First sample of lane i; shares differ by one sample at most. */
static int64_t first_of(const struct plan *plan, int i)
{
    return plan->options.batch * i / plan->n_lanes;
}

static int lane_make(struct plan *plan, const struct graph *g, int i, struct err *err)
{
    struct lane *lane = &plan->lanes[i];
    struct plan_options options = plan->options;
    options.threads = 1;
    options.batch = first_of(plan, i + 1) - first_of(plan, i);
    lane->inputs = arena_alloc(plan->arena, (size_t)plan->n_inputs, sizeof(*lane->inputs));
    lane->outputs = arena_alloc(plan->arena, (size_t)plan->n_outputs, sizeof(*lane->outputs));
    if (!lane->inputs || !lane->outputs)
        return err_oom(err, "a plan's lanes");
    return plan_compile(g, &options, &lane->plan, err);
}

int lanes_make(struct plan *plan, const struct graph *g, struct err *err)
{
    plan->n_lanes = plan->options.threads;
    plan->lanes = mem_calloc((size_t)plan->n_lanes, sizeof(*plan->lanes));
    if (!plan->lanes)
        return err_oom(err, "a plan's lanes");
    for (int i = 0; i < plan->n_lanes; i++) {
        int rc = lane_make(plan, g, i, err);
        if (rc < 0)
            return rc;
        plan->memory_bytes += plan->lanes[i].plan->memory_bytes;
        plan->packed_bytes += plan->lanes[i].plan->packed_bytes;
    }
    return 0;
}

void lanes_release(struct plan *plan)
{
    for (int i = 0; plan->lanes && i < plan->n_lanes; i++)
        plan_free(plan->lanes[i].plan);
    free(plan->lanes);
}

static int lane_run(struct plan *plan, int i, const void *const *inputs, void *const *outputs,
                    int64_t *ret_ns, struct err *err)
{
    struct lane *lane = &plan->lanes[i];
    const int64_t batch = plan->options.batch;
    const size_t first = (size_t)first_of(plan, i);
    for (int k = 0; k < plan->n_inputs; k++)
        lane->inputs[k] = (const char *)inputs[k] + first * sample_bytes(&plan->inputs[k], batch);
    for (int k = 0; k < plan->n_outputs; k++)
        lane->outputs[k] = (char *)outputs[k] + first * sample_bytes(&plan->outputs[k], batch);
    return ret_ns ? plan_run_timed(lane->plan, lane->inputs, lane->outputs, ret_ns, err)
                  : plan_run(lane->plan, lane->inputs, lane->outputs, err);
}

int lanes_run(struct plan *plan, const void *const *inputs, void *const *outputs, int64_t *ret_ns,
              struct err *err)
{
    int result = 0;
#pragma omp parallel for schedule(static, 1) num_threads(plan->n_lanes)
    for (int i = 0; i < plan->n_lanes; i++) {
        struct err why = {0};
        int rc = lane_run(plan, i, inputs, outputs, i == 0 ? ret_ns : NULL, &why);
        if (rc < 0) {
#pragma omp critical
            if (result == 0) {
                result = rc;
                if (err)
                    *err = why;
            }
        }
    }
    return result;
}
