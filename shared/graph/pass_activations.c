/* Activations that exporters write as several nodes, under their usual names. */
#include <float.h>
#include <math.h>

#include "shared/graph/pass_priv.h"
#include "shared/graph/passes.h"

/* Whether input i is one number, and which. */
static bool read_number(const struct graph *g, const struct node *node, int i, double *ret)
{
    const struct tensor *t = graph_constant_of(g, node, i);
    if (!t || t->dtype != DTYPE_F32 || shape_elements(&t->shape) != 1)
        return false;
    *ret = tensor_get_f64(t, 0);
    return true;
}

static bool is_number(const struct graph *g, const struct node *node, int i, double number)
{
    double x;
    return read_number(g, node, i, &x) && fabs(x - number) < 1e-6;
}

static bool is_f32(const struct graph *g, const struct node *node, int i)
{
    const struct value *value = graph_input_of(g, node, i);
    return value && value->dtype == DTYPE_F32;
}

/* The bounds of a Clip, infinite where it has none. */
static bool read_bounds(const struct graph *g, const struct node *node, double *low, double *high)
{
    *low = (double)node_float(node, "min", -INFINITY);
    *high = (double)node_float(node, "max", INFINITY);
    if (graph_input_of(g, node, 1) && !read_number(g, node, 1, low))
        return false;
    return !graph_input_of(g, node, 2) || read_number(g, node, 2, high);
}

/* ---- Relu and Clip ---- */

static int clip_to_relu(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    double low, high;
    if (!is_f32(g, node, 0) || !read_bounds(g, node, &low, &high) || low != 0 ||
        high < (double)FLT_MAX)
        return 0;
    pass_become(node, OP_RELU);
    r->changes++;
    return graph_set_inputs(g, node, 1, (int[]){node->inputs[0]}, err);
}

/* Clip(Relu(x), low, high) with low <= 0 is Clip(x, 0, high). */
static int clip_of_relu(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    const struct node *relu = rewrite_producer(r, node, 0, OP_RELU);
    double low, high;
    if (!relu || node->since < 11 || !is_f32(g, node, 0) || !read_bounds(g, node, &low, &high) ||
        low > 0 || high < 0)
        return 0;
    struct shape scalar = {.rank = 0};
    int zero = graph_add_constant(g, "zero", DTYPE_F32, &scalar, NULL, err);
    if (zero < 0)
        return zero;
    rewrite_touch(r, node->inputs[0]);
    rewrite_touch(r, relu->inputs[0]);
    r->changes++;
    int max = node->n_inputs > 2 ? node->inputs[2] : -1;
    return graph_set_inputs(g, node, 3, (int[]){relu->inputs[0], zero, max}, err);
}

static int relu_of_relu(struct rewrite *r, int n, struct err *err)
{
    (void)err;
    struct node *node = r->g->nodes[n];
    if (!rewrite_producer(r, node, 0, OP_RELU) ||
        !rewrite_replace(r, node->outputs[0], node->inputs[0]))
        return 0;
    graph_kill_node(r->g, n);
    r->changes++;
    return 0;
}

/* ---- HardSigmoid and HardSwish ---- */

/* x, when input i of the node is Clip(x + 3, 0, 6); else -1. */
static int relu6_of_plus3(const struct rewrite *r, const struct node *node, int i)
{
    const struct node *clip = rewrite_producer(r, node, i, OP_CLIP);
    const struct node *add = clip ? rewrite_producer(r, clip, 0, OP_ADD) : NULL;
    double low, high;
    if (!add || !read_bounds(r->g, clip, &low, &high) || low != 0 || high != 6)
        return -1;
    return is_number(r->g, add, 1, 3)   ? add->inputs[0]
           : is_number(r->g, add, 0, 3) ? add->inputs[1]
                                        : -1;
}

