/* From a network, a profile and scores to arcs: what each mix of precisions costs. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/synthesizer/arcs.h"
#include "services/synthesizer/space.h"
#include "shared/graph/infer.h"

/* x -> a (Conv) -> Relu -> [cut] -> b (Conv) -> Relu -> c (Conv) -> Add(cut) -> Relu -> y */
static int add_conv(struct graph *g, const char *name, int in)
{
    static float weights[4 * 4 * 3 * 3];
    struct shape shape = shape_make(4, (const int64_t[]){4, 4, 3, 3});
    int w = graph_add_constant(g, NULL, DTYPE_F32, &shape, weights, NULL);
    const int inputs[] = {in, w};
    int node = graph_add_node(g, -1, OP_CONV, name, 2, inputs, 1, NULL, NULL);
    assert_true(node >= 0);
    const int64_t pads[] = {1, 1, 1, 1};
    assert_int_equal(graph_set_attr_ints(g, g->nodes[node], "pads", 4, pads, NULL), 0);
    return g->nodes[node]->outputs[0];
}

static int add_plain(struct graph *g, enum op op, const char *name, int n, const int *inputs)
{
    int node = graph_add_node(g, -1, op, name, n, inputs, 1, NULL, NULL);
    assert_true(node >= 0);
    return g->nodes[node]->outputs[0];
}

static struct graph *residual_network(void)
{
    struct graph *g = graph_new(13, NULL);
    struct shape shape = shape_make(4, (const int64_t[]){DIM_BATCH, 4, 8, 8});
    int x = graph_add_input(g, "x", DTYPE_F32, &shape, NULL);
    int a = add_conv(g, "a", x);
    int cut = add_plain(g, OP_RELU, "ra", 1, &a);
    int b = add_conv(g, "b", cut);
    int rb = add_plain(g, OP_RELU, "rb", 1, &b);
    int c = add_conv(g, "c", rb);
    int sum = add_plain(g, OP_ADD, "sum", 2, (const int[]){c, cut});
    int y = add_plain(g, OP_RELU, "ry", 1, &sum);
    assert_int_equal(graph_add_output(g, y, NULL), 0);
    struct err err = {0};
    if (graph_infer(g, &err) < 0)
        fail_msg("%s", err.message);
    return g;
}

/* fp32 takes 10 us a layer, int8 4 us; a conversion of any value 1 us either way. */
static double layer_times[] = {10, 4};
static char *precisions[] = {(char *)"fp32", (char *)"int8"};

struct fixture {
    Hone__V1__Profile profile;
    Hone__V1__Profile__Layer layer[3], *layers[3];
    Hone__V1__Profile__Conversion conversion[32], *conversions[32];
    Hone__V1__Scores scores;
    Hone__V1__Scores__Score score[3], *score_list[3];
    struct graph *g;
    struct arena *arena;
};

static void fixture_make(struct fixture *f)
{
    static const char *const names[] = {"a", "b", "c"};
    f->g = residual_network();
    f->arena = arena_new();
    hone__v1__profile__init(&f->profile);
    hone__v1__scores__init(&f->scores);
    f->profile.precisions = precisions;
    f->profile.n_precisions = 2;
    for (int i = 0; i < 3; i++) {
        hone__v1__profile__layer__init(&f->layer[i]);
        f->layer[i].layer = (char *)names[i];
        f->layer[i].us = layer_times;
        f->layer[i].n_us = 2;
        f->layers[i] = &f->layer[i];
        hone__v1__scores__score__init(&f->score[i]);
        f->score[i].layer = (char *)names[i];
        f->score[i].precision = (char *)"int8";
        f->score[i].kl = 0.01 * (i + 1);
        f->score_list[i] = &f->score[i];
    }
    f->profile.layers = f->layers;
    f->profile.n_layers = 3;
    f->scores.scores = f->score_list;
    f->scores.n_scores = 3;
    for (int v = 0; v < f->g->n_values; v++) {
        if (f->g->values[v]->constant)
            continue;
        for (int k = 0; k < 2; k++) {
            Hone__V1__Profile__Conversion *c = &f->conversion[f->profile.n_conversions];
            hone__v1__profile__conversion__init(c);
            c->value = (char *)f->g->values[v]->name;
            c->from = precisions[k];
            c->to = precisions[!k];
            c->us = 1;
            f->conversions[f->profile.n_conversions++] = c;
        }
    }
    f->profile.conversions = f->conversions;
}

