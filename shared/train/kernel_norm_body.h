/* Loops of normalisation; included once for each instruction set (kernel_vec.h). */
#include "shared/train/kernel_vec_body.h"

/* ---- forward ---- */

KERNEL_INLINE void ISA(sums_typed)(const struct norm_job *job, const float *shift, float *s1,
                                   float *s2, bool half)
{
    const int64_t whole = job->n / job->period;
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec k[WIDE], t1[WIDE] = {0}, t2[WIDE] = {0};
        for (int v = 0; v < WIDE; v++)
            k[v] = ISA(vec_load)(shift, j + v * VEC, false);
        for (int64_t from = 0; from < whole; from += STRETCH) {
            const int64_t end = from + STRETCH < whole ? from + STRETCH : whole;
            vec p1[WIDE] = {0}, p2[WIDE] = {0};
            for (int64_t i = from; i < end; i++) {
#pragma GCC unroll 4
                for (int v = 0; v < WIDE; v++) {
                    vec x = ISA(vec_load)(job->x, i * job->period + j + v * VEC, half) - k[v];
                    p1[v] += x;
                    p2[v] += x * x;
                }
            }
            for (int v = 0; v < WIDE; v++) {
                t1[v] += p1[v];
                t2[v] += p2[v];
            }
        }
        for (int v = 0; v < WIDE; v++) {
            ISA(vec_store)(s1, j + v * VEC, t1[v], false);
            ISA(vec_store)(s2, j + v * VEC, t2[v], false);
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        const int64_t at = i - whole * job->period;
        float x = half_load(job->x, i, half) - shift[at];
        s1[at] += x;
        s2[at] += x * x;
    }
}

static void ISA(sums)(const struct norm_job *job, const float *shift, float *s1, float *s2)
{
    if (job->dtype == DTYPE_BF16)
        ISA(sums_typed)(job, shift, s1, s2, true);
    else
        ISA(sums_typed)(job, shift, s1, s2, false);
}

KERNEL_INLINE void ISA(apply_typed)(const struct norm_job *job, void *y, bool half, bool add)
{
    const int64_t whole = job->n / job->period;
    const vec low = ISA(vec_splat)(job->low), high = ISA(vec_splat)(job->high);
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec a[WIDE], b[WIDE];
        for (int v = 0; v < WIDE; v++) {
            a[v] = ISA(vec_load)(job->a, j + v * VEC, false);
            b[v] = ISA(vec_load)(job->b, j + v * VEC, false);
        }
        for (int64_t i = 0; i < whole; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) {
                const int64_t at = i * job->period + j + v * VEC;
                vec x = ISA(vec_load)(job->x, at, half) * a[v] + b[v];
                if (add)
                    x += ISA(vec_load)(job->add, at, half);
                ISA(vec_store)(y, at, ISA(vec_clamp)(x, low, high), half);
            }
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        const int64_t k = i - whole * job->period;
        float x = half_load(job->x, i, half) * job->a[k] + job->b[k];
        if (add)
            x += half_load(job->add, i, half);
        x = x < job->low ? job->low : x > job->high ? job->high : x;
        half_store(y, i, x, half);
    }
}

static void ISA(apply)(const struct norm_job *job, void *y)
{
    if (job->dtype == DTYPE_BF16 && job->add)
        ISA(apply_typed)(job, y, true, true);
    else if (job->dtype == DTYPE_BF16)
        ISA(apply_typed)(job, y, true, false);
    else if (job->add)
        ISA(apply_typed)(job, y, false, true);
    else
        ISA(apply_typed)(job, y, false, false);
}

/* ---- backward ---- */

struct ISA(bounds) {
    vec low, high;
};

/* Gradients at `at` behind the activation; x is what normalisation read there. */
KERNEL_INLINE vec ISA(masked)(const struct norm_job *job, const struct ISA(bounds) * bounds,
                              const void *dy, int64_t at, vec x, vec a, vec b, bool half, bool add,
                              enum norm_mask mask)
{
    vec g = ISA(vec_load)(dy, at, half);
    if (add)
        g += ISA(vec_load)(job->add, at, half);
    if (mask == NORM_ALL)
        return g;
    const vec y = mask == NORM_BY_X ? x * a + b : ISA(vec_load)(job->y, at, half);
    return ISA(vec_keep)(g, (y > bounds->low) & (y < bounds->high));
}

static inline float ISA(masked_one)(const struct norm_job *job, const void *dy, int64_t i,
                                    int64_t k, bool half, bool add)
{
    float g = half_load(dy, i, half) + (add ? half_load(job->add, i, half) : 0);
    if (job->mask == NORM_ALL)
        return g;
    float y = job->mask == NORM_BY_X ? half_load(job->x, i, half) * job->a[k] + job->b[k]
                                     : half_load(job->y, i, half);
    return y > job->low && y < job->high ? g : 0;
}

