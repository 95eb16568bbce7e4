#include "shared/train/kernel_norm.h"

#include "shared/train/kernel_vec.h"

KERNEL_FILE

/* Sums run over so many periods in fp32 before they go into those of the whole. */
enum { STRETCH = 256, WIDE = NORM_BLOCK / VEC };

int64_t norm_period(int64_t c)
{
    int64_t a = c, b = NORM_BLOCK;
    while (b) {
        int64_t rest = a % b;
        a = b;
        b = rest;
    }
    return c / a * NORM_BLOCK;
}

void norm_repeat(float *to, const float *from, int64_t c)
{
    int64_t period = norm_period(c);
    for (int64_t i = 0; i < period; i += c)
        memcpy(to + i, from, (size_t)c * sizeof(float));
}

void norm_fold(float *to, const float *from, int64_t c)
{
    int64_t period = norm_period(c);
    memcpy(to, from, (size_t)c * sizeof(float));
    for (int64_t i = c; i < period; i += c)
        for (int64_t k = 0; k < c; k++)
            to[k] += from[i + k];
}

/* ---- forward ---- */

KERNEL_INLINE void sums_typed(const struct norm_job *job, const float *shift, float *s1, float *s2,
                              bool half)
{
    const int64_t whole = job->n / job->period;
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec k[WIDE], t1[WIDE] = {0}, t2[WIDE] = {0};
        for (int v = 0; v < WIDE; v++)
            vec_load(&k[v], shift, j + v * VEC, false);
        for (int64_t from = 0; from < whole; from += STRETCH) {
            const int64_t end = from + STRETCH < whole ? from + STRETCH : whole;
            vec p1[WIDE] = {0}, p2[WIDE] = {0};
            for (int64_t i = from; i < end; i++) {
#pragma GCC unroll 4
                for (int v = 0; v < WIDE; v++) {
                    vec x;
                    vec_load(&x, job->x, i * job->period + j + v * VEC, half);
                    x -= k[v];
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
            vec_store(s1, j + v * VEC, &t1[v], false);
            vec_store(s2, j + v * VEC, &t2[v], false);
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        float x = half_load(job->x, i, half) - shift[i - whole * job->period];
        s1[i - whole * job->period] += x;
        s2[i - whole * job->period] += x * x;
    }
}

static inline void sums_body(const struct norm_job *job, const float *shift, float *s1, float *s2)
{
    if (job->dtype == DTYPE_BF16)
        sums_typed(job, shift, s1, s2, true);
    else
        sums_typed(job, shift, s1, s2, false);
}
KERNEL(sums, (const struct norm_job *job, const float *shift, float *s1, float *s2),
       (job, shift, s1, s2))

void norm_sums(const struct norm_job *job, const float *shift, float *s1, float *s2)
{
    KERNEL_PICK(sums)(job, shift, s1, s2);
}

KERNEL_INLINE void apply_typed(const struct norm_job *job, void *y, bool half, bool add)
{
    const int64_t whole = job->n / job->period;
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec a[WIDE], b[WIDE];
        for (int v = 0; v < WIDE; v++) {
            vec_load(&a[v], job->a, j + v * VEC, false);
            vec_load(&b[v], job->b, j + v * VEC, false);
        }
        for (int64_t i = 0; i < whole; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) {
                const int64_t at = i * job->period + j + v * VEC;
                vec x, r;
                vec_load(&x, job->x, at, half);
                x = x * a[v] + b[v];
                if (add) {
                    vec_load(&r, job->add, at, half);
                    x += r;
                }
                vec_clamp(&x, job->low, job->high);
                vec_store(y, at, &x, half);
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

static inline void apply_body(const struct norm_job *job, void *y)
{
    if (job->dtype == DTYPE_BF16 && job->add)
        apply_typed(job, y, true, true);
    else if (job->dtype == DTYPE_BF16)
        apply_typed(job, y, true, false);
    else if (job->add)
        apply_typed(job, y, false, true);
    else
        apply_typed(job, y, false, false);
}
KERNEL(apply, (const struct norm_job *job, void *y), (job, y))

void norm_apply(const struct norm_job *job, void *y)
{
    KERNEL_PICK(apply)(job, y);
}

/* ---- backward ---- */

/* Gradients at `at` behind the activation; x is loaded already. */
KERNEL_INLINE void masked(const struct norm_job *job, const void *dy, int64_t at, const vec *x,
                          const vec *a, const vec *b, bool half, bool add, enum norm_mask mask,
                          vec *ret)
{
    vec_load(ret, dy, at, half);
    if (add) {
        vec more;
        vec_load(&more, job->add, at, half);
        *ret += more;
    }
    if (mask == NORM_ALL)
        return;
    vec y;
    if (mask == NORM_BY_X)
        y = *x * *a + *b;
    else
        vec_load(&y, job->y, at, half);
    const ivec inside = (y > job->low) & (y < job->high);
    vec_keep(ret, &inside);
}

static inline float masked_one(const struct norm_job *job, const void *dy, int64_t i, int64_t k,
                               bool half, bool add)
{
    float g = half_load(dy, i, half) + (add ? half_load(job->add, i, half) : 0);
    if (job->mask == NORM_ALL)
        return g;
    float y = job->mask == NORM_BY_X ? half_load(job->x, i, half) * job->a[k] + job->b[k]
                                     : half_load(job->y, i, half);
    return y > job->low && y < job->high ? g : 0;
}

KERNEL_INLINE void backward_sums_typed(const struct norm_job *job, const void *dy, void *g,
                                       const float *mean, float *s1, float *s2, bool half, bool add,
                                       enum norm_mask mask)
{
    const int64_t whole = job->n / job->period;
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec m[WIDE], a[WIDE], b[WIDE], t1[WIDE] = {0}, t2[WIDE] = {0};
        for (int v = 0; v < WIDE; v++) {
            vec_load(&m[v], mean, j + v * VEC, false);
            vec_load(&a[v], job->a, j + v * VEC, false);
            vec_load(&b[v], job->b, j + v * VEC, false);
        }
        for (int64_t from = 0; from < whole; from += STRETCH) {
            const int64_t end = from + STRETCH < whole ? from + STRETCH : whole;
            vec p1[WIDE] = {0}, p2[WIDE] = {0};
            for (int64_t i = from; i < end; i++) {
#pragma GCC unroll 4
                for (int v = 0; v < WIDE; v++) {
                    const int64_t at = i * job->period + j + v * VEC;
                    vec x, d;
                    vec_load(&x, job->x, at, half);
                    masked(job, dy, at, &x, &a[v], &b[v], half, add, mask, &d);
                    if (g)
                        vec_store(g, at, &d, half);
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
            vec_store(s1, j + v * VEC, &t1[v], false);
            vec_store(s2, j + v * VEC, &t2[v], false);
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        const int64_t k = i - whole * job->period;
        float d = masked_one(job, dy, i, k, half, add);
        if (g)
            half_store(g, i, d, half);
        s1[k] += d;
        s2[k] += d * (half_load(job->x, i, half) - mean[k]);
    }
}

KERNEL_INLINE void backward_sums_masked(const struct norm_job *job, const void *dy, void *g,
                                        const float *mean, float *s1, float *s2, bool half,
                                        bool add)
{
    if (job->mask == NORM_ALL)
        backward_sums_typed(job, dy, g, mean, s1, s2, half, add, NORM_ALL);
    else if (job->mask == NORM_BY_X)
        backward_sums_typed(job, dy, g, mean, s1, s2, half, add, NORM_BY_X);
    else
        backward_sums_typed(job, dy, g, mean, s1, s2, half, add, NORM_BY_Y);
}

static inline void backward_sums_body(const struct norm_job *job, const void *dy, void *g,
                                      const float *mean, float *s1, float *s2)
{
    if (job->dtype == DTYPE_BF16 && job->add)
        backward_sums_masked(job, dy, g, mean, s1, s2, true, true);
    else if (job->dtype == DTYPE_BF16)
        backward_sums_masked(job, dy, g, mean, s1, s2, true, false);
    else if (job->add)
        backward_sums_masked(job, dy, g, mean, s1, s2, false, true);
    else
        backward_sums_masked(job, dy, g, mean, s1, s2, false, false);
}
KERNEL(backward_sums,
       (const struct norm_job *job, const void *dy, void *g, const float *mean, float *s1,
        float *s2),
       (job, dy, g, mean, s1, s2))

void norm_backward_sums(const struct norm_job *job, const void *dy, void *g, const float *mean,
                        float *s1, float *s2)
{
    KERNEL_PICK(backward_sums)(job, dy, g, mean, s1, s2);
}

KERNEL_INLINE void backward_typed(const struct norm_job *job, const void *dy, void *dx,
                                  const float *p, const float *q, const float *t, bool half,
                                  enum norm_mask mask)
{
    const int64_t whole = job->n / job->period;
    for (int64_t j = 0; j < job->period; j += NORM_BLOCK) {
        vec a[WIDE], b[WIDE], cp[WIDE], cq[WIDE], ct[WIDE];
        for (int v = 0; v < WIDE; v++) {
            vec_load(&a[v], job->a, j + v * VEC, false);
            vec_load(&b[v], job->b, j + v * VEC, false);
            vec_load(&cp[v], p, j + v * VEC, false);
            vec_load(&cq[v], q, j + v * VEC, false);
            vec_load(&ct[v], t, j + v * VEC, false);
        }
        for (int64_t i = 0; i < whole; i++) {
#pragma GCC unroll 4
            for (int v = 0; v < WIDE; v++) {
                const int64_t at = i * job->period + j + v * VEC;
                vec x, d;
                vec_load(&x, job->x, at, half);
                masked(job, dy, at, &x, &a[v], &b[v], half, false, mask, &d);
                d = cp[v] * d + cq[v] * x + ct[v];
                vec_store(dx, at, &d, half);
            }
        }
    }
    for (int64_t i = whole * job->period; i < job->n; i++) {
        const int64_t k = i - whole * job->period;
        float d = masked_one(job, dy, i, k, half, false);
        half_store(dx, i, p[k] * d + q[k] * half_load(job->x, i, half) + t[k], half);
    }
}

KERNEL_INLINE void backward_masked(const struct norm_job *job, const void *dy, void *dx,
                                   const float *p, const float *q, const float *t, bool half)
{
    if (job->mask == NORM_ALL)
        backward_typed(job, dy, dx, p, q, t, half, NORM_ALL);
    else if (job->mask == NORM_BY_X)
        backward_typed(job, dy, dx, p, q, t, half, NORM_BY_X);
    else
        backward_typed(job, dy, dx, p, q, t, half, NORM_BY_Y);
}

static inline void backward_body(const struct norm_job *job, const void *dy, void *dx,
                                 const float *p, const float *q, const float *t)
{
    if (job->dtype == DTYPE_BF16)
        backward_masked(job, dy, dx, p, q, t, true);
    else
        backward_masked(job, dy, dx, p, q, t, false);
}
KERNEL(backward,
       (const struct norm_job *job, const void *dy, void *dx, const float *p, const float *q,
        const float *t),
       (job, dy, dx, p, q, t))

void norm_backward(const struct norm_job *job, const void *dy, void *dx, const float *p,
                   const float *q, const float *t)
{
    KERNEL_PICK(backward)(job, dy, dx, p, q, t);
}
