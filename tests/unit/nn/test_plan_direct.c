/* The convolution kernel of our own, and its plain-C twin, against the meaning of the file. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

struct direct_case {
    struct mesh_conv conv;
    int64_t height, width;
    int in_zero, out_zero;
    bool adds, relu, clip;
};

static int quantized_conv(struct mesh *m, const struct direct_case *c, int x)
{
    int y = mesh_narrow_conv(m, x, c->conv);
    if (c->adds) { /* by another convolution, whose memory takes the sum */
        int r = mesh_qdq(m, mesh_narrow_conv(m, x, c->conv), DTYPE_U8, 0.025f, c->out_zero);
        y = mesh_binary(m, OP_ADD, y, r);
    }
    if (c->relu)
        y = mesh_unary(m, OP_RELU, y);
    if (c->clip)
        y = mesh_node(m, OP_CLIP, VALUES(y, mesh_float(m, -0.4f), mesh_float(m, 0.9f)));
    return mesh_qdq(m, y, DTYPE_U8, 0.02f, c->out_zero);
}

/* At most one quantum (two behind a residual, which may be one off itself). */
static void check(const struct direct_case *c, const char *implementation, int64_t batch,
                  int threads, int index)
{
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    mesh_init(&m, (uint64_t)index);
    int x = mesh_input(&m, DIMS(DIM_BATCH, c->conv.ic, c->height, c->width));
    mesh_output(&m, quantized_conv(&m, c, mesh_qdq(&m, x, DTYPE_U8, 0.02f, c->in_zero)));
    mesh_finish(&m);
    const struct plan_options o = {
        .batch = batch, .threads = threads, .one_lane = true, .implementation = implementation};
    must(plan_compile(m.g, &o, &plan, &err), &err);
    assert_string_equal(find_step(plan, "Conv")->implementation, implementation);
    struct trial_run t = {0};
    trial_run(&t, m.g, plan, 5);
    double most = 0;
    for (int64_t k = 0; k < shape_elements(&t.got[0]->shape); k++)
        most = fmax(most, fabs(tensor_get_f64(t.got[0], k) - tensor_get_f64(t.want[0], k)));
    if (!(most <= (c->adds ? 2.3 : 1.01) * 0.02))
        fail_msg("case %d on %s: %g quanta off", index, implementation, most / 0.02);
    trial_release(&t);
    plan_free(plan);
    mesh_release(&m);
}

static const struct direct_case cases[] = {
    {{.ic = 16, .oc = 16, .kernel = 3, .pad = 1}, 32, 32, 0, 0, false, true, false},
    {{.ic = 16, .oc = 16, .kernel = 3, .pad = 1}, 32, 32, 7, 9, true, true, false},
    {{.ic = 3, .oc = 16, .kernel = 3, .pad = 1}, 32, 32, 117, 0, false, true, false},
    {{.ic = 16, .oc = 32, .kernel = 3, .pad = 1, .stride = 2}, 32, 32, 0, 0, false, true, false},
    {{.ic = 16, .oc = 32, .kernel = 3, .pad = 1, .stride = 2}, 16, 16, 30, 100, true, false, false},
    {{.ic = 8, .oc = 20, .kernel = 3, .pad = 1, .stride = 2}, 7, 16, 9, 50, false, false, false},
    {{.ic = 64, .oc = 64, .kernel = 3, .pad = 1}, 8, 8, 0, 0, true, true, false},
    {{.ic = 20, .oc = 36, .kernel = 3, .pad = 1}, 4, 4, 100, 100, true, false, false},
    {{.ic = 5, .oc = 7, .kernel = 3, .pad = 1}, 5, 7, 50, 120, false, false, false},
    {{.ic = 5, .oc = 7, .kernel = 3, .pad = 1}, 3, 5, 50, 120, true, false, true},
    {{.ic = 9, .oc = 17, .kernel = 1}, 6, 11, 3, 128, false, false, true},
    {{.ic = 4, .oc = 4, .kernel = 5, .pad = 2, .no_bias = true}, 9, 9, 128, 128, false, true, true},
    {{.ic = 4, .oc = 8, .kernel = 3, .pad = 2, .dilation = 2}, 12, 10, 60, 0, false, true, false},
    {{.ic = 3, .oc = 4, .kernel = 1}, 1, 1, 60, 60, false, false, false},
    {{.ic = 2, .oc = 3, .kernel = 7, .pad = 3}, 2, 33, 60, 60, false, false, false},
};
enum { N_CASES = sizeof(cases) / sizeof(cases[0]) };

static const struct direct_case depthwise[] = {
    {{.ic = 16, .oc = 16, .group = 16, .kernel = 3, .pad = 1}, 8, 8, 0, 0, false, true, false},
    {{.ic = 32, .oc = 32, .group = 32, .kernel = 3, .pad = 1}, 5, 9, 117, 9, false, true, true},
    {{.ic = 16, .oc = 16, .group = 16, .kernel = 3}, 3, 4, 30, 100, false, false, false},
    {{.ic = 48, .oc = 48, .group = 48, .kernel = 3, .pad = 2}, 1, 1, 30, 100, false, false, true},
    {{.ic = 64, .oc = 64, .group = 64, .kernel = 3, .pad = 1, .stride = 2},
     25,
     5,
     7,
     0,
     false,
     true,
     false},
    {{.ic = 16, .oc = 16, .group = 16, .kernel = 3, .pad = 1, .stride = 2, .no_bias = true},
     8,
     10,
     128,
     128,
     false,
     false,
     false},
    {{.ic = 16, .oc = 16, .group = 16, .kernel = 3, .stride = 2}, 7, 7, 9, 0, false, true, false},
    {{.ic = 128, .oc = 128, .group = 128, .kernel = 3, .pad = 1}, 6, 7, 99, 9, false, true, true},
    {{.ic = 64, .oc = 64, .group = 64, .kernel = 3, .pad = 1}, 4, 2, 7, 120, false, false, false},
};

