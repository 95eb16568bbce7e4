#include "shared/graph/tensor.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct dtype_info {
    const char *name;
    size_t bytes;
};

static struct dtype_info info_of(enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return (struct dtype_info){"float32", 4};
    case DTYPE_U8:
        return (struct dtype_info){"uint8", 1};
    case DTYPE_S8:
        return (struct dtype_info){"int8", 1};
    case DTYPE_U16:
        return (struct dtype_info){"uint16", 2};
    case DTYPE_S16:
        return (struct dtype_info){"int16", 2};
    case DTYPE_S32:
        return (struct dtype_info){"int32", 4};
    case DTYPE_S64:
        return (struct dtype_info){"int64", 8};
    case DTYPE_BOOL:
        return (struct dtype_info){"bool", 1};
    case DTYPE_F16:
        return (struct dtype_info){"float16", 2};
    case DTYPE_F64:
        return (struct dtype_info){"float64", 8};
    case DTYPE_U32:
        return (struct dtype_info){"uint32", 4};
    case DTYPE_U64:
        return (struct dtype_info){"uint64", 8};
    case DTYPE_BF16:
        return (struct dtype_info){"bfloat16", 2};
    case DTYPE_NONE:
        break;
    }
    return (struct dtype_info){"none", 0};
}

size_t dtype_bytes(enum dtype dtype)
{
    return info_of(dtype).bytes;
}

const char *dtype_name(enum dtype dtype)
{
    return info_of(dtype).name;
}

bool dtype_is_float(enum dtype dtype)
{
    return dtype == DTYPE_F32 || dtype == DTYPE_F64 || dtype == DTYPE_F16 || dtype == DTYPE_BF16;
}

/* ---- shapes ------------------------------------------------------------------------------- */

int64_t shape_elements(const struct shape *shape)
{
    int64_t n = 1;
    for (int i = 0; i < shape->rank; i++)
        n *= shape->dim[i];
    return n;
}

int64_t shape_elements_at(const struct shape *shape, int64_t batch)
{
    struct shape concrete = shape_at(shape, batch);
    return shape_elements(&concrete);
}

bool shape_equal(const struct shape *a, const struct shape *b)
{
    if (a->rank != b->rank)
        return false;
    for (int i = 0; i < a->rank; i++) {
        if (a->dim[i] != b->dim[i])
            return false;
    }
    return true;
}

bool shape_has_batch(const struct shape *shape)
{
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] == DIM_BATCH)
            return true;
    }
    return false;
}

struct shape shape_at(const struct shape *shape, int64_t batch)
{
    struct shape concrete = *shape;
    for (int i = 0; i < shape->rank; i++) {
        if (shape->dim[i] == DIM_BATCH)
            concrete.dim[i] = batch;
    }
    return concrete;
}

struct shape shape_make(int rank, const int64_t *dims)
{
    struct shape shape = {.rank = rank};
    for (int i = 0; i < rank && i < SHAPE_MAX_RANK; i++)
        shape.dim[i] = dims[i];
    return shape;
}

const char *shape_text(const struct shape *shape, char text[128])
{
    size_t at = 0;
    text[at++] = '[';
    /* 8 dimensions of 20 digits do not fit: the last ones are cut, the bracket stays. */
    for (int i = 0; i < shape->rank && i < SHAPE_MAX_RANK; i++) {
        char dim[32];
        if (shape->dim[i] == DIM_BATCH)
            snprintf(dim, sizeof(dim), "%sN", i ? "," : "");
        else
            snprintf(dim, sizeof(dim), "%s%" PRId64, i ? "," : "", shape->dim[i]);
        size_t n = strlen(dim);
        if (at + n + 2 > 128)
            break;
        memcpy(text + at, dim, n);
        at += n;
    }
    text[at++] = ']';
    text[at] = 0;
    return text;
}

