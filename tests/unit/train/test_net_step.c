/* The step as a whole: slices and lanes, determinism, bf16, export, refusals. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/train/train_nets.h"

static double difference(const float *a, const float *b, int64_t n)
{
    double most = 0, top = 1e-6;
    for (int64_t i = 0; i < n; i++) {
        most = fmax(most, fabs((double)a[i] - (double)b[i]));
        top = fmax(top, fabs((double)b[i]));
    }
    return most / top;
}

/* Gradients of a step over slices and lanes are the sums of those of each slice alone. */
static void slices_add_up(void **state)
{
    (void)state;
    struct mesh m;
    mesh_resnet(&m, 8, 8);
    struct train_net *one =
        trial_net(&m, (struct train_net_options){
                          .batch = 4, .slice = 4, .precision = PRECISION_FP32, .n_taps = 0});
    struct train_net *many =
        trial_net(&m, (struct train_net_options){
                          .batch = 12, .slice = 4, .threads = 2, .precision = PRECISION_FP32});
    assert_int_equal(train_net_lanes(many), 2);
    float *x = trial_samples(many, 12, 3);
    for (int64_t i = 0; i < 12 * train_net_input_width(many); i++)
        x[i] = x[i % (4 * train_net_input_width(many))]; /* three times the same slice */
    trial_step(many, x, NULL);
    trial_step(one, x, NULL);
    for (int i = 0; i < train_net_n_params(one); i++) {
        struct train_param *p = train_net_param(one, i), *q = train_net_param(many, i);
        assert_string_equal(p->name, q->name);
        assert_int_equal(p->n, q->n);
    }
    /* the factors of the loss depend on the sample: only its quadratic part is the same; so compare
     * running statistics, which do not depend on the loss */
    for (int i = 0; i < train_net_n_states(one); i++) {
        struct train_state *p = train_net_state(one, i), *q = train_net_state(many, i);
        assert_true(difference(q->value, p->value, p->n) < 1e-5);
    }
    free(x);
    train_net_free(one);
    train_net_free(many);
    mesh_release(&m);
}

static int mean_loss(void *ctx, int lane, int64_t first, int64_t count, const float *const *outputs,
                     float *const *gradients, struct err *err)
{
    (void)lane;
    (void)err;
    const struct train_net *net = ctx;
    const int64_t width = train_net_output_width(net, 0);
    for (int64_t s = 0; s < count; s++)
        for (int64_t i = 0; i < width; i++)
            gradients[0][s * width + i] =
                (outputs[0][s * width + i] - (float)((first + s) % 4 == i)) / 12;
    return 0;
}

static void slices_give_the_mean(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_resnet(&m, 8, 8);
    const struct train_net_options o = {
        .batch = 12, .slice = 4, .threads = 2, .precision = PRECISION_FP32};
    struct train_net_options alone = o;
    alone.batch = 4;
    alone.threads = 1;
    struct train_net *many = trial_net(&m, o), *one = trial_net(&m, alone);
    float *x = trial_samples(many, 12, 3);
    must(train_net_step(many, x, mean_loss, many, &err), &err);
    float *sums[64] = {0};
    for (int s = 0; s < 3; s++) {
        must(train_net_step(one, x + s * 4 * train_net_input_width(one), mean_loss, one, &err),
             &err);
        for (int i = 0; i < train_net_n_params(one); i++) {
            struct train_param *p = train_net_param(one, i);
            if (!sums[i])
                sums[i] = calloc((size_t)p->n, sizeof(float));
            for (int64_t k = 0; k < p->n; k++)
                sums[i][k] += p->grad[k];
        }
    }
    for (int i = 0; i < train_net_n_params(one); i++) {
        struct train_param *p = train_net_param(many, i);
        assert_true(difference(p->grad, sums[i], p->n) < 1e-4);
        free(sums[i]);
    }
    free(x);
    train_net_free(one);
    train_net_free(many);
    mesh_release(&m);
}

