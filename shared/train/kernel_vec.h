#pragma once
/*
 * Vectors of 16 floats for loops of our own. They are the compiler's, so that one source serves
 * every instruction set (see shared/nn/kernel.h).
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "shared/graph/tensor.h"
#include "shared/nn/kernel.h"

enum { VEC = 16 };
typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t hvec __attribute__((vector_size(32)));

KERNEL_INLINE void vec_load(vec *to, const void *from, int64_t at, bool half)
{
    if (half) {
        hvec h;
        memcpy(&h, (const uint16_t *)from + at, sizeof(h));
        const uvec wide = __builtin_convertvector(h, uvec) << 16;
        memcpy(to, &wide, sizeof(*to));
    } else {
        memcpy(to, (const float *)from + at, sizeof(*to));
    }
}

/* bf16: to nearest even. */
KERNEL_INLINE void vec_store(void *to, int64_t at, const vec *from, bool half)
{
    if (half) {
        uvec u;
        memcpy(&u, from, sizeof(u));
        u += 0x7fff + ((u >> 16) & 1);
        const hvec h = __builtin_convertvector(u >> 16, hvec);
        memcpy((uint16_t *)to + at, &h, sizeof(h));
    } else {
        memcpy((float *)to + at, from, sizeof(*from));
    }
}

/* x where the mask (a comparison's result) is set, else 0. */
KERNEL_INLINE void vec_keep(vec *x, const ivec *mask)
{
    ivec bits;
    memcpy(&bits, x, sizeof(bits));
    bits &= *mask;
    memcpy(x, &bits, sizeof(bits));
}

KERNEL_INLINE void vec_clamp(vec *x, float low, float high)
{
    const ivec below = *x<low, above = *x> high;
    ivec bits, lows, highs;
    const vec l = low - (vec){0}, h = high - (vec){0};
    memcpy(&bits, x, sizeof(bits));
    memcpy(&lows, &l, sizeof(lows));
    memcpy(&highs, &h, sizeof(highs));
    bits = (bits & ~below) | (lows & below);
    bits = (bits & ~above) | (highs & above);
    memcpy(x, &bits, sizeof(bits));
}

static inline float half_load(const void *from, int64_t at, bool half)
{
    return half ? bf16_to_f32(((const uint16_t *)from)[at]) : ((const float *)from)[at];
}

static inline void half_store(void *to, int64_t at, float x, bool half)
{
    if (half)
        ((uint16_t *)to)[at] = f32_to_bf16(x);
    else
        ((float *)to)[at] = x;
}
