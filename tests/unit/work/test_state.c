/* What a job knows of its networks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/work/state.h"

struct known {
    Hone__V1__JobSpec spec;
    job_state state;
    Hone__V1__DataInfo data;
    job_network original, network;
    Hone__V1__Accuracy its, searched, tested, *of_network[1], *of_original[2];
};

static void accuracy(Hone__V1__Accuracy *a, const char *part, double value, uint64_t n)
{
    hone__v1__accuracy__init(a);
    a->part = (char *)part;
    a->engine = (char *)"hone";
    a->value = value;
    a->n = n;
    a->drop_points = 7;
    a->drop_upper95_points = 8;
}

/* The original learned the search part by heart: 99 % there, 92 % on the test part. */
static struct known *make(const char *design, bool labels)
{
    static struct known k;
    hone__v1__job_state__init(&k.state);
    hone__v1__job_spec__init(&k.spec);
    k.state.spec = &k.spec;
    hone__v1__data_info__init(&k.data);
    hone__v1__network__init(&k.original);
    hone__v1__network__init(&k.network);
    accuracy(&k.its, "search", 0.915, 5000);
    accuracy(&k.searched, "search", 0.99, 5000);
    accuracy(&k.tested, "test", 0.92, 10000);
    k.data.labels_usable = labels;
    k.state.data = &k.data;
    k.state.baseline = &k.original;
    k.of_network[0] = &k.its;
    k.network.accuracies = k.of_network;
    k.network.n_accuracies = 1;
    k.of_original[0] = &k.searched;
    k.of_original[1] = &k.tested;
    k.original.accuracies = k.of_original;
    k.original.n_accuracies = 2;
    k.network.design = (char *)design;
    return &k;
}

static void networks_of_the_originals_architecture_are_paired_with_it(void **state)
{
    (void)state;
    const struct known *k = make("", true);
    double upper95;
    assert_true(state_expected_drop(&k->state, &k->network, &upper95) == 7);
    assert_true(upper95 == 8);
}

static void trained_networks_are_set_against_the_originals_value_on_the_test_part(void **state)
{
    (void)state;
    const struct known *k = make("conv:16 head", true);
    double upper95;
    /* half a point as it stands there, and 0.13 of the seven that the original knew by heart */
    assert_true(fabs(state_expected_drop(&k->state, &k->network, &upper95) - 1.41) < 1e-9);
    const double deviation = sqrt(0.915 * 0.085 / 5000 + 0.92 * 0.08 / 10000);
    assert_true(fabs(upper95 - (1.41 + 100 * 1.645 * deviation)) < 1e-9);
}

static void originals_hand_on_what_they_know_by_heart(void **state)
{
    (void)state;
    struct known *k = make("conv:16 head", true);
    assert_true(fabs(state_optimism(&k->state) - 0.0091) < 1e-12);
    k->spec.without = (char *)"teacher"; /* labels alone do not */
    assert_true(state_optimism(&k->state) == 0);
    k = make("conv:16 head", false);
    assert_true(state_optimism(&k->state) == 0);
    k = make("conv:16 head", true);
    k->searched.value = 0.91; /* it never learned that part */
    assert_true(state_optimism(&k->state) == 0);
}

/* Agreement: nobody learned it by heart. */
static void without_labels_trained_networks_are_paired_too(void **state)
{
    (void)state;
    const struct known *k = make("conv:16 head", false);
    double upper95;
    assert_true(state_expected_drop(&k->state, &k->network, &upper95) == 7);
    assert_true(upper95 == 8);
}

static void what_nobody_scored_may_lose_all(void **state)
{
    (void)state;
    struct known *k = make("", true);
    double upper95 = 0;
    k->network.n_accuracies = 0;
    assert_true(isinf(state_expected_drop(&k->state, &k->network, &upper95)) && isinf(upper95));
    k = make("conv:16 head", true);
    k->original.n_accuracies = 1; /* not on the test part */
    assert_true(isinf(state_expected_drop(&k->state, &k->network, &upper95)) && isinf(upper95));
    assert_false(state_proved(&k->original));
    k->original.n_accuracies = 2;
    assert_true(state_proved(&k->original));
}

static void a_space_is_a_list_of_words_and_none_is_all_but_blocks(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    assert_true(spec_space_has(&spec, "students") && spec_space_has(&spec, "precision"));
    assert_false(spec_space_has(&spec, "blocks"));
    spec.space = (char *)"precision";
    assert_true(spec_space_has(&spec, "precision"));
    assert_false(spec_space_has(&spec, "students"));
    spec.space = (char *)"precision,studentship";
    assert_false(spec_space_has(&spec, "students"));
    spec.space = (char *)"precision,blocks,students";
    assert_true(spec_space_has(&spec, "blocks") && spec_space_has(&spec, "students"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(networks_of_the_originals_architecture_are_paired_with_it),
        cmocka_unit_test(trained_networks_are_set_against_the_originals_value_on_the_test_part),
        cmocka_unit_test(originals_hand_on_what_they_know_by_heart),
        cmocka_unit_test(without_labels_trained_networks_are_paired_too),
        cmocka_unit_test(what_nobody_scored_may_lose_all),
        cmocka_unit_test(a_space_is_a_list_of_words_and_none_is_all_but_blocks),
    };
    return cmocka_run_group_tests_name("state", tests, NULL, NULL);
}
