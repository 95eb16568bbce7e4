#pragma once
/* Graphs for tests of plans, and their comparison with the plain-C evaluation. To be included after
 * cmocka.h. Whatever fails ends the test. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/rng.h"
#include "shared/graph/eval.h"
#include "shared/graph/infer.h"
#include "shared/nn/plan.h"

#define DIMS(...)                                                                                  \
    (int)(sizeof((int64_t[]){__VA_ARGS__}) / sizeof(int64_t)), (const int64_t[])                   \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define VALUES(...)                                                                                \
    (int)(sizeof((int[]){__VA_ARGS__}) / sizeof(int)), (const int[])                               \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }

struct mesh {
    struct graph *g;
    struct rng rng;
};

static inline void must(int rc, const struct err *err)
{
    if (rc < 0)
        fail_msg("%s", err->message);
}

static inline void mesh_init(struct mesh *m, uint64_t seed)
{
    struct err err = {0};
    m->g = graph_new(13, &err);
    assert_non_null(m->g);
    rng_seed(&m->rng, seed);
}

static inline void mesh_release(struct mesh *m)
{
    m->g = graph_free(m->g);
}

static inline int mesh_typed_input(struct mesh *m, enum dtype dtype, int rank, const int64_t *dims)
{
    struct err err = {0};
    const struct shape shape = shape_make(rank, dims);
    int v = graph_add_input(m->g, NULL, dtype, &shape, &err);
    must(v, &err);
    return v;
}

static inline int mesh_input(struct mesh *m, int rank, const int64_t *dims)
{
    return mesh_typed_input(m, DTYPE_F32, rank, dims);
}

static inline int mesh_constant(struct mesh *m, enum dtype dtype, int rank, const int64_t *dims,
                                const void *data)
{
    struct err err = {0};
    const struct shape shape = shape_make(rank, dims);
    int v = graph_add_constant(m->g, NULL, dtype, &shape, data, &err);
    must(v, &err);
    return v;
}

/* Normal numbers of that deviation. */
static inline int mesh_normal(struct mesh *m, double deviation, int rank, const int64_t *dims)
{
    int v = mesh_constant(m, DTYPE_F32, rank, dims, NULL);
    const struct tensor *t = m->g->values[v]->constant;
    for (int64_t i = 0; i < shape_elements(&t->shape); i++)
        ((float *)t->data)[i] = (float)(deviation * rng_normal(&m->rng));
    return v;
}

static inline int mesh_ints(struct mesh *m, int n, const int64_t *ints)
{
    return mesh_constant(m, DTYPE_S64, 1, (int64_t[]){n}, ints);
}

static inline int mesh_float(struct mesh *m, float x)
{
    return mesh_constant(m, DTYPE_F32, 0, NULL, &x);
}

/* The node's first output. */
static inline int mesh_node(struct mesh *m, enum op op, int n_in, const int *in)
{
    struct err err = {0};
    int at = graph_add_node(m->g, -1, op, NULL, n_in, in, 1, NULL, &err);
    must(at, &err);
    return m->g->nodes[at]->outputs[0];
}

static inline struct node *mesh_of(struct mesh *m, int value)
{
    return m->g->nodes[m->g->values[value]->producer];
}

static inline void mesh_attr_ints(struct mesh *m, int value, const char *name, int n,
                                  const int64_t *ints)
{
    struct err err = {0};
    must(graph_set_attr_ints(m->g, mesh_of(m, value), name, n, ints, &err), &err);
}

static inline void mesh_attr_int(struct mesh *m, int value, const char *name, int64_t i)
{
    struct err err = {0};
    must(graph_set_attr_int(m->g, mesh_of(m, value), name, i, &err), &err);
}

static inline void mesh_attr_float(struct mesh *m, int value, const char *name, float f)
{
    struct err err = {0};
    must(graph_set_attr_float(m->g, mesh_of(m, value), name, f, &err), &err);
}

static inline int mesh_unary(struct mesh *m, enum op op, int x)
{
    return mesh_node(m, op, VALUES(x));
}

static inline int mesh_binary(struct mesh *m, enum op op, int a, int b)
{
    return mesh_node(m, op, VALUES(a, b));
}

struct mesh_conv {
    int64_t ic, oc, kernel, stride, pad, dilation, group;
    int rank; /* spatial; 0: 2 */
    bool no_bias, transposed;
};

