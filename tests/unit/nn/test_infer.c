/* Many samples through streams of plans, and what outputs say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/nn/infer.h"
#include "tests/unit/nn/plan_nets.h"

enum { WIDTH = 5, SAMPLE = 3 * 6 * 6 };

static void network(struct mesh *m, int64_t batch)
{
    mesh_init(m, 3);
    int x = mesh_input(m, DIMS(batch, 3, 6, 6));
    int y = mesh_conv(m, x, (struct mesh_conv){.ic = 3, .oc = 8, .kernel = 3, .pad = 1});
    y = mesh_unary(m, OP_GLOBAL_AVERAGE_POOL, mesh_unary(m, OP_RELU, y));
    y = mesh_unary(m, OP_FLATTEN, y);
    y = mesh_binary(m, OP_MATMUL, y, mesh_normal(m, 1, DIMS(8, WIDTH)));
    mesh_output(m, y);
    mesh_finish(m);
}

/* Sample i is filled with numbers of its own. */
static int fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)ctx;
    (void)err;
    for (int64_t i = 0; i < count; i++) {
        struct rng rng;
        rng_seed2(&rng, 1, (uint64_t)(first + i));
        for (int k = 0; k < SAMPLE; k++)
            out[i * SAMPLE + k] = (float)rng_normal(&rng);
    }
    return 0;
}

static void one_by_one(const struct graph *g, int64_t n, float *ret)
{
    struct err err = {0};
    for (int64_t i = 0; i < n; i++) {
        const struct shape shape = shape_make(4, (int64_t[]){1, 3, 6, 6});
        _cleanup_(tensor_freep) struct tensor *x = tensor_new(DTYPE_F32, &shape, &err);
        struct tensor *y = NULL;
        fill(NULL, i, 1, x->data, &err);
        must(eval_graph(g, (const struct tensor *const[]){x}, &y, &err), &err);
        memcpy(ret + i * WIDTH, y->data, WIDTH * sizeof(float));
        tensor_free(y);
    }
}

static void all_samples_come_out_in_order(void **state)
{
    (void)state;
    enum { N = 37 };
    float got[N * WIDTH], want[N * WIDTH];
    struct mesh m;
    struct err err = {0};
    network(&m, DIM_BATCH);
    one_by_one(m.g, N, want);
    for (int threads = 1; threads <= 3; threads++) {
        for (int64_t batch = 0; batch <= 8; batch += 4) {
            const struct infer_options o = {.threads = threads, .batch = batch};
            memset(got, 0, sizeof(got));
            must(infer_run(m.g, &o, N, fill, NULL, got, &err), &err);
            for (int i = 0; i < N * WIDTH; i++)
                assert_true(fabsf(got[i] - want[i]) < 1e-4f);
        }
    }
    mesh_release(&m);
}

static void a_network_of_fixed_batch_takes_its_own(void **state)
{
    (void)state;
    enum { N = 7 };
    float got[N * WIDTH], want[N * WIDTH];
    struct mesh m, free_batch;
    struct err err = {0};
    network(&m, 2);
    network(&free_batch, DIM_BATCH);
    one_by_one(free_batch.g, N, want);
    int64_t width = 0;
    must(infer_output_width(m.g, &width, &err), &err);
    assert_int_equal(width, WIDTH);
    must(infer_run(m.g, NULL, N, fill, NULL, got, &err), &err);
    for (int i = 0; i < N * WIDTH; i++)
        assert_true(fabsf(got[i] - want[i]) < 1e-4f);
    mesh_release(&m);
    mesh_release(&free_batch);
}

static int refuse(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)count;
    (void)out;
    return first >= *(int64_t *)ctx ? err_set(err, ERR_DATA_LOSS, "no sample %d", (int)first) : 0;
}

static void a_sample_that_cannot_be_had_ends_the_run(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    float got[40 * WIDTH];
    int64_t from = 16;
    network(&m, DIM_BATCH);
    const struct infer_options o = {.threads = 2, .batch = 4};
    assert_int_equal(infer_run(m.g, &o, 40, refuse, &from, got, &err), -ERR_DATA_LOSS);
    assert_non_null(strstr(err.message, "no sample"));
    mesh_release(&m);
}

static int stop_late(void *ctx, int64_t done, int64_t total, struct err *err)
{
    int64_t *most = ctx;
    assert_int_equal(total, 40);
    assert_true(done > *most);
    *most = done;
    return done >= 20 ? err_set(err, ERR_CANCELLED, "enough") : 0;
}

static void progress_counts_samples_and_can_stop(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    float got[40 * WIDTH];
    int64_t most = 0;
    network(&m, DIM_BATCH);
    const struct infer_options o = {
        .threads = 2, .batch = 4, .progress = stop_late, .progress_ctx = &most};
    assert_int_equal(infer_run(m.g, &o, 40, fill, NULL, got, &err), -ERR_CANCELLED);
    assert_in_range(most, 20, 28);
    mesh_release(&m);
}

