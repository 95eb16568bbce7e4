/* What can be fused behind a main operation: activations, residual additions, quantization. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "shared/nn/lower_priv.h"

const float *lower_floats(struct lower *l, int value, int64_t *ret_n)
{
    const struct tensor *t = plan_constant(l->plan, value);
    if (!t)
        return NULL;
    int64_t n = shape_elements(&t->shape);
    if (ret_n)
        *ret_n = n;
    if (t->dtype == DTYPE_F32)
        return t->data;
    float *copy = arena_alloc(l->plan->arena, (size_t)n, sizeof(*copy));
    for (int64_t i = 0; copy && i < n; i++)
        copy[i] = (float)tensor_get_f64(t, i);
    return copy;
}

/* ---- activations ---- */

/* A bound of Clip: an attribute up to opset 10, an optional constant input since. */
static bool clip_bound(struct lower *l, const struct node *node, int input, const char *attr,
                       float otherwise, float *ret)
{
    if (node_attr(node, attr)) {
        *ret = node_float(node, attr, otherwise);
        return true;
    }
    if (node->n_inputs <= input || node->inputs[input] < 0) {
        *ret = otherwise;
        return true;
    }
    int64_t n = 0;
    const float *bound = lower_floats(l, node->inputs[input], &n);
    if (!bound || n != 1)
        return false;
    *ret = bound[0];
    return true;
}

int lower_activation(struct lower *l, const struct node *node, struct post *ret)
{
    *ret = (struct post){.kind = POST_UNARY};
    switch (node->op) {
    case OP_ABS:
        ret->alg = dnnl_eltwise_abs;
        return 1;
    case OP_RELU:
        ret->alg = dnnl_eltwise_relu;
        return 1;
    case OP_LEAKY_RELU:
        ret->alg = dnnl_eltwise_relu;
        ret->alpha = node_float(node, "alpha", 0.01f);
        return 1;
    case OP_ELU:
        ret->alg = dnnl_eltwise_elu;
        ret->alpha = node_float(node, "alpha", 1.0f);
        return 1;
    case OP_SIGMOID:
        ret->alg = dnnl_eltwise_logistic;
        return 1;
    case OP_SOFTPLUS:
        ret->alg = dnnl_eltwise_soft_relu;
        ret->alpha = 1;
        return 1;
    case OP_TANH:
        ret->alg = dnnl_eltwise_tanh;
        return 1;
    case OP_HARD_SIGMOID:
        ret->alg = dnnl_eltwise_hardsigmoid;
        ret->alpha = node_float(node, "alpha", 0.2f);
        ret->beta = node_float(node, "beta", 0.5f);
        return 1;
    case OP_HARD_SWISH:
        ret->alg = dnnl_eltwise_hardswish;
        ret->alpha = 1.0f / 6;
        ret->beta = 0.5f;
        return 1;
    case OP_CLIP:
        ret->alg = dnnl_eltwise_clip;
        return clip_bound(l, node, 1, "min", -INFINITY, &ret->alpha) &&
               clip_bound(l, node, 2, "max", INFINITY, &ret->beta) && ret->alpha <= ret->beta;
    default:
        return 0;
    }
}

/* ---- quantization parameters ---- */

bool lower_quantization(struct lower *l, const struct node *node, float *ret_scale,
                        int32_t *ret_zero, enum dtype *ret_dtype)
{
    int64_t n = 0;
    const float *scale = lower_floats(l, node->inputs[1], &n);
    if (!scale || n != 1 || !(scale[0] > 0))
        return false;
    enum dtype dtype =
        l->g->values[node->op == OP_QUANTIZE_LINEAR ? node->outputs[0] : node->inputs[0]]->dtype;
    if (dtype != DTYPE_U8 && dtype != DTYPE_S8)
        return false;
    *ret_zero = 0;
    if (node->n_inputs > 2 && node->inputs[2] >= 0) {
        const struct tensor *zero = plan_constant(l->plan, node->inputs[2]);
        if (!zero || shape_elements(&zero->shape) != 1)
            return false;
        *ret_zero = (int32_t)tensor_get_s64(zero, 0);
    }
    *ret_scale = scale[0];
    *ret_dtype = dtype;
    return true;
}

