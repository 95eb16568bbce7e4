#pragma once
/*
 * Vectors of 16 floats for loops of our own. They are the compiler's own vectors, so that one
 * source serves every instruction set. A compiler takes such vectors apart by what the function
 * around them may use, before it inlines: so the source is included once for each instruction set,
 * between KERNEL_TARGET and KERNEL_END, and each function has the set's name in its own:
 *
 *     #define ISA(name) name##_avx2
 *     KERNEL_TARGET("avx2,fma")
 *     #include "kernel_x_body.h"      (begins with kernel_vec_body.h)
 *     KERNEL_END
 *     #undef ISA
 *
 * kernel_each_body.h does so for all of them.
 */
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "shared/graph/tensor.h"
#include "shared/nn/kernel.h"

/* How vectors are passed between functions differs between instruction sets; ours are inlined. */
#pragma GCC diagnostic ignored "-Wpsabi"

enum { VEC = 16 };
typedef float vec __attribute__((vector_size(64)));
typedef int32_t ivec __attribute__((vector_size(64)));
typedef uint32_t uvec __attribute__((vector_size(64)));
typedef uint16_t hvec __attribute__((vector_size(32)));

#define KERNEL_PRAGMA(x) _Pragma(#x)
#ifdef __clang__
#define KERNEL_TARGET(isa)                                                                         \
    KERNEL_PRAGMA(clang attribute push(__attribute__((target(isa))), apply_to = function))
#define KERNEL_END _Pragma("clang attribute pop")
#else
#define KERNEL_TARGET(isa)                                                                         \
    _Pragma("GCC push_options") _Pragma("GCC optimize(\"O3\")") KERNEL_PRAGMA(GCC target(isa))
#define KERNEL_END _Pragma("GCC pop_options")
#endif

#define KERNEL_AVX512_SET "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma"
#define KERNEL_BF16_SET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,avx2,fma"
#define KERNEL_AVX2_SET "avx2,fma"

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