static inline int mesh_conv(struct mesh *m, int x, struct mesh_conv c)
{
    int rank = c.rank ? c.rank : 2;
    int64_t group = c.group ? c.group : 1, stride = c.stride ? c.stride : 1,
            dilation = c.dilation ? c.dilation : 1;
    int64_t dims[5] = {c.transposed ? c.ic : c.oc, (c.transposed ? c.oc : c.ic) / group};
    int64_t strides[3], pads[6], dilations[3];
    double fan = (double)(c.ic / group);
    for (int d = 0; d < rank; d++) {
        dims[2 + d] = c.kernel;
        strides[d] = stride;
        dilations[d] = dilation;
        pads[d] = pads[rank + d] = c.pad;
        fan *= (double)c.kernel;
    }
    int w = mesh_normal(m, 1 / sqrt(fan), 2 + rank, dims);
    int b = c.no_bias ? -1 : mesh_normal(m, 0.5, DIMS(c.oc));
    int y = mesh_node(m, c.transposed ? OP_CONV_TRANSPOSE : OP_CONV, c.no_bias ? 2 : 3,
                      (int[]){x, w, b});
    mesh_attr_ints(m, y, "strides", rank, strides);
    mesh_attr_ints(m, y, "dilations", rank, dilations);
    mesh_attr_ints(m, y, "pads", 2 * rank, pads);
    mesh_attr_int(m, y, "group", group);
    return y;
}

static inline int mesh_pool(struct mesh *m, enum op op, int x, int64_t kernel, int64_t stride,
                            int64_t pad)
{
    int y = mesh_unary(m, op, x);
    mesh_attr_ints(m, y, "kernel_shape", DIMS(kernel, kernel));
    mesh_attr_ints(m, y, "strides", DIMS(stride, stride));
    mesh_attr_ints(m, y, "pads", DIMS(pad, pad, pad, pad));
    return y;
}

/* QuantizeLinear and DequantizeLinear. */
static inline int mesh_qdq(struct mesh *m, int x, enum dtype dtype, float scale, int zero)
{
    uint8_t byte = (uint8_t)zero;
    int s = mesh_float(m, scale), z = mesh_constant(m, dtype, 0, NULL, &byte);
    int q = mesh_node(m, OP_QUANTIZE_LINEAR, VALUES(x, s, z));
    return mesh_node(m, OP_DEQUANTIZE_LINEAR, VALUES(q, s, z));
}

/* A float constant as s8 with a scale for each index of `axis`, behind DequantizeLinear. Of 7 bits
 * where the CPU lacks 8-bit dot products, for layers of 8 bits would be computed in floats there.
 */
static inline int mesh_narrow(struct mesh *m, int constant, int axis)
{
    const struct tensor *t = m->g->values[constant]->constant;
    int64_t n = t->shape.dim[axis], inner = 1, total = shape_elements(&t->shape);
    for (int d = axis + 1; d < t->shape.rank; d++)
        inner *= t->shape.dim[d];
    float *scales = calloc((size_t)n, sizeof(*scales));
    int8_t *q = calloc((size_t)total, 1);
    const float most = nn_has_int8() ? 127 : 64;
    assert_non_null(scales);
    assert_non_null(q);
    for (int64_t i = 0; i < total; i++)
        scales[i / inner % n] = fmaxf(scales[i / inner % n], fabsf(((float *)t->data)[i]) / most);
    for (int64_t i = 0; i < total; i++)
        q[i] = (int8_t)lrintf(((float *)t->data)[i] / fmaxf(scales[i / inner % n], 1e-9f));
    int w = mesh_constant(m, DTYPE_S8, t->shape.rank, t->shape.dim, q);
    int s = mesh_constant(m, DTYPE_F32, DIMS(n), scales);
    free(scales);
    free(q);
    int y = mesh_node(m, OP_DEQUANTIZE_LINEAR, VALUES(w, s));
    mesh_attr_int(m, y, "axis", axis);
    return y;
}

/* A convolution with 8-bit weights. */
static inline int mesh_narrow_conv(struct mesh *m, int x, struct mesh_conv c)
{
    int y = mesh_conv(m, x, c);
    struct node *node = mesh_of(m, y);
    int w = mesh_narrow(m, node->inputs[1], 0);
    /* mesh_finish puts the weights before their reader */
    int in[3] = {node->inputs[0], w, node->n_inputs > 2 ? node->inputs[2] : -1};
    struct err err = {0};
    must(graph_set_inputs(m->g, node, node->n_inputs, in, &err), &err);
    return y;
}

static inline void mesh_output(struct mesh *m, int value)
{
    struct err err = {0};
    must(graph_add_output(m->g, value, &err), &err);
}

