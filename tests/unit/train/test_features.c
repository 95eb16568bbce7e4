/* Learning from a teacher's features: which pairs, their losses' gradients, and that it works. */
#include "tests/unit/train/drawn.h"

#include <math.h>

#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"
#include "shared/train/recipe.h"

static struct drawn data;

static int open_data(void **state)
{
    (void)state;
    drawn_open(&data);
    return 0;
}

static int close_data(void **state)
{
    (void)state;
    drawn_close(&data);
    return 0;
}

/* A teacher as it comes from a file. */
static struct graph *parent_network(int width)
{
    struct graph *g = drawn_network(width, 9);
    OK(pass_simplify(g, err));
    return g;
}

/* ---- losses ---- */

static void gradients_of_features_are_the_differences(void **state)
{
    (void)state;
    enum { C = 3, PARENT = 5, S = 8 };
    float out[C * S], parent[PARENT * S], ignored[C * S];
    struct rng rng;
    rng_seed(&rng, 3);
    for (int i = 0; i < C * S; i++)
        out[i] = (float)rng_normal(&rng);
    for (int i = 0; i < PARENT * S; i++)
        parent[i] = (float)rng_normal(&rng);
    for (int kind = FEATURE_MSE; kind <= FEATURE_ATTENTION; kind++) {
        const struct loss_features f = {.kind = (enum loss_feature_kind)kind,
                                        .channels = C,
                                        .parent_channels = kind == FEATURE_ATTENTION ? PARENT : C,
                                        .pixels = S};
        double spare[2 * S];
        float gradient[C * S] = {0};
        assert_true(loss_features_spare(&f) <= 2 * S);
        assert_true(loss_features(&f, out, parent, 3, gradient, spare) > 0);
        for (int i = 0; i < C * S; i++) {
            const float kept = out[i], h = 1.0f / 256;
            out[i] = kept + h;
            const double up = loss_features(&f, out, parent, 0, ignored, spare);
            out[i] = kept - h;
            const double down = loss_features(&f, out, parent, 0, ignored, spare);
            out[i] = kept;
            const double slope = 3 * (up - down) / (2 * (double)h);
            if (!(fabs(slope - (double)gradient[i]) < 2e-4 * (1 + fabs(slope))))
                fail_msg("kind %d, place %d: slope %g, gradient %g", kind, i, slope,
                         (double)gradient[i]);
        }
        if (kind != FEATURE_ATTENTION)
            assert_true(fabs(loss_features(&f, parent, parent, 0, ignored, spare)) < 1e-12);
    }
}

static void errors_are_relative_to_the_teachers_variance(void **state)
{
    (void)state;
    const struct loss_features f = {
        .kind = FEATURE_MSE, .channels = 1, .parent_channels = 1, .pixels = 4};
    const float parent[] = {10, 12, 10, 12}, mean[] = {11, 11, 11, 11}, same[] = {5, 5, 5, 5};
    float gradient[4] = {0};
    assert_true(fabs(loss_features(&f, mean, parent, 1, gradient, NULL) - 1) < 1e-9);
    assert_true(loss_features(&f, mean, same, 1, gradient, NULL) == 0); /* it says nothing */
}

/* ---- pairs ---- */

static int find(int teacher, int student, const char *text, enum loss_feature_kind kind,
                char **ret_text, struct err *err)
{
    _cleanup_(graph_freep) struct graph *t = parent_network(teacher);
    _cleanup_(graph_freep) struct graph *s = drawn_network(student, 1);
    struct feature_pairs pairs;
    int rc = feature_pairs_find(t, s, text, kind, &pairs, err);
    if (rc == 0 && ret_text)
        *ret_text = feature_pairs_text(&pairs);
    return rc;
}

static void pairs_of_equal_shape_are_found(void **state)
{
    (void)state;
    _cleanup_(freep) char *text = NULL;
    OK(find(8, 8, "auto", FEATURE_MSE, &text, err));
    assert_string_equal(text, "relu2_out=relu2_out [8 x 144], relu3_out=relu3_out [16 x 36]");
}

#define REFUSED(code, words, ...)                                                                  \
    do {                                                                                           \
        struct err why = {0};                                                                      \
        assert_int_equal(find(__VA_ARGS__, NULL, &why), -(code));                                  \
        if (!strstr(why.message, words))                                                           \
            fail_msg("'%s' lacks '%s'", why.message, words);                                       \
    } while (0)