int shape_check(const struct shape *shape, struct err *err)
{
    if (shape->rank < 0 || shape->rank > SHAPE_MAX_RANK)
        return err_set(err, ERR_INVALID_ARGUMENT, "a shape of rank %d (0 to %d are possible)",
                       shape->rank, SHAPE_MAX_RANK);
    int64_t n = 1;
    int batches = 0;
    char text[128];
    for (int i = 0; i < shape->rank; i++) {
        int64_t dim = shape->dim[i];
        if (dim == DIM_BATCH && ++batches == 1)
            continue;
        if (dim < 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "shape %s: dimension %d is invalid",
                           shape_text(shape, text), i);
        if (dim > 1 && (__builtin_mul_overflow(n, dim, &n) || n > SHAPE_MAX_ELEMENTS))
            return err_set(err, ERR_INVALID_ARGUMENT, "shape %s has too many elements",
                           shape_text(shape, text));
    }
    return 0;
}

int shape_broadcast(const struct shape *a, const struct shape *b, struct shape *ret,
                    struct err *err)
{
    struct shape out = {.rank = a->rank > b->rank ? a->rank : b->rank};
    for (int i = 0; i < out.rank; i++) {
        int ia = i - (out.rank - a->rank), ib = i - (out.rank - b->rank);
        int64_t da = ia < 0 ? 1 : a->dim[ia], db = ib < 0 ? 1 : b->dim[ib];
        if (da != db && da != 1 && db != 1) {
            char ta[128], tb[128];
            return err_set(err, ERR_INVALID_ARGUMENT, "shapes %s and %s do not broadcast",
                           shape_text(a, ta), shape_text(b, tb));
        }
        out.dim[i] = da == 1 ? db : da;
    }
    if (shape_check(&out, err) < 0)
        return -ERR_INVALID_ARGUMENT;
    *ret = out;
    return 0;
}

/* ---- life --------------------------------------------------------------------------------- */

/* The checks that every way of making a tensor shares; gives the size in bytes. */
static int checked_bytes(enum dtype dtype, const struct shape *shape, size_t *ret, struct err *err)
{
    if (dtype_bytes(dtype) == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "a tensor of unknown type %d", (int)dtype);
    int rc = shape_check(shape, err);
    if (rc < 0)
        return rc;
    if (shape_has_batch(shape)) {
        char text[128];
        return err_set(err, ERR_INVALID_ARGUMENT, "a tensor of symbolic shape %s",
                       shape_text(shape, text));
    }
    *ret = (size_t)shape_elements(shape) * dtype_bytes(dtype);
    return 0;
}

struct tensor *tensor_new(enum dtype dtype, const struct shape *shape, struct err *err)
{
    size_t bytes;
    if (checked_bytes(dtype, shape, &bytes, err) < 0)
        return NULL;
    struct tensor *tensor = calloc(1, sizeof(*tensor));
    void *data = mem_aligned(bytes);
    if (!tensor || !data) {
        free(tensor);
        free(data);
        char what[192], text[128];
        snprintf(what, sizeof(what), "a tensor %s %s", dtype_name(dtype), shape_text(shape, text));
        err_oom(err, what);
        return NULL;
    }
    memset(data, 0, bytes);
    *tensor = (struct tensor){.dtype = dtype, .shape = *shape, .data = data};
    return tensor;
}

struct tensor *tensor_free(struct tensor *tensor)
{
    if (tensor) {
        free(tensor->data);
        free(tensor);
    }
    return NULL;
}

void tensor_freep(struct tensor **tensor)
{
    *tensor = tensor_free(*tensor);
}

struct tensor *tensor_in_arena(struct arena *arena, enum dtype dtype, const struct shape *shape,
                               struct err *err)
{
    size_t bytes;
    if (checked_bytes(dtype, shape, &bytes, err) < 0)
        return NULL;
    struct tensor *tensor = arena_alloc(arena, 1, sizeof(*tensor));
    void *data = tensor ? arena_alloc(arena, 1, bytes) : NULL;
    if (!data) {
        err_oom(err, "a tensor");
        return NULL;
    }
    *tensor = (struct tensor){.dtype = dtype, .shape = *shape, .data = data};
    return tensor;
}

