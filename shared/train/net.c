#include "shared/train/net.h"

#include <inttypes.h>
#include <omp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/nn/quantize.h"
#include "shared/train/net_priv.h"

static int check_options(struct train_net_options *o, struct err *err)
{
    if (o->threads == 0)
        o->threads = 1;
    if (o->norm_momentum == 0)
        o->norm_momentum = 0.1f;
    if (o->batch < 1 || o->batch > INT32_MAX || o->threads < 0 || o->threads > 1024 ||
        o->slice < 0 || o->n_taps < 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "training with batch %" PRId64 ", %d threads, slice %" PRId64, o->batch,
                       o->threads, o->slice);
    if (!(o->norm_momentum > 0 && o->norm_momentum <= 1))
        return err_set(err, ERR_INVALID_ARGUMENT, "momentum %g of running statistics",
                       (double)o->norm_momentum);
    if (o->precision == PRECISION_INT8)
        return err_set(err, ERR_INVALID_ARGUMENT, "training computes in fp32 or bf16, not in int8");
    return 0;
}

/* More than the machine has would be promised by the system, and then taken by force. */
static int check_memory(const struct train_net *net, struct err *err)
{
    double need =
        (double)net->home_bytes[HOME_SHARED] +
        (double)net->n_lanes * ((double)net->home_bytes[HOME_PLANNED] +
                                (double)net->home_bytes[HOME_LANE] + (double)net->scratch_bytes);
    double have = (double)sysconf(_SC_PHYS_PAGES) * (double)sysconf(_SC_PAGESIZE);
    if (need <= have)
        return 0;
    return err_set(err, ERR_RESOURCE_EXHAUSTED,
                   "training this network needs %.1f GB of memory for a slice of %" PRId64
                   " samples on %d threads; this machine has %.1f GB",
                   need * 1e-9, net->slice, net->n_lanes, have * 1e-9);
}

static int build(struct train_net *net, struct err *err)
{
    int rc = net_compile(net, err);
    if (rc == 0)
        rc = net_plan_memory(net, err);
    if (rc == 0)
        rc = check_memory(net, err);
    return rc == 0 ? net_start(net, err) : rc;
}

int train_net_new(const struct graph *g, const struct train_net_options *options,
                  struct train_net **ret, struct err *err)
{
    struct train_net_options o = *options;
    int rc = check_options(&o, err);
    if (rc < 0)
        return rc;
    _cleanup_(train_net_freep) struct train_net *net = mem_calloc(1, sizeof(*net));
    if (!net)
        return err_oom(err, "the network");
    net->options = o;
    net->arena = arena_new();
    if (!net->arena)
        return err_oom(err, "the network");
    /* bf16 has 8 digits: of 256 steps with any scale some would fall together */
    bool half = o.precision != PRECISION_FP32 && nn_has_bf16() && !quant_is_quantized(g);
    net->precision = half ? PRECISION_BF16 : PRECISION_FP32;
    rc = graph_clone(g, &net->graph, err);
    /* oneDNN divides work when a primitive is made: by the threads of then */
    int threads = omp_get_max_threads();
    omp_set_num_threads(1);
    if (rc == 0)
        rc = build(net, err);
    omp_set_num_threads(threads);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(net);
    return 0;
}

struct train_net *train_net_free(struct train_net *net)
{
    if (!net)
        return NULL;
    net_stop(net);
    graph_free(net->graph);
    free(net->params);
    free(net->param_value);
    free(net->states);
    free(net->state_value);
    free(net->vals);
    free(net->buffers);
    free(net->ops);
    free(net->slots);
    arena_free(net->arena);
    free(net);
    return NULL;
}

void train_net_freep(struct train_net **net)
{
    *net = train_net_free(*net);
}

uint64_t train_net_steps(const struct train_net *net)
{
    return net->steps;
}

void train_net_set_steps(struct train_net *net, uint64_t steps)
{
    net->steps = steps;
}

int train_net_n_params(const struct train_net *net)
{
    return net->n_params;
}

struct train_param *train_net_param(struct train_net *net, int i)
{
    return &net->params[i];
}

int train_net_n_states(const struct train_net *net)
{
    return net->n_states;
}

struct train_state *train_net_state(struct train_net *net, int i)
{
    return &net->states[i];
}

int64_t train_net_input_width(const struct train_net *net)
{
    return val_width(&net->vals[net->input]);
}

int64_t train_net_output_width(const struct train_net *net, int i)
{
    return val_width(&net->vals[net->outputs[i].val]);
}

int64_t train_net_slice(const struct train_net *net)
{
    return net->slice;
}

int train_net_lanes(const struct train_net *net)
{
    return net->n_lanes;
}

enum precision train_net_precision(const struct train_net *net)
{
    return net->precision;
}

size_t train_net_memory(const struct train_net *net)
{
    return net->memory_bytes + arena_bytes(net->arena);
}

int train_net_time(const struct train_net *net, int i, struct train_time *ret)
{
    if (i < 0 || i >= net->n_ops || !net->lanes[0].times)
        return -ERR_OUT_OF_RANGE;
    *ret = (struct train_time){.kind = net->ops[i]->kind->name,
                               .node = net->ops[i]->name,
                               .forward_ns = net->lanes[0].times[2 * i],
                               .backward_ns = net->lanes[0].times[2 * i + 1]};
    return 0;
}

int train_net_export(const struct train_net *net, struct graph **ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = graph_clone(net->graph, &g, err);
    if (rc < 0)
        return rc;
    for (int i = 0; i < net->n_params; i++)
        if (g->values[net->param_value[i]]->constant)
            memcpy(g->values[net->param_value[i]]->constant->data, net->params[i].value,
                   (size_t)net->params[i].n * sizeof(float));
    for (int i = 0; i < net->n_quantized; i++) {
        const struct quantized *q = &net->quantized[i];
        if (q->param >= 0)
            quantized_export(q, net->params[q->param].value, g->values[q->integers]->constant);
    }
    for (int i = 0; i < net->n_states; i++)
        memcpy(g->values[net->state_value[i]]->constant->data, net->states[i].value,
               (size_t)net->states[i].n * sizeof(float));
    *ret = TAKE_PTR(g);
    return 0;
}
