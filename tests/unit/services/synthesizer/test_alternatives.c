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
        char text[16];
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
        cmocka_unit_test(kept_units_have_their_weights),
        cmocka_unit_test(a_convolution_for_a_block_begins_by_handing_on),
        cmocka_unit_test(the_same_network_has_the_same_alternatives),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
