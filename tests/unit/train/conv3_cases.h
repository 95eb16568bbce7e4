#pragma once
/* 3x3 convolutions in bf16 against sums in double over a grid of shapes. To be included after
 * cmocka.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"
#include "shared/graph/tensor.h"
#include "shared/train/kernel_conv3.h"

struct conv3_trial {
    struct conv3 c;
    int64_t n_x, n_y, n_w;
    uint16_t *x, *y, *dy, *dx, *forward, *data;
    float *w, *dw, *sum; /* [oc, ic, 3, 3]; dw: what the kernel gives; sum: before */
    void *scratch;
};

static inline uint16_t *conv3_random(struct rng *rng, int64_t n)
{
    uint16_t *x = calloc((size_t)n, sizeof(*x));
    assert_non_null(x);
    for (int64_t i = 0; i < n; i++)
        x[i] = f32_to_bf16((float)rng_normal(rng));
    return x;
}

static inline struct conv3_trial conv3_start(const struct conv3 *c)
{
    struct rng rng;
    rng_seed(&rng, 7);
    struct conv3_trial t = {.c = *c,
                            .n_x = c->n * c->h * c->w * c->ic,
                            .n_y = c->n * c->oh * c->ow * c->oc,
                            .n_w = 9 * c->ic * c->oc};
    t.x = conv3_random(&rng, t.n_x);
    t.dy = conv3_random(&rng, t.n_y);
    t.y = conv3_random(&rng, t.n_y);
    t.dx = conv3_random(&rng, t.n_x);
    t.forward = calloc((size_t)t.n_w, sizeof(uint16_t));
    t.data = calloc((size_t)t.n_w, sizeof(uint16_t));
    t.w = calloc((size_t)t.n_w, sizeof(float));
    t.dw = calloc((size_t)t.n_w, sizeof(float));
    t.sum = calloc((size_t)t.n_w, sizeof(float));
    t.scratch = mem_aligned(conv3_scratch(c));
    assert_true(t.forward && t.data && t.w && t.dw && t.sum && t.scratch);
    for (int64_t i = 0; i < t.n_w; i++)
        t.w[i] = bf16_to_f32(f32_to_bf16((float)rng_normal(&rng)));
    return t;
}

static inline void conv3_end(struct conv3_trial *t)
{
    void *all[] = {t->x, t->y, t->dy, t->dx, t->forward, t->data, t->w, t->dw, t->sum, t->scratch};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
}

/* What the definition says: y = x * w, dx and dw from dy. */
static inline void conv3_define(const struct conv3_trial *t, double *y, double *dx, double *dw)
{
    const struct conv3 *c = &t->c;
    for (int64_t at = 0; at < c->n * c->oh * c->ow * 9; at++) {
        const int64_t k = at % 9, p = at / 9, q = p % c->ow, r = p / c->ow % c->oh,
                      n = p / c->ow / c->oh, i = r * c->stride + k / 3 - c->top,
                      j = q * c->stride + k % 3 - c->left;
        if (i < 0 || i >= c->h || j < 0 || j >= c->w)
            continue;
        const int64_t in = ((n * c->h + i) * c->w + j) * c->ic, out = p * c->oc;
        for (int64_t o = 0; o < c->oc; o++)
            for (int64_t m = 0; m < c->ic; m++) {
                const int64_t f = (o * c->ic + m) * 9 + k;
                const double x = (double)bf16_to_f32(t->x[in + m]),
                             g = (double)bf16_to_f32(t->dy[out + o]);
                y[out + o] += x * (double)t->w[f];
                dx[in + m] += g * (double)t->w[f];
                dw[f] += g * x;
            }
    }
}

/* `unit`: of rounding, for numbers that are sums of about 1. */
static inline void conv3_same(const char *what, const struct conv3 *c, const double *wanted,
                              const uint16_t *half, const float *full, int64_t n, double unit)
{
    for (int64_t i = 0; i < n; i++) {
        const double x = (double)(half ? bf16_to_f32(half[i]) : full[i]);
        if (!(fabs(x - wanted[i]) <= unit * (fabs(wanted[i]) + 1)))
            fail_msg("%s of %dx%dx%dx%d -> %dx%dx%d, stride %d: [%d] is %g, not %g", what,
                     (int)c->n, (int)c->h, (int)c->w, (int)c->ic, (int)c->oh, (int)c->ow,
                     (int)c->oc, (int)c->stride, (int)i, x, wanted[i]);
    }
}

