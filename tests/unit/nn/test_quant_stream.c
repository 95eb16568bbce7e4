/* Samples through a graph in batches: each once, in pieces that do not depend on the threads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/nn/quantize_stream.h"
#include "tests/support/quant_nets.h"

enum { MOST = 1000 };

static const int64_t row[] = {DIM_BATCH, 4};

/* input -> Relu, whose first number is the sample's index */
static void make(struct net *net, const int64_t *dims)
{
    net_init(net, 1);
    net_finish(net, net_unary(net, OP_RELU, "relu", net_input(net, "input", 2, dims)));
}

struct seen {
    int64_t piece;
    int taken[MOST];    /* how often */
    int64_t next[MOST]; /* of a piece: the sample that must come next, less its first */
    atomic_bool wrong;  /* of all threads */
};

static int fill(void *ctx, int64_t first, int64_t count, void *out, struct err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count * 4; i++)
        ((float *)out)[i] = (float)(first + i / 4);
    return 0;
}

static int take(void *ctx, int worker, int64_t first, int64_t count, const void *input,
                void *const *outputs, struct err *err)
{
    (void)worker;
    (void)input;
    (void)err;
    struct seen *s = ctx;
    const float *out = outputs[0];
    for (int64_t i = 0; i < count; i++) {
        const int64_t sample = first + i;
        s->wrong |= out[i * 4] != (float)sample;
        s->taken[sample]++;
        int64_t *next = &s->next[sample / s->piece]; /* one thread at a time */
        s->wrong |= sample % s->piece != *next;
        *next += 1;
    }
    return 0;
}

static void run(const struct graph *g, int64_t n, int threads, int64_t batch)
{
    static struct seen seen;
    struct err err = {0};
    struct quant_stream stream = {.graph = g,
                                  .n = n,
                                  .threads = threads,
                                  .batch = batch,
                                  .fill = fill,
                                  .take = take,
                                  .take_ctx = &seen};
    seen = (struct seen){.piece = quant_stream_piece(&stream)};
    assert_true(seen.piece > 0 && (n + seen.piece - 1) / seen.piece <= QUANT_PIECES_MAX);
    if (quant_stream_run(&stream, &err) < 0)
        fail_msg("%s", err.message);
    assert_false(seen.wrong);
    for (int64_t i = 0; i < n; i++)
        assert_int_equal(seen.taken[i], 1);
}

static void every_sample_is_taken_once_and_in_order_within_its_piece(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    make(&net, row);
    const int64_t counts[] = {1, 15, 16, 17, 200, 999};
    for (int i = 0; i < 6; i++)
        for (int threads = 1; threads <= 3; threads++)
            run(net.g, counts[i], threads, 0);
    run(net.g, 999, 2, 1);
    run(net.g, 999, 2, 7);
}

static void a_fixed_batch_is_kept(void **state)
{
    (void)state;
    const int64_t five[] = {5, 4};
    _cleanup_(net_release) struct net net;
    make(&net, five);
    run(net.g, 23, 2, 0);
}

static void the_piece_does_not_depend_on_the_threads(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    make(&net, row);
    struct quant_stream stream = {.graph = net.g, .n = 5000, .threads = 1};
    const int64_t piece = quant_stream_piece(&stream);
    stream.threads = 7;
    assert_int_equal(quant_stream_piece(&stream), piece);
}

static void a_network_with_two_inputs_is_refused(void **state)
{
    (void)state;
    _cleanup_(net_release) struct net net;
    net_init(&net, 1);
    const int a = net_input(&net, "a", 2, row), b = net_input(&net, "b", 2, row);
    net_finish(&net, net_add(&net, "add", a, b));
    const struct quant_stream stream = {.graph = net.g, .n = 4, .fill = fill, .take = take};
    struct err err = {0};
    assert_int_equal(quant_stream_piece(&stream), 0);
    assert_int_equal(quant_stream_run(&stream, &err), -ERR_UNIMPLEMENTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_sample_is_taken_once_and_in_order_within_its_piece),
        cmocka_unit_test(a_fixed_batch_is_kept),
        cmocka_unit_test(the_piece_does_not_depend_on_the_threads),
        cmocka_unit_test(a_network_with_two_inputs_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
