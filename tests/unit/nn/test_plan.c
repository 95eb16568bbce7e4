/* Plans as their users see them: ports, batches, steps, errors, threads. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "shared/nn/plan_priv.h"
#include "tests/unit/nn/plan_nets.h"

static const struct mesh_conv conv8 = {.ic = 8, .oc = 8, .kernel = 3, .pad = 1};

/* x -> conv -> relu -> (out 1) -> conv + residual -> relu -> pool -> flatten -> gemm (out 0) */
static void small_network(struct mesh *m)
{
    mesh_init(m, 11);
    int x = mesh_input(m, DIMS(DIM_BATCH, 8, 6, 6));
    int h = mesh_unary(m, OP_RELU, mesh_conv(m, x, conv8));
    int y = mesh_unary(m, OP_RELU, mesh_binary(m, OP_ADD, mesh_conv(m, h, conv8), h));
    y = mesh_unary(m, OP_FLATTEN, mesh_unary(m, OP_GLOBAL_AVERAGE_POOL, y));
    y = mesh_node(m, OP_GEMM,
                  VALUES(y, mesh_normal(m, 0.3, DIMS(8, 5)), mesh_normal(m, 1, DIMS(5))));
    mesh_output(m, y);
    mesh_output(m, h);
    mesh_finish(m);
}

static void ports_tell_names_types_and_shapes_at_the_batch(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    small_network(&m);
    must(plan_compile(m.g, &(struct plan_options){.batch = 3}, &plan, &err), &err);
    assert_int_equal(plan_n_inputs(plan), 1);
    assert_int_equal(plan_n_outputs(plan), 2);
    char text[128];
    assert_string_equal(shape_text(&plan_input(plan, 0)->shape, text), "[3,8,6,6]");
    assert_string_equal(shape_text(&plan_output(plan, 0)->shape, text), "[3,5]");
    assert_string_equal(shape_text(&plan_output(plan, 1)->shape, text), "[3,8,6,6]");
    assert_string_equal(plan_input(plan, 0)->name, m.g->values[m.g->inputs[0]]->name);
    assert_int_equal(plan_output(plan, 0)->bytes, 3 * 5 * sizeof(float));
    assert_int_equal(plan_output(plan, 0)->dtype, DTYPE_F32);
    assert_true(plan_memory(plan) > 0);
    plan_free(plan);
    mesh_release(&m);
}

static void every_batch_gives_the_same_numbers(void **state)
{
    (void)state;
    struct mesh m;
    small_network(&m);
    for (int64_t batch = 1; batch <= 5; batch++)
        plan_free(mesh_check(&m, &(struct plan_options){.batch = batch}, 1e-5, "batch"));
    mesh_release(&m);
}

static void buffers_may_change_from_run_to_run(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    small_network(&m);
    must(plan_compile(m.g, NULL, &plan, &err), &err);
    for (uint64_t seed = 0; seed < 4; seed++) {
        struct trial_run t = {0};
        trial_run(&t, m.g, plan, seed);
        assert_true(trial_difference(&t) < 1e-5);
        trial_release(&t);
    }
    plan_free(plan);
    mesh_release(&m);
}

static void inputs_are_never_written_to(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 8, 6, 6));
    mesh_output(&m, mesh_unary(&m, OP_RELU, mesh_binary(&m, OP_ADD, mesh_conv(&m, x, conv8), x)));
    mesh_finish(&m);
    struct err err = {0};
    struct plan *plan = NULL;
    must(plan_compile(m.g, NULL, &plan, &err), &err);
    struct trial_run t = {0};
    trial_inputs(&t, plan, 1);
    _cleanup_(tensor_freep) struct tensor *kept = tensor_clone(t.in[0], &err);
    float out[8 * 36];
    must(plan_run(plan, (const void *[]){t.in[0]->data}, (void *[]){out}, &err), &err);
    assert_memory_equal(kept->data, t.in[0]->data, tensor_bytes(kept));
    trial_release(&t);
    plan_free(plan);
    mesh_release(&m);
}

/* An output that is the input, a constant, another output, another name for one. */
static void outputs_may_be_inputs_constants_or_twice_the_same(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 8));
    int y = mesh_unary(&m, OP_RELU, x);
    int same = mesh_unary(&m, OP_IDENTITY, y);
    int flat = mesh_binary(&m, OP_RESHAPE, y, mesh_ints(&m, DIMS(0, 2, 4)));
    int input = mesh_unary(&m, OP_IDENTITY, x);
    int constant = mesh_unary(&m, OP_RELU, mesh_normal(&m, 1, DIMS(3)));
    mesh_output(&m, y);
    mesh_output(&m, same);
    mesh_output(&m, flat);
    mesh_output(&m, input);
    mesh_output(&m, constant);
    mesh_finish(&m);
    for (int i = 0; i < 3; i++) {
        const struct plan_options o = {.batch = 2, .no_fusion = i == 1, .reference = i == 2};
        plan_free(mesh_check(&m, &o, 0, "outputs"));
    }
    mesh_release(&m);
}

