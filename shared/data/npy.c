#include "shared/data/npy.h"

#include <string.h>

#include "shared/base/str.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "arrays are read as they lie in memory");

static const struct {
    const char *code, *name;
    enum npy_type type;
    size_t bytes;
} types[] = {
    {"u1", "uint8", NPY_U8, 1},    {"u2", "uint16", NPY_U16, 2},  {"u4", "uint32", NPY_U32, 4},
    {"u8", "uint64", NPY_U64, 8},  {"i1", "int8", NPY_I8, 1},     {"i2", "int16", NPY_I16, 2},
    {"i4", "int32", NPY_I32, 4},   {"i8", "int64", NPY_I64, 8},   {"f2", "float16", NPY_F16, 2},
    {"f4", "float32", NPY_F32, 4}, {"f8", "float64", NPY_F64, 8}, {"b1", "bool", NPY_BOOL, 1},
};

const char *npy_type_name(enum npy_type type)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++)
        if (types[i].type == type)
            return types[i].name;
    return "?";
}

bool npy_type_is_integer(enum npy_type type)
{
    return type <= NPY_I64;
}

/* ---- the header: a Python dict literal, of which exactly three keys are allowed ---- */

struct text {
    const char *p, *end;
};

static void skip_space(struct text *t)
{
    while (t->p < t->end && (*t->p == ' ' || *t->p == '\n' || *t->p == '\t' || *t->p == '\r'))
        t->p++;
}

static bool take(struct text *t, char c)
{
    skip_space(t);
    if (t->p == t->end || *t->p != c)
        return false;
    t->p++;
    return true;
}

static bool take_word(struct text *t, const char *word)
{
    size_t n = strlen(word);
    skip_space(t);
    if ((size_t)(t->end - t->p) < n || memcmp(t->p, word, n) != 0)
        return false;
    t->p += n;
    return true;
}

static bool take_quoted(struct text *t, char *out, size_t size)
{
    skip_space(t);
    if (t->p == t->end || (*t->p != '\'' && *t->p != '"'))
        return false;
    char quote = *t->p++;
    size_t n = 0;
    while (t->p < t->end && *t->p != quote && *t->p != '\\') {
        if (n + 1 == size)
            return false;
        out[n++] = *t->p++;
    }
    out[n] = 0;
    return take(t, quote);
}

static int take_type(struct text *t, struct npy *a, struct err *err)
{
    char text[16] = "";
    skip_space(t);
    if (t->p < t->end && *t->p == '[')
        return err_set(err, ERR_INVALID_ARGUMENT, "it holds records; save plain numbers");
    if (!take_quoted(t, text, sizeof(text)))
        return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: no element type");
    if (strchr(text, 'O'))
        return err_set(
            err, ERR_INVALID_ARGUMENT,
            "it holds Python objects (a pickle), which are never read; save plain numbers");
    for (size_t i = 0; i < sizeof(types) / sizeof(*types); i++) {
        if (strcmp(text + 1, types[i].code) != 0)
            continue;
        if (text[0] == '>' && types[i].bytes > 1)
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "its numbers are big-endian ('%s'); save them as '<%s'", text,
                           types[i].code);
        if (!text[0] || !strchr("<|=>", text[0]))
            break;
        a->type = types[i].type;
        a->item_bytes = types[i].bytes;
        return 0;
    }
    return err_set(
        err, ERR_INVALID_ARGUMENT,
        "element type '%s' is not supported (bool, int8..64, uint8..64, float16..64 are)", text);
}