static void what_does_not_go_together_is_refused(void **state)
{
    (void)state;
    REFUSED(ERR_INVALID_ARGUMENT, "no cut points of teacher and student", 4, 6, "auto",
            FEATURE_MSE);
    REFUSED(ERR_INVALID_ARGUMENT, "they must have the same shape", 4, 8, "relu2_out=relu2_out",
            FEATURE_COSINE);
    REFUSED(ERR_INVALID_ARGUMENT, "maps of the same size", 8, 8, "relu2_out=relu3_out",
            FEATURE_ATTENTION);
    REFUSED(ERR_INVALID_ARGUMENT, "no pair TEACHER=STUDENT", 8, 8, "relu2_out", FEATURE_MSE);
    REFUSED(ERR_NOT_FOUND, "the teacher has no value 'x'; its cut points are ", 8, 8, "x=relu2_out",
            FEATURE_MSE);
    REFUSED(ERR_NOT_FOUND, "the student has no value 'y'", 8, 8, "relu2_out=y", FEATURE_MSE);
    OK(find(4, 8, "relu2_out=relu2_out", FEATURE_ATTENTION, NULL, err)); /* channels may differ */
}

/* ---- runs ---- */

struct stopper {
    int64_t after, steps;
};

static bool stop(void *ctx)
{
    struct stopper *s = ctx;
    return ++s->steps == s->after;
}

static struct train_options quick(void)
{
    struct train_options o = train_defaults();
    o.epochs = 6;
    o.batch = 48;
    o.threads = 2;
    o.slice = 12;
    o.seed = 4;
    o.precision = PRECISION_FP32;
    o.evaluate_every = -1;
    o.augment = (struct augment){.crop = 1};
    o.mixup = 0.2;
    return o;
}

static void features_are_learned_whatever_their_loss(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *teacher = parent_network(8);
    _cleanup_(graph_freep) struct graph *student = drawn_network(8, 1);
    const char *const losses[] = {"mse", "cosine", "attention"};
    for (int i = 0; i < 3; i++) {
        struct recipe how = recipe_usual();
        struct train_options options = quick();
        struct train_features features;
        struct train_result result = {0};
        struct preprocess other; /* the teacher sees the pictures in its own way */
        OK(preprocess_parse("mean=60 std=90", &other, err));
        how.features = "auto";
        how.feature_loss = losses[i];
        how.feature_weight = 2;
        how.precision = "fp32";
        OK(recipe_features(&how, teacher, &other, student, &features, err));
        options.features = &features;
        OK(train_run(student, data.ds, &data.pre, &options, &result, err));
        const struct train_epoch *c = result.curve;
        print_message("%s: %.4f, then %.4f\n", losses[i], c[0].feature_loss, c[5].feature_loss);
        assert_true(c[5].feature_loss < 0.8 * c[0].feature_loss);
        assert_true(c[5].loss > 2 * c[5].feature_loss); /* it is part of the loss */
        train_result_release(&result);
    }
}

static void a_run_with_features_is_resumed_to_the_same_bits(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *teacher = parent_network(8);
    _cleanup_(graph_freep) struct graph *student = drawn_network(8, 1);
    struct recipe how = recipe_usual();
    struct train_options options = quick();
    struct train_features features;
    struct train_result whole = {0}, part = {0}, rest = {0};
    struct stopper stopper = {.after = 13};
    struct err why = {0};
    void *a = NULL, *b = NULL;
    size_t n = 0, m = 0;
    how.features = "auto";
    how.precision = "fp32";
    OK(recipe_features(&how, teacher, &data.pre, student, &features, err));
    options.features = &features;
    options.epochs = 3;
    OK(train_run(student, data.ds, &data.pre, &options, &whole, err));
    options.checkpoint = drawn_path(&data, "checkpoint");
    options.resume = true;
    options.stop = stop;
    options.stop_ctx = &stopper;
    assert_int_equal(train_run(student, data.ds, &data.pre, &options, &part, &why), -ERR_CANCELLED);
    features.weight = 3;
    assert_int_equal(train_run(student, data.ds, &data.pre, &options, &rest, &why),
                     -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(why.message, "feature_weight=1, this run has feature_weight=3"));
    features.weight = 1;
    OK(train_run(student, data.ds, &data.pre, &options, &rest, err));
    OK(onnx_write_bytes(whole.graph, &a, &n, err));
    OK(onnx_write_bytes(rest.graph, &b, &m, err));
    assert_int_equal(n, m);
    assert_memory_equal(a, b, n);
    assert_true(rest.curve[1].feature_loss == whole.curve[1].feature_loss);
    free(a);
    free(b);
    train_result_release(&whole);
    train_result_release(&part);
    train_result_release(&rest);
}

