#include "shared/nn/step_post.h"

#include <math.h>
#include <string.h>

void attributes_release(struct attributes *a)
{
    dnnl_attrp(&a->attr);
    for (int i = 0; i < a->n_owned; i++)
        dnnl_mdp(&a->owned[i]);
}

/* How the layer's numbers are scaled on their way: everything behind the accumulator can be
 * multiplied by 1 / output scale beforehand when no operation behind it minds. */
struct scaling {
    bool narrow;    /* 8-bit arithmetic */
    bool folded;    /* 1 / output scale is in weights' scales, bias and posts */
    float by;       /* that factor; 1 */
    bool quantized; /* the output is 8-bit */
    float scale;    /* of the output */
    int32_t zero;
};

static bool scales_freely(const struct post *post)
{
    return post->kind != POST_UNARY || post->alg == dnnl_eltwise_relu ||
           post->alg == dnnl_eltwise_clip;
}

static struct scaling scaling_of(const struct maker *m, const struct layer *layer, bool narrow)
{
    const struct wire *out = &m->plan->wires[layer->out[0]];
    struct scaling s = {.narrow = narrow, .by = 1, .scale = 1};
    if (!out->quantized)
        return s;
    s.quantized = true;
    s.scale = out->scale;
    s.zero = out->zero;
    s.folded = narrow;
    for (int i = 0; i < layer->n_posts; i++) {
        const struct post *post = &layer->posts[i];
        if (!scales_freely(post))
            s.folded = false;
        /* other additions than the one in place are binary operations on the operand as it is */
        if (post->kind == POST_ADD && post->operand != layer->sum)
            s.folded = false;
    }
    if (s.folded)
        s.by = 1 / s.scale;
    return s;
}

static const_dnnl_memory_desc_t own(struct attributes *a, dnnl_memory_desc_t md)
{
    if (md)
        a->owned[a->n_owned++] = md;
    return md;
}

static const_dnnl_memory_desc_t vector_md(struct attributes *a, int64_t n, enum dtype dtype)
{
    const struct shape shape = shape_make(1, &n);
    return own(a, layout_md(LAYOUT_PLAIN, &shape, dtype));
}

static int add_binding(struct attributes *a, int name, const_dnnl_memory_desc_t md, int arg,
                       const void *data, struct err *err)
{
    if (!md || (arg < 0 && !data))
        return err_oom(err, "a step");
    a->bindings[a->n_bindings++] = (struct binding){name, md, arg, data};
    return 0;
}

/* ---- post-operations ---- */

/* [1, C, 1, ...] in plain f32, as binary operations want it. */
static const_dnnl_memory_desc_t channel_md(const struct maker *m, const struct layer *layer,
                                           struct attributes *a)
{
    struct shape shape = m->plan->wires[layer->out[0]].shape;
    for (int d = 0; d < shape.rank; d++)
        if (d != 1)
            shape.dim[d] = 1;
    return own(a, layout_md(LAYOUT_PLAIN, &shape, DTYPE_F32));
}

static const float *scaled(struct maker *m, const float *values, int64_t n, float by)
{
    if (by == 1)
        return values;
    float *to = arena_alloc(m->arena, (size_t)n, sizeof(*to));
    for (int64_t i = 0; to && i < n; i++)
        to[i] = values[i] * by;
    return to;
}

/* Saturation to 8 bits does what a last relu or clip would do. */
static bool saturation_does(const struct layer *layer, const struct wire *out,
                            const struct scaling *s, int i)
{
    const struct post *post = &layer->posts[i];
    if (!s->quantized || i + 1 != layer->n_posts || post->kind != POST_UNARY)
        return false;
    int least = out->dtype == DTYPE_U8 ? 0 : -128, most = least + 255;
    float low = (float)(least - s->zero) * s->scale, high = (float)(most - s->zero) * s->scale;
    if (post->alg == dnnl_eltwise_relu)
        return post->alpha == 0 && low >= 0;
    return post->alg == dnnl_eltwise_clip && post->alpha <= low && post->beta >= high;
}

static int add_sum(struct maker *m, const struct layer *layer, const struct post *post, int at,
                   const struct scaling *s, enum layout out, dnnl_post_ops_t ops,
                   struct attributes *a, struct err *err)
{
    const struct operand *operand = &layer->in[post->operand];
    const struct wire *wire = &m->plan->wires[operand->wire];
    bool narrow = wire->quantized && operand->dtype == wire->dtype;
    if (layer->sum == post->operand) {
        float scale = (narrow ? wire->scale : 1) * s->by;
        return dnnl_check(dnnl_post_ops_append_sum(ops, scale, narrow ? wire->zero : 0,
                                                   dnnl_type(operand->dtype)),
                          err, "sum");
    }
    if (narrow) /* binary operations know no scales */
        return -ERR_UNIMPLEMENTED;
    const_dnnl_memory_desc_t md = own(a, layout_md(out, &wire->shape, operand->dtype));
    int rc = !md ? -ERR_UNIMPLEMENTED
                 : dnnl_check(dnnl_post_ops_append_binary(ops, dnnl_binary_add, md), err, "add");
    return rc < 0 ? rc
                  : add_binding(a, DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_SRC_1, md,
                                post->operand, NULL, err);
}

