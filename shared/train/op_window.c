/* MaxPool, AveragePool and LRN on oneDNN, whose forward leaves a workspace for backward. */
#include <math.h>
#include <string.h>

#include "shared/train/net_priv.h"

struct pool {
    bool lrn;
    dnnl_alg_kind_t alg;
    struct window w;
    int64_t size; /* LRN */
    float alpha, beta, bias;
    int workspace; /* buffer; -1: none */
    struct prim *forward, *backward;
};

struct pool_pd {
    dnnl_memory_desc_t x, y;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t forward, backward;
};

static void pool_pd_release(struct pool_pd *d)
{
    train_pdp(&d->forward);
    train_pdp(&d->backward);
    train_mdp(&d->x);
    train_mdp(&d->y);
    train_attrp(&d->attr);
}

/* The forward's descriptor, or the backward's besides. */
static int describe(struct compiler *c, const struct tape_op *op, bool backward, struct pool_pd *d,
                    struct err *err)
{
    const struct pool *p = op->state;
    const struct val *x = &c->net->vals[op->in[0]], *y = &c->net->vals[op->out[0]];
    dnnl_dims_t kernel, strides, dilations, before, after;
    for (int i = 0; i < p->w.rank; i++) {
        kernel[i] = p->w.kernel[i];
        strides[i] = p->w.stride[i];
        dilations[i] = p->w.dilation[i] - 1;
        before[i] = p->w.pad_begin[i];
        /* with ceil_mode the last window may reach beyond the pads */
        after[i] = (p->w.out[i] - 1) * p->w.stride[i] + (p->w.kernel[i] - 1) * p->w.dilation[i] +
                   1 - p->w.in[i] - p->w.pad_begin[i];
    }
    d->attr = train_attr();
    d->x = val_md(x, x->dtype);
    d->y = val_md(y, y->dtype);
    if (!d->attr || !d->x || !d->y)
        return err_oom(err, "a pool");
    dnnl_status_t s =
        p->lrn
            ? dnnl_lrn_forward_primitive_desc_create(&d->forward, c->engine, dnnl_forward_training,
                                                     dnnl_lrn_across_channels, d->x, d->y, p->size,
                                                     p->alpha, p->beta, p->bias, d->attr)
            : dnnl_pooling_forward_primitive_desc_create(
                  &d->forward, c->engine, dnnl_forward_training, p->alg, d->x, d->y, strides,
                  kernel, dilations, before, after, d->attr);
    if (s == dnnl_success && backward)
        s = p->lrn
                ? dnnl_lrn_backward_primitive_desc_create(
                      &d->backward, c->engine, dnnl_lrn_across_channels, d->x, d->y, d->x, p->size,
                      p->alpha, p->beta, p->bias, d->forward, d->attr)
                : dnnl_pooling_backward_primitive_desc_create(&d->backward, c->engine, p->alg, d->x,
                                                              d->y, strides, kernel, dilations,
                                                              before, after, d->forward, d->attr);
    return train_dnnl(s, err, "pool");
}

static int make_forward(struct compiler *c, struct tape_op *op, struct err *err)
{
    struct pool *p = op->state;
    _cleanup_(pool_pd_release) struct pool_pd d = {0};
    int rc = describe(c, op, false, &d, err);
    if (rc < 0)
        return rc;
    const_dnnl_memory_desc_t workspace =
        dnnl_primitive_desc_query_md(d.forward, dnnl_query_workspace_md, 0);
    size_t bytes = workspace ? dnnl_memory_desc_get_size(workspace) : 0;
    p->workspace = bytes ? compile_buffer(c, HOME_PLANNED, bytes, err) : -1;
    if (bytes && p->workspace < 0)
        return p->workspace;
    if (bytes)
        compile_forward_use(c, op, p->workspace);
    const struct bind b[] = {{DNNL_ARG_SRC, d.x, c->net->vals[op->in[0]].data, NULL},
                             {DNNL_ARG_DST, d.y, c->net->vals[op->out[0]].data, NULL},
                             {DNNL_ARG_WORKSPACE, workspace, p->workspace, NULL}};
    return prim_new(c, d.forward, bytes ? 3 : 2, b, &p->forward, err);
}