/* A few steps of gradient descent; the parameters afterwards. */
static float *descend(const struct mesh *m, struct train_net_options o, int64_t *ret_n,
                      double *loss)
{
    struct train_net *net = trial_net(m, o);
    float *x = trial_samples(net, o.batch, 3), *all = NULL;
    int64_t n = 0;
    for (int s = 0; s < 5; s++) {
        *loss = trial_step(net, x, NULL);
        for (int i = 0; i < train_net_n_params(net); i++) {
            struct train_param *p = train_net_param(net, i);
            for (int64_t k = 0; k < p->n; k++)
                p->value[k] -= 1e-3f * p->grad[k];
        }
    }
    for (int i = 0; i < train_net_n_params(net); i++) {
        struct train_param *p = train_net_param(net, i);
        all = realloc(all, (size_t)(n + p->n) * sizeof(float));
        assert_non_null(all);
        memcpy(all + n, p->value, (size_t)p->n * sizeof(float));
        n += p->n;
    }
    free(x);
    train_net_free(net);
    *ret_n = n;
    return all;
}

/* Widths and sides: channels that oneDNN convolves, and whole tiles of our own kernels. */
static const int64_t resnets[][2] = {{16, 8}, {32, 16}};

static void runs_repeat_bit_for_bit(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        struct mesh m;
        mesh_resnet(&m, resnets[i / 2][0], resnets[i / 2][1]);
        const struct train_net_options o = {.batch = 24,
                                            .slice = 4,
                                            .threads = 3,
                                            .precision = i % 2 ? PRECISION_BF16 : PRECISION_FP32};
        int64_t n = 0;
        double loss[2];
        float *a = descend(&m, o, &n, &loss[0]), *b = descend(&m, o, &n, &loss[1]);
        assert_memory_equal(a, b, (size_t)n * sizeof(float));
        free(a);
        free(b);
        mesh_release(&m);
    }
}

static void compare_precisions(struct train_net *full, struct train_net *half)
{
    float *x = trial_samples(full, 16, 3);
    double a = trial_step(full, x, NULL), b = trial_step(half, x, NULL);
    assert_true(fabs(a - b) < 0.02 * fabs(a) + 0.5);
    for (int i = 0; i < train_net_n_params(full); i++) {
        struct train_param *p = train_net_param(full, i), *q = train_net_param(half, i);
        double dot = 0, pp = 0, qq = 0;
        for (int64_t k = 0; k < p->n; k++) {
            dot += (double)p->grad[k] * (double)q->grad[k];
            pp += (double)p->grad[k] * (double)p->grad[k];
            qq += (double)q->grad[k] * (double)q->grad[k];
        }
        if (!(dot > 0.98 * sqrt(pp * qq)))
            fail_msg("'%s': the gradients' cosine is %g", p->name, dot / sqrt(pp * qq));
        assert_true(qq > 0.8 * pp && qq < 1.25 * pp);
    }
    free(x);
}

static void bf16_comes_close_to_fp32(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        struct mesh m;
        mesh_resnet(&m, resnets[i][0], resnets[i][1]);
        struct train_net_options o = {.batch = 16, .slice = 8, .precision = PRECISION_FP32};
        struct train_net *full = trial_net(&m, o);
        o.precision = PRECISION_BF16;
        struct train_net *half = trial_net(&m, o);
        const bool has = train_net_precision(half) == PRECISION_BF16;
        if (has)
            compare_precisions(full, half);
        train_net_free(full);
        train_net_free(half);
        mesh_release(&m);
        if (!has) {
            print_message("skip: this CPU has no bf16 arithmetic\n");
            skip();
        }
    }
}

/* With momentum 1 the running statistics are those of the last batch: then the exported network
 * answers as the training's forward did. */
static void an_export_computes_what_statistics_say(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_resnet(&m, 8, 8);
    const int64_t batch = 64;
    struct train_net *net = trial_net(
        &m, (struct train_net_options){
                .batch = batch, .slice = batch, .precision = PRECISION_FP32, .norm_momentum = 1});
    float *x = trial_samples(net, batch, 3);
    float *logits = calloc((size_t)(batch * train_net_output_width(net, 0)), sizeof(float));
    struct train_param *p = train_net_param(net, 0);
    for (int64_t i = 0; i < p->n; i++)
        p->value[i] *= 1.5f;
    trial_step(net, x, logits);
    struct graph *g = NULL;
    must(train_net_export(net, &g, &err), &err);
    struct shape shape = shape_make(DIMS(batch, 3, 8, 8));
    struct tensor *in = tensor_new(DTYPE_F32, &shape, &err), *out = NULL;
    assert_non_null(in);
    memcpy(in->data, x, tensor_bytes(in));
    must(eval_graph(g, (const struct tensor *const *)&in, &out, &err), &err);
    /* the running variance is the unbiased one: n / (n - 1) of the batch's */
    assert_true(difference(logits, out->data, shape_elements(&out->shape)) < 3e-3);
    tensor_free(in);
    tensor_free(out);
    graph_free(g);
    free(x);
    free(logits);
    train_net_free(net);
    mesh_release(&m);
}

