/* Conv, ConvTranspose and Gemm (MatMul by a constant) on oneDNN: forward, gradients of data,
 * weights and bias. */
#include <string.h>

#include "shared/train/net_priv.h"

struct conv {
    bool product; /* Gemm: no window */
    bool transposed;
    struct window w;
    int64_t ic, oc, group;
    int rank; /* of the weights as oneDNN has them */
    dnnl_dims_t dims, strides;
    int weights, bias;                     /* slots; bias -1: none */
    int forward_weights, backward_weights; /* shared buffers, packed */
    int product_weights, product_bias;     /* planned: one slice's gradients */
    struct prim *forward, *data, *first,
        *more; /* gradients of weights: into the sum, or beside it */
};

/* ---- descriptors ---- */

struct describe {
    dnnl_memory_desc_t x, y, weights, plain, any, bias;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t forward, backward;
    dnnl_dims_t window_strides, dilations, before, after;
};

static void describe_release(struct describe *d)
{
    train_pdp(&d->forward);
    train_pdp(&d->backward);
    train_mdp(&d->x);
    train_mdp(&d->y);
    train_mdp(&d->weights);
    train_mdp(&d->plain);
    train_mdp(&d->any);
    train_mdp(&d->bias);
    train_attrp(&d->attr);
}

static int describe(struct compiler *c, const struct tape_op *op, struct describe *d,
                    struct err *err)
{
    const struct conv *v = op->state;
    const struct val *x = &c->net->vals[op->in[0]], *y = &c->net->vals[op->out[0]];
    dnnl_data_type_t type = x->dtype == DTYPE_BF16 ? dnnl_bf16 : dnnl_f32;
    dnnl_dims_t channels = {v->oc};
    for (int i = 0; i < v->w.rank; i++) {
        d->window_strides[i] = v->w.stride[i];
        d->dilations[i] = v->w.dilation[i] - 1;
        d->before[i] = v->w.pad_begin[i];
        d->after[i] = v->w.pad_end[i];
        if (v->transposed)
            d->after[i] = (v->w.in[i] - 1) * v->w.stride[i] +
                          (v->w.kernel[i] - 1) * v->w.dilation[i] + 1 - v->w.out[i] -
                          v->w.pad_begin[i];
    }
    d->attr = train_attr();
    d->x = val_md(x, x->dtype);
    d->y = val_md(y, x->dtype);
    if (!d->attr || !d->x || !d->y)
        return err_oom(err, "a convolution");
    int rc = train_dnnl(
        dnnl_memory_desc_create_with_tag(&d->weights, v->rank, v->dims, type, dnnl_format_tag_any),
        err, "weights");
    if (rc == 0)
        rc = train_dnnl(dnnl_memory_desc_create_with_tag(&d->any, v->rank, v->dims, dnnl_f32,
                                                         dnnl_format_tag_any),
                        err, "weights");
    if (rc == 0)
        rc = train_dnnl(
            dnnl_memory_desc_create_with_strides(&d->plain, v->rank, v->dims, dnnl_f32, v->strides),
            err, "weights");
    if (rc == 0 && v->bias >= 0)
        rc = train_dnnl(dnnl_memory_desc_create_with_tag(&d->bias, 1, channels, dnnl_f32, dnnl_a),
                        err, "bias");
    return rc;
}

static int describe_forward(struct compiler *c, const struct conv *v, struct describe *d,
                            struct err *err)
{
    dnnl_status_t s;
    if (v->product)
        s = dnnl_inner_product_forward_primitive_desc_create(&d->forward, c->engine,
                                                             dnnl_forward_training, d->x,
                                                             d->weights, d->bias, d->y, d->attr);
    else if (v->transposed)
        s = dnnl_deconvolution_forward_primitive_desc_create(
            &d->forward, c->engine, dnnl_forward_training, dnnl_deconvolution_direct, d->x,
            d->weights, d->bias, d->y, d->window_strides, d->dilations, d->before, d->after,
            d->attr);
    else
        s = dnnl_convolution_forward_primitive_desc_create(
            &d->forward, c->engine, dnnl_forward_training, dnnl_convolution_direct, d->x,
            d->weights, d->bias, d->y, d->window_strides, d->dilations, d->before, d->after,
            d->attr);
    return train_dnnl(s, err, "forward");
}

