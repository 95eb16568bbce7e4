/* The constrained shortest paths against brute force on small graphs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "services/synthesizer/select.h"
#include "shared/base/rng.h"

#define MAX_PATHS 20000

struct brute {
    const struct select_problem *problem;
    double cost[MAX_PATHS], score[MAX_PATHS];
    int n;
};

static void walk(struct brute *b, int node, double cost, double score)
{
    if (node == b->problem->sink) {
        assert_true(b->n < MAX_PATHS);
        b->cost[b->n] = cost;
        b->score[b->n++] = score;
        return;
    }
    for (int i = 0; i < b->problem->n_arcs; i++) {
        const struct select_arc *a = &b->problem->arcs[i];
        if (a->from == node)
            walk(b, a->to, cost + a->cost, score + a->score);
    }
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The costs of the k cheapest paths within the limit, by trying all. */
static int brute_best(const struct brute *b, double limit, int k, double *ret)
{
    static double costs[MAX_PATHS];
    int n = 0;
    for (int i = 0; i < b->n; i++)
        if (b->score[i] <= limit)
            costs[n++] = b->cost[i];
    qsort(costs, (size_t)n, sizeof(*costs), ascending);
    for (int i = 0; i < n && i < k; i++)
        ret[i] = costs[i];
    return n < k ? n : k;
}

/* The least score of a path within the cost; INFINITY: there is none. */
static double brute_gentlest(const struct brute *b, double max_cost)
{
    double least = INFINITY;
    for (int i = 0; i < b->n; i++)
        if (b->cost[i] <= max_cost)
            least = fmin(least, b->score[i]);
    return least;
}

/* A chain of blocks with parallel arcs, and some long arcs, costs on a grid so that ties happen. */
static int random_arcs(struct rng *rng, int n_nodes, struct select_arc *arcs)
{
    int n = 0;
    for (int v = 0; v + 1 < n_nodes; v++)
        for (int i = 0, m = 1 + (int)rng_below(rng, 3); i < m; i++)
            arcs[n++] = (struct select_arc){v, v + 1, (double)rng_below(rng, 8),
                                            (double)rng_below(rng, 8) / 4};
    for (int i = 0; i < 3; i++) {
        int from = (int)rng_below(rng, (uint64_t)n_nodes - 1);
        int to = from + 1 + (int)rng_below(rng, (uint64_t)(n_nodes - from - 1));
        arcs[n++] = (struct select_arc){from, to, (double)rng_below(rng, 20),
                                        (double)rng_below(rng, 20) / 4};
    }
    return n;
}

static void the_k_best_paths_under_every_limit_are_those_of_brute_force(void **state)
{
    (void)state;
    static struct brute brute;
    for (uint64_t seed = 1; seed <= 300; seed++) {
        struct rng rng;
        rng_seed(&rng, seed);
        struct select_arc arcs[64];
        int n_nodes = 3 + (int)rng_below(&rng, 5), k = 1 + (int)rng_below(&rng, 5);
        struct select_problem problem = {
            .n_nodes = n_nodes, .source = 0, .sink = n_nodes - 1, .arcs = arcs};
        problem.n_arcs = random_arcs(&rng, n_nodes, arcs);
        brute.problem = &problem;
        brute.n = 0;
        walk(&brute, 0, 0, 0);

        _cleanup_(arena_freep) struct arena *arena = arena_new();
        struct select_front front;
        struct err err = {0};
        struct select_options options = {.k = k, .max_score = -1};
        assert_int_equal(select_front(&problem, &options, arena, &front, &err), 0);
        assert_true(front.exact);
        for (double limit = 0; limit < 12; limit += 0.25) {
            double expected[8];
            int found[8];
            int n = brute_best(&brute, limit, k, expected);
            assert_int_equal(select_best(&front, limit, k, found), n);
            for (int i = 0; i < n; i++)
                assert_true(front.paths[found[i]].cost == expected[i]);
        }
        for (double limit = 0; limit < 40; limit++) {
            const double score = brute_gentlest(&brute, limit);
            const int found = select_gentlest(&front, limit);
            assert_int_equal(found < 0, isinf(score));
            assert_true(found < 0 ||
                        (front.paths[found].score == score && front.paths[found].cost <= limit));
        }
    }
}

