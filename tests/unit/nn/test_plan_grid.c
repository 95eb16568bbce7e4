/*
 * Every kind of layer over a grid of shapes: kernels, strides, dilations and groups in all
 * combinations, with odd channels, sizes, paddings and batches drawn for each; on every
 * implementation, against plain C.
 *
 * 8-bit layers must give the integer reference bit for bit where the file's scales are powers of
 * two, for then each requantization is exact, ties included. (Layers round with the zero point
 * added, ONNX without it: to the even number either way where the zero point is even.) With any
 * scales and zero points they may differ only where the real number lies beside a tie.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/grid.h"

/* ---- convolutions ---- */

struct drawn_conv {
    struct mesh_conv conv;
    int64_t height, width, pads[4], batch;
    int threads, post; /* 0: none, 1: relu, 2: clip, 3: residual, 4: residual and relu */
    uint64_t seed;
};

enum { N_WINDOWS = 4 * 3 * 2 * 3 };

/* Window i: kernel, stride, dilation and kind of groups count through; the rest is drawn. */
static struct drawn_conv draw_conv(struct rng *rng, int i)
{
    struct drawn_conv d = {.seed = (uint64_t)i};
    d.conv = (struct mesh_conv){.kernel = (const int64_t[]){1, 3, 5, 7}[i % 4],
                                .ic = PICK(rng, 1, 3, 4, 5, 8, 16, 17, 33),
                                .oc = PICK(rng, 1, 3, 4, 7, 8, 16, 20, 35)};
    d.conv.stride = 1 + i / 4 % 3;
    d.conv.dilation = 1 + i / 12 % 2;
    d.conv.no_bias = rng_below(rng, 4) == 0;
    const int groups = i / 24 % 3;
    if (groups == 1) {
        d.conv.group = PICK(rng, 2, 3, 4);
        d.conv.ic = d.conv.group * PICK(rng, 1, 4, 5, 8);
        d.conv.oc = d.conv.group * PICK(rng, 1, 3, 4, 8, 16);
    } else if (groups == 2) { /* depthwise, now and then with two outputs for each input */
        d.conv.group = d.conv.ic = PICK(rng, 3, 4, 8, 16, 17, 24, 33);
        d.conv.oc = d.conv.ic * PICK(rng, 1, 1, 1, 2);
    }
    const int64_t reach = (d.conv.kernel - 1) * d.conv.dilation + 1;
    const bool same = rng_below(rng, 2);
    for (int k = 0; k < 4; k++)
        d.pads[k] = same ? reach / 2 : (int64_t)rng_below(rng, (uint64_t)(reach / 2 + 1));
    d.height = reach + PICK(rng, 0, 1, 2, 3, 4, 5, 6, 7);
    d.width = reach + PICK(rng, 0, 1, 3, 4, 5, 9, 12, 13);
    d.batch = grid_batches[rng_below(rng, GRID_BATCHES)];
    while (groups == 0 && d.conv.oc > 3 && /* plain C has to go through it several times */
           d.batch * d.height * d.width * d.conv.ic * d.conv.oc * d.conv.kernel * d.conv.kernel >
               1500000)
        d.conv.oc /= 2;
    d.threads = 1 + (int)rng_below(rng, 2);
    d.post = (int)rng_below(rng, 5);
    return d;
}

static void describe_conv(const struct drawn_conv *d, const char *kind, struct grid_case *c)
{
    snprintf(c->what, sizeof(c->what),
             "%s: %lld to %lld channels on %lld x %lld, kernel %lld, stride %lld, dilation %lld, "
             "groups %lld, post %d, batch %lld, threads %d",
             kind, (long long)d->conv.ic, (long long)d->conv.oc, (long long)d->height,
             (long long)d->width, (long long)d->conv.kernel, (long long)d->conv.stride,
             (long long)d->conv.dilation, (long long)d->conv.group, d->post, (long long)d->batch,
             d->threads);
    c->op = "Conv";
    c->batch = d->batch;
    c->threads = d->threads;
}