static int add_post(struct maker *m, const struct layer *layer, int i, const struct scaling *s,
                    enum layout out, dnnl_post_ops_t ops, struct attributes *a, struct err *err)
{
    const struct post *post = &layer->posts[i];
    const struct wire *wire = &m->plan->wires[layer->out[0]];
    int at = dnnl_post_ops_len(ops);
    if (saturation_does(layer, wire, s, i))
        return 0;
    if (post->kind == POST_ADD)
        return add_sum(m, layer, post, at, s, out, ops, a, err);
    if (post->kind == POST_UNARY) {
        bool clip = post->alg == dnnl_eltwise_clip;
        float by = clip ? s->by : 1;
        return dnnl_check(
            dnnl_post_ops_append_eltwise(ops, post->alg, post->alpha * by, post->beta * by), err,
            "activation");
    }
    bool scale = post->kind == POST_SCALE;
    const_dnnl_memory_desc_t md = channel_md(m, layer, a);
    if (post->kind == POST_SLOPE) {
        int slope = dnnl_check(dnnl_post_ops_append_prelu(ops, 1 << 1), err, "slopes");
        return slope < 0 ? slope
                         : add_binding(a, DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_WEIGHTS, md,
                                       -1, post->values, err);
    }
    const float *values = scaled(m, post->values, wire->shape.dim[1], scale ? 1 : s->by);
    int rc =
        dnnl_check(dnnl_post_ops_append_binary(ops, scale ? dnnl_binary_mul : dnnl_binary_add, md),
                   err, "scale");
    return rc < 0 ? rc
                  : add_binding(a, DNNL_ARG_ATTR_MULTIPLE_POST_OP(at) | DNNL_ARG_SRC_1, md, -1,
                                values, err);
}

static int add_posts(struct maker *m, const struct layer *layer, const struct scaling *s,
                     enum layout out, struct attributes *a, struct err *err)
{
    _cleanup_(dnnl_postp) dnnl_post_ops_t ops = NULL;
    int rc = dnnl_check(dnnl_post_ops_create(&ops), err, "post-operations");
    for (int i = 0; rc == 0 && i < layer->n_posts; i++)
        rc = add_post(m, layer, i, s, out, ops, a, err);
    if (rc == 0)
        rc = dnnl_check(dnnl_primitive_attr_set_post_ops(a->attr, ops), err, "post-operations");
    return rc;
}

/* ---- scales and zero points ---- */

static int add_scale(struct maker *m, struct attributes *a, int arg, int mask, int64_t n,
                     const float *values, struct err *err)
{
    const_dnnl_memory_desc_t md = vector_md(a, n, DTYPE_F32);
    const float *kept = arena_memdup(m->arena, values, (size_t)n * sizeof(*values));
    int rc = dnnl_check(dnnl_primitive_attr_set_scales_mask(a->attr, arg, mask), err, "scales");
    return rc < 0 ? rc : add_binding(a, DNNL_ARG_ATTR_SCALES | arg, md, -1, kept, err);
}

static int add_zero(struct maker *m, struct attributes *a, int arg, int32_t zero, struct err *err)
{
    if (zero == 0)
        return 0;
    const_dnnl_memory_desc_t md = vector_md(a, 1, DTYPE_S32);
    const int32_t *kept = arena_memdup(m->arena, &zero, sizeof(zero));
    int rc =
        dnnl_check(dnnl_primitive_attr_set_zero_points_mask(a->attr, arg, 0), err, "zero points");
    return rc < 0 ? rc : add_binding(a, DNNL_ARG_ATTR_ZERO_POINTS | arg, md, -1, kept, err);
}

static int add_quantization(struct maker *m, const struct layer *layer, const float *weight_scales,
                            int64_t channels, int mask, const struct scaling *s,
                            struct attributes *a, struct err *err)
{
    const struct wire *src = &m->plan->wires[layer->in[0].wire];
    const float *scales = scaled(m, weight_scales, channels, src->scale * s->by);
    if (!scales)
        return err_oom(err, "scales");
    int rc = add_scale(m, a, DNNL_ARG_WEIGHTS, mask, channels, scales, err);
    if (rc == 0)
        rc = add_zero(m, a, DNNL_ARG_SRC, src->zero, err);
    if (rc == 0 && s->quantized && !s->folded)
        rc = add_scale(m, a, DNNL_ARG_DST, 0, 1, &s->scale, err);
    if (rc == 0 && s->quantized)
        rc = add_zero(m, a, DNNL_ARG_DST, s->zero, err);
    return rc;
}

int attributes_make(struct maker *m, const struct layer *layer, const float *bias,
                    const float *weight_scales, int64_t channels, int mask, enum layout out,
                    struct attributes *ret, struct err *err)
{
    struct scaling s = scaling_of(m, layer, weight_scales != NULL);
    if (s.quantized && !s.narrow)
        return -ERR_UNIMPLEMENTED;
    int rc = dnnl_check(dnnl_primitive_attr_create(&ret->attr), err, "attributes");
    if (rc == 0)
        rc = dnnl_check(
            dnnl_primitive_attr_set_scratchpad_mode(ret->attr, dnnl_scratchpad_mode_user), err,
            "attributes");
    if (rc == 0 && weight_scales)
        rc = add_quantization(m, layer, weight_scales, channels, mask, &s, ret, err);
    if (rc == 0)
        rc = add_posts(m, layer, &s, out, ret, err);
    if (rc < 0 || !bias)
        return rc;
    ret->bias = scaled(m, bias, channels, s.by);
    return ret->bias ? 0 : err_oom(err, "a bias");
}
