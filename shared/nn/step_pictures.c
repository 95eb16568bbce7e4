/*
 * Pictures of bytes become the network's input: a table of 256 for each channel holds what the
 * caller's scale, mean and deviation make of each byte, and, where the stem computes in 8 bits,
 * what QuantizeLinear makes of that. So the result is that of the path through floats, bit for bit.
 *
 * With AVX-512 VBMI a table is four registers, which look up 64 bytes with two permutations.
 */
#include "shared/nn/step_pictures.h"

#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/nn/step_convert.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

/* Elements from pixel to pixel, channel to channel, sample to sample. */
struct strides {
    int64_t pixel, channel, sample;
};

struct pictures {
    int64_t n, pixels, channels;
    int64_t written; /* channels in memory: 4 in C4 */
    struct strides in, out;
    uint8_t from[MOST_PICTURE_CHANNELS]; /* the picture's channel that becomes channel c */
    const float *real;                   /* [channels, 256] */
    uint8_t narrow[MOST_PICTURE_CHANNELS][256];
    uint8_t gather[64], pack[64]; /* VBMI: loaded bytes to [16, 4]; [16, 4] to [16, channels] */
};

/* ---- plain C ---- */

static int run_narrow(struct step *step, struct err *err)
{
    (void)err;
    const struct pictures *p = step->state;
    for (int64_t n = 0; n < p->n; n++)
        for (int64_t c = 0; c < p->written; c++) {
            const uint8_t *table = p->narrow[c];
            const uint8_t *from =
                (const uint8_t *)step->data[0] + n * p->in.sample + p->from[c] * p->in.channel;
            uint8_t *to = (uint8_t *)step->data[1] + n * p->out.sample + c * p->out.channel;
            for (int64_t i = 0; i < p->pixels; i++)
                to[i * p->out.pixel] = table[from[i * p->in.pixel]];
        }
    return 0;
}

static int run_real(struct step *step, struct err *err)
{
    (void)err;
    const struct pictures *p = step->state;
    for (int64_t n = 0; n < p->n; n++)
        for (int64_t c = 0; c < p->channels; c++) {
            const float *table = p->real + c * 256;
            const uint8_t *from =
                (const uint8_t *)step->data[0] + n * p->in.sample + p->from[c] * p->in.channel;
            float *to = (float *)step->data[1] + n * p->out.sample + c * p->out.channel;
            for (int64_t i = 0; i < p->pixels; i++)
                to[i * p->out.pixel] = table[from[i * p->in.pixel]];
        }
    return 0;
}

/* ---- AVX-512 VBMI ---- */

#if defined(__x86_64__)
#define VBMI __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx512vbmi")))

/* The bytes of `count` (1 to 16) pixels: as they lie, or plane after plane. */
VBMI KERNEL_INLINE __m512i load_pixels(const struct pictures *p, const uint8_t *from, int64_t count,
                                       int channels)
{
    if (p->in.pixel > 1 || channels == 1) {
        const int64_t bytes = count * channels;
        return _mm512_maskz_loadu_epi8(~0ull >> (64 - bytes), from);
    }
    const __mmask16 mask = (__mmask16)(0xffffu >> (16 - count));
    __m128i plane[MOST_PICTURE_CHANNELS];
    for (int c = 0; c < MOST_PICTURE_CHANNELS; c++)
        plane[c] = c < channels ? _mm_maskz_loadu_epi8(mask, from + c * p->in.channel)
                                : _mm_setzero_si128();
    __m512i all = _mm512_castsi128_si512(plane[0]);
    all = _mm512_inserti64x2(all, plane[1], 1);
    all = _mm512_inserti64x2(all, plane[2], 2);
    return _mm512_inserti64x2(all, plane[3], 3);
}

struct registers {
    __m512i quarter[4];
};

VBMI KERNEL_INLINE __m512i look_up(const struct registers *table, __m512i at)
{
    const __m512i low = _mm512_permutex2var_epi8(table->quarter[0], at, table->quarter[1]);
    const __m512i high = _mm512_permutex2var_epi8(table->quarter[2], at, table->quarter[3]);
    return _mm512_mask_mov_epi8(low, _mm512_movepi8_mask(at), high);
}

/* `channels` is constant where this is called: then the tables stay in registers. */
VBMI KERNEL_INLINE void sample_vbmi(const struct pictures *p, const uint8_t *from, uint8_t *to,
                                    int channels)
{
    const __m512i gather = _mm512_loadu_si512(p->gather), pack = _mm512_loadu_si512(p->pack);
    struct registers tables[MOST_PICTURE_CHANNELS];
#pragma GCC unroll 4
    for (int c = 0; c < channels; c++)
#pragma GCC unroll 4
        for (int q = 0; q < 4; q++)
            tables[c].quarter[q] = _mm512_loadu_si512(p->narrow[c] + (ptrdiff_t)64 * q);
    for (int64_t i = 0; i < p->pixels; i += 16) {
        const int64_t count = p->pixels - i < 16 ? p->pixels - i : 16;
        const __m512i at = _mm512_permutexvar_epi8(
            gather, load_pixels(p, from + i * p->in.pixel, count, channels));
        __m512i y = _mm512_setzero_si512();
#pragma GCC unroll 4
        for (int c = 0; c < channels; c++)
            y = _mm512_mask_mov_epi8(y, 0x1111111111111111ull << c, look_up(&tables[c], at));
        y = _mm512_permutexvar_epi8(pack, y);
        _mm512_mask_storeu_epi8(to + i * p->out.pixel, ~0ull >> (64 - count * p->written), y);
    }
}

