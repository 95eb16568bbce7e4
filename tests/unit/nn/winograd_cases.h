#pragma once
/* Shapes for the tests of Winograd's convolutions, on each instruction set. To be included after
 * cmocka.h. */
#include "tests/unit/nn/plan_nets.h"

struct winograd_case {
    int64_t ic, oc, height, width, pad;
    bool no_bias, adds, relu, clip;
};

static const struct winograd_case winograd_cases[] = {
    {16, 16, 32, 32, 1, false, false, true, false}, {16, 16, 32, 32, 1, false, true, true, false},
    {64, 64, 8, 8, 1, false, true, true, false},    {32, 48, 16, 16, 1, true, false, false, false},
    {3, 16, 32, 32, 1, false, false, true, false},  {20, 36, 4, 4, 1, false, true, false, false},
    {5, 7, 5, 7, 1, false, false, true, false},     {5, 7, 3, 5, 0, false, false, false, true},
    {1, 1, 3, 3, 0, true, false, false, false},     {17, 33, 9, 6, 2, false, true, true, false},
    {8, 8, 1, 1, 1, false, false, false, false},    {130, 24, 6, 10, 1, false, false, true, false},
    {24, 130, 13, 2, 1, false, true, false, true},
};

/* Against double sums (the plain-C evaluation), by the largest number. */
static inline void winograd_check(const struct winograd_case *c, const char *implementation,
                                  int64_t batch, int threads)
{
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    const struct mesh_conv conv = {
        .ic = c->ic, .oc = c->oc, .kernel = 3, .pad = c->pad, .no_bias = c->no_bias};
    mesh_init(&m, (uint64_t)(c->ic + c->height));
    int x = mesh_input(&m, DIMS(DIM_BATCH, c->ic, c->height, c->width));
    int y = mesh_conv(&m, x, conv), other = -1;
    if (c->adds) { /* another convolution's output: in its memory, unless somebody else reads that
                    */
        other = mesh_unary(&m, OP_RELU, mesh_conv(&m, x, conv));
        y = mesh_binary(&m, OP_ADD, y, other);
    }
    if (c->relu)
        y = mesh_unary(&m, OP_RELU, y);
    if (c->clip)
        y = mesh_node(&m, OP_CLIP, VALUES(y, mesh_float(&m, -0.4f), mesh_float(&m, 0.9f)));
    mesh_output(&m, y);
    if (c->adds && c->relu)
        mesh_output(&m, other);
    mesh_finish(&m);
    const struct plan_options o = {
        .batch = batch, .threads = threads, .implementation = implementation, .one_lane = true};
    must(plan_compile(m.g, &o, &plan, &err), &err);
    if (strcmp(find_step(plan, "Conv")->implementation, implementation) != 0)
        fail_msg("%lld to %lld channels, %lld x %lld ran on %s", (long long)c->ic, (long long)c->oc,
                 (long long)c->height, (long long)c->width,
                 find_step(plan, "Conv")->implementation);
    struct trial_run t = {0};
    trial_run(&t, m.g, plan, 5);
    double most = 0, largest = 0;
    for (int64_t k = 0; k < shape_elements(&t.got[0]->shape); k++) {
        const double want = tensor_get_f64(t.want[0], k);
        most = fmax(most, fabs(tensor_get_f64(t.got[0], k) - want));
        largest = fmax(largest, fabs(want));
    }
    if (!(most <= 1e-5 * fmax(largest, 1)))
        fail_msg("%s, %lld to %lld channels, %lld x %lld: %g off of %g", implementation,
                 (long long)c->ic, (long long)c->oc, (long long)c->height, (long long)c->width,
                 most, largest);
    trial_release(&t);
    plan_free(plan);
    mesh_release(&m);
}

static inline void winograd_check_all(const char *implementation)
{
    for (size_t i = 0; i < sizeof(winograd_cases) / sizeof(winograd_cases[0]); i++)
        for (int threads = 1; threads <= 2; threads++)
            for (int64_t batch = 1; batch <= 5; batch += 4)
                winograd_check(&winograd_cases[i], implementation, batch, threads);
}