static int failing_loss(void *ctx, int lane, int64_t first, int64_t count,
                        const float *const *outputs, float *const *gradients, struct err *err)
{
    (void)ctx;
    (void)lane;
    (void)count;
    (void)outputs;
    (void)gradients;
    return first == 8 ? err_set(err, ERR_CANCELLED, "enough") : 0;
}

static void a_failing_loss_ends_the_step(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_resnet(&m, 4, 8);
    struct train_net *net =
        trial_net(&m, (struct train_net_options){.batch = 16, .slice = 4, .threads = 2});
    float *x = trial_samples(net, 16, 3);
    assert_int_equal(train_net_step(net, x, failing_loss, NULL, &err), -ERR_CANCELLED);
    assert_string_equal(err.message, "enough");
    trial_step(net, x, NULL); /* and the next one works */
    free(x);
    train_net_free(net);
    mesh_release(&m);
}

static void refuses(const struct mesh *m, struct train_net_options o, int code, const char *text)
{
    struct err err = {0};
    struct train_net *net = NULL;
    assert_int_equal(train_net_new(m->g, &o, &net, &err), -code);
    if (!strstr(err.message, text))
        fail_msg("'%s' does not say '%s'", err.message, text);
}

static void what_cannot_be_trained_is_refused(void **state)
{
    (void)state;
    struct mesh m;
    struct train_net_options o = {.batch = 8};
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 4, 6, 6));
    int y = mesh_conv(&m, x, (struct mesh_conv){.ic = 4, .oc = 4, .kernel = 3});
    y = mesh_node(&m, OP_DIV, VALUES(mesh_normal(&m, 1, DIMS(1)), y));
    mesh_output(&m, y);
    mesh_finish(&m);
    refuses(&m, o, ERR_UNIMPLEMENTED, "(Div)");
    mesh_release(&m);

    mesh_resnet(&m, 4, 8);
    o.slice = 3;
    refuses(&m, o, ERR_INVALID_ARGUMENT, "does not divide");
    o.slice = 0;
    o.batch = 0;
    refuses(&m, o, ERR_INVALID_ARGUMENT, "batch 0");
    o.batch = 8;
    o.n_taps = 1;
    o.taps = (const char *[]){"nowhere"};
    refuses(&m, o, ERR_NOT_FOUND, "nowhere");
    o.n_taps = 0;
    o.batch = o.slice = (int64_t)1 << 30;
    refuses(&m, o, ERR_RESOURCE_EXHAUSTED, "memory");
    mesh_release(&m);
}

/* A tap's gradient counts as well. */
static int tap_loss(void *ctx, int lane, int64_t first, int64_t count, const float *const *outputs,
                    float *const *gradients, struct err *err)
{
    (void)lane;
    (void)err;
    struct trial_loss *t = ctx;
    const int64_t width = train_net_output_width(t->net, 1);
    for (int64_t i = 0; i < count * width; i++) {
        float f = trial_factor(first, i, 1);
        t->sum += (double)f * (double)outputs[1][i];
        gradients[1][i] = f;
    }
    return 0;
}

static int relu_behind(const struct graph *g, int value)
{
    for (int i = 0; i < g->n_nodes; i++)
        if (g->nodes[i]->op == OP_RELU && g->nodes[i]->inputs[0] == value)
            return g->nodes[i]->outputs[0];
    fail_msg("no Relu behind");
    return -1;
}

