/* Lanes and the step. */
#include <omp.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/train/net_priv.h"

/* ---- memory and threads of the lanes ---- */

static int make_lane(struct train_net *net, int index, struct err *err)
{
    struct lane *lane = &net->lanes[index];
    lane->net = net;
    lane->index = index;
    size_t bytes = net->home_bytes[HOME_PLANNED] + net->home_bytes[HOME_LANE] + net->scratch_bytes;
    lane->memory = mem_aligned(bytes);
    lane->at = mem_calloc((size_t)net->n_buffers, sizeof(*lane->at));
    if (!lane->memory || !lane->at)
        return err_oom(err, "the activations of a slice");
    net->memory_bytes += bytes;
    memset(lane->memory, 0, bytes); /* a page is taken from the system now, not in a step */
    char *own = lane->memory + net->home_bytes[HOME_PLANNED];
    lane->scratch = own + net->home_bytes[HOME_LANE];
    for (int i = 0; i < net->n_buffers; i++) {
        const struct buffer *b = &net->buffers[i];
        char *base = b->home == HOME_PLANNED ? lane->memory
                     : b->home == HOME_LANE  ? own
                                             : net->shared;
        lane->at[i] = base + b->offset;
    }
    return train_dnnl(dnnl_stream_create(&lane->stream, train_engine(), dnnl_stream_default_flags),
                      err, "a stream");
}

static void *lane_main(void *arg);

static int start_threads(struct train_net *net, struct err *err)
{
    pthread_mutex_init(&net->lock, NULL);
    pthread_cond_init(&net->wake, NULL);
    pthread_cond_init(&net->done, NULL);
    net->locked = true;
    for (int i = 1; i < net->n_lanes; i++) {
        int e = pthread_create(&net->lanes[i].thread, NULL, lane_main, &net->lanes[i]);
        if (e != 0)
            return err_errno(err, e, "a thread of the training");
        net->lanes[i].started = true;
    }
    return 0;
}

int net_start(struct train_net *net, struct err *err)
{
    net->shared = mem_aligned(net->home_bytes[HOME_SHARED]);
    net->lanes = mem_calloc((size_t)net->n_lanes, sizeof(*net->lanes));
    if (!net->shared || !net->lanes)
        return err_oom(err, "packed weights");
    memset(net->shared, 0, net->home_bytes[HOME_SHARED]);
    net->memory_bytes += net->home_bytes[HOME_SHARED];
    int rc = 0;
    for (int i = 0; rc == 0 && i < net->n_lanes; i++)
        rc = make_lane(net, i, err);
    if (rc == 0)
        rc = prims_bind(net, err);
    if (rc == 0 && net->options.timed) {
        net->lanes[0].times = arena_alloc(net->arena, 2 * (size_t)net->n_ops, sizeof(int64_t));
        rc = net->lanes[0].times ? 0 : err_oom(err, "times");
    }
    return rc < 0 ? rc : start_threads(net, err);
}

void net_stop(struct train_net *net)
{
    if (net->locked) {
        pthread_mutex_lock(&net->lock);
        net->quit = true;
        pthread_cond_broadcast(&net->wake);
        pthread_mutex_unlock(&net->lock);
    }
    for (int i = 0; net->lanes && i < net->n_lanes; i++)
        if (net->lanes[i].started)
            pthread_join(net->lanes[i].thread, NULL);
    prims_release(net);
    for (int i = 0; net->lanes && i < net->n_lanes; i++) {
        if (net->lanes[i].stream)
            dnnl_stream_destroy(net->lanes[i].stream);
        free(net->lanes[i].memory);
        free(net->lanes[i].at);
    }
    free(net->lanes);
    free(net->shared);
    if (net->locked) {
        pthread_mutex_destroy(&net->lock);
        pthread_cond_destroy(&net->wake);
        pthread_cond_destroy(&net->done);
    }
}

/* ---- what lanes do ---- */

enum { PHASE_PACK, PHASE_SLICES, PHASE_REDUCE, PHASES };

/* Everything about one parameter is one lane's work: operators may share it. */
static bool is_mine(const struct lane *lane, const struct slot *slot)
{
    return slot->param % lane->net->n_lanes == lane->index;
}

