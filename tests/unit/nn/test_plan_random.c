/* Random small graphs, in floats and quantized, with branches, residuals, values that are read
 * twice or are outputs as well, against plain C. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

enum { MOST_VALUES = 40 };

struct sketch {
    struct mesh m;
    bool quantized;
    int n, values[MOST_VALUES];
    int64_t shapes[MOST_VALUES][4]; /* C, H, W */
};

static int64_t below(struct sketch *s, int64_t n)
{
    return (int64_t)rng_below(&s->m.rng, (uint64_t)n);
}

static void keep(struct sketch *s, int value, int64_t c, int64_t h, int64_t w)
{
    if (s->n == MOST_VALUES)
        return;
    s->values[s->n] = value;
    s->shapes[s->n][0] = c;
    s->shapes[s->n][1] = h;
    s->shapes[s->n++][2] = w;
}

/* In quantized graphs most values go through 8 bits, of one of two quantizations. */
static int quantized(struct sketch *s, int value)
{
    if (!s->quantized || below(s, 5) == 0)
        return value;
    return below(s, 6) ? mesh_qdq(&s->m, value, DTYPE_U8, 0.04f, 100)
                       : mesh_qdq(&s->m, value, DTYPE_U8, 0.03f, 20);
}

static void add_conv(struct sketch *s, int from)
{
    static const int64_t channels[] = {3, 8, 16, 17, 32};
    const int64_t *in = s->shapes[from];
    struct mesh_conv c = {.ic = in[0],
                          .oc = channels[below(s, 5)],
                          .kernel = 1 + 2 * below(s, 2),
                          .stride = 1 + below(s, 2),
                          .no_bias = below(s, 3) == 0};
    if (below(s, 4) == 0)
        c.oc = c.group = c.ic;
    if (below(s, 2) == 0)
        c.oc = c.ic;
    if (below(s, 2) == 0)
        c.stride = 1;
    c.pad = c.kernel / 2;
    bool narrow = s->quantized && below(s, 4);
    int y =
        narrow ? mesh_narrow_conv(&s->m, s->values[from], c) : mesh_conv(&s->m, s->values[from], c);
    keep(s, y, c.oc, (in[1] - 1) / c.stride + 1, (in[2] - 1) / c.stride + 1);
}

static void add_unary(struct sketch *s, int from)
{
    static const enum op ops[] = {OP_RELU, OP_RELU, OP_RELU, OP_LEAKY_RELU, OP_TANH, OP_SIGMOID};
    const int64_t *in = s->shapes[from];
    int y = mesh_unary(&s->m, ops[below(s, 6)], s->values[from]);
    keep(s, quantized(s, y), in[0], in[1], in[2]);
}

/* With a value of the same shape, where there is one. */
static void add_binary(struct sketch *s, int from)
{
    static const enum op ops[] = {OP_ADD, OP_ADD, OP_ADD, OP_SUB, OP_MUL};
    const int64_t *in = s->shapes[from];
    for (int k = s->n - 1; k >= 0; k--) {
        if (k == from || memcmp(s->shapes[k], in, 3 * sizeof(*in)) != 0)
            continue;
        int a = s->values[from], b = s->values[k];
        int y = below(s, 2) ? mesh_binary(&s->m, ops[below(s, 5)], a, b)
                            : mesh_binary(&s->m, ops[below(s, 5)], b, a);
        keep(s, below(s, 2) ? quantized(s, y) : y, in[0], in[1], in[2]);
        return;
    }
}

static void add_pool(struct sketch *s, int from)
{
    const int64_t *in = s->shapes[from];
    if (in[1] < 3 || in[2] < 3)
        return;
    int y = mesh_pool(&s->m, below(s, 2) ? OP_MAX_POOL : OP_AVERAGE_POOL, s->values[from], 3, 2, 1);
    keep(s, y, in[0], (in[1] - 1) / 2 + 1, (in[2] - 1) / 2 + 1);
}

static void add_concat(struct sketch *s, int from)
{
    const int64_t *in = s->shapes[from];
    for (int k = s->n - 1; k >= 0; k--) {
        if (s->shapes[k][1] != in[1] || s->shapes[k][2] != in[2])
            continue;
        int y = mesh_node(&s->m, OP_CONCAT, VALUES(s->values[from], s->values[k]));
        mesh_attr_int(&s->m, y, "axis", 1);
        keep(s, y, in[0] + s->shapes[k][0], in[1], in[2]);
        return;
    }
}

static void add_slice(struct sketch *s, int from)
{
    const int64_t *in = s->shapes[from];
    int y = mesh_node(&s->m, OP_SLICE,
                      VALUES(s->values[from], mesh_ints(&s->m, DIMS(in[0] / 3, 0)),
                             mesh_ints(&s->m, DIMS(in[0], in[2])), mesh_ints(&s->m, DIMS(1, 3)),
                             mesh_ints(&s->m, DIMS(1, 2))));
    keep(s, y, in[0] - in[0] / 3, in[1], (in[2] - 1) / 2 + 1);
}

