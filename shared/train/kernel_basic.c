/* Types and layouts. */
#include "shared/nn/plan.h"
#include "shared/train/kernel_vec.h"
#include "shared/train/net_priv.h"

struct basic_loops {
    void (*load)(float *to, const uint16_t *from, int64_t n);
    void (*store)(uint16_t *to, const float *from, int64_t n);
    void (*add)(void *to, const void *from, int64_t n, bool half);
};

#if defined(__x86_64__)
#include <immintrin.h>

#define ISA(name) name##_bf16
#define ISA_HAS_BF16
KERNEL_TARGET(KERNEL_BF16_SET)
#include "shared/train/kernel_basic_body.h"
KERNEL_END
#undef ISA_HAS_BF16
#undef ISA

#define ISA(name) name##_avx512
KERNEL_TARGET(KERNEL_AVX512_SET)
#include "shared/train/kernel_basic_body.h"
KERNEL_END
#undef ISA

#define ISA(name) name##_avx2
KERNEL_TARGET(KERNEL_AVX2_SET)
#include "shared/train/kernel_basic_body.h"
KERNEL_END
#undef ISA
#endif

#define ISA(name) name##_plain
#include "shared/train/kernel_basic_body.h"
#undef ISA

static const struct basic_loops *loops(void)
{
#if defined(__x86_64__)
    if (kernel_level() == KERNEL_AVX512)
        return nn_has_bf16() ? &loops_bf16 : &loops_avx512;
    if (kernel_level() == KERNEL_AVX2)
        return &loops_avx2;
#endif
    return &loops_plain;
}

void kernel_load(float *to, const void *from, enum dtype dtype, int64_t n)
{
    if (dtype == DTYPE_BF16)
        loops()->load(to, from, n);
    else
        memcpy(to, from, (size_t)n * sizeof(float));
}

void kernel_store(void *to, const float *from, enum dtype dtype, int64_t n)
{
    if (dtype == DTYPE_BF16)
        loops()->store(to, from, n);
    else
        memcpy(to, from, (size_t)n * sizeof(float));
}

void kernel_add(void *to, const void *from, enum dtype dtype, int64_t n)
{
    loops()->add(to, from, n, dtype == DTYPE_BF16);
}

/* ---- samples: [c, plane] <-> [plane, c] ---- */

KERNEL_INLINE void to_last_typed(void *to, const float *from, int64_t c, int64_t plane, bool half)
{
    for (int64_t p = 0; p < plane; p++)
        for (int64_t k = 0; k < c; k++)
            half_store(to, p * c + k, from[k * plane + p], half);
}

void kernel_to_last(void *to, enum dtype dtype, const float *from, int64_t c, int64_t plane)
{
    if (plane == 1 || c == 1)
        kernel_store(to, from, dtype, c * plane);
    else if (dtype == DTYPE_BF16)
        to_last_typed(to, from, c, plane, true);
    else
        to_last_typed(to, from, c, plane, false);
}

void kernel_from_last(float *to, const void *from, enum dtype dtype, int64_t c, int64_t plane)
{
    if (plane == 1 || c == 1) {
        kernel_load(to, from, dtype, c * plane);
        return;
    }
    for (int64_t k = 0; k < c; k++)
        for (int64_t p = 0; p < plane; p++)
            to[k * plane + p] = half_load(from, p * c + k, dtype == DTYPE_BF16);
}
