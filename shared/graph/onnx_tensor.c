/* TensorProto: the many ways in which ONNX writes a tensor down. */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/graph/onnx_priv.h"

/* ---- types ---- */

enum dtype onnx_dtype(int32_t type, const char **ret_name)
{
    static const char *const unknown[] = {
        [0] = "undefined",   [8] = "string",          [14] = "complex64",
        [15] = "complex128", [17] = "float8e4m3fn",   [18] = "float8e4m3fnuz",
        [19] = "float8e5m2", [20] = "float8e5m2fnuz", [21] = "uint4",
        [22] = "int4",
    };
    *ret_name = "?";
    if (type > 0 && type <= DTYPE_BF16 && dtype_bytes((enum dtype)type) > 0)
        return (enum dtype)type;
    if (type >= 0 && (size_t)type < sizeof(unknown) / sizeof(*unknown) && unknown[type])
        *ret_name = unknown[type];
    return DTYPE_NONE;
}

static int read_header(const Onnx__TensorProto *p, const struct onnx_limits *limits,
                       enum dtype *ret_dtype, struct shape *ret_shape, struct err *err)
{
    const char *name;
    *ret_dtype = onnx_dtype(p->has_data_type ? p->data_type : 0, &name);
    if (*ret_dtype == DTYPE_NONE)
        return err_set(err, ERR_UNIMPLEMENTED, "elements of ONNX type %d (%s)", p->data_type, name);
    if (p->segment)
        return err_set(err, ERR_UNIMPLEMENTED, "a tensor in segments");
    if (p->n_dims > SHAPE_MAX_RANK)
        return err_set(err, ERR_UNIMPLEMENTED, "%zu dimensions (at most %d)", p->n_dims,
                       SHAPE_MAX_RANK);
    *ret_shape = shape_make((int)p->n_dims, p->dims);
    for (size_t i = 0; i < p->n_dims; i++)
        if (p->dims[i] < 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "dimension %zu is %" PRId64, i, p->dims[i]);
    int rc = shape_check(ret_shape, err);
    if (rc < 0)
        return rc;
    if (shape_elements(ret_shape) > limits->max_elements)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%" PRId64 " elements; the limit is %" PRId64,
                       shape_elements(ret_shape), limits->max_elements);
    return 0;
}

/* ---- external data ---- */

struct external {
    const char *location;
    int64_t offset, length; /* length -1: not told */
};

static int read_external_entry(const Onnx__StringStringEntryProto *entry, struct external *ret,
                               struct err *err)
{
    const char *key = entry->key ? entry->key : "", *value = entry->value ? entry->value : "";
    int rc = 0;
    if (strcmp(key, "location") == 0)
        ret->location = value;
    else if (strcmp(key, "offset") == 0)
        rc = str_parse_i64(value, 0, INT64_MAX, &ret->offset, err);
    else if (strcmp(key, "length") == 0)
        rc = str_parse_i64(value, 0, INT64_MAX, &ret->length, err);
    if (rc < 0)
        err_wrap(err, "external data: %s", key);
    return rc;
}

/* Whether the path has a ".." between its slashes. */
static bool climbs(const char *path)
{
    for (const char *p = path; *p;) {
        size_t n = strcspn(p, "/");
        if (n == 2 && p[0] == '.' && p[1] == '.')
            return true;
        p += n;
        p += *p == '/';
    }
    return false;
}

/* Opens the file when it really lies in the folder, symbolic links resolved. */
static int open_inside(const char *folder, const char *location, int *ret_fd, struct err *err)
{
    if (location[0] == '/' || climbs(location))
        return err_set(err, ERR_PERMISSION_DENIED,
                       "external data '%.256s' lies outside the model's folder", location);
    _cleanup_(freep) char *path = str_printf("%s/%s", folder, location);
    _cleanup_(freep) char *real_folder = NULL;
    _cleanup_(freep) char *real_path = NULL;
    if (!path)
        return err_oom(err, "a path");
    int rc = fs_realpath(folder, &real_folder, err);
    if (rc == 0)
        rc = fs_realpath(path, &real_path, err);
    if (rc < 0) {
        err_wrap(err, "external data");
        return rc;
    }
    size_t n = strlen(real_folder);
    bool root = n == 1 && real_folder[0] == '/';
    if (!root && (strncmp(real_path, real_folder, n) != 0 || real_path[n] != '/'))
        return err_set(err, ERR_PERMISSION_DENIED,
                       "external data '%.256s' is a link that leaves the model's folder", location);
    *ret_fd = open(real_path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
    return *ret_fd < 0 ? err_errno(err, errno, "external data %s", path) : 0;
}

static int check_range(int fd, const struct external *ext, size_t bytes, size_t max_bytes,
                       struct err *err)
{
    struct stat st;
    if (fstat(fd, &st) < 0)
        return err_errno(err, errno, "external data '%.256s'", ext->location);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID_ARGUMENT, "external data '%.256s' is no regular file",
                       ext->location);
    if ((size_t)st.st_size > max_bytes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "external data '%.256s' has %lld bytes; the limit is %zu", ext->location,
                       (long long)st.st_size, max_bytes);
    if (ext->length >= 0 && (size_t)ext->length != bytes)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "external data '%.256s': length %" PRId64 " where the shape needs %zu bytes",
                       ext->location, ext->length, bytes);
    if (ext->offset > st.st_size || bytes > (size_t)(st.st_size - ext->offset))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "external data '%.256s': %zu bytes at offset %" PRId64
                       " reach beyond the file's end at %lld",
                       ext->location, bytes, ext->offset, (long long)st.st_size);
    return 0;
}