static void add_pad(struct sketch *s, int from)
{
    const int64_t *in = s->shapes[from];
    int64_t extra = 1 + below(s, 8);
    int y = mesh_node(&s->m, OP_PAD,
                      VALUES(s->values[from], mesh_ints(&s->m, DIMS(0, extra, 0, 1, 0, 0, 0, 0))));
    keep(s, y, in[0] + extra, in[1], in[2] + 1);
}

static void add_scale(struct sketch *s, int from)
{
    const int64_t *in = s->shapes[from];
    int y = mesh_binary(&s->m, below(s, 2) ? OP_MUL : OP_ADD, s->values[from],
                        mesh_normal(&s->m, 1, DIMS(1, in[0], 1, 1)));
    keep(s, y, in[0], in[1], in[2]);
}

static void draw(struct sketch *s, uint64_t seed, bool narrow)
{
    static void (*const add[])(struct sketch *, int) = {
        add_conv,   add_conv, add_conv,   add_conv,  add_unary, add_unary, add_unary,
        add_binary, add_pool, add_binary, add_slice, add_pad,   add_scale, add_concat};
    *s = (struct sketch){.quantized = narrow};
    mesh_init(&s->m, seed);
    int x = mesh_input(&s->m, DIMS(DIM_BATCH, 3 + 13 * below(s, 2), 9, 8));
    keep(s, quantized(s, x), s->m.g->values[x]->shape.dim[1], 9, 8);
    int64_t steps = 4 + below(s, 12);
    for (int64_t i = 0; i < steps; i++) {
        /* mostly from the newest value, so that chains form */
        int from = below(s, 3) ? s->n - 1 : (int)below(s, s->n);
        add[below(s, sizeof(add) / sizeof(add[0]))](s, from);
    }
    mesh_output(&s->m, s->values[s->n - 1]);
    int other = (int)below(s, s->n);
    if (below(s, 2) && other != s->n - 1)
        mesh_output(&s->m, s->values[other]);
    mesh_finish(&s->m);
}

static struct plan_options options_of(struct sketch *s)
{
    struct plan_options o = {.batch = 1 + below(s, 4)};
    o.choose_by_name = below(s, 3) > 0;
    o.no_fusion = below(s, 6) == 0;
    if (below(s, 5) == 0)
        o.implementation = "brg";
    return o;
}

static void random_graphs_compute_what_plain_c_computes(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 120; seed++) {
        struct sketch s;
        char what[64];
        draw(&s, seed, false);
        struct plan_options o = options_of(&s);
        snprintf(what, sizeof(what), "graph of seed %d", (int)seed);
        plan_free(mesh_check(&s.m, &o, 1e-4, what));
        mesh_release(&s.m);
    }
}

/* Rounding may differ by a quantum here and there (means of a few 8-bit numbers often lie just
 * between two), and what follows carries it on: no number may be far off, and the mean error is
 * below half a quantum. */
static void compare_loosely(const struct trial_run *t, uint64_t seed)
{
    for (int i = 0; i < t->n_out; i++) {
        int64_t n = shape_elements(&t->got[i]->shape);
        double total = 0;
        for (int64_t k = 0; k < n; k++) {
            double d = fabs(tensor_get_f64(t->got[i], k) - tensor_get_f64(t->want[i], k));
            double size = fmax(1, fabs(tensor_get_f64(t->want[i], k)));
            if (!(d / size < 0.5))
                fail_msg("graph of seed %d, output %d: %g off", (int)seed, i, d);
            total += d / size;
        }
        if (!(total <= 0.015 * (double)n))
            fail_msg("graph of seed %d, output %d: %g off in the mean", (int)seed, i,
                     total / (double)n);
    }
}

static void random_quantized_graphs_mean_what_the_file_says(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 120; seed++) {
        struct sketch s;
        struct err err = {0};
        struct plan *plan = NULL;
        draw(&s, seed, true);
        struct plan_options o = options_of(&s);
        if (plan_compile(s.m.g, &o, &plan, &err) < 0)
            fail_msg("graph of seed %d: %s", (int)seed, err.message);
        struct trial_run t = {0};
        trial_run(&t, s.m.g, plan, seed);
        compare_loosely(&t, seed);
        trial_release(&t);
        plan_free(plan);
        mesh_release(&s.m);
    }
}

/* Each layer by the plain-C twin of what was fused: exact where the whole graph need not be. */
static void the_reference_of_fused_layers_is_right_too(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct sketch s;
        char what[64];
        draw(&s, seed, seed % 2);
        const struct plan_options o = {.batch = 2, .implementation = "reference"};
        snprintf(what, sizeof(what), "reference of seed %d", (int)seed);
        plan_free(mesh_check(&s.m, &o, 1e-5, what));
        mesh_release(&s.m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(random_graphs_compute_what_plain_c_computes),
        cmocka_unit_test(random_quantized_graphs_mean_what_the_file_says),
        cmocka_unit_test(the_reference_of_fused_layers_is_right_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
