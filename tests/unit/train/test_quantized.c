/* Quantized networks learn: fake quantization and its gradient, what begins as it was, what is
 * shipped as it was trained, and what is refused. */
#include "tests/unit/train/drawn.h"

#include <math.h>

#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"
#include "shared/train/net_priv.h"
#include "shared/train/recipe.h"

static struct drawn data;
static struct graph *original, *quantized; /* norms folded; of 7 bits */

static struct train_options quick(void)
{
    struct train_options o = train_defaults();
    o.epochs = 4;
    o.batch = 48;
    o.threads = 2;
    o.slice = 12;
    o.seed = 4;
    o.evaluate_every = -1;
    return o;
}

static struct graph *quantize(int weight_bits)
{
    struct graph *g = NULL;
    struct sample_view view;
    struct quant_ranges ranges;
    const struct quant_options bits = {.weight_bits = weight_bits};
    const struct infer_options options = {.threads = 2};
    OK(sample_view_init(&view, data.ds, PART_TRAIN, &data.pre, 96, 0, err));
    OK(quant_calibrate(original, &options, view.n, sample_view_fill, &view, &ranges, err));
    OK(quant_rewrite_all(original, &ranges, &bits, &g, err));
    OK(graph_set_metadata(g, "hone.weight_bits", "7", err));
    quant_ranges_release(&ranges);
    sample_view_release(&view);
    return g;
}

/* A network that has learned, and its quantized form. */
static int open_all(void **state)
{
    (void)state;
    drawn_open(&data);
    struct train_options options = quick();
    options.epochs = 12;
    struct graph *g = drawn_network(8, 1);
    struct train_result result;
    OK(train_run(g, data.ds, &data.pre, &options, &result, err));
    original = result.graph;
    result.graph = NULL;
    OK(pass_simplify(original, err));
    quantized = quantize(7);
    train_result_release(&result);
    graph_free(g);
    return 0;
}

static int close_all(void **state)
{
    (void)state;
    graph_free(original);
    graph_free(quantized);
    drawn_close(&data);
    return 0;
}

/* ---- fake quantization ---- */

static void values_go_to_the_grid_and_its_ends(void **state)
{
    (void)state;
    const struct grid grid = {.scale = 0.5f, .zero = 3, .low = 0, .high = 255};
    const float from[] = {0, 0.2f, 0.25f, 0.3f, 0.75f, -1.5f, -1.76f, -9, 126, 126.2f, 126.3f, 900};
    const float want[] = {0, 0, 0, 0.5f, 1, -1.5f, -1.5f, -1.5f, 126, 126, 126, 126};
    float to[12];
    kernel_fake(&grid, from, to, 12);
    for (int i = 0; i < 12; i++)
        assert_true(to[i] == want[i]);
    assert_int_equal(grid_integer(&grid, -900), 0);
    assert_int_equal(grid_integer(&grid, 0.75f), 5);
    assert_int_equal(grid_integer(&grid, 900), 255);
}

static void the_gradient_passes_inside_only(void **state)
{
    (void)state;
    const struct grid grid = {.scale = 0.5f, .zero = 3, .low = 0, .high = 255};
    const float x[] = {0, 0.3f, -1.5f, -1.7f, -1.8f, 126, 126.2f, 126.3f};
    float d[] = {1, 2, 3, 4, 5, 6, 7, 8};
    const float want[] = {1, 2, 3, 4, 0, 6, 7, 0};
    kernel_fake_back(&grid, x, d, d, 8);
    assert_memory_equal(d, want, sizeof(d));
}

/* ---- a network ---- */

struct watched {
    const struct train_net *net;
    float *out; /* of the batch */
};

/* Half the sum of squares. */
static int watch(void *ctx, int lane, int64_t first, int64_t count, const float *const *outputs,
                 float *const *gradients, struct err *err)
{
    (void)lane, (void)err;
    const struct watched *w = ctx;
    const int64_t width = train_net_output_width(w->net, 0);
    memcpy(w->out + first * width, outputs[0], (size_t)(count * width) * sizeof(float));
    memcpy(gradients[0], outputs[0], (size_t)(count * width) * sizeof(float));
    return 0;
}

enum { BATCH = 24 };

static struct train_net *net_of_quantized(const struct graph *start)
{
    struct train_net *net = NULL;
    OK(train_net_new(
        quantized,
        &(struct train_net_options){.batch = BATCH, .threads = 2, .slice = 12, .original = start},
        &net, err));
    return net;
}