static bool is_depthwise(dnnl_primitive_desc_t pd)
{
    const char *name = NULL;
    return dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, (void *)&name) ==
               dnnl_success &&
           strstr(name, "dw");
}

/* Of oneDNN 3.7's ways to run a depthwise convolution backward the first is not always one made for
 * it: with strides in bf16 another, a hundred times slower, comes before. */
static int prefer_depthwise(const struct conv *v, struct describe *d,
                            int (*make)(const struct conv *v, struct describe *d, struct err *err),
                            struct err *err)
{
    int rc = make(v, d, err);
    if (rc < 0 || v->group == 1 || v->group != v->ic || v->group != v->oc)
        return rc;
    while (!is_depthwise(d->backward))
        if (dnnl_primitive_desc_next_impl(d->backward) != dnnl_success) {
            train_pdp(&d->backward);
            return make(v, d, err);
        }
    return 0;
}

static int describe_data(const struct conv *v, struct describe *d, struct err *err)
{
    dnnl_status_t s;
    if (v->product)
        s = dnnl_inner_product_backward_data_primitive_desc_create(
            &d->backward, train_engine(), d->x, d->weights, d->y, d->forward, d->attr);
    else if (v->transposed)
        s = dnnl_deconvolution_backward_data_primitive_desc_create(
            &d->backward, train_engine(), dnnl_deconvolution_direct, d->x, d->weights, d->y,
            d->window_strides, d->dilations, d->before, d->after, d->forward, d->attr);
    else
        s = dnnl_convolution_backward_data_primitive_desc_create(
            &d->backward, train_engine(), dnnl_convolution_direct, d->x, d->weights, d->y,
            d->window_strides, d->dilations, d->before, d->after, d->forward, d->attr);
    return train_dnnl(s, err, "gradient of the data");
}

static int describe_weights(const struct conv *v, struct describe *d, struct err *err)
{
    dnnl_status_t s;
    if (v->product)
        s = dnnl_inner_product_backward_weights_primitive_desc_create(
            &d->backward, train_engine(), d->x, d->any, d->bias, d->y, d->forward, d->attr);
    else if (v->transposed)
        s = dnnl_deconvolution_backward_weights_primitive_desc_create(
            &d->backward, train_engine(), dnnl_deconvolution_direct, d->x, d->any, d->bias, d->y,
            d->window_strides, d->dilations, d->before, d->after, d->forward, d->attr);
    else
        s = dnnl_convolution_backward_weights_primitive_desc_create(
            &d->backward, train_engine(), dnnl_convolution_direct, d->x, d->any, d->bias, d->y,
            d->window_strides, d->dilations, d->before, d->after, d->forward, d->attr);
    return train_dnnl(s, err, "gradient of the weights");
}

/* ---- packed weights ---- */

static int pack(struct compiler *c, int slot, const_dnnl_memory_desc_t plain,
                const_dnnl_memory_desc_t packed, int *ret, struct err *err)
{
    struct train_net *net = c->net;
    *ret = compile_buffer(c, HOME_SHARED, dnnl_memory_desc_get_size(packed), err);
    if (*ret < 0)
        return *ret;
    struct slot *s = &net->slots[slot];
    const struct bind from = {DNNL_ARG_FROM, plain, s->scaled, net->params[s->param].value};
    const struct bind to = {DNNL_ARG_TO, packed, *ret, NULL};
    int rc = prim_reorder(c, &from, &to, &s->packs[s->n_packs], err);
    s->n_packs += rc == 0;
    return rc;
}

static int make_forward(struct compiler *c, struct tape_op *op, struct err *err)
{
    struct conv *v = op->state;
    _cleanup_(describe_release) struct describe d = {0};
    int rc = describe(c, op, &d, err);
    if (rc == 0)
        rc = describe_forward(c, v, &d, err);
    if (rc < 0)
        return rc;
    const_dnnl_memory_desc_t packed =
        dnnl_primitive_desc_query_md(d.forward, dnnl_query_weights_md, 0);
    rc = pack(c, v->weights, d.plain, packed, &v->forward_weights, err);
    if (rc < 0)
        return rc;
    const struct slot *bias = v->bias >= 0 ? &c->net->slots[v->bias] : NULL;
    struct bind b[4] = {{DNNL_ARG_SRC, d.x, c->net->vals[op->in[0]].data, NULL},
                        {DNNL_ARG_DST, d.y, c->net->vals[op->out[0]].data, NULL},
                        {DNNL_ARG_WEIGHTS, packed, v->forward_weights, NULL},
                        {DNNL_ARG_BIAS, d.bias, -1, NULL}};
    if (bias) {
        b[3].buffer = bias->scaled;
        b[3].data = c->net->params[bias->param].value;
    }
    return prim_new(c, d.forward, v->bias >= 0 ? 4 : 3, b, &v->forward, err);
}