VBMI static void pick_vbmi(const struct pictures *p, const uint8_t *from, uint8_t *to)
{
    if (p->channels == 1)
        sample_vbmi(p, from, to, 1);
    else if (p->channels == 2)
        sample_vbmi(p, from, to, 2);
    else if (p->channels == 3)
        sample_vbmi(p, from, to, 3);
    else
        sample_vbmi(p, from, to, 4);
}

static int run_vbmi(struct step *step, struct err *err)
{
    (void)err;
    const struct pictures *p = step->state;
    for (int64_t n = 0; n < p->n; n++)
        pick_vbmi(p, (const uint8_t *)step->data[0] + n * p->in.sample,
                  (uint8_t *)step->data[1] + n * p->out.sample);
    return 0;
}
#endif

/* ---- building ---- */

static struct strides strides_of(enum layout layout, const struct shape *shape)
{
    const int64_t c = shape->dim[1], plane = shape->dim[2] * shape->dim[3];
    if (layout == LAYOUT_C4)
        return (struct strides){4, 1, 4 * layout_plane(layout, shape)};
    if (layout == LAYOUT_LAST)
        return (struct strides){c, 1, c * plane};
    return (struct strides){1, plane, c * plane};
}

static struct pictures *make_pictures(struct maker *m, const struct layer *layer,
                                      const struct choice *choice, struct err *err)
{
    const struct plan_pictures *given = m->options->pictures;
    const struct wire *to = &m->plan->wires[layer->out[0]];
    struct pictures *p = arena_alloc(m->arena, 1, sizeof(*p));
    float *real =
        arena_memdup(m->arena, given->real, (size_t)given->channels * 256 * sizeof(*real));
    if (!p || !real) {
        err_oom(err, "pictures");
        return NULL;
    }
    *p = (struct pictures){.n = to->shape.dim[0],
                           .pixels = to->shape.dim[2] * to->shape.dim[3],
                           .channels = to->shape.dim[1],
                           .written = choice->out == LAYOUT_C4 ? 4 : to->shape.dim[1],
                           .in = strides_of(choice->in, &to->shape),
                           .out = strides_of(choice->out, &to->shape),
                           .real = real};
    const struct form form = {
        .dtype = to->dtype, .quantized = true, .scale = to->scale, .zero = to->zero};
    for (int c = 0; c < p->channels; c++) {
        p->from[c] = given->from[c];
        if (to->quantized)
            narrow_quantize(real + (ptrdiff_t)c * 256, &form, p->narrow[c], 256);
    }
    for (int i = 0; i < 64; i++) {
        const int pixel = i / 4, c = i % 4 < p->channels ? p->from[i % 4] : 0;
        p->gather[i] = (uint8_t)(p->in.pixel > 1 ? pixel * p->in.pixel + c : 16 * c + pixel);
        p->pack[i] = (uint8_t)(i / p->written % 16 * 4 + i % p->written);
    }
    return p;
}

static int make_plain(struct maker *m, const struct layer *layer, const struct choice *choice,
                      struct step *step, struct err *err)
{
    step->state = make_pictures(m, layer, choice, err);
    step->run = layer->precision == PRECISION_INT8 ? run_narrow : run_real;
    step->info.implementation = pictures_plain.name;
    return step->state ? 0 : -ERR_RESOURCE_EXHAUSTED;
}

static int make_vbmi(struct maker *m, const struct layer *layer, const struct choice *choice,
                     struct step *step, struct err *err)
{
#if defined(__x86_64__)
    step->state = make_pictures(m, layer, choice, err);
    step->run = run_vbmi;
    step->info.implementation = pictures_vbmi.name;
    return step->state ? 0 : -ERR_RESOURCE_EXHAUSTED;
#else
    (void)m, (void)layer, (void)choice, (void)step, (void)err;
    return -ERR_UNIMPLEMENTED;
#endif
}

/* ---- what they can run ---- */

static int list_plain(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                      struct choices *choices, struct err *err)
{
    const struct choice choice = {.by = &pictures_plain, .in = in, .out = out};
    return in == m->plan->wires[layer->in[0].wire].layout ? choices_add(choices, &choice, err) : 0;
}

static int list_vbmi(struct maker *m, const struct layer *layer, enum layout in, enum layout out,
                     struct choices *choices, struct err *err)
{
#if defined(__x86_64__)
    const struct choice choice = {.by = &pictures_vbmi, .in = in, .out = out};
    if (in == m->plan->wires[layer->in[0].wire].layout && layer->precision == PRECISION_INT8 &&
        out != LAYOUT_PLAIN && kernel_level() == KERNEL_AVX512 &&
        __builtin_cpu_supports("avx512vbmi"))
        return choices_add(choices, &choice, err);
#else
    (void)m, (void)layer, (void)in, (void)out, (void)choices, (void)err;
#endif
    return 0;
}

const struct implementation pictures_vbmi = {
    .name = "pictures:avx512_vbmi", .list = list_vbmi, .make = make_vbmi};
const struct implementation pictures_plain = {
    .name = "pictures:plain", .list = list_plain, .make = make_plain};
