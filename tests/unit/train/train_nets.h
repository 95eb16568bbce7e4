#pragma once
/* Networks for tests of training, and the comparison of gradients with finite differences. To be
 * included after cmocka.h. Whatever fails ends the test. */
#include "shared/train/net.h"
#include "tests/unit/nn/plan_nets.h"

/* A loss with all gradients different: for sample s and output element i
 *     c(s, i) * y + 0.1 * y * y,  over the batch. */
struct trial_loss {
    double lane_sum[8], sum;
    const struct train_net *net;
    float *copy; /* outputs of the whole batch, when wanted */
};

static inline float trial_factor(int64_t sample, int64_t i, int output)
{
    struct rng rng;
    rng_seed2(&rng, (uint64_t)(sample * 31 + output), (uint64_t)i);
    return (float)(2 * rng_f64(&rng) - 1);
}

static inline int trial_loss_of(void *ctx, int lane, int64_t first, int64_t count,
                                const float *const *outputs, float *const *gradients,
                                struct err *err)
{
    (void)err;
    struct trial_loss *t = ctx;
    double sum = 0;
    for (int o = 0; o < 1; o++) {
        const int64_t width = train_net_output_width(t->net, o);
        for (int64_t s = 0; s < count; s++) {
            for (int64_t i = 0; i < width; i++) {
                float y = outputs[o][s * width + i], f = trial_factor(first + s, i, o);
                sum += (double)f * (double)y + 0.1 * (double)y * (double)y;
                gradients[o][s * width + i] = f + 0.2f * y;
                if (t->copy)
                    t->copy[(first + s) * width + i] = y;
            }
        }
    }
    t->lane_sum[lane] += sum;
    return 0;
}

static inline double trial_step(struct train_net *net, const float *x, float *copy)
{
    struct err err = {0};
    struct trial_loss t = {.net = net, .copy = copy};
    must(train_net_step(net, x, trial_loss_of, &t, &err), &err);
    for (int i = 0; i < 8; i++)
        t.sum += t.lane_sum[i];
    return t.sum;
}

static inline float *trial_samples(const struct train_net *net, int64_t batch, uint64_t seed)
{
    struct rng rng;
    rng_seed(&rng, seed);
    int64_t n = batch * train_net_input_width(net);
    float *x = calloc((size_t)n, sizeof(*x));
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = (float)rng_normal(&rng);
    return x;
}

static inline struct train_net *trial_net(const struct mesh *m, struct train_net_options o)
{
    struct err err = {0};
    struct train_net *net = NULL;
    must(train_net_new(m->g, &o, &net, &err), &err);
    return net;
}

/* How far the slope along a direction, by central differences, is off the gradient's. */
static inline double trial_direction(struct train_net *net, const float *x, struct train_param *p,
                                     const float *grad, struct rng *rng)
{
    float *at = malloc((size_t)p->n * sizeof(float)), *d = malloc((size_t)p->n * sizeof(float));
    assert_non_null(at);
    assert_non_null(d);
    memcpy(at, p->value, (size_t)p->n * sizeof(float));
    double slope = 0, norm = 0, length = 0;
    for (int64_t i = 0; i < p->n; i++) {
        d[i] = (float)rng_normal(rng);
        slope += (double)d[i] * (double)grad[i];
        norm += (double)grad[i] * (double)grad[i];
        length += (double)d[i] * (double)d[i];
    }
    /* A short step misses most bends of Relu and pools, a long one the rounding of fp32. */
    double best = INFINITY;
    for (double h = 3e-2; h > 3e-4 && best > 0.01; h /= 3) {
        double e = h / sqrt(length), loss[2];
        for (int side = 0; side < 2; side++) {
            for (int64_t i = 0; i < p->n; i++)
                p->value[i] = at[i] + (float)((side ? -e : e) * (double)d[i]);
            loss[side] = trial_step(net, x, NULL);
        }
        double measured = (loss[0] - loss[1]) / (2 * e);
        double off = fabs(measured - slope) / (sqrt(norm * length / (double)p->n) + 1e-2);
        best = off < best ? off : best;
    }
    memcpy(p->value, at, (size_t)p->n * sizeof(float));
    free(at);
    free(d);
    return best;
}