/* ---- backward ---- */

static int plan_data(struct compiler *c, struct tape_op *op, struct describe *d, struct err *err)
{
    struct conv *v = op->state;
    int rc = compile_edge(c, op, 0, err);
    if (rc < 0 || op->in_grad[0] < 0)
        return rc;
    rc = prefer_depthwise(v, d, describe_data, err);
    if (rc < 0)
        return rc;
    const_dnnl_memory_desc_t packed =
        dnnl_primitive_desc_query_md(d->backward, dnnl_query_weights_md, 0);
    const_dnnl_memory_desc_t forward =
        dnnl_primitive_desc_query_md(d->forward, dnnl_query_weights_md, 0);
    v->backward_weights = v->forward_weights;
    if (!dnnl_memory_desc_equal(packed, forward))
        rc = pack(c, v->weights, d->plain, packed, &v->backward_weights, err);
    if (rc < 0)
        return rc;
    const struct bind b[] = {
        {DNNL_ARG_DIFF_DST, d->y, c->net->vals[op->out[0]].grad, NULL},
        {DNNL_ARG_DIFF_SRC, d->x, op->in_grad[0], NULL},
        {DNNL_ARG_WEIGHTS, packed, v->backward_weights, NULL},
    };
    rc = prim_new(c, d->backward, 3, b, &v->data, err);
    train_pdp(&d->backward);
    return rc;
}

static int bind_weights(struct compiler *c, const struct tape_op *op, const struct describe *d,
                        const_dnnl_memory_desc_t packed, int weights, int bias, struct prim **ret,
                        struct err *err)
{
    const struct conv *v = op->state;
    const struct bind b[4] = {{DNNL_ARG_SRC, d->x, c->net->vals[op->in[0]].data, NULL},
                              {DNNL_ARG_DIFF_DST, d->y, c->net->vals[op->out[0]].grad, NULL},
                              {DNNL_ARG_DIFF_WEIGHTS, packed, weights, NULL},
                              {DNNL_ARG_DIFF_BIAS, d->bias, bias, NULL}};
    return prim_new(c, d->backward, v->bias >= 0 ? 4 : 3, b, ret, err);
}

static int plan_weights(struct compiler *c, struct tape_op *op, struct describe *d, struct err *err)
{
    struct train_net *net = c->net;
    struct conv *v = op->state;
    int rc = prefer_depthwise(v, d, describe_weights, err);
    if (rc < 0)
        return rc;
    compile_backward_use(c, op, net->vals[op->in[0]].data);
    const_dnnl_memory_desc_t packed =
        dnnl_primitive_desc_query_md(d->backward, dnnl_query_diff_weights_md, 0);
    size_t bytes = dnnl_memory_desc_get_size(packed);
    struct slot *s = &net->slots[v->weights];
    s->acc_n = (int64_t)(bytes / sizeof(float));
    net->buffers[s->acc].bytes = bytes;
    v->product_weights = compile_buffer(c, HOME_PLANNED, bytes, err);
    v->product_bias = compile_buffer(c, HOME_PLANNED, (size_t)v->oc * sizeof(float), err);
    if (v->product_weights < 0 || v->product_bias < 0)
        return -ERR_RESOURCE_EXHAUSTED;
    compile_backward_use(c, op, v->product_weights);
    compile_backward_use(c, op, v->product_bias);
    if (!dnnl_memory_desc_equal(packed, d->plain)) {
        const struct bind from = {DNNL_ARG_FROM, packed, s->acc, NULL};
        const struct bind to = {DNNL_ARG_TO, d->plain, compile_plain(c, s->param, err), NULL};
        rc = to.buffer < 0 ? to.buffer : prim_reorder(c, &from, &to, &s->unpack, err);
    }
    if (rc == 0)
        rc = bind_weights(c, op, d, packed, s->acc, v->bias >= 0 ? net->slots[v->bias].acc : -1,
                          &v->first, err);
    if (rc == 0)
        rc = bind_weights(c, op, d, packed, v->product_weights, v->product_bias, &v->more, err);
    return rc;
}

