#include "tests/support/quant_nets.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/graph/eval.h"
#include "shared/graph/infer.h"

static struct err failure;

static int need(int rc)
{
    if (rc >= 0)
        return rc;
    fprintf(stderr, "a test's network: %s\n", failure.message);
    abort();
}

void net_init(struct net *net, uint64_t seed)
{
    net->g = graph_new(13, &failure);
    need(net->g ? 0 : -1);
    net->g->name = "test";
    rng_seed(&net->rng, seed);
}

void net_release(struct net *net)
{
    graph_freep(&net->g);
}

int net_input(struct net *net, const char *name, int rank, const int64_t *dims)
{
    const struct shape shape = shape_make(rank, dims);
    return need(graph_add_input(net->g, name, DTYPE_F32, &shape, &failure));
}

int net_floats(struct net *net, const char *name, int rank, const int64_t *dims, const float *data)
{
    const struct shape shape = shape_make(rank, dims);
    return need(graph_add_constant(net->g, name, DTYPE_F32, &shape, data, &failure));
}

int net_normal(struct net *net, const char *name, int rank, const int64_t *dims, double deviation)
{
    const int v = net_floats(net, name, rank, dims, NULL);
    struct tensor *t = net->g->values[v]->constant;
    for (int64_t i = 0; i < shape_elements(&t->shape); i++)
        ((float *)t->data)[i] = (float)(rng_normal(&net->rng) * deviation);
    return v;
}

int net_ints(struct net *net, const char *name, int n, const int64_t *ints)
{
    const int64_t dim = n;
    const struct shape shape = shape_make(1, &dim);
    return need(graph_add_constant(net->g, name, DTYPE_S64, &shape, ints, &failure));
}

int net_node(struct net *net, enum op op, const char *name, int n_inputs, const int *inputs)
{
    const int n = need(graph_add_node(net->g, -1, op, name, n_inputs, inputs, 1, NULL, &failure));
    return net->g->nodes[n]->outputs[0];
}

struct node *net_of(struct net *net, const char *name)
{
    for (int n = 0; n < net->g->n_nodes; n++)
        if (strcmp(net->g->nodes[n]->name, name) == 0)
            return net->g->nodes[n];
    fprintf(stderr, "a test's network has no node '%s'\n", name);
    abort();
}

static void set_geometry(struct net *net, struct node *node, const struct net_conv *c)
{
    const int64_t stride = c->stride ? c->stride : 1, pad = c->no_pad ? 0 : c->kernel / 2;
    const int64_t kernels[] = {c->kernel, c->kernel}, strides[] = {stride, stride};
    const int64_t pads[] = {pad, pad, pad, pad};
    need(graph_set_attr_ints(net->g, node, "kernel_shape", 2, kernels, &failure));
    need(graph_set_attr_ints(net->g, node, "strides", 2, strides, &failure));
    need(graph_set_attr_ints(net->g, node, "pads", 4, pads, &failure));
    need(graph_set_attr_int(net->g, node, "group", c->group ? c->group : 1, &failure));
}

int net_conv(struct net *net, const char *name, int x, const struct net_conv *c)
{
    const int64_t group = c->group ? c->group : 1;
    const int64_t forward[] = {c->out, c->in / group, c->kernel, c->kernel};
    const int64_t backward[] = {c->in, c->out / group, c->kernel, c->kernel};
    char text[64];
    snprintf(text, sizeof(text), "%s_w", name);
    const double fan_in = (double)(c->in / group * c->kernel * c->kernel);
    int inputs[3] = {
        x, net_normal(net, text, 4, c->transpose ? backward : forward, sqrt(2 / fan_in)), -1};
    snprintf(text, sizeof(text), "%s_b", name);
    if (!c->no_bias)
        inputs[2] = net_normal(net, text, 1, &c->out, 0.2);
    const int y =
        net_node(net, c->transpose ? OP_CONV_TRANSPOSE : OP_CONV, name, c->no_bias ? 2 : 3, inputs);
    set_geometry(net, net_of(net, name), c);
    return y;
}

int net_gemm(struct net *net, const char *name, int x, int64_t in, int64_t out, bool trans_b)
{
    const int64_t dims[] = {trans_b ? out : in, trans_b ? in : out};
    char w[64], b[64];
    snprintf(w, sizeof(w), "%s_w", name);
    snprintf(b, sizeof(b), "%s_b", name);
    const int inputs[] = {x, net_normal(net, w, 2, dims, sqrt(1 / (double)in)),
                          net_normal(net, b, 1, &out, 0.2)};
    const int y = net_node(net, OP_GEMM, name, 3, inputs);
    need(graph_set_attr_int(net->g, net_of(net, name), "transB", trans_b, &failure));
    return y;
}

int net_unary(struct net *net, enum op op, const char *name, int x)
{
    return net_node(net, op, name, 1, &x);
}

int net_add(struct net *net, const char *name, int a, int b)
{
    const int inputs[] = {a, b};
    return net_node(net, OP_ADD, name, 2, inputs);
}

void net_finish(struct net *net, int output)
{
    need(graph_add_output(net->g, output, &failure));
    need(graph_compact(net->g, &failure));
    need(graph_infer(net->g, &failure));
}

struct tensor *net_run(const struct graph *g, uint64_t seed, int64_t n, double scale, double shift)
{
    const struct shape shape = shape_at(&g->values[g->inputs[0]]->shape, n);
    _cleanup_(tensor_freep) struct tensor *x = tensor_new(DTYPE_F32, &shape, &failure);
    need(x ? 0 : -1);
    const int64_t elements = shape_elements(&shape) / n;
    for (int64_t s = 0; s < n; s++) {
        struct rng rng;
        rng_seed2(&rng, seed, (uint64_t)s);
        for (int64_t i = 0; i < elements; i++)
            ((float *)x->data)[s * elements + i] = (float)(rng_normal(&rng) * scale + shift);
    }
    const struct tensor *inputs[] = {x};
    struct tensor *outputs[16] = {NULL};
    need(g->n_outputs <= 16 ? eval_graph(g, inputs, outputs, &failure) : -1);
    for (int i = 1; i < g->n_outputs; i++)
        tensor_freep(&outputs[i]);
    return outputs[0];
}

double net_snr(const struct tensor *a, const struct tensor *b)
{
    double power = 0, noise = 0;
    for (int64_t i = 0; i < shape_elements(&a->shape); i++) {
        const double x = tensor_get_f64(a, i), d = x - tensor_get_f64(b, i);
        power += x * x;
        noise += d * d;
    }
    return noise > 0 ? 10 * log10(power / noise) : 200;
}

int net_count(const struct graph *g, enum op op)
{
    int count = 0;
    for (int n = 0; n < g->n_nodes; n++)
        count += !g->nodes[n]->dead && g->nodes[n]->op == op;
    return count;
}