static int behind(struct mesh *m, int y, int post)
{
    if (post == 1 || post == 4)
        return mesh_unary(m, OP_RELU, y);
    if (post == 2)
        return mesh_node(m, OP_CLIP, VALUES(y, mesh_float(m, -0.5f), mesh_float(m, 1)));
    return y;
}

static void compare_conv(const struct drawn_conv *d, enum precision precision,
                         struct grid_seen *seen)
{
    struct grid_case c = {.names = grid_float_conv,
                          .precision = precision,
                          .tolerance = precision == PRECISION_BF16 ? 0.02 : 3e-5};
    describe_conv(d, precision_name(precision), &c);
    mesh_init(&c.m, d->seed);
    int x = mesh_input(&c.m, DIMS(DIM_BATCH, d->conv.ic, d->height, d->width));
    int y = mesh_conv(&c.m, x, d->conv);
    mesh_attr_ints(&c.m, y, "pads", 4, d->pads);
    if (d->post >= 3) /* of one channel's shape by value, as a residual is */
        y = mesh_binary(&c.m, OP_ADD, y, mesh_unary(&c.m, OP_TANH, y));
    mesh_output(&c.m, behind(&c.m, y, d->post));
    mesh_finish(&c.m);
    grid_compare(&c, seen);
}

static void convolutions_in_floats(void **state)
{
    (void)state;
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 1);
    for (int i = 0; i < 2 * N_WINDOWS; i++) {
        const struct drawn_conv d = draw_conv(&rng, i);
        compare_conv(&d, PRECISION_FP32, &seen);
    }
    grid_report(&seen);
    assert_true(seen.n >= 3);
}

static void convolutions_in_bf16(void **state)
{
    (void)state;
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 2);
    if (!nn_has_bf16()) {
        print_message("skip: this CPU does not compute in bf16\n");
        skip();
    }
    for (int i = 0; i < N_WINDOWS; i++) {
        const struct drawn_conv d = draw_conv(&rng, i);
        compare_conv(&d, PRECISION_BF16, &seen);
    }
    grid_report(&seen);
}

/* ---- 8 bits ---- */

/* Weights of 8 bits with a scale for each output channel: a power of two times `uneven`. */
static int whole_weights(struct mesh *m, int rank, const int64_t *dims, int axis, double uneven)
{
    const int64_t most = nn_has_int8() ? 127 : 63;
    int w = mesh_constant(m, DTYPE_S8, rank, dims, NULL);
    struct tensor *t = m->g->values[w]->constant;
    for (int64_t i = 0; i < shape_elements(&t->shape); i++)
        ((int8_t *)t->data)[i] =
            (int8_t)((int64_t)rng_below(&m->rng, (uint64_t)(2 * most + 1)) - most);
    int s = mesh_constant(m, DTYPE_F32, DIMS(dims[axis]), NULL);
    float *scale = m->g->values[s]->constant->data;
    for (int64_t o = 0; o < dims[axis]; o++)
        scale[o] = (float)(ldexp(uneven, -8 - (int)(o % 3)));
    int y = mesh_node(m, OP_DEQUANTIZE_LINEAR, VALUES(w, s));
    mesh_attr_int(m, y, "axis", axis);
    return y;
}

/* Multiples of the quantum of the sums. */
static int whole_bias(struct mesh *m, int64_t n, double in_scale, double uneven)
{
    int b = mesh_constant(m, DTYPE_F32, DIMS(n), NULL);
    float *bias = m->g->values[b]->constant->data;
    for (int64_t o = 0; o < n; o++)
        bias[o] = (float)(((double)rng_below(&m->rng, 4001) - 2000) * in_scale *
                          ldexp(uneven, -8 - (int)(o % 3)));
    return b;
}

struct quantization {
    double uneven; /* 1: all scales are powers of two */
    float in, out;
    int in_zero, out_zero;
};