/* Which input is divided by 6: of Div by 6 or Mul by 1/6; else -1. */
static int sixth_of(const struct graph *g, const struct node *node)
{
    if (node->op == OP_DIV)
        return is_number(g, node, 1, 6) ? 0 : -1;
    return is_number(g, node, 1, 1.0 / 6) ? 0 : is_number(g, node, 0, 1.0 / 6) ? 1 : -1;
}

static bool fits(const struct graph *g, const struct node *node, int x)
{
    const struct value *out = graph_output_of(g, node, 0);
    return x >= 0 && out && out->dtype == DTYPE_F32 &&
           shape_equal(&g->values[x]->shape, &out->shape);
}

/* Clip(x + 3, 0, 6) / 6 */
static int to_hard_sigmoid(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    int i = sixth_of(g, node);
    int x = i < 0 ? -1 : relu6_of_plus3(r, node, i);
    if (!fits(g, node, x))
        return 0;
    pass_become(node, OP_HARD_SIGMOID);
    rewrite_touch(r, x);
    r->changes++;
    int rc = graph_set_inputs(g, node, 1, &x, err);
    if (rc == 0)
        rc = graph_set_attr_float(g, node, "alpha", 1.0f / 6, err);
    return rc < 0 ? rc : graph_set_attr_float(g, node, "beta", 0.5f, err);
}

/* HardSwish came with opset 14, which reads everything else that opset 13 has as before; only
 * BatchNormalization lost outputs. */
static bool raise_to_14(struct graph *g)
{
    if (g->opset >= 14)
        return true;
    if (g->opset < 13)
        return false;
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_BATCH_NORMALIZATION && g->nodes[n]->n_outputs > 1)
            return false;
    for (int n = 0; n < g->n_nodes; n++)
        g->nodes[n]->since = 14;
    g->opset = 14;
    return true;
}

/* x, when one factor of a Mul is x and the other HardSigmoid(x, 1/6, 1/2) (then *whole), or
 * Clip(x + 3, 0, 6); else -1. */
static int hard_factor(const struct rewrite *r, const struct node *mul, bool whole)
{
    for (int i = 0; i < 2; i++) {
        int x = mul->inputs[1 - i];
        const struct node *hard = whole ? rewrite_producer(r, mul, i, OP_HARD_SIGMOID) : NULL;
        if (!whole && relu6_of_plus3(r, mul, i) == x)
            return x;
        if (hard && hard->inputs[0] == x &&
            fabsf(node_float(hard, "alpha", 0.2f) - 1.0f / 6) < 1e-6f &&
            fabsf(node_float(hard, "beta", 0.5f) - 0.5f) < 1e-6f)
            return x;
    }
    return -1;
}

/* x * HardSigmoid(x), or x * Clip(x + 3, 0, 6) / 6 */
static int to_hard_swish(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct node *node = g->nodes[n];
    int x = node->op == OP_MUL ? hard_factor(r, node, true) : -1;
    int i = sixth_of(g, node);
    const struct node *mul = x < 0 && i >= 0 ? rewrite_producer(r, node, i, OP_MUL) : NULL;
    if (mul)
        x = hard_factor(r, mul, false);
    if (!fits(g, node, x) || !raise_to_14(g))
        return 0;
    pass_become(node, OP_HARD_SWISH);
    rewrite_touch(r, x);
    r->changes++;
    return graph_set_inputs(g, node, 1, &x, err);
}

int pass_activation(struct rewrite *r, int n, struct err *err)
{
    const struct node *node = r->g->nodes[n];
    int before = r->changes, rc = 0;
    switch (node->op) {
    case OP_CLIP:
        rc = clip_to_relu(r, n, err);
        return rc < 0 || r->changes != before ? rc : clip_of_relu(r, n, err);
    case OP_RELU:
        return relu_of_relu(r, n, err);
    case OP_DIV:
    case OP_MUL:
        rc = to_hard_sigmoid(r, n, err);
        return rc < 0 || r->changes != before ? rc : to_hard_swish(r, n, err);
    default:
        return 0;
    }
}
