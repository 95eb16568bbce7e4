/* Types and sums; included once for each instruction set (kernel_vec.h). */
#include "shared/train/kernel_vec_body.h"

static void ISA(load)(float *to, const uint16_t *from, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC)
        ISA(vec_store)(to, i, ISA(vec_load)(from, i, true), false);
    for (; i < n; i++)
        to[i] = bf16_to_f32(from[i]);
}

static void ISA(store)(uint16_t *to, const float *from, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC)
        ISA(vec_store)(to, i, ISA(vec_load)(from, i, false), true);
    for (; i < n; i++)
        to[i] = f32_to_bf16(from[i]);
}

KERNEL_INLINE void ISA(add_typed)(void *to, const void *from, int64_t n, bool half)
{
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC)
        ISA(vec_store)(to, i, ISA(vec_load)(to, i, half) + ISA(vec_load)(from, i, half), half);
    for (; i < n; i++)
        half_store(to, i, half_load(to, i, half) + half_load(from, i, half), half);
}

static void ISA(add)(void *to, const void *from, int64_t n, bool half)
{
    if (half)
        ISA(add_typed)(to, from, n, true);
    else
        ISA(add_typed)(to, from, n, false);
}

static const struct basic_loops ISA(loops) = {ISA(load), ISA(store), ISA(add)};
