/* Activations, arithmetic of two tensors, BatchNormalization, pools, Softmax, LRN. */
#include <math.h>
#include <string.h>

#include "shared/graph/eval.h"
#include "shared/nn/lower_priv.h"

static bool is_float(const struct lower *l, int value)
{
    return l->g->values[value]->dtype == DTYPE_F32;
}

/* ---- tables of 256: anything that maps one 8-bit number to another ---- */

/* The numbers that 0..255 (as bytes) stand for, sent through the nodes. */
static int table_values(struct lower *l, int n_nodes, const int *nodes, const struct wire *in,
                        struct tensor **ret, struct err *err)
{
    const struct shape shape = shape_make(1, (int64_t[]){256});
    _cleanup_(tensor_freep) struct tensor *x = tensor_new(DTYPE_F32, &shape, err);
    if (!x)
        return -ERR_RESOURCE_EXHAUSTED;
    for (int i = 0; i < 256; i++) {
        int q = in->dtype == DTYPE_U8 ? i : (int8_t)i;
        ((float *)x->data)[i] = (float)(q - in->zero) * in->scale;
    }
    for (int k = 0; k < n_nodes; k++) {
        const struct node *node = l->g->nodes[nodes[k]];
        const struct tensor *args[4] = {x};
        struct tensor *out[1] = {NULL};
        for (int i = 1; i < node->n_inputs && i < 4; i++)
            args[i] = plan_constant(l->plan, node->inputs[i]);
        int rc = eval_node(l->g, node, args, out, err);
        if (rc < 0)
            return rc;
        tensor_free(x);
        x = out[0];
    }
    *ret = TAKE_PTR(x);
    return 0;
}

static uint8_t to_byte(float x, const struct wire *out)
{
    float q = rintf(x / out->scale) + (float)out->zero;
    float low = out->dtype == DTYPE_U8 ? 0 : -128, high = low + 255;
    q = q < low ? low : q > high ? high : q; /* NaN fails both and becomes 0 below */
    return out->dtype == DTYPE_U8 ? (uint8_t)q : (uint8_t)(int8_t)q;
}

/* A table layer from an operand's wire to an output wire that is set up already. */
int lower_table(struct lower *l, struct layer *layer, int n_nodes, const int *nodes,
                struct err *err)
{
    const struct wire *in = &l->plan->wires[layer->in[0].wire];
    const struct wire *out = &l->plan->wires[layer->out[0]];
    _cleanup_(tensor_freep) struct tensor *x = NULL;
    int rc = table_values(l, n_nodes, nodes, in, &x, err);
    if (rc < 0)
        return rc;
    layer->precision = PRECISION_INT8;
    layer->table = arena_alloc(l->plan->arena, 256, 1);
    if (!layer->table)
        return err_oom(err, "a table");
    for (int i = 0; i < 256; i++)
        layer->table[i] = to_byte(((const float *)x->data)[i], out);
    return 0;
}

