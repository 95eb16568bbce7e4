/* Units of a network, and what could stand in their places. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "services/synthesizer/alternatives.h"
#include "shared/base/str.h"
#include "shared/design/design.h"
#include "shared/graph/eval.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        struct err ok_err = {0};                                                                   \
        struct err *err = &ok_err;                                                                 \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, ok_err.message);                                             \
    } while (0)

/* A network as users have it: norms folded. */
struct fixture {
    struct arena *arena;
    struct graph *g;
    struct units units;
    struct alternatives all;
};

static void fixture_make(struct fixture *f, const char *text)
{
    const struct design_ends ends = {
        .channels = 3, .height = 16, .width = 16, .outputs = 10, .seed = 3};
    struct design design;
    *f = (struct fixture){.arena = arena_new()};
    OK(design_parse(text, f->arena, &design, err));
    OK(design_build(&design, &ends, &f->g, err));
    OK(pass_simplify(f->g, err));
    OK(units_find(f->g, f->arena, &f->units, err));
    OK(alternatives_find(f->g, &f->units, NULL, 7, f->arena, &f->all, err));
}

static void fixture_end(struct fixture *f)
{
    alternatives_release(&f->all);
    graph_free(f->g);
    arena_free(f->arena);
}

/* The alternative of that text for units first to last; NULL: there is none. */
static const struct alternative *find(const struct fixture *f, const char *text, int first,
                                      int last)
{
    for (int i = 0; i < f->all.n; i++)
        if (f->all.list[i].first == first && f->all.list[i].last == last &&
            strcmp(f->all.list[i].text, text) == 0)
            return &f->all.list[i];
    return NULL;
}

static int count(const struct fixture *f, const char *type)
{
    int n = 0;
    for (int i = 0; i < f->all.n; i++)
        n += str_starts_with(f->all.list[i].text, type);
    return n;
}

static void activations_belong_to_the_layer_before_them_and_pools_to_the_one_behind(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:8 residual:16:s2 residual:16*3 head");
    assert_int_equal(f.units.n, 6);
    static const int layers[] = {1, 3, 2, 2, 2, 1};
    int block = 0;
    for (int i = 0; i < f.units.n; i++) {
        const struct unit *u = &f.units.units[i];
        assert_int_equal(u->layers, layers[i]);
        assert_int_equal(u->first, block);
        block = u->last + 1;
        if (i > 0)
            assert_int_equal(u->from, f.units.units[i - 1].to);
    }
    assert_int_equal(block, f.units.cuts.n_blocks);
    assert_true(units_alike(f.g, &f.units, 2, 3));
    assert_true(units_alike(f.g, &f.units, 2, 4));
    assert_false(units_alike(f.g, &f.units, 1, 2));
    assert_false(units_alike(f.g, &f.units, 4, 5));
    assert_true(units_keep_shape(f.g, &f.units, 2, 4));
    assert_false(units_keep_shape(f.g, &f.units, 1, 1));
    fixture_end(&f);
}

/* One float output of a network for seeded noise; the caller's. */
static struct tensor *run(const struct graph *g)
{
    struct tensor *out = NULL;
    const struct shape shape = shape_at(&g->values[g->inputs[0]]->shape, 2);
    _cleanup_(tensor_freep) struct tensor *in = tensor_new(DTYPE_F32, &shape, NULL);
    for (int64_t i = 0; i < shape_elements(&shape); i++)
        tensor_set_f64(in, i, fabs(sin((double)i))); /* as behind a Relu */
    const struct tensor *inputs[] = {in};
    OK(eval_graph(g, inputs, &out, err));
    return out;
}