static void fixture_end(struct fixture *f)
{
    graph_free(f->g);
    arena_free(f->arena);
}

static const char *chosen(const struct arc_choice *choice, const char *layer)
{
    for (int i = 0; i < choice->n; i++)
        if (strcmp(choice->layers[i], layer) == 0)
            return choice->precisions[i];
    return "none";
}

static void front_of_cost(struct fixture *f, bool by_size, struct arcs *arcs,
                          struct select_front *front)
{
    struct err err = {0};
    if (arcs_build(f->g, &f->profile, &f->scores, NULL, by_size, f->arena, arcs, &err) < 0)
        fail_msg("%s", err.message);
    struct select_options options = {.k = 1, .max_score = -1};
    assert_int_equal(select_front(&arcs->problem, &options, f->arena, front, &err), 0);
    assert_true(front->n_paths > 0);
}

static void front_of(struct fixture *f, struct arcs *arcs, struct select_front *front)
{
    front_of_cost(f, false, arcs, front);
}

static void the_fastest_path_is_int8_throughout_and_costs_its_layers_and_both_ends(void **state)
{
    (void)state;
    struct fixture f = {0};
    fixture_make(&f);
    struct arcs arcs;
    struct select_front front;
    front_of(&f, &arcs, &front);
    struct arc_choice choice;
    assert_int_equal(arcs_path_choice(&arcs, &front.paths[0], f.arena, &choice, NULL), 0);
    assert_int_equal(choice.n, 3);
    for (int i = 0; i < 3; i++)
        assert_string_equal(choice.precisions[i], "int8");
    /* 3 layers, the input to 8 bits, the output back. */
    assert_true(fabs(front.paths[0].cost - (3 * 4 + 1 + 1)) < 1e-9);
    assert_true(fabs(front.paths[0].score - 0.06) < 1e-9);
    fixture_end(&f);
}

static void without_any_loss_allowed_everything_stays_fp32_and_nothing_is_converted(void **state)
{
    (void)state;
    struct fixture f = {0};
    fixture_make(&f);
    struct arcs arcs;
    struct select_front front;
    front_of(&f, &arcs, &front);
    int best;
    assert_int_equal(select_best(&front, 0, 1, &best), 1);
    struct arc_choice choice;
    assert_int_equal(arcs_path_choice(&arcs, &front.paths[best], f.arena, &choice, NULL), 0);
    for (int i = 0; i < 3; i++)
        assert_string_equal(choice.precisions[i], "fp32");
    assert_true(fabs(front.paths[best].cost - 30) < 1e-9);
    fixture_end(&f);
}

static void a_limit_picks_the_layers_that_fit_and_pays_for_the_conversions_between(void **state)
{
    (void)state;
    struct fixture f = {0};
    fixture_make(&f);
    struct arcs arcs;
    struct select_front front;
    front_of(&f, &arcs, &front);
    int best;
    assert_int_equal(select_best(&front, 0.03, 1, &best), 1);
    struct arc_choice choice;
    assert_int_equal(arcs_path_choice(&arcs, &front.paths[best], f.arena, &choice, NULL), 0);
    assert_string_equal(chosen(&choice, "a"), "int8");
    assert_string_equal(chosen(&choice, "b"), "int8");
    assert_string_equal(chosen(&choice, "c"), "fp32");
    /* 4 + 4 + 10; input to 8 bits, b's output back to f32. */
    assert_true(fabs(front.paths[best].cost - 20) < 1e-9);
    fixture_end(&f);
}