struct tensor *tensor_clone(const struct tensor *tensor, struct err *err)
{
    struct tensor *copy = tensor_new(tensor->dtype, &tensor->shape, err);
    if (copy)
        memcpy(copy->data, tensor->data, tensor_bytes(tensor));
    return copy;
}

size_t tensor_bytes(const struct tensor *tensor)
{
    return (size_t)shape_elements(&tensor->shape) * dtype_bytes(tensor->dtype);
}

/* ---- elements ----------------------------------------------------------------------------- */

double tensor_get_f64(const struct tensor *tensor, int64_t i)
{
    const void *p = tensor->data;
    switch (tensor->dtype) {
    case DTYPE_F32:
        return (double)((const float *)p)[i];
    case DTYPE_F64:
        return ((const double *)p)[i];
    case DTYPE_F16:
        return (double)f16_to_f32(((const uint16_t *)p)[i]);
    case DTYPE_BF16:
        return (double)bf16_to_f32(((const uint16_t *)p)[i]);
    case DTYPE_U8:
        return ((const uint8_t *)p)[i];
    case DTYPE_S8:
        return ((const int8_t *)p)[i];
    case DTYPE_U16:
        return ((const uint16_t *)p)[i];
    case DTYPE_S16:
        return ((const int16_t *)p)[i];
    case DTYPE_S32:
        return ((const int32_t *)p)[i];
    case DTYPE_U32:
        return ((const uint32_t *)p)[i];
    case DTYPE_S64:
        return (double)((const int64_t *)p)[i];
    case DTYPE_U64:
        return (double)((const uint64_t *)p)[i];
    case DTYPE_BOOL:
        return ((const uint8_t *)p)[i] != 0;
    case DTYPE_NONE:
        break;
    }
    return 0;
}

/* 2^63 and 2^64 are doubles; the largest integers below them are not. */
static int64_t saturated_s64(double x)
{
    if (isnan(x))
        return 0;
    if (x >= 0x1p63)
        return INT64_MAX;
    return x < -0x1p63 ? INT64_MIN : (int64_t)x;
}

static uint64_t saturated_u64(double x)
{
    if (!(x > 0)) /* NaN, too */
        return 0;
    return x >= 0x1p64 ? UINT64_MAX : (uint64_t)x;
}

int64_t tensor_get_s64(const struct tensor *tensor, int64_t i)
{
    if (tensor->dtype == DTYPE_S64)
        return ((const int64_t *)tensor->data)[i];
    if (tensor->dtype == DTYPE_U64) {
        uint64_t x = ((const uint64_t *)tensor->data)[i];
        return x > INT64_MAX ? INT64_MAX : (int64_t)x;
    }
    return saturated_s64(tensor_get_f64(tensor, i));
}

/* As a double whose last bit keeps what was cut off ("round to odd"): a later rounding to a shorter
 * format is then the only one that counts. */
static double odd_f64(int64_t x)
{
    uint64_t magnitude = x < 0 ? 0 - (uint64_t)x : (uint64_t)x;
    if (magnitude >> 53)
        magnitude = (magnitude & ~(uint64_t)2047) | (magnitude & 2047 ? 2048 : 0);
    return x < 0 ? -(double)magnitude : (double)magnitude;
}

