/* Each operator by itself, on oneDNN or in loops of our own, against plain C. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/plan_nets.h"

static const double close_enough = 2e-5;

/* Compiles and compares the network that ends in `output`, and releases it. `fast`: not by the
 * reference. */
static void check(struct mesh *m, int output, bool fast, const char *what)
{
    mesh_output(m, output);
    mesh_finish(m);
    const struct plan_options options = {.batch = 2, .choose_by_name = true};
    struct plan *plan = mesh_check(m, &options, close_enough, what);
    for (int i = 0; fast && i < plan_n_steps(plan); i++)
        if (strcmp(plan_step(plan, i)->implementation, "reference") == 0)
            fail_msg("%s: '%s' runs on the reference", what, plan_step(plan, i)->layer);
    plan_free(plan);
    mesh_release(m);
}

static void convolutions_of_many_shapes_equal_the_reference(void **state)
{
    (void)state;
    static const struct mesh_conv shapes[] = {
        {.ic = 3, .oc = 16, .kernel = 3, .pad = 1},
        {.ic = 1, .oc = 8, .kernel = 5, .pad = 2, .stride = 2},
        {.ic = 2, .oc = 5, .kernel = 3},
        {.ic = 16, .oc = 16, .kernel = 3, .pad = 1, .stride = 2},
        {.ic = 16, .oc = 33, .kernel = 1},
        {.ic = 19, .oc = 32, .kernel = 3, .pad = 1, .no_bias = true},
        {.ic = 24, .oc = 24, .kernel = 3, .pad = 1, .group = 24},
        {.ic = 32, .oc = 32, .kernel = 3, .pad = 1, .group = 32, .stride = 2},
        {.ic = 32, .oc = 64, .kernel = 3, .pad = 1, .group = 32},
        {.ic = 24, .oc = 12, .kernel = 3, .pad = 1, .group = 3},
        {.ic = 64, .oc = 32, .kernel = 1, .group = 4},
        {.ic = 8, .oc = 8, .kernel = 3, .pad = 2, .dilation = 2},
        {.ic = 16, .oc = 4, .kernel = 7, .pad = 3, .stride = 3},
        {.ic = 4, .oc = 6, .kernel = 3, .pad = 1, .rank = 1},
        {.ic = 16, .oc = 16, .kernel = 3, .pad = 1, .rank = 1, .stride = 2},
        {.ic = 3, .oc = 8, .kernel = 3, .pad = 1, .rank = 3},
        {.ic = 4, .oc = 6, .kernel = 3, .pad = 4},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct mesh m;
        char what[64];
        mesh_init(&m, i);
        int rank = shapes[i].rank ? shapes[i].rank : 2;
        int x = mesh_input(&m, 2 + rank, (int64_t[]){DIM_BATCH, shapes[i].ic, 11, 9, 7});
        snprintf(what, sizeof(what), "convolution %zu", i);
        check(&m, mesh_conv(&m, x, shapes[i]), shapes[i].pad < 4, what);
    }
}

static void transposed_convolutions_equal_the_reference(void **state)
{
    (void)state;
    static const struct mesh_conv shapes[] = {
        {.ic = 8, .oc = 16, .kernel = 3, .pad = 1, .stride = 2, .transposed = true},
        {.ic = 16, .oc = 4, .kernel = 2, .stride = 2, .transposed = true, .no_bias = true},
        {.ic = 8, .oc = 8, .kernel = 3, .group = 2, .transposed = true},
        {.ic = 6, .oc = 6, .kernel = 3, .group = 6, .stride = 2, .transposed = true},
        {.ic = 4, .oc = 6, .kernel = 3, .dilation = 2, .transposed = true},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct mesh m;
        char what[64];
        mesh_init(&m, i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, shapes[i].ic, 7, 5));
        snprintf(what, sizeof(what), "transposed convolution %zu", i);
        int y = mesh_conv(&m, x, shapes[i]);
        if (i == 0)
            mesh_attr_ints(&m, y, "output_padding", DIMS(1, 1));
        check(&m, y, true, what);
    }
}

static void an_output_padding_of_a_transposed_convolution_counts(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 3);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 4, 6, 6));
    int y =
        mesh_conv(&m, x,
                  (struct mesh_conv){
                      .ic = 4, .oc = 8, .kernel = 3, .pad = 1, .stride = 2, .transposed = true});
    mesh_attr_ints(&m, y, "output_padding", DIMS(1, 0));
    check(&m, y, true, "output padding");
}