static float *first_samples(void)
{
    struct sample_view view;
    float *x = mem_calloc(BATCH * DRAWN_WIDTH, sizeof(*x));
    OK(sample_view_init(&view, data.ds, PART_TRAIN, &data.pre, BATCH, 0, err));
    OK(sample_view_fill(&view, 0, BATCH, x, err));
    sample_view_release(&view);
    return x;
}

static void step(struct train_net *net, const float *x, float out[BATCH * DRAWN_CLASSES])
{
    struct watched w = {net, out};
    OK(train_net_step(net, x, watch, &w, err));
}

/* How far the exported file's answers, by a plan, are from those of the step. */
static double off_by(struct train_net *net, const float *out)
{
    struct graph *g = NULL;
    struct sample_view view;
    float answer[BATCH * DRAWN_CLASSES];
    OK(train_net_export(net, &g, err));
    OK(pass_simplify(g, err));
    OK(sample_view_init(&view, data.ds, PART_TRAIN, &data.pre, BATCH, 0, err));
    OK(infer_run(g, &(struct infer_options){.threads = 1}, BATCH, sample_view_fill, &view, answer,
                 err));
    double most = 0;
    for (int i = 0; i < BATCH * DRAWN_CLASSES; i++)
        most = fmax(most, fabs((double)(answer[i] - out[i])));
    sample_view_release(&view);
    graph_free(g);
    return most;
}

/* Constants whose elements differ, and all elements that do. */
static int64_t differences(const struct graph *a, const struct graph *b, int *ret_constants)
{
    int64_t all = 0;
    *ret_constants = 0;
    for (int v = 0; v < a->n_values; v++) {
        const struct tensor *x = a->values[v]->constant;
        const int other = x ? graph_find_value(b, a->values[v]->name) : -1;
        const struct tensor *y = other >= 0 ? b->values[other]->constant : NULL;
        if (!x)
            continue;
        assert_true(y && y->dtype == x->dtype && shape_equal(&x->shape, &y->shape));
        const int64_t before = all;
        for (int64_t i = 0; i < shape_elements(&x->shape); i++)
            all += tensor_get_f64(x, i) != tensor_get_f64(y, i);
        *ret_constants += all != before;
    }
    return all;
}

static void descend(struct train_net *net, float rate)
{
    for (int i = 0; i < train_net_n_params(net); i++) {
        struct train_param *p = train_net_param(net, i);
        for (int64_t k = 0; k < p->n; k++)
            p->value[k] -= rate * p->grad[k];
    }
}

static void what_is_trained_is_what_ships(void **state)
{
    (void)state;
    struct train_net *net = net_of_quantized(NULL);
    assert_int_equal(train_net_precision(net), PRECISION_FP32);
    float *x = first_samples(), out[BATCH * DRAWN_CLASSES];
    for (int s = 0; s < 5; s++) {
        step(net, x, out);
        assert_true(off_by(net, out) < 1e-4);
        descend(net, 2e-3f / (float)BATCH);
    }
    free(x);
    train_net_free(net);
}

/* What the step's forward took the weights for: those of the file, to the bit. */
static void expect_integers_of_the_step(int most)
{
    struct train_net *net = net_of_quantized(original);
    float *x = first_samples(), out[BATCH * DRAWN_CLASSES];
    struct graph *g = NULL;
    int constants;
    step(net, x, out);
    descend(net, 2e-2f / (float)BATCH);
    step(net, x, out); /* packs them */
    OK(train_net_export(net, &g, err));
    assert_true(differences(g, quantized, &constants) > 0);
    int weights = 0;
    for (int i = 0; i < net->n_slots; i++) {
        const struct slot *slot = &net->slots[i];
        const struct quantized *q = slot->quantized;
        assert_non_null(q);
        const struct tensor *t = g->values[q->integers]->constant;
        const float *used = lane_at(&net->lanes[0], slot->scaled);
        for (int64_t k = 0; k < shape_elements(&t->shape); k++) {
            const float scale = q->scales[k / q->inner % q->channels];
            assert_true(used[k] == (float)tensor_get_f64(t, k) * scale);
            if (t->dtype == DTYPE_S8)
                assert_in_range(tensor_get_s64(t, k) + most, 0, 2 * most);
        }
        weights += t->dtype == DTYPE_S8;
    }
    assert_int_equal(weights, 5);
    graph_free(g);
    free(x);
    train_net_free(net);
}

