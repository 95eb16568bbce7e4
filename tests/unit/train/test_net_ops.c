/* Every operator's gradients against finite differences. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/train/train_nets.h"

static const struct train_net_options one_slice = {
    .batch = 4, .slice = 4, .precision = PRECISION_FP32};

static void check(struct mesh *m, const char *what)
{
    trial_gradients(m, one_slice, what);
    mesh_release(m);
}

static int start(struct mesh *m, int64_t c, int64_t h, int64_t w)
{
    mesh_init(m, 7);
    return mesh_input(m, DIMS(DIM_BATCH, c, h, w));
}

static void convolutions(void **state)
{
    (void)state;
    const struct mesh_conv cases[] = {
        {.ic = 6, .oc = 10, .kernel = 3, .pad = 1},
        {.ic = 6, .oc = 10, .kernel = 3, .pad = 1, .no_bias = true},
        {.ic = 6, .oc = 4, .kernel = 1},
        {.ic = 6, .oc = 8, .kernel = 3, .stride = 2, .pad = 1},
        {.ic = 6, .oc = 8, .kernel = 3, .dilation = 2, .pad = 2},
        {.ic = 6, .oc = 9, .kernel = 3, .group = 3, .pad = 1},
        {.ic = 6, .oc = 6, .kernel = 3, .group = 6, .pad = 1},
        {.ic = 6, .oc = 6, .kernel = 5, .group = 6, .pad = 2, .stride = 2},
        {.ic = 6, .oc = 20, .kernel = 2, .stride = 2},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct mesh m;
        int x = start(&m, 3, 9, 7);
        /* one before, so that the gradient of the data counts as well */
        int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3});
        y = mesh_conv(&m, y, cases[i]);
        mesh_head(&m, mesh_unary(&m, OP_TANH, y), cases[i].oc, 3);
        char what[32];
        snprintf(what, sizeof(what), "convolution %zu", i);
        check(&m, what);
    }
}

static void products(void **state)
{
    (void)state;
    for (int turned = 0; turned < 2; turned++) {
        struct mesh m;
        mesh_init(&m, 7);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 7));
        int y = mesh_node(&m, OP_GEMM,
                          VALUES(x, mesh_normal(&m, 0.5, DIMS(7, 9)), mesh_normal(&m, 1, DIMS(9))));
        mesh_attr_float(&m, y, "alpha", 0.5f);
        mesh_attr_float(&m, y, "beta", 2);
        y = mesh_unary(&m, OP_TANH, y);
        int w = turned ? mesh_normal(&m, 0.5, DIMS(4, 9)) : mesh_normal(&m, 0.5, DIMS(9, 4));
        if (turned) {
            y = mesh_node(&m, OP_GEMM, VALUES(y, w));
            mesh_attr_int(&m, y, "transB", 1);
        } else {
            y = mesh_node(&m, OP_MATMUL, VALUES(y, w));
        }
        mesh_output(&m, y);
        mesh_finish(&m);
        check(&m, "product");
    }
}

/* A parameter that two operators share gets both gradients. */
static void shared_weights(void **state)
{
    (void)state;
    struct mesh m;
    int x = start(&m, 4, 6, 6);
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 4, .oc = 4, .kernel = 3, .pad = 1});
    struct node *node = mesh_of(&m, y);
    int w = node->inputs[1], b = node->inputs[2];
    y = mesh_unary(&m, OP_TANH, y);
    int z = mesh_node(&m, OP_CONV, VALUES(y, w, b));
    mesh_attr_ints(&m, z, "pads", DIMS(1, 1, 1, 1));
    mesh_head(&m, z, 4, 3);
    check(&m, "shared weights");
}

static void normalisation(void **state)
{
    (void)state;
    const int64_t channels[] = {5, 16, 24, 64};
    for (int i = 0; i < 4; i++) {
        for (int relu = 0; relu < 2; relu++) {
            struct mesh m;
            int64_t c = channels[i];
            int x = start(&m, 3, 5, 7);
            int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = c, .kernel = 3});
            y = mesh_norm(&m, y, c);
            y = mesh_unary(&m, relu ? OP_RELU : OP_TANH, y);
            mesh_head(&m, y, c, 3);
            check(&m, relu ? "normalisation and relu" : "normalisation");
        }
    }
}

static void residual_networks(void **state)
{
    (void)state;
    const int64_t widths[] = {4, 6, 16};
    for (int i = 0; i < 3; i++) {
        struct mesh m;
        mesh_resnet(&m, widths[i], 8);
        check(&m, "resnet");
    }
}

