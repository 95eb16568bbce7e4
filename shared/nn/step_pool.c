/* Pools on oneDNN. */
#include "shared/nn/step_dnnl.h"

struct pool_pd {
    dnnl_memory_desc_t src, dst;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd;
};

static void pool_pd_release(struct pool_pd *p)
{
    dnnl_pdp(&p->pd);
    dnnl_attrp(&p->attr);
    dnnl_mdp(&p->src);
    dnnl_mdp(&p->dst);
}

static int pool_describe(struct maker *m, const struct layer *layer, enum layout layout,
                         struct pool_pd *ret, struct err *err)
{
    const struct window *w = &layer->pool.w;
    const struct wire *src = &m->plan->wires[layer->in[0].wire];
    const struct wire *dst = &m->plan->wires[layer->out[0]];
    dnnl_dims_t kernel, strides, dilations, before, after;
    for (int d = 0; d < w->rank; d++) {
        kernel[d] = w->kernel[d];
        strides[d] = w->stride[d];
        before[d] = w->pad_begin[d];
        int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + 1;
        dilations[d] = w->dilation[d] - 1;
        /* just so far that the last window fits: ceil_mode may need more than the stated padding */
        after[d] = (w->out[d] - 1) * w->stride[d] + reach - w->in[d] - w->pad_begin[d];
    }
    ret->src = layout_md(layout, &src->shape, layer->in[0].dtype);
    ret->dst = layout_md(layout, &dst->shape, dst->dtype);
    if (!ret->src || !ret->dst)
        return -ERR_UNIMPLEMENTED;
    int rc = dnnl_check(dnnl_primitive_attr_create(&ret->attr), err, "pool");
    if (rc < 0)
        return rc;
    dnnl_primitive_attr_set_scratchpad_mode(ret->attr, dnnl_scratchpad_mode_user);
    dnnl_status_t status = dnnl_pooling_forward_primitive_desc_create(
        &ret->pd, m->engine, dnnl_forward_inference, layer->pool.alg, ret->src, ret->dst, strides,
        kernel, dilations, before, after, ret->attr);
    return status == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
}

static int list_pool(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    _cleanup_(pool_pd_release) struct pool_pd p = {0};
    int rc = pool_describe(m, layer, in, &p, err);
    if (rc < 0)
        return rc == -ERR_UNIMPLEMENTED ? 0 : rc;
    return dnnl_list_implementations(p.pd, &onednn_pool, in, out, choices, err);
}

static int make_pool(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
    _cleanup_(pool_pd_release) struct pool_pd p = {0};
    int rc = pool_describe(m, layer, choice->in, &p, err);
    if (rc == 0)
        rc = dnnl_find_implementation(p.pd, choice->name, err);
    if (rc < 0)
        return rc;
    const struct binding b[] = {{DNNL_ARG_SRC, p.src, 0, NULL}, {DNNL_ARG_DST, p.dst, 1, NULL}};
    return dnnl_step_build(m, step, p.pd, b, 2, err);
}

const struct implementation onednn_pool = {.name = "onednn", .list = list_pool, .make = make_pool};