static int read_fully(int fd, void *to, size_t bytes, int64_t offset, struct err *err)
{
    char *at = to;
    while (bytes > 0) {
        ssize_t n = pread(fd, at, bytes, offset);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "external data");
        if (n == 0)
            return err_set(err, ERR_DATA_LOSS, "external data ends early");
        at += n;
        bytes -= (size_t)n;
        offset += n;
    }
    return 0;
}

/* Opens and checks before the tensor is allocated: its claimed size counts only when the file has
 * as many bytes. */
static int open_external(const Onnx__TensorProto *p, const char *folder,
                         const struct onnx_limits *limits, size_t bytes, struct external *ext,
                         int *ret_fd, struct err *err)
{
    *ext = (struct external){.length = -1};
    if (!folder)
        return err_set(err, ERR_INVALID_ARGUMENT, "external data where there is no folder");
    int rc = 0;
    for (size_t i = 0; i < p->n_external_data && rc == 0; i++)
        rc = read_external_entry(p->external_data[i], ext, err);
    if (rc < 0)
        return rc;
    if (!ext->location || !*ext->location)
        return err_set(err, ERR_INVALID_ARGUMENT, "external data without a location");
    rc = open_inside(folder, ext->location, ret_fd, err);
    return rc < 0 ? rc : check_range(*ret_fd, ext, bytes, limits->max_file_bytes, err);
}

/* ---- inline data ---- */

/* How many elements the typed fields hold for this type. */
static size_t typed_count(const Onnx__TensorProto *p, enum dtype dtype)
{
    switch (dtype) {
    case DTYPE_F32:
        return p->n_float_data;
    case DTYPE_F64:
        return p->n_double_data;
    case DTYPE_S64:
        return p->n_int64_data;
    case DTYPE_U32:
    case DTYPE_U64:
        return p->n_uint64_data;
    case DTYPE_NONE:
        return 0;
    default:
        return p->n_int32_data;
    }
}

/* The range of a type that is kept in int32_data. */
static void narrow_range(enum dtype dtype, int32_t *low, int32_t *high)
{
    *low = dtype == DTYPE_S8 ? INT8_MIN : dtype == DTYPE_S16 ? INT16_MIN : 0;
    switch (dtype) {
    case DTYPE_S8:
        *high = INT8_MAX;
        break;
    case DTYPE_U8:
        *high = UINT8_MAX;
        break;
    case DTYPE_BOOL:
        *high = 1;
        break;
    case DTYPE_S16:
        *high = INT16_MAX;
        break;
    case DTYPE_U16:
    case DTYPE_F16:
    case DTYPE_BF16:
        *high = UINT16_MAX;
        break;
    default:
        *low = INT32_MIN;
        *high = INT32_MAX;
    }
}

static int copy_int32(const Onnx__TensorProto *p, struct tensor *t, struct err *err)
{
    int32_t low, high;
    narrow_range(t->dtype, &low, &high);
    size_t width = dtype_bytes(t->dtype);
    for (size_t i = 0; i < p->n_int32_data; i++) {
        int32_t x = p->int32_data[i];
        if (x < low || x > high)
            return err_set(err, ERR_INVALID_ARGUMENT, "element %zu is %d, which is no %s", i, x,
                           dtype_name(t->dtype));
        uint8_t u8 = (uint8_t)x;
        uint16_t u16 = (uint16_t)x;
        const void *from = width == 1 ? (void *)&u8 : width == 2 ? (void *)&u16 : (void *)&x;
        memcpy((char *)t->data + i * width, from, width);
    }
    return 0;
}

