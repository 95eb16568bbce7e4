/* Conversions from and to 8 bits, in plain loops that the compiler vectorises. */
#include <string.h>

#include "shared/nn/kernel.h"
#include "shared/nn/step_convert.h"

KERNEL_FILE

struct narrow_convert {
    int64_t n, channels, pixels;  /* of one image */
    int64_t from_plane, to_plane; /* C4: pixels between planes */
    struct form from, to;
};

/* ---- loops ---- */

/* x / scale + zero, rounded to even, saturated, as a byte in an int. Adding and taking away
 * 1.5 * 2^23 rounds in any vector unit. NaN becomes the lower bound. */
KERNEL_INLINE int32_t quantum(float x, float scale, float zero, float low)
{
    const float magic = 12582912.0f;
    float q = x / scale; /* bounded first: the trick works for small numbers only */
    q = q > low - zero ? q : low - zero;
    q = q < low + 255 - zero ? q : low + 255 - zero;
    return ((int32_t)((q + magic) - magic) + (int32_t)zero) & 255;
}

KERNEL_INLINE void quantize_flat_body(const float *from, float scale, float zero, float low,
                                      uint8_t *to, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (uint8_t)quantum(from[i], scale, zero, low);
}
KERNEL(quantize_flat,
       (const float *from, float scale, float zero, float low, uint8_t *to, int64_t n),
       (from, scale, zero, low, to, n))

/* One to four planes of floats into the bytes of 32-bit words; bytes of planes that are left out
 * become zeros. Divisions take nearly all the time: none is done in vain. */
KERNEL_INLINE void quantize_c4_body(const float *from, int64_t plane, int count, float scale,
                                    float zero, float low, uint32_t *to, int64_t n)
{
    const float *b = from + plane, *c = b + plane, *d = c + plane;
    if (count == 4)
        for (int64_t i = 0; i < n; i++)
            to[i] = (uint32_t)(quantum(from[i], scale, zero, low) |
                               quantum(b[i], scale, zero, low) << 8 |
                               quantum(c[i], scale, zero, low) << 16) |
                    (uint32_t)quantum(d[i], scale, zero, low) << 24;
    else if (count == 3)
        for (int64_t i = 0; i < n; i++)
            to[i] = (uint32_t)(quantum(from[i], scale, zero, low) |
                               quantum(b[i], scale, zero, low) << 8 |
                               quantum(c[i], scale, zero, low) << 16);
    else if (count == 2)
        for (int64_t i = 0; i < n; i++)
            to[i] = (uint32_t)(quantum(from[i], scale, zero, low) | quantum(b[i], scale, zero, low)
                                                                        << 8);
    else
        for (int64_t i = 0; i < n; i++)
            to[i] = (uint32_t)quantum(from[i], scale, zero, low);
}
KERNEL(quantize_c4,
       (const float *from, int64_t plane, int count, float scale, float zero, float low,
        uint32_t *to, int64_t n),
       (from, plane, count, scale, zero, low, to, n))

KERNEL_INLINE void dequantize_u8_body(const uint8_t *from, float scale, int32_t zero, float *to,
                                      int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(from[i] - zero) * scale;
}
KERNEL(dequantize_u8, (const uint8_t *from, float scale, int32_t zero, float *to, int64_t n),
       (from, scale, zero, to, n))

KERNEL_INLINE void dequantize_s8_body(const int8_t *from, float scale, int32_t zero, float *to,
                                      int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        to[i] = (float)(from[i] - zero) * scale;
}
KERNEL(dequantize_s8, (const int8_t *from, float scale, int32_t zero, float *to, int64_t n),
       (from, scale, zero, to, n))

/* ---- steps ---- */

static float low_of(enum dtype dtype)
{
    return dtype == DTYPE_U8 ? 0 : -128;
}

void narrow_quantize(const float *from, const struct form *to, uint8_t *ret, int64_t n)
{
    KERNEL_PICK(quantize_flat)(from, to->scale, (float)to->zero, low_of(to->dtype), ret, n);
}

static int run_quantize_flat(struct step *step, struct err *err)
{
    (void)err;
    const struct narrow_convert *c = step->state;
    narrow_quantize(step->data[0], &c->to, step->data[1], c->n * c->channels * c->pixels);
    return 0;
}