static const enum op activations[] = {OP_RELU,         OP_LEAKY_RELU, OP_ELU,  OP_SIGMOID,  OP_TANH,
                                      OP_HARD_SIGMOID, OP_HARD_SWISH, OP_CLIP, OP_SOFTPLUS, OP_ABS};

static int activation(struct mesh *m, enum op op, int x)
{
    if (op == OP_CLIP)
        return mesh_node(m, op, VALUES(x, mesh_float(m, -0.5f), mesh_float(m, 0.75f)));
    return mesh_unary(m, op, x);
}

static void activations_equal_the_reference(void **state)
{
    (void)state;
    static const struct {
        int rank;
        int64_t dims[6];
    } shapes[] = {{1, {5}},
                  {2, {DIM_BATCH, 10}},
                  {4, {DIM_BATCH, 3, 5, 7}},
                  {4, {DIM_BATCH, 16, 4, 4}},
                  {6, {DIM_BATCH, 2, 3, 2, 2, 2}}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (size_t i = 0; i < sizeof(activations) / sizeof(activations[0]); i++) {
            struct mesh m;
            mesh_init(&m, i);
            m.g->opset = 14;
            int x = mesh_input(&m, shapes[s].rank, shapes[s].dims);
            check(&m, activation(&m, activations[i], x), true, op_name(activations[i]));
        }
    }
}

/* Inputs up to a few thousand: exp overflows, Softplus must not; fused and by itself. */
static void softplus_of_far_values_stays_finite(void **state)
{
    (void)state;
    for (int alone = 0; alone < 2; alone++) {
        struct mesh m;
        mesh_init(&m, 5);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 4, 4));
        int y = mesh_binary(&m, OP_MUL, x, mesh_float(&m, 1000));
        mesh_output(&m, mesh_unary(&m, OP_SOFTPLUS, y));
        mesh_finish(&m);
        const struct plan_options options = {
            .batch = 2, .choose_by_name = true, .no_fusion = alone};
        struct plan *plan = mesh_check(&m, &options, close_enough, "far values");
        const struct plan_step *step = find_step(plan, alone ? "Softplus" : "Mul");
        assert_non_null(step);
        assert_string_equal(step->fused, alone ? "" : "softplus");
        assert_string_not_equal(step->implementation, "reference");
        plan_free(plan);
        mesh_release(&m);
    }
}

/* About exp(-10): where log(1 + exp(x)) in floats has lost all but two digits. */
static void softplus_by_itself_is_exact_far_below_zero(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 6);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 4, 4));
    int y = mesh_binary(&m, OP_SUB, x, mesh_float(&m, 10));
    mesh_output(&m, mesh_unary(&m, OP_SOFTPLUS, y));
    mesh_finish(&m);
    const struct plan_options options = {.batch = 2, .choose_by_name = true, .no_fusion = true};
    /* All are far below 1, so the difference is absolute. */
    struct plan *plan = mesh_check(&m, &options, 1e-8, "far below zero");
    assert_string_not_equal(find_step(plan, "Softplus")->implementation, "reference");
    plan_free(plan);
    mesh_release(&m);
}

static void arithmetic_broadcasts_as_numpy_does(void **state)
{
    (void)state;
    static const enum op ops[] = {OP_ADD, OP_SUB, OP_MUL, OP_DIV};
    static const struct {
        int rank;
        int64_t dims[4];
    } others[] = {{4, {DIM_BATCH, 17, 5, 3}},
                  {4, {1, 17, 1, 1}},
                  {3, {17, 1, 1}},
                  {1, {3}},
                  {0, {0}},
                  {4, {DIM_BATCH, 17, 1, 1}},
                  {2, {5, 1}},
                  {4, {DIM_BATCH, 1, 5, 3}}};
    for (int swap = 0; swap < 2; swap++) {
        for (size_t o = 0; o < sizeof(others) / sizeof(others[0]); o++) {
            for (size_t i = 0; i < sizeof(ops) / sizeof(ops[0]); i++) {
                struct mesh m;
                char what[64];
                mesh_init(&m, i);
                int x = mesh_input(&m, DIMS(DIM_BATCH, 17, 5, 3));
                bool varies = others[o].rank > 0 && others[o].dims[0] == DIM_BATCH;
                int y = o % 2 && !varies ? mesh_normal(&m, 1, others[o].rank, others[o].dims)
                                         : mesh_input(&m, others[o].rank, others[o].dims);
                if (ops[i] == OP_DIV) { /* away from zero */
                    int *divisor = swap ? &x : &y;
                    *divisor = mesh_binary(&m, OP_ADD, mesh_unary(&m, OP_SIGMOID, *divisor),
                                           mesh_float(&m, 1));
                }
                snprintf(what, sizeof(what), "%s, operand %zu", op_name(ops[i]), o);
                check(&m, swap ? mesh_binary(&m, ops[i], y, x) : mesh_binary(&m, ops[i], x, y),
                      false, what);
            }
        }
    }
}