/* ---- the chain ---- */

static void name_fused(struct chain *c, const char *text)
{
    size_t n = strlen(c->fused);
    snprintf(c->fused + n, sizeof(c->fused) - n, "%s%s", n ? "+" : "", text);
}

static struct post *add_post(struct chain *c)
{
    struct post *post = &c->posts[c->n_posts++];
    *post = (struct post){0};
    return post;
}

/* Values for each channel of a tensor [N, C, ...] from a constant of one element, or of C elements
 * along dimension 1; NULL when it is anything else. */
static const float *channel_values(struct lower *l, int constant, const struct shape *shape)
{
    int64_t n = 0;
    const float *from = lower_floats(l, constant, &n);
    if (!from || shape->rank < 2)
        return NULL;
    const struct shape *s = &plan_constant(l->plan, constant)->shape;
    int64_t channels = shape->dim[1];
    int back = shape->rank - 1 - 1; /* dimension 1, counted from the end */
    if (s->rank > shape->rank || (n != 1 && n != channels))
        return NULL;
    if (n != 1 && (s->rank < back + 1 || s->dim[s->rank - 1 - back] != channels))
        return NULL;
    float *to = arena_alloc(l->plan->arena, (size_t)channels, sizeof(*to));
    for (int64_t c = 0; to && c < channels; c++)
        to[c] = from[n == 1 ? 0 : c];
    return to;
}

static bool same_shape(const struct lower *l, int a, int b)
{
    struct shape x = lower_shape(l, a), y = lower_shape(l, b);
    return shape_equal(&x, &y);
}

/* An operation with a constant for each channel. */
static bool follow_channels(struct lower *l, const struct node *node, int value, struct chain *c)
{
    bool first = node->inputs[0] == value;
    int other = node->inputs[first];
    struct shape shape = lower_shape(l, value);
    if (!plan_constant(l->plan, other) || !same_shape(l, value, node->outputs[0]) ||
        c->n_posts + 1 >= MAX_POSTS)
        return false;
    if ((node->op == OP_SUB || node->op == OP_DIV) && !first)
        return false;
    const float *constant = channel_values(l, other, &shape);
    float *values =
        constant ? arena_memdup(l->plan->arena, constant, (size_t)shape.dim[1] * sizeof(*values))
                 : NULL;
    if (!values)
        return false;
    bool scales = node->op == OP_MUL || node->op == OP_DIV;
    for (int64_t i = 0; i < shape.dim[1]; i++)
        values[i] = node->op == OP_SUB   ? -values[i]
                    : node->op == OP_DIV ? 1 / values[i]
                                         : values[i];
    struct post *post = add_post(c);
    post->kind = scales ? POST_SCALE : POST_SHIFT;
    post->values = values;
    name_fused(c, scales ? "scale" : "shift");
    return true;
}

/* PRelu with a slope for each channel. */
static bool follow_prelu(struct lower *l, const struct node *node, int value, struct chain *c)
{
    struct shape shape = lower_shape(l, value);
    const float *slopes =
        node->op == OP_PRELU && node->inputs[0] == value && c->n_posts < MAX_POSTS - 1
            ? channel_values(l, node->inputs[1], &shape)
            : NULL;
    if (!slopes)
        return false;
    struct post *post = add_post(c);
    post->kind = POST_SLOPE;
    post->values = slopes;
    name_fused(c, "prelu");
    return true;
}

/* BatchNormalization (inference): scale and shift. */
static bool follow_norm(struct lower *l, const struct node *node, int value, struct chain *c)
{
    const float *scale, *shift;
    if (node->op != OP_BATCH_NORMALIZATION || node->inputs[0] != value ||
        c->n_posts + 2 >= MAX_POSTS || !lower_norm_values(l, node, &scale, &shift))
        return false;
    *add_post(c) = (struct post){.kind = POST_SCALE, .values = scale};
    *add_post(c) = (struct post){.kind = POST_SHIFT, .values = shift};
    name_fused(c, "scale");
    name_fused(c, "shift");
    return true;
}

