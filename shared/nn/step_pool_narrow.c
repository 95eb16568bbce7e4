/*
 * MaxPool of 8 bits, channels last: the greatest of a window's rows first, over whole rows of the
 * picture, then of its columns. Plain loops that the compiler vectorises.
 */
#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/nn/step_narrow.h"

KERNEL_FILE

struct narrow_pool {
    struct window w;
    int64_t n, channels;
    int threads;
    bool is_signed;
    uint8_t *rows; /* [threads, width * channels] */
};

/* ---- loops; `flip` (128 in signed numbers' bytes) makes them compare as unsigned ---- */

KERNEL_INLINE void greater_body(const uint8_t *restrict from, uint8_t flip, uint8_t *restrict to,
                                int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        const uint8_t a = from[i] ^ flip, b = to[i];
        to[i] = a > b ? a : b;
    }
}
KERNEL(greater, (const uint8_t *restrict from, uint8_t flip, uint8_t *restrict to, int64_t n),
       (from, flip, to, n))

KERNEL_INLINE void flip_body(const uint8_t *restrict from, uint8_t flip, uint8_t *restrict to,
                             int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = from[i] ^ flip;
}
KERNEL(flip, (const uint8_t *restrict from, uint8_t flip, uint8_t *restrict to, int64_t n),
       (from, flip, to, n))

KERNEL_INLINE void three_rows_body(const uint8_t *restrict from, int64_t bytes, uint8_t flip,
                                   uint8_t *restrict to)
{
    for (int64_t i = 0; i < bytes; i++) {
        const uint8_t a = from[i] ^ flip, b = from[bytes + i] ^ flip,
                      c = from[2 * bytes + i] ^ flip;
        const uint8_t most = a > b ? a : b;
        to[i] = most > c ? most : c;
    }
}
KERNEL(three_rows,
       (const uint8_t *restrict from, int64_t bytes, uint8_t flip, uint8_t *restrict to),
       (from, bytes, flip, to))

/* `count` windows of three columns, all inside. */
KERNEL_INLINE void three_columns_body(const uint8_t *restrict row, int64_t count, int64_t apart,
                                      int64_t channels, uint8_t flip, uint8_t *restrict to)
{
    for (; count > 0; count--, row += apart, to += channels)
        for (int64_t c = 0; c < channels; c++) {
            const uint8_t a = row[c], b = row[channels + c], d = row[2 * channels + c];
            const uint8_t most = a > b ? a : b;
            to[c] = (most > d ? most : d) ^ flip;
        }
}
KERNEL(three_columns,
       (const uint8_t *restrict row, int64_t count, int64_t apart, int64_t channels, uint8_t flip,
        uint8_t *restrict to),
       (row, count, apart, channels, flip, to))

/* ---- the step ---- */

static int64_t least(int64_t a, int64_t b)
{
    return a < b ? a : b;
}

static int64_t most(int64_t a, int64_t b)
{
    return a > b ? a : b;
}

/* Windows `first` to `last` - 1 of a row, of any width and at the borders. */
static void any_columns(const struct narrow_pool *p, const uint8_t *row, int64_t first,
                        int64_t last, uint8_t sign, uint8_t *to)
{
    for (int64_t x = first; x < last; x++) {
        const int64_t begin = x * p->w.stride[1] - p->w.pad_begin[1];
        const int64_t end = least(begin + p->w.kernel[1], p->w.in[1]);
        uint8_t *pixel = to + x * p->channels;
        memset(pixel, 0, (size_t)p->channels);
        for (int64_t at = most(begin, 0); at < end; at++)
            KERNEL_PICK(greater)(row + at * p->channels, 0, pixel, p->channels);
        for (int64_t c = 0; c < p->channels; c++)
            pixel[c] ^= sign;
    }
}