static void pools_equal_the_reference(void **state)
{
    (void)state;
    static const struct {
        int64_t kernel, stride, pad, channels;
        bool ceil, include;
    } shapes[] = {{2, 2, 0, 16, false, false}, {3, 2, 1, 3, false, false},
                  {3, 2, 0, 17, true, false},  {3, 1, 1, 32, false, true},
                  {2, 2, 0, 8, true, true},    {5, 3, 2, 1, false, false},
                  {3, 2, 1, 5, true, true}};
    static const enum op ops[] = {OP_MAX_POOL, OP_AVERAGE_POOL};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        for (int i = 0; i < 2; i++) {
            struct mesh m;
            char what[64];
            mesh_init(&m, s);
            int x = mesh_input(&m, DIMS(DIM_BATCH, shapes[s].channels, 11, 8));
            int y = mesh_pool(&m, ops[i], x, shapes[s].kernel, shapes[s].stride, shapes[s].pad);
            if (shapes[s].ceil)
                mesh_attr_int(&m, y, "ceil_mode", 1);
            if (shapes[s].include && ops[i] == OP_AVERAGE_POOL)
                mesh_attr_int(&m, y, "count_include_pad", 1);
            snprintf(what, sizeof(what), "%s %zu", op_name(ops[i]), s);
            check(&m, y, false, what);
        }
    }
}

static void pools_over_everything_equal_the_reference(void **state)
{
    (void)state;
    static const enum op ops[] = {OP_GLOBAL_AVERAGE_POOL, OP_GLOBAL_MAX_POOL};
    for (int64_t channels = 1; channels < 70; channels += 17) {
        for (int i = 0; i < 2; i++) {
            struct mesh m;
            mesh_init(&m, 1);
            int x = mesh_input(&m, DIMS(DIM_BATCH, channels, 8, 7));
            check(&m, mesh_unary(&m, ops[i], x), true, op_name(ops[i]));
        }
    }
}

static void products_equal_the_reference(void **state)
{
    (void)state;
    for (int i = 0; i < 16; i++) {
        bool trans = i & 1, bias = i & 2, scaled = i & 4, vector = i & 8;
        struct mesh m;
        char what[64];
        mesh_init(&m, (uint64_t)i);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 37));
        int w = trans ? mesh_normal(&m, 0.2, DIMS(10, 37)) : mesh_normal(&m, 0.2, DIMS(37, 10));
        int b = vector ? mesh_normal(&m, 1, DIMS(10)) : mesh_normal(&m, 1, DIMS(1, 1));
        int y = mesh_node(&m, OP_GEMM, bias ? 3 : 2, (int[]){x, w, b});
        mesh_attr_int(&m, y, "transB", trans);
        if (scaled) {
            mesh_attr_float(&m, y, "alpha", 0.5f);
            mesh_attr_float(&m, y, "beta", 3);
        }
        snprintf(what, sizeof(what), "product %d", i);
        check(&m, y, true, what);
    }
}

static void matrices_of_matrices_are_multiplied(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 3, 5, 8));
    int w = mesh_normal(&m, 0.3, DIMS(8, 6));
    int y = mesh_binary(&m, OP_MATMUL, x, w);
    check(&m, mesh_binary(&m, OP_ADD, y, mesh_normal(&m, 1, DIMS(6))), false, "MatMul");
}

static void two_inputs_are_multiplied(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 5, 8)), w = mesh_input(&m, DIMS(DIM_BATCH, 8, 3));
    check(&m, mesh_binary(&m, OP_MATMUL, x, w), false, "MatMul of inputs");
}