/* An activation of an 8-bit value whose readers all quantize again. */
static int narrow_unary(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    int nodes[1 + MAX_POSTS] = {index}, n = 1;
    struct chain chain;
    /* The activations that follow are evaluated as nodes, too: note them before they are taken. */
    for (int v = node->outputs[0]; n <= MAX_POSTS; n++) {
        struct post post;
        int reader = uses_sole(&l->uses, v);
        if (reader < 0 || l->taken[reader] || !lower_activation(l, l->g->nodes[reader], &post))
            break;
        nodes[n] = reader;
        v = l->g->nodes[reader]->outputs[0];
    }
    /* Relu alone keeps the scale: max(q, zero). */
    int rc = chain_follow(l, node->outputs[0], CHAIN_UNARY | CHAIN_QUANTIZE, &chain, err);
    bool plain_relu = node->op == OP_RELU && !chain.quantized && chain.n_posts == 0;
    if (rc < 0)
        return rc;
    if (!chain.quantized && !plain_relu) {
        for (int i = 1; i <= chain.n_posts; i++)
            l->taken[nodes[i]] = false;
        return 0;
    }
    struct layer *layer = lower_new_layer(l, LAYER_TABLE, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    rc = lower_narrow_operand(l, node->inputs[0], &layer->in[0], err);
    if (rc == 0)
        rc = chain_finish(l, layer, 1, &chain, err);
    if (rc < 0)
        return rc;
    layer->n_posts = 0; /* the table has them */
    if (plain_relu)
        lower_keep_scale(l, layer, node->outputs[0]);
    rc = lower_table(l, layer, 1 + chain.n_posts, nodes, err);
    return rc < 0 ? rc : 1;
}

void lower_keep_scale(struct lower *l, struct layer *layer, int value)
{
    struct wire *wires = l->plan->wires;
    const struct wire *in = &wires[layer->in[0].wire];
    for (int i = 0; i < layer->n_out; i++) {
        struct wire *out = &wires[layer->out[i]];
        out->quantized = true;
        out->scale = in->scale;
        out->zero = in->zero;
        out->dtype = in->dtype;
    }
    l->plan->views[value] = (struct view){.wire = layer->out[0], .real = true};
    wires[layer->out[0]].real_value = value;
    wires[layer->out[0]].raw_value = -1;
}

/* Operand and output of a layer that passes on bf16 where its input lies there so. */
static int lower_half(struct lower *l, struct layer *layer, const struct node *node,
                      struct err *err)
{
    bool half = lower_is_bf16(l, node->inputs[0]) && lower_bf16_wanted(l, node->outputs[0]);
    int rc =
        lower_float_operand(l, node->inputs[0], half ? DTYPE_BF16 : DTYPE_F32, &layer->in[0], err);
    int w = rc < 0 ? rc : lower_output(l, layer, 0, node->outputs[0], err);
    if (w < 0)
        return w;
    if (half) {
        layer->precision = PRECISION_BF16;
        l->plan->wires[w].dtype = DTYPE_BF16;
    }
    return 1;
}

/* ---- activations ---- */

int lower_unary(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct post post;
    if (!is_float(l, node->inputs[0]) || !lower_activation(l, node, &post))
        return 0;
    int rc = lower_value(l, node->inputs[0], err);
    if (rc == 0 && lower_is_narrow(l, node->inputs[0]) && !l->m->options->no_fusion)
        rc = narrow_unary(l, index, err);
    if (rc != 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_UNARY, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->posts[0] = post;
    layer->n_posts = 1;
    return lower_half(l, layer, node, err);
}

/* ---- arithmetic ---- */

/* The operand as a tensor of the given rank, ones in front; another shape of the same bytes. */
static int ranked_operand(struct lower *l, const struct node *node, int value, int rank,
                          struct operand *ret, struct err *err)
{
    int rc = lower_operand(l, value, ret, err);
    struct shape shape = lower_shape(l, value);
    if (rc < 0 || shape.rank == rank)
        return rc;
    struct shape to = {.rank = rank};
    for (int d = 0; d < rank; d++)
        to.dim[d] = d < rank - shape.rank ? 1 : shape.dim[d - (rank - shape.rank)];
    int w = lower_new_wire(l, l->g->values[value]->name, &to, ret->dtype, err);
    if (w < 0)
        return w;
    const struct tensor *constant = plan_constant(l->plan, value);
    if (constant) {
        struct tensor *same = arena_memdup(l->plan->arena, constant, sizeof(*constant));
        if (!same)
            return err_oom(err, "a constant");
        same->shape = to;
        l->plan->wires[w].constant = same;
    } else {
        struct layer *alias = lower_new_layer(l, LAYER_ALIAS, node, 1, 1, err);
        if (!alias)
            return -ERR_RESOURCE_EXHAUSTED;
        alias->in[0] = *ret;
        alias->out[0] = w;
        l->plan->wires[w].layer = (int)(alias - l->plan->layers);
    }
    l->plan->wires[w].stands_for = value;
    ret->wire = w;
    return 0;
}

static dnnl_alg_kind_t binary_alg(enum op op)
{
    return op == OP_ADD   ? dnnl_binary_add
           : op == OP_SUB ? dnnl_binary_sub
           : op == OP_MUL ? dnnl_binary_mul
                          : dnnl_binary_div;
}

static bool same_shapes(const struct lower *l, int a, int b)
{
    struct shape x = lower_shape(l, a), y = lower_shape(l, b);
    return shape_equal(&x, &y);
}

/* What the plain loop over two 8-bit operands can do behind the operation. */
static bool simple_posts(const struct chain *chain)
{
    for (int i = 0; i < chain->n_posts; i++)
        if (chain->posts[i].alg != dnnl_eltwise_relu && chain->posts[i].alg != dnnl_eltwise_clip)
            return false;
    return true;
}

static void give_back(struct lower *l, int value, const struct chain *chain)
{
    const struct uses *u = &l->uses;
    for (int v = value, i = 0; i < chain->n_posts; i++) {
        int reader = uses_sole(u, v);
        if (reader < 0)
            return;
        l->taken[reader] = false;
        v = l->g->nodes[reader]->outputs[0];
    }
}

/* Two operands of one shape, at least one of them 8-bit, and an 8-bit result. */
static int narrow_binary(struct lower *l, const struct node *node, struct err *err)
{
    int a = node->inputs[0], b = node->inputs[1];
    if (!same_shapes(l, a, b) || plan_constant(l->plan, a) || plan_constant(l->plan, b))
        return 0;
    struct chain chain;
    int rc = chain_follow(l, node->outputs[0], CHAIN_UNARY | CHAIN_QUANTIZE, &chain, err);
    if (rc < 0)
        return rc;
    if (!chain.quantized || !simple_posts(&chain)) {
        give_back(l, node->outputs[0], &chain);
        if (chain.quantized)
            for (int k = l->uses.first[chain.value]; k < l->uses.first[chain.value + 1]; k++)
                l->taken[l->uses.node_of[k]] = false;
        return 0;
    }
    struct layer *layer = lower_new_layer(l, LAYER_NARROW_BINARY, node, 2, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->alg = binary_alg(node->op);
    layer->precision = PRECISION_INT8;
    rc = lower_narrow_operand(l, a, &layer->in[0], err);
    if (rc == 0)
        rc = lower_narrow_operand(l, b, &layer->in[1], err);
    if (rc == 0)
        rc = chain_finish(l, layer, 2, &chain, err);
    return rc < 0 ? rc : 1;
}

int lower_binary(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    int a = node->inputs[0], b = node->inputs[1];
    if (!is_float(l, a) || !is_float(l, b))
        return 0;
    struct shape out = lower_shape(l, node->outputs[0]);
    struct shape first = lower_shape(l, a), second = lower_shape(l, b);
    if (!shape_equal(&first, &out)) { /* oneDNN broadcasts the second operand only */
        if ((node->op != OP_ADD && node->op != OP_MUL) || !shape_equal(&second, &out))
            return 0;
        int swap = a;
        a = b;
        b = swap;
    }
    if (out.rank == 0 || out.rank > 5)
        return 0;
    int rc = lower_value(l, a, err);
    if (rc == 0)
        rc = lower_value(l, b, err);
    if (rc == 0 && (lower_is_narrow(l, a) || lower_is_narrow(l, b)) && !l->m->options->no_fusion)
        rc = narrow_binary(l, node, err);
    if (rc != 0)
        return rc;
    struct operand operands[2];
    struct chain chain;
    rc = lower_operand(l, a, &operands[0], err);
    if (rc == 0)
        rc = ranked_operand(l, node, b, out.rank, &operands[1], err);
    if (rc == 0)
        rc = chain_follow(l, node->outputs[0], CHAIN_UNARY, &chain, err);
    if (rc < 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_BINARY, node, 2, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->alg = binary_alg(node->op);
    memcpy(layer->in, operands, sizeof(operands));
    /* two halves make a half */
    bool half = lower_is_bf16(l, a) && lower_is_bf16(l, b) && lower_bf16_wanted(l, chain.value);
    int w = chain_finish(l, layer, 2, &chain, err);
    if (w < 0 || !half)
        return w < 0 ? w : 1;
    layer->precision = PRECISION_BF16;
    layer->in[0].dtype = layer->in[1].dtype = l->plan->wires[w].dtype = DTYPE_BF16;
    return 1;
}

/* ---- BatchNormalization: x * scale + shift ---- */

bool lower_norm_values(struct lower *l, const struct node *node, const float **ret_scale,
                       const float **ret_shift)
{
    struct shape x = lower_shape(l, node->inputs[0]);
    if (x.rank < 2 || node->n_inputs != 5 || node_int(node, "training_mode", 0) != 0 ||
        node_int(node, "spatial", 1) != 1)
        return false;
    const float *p[4]; /* scale, bias, mean, variance */
    int64_t n = 0, channels = x.dim[1];
    for (int i = 0; i < 4; i++) {
        p[i] = lower_floats(l, node->inputs[1 + i], &n);
        if (!p[i] || n != channels)
            return false;
    }
    for (int i = 1; i < node->n_outputs; i++)
        if (lower_is_used(l, node->outputs[i]))
            return false;
    float *scale = arena_alloc(l->plan->arena, (size_t)channels, sizeof(*scale));
    float *shift = arena_alloc(l->plan->arena, (size_t)channels, sizeof(*shift));
    if (!scale || !shift)
        return false;
    float epsilon = node_float(node, "epsilon", 1e-5f);
    for (int64_t c = 0; c < channels; c++) {
        scale[c] = (float)((double)p[0][c] / sqrt((double)p[3][c] + (double)epsilon));
        shift[c] = p[1][c] - p[2][c] * scale[c];
    }
    *ret_scale = scale;
    *ret_shift = shift;
    return true;
}

/* A constant wire [1, C, 1, ...] for operands of this shape. */
static int channel_wire(struct lower *l, const char *name, const struct shape *like,
                        const float *values, struct err *err)
{
    struct shape vector = *like;
    for (int d = 0; d < vector.rank; d++)
        vector.dim[d] = d == 1 ? like->dim[1] : 1;
    struct tensor *t = tensor_in_arena(l->plan->arena, DTYPE_F32, &vector, err);
    if (!t)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(t->data, values, tensor_bytes(t));
    int w = lower_new_wire(l, name, &vector, DTYPE_F32, err);
    if (w >= 0)
        l->plan->wires[w].constant = t;
    return w;
}

int lower_norm(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct shape x = lower_shape(l, node->inputs[0]);
    const float *scale, *shift;
    if (!is_float(l, node->inputs[0]) || x.rank > 5 || !lower_norm_values(l, node, &scale, &shift))
        return 0;
    int w = channel_wire(l, node->name, &x, scale, err);
    if (w < 0)
        return w;
    struct operand operand;
    int rc = lower_operand(l, node->inputs[0], &operand, err);
    struct chain chain;
    if (rc == 0)
        rc = chain_follow(l, node->outputs[0], CHAIN_UNARY, &chain, err);
    if (rc < 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_BINARY, node, 2, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->alg = dnnl_binary_mul;
    layer->in[0] = operand;
    layer->in[1] = (struct operand){.wire = w, .dtype = DTYPE_F32};
    /* a chain leaves room for one more */
    memmove(&chain.posts[1], &chain.posts[0], (MAX_POSTS - 1) * sizeof(chain.posts[0]));
    chain.posts[0] = (struct post){.kind = POST_SHIFT, .values = shift};
    chain.n_posts++;
    rc = chain_finish(l, layer, 2, &chain, err);
    return rc < 0 ? rc : 1;
}

/* ---- PRelu ---- */

int lower_prelu(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    int x = node->inputs[0], slope = node->inputs[1];
    struct shape shape = lower_shape(l, x), slopes = lower_shape(l, slope);
    if (!is_float(l, x) || !is_float(l, slope) || shape.rank < 1 || shape.rank > 5 ||
        slopes.rank > shape.rank || !plan_constant(l->plan, slope))
        return 0;
    struct operand operands[2];
    int rc = lower_operand(l, x, &operands[0], err);
    if (rc == 0)
        rc = ranked_operand(l, node, slope, shape.rank, &operands[1], err);
    if (rc < 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_PRELU, node, 2, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    memcpy(layer->in, operands, sizeof(operands));
    rc = lower_output(l, layer, 0, node->outputs[0], err);
    return rc < 0 ? rc : 1;
}

/* ---- pools ---- */

static bool whole_window(const struct lower *l, const struct node *node, struct window *w)
{
    struct shape x = lower_shape(l, node->inputs[0]);
    if (x.rank < 3 || x.rank > 2 + MAX_SPATIAL)
        return false;
    *w = (struct window){.rank = x.rank - 2, .group = 1};
    for (int d = 0; d < w->rank; d++) {
        w->kernel[d] = w->in[d] = x.dim[d + 2];
        w->stride[d] = w->dilation[d] = w->out[d] = 1;
    }
    return true;
}

/* Whether some window reaches beyond the input. */
static bool has_padding(const struct window *w)
{
    for (int d = 0; d < w->rank; d++) {
        int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + 1;
        if (w->pad_begin[d] != 0 ||
            (w->out[d] - 1) * w->stride[d] - w->pad_begin[d] + reach > w->in[d])
            return true;
    }
    return false;
}

/* Windows that begin or end outside of what oneDNN takes: left to the reference. */
static bool plain_window(const struct window *w)
{
    for (int d = 0; d < w->rank; d++) {
        int64_t reach = (w->kernel[d] - 1) * w->dilation[d] + 1;
        int64_t last = (w->out[d] - 1) * w->stride[d] - w->pad_begin[d];
        if (w->pad_begin[d] < 0 || w->pad_begin[d] >= reach || last >= w->in[d] || w->out[d] <= 0 ||
            w->in[d] <= 0)
            return false;
    }
    return true;
}

static int narrow_pool(struct lower *l, const struct node *node, const struct pool *pool,
                       struct err *err)
{
    bool max = pool->alg == dnnl_pooling_max;
    bool whole = node->op == OP_GLOBAL_AVERAGE_POOL;
    struct chain chain = {.value = node->outputs[0]};
    int rc = max ? 0 : chain_follow(l, node->outputs[0], CHAIN_QUANTIZE, &chain, err);
    if (rc < 0)
        return rc;
    const struct wire *in = &l->plan->wires[l->plan->views[node->inputs[0]].wire];
    bool same = chain.quantized && chain.scale == in->scale && chain.zero == in->zero &&
                chain.dtype == in->dtype;
    bool shifts =
        pool->alg == dnnl_pooling_avg_include_padding && has_padding(&pool->w) && in->zero != 0;
    if (!max && !whole && (!same || shifts)) {
        for (int k = l->uses.first[chain.value];
             chain.quantized && k < l->uses.first[chain.value + 1]; k++)
            l->taken[l->uses.node_of[k]] = false;
        return 0;
    }
    struct layer *layer =
        lower_new_layer(l, whole ? LAYER_NARROW_MEAN : LAYER_POOL, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->pool = *pool;
    layer->precision = PRECISION_INT8;
    rc = lower_narrow_operand(l, node->inputs[0], &layer->in[0], err);
    if (rc == 0)
        rc = chain_finish(l, layer, 1, &chain, err);
    if (rc >= 0 && max)
        lower_keep_scale(l, layer, node->outputs[0]);
    return rc < 0 ? rc : 1;
}

int lower_pool(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct pool pool = {.alg = dnnl_pooling_max};
    bool whole = node->op == OP_GLOBAL_AVERAGE_POOL || node->op == OP_GLOBAL_MAX_POOL;
    if (!is_float(l, node->inputs[0]) ||
        (whole ? !whole_window(l, node, &pool.w) : graph_window(l->g, node, &pool.w, NULL) < 0) ||
        !plain_window(&pool.w))
        return 0;
    if (node->n_outputs > 1 && lower_is_used(l, node->outputs[1]))
        return 0; /* MaxPool's indices */
    if (node->op == OP_AVERAGE_POOL || node->op == OP_GLOBAL_AVERAGE_POOL)
        /* Counting the padding, oneDNN divides by the whole window, as the reference does, even
         * where ceil_mode lets it reach beyond the padding. */
        pool.alg = pool.w.count_include_pad ? dnnl_pooling_avg_include_padding
                                            : dnnl_pooling_avg_exclude_padding;
    int rc = lower_value(l, node->inputs[0], err);
    if (rc == 0 && lower_is_narrow(l, node->inputs[0]) && !l->m->options->no_fusion)
        rc = narrow_pool(l, node, &pool, err);
    if (rc != 0)
        return rc;
    struct layer *layer = lower_new_layer(l, LAYER_POOL, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    layer->pool = pool;
    return lower_half(l, layer, node, err);
}

/* ---- Softmax, LRN ---- */

static int one_to_one(struct lower *l, enum layer_kind kind, const struct node *node,
                      struct layer **ret, struct err *err)
{
    int rc = lower_value(l, node->inputs[0], err);
    if (rc < 0)
        return rc;
    struct layer *layer = lower_new_layer(l, kind, node, 1, 1, err);
    if (!layer)
        return -ERR_RESOURCE_EXHAUSTED;
    rc = lower_operand(l, node->inputs[0], &layer->in[0], err);
    if (rc == 0)
        rc = lower_output(l, layer, 0, node->outputs[0], err);
    *ret = layer;
    return rc < 0 ? rc : 1;
}

int lower_softmax(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct shape x = lower_shape(l, node->inputs[0]);
    int64_t axis = node_int(node, "axis", node->since >= 13 ? -1 : 1);
    if (axis < 0)
        axis += x.rank;
    if (!is_float(l, node->inputs[0]) || x.rank == 0 || axis < 0 || axis > x.rank)
        return 0;
    struct softmax s = {.outer = 1, .n = 1, .inner = 1};
    for (int d = 0; d < x.rank; d++) {
        if (d < axis)
            s.outer *= x.dim[d];
        else if (d == axis || node->since < 13) /* before opset 13: all that follows, as one */
            s.n *= x.dim[d];
        else
            s.inner *= x.dim[d];
    }
    struct layer *layer = NULL;
    int rc = one_to_one(l, LAYER_SOFTMAX, node, &layer, err);
    if (rc > 0)
        layer->softmax = s;
    return rc;
}

int lower_lrn(struct lower *l, int index, struct err *err)
{
    const struct node *node = l->g->nodes[index];
    struct shape x = lower_shape(l, node->inputs[0]);
    int64_t size = node_int(node, "size", 0);
    if (!is_float(l, node->inputs[0]) || x.rank != 4 || size < 1 || size % 2 == 0)
        return 0;
    struct layer *layer = NULL;
    int rc = one_to_one(l, LAYER_LRN, node, &layer, err);
    if (rc > 0)
        layer->lrn = (struct lrn){.size = size,
                                  .alpha = node_float(node, "alpha", 1e-4f),
                                  .beta = node_float(node, "beta", 0.75f),
                                  .bias = node_float(node, "bias", 1.0f)};
    return rc;
}