static void no_samples_are_no_work(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    network(&m, DIM_BATCH);
    assert_int_equal(infer_run(m.g, NULL, 0, fill, NULL, NULL, &err), 0);
    assert_int_equal(infer_run(m.g, NULL, -1, fill, NULL, NULL, &err), -ERR_INVALID_ARGUMENT);
    mesh_release(&m);
}

static void several_inputs_are_refused(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    int64_t width;
    mesh_init(&m, 1);
    int a = mesh_input(&m, DIMS(DIM_BATCH, 4)), b = mesh_input(&m, DIMS(DIM_BATCH, 4));
    mesh_output(&m, mesh_binary(&m, OP_ADD, a, b));
    mesh_finish(&m);
    assert_int_equal(infer_output_width(m.g, &width, &err), -ERR_UNIMPLEMENTED);
    mesh_release(&m);
}

/* ---- metrics ---- */

static void metrics_of_logits(void **state)
{
    (void)state;
    const float logits[] = {0, 1, 2, /**/ 3, 0, 0}, reference[] = {0, 2, 1, /**/ 5, 0, 0};
    const int32_t labels[] = {2, 1};
    struct infer_metrics r;
    infer_metrics(logits, reference, labels, 2, 3, &r);
    assert_int_equal(r.n, 2);
    assert_true(r.top1 == 0.5);
    assert_true(r.agreement == 0.5);
    double e = exp(1), z = 1 + e + e * e, kl = (e * e * 1 - e * 1) / z; /* q - p differ by 1 */
    double w = exp(5) + 2, v = exp(3) + 2;
    kl += (exp(5) / w) * ((5 - log(w)) - (3 - log(v))) + 2 / w * (-log(w) + log(v));
    assert_true(fabs(r.kl - kl / 2) < 1e-9);
    assert_true(fabs(r.confidence - (e * e / z + exp(3) / v) / 2) < 1e-9);
}

static void metrics_of_probabilities_use_them_as_they_are(void **state)
{
    (void)state;
    const float child[] = {0.5f, 0.5f, 0}, parent[] = {0.25f, 0.75f, 0};
    struct infer_metrics r;
    infer_metrics(child, parent, NULL, 1, 3, &r);
    assert_true(isnan(r.top1));
    assert_true(fabs(r.kl - (0.25 * log(0.5) + 0.75 * log(1.5))) < 1e-6);
    assert_true(fabs(r.confidence - 0.5) < 1e-6);
    infer_metrics(child, NULL, NULL, 1, 3, &r);
    assert_true(isnan(r.agreement) && isnan(r.kl));
}

static void a_hard_zero_does_not_make_kl_infinite(void **state)
{
    (void)state;
    const float child[] = {1, 0}, parent[] = {0.5f, 0.5f};
    struct infer_metrics r;
    infer_metrics(child, parent, NULL, 1, 2, &r);
    assert_true(isfinite(r.kl) && r.kl > 1);
}

/* ---- the paired bound ---- */

/* Answers of two classes, of which the first is right. */
static struct paired_drop drop_of(int both, int worse, int better, int neither)
{
    static float original[40000], network[40000];
    static int32_t labels[20000];
    const int n = both + worse + better + neither;
    struct paired_drop d;
    for (int i = 0; i < n; i++) {
        const bool was = i < both + worse, is = i < both || (!was && i < both + worse + better);
        original[2 * i] = was;
        original[2 * i + 1] = !was;
        network[2 * i] = is;
        network[2 * i + 1] = !is;
    }
    infer_paired_drop(network, original, labels, n, 2, &d);
    assert_int_equal(d.worse, worse);
    assert_int_equal(d.better, better);
    return d;
}

static void near(double got, double want)
{
    if (fabs(got - want) > 5e-5)
        fail_msg("%.6f is not %.6f", got, want);
}

static void many_discordant_pairs_follow_the_normal_bound(void **state)
{
    (void)state;
    /* n = 10000: mean 0.005, s^2 = (150 - 10000 * 0.005^2) / 9999 */
    struct paired_drop d = drop_of(9000, 100, 50, 850);
    near(d.points, 0.5);
    near(d.upper95_points, 0.5 + 1.645 * 100 * sqrt((150 - 0.25) / 9999) / 100);
}

static void few_discordant_pairs_follow_the_exact_bounds(void **state)
{
    (void)state;
    /* 3 worse, 1 better of 1000. Among the 4 discordant: p with P(X <= 3) = 1 - p^4 = 0.05:
     * p = 0.95^(1/4) = 0.987259, limit (2 p - 1) * 4 / 1000 = 0.389807 points. Of all 1000:
     * P(X <= 3) = 0.05 at p = 0.0077351, less 1 / 1000: 0.67351 points. */
    near(drop_of(900, 3, 1, 96).points, 0.2);
    near(drop_of(900, 3, 1, 96).upper95_points, 0.67351);
    /* 10 and 10 of 1000: p = 0.6980460 among the 20: 0.792184; of all: 0.0168835 - 0.01. */
    near(drop_of(900, 10, 10, 80).points, 0);
    near(drop_of(900, 10, 10, 80).upper95_points, 0.792184);
}

