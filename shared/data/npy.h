#pragma once
/*
 * NumPy's .npy files, formats 1.0 to 3.0, out of memory (a mapping): little-endian numbers in C or
 * Fortran order. Objects (pickles), strings, records and big-endian numbers are refused.
 * https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

#define NPY_MAX_RANK 8

enum npy_type {
    NPY_U8,
    NPY_U16,
    NPY_U32,
    NPY_U64,
    NPY_I8,
    NPY_I16,
    NPY_I32,
    NPY_I64,
    NPY_F16,
    NPY_F32,
    NPY_F64,
    NPY_BOOL,
};
const char *npy_type_name(enum npy_type type); /* "uint8" */
bool npy_type_is_integer(enum npy_type type);

struct npy {
    enum npy_type type;
    size_t item_bytes;
    bool fortran;
    int rank;
    int64_t shape[NPY_MAX_RANK];
    int64_t count;       /* product of shape */
    const uint8_t *data; /* count items, perhaps not aligned */
};
/* Points into `data`, which must outlive it. The whole array must be there. */
int npy_parse(const void *data, size_t bytes, struct npy *ret, struct err *err);

/* Elements of row i (along the first axis), in C order: count / shape[0] of them. */
void npy_row_f32(const struct npy *a, int64_t i, float *out);
void npy_row_u8(const struct npy *a, int64_t i, uint8_t *out); /* NPY_U8 and NPY_BOOL only */
int64_t npy_get_i64(const struct npy *a, int64_t i); /* integers; values above 2^63: INT64_MAX */