static int64_t clamp_s64(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

void tensor_set_s64(struct tensor *tensor, int64_t i, int64_t value)
{
    void *p = tensor->data;
    switch (tensor->dtype) {
    case DTYPE_F32:
        ((float *)p)[i] = (float)value;
        break;
    case DTYPE_F64:
        ((double *)p)[i] = (double)value;
        break;
    case DTYPE_F16:
        ((uint16_t *)p)[i] = f64_to_f16(odd_f64(value));
        break;
    case DTYPE_BF16:
        ((uint16_t *)p)[i] = f64_to_bf16(odd_f64(value));
        break;
    case DTYPE_U8:
        ((uint8_t *)p)[i] = (uint8_t)clamp_s64(value, 0, UINT8_MAX);
        break;
    case DTYPE_S8:
        ((int8_t *)p)[i] = (int8_t)clamp_s64(value, INT8_MIN, INT8_MAX);
        break;
    case DTYPE_U16:
        ((uint16_t *)p)[i] = (uint16_t)clamp_s64(value, 0, UINT16_MAX);
        break;
    case DTYPE_S16:
        ((int16_t *)p)[i] = (int16_t)clamp_s64(value, INT16_MIN, INT16_MAX);
        break;
    case DTYPE_S32:
        ((int32_t *)p)[i] = (int32_t)clamp_s64(value, INT32_MIN, INT32_MAX);
        break;
    case DTYPE_U32:
        ((uint32_t *)p)[i] = (uint32_t)clamp_s64(value, 0, UINT32_MAX);
        break;
    case DTYPE_S64:
        ((int64_t *)p)[i] = value;
        break;
    case DTYPE_U64:
        ((uint64_t *)p)[i] = value < 0 ? 0 : (uint64_t)value;
        break;
    case DTYPE_BOOL:
        ((uint8_t *)p)[i] = value != 0;
        break;
    case DTYPE_NONE:
        break;
    }
}

void tensor_set_f64(struct tensor *tensor, int64_t i, double value)
{
    void *p = tensor->data;
    switch (tensor->dtype) {
    case DTYPE_F32:
        ((float *)p)[i] = (float)value;
        break;
    case DTYPE_F64:
        ((double *)p)[i] = value;
        break;
    case DTYPE_F16:
        ((uint16_t *)p)[i] = f64_to_f16(value);
        break;
    case DTYPE_BF16:
        ((uint16_t *)p)[i] = f64_to_bf16(value);
        break;
    case DTYPE_BOOL:
        ((uint8_t *)p)[i] = value != 0;
        break;
    case DTYPE_U64:
        ((uint64_t *)p)[i] = saturated_u64(rint(value));
        break;
    default:
        tensor_set_s64(tensor, i, saturated_s64(rint(value)));
        break;
    }
}

/* ---- 16-bit floats ------------------------------------------------------------------------ */

static uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    return bits;
}

static float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

float bf16_to_f32(uint16_t x)
{
    return float_of((uint32_t)x << 16);
}

uint16_t f32_to_bf16(float x)
{
    uint32_t bits = bits_of(x);
    if (isnan(x)) /* rounding could carry a NaN into infinity: keep it quiet instead */
        return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float f16_to_f32(uint16_t x)
{
    uint32_t sign = (uint32_t)(x & 0x8000) << 16, exponent = x >> 10 & 31, mantissa = x & 0x3ff;
    if (exponent == 31)
        return float_of(sign | 0x7f800000 | mantissa << 13);
    if (exponent == 0) {
        float magnitude = (float)mantissa * 0x1p-24f;
        return sign ? -magnitude : magnitude;
    }
    return float_of(sign | (exponent + 112) << 23 | mantissa << 13);
}

uint16_t f32_to_f16(float x)
{
    uint32_t bits = bits_of(x);
    uint16_t sign = (uint16_t)(bits >> 16 & 0x8000);
    uint32_t magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) /* below 2^-14: the result is a multiple of 2^-24, ties to even */
        return (uint16_t)(sign | (uint16_t)rintf(float_of(magnitude) * 0x1p24f));
    uint32_t rounded = magnitude + 0xfff + (magnitude >> 13 & 1);
    return (uint16_t)(sign | (uint16_t)((rounded >> 13) - (112U << 10)));
}

/* To f32, to odd as well. */
static float f64_to_f32_odd(double x)
{
    float nearest = (float)x;
    if (isnan(x) || isinf(x) || (double)nearest == x)
        return nearest;
    if (isinf(nearest)) /* beyond f32: infinity in the shorter formats as well */
        return nearest;
    uint32_t bits = bits_of(nearest);
    if (fabs((double)nearest) > fabs(x))
        bits--; /* towards zero: magnitude and sign are separate bits */
    return float_of(bits | 1);
}

uint16_t f64_to_bf16(double x)
{
    return f32_to_bf16(f64_to_f32_odd(x));
}

uint16_t f64_to_f16(double x)
{
    return f32_to_f16(f64_to_f32_odd(x));
}