static void a_network_of_reference_steps_is_exact(void **state)
{
    (void)state;
    struct mesh m;
    small_network(&m);
    struct plan *plan = mesh_check(&m, &(struct plan_options){.reference = true}, 0, "reference");
    for (int i = 0; i < plan_n_steps(plan); i++)
        assert_string_equal(plan_step(plan, i)->implementation, "reference");
    plan_free(plan);
    mesh_release(&m);
}

static void an_implementation_can_be_forced(void **state)
{
    (void)state;
    if (strncmp(nn_isa(), "avx", 3) != 0) {
        print_message("skip: this CPU has one implementation only\n");
        skip();
    }
    struct mesh m;
    small_network(&m);
    struct plan *plan =
        mesh_check(&m, &(struct plan_options){.implementation = "brg"}, 1e-5, "forced");
    const char *got = find_step(plan, "Conv")->implementation;
    if (!strstr(got, "brg"))
        fail_msg("the convolution runs on %s", got);
    plan_free(plan);
    plan = mesh_check(&m, &(struct plan_options){.implementation = "reference"}, 1e-6, "forced");
    assert_string_equal(find_step(plan, "Conv")->implementation, "reference");
    assert_string_equal(find_step(plan, "Conv")->fused, "bias+relu");
    plan_free(plan);
    mesh_release(&m);
}

static void steps_tell_what_they_do(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL, *again = NULL;
    small_network(&m);
    must(plan_compile(m.g, &(struct plan_options){.batch = 2}, &plan, &err), &err);
    must(plan_compile(m.g, &(struct plan_options){.batch = 2}, &again, &err), &err);
    int64_t macs = 0;
    assert_int_equal(plan_n_steps(plan), plan_n_steps(again));
    for (int i = 0; i < plan_n_steps(plan); i++) {
        const struct plan_step *s = plan_step(plan, i), *t = plan_step(again, i);
        assert_string_equal(s->signature, t->signature);
        assert_string_equal(s->implementation, t->implementation);
        assert_true(*s->layer && *s->op && *s->implementation);
        macs += s->macs;
        if (s->kind == STEP_COMPUTE)
            assert_int_equal(s->precision, PRECISION_FP32);
    }
    assert_int_equal(macs, 2 * (2 * 36 * 8 * 8 * 9 + 8 * 5));
    plan_free(plan);
    plan_free(again);
    mesh_release(&m);
}

static void equal_work_has_equal_signatures(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 8, 6, 6));
    const struct mesh_conv wide = {.ic = 8, .oc = 8, .kernel = 3, .pad = 1, .dilation = 1};
    int y = x;
    for (int i = 0; i < 3; i++)
        y = mesh_unary(&m, OP_RELU, mesh_conv(&m, y, wide));
    mesh_output(&m, mesh_unary(&m, OP_TANH, mesh_conv(&m, y, wide)));
    mesh_finish(&m);
    struct plan *plan =
        mesh_check(&m, &(struct plan_options){.choose_by_name = true}, 1e-5, "signatures");
    const char *signatures[4];
    int n = 0;
    for (int i = 0; i < plan_n_steps(plan) && n < 4; i++)
        if (plan_step(plan, i)->kind == STEP_COMPUTE)
            signatures[n++] = plan_step(plan, i)->signature;
    assert_int_equal(n, 4);
    assert_string_equal(signatures[1], signatures[2]);
    assert_string_not_equal(signatures[2], signatures[3]);
    plan_free(plan);
    mesh_release(&m);
}

static void a_timed_run_computes_the_same(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    small_network(&m);
    must(plan_compile(m.g, NULL, &plan, &err), &err);
    struct trial_run t = {0};
    trial_run(&t, m.g, plan, 1);
    float logits[5], middle[8 * 36];
    int64_t *ns = calloc((size_t)plan_n_steps(plan), sizeof(*ns));
    assert_non_null(ns);
    must(
        plan_run_timed(plan, (const void *[]){t.in[0]->data}, (void *[]){logits, middle}, ns, &err),
        &err);
    assert_memory_equal(logits, t.got[0]->data, sizeof(logits));
    for (int i = 0; i < plan_n_steps(plan); i++)
        assert_true(ns[i] >= 0);
    free(ns);
    trial_release(&t);
    plan_free(plan);
    mesh_release(&m);
}