static void slices_equal_the_reference(void **state)
{
    (void)state;
    static const struct {
        int64_t start[4], end[4], step[4];
    } shapes[] = {{{0, 0, 0, 0}, {9, 99, 99, 99}, {1, 1, 2, 2}},
                  {{0, 3, 1, 0}, {9, 14, 5, 99}, {1, 1, 1, 1}},
                  {{0, 16, 0, 0}, {9, 33, 99, 99}, {1, 1, 3, 1}},
                  {{0, 5, 0, 0}, {9, 30, 99, 99}, {1, 4, 1, 1}},
                  {{0, -1, -1, 0}, {9, -99, -99, 99}, {1, -1, -2, 1}},
                  {{-1, -8, 0, 2}, {9, -2, -1, -1}, {1, 1, 1, 1}}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        struct mesh m;
        char what[64];
        mesh_init(&m, s);
        int x = mesh_input(&m, DIMS(2, 33, 8, 6));
        int y =
            mesh_node(&m, OP_SLICE,
                      VALUES(x, mesh_ints(&m, 4, shapes[s].start), mesh_ints(&m, 4, shapes[s].end),
                             mesh_ints(&m, DIMS(0, 1, 2, 3)), mesh_ints(&m, 4, shapes[s].step)));
        snprintf(what, sizeof(what), "slice %zu", s);
        check(&m, y, true, what);
    }
}

static void pads_equal_the_reference(void **state)
{
    (void)state;
    static const int64_t pads[][8] = {{0, 0, 1, 2, 0, 0, 3, 4},
                                      {0, 8, 0, 0, 0, 8, 0, 0},
                                      {0, 3, 0, 1, 0, 5, 1, 0},
                                      {1, 0, -1, 0, 0, 0, 2, -2}};
    static const char *const modes[] = {"constant", "reflect", "edge"};
    for (size_t s = 0; s < sizeof(pads) / sizeof(pads[0]); s++) {
        for (int mode = 0; mode < (s == 0 ? 3 : 1); mode++) {
            for (int value = 0; value < 2; value++) {
                struct mesh m;
                char what[64];
                struct err err = {0};
                mesh_init(&m, s);
                int x = mesh_input(&m, DIMS(DIM_BATCH, 17, 8, 6));
                int y = mesh_node(
                    &m, OP_PAD,
                    VALUES(x, mesh_ints(&m, 8, pads[s]), mesh_float(&m, value ? -1.5f : 0)));
                must(graph_set_attr_string(m.g, mesh_of(&m, y), "mode", modes[mode], &err), &err);
                snprintf(what, sizeof(what), "pad %zu %s", s, modes[mode]);
                /* a padded batch is of fixed size */
                if (pads[s][0] != 0)
                    m.g->values[x]->shape.dim[0] = 2;
                check(&m, y, mode == 0, what);
            }
        }
    }
}

static void concats_along_each_axis_equal_the_reference(void **state)
{
    (void)state;
    for (int axis = 1; axis < 4; axis++) {
        for (int64_t channels = 8; channels <= 24; channels += 8) {
            struct mesh m;
            char what[64];
            mesh_init(&m, (uint64_t)axis);
            int64_t dims[3][4];
            int in[4];
            for (int i = 0; i < 3; i++) {
                dims[i][0] = DIM_BATCH;
                dims[i][1] = channels;
                dims[i][2] = 5;
                dims[i][3] = 4;
                dims[i][axis] += i;
                in[i] = mesh_input(&m, 4, dims[i]);
            }
            dims[0][0] = 1;
            in[3] = in[1]; /* one of them twice */
            int y = mesh_node(&m, OP_CONCAT, 4, in);
            mesh_attr_int(&m, y, "axis", axis);
            snprintf(what, sizeof(what), "concat along %d", axis);
            check(&m, y, true, what);
        }
    }
}

static void a_split_gives_its_parts(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 20, 4, 4));
    int in[2] = {x, mesh_ints(&m, DIMS(3, 16, 1))};
    int at = graph_add_node(m.g, -1, OP_SPLIT, NULL, 2, in, 3, NULL, &err);
    must(at, &err);
    mesh_attr_int(&m, m.g->nodes[at]->outputs[0], "axis", 1);
    mesh_output(&m, m.g->nodes[at]->outputs[0]);
    mesh_output(&m, m.g->nodes[at]->outputs[2]);
    check(&m, m.g->nodes[at]->outputs[1], true, "split");
}