static void a_path_adds_up_to_its_cost_and_score_and_is_connected(void **state)
{
    (void)state;
    struct rng rng;
    rng_seed(&rng, 7);
    struct select_arc arcs[64];
    struct select_problem problem = {.n_nodes = 9, .sink = 8, .arcs = arcs};
    problem.n_arcs = random_arcs(&rng, 9, arcs);
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct select_front front;
    struct select_options options = {.k = 3, .max_score = -1};
    assert_int_equal(select_front(&problem, &options, arena, &front, NULL), 0);
    assert_true(front.n_paths > 0);
    for (int i = 0; i < front.n_paths; i++) {
        double cost = 0, score = 0;
        int node = 0;
        for (int j = 0; j < front.paths[i].n_arcs; j++) {
            const struct select_arc *a = &arcs[front.paths[i].arcs[j]];
            assert_int_equal(a->from, node);
            node = a->to;
            cost += a->cost;
            score += a->score;
        }
        assert_int_equal(node, 8);
        assert_true(cost == front.paths[i].cost && score == front.paths[i].score);
    }
}

static void a_score_limit_drops_what_is_above_it(void **state)
{
    (void)state;
    const struct select_arc arcs[] = {{0, 1, 1, 5}, {0, 1, 3, 1}};
    struct select_problem problem = {.n_nodes = 2, .sink = 1, .n_arcs = 2, .arcs = arcs};
    struct select_options options = {.k = 4, .max_score = 2};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct select_front front;
    assert_int_equal(select_front(&problem, &options, arena, &front, NULL), 0);
    assert_int_equal(front.n_paths, 1);
    assert_true(front.paths[0].cost == 3);
}

static void an_unreachable_sink_gives_no_path(void **state)
{
    (void)state;
    const struct select_arc arcs[] = {{0, 1, 1, 1}};
    struct select_problem problem = {.n_nodes = 3, .sink = 2, .n_arcs = 1, .arcs = arcs};
    struct select_options options = {.k = 1, .max_score = -1};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct select_front front;
    assert_int_equal(select_front(&problem, &options, arena, &front, NULL), 0);
    assert_int_equal(front.n_paths, 0);
}

static void arcs_backwards_negative_or_nan_are_refused(void **state)
{
    (void)state;
    const struct select_arc bad[] = {
        {1, 0, 1, 1}, {0, 0, 1, 1}, {0, 1, -1, 1}, {0, 1, 1, NAN}, {0, 2, 1, 1}};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        struct select_problem problem = {.n_nodes = 2, .sink = 1, .n_arcs = 1, .arcs = &bad[i]};
        struct select_options options = {.k = 1, .max_score = -1};
        _cleanup_(arena_freep) struct arena *arena = arena_new();
        struct select_front front;
        struct err err = {0};
        assert_int_equal(select_front(&problem, &options, arena, &front, &err),
                         -ERR_INVALID_ARGUMENT);
        assert_true(err.message[0]);
    }
}

static void beyond_the_label_limit_both_ends_of_the_front_are_kept_and_it_says_inexact(void **state)
{
    (void)state;
    struct select_arc arcs[64];
    int n = 0;
    for (int v = 0; v < 16; v++) {
        arcs[n++] = (struct select_arc){v, v + 1, 1 + 0.001 * v, 0};
        arcs[n++] = (struct select_arc){v, v + 1, 0, 1 + 0.003 * v * v};
    }
    struct select_problem problem = {.n_nodes = 17, .sink = 16, .n_arcs = n, .arcs = arcs};
    struct select_options options = {.k = 1, .max_score = -1, .max_labels = 50};
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct select_front front;
    assert_int_equal(select_front(&problem, &options, arena, &front, NULL), 0);
    assert_false(front.exact);
    assert_true(front.n_paths > 2 && front.n_paths <= 50);
    assert_true(front.paths[0].cost == 0);
    assert_true(front.paths[front.n_paths - 1].score == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_k_best_paths_under_every_limit_are_those_of_brute_force),
        cmocka_unit_test(a_path_adds_up_to_its_cost_and_score_and_is_connected),
        cmocka_unit_test(a_score_limit_drops_what_is_above_it),
        cmocka_unit_test(an_unreachable_sink_gives_no_path),
        cmocka_unit_test(arcs_backwards_negative_or_nan_are_refused),
        cmocka_unit_test(
            beyond_the_label_limit_both_ends_of_the_front_are_kept_and_it_says_inexact),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
