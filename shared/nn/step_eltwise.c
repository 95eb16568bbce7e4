/* Activations, arithmetic of two tensors and resizing on oneDNN. */
#include <string.h>

#include "shared/nn/step_post.h"

/* ---- activations ---- */

struct unary_pd {
    dnnl_memory_desc_t src, dst;
    dnnl_primitive_attr_t attr;
    dnnl_primitive_desc_t pd;
};

static void unary_pd_release(struct unary_pd *u)
{
    dnnl_pdp(&u->pd);
    dnnl_attrp(&u->attr);
    dnnl_mdp(&u->src);
    dnnl_mdp(&u->dst);
}

static int unary_describe(struct maker *m, const struct layer *layer, enum layout layout,
                          struct unary_pd *ret, struct err *err)
{
    const struct wire *src = &m->plan->wires[layer->in[0].wire];
    const struct wire *dst = &m->plan->wires[layer->out[0]];
    const struct post *post = &layer->posts[0];
    /* A scalar has one element, a tensor of rank above 5 is one row. */
    struct shape from = src->shape, to = dst->shape;
    if (from.rank > 5)
        from = to = shape_make(1, (int64_t[]){shape_elements(&src->shape)});
    ret->src = layout_md(layout, &from, layer->in[0].dtype);
    ret->dst = layout_md(layout, &to, dst->dtype);
    if (!ret->src || !ret->dst)
        return -ERR_UNIMPLEMENTED;
    int rc = dnnl_check(dnnl_primitive_attr_create(&ret->attr), err, "activation");
    if (rc < 0)
        return rc;
    dnnl_primitive_attr_set_scratchpad_mode(ret->attr, dnnl_scratchpad_mode_user);
    if (layer->kind == LAYER_RESIZE) {
        dnnl_status_t resize = dnnl_resampling_forward_primitive_desc_create(
            &ret->pd, m->engine, dnnl_forward_inference, layer->alg, NULL, ret->src, ret->dst,
            ret->attr);
        return resize == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
    }
    dnnl_status_t status = dnnl_eltwise_forward_primitive_desc_create(
        &ret->pd, m->engine, dnnl_forward_inference, post->alg, ret->src, ret->dst, post->alpha,
        post->beta, ret->attr);
    return status == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
}

/* oneDNN's generated code takes log(1 + exp(x)) as it stands and is 1e-6 off: for x = -10 more
 * than 1 %. Its reference is exact there: moves on to it; false where there is none. Fused behind
 * other operators the 1e-6 remain. */
static bool only_exact(dnnl_primitive_desc_t pd, const struct layer *layer)
{
    if (layer->kind != LAYER_UNARY || layer->posts[0].alg != dnnl_eltwise_soft_relu)
        return true;
    for (;;) {
        const char *name = "";
        dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &name);
        if (strncmp(name, "ref", 3) == 0)
            return true;
        if (dnnl_primitive_desc_next_impl(pd) != dnnl_success)
            return false;
    }
}

static int list_unary(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    _cleanup_(unary_pd_release) struct unary_pd u = {0};
    int rc = unary_describe(m, layer, in, &u, err);
    if (rc < 0)
        return rc == -ERR_UNIMPLEMENTED ? 0 : rc;
    if (!only_exact(u.pd, layer))
        return 0;
    return dnnl_list_implementations(u.pd, &onednn_unary, in, out, choices, err);
}

static int make_unary(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    _cleanup_(unary_pd_release) struct unary_pd u = {0};
    int rc = unary_describe(m, layer, choice->in, &u, err);
    if (rc == 0)
        rc = dnnl_find_implementation(u.pd, choice->name, err);
    if (rc < 0)
        return rc;
    const struct binding b[] = {{DNNL_ARG_SRC, u.src, 0, NULL}, {DNNL_ARG_DST, u.dst, 1, NULL}};
    return dnnl_step_build(m, step, u.pd, b, 2, err);
}

const struct implementation onednn_unary = {
    .name = "onednn", .list = list_unary, .make = make_unary};

/* ---- arithmetic ---- */

struct binary_pd {
    struct attributes attributes;
    dnnl_memory_desc_t a, b, dst;
    dnnl_primitive_desc_t pd;
};

static void binary_pd_release(struct binary_pd *p)
{
    dnnl_pdp(&p->pd);
    dnnl_mdp(&p->a);
    dnnl_mdp(&p->b);
    dnnl_mdp(&p->dst);
    attributes_release(&p->attributes);
}

static int binary_describe(struct maker *m, const struct layer *layer, enum layout layout,
                           struct binary_pd *ret, struct err *err)
{
    const struct wire *a = &m->plan->wires[layer->in[0].wire];
    const struct wire *b = &m->plan->wires[layer->in[1].wire];
    const struct wire *dst = &m->plan->wires[layer->out[0]];
    ret->a = layout_md(layout, &a->shape, layer->in[0].dtype);
    ret->b = layout_md(layout_canonical(layout, &b->shape), &b->shape, layer->in[1].dtype);
    ret->dst = layout_md(layout, &dst->shape, dst->dtype);
    if (!ret->a || !ret->b || !ret->dst)
        return -ERR_UNIMPLEMENTED;
    int rc = attributes_make(m, layer, NULL, NULL, 0, 0, layout, &ret->attributes, err);
    if (rc < 0)
        return rc;
    dnnl_status_t status =
        layer->kind == LAYER_PRELU
            ? dnnl_prelu_forward_primitive_desc_create(&ret->pd, m->engine, dnnl_forward_inference,
                                                       ret->a, ret->b, ret->dst,
                                                       ret->attributes.attr)
            : dnnl_binary_primitive_desc_create(&ret->pd, m->engine, layer->alg, ret->a, ret->b,
                                                ret->dst, ret->attributes.attr);
    return status == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
}

static int list_binary(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                       struct choices *choices, struct err *err)
{
    _cleanup_(binary_pd_release) struct binary_pd p = {0};
    int rc = binary_describe(m, layer, in, &p, err);
    if (rc < 0)
        return rc == -ERR_UNIMPLEMENTED ? 0 : rc;
    return dnnl_list_implementations(p.pd, &onednn_binary, in, out, choices, err);
}

static int make_binary(struct maker *m, const struct layer *layer, const struct choice *choice,
                       struct step *step, struct err *err)
{
    _cleanup_(binary_pd_release) struct binary_pd p = {0};
    int rc = binary_describe(m, layer, choice->in, &p, err);
    if (rc == 0)
        rc = dnnl_find_implementation(p.pd, choice->name, err);
    if (rc < 0)
        return rc;
    int second = layer->kind == LAYER_PRELU ? DNNL_ARG_WEIGHTS : DNNL_ARG_SRC_1;
    struct binding b[MAX_BINDINGS] = {
        {DNNL_ARG_SRC_0, p.a, 0, NULL}, {second, p.b, 1, NULL}, {DNNL_ARG_DST, p.dst, 2, NULL}};
    int n = 3;
    for (int i = 0; i < p.attributes.n_bindings; i++)
        b[n++] = p.attributes.bindings[i];
    return dnnl_step_build(m, step, p.pd, b, n, err);
}

const struct implementation onednn_binary = {
    .name = "onednn", .list = list_binary, .make = make_binary};