static inline int trial_compare(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* The median over some directions: a bend of Relu in the way spoils one or another. */
static inline double trial_param(struct train_net *net, const float *x, struct train_param *p,
                                 struct rng *rng)
{
    enum { DIRECTIONS = 7 };
    float *grad = malloc((size_t)p->n * sizeof(float));
    assert_non_null(grad);
    trial_step(net, x, NULL);
    memcpy(grad, p->grad, (size_t)p->n * sizeof(float));
    double off[DIRECTIONS];
    for (int k = 0; k < DIRECTIONS; k++)
        off[k] = trial_direction(net, x, p, grad, rng);
    free(grad);
    qsort(off, DIRECTIONS, sizeof(off[0]), trial_compare);
    return off[DIRECTIONS / 2];
}

/* Every parameter's gradient. Where a bend lies too close for all directions, other samples move
 * it; a wrong gradient is wrong with all. */
static inline void trial_gradients(const struct mesh *m, struct train_net_options o,
                                   const char *what)
{
    struct train_net *net = trial_net(m, o);
    struct rng rng;
    rng_seed(&rng, 5);
    assert_true(train_net_n_params(net) > 0);
    for (int i = 0; i < train_net_n_params(net); i++) {
        struct train_param *p = train_net_param(net, i);
        double off = INFINITY;
        for (uint64_t seed = 11; seed < 14 && !(off < 0.02); seed++) {
            float *x = trial_samples(net, o.batch, seed);
            off = trial_param(net, x, p, &rng);
            free(x);
        }
        if (!(off < 0.02))
            fail_msg("%s: parameter '%s' (role %d): the slope is %g off its gradient's", what,
                     p->name, p->role, off);
    }
    train_net_free(net);
}

/* BatchNormalization with parameters that are not 0 and 1. */
static inline int mesh_norm(struct mesh *m, int x, int64_t c)
{
    int scale = mesh_normal(m, 0.3, DIMS(c)), shift = mesh_normal(m, 0.3, DIMS(c));
    int mean = mesh_normal(m, 0.1, DIMS(c)), var = mesh_normal(m, 0.1, DIMS(c));
    for (int64_t i = 0; i < c; i++) {
        ((float *)m->g->values[scale]->constant->data)[i] += 1;
        float *v = &((float *)m->g->values[var]->constant->data)[i];
        *v = 1 + fabsf(*v);
    }
    return mesh_node(m, OP_BATCH_NORMALIZATION, VALUES(x, scale, shift, mean, var));
}

/* Gemm to a few logits, as a network's end. */
static inline void mesh_head(struct mesh *m, int x, int64_t c, int64_t classes)
{
    int y = mesh_unary(m, OP_FLATTEN, mesh_unary(m, OP_GLOBAL_AVERAGE_POOL, x));
    y = mesh_node(
        m, OP_GEMM,
        VALUES(y, mesh_normal(m, 0.5, DIMS(c, classes)), mesh_normal(m, 1, DIMS(classes))));
    mesh_output(m, y);
    mesh_finish(m);
}

/* A small ResNet: stem, a block, a block of half the size with Slice and Pad as its shortcut. */
static inline void mesh_resnet(struct mesh *m, int64_t width, int64_t pixels)
{
    mesh_init(m, 3);
    int x = mesh_input(m, DIMS(DIM_BATCH, 3, pixels, pixels));
    struct mesh_conv conv = {.ic = 3, .oc = width, .kernel = 3, .pad = 1, .no_bias = true};
    int h = mesh_unary(m, OP_RELU, mesh_norm(m, mesh_conv(m, x, conv), width));
    conv.ic = width;
    int y = mesh_unary(m, OP_RELU, mesh_norm(m, mesh_conv(m, h, conv), width));
    y = mesh_norm(m, mesh_conv(m, y, conv), width);
    h = mesh_unary(m, OP_RELU, mesh_binary(m, OP_ADD, y, h));
    conv.oc = 2 * width;
    conv.stride = 2;
    y = mesh_unary(m, OP_RELU, mesh_norm(m, mesh_conv(m, h, conv), 2 * width));
    conv.ic = 2 * width;
    conv.stride = 1;
    y = mesh_norm(m, mesh_conv(m, y, conv), 2 * width);
    int s = mesh_node(
        m, OP_SLICE,
        VALUES(h, mesh_ints(m, 2, (int64_t[]){0, 0}), mesh_ints(m, 2, (int64_t[]){pixels, pixels}),
               mesh_ints(m, 2, (int64_t[]){2, 3}), mesh_ints(m, 2, (int64_t[]){2, 2})));
    s = mesh_node(
        m, OP_PAD,
        VALUES(s, mesh_ints(m, 8, (int64_t[]){0, width / 2, 0, 0, 0, width - width / 2, 0, 0})));
    h = mesh_unary(m, OP_RELU, mesh_binary(m, OP_ADD, y, s));
    mesh_head(m, h, 2 * width, 5);
}