static void no_difference_at_all_proves_as_much_as_n_allows(void **state)
{
    (void)state;
    near(drop_of(900, 0, 0, 100).upper95_points, 100 * (1 - pow(0.05, 1.0 / 1000)));
    near(drop_of(9, 0, 0, 0).upper95_points, 100 * (1 - pow(0.05, 1.0 / 9)));
}

static void a_better_child_has_a_negative_drop(void **state)
{
    (void)state;
    struct paired_drop d = drop_of(9000, 50, 200, 750);
    near(d.points, -1.5);
    assert_true(d.upper95_points < -1.2 && d.upper95_points > d.points);
}

static void without_labels_the_original_is_right(void **state)
{
    (void)state;
    const float original[] = {0, 1, 1, 0, 0, 1, 1, 0}, network[] = {0, 1, 0, 1, 0, 2, 3, 0};
    struct paired_drop d;
    infer_paired_drop(network, original, NULL, 4, 2, &d);
    assert_int_equal(d.worse, 1);
    assert_int_equal(d.better, 0);
    near(d.points, 25);
}

static void a_bound_that_is_to_miss_less_is_wider(void **state)
{
    (void)state;
    /* z of 0.05 / 6 is 2.394 */
    const double deviation = 100 * sqrt((150 - 0.25) / 9999) / 100;
    near(infer_drop_bound(100, 50, 10000, 0.05 / 6), 0.5 + 2.394 * deviation);
    near(infer_drop_bound(100, 50, 10000, 0.05), 0.5 + 1.645 * deviation);
    /* exact: nothing seen of 1000 */
    near(infer_drop_bound(0, 0, 1000, 0.01), 100 * (1 - pow(0.01, 1.0 / 1000)));
}

/* ---- several networks and one limit ---- */

#define ALONE(worse, share) infer_drop_bound(worse, 0, 10000, 0.05 / (share))

/* 20 and 30 samples of 10000 keep one point whatever is asked; 83 do when asked alone only. */
static void who_keeps_the_limit_leaves_room_for_the_others(void **state)
{
    (void)state;
    struct drop_case cases[] = {{83, 0, 10000, 0}, {20, 0, 10000, 0}, {30, 0, 10000, 0}};
    assert_true(ALONE(83, 3) > 1 && ALONE(83, 1) < 1);
    infer_drop_bounds(cases, 3, 0.05, 1);
    near(cases[0].bound, ALONE(83, 1));
    near(cases[1].bound, ALONE(20, 3));
    near(cases[2].bound, ALONE(30, 3));
}

/* The second keeps the limit alone, but not beside one that breaks it. */
static void who_breaks_the_limit_leaves_none(void **state)
{
    (void)state;
    struct drop_case cases[] = {{300, 0, 10000, 0}, {83, 0, 10000, 0}, {20, 0, 10000, 0}};
    assert_true(ALONE(83, 1) < 1 && ALONE(83, 2) > 1);
    infer_drop_bounds(cases, 3, 0.05, 1);
    near(cases[0].bound, ALONE(300, 2));
    near(cases[1].bound, ALONE(83, 2));
    near(cases[2].bound, ALONE(20, 3));
}

static void one_network_alone_is_not_corrected(void **state)
{
    (void)state;
    struct drop_case one[] = {{80, 0, 10000, 0}};
    infer_drop_bounds(one, 1, 0.05, 1);
    near(one[0].bound, ALONE(80, 1));
    infer_drop_bounds(one, 0, 0.05, 1); /* and none is no trouble */
}

static void without_a_limit_all_bounds_hold_together(void **state)
{
    (void)state;
    struct drop_case cases[] = {{80, 0, 10000, 0}, {20, 0, 10000, 0}};
    infer_drop_bounds(cases, 2, 0.05, (double)-INFINITY);
    near(cases[0].bound, ALONE(80, 2));
    near(cases[1].bound, ALONE(20, 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_samples_come_out_in_order),
        cmocka_unit_test(a_network_of_fixed_batch_takes_its_own),
        cmocka_unit_test(a_sample_that_cannot_be_had_ends_the_run),
        cmocka_unit_test(progress_counts_samples_and_can_stop),
        cmocka_unit_test(no_samples_are_no_work),
        cmocka_unit_test(several_inputs_are_refused),
        cmocka_unit_test(metrics_of_logits),
        cmocka_unit_test(metrics_of_probabilities_use_them_as_they_are),
        cmocka_unit_test(a_hard_zero_does_not_make_kl_infinite),
        cmocka_unit_test(many_discordant_pairs_follow_the_normal_bound),
        cmocka_unit_test(few_discordant_pairs_follow_the_exact_bounds),
        cmocka_unit_test(no_difference_at_all_proves_as_much_as_n_allows),
        cmocka_unit_test(a_better_child_has_a_negative_drop),
        cmocka_unit_test(without_labels_the_original_is_right),
        cmocka_unit_test(a_bound_that_is_to_miss_less_is_wider),
        cmocka_unit_test(who_keeps_the_limit_leaves_room_for_the_others),
        cmocka_unit_test(who_breaks_the_limit_leaves_none),
        cmocka_unit_test(one_network_alone_is_not_corrected),
        cmocka_unit_test(without_a_limit_all_bounds_hold_together),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
