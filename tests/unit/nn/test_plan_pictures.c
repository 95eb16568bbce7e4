/* Pictures of bytes as the network's input: what the way through floats gives, bit for bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

enum { MOST = 4 };

struct pictures_case {
    int64_t channels, height, width, batch;
    bool last, turned; /* channels last; the network wants them turned round */
    int threads;
};

/* A table of 256 for each channel, as mean and deviation would give, with far ends. */
static void make_table(const struct pictures_case *c, float *real, struct plan_pictures *ret)
{
    *ret = (struct plan_pictures){.last = c->last, .channels = (int)c->channels, .real = real};
    for (int k = 0; k < c->channels; k++) {
        ret->from[k] = (uint8_t)(c->turned ? c->channels - 1 - k : k);
        for (int x = 0; x < 256; x++)
            real[256 * k + x] =
                ((float)x / 255 - 0.4f - 0.05f * (float)k) / (0.2f + 0.03f * (float)k);
    }
}

/* The same pictures as bytes and as the floats that the network expects. */
static void make_inputs(const struct pictures_case *c, const struct plan_pictures *p,
                        uint8_t *bytes, float *floats)
{
    struct rng rng;
    rng_seed(&rng, 8);
    const int64_t pixels = c->height * c->width, sample = c->channels * pixels;
    for (int64_t i = 0; i < c->batch * sample; i++) {
        const int64_t n = i / sample, k = i / pixels % c->channels, at = i % pixels,
                      from = p->from[k];
        const uint8_t b = (uint8_t)rng_below(&rng, 256);
        bytes[n * sample + (c->last ? at * c->channels + from : from * pixels + at)] = b;
        floats[i] = p->real[256 * k + b];
    }
}

/* Everything of output 0, which the caller frees. */
static void *outcome(const struct mesh *m, const struct plan_options *o, const void *input,
                     size_t *ret_bytes, const char *implementation)
{
    struct err err = {0};
    struct plan *plan = NULL;
    must(plan_compile(m->g, o, &plan, &err), &err);
    const struct plan_step *step = find_step(plan, "Pictures");
    if (implementation)
        assert_string_equal(step->implementation, implementation);
    else
        assert_true(!o->pictures == !step);
    *ret_bytes = plan_output(plan, 0)->bytes;
    void *out = calloc(1, *ret_bytes);
    must(plan_run(plan, (const void *[]){input}, (void *[]){out}, &err), &err);
    plan_free(plan);
    return out;
}

static void compare(const struct mesh *m, const struct pictures_case *c, const char *implementation)
{
    float real[MOST * 256];
    struct plan_pictures p;
    const size_t n = (size_t)(c->batch * c->channels * c->height * c->width);
    uint8_t *bytes = malloc(n);
    float *floats = malloc(n * sizeof(*floats));
    size_t want_bytes = 0, got_bytes = 0;
    assert_true(bytes && floats);
    make_table(c, real, &p);
    make_inputs(c, &p, bytes, floats);
    struct plan_options o = {.batch = c->batch, .threads = c->threads, .choose_by_name = true};
    void *want = outcome(m, &o, floats, &want_bytes, NULL);
    o.pictures = &p;
    o.implementation = implementation;
    void *got = outcome(m, &o, bytes, &got_bytes, implementation);
    assert_int_equal(got_bytes, want_bytes);
    assert_memory_equal(got, want, want_bytes);
    free(bytes);
    free(floats);
    free(want);
    free(got);
}

static const struct pictures_case cases[] = {
    {3, 32, 32, 1, true, false, 1}, {3, 32, 32, 3, false, false, 1},
    {3, 7, 9, 2, true, true, 1},    {3, 5, 5, 3, false, true, 1},
    {1, 28, 28, 2, true, false, 1}, {1, 3, 5, 2, false, false, 1},
    {4, 9, 3, 2, true, true, 1},    {4, 6, 7, 65, false, false, 2},
    {2, 1, 17, 7, true, false, 2},  {3, 16, 32, 33, true, false, 2},
    {3, 1, 1, 2, true, false, 1},   {3, 11, 13, 1, true, false, 2},
};
enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };

static bool has_vbmi(void)
{
#if defined(__x86_64__)
    return strncmp(nn_isa(), "avx512", 6) == 0 && __builtin_cpu_supports("avx512vbmi");
#else
    return false;
#endif
}

