/* Types and layouts. */
#include "shared/train/kernel_vec.h"
#include "shared/train/net_priv.h"

KERNEL_FILE

static inline void load_body(float *to, const uint16_t *from, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        vec x;
        vec_load(&x, from, i, true);
        vec_store(to, i, &x, false);
    }
    for (; i < n; i++)
        to[i] = bf16_to_f32(from[i]);
}
KERNEL(load, (float *to, const uint16_t *from, int64_t n), (to, from, n))

void kernel_load(float *to, const void *from, enum dtype dtype, int64_t n)
{
    if (dtype == DTYPE_BF16)
        KERNEL_PICK(load)(to, from, n);
    else
        memcpy(to, from, (size_t)n * sizeof(float));
}

static inline void store_body(uint16_t *to, const float *from, int64_t n)
{
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        vec x;
        vec_load(&x, from, i, false);
        vec_store(to, i, &x, true);
    }
    for (; i < n; i++)
        to[i] = f32_to_bf16(from[i]);
}
KERNEL(store, (uint16_t *to, const float *from, int64_t n), (to, from, n))

void kernel_store(void *to, const float *from, enum dtype dtype, int64_t n)
{
    if (dtype == DTYPE_BF16)
        KERNEL_PICK(store)(to, from, n);
    else
        memcpy(to, from, (size_t)n * sizeof(float));
}

KERNEL_INLINE void add_typed(void *to, const void *from, int64_t n, bool half)
{
    int64_t i = 0;
    for (; i + VEC <= n; i += VEC) {
        vec x, y;
        vec_load(&x, to, i, half);
        vec_load(&y, from, i, half);
        x += y;
        vec_store(to, i, &x, half);
    }
    for (; i < n; i++)
        half_store(to, i, half_load(to, i, half) + half_load(from, i, half), half);
}

static inline void add_body(void *to, const void *from, int64_t n, bool half)
{
    if (half)
        add_typed(to, from, n, true);
    else
        add_typed(to, from, n, false);
}
KERNEL(add, (void *to, const void *from, int64_t n, bool half), (to, from, n, half))

void kernel_add(void *to, const void *from, enum dtype dtype, int64_t n)
{
    KERNEL_PICK(add)(to, from, n, dtype == DTYPE_BF16);
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
