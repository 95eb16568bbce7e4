/* The rewrite of a network to QDQ. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/infer.h"
#include "shared/nn/quantize_priv.h"

#define QDQ_OPSET 13 /* the first with a scale for each channel */
/* Biases keep to half of what 32 bits hold: the other half is the products'. */
#define BIAS_MOST 1073741824.0

struct rewrite {
    const struct graph *g;
    struct graph *q; /* the copy; indices of g's nodes and values hold in it, too */
    const struct quant_ranges *ranges;
    int bits; /* of weights, where a choice does not say */
    struct arena *scratch;
    bool *is_int8; /* [g->n_nodes] */
    int *bits_of;  /* [g->n_nodes] */
    struct quant_spread spread;
    struct quant_scale *scale;     /* [g->n_values], at roots */
    int *scale_value, *zero_value; /* [g->n_values], at roots: constants in q, 0: none yet */
};

/* ---- choices ---- */

static int apply_choice(struct rewrite *r, const struct quant_choice *choice, struct err *err)
{
    const int n = quant_find_node(r->g, choice->layer);
    if (n < 0)
        return err_set(err, ERR_NOT_FOUND, "no layer is named '%s'", choice->layer);
    struct quant_layer layer;
    if (!quant_layer_of(r->g, n, &layer))
        return choice->precision == PRECISION_FP32
                   ? 0
                   : err_set(err, ERR_INVALID_ARGUMENT, "layer '%s' (%s) cannot run in %s",
                             choice->layer, op_name(r->g->nodes[n]->op),
                             precision_name(choice->precision));
    const int bits = choice->weight_bits ? choice->weight_bits : r->bits;
    if (bits < QUANT_BITS_LEAST || bits > 8)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "layer '%s': weights of %d bits (%d to 8 are known)", choice->layer, bits,
                       QUANT_BITS_LEAST);
    r->is_int8[n] = choice->precision == PRECISION_INT8;
    r->bits_of[n] = bits;
    r->q->nodes[n]->hint = choice->precision == PRECISION_BF16 ? PRECISION_BF16 : PRECISION_AUTO;
    return 0;
}

/* ---- scales of activations ---- */

/* What comes out of Relu and Clip cannot leave their bounds, whatever was observed. */
static void bound(const struct graph *g, int value, double *low, double *high)
{
    const int producer = g->values[value]->producer;
    const struct node *node = producer >= 0 ? g->nodes[producer] : NULL;
    if (node && node->op == OP_RELU)
        *low = 0;
    if (!node || node->op != OP_CLIP)
        return;
    double floor = -INFINITY, ceiling = INFINITY;
    if (node->since < 11) {
        floor = (double)node_float(node, "min", -INFINITY);
        ceiling = (double)node_float(node, "max", INFINITY);
    }
    for (int i = 1; i <= 2 && node->since >= 11; i++) {
        const struct value *v = graph_input_of(g, node, i);
        if (v && v->constant && shape_elements(&v->constant->shape) == 1)
            *(i == 1 ? &floor : &ceiling) = tensor_get_f64(v->constant, 0);
    }
    *low = fmax(*low, fmin(floor, 0));
    *high = fmin(*high, fmax(ceiling, 0));
}

struct union_range {
    double low, high;
    bool any;
};

static void add_range(struct rewrite *r, int value, struct union_range *unions)
{
    const struct quant_range *range = quant_range_find(r->ranges, r->g->values[value]->name);
    if (!range)
        return;
    double low = fmin(range->low, 0), high = fmax(range->high, 0);
    bound(r->g, value, &low, &high);
    struct union_range *u = &unions[r->spread.root[value]];
    u->low = fmin(u->low, low);
    u->high = fmax(u->high, high);
    u->any = true;
}

/* Values of equal quantization take the union of the ranges of those that are computed; where none
 * of these was observed, of the others. */
