/* Fake quantization: floats that go through a grid of integers, and the gradient past it. */
#include <math.h>

#include "shared/nn/kernel.h"
#include "shared/train/net_priv.h"

KERNEL_FILE

/* The quotient in float, as every kernel of int8 computes it: no multiplication by an inverse. */
KERNEL_INLINE float on_grid(float x, const struct grid *grid)
{
    return rintf(x / grid->scale) + grid->zero;
}

KERNEL_INLINE void fake_body(const struct grid *grid, const float *from, float *to, int64_t n)
{
    const struct grid g = *grid;
    for (int64_t i = 0; i < n; i++) {
        const float q = on_grid(from[i], &g);
        const float kept = q < g.low ? g.low : q > g.high ? g.high : q;
        to[i] = (kept - g.zero) * g.scale;
    }
}
KERNEL(fake, (const struct grid *grid, const float *from, float *to, int64_t n),
       (grid, from, to, n))

KERNEL_INLINE void fake_back_body(const struct grid *grid, const float *x, const float *from,
                                  float *to, int64_t n)
{
    const struct grid g = *grid;
    for (int64_t i = 0; i < n; i++) {
        const float q = on_grid(x[i], &g);
        to[i] = q >= g.low && q <= g.high ? from[i] : 0;
    }
}
KERNEL(fake_back,
       (const struct grid *grid, const float *x, const float *from, float *to, int64_t n),
       (grid, x, from, to, n))

void kernel_fake(const struct grid *grid, const float *from, float *to, int64_t n)
{
    KERNEL_PICK(fake)(grid, from, to, n);
}

void kernel_fake_back(const struct grid *grid, const float *x, const float *from, float *to,
                      int64_t n)
{
    KERNEL_PICK(fake_back)(grid, x, from, to, n);
}

int64_t grid_integer(const struct grid *grid, float x)
{
    const float q = on_grid(x, grid);
    return (int64_t)(q < grid->low ? grid->low : q > grid->high ? grid->high : q);
}
