/* Tensors in all the ways that ONNX writes them down. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "tests/support/onnx_text.h"

static char folder[] = "/tmp/hone-tensor-XXXXXX";

static int set_up(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

/* Writes the tensor to a file and reads it back. */
static int read_back(const Onnx__TensorProto *p, struct tensor **ret, struct err *err)
{
    uint8_t data[4096];
    size_t n = onnx__tensor_proto__get_packed_size(p);
    assert_true(n <= sizeof(data));
    onnx__tensor_proto__pack(p, data);
    _cleanup_(freep) char *path = str_printf("%s/tensor.pb", folder);
    assert_int_equal(fs_write_atomic(path, data, n, NULL), 0);
    return onnx_read_tensor(path, ret, err);
}

static void expect(const Onnx__TensorProto *p, enum dtype dtype, const double *numbers)
{
    struct tensor *t = NULL;
    struct err err = {0};
    if (read_back(p, &t, &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(t->dtype, dtype);
    for (int64_t i = 0; i < shape_elements(&t->shape); i++)
        assert_true(tensor_get_f64(t, i) == numbers[i]);
    tensor_free(t);
}

static void refuse(const Onnx__TensorProto *p, int code, const char *part)
{
    struct tensor *t = NULL;
    struct err err = {0};
    int rc = read_back(p, &t, &err);
    if (rc != -code || !strstr(err.message, part))
        fail_msg("%d: %s (expected '%s')", rc, err.message, part);
    assert_null(t);
}

static Onnx__TensorProto proto_of(enum dtype dtype, int64_t *dim)
{
    Onnx__TensorProto p = ONNX__TENSOR_PROTO__INIT;
    p.has_data_type = 1;
    p.data_type = (int)dtype;
    p.dims = dim;
    p.n_dims = 1;
    return p;
}

static void every_type_has_its_own_field(void **state)
{
    (void)state;
    int64_t two = 2;
    int32_t small[2] = {-7, 100}, natural[2] = {1, 200}, logic[2] = {1, 0};
    int32_t half[2] = {0x3c00, 0xc000}, brain[2] = {0x3f80, 0xc000};
    const struct {
        enum dtype dtype;
        int32_t *data;
        double numbers[2];
    } narrow[] = {
        {DTYPE_S8, small, {-7, 100}},   {DTYPE_S16, small, {-7, 100}},
        {DTYPE_S32, small, {-7, 100}},  {DTYPE_U8, natural, {1, 200}},
        {DTYPE_U16, natural, {1, 200}}, {DTYPE_BOOL, logic, {1, 0}},
        {DTYPE_F16, half, {1, -2}},     {DTYPE_BF16, brain, {1, -2}},
    };
    for (size_t i = 0; i < sizeof(narrow) / sizeof(*narrow); i++) {
        Onnx__TensorProto p = proto_of(narrow[i].dtype, &two);
        p.int32_data = narrow[i].data;
        p.n_int32_data = 2;
        expect(&p, narrow[i].dtype, narrow[i].numbers);
    }
    Onnx__TensorProto p = proto_of(DTYPE_F32, &two);
    p.float_data = (float[]){0.5f, -3};
    p.n_float_data = 2;
    expect(&p, DTYPE_F32, (double[]){0.5, -3});
    p = proto_of(DTYPE_F64, &two);
    p.double_data = (double[]){0.1, -3};
    p.n_double_data = 2;
    expect(&p, DTYPE_F64, (double[]){0.1, -3});
    p = proto_of(DTYPE_S64, &two);
    p.int64_data = (int64_t[]){-5, (int64_t)1 << 40};
    p.n_int64_data = 2;
    expect(&p, DTYPE_S64, (double[]){-5, 1099511627776.0});
    p = proto_of(DTYPE_U64, &two);
    p.uint64_data = (uint64_t[]){5, 7};
    p.n_uint64_data = 2;
    expect(&p, DTYPE_U64, (double[]){5, 7});
    p.data_type = DTYPE_U32;
    expect(&p, DTYPE_U32, (double[]){5, 7});
}

static void raw_bytes_fit_every_type(void **state)
{
    (void)state;
    int64_t two = 2;
    uint8_t bytes[16] = {1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0};
    static const enum dtype types[] = {DTYPE_S64, DTYPE_U64};
    for (int i = 0; i < 2; i++) {
        Onnx__TensorProto p = proto_of(types[i], &two);
        p.has_raw_data = 1;
        p.raw_data = (ProtobufCBinaryData){.len = 16, .data = bytes};
        expect(&p, types[i], (double[]){1, 2});
    }
    Onnx__TensorProto p = proto_of(DTYPE_BOOL, &two);
    p.has_raw_data = 1;
    p.raw_data = (ProtobufCBinaryData){.len = 2, .data = (uint8_t[]){0, 7}};
    expect(&p, DTYPE_BOOL, (double[]){0, 1}); /* any other byte than 0 is true */
    p = proto_of(DTYPE_F32, &two);
    p.has_raw_data = 1;
    p.raw_data = (ProtobufCBinaryData){.len = 8, .data = (uint8_t *)(float[]){1.5f, 2}};
    expect(&p, DTYPE_F32, (double[]){1.5, 2});
}

static void scalars_and_empty_tensors_are_tensors(void **state)
{
    (void)state;
    int64_t zero = 0;
    Onnx__TensorProto p = proto_of(DTYPE_F32, &zero);
    expect(&p, DTYPE_F32, NULL);
    p.has_raw_data = 1;
    expect(&p, DTYPE_F32, NULL);
    p = proto_of(DTYPE_F32, &zero);
    p.n_dims = 0;
    p.float_data = (float[]){4};
    p.n_float_data = 1;
    expect(&p, DTYPE_F32, (double[]){4});
}

static void wrong_amounts_of_data_are_refused(void **state)
{
    (void)state;
    int64_t dim = 3;
    Onnx__TensorProto p = proto_of(DTYPE_F32, &dim);
    p.float_data = (float[]){1, 2};
    p.n_float_data = 2;
    refuse(&p, ERR_INVALID_ARGUMENT, "needs 3 elements, but there are 2");
    p.has_raw_data = 1;
    p.raw_data = (ProtobufCBinaryData){.len = 8, .data = (uint8_t[8]){0}};
    refuse(&p, ERR_INVALID_ARGUMENT, "needs 12 bytes, but there are 8");
    p = proto_of(DTYPE_S8, &dim);
    p.int32_data = (int32_t[]){1, 2, 128};
    p.n_int32_data = 3;
    refuse(&p, ERR_INVALID_ARGUMENT, "element 2 is 128, which is no int8");
    p = proto_of(DTYPE_U32, &dim);
    p.uint64_data = (uint64_t[]){1, (uint64_t)1 << 32, 1};
    p.n_uint64_data = 3;
    refuse(&p, ERR_INVALID_ARGUMENT, "element 1");
}

static void types_and_forms_that_hone_lacks_are_named(void **state)
{
    (void)state;
    int64_t dim = 1;
    Onnx__TensorProto p = proto_of((enum dtype)8, &dim);
    refuse(&p, ERR_UNIMPLEMENTED, "string");
    p.data_type = 14;
    refuse(&p, ERR_UNIMPLEMENTED, "complex64");
    p.data_type = 21;
    refuse(&p, ERR_UNIMPLEMENTED, "uint4");
    p.data_type = 17;
    refuse(&p, ERR_UNIMPLEMENTED, "float8");
    p.data_type = 99;
    refuse(&p, ERR_UNIMPLEMENTED, "99");
    p.has_data_type = 0;
    refuse(&p, ERR_UNIMPLEMENTED, "undefined");
    p = proto_of(DTYPE_F32, &dim);
    Onnx__TensorProto__Segment segment = ONNX__TENSOR_PROTO__SEGMENT__INIT;
    p.segment = &segment;
    refuse(&p, ERR_UNIMPLEMENTED, "segments");
}

/* ---- external data ---- */

static Onnx__ModelProto *external_model(struct arena *arena, const char *location,
                                        const char *offset, const char *length)
{
    Onnx__ModelProto *m =
        onnx_text_model(arena, "input x float N,2\ninit w float 2 = 1 2\nAdd a x,w -> y\noutput y");
    Onnx__TensorProto *w = m->graph->initializer[0];
    const char *const pairs[3][2] = {
        {"location", location}, {"offset", offset}, {"length", length}};
    w->has_raw_data = 0;
    w->has_data_location = 1;
    w->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    w->external_data = arena_alloc(arena, 3, sizeof(*w->external_data));
    for (int i = 0; i < 3; i++) {
        if (!pairs[i][1])
            continue;
        Onnx__StringStringEntryProto *e = arena_alloc(arena, 1, sizeof(*e));
        onnx__string_string_entry_proto__init(e);
        e->key = arena_strdup(arena, pairs[i][0]);
        e->value = arena_strdup(arena, pairs[i][1]);
        w->external_data[w->n_external_data++] = e;
    }
    return m;
}

static int read_external(const char *location, const char *offset, const char *length,
                         const char *in, struct graph **ret, struct err *err)
{
    struct arena *arena = arena_new();
    int rc =
        onnx_text_read_model(external_model(arena, location, offset, length), in, NULL, ret, err);
    arena_free(arena);
    return rc;
}

static void refuse_external(const char *location, const char *offset, const char *length, int code,
                            const char *part)
{
    struct graph *g = NULL;
    struct err err = {0};
    int rc = read_external(location, offset, length, folder, &g, &err);
    if (rc != -code || !strstr(err.message, part) || !strstr(err.message, "'w'"))
        fail_msg("%d: %s (expected '%s')", rc, err.message, part);
}

static void write_file(const char *name, const void *data, size_t bytes)
{
    _cleanup_(freep) char *path = str_printf("%s/%s", folder, name);
    assert_int_equal(fs_write_atomic(path, data, bytes, NULL), 0);
}

static void external_data_is_read_from_the_folder(void **state)
{
    (void)state;
    float data[4] = {5, 6, 7, 8};
    struct graph *g = NULL;
    struct err err = {0};
    write_file("weights.bin", data, sizeof(data));
    if (read_external("weights.bin", "8", "8", folder, &g, &err) < 0)
        fail_msg("%s", err.message);
    assert_true(tensor_get_f64(g->values[graph_find_value(g, "w")]->constant, 0) == 7);
    graph_free(g);
    assert_int_equal(read_external("./weights.bin", NULL, NULL, folder, &g, &err), 0);
    assert_true(tensor_get_f64(g->values[graph_find_value(g, "w")]->constant, 1) == 6);
    graph_free(g);
    assert_int_equal(read_external("weights.bin", NULL, NULL, NULL, &g, &err),
                     -ERR_INVALID_ARGUMENT);
}

static void external_data_outside_the_folder_is_refused(void **state)
{
    (void)state;
    refuse_external("/etc/passwd", NULL, NULL, ERR_PERMISSION_DENIED, "outside");
    refuse_external("../secret", NULL, NULL, ERR_PERMISSION_DENIED, "outside");
    refuse_external("a/../../secret", NULL, NULL, ERR_PERMISSION_DENIED, "outside");
    refuse_external("a/..", NULL, NULL, ERR_PERMISSION_DENIED, "outside");
    _cleanup_(freep) char *link = str_printf("%s/link.bin", folder);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    refuse_external("link.bin", NULL, NULL, ERR_PERMISSION_DENIED, "leaves");
    _cleanup_(freep) char *up = str_printf("%s/up", folder);
    assert_int_equal(symlink("..", up), 0);
    refuse_external("up/passwd", NULL, NULL, ERR_NOT_FOUND, "external data");
}

static void external_data_must_be_a_file_that_is_long_enough(void **state)
{
    (void)state;
    write_file("short.bin", "1234", 4);
    refuse_external("short.bin", NULL, NULL, ERR_INVALID_ARGUMENT, "beyond the file's end");
    refuse_external("short.bin", "9223372036854775807", NULL, ERR_INVALID_ARGUMENT,
                    "beyond the file's end");
    refuse_external("short.bin", "-1", NULL, ERR_OUT_OF_RANGE, "offset");
    refuse_external("short.bin", "99999999999999999999", NULL, ERR_INVALID_ARGUMENT, "offset");
    refuse_external("short.bin", "eight", NULL, ERR_INVALID_ARGUMENT, "offset");
    refuse_external("short.bin", NULL, "4", ERR_INVALID_ARGUMENT, "length 4");
    refuse_external("gone.bin", NULL, NULL, ERR_NOT_FOUND, "gone.bin");
    refuse_external(NULL, NULL, NULL, ERR_INVALID_ARGUMENT, "location");
    _cleanup_(freep) char *pipe = str_printf("%s/pipe", folder);
    assert_int_equal(mkfifo(pipe, 0600), 0);
    refuse_external("pipe", NULL, NULL, ERR_INVALID_ARGUMENT, "no regular file");
    _cleanup_(freep) char *dir = str_printf("%s/dir", folder);
    assert_int_equal(mkdir(dir, 0700), 0);
    refuse_external("dir", NULL, NULL, ERR_INVALID_ARGUMENT, "no regular file");
}

static void a_claimed_size_needs_as_many_external_bytes(void **state)
{
    (void)state;
    struct arena *arena = arena_new();
    write_file("short.bin", "12345678", 8);
    Onnx__ModelProto *m = external_model(arena, "short.bin", NULL, NULL);
    m->graph->initializer[0]->dims[0] = 200000000;
    struct graph *g = NULL;
    struct err err = {0};
    assert_int_equal(onnx_text_read_model(m, folder, NULL, &g, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "800000000 bytes"));
    arena_free(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_has_its_own_field),
        cmocka_unit_test(raw_bytes_fit_every_type),
        cmocka_unit_test(scalars_and_empty_tensors_are_tensors),
        cmocka_unit_test(wrong_amounts_of_data_are_refused),
        cmocka_unit_test(types_and_forms_that_hone_lacks_are_named),
        cmocka_unit_test(external_data_is_read_from_the_folder),
        cmocka_unit_test(external_data_outside_the_folder_is_refused),
        cmocka_unit_test(external_data_must_be_a_file_that_is_long_enough),
        cmocka_unit_test(a_claimed_size_needs_as_many_external_bytes),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
