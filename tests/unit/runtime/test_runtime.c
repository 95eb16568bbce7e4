/* The public C API: any batch size, several threads, and what callers do wrong. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <hone/runtime.h>

#include "shared/base/mem.h"
#include "shared/coding/packed.h"
#include "shared/graph/onnx.h"
#include "tests/unit/nn/plan_nets.h"

enum { C = 3, SIDE = 8, CLASSES = 5, IN = C * SIDE * SIDE };

/* Conv, Relu, GlobalAveragePool, Flatten, Gemm on [batch, 3, 8, 8] as an ONNX file in memory. */
static void *small_network(int64_t batch, size_t *ret_bytes)
{
    struct mesh m;
    struct err err = {0};
    void *data = NULL;
    mesh_init(&m, 3);
    int x = mesh_input(&m, DIMS(batch, C, SIDE, SIDE));
    int w = mesh_normal(&m, 0.3, DIMS(8, C, 3, 3));
    int y = mesh_node(&m, OP_CONV, VALUES(x, w));
    mesh_attr_ints(&m, y, "pads", 4, (const int64_t[]){1, 1, 1, 1});
    y = mesh_node(&m, OP_RELU, VALUES(y));
    y = mesh_node(&m, OP_GLOBAL_AVERAGE_POOL, VALUES(y));
    y = mesh_node(&m, OP_FLATTEN, VALUES(y));
    y = mesh_node(&m, OP_GEMM, VALUES(y, mesh_normal(&m, 0.3, DIMS(8, CLASSES))));
    must(graph_add_output(m.g, y, &err), &err);
    must(onnx_write_bytes(m.g, &data, ret_bytes, &err), &err);
    mesh_release(&m);
    return data;
}

static struct hone_net *open_small(const struct hone_options *options)
{
    size_t bytes = 0;
    struct hone_net *net = NULL;
    struct hone_error error;
    _cleanup_(freep) void *data = small_network(DIM_BATCH, &bytes);
    if (hone_open_bytes(data, bytes, options, &net, &error) < 0)
        fail_msg("%s", error.message);
    return net;
}

static float *noise(int64_t n)
{
    struct rng rng;
    rng_seed(&rng, 9);
    float *x = mem_calloc((size_t)n, IN * sizeof(float));
    assert_non_null(x);
    for (int64_t i = 0; i < n * IN; i++)
        x[i] = (float)rng_normal(&rng);
    return x;
}

static void run(struct hone_net *net, int64_t n, const float *x, float *y)
{
    struct hone_error error;
    const void *in[] = {x};
    void *out[] = {y};
    if (hone_run(net, n, in, out, &error) < 0)
        fail_msg("%s", error.message);
}

static void any_batch_gives_what_single_samples_give(void **state)
{
    (void)state;
    enum { MOST = 91 };
    _cleanup_(freep) float *x = noise(MOST);
    float one[MOST * CLASSES], many[MOST * CLASSES];
    struct hone_net *net =
        open_small(&(struct hone_options){.size = sizeof(struct hone_options), .batch = 7});
    for (int i = 0; i < MOST; i++)
        run(net, 1, x + (ptrdiff_t)i * IN, one + (ptrdiff_t)i * CLASSES);
    const int64_t sizes[] = {2, 7, 8, 16, 64, MOST};
    for (size_t k = 0; k < sizeof(sizes) / sizeof(sizes[0]); k++) {
        memset(many, 0xff, sizeof(many));
        run(net, sizes[k], x, many);
        for (int64_t i = 0; i < sizes[k] * CLASSES; i++)
            assert_true(fabsf(many[i] - one[i]) < 1e-4f);
        if (sizes[k] < MOST) /* and not a byte more was written */
            assert_int_equal(((unsigned char *)&many[sizes[k] * CLASSES])[0], 0xff);
    }
    run(net, 0, x, many);
    hone_close(net);
}

static void packed_networks_run_as_they_are(void **state)
{
    (void)state;
    size_t bytes = 0, n = 0;
    _cleanup_(freep) void *data = small_network(DIM_BATCH, &bytes);
    _cleanup_(freep) void *packed = NULL;
    _cleanup_(freep) float *x = noise(4);
    float plain[4 * CLASSES], same[4 * CLASSES];
    struct hone_net *net = open_small(NULL), *small = NULL;
    struct hone_error error;
    assert_int_equal(packed_write(data, bytes, &packed, &n, NULL), 0);
    if (hone_open_bytes(packed, n, NULL, &small, &error) < 0)
        fail_msg("%s", error.message);
    run(net, 4, x, plain);
    run(small, 4, x, same);
    for (int i = 0; i < 4 * CLASSES; i++)
        assert_true(fabsf(plain[i] - same[i]) < 1e-4f);
    hone_close(net);
    hone_close(small);
    memset((char *)packed + n / 2, 0, 16);
    assert_int_equal(hone_open_bytes(packed, n, NULL, &small, &error), -ERR_DATA_LOSS);
    assert_non_null(strstr(error.message, "damaged"));
}