static void transpositions_equal_the_reference(void **state)
{
    (void)state;
    static const int64_t perms[][4] = {{0, 2, 3, 1}, {0, 3, 1, 2}, {0, 1, 3, 2}, {3, 2, 1, 0}};
    for (size_t s = 0; s < sizeof(perms) / sizeof(perms[0]); s++) {
        struct mesh m;
        char what[64];
        mesh_init(&m, s);
        int x = mesh_input(&m, DIMS(2, 5, 8, 6));
        int y = mesh_unary(&m, OP_TRANSPOSE, x);
        mesh_attr_ints(&m, y, "perm", 4, perms[s]);
        snprintf(what, sizeof(what), "transposition %zu", s);
        check(&m, y, true, what);
    }
}

static void expansion_repeats(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(5, 1, 6));
    int shape = mesh_ints(&m, DIMS(2, 1, 7, 6));
    check(&m, mesh_binary(&m, OP_EXPAND, x, shape), true, "Expand");
}

static void new_shapes_cost_nothing(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 6, 4, 2));
    int y = mesh_unary(&m, OP_RELU, x);
    y = mesh_binary(&m, OP_RESHAPE, y, mesh_ints(&m, DIMS(0, 8, -1)));
    y = mesh_unary(&m, OP_FLATTEN, y);
    y = mesh_unary(&m, OP_RELU, y);
    mesh_output(&m, y);
    mesh_finish(&m);
    const struct plan_options options = {.batch = 2};
    struct plan *plan = mesh_check(&m, &options, close_enough, "reshape");
    assert_int_equal(plan_n_steps(plan), 2);
    plan_free(plan);
    mesh_release(&m);
}

static void softmax_along_each_axis_equals_the_reference(void **state)
{
    (void)state;
    for (int opset = 11; opset <= 13; opset += 2) {
        for (int axis = -1; axis < 4; axis++) {
            struct mesh m;
            char what[64];
            mesh_init(&m, 1);
            m.g->opset = opset;
            int x = mesh_input(&m, DIMS(DIM_BATCH, 5, 3, 7));
            int y = mesh_unary(&m, OP_SOFTMAX, x);
            mesh_attr_int(&m, y, "axis", axis);
            snprintf(what, sizeof(what), "softmax along %d, opset %d", axis, opset);
            check(&m, y, true, what);
        }
    }
}

static void local_response_normalisation_equals_the_reference(void **state)
{
    (void)state;
    for (int64_t size = 1; size <= 5; size += 2) {
        struct mesh m;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 20, 5, 5));
        int y = mesh_unary(&m, OP_LRN, x);
        mesh_attr_int(&m, y, "size", size);
        mesh_attr_float(&m, y, "alpha", 0.01f);
        mesh_attr_float(&m, y, "bias", 2);
        check(&m, y, true, "LRN");
    }
}

static void batch_normalisation_equals_the_reference(void **state)
{
    (void)state;
    static const struct {
        int rank;
        int64_t dims[5];
    } shapes[] = {{4, {DIM_BATCH, 19, 5, 4}}, {2, {DIM_BATCH, 19}}, {3, {DIM_BATCH, 19, 6}}};
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        struct mesh m;
        mesh_init(&m, s);
        int x = mesh_input(&m, shapes[s].rank, shapes[s].dims);
        int variance = mesh_normal(&m, 1, DIMS(19));
        struct tensor *t = m.g->values[variance]->constant;
        for (int i = 0; i < 19; i++)
            ((float *)t->data)[i] = 0.1f + fabsf(((float *)t->data)[i]);
        int y = mesh_node(&m, OP_BATCH_NORMALIZATION,
                          VALUES(x, mesh_normal(&m, 1, DIMS(19)), mesh_normal(&m, 1, DIMS(19)),
                                 mesh_normal(&m, 1, DIMS(19)), variance));
        check(&m, mesh_unary(&m, OP_RELU, y), true, "BatchNormalization");
    }
}

static void slopes_below_zero_equal_the_reference(void **state)
{
    (void)state;
    static const struct {
        int rank;
        int64_t dims[4];
    } slopes[] = {{3, {17, 1, 1}}, {1, {1}}, {3, {17, 5, 3}}, {0, {0}}, {1, {3}}};
    for (int fused = 0; fused < 2; fused++) {
        for (size_t i = 0; i < sizeof(slopes) / sizeof(slopes[0]); i++) {
            struct mesh m;
            char what[64];
            mesh_init(&m, i);
            int x = mesh_input(&m, DIMS(DIM_BATCH, 17, 5, 3));
            if (fused)
                x = mesh_conv(&m, x, (struct mesh_conv){.ic = 17, .oc = 17, .kernel = 1});
            int slope = mesh_normal(&m, 1, slopes[i].rank, slopes[i].dims);
            snprintf(what, sizeof(what), "PRelu %zu", i);
            check(&m, mesh_binary(&m, OP_PRELU, x, slope), i < 2, what);
        }
    }
}