static int plan_conv(struct compiler *c, struct tape_op *op, struct err *err)
{
    struct conv *v = op->state;
    _cleanup_(describe_release) struct describe d = {0};
    int rc = describe(c, op, &d, err);
    if (rc == 0)
        rc = describe_forward(c, v, &d, err);
    if (rc == 0)
        rc = plan_data(c, op, &d, err);
    if (rc == 0)
        rc = plan_weights(c, op, &d, err);
    return rc < 0 ? err_wrap(err, "node '%s' (%s)", op->name, op->type) : 0;
}

static int conv_forward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    const struct conv *v = op->state;
    return prim_run(v->forward, lane, err);
}

static int conv_backward(const struct tape_op *op, struct lane *lane, struct err *err)
{
    const struct conv *v = op->state;
    int rc = prim_run(lane->first ? v->first : v->more, lane, err);
    if (rc == 0 && !lane->first) {
        const struct slot *w = &lane->net->slots[v->weights];
        kernel_add(lane_at(lane, w->acc), lane_at(lane, v->product_weights), DTYPE_F32, w->acc_n);
        if (v->bias >= 0)
            kernel_add(lane_at(lane, lane->net->slots[v->bias].acc), lane_at(lane, v->product_bias),
                       DTYPE_F32, v->oc);
    }
    return rc == 0 && v->data ? prim_run(v->data, lane, err) : rc;
}

static const struct op_kind conv_kind = {
    .name = "convolution", .plan = plan_conv, .forward = conv_forward, .backward = conv_backward};

/* ---- from nodes ---- */

static int add_slot(struct compiler *c, int value, enum train_role role, int64_t n, float scale,
                    struct err *err)
{
    int p = compile_param(c, value, role, err);
    int i = p < 0 ? p : compile_slot(c, p, n, err);
    if (i < 0 || (scale == 1 && !c->net->slots[i].quantized))
        return i;
    int scaled = compile_buffer(c, HOME_SHARED, (size_t)n * sizeof(float), err);
    c->net->slots[i].scale = scale;
    c->net->slots[i].scaled = scaled;
    return scaled < 0 ? scaled : i;
}

static int add_slots(struct compiler *c, const struct node *node, struct conv *v, int64_t n,
                     float scale, float bias_scale, struct err *err)
{
    v->weights = add_slot(c, node->inputs[1], TRAIN_WEIGHT, n, scale, err);
    v->bias = -1;
    if (v->weights < 0 || node->n_inputs < 3 || node->inputs[2] < 0)
        return v->weights < 0 ? v->weights : 0;
    v->bias = add_slot(c, node->inputs[2], TRAIN_BIAS, v->oc, bias_scale, err);
    return v->bias < 0 ? v->bias : 0;
}

static int finish_conv(struct compiler *c, const struct node *node, const struct conv *state,
                       struct err *err)
{
    int in = compile_val_of(c, node->inputs[0]);
    int out = compile_val(c, node->outputs[0], c->net->vals[in].dtype, -1, err);
    if (out < 0)
        return out;
    struct tape_op *op = compile_op(c, &conv_kind, node, 1, &in, 1, &out, sizeof(*state), err);
    if (!op)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(op->state, state, sizeof(*state));
    c->net->vals[out].needs_grad = true;
    int rc = make_forward(c, op, err);
    return rc < 0 ? err_wrap(err, "node '%s' (%s)", node->name, op_name(node->op)) : 0;
}

int make_conv(struct compiler *c, const struct node *node, struct err *err)
{
    struct conv v = {0};
    const struct tensor *w = compile_constant(c, node, 1);
    if (!w || (node->n_inputs > 2 && node->inputs[2] >= 0 && !compile_constant(c, node, 2)))
        return compile_refuse(node, err, "its weights are not constant");
    int rc = graph_window(c->g, node, &v.w, err);
    if (rc < 0)
        return rc;
    for (int d = 0; d < v.w.rank; d++)
        if (v.w.pad_begin[d] < 0 || v.w.pad_end[d] < 0 || v.w.out[d] <= 0)
            return compile_refuse(node, err, "negative pads");
    rc = make_conv3(c, node, &v.w, err);
    if (rc != 0)
        return rc < 0 ? rc : 0;
    int64_t n = shape_elements(&w->shape), g = v.w.group;
    v.group = g;
    v.oc = w->shape.dim[0];
    v.ic = w->shape.dim[1] * g;
    if (n <= 0)
        return compile_refuse(node, err, "no weights");
    if (g > 1) {
        v.strides[v.rank] = n / g;
        v.dims[v.rank++] = g;
    }
    v.strides[v.rank] = n / v.oc;
    v.dims[v.rank++] = v.oc / g;
    int64_t stride = n / v.oc;
    for (int d = 1; d < w->shape.rank; d++) {
        stride /= w->shape.dim[d];
        v.strides[v.rank] = stride;
        v.dims[v.rank++] = w->shape.dim[d];
    }
    rc = add_slots(c, node, &v, n, 1, 1, err);
    return rc < 0 ? rc : finish_conv(c, node, &v, err);
}

