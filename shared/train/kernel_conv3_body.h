/* Tiles of 3x3 convolutions; included once for each instruction set (kernel_vec.h). */
#include "shared/train/kernel_vec_body.h"

/* s + the products of pairs of bf16: the even ones' and the odd ones'. */
KERNEL_INLINE vec ISA(dot)(vec s, uvec a, uvec b)
{
#ifdef ISA_HAS_BF16
    return (vec)_mm512_dpbf16_ps((__m512)s, (__m512bh)a, (__m512bh)b);
#else
    const uvec odd = (uvec){0} + 0xffff0000U;
    return s + (vec)(a & odd) * (vec)(b & odd) + (vec)(a << 16) * (vec)(b << 16);
#endif
}

KERNEL_INLINE uvec ISA(pairs_load)(const uint16_t *from)
{
    uvec x;
    memcpy(&x, from, sizeof(x));
    return x;
}

KERNEL_INLINE uvec ISA(pair_splat)(const uint16_t *from)
{
    uint32_t x;
    memcpy(&x, from, sizeof(x));
    return x - (uvec){0};
}

/* P pixels x V vectors of output channels. */
KERNEL_INLINE void ISA(tile)(const struct sweep *s, const uint16_t *from, const uint16_t *weights,
                             uint16_t *to, int P, int V)
{
    vec sum[MAX_PIXELS][MAX_VECS];
#pragma GCC unroll 16
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            sum[p][v] = (vec){0};
    for (int t = s->begin; t < s->end; t++) {
        const uint16_t *x = from + s->offset[t];
        const uint16_t *w = weights + s->tap[t] * s->blocks * BLOCK_WEIGHTS;
        for (int64_t b = 0; b < s->blocks; b++, x += s->block, w += BLOCK_WEIGHTS) {
            for (int k = 0; k < VEC / 2; k++) {
                uvec f[MAX_VECS];
#pragma GCC unroll 4
                for (int v = 0; v < V; v++)
                    f[v] = ISA(pairs_load)(w + k * PAIRS + v * s->vector);
#pragma GCC unroll 16
                for (int p = 0; p < P; p++) {
                    const uvec pair = ISA(pair_splat)(x + p * VEC + k * 2);
#pragma GCC unroll 4
                    for (int v = 0; v < V; v++)
                        sum[p][v] = ISA(dot)(sum[p][v], pair, f[v]);
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < P; p++)
#pragma GCC unroll 4
        for (int v = 0; v < V; v++)
            ISA(vec_store)(to, p * s->to_pixel + v * VEC, sum[p][v], true);
}

/* 16 pixels x one vector, where taps come in threes whose pixels lie side by side: a pixel that was
 * loaded serves three outputs. */
static void ISA(tile_threes)(const struct sweep *s, const uint16_t *from, const uint16_t *weights,
                             uint16_t *to)
{
    vec sum[MAX_PIXELS + 2];
#pragma GCC unroll 18
    for (int p = 0; p < MAX_PIXELS + 2; p++)
        sum[p] = (vec){0};
    for (int t = s->begin; t < s->end; t += 3) {
        const uint16_t *x = from + s->offset[t];
        const uint16_t *w[3];
        for (int i = 0; i < 3; i++)
            w[i] = weights + s->tap[t + i] * s->blocks * BLOCK_WEIGHTS;
        for (int64_t b = 0; b < s->blocks; b++, x += s->block) {
            for (int k = 0; k < VEC / 2; k++) {
                uvec f[3];
#pragma GCC unroll 3
                for (int i = 0; i < 3; i++)
                    f[i] = ISA(pairs_load)(w[i] + b * BLOCK_WEIGHTS + k * PAIRS);
#pragma GCC unroll 18
                for (int p = 0; p < MAX_PIXELS + 2; p++) {
                    const uvec pair = ISA(pair_splat)(x + p * VEC + k * 2);
                    if (p < MAX_PIXELS)
                        sum[p] = ISA(dot)(sum[p], pair, f[0]);
                    if (p >= 1 && p < MAX_PIXELS + 1)
                        sum[p - 1] = ISA(dot)(sum[p - 1], pair, f[1]);
                    if (p >= 2)
                        sum[p - 2] = ISA(dot)(sum[p - 2], pair, f[2]);
                }
            }
        }
    }
#pragma GCC unroll 16
    for (int p = 0; p < MAX_PIXELS; p++)
        ISA(vec_store)(to, p * s->to_pixel, sum[p], true);
}

static void ISA(tile_narrow)(const struct sweep *s, const uint16_t *from, const uint16_t *weights,
                             uint16_t *to)
{
    ISA(tile)(s, from, weights, to, 16, 1);
}

static void ISA(tile_middle)(const struct sweep *s, const uint16_t *from, const uint16_t *weights,
                             uint16_t *to)
{
    ISA(tile)(s, from, weights, to, 8, 2);
}

static void ISA(tile_wide)(const struct sweep *s, const uint16_t *from, const uint16_t *weights,
                           uint16_t *to)
{
    ISA(tile)(s, from, weights, to, 4, 4);
}

/* A row of outputs: the taps from `begin` to `end` of a column, 16 input and 8 output channels. */
KERNEL_INLINE void ISA(product_row)(vec sum[3][PRODUCT_CHANNELS], const struct product *j,
                                    const uint16_t *x, const uint16_t *dy, int begin, int end)
{
    for (int64_t p = 0; p < j->columns; p++, x += PAIRS, dy += PAIRS) {
        uvec f[3];
#pragma GCC unroll 3
        for (int k = begin; k < end; k++)
            f[k] = ISA(pairs_load)(x + k * j->x_tap);
#pragma GCC unroll 8
        for (int o = 0; o < PRODUCT_CHANNELS; o++) {
            const uvec pair = ISA(pair_splat)(dy + 2 * o);
#pragma GCC unroll 3
            for (int k = begin; k < end; k++)
                sum[k][o] = ISA(dot)(sum[k][o], f[k], pair);
        }
    }
}

/* Rows at the edge leave out the tap that finds zeros alone. */
static void ISA(product)(const struct product *j, const uint16_t *x, const uint16_t *dy, float *to)
{
    vec sum[3][PRODUCT_CHANNELS];
#pragma GCC unroll 3
    for (int k = 0; k < 3; k++)
#pragma GCC unroll 8
        for (int o = 0; o < PRODUCT_CHANNELS; o++)
            sum[k][o] = ISA(vec_load)(to, k * j->to_tap + o * j->to_channel, false);
    for (int64_t i = 0; i < j->pairs * j->rows; i++) {
        const int64_t pair = i / j->rows, r = i % j->rows, line = j->line + r * j->line_step;
        const uint16_t *a = x + pair * j->x_pair + r * j->x_row;
        const uint16_t *b = dy + pair * j->dy_pair + r * j->columns * PAIRS;
        if (line == -1 && j->lines > 1)
            ISA(product_row)(sum, j, a, b, 1, 3);
        else if (line >= 0 && line + 2 == j->lines)
            ISA(product_row)(sum, j, a, b, 0, 2);
        else
            ISA(product_row)(sum, j, a, b, 0, 3);
    }
#pragma GCC unroll 3
    for (int k = 0; k < 3; k++)
#pragma GCC unroll 8
        for (int o = 0; o < PRODUCT_CHANNELS; o++)
            ISA(vec_store)(to, k * j->to_tap + o * j->to_channel, sum[k][o], false);
}

/* 16 channels of n pixels, `step` elements apart, next to each other. */
static void ISA(gather)(const uint16_t *from, int64_t step, int64_t n, uint16_t *to)
{
    for (int64_t i = 0; i < n; i++)
        memcpy(to + i * VEC, from + i * step, VEC * sizeof(*to));
}

KERNEL_INLINE uvec ISA(interleave)(hvec even, hvec odd)
{
#ifdef ISA_HAS_BF16
    const uvec both = {0x00200000, 0x00210001, 0x00220002, 0x00230003, 0x00240004, 0x00250005,
                       0x00260006, 0x00270007, 0x00280008, 0x00290009, 0x002a000a, 0x002b000b,
                       0x002c000c, 0x002d000d, 0x002e000e, 0x002f000f};
    return (uvec)_mm512_permutex2var_epi16(_mm512_castsi256_si512((__m256i)even), (__m512i)both,
                                           _mm512_castsi256_si512((__m256i)odd));
#else
    return __builtin_convertvector(even, uvec) | __builtin_convertvector(odd, uvec) << 16;
#endif
}

/* The same of two samples, interleaved; b NULL: zeros. */
static void ISA(gather_pairs)(const uint16_t *a, const uint16_t *b, int64_t step, int64_t n,
                              uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        hvec even, odd = {0};
        memcpy(&even, a + i * step, sizeof(even));
        if (b)
            memcpy(&odd, b + i * step, sizeof(odd));
        const uvec pairs = ISA(interleave)(even, odd);
        memcpy(to + i * PAIRS, &pairs, sizeof(pairs));
    }
}

static const struct conv3_loops ISA(loops) = {
    {ISA(tile_narrow), ISA(tile_middle), ISA(tile_wide), ISA(tile_threes)},
    ISA(product),
    ISA(gather),
    ISA(gather_pairs),
};
