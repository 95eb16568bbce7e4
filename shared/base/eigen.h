#pragma once
/* Eigenvectors of a symmetric matrix, by Jacobi's rotations (Golub and Van Loan, 8.5). */
#include <stdint.h>

/* a: [n, n], symmetric; becomes diagonal. Row i of vectors, [n, n], has length 1 and belongs to
 * values[i], [n]; in no order. Of a matrix that is positive, values may lie below 0 by rounding. */
void eigen_symmetric(double *a, double *vectors, double *values, int64_t n);