/* Weights [ic, oc / g, k...] with the groups in ic; oneDNN has ([g,] oc / g, ic / g, k...). */
int make_conv_transpose(struct compiler *c, const struct node *node, struct err *err)
{
    struct conv v = {.transposed = true};
    const struct tensor *w = compile_constant(c, node, 1);
    if (!w || (node->n_inputs > 2 && node->inputs[2] >= 0 && !compile_constant(c, node, 2)))
        return compile_refuse(node, err, "its weights are not constant");
    int rc = graph_window(c->g, node, &v.w, err);
    if (rc < 0)
        return rc;
    const int64_t n = shape_elements(&w->shape), g = v.w.group;
    for (int d = 0; d < v.w.rank; d++)
        if (v.w.pad_begin[d] < 0 || v.w.out[d] <= 0 || v.w.in[d] <= 0)
            return compile_refuse(node, err, "negative pads");
    if (n <= 0)
        return compile_refuse(node, err, "no weights");
    v.group = g;
    v.ic = w->shape.dim[0];
    v.oc = w->shape.dim[1] * g;
    const int64_t kernel = n / v.ic / w->shape.dim[1];
    if (g > 1) {
        v.strides[v.rank] = n / g;
        v.dims[v.rank++] = g;
    }
    v.strides[v.rank] = kernel;
    v.dims[v.rank++] = v.oc / g;
    v.strides[v.rank] = w->shape.dim[1] * kernel;
    v.dims[v.rank++] = v.ic / g;
    int64_t stride = kernel;
    for (int d = 2; d < w->shape.rank; d++) {
        stride /= w->shape.dim[d];
        v.strides[v.rank] = stride;
        v.dims[v.rank++] = w->shape.dim[d];
    }
    rc = add_slots(c, node, &v, n, 1, 1, err);
    return rc < 0 ? rc : finish_conv(c, node, &v, err);
}

int make_gemm(struct compiler *c, const struct node *node, struct err *err)
{
    struct conv v = {.product = true, .rank = 2};
    const struct tensor *w = compile_constant(c, node, 1);
    bool bias = node->n_inputs > 2 && node->inputs[2] >= 0;
    if (!w || (bias && !compile_constant(c, node, 2)))
        return compile_refuse(node, err, "its second factor is not constant");
    bool turned = node->op == OP_GEMM && node_int(node, "transB", 0) != 0;
    if (w->shape.rank != 2 || c->net->vals[compile_val_of(c, node->inputs[0])].shape.rank != 2 ||
        (node->op == OP_GEMM && node_int(node, "transA", 0) != 0))
        return compile_refuse(node, err, "only [N, K] by [K, M] is possible");
    v.oc = w->shape.dim[!turned];
    v.ic = w->shape.dim[turned];
    if (v.oc <= 0 || v.ic <= 0)
        return compile_refuse(node, err, "no weights");
    if (bias && shape_elements(&compile_constant(c, node, 2)->shape) != v.oc)
        return compile_refuse(node, err, "the bias is not one value for each column");
    v.dims[0] = v.oc;
    v.dims[1] = v.ic;
    v.strides[0] = turned ? v.ic : 1;
    v.strides[1] = turned ? 1 : v.oc;
    float alpha = node->op == OP_GEMM ? node_float(node, "alpha", 1) : 1;
    float beta = node->op == OP_GEMM ? node_float(node, "beta", 1) : 1;
    int rc = add_slots(c, node, &v, v.oc * v.ic, alpha, beta, err);
    return rc < 0 ? rc : finish_conv(c, node, &v, err);
}
