/* Where samples come in, and where outputs meet the loss. */
#include <string.h>

#include "shared/train/net_priv.h"

static int input_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct val *v = &lane->net->vals[op->out[0]];
    const int64_t width = val_width(v);
    const float *x = lane->net->x + lane->slice * v->n * width;
    char *to = lane_at(lane, v->data);
    for (int64_t i = 0; i < v->n; i++)
        kernel_to_last(to + (size_t)(i * width) * dtype_bytes(v->dtype), v->dtype, x + i * width,
                       v->c, v->plane);
    return 0;
}

static const struct op_kind input_kind = {.name = "input", .forward = input_forward};

int make_input(struct compiler *c, int value, struct err *err)
{
    const struct value *v = c->g->values[value];
    bool half = c->net->precision == PRECISION_BF16 && v->shape_known && v->shape.rank > 2;
    int out = compile_val(c, value, half ? DTYPE_BF16 : DTYPE_F32, -1, err);
    if (out < 0)
        return out;
    c->net->input = out;
    return compile_op(c, &input_kind, NULL, 0, NULL, 1, &out, 0, err) ? 0 : -ERR_RESOURCE_EXHAUSTED;
}

struct port {
    int dense, gradient;
};

static int output_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct port *p = op->state;
    const struct val *v = &lane->net->vals[op->in[0]];
    const int64_t width = val_width(v);
    const char *from = lane_at(lane, v->data);
    float *to = lane_at(lane, p->dense);
    for (int64_t i = 0; i < v->n; i++)
        kernel_from_last(to + i * width, from + (size_t)(i * width) * dtype_bytes(v->dtype),
                         v->dtype, v->c, v->plane);
    return 0;
}

static int output_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    (void)err;
    const struct port *p = op->state;
    const struct val *v = &lane->net->vals[op->in[0]];
    const int64_t width = val_width(v);
    if (op->in_grad[0] < 0)
        return 0;
    char *to = lane_at(lane, op->in_grad[0]);
    const float *from = lane_at(lane, p->gradient);
    for (int64_t i = 0; i < v->n; i++)
        kernel_to_last(to + (size_t)(i * width) * dtype_bytes(v->dtype), v->dtype, from + i * width,
                       v->c, v->plane);
    return 0;
}

/* The loss reads and writes both between forward and backward. */
static int plan_output(struct compiler *c, struct tape_op *op, struct err *err)
{
    const struct port *p = op->state;
    compile_backward_use(c, op, p->dense);
    compile_forward_use(c, op, p->gradient);
    compile_backward_use(c, op, p->gradient);
    /* the loss comes behind the last operator */
    struct buffer *dense = &c->net->buffers[p->dense], *g = &c->net->buffers[p->gradient];
    dense->last = dense->last > c->net->n_ops ? dense->last : c->net->n_ops;
    g->first = g->first < c->net->n_ops ? g->first : c->net->n_ops;
    return compile_edge(c, op, 0, err);
}

static const struct op_kind output_kind = {
    .name = "output", .plan = plan_output, .forward = output_forward, .backward = output_backward};

int make_output(struct compiler *c, int value, struct output *ret, struct err *err)
{
    int in = compile_val_of(c, value);
    if (in < 0)
        return err_set(err, ERR_UNIMPLEMENTED,
                       "value '%s' cannot be tapped: it lies inside an operator or is constant",
                       c->g->values[value]->name);
    size_t bytes = (size_t)val_elements(&c->net->vals[in]) * sizeof(float);
    struct tape_op *op =
        compile_op(c, &output_kind, NULL, 1, &in, 0, NULL, sizeof(struct port), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    struct port *p = op->state;
    p->dense = compile_buffer(c, HOME_PLANNED, bytes, err);
    p->gradient = p->dense < 0 ? p->dense : compile_buffer(c, HOME_PLANNED, bytes, err);
    if (p->gradient < 0)
        return p->gradient;
    compile_forward_use(c, op, p->dense);
    *ret = (struct output){.val = in, .dense = p->dense, .gradient = p->gradient};
    return 0;
}
