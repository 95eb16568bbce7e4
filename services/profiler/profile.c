/*
 * The time of each layer in each precision, measured inside the whole network (so with the caches
 * and layouts that it really meets), and of conversions between precisions. What was measured goes
 * into the latency table of the hardware, which later jobs read instead of measuring again.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/profiler/profiler.h"
#include "services/profiler/timing.h"
#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/nn/quantize.h"
#include "shared/nn/ranges.h"
#include "shared/work/state.h"

struct profiling {
    struct work_task *task;
    struct latency_table table;
    int threads;
    int64_t batch;
    int precisions[3]; /* enum precision */
    int n_precisions;
    struct graph *graph; /* fp32 */
    struct quant_ranges ranges;
    Hone__V1__Profile *profile;
};

/* ---- one plan ---- */

/* Runs of the whole network, for the medians of its layers. */
static struct timing_options timing_of(struct profiling *p, const char *stage)
{
    return (struct timing_options){
        .warm = 5, .runs = 120, .least = 10, .seconds = 4, .task = p->task, .stage = stage};
}

/* Times of the plan's steps in us, [n_steps + 1], from the table where all are known. */
static int time_plan(struct profiling *p, struct plan *plan, const char *precision, double *us,
                     struct err *err)
{
    int n = plan_n_steps(plan), known = 0, r = 0;
    char whole[HASH_HEX_BYTES + 16];
    _cleanup_(strbuf_release) struct strbuf all = {0};
    for (int i = 0; r == 0 && i < n; i++) {
        strbuf_printf(&all, "%s;", plan_step(plan, i)->signature);
        r = latency_get(&p->table, plan_step(plan, i)->signature, &us[i], err);
        known += us[i] > 0;
    }
    char hex[HASH_HEX_BYTES];
    if (r == 0)
        r = all.failed ? err_oom(err, "a profile") : hash_bytes(all.data, all.length, hex, err);
    if (r < 0)
        return r;
    snprintf(whole, sizeof(whole), "network:%s", hex);
    r = latency_get(&p->table, whole, &us[n], err);
    if (r == 0 && known == n && us[n] > 0) {
        p->profile->reused += (uint64_t)n;
        return 0;
    }
    char stage[64];
    snprintf(stage, sizeof(stage), "profile %s", precision);
    const struct timing_options options = timing_of(p, stage);
    if (r == 0)
        r = timing_plan_once(plan, &options, us, err);
    for (int i = 0; r == 0 && i <= n; i++)
        r = latency_put(&p->table, i < n ? plan_step(plan, i)->signature : whole, us[i], err);
    return r;
}

/* ---- into the profile ---- */

static Hone__V1__Profile__Layer *find_layer(Hone__V1__Profile *profile, const char *name)
{
    for (size_t i = 0; i < profile->n_layers; i++)
        if (strcmp(profile->layers[i]->layer, name) == 0)
            return profile->layers[i];
    return NULL;
}