static inline void mesh_finish(struct mesh *m)
{
    struct err err = {0};
    must(graph_compact(m->g, &err), &err);
    must(graph_infer(m->g, &err), &err);
}

/* ---- comparison ---- */

struct trial_run {
    int n_in, n_out;
    struct tensor *in[8], *got[8], *want[8];
};

static inline void trial_release(struct trial_run *t)
{
    for (int i = 0; i < 8; i++) {
        tensor_free(t->in[i]);
        tensor_free(t->got[i]);
        tensor_free(t->want[i]);
    }
}

static inline void trial_inputs(struct trial_run *t, const struct plan *plan, uint64_t seed)
{
    struct err err = {0};
    struct rng rng;
    rng_seed(&rng, seed);
    t->n_in = plan_n_inputs(plan);
    for (int i = 0; i < t->n_in; i++) {
        const struct plan_port *p = plan_input(plan, i);
        t->in[i] = tensor_new(p->dtype, &p->shape, &err);
        assert_non_null(t->in[i]);
        for (int64_t k = 0; k < shape_elements(&p->shape); k++)
            tensor_set_f64(t->in[i], k,
                           dtype_is_float(p->dtype) ? rng_normal(&rng)
                                                    : (double)rng_below(&rng, 256));
    }
}

static inline void trial_run(struct trial_run *t, const struct graph *g, struct plan *plan,
                             uint64_t seed)
{
    struct err err = {0};
    const void *in[8];
    void *out[8];
    trial_inputs(t, plan, seed);
    t->n_out = plan_n_outputs(plan);
    for (int i = 0; i < t->n_in; i++)
        in[i] = t->in[i]->data;
    for (int i = 0; i < t->n_out; i++) {
        const struct plan_port *p = plan_output(plan, i);
        t->got[i] = tensor_new(p->dtype, &p->shape, &err);
        assert_non_null(t->got[i]);
        memset(t->got[i]->data, 0xa5, tensor_bytes(t->got[i]));
        out[i] = t->got[i]->data;
    }
    must(plan_run(plan, in, out, &err), &err);
    must(eval_graph(g, (const struct tensor *const *)t->in, t->want, &err), &err);
}

/* Largest difference, relative to the largest number (at least 1). */
static inline double trial_difference(const struct trial_run *t)
{
    double worst = 0;
    for (int i = 0; i < t->n_out; i++) {
        double top = 1, most = 0;
        assert_true(shape_equal(&t->got[i]->shape, &t->want[i]->shape));
        assert_int_equal(t->got[i]->dtype, t->want[i]->dtype);
        for (int64_t k = 0; k < shape_elements(&t->got[i]->shape); k++) {
            double a = tensor_get_f64(t->got[i], k), b = tensor_get_f64(t->want[i], k);
            if (fabs(b) > top)
                top = fabs(b);
            if (a == b)
                continue;
            if (!(fabs(a - b) <= most))
                most = isfinite(a - b) ? fabs(a - b) : INFINITY;
        }
        if (most / top > worst)
            worst = most / top;
    }
    return worst;
}

/* Compiles, runs and compares; the plan is the caller's. */
static inline struct plan *mesh_check(const struct mesh *m, const struct plan_options *options,
                                      double tolerance, const char *what)
{
    struct err err = {0};
    struct plan *plan = NULL;
    must(plan_compile(m->g, options, &plan, &err), &err);
    struct trial_run t = {0};
    trial_run(&t, m->g, plan, 7);
    double difference = trial_difference(&t);
    trial_release(&t);
    if (!(difference <= tolerance))
        fail_msg("%s: differs by %g", what, difference);
    return plan;
}

/* One step besides conversions: its description. */
static inline const struct plan_step *only_step(const struct plan *plan)
{
    const struct plan_step *only = NULL;
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const struct plan_step *s = plan_step(plan, i);
        if (s->kind != STEP_COMPUTE)
            continue;
        if (only)
            fail_msg("there is '%s' besides '%s'", s->layer, only->layer);
        only = s;
    }
    assert_non_null(only);
    return only;
}

static inline int count_steps(const struct plan *plan, enum step_kind kind)
{
    int n = 0;
    for (int i = 0; i < plan_n_steps(plan); i++)
        n += plan_step(plan, i)->kind == kind;
    return n;
}

static inline const struct plan_step *find_step(const struct plan *plan, const char *op)
{
    for (int i = 0; i < plan_n_steps(plan); i++)
        if (strcmp(plan_step(plan, i)->op, op) == 0)
            return plan_step(plan, i);
    return NULL;
}
