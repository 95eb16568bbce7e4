#pragma once
/*
 * Normalisation over the rows of [rows, c], with what follows it. Coefficients are given for each
 * element of a period: P = norm_period(c) elements, the smallest multiple of c and of 64, hold
 * whole rows and whole vectors.
 */
#include "shared/graph/tensor.h"

enum { NORM_BLOCK = 64 };
int64_t norm_period(int64_t c);
/* [c] repeated over the period. */
void norm_repeat(float *to, const float *from, int64_t c);
/* [period] summed to [c]. */
void norm_fold(float *to, const float *from, int64_t c);

/* Where the gradient passes: everywhere; where low < a * x + b < high; where low < y < high. */
enum norm_mask { NORM_ALL, NORM_BY_X, NORM_BY_Y };

struct norm_job {
    enum dtype dtype;        /* of all tensors */
    int64_t n, period;       /* elements; of the coefficients */
    const void *x, *y, *add; /* add: what is added to the result (forward), or dy2 (backward) */
    const float *a, *b;
    float low, high; /* of the activation */
    enum norm_mask mask;
};

/* s1, s2: [period] sums of x - shift and its square. */
void norm_sums(const struct norm_job *job, const float *shift, float *s1, float *s2);
/* y = clamp(a * x + b + add) */
void norm_apply(const struct norm_job *job, void *y);
/* g = mask * (dy + add), written to `g` unless that is NULL; s1 = sums of g, s2 = of g * (x - mean)
 */
void norm_backward_sums(const struct norm_job *job, const void *dy, void *g, const float *mean,
                        float *s1, float *s2);
/* dx = p * g + q * x + t, with g = mask * dy. dx may be dy. */
void norm_backward(const struct norm_job *job, const void *dy, void *dx, const float *p,
                   const float *q, const float *t);
