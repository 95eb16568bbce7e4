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

static void quantize(void)
{
    struct sample_view view;
    struct quant_ranges ranges;
    const struct quant_options bits = {.weight_bits = 7};
    const struct infer_options options = {.threads = 2};
    OK(sample_view_init(&view, data.ds, PART_TRAIN, &data.pre, 96, 0, err));
    OK(quant_calibrate(original, &options, view.n, sample_view_fill, &view, &ranges, err));
    OK(quant_rewrite_all(original, &ranges, &bits, &quantized, err));
    OK(graph_set_metadata(quantized, "hone.weight_bits", "7", err));
    quant_ranges_release(&ranges);
    sample_view_release(&view);
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
    quantize();
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

/* What the exported file answers, by the plain evaluation and by a plan. */
static double off_by(struct train_net *net, const float *out, bool plan)
{
    struct graph *g = NULL;
    struct sample_view view;
    float answer[BATCH * DRAWN_CLASSES];
    OK(train_net_export(net, &g, err));
    OK(pass_simplify(g, err));
    OK(sample_view_init(&view, data.ds, PART_TRAIN, &data.pre, BATCH, 0, err));
    OK(infer_run(g, &(struct infer_options){.threads = 1}, BATCH, sample_view_fill, &view, answer,
                 err));
    (void)plan;
    double most = 0;
    for (int i = 0; i < BATCH * DRAWN_CLASSES; i++)
        most = fmax(most, fabs((double)(answer[i] - out[i])));
    sample_view_release(&view);
    graph_free(g);
    return most;
}

static void what_is_trained_is_what_ships(void **state)
{
    (void)state;
    struct train_net *net = net_of_quantized(NULL);
    assert_int_equal(train_net_precision(net), PRECISION_FP32);
    float *x = first_samples(), out[BATCH * DRAWN_CLASSES];
    for (int s = 0; s < 5; s++) {
        step(net, x, out);
        const double off = off_by(net, out, false);
        print_message("step %d: the file's answers are at most %g off\n", s, off);
        assert_true(off < 0.02);
        for (int i = 0; i < train_net_n_params(net); i++) {
            struct train_param *p = train_net_param(net, i);
            for (int64_t k = 0; k < p->n; k++)
                p->value[k] -= 2e-3f * p->grad[k] / BATCH;
        }
    }
    free(x);
    train_net_free(net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_go_to_the_grid_and_its_ends),
        cmocka_unit_test(the_gradient_passes_inside_only),
        cmocka_unit_test(what_is_trained_is_what_ships),
    };
    return cmocka_run_group_tests(tests, open_all, close_all);
}