KERNEL_INLINE void ISA(backward_sums_typed)(const struct norm_job *job, const void *dy, void *g,
                                            const float *mean, float *s1, float *s2, bool half,
                                            bool add, bool keep, enum norm_mask mask)
{
    const int64_t whole = job->n / job->period;
    const struct ISA(bounds) bounds = {ISA(vec_splat)(job->low), ISA(vec_splat)(job->high)};
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec m[WIDE], a[WIDE], b[WIDE], t1[WIDE] = {0}, t2[WIDE] = {0};
        for (int v = 0; v < WIDE; v++) {
            m[v] = ISA(vec_load)(mean, j + v * VEC, false);
            a[v] = ISA(vec_load)(job->a, j + v * VEC, false);
            b[v] = ISA(vec_load)(job->b, j + v * VEC, false);
        }
        for (int64_t from = 0; from < whole; from += STRETCH) {
            const int64_t end = from + STRETCH < whole ? from + STRETCH : whole;
            vec p1[WIDE] = {0}, p2[WIDE] = {0};
            for (int64_t i = from; i < end; i++) {
#pragma GCC unroll 4
                for (int v = 0; v < WIDE; v++) {
                    const int64_t at = i * job->period + j + v * VEC;
                    const vec x = ISA(vec_load)(job->x, at, half);
                    const vec d = ISA(masked)(job, &bounds, dy, at, x, a[v], b[v], half, add, mask);
                    if (keep)
                        ISA(vec_store)(g, at, d, half);
                    p1[v] += d;
                    p2[v] += d * (x - m[v]);
                }
            }
            for (int v = 0; v < WIDE; v++) {
                t1[v] += p1[v];
                t2[v] += p2[v];
            }
        }
        for (int v = 0; v < WIDE; v++) {
            ISA(vec_store)(s1, j + v * VEC, t1[v], false);
            ISA(vec_store)(s2, j + v * VEC, t2[v], false);
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        const int64_t k = i - whole * job->period;
        float d = ISA(masked_one)(job, dy, i, k, half, add);
        if (keep)
            half_store(g, i, d, half);
        s1[k] += d;
        s2[k] += d * (half_load(job->x, i, half) - mean[k]);
    }
}

KERNEL_INLINE void ISA(backward_sums_masked)(const struct norm_job *job, const void *dy, void *g,
                                             const float *mean, float *s1, float *s2, bool half,
                                             bool add, bool keep)
{
    if (job->mask == NORM_ALL)
        ISA(backward_sums_typed)(job, dy, g, mean, s1, s2, half, add, keep, NORM_ALL);
    else if (job->mask == NORM_BY_X)
        ISA(backward_sums_typed)(job, dy, g, mean, s1, s2, half, add, keep, NORM_BY_X);
    else
        ISA(backward_sums_typed)(job, dy, g, mean, s1, s2, half, add, keep, NORM_BY_Y);
}

KERNEL_INLINE void ISA(backward_sums_kept)(const struct norm_job *job, const void *dy, void *g,
                                           const float *mean, float *s1, float *s2, bool half)
{
    if (job->add) /* then the sum is kept */
        ISA(backward_sums_masked)(job, dy, g, mean, s1, s2, half, true, true);
    else if (g)
        ISA(backward_sums_masked)(job, dy, g, mean, s1, s2, half, false, true);
    else
        ISA(backward_sums_masked)(job, dy, g, mean, s1, s2, half, false, false);
}

static void ISA(backward_sums)(const struct norm_job *job, const void *dy, void *g,
                               const float *mean, float *s1, float *s2)
{
    if (job->dtype == DTYPE_BF16)
        ISA(backward_sums_kept)(job, dy, g, mean, s1, s2, true);
    else
        ISA(backward_sums_kept)(job, dy, g, mean, s1, s2, false);
}

KERNEL_INLINE void ISA(backward_typed)(const struct norm_job *job, const void *dy, void *dx,
                                       const float *p, const float *q, const float *t, bool half,
                                       enum norm_mask mask)
{
    const int64_t whole = job->n / job->period;
    const struct ISA(bounds) bounds = {ISA(vec_splat)(job->low), ISA(vec_splat)(job->high)};
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec a[WIDE], b[WIDE], cp[WIDE], cq[WIDE], ct[WIDE];
        for (int v = 0; v < WIDE; v++) {
            a[v] = ISA(vec_load)(job->a, j + v * VEC, false);
            b[v] = ISA(vec_load)(job->b, j + v * VEC, false);
            cp[v] = ISA(vec_load)(p, j + v * VEC, false);
            cq[v] = ISA(vec_load)(q, j + v * VEC, false);
            ct[v] = ISA(vec_load)(t, j + v * VEC, false);
        }
        for (int64_t i = 0; i < whole; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) {
                const int64_t at = i * job->period + j + v * VEC;
                const vec x = ISA(vec_load)(job->x, at, half);
                vec d = ISA(masked)(job, &bounds, dy, at, x, a[v], b[v], half, false, mask);
                ISA(vec_store)(dx, at, cp[v] * d + (cq[v] * x + ct[v]), half);
            }
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        const int64_t k = i - whole * job->period;
        float d = ISA(masked_one)(job, dy, i, k, half, false);
        half_store(dx, i, p[k] * d + q[k] * half_load(job->x, i, half) + t[k], half);
    }
}

KERNEL_INLINE void ISA(backward_masked)(const struct norm_job *job, const void *dy, void *dx,
                                        const float *p, const float *q, const float *t, bool half)
{
    if (job->mask == NORM_ALL)
        ISA(backward_typed)(job, dy, dx, p, q, t, half, NORM_ALL);
    else if (job->mask == NORM_BY_X)
        ISA(backward_typed)(job, dy, dx, p, q, t, half, NORM_BY_X);
    else
        ISA(backward_typed)(job, dy, dx, p, q, t, half, NORM_BY_Y);
}

static void ISA(backward)(const struct norm_job *job, const void *dy, void *dx, const float *p,
                          const float *q, const float *t)
{
    if (job->dtype == DTYPE_BF16)
        ISA(backward_masked)(job, dy, dx, p, q, t, true);
    else
        ISA(backward_masked)(job, dy, dx, p, q, t, false);
}

static const struct norm_loops ISA(loops) = {ISA(sums), ISA(apply), ISA(backward_sums),
                                             ISA(backward)};