static int run_dequantize_flat(struct step *step, struct err *err)
{
    (void)err;
    const struct narrow_convert *c = step->state;
    int64_t n = c->n * c->channels * c->pixels;
    if (c->from.dtype == DTYPE_U8)
        KERNEL_PICK(dequantize_u8)(step->data[0], c->from.scale, c->from.zero, step->data[1], n);
    else
        KERNEL_PICK(dequantize_s8)(step->data[0], c->from.scale, c->from.zero, step->data[1], n);
    return 0;
}

static int64_t groups_of(const struct narrow_convert *c)
{
    return (c->channels + 3) / 4;
}

static int run_plain_to_c4(struct step *step, struct err *err)
{
    (void)err;
    const struct narrow_convert *c = step->state;
    const float *from = step->data[0];
    uint32_t *to = step->data[1];
    for (int64_t n = 0; n < c->n; n++)
        for (int64_t g = 0; g < groups_of(c); g++, to += c->to_plane) {
            int64_t left = c->channels - 4 * g;
            KERNEL_PICK(quantize_c4)
            (from + (n * c->channels + 4 * g) * c->pixels, c->pixels, left < 4 ? (int)left : 4,
             c->to.scale, (float)c->to.zero, low_of(c->to.dtype), to, c->pixels);
        }
    return 0;
}

/* Words of up to 4 channels go to their places, `apart` bytes from one pixel to the next. */
static void spread_words(const uint32_t *words, int64_t n, int bytes, int64_t apart, uint8_t *to)
{
    if (bytes == 4) {
        for (int64_t i = 0; i < n; i++, to += apart)
            memcpy(to, &words[i], 4);
        return;
    }
    /* Fewer channels than a word has: where nothing else lies between two pixels, the surplus is
     * written and then overwritten by the next pixel. */
    int64_t i = 0;
    for (; apart == bytes && i + 2 < n; i++, to += apart)
        memcpy(to, &words[i], 4);
    for (; i < n; i++, to += apart)
        for (int k = 0; k < bytes; k++)
            to[k] = (uint8_t)(words[i] >> 8 * k);
}

/* A stretch of pixels becomes words of 4 channels first, which are then laid side by side. */
static int run_plain_to_last(struct step *step, struct err *err)
{
    (void)err;
    enum { STRETCH = 512 };
    const struct narrow_convert *c = step->state;
    uint32_t words[STRETCH];
    for (int64_t n = 0; n < c->n; n++) {
        const float *from = (const float *)step->data[0] + n * c->channels * c->pixels;
        uint8_t *to = (uint8_t *)step->data[1] + n * c->channels * c->pixels;
        for (int64_t at = 0; at < c->pixels; at += STRETCH) {
            int64_t count = c->pixels - at < STRETCH ? c->pixels - at : STRETCH;
            for (int64_t g = 0; g < groups_of(c); g++) {
                int64_t left = c->channels - 4 * g;
                int bytes = left < 4 ? (int)left : 4;
                KERNEL_PICK(quantize_c4)
                (from + 4 * g * c->pixels + at, c->pixels, bytes, c->to.scale, (float)c->to.zero,
                 low_of(c->to.dtype), words, count);
                spread_words(words, count, bytes, c->channels, to + at * c->channels + 4 * g);
            }
        }
    }
    return 0;
}

/* Between C4 and channels last, bytes as they are. */
static int run_c4_and_last(struct step *step, struct err *err)
{
    (void)err;
    const struct narrow_convert *c = step->state;
    bool to_last = c->to.layout == LAYOUT_LAST;
    int64_t groups = groups_of(c), plane = to_last ? c->from_plane : c->to_plane;
    for (int64_t n = 0; n < c->n; n++) {
        uint8_t *last = (uint8_t *)step->data[to_last] + n * c->channels * c->pixels;
        for (int64_t g = 0; g < groups; g++) {
            uint32_t *words = (uint32_t *)step->data[!to_last] + (n * groups + g) * plane;
            int64_t left = c->channels - 4 * g;
            size_t bytes = left < 4 ? (size_t)left : 4;
            uint8_t *place = last + 4 * g;
            if (to_last)
                spread_words(words, c->pixels, (int)bytes, c->channels, place);
            else if (bytes == 4)
                for (int64_t i = 0; i < c->pixels; i++, place += c->channels)
                    memcpy(&words[i], place, 4);
            else
                for (int64_t i = 0; i < c->pixels; i++, place += c->channels) {
                    words[i] = 0;
                    memcpy(&words[i], place, bytes);
                }
        }
    }
    return 0;
}