static void the_integers_are_those_of_the_step(void **state)
{
    (void)state;
    expect_integers_of_the_step(63);
}

static void few_bits_stay_few(void **state)
{
    (void)state;
    struct graph *seven = quantized;
    for (int bits = 4; bits <= 5; bits++) {
        quantized = quantize(bits);
        expect_integers_of_the_step(bits == 4 ? 7 : 15);
        graph_free(quantized);
    }
    quantized = seven;
}

static void without_steps_nothing_changes(void **state)
{
    (void)state;
    for (int with = 0; with < 2; with++) {
        struct train_net *net = net_of_quantized(with ? original : NULL);
        struct graph *g = NULL;
        int constants;
        OK(train_net_export(net, &g, err));
        assert_int_equal(differences(quantized, g, &constants), 0);
        graph_free(g);
        train_net_free(net);
    }
}

/* ... and the floats are the original's, not the middles of their steps. */
static void training_begins_with_the_original(void **state)
{
    (void)state;
    struct train_net *net = net_of_quantized(original);
    int layers = 0;
    for (int i = 0; i < train_net_n_params(net); i++) {
        const struct train_param *p = train_net_param(net, i);
        if (p->role != TRAIN_WEIGHT)
            continue;
        const struct tensor *own = NULL; /* the constant of the same numbers */
        for (int v = 0; v < original->n_values; v++) {
            const struct tensor *t = original->values[v]->constant;
            if (t && shape_equal(&t->shape, &p->shape) && t->dtype == DTYPE_F32 &&
                ((const float *)t->data)[0] == p->value[0])
                own = t;
        }
        assert_non_null(own);
        int64_t same = 0;
        for (int64_t k = 0; k < p->n; k++)
            same += ((const float *)own->data)[k] == p->value[k];
        assert_true(same > p->n * 8 / 10); /* others were clipped */
        layers++;
    }
    assert_int_equal(layers, 5);
    train_net_free(net);
}

static void weights_out_of_range_are_left_alone(void **state)
{
    (void)state;
    struct train_net *net = net_of_quantized(NULL);
    float *x = first_samples(), out[BATCH * DRAWN_CLASSES];
    struct train_param *p = train_net_param(net, 0);
    assert_int_equal(p->role, TRAIN_WEIGHT);
    p->value[0] = 1000;
    p->value[1] = -1000;
    step(net, x, out);
    assert_true(p->grad[0] == 0 && p->grad[1] == 0);
    int64_t others = 0;
    for (int64_t k = 2; k < p->n; k++)
        others += p->grad[k] != 0;
    assert_true(others > p->n / 2);
    free(x);
    train_net_free(net);
}

/* ---- runs ---- */

static struct infer_metrics compare(const struct graph *g)
{
    struct sample_view view;
    struct infer_metrics metrics;
    float a[DRAWN_TEST * DRAWN_CLASSES], b[DRAWN_TEST * DRAWN_CLASSES];
    const struct infer_options options = {.threads = 2};
    OK(sample_view_init(&view, data.ds, PART_TEST, &data.pre, 0, 0, err));
    OK(infer_run(g, &options, view.n, sample_view_fill, &view, a, err));
    OK(infer_run(original, &options, view.n, sample_view_fill, &view, b, err));
    infer_metrics(a, b, NULL, view.n, DRAWN_CLASSES, &metrics);
    sample_view_release(&view);
    return metrics;
}

/* A network that lost something in quantization: biases moved, as by a bad calibration. */
static struct graph *damaged(void)
{
    struct graph *g = NULL;
    OK(graph_clone(quantized, &g, err));
    for (int v = 0; v < g->n_values; v++) {
        struct tensor *t = g->values[v]->constant;
        for (int64_t i = 0; t && t->dtype == DTYPE_S32 && i < shape_elements(&t->shape); i++)
            tensor_set_s64(t, i, tensor_get_s64(t, i) + (i % 2 ? 400 : -400));
    }
    return g;
}