static int plan_pool(struct compiler *c, struct tape_op *op, struct err *err)
{
    struct pool *p = op->state;
    _cleanup_(pool_pd_release) struct pool_pd d = {0};
    int rc = compile_edge(c, op, 0, err);
    if (rc == 0)
        rc = describe(c, op, true, &d, err);
    if (rc < 0)
        return rc;
    if (p->workspace >= 0)
        compile_backward_use(c, op, p->workspace);
    struct bind b[4] = {{DNNL_ARG_DIFF_DST, d.y, c->net->vals[op->out[0]].grad, NULL},
                        {DNNL_ARG_DIFF_SRC, d.x, op->in_grad[0], NULL}};
    int n = 2;
    if (p->lrn) {
        compile_backward_use(c, op, c->net->vals[op->in[0]].data);
        b[n++] = (struct bind){DNNL_ARG_SRC, d.x, c->net->vals[op->in[0]].data, NULL};
    }
    if (p->workspace >= 0)
        b[n++] = (struct bind){DNNL_ARG_WORKSPACE,
                               dnnl_primitive_desc_query_md(d.forward, dnnl_query_workspace_md, 0),
                               p->workspace, NULL};
    return prim_new(c, d.backward, n, b, &p->backward, err);
}

static int pool_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    const struct pool *p = op->state;
    return prim_run(p->forward, lane, err);
}

static int pool_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    const struct pool *p = op->state;
    return p->backward ? prim_run(p->backward, lane, err) : 0;
}

static const struct op_kind pool_kind = {
    .name = "pool", .plan = plan_pool, .forward = pool_forward, .backward = pool_backward};

static int emit_pool(struct compiler *c, const struct node *node, const struct pool *p,
                     struct err *err)
{
    int in = compile_val_of(c, node->inputs[0]);
    int out = compile_val(c, node->outputs[0], c->net->vals[in].dtype, -1, err);
    struct tape_op *op =
        out < 0 ? NULL : compile_op(c, &pool_kind, node, 1, &in, 1, &out, sizeof(*p), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, p, sizeof(*p));
    int rc = make_forward(c, op, err);
    return rc < 0 ? err_wrap(err, "node '%s' (%s)", node->name, op_name(node->op)) : 0;
}

int make_pool(struct compiler *c, const struct node *node, struct err *err)
{
    struct pool p = {.alg = dnnl_pooling_max};
    if (node->n_outputs > 1 && node->outputs[1] >= 0)
        return compile_refuse(node, err, "its indices are an output");
    int rc = graph_window(c->g, node, &p.w, err);
    if (rc < 0)
        return rc;
    for (int d = 0; d < p.w.rank; d++)
        if (p.w.pad_begin[d] < 0 || p.w.pad_end[d] < 0 || p.w.out[d] <= 0)
            return compile_refuse(node, err, "negative pads");
    bool padded = false, beyond = false;
    for (int d = 0; d < p.w.rank; d++) {
        int64_t end = (p.w.out[d] - 1) * p.w.stride[d] + (p.w.kernel[d] - 1) * p.w.dilation[d] + 1;
        padded = padded || p.w.pad_begin[d] > 0 || p.w.pad_end[d] > 0;
        beyond = beyond || end > p.w.in[d] + p.w.pad_begin[d] + p.w.pad_end[d];
    }
    if (node->op == OP_AVERAGE_POOL) {
        if (beyond && p.w.count_include_pad)
            return compile_refuse(node, err, "ceil_mode with counted pads");
        p.alg = padded && p.w.count_include_pad ? dnnl_pooling_avg_include_padding
                                                : dnnl_pooling_avg_exclude_padding;
    }
    return emit_pool(c, node, &p, err);
}

int make_lrn(struct compiler *c, const struct node *node, struct err *err)
{
    const struct pool p = {.lrn = true,
                           .size = node_int(node, "size", 0),
                           .alpha = node_float(node, "alpha", 0.0001f),
                           .beta = node_float(node, "beta", 0.75f),
                           .bias = node_float(node, "bias", 1)};
    if (p.size < 1 || p.size % 2 == 0)
        return compile_refuse(node, err, "its size is not odd");
    return emit_pool(c, node, &p, err);
}
