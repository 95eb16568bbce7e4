/*
 * Direct convolution as in step_direct.c on AVX2: a tile is 16 pixels, in two registers, by 4
 * output channels. With AVX-VNNI vpdpbusd multiplies. Without it the bytes are widened to 16 bits,
 * the even channels and the odd ones, which vpmaddwd multiplies with weights of 16 bits: nothing
 * saturates.
 */
#include "shared/nn/kernel.h"
#include "shared/nn/step_direct_priv.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define AVX2 __attribute__((target("avx2,fma")))
#define AVX_VNNI __attribute__((target("avx2,fma,avxvnni")))

enum { OUTPUTS = 4 };

/* What a tile's code is made for, so that its loops hold no decisions. */
struct shape_of_tile {
    int stride;
    bool adds, bounds; /* there is a residual; there are bounds besides those of 8 bits */
};

/* All ones in the lanes whose bits are set. */
AVX2 KERNEL_INLINE __m256i lanes_of(unsigned bits)
{
    const __m256i each = _mm256_setr_epi32(1, 2, 4, 8, 16, 32, 64, 128);
    return _mm256_cmpeq_epi32(_mm256_and_si256(_mm256_set1_epi32((int)bits), each), each);
}

/* Words that lie outside the image are the zero point; they are not read. */
AVX2 KERNEL_INLINE __m256i load8(const uint32_t *from, unsigned bits, __m256i zero)
{
    const __m256i lanes = lanes_of(bits & 255);
    const __m256i x = _mm256_maskload_epi32((const int *)from, lanes);
    return _mm256_blendv_epi8(zero, x, lanes);
}

/* Pixels 8 * half to 8 * half + 7 of a block. */
AVX2 KERNEL_INLINE __m256i load_half(const uint32_t *plane, const struct tap *tap, int half,
                                     int stride, __m256i zero)
{
    if (stride == 1)
        return load8(plane + tap->from[0] + 8 * half, (unsigned)tap->mask[0] >> 8 * half, zero);
    const uint32_t *from = plane + tap->from[half];
    const __m256i a = load8(from, tap->mask[half], zero);
    const __m256i b = load8(from + 8, (unsigned)tap->mask[half] >> 8, zero);
    const __m256 even = _mm256_shuffle_ps(_mm256_castsi256_ps(a), _mm256_castsi256_ps(b), 0x88);
    return _mm256_permute4x64_epi64(_mm256_castps_si256(even), 0xd8);
}

/* Sums of output channel o for 8 pixels, scaled, biased, with its channel of the residual. */
AVX2 KERNEL_INLINE __m256i finish(const struct direct *d, const struct tile *tile, __m256i sums,
                                  int o, __m256i residual, struct shape_of_tile s)
{
    __m256 y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(sums), _mm256_set1_ps(tile->scale[o]),
                               _mm256_set1_ps(tile->bias[o]));
    if (s.adds) {
        __m256i r = _mm256_and_si256(_mm256_srli_epi32(residual, 8 * o), _mm256_set1_epi32(255));
        y = _mm256_fmadd_ps(_mm256_cvtepi32_ps(r), _mm256_set1_ps(d->residual), y);
    }
    if (s.bounds)
        y = _mm256_min_ps(_mm256_max_ps(y, _mm256_set1_ps(d->low)), _mm256_set1_ps(d->high));
    return _mm256_cvtps_epi32(y);
}

