/* Products with constant matrices on oneDNN: as matmul, and as inner product. */
#include "shared/nn/step_post.h"

struct gemm_pd {
    struct attributes attributes;
    dnnl_memory_desc_t src, weights, bias, dst, plain_weights;
    dnnl_primitive_desc_t pd;
};

static void gemm_pd_release(struct gemm_pd *p)
{
    dnnl_pdp(&p->pd);
    dnnl_mdp(&p->src);
    dnnl_mdp(&p->weights);
    dnnl_mdp(&p->bias);
    dnnl_mdp(&p->dst);
    dnnl_mdp(&p->plain_weights);
    attributes_release(&p->attributes);
}

/* Leading dimensions are rows like any other: the tensors are seen as matrices. A residual operand
 * is described in its own shape by the attributes, so then the output must be a matrix already. */
static int make_descriptors(struct maker *m, const struct layer *layer, bool inner,
                            struct gemm_pd *ret, struct err *err)
{
    const struct gemm *g = &layer->gemm;
    const struct wire *dst = &m->plan->wires[layer->out[0]];
    if (dst->shape.rank != 2 && layer->n_in > 1)
        return -ERR_UNIMPLEMENTED;
    const struct shape src = shape_make(2, (int64_t[]){g->m, g->k});
    const struct shape out = shape_make(2, (int64_t[]){g->m, g->n});
    enum dtype weights = layer->precision == PRECISION_BF16 ? DTYPE_BF16 : g->weights->dtype;
    /* [k, n] for matmul, [n, k] for inner product; in memory as the graph has it */
    dnnl_dims_t dims = {inner ? g->n : g->k, inner ? g->k : g->n};
    int64_t of_k = g->trans_b ? 1 : g->n, of_n = g->trans_b ? g->k : 1;
    dnnl_dims_t strides = {inner ? of_n : of_k, inner ? of_k : of_n};
    dnnl_dims_t vector = {g->n}, row = {1, g->n};
    ret->src = layout_md(LAYOUT_PLAIN, &src, layer->in[0].dtype);
    ret->dst = layout_md(LAYOUT_PLAIN, &out, dst->dtype);
    if (!ret->src || !ret->dst)
        return -ERR_UNIMPLEMENTED;
    int rc = dnnl_check(dnnl_memory_desc_create_with_tag(&ret->weights, 2, dims, dnnl_type(weights),
                                                         dnnl_format_tag_any),
                        err, "weights");
    if (rc == 0)
        rc = dnnl_check(dnnl_memory_desc_create_with_strides(&ret->plain_weights, 2, dims,
                                                             dnnl_type(g->weights->dtype), strides),
                        err, "weights");
    if (rc == 0 && g->bias)
        rc = dnnl_check(
            inner ? dnnl_memory_desc_create_with_tag(&ret->bias, 1, vector, dnnl_f32, dnnl_a)
                  : dnnl_memory_desc_create_with_tag(&ret->bias, 2, row, dnnl_f32, dnnl_ab),
            err, "bias");
    return rc;
}

static int gemm_describe(struct maker *m, const struct layer *layer, bool inner,
                         struct gemm_pd *ret, struct err *err)
{
    const struct gemm *g = &layer->gemm;
    int rc = make_descriptors(m, layer, inner, ret, err);
    if (rc == 0) /* scales go with dimension 0 of [n, k], dimension 1 of [k, n] */
        rc = attributes_make(m, layer, g->bias, g->weight_scales, g->n, inner ? 1 : 2, LAYOUT_PLAIN,
                             &ret->attributes, err);
    if (rc < 0)
        return rc;
    dnnl_status_t status =
        inner ? dnnl_inner_product_forward_primitive_desc_create(
                    &ret->pd, m->engine, dnnl_forward_inference, ret->src, ret->weights, ret->bias,
                    ret->dst, ret->attributes.attr)
              : dnnl_matmul_primitive_desc_create(&ret->pd, m->engine, ret->src, ret->weights,
                                                  ret->bias, ret->dst, ret->attributes.attr);
    return status == dnnl_success ? 0 : -ERR_UNIMPLEMENTED;
}

static int list_gemm(struct maker *m, const struct layer *layer, bool inner,
                     const struct implementation *by, struct choices *choices, struct err *err)
{
    _cleanup_(gemm_pd_release) struct gemm_pd p = {0};
    int rc = gemm_describe(m, layer, inner, &p, err);
    if (rc < 0)
        return rc == -ERR_UNIMPLEMENTED ? 0 : rc;
    return dnnl_list_implementations(p.pd, by, LAYOUT_PLAIN, LAYOUT_PLAIN, choices, err);
}

static int make_gemm(struct maker *m, const struct layer *layer, bool inner,
                     const struct choice *choice, struct step *step, struct err *err)
{
    _cleanup_(gemm_pd_release) struct gemm_pd p = {0};
    int rc = gemm_describe(m, layer, inner, &p, err);
    if (rc == 0)
        rc = dnnl_find_implementation(p.pd, choice->name, err);
    if (rc < 0)
        return rc;
    const_dnnl_memory_desc_t packed = dnnl_primitive_desc_query_md(p.pd, dnnl_query_weights_md, 0);
    const void *weights = dnnl_pack(m, p.plain_weights, layer->gemm.weights->data, packed, err);
    if (!weights)
        return -ERR_RESOURCE_EXHAUSTED;
    struct binding b[MAX_BINDINGS] = {{DNNL_ARG_SRC, p.src, 0, NULL},
                                      {DNNL_ARG_DST, p.dst, layer->n_in, NULL},
                                      {DNNL_ARG_WEIGHTS, packed, -1, weights}};
    int n = 3;
    if (p.attributes.bias) {
        const float *bias =
            arena_memdup(m->arena, p.attributes.bias, (size_t)layer->gemm.n * sizeof(float));
        if (!bias)
            return err_oom(err, "a bias");
        b[n++] = (struct binding){DNNL_ARG_BIAS, p.bias, -1, bias};
    }
    for (int i = 0; i < p.attributes.n_bindings; i++)
        b[n++] = p.attributes.bindings[i];
    return dnnl_step_build(m, step, p.pd, b, n, err);
}

static int list_matmul(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                       struct choices *choices, struct err *err)
{
    (void)in, (void)out;
    return list_gemm(m, layer, false, &onednn_matmul, choices, err);
}

static int make_matmul(struct maker *m, const struct layer *layer, const struct choice *choice,
                       struct step *step, struct err *err)
{
    return make_gemm(m, layer, false, choice, step, err);
}

static int list_inner(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    (void)in, (void)out;
    /* zero points are matmul's alone */
    const struct wire *src = &m->plan->wires[layer->in[0].wire];
    if (layer->gemm.weight_scales && src->zero != 0)
        return 0;
    return list_gemm(m, layer, true, &onednn_inner_product, choices, err);
}

static int make_inner(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    return make_gemm(m, layer, true, choice, step, err);
}

const struct implementation onednn_matmul = {
    .name = "matmul", .list = list_matmul, .make = make_matmul};
const struct implementation onednn_inner_product = {
    .name = "inner_product", .list = list_inner, .make = make_inner};