/* ---- threads ---- */

struct worker {
    struct mesh *m;
    double worst;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct err err = {0};
    struct plan *plan = NULL;
    w->worst = INFINITY;
    if (plan_compile(w->m->g, &(struct plan_options){.batch = 2}, &plan, &err) < 0)
        return NULL;
    w->worst = 0;
    for (uint64_t seed = 0; seed < 20; seed++) {
        struct trial_run t = {0};
        trial_run(&t, w->m->g, plan, seed);
        w->worst = fmax(w->worst, trial_difference(&t));
        trial_release(&t);
    }
    plan_free(plan);
    return NULL;
}

static void two_plans_run_at_once(void **state)
{
    (void)state;
    struct mesh m;
    small_network(&m);
    pthread_t threads[2];
    struct worker workers[2] = {{.m = &m}, {.m = &m}};
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, work, &workers[i]), 0);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    for (int i = 0; i < 2; i++)
        assert_true(workers[i].worst < 1e-5);
    mesh_release(&m);
}

static void several_threads_give_the_same_numbers(void **state)
{
    (void)state;
    static const struct plan_options options[] = {
        {.batch = 1, .threads = 2},
        {.batch = 4, .threads = 2},
        {.batch = 7, .threads = 3}, /* shares of 2, 2 and 3 samples */
        {.batch = 4, .threads = 2, .one_lane = true},
    };
    struct mesh m;
    small_network(&m);
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++)
        plan_free(mesh_check(&m, &options[i], 1e-5, "threads"));
    mesh_release(&m);
}

static void samples_that_meet_are_not_shared_out(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    mesh_init(&m, 4);
    int y = mesh_node(&m, OP_SOFTMAX, VALUES(mesh_input(&m, DIMS(DIM_BATCH, 6))));
    mesh_attr_int(&m, y, "axis", 0); /* over the batch */
    must(graph_add_output(m.g, y, &err), &err);
    must(graph_infer(m.g, &err), &err);
    assert_false(graph_samples_apart(m.g));
    plan_free(mesh_check(&m, &(struct plan_options){.batch = 4, .threads = 2}, 1e-6, "meeting"));
    mesh_release(&m);
}

static void the_steps_of_shares_have_times(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    small_network(&m);
    assert_int_equal(
        plan_compile(m.g, &(struct plan_options){.batch = 5, .threads = 2}, &plan, &err), 0);
    int n = plan_n_steps(plan);
    assert_true(n > 0 && n < 100);
    assert_true(plan_memory(plan) > 0);
    for (int i = 0; i < n; i++)
        assert_non_null(plan_step(plan, i)->signature);
    struct trial_run t = {0};
    trial_run(&t, m.g, plan, 1);
    int64_t ns[100];
    for (int i = 0; i < n; i++)
        ns[i] = -1;
    const void *in[8] = {NULL};
    void *out[8] = {NULL};
    for (int i = 0; i < t.n_in; i++)
        in[i] = t.in[i]->data;
    for (int i = 0; i < t.n_out; i++)
        out[i] = t.got[i]->data;
    assert_int_equal(plan_run_timed(plan, in, out, ns, &err), 0);
    for (int i = 0; i < n; i++)
        assert_true(ns[i] >= 0);
    trial_release(&t);
    plan_free(plan);
    mesh_release(&m);
}

/* ---- what is refused ---- */

static void a_batch_that_no_memory_holds_is_refused(void **state)
{
    (void)state;
    static const int64_t batches[] = {(int64_t)1 << 30, (int64_t)1 << 39, INT64_MAX, -1};
    struct mesh m;
    small_network(&m);
    for (size_t i = 0; i < sizeof(batches) / sizeof(batches[0]); i++) {
        struct err err = {0};
        struct plan *plan = NULL;
        const struct plan_options o = {.batch = batches[i], .choose_by_name = true};
        int rc = plan_compile(m.g, &o, &plan, &err);
        assert_true(rc == -ERR_INVALID_ARGUMENT || rc == -ERR_RESOURCE_EXHAUSTED);
        assert_null(plan);
        assert_true(*err.message);
    }
    mesh_release(&m);
}