static struct quantization draw_quantization(struct rng *rng, bool whole)
{
    struct quantization q = {.uneven = whole ? 1 : 0.87};
    q.in = (float)ldexp(whole ? 1 : 1.13, -5);
    q.out = (float)ldexp(whole ? 1 : 1.21, -4);
    q.in_zero = (int)PICK(rng, 0, 7, 128, 200);
    q.out_zero = whole ? (int)PICK(rng, 0, 10, 128) : (int)PICK(rng, 0, 9, 127);
    return q;
}

static int whole_conv(struct mesh *m, int x, const struct drawn_conv *d,
                      const struct quantization *q)
{
    const struct mesh_conv *k = &d->conv;
    const int64_t group = k->group ? k->group : 1;
    int w = whole_weights(m, DIMS(k->oc, k->ic / group, k->kernel, k->kernel), 0, q->uneven);
    int b = k->no_bias ? -1 : whole_bias(m, k->oc, q->in, q->uneven);
    int y = mesh_node(m, OP_CONV, k->no_bias ? 2 : 3, (int[]){x, w, b});
    mesh_attr_ints(m, y, "strides", DIMS(k->stride, k->stride));
    mesh_attr_ints(m, y, "dilations", DIMS(k->dilation, k->dilation));
    mesh_attr_ints(m, y, "pads", 4, d->pads);
    mesh_attr_int(m, y, "group", group);
    return y;
}

/* The same network up to its last quantization, or with it. A residual is an input. */
static void build_narrow_conv(struct mesh *m, const struct drawn_conv *d,
                              const struct quantization *q, bool to_the_end)
{
    mesh_init(m, d->seed);
    int x = mesh_input(m, DIMS(DIM_BATCH, d->conv.ic, d->height, d->width));
    int y = whole_conv(m, mesh_qdq(m, x, DTYPE_U8, q->in, q->in_zero), d, q);
    if (d->post >= 3) {
        int64_t out[2];
        for (int k = 0; k < 2; k++)
            out[k] = ((k ? d->width : d->height) + d->pads[k] + d->pads[2 + k] -
                      (d->conv.kernel - 1) * d->conv.dilation - 1) /
                         d->conv.stride +
                     1;
        int r = mesh_input(m, DIMS(DIM_BATCH, d->conv.oc, out[0], out[1]));
        y = mesh_binary(m, OP_ADD, y, mesh_qdq(m, r, DTYPE_U8, q->out, q->out_zero));
    }
    y = behind(m, y, d->post);
    mesh_output(m, to_the_end ? mesh_qdq(m, y, DTYPE_U8, q->out, q->out_zero) : y);
    mesh_finish(m);
}

static void compare_narrow_conv(struct rng *rng, int i, bool whole, struct grid_seen *seen)
{
    const struct drawn_conv d = draw_conv(rng, i);
    const struct quantization q = draw_quantization(rng, whole);
    struct mesh real = {0};
    struct grid_case c = {.names = grid_narrow_conv,
                          .quantum = (double)q.out,
                          .zero = q.out_zero,
                          .real = whole ? NULL : &real};
    describe_conv(&d, whole ? "int8, whole scales" : "int8", &c);
    build_narrow_conv(&c.m, &d, &q, true);
    if (!whole)
        build_narrow_conv(&real, &d, &q, false);
    grid_compare(&c, seen);
}

static void convolutions_in_8_bits_are_the_integers_bit_for_bit(void **state)
{
    (void)state;
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 3);
    for (int i = 0; i < 2 * N_WINDOWS; i++)
        compare_narrow_conv(&rng, i, true, &seen);
    grid_report(&seen);
    assert_true(seen.n >= 3);
}

static void convolutions_of_any_scales_round_to_the_nearest(void **state)
{
    (void)state;
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 4);
    for (int i = 0; i < N_WINDOWS; i++)
        compare_narrow_conv(&rng, i, false, &seen);
    grid_report(&seen);
}

/* ---- products ---- */