static void ports_are_described(void **state)
{
    (void)state;
    struct hone_net *net = open_small(NULL);
    struct hone_port port;
    assert_int_equal(hone_n_inputs(net), 1);
    assert_int_equal(hone_n_outputs(net), 1);
    assert_int_equal(hone_fixed_batch(net), 0);
    assert_int_equal(hone_input(net, 0, &port), 0);
    assert_int_equal(port.rank, 4);
    assert_int_equal(port.dim[0], -1);
    assert_int_equal(port.dim[3], SIDE);
    assert_int_equal(port.bytes, IN * sizeof(float));
    assert_string_equal(port.type, "float32");
    assert_int_equal(hone_output(net, 0, &port), 0);
    assert_int_equal(port.bytes, CLASSES * sizeof(float));
    assert_int_equal(hone_output(net, 1, &port), -ERR_OUT_OF_RANGE);
    assert_int_equal(hone_input(net, -1, &port), -ERR_OUT_OF_RANGE);
    hone_close(net);
}

struct caller {
    struct hone_net *net;
    const float *x;
    float y[3 * CLASSES];
};

/* The mean and deviation of the metadata, in either order of the bytes, as if the caller had. */
static void pictures_of_bytes_give_what_floats_give(void **state)
{
    (void)state;
    static const char text[] = "scale=1/255 mean=0.4,0.5,0.6 std=0.2,0.3,0.25 order=bgr";
    const float mean[] = {0.4f, 0.5f, 0.6f}, std[] = {0.2f, 0.3f, 0.25f};
    enum { N = 5, PIXELS = SIDE * SIDE };
    static uint8_t bytes[2][N * IN];
    static float x[N * IN];
    float want[N * CLASSES], got[N * CLASSES];
    struct rng rng;
    rng_seed(&rng, 4);
    for (int i = 0; i < N * IN; i++) {
        const int n = i / IN, c = i / PIXELS % C, p = i % PIXELS, from = 2 - c;
        const uint8_t b = (uint8_t)rng_below(&rng, 256);
        bytes[0][n * IN + from * PIXELS + p] = bytes[1][n * IN + p * C + from] = b;
        x[i] = ((float)b / 255 - mean[c]) / std[c];
    }
    struct hone_net *net = open_small(NULL);
    run(net, N, x, want);
    hone_close(net);
    for (int last = 0; last < 2; last++) {
        struct hone_port port;
        struct hone_error error;
        net = open_small(&(struct hone_options){.size = sizeof(struct hone_options),
                                                .pictures = last ? "nhwc" : "nchw",
                                                .preprocess = text});
        assert_int_equal(hone_input(net, 0, &port), 0);
        assert_string_equal(port.type, "uint8");
        assert_int_equal(port.bytes, IN);
        assert_int_equal(port.dim[last ? 3 : 1], C);
        assert_int_equal(port.dim[0], -1);
        if (hone_run(net, N, (const void *[]){bytes[last]}, (void *[]){got}, &error) < 0)
            fail_msg("%s", error.message);
        for (int i = 0; i < N * CLASSES; i++)
            assert_true(fabsf(got[i] - want[i]) < 1e-4f);
        hone_close(net);
    }
}

static void pictures_need_to_be_described(void **state)
{
    (void)state;
    static const struct {
        const char *pictures, *preprocess, *says;
        int code;
    } wrong[] = {{"nhwc", NULL, "does not say", ERR_FAILED_PRECONDITION},
                 {"rows", "scale=1", "rows", ERR_INVALID_ARGUMENT},
                 {"nchw", "scale=x", "scale", ERR_INVALID_ARGUMENT}};
    size_t bytes = 0;
    _cleanup_(freep) void *data = small_network(DIM_BATCH, &bytes);
    for (int i = 0; i < 3; i++) {
        struct hone_net *net = NULL;
        struct hone_error error;
        const struct hone_options o = {
            .size = sizeof(o), .pictures = wrong[i].pictures, .preprocess = wrong[i].preprocess};
        assert_int_equal(hone_open_bytes(data, bytes, &o, &net, &error), -wrong[i].code);
        assert_non_null(strstr(error.message, wrong[i].says));
        assert_null(net);
    }
}

