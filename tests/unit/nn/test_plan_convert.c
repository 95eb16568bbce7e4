/* Conversions between types, layouts and quantizations, each against element-by-element arithmetic.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/nn/plan_priv.h"
#include "shared/nn/step_convert.h"
#include "tests/unit/nn/plan_nets.h"

/* Where element (n, c, pixel) lies. */
static int64_t place(enum layout layout, const struct shape *s, int64_t n, int64_t c, int64_t p)
{
    int64_t pixels = s->dim[2] * s->dim[3], block = layout_block(layout);
    if (layout == LAYOUT_PLAIN)
        return (n * s->dim[1] + c) * pixels + p;
    if (layout == LAYOUT_LAST)
        return (n * pixels + p) * s->dim[1] + c;
    int64_t blocks = (s->dim[1] + block - 1) / block;
    return ((n * blocks + c / block) * layout_plane(layout, s) + p) * block + c % block;
}

static double quantum_of(const struct form *f, double x)
{
    double low = f->dtype == DTYPE_U8 ? 0 : -128;
    return fmin(fmax(rint(x / (double)f->scale) + f->zero, low), low + 255);
}

static void fill(const struct form *f, const struct shape *s, void *data, struct rng *rng)
{
    int64_t n = layout_elements(f->layout, s);
    struct tensor t = {.dtype = f->dtype, .shape = shape_make(1, &n), .data = data};
    memset(data, 0, (size_t)n * dtype_bytes(f->dtype));
    for (int64_t i = 0; i < s->dim[0]; i++)
        for (int64_t c = 0; c < s->dim[1]; c++)
            for (int64_t p = 0; p < s->dim[2] * s->dim[3]; p++)
                tensor_set_f64(&t, place(f->layout, s, i, c, p),
                               f->dtype == DTYPE_U8   ? (double)rng_below(rng, 256)
                               : f->dtype == DTYPE_S8 ? (double)rng_below(rng, 256) - 128
                                                      : 2 * rng_normal(rng));
}

static void compare(const struct form *from, const struct form *to, const struct shape *s,
                    const void *a, const void *b, const char *what)
{
    struct tensor x = {.dtype = from->dtype, .data = (void *)(uintptr_t)a};
    struct tensor y = {.dtype = to->dtype, .data = (void *)(uintptr_t)b};
    for (int64_t i = 0; i < s->dim[0]; i++)
        for (int64_t c = 0; c < s->dim[1]; c++)
            for (int64_t p = 0; p < s->dim[2] * s->dim[3]; p++) {
                double v = tensor_get_f64(&x, place(from->layout, s, i, c, p));
                double got = tensor_get_f64(&y, place(to->layout, s, i, c, p));
                if (from->quantized)
                    v = (v - from->zero) * (double)from->scale;
                double want = to->quantized ? quantum_of(to, v) : v;
                double slack = to->quantized             ? 1.001
                               : to->dtype == DTYPE_BF16 ? fabs(v) / 128
                                                         : 1e-5;
                if (!to->quantized && from->dtype == to->dtype)
                    slack = 0;
                /* beside a tie both neighbours are right */
                if (to->quantized &&
                    fabs(v / (double)to->scale - rint(v / (double)to->scale)) < 0.49)
                    slack = 0;
                if (!(fabs(got - want) <= slack))
                    fail_msg("%s: element %d,%d,%d is %g, not %g", what, (int)i, (int)c, (int)p,
                             got, want);
            }
}

/* The blocks' padding must be zero where it is multiplied. */
static void check_padding(const struct form *to, const struct shape *s, const void *b,
                          const char *what)
{
    int64_t block = layout_block(to->layout);
    if (block < 8)
        return;
    struct tensor y = {.dtype = to->dtype, .data = (void *)(uintptr_t)b};
    for (int64_t i = 0; i < s->dim[0]; i++)
        for (int64_t c = s->dim[1]; c < (s->dim[1] + block - 1) / block * block; c++)
            for (int64_t p = 0; p < s->dim[2] * s->dim[3]; p++)
                if (tensor_get_f64(&y, place(to->layout, s, i, c, p)) != 0)
                    fail_msg("%s: the padding is not zero", what);
}