/* Both branches are normalised, in either order of the Add. */
static void two_normalised_branches(void **state)
{
    (void)state;
    for (int turned = 0; turned < 2; turned++) {
        struct mesh m;
        int x = start(&m, 3, 6, 6);
        const struct mesh_conv conv = {.ic = 3, .oc = 8, .kernel = 3, .pad = 1};
        int a = mesh_norm(&m, mesh_conv(&m, x, conv), 8);
        int b = mesh_norm(&m, mesh_conv(&m, x, conv), 8);
        int y = mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, turned ? b : a, turned ? a : b));
        mesh_head(&m, y, 8, 3);
        check(&m, "two branches");
    }
}

static void activations(void **state)
{
    (void)state;
    const enum op ops[] = {OP_RELU,       OP_LEAKY_RELU, OP_SIGMOID, OP_HARD_SIGMOID,
                           OP_HARD_SWISH, OP_TANH,       OP_ELU};
    for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
        struct mesh m;
        int x = start(&m, 3, 6, 5);
        m.g->opset = 14; /* HardSwish */
        int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 7, .kernel = 3});
        y = mesh_unary(&m, ops[i], y);
        mesh_of(&m, y)->since = 14;
        y = mesh_conv(&m, y, (struct mesh_conv){.ic = 7, .oc = 4, .kernel = 3});
        mesh_head(&m, y, 4, 3);
        check(&m, op_name(ops[i]));
    }
}

static void clips(void **state)
{
    (void)state;
    struct mesh m;
    int x = start(&m, 3, 6, 5);
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 7, .kernel = 3});
    y = mesh_node(&m, OP_CLIP, VALUES(y, mesh_float(&m, -0.9f), mesh_float(&m, 1.2f)));
    y = mesh_conv(&m, y, (struct mesh_conv){.ic = 7, .oc = 4, .kernel = 1});
    y = mesh_norm(&m, y, 4);
    y = mesh_node(&m, OP_CLIP, VALUES(y, mesh_float(&m, 0), mesh_float(&m, 1.5f)));
    mesh_head(&m, y, 4, 3);
    check(&m, "Clip");
}

/* Sums and products of two branches, of a constant, of one number for each channel. */
static void two_operands(void **state)
{
    (void)state;
    const enum op ops[] = {OP_ADD, OP_SUB, OP_MUL};
    for (int i = 0; i < 3; i++) {
        struct mesh m;
        const struct mesh_conv conv = {.ic = 3, .oc = 6, .kernel = 3};
        int x = start(&m, 3, 6, 5);
        int a = mesh_conv(&m, x, conv), b = mesh_unary(&m, OP_TANH, mesh_conv(&m, x, conv));
        int y = mesh_binary(&m, ops[i], a, b);
        y = mesh_binary(&m, ops[i], y, mesh_normal(&m, 1, DIMS(1, 6, 1, 1)));
        y = mesh_binary(&m, ops[i], mesh_normal(&m, 1, DIMS(6, 4, 3)), y);
        int s = mesh_unary(&m, OP_GLOBAL_AVERAGE_POOL, y);
        s = mesh_unary(&m, OP_SIGMOID,
                       mesh_conv(&m, s, (struct mesh_conv){.ic = 6, .oc = 6, .kernel = 1}));
        y = i == 0 ? mesh_binary(&m, ops[i], s, y) : mesh_binary(&m, ops[i], y, s);
        y = mesh_binary(&m, ops[i], y, y);
        mesh_head(&m, y, 6, 3);
        check(&m, op_name(ops[i]));
    }
}

static void global_pools(void **state)
{
    (void)state;
    struct mesh m;
    int x = start(&m, 3, 6, 5);
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3});
    int most = mesh_unary(&m, OP_GLOBAL_MAX_POOL, y),
        mean = mesh_unary(&m, OP_GLOBAL_AVERAGE_POOL, y);
    mesh_head(&m, mesh_binary(&m, OP_MUL, most, mean), 6, 3);
    check(&m, "global pools");
}

static void pools(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct mesh m;
        int x = start(&m, 3, 9, 9);
        int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3, .pad = 1});
        y = mesh_pool(&m, i == 0 ? OP_MAX_POOL : OP_AVERAGE_POOL, y, 3, 2, 1);
        if (i == 2)
            mesh_attr_int(&m, y, "count_include_pad", 1);
        if (i == 3)
            mesh_attr_int(&m, y, "ceil_mode", 1);
        mesh_head(&m, mesh_unary(&m, OP_TANH, y), 6, 3);
        check(&m, i == 0 ? "MaxPool" : "AveragePool");
    }
}