static int choose_scales(struct rewrite *r, struct err *err)
{
    const struct graph *g = r->g;
    struct union_range *unions = arena_alloc(r->scratch, (size_t)g->n_values + 1, sizeof(*unions));
    if (!unions)
        return err_oom(err, "ranges");
    for (int v = 0; v < g->n_values; v++)
        if (r->spread.source[v])
            add_range(r, v, unions);
    for (int v = 0; v < g->n_values; v++)
        if (r->spread.quantized[v] && !r->spread.source[v] && !unions[r->spread.root[v]].any)
            add_range(r, v, unions);
    for (int v = 0; v < g->n_values; v++) {
        if (!r->spread.quantized[v])
            continue;
        const struct union_range *u = &unions[r->spread.root[v]];
        if (!u->any)
            return err_set(err, ERR_NOT_FOUND, "value '%s' has no range: it was not calibrated",
                           g->values[v]->name);
        r->scale[r->spread.root[v]] = quant_scale_of(u->low, u->high);
    }
    return 0;
}

/* ---- adding to the graph ---- */

static const char *named(struct rewrite *r, const char *name, const char *suffix)
{
    const char *text = arena_printf(r->scratch, "%s_%s", name, suffix);
    return text ? text : name; /* names are made unique anyway */
}

static int add_constant(struct rewrite *r, const char *name, const char *suffix, enum dtype dtype,
                        const struct shape *shape, const void *data, struct err *err)
{
    return graph_add_constant(r->q, named(r, name, suffix), dtype, shape, data, err);
}

/* QuantizeLinear or DequantizeLinear; returns its output. zero < 0: none. axis < 0: per tensor. */
static int add_qdq(struct rewrite *r, enum op op, const char *name, int x, int scale, int zero,
                   int axis, struct err *err)
{
    const int inputs[] = {x, scale, zero};
    const char *outputs[] = {
        named(r, name, op == OP_QUANTIZE_LINEAR ? "quantized" : "dequantized")};
    const int n = graph_add_node(r->q, -1, op, named(r, name, op_name(op)), zero < 0 ? 2 : 3,
                                 inputs, 1, outputs, err);
    if (n < 0)
        return n;
    int rc = axis < 0 ? 0 : graph_set_attr_int(r->q, r->q->nodes[n], "axis", axis, err);
    return rc < 0 ? rc : r->q->nodes[n]->outputs[0];
}

/* ---- activations ---- */

static int scale_constants(struct rewrite *r, int root, struct err *err)
{
    if (r->scale_value[root] > 0)
        return 0;
    const struct shape scalar = {0};
    const char *name = r->g->values[root]->name;
    const int scale =
        add_constant(r, name, "scale", DTYPE_F32, &scalar, &r->scale[root].scale, err);
    const int zero = scale < 0 ? scale
                               : add_constant(r, name, "zero_point", DTYPE_U8, &scalar,
                                              &r->scale[root].zero, err);
    if (zero < 0)
        return zero;
    r->scale_value[root] = scale;
    r->zero_value[root] = zero;
    return 0;
}

/* One pair of Q and DQ behind the value, read by all who read the value. */
static int quantize_value(struct rewrite *r, int v, struct err *err)
{
    const int root = r->spread.root[v];
    const char *name = r->g->values[v]->name;
    int rc = scale_constants(r, root, err);
    if (rc < 0)
        return rc;
    const int scale = r->scale_value[root], zero = r->zero_value[root];
    const int q = add_qdq(r, OP_QUANTIZE_LINEAR, name, v, scale, zero, -1, err);
    const int dq = q < 0 ? q : add_qdq(r, OP_DEQUANTIZE_LINEAR, name, q, scale, zero, -1, err);
    if (dq < 0)
        return dq;
    for (int n = 0; n < r->g->n_nodes; n++)
        for (int i = 0; i < r->q->nodes[n]->n_inputs; i++)
            if (r->q->nodes[n]->inputs[i] == v)
                r->q->nodes[n]->inputs[i] = dq;
    return 0;
}

/* ---- weights ---- */

struct weights {
    struct quant_layer layer;
    const char *name; /* of the node */
    double data_scale;
    float *w;      /* f32, Gemm's alpha folded in */
    float *bias;   /* [outputs], Gemm's beta folded in; NULL: none */
    float *scales; /* [channels] */
    float *least;  /* [channels] */
    int8_t *q;
};