static void pool_row(const struct narrow_pool *p, const uint8_t *in, int64_t y, uint8_t *row,
                     uint8_t *to)
{
    const uint8_t sign = p->is_signed ? 128 : 0;
    const int64_t begin = y * p->w.stride[0] - p->w.pad_begin[0], bytes = p->w.in[1] * p->channels;
    const int64_t end = least(begin + p->w.kernel[0], p->w.in[0]);
    if (begin >= 0 && end - begin == 3) {
        KERNEL_PICK(three_rows)(in + begin * bytes, bytes, sign, row);
    } else {
        KERNEL_PICK(flip)(in + most(begin, 0) * bytes, sign, row, bytes);
        for (int64_t at = most(begin, 0) + 1; at < end; at++)
            KERNEL_PICK(greater)(in + at * bytes, sign, row, bytes);
    }
    /* windows that lie inside: from the first that begins at 0 or behind it */
    const int64_t stride = p->w.stride[1], pad = p->w.pad_begin[1];
    int64_t first = 0, last = 0;
    if (p->w.kernel[1] == 3 && p->w.in[1] + pad >= 3) {
        first = least((pad + stride - 1) / stride, p->w.out[1]);
        last = most(first, least((p->w.in[1] + pad - 3) / stride + 1, p->w.out[1]));
        KERNEL_PICK(three_columns)
        (row + (first * stride - pad) * p->channels, last - first, stride * p->channels,
         p->channels, sign, to + first * p->channels);
    }
    any_columns(p, row, 0, first, sign, to);
    any_columns(p, row, last, p->w.out[1], sign, to);
}

static int run_pool(struct step *step, struct err *err)
{
    (void)err;
    const struct narrow_pool *p = step->state;
    const int64_t total = p->n * p->w.out[0];
#pragma omp parallel for schedule(static, 1) num_threads(p->threads) if (p->threads > 1)
    for (int t = 0; t < p->threads; t++)
        for (int64_t i = total * t / p->threads; i < total * (t + 1) / p->threads; i++)
            pool_row(p,
                     (const uint8_t *)step->data[0] +
                         i / p->w.out[0] * p->w.in[0] * p->w.in[1] * p->channels,
                     i % p->w.out[0], p->rows + t * p->w.in[1] * p->channels,
                     (uint8_t *)step->data[1] + i * p->w.out[1] * p->channels);
    return 0;
}

/* ---- what it can run ---- */

/* Every window has a pixel inside. */
static bool none_empty(const struct window *w)
{
    for (int d = 0; d < 2; d++)
        if (w->dilation[d] != 1 || w->pad_begin[d] >= w->kernel[d] ||
            (w->out[d] - 1) * w->stride[d] - w->pad_begin[d] >= w->in[d])
            return false;
    return true;
}

static int list_pool(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    const enum dtype dtype = layer->in[0].dtype;
    const struct window *w = &layer->pool.w;
    if (in != LAYOUT_LAST || out != LAYOUT_LAST || layer->pool.alg != dnnl_pooling_max ||
        (dtype != DTYPE_U8 && dtype != DTYPE_S8) || m->plan->wires[layer->out[0]].dtype != dtype ||
        w->rank != 2 || !none_empty(w))
        return 0;
    const struct choice choice = {.by = &narrow_max_pool, .in = in, .out = out};
    return choices_add(choices, &choice, err);
}

static int make_pool(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
    (void)choice;
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    struct narrow_pool *p = arena_alloc(m->arena, 1, sizeof(*p));
    if (!p)
        return err_oom(err, "a pool");
    *p = (struct narrow_pool){.w = layer->pool.w,
                              .n = in->shape.dim[0],
                              .channels = in->shape.dim[1],
                              .threads = m->options->threads,
                              .is_signed = layer->in[0].dtype == DTYPE_S8};
    p->rows = arena_alloc(m->arena, (size_t)(p->threads * p->w.in[1] * p->channels), 1);
    if (!p->rows)
        return err_oom(err, "a pool");
    step->state = p;
    step->run = run_pool;
    step->info.implementation = narrow_max_pool.name;
    return 0;
}

const struct implementation narrow_max_pool = {
    .name = "rows", .list = list_pool, .make = make_pool};