/* Four channels of 8 pixels, packed (which saturates) and stored. */
AVX2 KERNEL_INLINE void store_half(const struct direct *d, const struct tile *tile, int half,
                                   const __m256i sums[OUTPUTS], struct shape_of_tile s)
{
    const int left = tile->pixels - 8 * half;
    if (left <= 0)
        return;
    const __m256i order = _mm256_broadcastsi128_si256(
        _mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    const __m256i lanes = lanes_of(left >= 8 ? 255 : (1u << left) - 1);
    int *out = (int *)(tile->out + 8 * half);
    __m256i residual = _mm256_setzero_si256();
    if (s.adds)
        residual = _mm256_maskload_epi32(out, lanes);
    const __m256i low = _mm256_packs_epi32(finish(d, tile, sums[0], 0, residual, s),
                                           finish(d, tile, sums[1], 1, residual, s));
    const __m256i high = _mm256_packs_epi32(finish(d, tile, sums[2], 2, residual, s),
                                            finish(d, tile, sums[3], 3, residual, s));
    const __m256i y = _mm256_shuffle_epi8(_mm256_packus_epi16(low, high), order);
    _mm256_maskstore_epi32(out, lanes, y);
}

AVX2 KERNEL_INLINE __m256i multiply_wide(__m256i sums, __m256i even, __m256i odd, const int32_t *w)
{
    sums = _mm256_add_epi32(sums, _mm256_madd_epi16(even, _mm256_set1_epi32(w[0])));
    return _mm256_add_epi32(sums, _mm256_madd_epi16(odd, _mm256_set1_epi32(w[1])));
}

AVX2 KERNEL_INLINE void tile_madd(const struct direct *d, const struct tile *tile,
                                  struct shape_of_tile s)
{
    const __m256i zero = _mm256_set1_epi32((int32_t)d->zero), low = _mm256_set1_epi16(255);
    __m256i a[OUTPUTS] = {0}, b[OUTPUTS] = {0};
    const int32_t *w = tile->weights;
    for (int t = 0; t < d->n_taps; t++) {
        const struct tap tap = tile->taps[t];
        const bool inside = s.stride == 1 && tap.mask[0] == 0xffff;
        const uint32_t *in = tile->in;
        for (int64_t g = d->in_groups; g > 0; g--, in += d->in_plane, w += 2 * OUTPUTS) {
            const __m256i *from = (const __m256i *)(in + tap.from[0]);
            const __m256i x =
                inside ? _mm256_loadu_si256(from) : load_half(in, &tap, 0, s.stride, zero);
            const __m256i y =
                inside ? _mm256_loadu_si256(from + 1) : load_half(in, &tap, 1, s.stride, zero);
            const __m256i x_even = _mm256_and_si256(x, low), x_odd = _mm256_srli_epi16(x, 8);
            const __m256i y_even = _mm256_and_si256(y, low), y_odd = _mm256_srli_epi16(y, 8);
#pragma GCC unroll 4
            for (int o = 0; o < OUTPUTS; o++) {
                a[o] = multiply_wide(a[o], x_even, x_odd, w + 2 * (ptrdiff_t)o);
                b[o] = multiply_wide(b[o], y_even, y_odd, w + 2 * (ptrdiff_t)o);
            }
        }
    }
    store_half(d, tile, 0, a, s);
    store_half(d, tile, 1, b, s);
}

AVX_VNNI KERNEL_INLINE void tile_vnni(const struct direct *d, const struct tile *tile,
                                      struct shape_of_tile s)
{
    const __m256i zero = _mm256_set1_epi32((int32_t)d->zero);
    __m256i a[OUTPUTS] = {0}, b[OUTPUTS] = {0};
    const int32_t *w = tile->weights;
    for (int t = 0; t < d->n_taps; t++) {
        const struct tap tap = tile->taps[t];
        const bool inside = s.stride == 1 && tap.mask[0] == 0xffff;
        const uint32_t *in = tile->in;
        for (int64_t g = d->in_groups; g > 0; g--, in += d->in_plane, w += OUTPUTS) {
            const __m256i *from = (const __m256i *)(in + tap.from[0]);
            const __m256i x =
                inside ? _mm256_loadu_si256(from) : load_half(in, &tap, 0, s.stride, zero);
            const __m256i y =
                inside ? _mm256_loadu_si256(from + 1) : load_half(in, &tap, 1, s.stride, zero);
#pragma GCC unroll 4
            for (int o = 0; o < OUTPUTS; o++) {
                const __m256i v = _mm256_set1_epi32(w[o]);
                a[o] = _mm256_dpbusd_avx_epi32(a[o], x, v);
                b[o] = _mm256_dpbusd_avx_epi32(b[o], y, v);
            }
        }
    }
    store_half(d, tile, 0, a, s);
    store_half(d, tile, 1, b, s);
}

#define TILE(isa, shape, stride, adds, bounds)                                                     \
    isa static void shape##_##stride##adds##bounds(const struct direct *d,                         \
                                                   const struct tile *tile)                        \
    {                                                                                              \
        shape(d, tile, (struct shape_of_tile){stride, adds, bounds});                              \
    }
#define TILES(isa, shape, stride)                                                                  \
    TILE(isa, shape, stride, 0, 0)                                                                 \
    TILE(isa, shape, stride, 0, 1)                                                                 \
    TILE(isa, shape, stride, 1, 0)                                                                 \
    TILE(isa, shape, stride, 1, 1)
TILES(AVX2, tile_madd, 1)
TILES(AVX2, tile_madd, 2)
TILES(AVX_VNNI, tile_vnni, 1)
TILES(AVX_VNNI, tile_vnni, 2)

/* [stride 2][adds][bounds] */
#define TABLE(shape)                                                                               \
    {                                                                                              \
        {{shape##_100, shape##_101}, {shape##_110, shape##_111}},                                  \
        {                                                                                          \
            {shape##_200, shape##_201},                                                            \
            {                                                                                      \
                shape##_210, shape##_211                                                           \
            }                                                                                      \
        }                                                                                          \
    }

tile_fn *direct_avx2_madd_of(const struct direct *d)
{
    static tile_fn *const tiles[2][2][2] = TABLE(tile_madd);
    return tiles[d->stride == 2][d->adds][d->bounds];
}

tile_fn *direct_avx2_vnni_of(const struct direct *d)
{
    static tile_fn *const tiles[2][2][2] = TABLE(tile_vnni);
    return tiles[d->stride == 2][d->adds][d->bounds];
}
#endif