static int read_weights(struct rewrite *r, struct weights *w, struct err *err)
{
    const struct graph *g = r->g;
    const struct node *node = g->nodes[w->layer.node];
    const struct tensor *from = g->values[w->layer.weights]->constant;
    const int64_t n = shape_elements(&from->shape);
    const bool gemm = node->op == OP_GEMM;
    const float alpha = gemm ? node_float(node, "alpha", 1.0f) : 1.0f;
    const float beta = gemm ? node_float(node, "beta", 1.0f) : 1.0f;
    const struct quant_layer *l = &w->layer;
    w->w = arena_alloc(r->scratch, (size_t)n, sizeof(float));
    w->q = arena_alloc(r->scratch, (size_t)n, sizeof(int8_t));
    w->scales = arena_alloc(r->scratch, (size_t)l->channels, sizeof(float));
    w->least = arena_alloc(r->scratch, (size_t)l->channels, sizeof(float));
    w->bias = arena_alloc(r->scratch, (size_t)l->outputs, sizeof(float));
    if (!w->w || !w->q || !w->scales || !w->least || !w->bias)
        return err_oom(err, "quantized weights");
    for (int64_t i = 0; i < n; i++) {
        w->w[i] = ((const float *)from->data)[i] * alpha;
        if (!isfinite(w->w[i]))
            return err_set(err, ERR_INVALID_ARGUMENT, "layer '%s': a weight is not finite",
                           w->name);
    }
    const struct tensor *bias = l->bias >= 0 ? g->values[l->bias]->constant : NULL;
    const int64_t n_bias = bias ? shape_elements(&bias->shape) : 0;
    for (int64_t i = 0; i < l->outputs && n_bias > 0; i++)
        w->bias[i] = ((const float *)bias->data)[n_bias == 1 ? 0 : i] * beta;
    return 0;
}

/* Scales must be large enough that the bias fits 32 bits and that products of scales are normal. */
static void least_scales(struct weights *w)
{
    for (int64_t c = 0; c < w->layer.channels; c++)
        w->least[c] = (float)fmax(1e-30 / w->data_scale, 1e-30);
    for (int64_t i = 0; i < w->layer.outputs; i++) {
        const int64_t c = i % w->layer.channels;
        const double least = fabs((double)w->bias[i]) / (w->data_scale * BIAS_MOST);
        if (least > (double)w->least[c])
            w->least[c] = (float)(least * 1.000001);
    }
}

static int add_weights(struct rewrite *r, const struct weights *w, struct err *err)
{
    const struct quant_layer *l = &w->layer;
    const struct tensor *from = r->g->values[l->weights]->constant;
    const char *name = named(r, w->name, "weight");
    const struct shape per_channel = shape_make(1, &l->channels);
    const int q = add_constant(r, name, "quantized", DTYPE_S8, &from->shape, w->q, err);
    const int scale =
        q < 0 ? q : add_constant(r, name, "scale", DTYPE_F32, &per_channel, w->scales, err);
    const int zero =
        scale < 0 ? scale : add_constant(r, name, "zero_point", DTYPE_S8, &per_channel, NULL, err);
    return zero < 0 ? zero : add_qdq(r, OP_DEQUANTIZE_LINEAR, name, q, scale, zero, l->axis, err);
}

/* 32-bit bias, there even when it is 0: it takes the correction. */
static int add_bias(struct rewrite *r, const struct weights *w, struct err *err)
{
    const int64_t n = w->layer.outputs;
    const struct shape shape = shape_make(1, &n);
    const char *name = named(r, w->name, "bias");
    int32_t *q = arena_alloc(r->scratch, (size_t)n, sizeof(*q));
    float *scales = arena_alloc(r->scratch, (size_t)n, sizeof(*scales));
    if (!q || !scales)
        return err_oom(err, "a quantized bias");
    for (int64_t i = 0; i < n; i++) {
        scales[i] = (float)(w->data_scale * (double)w->scales[i % w->layer.channels]);
        const double b = nearbyint((double)w->bias[i] / (double)scales[i]);
        q[i] = (int32_t)fmin(fmax(b, -BIAS_MOST), BIAS_MOST);
    }
    const int value = add_constant(r, name, "quantized", DTYPE_S32, &shape, q, err);
    const int scale =
        value < 0 ? value : add_constant(r, name, "scale", DTYPE_F32, &shape, scales, err);
    return scale < 0 ? scale : add_qdq(r, OP_DEQUANTIZE_LINEAR, name, value, scale, -1, 0, err);
}

