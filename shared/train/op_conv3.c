/* 3x3 convolutions in bf16 by kernels of our own (kernel_conv3.h), for the shapes that fill them.
 */
#include <string.h>

#include "shared/train/kernel_conv3.h"
#include "shared/train/net_priv.h"

struct own {
    struct conv3 shape;
    int slot;
    int forward_weights, backward_weights; /* shared buffers, packed */
};

static void pack(const void *own, const struct lane *lane, const float *from)
{
    const struct own *v = own;
    conv3_pack(&v->shape, from, lane_at(lane, v->forward_weights),
               v->backward_weights >= 0 ? lane_at(lane, v->backward_weights) : NULL, lane->scratch);
}

static void unpack(const void *own, const float *from, float *to)
{
    conv3_unpack(&((const struct own *)own)->shape, from, to);
}

static void need_scratch(struct compiler *c, const struct conv3 *s)
{
    const size_t bytes = conv3_scratch(s);
    if (bytes > c->net->scratch_bytes)
        c->net->scratch_bytes = bytes;
}

static int packed_buffer(struct compiler *c, const struct own *v, struct err *err)
{
    const size_t n = (size_t)c->net->slots[v->slot].acc_n;
    return compile_buffer(c, HOME_SHARED, n * sizeof(uint16_t), err);
}

static int plan_own(struct compiler *c, struct tape_op *op, struct err *err)
{
    struct own *v = op->state;
    int rc = compile_edge(c, op, 0, err);
    if (rc < 0)
        return rc;
    if (op->in_grad[0] >= 0)
        v->backward_weights = packed_buffer(c, v, err);
    if (op->in_grad[0] >= 0 && v->backward_weights < 0)
        return v->backward_weights;
    compile_backward_use(c, op, c->net->vals[op->in[0]].data);
    int plain = compile_plain(c, c->net->slots[v->slot].param, err);
    return plain < 0 ? plain : 0;
}

static int own_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct own *v = op->state;
    const struct val *vals = lane->net->vals;
    conv3_forward(&v->shape, lane_at(lane, vals[op->in[0]].data), lane_at(lane, v->forward_weights),
                  lane_at(lane, vals[op->out[0]].data), lane->scratch);
    return 0;
}

static int own_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct own *v = op->state;
    const struct slot *slot = &lane->net->slots[v->slot];
    const void *dy = lane_at(lane, lane->net->vals[op->out[0]].grad);
    float *sum = lane_at(lane, slot->acc);
    if (lane->first)
        memset(sum, 0, (size_t)slot->acc_n * sizeof(*sum));
    conv3_weights(&v->shape, lane_at(lane, lane->net->vals[op->in[0]].data), dy, sum,
                  lane->scratch);
    if (op->in_grad[0] >= 0)
        conv3_data(&v->shape, dy, lane_at(lane, v->backward_weights), lane_at(lane, op->in_grad[0]),
                   lane->scratch);
    return 0;
}

static const struct op_kind own_kind = {
    .name = "convolution", .plan = plan_own, .forward = own_forward, .backward = own_backward};

static bool shape_of(struct compiler *c, const struct node *node, const struct window *w,
                     struct conv3 *ret)
{
    const struct val *x = &c->net->vals[compile_val_of(c, node->inputs[0])];
    bool three = w->rank == 2 && w->group == 1 && w->stride[0] == w->stride[1];
    for (int d = 0; d < w->rank; d++)
        three = three && w->kernel[d] == 3 && w->dilation[d] == 1;
    if (!three || x->dtype != DTYPE_BF16 || (node->n_inputs > 2 && node->inputs[2] >= 0))
        return false;
    *ret = (struct conv3){.n = x->n,
                          .h = w->in[0],
                          .w = w->in[1],
                          .ic = x->c,
                          .oh = w->out[0],
                          .ow = w->out[1],
                          .oc = compile_constant(c, node, 1)->shape.dim[0],
                          .stride = w->stride[0],
                          .top = w->pad_begin[0],
                          .left = w->pad_begin[1]};
    return conv3_fits(ret);
}

int make_conv3(struct compiler *c, const struct node *node, const struct window *w, struct err *err)
{
    struct own v = {.backward_weights = -1};
    if (!shape_of(c, node, w, &v.shape))
        return 0;
    int p = compile_param(c, node->inputs[1], TRAIN_WEIGHT, err);
    v.slot = p < 0 ? p : compile_slot(c, p, 9 * v.shape.ic * v.shape.oc, err);
    int in = compile_val_of(c, node->inputs[0]);
    int out = v.slot < 0 ? v.slot : compile_val(c, node->outputs[0], DTYPE_BF16, -1, err);
    v.forward_weights = out < 0 ? out : packed_buffer(c, &v, err);
    if (v.forward_weights < 0)
        return v.forward_weights;
    struct tape_op *op = compile_op(c, &own_kind, node, 1, &in, 1, &out, sizeof(v), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, &v, sizeof(v));
    struct slot *slot = &c->net->slots[v.slot];
    slot->own_pack = pack;
    slot->own_unpack = unpack;
    slot->own = op->state;
    c->net->vals[out].needs_grad = true;
    need_scratch(c, &v.shape);
    return 1;
}