/* Addition of another tensor of the same shape. */
static bool follow_add(struct lower *l, const struct node *node, int value, struct chain *c)
{
    int other = node->inputs[node->inputs[0] == value];
    const struct value *v = l->g->values[other];
    if (node->op != OP_ADD || other < 0 || other == value || !same_shape(l, value, other) ||
        v->dtype != DTYPE_F32 || c->n_posts >= MAX_POSTS - 1)
        return false;
    bool ready = l->plan->views[other].wire >= 0 || plan_constant(l->plan, other);
    if (!ready && l->depth >= MAX_ON_DEMAND)
        return false;
    struct post *post = add_post(c);
    post->kind = POST_ADD;
    post->operand = c->n_added;
    c->added[c->n_added++] = other;
    name_fused(c, "sum");
    return true;
}

static bool follow_unary(struct lower *l, const struct node *node, struct chain *c)
{
    static const struct {
        dnnl_alg_kind_t alg;
        const char *name;
    } names[] = {{dnnl_eltwise_abs, "abs"},
                 {dnnl_eltwise_elu, "elu"},
                 {dnnl_eltwise_logistic, "sigmoid"},
                 {dnnl_eltwise_tanh, "tanh"},
                 {dnnl_eltwise_hardsigmoid, "hardsigmoid"},
                 {dnnl_eltwise_hardswish, "hardswish"},
                 {dnnl_eltwise_soft_relu, "softplus"},
                 {dnnl_eltwise_clip, "clip"}};
    struct post post;
    if (c->n_posts >= MAX_POSTS - 1 || !lower_activation(l, node, &post))
        return false;
    c->posts[c->n_posts++] = post;
    if (post.alg == dnnl_eltwise_relu)
        name_fused(c, post.alpha == 0 ? "relu" : "leakyrelu");
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (names[i].alg == post.alg)
            name_fused(c, names[i].name);
    return true;
}

/* x * sigmoid(x) and x * hardsigmoid(x): two readers, of which one reads the other's output. */
static bool follow_gate(struct lower *l, int value, struct chain *c)
{
    const struct uses *u = &l->uses;
    if (u->is_output[value] || uses_count(u, value) != 2 || c->n_posts >= MAX_POSTS - 1)
        return false;
    for (int k = 0; k < 2; k++) {
        int gate = u->node_of[u->first[value] + k], mul = u->node_of[u->first[value] + 1 - k];
        if (gate < 0 || mul < 0 || l->taken[gate] || l->taken[mul])
            continue;
        const struct node *g = l->g->nodes[gate], *m = l->g->nodes[mul];
        bool sigmoid = g->op == OP_SIGMOID, hard = g->op == OP_HARD_SIGMOID;
        if ((!sigmoid && !hard) || m->op != OP_MUL || uses_sole(u, g->outputs[0]) != mul)
            continue;
        struct post *post = add_post(c);
        post->kind = POST_UNARY;
        post->alg = sigmoid ? dnnl_eltwise_swish : dnnl_eltwise_hardswish;
        post->alpha = sigmoid ? 1.0f : node_float(g, "alpha", 0.2f);
        post->beta = sigmoid ? 0.0f : node_float(g, "beta", 0.5f);
        name_fused(c, sigmoid ? "swish" : "hardswish");
        l->taken[gate] = l->taken[mul] = true;
        c->value = m->outputs[0];
        return true;
    }
    return false;
}