static inline void conv3_check(const struct conv3 *c)
{
    assert_true(conv3_fits(c));
    struct conv3_trial t = conv3_start(c);
    double *y = calloc((size_t)t.n_y, sizeof(*y)), *dx = calloc((size_t)t.n_x, sizeof(*dx)),
           *dw = calloc((size_t)t.n_w, sizeof(*dw));
    assert_true(y && dx && dw);
    conv3_define(&t, y, dx, dw);
    conv3_pack(c, t.w, t.forward, t.data, t.scratch);
    memset(t.scratch, 0xff, conv3_scratch(c)); /* NaNs */
    conv3_forward(c, t.x, t.forward, t.y, t.scratch);
    conv3_same("forward", c, y, t.y, NULL, t.n_y, 1.0 / 256);
    memset(t.scratch, 0xff, conv3_scratch(c));
    conv3_data(c, t.dy, t.data, t.dx, t.scratch);
    conv3_same("data", c, dx, t.dx, NULL, t.n_x, 1.0 / 256);
    for (int twice = 1; twice <= 2; twice++) { /* it adds */
        memset(t.scratch, 0xff, conv3_scratch(c));
        conv3_weights(c, t.x, t.dy, t.sum, t.scratch);
        conv3_unpack(c, t.sum, t.dw);
        for (int64_t i = 0; i < t.n_w; i++)
            t.dw[i] /= (float)twice;
        conv3_same("weights", c, dw, NULL, t.dw, t.n_w, 1e-4);
    }
    free(y);
    free(dx);
    free(dw);
    conv3_end(&t);
}

static inline void conv3_grid(void **state)
{
    (void)state;
    const struct conv3 cases[] = {
        /* each tile, whole and overlapping; odd numbers of samples and sides */
        {.n = 2,
         .h = 5,
         .w = 16,
         .ic = 16,
         .oh = 5,
         .ow = 16,
         .oc = 16,
         .stride = 1,
         .top = 1,
         .left = 1},
        {.n = 3,
         .h = 4,
         .w = 19,
         .ic = 16,
         .oh = 4,
         .ow = 19,
         .oc = 48,
         .stride = 1,
         .top = 1,
         .left = 1},
        {.n = 1,
         .h = 6,
         .w = 8,
         .ic = 32,
         .oh = 6,
         .ow = 8,
         .oc = 96,
         .stride = 1,
         .top = 1,
         .left = 1},
        {.n = 3,
         .h = 7,
         .w = 13,
         .ic = 32,
         .oh = 7,
         .ow = 13,
         .oc = 64,
         .stride = 1,
         .top = 1,
         .left = 1},
        {.n = 5,
         .h = 4,
         .w = 4,
         .ic = 64,
         .oh = 4,
         .ow = 4,
         .oc = 128,
         .stride = 1,
         .top = 1,
         .left = 1},
        {.n = 2,
         .h = 5,
         .w = 7,
         .ic = 128,
         .oh = 5,
         .ow = 7,
         .oc = 64,
         .stride = 1,
         .top = 1,
         .left = 1},
        /* stride 2: even and odd sides, both ways to pad */
        {.n = 3,
         .h = 8,
         .w = 32,
         .ic = 16,
         .oh = 4,
         .ow = 16,
         .oc = 32,
         .stride = 2,
         .top = 1,
         .left = 1},
        {.n = 2,
         .h = 9,
         .w = 17,
         .ic = 32,
         .oh = 5,
         .ow = 9,
         .oc = 64,
         .stride = 2,
         .top = 1,
         .left = 1},
        {.n = 2,
         .h = 8,
         .w = 16,
         .ic = 32,
         .oh = 4,
         .ow = 8,
         .oc = 64,
         .stride = 2,
         .top = 0,
         .left = 0},
        {.n = 3,
         .h = 8,
         .w = 8,
         .ic = 64,
         .oh = 4,
         .ow = 4,
         .oc = 128,
         .stride = 2,
         .top = 1,
         .left = 1},
        {.n = 2,
         .h = 9,
         .w = 17,
         .ic = 32,
         .oh = 4,
         .ow = 8,
         .oc = 32,
         .stride = 2,
         .top = 0,
         .left = 0},
        /* no pads, and the widest; other numbers of rows and columns */
        {.n = 2,
         .h = 6,
         .w = 18,
         .ic = 16,
         .oh = 4,
         .ow = 16,
         .oc = 16,
         .stride = 1,
         .top = 0,
         .left = 0},
        {.n = 2,
         .h = 4,
         .w = 8,
         .ic = 32,
         .oh = 6,
         .ow = 10,
         .oc = 32,
         .stride = 1,
         .top = 2,
         .left = 2},
        {.n = 2,
         .h = 6,
         .w = 9,
         .ic = 32,
         .oh = 6,
         .ow = 8,
         .oc = 32,
         .stride = 1,
         .top = 0,
         .left = 1},
        /* more rows than scratch memory takes at once, in all three */
        {.n = 1,
         .h = 61,
         .w = 60,
         .ic = 64,
         .oh = 61,
         .ow = 60,
         .oc = 32,
         .stride = 1,
         .top = 1,
         .left = 1},
        {.n = 1,
         .h = 90,
         .w = 80,
         .ic = 32,
         .oh = 45,
         .ow = 40,
         .oc = 64,
         .stride = 2,
         .top = 1,
         .left = 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        conv3_check(&cases[i]);
}