static void an_intermediate_value_that_no_memory_holds_is_refused(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(1, 1));
    int y = mesh_binary(&m, OP_EXPAND, x, mesh_ints(&m, DIMS(1 << 20, 1 << 19)));
    y = mesh_unary(&m, OP_REDUCE_MEAN, mesh_unary(&m, OP_RELU, y));
    mesh_output(&m, y);
    mesh_finish(&m);
    struct err err = {0};
    struct plan *plan = NULL;
    assert_int_equal(plan_compile(m.g, NULL, &plan, &err), -ERR_RESOURCE_EXHAUSTED);
    assert_non_null(strstr(err.message, m.g->values[m.g->nodes[0]->outputs[0]]->name));
    mesh_release(&m);
}

static void a_network_without_shapes_is_refused(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 8));
    mesh_output(&m, mesh_unary(&m, OP_RELU, mesh_unary(&m, OP_TANH, x)));
    struct err err = {0};
    struct plan *plan = NULL;
    assert_int_equal(plan_compile(m.g, NULL, &plan, &err), -ERR_FAILED_PRECONDITION);
    mesh_release(&m);
}

static void strange_options_are_refused(void **state)
{
    (void)state;
    struct mesh m;
    struct err err = {0};
    struct plan *plan = NULL;
    small_network(&m);
    assert_int_equal(plan_compile(m.g, &(struct plan_options){.threads = -2}, &plan, &err),
                     -ERR_INVALID_ARGUMENT);
    assert_int_equal(plan_compile(m.g, &(struct plan_options){.threads = 1 << 20}, &plan, &err),
                     -ERR_INVALID_ARGUMENT);
    mesh_release(&m);
}

static void tensors_without_elements_pass_through(void **state)
{
    (void)state;
    struct mesh m;
    mesh_init(&m, 1);
    int x = mesh_input(&m, DIMS(DIM_BATCH, 4, 5));
    int none = mesh_node(
        &m, OP_SLICE,
        VALUES(x, mesh_ints(&m, DIMS(2)), mesh_ints(&m, DIMS(2)), mesh_ints(&m, DIMS(1))));
    int y = mesh_node(&m, OP_CONCAT, VALUES(none, x));
    mesh_attr_int(&m, y, "axis", 1);
    mesh_output(&m, y);
    mesh_output(&m, mesh_unary(&m, OP_RELU, none));
    mesh_finish(&m);
    plan_free(mesh_check(&m, &(struct plan_options){.batch = 2}, 0, "empty"));
    mesh_release(&m);
}

/* ---- memory ---- */

/* A long chain needs two buffers, not one for each layer. */
static void buffers_are_used_again(void **state)
{
    (void)state;
    size_t bytes[2];
    for (int i = 0; i < 2; i++) {
        struct mesh m;
        struct err err = {0};
        struct plan *plan = NULL;
        mesh_init(&m, 1);
        int x = mesh_input(&m, DIMS(DIM_BATCH, 16, 32, 32));
        for (int k = 0; k < (i ? 30 : 12); k++)
            x = mesh_pool(&m, OP_MAX_POOL, x, 3, 1, 1);
        mesh_output(&m, x);
        mesh_finish(&m);
        must(plan_compile(m.g, &(struct plan_options){.choose_by_name = true}, &plan, &err), &err);
        bytes[i] = plan->memory_bytes;
        plan_free(plan);
        mesh_release(&m);
    }
    assert_int_equal(bytes[0], bytes[1]);
    assert_true(bytes[0] < 3 * 16 * 32 * 32 * sizeof(float));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ports_tell_names_types_and_shapes_at_the_batch),
        cmocka_unit_test(every_batch_gives_the_same_numbers),
        cmocka_unit_test(buffers_may_change_from_run_to_run),
        cmocka_unit_test(inputs_are_never_written_to),
        cmocka_unit_test(outputs_may_be_inputs_constants_or_twice_the_same),
        cmocka_unit_test(a_network_of_reference_steps_is_exact),
        cmocka_unit_test(an_implementation_can_be_forced),
        cmocka_unit_test(steps_tell_what_they_do),
        cmocka_unit_test(equal_work_has_equal_signatures),
        cmocka_unit_test(a_timed_run_computes_the_same),
        cmocka_unit_test(two_plans_run_at_once),
        cmocka_unit_test(several_threads_give_the_same_numbers),
        cmocka_unit_test(samples_that_meet_are_not_shared_out),
        cmocka_unit_test(the_steps_of_shares_have_times),
        cmocka_unit_test(a_batch_that_no_memory_holds_is_refused),
        cmocka_unit_test(an_intermediate_value_that_no_memory_holds_is_refused),
        cmocka_unit_test(a_network_without_shapes_is_refused),
        cmocka_unit_test(strange_options_are_refused),
        cmocka_unit_test(tensors_without_elements_pass_through),
        cmocka_unit_test(buffers_are_used_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