static void convert(const struct form *from, const struct form *to, const struct shape *s)
{
    struct err err = {0};
    char what[128], text[128];
    snprintf(what, sizeof(what), "%s %s.%s%s to %s.%s%s", shape_text(s, text),
             dtype_name(from->dtype), layout_name(from->layout), from->quantized ? ".q" : "",
             dtype_name(to->dtype), layout_name(to->layout), to->quantized ? ".q" : "");
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct plan plan = {.arena = arena};
    struct maker m = {.plan = &plan, .arena = arena, .engine = nn_engine()};
    assert_int_equal(dnnl_stream_create(&m.stream, m.engine, 0), dnnl_success);
    size_t bytes[2] = {(size_t)layout_elements(from->layout, s) * dtype_bytes(from->dtype),
                       (size_t)layout_elements(to->layout, s) * dtype_bytes(to->dtype)};
    _cleanup_(freep) void *a = mem_aligned(bytes[0]);
    _cleanup_(freep) void *b = mem_aligned(bytes[1]);
    void *data[2] = {a, b};
    struct rng rng;
    rng_seed(&rng, 3);
    fill(from, s, a, &rng);
    memset(b, 0x5a, bytes[1]);
    struct step step = {.n_args = 2, .data = data, .in_place = -1, .info.layer = "conversion"};
    must(convert_make(&m, &step, s, from, to, &err), &err);
    _cleanup_(freep) void *scratch = mem_aligned(step.scratch_bytes);
    step_bind(&step, 0, a);
    step_bind(&step, 1, b);
    step_bind(&step, -1, scratch);
    must(step_run(&step, &err), &err);
    step_release(&step);
    dnnl_stream_destroy(m.stream);
    compare(from, to, s, a, b, what);
    check_padding(to, s, b, what);
}

static const struct form floats = {.dtype = DTYPE_F32};
static const struct form halves = {.dtype = DTYPE_BF16};
static const struct form bytes_u8 = {
    .dtype = DTYPE_U8, .quantized = true, .scale = 0.03f, .zero = 77};
static const struct form bytes_s8 = {
    .dtype = DTYPE_S8, .quantized = true, .scale = 0.02f, .zero = -5};

static void between(const struct form *a, const struct form *b, unsigned layouts_a,
                    unsigned layouts_b)
{
    static const int64_t shapes[][4] = {
        {1, 3, 32, 32}, {2, 16, 7, 5}, {1, 17, 4, 9}, {3, 1, 6, 6}, {2, 32, 32, 16}};
    for (size_t k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++) {
        const struct shape s = shape_make(4, shapes[k]);
        for (int x = 0; x < LAYOUT_COUNT; x++)
            for (int y = 0; y < LAYOUT_COUNT; y++) {
                if (!(layouts_a >> x & 1) || !(layouts_b >> y & 1))
                    continue;
                struct form from = *a, to = *b;
                from.layout = layout_canonical((enum layout)x, &s);
                to.layout = layout_canonical((enum layout)y, &s);
                convert(&from, &to, &s);
            }
    }
}

enum {
    P = 1 << LAYOUT_PLAIN,
    L = 1 << LAYOUT_LAST,
    C16 = 1 << LAYOUT_C16,
    C8 = 1 << LAYOUT_C8,
    C4 = 1 << LAYOUT_C4
};

static void floats_change_their_layout(void **state)
{
    (void)state;
    between(&floats, &floats, P | L | C16 | C8, P | L | C16 | C8);
}

static void floats_become_bytes(void **state)
{
    (void)state;
    between(&floats, &bytes_u8, P | L | C16, P | L | C4);
    between(&floats, &bytes_s8, P | L | C16, P | L);
}

static void bytes_become_floats(void **state)
{
    (void)state;
    between(&bytes_u8, &floats, P | L | C4, P | L | C16);
    between(&bytes_s8, &floats, P | L, P | L | C16);
}

static void bytes_change_their_layout(void **state)
{
    (void)state;
    between(&bytes_u8, &bytes_u8, P | L | C4, P | L | C4);
}

static void bytes_change_their_quantization(void **state)
{
    (void)state;
    between(&bytes_u8, &bytes_s8, P | L, P | L);
}

static void floats_become_halves_and_back(void **state)
{
    (void)state;
    between(&floats, &halves, P | L | C16, P | L | C16);
    between(&halves, &floats, P | L | C16, P | L | C16);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(floats_change_their_layout),
        cmocka_unit_test(floats_become_bytes),
        cmocka_unit_test(bytes_become_floats),
        cmocka_unit_test(bytes_change_their_layout),
        cmocka_unit_test(bytes_change_their_quantization),
        cmocka_unit_test(floats_become_halves_and_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
