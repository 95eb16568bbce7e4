/*
 * Direct convolution, u8 activations by s8 weights, for shapes that libraries serve badly: few
 * channels on many pixels.
 *
 * Activations lie in C4: [N, C/4, H, W, 4]. One vector register holds 16 neighbouring pixels, 4
 * channels each; one vpdpbusd multiplies them with 4 weights of one output channel, broadcast from
 * memory, and adds to the 16 pixels' sums of that channel. A tile is 32 pixels by 8 output channels
 * (16 by 16 where a picture has no more than 16 pixels): its 16 sums stay in registers over all
 * taps, and weights lie in the order in which they are read.
 *
 * The output's pixels are numbered through; block b has pixels 16 b to 16 b + 15. For each block
 * and tap a table says where the source pixels begin and which lanes are inside the image; the
 * others read the input's zero point, so that padding costs nothing and zero points need no
 * correction at the border. With stride 2 a block's pixels come from two stretches of 16, of which
 * every other one is taken; each stretch serves 8 output pixels.
 *
 * step_direct_avx2.c has the same for AVX2.
 */
#include "shared/nn/step_direct.h"

#include <math.h>
#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/nn/step_direct_priv.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* ---- plain C ---- */

static uint32_t pixel_plain(const struct direct *d, const uint32_t *plane, const struct tap *tap,
                            int i)
{
    int half = d->stride == 1 ? 0 : i / 8;
    int lane = d->stride == 1 ? i : 2 * (i % 8);
    return tap->mask[half] >> lane & 1 ? plane[tap->from[half] + lane] : d->zero;
}

static int32_t dot_plain(uint32_t x, int32_t w)
{
    int32_t sum = 0;
    for (int c = 0; c < 4; c++)
        sum += (int32_t)(x >> 8 * c & 255) * (int8_t)((uint32_t)w >> 8 * c & 255);
    return sum;
}

static void block_plain(const struct direct *d, const struct tile *tile, int block)
{
    int32_t sums[MOST_OUTPUTS][LANES] = {0};
    const struct tap *tap = tile->taps + block * d->n_taps;
    const int32_t *w = tile->weights;
    for (int t = 0; t < d->n_taps; t++, tap++)
        for (int64_t g = 0; g < d->in_groups; g++, w += d->outputs)
            for (int i = 0; i < LANES; i++)
                for (int o = 0; o < d->outputs; o++)
                    sums[o][i] +=
                        dot_plain(pixel_plain(d, tile->in + g * d->in_plane, tap, i), w[o]);
    for (int o = 0; o < 4 * tile->groups; o++) {
        uint32_t *out = tile->out + o / 4 * d->out_plane + block * LANES;
        int shift = 8 * (o % 4);
        for (int i = 0; i < LANES && block * LANES + i < tile->pixels; i++) {
            float y = (float)sums[o][i] * tile->scale[o] + tile->bias[o];
            if (d->adds)
                y += d->residual * (float)(out[i] >> shift & 255);
            y = fminf(fmaxf(y, d->low), d->high);
            out[i] = (out[i] & ~(255u << shift)) | (uint32_t)rintf(y) << shift;
        }
    }
}

static void tile_plain(const struct direct *d, const struct tile *tile)
{
    for (int block = 0; block < d->blocks; block++)
        block_plain(d, tile, block);
}

/* ---- AVX-512 VNNI ---- */

#if defined(__x86_64__)
#define VNNI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vnni")))

VNNI KERNEL_INLINE __m512i load_pixels(const uint32_t *plane, const struct tap *tap, int stride,
                                       __m512i zero)
{
    __m512i first = _mm512_mask_loadu_epi32(zero, tap->mask[0], plane + tap->from[0]);
    if (stride == 1)
        return first;
    const __m512i even =
        _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    __m512i second = _mm512_mask_loadu_epi32(zero, tap->mask[1], plane + tap->from[1]);
    return _mm512_permutex2var_epi32(first, even, second);
}