static int copy_typed(const Onnx__TensorProto *p, struct tensor *t, struct err *err)
{
    size_t bytes = tensor_bytes(t);
    if (bytes == 0)
        return 0;
    switch (t->dtype) {
    case DTYPE_F32:
        memcpy(t->data, p->float_data, bytes);
        return 0;
    case DTYPE_F64:
        memcpy(t->data, p->double_data, bytes);
        return 0;
    case DTYPE_S64:
        memcpy(t->data, p->int64_data, bytes);
        return 0;
    case DTYPE_U64:
        memcpy(t->data, p->uint64_data, bytes);
        return 0;
    case DTYPE_U32:
        for (size_t i = 0; i < p->n_uint64_data; i++) {
            if (p->uint64_data[i] > UINT32_MAX)
                return err_set(err, ERR_INVALID_ARGUMENT, "element %zu is no uint32", i);
            ((uint32_t *)t->data)[i] = (uint32_t)p->uint64_data[i];
        }
        return 0;
    default:
        return copy_int32(p, t, err);
    }
}

static int check_bool(struct tensor *t)
{
    uint8_t *data = t->data;
    for (size_t i = 0; t->dtype == DTYPE_BOOL && i < tensor_bytes(t); i++)
        data[i] = data[i] != 0;
    return 0;
}

static int check_finite(const struct tensor *t, struct err *err)
{
    if (!dtype_is_float(t->dtype))
        return 0;
    int64_t n = shape_elements(&t->shape);
    for (int64_t i = 0; i < n; i++) {
        double x =
            t->dtype == DTYPE_F32 ? (double)((const float *)t->data)[i] : tensor_get_f64(t, i);
        if (!isfinite(x))
            return err_set(err, ERR_INVALID_ARGUMENT, "element %" PRId64 " is %s", i,
                           isnan(x) ? "NaN" : "infinite");
    }
    return 0;
}

/* ---- */

static bool is_raw(const Onnx__TensorProto *p, enum dtype dtype)
{
    return p->has_raw_data && (p->raw_data.len > 0 || typed_count(p, dtype) == 0);
}

static int fill(const Onnx__TensorProto *p, bool raw, struct tensor *t, struct err *err)
{
    if (!raw)
        return copy_typed(p, t, err);
    if (p->raw_data.len > 0)
        memcpy(t->data, p->raw_data.data, p->raw_data.len);
    return 0;
}

int onnx_tensor(const Onnx__TensorProto *p, const char *folder, const struct onnx_limits *limits,
                struct arena *arena, struct tensor **ret, struct err *err)
{
    enum dtype dtype;
    struct shape shape;
    struct external ext;
    _cleanup_(fs_closep) int fd = -1;
    int rc = read_header(p, limits, &dtype, &shape, err);
    if (rc < 0)
        return rc;
    size_t n = (size_t)shape_elements(&shape), bytes = n * dtype_bytes(dtype);
    bool raw = is_raw(p, dtype);
    if (p->has_data_location && p->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL) {
        rc = open_external(p, folder, limits, bytes, &ext, &fd, err);
        if (rc < 0)
            return rc;
    } else if (raw ? p->raw_data.len != bytes : typed_count(p, dtype) != n) {
        char text[128];
        return err_set(err, ERR_INVALID_ARGUMENT, "shape %s of %s needs %zu %s, but there are %zu",
                       shape_text(&shape, text), dtype_name(dtype), raw ? bytes : n,
                       raw ? "bytes" : "elements", raw ? p->raw_data.len : typed_count(p, dtype));
    }
    struct tensor *t =
        arena ? tensor_in_arena(arena, dtype, &shape, err) : tensor_new(dtype, &shape, err);
    if (!t)
        return -ERR_RESOURCE_EXHAUSTED;
    rc = fd >= 0 ? read_fully(fd, t->data, bytes, ext.offset, err) : fill(p, raw, t, err);
    if (rc == 0)
        rc = check_bool(t);
    if (rc == 0 && !limits->allow_nonfinite)
        rc = check_finite(t, err);
    if (rc < 0 && !arena)
        tensor_free(t);
    if (rc == 0)
        *ret = t;
    return rc;
}

int onnx_read_tensor(const char *path, struct tensor **ret, struct err *err)
{
    struct onnx_limits limits = onnx_default_limits;
    limits.allow_nonfinite = true;
    _cleanup_(freep) void *data = NULL;
    _cleanup_(onnx_free) struct onnx_unpacked unpacked = {0};
    size_t bytes = 0;
    int rc = fs_read(path, limits.max_file_bytes, &data, &bytes, err);
    if (rc < 0)
        return rc;
    rc = onnx_unpack(data, bytes, &onnx__tensor_proto__descriptor, &limits, &unpacked, err);
    if (rc == 0)
        rc =
            onnx_tensor((const Onnx__TensorProto *)unpacked.message, NULL, &limits, NULL, ret, err);
    if (rc < 0)
        err_wrap(err, "%s", path);
    return rc;
}
