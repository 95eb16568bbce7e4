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
    for (int t = 0; t < s->n_taps; t++) {
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

/* The gradients of three taps in a column, 16 input and 8 output channels. */
static void ISA(product)(const struct product *j, const uint16_t *x, const uint16_t *dy, float *to)
{
    vec sum[3][PRODUCT_CHANNELS];
#pragma GCC unroll 3
    for (int k = 0; k < 3; k++)
#pragma GCC unroll 8
        for (int o = 0; o < PRODUCT_CHANNELS; o++)
            sum[k][o] = ISA(vec_load)(to, k * j->to_tap + o * j->to_channel, false);
    for (int64_t i = 0; i < j->pairs * j->rows; i++) {
        const uint16_t *a = x + i / j->rows * j->x_pair + i % j->rows * j->x_row;
        const uint16_t *b = dy + i / j->rows * j->dy_pair + i % j->rows * j->columns * PAIRS;
        for (int64_t p = 0; p < j->columns; p++, a += PAIRS, b += PAIRS) {
            uvec f[3];
#pragma GCC unroll 3
            for (int k = 0; k < 3; k++)
                f[k] = ISA(pairs_load)(a + k * j->x_tap);
#pragma GCC unroll 8
            for (int o = 0; o < PRODUCT_CHANNELS; o++) {
                const uvec pair = ISA(pair_splat)(b + 2 * o);
#pragma GCC unroll 3
                for (int k = 0; k < 3; k++)
                    sum[k][o] = ISA(dot)(sum[k][o], f[k], pair);
            }
        }
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

/* The same of two samples, interleaved; b NULL: zeros. */
static void ISA(gather_pairs)(const uint16_t *a, const uint16_t *b, int64_t step, int64_t n,
                              uint16_t *to)
{
    for (int64_t i = 0; i < n; i++) {
        hvec even, odd = {0};
        memcpy(&even, a + i * step, sizeof(even));
        if (b)
            memcpy(&odd, b + i * step, sizeof(odd));
        const uvec pairs =
            __builtin_convertvector(even, uvec) | __builtin_convertvector(odd, uvec) << 16;
        memcpy(to + i * PAIRS, &pairs, sizeof(pairs));
    }
}

static const struct conv3_loops ISA(loops) = {
    {ISA(tile_narrow), ISA(tile_middle), ISA(tile_wide)},
    ISA(product),
    ISA(gather),
    ISA(gather_pairs),
};
