/* 8 bits: tables, arithmetic of two tensors, means. Plain loops that the compiler vectorises. */
#include "shared/nn/step_narrow.h"

#include <math.h>
#include <string.h>

#include "shared/nn/kernel.h"

KERNEL_FILE

/* ---- tables ---- */

struct table {
    uint8_t of[256];
    size_t n;
};

static int run_table(struct step *step, struct err *err)
{
    (void)err;
    const struct table *t = step->state;
    const uint8_t *from = step->data[0];
    uint8_t *to = step->data[1];
    for (size_t i = 0; i < t->n; i++)
        to[i] = t->of[from[i]];
    return 0;
}

/* Elementwise: any layout without padding. */
static int list_same(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     const struct implementation *by, struct choices *choices, struct err *err)
{
    (void)m, (void)layer;
    if (in != out || layout_block(in) > 1)
        return 0;
    const struct choice choice = {.by = by, .in = in, .out = out};
    return choices_add(choices, &choice, err);
}

static int list_table(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    return list_same(m, layer, in, out, &narrow_table, choices, err);
}

static int make_table(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    (void)choice;
    struct table *t = arena_alloc(m->arena, 1, sizeof(*t));
    if (!t)
        return err_oom(err, "a table");
    memcpy(t->of, layer->table, sizeof(t->of));
    t->n = (size_t)shape_elements(&m->plan->wires[layer->out[0]].shape);
    step->state = t;
    step->run = run_table;
    step->info.implementation = "table";
    return 0;
}

const struct implementation narrow_table = {
    .name = "table", .list = list_table, .make = make_table};

/* ---- a + b, a - b, a * b, a / b ---- */

enum { CHUNK = 512 };

struct end {
    enum dtype dtype;
    float scale, zero;
};

struct binary {
    dnnl_alg_kind_t alg;
    struct end a, b, out;
    float low, high; /* of the result, in its own quanta: saturation and activations */
    int64_t n;
};

KERNEL_INLINE void widen_u8_body(const uint8_t *q, float scale, int32_t zero, float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(q[i] - zero) * scale;
}
KERNEL(widen_u8, (const uint8_t *q, float scale, int32_t zero, float *to, int64_t n),
       (q, scale, zero, to, n))

KERNEL_INLINE void widen_s8_body(const int8_t *q, float scale, int32_t zero, float *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(q[i] - zero) * scale;
}
KERNEL(widen_s8, (const int8_t *q, float scale, int32_t zero, float *to, int64_t n),
       (q, scale, zero, to, n))

/* (q - zero) * scale; floats are taken as they are. */
static const float *widen(const struct end *e, const void *data, int64_t at, float *to, int64_t n)
{
    if (e->dtype == DTYPE_U8)
        KERNEL_PICK(widen_u8)((const uint8_t *)data + at, e->scale, (int32_t)e->zero, to, n);
    else if (e->dtype == DTYPE_S8)
        KERNEL_PICK(widen_s8)((const int8_t *)data + at, e->scale, (int32_t)e->zero, to, n);
    else
        return (const float *)data + at;
    return to;
}

KERNEL_INLINE void combine_body(dnnl_alg_kind_t alg, const float *a, const float *b, float *to,
                                int64_t n)
{
    if (alg == dnnl_binary_add)
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] + b[i];
    else if (alg == dnnl_binary_sub)
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] - b[i];
    else if (alg == dnnl_binary_mul)
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] * b[i];
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = a[i] / b[i];
}
KERNEL(combine, (dnnl_alg_kind_t alg, const float *a, const float *b, float *to, int64_t n),
       (alg, a, b, to, n))

/* Adding and taking away 1.5 * 2^23 rounds to the nearest integer, to even, in any vector unit. */
KERNEL_INLINE void narrow_body(const float *x, float scale, float zero, float low, float high,
                               int32_t *to, int64_t n)
{
    const float magic = 12582912.0f;
    for (int64_t i = 0; i < n; i++) {
        float q = x[i] / scale;
        q = q > low - zero ? q : low - zero; /* NaN becomes the lower bound */
        q = q < high - zero ? q : high - zero;
        to[i] = (int32_t)((q + magic) - magic) + (int32_t)zero;
    }
}
KERNEL(narrow,
       (const float *x, float scale, float zero, float low, float high, int32_t *to, int64_t n),
       (x, scale, zero, low, high, to, n))

static int run_binary(struct step *step, struct err *err)
{
    (void)err;
    const struct binary *p = step->state;
    float a[CHUNK], b[CHUNK], c[CHUNK];
    int32_t q[CHUNK];
    uint8_t *to = step->data[2];
    for (int64_t at = 0; at < p->n; at += CHUNK) {
        int64_t n = p->n - at < CHUNK ? p->n - at : CHUNK;
        const float *x = widen(&p->a, step->data[0], at, a, n);
        const float *y = widen(&p->b, step->data[1], at, b, n);
        KERNEL_PICK(combine)(p->alg, x, y, c, n);
        KERNEL_PICK(narrow)(c, p->out.scale, p->out.zero, p->low, p->high, q, n);
        for (int64_t i = 0; i < n; i++)
            to[at + i] = (uint8_t)q[i];
    }
    return 0;
}

static struct end end_of(const struct wire *w, enum dtype dtype)
{
    return (struct end){.dtype = dtype, .scale = w->scale, .zero = (float)w->zero};
}

static int list_binary(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                       struct choices *choices, struct err *err)
{
    return list_same(m, layer, in, out, &narrow_binary, choices, err);
}