static void transposed_convolutions(void **state)
{
    (void)state;
    const struct mesh_conv cases[] = {
        {.ic = 6, .oc = 5, .kernel = 3, .pad = 1, .transposed = true},
        {.ic = 6, .oc = 4, .kernel = 4, .stride = 2, .pad = 1, .transposed = true, .no_bias = true},
        {.ic = 6, .oc = 4, .kernel = 3, .stride = 2, .group = 2, .transposed = true},
    };
    for (int i = 0; i < 3; i++) {
        struct mesh m;
        int x = start(&m, 3, 6, 5);
        int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3});
        y = mesh_conv(&m, y, cases[i]);
        mesh_head(&m, mesh_unary(&m, OP_TANH, y), cases[i].oc, 3);
        check(&m, "ConvTranspose");
    }
}

static void slopes(void **state)
{
    (void)state;
    for (int each = 0; each < 2; each++) {
        struct mesh m;
        int x = start(&m, 3, 6, 5);
        int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3});
        int slope = each ? mesh_normal(&m, 0.5, DIMS(6, 1, 1)) : mesh_normal(&m, 0.5, DIMS(1));
        mesh_head(&m, mesh_node(&m, OP_PRELU, VALUES(y, slope)), 6, 3);
        check(&m, "PRelu");
    }
}

static void local_responses(void **state)
{
    (void)state;
    struct mesh m;
    int x = start(&m, 3, 6, 5);
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 8, .kernel = 3});
    y = mesh_unary(&m, OP_LRN, y);
    mesh_attr_int(&m, y, "size", 5);
    mesh_attr_float(&m, y, "alpha", 1);
    mesh_head(&m, y, 8, 3);
    check(&m, "LRN");
}

/* The nearest pixel, twice; ReduceMean; squeezed and unsqueezed. */
static void sizes(void **state)
{
    (void)state;
    struct mesh m;
    int x = start(&m, 3, 6, 5);
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3});
    const float scales[] = {1, 1, 2, 2};
    int none = mesh_constant(&m, DTYPE_F32, DIMS(0), NULL);
    y = mesh_node(&m, OP_RESIZE, VALUES(y, none, mesh_constant(&m, DTYPE_F32, DIMS(4), scales)));
    struct err err = {0};
    must(graph_set_attr_string(m.g, mesh_of(&m, y), "coordinate_transformation_mode", "asymmetric",
                               &err),
         &err);
    must(graph_set_attr_string(m.g, mesh_of(&m, y), "nearest_mode", "floor", &err), &err);
    y = mesh_conv(&m, mesh_unary(&m, OP_TANH, y),
                  (struct mesh_conv){.ic = 6, .oc = 4, .kernel = 3});
    y = mesh_unary(&m, OP_REDUCE_MEAN, y);
    mesh_attr_ints(&m, y, "axes", DIMS(2, 3));
    mesh_attr_int(&m, y, "keepdims", 1);
    y = mesh_node(&m, OP_SQUEEZE, VALUES(y, mesh_ints(&m, 2, (int64_t[]){2, 3})));
    y = mesh_node(&m, OP_UNSQUEEZE, VALUES(y, mesh_ints(&m, 1, (int64_t[]){2})));
    y = mesh_unary(&m, OP_IDENTITY, y);
    y = mesh_unary(&m, OP_FLATTEN, y);
    mesh_output(&m, y);
    mesh_finish(&m);
    check(&m, "sizes");
}