static int quantize_layer(struct rewrite *r, int n, struct err *err)
{
    struct weights w = {.name = r->g->nodes[n]->name};
    quant_layer_of(r->g, n, &w.layer);
    w.data_scale = (double)r->scale[r->spread.root[w.layer.data]].scale;
    int rc = read_weights(r, &w, err);
    if (rc < 0)
        return rc;
    least_scales(&w);
    const float *least = w.least;
    rc = quant_weights(&w.layer, w.w, r->bits_of[n], least, w.scales, w.q, err);
    if (rc < 0)
        return rc;
    struct node *node = r->q->nodes[n];
    const bool has_bias = node->op != OP_MATMUL;
    const int weights = add_weights(r, &w, err);
    const int bias = weights < 0 ? weights : has_bias ? add_bias(r, &w, err) : 0;
    if (bias < 0)
        return bias;
    const int inputs[] = {node->inputs[0], weights, bias};
    graph_remove_attr(node, "alpha");
    graph_remove_attr(node, "beta");
    return graph_set_inputs(r->q, node, has_bias ? 3 : 2, inputs, err);
}

/* ---- the whole ---- */

static int rewrite_init(struct rewrite *r, const struct quant_choice *choices, int n_choices,
                        struct err *err)
{
    const size_t n = (size_t)r->g->n_values + 1;
    r->is_int8 = arena_alloc(r->scratch, (size_t)r->g->n_nodes + 1, sizeof(bool));
    r->bits_of = arena_alloc(r->scratch, (size_t)r->g->n_nodes + 1, sizeof(int));
    r->scale = arena_alloc(r->scratch, n, sizeof(*r->scale));
    r->scale_value = arena_alloc(r->scratch, n, sizeof(int));
    r->zero_value = arena_alloc(r->scratch, n, sizeof(int));
    if (!r->is_int8 || !r->bits_of || !r->scale || !r->scale_value || !r->zero_value)
        return err_oom(err, "rewriting a network");
    int rc = 0;
    for (int i = 0; i < n_choices && rc == 0; i++)
        rc = apply_choice(r, &choices[i], err);
    if (rc == 0)
        rc = quant_spread_make(r->g, r->is_int8, r->scratch, &r->spread, err);
    return rc < 0 ? rc : choose_scales(r, err);
}

static int rewrite_run(struct rewrite *r, struct err *err)
{
    bool any = false;
    for (int n = 0; n < r->g->n_nodes; n++)
        any |= r->is_int8[n];
    if (any && r->q->opset < QDQ_OPSET)
        r->q->opset = QDQ_OPSET;
    int rc = 0;
    for (int v = 0; v < r->g->n_values && rc >= 0; v++)
        rc = r->spread.quantized[v] ? quantize_value(r, v, err) : 0;
    for (int n = 0; n < r->g->n_nodes && rc >= 0; n++)
        rc = r->is_int8[n] ? quantize_layer(r, n, err) : 0;
    if (rc >= 0)
        rc = graph_compact(r->q, err);
    return rc < 0 ? rc : graph_infer(r->q, err);
}

int quant_rewrite(const struct graph *g, const struct quant_choice *choices, int n_choices,
                  const struct quant_ranges *ranges, const struct quant_options *options,
                  struct graph **ret, struct err *err)
{
    const int bits = options && options->weight_bits ? options->weight_bits : 8;
    _cleanup_(graph_freep) struct graph *q = NULL;
    _cleanup_(arena_freep) struct arena *scratch = arena_new();
    if (!scratch)
        return err_oom(err, "rewriting a network");
    int rc = graph_clone(g, &q, err);
    if (rc < 0)
        return rc;
    struct rewrite r = {.g = g, .q = q, .ranges = ranges, .bits = bits, .scratch = scratch};
    rc = rewrite_init(&r, choices, n_choices, err);
    if (rc == 0)
        rc = rewrite_run(&r, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(q);
    return 0;
}
