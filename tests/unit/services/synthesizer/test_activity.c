/* How active channels are. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/synthesizer/activity.h"
#include "tests/support/quant_nets.h"

/* x -> a (1x1, the identity times -1, 0, 2) -> Relu -> b */
static void make(struct net *net)
{
    static const int64_t dims[] = {DIM_BATCH, 3, 4, 4}, w[] = {3, 3, 1, 1};
    static const float scales[9] = {-1, 0, 0, 0, 0, 0, 0, 0, 2};
    const struct net_conv next = {.in = 3, .out = 4, .kernel = 3};
    net_init(net, 5);
    const int x = net_input(net, "x", 4, dims);
    const int inputs[] = {x, net_floats(net, "w", 4, w, scales)};
    int y = net_node(net, OP_CONV, "a", 2, inputs);
    y = net_unary(net, OP_RELU, "relu", y);
    net_finish(net, net_conv(net, "b", y, &next));
}

/* Sample s is s + 1 everywhere. */
static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count * 48; i++)
        out[i] = (float)(first + i / 48 + 1);
    return 0;
}

static void means_are_those_of_what_convolutions_read(void **state)
{
    (void)state;
    struct net net = {0};
    make(&net);
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct activity activity;
    struct err err = {0};
    if (activity_of(net.g, 9, 2, fill, NULL, arena, &activity, &err) < 0)
        fail_msg("%s", err.message);
    const double *mean = activity.mean[graph_find_value(net.g, "relu_out")];
    assert_non_null(mean);
    assert_true(mean[0] == 0 && mean[1] == 0); /* negative; nothing */
    assert_true(fabs(mean[2] - 2 * 5) < 1e-5);
    assert_null(activity.mean[graph_find_value(net.g, "a_out")]);
    assert_null(activity.mean[graph_find_value(net.g, "x")]); /* not the network's own */
    net_release(&net);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(means_are_those_of_what_convolutions_read),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
