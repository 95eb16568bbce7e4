/* Convolutions on oneDNN. */
#include <string.h>

#include "shared/nn/step_post.h"

/* A convolution's descriptors in given layouts. */
struct conv_pd {
    struct attributes attributes;
    dnnl_memory_desc_t src, weights, bias, dst, plain_weights;
    dnnl_primitive_desc_t pd;
};

static void conv_pd_release(struct conv_pd *c)
{
    dnnl_pdp(&c->pd);
    dnnl_mdp(&c->src);
    dnnl_mdp(&c->weights);
    dnnl_mdp(&c->bias);
    dnnl_mdp(&c->dst);
    dnnl_mdp(&c->plain_weights);
    attributes_release(&c->attributes);
}

/* Dimensions and row-major strides of ONNX's weights, as oneDNN names them: ([g,] o, i, k...).
 * ConvTranspose stores (i, o/g, k...) with the groups in i. */
static int weights_dims(const struct conv *c, dnnl_dims_t dims, dnnl_dims_t strides)
{
    int64_t g = c->w.group, o = c->oc / g, i = c->ic / g, kernel = 1;
    for (int d = 0; d < c->w.rank; d++)
        kernel *= c->w.kernel[d];
    int n = 0;
    if (g > 1) {
        dims[n] = g;
        strides[n++] = o * i * kernel;
    }
    dims[n] = o;
    strides[n++] = c->transposed ? kernel : i * kernel;
    dims[n] = i;
    strides[n++] = c->transposed ? o * kernel : kernel;
    for (int d = 0; d < c->w.rank; d++) {
        kernel /= c->w.kernel[d];
        dims[n] = c->w.kernel[d];
        strides[n++] = kernel;
    }
    return n;
}

static int make_descriptors(struct maker *m, const struct layer *layer, enum layout in,
                            enum layout out, struct conv_pd *ret, struct err *err)
{
    const struct conv *c = &layer->conv;
    const struct wire *src = &m->plan->wires[layer->in[0].wire];
    const struct wire *dst = &m->plan->wires[layer->out[0]];
    enum dtype weights = layer->precision == PRECISION_BF16 ? DTYPE_BF16 : c->weights->dtype;
    dnnl_dims_t dims, strides, channels = {c->oc};
    int rank = weights_dims(c, dims, strides);
    ret->src = layout_md(in, &src->shape, layer->in[0].dtype);
    ret->dst = layout_md(out, &dst->shape, dst->dtype);
    if (!ret->src || !ret->dst)
        return -ERR_UNIMPLEMENTED;
    int rc = dnnl_check(dnnl_memory_desc_create_with_tag(&ret->weights, rank, dims,
                                                         dnnl_type(weights), dnnl_format_tag_any),
                        err, "weights");
    if (rc == 0)
        rc = dnnl_check(dnnl_memory_desc_create_with_strides(&ret->plain_weights, rank, dims,
                                                             dnnl_type(c->weights->dtype), strides),
                        err, "weights");
    if (rc == 0 && c->bias)
        rc = dnnl_check(dnnl_memory_desc_create_with_tag(&ret->bias, 1, channels, dnnl_f32, dnnl_a),
                        err, "bias");
    return rc;
}

/* -ERR_UNIMPLEMENTED without a message: oneDNN has nothing for it. */
static int conv_describe(struct maker *m, const struct layer *layer, enum layout in,
                         enum layout out, struct conv_pd *ret, struct err *err)
{
    const struct conv *c = &layer->conv;
    int rc = make_descriptors(m, layer, in, out, ret, err);
    if (rc == 0)
        rc = attributes_make(m, layer, c->bias, c->weight_scales, c->oc, c->w.group > 1 ? 3 : 1,
                             out, &ret->attributes, err);
    if (rc < 0)
        return rc;
    dnnl_dims_t strides, dilations, before, after;
    for (int d = 0; d < c->w.rank; d++) {
        int64_t reach = (c->w.kernel[d] - 1) * c->w.dilation[d] + 1;
        strides[d] = c->w.stride[d];
        dilations[d] = c->w.dilation[d] - 1;
        before[d] = c->w.pad_begin[d];
        after[d] = c->transposed
                       ? (c->w.in[d] - 1) * c->w.stride[d] + reach - c->w.out[d] - before[d]
                       : c->w.pad_end[d];
    }
    dnnl_status_t status =
        c->transposed ? dnnl_deconvolution_forward_primitive_desc_create(
                            &ret->pd, m->engine, dnnl_forward_inference, dnnl_deconvolution_direct,
                            ret->src, ret->weights, ret->bias, ret->dst, strides, dilations, before,
                            after, ret->attributes.attr)
                      : dnnl_convolution_forward_primitive_desc_create(
                            &ret->pd, m->engine, dnnl_forward_inference, dnnl_convolution_direct,
                            ret->src, ret->weights, ret->bias, ret->dst, strides, dilations, before,
                            after, ret->attributes.attr);
    return status == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
}

static int list_conv(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    _cleanup_(conv_pd_release) struct conv_pd c = {0};
    int rc = conv_describe(m, layer, in, out, &c, err);
    if (rc < 0)
        return rc == -ERR_UNIMPLEMENTED ? 0 : rc;
    return dnnl_list_implementations(c.pd, &onednn_conv, in, out, choices, err);
}

static int make_conv(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
    _cleanup_(conv_pd_release) struct conv_pd c = {0};
    int rc = conv_describe(m, layer, choice->in, choice->out, &c, err);
    if (rc == 0)
        rc = dnnl_find_implementation(c.pd, choice->name, err);
    if (rc < 0)
        return rc;
    const_dnnl_memory_desc_t packed = dnnl_primitive_desc_query_md(c.pd, dnnl_query_weights_md, 0);
    const void *weights = dnnl_pack(m, c.plain_weights, layer->conv.weights->data, packed, err);
    if (!weights)
        return -ERR_RESOURCE_EXHAUSTED;
    struct binding b[MAX_BINDINGS] = {{DNNL_ARG_SRC, c.src, 0, NULL},
                                      {DNNL_ARG_DST, c.dst, layer->n_in, NULL},
                                      {DNNL_ARG_WEIGHTS, packed, -1, weights}};
    int n = 3;
    if (c.attributes.bias) {
        const float *bias =
            arena_memdup(m->arena, c.attributes.bias, (size_t)layer->conv.oc * sizeof(float));
        if (!bias)
            return err_oom(err, "a bias");
        b[n++] = (struct binding){DNNL_ARG_BIAS, c.bias, -1, bias};
    }
    for (int i = 0; i < c.attributes.n_bindings; i++)
        b[n++] = c.attributes.bindings[i];
    return dnnl_step_build(m, step, c.pd, b, n, err);
}

const struct implementation onednn_conv = {.name = "onednn", .list = list_conv, .make = make_conv};