static int layer_for(Hone__V1__Profile *profile, const struct plan_step *step,
                     Hone__V1__Profile__Layer **ret, struct err *err)
{
    *ret = find_layer(profile, step->layer);
    if (*ret)
        return 0;
    Hone__V1__Profile__Layer *layer = message_new(&hone__v1__profile__layer__descriptor, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_set(&layer->layer, step->layer, err);
    if (r == 0)
        r = message_set(&layer->signature, step->signature, err);
    if (r == 0)
        r = message_set(&layer->implementation, step->implementation, err);
    layer->macs = (uint64_t)step->macs;
    if (r == 0)
        r = message_append(&profile->layers, &profile->n_layers, layer, err);
    if (r < 0) {
        message_free(layer);
        return r;
    }
    *ret = layer;
    return 0;
}

static int add_steps(struct profiling *p, struct plan *plan, int index, const double *us,
                     struct err *err)
{
    int n = plan_n_steps(plan);
    double sum = 0;
    for (int i = 0; i < n; i++) {
        const struct plan_step *step = plan_step(plan, i);
        if (step->kind != STEP_COMPUTE)
            continue;
        sum += us[i];
        Hone__V1__Profile__Layer *layer = NULL;
        int r = layer_for(p->profile, step, &layer, err);
        while (r == 0 && layer->n_us <= (size_t)index)
            r = message_append_f64(&layer->us, &layer->n_us, 0, err);
        if (r < 0)
            return r;
        /* Several steps may carry one layer's name (a step and its plain-C tail): they add up. A
         * step that fell back to another precision does not count as this one. */
        enum precision wanted = (enum precision)p->precisions[index];
        if (step->precision == wanted || step->macs == 0)
            layer->us[index] += us[i];
    }
    int r = message_append_f64(&p->profile->total_us, &p->profile->n_total_us, us[n], err);
    double floor = us[n] > sum ? us[n] - sum : 0;
    return r < 0 ? r
                 : message_append_f64(&p->profile->floor_us, &p->profile->n_floor_us, floor, err);
}

/* The network with every layer that can be in the precision. */
static int lowered(struct profiling *p, enum precision precision, struct graph **ret,
                   struct err *err)
{
    if (precision != PRECISION_INT8)
        return graph_clone(p->graph, ret, err);
    const struct quant_options options = {.weight_bits = nn_has_int8() ? 8 : 7};
    return quant_rewrite_all(p->graph, &p->ranges, &options, ret, err);
}

static int profile_precision(struct profiling *p, int index, struct err *err)
{
    enum precision precision = (enum precision)p->precisions[index];
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(plan_freep) struct plan *plan = NULL;
    struct plan_options options = {.batch = p->batch, .threads = p->threads};
    options.precision = precision == PRECISION_INT8 ? PRECISION_AUTO : precision;
    int r = lowered(p, precision, &g, err);
    if (r == 0)
        r = plan_compile(g, &options, &plan, err);
    if (r < 0)
        return err_wrap(err, "in %s", precision_name(precision));
    _cleanup_(freep) double *us = mem_calloc((size_t)plan_n_steps(plan) + 1, sizeof(*us));
    if (!us)
        return err_oom(err, "a profile");
    r = time_plan(p, plan, precision_name(precision), us, err);
    if (r == 0)
        r = add_steps(p, plan, index, us, err);
    return r < 0 ? r
                 : message_append_text(&p->profile->precisions, &p->profile->n_precisions,
                                       precision_name(precision), err);
}

/* ---- conversions ---- */

/* A graph that does nothing but convert a value of this shape: f32 -> u8, or u8 -> f32, or to bf16
 * (which costs about as much as from it). */
static int conversion_graph(const struct shape *shape, bool to_u8, struct graph **ret,
                            struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = graph_new(13, err);
    if (!g)
        return -ERR_RESOURCE_EXHAUSTED;
    struct shape scalar = {0};
    const float scale = 0.05f;
    const uint8_t zero = 0;
    int x = graph_add_input(g, "x", to_u8 ? DTYPE_F32 : DTYPE_U8, shape, err);
    int s = graph_add_constant(g, "scale", DTYPE_F32, &scalar, &scale, err);
    int z = graph_add_constant(g, "zero", DTYPE_U8, &scalar, &zero, err);
    if (x < 0 || s < 0 || z < 0)
        return -ERR_RESOURCE_EXHAUSTED;
    const int inputs[] = {x, s, z};
    const char *const names[] = {"y"};
    int node = graph_add_node(g, -1, to_u8 ? OP_QUANTIZE_LINEAR : OP_DEQUANTIZE_LINEAR, "convert",
                              3, inputs, 1, names, err);
    if (node < 0)
        return node;
    int r = graph_add_output(g, g->nodes[node]->outputs[0], err);
    if (r >= 0)
        r = graph_infer(g, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(g);
    return 0;
}

static int time_conversion(struct profiling *p, const struct shape *shape, bool to_u8,
                           double *ret_us, struct err *err)
{
    char text[128], key[192];
    snprintf(key, sizeof(key), "convert %s %s b%lld", to_u8 ? "f32>u8" : "u8>f32",
             shape_text(shape, text), (long long)p->batch);
    int r = latency_get(&p->table, key, ret_us, err);
    if (r < 0 || *ret_us > 0) {
        p->profile->reused += r == 0;
        return r;
    }
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(plan_freep) struct plan *plan = NULL;
    struct plan_options options = {.batch = p->batch, .threads = p->threads};
    r = conversion_graph(shape, to_u8, &g, err);
    if (r == 0)
        r = plan_compile(g, &options, &plan, err);
    if (r < 0)
        return r;
    _cleanup_(freep) double *us = mem_calloc((size_t)plan_n_steps(plan) + 1, sizeof(*us));
    const struct timing_options how = timing_of(p, "profile conversions");
    r = us ? timing_plan_once(plan, &how, us, err) : err_oom(err, "a profile");
    if (r < 0)
        return r;
    *ret_us = us[plan_n_steps(plan)];
    return latency_put(&p->table, key, *ret_us, err);
}

static int add_conversion(struct profiling *p, const char *value, const char *from, const char *to,
                          double us, struct err *err)
{
    Hone__V1__Profile__Conversion *c = message_new(&hone__v1__profile__conversion__descriptor, err);
    if (!c)
        return -ERR_RESOURCE_EXHAUSTED;
    c->us = us;
    int r = message_set(&c->value, value, err);
    if (r == 0)
        r = message_set(&c->from, from, err);
    if (r == 0)
        r = message_set(&c->to, to, err);
    if (r == 0)
        r = message_append(&p->profile->conversions, &p->profile->n_conversions, c, err);
    if (r < 0)
        message_free(c);
    return r;
}

/* Every float value between two layers, in each direction. A conversion to or from bf16 moves as
 * many bytes again as half of f32: it is taken as the one to u8. */
static int profile_conversions(struct profiling *p, struct err *err)
{
    const struct graph *g = p->graph;
    bool bf16 = false;
    for (int i = 0; i < p->n_precisions; i++)
        bf16 |= p->precisions[i] == PRECISION_BF16;
    for (int v = 0; v < g->n_values; v++) {
        const struct value *value = g->values[v];
        bool input = false;
        for (int i = 0; i < g->n_inputs; i++)
            input |= g->inputs[i] == v;
        if (value->constant || value->dtype != DTYPE_F32 || !value->shape_known ||
            (value->producer < 0 && !input) ||
            (value->producer >= 0 && g->nodes[value->producer]->dead))
            continue;
        double to_u8 = 0, from_u8 = 0;
        int r = time_conversion(p, &value->shape, true, &to_u8, err);
        if (r == 0)
            r = time_conversion(p, &value->shape, false, &from_u8, err);
        if (r == 0)
            r = add_conversion(p, value->name, "fp32", "int8", to_u8, err);
        if (r == 0)
            r = add_conversion(p, value->name, "int8", "fp32", from_u8, err);
        if (r == 0 && bf16)
            r = add_conversion(p, value->name, "fp32", "bf16", to_u8, err);
        if (r == 0 && bf16)
            r = add_conversion(p, value->name, "bf16", "fp32", from_u8, err);
        if (r == 0 && bf16)
            r = add_conversion(p, value->name, "bf16", "int8", to_u8, err);
        if (r == 0 && bf16)
            r = add_conversion(p, value->name, "int8", "bf16", from_u8, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* ---- the stage ---- */

static void profiling_release(struct profiling *p)
{
    graph_free(p->graph);
    quant_ranges_release(&p->ranges);
    message_free(p->profile);
}

static int profiling_init(struct profiling *p, const job_state *state, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(message_freep) Hone__V1__Ranges *ranges = NULL;
    size_t bytes = 0;
    p->threads = state->spec->threads ? (int)state->spec->threads : 1;
    p->batch = state->spec->batch ? state->spec->batch : 1;
    p->precisions[p->n_precisions++] = PRECISION_FP32;
    if (nn_has_bf16())
        p->precisions[p->n_precisions++] = PRECISION_BF16;
    p->precisions[p->n_precisions++] = PRECISION_INT8;
    latency_table_init(&p->table, p->task->queue, p->threads);
    p->profile = message_new(&hone__v1__profile__descriptor, err);
    if (!p->profile)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = store_get(p->task->store, state->network, onnx_default_limits.max_file_bytes, &data,
                      &bytes, err);
    if (r == 0)
        r = onnx_read_bytes(data, bytes, NULL, NULL, &p->graph, err);
    if (r == 0)
        r = message_load(p->task->store, state->ranges, &hone__v1__ranges__descriptor, &ranges,
                         err);
    if (r == 0)
        r = ranges_from_message(ranges, &p->ranges, err);
    if (r == 0)
        r = message_set(&p->profile->cpu, nn_cpu(), err);
    if (r == 0)
        r = message_set(&p->profile->isa, nn_isa(), err);
    return r;
}

int profiler_profile(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    _cleanup_(profiling_release) struct profiling p = {.task = task};
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r == 0)
        r = profiling_init(&p, stage->state, err);
    for (int i = 0; r == 0 && i < p.n_precisions; i++)
        r = profile_precision(&p, i, err);
    if (r == 0)
        r = profile_conversions(&p, err);
    char name[HASH_HEX_BYTES];
    if (r == 0)
        r = message_store(task->store, p.profile, name, err);
    if (r < 0)
        return r;
    Hone__V1__ProfileResult result = HONE__V1__PROFILE_RESULT__INIT;
    result.profile = name;
    return work_result(out, &result.base, err);
}
