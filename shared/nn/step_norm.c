/* Softmax and LRN on oneDNN. */
#include "shared/nn/step_dnnl.h"

struct norm_pd {
    dnnl_memory_desc_t md;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd;
};

static void norm_pd_release(struct norm_pd *p)
{
    dnnl_pdp(&p->pd);
    dnnl_attrp(&p->attr);
    dnnl_mdp(&p->md);
}

static int norm_describe(struct maker *m, const struct layer *layer, enum layout layout,
                         struct norm_pd *ret, struct err *err)
{
    const struct wire *src = &m->plan->wires[layer->in[0].wire];
    const struct softmax *s = &layer->softmax;
    struct shape shape = src->shape;
    bool softmax = layer->kind == LAYER_SOFTMAX;
    if (softmax)
        shape = shape_make(s->inner == 1 ? 2 : 3, (int64_t[]){s->outer, s->n, s->inner});
    ret->md = layout_md(layout, &shape, DTYPE_F32);
    if (!ret->md)
        return -ERR_UNIMPLEMENTED;
    int rc = dnnl_check(dnnl_primitive_attr_create(&ret->attr), err, "normalisation");
    if (rc < 0)
        return rc;
    dnnl_primitive_attr_set_scratchpad_mode(ret->attr, dnnl_scratchpad_mode_user);
    dnnl_status_t status = softmax
                               ? dnnl_softmax_forward_primitive_desc_create(
                                     &ret->pd, m->engine, dnnl_forward_inference,
                                     dnnl_softmax_accurate, ret->md, ret->md, 1, ret->attr)
                               : dnnl_lrn_forward_primitive_desc_create(
                                     &ret->pd, m->engine, dnnl_forward_inference,
                                     dnnl_lrn_across_channels, ret->md, ret->md, layer->lrn.size,
                                     layer->lrn.alpha, layer->lrn.beta, layer->lrn.bias, ret->attr);
    return status == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
}

static int list_norm(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    _cleanup_(norm_pd_release) struct norm_pd p = {0};
    int rc = norm_describe(m, layer, in, &p, err);
    if (rc < 0)
        return rc == -ERR_UNIMPLEMENTED ? 0 : rc;
    return dnnl_list_implementations(p.pd, &onednn_norm, in, out, choices, err);
}

static int make_norm(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
    _cleanup_(norm_pd_release) struct norm_pd p = {0};
    int rc = norm_describe(m, layer, choice->in, &p, err);
    if (rc == 0)
        rc = dnnl_find_implementation(p.pd, choice->name, err);
    if (rc < 0)
        return rc;
    const struct binding b[] = {{DNNL_ARG_SRC, p.md, 0, NULL}, {DNNL_ARG_DST, p.md, 1, NULL}};
    return dnnl_step_build(m, step, p.pd, b, 2, err);
}

const struct implementation onednn_norm = {.name = "onednn", .list = list_norm, .make = make_norm};