static void taps_are_seen_and_trained(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_resnet(&m, 8, 8);
    const char *tap = NULL; /* the output of the first block */
    for (int i = 0; i < m.g->n_nodes && !tap; i++)
        if (m.g->nodes[i]->op == OP_ADD)
            tap = m.g->values[relu_behind(m.g, m.g->nodes[i]->outputs[0])]->name;
    struct train_net *net = trial_net(
        &m, (struct train_net_options){
                .batch = 4, .slice = 4, .precision = PRECISION_FP32, .n_taps = 1, .taps = &tap});
    assert_int_equal(train_net_output_width(net, 1), 8 * 8 * 8);
    float *x = trial_samples(net, 4, 3);
    struct train_param *p = train_net_param(net, 0);
    struct trial_loss t = {.net = net};
    must(train_net_step(net, x, tap_loss, &t, &err), &err);
    double slope = 0, norm = 0, loss[2];
    for (int64_t i = 0; i < p->n; i++) {
        slope += (double)p->grad[i] * (double)(i % 3 - 1);
        norm += (double)p->grad[i] * (double)p->grad[i];
    }
    for (int side = 0; side < 2; side++) {
        for (int64_t i = 0; i < p->n; i++)
            p->value[i] += (side ? -2e-3f : 1e-3f) * (float)(i % 3 - 1);
        t.sum = 0;
        must(train_net_step(net, x, tap_loss, &t, &err), &err);
        loss[side] = t.sum;
    }
    double measured = (loss[0] - loss[1]) / 2e-3;
    if (!(fabs(measured - slope) < 0.05 * sqrt(norm)))
        fail_msg("slope %g, measured %g, gradient's norm %g", slope, measured, sqrt(norm));
    free(x);
    train_net_free(net);
    mesh_release(&m);
}

/* Dropout: about the share that is asked for, the mean kept, other choices in every step, and the
 * gradient goes where the values went. */
static int drop_loss(void *ctx, int lane, int64_t first, int64_t count, const float *const *outputs,
                     float *const *gradients, struct err *err)
{
    (void)lane;
    (void)err;
    struct trial_loss *t = ctx;
    const int64_t width = train_net_output_width(t->net, 0);
    for (int64_t i = 0; i < count * width; i++) {
        t->copy[first * width + i] = outputs[0][i];
        gradients[0][i] = 1;
    }
    return 0;
}

static void dropout_drops(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 1));
    const int64_t width = 4000;
    int w = mesh_constant(&m, DTYPE_F32, DIMS(1, width), NULL);
    for (int64_t i = 0; i < width; i++)
        ((float *)m.g->values[w]->constant->data)[i] = 1;
    int y = mesh_node(&m, OP_GEMM, VALUES(x, w));
    y = mesh_node(&m, OP_DROPOUT, VALUES(y, mesh_float(&m, 0.25f)));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct train_net *net =
        trial_net(&m, (struct train_net_options){
                          .batch = 2, .slice = 1, .threads = 2, .precision = PRECISION_FP32});
    float *seen[2];
    const float ones[] = {1, 1};
    for (int s = 0; s < 2; s++) {
        struct trial_loss t = {.net = net, .copy = calloc((size_t)(2 * width), sizeof(float))};
        seen[s] = t.copy;
        must(train_net_step(net, ones, drop_loss, &t, &err), &err);
        int64_t kept = 0;
        for (int64_t i = 0; i < 2 * width; i++) {
            assert_true(t.copy[i] == 0 || fabsf(t.copy[i] - 1 / 0.75f) < 1e-6f);
            kept += t.copy[i] != 0;
        }
        assert_in_range(kept, 5800, 6200);
        const struct train_param *p = train_net_param(net, 0);
        for (int64_t i = 0; i < width; i++)
            assert_true(fabsf(p->grad[i] - t.copy[i] - t.copy[width + i]) < 1e-5f);
    }
    assert_memory_not_equal(seen[0], seen[1], (size_t)(2 * width) * sizeof(float));
    assert_memory_not_equal(seen[0], seen[0] + width, (size_t)width * sizeof(float));
    free(seen[0]);
    free(seen[1]);
    train_net_free(net);
    mesh_release(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(slices_add_up),
        cmocka_unit_test(slices_give_the_mean),
        cmocka_unit_test(runs_repeat_bit_for_bit),
        cmocka_unit_test(bf16_comes_close_to_fp32),
        cmocka_unit_test(an_export_computes_what_statistics_say),
        cmocka_unit_test(a_failing_loss_ends_the_step),
        cmocka_unit_test(what_cannot_be_trained_is_refused),
        cmocka_unit_test(dropout_drops),
        cmocka_unit_test(taps_are_seen_and_trained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