static void a_layer_that_cannot_run_in_int8_is_never_chosen_for_it(void **state)
{
    (void)state;
    struct fixture f = {0};
    fixture_make(&f);
    static double only_fp32[] = {10, 0};
    f.layer[1].us = only_fp32;
    struct arcs arcs;
    struct select_front front;
    front_of(&f, &arcs, &front);
    for (int i = 0; i < front.n_paths; i++) {
        struct arc_choice choice;
        assert_int_equal(arcs_path_choice(&arcs, &front.paths[i], f.arena, &choice, NULL), 0);
        assert_string_equal(chosen(&choice, "b"), "fp32");
    }
    fixture_end(&f);
}

static void a_layer_without_a_time_is_an_error_that_names_it(void **state)
{
    (void)state;
    struct fixture f = {0};
    fixture_make(&f);
    static double unknown[] = {0, 0};
    f.layer[2].us = unknown;
    struct arcs arcs;
    struct err err = {0};
    assert_int_equal(arcs_build(f.g, &f.profile, &f.scores, NULL, false, f.arena, &arcs, &err),
                     -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "layer c "));
    fixture_end(&f);
}

/* ---- alternatives ---- */

static Hone__V1__Library__Arc alternative(const char *text, const char *from, const char *to,
                                          double *us, double *kl)
{
    Hone__V1__Library__Arc a = HONE__V1__LIBRARY__ARC__INIT;
    a.text = (char *)text;
    a.from = (char *)from;
    a.to = (char *)to;
    a.network = (char *)(us ? "network" : "");
    a.us = us;
    a.n_us = us ? 2 : 0;
    a.kl = kl;
    a.n_kl = 2;
    return a;
}

/* For the block of b and c: nothing at all; one layer, as fast as any; and one that is out. */
struct with_library {
    struct fixture f;
    Hone__V1__Library library;
    Hone__V1__Library__Arc arcs[3], *list[3];
    struct arcs built;
    struct select_front front;
};

static void with_library_make(struct with_library *w, int k, bool by_size)
{
    static double us[] = {9, 3.5}, kl[] = {0.005, 0.012}, nothing[] = {0.09, 0.09}, free[] = {1, 1};
    fixture_make(&w->f);
    hone__v1__library__init(&w->library);
    w->arcs[0] = alternative("identity", "ra_out", "sum_out", NULL, nothing);
    w->arcs[1] = alternative("conv", "ra_out", "sum_out", us, kl);
    w->arcs[2] = alternative("free", "x", "ry_out", free, free);
    w->arcs[1].parameters = 10;
    w->arcs[2].out = (char *)"it is not faster";
    for (int i = 0; i < 3; i++)
        w->list[i] = &w->arcs[i];
    w->library.precisions = precisions;
    w->library.n_precisions = 2;
    w->library.arcs = w->list;
    w->library.n_arcs = 3;
    struct err err = {0};
    const struct select_options options = {.k = k, .max_score = -1};
    if (arcs_build(w->f.g, &w->f.profile, &w->f.scores, &w->library, by_size, w->f.arena, &w->built,
                   &err) < 0)
        fail_msg("%s", err.message);
    assert_int_equal(select_front(&w->built.problem, &options, w->f.arena, &w->front, &err), 0);
}

/* The alternative on the best path within the limit on the score; its cost. */
static const struct arc_choice *best_within(struct with_library *w, double limit, double *cost)
{
    const struct arc_choice **found;
    int best;
    assert_int_equal(select_best(&w->front, limit, 1, &best), 1);
    const struct select_path *path = &w->front.paths[best];
    const int n = arcs_path_alternatives(&w->built, path, w->f.arena, &found, NULL);
    assert_in_range(n, 0, 1);
    *cost = path->cost;
    return n ? found[0] : NULL;
}

