/* Designs as text: what is written is read again, and what is no design is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/design/designs.h"

/* The text of what the text says. */
static char *again(const char *text)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design design;
    struct err err = {0};
    expect_ok(design_parse(text, arena, &design, &err), &err);
    char *written = design_text(&design, 0, design.n);
    assert_non_null(written);
    return written;
}

static void expect_text(const char *text, const char *shortest)
{
    char *once = again(text), *twice = again(once);
    assert_string_equal(once, shortest);
    assert_string_equal(twice, once);
    free(once);
    free(twice);
}

static void texts_come_back_in_their_shortest_form(void **state)
{
    (void)state;
    static const char *const same[] = {
        "conv:32 residual:64:s2 residual:64*2 conv:128:pool conv:128 head",
        "conv:16:s2:k5*4",
        "conv",
        "conv:4096:s32:k31",
        "conv:64:s3:pool*2 head:pool",
        "residual*256",
        "head",
    };
    for (size_t i = 0; i < sizeof(same) / sizeof(*same); i++)
        expect_text(same[i], strcmp(same[i], "conv:32 residual:64:s2 residual:64*2 conv:128:pool "
                                             "conv:128 head") == 0
                                 ? "conv:32 residual:64:s2*3 conv:128:pool*2 head"
                                 : same[i]);
    expect_text("  conv:32:k3:s1 \n\tconv:32 ", "conv:32*2");
    expect_text("conv:pool:s2:32", "conv:32:pool");
    expect_text("residual:8:s2 residual:8:s2", "residual:8:s2 residual:8:s2");
}

static void repeats_leave_the_stride_to_the_first(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design d;
    struct err err = {0};
    expect_ok(design_parse("conv:8:pool*3 residual:16:s2*2", arena, &d, &err), &err);
    assert_int_equal(d.n, 5);
    assert_true(d.pieces[0].pool && d.pieces[0].stride == 2);
    assert_true(!d.pieces[1].pool && d.pieces[1].stride == 1 && d.pieces[2].width == 8);
    assert_true(d.pieces[3].stride == 2 && d.pieces[4].stride == 1 && d.pieces[4].width == 16);
    _cleanup_(freep) char *middle = design_text(&d, 1, 3), *none = design_text(&d, 2, 0);
    assert_string_equal(middle, "conv:8*2 residual:16:s2");
    assert_string_equal(none, "");
}

static void what_is_no_design_is_refused_with_its_place(void **state)
{
    (void)state;
    static const struct {
        const char *text, *says;
    } cases[] = {
        {"", "without pieces"},
        {" \n ", "without pieces"},
        {"convolution:32", "no type of piece is called 'convolution'"},
        {":32", "no type of piece is called ''"},
        {"*2", "no type of piece is called ''"},
        {"conv:32 frob:3", "word 2 'frob:3'"},
        {"conv:32:e4", "'conv' has no option 'e4'"},
        {"conv:32:se", "'conv' has no option 'se'"},
        {"residual:32:k5", "'residual' has no option 'k5'"},
        {"residual:32:pool", "'residual' has no option 'pool'"},
        {"head:10", "'head' has no option '10'"},
        {"head:s2", "'head' has no option 's2'"},
        {"conv:32:x", "no option 'x'"},
        {"conv:32:s", "no option 's'"},
        {"conv::s2", "no option ''"},
        {"conv:32:", "no option ''"},
        {"conv:-3", "no option '-3'"},
        {"conv:32:s-2", "no option 's-2'"},
        {"conv:0", "width"},
        {"conv:4097", "width"},
        {"conv:99999999999999999999", "width"},
        {"conv:3x", "width"},
        {"conv:32:s0", "stride"},
        {"conv:32:s33", "stride"},
        {"conv:32:k0", "kernel"},
        {"conv:32:k32", "kernel"},
        {"conv:32:64", "'64' says again"},
        {"conv:32:s2:s2", "'s2' says again"},
        {"conv:32:s1:pool", "above 1"},
        {"conv:32*0", "times"},
        {"conv:32*", "times"},
        {"conv:32*2*2", "times"},
        {"conv:32*257", "times"},
        {"conv:32*9999999999999999999999", "times"},
        {"conv:32*200 conv:32*57", "more than 256 pieces"},
        {"head conv:32", "nothing can follow a head"},
        {"head head", "nothing can follow a head"},
        {"head*2", "nothing can follow a head"},
        {"conv:1111111111111111111111111111111111111111111111111111111111111111111111111111111111"
         "1111111111111111111111111111",
         "too long"},
    };
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct design design = {.n = 77};
        struct err err = {0};
        int rc = design_parse(cases[i].text, arena, &design, &err);
        if (rc != -ERR_INVALID_ARGUMENT || !strstr(err.message, cases[i].says))
            fail_msg("'%s': %d %s", cases[i].text, rc, err.message);
        assert_int_equal(design.n, 77);
    }
    assert_true(arena_bytes(arena) < 1 << 20);
}

static void every_type_is_named_and_explained(void **state)
{
    (void)state;
    int n = 0;
    for (const char *const *name = design_types(); *name; name++, n++) {
        char *text = again(*name);
        assert_string_equal(text, *name);
        free(text);
        assert_true(strlen(design_summary(*name)) > 10);
    }
    assert_true(n >= 3);
    assert_null(design_summary("nothing"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_come_back_in_their_shortest_form),
        cmocka_unit_test(repeats_leave_the_stride_to_the_first),
        cmocka_unit_test(what_is_no_design_is_refused_with_its_place),
        cmocka_unit_test(every_type_is_named_and_explained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
