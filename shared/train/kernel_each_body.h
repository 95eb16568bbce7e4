/*
 * A body of loops for each instruction set, and the choice among them (no header of its own: it is
 * included once in each file of loops, see kernel_vec.h):
 *
 *     #define KERNEL_BODY "shared/train/kernel_x_body.h"     (defines ISA(loops))
 *     #define KERNEL_LOOPS struct x_loops
 *     #include "shared/train/kernel_each_body.h"
 *     ... loops()->f(...) ...
 */
#include "shared/nn/plan.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define ISA(name) name##_bf16
#define ISA_HAS_BF16
KERNEL_TARGET(KERNEL_BF16_SET)
#include KERNEL_BODY
KERNEL_END
#undef ISA_HAS_BF16
#undef ISA

#define ISA(name) name##_avx512
KERNEL_TARGET(KERNEL_AVX512_SET)
#include KERNEL_BODY
KERNEL_END
#undef ISA

#define ISA(name) name##_avx2
KERNEL_TARGET(KERNEL_AVX2_SET)
#include KERNEL_BODY
KERNEL_END
#undef ISA
#endif

#define ISA(name) name##_plain
#include KERNEL_BODY
#undef ISA

static const KERNEL_LOOPS *loops(void)
{
#if defined(__x86_64__)
    if (kernel_level() == KERNEL_AVX512)
        return nn_has_bf16() ? &loops_bf16 : &loops_avx512;
    if (kernel_level() == KERNEL_AVX2)
        return &loops_avx2;
#endif
    return &loops_plain;
}
