/*
 * Branches that read the same value and are added are one convolution: y = A(x) + B(x) = (A + B)(x)
 * when the filters are laid over each other where they look at the same place. A 1x1 filter is a
 * larger one with zeros around, and a BatchNormalization a 1x1 convolution with a diagonal matrix.
 */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "shared/graph/infer.h"
#include "shared/graph/pass_priv.h"
#include "shared/graph/passes.h"

/* One side of an addition as a convolution. */
struct branch {
    struct node *node;
    int64_t group, outputs, inputs; /* inputs of a group */
    struct window window;
};

static const struct tensor *f32_constant(const struct graph *g, const struct node *node, int i)
{
    const struct tensor *t = graph_constant_of(g, node, i);
    return t && t->dtype == DTYPE_F32 ? t : NULL;
}

static bool read_conv(const struct graph *g, struct node *node, struct branch *b)
{
    const struct tensor *w = f32_constant(g, node, 1);
    if (!w || graph_window(g, node, &b->window, NULL) < 0 ||
        (graph_input_of(g, node, 2) && !f32_constant(g, node, 2)))
        return false;
    for (int i = 0; i < b->window.rank; i++)
        if (b->window.dilation[i] != 1 && b->window.kernel[i] > 1)
            return false;
    b->group = b->window.group;
    b->outputs = w->shape.dim[0];
    b->inputs = w->shape.dim[1];
    return true;
}

/* As a 1x1 convolution of each channel with itself, in as many groups as the other branch has. */
static bool read_norm(const struct graph *g, struct node *node, const struct branch *other,
                      struct branch *b)
{
    const struct shape *x = &graph_input_of(g, node, 0)->shape;
    if (node_int(node, "training_mode", 0) != 0 || x->rank != other->window.rank + 2 ||
        other->outputs != x->dim[1] || other->inputs * other->group != x->dim[1])
        return false;
    for (int i = 1; i < 5; i++) {
        const struct tensor *t = f32_constant(g, node, i);
        if (!t || shape_elements(&t->shape) != x->dim[1])
            return false;
    }
    b->group = other->group;
    b->outputs = other->outputs;
    b->inputs = other->inputs;
    b->window.rank = other->window.rank;
    for (int i = 0; i < b->window.rank; i++) {
        b->window.kernel[i] = b->window.stride[i] = 1;
        b->window.in[i] = b->window.out[i] = x->dim[i + 2];
    }
    return true;
}

/* The node that makes input i of the addition n, when nobody else reads it. */
static struct node *sole_producer(const struct rewrite *r, const struct node *add, int n, int i,
                                  enum op op)
{
    return rewrite_sole(r, add->inputs[i]) == n ? rewrite_producer(r, add, i, op) : NULL;
}

static int64_t taps_of(const struct window *w)
{
    int64_t taps = 1;
    for (int i = 0; i < w->rank; i++)
        taps *= w->kernel[i];
    return taps;
}

/* Both sides of the addition: the larger convolution, then the other or a norm. */
static bool read_branches(const struct rewrite *r, int n, struct branch b[2])
{
    const struct node *add = r->g->nodes[n];
    if (add->op != OP_ADD || add->inputs[0] == add->inputs[1])
        return false;
    for (int i = 0; i < 2; i++) {
        struct node *conv = sole_producer(r, add, n, i, OP_CONV);
        struct node *other = sole_producer(r, add, n, 1 - i, OP_CONV);
        struct node *norm = sole_producer(r, add, n, 1 - i, OP_BATCH_NORMALIZATION);
        b[0] = (struct branch){.node = conv};
        b[1] = (struct branch){.node = other ? other : norm};
        if (!conv || !b[1].node)
            continue;
        if (conv->inputs[0] != b[1].node->inputs[0] || !read_conv(r->g, conv, &b[0]) ||
            !(other ? read_conv(r->g, other, &b[1]) : read_norm(r->g, norm, &b[0], &b[1])))
            return false;
        if (other && taps_of(&b[1].window) > taps_of(&b[0].window)) {
            const struct branch larger = b[1];
            b[1] = b[0];
            b[0] = larger;
        }
        return true;
    }
    return false;
}

/* The window that covers both; false where they step differently, or the whole would cost more
 * than the parts. */
static bool cover(const struct branch b[2], struct window *ret)
{
    const struct window *p = &b[0].window, *q = &b[1].window;
    if (b[0].group != b[1].group || b[0].outputs != b[1].outputs || b[0].inputs != b[1].inputs ||
        p->rank != q->rank)
        return false;
    *ret = *p;
    for (int i = 0; i < p->rank; i++) {
        /* places of the filter relative to the first that an output belongs to: -begin to last */
        const int64_t last_p = p->kernel[i] - 1 - p->pad_begin[i];
        const int64_t last_q = q->kernel[i] - 1 - q->pad_begin[i];
        const int64_t begin = p->pad_begin[i] > q->pad_begin[i] ? p->pad_begin[i] : q->pad_begin[i];
        const int64_t last = last_p > last_q ? last_p : last_q;
        if (p->out[i] != q->out[i] || (p->stride[i] != q->stride[i] && p->out[i] > 1))
            return false;
        ret->pad_begin[i] = begin;
        ret->pad_end[i] = p->pad_end[i] + last - last_p;
        ret->kernel[i] = begin + last + 1;
        ret->dilation[i] = 1;
    }
    return taps_of(ret) <= taps_of(p) + taps_of(q);
}

/* ---- weights ---- */