static void alternatives_compete_with_what_they_replace_in_every_precision(void **state)
{
    (void)state;
    struct with_library w = {0};
    double cost;
    with_library_make(&w, 1, false);
    assert_null(best_within(&w, 0, &cost)); /* nothing may be lost */
    assert_true(fabs(cost - 30) < 1e-9);
    const struct arc_choice *a = best_within(&w, 0.005, &cost); /* in fp32 */
    assert_ptr_equal(a->instead, &w.arcs[1]);
    assert_string_equal(a->precision, "fp32");
    assert_true(fabs(cost - (10 + 9)) < 1e-9);
    a = best_within(&w, 0.022, &cost); /* all in int8: input to 8 bits, the answer back */
    assert_string_equal(a->precision, "int8");
    assert_true(fabs(cost - (4 + 3.5 + 1 + 1)) < 1e-9);
    a = best_within(&w, 0.2, &cost); /* nothing in its place: 8 bits go through */
    assert_ptr_equal(a->instead, &w.arcs[0]);
    assert_true(fabs(cost - (4 + 1 + 1)) < 1e-9);
    fixture_end(&w.f);
}

/* Where bytes count, those of its parameters: in 8 bits as many as those of any student. */
static void alternatives_have_bytes(void **state)
{
    (void)state;
    struct with_library w = {0};
    double bytes;
    with_library_make(&w, 1, true);
    best_within(&w, 0, &bytes);
    assert_true(fabs(bytes - 3 * 3.4 * 4 * 4 * 9) < 1e-6);
    const struct arc_choice *a = best_within(&w, 0.005, &bytes); /* in fp32: 10 parameters */
    assert_ptr_equal(a->instead, &w.arcs[1]);
    assert_true(fabs(bytes - (3.4 * 4 * 4 * 9 + 3.4 * 10)) < 1e-6);
    a = best_within(&w, 0.013, &bytes);
    assert_string_equal(a->precision, "int8");
    const double own = space_bytes(true, 10) - space_bytes(true, 0);
    assert_true(own < 10 && fabs(bytes - (3.4 * 4 * 4 * 9 + own)) < 1e-6);
    fixture_end(&w.f);
}

static void a_path_names_the_layers_that_it_keeps(void **state)
{
    (void)state;
    struct with_library w = {0};
    with_library_make(&w, 4, false);
    for (int i = 0; i < w.front.n_paths; i++) {
        const struct arc_choice **found;
        struct arc_choice kept;
        const int n = arcs_path_alternatives(&w.built, &w.front.paths[i], w.f.arena, &found, NULL);
        assert_int_equal(arcs_path_choice(&w.built, &w.front.paths[i], w.f.arena, &kept, NULL), 0);
        assert_int_equal(kept.n, n ? 1 : 3);
        assert_string_equal(kept.layers[0], "a");
    }
    fixture_end(&w.f);
}

/* Every path of the problem, one by one. */
struct every {
    const struct select_problem *problem;
    const struct select_front *front;
    int n, k;
    struct {
        double cost, score;
    } paths[20000];
};

static void walk(struct every *e, int node, double cost, double score)
{
    if (node == e->problem->sink) {
        assert_true(e->n < 20000);
        e->paths[e->n].cost = cost;
        e->paths[e->n++].score = score;
        return;
    }
    for (int i = 0; i < e->problem->n_arcs; i++)
        if (e->problem->arcs[i].from == node)
            walk(e, e->problem->arcs[i].to, cost + e->problem->arcs[i].cost,
                 score + e->problem->arcs[i].score);
}

static double cheapest(const struct every *e, double limit)
{
    double best = INFINITY;
    for (int i = 0; i < e->n; i++)
        if (e->paths[i].score <= limit)
            best = fmin(best, e->paths[i].cost);
    return best;
}

