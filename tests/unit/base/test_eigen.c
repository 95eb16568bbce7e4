/* Eigenvectors of symmetric matrices. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/eigen.h"

enum { N = 7 };

static double dot(const double *x, const double *y)
{
    double sum = 0;
    for (int i = 0; i < N; i++)
        sum += x[i] * y[i];
    return sum;
}

static void vectors_are_stretched_by_their_values(void **state)
{
    (void)state;
    double was[N][N], a[N][N], vectors[N][N], values[N], trace = 0, sum = 0;
    for (int i = 0; i < N; i++)
        for (int j = 0; j < N; j++)
            was[i][j] = sin(i + j) + cos(i * j) + (i == j ? i : 0);
    memcpy(a, was, sizeof(a));
    eigen_symmetric(&a[0][0], &vectors[0][0], values, N);
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < N; k++) {
            assert_true(fabs(dot(was[k], vectors[i]) - values[i] * vectors[i][k]) < 1e-9);
            assert_true(fabs(dot(vectors[k], vectors[i]) - (i == k)) < 1e-9);
        }
        trace += was[i][i];
        sum += values[i];
    }
    assert_true(fabs(trace - sum) < 1e-9);
}

static void what_is_diagonal_stays(void **state)
{
    (void)state;
    double a[] = {3, 0, 0, -1}, vectors[4], values[2];
    eigen_symmetric(a, vectors, values, 2);
    assert_true(values[0] == 3 && values[1] == -1);
    assert_true(vectors[0] == 1 && vectors[1] == 0 && vectors[2] == 0 && vectors[3] == 1);
    memset(a, 0, sizeof(a));
    eigen_symmetric(a, vectors, values, 2);
    assert_true(values[0] == 0 && values[1] == 0 && vectors[0] == 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_are_stretched_by_their_values),
        cmocka_unit_test(what_is_diagonal_stays),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