static void resizing_equals_the_reference(void **state)
{
    (void)state;
    static const struct {
        const char *mode, *coordinates, *rounding;
        float scale[2];
        bool fast;
    } cases[] = {{"nearest", "asymmetric", "floor", {2, 2}, true},
                 {"nearest", "asymmetric", "floor", {3, 1}, true},
                 {"nearest", "half_pixel", "round_prefer_floor", {2, 4}, true},
                 {"nearest", "half_pixel", "round_prefer_ceil", {3, 5}, true},
                 {"nearest", "asymmetric", "round_prefer_floor", {4, 2}, false},
                 {"nearest", "half_pixel", "round_prefer_floor", {1.5f, 0.5f}, false},
                 {"linear", "half_pixel", "floor", {2, 2}, true},
                 {"linear", "half_pixel", "floor", {1.5f, 2.5f}, true},
                 {"linear", "half_pixel", "floor", {0.5f, 0.5f}, true},
                 {"linear", "align_corners", "floor", {2, 2}, false},
                 {"linear", "asymmetric", "floor", {2, 2}, false},
                 {"cubic", "half_pixel", "floor", {2, 2}, false}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        for (int64_t channels = 3; channels < 40; channels += 13) {
            struct mesh m;
            struct err err = {0};
            char what[64];
            mesh_init(&m, i);
            int x = mesh_input(&m, DIMS(DIM_BATCH, channels, 6, 8));
            const float scales[] = {1, 1, cases[i].scale[0], cases[i].scale[1]};
            int in[3] = {x, -1, mesh_constant(&m, DTYPE_F32, DIMS(4), scales)};
            int y = mesh_node(&m, OP_RESIZE, 3, in);
            struct node *node = mesh_of(&m, y);
            must(graph_set_attr_string(m.g, node, "mode", cases[i].mode, &err), &err);
            must(graph_set_attr_string(m.g, node, "nearest_mode", cases[i].rounding, &err), &err);
            must(graph_set_attr_string(m.g, node, "coordinate_transformation_mode",
                                       cases[i].coordinates, &err),
                 &err);
            snprintf(what, sizeof(what), "resize %zu", i);
            check(&m, y, cases[i].fast, what);
        }
    }
}

static void what_onednn_lacks_runs_on_the_reference(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 5, 4));
    int y = mesh_unary(&m, OP_REDUCE_MEAN, x);
    mesh_attr_ints(&m, y, "axes", DIMS(1));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct plan *plan = mesh_check(&m, NULL, close_enough, "ReduceMean");
    assert_string_equal(plan_step(plan, 0)->implementation, "reference");
    plan_free(plan);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolutions_of_many_shapes_equal_the_reference),
        cmocka_unit_test(transposed_convolutions_equal_the_reference),
        cmocka_unit_test(an_output_padding_of_a_transposed_convolution_counts),
        cmocka_unit_test(activations_equal_the_reference),
        cmocka_unit_test(softplus_of_far_values_stays_finite),
        cmocka_unit_test(softplus_by_itself_is_exact_far_below_zero),
        cmocka_unit_test(arithmetic_broadcasts_as_numpy_does),
        cmocka_unit_test(pools_equal_the_reference),
        cmocka_unit_test(pools_over_everything_equal_the_reference),
        cmocka_unit_test(products_equal_the_reference),
        cmocka_unit_test(matrices_of_matrices_are_multiplied),
        cmocka_unit_test(two_inputs_are_multiplied),
        cmocka_unit_test(slices_equal_the_reference),
        cmocka_unit_test(pads_equal_the_reference),
        cmocka_unit_test(concats_along_each_axis_equal_the_reference),
        cmocka_unit_test(a_split_gives_its_parts),
        cmocka_unit_test(transpositions_equal_the_reference),
        cmocka_unit_test(expansion_repeats),
        cmocka_unit_test(new_shapes_cost_nothing),
        cmocka_unit_test(softmax_along_each_axis_equals_the_reference),
        cmocka_unit_test(local_response_normalisation_equals_the_reference),
        cmocka_unit_test(batch_normalisation_equals_the_reference),
        cmocka_unit_test(slopes_below_zero_equal_the_reference),
        cmocka_unit_test(resizing_equals_the_reference),
        cmocka_unit_test(what_onednn_lacks_runs_on_the_reference),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