static void structure_and_precision_are_selected_together_as_by_brute_force(void **state)
{
    (void)state;
    static struct every every;
    struct with_library w = {0};
    with_library_make(&w, 3, false);
    every.problem = &w.built.problem;
    walk(&every, w.built.problem.source, 0, 0);
    assert_true(w.front.exact && every.n > 10);
    for (double limit = 0; limit < 0.2; limit += 0.001) {
        double cost;
        best_within(&w, limit, &cost);
        assert_true(fabs(cost - cheapest(&every, limit)) < 1e-9);
    }
    fixture_end(&w.f);
}

/* Of every mix of fp32, int8 and int4: the fewest bytes within the limit. */
static double least_bytes(Hone__V1__Scores__Score *const *scores, double limit)
{
    double least = INFINITY;
    for (int code = 0; code < 27; code++) {
        double bytes = 0, kl = 0;
        for (int i = 0, rest = code; i < 3; i++, rest /= 3) {
            const Hone__V1__Scores__Score *s = scores[rest % 3 == 2 ? 3 + i : i];
            bytes += rest % 3 ? s->bytes : 3.4 * 4 * 4 * 9;
            kl += rest % 3 ? s->kl : 0;
        }
        if (kl <= limit + 1e-12)
            least = fmin(least, bytes);
    }
    return least;
}

static void where_small_is_wanted_bytes_are_the_cost_and_bits_the_choice(void **state)
{
    (void)state;
    struct fixture f = {0};
    Hone__V1__Scores__Score few[3], *all[6];
    fixture_make(&f);
    for (int i = 0; i < 3; i++) {
        f.score[i].bytes = 150;
        few[i] = f.score[i];
        few[i].precision = (char *)"int4";
        few[i].bytes = 60 + 7 * i;
        few[i].kl = 0.1 * (3 - i);
        all[i] = &f.score[i];
        all[3 + i] = &few[i];
    }
    f.scores.scores = all;
    f.scores.n_scores = 6;
    struct arcs arcs;
    struct select_front front;
    front_of_cost(&f, true, &arcs, &front);
    assert_true(arcs.exact && arcs.floor_us == 0);
    assert_true(fabs(front.paths[0].cost - (60 + 67 + 74)) < 1e-9);
    for (double limit = 0; limit < 0.7; limit += 0.01) {
        int best;
        assert_int_equal(select_best(&front, limit + 1e-12, 1, &best), 1);
        assert_true(fabs(front.paths[best].cost - least_bytes(all, limit)) < 1e-9);
    }
    fixture_end(&f);
}

static void the_distance_of_two_choices_counts_layers_that_differ(void **state)
{
    (void)state;
    const char *layers[] = {"a", "b", "c"};
    const char *p[] = {"int8", "int8", "fp32"}, *q[] = {"int8", "fp32", "int8"};
    struct arc_choice a = {.n = 3, .layers = layers, .precisions = p};
    struct arc_choice b = {.n = 3, .layers = layers, .precisions = q};
    assert_int_equal(arcs_distance(&a, &b), 2);
    assert_int_equal(arcs_distance(&a, &a), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fastest_path_is_int8_throughout_and_costs_its_layers_and_both_ends),
        cmocka_unit_test(without_any_loss_allowed_everything_stays_fp32_and_nothing_is_converted),
        cmocka_unit_test(a_limit_picks_the_layers_that_fit_and_pays_for_the_conversions_between),
        cmocka_unit_test(a_layer_that_cannot_run_in_int8_is_never_chosen_for_it),
        cmocka_unit_test(a_layer_without_a_time_is_an_error_that_names_it),
        cmocka_unit_test(alternatives_compete_with_what_they_replace_in_every_precision),
        cmocka_unit_test(alternatives_have_bytes),
        cmocka_unit_test(a_path_names_the_layers_that_it_keeps),
        cmocka_unit_test(structure_and_precision_are_selected_together_as_by_brute_force),
        cmocka_unit_test(where_small_is_wanted_bytes_are_the_cost_and_bits_the_choice),
        cmocka_unit_test(the_distance_of_two_choices_counts_layers_that_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