static void learn(double rate, struct train_result *ret, struct graph **ret_start)
{
    struct recipe how = recipe_usual();
    const char *frozen = NULL;
    struct graph *g = damaged(), *made = NULL;
    struct train_options options = quick();
    struct teacher *teacher = NULL;
    const struct augmenter views = {
        .ds = data.ds, .part = PART_TRAIN, .pre = data.pre, .how = options.augment, .seed = 4};
    OK(teacher_build(original, &views,
                     &(struct teacher_options){.views = 1, .data = "d", .threads = 2},
                     drawn_path(&data, "answers"), NULL, err));
    OK(teacher_open(drawn_path(&data, "answers"), &teacher, err));
    OK(recipe_network(&how, g, data.ds, &data.pre, 2, &made, &frozen, err));
    options.teacher = teacher;
    options.original = original;
    options.optimizer = optimizer_defaults(OPTIMIZER_ADAM);
    options.optimizer.decay = 0;
    options.schedule = schedule_make(SCHEDULE_COSINE, rate);
    OK(train_run(made, data.ds, &data.pre, &options, ret, err));
    OK(recipe_ship(&how, ret->graph, "mean=80 std=60", err));
    teacher_close(teacher);
    graph_free(made);
    *ret_start = g;
}

static void a_quantized_network_learns_from_its_original(void **state)
{
    (void)state;
    struct train_result result;
    struct graph *start = NULL;
    learn(1e-3, &result, &start);
    const struct infer_metrics before = compare(start), after = compare(result.graph);
    print_message("KL %g, agreement %.3f before; KL %g, agreement %.3f after\n", before.kl,
                  before.agreement, after.kl, after.agreement);
    assert_true(after.kl < before.kl / 2);
    assert_true(after.agreement >= before.agreement);
    assert_true(quant_is_quantized(result.graph));
    assert_int_equal(result.precision, PRECISION_FP32);
    graph_free(start);
    train_result_release(&result);
}

static void a_rate_of_zero_changes_nothing(void **state)
{
    (void)state;
    struct train_result result;
    struct graph *start = NULL;
    int constants;
    learn(0, &result, &start);
    assert_int_equal(differences(start, result.graph, &constants), 0);
    graph_free(start);
    train_result_release(&result);
}

/* ---- refusals ---- */

static void assert_refused(const struct graph *g, const char *why)
{
    struct train_net *net = NULL;
    struct err err = {0};
    assert_int_equal(train_net_new(g, &(struct train_net_options){.batch = 4}, &net, &err),
                     -ERR_UNIMPLEMENTED);
    if (!strstr(err.message, why))
        fail_msg("'%s' is not in: %s", why, err.message);
}

/* The first node of the kind; a quantizer of activations, a dequantizer of constants. */
static struct node *first(struct graph *g, enum op op)
{
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == op &&
            (op != OP_DEQUANTIZE_LINEAR || graph_input_of(g, g->nodes[n], 0)->constant))
            return g->nodes[n];
    fail_msg("no node of that kind");
    return NULL;
}

static void what_cannot_be_trained_is_refused_by_name(void **state)
{
    (void)state;
    struct recipe how = recipe_usual();
    struct graph *g = NULL, *made = NULL;
    struct err said = {0};
    const char *frozen = NULL;
    how.reinit = true;
    assert_int_equal(recipe_network(&how, quantized, data.ds, &data.pre, 1, &made, &frozen, &said),
                     -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(said.message, "would not fit its scales"));

    OK(graph_clone(quantized, &g, err));
    const float none[1] = {0};
    memcpy(graph_input_of(g, first(g, OP_DEQUANTIZE_LINEAR), 1)->constant->data, none,
           sizeof(none));
    assert_refused(g, "a scale is not above 0");
    graph_free(g);

    /* dequantized by another scale than it was quantized by */
    OK(graph_clone(quantized, &g, err));
    const float scale = 0.25f;
    const struct shape scalar = {0};
    const int other = OK(graph_add_constant(g, "other", DTYPE_F32, &scalar, &scale, err));
    for (int n = 0; n < g->n_nodes; n++)
        if (g->nodes[n]->op == OP_QUANTIZE_LINEAR)
            g->nodes[n]->inputs[1] = other;
    assert_refused(g, "not dequantized with its own scale");
    graph_free(g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_to_the_grid_and_its_ends),
        cmocka_unit_test(the_gradient_passes_inside_only),
        cmocka_unit_test(what_is_trained_is_what_ships),
        cmocka_unit_test(the_integers_are_those_of_the_step),
        cmocka_unit_test(few_bits_stay_few),
        cmocka_unit_test(without_steps_nothing_changes),
        cmocka_unit_test(training_begins_with_the_original),
        cmocka_unit_test(weights_out_of_range_are_left_alone),
        cmocka_unit_test(a_quantized_network_learns_from_its_original),
        cmocka_unit_test(a_rate_of_zero_changes_nothing),
        cmocka_unit_test(what_cannot_be_trained_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