/* Each reads and yields what the units do that it replaces. */
static void alternatives_fit_between_the_values_that_they_lie_between(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:8 residual:16:s2 residual:16*3 conv:16 conv:24:pool:s2 head");
    assert_true(f.all.n > 0);
    for (int i = 0; i < f.all.n; i++) {
        const struct alternative *a = &f.all.list[i];
        const int from = f.units.units[a->first].from, to = f.units.units[a->last].to;
        if (!a->graph) {
            assert_true(units_keep_shape(f.g, &f.units, a->first, a->last));
            continue;
        }
        const struct graph *g = a->graph;
        assert_int_equal(g->n_inputs, 1);
        assert_int_equal(g->n_outputs, 1);
        assert_true(shape_equal(&g->values[g->inputs[0]]->shape, &f.g->values[from]->shape));
        assert_true(shape_equal(&g->values[g->outputs[0]]->shape, &f.g->values[to]->shape));
    }
    fixture_end(&f);
}

static void what_is_offered(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:8 residual:16:s2 residual:16*4 head");
    assert_int_equal(count(&f, "identity"), 4);
    assert_non_null(find(&f, "identity", 2, 2));
    assert_null(find(&f, "identity", 1, 1)); /* the shape changes */
    assert_int_equal(count(&f, "keep"), 3);
    for (int k = 1; k < 4; k++) {
        char text[24];
        snprintf(text, sizeof(text), "keep:%d", k);
        assert_non_null(find(&f, text, 2, 5));
    }
    assert_non_null(find(&f, "conv:16:s2", 1, 1));
    assert_non_null(find(&f, "conv:16", 3, 3));
    assert_non_null(find(&f, "conv:16:s2", 0, 1)); /* two units */
    assert_null(find(&f, "conv:8", 0, 0));         /* that is what it is */
    assert_null(find(&f, "conv:10", 6, 6));        /* answers are no pictures */
    fixture_end(&f);
}

/* A bottleneck has fewer products than one wide convolution, and than another of its kind. */
static void what_has_as_many_products_is_left_out(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:64 bottleneck:64*2 residual:64*2 head");
    assert_int_equal(f.units.n, 6);
    assert_null(find(&f, "conv:64", 1, 1));
    assert_null(find(&f, "bottleneck:64", 1, 1));
    assert_non_null(find(&f, "conv:64", 3, 3));
    assert_non_null(find(&f, "bottleneck:64", 3, 3));
    assert_true(f.all.left_out >= 4);
    fixture_end(&f);
}

static void a_list_that_is_full_takes_no_more(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:8 head");
    const int before = f.all.n, left_out = f.all.left_out;
    for (int i = 0; i < ALTERNATIVES_MOST + 3; i++)
        OK(alternatives_add(&f.all, 0, 0, i % 2 ? graph_new(13, err) : NULL, err, "nothing:%d", i));
    assert_int_equal(f.all.n, ALTERNATIVES_MOST);
    assert_int_equal(f.all.left_out - left_out, before + 3);
    fixture_end(&f);
}

/* Of a second output inside the last unit nothing that stands for the unit would be known. */
static void stages_end_before_what_has_several_outputs(void **state)
{
    (void)state;
    const struct design_ends ends = {.channels = 3, .height = 8, .width = 8, .seed = 3};
    struct fixture f = {.arena = arena_new()};
    struct design design;
    OK(design_parse("conv:8 residual:8*3", f.arena, &design, err));
    OK(design_build(&design, &ends, &f.g, err));
    OK(pass_simplify(f.g, err));
    OK(graph_add_output(f.g, graph_find_value(f.g, "4.residual.relu_out"), err));
    OK(graph_infer(f.g, err));
    OK(units_find(f.g, f.arena, &f.units, err));
    assert_int_equal(f.units.n, 4);
    assert_int_equal(f.units.units[3].to, -1);
    assert_true(units_alike(f.g, &f.units, 2, 3));
    OK(alternatives_find(f.g, &f.units, NULL, 7, f.arena, &f.all, err));
    assert_non_null(find(&f, "keep:1", 1, 2));
    for (int i = 0; i < f.all.n; i++)
        assert_true(f.units.units[f.all.list[i].last].to >= 0);
    fixture_end(&f);
}