/* The slope of the whole loss along a direction of the first layer's weights, through the tap. */
struct trial {
    const struct loss_features *shape;
    const float *parent;
    double sum, spare[2 * DRAWN_SIDE * DRAWN_SIDE];
};

static int feature_only(void *ctx, int lane, int64_t first, int64_t count,
                        const float *const *outputs, float *const *gradients, struct err *err)
{
    struct trial *t = ctx;
    const int64_t width = t->shape->channels * t->shape->pixels;
    (void)lane, (void)err;
    for (int64_t k = 0; k < count; k++)
        t->sum += loss_features(t->shape, outputs[1] + k * width, t->parent + (first + k) * width,
                                1, gradients[1] + k * width, t->spare);
    return 0;
}

/* The loss with the first layer's weights moved along the direction. */
static double moved(struct train_net *net, const float *x, struct trial *t, float by)
{
    struct train_param *p = train_net_param(net, 0);
    float *kept = malloc((size_t)p->n * sizeof(*kept));
    assert_non_null(kept);
    memcpy(kept, p->value, (size_t)p->n * sizeof(*kept));
    for (int64_t i = 0; i < p->n; i++)
        p->value[i] += by * (float)(i % 3 - 1);
    t->sum = 0;
    OK(train_net_step(net, x, feature_only, t, err));
    memcpy(p->value, kept, (size_t)p->n * sizeof(*kept));
    free(kept);
    return t->sum;
}

static void the_gradient_reaches_the_weights(void **state)
{
    (void)state;
    enum { N = 4, W = 8 * DRAWN_SIDE * DRAWN_SIDE };
    _cleanup_(graph_freep) struct graph *student = drawn_network(8, 1);
    const char *tap = "relu2_out";
    const struct train_net_options options = {
        .batch = N, .slice = N, .precision = PRECISION_FP32, .n_taps = 1, .taps = &tap};
    float *x = calloc(N, DRAWN_WIDTH * sizeof(*x)), *parent = calloc(N, W * sizeof(*parent));
    struct rng rng;
    rng_seed(&rng, 8);
    for (int i = 0; i < N * DRAWN_WIDTH; i++)
        x[i] = (float)rng_normal(&rng);
    for (int i = 0; i < N * W; i++)
        parent[i] = (float)rng_normal(&rng);
    for (int kind = FEATURE_MSE; kind <= FEATURE_ATTENTION; kind++) {
        const struct loss_features shape = {.kind = (enum loss_feature_kind)kind,
                                            .channels = 8,
                                            .parent_channels = 8,
                                            .pixels = DRAWN_SIDE * DRAWN_SIDE};
        struct train_net *net = NULL;
        struct trial t = {.shape = &shape, .parent = parent};
        OK(train_net_new(student, &options, &net, err));
        OK(train_net_step(net, x, feature_only, &t, err));
        struct train_param *p = train_net_param(net, 0);
        double slope = 0, norm = 0, off = INFINITY;
        for (int64_t i = 0; i < p->n; i++) {
            slope += (double)p->grad[i] * (double)(i % 3 - 1);
            norm += (double)p->grad[i] * (double)p->grad[i];
        }
        /* a short step misses most bends of Relu, a long one the rounding of fp32 */
        for (float h = 3e-3f; h > 1e-4f; h /= 3) {
            const double measured =
                (moved(net, x, &t, h) - moved(net, x, &t, -h)) / (2 * (double)h);
            off = fmin(off, fabs(measured - slope));
        }
        if (!(norm > 0 && off < 0.05 * sqrt(norm)))
            fail_msg("kind %d: slope %g, off by %g, norm %g", kind, slope, off, sqrt(norm));
        train_net_free(net);
    }
    free(x);
    free(parent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(gradients_of_features_are_the_differences),
        cmocka_unit_test(errors_are_relative_to_the_teachers_variance),
        cmocka_unit_test(pairs_of_equal_shape_are_found),
        cmocka_unit_test(what_does_not_go_together_is_refused),
        cmocka_unit_test(features_are_learned_whatever_their_loss),
        cmocka_unit_test(a_run_with_features_is_resumed_to_the_same_bits),
        cmocka_unit_test(the_gradient_reaches_the_weights),
    };
    return cmocka_run_group_tests(tests, open_data, close_data);
}