static void products(void **state)
{
    (void)state;
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 5);
    for (int i = 0; i < 4 * GRID_BATCHES; i++) {
        const bool narrow = i / GRID_BATCHES % 2, trans = rng_below(&rng, 2);
        const int64_t k = PICK(&rng, 1, 3, 16, 33, 64, 100), n = PICK(&rng, 1, 5, 10, 16, 17, 70);
        const struct quantization q = draw_quantization(&rng, true);
        struct grid_case c = {.op = "Gemm",
                              .names = grid_gemm,
                              .batch = grid_batches[i % GRID_BATCHES],
                              .threads = 1 + i % 2,
                              .precision = narrow ? PRECISION_AUTO : PRECISION_FP32,
                              .tolerance = 2e-5,
                              .quantum = narrow ? (double)q.out : 0};
        snprintf(c.what, sizeof(c.what), "%s product of %lld by %lld, batch %lld",
                 narrow ? "8-bit" : "float", (long long)k, (long long)n, (long long)c.batch);
        mesh_init(&c.m, (uint64_t)i);
        const int64_t dims[] = {trans ? n : k, trans ? k : n};
        int x = mesh_input(&c.m, DIMS(DIM_BATCH, k));
        if (narrow)
            x = mesh_qdq(&c.m, x, DTYPE_U8, q.in, q.in_zero);
        int w = narrow ? whole_weights(&c.m, 2, dims, trans ? 0 : 1, 1)
                       : mesh_normal(&c.m, 0.1, 2, dims);
        int b = narrow ? whole_bias(&c.m, n, q.in, 1) : mesh_normal(&c.m, 1, DIMS(n));
        int y = mesh_node(&c.m, OP_GEMM, VALUES(x, w, b));
        mesh_attr_int(&c.m, y, "transB", trans);
        y = behind(&c.m, y, (int)rng_below(&rng, 3));
        mesh_output(&c.m, narrow ? mesh_qdq(&c.m, y, DTYPE_U8, q.out, q.out_zero) : y);
        mesh_finish(&c.m);
        grid_compare(&c, &seen);
    }
    grid_report(&seen);
}

/* ---- pools ---- */

static void pools(void **state)
{
    (void)state;
    static const enum op ops[] = {OP_MAX_POOL, OP_AVERAGE_POOL, OP_GLOBAL_AVERAGE_POOL,
                                  OP_GLOBAL_MAX_POOL};
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 6);
    for (int i = 0; i < 12 * GRID_BATCHES; i++) {
        const enum op op = ops[i % 4];
        const bool narrow = i / 4 % 2;
        const enum dtype dtype = i / 8 % 2 ? DTYPE_S8 : DTYPE_U8;
        const int64_t kernel = PICK(&rng, 2, 3, 5), stride = PICK(&rng, 1, 2, 3);
        const int64_t pad = (int64_t)rng_below(&rng, (uint64_t)(kernel / 2 + 1));
        struct grid_case c = {.op = op_name(op),
                              .names = grid_any,
                              .batch = grid_batches[i % GRID_BATCHES],
                              .threads = 1 + i / 2 % 2,
                              .tolerance = 2e-6,
                              .quantum = narrow ? 0x1p-5 : 0,
                              .zero = (int)PICK(&rng, 0, 30, 128)};
        mesh_init(&c.m, (uint64_t)i);
        const int64_t dims[] = {DIM_BATCH, PICK(&rng, 1, 3, 4, 5, 16, 17, 35, 64),
                                kernel + (int64_t)rng_below(&rng, 9),
                                kernel + (int64_t)rng_below(&rng, 14)};
        int x = mesh_input(&c.m, 4, dims);
        if (narrow)
            x = mesh_qdq(&c.m, x, dtype, 0x1p-5f, c.zero);
        int y = i % 4 < 2 ? mesh_pool(&c.m, op, x, kernel, stride, pad) : mesh_unary(&c.m, op, x);
        const bool ceil_mode = i % 4 < 2 && rng_below(&rng, 3) == 0;
        if (ceil_mode)
            mesh_attr_int(&c.m, y, "ceil_mode", 1);
        if (i % 4 == 1 && rng_below(&rng, 2))
            mesh_attr_int(&c.m, y, "count_include_pad", 1);
        snprintf(c.what, sizeof(c.what),
                 "%s%s of %lld x %lld x %lld by %lld, stride %lld, pad %lld",
                 narrow ? "8-bit " : "", op_name(op), (long long)dims[1], (long long)dims[2],
                 (long long)dims[3], (long long)kernel, (long long)stride, (long long)pad);
        mesh_output(&c.m, narrow ? mesh_qdq(&c.m, y, dtype, 0x1p-5f, c.zero) : y);
        mesh_finish(&c.m);
        grid_compare(&c, &seen);
    }
    grid_report(&seen);
}