static void *call(void *arg)
{
    struct caller *c = arg;
    const void *in[] = {c->x};
    void *out[] = {c->y};
    for (int i = 0; i < 50; i++)
        if (hone_run(c->net, 3, in, out, NULL) < 0)
            return c;
    return NULL;
}

static void several_threads_share_a_net(void **state)
{
    (void)state;
    enum { CALLERS = 4 };
    _cleanup_(freep) float *x = noise(3 * CALLERS);
    struct hone_net *net = open_small(NULL);
    struct caller callers[CALLERS];
    pthread_t threads[CALLERS];
    for (int i = 0; i < CALLERS; i++) {
        callers[i] = (struct caller){.net = net, .x = x + (ptrdiff_t)i * 3 * IN};
        assert_int_equal(pthread_create(&threads[i], NULL, call, &callers[i]), 0);
    }
    for (int i = 0; i < CALLERS; i++) {
        void *failed = NULL;
        pthread_join(threads[i], &failed);
        assert_null(failed);
        float alone[3 * CLASSES];
        run(net, 3, callers[i].x, alone);
        assert_memory_equal(alone, callers[i].y, sizeof(alone));
    }
    hone_close(net);
}

static void a_fixed_batch_is_insisted_on(void **state)
{
    (void)state;
    size_t bytes = 0;
    struct hone_net *net = NULL;
    struct hone_error error;
    struct mesh m;
    struct err err = {0};
    mesh_init(&m, 1);
    /* the batch takes part in a reshape that mixes it with the rest: it cannot be opened */
    int x = mesh_input(&m, DIMS(2, 6));
    int shape = mesh_ints(&m, 2, (const int64_t[]){3, 4});
    int y = mesh_node(&m, OP_RESHAPE, VALUES(x, shape));
    must(graph_add_output(m.g, mesh_node(&m, OP_RELU, VALUES(y)), &err), &err);
    void *data = NULL;
    must(onnx_write_bytes(m.g, &data, &bytes, &err), &err);
    mesh_release(&m);
    assert_int_equal(hone_open_bytes(data, bytes, NULL, &net, &error), 0);
    free(data);
    assert_int_equal(hone_fixed_batch(net), 2);
    const float in[12] = {-1, 2, -3, 4, -5, 6, -7, 8, -9, 10, -11, 12};
    float out[12];
    const void *inputs[] = {in};
    void *outputs[] = {out};
    assert_int_equal(hone_run(net, 1, inputs, outputs, &error), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(error.message, "2 samples"));
    assert_int_equal(hone_run(net, 2, inputs, outputs, &error), 0);
    for (int i = 0; i < 12; i++)
        assert_true(out[i] == (in[i] > 0 ? in[i] : 0));
    hone_close(net);
}

static void mistakes_are_refused_in_words(void **state)
{
    (void)state;
    struct hone_net *net = NULL;
    struct hone_error error;
    assert_int_equal(hone_open("/no/such/file.onnx", NULL, &net, &error), -ERR_NOT_FOUND);
    assert_non_null(strstr(error.message, "/no/such/file.onnx"));
    int rc = hone_open_bytes("rubbish", 7, NULL, &net, &error);
    assert_true(rc < 0 && error.code == -rc && error.message[0]);
    assert_int_equal(hone_open(NULL, NULL, &net, NULL), -ERR_INVALID_ARGUMENT);
    size_t bytes = 0;
    _cleanup_(freep) void *data = small_network(DIM_BATCH, &bytes);
    const struct hone_options bad[] = {
        {.size = 0},
        {.size = sizeof(bad[0]), .threads = -1},
        {.size = sizeof(bad[0]), .batch = INT64_MAX},
        {.size = sizeof(bad[0]), .precision = "fp8"},
        {.size = sizeof(bad[0]), .precision = "int8"},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_true(hone_open_bytes(data, bytes, &bad[i], &net, &error) < 0);
        assert_true(error.message[0] != '\0');
        assert_null(net);
    }
    hone_close(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_batch_gives_what_single_samples_give),
        cmocka_unit_test(packed_networks_run_as_they_are),
        cmocka_unit_test(ports_are_described),
        cmocka_unit_test(pictures_of_bytes_give_what_floats_give),
        cmocka_unit_test(pictures_need_to_be_described),
        cmocka_unit_test(several_threads_share_a_net),
        cmocka_unit_test(a_fixed_batch_is_insisted_on),
        cmocka_unit_test(mistakes_are_refused_in_words),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