static int take_shape(struct text *t, struct npy *a, struct err *err)
{
    a->rank = 0;
    a->count = 1;
    if (!take(t, '('))
        return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: no shape");
    while (!take(t, ')')) {
        char digits[20];
        size_t n = 0;
        skip_space(t);
        while (t->p < t->end && *t->p >= '0' && *t->p <= '9' && n + 1 < sizeof(digits))
            digits[n++] = *t->p++;
        digits[n] = 0;
        int64_t dim;
        if (str_parse_i64(digits, 0, INT64_MAX, &dim, NULL) < 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: bad shape");
        if (a->rank == NPY_MAX_RANK)
            return err_set(err, ERR_INVALID_ARGUMENT, "it has more than %d axes", NPY_MAX_RANK);
        if (__builtin_mul_overflow(a->count, dim, &a->count))
            return err_set(err, ERR_INVALID_ARGUMENT, "its shape is beyond all memory");
        a->shape[a->rank++] = dim;
        if (!take(t, ',') && (skip_space(t), t->p == t->end || *t->p != ')'))
            return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: bad shape");
    }
    return 0;
}

static int parse_header(struct text t, struct npy *a, struct err *err)
{
    unsigned seen = 0;
    if (!take(&t, '{'))
        return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: no dictionary");
    while (!take(&t, '}')) {
        char key[24];
        if (!take_quoted(&t, key, sizeof(key)) || !take(&t, ':'))
            return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header");
        int r = 0;
        unsigned bit = 0;
        if (strcmp(key, "descr") == 0) {
            bit = 1;
            r = take_type(&t, a, err);
        } else if (strcmp(key, "shape") == 0) {
            bit = 2;
            r = take_shape(&t, a, err);
        } else if (strcmp(key, "fortran_order") == 0) {
            bit = 4;
            a->fortran = take_word(&t, "True");
            if (!a->fortran && !take_word(&t, "False"))
                r = err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: fortran_order");
        }
        if (r < 0)
            return r;
        if (!bit || (seen & bit))
            return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header: key '%s'", key);
        seen |= bit;
        if (!take(&t, ',') && (skip_space(&t), t.p == t.end || *t.p != '}'))
            return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header");
    }
    skip_space(&t);
    if (seen != 7 || t.p != t.end)
        return err_set(err, ERR_INVALID_ARGUMENT, "broken .npy header");
    return 0;
}

int npy_parse(const void *data, size_t bytes, struct npy *ret, struct err *err)
{
    const uint8_t *in = data;
    if (bytes < 10 || memcmp(in, "\x93NUMPY", 6) != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "not an .npy array");
    if (in[6] < 1 || in[6] > 3 || in[7] != 0)
        return err_set(err, ERR_INVALID_ARGUMENT, ".npy format %u.%u is not known", in[6], in[7]);
    size_t at = in[6] == 1 ? 10 : 12;
    if (bytes < at)
        return err_set(err, ERR_INVALID_ARGUMENT, "the .npy header is cut off");
    size_t length = in[8] | (size_t)in[9] << 8;
    if (in[6] > 1)
        length |= (size_t)in[10] << 16 | (size_t)in[11] << 24;
    if (length > bytes - at)
        return err_set(err, ERR_INVALID_ARGUMENT, "the .npy header is cut off");
    struct npy a = {0};
    int r =
        parse_header((struct text){(const char *)in + at, (const char *)in + at + length}, &a, err);
    if (r < 0)
        return r;
    size_t have = bytes - at - length;
    if ((uint64_t)a.count > have / a.item_bytes)
        return err_set(
            err, ERR_INVALID_ARGUMENT,
            "the .npy array is cut off: its %lld numbers need more than the %zu bytes there",
            (long long)a.count, have);
    a.data = in + at + length;
    *ret = a;
    return 0;
}

/* ---- elements ---- */

static float half_to_float(uint16_t h)
{
    uint32_t sign = (uint32_t)(h & 0x8000) << 16, exponent = h >> 10 & 31, fraction = h & 1023;
    float value;
    uint32_t bits;
    if (exponent == 0) { /* zero and subnormal: fraction * 2^-24 */
        value = (float)fraction * 0x1p-24f;
        return sign ? -value : value;
    }
    bits = sign | (exponent == 31 ? 0xffu : exponent + 112) << 23 | fraction << 13;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

#define LOAD(type)                                                                                 \
    ({                                                                                             \
        type _v;                                                                                   \
        memcpy(&_v, a->data + (size_t)at * sizeof(type), sizeof(type));                            \
        _v;                                                                                        \
    })

static float get_f32(const struct npy *a, int64_t at)
{
    switch (a->type) {
    case NPY_U8:
        return (float)LOAD(uint8_t);
    case NPY_U16:
        return (float)LOAD(uint16_t);
    case NPY_U32:
        return (float)LOAD(uint32_t);
    case NPY_U64:
        return (float)LOAD(uint64_t);
    case NPY_I8:
        return (float)LOAD(int8_t);
    case NPY_I16:
        return (float)LOAD(int16_t);
    case NPY_I32:
        return (float)LOAD(int32_t);
    case NPY_I64:
        return (float)LOAD(int64_t);
    case NPY_F16:
        return half_to_float(LOAD(uint16_t));
    case NPY_F32:
        return LOAD(float);
    case NPY_F64:
        return (float)LOAD(double);
    case NPY_BOOL:
        return LOAD(uint8_t) ? 1.0f : 0.0f;
    }
    return 0;
}

int64_t npy_get_i64(const struct npy *a, int64_t at)
{
    switch (a->type) {
    case NPY_U8:
        return LOAD(uint8_t);
    case NPY_U16:
        return LOAD(uint16_t);
    case NPY_U32:
        return LOAD(uint32_t);
    case NPY_U64: {
        uint64_t v = LOAD(uint64_t);
        return v > INT64_MAX ? INT64_MAX : (int64_t)v;
    }
    case NPY_I8:
        return LOAD(int8_t);
    case NPY_I16:
        return LOAD(int16_t);
    case NPY_I32:
        return LOAD(int32_t);
    case NPY_I64:
        return LOAD(int64_t);
    case NPY_BOOL:
        return LOAD(uint8_t) != 0;
    default:
        return -1;
    }
}

/* Steps through row i in C order: position of each element in the file. */
struct walk {
    int64_t at, index[NPY_MAX_RANK], stride[NPY_MAX_RANK];
};

static struct walk walk_row(const struct npy *a, int64_t i)
{
    struct walk w = {0};
    int64_t stride = 1;
    for (int k = 0; k < a->rank; k++) {
        int axis = a->fortran ? k : a->rank - 1 - k;
        w.stride[axis] = stride;
        stride *= a->shape[axis];
    }
    w.at = a->rank ? i * w.stride[0] : 0;
    return w;
}

static void walk_next(const struct npy *a, struct walk *w)
{
    for (int axis = a->rank - 1; axis > 0; axis--) {
        w->at += w->stride[axis];
        if (++w->index[axis] < a->shape[axis])
            return;
        w->at -= w->stride[axis] * a->shape[axis];
        w->index[axis] = 0;
    }
}

static int64_t row_count(const struct npy *a)
{
    return a->rank && a->shape[0] ? a->count / a->shape[0] : a->count;
}

void npy_row_f32(const struct npy *a, int64_t i, float *out)
{
    int64_t n = row_count(a);
    if (n == 0)
        return;
    if (!a->fortran && a->type == NPY_F32) {
        memcpy(out, a->data + (size_t)(i * n) * 4, (size_t)n * 4);
        return;
    }
    struct walk w = walk_row(a, i);
    for (int64_t k = 0; k < n; k++, walk_next(a, &w))
        out[k] = get_f32(a, w.at);
}

void npy_row_u8(const struct npy *a, int64_t i, uint8_t *out)
{
    int64_t n = row_count(a);
    if (n == 0)
        return;
    if (!a->fortran) {
        memcpy(out, a->data + i * n, (size_t)n);
        return;
    }
    struct walk w = walk_row(a, i);
    for (int64_t k = 0; k < n; k++, walk_next(a, &w))
        out[k] = a->data[w.at];
}