static void scale_value(const struct slot *slot, const struct train_param *param, float *to)
{
    const float *from = param->value;
    if (slot->quantized) {
        quantized_round(slot->quantized, from, to);
        from = to;
    }
    for (int64_t k = 0; (slot->scale != 1 || from != to) && k < param->n; k++)
        to[k] = slot->scale * from[k];
}

static int pack_weights(struct lane *lane, struct err *err)
{
    const struct train_net *net = lane->net;
    for (int i = 0; i < net->n_slots; i++) {
        const struct slot *slot = &net->slots[i];
        const struct train_param *param = &net->params[slot->param];
        if (!is_mine(lane, slot))
            continue;
        if (slot->scaled >= 0)
            scale_value(slot, param, lane_at(lane, slot->scaled));
        for (int p = 0; p < slot->n_packs; p++) {
            int rc = prim_run(slot->packs[p], lane, err);
            if (rc < 0)
                return rc;
        }
        if (slot->own_pack)
            slot->own_pack(slot->own, lane,
                           slot->scaled >= 0 ? lane_at(lane, slot->scaled) : param->value);
    }
    return 0;
}

static void sum_gradients(const struct tape_op *op, const struct lane *lane)
{
    for (int i = 0; i < op->n_sums; i++) {
        size_t bytes = (size_t)op->sums[i].n * dtype_bytes(op->sums[i].dtype);
        void *to = lane_at(lane, op->sums[i].to);
        if (op->sums[i].from < 0)
            memset(to, 0, bytes);
        else if (op->sums[i].assign)
            memcpy(to, lane_at(lane, op->sums[i].from), bytes);
        else
            kernel_add(to, lane_at(lane, op->sums[i].from), op->sums[i].dtype, op->sums[i].n);
    }
}

static int call_loss(struct lane *lane, struct err *err)
{
    const struct train_net *net = lane->net;
    const float *outputs[net->n_outputs];
    float *gradients[net->n_outputs];
    for (int i = 0; i < net->n_outputs; i++) {
        const struct output *o = &net->outputs[i];
        outputs[i] = lane_at(lane, o->dense);
        gradients[i] = lane_at(lane, o->gradient);
        memset(gradients[i], 0, (size_t)val_elements(&net->vals[o->val]) * sizeof(float));
    }
    return net->loss(net->loss_ctx, lane->index, lane->slice * net->slice, net->slice, outputs,
                     gradients, err);
}

/* Adds the time since `begin`; returns now. */
static int64_t keep_time(const struct lane *lane, int at, int64_t begin)
{
    if (!lane->times)
        return 0;
    int64_t now = clock_now_ns(NULL);
    lane->times[at] += now - begin;
    return now;
}

static int run_slice(struct lane *lane, struct err *err)
{
    const struct train_net *net = lane->net;
    int rc = 0;
    int64_t begin = lane->times ? clock_now_ns(NULL) : 0;
    for (int i = 0; rc >= 0 && i < net->n_ops; i++) {
        rc = net->ops[i]->kind->forward(net->ops[i], lane, err);
        begin = keep_time(lane, 2 * i, begin);
    }
    if (rc >= 0)
        rc = call_loss(lane, err);
    begin = lane->times ? clock_now_ns(NULL) : 0;
    for (int i = net->n_ops - 1; rc >= 0 && i >= 0; i--) {
        const struct tape_op *op = net->ops[i];
        if (!op->has_backward)
            continue;
        sum_gradients(op, lane);
        rc = op->kind->backward(op, lane, err);
        begin = keep_time(lane, 2 * i + 1, begin);
    }
    return rc < 0 ? rc : 0;
}

static int run_slices(struct lane *lane, struct err *err)
{
    const struct train_net *net = lane->net;
    for (int i = 0; i < net->n_ops; i++)
        if (net->ops[i]->kind->prepare)
            net->ops[i]->kind->prepare(net->ops[i], lane);
    int rc = 0;
    lane->first = true;
    for (lane->slice = lane->index; rc == 0 && lane->slice < net->slices;
         lane->slice += net->n_lanes) {
        rc = run_slice(lane, err);
        lane->first = false;
    }
    return rc;
}