/* Adds filters [outputs, inputs, window] to those of the larger window. */
static void lay_over(const struct branch *b, const float *from, const struct window *to, double *w)
{
    int64_t k[3] = {1, 1, 1}, full[3] = {1, 1, 1}, at[3] = {0, 0, 0}, i = 0;
    for (int d = 0; d < to->rank; d++) {
        k[d] = b->window.kernel[d];
        full[d] = to->kernel[d];
        at[d] = to->pad_begin[d] - b->window.pad_begin[d];
    }
    for (int64_t f = 0; f < b->outputs * b->inputs; f++)
        for (int64_t x = 0; x < k[0]; x++)
            for (int64_t y = 0; y < k[1]; y++)
                for (int64_t z = 0; z < k[2]; z++, i++)
                    w[((f * full[0] + x + at[0]) * full[1] + y + at[1]) * full[2] + z + at[2]] +=
                        (double)from[i];
}

static void add_conv(const struct graph *g, const struct branch *b, const struct window *to,
                     double *w, double *bias)
{
    const struct tensor *own = graph_constant_of(g, b->node, 2);
    lay_over(b, graph_constant_of(g, b->node, 1)->data, to, w);
    for (int64_t c = 0; own && c < b->outputs; c++)
        bias[c] += tensor_get_f64(own, c);
}

static int add_norm(const struct rewrite *r, const struct branch *b, const struct window *to,
                    double *w, double *bias, struct err *err)
{
    const struct tensor *t[5] = {0};
    float *diagonal = arena_alloc(r->arena, (size_t)(b->outputs * b->inputs), sizeof(*diagonal));
    if (!diagonal)
        return err_oom(err, "merging branches");
    for (int i = 1; i < 5; i++)
        t[i] = graph_constant_of(r->g, b->node, i);
    const double epsilon = (double)node_float(b->node, "epsilon", 1e-5f);
    for (int64_t c = 0; c < b->outputs; c++) {
        const double scale = tensor_get_f64(t[1], c) / sqrt(tensor_get_f64(t[4], c) + epsilon);
        diagonal[c * b->inputs + c % b->inputs] = (float)scale;
        bias[c] += tensor_get_f64(t[2], c) - tensor_get_f64(t[3], c) * scale;
    }
    lay_over(b, diagonal, to, w);
    return 0;
}

static bool all_finite(const double *x, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(x[i]) || fabs(x[i]) > 1e30)
            return false;
    return true;
}

static int new_constant(struct graph *g, const struct node *node, const char *what,
                        const struct shape *shape, const double *data, struct err *err)
{
    char name[256];
    snprintf(name, sizeof(name), "%.200s_%s", node->name, what);
    int index = graph_add_constant(g, name, DTYPE_F32, shape, NULL, err);
    for (int64_t i = 0; index >= 0 && i < shape_elements(shape); i++)
        ((float *)g->values[index]->constant->data)[i] = (float)data[i];
    return index;
}

/* ---- the rule ---- */

static int set_window(struct graph *g, struct node *node, const struct window *w, struct err *err)
{
    int64_t pads[6];
    for (int i = 0; i < w->rank; i++) {
        pads[i] = w->pad_begin[i];
        pads[w->rank + i] = w->pad_end[i];
    }
    graph_remove_attr(node, "auto_pad");
    graph_remove_attr(node, "dilations");
    int rc = graph_set_attr_ints(g, node, "kernel_shape", w->rank, w->kernel, err);
    return rc < 0 ? rc : graph_set_attr_ints(g, node, "pads", 2 * w->rank, pads, err);
}

/* The convolution of b[0] does the work of both. */
static int become_both(struct rewrite *r, const struct branch b[2], const struct window *w,
                       const struct shape *shape, const double *weights, const double *bias,
                       struct err *err)
{
    struct graph *g = r->g;
    struct node *node = b[0].node;
    const struct shape row = shape_make(1, &b->outputs);
    int wi = new_constant(g, node, "weight", shape, weights, err);
    int bi = wi < 0 ? wi : new_constant(g, node, "bias", &row, bias, err);
    int rc = bi < 0 ? bi : set_window(g, node, w, err);
    return rc < 0 ? rc : graph_set_inputs(g, node, 3, (int[]){node->inputs[0], wi, bi}, err);
}

static int merge_branches(struct rewrite *r, int n, struct err *err)
{
    struct graph *g = r->g;
    struct branch b[2];
    struct window w;
    if (!read_branches(r, n, b) || !cover(b, &w))
        return 0;
    struct shape shape = {.rank = w.rank + 2, .dim = {b->outputs, b->inputs}};
    memcpy(shape.dim + 2, w.kernel, (size_t)w.rank * sizeof(*w.kernel));
    const int64_t elements = shape_elements(&shape);
    double *weights = arena_alloc(r->arena, (size_t)elements, sizeof(*weights));
    double *bias = arena_alloc(r->arena, (size_t)b->outputs, sizeof(*bias));
    if (!weights || !bias)
        return err_oom(err, "merging branches");
    add_conv(g, &b[0], &w, weights, bias);
    int rc = 0;
    if (b[1].node->op == OP_CONV)
        add_conv(g, &b[1], &w, weights, bias);
    else
        rc = add_norm(r, &b[1], &w, weights, bias, err);
    if (rc < 0 || !all_finite(weights, elements) || !all_finite(bias, b->outputs) ||
        !rewrite_splice(r, g->nodes[n]->outputs[0], b[0].node->outputs[0]))
        return rc;
    rc = become_both(r, b, &w, &shape, weights, bias, err);
    if (rc < 0)
        return rc;
    rewrite_touch(r, b[0].node->inputs[0]);
    graph_kill_node(g, g->values[b[1].node->outputs[0]]->producer);
    graph_kill_node(g, n);
    r->changes++;
    return 0;
}

int pass_merge_branches(struct graph *g, struct err *err)
{
    return rewrite_run(g, merge_branches, err);
}
