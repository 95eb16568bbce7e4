/* The space of students: what is in it, what it costs, who is enrolled. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "services/synthesizer/space.h"
#include "shared/base/mem.h"
#include "shared/graph/cuts.h"
#include "shared/graph/passes.h"

static const struct design_ends cifar = {.channels = 3, .height = 32, .width = 32, .outputs = 10};
/* ResNet-20 */
static const struct cost original = {.macs = 40600000, .parameters = 270000};

static void made(const struct design_ends *ends, int64_t macs, struct arena *arena,
                 struct space *ret)
{
    struct err err = {0};
    const struct cost cost = {.macs = macs, .parameters = original.parameters};
    assert_non_null(arena);
    if (space_build(ends, cost, arena, ret, &err) < 0)
        fail_msg("%s", err.message);
}

/* Some time that depends on the piece. */
static double *prices(const struct space *space, struct arena *arena)
{
    double *us = arena_alloc(arena, (size_t)space->n_pieces, sizeof(*us));
    assert_non_null(us);
    for (int i = 0; i < space->n_pieces; i++)
        us[i] = 1 + (double)space->pieces[i].macs * 1e-5;
    return us;
}

static void thousands_of_students_have_hundreds_of_pieces(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space;
    made(&cifar, original.macs, arena, &space);
    print_message("%d students, %d pieces\n", space.n_students, space.n_pieces);
    assert_in_range(space.n_students, 1000, 20000);
    assert_in_range(space.n_pieces, 100, 1000);
    for (int i = 0; i < space.n_students; i++)
        assert_true(space.students[i].macs <= original.macs);
}

static void costs_are_those_of_the_whole_network(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space;
    struct err err = {0};
    made(&cifar, original.macs, arena, &space);
    for (int i = 0; i < space.n_students; i += space.n_students / 20) {
        const struct space_student *s = &space.students[i];
        _cleanup_(graph_freep) struct graph *g = NULL;
        struct design design;
        assert_int_equal(design_parse(s->text, arena, &design, &err), 0);
        assert_int_equal(design_build(&design, &cifar, &g, &err), 0);
        assert_true(pass_simplify(g, &err) >= 0);
        const struct cost cost = graph_cost(g);
        assert_int_equal(cost.macs, s->macs);
        assert_int_equal(cost.parameters, s->parameters);
    }
}

static void no_piece_is_there_twice_or_for_nobody(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space;
    made(&cifar, original.macs / 4, arena, &space);
    bool *used = arena_alloc(arena, (size_t)space.n_pieces, sizeof(*used));
    for (int i = 0; i < space.n_students; i++)
        for (int k = 0; k < space.students[i].n; k++)
            used[space.students[i].pieces[k]] = true;
    for (int i = 0; i < space.n_pieces; i++) {
        const struct space_piece *p = &space.pieces[i];
        assert_true(used[i]);
        for (int k = 0; k < i; k++) {
            const struct space_piece *q = &space.pieces[k];
            assert_false(strcmp(p->text, q->text) == 0 && p->first == q->first &&
                         p->at.channels == q->at.channels && p->at.height == q->at.height &&
                         p->at.width == q->at.width);
        }
    }
}

static void the_same_ends_give_the_same_space(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space a, b;
    made(&cifar, original.macs / 8, arena, &a);
    made(&cifar, original.macs / 8, arena, &b);
    assert_int_equal(a.n_students, b.n_students);
    assert_int_equal(a.n_pieces, b.n_pieces);
    for (int i = 0; i < a.n_students; i++)
        assert_string_equal(a.students[i].text, b.students[i].text);
    for (int i = 0; i < a.n_pieces; i++)
        assert_string_equal(a.pieces[i].text, b.pieces[i].text);
}

static void times_are_floor_and_pieces(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space;
    made(&cifar, original.macs / 4, arena, &space);
    double *us = prices(&space, arena);
    us[space.students[0].pieces[1]] = 0; /* this one cannot run */
    space_price(&space, us, 7);
    assert_true(isinf(space.students[0].us));
    for (int i = 0; i < space.n_students; i++) {
        double sum = 7;
        for (int k = 0; k < space.students[i].n; k++)
            sum += us[space.students[i].pieces[k]] > 0 ? us[space.students[i].pieces[k]] : INFINITY;
        assert_true(sum == space.students[i].us);
    }
}