/* Two of four: the second and the last. */
static void kept_units_have_their_weights(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:8 residual:8*4 head");
    const struct alternative *a = find(&f, "keep:2", 1, 4);
    assert_non_null(a);
    const struct graph *g = a->graph;
    assert_int_equal(graph_cost(g).macs, 4 * 8 * 8 * 9 * 16 * 16);
    int second = 0, fourth = 0;
    for (int n = 0; n < g->n_nodes; n++) {
        second += strstr(g->nodes[n]->name, "3.residual.conv") != NULL;
        fourth += strstr(g->nodes[n]->name, "5.residual.conv") != NULL;
    }
    assert_int_equal(second, 2);
    assert_int_equal(fourth, 2);
    fixture_end(&f);
}

/* Dirac's delta is in it: what comes in is most of what goes out. */
static void a_convolution_for_a_block_begins_by_handing_on(void **state)
{
    (void)state;
    struct fixture f;
    fixture_make(&f, "conv:8 residual:8*2 head");
    const struct alternative *a = find(&f, "conv:8", 1, 1);
    assert_non_null(a);
    struct tensor *y = run(a->graph);
    const float *out = y->data;
    double power = 0, error = 0;
    for (int64_t i = 0; i < shape_elements(&y->shape); i++) {
        const double x = fabs(sin((double)i));
        power += x * x;
        error += (x - (double)out[i]) * (x - (double)out[i]);
    }
    assert_true(error < 0.7 * power);
    tensor_free(y);
    fixture_end(&f);
}

/* ---- what has weights of the original ---- */

/* The network between two units, without alternatives. */
static void fixture_plain(struct fixture *f, const char *text)
{
    const struct design_ends ends = {
        .channels = 3, .height = 8, .width = 8, .outputs = 10, .seed = 3};
    struct design design;
    *f = (struct fixture){.arena = arena_new()};
    OK(design_parse(text, f->arena, &design, err));
    OK(design_build(&design, &ends, &f->g, err));
    OK(pass_simplify(f->g, err));
    OK(units_find(f->g, f->arena, &f->units, err));
}

static const struct tensor *weights(const struct fixture *f, const char *node)
{
    for (int n = 0; n < f->g->n_nodes; n++)
        if (strcmp(f->g->nodes[n]->name, node) == 0)
            return graph_input_of(f->g, f->g->nodes[n], 1)->constant;
    fail_msg("no node %s", node);
    return NULL;
}

/* Weights [O, I, K, K]: those that read channel i are multiplied. */
static void scale_readers(const struct tensor *w, int64_t i, float by)
{
    const int64_t *d = w->shape.dim, plane = d[2] * d[3];
    float *x = w->data;
    for (int64_t o = 0; o < d[0]; o++)
        for (int64_t p = 0; p < plane; p++)
            x[(o * d[1] + i) * plane + p] *= by;
}

/* The alternative computes what the units do, as closely as that. */
static void equals(struct fixture *f, const char *text, int first, int last, double tolerance)
{
    _cleanup_(graph_freep) struct graph *units = NULL;
    OK(alternatives_find(f->g, &f->units, NULL, 7, f->arena, &f->all, err));
    const struct alternative *a = find(f, text, first, last);
    if (!a)
        fail_msg("no %s", text);
    OK(units_extract(f->g, &f->units, first, last, &units, err));
    _cleanup_(tensor_freep) struct tensor *x = run(units), *y = run(a->graph);
    assert_int_equal(tensor_bytes(x), tensor_bytes(y));
    for (int64_t i = 0; i < shape_elements(&x->shape); i++)
        assert_true(fabs(tensor_get_f64(x, i) - tensor_get_f64(y, i)) <= tolerance);
    assert_true(graph_cost(a->graph).macs < graph_cost(units).macs);
}

static void a_narrow_unit_keeps_the_channels_that_matter(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plain(&f, "conv:16 residual:32:s2 residual:32*2 head");
    for (int64_t i = 0; i < 32; i += 2)
        scale_readers(weights(&f, "3.residual.conv2"), i, 0);
    equals(&f, "narrow:16", 2, 2, 1e-5);
    fixture_end(&f);
}

