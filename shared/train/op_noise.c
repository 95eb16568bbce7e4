/* Dropout, and PRelu with its trained slopes. */
#include <string.h>

#include "shared/base/rng.h"
#include "shared/train/net_priv.h"

enum { CHUNK = 1024 };

/* ---- Dropout ---- */

struct dropout {
    float ratio;
    uint64_t stream; /* of random numbers: which Dropout of the network */
};

/* y = x / (1 - ratio) where kept, else 0. The choice follows from seed, step, operator and slice,
 * so that backward makes it again instead of keeping a mask. */
static void drop(const struct tape_op *op, const struct lane *lane, const void *from, void *to,
                 enum dtype dtype)
{
    const struct dropout *d = op->state;
    const struct train_net *net = lane->net;
    const int64_t n = val_elements(&net->vals[op->in[0]]);
    const size_t size = dtype_bytes(dtype);
    const float scale = 1 / (1 - d->ratio);
    const uint32_t limit = (uint32_t)((double)d->ratio * 4294967295.0);
    struct rng rng;
    rng_seed2(&rng, net->options.seed ^ (d->stream << 48),
              net->steps * (uint64_t)net->slices + (uint64_t)lane->slice);
    float chunk[CHUNK];
    for (int64_t i = 0; i < n; i += CHUNK) {
        const int64_t count = n - i < CHUNK ? n - i : CHUNK;
        kernel_load(chunk, (const char *)from + (size_t)i * size, dtype, count);
        uint64_t bits = 0;
        for (int64_t k = 0; k < count; k++) {
            bits = k % 2 == 0 ? rng_u64(&rng) : bits >> 32;
            chunk[k] = (uint32_t)bits < limit ? 0 : scale * chunk[k];
        }
        kernel_store((char *)to + (size_t)i * size, chunk, dtype, count);
    }
}

static int dropout_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    drop(op, lane, lane_at(lane, x->data), lane_at(lane, y->data), x->dtype);
    return 0;
}

static int dropout_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *y = &lane->net->vals[op->out[0]];
    if (op->in_grad[0] >= 0)
        drop(op, lane, lane_at(lane, y->grad), lane_at(lane, op->in_grad[0]), y->dtype);
    return 0;
}

static int plan_dropout(struct compiler *c, struct tape_op *op, struct err *err)
{
    return compile_edge(c, op, 0, err);
}

static const struct op_kind dropout_kind = {.name = "dropout",
                                            .plan = plan_dropout,
                                            .forward = dropout_forward,
                                            .backward = dropout_backward};

int make_dropout(struct compiler *c, const struct node *node, struct err *err)
{
    const struct value *given = graph_input_of(c->g, node, 1);
    const struct tensor *t = compile_constant(c, node, 1);
    if ((given && (!t || shape_elements(&t->shape) != 1)) ||
        (node->n_outputs > 1 && node->outputs[1] >= 0))
        return compile_refuse(node, err, "its ratio is not constant, or its mask is an output");
    float ratio = t ? *(const float *)t->data : node_float(node, "ratio", 0.5f);
    if (ratio == 0)
        return make_alias(c, node, err);
    if (!(ratio > 0 && ratio < 1))
        return compile_refuse(node, err, "its ratio is not in [0, 1)");
    int in = compile_val_of(c, node->inputs[0]);
    int out = compile_val(c, node->outputs[0], c->net->vals[in].dtype, -1, err);
    struct tape_op *op =
        out < 0 ? NULL
                : compile_op(c, &dropout_kind, node, 1, &in, 1, &out, sizeof(struct dropout), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    *(struct dropout *)op->state =
        (struct dropout){.ratio = ratio, .stream = (uint64_t)op->index + 1};
    return 0;
}

/* ---- PRelu: slopes below 0, one for each channel or one for all ---- */

struct prelu {
    int slope; /* slot */
    int64_t n; /* slopes: 1 or the channels */
};

static int prelu_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct prelu *p = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    const float *slope = lane->net->params[lane->net->slots[p->slope].param].value;
    const size_t size = dtype_bytes(x->dtype);
    const char *from = lane_at(lane, x->data);
    char *to = lane_at(lane, y->data);
    float chunk[CHUNK];
    for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
        const int64_t count = n - i < CHUNK ? n - i : CHUNK;
        kernel_load(chunk, from + (size_t)i * size, x->dtype, count);
        for (int64_t k = 0; k < count; k++)
            chunk[k] *= chunk[k] > 0 ? 1 : slope[(i + k) % p->n];
        kernel_store(to + (size_t)i * size, chunk, x->dtype, count);
    }
    return 0;
}

static int prelu_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct prelu *p = op->state;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    const struct slot *slot = &lane->net->slots[p->slope];
    const float *slope = lane->net->params[slot->param].value;
    float *sum = lane_at(lane, slot->acc);
    const size_t size = dtype_bytes(x->dtype);
    const char *from = lane_at(lane, x->data), *dy = lane_at(lane, y->grad);
    char *dx = op->in_grad[0] >= 0 ? lane_at(lane, op->in_grad[0]) : NULL;
    float chunk[CHUNK], d[CHUNK];
    if (lane->first)
        memset(sum, 0, (size_t)p->n * sizeof(float));
    for (int64_t i = 0, n = val_elements(x); i < n; i += CHUNK) {
        const int64_t count = n - i < CHUNK ? n - i : CHUNK;
        kernel_load(chunk, from + (size_t)i * size, x->dtype, count);
        kernel_load(d, dy + (size_t)i * size, x->dtype, count);
        for (int64_t k = 0; k < count; k++) {
            const int64_t at = (i + k) % p->n;
            if (chunk[k] > 0)
                continue;
            sum[at] += d[k] * chunk[k];
            d[k] *= slope[at];
        }
        if (dx)
            kernel_store(dx + (size_t)i * size, d, x->dtype, count);
    }
    return 0;
}

static int plan_prelu(struct compiler *c, struct tape_op *op, struct err *err)
{
    compile_backward_use(c, op, c->net->vals[op->in[0]].data);
    return compile_edge(c, op, 0, err);
}

static const struct op_kind prelu_kind = {
    .name = "prelu", .plan = plan_prelu, .forward = prelu_forward, .backward = prelu_backward};

int make_prelu(struct compiler *c, const struct node *node, struct err *err)
{
    const struct tensor *t = compile_constant(c, node, 1);
    int in = compile_val_of(c, node->inputs[0]);
    const struct val *x = &c->net->vals[in];
    const int64_t n = t ? shape_elements(&t->shape) : 0;
    /* [C, 1, 1] or [1, C, 1, 1]; [C] alone would go along the last dimension */
    bool channels = t && n == x->c && t->shape.rank + 1 >= x->shape.rank &&
                    t->shape.dim[t->shape.rank + 1 - x->shape.rank] == n;
    if (!t || (n != 1 && !channels))
        return compile_refuse(node, err, "its slopes are not one for each channel");
    int param = compile_param(c, node->inputs[1], TRAIN_SLOPE, err);
    int slot = param < 0 ? param : compile_slot(c, param, n, err);
    int out = slot < 0 ? slot : compile_val(c, node->outputs[0], c->net->vals[in].dtype, -1, err);
    struct tape_op *op =
        out < 0 ? NULL
                : compile_op(c, &prelu_kind, node, 1, &in, 1, &out, sizeof(struct prelu), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    *(struct prelu *)op->state = (struct prelu){.slope = slot, .n = n};
    c->net->vals[out].needs_grad = true;
    return 0;
}