static double trait(const char *text, struct cost cost, enum predict_trait which)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct err err = {0};
    double traits[PREDICT_TRAITS];
    assert_int_equal(design_parse(text, arena, &design, &err), 0);
    space_traits(&design, cost, original, traits);
    return traits[which];
}

static void traits_tell_students_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        enum predict_trait which;
        double want;
    } cases[] = {
        {"conv:8 conv:16 residual:16 head", PREDICT_LEVEL, 1},
        {"conv:8 head", PREDICT_MACS, -2},
        {"conv:8 head", PREDICT_PARAMETERS, 1},
        {"conv:8 head", PREDICT_DEPTH, -2},
        {"conv:8*15 head", PREDICT_DEPTH, 1},
        {"conv:8 conv:16 residual:16 head", PREDICT_RESIDUAL, 0.25},
        {"conv:8 separable:16*2 head", PREDICT_SEPARABLE, 0.5},
        {"conv:8:s2 conv:16:pool residual:16 head:pool", PREDICT_POOL, 1},
        {"conv:8 conv:16:pool residual:16:s2 head:pool", PREDICT_POOL, 0.5},
        {"conv:8 residual:16:s2 head:pool", PREDICT_POOL, 0},
        {"conv:8 conv:16:pool head:pool", PREDICT_HEAD_POOL, 1},
        {"conv:8 conv:16:pool head", PREDICT_HEAD_POOL, 0},
        {"conv:8 conv:16:s2 head", PREDICT_STEM, 0},
        {"conv:8:s2 conv:16:s2 head", PREDICT_STEM, 1},
        {"patch:8:k4:s4 conv:16:s2 head", PREDICT_STEM, 2},
        {"patch:8:k4:s4 conv:16:s2 head", PREDICT_PATCH, 1},
        {"conv:8 conv:16:s2 head", PREDICT_PATCH, 0},
    };
    const struct cost cost = {.macs = original.macs / 4, .parameters = original.parameters * 2};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const double got = trait(cases[i].text, cost, cases[i].which);
        if (fabs(got - cases[i].want) > 1e-9)
            fail_msg("%s: trait %d is %g", cases[i].text, (int)cases[i].which, got);
    }
    /* What computes nothing, and originals that do not. */
    assert_true(isfinite(trait("conv:8 head", (struct cost){0}, PREDICT_MACS)));
}

static void nothing_is_tied_to_one_size(void **state)
{
    (void)state;
    static const struct {
        struct design_ends ends;
        int64_t macs;
        bool any;
    } cases[] = {
        {{.channels = 1, .height = 49, .width = 10, .outputs = 12}, 2700000, true},
        {{.channels = 3, .height = 160, .width = 160, .outputs = 1000}, 76000000, true},
        {{.channels = 3, .height = 640, .width = 480, .outputs = 5}, 900000000, true},
        {{.channels = 3, .height = 640, .width = 640, .outputs = 1000}, INT64_MAX, true},
        {{.channels = 1, .height = 28, .width = 28, .outputs = 2}, 5000000, true},
        {{.channels = 3, .height = 4, .width = 4, .outputs = 10}, 5000000, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        _cleanup_(arena_freep) struct arena *arena = arena_new();
        struct space space;
        made(&cases[i].ends, cases[i].macs, arena, &space);
        print_message("case %zu: %d students, %d pieces\n", i, space.n_students, space.n_pieces);
        assert_int_equal(space.n_students > 0, cases[i].any);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(thousands_of_students_have_hundreds_of_pieces),
        cmocka_unit_test(costs_are_those_of_the_whole_network),
        cmocka_unit_test(no_piece_is_there_twice_or_for_nobody),
        cmocka_unit_test(the_same_ends_give_the_same_space),
        cmocka_unit_test(times_are_floor_and_pieces),
        cmocka_unit_test(traits_tell_students_apart),
        cmocka_unit_test(nothing_is_tied_to_one_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
