/* Loads, stores and masks of vectors; included once for each instruction set (kernel_vec.h). */

/* gcc 14 converts a vector of 512 bits in halves. */
KERNEL_INLINE uvec ISA(widen)(hvec h)
{
#ifdef ISA_HAS_BF16
    return (uvec)_mm512_cvtepu16_epi32((__m256i)h);
#else
    return __builtin_convertvector(h, uvec);
#endif
}

KERNEL_INLINE vec ISA(vec_load)(const void *from, int64_t at, bool half)
{
    vec x;
    if (half) {
        hvec h;
        memcpy(&h, (const uint16_t *)from + at, sizeof(h));
        x = (vec)(ISA(widen)(h) << 16);
    } else {
        memcpy(&x, (const float *)from + at, sizeof(x));
    }
    return x;
}

/* bf16: to nearest even. */
KERNEL_INLINE void ISA(vec_store)(void *to, int64_t at, vec x, bool half)
{
    if (half) {
#ifdef ISA_HAS_BF16
        const __m256bh h = _mm512_cvtneps_pbh((__m512)x);
#else
        uvec u = (uvec)x;
        u += 0x7fff + ((u >> 16) & 1);
        const hvec h = __builtin_convertvector(u >> 16, hvec);
#endif
        memcpy((uint16_t *)to + at, &h, sizeof(h));
    } else {
        memcpy((float *)to + at, &x, sizeof(x));
    }
}

/* x where the mask (a comparison's result) is set, else 0. */
KERNEL_INLINE vec ISA(vec_keep)(vec x, ivec mask)
{
    return (vec)((ivec)x & mask);
}

KERNEL_INLINE vec ISA(vec_splat)(float x)
{
    return x - (vec){0};
}

/* A NaN stays one. */
KERNEL_INLINE vec ISA(vec_clamp)(vec x, vec low, vec high)
{
#ifdef ISA_HAS_BF16
    return (vec)_mm512_min_ps((__m512)high, _mm512_max_ps((__m512)low, (__m512)x));
#else
    const ivec below = x < low;
    x = (vec)(((ivec)x & ~below) | ((ivec)low & below));
    const ivec above = x > high;
    return (vec)(((ivec)x & ~above) | ((ivec)high & above));
#endif
}