/* The lanes' sums, in the lanes' order, into the parameter's gradient. */
static int reduce_slot(struct lane *lane, const struct slot *slot, bool first, struct err *err)
{
    const struct train_net *net = lane->net;
    float *sum = lane_at(lane, slot->acc);
    const float *zero = lane_at(&net->lanes[0], slot->acc);
    for (int64_t i = 0; i < slot->acc_n; i++) {
        float s = zero[i];
        for (int l = 1; l < net->n_lanes; l++)
            s += ((const float *)lane_at(&net->lanes[l], slot->acc))[i];
        sum[i] = s;
    }
    if (slot->unpack) {
        int rc = prim_run(slot->unpack, lane, err);
        if (rc < 0)
            return rc;
        sum = lane_at(lane, net->plain);
    }
    if (slot->own_unpack) {
        slot->own_unpack(slot->own, sum, lane_at(lane, net->plain));
        sum = lane_at(lane, net->plain);
    }
    struct train_param *p = &lane->net->params[slot->param];
    for (int64_t i = 0; i < p->n; i++)
        p->grad[i] = (first ? 0 : p->grad[i]) + slot->scale * sum[i];
    if (slot->quantized)
        quantized_pass(slot->quantized, p->value, p->grad);
    return 0;
}

static int reduce_gradients(struct lane *lane, struct err *err)
{
    const struct train_net *net = lane->net;
    for (int i = 0; i < net->n_slots; i++) {
        const struct slot *slot = &net->slots[i];
        bool first = true;
        for (int k = 0; k < i; k++)
            first = first && net->slots[k].param != slot->param;
        int rc = is_mine(lane, slot) ? reduce_slot(lane, slot, first, err) : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static void lane_work(struct lane *lane, int phase)
{
    lane->err = (struct err){0};
    lane->rc = phase == PHASE_PACK     ? pack_weights(lane, &lane->err)
               : phase == PHASE_SLICES ? run_slices(lane, &lane->err)
                                       : reduce_gradients(lane, &lane->err);
}

static void *lane_main(void *arg)
{
    struct lane *lane = arg;
    struct train_net *net = lane->net;
    omp_set_num_threads(1); /* of this thread: oneDNN computes in it alone */
    uint64_t seen = 0;
    pthread_mutex_lock(&net->lock);
    for (;;) {
        while (!net->quit && net->round == seen)
            pthread_cond_wait(&net->wake, &net->lock);
        if (net->quit)
            break;
        seen = net->round;
        int phase = net->phase;
        pthread_mutex_unlock(&net->lock);
        lane_work(lane, phase);
        pthread_mutex_lock(&net->lock);
        if (--net->working == 0)
            pthread_cond_signal(&net->done);
    }
    pthread_mutex_unlock(&net->lock);
    return NULL;
}

/* Gives a phase to all lanes, the caller's thread among them, and waits. */
static int run_phase(struct train_net *net, int phase, struct err *err)
{
    pthread_mutex_lock(&net->lock);
    net->phase = phase;
    net->working = net->n_lanes - 1;
    net->round++;
    pthread_cond_broadcast(&net->wake);
    pthread_mutex_unlock(&net->lock);
    lane_work(&net->lanes[0], phase);
    pthread_mutex_lock(&net->lock);
    while (net->working > 0)
        pthread_cond_wait(&net->done, &net->lock);
    pthread_mutex_unlock(&net->lock);
    for (int i = 0; i < net->n_lanes; i++) {
        if (net->lanes[i].rc < 0) {
            if (err)
                *err = net->lanes[i].err;
            return net->lanes[i].rc;
        }
    }
    return 0;
}

int train_net_step(struct train_net *net, const float *x, train_loss *loss, void *ctx,
                   struct err *err)
{
    net->x = x;
    net->loss = loss;
    net->loss_ctx = ctx;
    int threads = omp_get_max_threads(), rc = 0;
    omp_set_num_threads(1);
    for (int phase = 0; rc == 0 && phase < PHASES; phase++)
        rc = run_phase(net, phase, err);
    omp_set_num_threads(threads);
    if (rc < 0)
        return rc;
    for (int i = 0; i < net->n_ops; i++)
        if (net->ops[i]->kind->finish)
            net->ops[i]->kind->finish(net->ops[i], net);
    net->steps++;
    return 0;
}
