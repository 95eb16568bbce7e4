#include "shared/base/eigen.h"

#include <math.h>
#include <stdbool.h>

#define SWEEPS 64
#define NOTHING 1e-24 /* of all squares: what may be left beside the diagonal */

static void rotate(double *x, double *y, int64_t step, int64_t n, double c, double s)
{
    for (int64_t k = 0; k < n * step; k += step) {
        const double u = x[k], v = y[k];
        x[k] = c * u - s * v;
        y[k] = s * u + c * v;
    }
}

/* Rotates coordinates i and j so that a[i][j] vanishes. */
static void annihilate(double *a, double *vectors, int64_t n, int64_t i, int64_t j)
{
    const double angle = (a[j * n + j] - a[i * n + i]) / (2 * a[i * n + j]);
    const double t = copysign(1, angle) / (fabs(angle) + sqrt(1 + angle * angle));
    const double c = 1 / sqrt(1 + t * t), s = t * c;
    rotate(a + i, a + j, n, n, c, s);
    rotate(a + i * n, a + j * n, 1, n, c, s);
    rotate(vectors + i * n, vectors + j * n, 1, n, c, s);
}

static bool is_diagonal(const double *a, int64_t n)
{
    double off = 0, all = 0;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++) {
            const double square = a[i * n + j] * a[i * n + j];
            all += square;
            off += i == j ? 0 : square;
        }
    return off <= all * NOTHING;
}

void eigen_symmetric(double *a, double *vectors, double *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < n; j++)
            vectors[i * n + j] = i == j;
    for (int sweep = 0; sweep < SWEEPS && !is_diagonal(a, n); sweep++)
        for (int64_t i = 0; i < n; i++)
            for (int64_t j = i + 1; j < n; j++)
                if (a[i * n + j] != 0)
                    annihilate(a, vectors, n, i, j);
    for (int64_t i = 0; i < n; i++)
        values[i] = a[i * n + i];
}