static void moves(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    int x = start(&m, 3, 6, 8);
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3, .pad = 1});
    /* two parts of the channels, one turned, one sliced backwards, put together again */
    int at = graph_add_node(m.g, -1, OP_SPLIT, NULL, 2,
                            (int[]){y, mesh_ints(&m, 2, (int64_t[]){2, 4})}, 2, NULL, &err);
    must(at, &err);
    struct node *split = m.g->nodes[at];
    mesh_attr_int(&m, split->outputs[0], "axis", 1);
    int a = mesh_unary(&m, OP_TRANSPOSE, split->outputs[0]);
    mesh_attr_ints(&m, a, "perm", DIMS(0, 1, 3, 2));
    int b =
        mesh_node(&m, OP_SLICE,
                  VALUES(split->outputs[1], mesh_ints(&m, 2, (int64_t[]){7, 0}),
                         mesh_ints(&m, 2, (int64_t[]){-9, 6}), mesh_ints(&m, 2, (int64_t[]){3, 2}),
                         mesh_ints(&m, 2, (int64_t[]){-1, 1})));
    b = mesh_node(
        &m, OP_PAD,
        VALUES(b, mesh_ints(&m, 8, (int64_t[]){0, 0, 2, 0, 0, 0, 0, -2}), mesh_float(&m, 0.5f)));
    y = mesh_node(&m, OP_CONCAT, VALUES(a, b, a));
    mesh_attr_int(&m, y, "axis", 1);
    y = mesh_conv(&m, mesh_unary(&m, OP_TANH, y),
                  (struct mesh_conv){.ic = 8, .oc = 4, .kernel = 3, .stride = 2});
    y = mesh_node(&m, OP_RESHAPE, VALUES(y, mesh_ints(&m, 3, (int64_t[]){0, 2, -1})));
    y = mesh_unary(&m, OP_FLATTEN, y);
    const int64_t width = 4 * 3 * 2;
    y = mesh_node(&m, OP_GEMM, VALUES(y, mesh_normal(&m, 0.3, DIMS(width, 3))));
    mesh_output(&m, y);
    mesh_finish(&m);
    check(&m, "moves");
}

/* A value of those made so far, all of them [N, 6, 5, 4]. */
static int any_of(struct mesh *m, const int *made, int n)
{
    int recent = n > 4 && rng_below(&m->rng, 2) ? n - 4 : 0;
    return made[recent + (int)rng_below(&m->rng, (uint64_t)(n - recent))];
}

static int random_step(struct mesh *m, const int *made, int n)
{
    const int64_t groups[] = {1, 2, 3, 6};
    int x = any_of(m, made, n), y = any_of(m, made, n);
    switch (rng_below(&m->rng, 8)) {
    case 0:
    case 1:
        return mesh_conv(m, x,
                         (struct mesh_conv){.ic = 6,
                                            .oc = 6,
                                            .kernel = 3,
                                            .pad = 1,
                                            .group = groups[rng_below(&m->rng, 4)],
                                            .no_bias = rng_below(&m->rng, 2) != 0});
    case 2:
        return mesh_norm(m, x, 6);
    case 3:
        return mesh_unary(m, OP_RELU, mesh_binary(m, OP_ADD, mesh_norm(m, x, 6), y));
    case 4:
        return mesh_unary(m, OP_RELU,
                          mesh_binary(m, OP_ADD, mesh_norm(m, x, 6), mesh_norm(m, y, 6)));
    case 5:
        return mesh_binary(m, rng_below(&m->rng, 2) ? OP_ADD : OP_SUB, x, y);
    case 6:
        return mesh_unary(m, OP_TANH, mesh_binary(m, OP_MUL, x, y));
    default: {
        int both = mesh_node(m, OP_CONCAT, VALUES(x, y));
        mesh_attr_int(m, both, "axis", 1);
        return mesh_conv(m, both, (struct mesh_conv){.ic = 12, .oc = 6, .kernel = 1});
    }
    }
}

static void random_networks(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 25; seed++) {
        struct mesh m;
        mesh_init(&m, seed);
        int made[9], n = 1;
        int x = mesh_input(&m, DIMS(DIM_BATCH, 3, 5, 4));
        made[0] = mesh_conv(&m, x, (struct mesh_conv){.ic = 3, .oc = 6, .kernel = 3, .pad = 1});
        for (; n < 8; n++)
            made[n] = random_step(&m, made, n);
        /* so that every one counts */
        int all = made[0];
        for (int i = 1; i < n; i++)
            all = mesh_binary(&m, OP_ADD, all, mesh_unary(&m, OP_TANH, made[i]));
        mesh_head(&m, all, 6, 3);
        char what[32];
        snprintf(what, sizeof(what), "random network %d", (int)seed);
        check(&m, what);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions),
        cmocka_unit_test(products),
        cmocka_unit_test(shared_weights),
        cmocka_unit_test(normalisation),
        cmocka_unit_test(residual_networks),
        cmocka_unit_test(two_normalised_branches),
        cmocka_unit_test(activations),
        cmocka_unit_test(clips),
        cmocka_unit_test(two_operands),
        cmocka_unit_test(global_pools),
        cmocka_unit_test(pools),
        cmocka_unit_test(transposed_convolutions),
        cmocka_unit_test(slopes),
        cmocka_unit_test(local_responses),
        cmocka_unit_test(sizes),
        cmocka_unit_test(moves),
        cmocka_unit_test(random_networks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
