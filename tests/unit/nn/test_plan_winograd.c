/* Winograd's convolutions and their plain twin against the direct sum, and what they must leave to
 * others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/nn/winograd_cases.h"

static void the_vector_kernel_is_right(void **state)
{
    (void)state;
    if (strncmp(nn_isa(), "avx", 3) != 0 || strcmp(nn_isa(), "avx") == 0) {
        print_message("skip: this CPU has no AVX2\n");
        skip();
    }
    winograd_check_all("winograd:vectors");
}

static void its_plain_twin_is_right(void **state)
{
    (void)state;
    winograd_check_all("winograd:plain");
}

/* Stride, dilation, groups, other kernels: somebody else runs them, also where Winograd is forced.
 */
static void what_it_cannot_run_is_left_to_others(void **state)
{
    (void)state;
    static const struct mesh_conv convs[] = {
        {.ic = 16, .oc = 16, .kernel = 3, .pad = 1, .stride = 2},
        {.ic = 16, .oc = 16, .kernel = 3, .pad = 2, .dilation = 2},
        {.ic = 16, .oc = 16, .kernel = 3, .pad = 1, .group = 2},
        {.ic = 16, .oc = 16, .kernel = 1},
        {.ic = 16, .oc = 16, .kernel = 5, .pad = 2},
        {.ic = 16, .oc = 16, .kernel = 3, .pad = 1, .rank = 1},
    };
    for (size_t i = 0; i < sizeof(convs) / sizeof(convs[0]); i++) {
        struct mesh m;
        mesh_init(&m, i);
        const int64_t dims[] = {DIM_BATCH, 16, 12, 12};
        int x = mesh_input(&m, convs[i].rank ? 3 : 4, dims);
        mesh_output(&m, mesh_conv(&m, x, convs[i]));
        mesh_finish(&m);
        struct plan *plan = mesh_check(
            &m, &(struct plan_options){.implementation = "winograd:plain"}, 1e-5, "other");
        assert_null(strstr(find_step(plan, "Conv")->implementation, "winograd"));
        plan_free(plan);
        mesh_release(&m);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_vector_kernel_is_right),
        cmocka_unit_test(its_plain_twin_is_right),
        cmocka_unit_test(what_it_cannot_run_is_left_to_others),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