static void depthwise_kernels_are_right(void **state)
{
    (void)state;
    const bool vnni = nn_has_int8() && strncmp(nn_isa(), "avx512", 6) == 0;
    for (int i = 0; i < (int)(sizeof(depthwise) / sizeof(depthwise[0])); i++) {
        check(&depthwise[i], "depthwise:plain", 2, 1 + i % 2, i);
        for (int threads = 1; threads <= 2 && vnni; threads++)
            check(&depthwise[i], "depthwise:avx512_core_vnni", 3, threads, i);
    }
}

static void the_vnni_kernel_is_right(void **state)
{
    (void)state;
    if (!nn_has_int8() || strncmp(nn_isa(), "avx512", 6) != 0) {
        print_message("skip: this CPU has no AVX-512 VNNI\n");
        skip();
    }
    for (int i = 0; i < N_CASES; i++)
        for (int64_t batch = 1; batch <= 3; batch += 2)
            check(&cases[i], "direct:avx512_core_vnni", batch, (int)batch, i);
}

static void its_plain_twin_is_right(void **state)
{
    (void)state;
    for (int i = 0; i < N_CASES; i++)
        check(&cases[i], "direct:plain", 2, 1 + i % 2, i);
}

static bool has_avx2(bool vnni)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx2") && (!vnni || __builtin_cpu_supports("avxvnni"));
#else
    return vnni && false;
#endif
}

static void the_kernels_for_avx2_are_right(void **state)
{
    (void)state;
    static const char *const names[] = {"direct:avx2_madd", "direct:avx2_vnni"};
    int n = 0;
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < N_CASES && has_avx2(k); i++, n++)
            check(&cases[i], names[k], 2, 1 + i % 2, i);
    if (n == 0) {
        print_message("skip: this CPU has no AVX2\n");
        skip();
    }
}

/* Sums that would leave 32 bits once scaled saturate at the right end. */
static void huge_sums_saturate_upwards(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(1, 64, 4, 8));
    int8_t q[16 * 64];
    memset(q, 127, sizeof(q));
    int w =
        mesh_node(&m, OP_DEQUANTIZE_LINEAR,
                  VALUES(mesh_constant(&m, DTYPE_S8, DIMS(16, 64, 1, 1), q), mesh_float(&m, 1e6f)));
    int y = mesh_node(&m, OP_CONV, VALUES(mesh_qdq(&m, x, DTYPE_U8, 1, 0), w));
    mesh_output(&m, mesh_qdq(&m, y, DTYPE_U8, 1e-3f, 0));
    mesh_finish(&m);
    static const char *const names[] = {"direct", "direct:plain", "direct:avx2_madd"};
    for (int i = 0; i < 2 + has_avx2(false); i++) {
        const struct plan_options o = {.implementation = names[i]};
        struct plan *plan = NULL;
        must(plan_compile(m.g, &o, &plan, &err), &err);
        static float in[64 * 32], out[16 * 32];
        for (int k = 0; k < 64 * 32; k++)
            in[k] = 255;
        must(plan_run(plan, (const void *[]){in}, (void *[]){out}, &err), &err);
        for (int k = 0; k < 16 * 32; k++)
            assert_true(fabsf(out[k] - 0.255f) < 1e-6f);
        plan_free(plan);
    }
    mesh_release(&m);
}

/* C4 of one channel goes to channels last, which lies as the plain layout does. */
static void a_single_channel_leaves_the_layout_of_four(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 4);
    int x = mesh_qdq(&m, mesh_input(&m, DIMS(DIM_BATCH, 4, 9, 7)), DTYPE_U8, 0.02f, 128);
    int y = mesh_narrow_conv(&m, x, (struct mesh_conv){.ic = 4, .oc = 1, .kernel = 3, .pad = 1});
    y = mesh_qdq(&m, y, DTYPE_U8, 0.02f, 128);
    y = mesh_narrow_conv(&m, y, (struct mesh_conv){.ic = 1, .oc = 5, .kernel = 3, .stride = 3});
    mesh_output(&m, y);
    mesh_finish(&m);
    const struct plan_options o = {.batch = 2, .implementation = "direct:plain"};
    struct plan *plan = mesh_check(&m, &o, 0.03, "one channel");
    assert_string_equal(find_step(plan, "Conv")->implementation, "direct:plain");
    plan_free(plan);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vnni_kernel_is_right),
        cmocka_unit_test(depthwise_kernels_are_right),
        cmocka_unit_test(its_plain_twin_is_right),
        cmocka_unit_test(the_kernels_for_avx2_are_right),
        cmocka_unit_test(huge_sums_saturate_upwards),
        cmocka_unit_test(a_single_channel_leaves_the_layout_of_four),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