/* C4 to floats, plain or channels last. */
static int run_c4_to_float(struct step *step, struct err *err)
{
    (void)err;
    const struct narrow_convert *c = step->state;
    bool last = c->to.layout == LAYOUT_LAST;
    bool is_signed = c->from.dtype == DTYPE_S8;
    const uint8_t *from = step->data[0];
    int64_t by_pixel = last ? c->channels : 1, by_channel = last ? 1 : c->pixels;
    for (int64_t n = 0; n < c->n; n++) {
        float *to = (float *)step->data[1] + n * c->channels * c->pixels;
        for (int64_t k = 0; k < c->channels; k++) {
            const uint8_t *bytes = from + ((n * groups_of(c) + k / 4) * c->from_plane) * 4 + k % 4;
            for (int64_t i = 0; i < c->pixels; i++) {
                int32_t q = is_signed ? (int8_t)bytes[4 * i] : bytes[4 * i];
                to[i * by_pixel + k * by_channel] = (float)(q - c->from.zero) * c->from.scale;
            }
        }
    }
    return 0;
}

/* ---- which one ---- */

static bool is_narrow(const struct form *f)
{
    return f->dtype == DTYPE_U8 || f->dtype == DTYPE_S8;
}

static bool is_float(const struct form *f)
{
    return f->dtype == DTYPE_F32 && !f->quantized;
}

static int (*pick(const struct form *from, const struct form *to))(struct step *, struct err *)
{
    bool quantizes = is_float(from) && is_narrow(to) && to->quantized;
    bool dequantizes = is_narrow(from) && from->quantized && is_float(to);
    bool same = is_narrow(from) && from->dtype == to->dtype && from->quantized == to->quantized &&
                (!from->quantized || (from->scale == to->scale && from->zero == to->zero));
    enum layout a = from->layout, b = to->layout;
    if (quantizes && a == b && layout_block(a) == 1)
        return run_quantize_flat;
    if (quantizes && a == LAYOUT_PLAIN && b == LAYOUT_C4)
        return run_plain_to_c4;
    if (quantizes && a == LAYOUT_PLAIN && b == LAYOUT_LAST)
        return run_plain_to_last;
    if (dequantizes && a == b && layout_block(a) == 1)
        return run_dequantize_flat;
    if (dequantizes && a == LAYOUT_C4 && (b == LAYOUT_PLAIN || b == LAYOUT_LAST))
        return run_c4_to_float;
    if (same && ((a == LAYOUT_C4 && b == LAYOUT_LAST) || (a == LAYOUT_LAST && b == LAYOUT_C4)))
        return run_c4_and_last;
    return NULL;
}

/* As pick; where PLAIN and LAST are two names for the same bytes (one channel or one pixel), under
 * either name. */
static int (*pick_for(const struct shape *shape, struct form ends[2]))(struct step *, struct err *)
{
    int (*run)(struct step *, struct err *) = pick(&ends[0], &ends[1]);
    if (run || !layout_possible(LAYOUT_LAST, shape) ||
        layout_canonical(LAYOUT_LAST, shape) != LAYOUT_PLAIN)
        return run;
    for (int i = 0; i < 2; i++)
        if (ends[i].layout == LAYOUT_PLAIN)
            ends[i].layout = LAYOUT_LAST;
    return pick(&ends[0], &ends[1]);
}

bool convert_is_direct(const struct shape *shape, const struct form *from, const struct form *to)
{
    struct form ends[2] = {*from, *to};
    return (from->layout != LAYOUT_C4 && to->layout != LAYOUT_C4) || from->layout == to->layout ||
           pick_for(shape, ends);
}

int narrow_convert_make(struct maker *m, struct step *step, const struct shape *shape,
                        const struct form *given_from, const struct form *given_to, struct err *err)
{
    struct form ends[2] = {*given_from, *given_to};
    const struct form *from = &ends[0], *to = &ends[1];
    int (*run)(struct step *, struct err *) = pick_for(shape, ends);
    if (!run)
        return 0;
    struct narrow_convert *c = arena_alloc(m->arena, 1, sizeof(*c));
    if (!c)
        return err_oom(err, "a conversion");
    *c = (struct narrow_convert){.n = 1, .channels = 1, .pixels = 1, .from = *from, .to = *to};
    for (int d = 0; d < shape->rank; d++)
        *(d == 0 && shape->rank > 1 ? &c->n : d == 1 ? &c->channels : &c->pixels) *= shape->dim[d];
    c->from_plane = layout_plane(from->layout, shape);
    c->to_plane = layout_plane(to->layout, shape);
    step->state = c;
    step->run = run;
    step->info.implementation = "loop";
    return 1;
}
