/* QuantizeLinear with the DequantizeLinear behind it: one fake quantization of activations, its
 * gradient straight through (Bengio and others, 2013, arXiv 1308.3432). */
#include <string.h>

#include "shared/train/net_priv.h"

static int fake_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    kernel_fake(op->state, lane_at(lane, x->data), lane_at(lane, y->data), val_elements(x));
    return 0;
}

static int fake_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *x = &lane->net->vals[op->in[0]], *y = &lane->net->vals[op->out[0]];
    if (op->in_grad[0] >= 0)
        kernel_fake_back(op->state, lane_at(lane, x->data), lane_at(lane, y->grad),
                         lane_at(lane, op->in_grad[0]), val_elements(x));
    return 0;
}

static int plan_fake(struct compiler *c, struct tape_op *op, struct err *err)
{
    const struct val *x = &c->net->vals[op->in[0]], *y = &c->net->vals[op->out[0]];
    if (x->needs_grad)
        compile_backward_use(c, op, x->data);
    if (!y->grad_shared)
        return compile_pass_edge(c, op, 0, y->grad, false, err);
    return compile_edge(c, op, 0, err);
}

static const struct op_kind fake_kind = {.name = "fake quantization",
                                         .plan = plan_fake,
                                         .forward = fake_forward,
                                         .backward = fake_backward};

/* ---- from nodes ---- */

static const struct tensor *scalar(const struct compiler *c, const struct node *node, int i)
{
    const struct value *v = graph_input_of(c->g, node, i);
    return v && v->constant && shape_elements(&v->constant->shape) == 1 ? v->constant : NULL;
}

/* Scale and zero point of a whole tensor, by constants. */
static bool read_grid(const struct compiler *c, const struct node *node, struct grid *ret)
{
    const struct tensor *scale = scalar(c, node, 1), *zero = scalar(c, node, 2);
    const bool has_zero = graph_input_of(c->g, node, 2);
    if (!scale || scale->dtype != DTYPE_F32 || (has_zero && !zero))
        return false;
    ret->scale = (float)tensor_get_f64(scale, 0);
    ret->zero = zero ? (float)tensor_get_f64(zero, 0) : 0;
    return ret->scale > 0;
}

/* The first that reads the quantized values; NULL, with the reason, where one of those that do is
 * no DequantizeLinear of the same scale. */
static const struct node *first_reader(const struct compiler *c, const struct node *quantize,
                                       const struct grid *grid, const char **why)
{
    const int q = quantize->outputs[0];
    const struct node *first = NULL;
    struct grid back;
    *why = "its 8 bits are read by another operator than DequantizeLinear";
    for (int i = c->uses.first[q]; i < c->uses.first[q + 1]; i++) {
        const struct node *reader = c->g->nodes[c->uses.node_of[i]];
        if (reader->op != OP_DEQUANTIZE_LINEAR)
            return NULL;
        if (!read_grid(c, reader, &back) || back.scale != grid->scale || back.zero != grid->zero) {
            *why = "it is not dequantized with its own scale and zero point";
            return NULL;
        }
        first = first ? first : reader;
    }
    return c->uses.is_output[q] ? NULL : first;
}

int make_quantize(struct compiler *c, const struct node *node, struct err *err)
{
    struct grid grid;
    const char *why = "its scale and zero point are not one constant each";
    const int in = compile_val_of(c, node->inputs[0]);
    if (in < 0 || !read_grid(c, node, &grid))
        return compile_refuse(node, err, why);
    grid_bounds(&grid, c->g->values[node->outputs[0]]->dtype);
    const struct node *reader = first_reader(c, node, &grid, &why);
    if (!reader)
        return compile_refuse(node, err, why);
    const int out = compile_val(c, reader->outputs[0], DTYPE_F32, -1, err);
    struct tape_op *op =
        out < 0 ? NULL : compile_op(c, &fake_kind, node, 1, &in, 1, &out, sizeof(grid), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, &grid, sizeof(grid));
    c->val_of[node->outputs[0]] = out;
    return 0;
}

/* Behind a QuantizeLinear the work is done; a constant is its reader's to quantize. */
int make_dequantize(struct compiler *c, const struct node *node, struct err *err)
{
    const int made = compile_val_of(c, node->inputs[0]);
    if (made >= 0)
        c->val_of[node->outputs[0]] = made;
    else if (!compile_quantized(c, node->outputs[0]))
        return compile_refuse(node, err, "it is behind neither QuantizeLinear nor a constant");
    return 0;
}