/* Of two units the second of which adds nothing: the channels of the first. */
static void merged_units_have_the_channels_that_matter_of_all(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plain(&f, "conv:16 residual:32:s2 residual:32*4 head");
    for (int64_t i = 0; i < 32; i++)
        scale_readers(weights(&f, "4.residual.conv2"), i, 0);
    equals(&f, "merge:32", 2, 3, 1e-5);
    assert_non_null(find(&f, "merge:32", 4, 5));
    assert_null(find(&f, "merge:32", 3, 4)); /* at multiples of its length */
    assert_null(find(&f, "merge:64", 2, 3)); /* as many channels as before */
    assert_non_null(find(&f, "merge:64", 2, 5));
    fixture_end(&f);
}

/* Where a channel is never active, however large its weights are, another one stays. */
static void channels_that_are_not_active_do_not_matter(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plain(&f, "conv:16 residual:32:s2 residual:32*2 head");
    const double *mean[512] = {NULL};
    double active[32];
    for (int i = 0; i < 32; i++)
        active[i] = i >= 16;
    const int inner = graph_find_value(f.g, "3.residual.relu_out");
    assert_in_range(inner, 0, 511);
    mean[inner] = active;
    const struct activity activity = {mean};
    OK(alternatives_find(f.g, &f.units, &activity, 7, f.arena, &f.all, err));
    const struct alternative *a = find(&f, "narrow:16", 2, 2);
    assert_non_null(a);
    const float *was = weights(&f, "3.residual.conv")->data;
    const struct node *conv = a->graph->nodes[0];
    assert_string_equal(conv->name, "3.residual.conv");
    const float *is = graph_input_of(a->graph, conv, 1)->constant->data;
    assert_memory_equal(is, was + 16 * 32 * 9, 16 * 32 * 9 * sizeof(float));
    fixture_end(&f);
}

static void low_rank_finds_the_rank_that_there_is(void **state)
{
    (void)state;
    struct fixture f;
    fixture_plain(&f, "conv:16 conv:32 conv:32 head");
    const struct tensor *w = weights(&f, "3.conv.conv");
    float *x = w->data;
    for (int64_t i = 0; i < 16 * 32 * 9; i++)
        x[16 * 32 * 9 + i] = 2 * x[i]; /* each row twice */
    equals(&f, "rank:16", 2, 2, 1e-3);
    fixture_end(&f);
}

static void the_same_network_has_the_same_alternatives(void **state)
{
    (void)state;
    struct fixture a, b;
    fixture_make(&a, "conv:8 residual:16:s2 residual:16*2 head");
    fixture_make(&b, "conv:8 residual:16:s2 residual:16*2 head");
    assert_int_equal(a.all.n, b.all.n);
    for (int i = 0; i < a.all.n; i++) {
        const struct alternative *x = &a.all.list[i], *y = &b.all.list[i];
        assert_string_equal(x->text, y->text);
        assert_int_equal(x->first, y->first);
        if (!x->graph)
            continue;
        struct tensor *p = run(x->graph), *q = run(y->graph);
        assert_memory_equal(p->data, q->data, tensor_bytes(p));
        tensor_free(p);
        tensor_free(q);
    }
    fixture_end(&a);
    fixture_end(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(activations_belong_to_the_layer_before_them_and_pools_to_the_one_behind),
        cmocka_unit_test(alternatives_fit_between_the_values_that_they_lie_between),
        cmocka_unit_test(what_is_offered),
        cmocka_unit_test(what_has_as_many_products_is_left_out),
        cmocka_unit_test(a_list_that_is_full_takes_no_more),
        cmocka_unit_test(stages_end_before_what_has_several_outputs),
        cmocka_unit_test(kept_units_have_their_weights),
        cmocka_unit_test(a_convolution_for_a_block_begins_by_handing_on),
        cmocka_unit_test(a_narrow_unit_keeps_the_channels_that_matter),
        cmocka_unit_test(merged_units_have_the_channels_that_matter_of_all),
        cmocka_unit_test(channels_that_are_not_active_do_not_matter),
        cmocka_unit_test(low_rank_finds_the_rank_that_there_is),
        cmocka_unit_test(the_same_network_has_the_same_alternatives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