/* What QuantizeLinear makes of them is the network's output. */
static void the_quantized_input_is_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        for (int kind = 0; kind < 3; kind++) {
            const struct pictures_case *c = &cases[i];
            static const struct {
                enum dtype dtype;
                float scale;
                uint8_t zero;
            } to[] = {{DTYPE_U8, 0.0186f, 114}, {DTYPE_S8, 0.02f, 3}, {DTYPE_U8, 0.0078f, 128}};
            struct mesh m;
            mesh_init(&m, 1);
            int x = mesh_input(&m, DIMS(DIM_BATCH, c->channels, c->height, c->width));
            int s = mesh_float(&m, to[kind].scale),
                z = mesh_constant(&m, to[kind].dtype, 0, NULL, &to[kind].zero);
            mesh_output(&m, mesh_node(&m, OP_QUANTIZE_LINEAR, VALUES(x, s, z)));
            mesh_finish(&m);
            compare(&m, c, NULL);
            compare(&m, c, "pictures:plain");
            mesh_release(&m);
        }
}

/* A stem of 8 bits whose padding is the zero point; 16 channels: our own layout, and 24: others. */
static void stems_of_8_bits_give_the_same(void **state)
{
    (void)state;
    static const char *const forced[] = {NULL, "pictures:plain", "pictures:avx512_vbmi"};
    for (int i = 0; i < N_CASES; i++)
        for (int k = 0; k < 2 + has_vbmi(); k++) {
            const struct pictures_case *c = &cases[i];
            const bool one = c->height * c->width == 1;
            struct mesh m;
            if (k == 2 && (c->channels == 1 || one)) /* plain and last are one layout there */
                continue;
            mesh_init(&m, (uint64_t)i);
            int x = mesh_input(&m, DIMS(DIM_BATCH, c->channels, c->height, c->width));
            int y = mesh_narrow_conv(&m, mesh_qdq(&m, x, DTYPE_U8, 0.0186f, 114),
                                     (struct mesh_conv){.ic = c->channels,
                                                        .oc = i % 2 ? 16 : 24,
                                                        .kernel = 3,
                                                        .pad = 1,
                                                        .stride = 1 + i % 3 / 2});
            y = mesh_qdq(&m, mesh_unary(&m, OP_RELU, y), DTYPE_U8, 0.02f, 0);
            mesh_output(&m, y);
            mesh_finish(&m);
            compare(&m, c, forced[k]);
            mesh_release(&m);
        }
}

static void readers_of_floats_get_the_same(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++) {
        const struct pictures_case *c = &cases[i];
        struct mesh m;
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, c->channels, c->height, c->width));
        mesh_output(&m, mesh_unary(&m, OP_RELU, x));
        mesh_finish(&m);
        compare(&m, c, NULL);
        mesh_release(&m);
    }
}

/* Floats for one reader, 8 bits for another, and the plain-C steps, which know floats only. */
static void several_readers_are_served(void **state)
{
    (void)state;
    const struct pictures_case *c = &cases[0];
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 3, 32, 32));
    int a = mesh_qdq(&m, x, DTYPE_U8, 0.0186f, 114), b = mesh_qdq(&m, x, DTYPE_U8, 0.0186f, 114);
    mesh_output(&m, mesh_binary(&m, OP_ADD, mesh_binary(&m, OP_MUL, a, b), x));
    mesh_finish(&m);
    compare(&m, c, NULL);
    compare(&m, c, "pictures:plain");
    mesh_release(&m);
}

static void other_inputs_are_refused(void **state)
{
    (void)state;
    static const float real[MOST * 256];
    const struct plan_pictures p = {.channels = 3, .real = real};
    for (int i = 0; i < 3; i++) {
        struct err err = {0};
        struct plan *plan = NULL;
        struct mesh m;
        mesh_init(&m, 1);
        int x = i == 0   ? mesh_input(&m, DIMS(DIM_BATCH, 5, 4, 4))
                : i == 1 ? mesh_input(&m, DIMS(DIM_BATCH, 3, 4))
                         : mesh_typed_input(&m, DTYPE_S64, DIMS(DIM_BATCH, 3, 4, 4));
        mesh_output(&m, mesh_unary(&m, OP_ABS, x));
        mesh_finish(&m);
        const struct plan_options o = {.pictures = &p};
        assert_int_equal(plan_compile(m.g, &o, &plan, &err), -ERR_INVALID_ARGUMENT);
        assert_null(plan);
        mesh_release(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_quantized_input_is_the_same),
        cmocka_unit_test(stems_of_8_bits_give_the_same),
        cmocka_unit_test(readers_of_floats_get_the_same),
        cmocka_unit_test(several_readers_are_served),
        cmocka_unit_test(other_inputs_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