static int make_binary(struct maker *m, const struct layer *layer, const struct choice *choice,
                       struct step *step, struct err *err)
{
    (void)choice;
    const struct wire *wires = m->plan->wires, *out = &wires[layer->out[0]];
    struct binary *p = arena_alloc(m->arena, 1, sizeof(*p));
    if (!p)
        return err_oom(err, "arithmetic");
    *p = (struct binary){.alg = layer->alg,
                         .a = end_of(&wires[layer->in[0].wire], layer->in[0].dtype),
                         .b = end_of(&wires[layer->in[1].wire], layer->in[1].dtype),
                         .out = end_of(out, out->dtype),
                         .low = out->dtype == DTYPE_U8 ? 0 : -128,
                         .n = shape_elements(&out->shape)};
    p->high = p->low + 255;
    for (int i = 0; i < layer->n_posts; i++) { /* relu and clip only: see lower_simple.c */
        const struct post *post = &layer->posts[i];
        bool relu = post->alg == dnnl_eltwise_relu;
        float low = (relu ? 0 : post->alpha) / p->out.scale + p->out.zero;
        float high = (relu ? INFINITY : post->beta) / p->out.scale + p->out.zero;
        p->low = low > p->low ? low : p->low;
        p->high = high < p->high ? high : p->high;
    }
    step->state = p;
    step->run = run_binary;
    step->info.implementation = "loop";
    return 0;
}

const struct implementation narrow_binary = {
    .name = "loop", .list = list_binary, .make = make_binary};

/* ---- the mean of each channel ---- */

struct mean {
    int64_t n, channels, pixels;
    bool last; /* channels last, else plain */
    enum dtype in, out;
    float scale, zero; /* of the input */
    bool quantized;
    float out_scale, out_zero;
};

KERNEL_INLINE void sum_pixels_body(const uint8_t *q, int32_t flip, int64_t pixels, int64_t channels,
                                   int32_t *sums)
{
    for (int64_t c = 0; c < channels; c++)
        sums[c] = 0;
    for (int64_t p = 0; p < pixels; p++)
        for (int64_t c = 0; c < channels; c++)
            sums[c] += q[p * channels + c] ^ flip;
}
KERNEL(sum_pixels,
       (const uint8_t *q, int32_t flip, int64_t pixels, int64_t channels, int32_t *sums),
       (q, flip, pixels, channels, sums))

KERNEL_INLINE void sum_row_body(const uint8_t *q, int32_t flip, int64_t pixels, int32_t *sum)
{
    int32_t total = 0;
    for (int64_t p = 0; p < pixels; p++)
        total += q[p] ^ flip;
    *sum = total;
}
KERNEL(sum_row, (const uint8_t *q, int32_t flip, int64_t pixels, int32_t *sum),
       (q, flip, pixels, sum))

static void store_means(const struct mean *p, const int32_t *sums, int32_t bias, void *to,
                        int64_t at)
{
    for (int64_t c = 0; c < p->channels; c++) {
        float mean = ((float)(sums[c] - bias) / (float)p->pixels - p->zero) * p->scale;
        if (!p->quantized) {
            ((float *)to)[at + c] = mean;
            continue;
        }
        float q = rintf(mean / p->out_scale) + p->out_zero;
        float low = p->out == DTYPE_U8 ? 0 : -128, high = low + 255;
        q = q < low ? low : q > high ? high : q;
        ((uint8_t *)to)[at + c] = (uint8_t)(int32_t)q;
    }
}

static int run_mean(struct step *step, struct err *err)
{
    (void)err;
    const struct mean *p = step->state;
    const uint8_t *q = step->data[0];
    int32_t *sums = step->scratch;
    /* Signed bytes are read as unsigned ones, 128 more: bit 7 flipped. */
    int32_t flip = p->in == DTYPE_S8 ? 128 : 0;
    int32_t bias = flip ? (int32_t)(128 * p->pixels) : 0;
    for (int64_t n = 0; n < p->n; n++, q += p->pixels * p->channels) {
        if (p->last)
            KERNEL_PICK(sum_pixels)(q, flip, p->pixels, p->channels, sums);
        else
            for (int64_t c = 0; c < p->channels; c++)
                KERNEL_PICK(sum_row)(q + c * p->pixels, flip, p->pixels, &sums[c]);
        store_means(p, sums, bias, step->data[1], n * p->channels);
    }
    return 0;
}

/* The output is [N, C, 1, 1]: PLAIN whatever the input. */
static int list_mean(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    int64_t pixels = 1;
    for (int d = 0; d < layer->pool.w.rank; d++)
        pixels *= layer->pool.w.in[d];
    if (pixels > (int64_t)1 << 22) /* sums fit 32 bits */
        return 0;
    return list_same(m, layer, in, out, &narrow_mean, choices, err);
}

static int make_mean(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    const struct wire *out = &m->plan->wires[layer->out[0]];
    struct mean *p = arena_alloc(m->arena, 1, sizeof(*p));
    if (!p)
        return err_oom(err, "a mean");
    *p = (struct mean){.n = in->shape.dim[0],
                       .channels = in->shape.dim[1],
                       .pixels = 1,
                       .last = layout_canonical(choice->in, &in->shape) == LAYOUT_LAST,
                       .in = in->dtype,
                       .out = out->dtype,
                       .scale = in->scale,
                       .zero = (float)in->zero,
                       .quantized = out->quantized,
                       .out_scale = out->scale,
                       .out_zero = (float)out->zero};
    for (int d = 2; d < in->shape.rank; d++)
        p->pixels *= in->shape.dim[d];
    step->state = p;
    step->run = run_mean;
    step->scratch_bytes = (size_t)p->channels * sizeof(int32_t);
    step->info.implementation = "loop";
    return 0;
}

const struct implementation narrow_mean = {.name = "loop", .list = list_mean, .make = make_mean};
