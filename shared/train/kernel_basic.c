/* Types and layouts. */
#include "shared/train/kernel_vec.h"
#include "shared/train/net_priv.h"

struct basic_loops {
    void (*load)(float *to, const uint16_t *from, int64_t n);
    void (*store)(uint16_t *to, const float *from, int64_t n);
    void (*add)(void *to, const void *from, int64_t n, bool half);
};

#define KERNEL_BODY "shared/train/kernel_basic_body.h"
#define KERNEL_LOOPS struct basic_loops
#include "shared/train/kernel_each_body.h"

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