/* What a tile's code is made for, so that its loops hold no decisions. */
struct shape_of_tile {
    int stride;
    bool adds, bounds; /* there is a residual; there are bounds besides those of 8 bits */
};

/* Sums of one output channel, scaled, biased, with channel o % 4 of the residual. */
VNNI KERNEL_INLINE __m512i finish(const struct direct *d, const struct tile *tile, __m512i sums,
                                  int o, __m512i residual, struct shape_of_tile s)
{
    __m512 y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(sums), _mm512_set1_ps(tile->scale[o]),
                               _mm512_set1_ps(tile->bias[o]));
    if (s.adds) {
        __m512i r = _mm512_srli_epi32(residual, (unsigned)(8 * (o % 4)));
        if (o % 4 != 3)
            r = _mm512_and_si512(r, _mm512_set1_epi32(255));
        y = _mm512_fmadd_ps(_mm512_cvtepi32_ps(r), _mm512_set1_ps(d->residual), y);
    }
    if (s.bounds)
        y = _mm512_min_ps(_mm512_max_ps(y, _mm512_set1_ps(d->low)), _mm512_set1_ps(d->high));
    return _mm512_cvtps_epi32(y);
}

/* Four channels of 16 pixels, packed (which saturates) and stored. */
VNNI KERNEL_INLINE void store4(const struct direct *d, const struct tile *tile, int block, int o,
                               __m512i a, __m512i b, __m512i c, __m512i e, struct shape_of_tile s)
{
    int left = tile->pixels - block * LANES;
    if (o / 4 >= tile->groups || left <= 0)
        return;
    const __m512i order =
        _mm512_broadcast_i32x4(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __mmask16 mask = (__mmask16)(left >= LANES ? 0xffffu : (1u << left) - 1);
    uint32_t *out = tile->out + o / 4 * d->out_plane + block * LANES;
    __m512i residual = _mm512_setzero_si512();
    if (s.adds)
        residual = _mm512_maskz_loadu_epi32(mask, out);
    __m512i low = _mm512_packs_epi32(finish(d, tile, a, o, residual, s),
                                     finish(d, tile, b, o + 1, residual, s));
    __m512i high = _mm512_packs_epi32(finish(d, tile, c, o + 2, residual, s),
                                      finish(d, tile, e, o + 3, residual, s));
    _mm512_mask_storeu_epi32(out, mask, _mm512_shuffle_epi8(_mm512_packus_epi16(low, high), order));
}

#define EACH8(X) X(0) X(1) X(2) X(3) X(4) X(5) X(6) X(7)
#define EACH16(X) EACH8(X) X(8) X(9) X(10) X(11) X(12) X(13) X(14) X(15)

/* 32 pixels by 8 channels: each broadcast weight is used twice. */
#define CLEAR_2(o) __m512i a##o = _mm512_setzero_si512(), b##o = a##o;
#define MULTIPLY_2(o)                                                                              \
    {                                                                                              \
        const __m512i v = _mm512_set1_epi32(w[o]);                                                 \
        a##o = _mm512_dpbusd_epi32(a##o, x, v);                                                    \
        b##o = _mm512_dpbusd_epi32(b##o, y, v);                                                    \
    }

VNNI KERNEL_INLINE void tile_2x8(const struct direct *d, const struct tile *tile,
                                 struct shape_of_tile s)
{
    const __m512i zero = _mm512_set1_epi32((int32_t)d->zero);
    const int64_t plane = d->in_plane;
    const int n_taps = d->n_taps;
    const int32_t *w = tile->weights;
    EACH8(CLEAR_2)
    for (int t = 0; t < n_taps; t++) {
        const struct tap first = tile->taps[t], second = tile->taps[n_taps + t];
        const uint32_t *in = tile->in;
        if (s.stride == 1 && (first.mask[0] & second.mask[0]) == 0xffff) {
            /* masks take part in the units that multiply: without, where all lanes are inside */
            in += first.from[0];
            const int64_t apart = second.from[0] - first.from[0];
            for (int64_t g = d->in_groups; g > 0; g--) {
                const __m512i x = _mm512_loadu_si512(in), y = _mm512_loadu_si512(in + apart);
                EACH8(MULTIPLY_2)
                in += plane;
                w += 8;
            }
            continue;
        }
        for (int64_t g = d->in_groups; g > 0; g--) {
            const __m512i x = load_pixels(in, &first, s.stride, zero);
            const __m512i y = load_pixels(in, &second, s.stride, zero);
            EACH8(MULTIPLY_2)
            in += plane;
            w += 8;
        }
    }
    store4(d, tile, 0, 0, a0, a1, a2, a3, s);
    store4(d, tile, 0, 4, a4, a5, a6, a7, s);
    store4(d, tile, 1, 0, b0, b1, b2, b3, s);
    store4(d, tile, 1, 4, b4, b5, b6, b7, s);
}

/* 16 pixels by 16 channels. Inline assembly, for compilers do not use the broadcasting operand. */
#define CLEAR_1(o) __m512i a##o = _mm512_setzero_si512();
#define MULTIPLY_1(o) __asm__("vpdpbusd %2%{1to16%}, %1, %0" : "+v"(a##o) : "v"(x), "m"(w[o]));

VNNI KERNEL_INLINE void tile_1x16(const struct direct *d, const struct tile *tile,
                                  struct shape_of_tile s)
{
    const __m512i zero = _mm512_set1_epi32((int32_t)d->zero);
    const int64_t plane = d->in_plane;
    const int32_t *w = tile->weights;
    EACH16(CLEAR_1)
    for (int t = 0; t < d->n_taps; t++) {
        const struct tap tap = tile->taps[t];
        const uint32_t *in = tile->in;
        for (int64_t g = d->in_groups; g > 0; g--) {
            const __m512i x = load_pixels(in, &tap, s.stride, zero);
            EACH16(MULTIPLY_1)
            in += plane;
            w += 16;
        }
    }
    store4(d, tile, 0, 0, a0, a1, a2, a3, s);
    store4(d, tile, 0, 4, a4, a5, a6, a7, s);
    store4(d, tile, 0, 8, a8, a9, a10, a11, s);
    store4(d, tile, 0, 12, a12, a13, a14, a15, s);
}

#define TILE(name, shape, stride, adds, bounds)                                                    \
    VNNI static void name(const struct direct *d, const struct tile *tile)                         \
    {                                                                                              \
        shape(d, tile, (struct shape_of_tile){stride, adds, bounds});                              \
    }
#define TILES(shape, stride)                                                                       \
    TILE(shape##_s##stride, shape, stride, false, false)                                           \
    TILE(shape##_s##stride##_bounds, shape, stride, false, true)                                   \
    TILE(shape##_s##stride##_adds, shape, stride, true, false)                                     \
    TILE(shape##_s##stride##_adds_bounds, shape, stride, true, true)
TILES(tile_2x8, 1)
TILES(tile_2x8, 2)
TILES(tile_1x16, 1)
TILES(tile_1x16, 2)

#define PICK(shape, stride)                                                                        \
    {                                                                                              \
        {shape##_s##stride, shape##_s##stride##_bounds},                                           \
        {                                                                                          \
            shape##_s##stride##_adds, shape##_s##stride##_adds_bounds                              \
        }                                                                                          \
    }
/* [one block][stride 2][adds][bounds] */
static tile_fn *const tiles[2][2][2][2] = {{PICK(tile_2x8, 1), PICK(tile_2x8, 2)},
                                           {PICK(tile_1x16, 1), PICK(tile_1x16, 2)}};
#endif

/* ---- the step ---- */

/* Tiles `first` to `last` - 1 of all: by sample, outputs, pixels. */
static void run_range(const struct step *step, tile_fn *run, int64_t first, int64_t last)
{
    const struct direct *d = step->state;
    const uint32_t *in = step->data[0];
    uint32_t *out = step->data[step->n_args - 1];
    const int64_t in_row = d->n_blocks / d->blocks;
    const int64_t of_tile = (int64_t)d->n_taps * d->in_groups * d->outputs * (d->wide ? 2 : 1);
    while (first < last) {
        const int64_t n = first / in_row / d->out_tiles, k = first / in_row % d->out_tiles;
        const int64_t group = k * d->outputs / 4, groups = d->out_groups - group;
        const int64_t from = first % in_row,
                      to = last - first < in_row - from ? from + last - first : in_row;
        struct tile tile = {.in = in + n * d->in_groups * d->in_plane,
                            .weights = d->weights + k * of_tile,
                            .scale = d->scale + k * d->outputs,
                            .bias = d->bias + k * d->outputs,
                            .groups = groups < d->outputs / 4 ? (int)groups : d->outputs / 4};
        uint32_t *plane = out + (n * d->out_groups + group) * d->out_plane;
        for (int64_t i = from * d->blocks; i < to * d->blocks; i += d->blocks) {
            int64_t left = d->out_pixels - i * LANES;
            tile.taps = d->taps + i * d->n_taps;
            tile.out = plane + i * LANES;
            tile.pixels = left < LANES * d->blocks ? (int)left : LANES * d->blocks;
            run(d, &tile);
        }
        first += to - from;
    }
}

static void run_tiles(const struct step *step, tile_fn *run)
{
    const struct direct *d = step->state;
    const int64_t total = d->n * d->out_tiles * (d->n_blocks / d->blocks);
    if (d->threads == 1) {
        run_range(step, run, 0, total);
        return;
    }
#pragma omp parallel for schedule(static, 1) num_threads(d->threads)
    for (int i = 0; i < d->threads; i++)
        run_range(step, run, total * i / d->threads, total * (i + 1) / d->threads);
}

static int run_plain(struct step *step, struct err *err)
{
    (void)err;
    run_tiles(step, tile_plain);
    return 0;
}

#if defined(__x86_64__)
static int run_vnni(struct step *step, struct err *err)
{
    (void)err;
    const struct direct *d = step->state;
    run_tiles(step, tiles[d->blocks == 1][d->stride == 2][d->adds][d->bounds]);
    return 0;
}

static int run_avx2(struct step *step, struct err *err)
{
    (void)err;
    const struct direct *d = step->state;
    run_tiles(step, d->wide ? direct_avx2_madd_of(d) : direct_avx2_vnni_of(d));
    return 0;
}
#endif

/* ---- what it can run ---- */

bool direct_simple_posts(const struct layer *layer)
{
    for (int i = 0; i < layer->n_posts; i++) {
        const struct post *post = &layer->posts[i];
        bool sum = post->kind == POST_ADD && post->operand == layer->sum && i == 0;
        bool bound =
            post->kind == POST_UNARY && ((post->alg == dnnl_eltwise_relu && post->alpha == 0) ||
                                         post->alg == dnnl_eltwise_clip);
        if (!sum && !bound)
            return false;
    }
    return true;
}

/* Stride 1 that keeps the picture's size, or stride 2 that halves it in rows of whole stretches. */
static bool fitting_window(const struct window *w)
{
    int64_t s = w->stride[0];
    if (w->rank != 2 || w->group != 1 || w->stride[1] != s)
        return false;
    if (s == 1)
        return w->out[0] == w->in[0] && w->out[1] == w->in[1];
    return s == 2 && w->in[1] == 2 * w->out[1] && w->out[1] % 8 == 0;
}

static bool can_run(const struct maker *m, const struct layer *layer)
{
    const struct conv *c = &layer->conv;
    const struct wire *out = &m->plan->wires[layer->out[0]];
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    if (layer->precision != PRECISION_INT8 || c->transposed || in->dtype != DTYPE_U8 ||
        !out->quantized || out->dtype != DTYPE_U8 || layer->n_in > 2 ||
        (layer->n_in == 2 && (layer->sum != 1 || layer->in[1].dtype != DTYPE_U8)))
        return false;
    int64_t pixels = c->w.in[0] * c->w.in[1];
    return direct_simple_posts(layer) && fitting_window(&c->w) && pixels < ((int64_t)1 << 28) &&
           c->w.kernel[0] * c->w.kernel[1] <= 64;
}

static int list_direct(const struct implementation *by, const struct maker *m,
                       const struct layer *layer, enum layout in, enum layout out,
                       struct choices *choices, bool last_resort, struct err *err)
{
    if (in != LAYOUT_C4 || out != LAYOUT_C4 || !can_run(m, layer))
        return 0;
    const struct choice choice = {.by = by, .in = in, .out = out, .last_resort = last_resort};
    return choices_add(choices, &choice, err);
}

static int list_vnni(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
    if (kernel_level() != KERNEL_AVX512 || !nn_has_int8())
        return 0;
    return list_direct(&direct_vnni, m, layer, in, out, choices, false, err);
}

static bool is_forced(const struct maker *m, const struct implementation *by)
{
    const char *forced = m->options->implementation;
    return forced && strstr(by->name, forced);
}

/* Where there is no better kernel, or tests ask for it. */
static int list_avx2_vnni(struct maker *m, const struct layer *layer, enum layout in,
                          enum layout out, struct choices *choices, struct err *err)
{
#if defined(__x86_64__)
    const bool best = kernel_level() == KERNEL_AVX2 && nn_has_int8();
    if ((best || is_forced(m, &direct_avx2_vnni)) && kernel_level() >= KERNEL_AVX2 &&
        __builtin_cpu_supports("avxvnni"))
        return list_direct(&direct_avx2_vnni, m, layer, in, out, choices, false, err);
#else
    (void)m, (void)layer, (void)in, (void)out, (void)choices, (void)err;
#endif
    return 0;
}

static int list_avx2_madd(struct maker *m, const struct layer *layer, enum layout in,
                          enum layout out, struct choices *choices, struct err *err)
{
    if (kernel_level() < KERNEL_AVX2 || (nn_has_int8() && !is_forced(m, &direct_avx2_madd)))
        return 0;
    return list_direct(&direct_avx2_madd, m, layer, in, out, choices, false, err);
}

static int list_plain(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    if (!is_forced(m, &direct_plain)) /* too slow to be tried */
        return 0;
    return list_direct(&direct_plain, m, layer, in, out, choices, false, err);
}

/* ---- building ---- */

/* The stretch of source pixels for lanes that stand for output pixels p, p + 1, ... */
static void find_pixels(const struct window *w, int64_t p, int64_t lanes, int64_t ky, int64_t kx,
                        int32_t *ret_from, uint16_t *ret_mask)
{
    int64_t s = w->stride[0], step = s; /* lanes between two output pixels */
    int64_t y0 = p / w->out[1] * s + ky * w->dilation[0] - w->pad_begin[0];
    int64_t x0 = p % w->out[1] * s + kx * w->dilation[1] - w->pad_begin[1];
    *ret_from = (int32_t)(y0 * w->in[1] + x0);
    *ret_mask = 0;
    for (int64_t i = 0; i < lanes; i++) {
        int64_t at = p + i;
        if (at >= w->out[0] * w->out[1])
            break;
        int64_t y = at / w->out[1] * s + ky * w->dilation[0] - w->pad_begin[0];
        int64_t x = at % w->out[1] * s + kx * w->dilation[1] - w->pad_begin[1];
        if (y >= 0 && y < w->in[0] && x >= 0 && x < w->in[1])
            *ret_mask |= (uint16_t)(1u << i * step);
    }
}

static int make_taps(struct maker *m, const struct conv *c, struct direct *d, struct err *err)
{
    d->taps = arena_alloc(m->arena, (size_t)(d->n_blocks * d->n_taps), sizeof(*d->taps));
    if (!d->taps)
        return err_oom(err, "a convolution");
    struct tap *tap = d->taps;
    for (int64_t b = 0; b < d->n_blocks; b++)
        for (int64_t ky = 0; ky < c->w.kernel[0]; ky++)
            for (int64_t kx = 0; kx < c->w.kernel[1]; kx++, tap++)
                for (int half = 0; half < d->stride; half++)
                    find_pixels(&c->w, b * LANES + half * 8, LANES / d->stride, ky, kx,
                                &tap->from[half], &tap->mask[half]);
    return 0;
}

static int8_t weight_at(const struct conv *c, int64_t o, int64_t i, int64_t tap, int64_t n_taps)
{
    if (o >= c->oc || i >= c->ic)
        return 0;
    return ((const int8_t *)c->weights->data)[(o * c->ic + i) * n_taps + tap];
}

/* Channels i and i + 2 in the halves of a word. */
static int32_t two_weights(const struct conv *c, int64_t o, int64_t i, int64_t tap, int64_t n_taps)
{
    return (int32_t)((uint32_t)(uint16_t)weight_at(c, o, i, tap, n_taps) |
                     (uint32_t)(uint16_t)weight_at(c, o, i + 2, tap, n_taps) << 16);
}

static int pack_weights(struct maker *m, const struct conv *c, struct direct *d, struct err *err)
{
    int64_t n = d->out_tiles * d->n_taps * d->in_groups * d->outputs * (d->wide ? 2 : 1);
    d->weights = arena_alloc(m->arena, (size_t)n, sizeof(*d->weights));
    if (!d->weights)
        return err_oom(err, "weights");
    m->plan->packed_bytes += (size_t)n * sizeof(*d->weights);
    int32_t *to = d->weights;
    for (int64_t k = 0; k < d->out_tiles; k++)
        for (int64_t t = 0; t < d->n_taps; t++)
            for (int64_t g = 0; g < d->in_groups; g++)
                for (int64_t o = k * d->outputs; o < (k + 1) * d->outputs; o++, to++) {
                    if (d->wide) {
                        *to++ = two_weights(c, o, 4 * g, t, d->n_taps);
                        *to = two_weights(c, o, 4 * g + 1, t, d->n_taps);
                        continue;
                    }
                    for (int64_t i = 0; i < 4; i++) {
                        int8_t w = weight_at(c, o, 4 * g + i, t, d->n_taps);
                        *to = (int32_t)((uint32_t)*to | (uint32_t)(uint8_t)w << 8 * i);
                    }
                }
    return 0;
}

int direct_scales(struct maker *m, const struct layer *layer, struct direct *d, struct err *err)
{
    const struct conv *c = &layer->conv;
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    const struct wire *out = &m->plan->wires[layer->out[0]];
    size_t n = (size_t)(d->out_tiles * d->outputs);
    d->scale = arena_alloc(m->arena, n, sizeof(*d->scale));
    d->bias = arena_alloc(m->arena, n, sizeof(*d->bias));
    if (!d->scale || !d->bias)
        return err_oom(err, "scales");
    const int64_t inputs = c->ic / c->w.group * d->n_taps; /* of one output */
    float shift = (float)out->zero;
    d->low = 0;
    d->high = 255;
    for (int i = 0; i < layer->n_posts; i++) {
        const struct post *post = &layer->posts[i];
        if (post->kind == POST_ADD) {
            const struct wire *r = &m->plan->wires[layer->in[1].wire];
            d->adds = true;
            d->residual = r->scale / out->scale;
            shift -= d->residual * (float)r->zero;
            continue;
        }
        bool relu = post->alg == dnnl_eltwise_relu;
        d->low = fmaxf(d->low, (relu ? 0 : post->alpha) / out->scale + (float)out->zero);
        if (!relu)
            d->high = fminf(d->high, post->beta / out->scale + (float)out->zero);
    }
    d->bounds = d->low > 0 || d->high < 255;
    for (int64_t o = 0; o < c->oc; o++) {
        int64_t sum = 0; /* of the weights: the input's zero point counts that often */
        for (int64_t i = 0; i < inputs; i++)
            sum += ((const int8_t *)c->weights->data)[o * inputs + i];
        d->scale[o] = (float)((double)in->scale * (double)c->weight_scales[o] / (double)out->scale);
        d->bias[o] =
            (c->bias ? c->bias[o] / out->scale : 0) + shift - (float)(in->zero * sum) * d->scale[o];
        /* What does not fit 32 bits would become the least integer, not the greatest. */
        double most = 255.0 * 128 * (double)inputs * (double)d->scale[o] +
                      fabs((double)d->bias[o]) + 255.0 * (double)d->residual;
        d->bounds = d->bounds || !(most < 2e9);
    }
    return 0;
}

static int make_direct(struct maker *m, const struct layer *layer, bool avx2, bool wide,
                       struct step *step, struct err *err)
{
    const struct conv *c = &layer->conv;
    const struct wire *in = &m->plan->wires[layer->in[0].wire];
    const struct wire *out = &m->plan->wires[layer->out[0]];
    struct direct *d = arena_alloc(m->arena, 1, sizeof(*d));
    if (!d)
        return err_oom(err, "a convolution");
    *d = (struct direct){.n = c->n,
                         .in_groups = (c->ic + 3) / 4,
                         .out_groups = (c->oc + 3) / 4,
                         .in_plane = layout_plane(LAYOUT_C4, &in->shape),
                         .out_plane = layout_plane(LAYOUT_C4, &out->shape),
                         .out_pixels = c->w.out[0] * c->w.out[1],
                         .stride = (int)c->w.stride[0],
                         .n_taps = (int)(c->w.kernel[0] * c->w.kernel[1]),
                         .zero = (uint32_t)in->zero * 0x01010101u};
    d->threads = m->options->threads;
    d->wide = wide;
    d->blocks = d->out_pixels > LANES && !avx2 ? 2 : 1;
    d->outputs = avx2 ? 4 : d->out_pixels > LANES ? 8 : 16;
    d->out_tiles = (c->oc + d->outputs - 1) / d->outputs;
    d->n_blocks = (d->out_pixels + LANES * d->blocks - 1) / (LANES * d->blocks) * d->blocks;
    step->state = d;
    int rc = make_taps(m, c, d, err);
    if (rc == 0)
        rc = pack_weights(m, c, d, err);
    if (rc == 0)
        rc = direct_scales(m, layer, d, err);
    return rc;
}

static int make_plain(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    (void)choice;
    step->run = run_plain;
    step->info.implementation = direct_plain.name;
    return make_direct(m, layer, false, false, step, err);
}

static int make_vnni(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
#if defined(__x86_64__)
    (void)choice;
    step->run = run_vnni;
    step->info.implementation = direct_vnni.name;
    return make_direct(m, layer, false, false, step, err);
#else
    (void)m, (void)layer, (void)choice, (void)step, (void)err;
    return -ERR_UNIMPLEMENTED;
#endif
}

static int make_avx2(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
#if defined(__x86_64__)
    step->run = run_avx2;
    step->info.implementation = choice->by->name;
    return make_direct(m, layer, true, choice->by == &direct_avx2_madd, step, err);
#else
    (void)m, (void)layer, (void)choice, (void)step, (void)err;
    return -ERR_UNIMPLEMENTED;
#endif
}

const struct implementation direct_vnni = {
    .name = "direct:avx512_core_vnni", .list = list_vnni, .make = make_vnni};
const struct implementation direct_plain = {
    .name = "direct:plain", .list = list_plain, .make = make_plain};
const struct implementation direct_avx2_vnni = {
    .name = "direct:avx2_vnni", .list = list_avx2_vnni, .make = make_avx2};
const struct implementation direct_avx2_madd = {
    .name = "direct:avx2_madd", .list = list_avx2_madd, .make = make_avx2};
