#pragma once
/*
 * Tensors: a type, a shape and (usually) data, row-major and dense.
 *
 * A shape may hold one symbolic dimension, DIM_BATCH: the batch size, unknown until a plan is
 * compiled. All other dimensions are concrete.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"
#include "shared/base/mem.h"

#define SHAPE_MAX_RANK 8
#define DIM_BATCH ((int64_t)-1)
/* No tensor may have more elements than this: sizes in bytes then fit comfortably in int64_t. */
#define SHAPE_MAX_ELEMENTS ((int64_t)1 << 40)

/* Numbered as ONNX's TensorProto.DataType. */
enum dtype {
    DTYPE_NONE = 0,
    DTYPE_F32 = 1,
    DTYPE_U8 = 2,
    DTYPE_S8 = 3,
    DTYPE_U16 = 4,
    DTYPE_S16 = 5,
    DTYPE_S32 = 6,
    DTYPE_S64 = 7,
    DTYPE_BOOL = 9,
    DTYPE_F16 = 10,
    DTYPE_F64 = 11,
    DTYPE_U32 = 12,
    DTYPE_U64 = 13,
    DTYPE_BF16 = 16,
};

struct shape {
    int rank; /* 0: a scalar */
    int64_t dim[SHAPE_MAX_RANK];
};

struct tensor {
    enum dtype dtype;
    struct shape shape;
    void *data; /* dtype_bytes(dtype) * shape_elements(&shape) bytes, aligned to 64 */
};

size_t dtype_bytes(enum dtype dtype);     /* of one element; 0 for DTYPE_NONE */
const char *dtype_name(enum dtype dtype); /* "float32", "uint8", ... */
bool dtype_is_float(enum dtype dtype);    /* f16, bf16, f32, f64 */

/* Product of the dimensions (1 for a scalar; DIM_BATCH counts as `batch`). */
int64_t shape_elements(const struct shape *shape); /* no DIM_BATCH inside */
int64_t shape_elements_at(const struct shape *shape, int64_t batch);
bool shape_equal(const struct shape *a, const struct shape *b);
bool shape_has_batch(const struct shape *shape);
/* The shape with DIM_BATCH replaced by `batch`. */
struct shape shape_at(const struct shape *shape, int64_t batch);
struct shape shape_make(int rank, const int64_t *dims);
/* "[N,3,32,32]" */
const char *shape_text(const struct shape *shape, char text[128]);
/* 0, or INVALID_ARGUMENT when the rank is no rank, a dimension is negative (other than one
 * DIM_BATCH), or the number of elements (DIM_BATCH and zeros as 1, so that no partial product
 * overflows either) is above SHAPE_MAX_ELEMENTS. Zero-sized dimensions are valid. */
int shape_check(const struct shape *shape, struct err *err);
/* Numpy broadcasting of two shapes (DIM_BATCH meets DIM_BATCH or 1). */
int shape_broadcast(const struct shape *a, const struct shape *b, struct shape *ret,
                    struct err *err);

/* Tensor on the heap (data zeroed) or in an arena. tensor_free is NULL-safe and returns NULL. */
struct tensor *tensor_new(enum dtype dtype, const struct shape *shape, struct err *err);
struct tensor *tensor_free(struct tensor *tensor);
void tensor_freep(struct tensor **tensor);
struct tensor *tensor_in_arena(struct arena *arena, enum dtype dtype, const struct shape *shape,
                               struct err *err);
struct tensor *tensor_clone(const struct tensor *tensor, struct err *err); /* heap */
size_t tensor_bytes(const struct tensor *tensor);
/* Element i as a number, from any numeric type; and back, rounding to nearest even, saturating
 * (NaN becomes 0 in an integer). Integers read from floats are cut towards zero. The s64 pair is
 * exact where a double is not; uint64 above INT64_MAX saturates in it. */
double tensor_get_f64(const struct tensor *tensor, int64_t i);
int64_t tensor_get_s64(const struct tensor *tensor, int64_t i);
void tensor_set_f64(struct tensor *tensor, int64_t i, double value);
void tensor_set_s64(struct tensor *tensor, int64_t i, int64_t value);

float bf16_to_f32(uint16_t x);
uint16_t f32_to_bf16(float x); /* to nearest even */
float f16_to_f32(uint16_t x);
uint16_t f32_to_f16(float x);
/* One rounding, to nearest even: through f32 there would be two. */
uint16_t f64_to_bf16(double x);
uint16_t f64_to_f16(double x);