/* ---- two operands, concatenations ---- */

static void sums_and_concatenations(void **state)
{
    (void)state;
    static const enum op ops[] = {OP_ADD, OP_SUB, OP_MUL, OP_CONCAT, OP_RELU, OP_TANH};
    struct grid_seen seen = {0};
    struct rng rng;
    rng_seed(&rng, 7);
    for (int i = 0; i < 12 * GRID_BATCHES; i++) {
        const enum op op = ops[i % 6];
        const bool narrow = i / 6 % 2;
        struct grid_case c = {.op = op_name(op),
                              .names = grid_any,
                              .batch = grid_batches[i % GRID_BATCHES],
                              .threads = 1 + i / 3 % 2,
                              .tolerance = 2e-6,
                              .quantum = narrow ? 0x1p-5 : 0,
                              .zero = (int)PICK(&rng, 0, 31, 128)};
        struct mesh real = {0};
        const int64_t channels = PICK(&rng, 1, 3, 4, 5, 8, 16, 17, 33),
                      more = op == OP_CONCAT ? PICK(&rng, 1, 4, 8, 16, 19) : channels,
                      height = PICK(&rng, 1, 2, 5, 8, 9), width = PICK(&rng, 1, 3, 7, 8, 16, 17);
        for (int pass = 0; pass < 2; pass++) {
            struct mesh *m = pass ? &real : &c.m;
            mesh_init(m, (uint64_t)i);
            int x = mesh_input(m, DIMS(DIM_BATCH, channels, height, width));
            int z = mesh_input(m, DIMS(DIM_BATCH, more, height, width));
            if (narrow) {
                x = mesh_qdq(m, x, DTYPE_U8, 0x1p-5f, c.zero);
                z = mesh_qdq(m, z, DTYPE_U8, op == OP_CONCAT ? 0x1p-5f : 0x1p-6f, c.zero);
            }
            int y =
                op == OP_RELU || op == OP_TANH ? mesh_unary(m, op, x) : mesh_binary(m, op, x, z);
            if (op == OP_CONCAT)
                mesh_attr_int(m, y, "axis", 1);
            mesh_output(m, narrow && !pass ? mesh_qdq(m, y, DTYPE_U8, 0x1p-5f, c.zero) : y);
            mesh_finish(m);
        }
        if (narrow && op == OP_TANH)
            c.real = &real; /* no tie is exact */
        else
            mesh_release(&real);
        snprintf(c.what, sizeof(c.what), "%s%s of %lld and %lld x %lld x %lld, batch %lld",
                 narrow ? "8-bit " : "", op_name(op), (long long)channels, (long long)more,
                 (long long)height, (long long)width, (long long)c.batch);
        grid_compare(&c, &seen);
    }
    grid_report(&seen);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_in_floats),
        cmocka_unit_test(convolutions_in_bf16),
        cmocka_unit_test(convolutions_in_8_bits_are_the_integers_bit_for_bit),
        cmocka_unit_test(convolutions_of_any_scales_round_to_the_nearest),
        cmocka_unit_test(products),
        cmocka_unit_test(pools),
        cmocka_unit_test(sums_and_concatenations),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
