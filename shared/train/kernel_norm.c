#include "shared/train/kernel_norm.h"

#include "shared/train/kernel_vec.h"

/* Sums run over so many periods in fp32 before they go into those of the whole. */
enum { STRETCH = 256, WIDE = NORM_BLOCK / VEC };

struct norm_loops {
    void (*sums)(const struct norm_job *job, const float *shift, float *s1, float *s2);
    void (*apply)(const struct norm_job *job, void *y);
    void (*backward_sums)(const struct norm_job *job, const void *dy, void *g, const float *mean,
                          float *s1, float *s2);
    void (*backward)(const struct norm_job *job, const void *dy, void *dx, const float *p,
                     const float *q, const float *t);
};

#define KERNEL_BODY "shared/train/kernel_norm_body.h"
#define KERNEL_LOOPS struct norm_loops
#include "shared/train/kernel_each_body.h"

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

void norm_sums(const struct norm_job *job, const float *shift, float *s1, float *s2)
{
    loops()->sums(job, shift, s1, s2);
}

void norm_apply(const struct norm_job *job, void *y)
{
    loops()->apply(job, y);
}

void norm_backward_sums(const struct norm_job *job, const void *dy, void *g, const float *mean,
                        float *s1, float *s2)
{
    loops()->backward_sums(job, dy, g, mean, s1, s2);
}

void norm_backward(const struct norm_job *job, const void *dy, void *dx, const float *p,
                   const float *q, const float *t)
{
    loops()->backward(job, dy, dx, p, q, t);
}