/* Every reader quantizes in the same way. */
static bool follow_quantize(struct lower *l, struct chain *c)
{
    const struct uses *u = &l->uses;
    if (u->is_output[c->value] || uses_count(u, c->value) == 0)
        return false;
    for (int k = u->first[c->value]; k < u->first[c->value + 1]; k++) {
        float scale = 0;
        int32_t zero = 0;
        enum dtype dtype = DTYPE_NONE;
        int reader = u->node_of[k];
        const struct node *node = reader < 0 ? NULL : l->g->nodes[reader];
        if (!node || l->taken[reader] || node->op != OP_QUANTIZE_LINEAR ||
            node->inputs[0] != c->value || !lower_quantization(l, node, &scale, &zero, &dtype))
            return false;
        if (k > u->first[c->value] && (scale != c->scale || zero != c->zero || dtype != c->dtype))
            return false;
        c->scale = scale;
        c->zero = zero;
        c->dtype = dtype;
    }
    for (int k = u->first[c->value]; k < u->first[c->value + 1]; k++)
        l->taken[u->node_of[k]] = true;
    c->quantized = true;
    return true;
}

static bool one_output(const struct lower *l, const struct node *node)
{
    for (int i = 1; i < node->n_outputs; i++)
        if (lower_is_used(l, node->outputs[i]))
            return false;
    return true;
}

int chain_follow(struct lower *l, int value, unsigned allows, struct chain *ret, struct err *err)
{
    (void)err;
    *ret = (struct chain){.value = value};
    if (l->m->options->no_fusion)
        return 0;
    for (;;) {
        int reader = uses_sole(&l->uses, ret->value);
        if (reader < 0) {
            if ((allows & CHAIN_GATE) && follow_gate(l, ret->value, ret))
                continue;
            break;
        }
        const struct node *node = l->g->nodes[reader];
        if (l->taken[reader] || !one_output(l, node))
            break;
        bool binary =
            node->op == OP_ADD || node->op == OP_SUB || node->op == OP_MUL || node->op == OP_DIV;
        bool fused =
            ((allows & CHAIN_UNARY) && follow_unary(l, node, ret)) ||
            (binary && (allows & CHAIN_CHANNELS) && follow_channels(l, node, ret->value, ret)) ||
            ((allows & CHAIN_CHANNELS) && follow_prelu(l, node, ret->value, ret)) ||
            ((allows & CHAIN_CHANNELS) && follow_norm(l, node, ret->value, ret)) ||
            (binary && (allows & CHAIN_ADD) && (ret->n_added == 0 || !(allows & CHAIN_QUANTIZE)) &&
             follow_add(l, node, ret->value, ret));
        if (!fused)
            break;
        l->taken[reader] = true;
        ret->value = node->outputs[0];
    }
    if ((allows & CHAIN_QUANTIZE) && follow_quantize(l, ret))
        name_fused(ret, "quantize");
    return 0;
}

int chain_finish(struct lower *l, struct layer *layer, int first, struct chain *chain,
                 struct err *err)
{
    struct plan *plan = l->plan;
    layer->n_posts = chain->n_posts;
    memcpy(layer->posts, chain->posts, sizeof(layer->posts));
    for (int i = 0; i < layer->n_posts; i++)
        if (layer->posts[i].kind == POST_ADD)
            layer->posts[i].operand += first;
    layer->fused = arena_strdup(plan->arena, chain->fused);
    if (!layer->fused)
        return err_oom(err, "a layer");
    int w = lower_output(l, layer, 0, chain->value, err);
    if (w < 0 || !chain->quantized)
        return w;
    struct wire *wire = &plan->wires[w];
    wire->quantized = true;
    wire->scale = chain->scale;
    wire->zero = chain->zero;
    wire->dtype = chain->dtype;
    wire->real_value = -1;
    const struct uses *u = &l->uses;
    plan->views[chain->value] = (struct view){.wire = -1}; /* never to be had in full */
    for (int k = u->first[chain->value]; k < u->first[chain->value + 1]; k++) {
        int q = l->g->nodes[u->node_of[k]]->outputs[0];
        plan->views[q] = (struct view){.wire = w};
        wire->raw_value = q;
        wire->name = l->g->values[q]->name;
    }
    return w;
}
