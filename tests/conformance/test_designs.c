/* Every type of piece (shared/design) runs in int8 as what it means, and learns. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/design/design.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"
#include "tests/support/quant_nets.h"
#include "tests/unit/train/train_nets.h"

static const char *const designs[] = {
    "conv:16 conv:16:s2 head",
    "conv:16:k4 conv:24:pool head:pool",
    "patch:16:k4:s2 conv:16:k5:s3 head",
    "patch:16 residual residual:32:s2*2 head",
    "patch:16 bottleneck:64:s2*2 head",
    "conv:16 rep rep:32:s2*2 head",
    "conv:16 separable:32:s2 separable:32:k5 head",
    "conv:16 separable:24:s2:se separable:40:se head",
};
#define N_DESIGNS (sizeof(designs) / sizeof(*designs))

static const int64_t sizes[][3] = {{3, 32, 32}, {1, 49, 10}};

static struct graph *design_graph(const char *text, const int64_t size[3])
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    const struct design_ends ends = {
        .channels = size[0], .height = size[1], .width = size[2], .outputs = 6, .seed = 3};
    struct design design;
    struct graph *g = NULL;
    struct err err = {0};
    must(design_parse(text, arena, &design, &err), &err);
    must(design_build(&design, &ends, &g, &err), &err);
    return g;
}

static struct graph *all_int8(const struct graph *g)
{
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct quant_options options = {.weight_bits = nn_has_int8() ? 8 : 7};
    struct graph *q = NULL;
    struct err err = {0};
    must(quant_calibrate_noise(g, 1, &ranges, &err), &err);
    must(quant_rewrite_all(g, &ranges, &options, &q, &err), &err);
    return q;
}

static void every_type_is_tried(void **state)
{
    (void)state;
    for (const char *const *type = design_types(); *type; type++) {
        bool found = false;
        for (size_t i = 0; i < N_DESIGNS && !found; i++)
            found = strstr(designs[i], *type);
        if (!found)
            fail_msg("nothing here tries '%s'", *type);
    }
}

static void designs_run_in_int8(void **state)
{
    (void)state;
    for (size_t i = 0; i < 2 * N_DESIGNS; i++) {
        const char *text = designs[i / 2];
        _cleanup_(graph_freep) struct graph *g = design_graph(text, sizes[i % 2]);
        struct err err = {0};
        must(pass_simplify(g, &err), &err);
        _cleanup_(graph_freep) struct graph *q = all_int8(g);
        _cleanup_(plan_freep) struct plan *plan = NULL;
        const struct plan_options options = {.batch = 3, .choose_by_name = true};
        must(plan_compile(q, &options, &plan, &err), &err);
        struct trial_run t = {0};
        trial_run(&t, g, plan, 9); /* the answers of the network in float */
        const double snr = net_snr(t.want[0], t.got[0]);
        trial_release(&t);
        if (!(snr > 15))
            fail_msg("%s: %g dB", text, snr);
        for (int k = 0; k < plan_n_steps(plan); k++) {
            const struct plan_step *step = plan_step(plan, k);
            if (step->macs > 0 && step->precision != PRECISION_INT8)
                fail_msg("%s: '%s' is not in int8", text, step->layer);
            if (strcmp(step->implementation, "reference") == 0)
                fail_msg("%s: '%s' runs on the reference", text, step->layer);
        }
    }
}

static void descend(struct train_net *net, float rate)
{
    for (int i = 0; i < train_net_n_params(net); i++) {
        struct train_param *p = train_net_param(net, i);
        for (int64_t k = 0; k < p->n; k++)
            p->value[k] -= rate * p->grad[k];
    }
}

/* The form with branches and norms learns; what it has learned runs in the form without. */
static void designs_learn(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_DESIGNS; i++) {
        const int64_t size[] = {3, 12, 15};
        struct mesh m = {.g = design_graph(designs[i], size)};
        struct err err = {0};
        struct train_net *net = trial_net(
            &m, (struct train_net_options){.batch = 16, .slice = 16, .precision = PRECISION_FP32});
        float *x = trial_samples(net, 16, i);
        const double before = trial_step(net, x, NULL);
        double after = before;
        for (int step = 0; step < 20; step++) {
            descend(net, 1e-2f); /* answers begin small */
            after = trial_step(net, x, NULL);
        }
        if (!(after < before - 1))
            fail_msg("%s: the loss goes from %g to %g", designs[i], before, after);
        struct graph *learned = NULL, *runs = NULL;
        must(train_net_export(net, &learned, &err), &err);
        must(graph_clone(learned, &runs, &err), &err);
        must(pass_simplify(runs, &err), &err);
        assert_int_equal(net_count(runs, OP_BATCH_NORMALIZATION), 0);
        struct tensor *a = net_run(learned, 7, 2, 1, 0), *b = net_run(runs, 7, 2, 1, 0);
        if (!(net_snr(a, b) > 90))
            fail_msg("%s: %g dB", designs[i], net_snr(a, b));
        tensor_free(a);
        tensor_free(b);
        graph_free(learned);
        graph_free(runs);
        free(x);
        train_net_free(net);
        mesh_release(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_type_is_tried),
        cmocka_unit_test(designs_run_in_int8),
        cmocka_unit_test(designs_learn),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
