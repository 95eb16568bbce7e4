/* Tasks "calibrate" and "build" of the exporter, on a small network that labels its own data. */
#include "tests/support/quant_task.h"

#include "services/exporter/build.h"
#include "services/exporter/exporter.h"
#include "shared/coding/packed.h"
#include "shared/nn/plan.h"
#include "shared/nn/ranges.h"

static struct job job;

static int begin(void **state)
{
    (void)state;
    job_begin(&job, true);
    return 0;
}

static int begin_without_labels(void **state)
{
    (void)state;
    job_begin(&job, false);
    return 0;
}

static int end(void **state)
{
    (void)state;
    job_end(&job);
    return 0;
}

static void calibrate(void)
{
    Hone__V1__StageTask stage = HONE__V1__STAGE_TASK__INIT;
    stage.state = job.state;
    JOB_OK(job_run(&job, exporter_calibrate, &stage, err));
    _cleanup_(message_freep) Hone__V1__StageTask *after =
        job_result(&job, &hone__v1__stage_task__descriptor);
    JOB_OK(message_set(&job.state->ranges, after->state->ranges, err));
}

/* The named layers in int8 (separated by spaces; NULL: all), or as "conv1=int4" says. */
static Hone__V1__Network *build(const char *layers)
{
    _cleanup_(message_freep) Hone__V1__BuildTask *order =
        message_new(&hone__v1__build_task__descriptor, NULL);
    order->state = message_clone(job.state, NULL);
    order->all_int8 = !layers;
    order->predicted_us = 12.5;
    JOB_OK(message_set(&order->name, "candidate-1", err));
    char text[128], *rest = text;
    str_copy(text, sizeof(text), layers ? layers : "");
    for (char *name; layers && (name = strsep(&rest, " "));) {
        Hone__V1__LayerChoice *choice = message_new(&hone__v1__layer_choice__descriptor, NULL);
        const char *layer = strsep(&name, "=");
        JOB_OK(message_set(&choice->layer, layer, err));
        JOB_OK(message_set(&choice->precision, name ? name : "int8", err));
        JOB_OK(message_append(&order->layers, &order->n_layers, choice, err));
    }
    JOB_OK(job_run(&job, exporter_build, order, err));
    _cleanup_(message_freep) Hone__V1__BuildResult *result =
        job_result(&job, &hone__v1__build_result__descriptor);
    return message_clone(result->network, NULL);
}

static struct graph *open_file(const Hone__V1__Network *network)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes;
    struct graph *g = NULL;
    JOB_OK(store_get(job.store, network->artifact, 1 << 20, &data, &bytes, err));
    JOB_OK(onnx_read_bytes(data, bytes, NULL, NULL, &g, err));
    assert_int_equal(bytes, network->bytes);
    return g;
}

static void calibration_stores_ranges_and_starts_what_follows(void **state)
{
    (void)state;
    calibrate();
    assert_int_equal(job.out.n_tasks, 3);
    assert_non_null(job.out.continuation);
    _cleanup_(message_freep) Hone__V1__Ranges *message = NULL;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    JOB_OK(
        message_load(job.store, job.state->ranges, &hone__v1__ranges__descriptor, &message, err));
    JOB_OK(ranges_from_message(message, &ranges, err));
    assert_int_equal(ranges.samples, 180);
    assert_null(quant_range_find(&ranges, "relu3_out")); /* no layer reads it */
    assert_non_null(quant_range_find(&ranges, "relu2_out"));
    assert_non_null(quant_range_find(&ranges, "input"));
}

static void plain_int8_has_every_layer_in_int8(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *network = build(NULL);
    _cleanup_(graph_freep) struct graph *g = open_file(network);
    assert_int_equal(network->n_layers, 4);
    for (size_t i = 0; i < network->n_layers; i++)
        assert_string_equal(network->layers[i]->precision, "int8");
    assert_int_equal(net_count(g, OP_QUANTIZE_LINEAR), 5); /* input, two Relus, gap, flat */
    assert_true(network->macs > 0 && network->parameters > 0);
    assert_true(network->predicted_us == 12.5);
}

static void the_network_is_scored_on_the_search_part(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *network = build(NULL);
    assert_int_equal(network->n_accuracies, 1);
    const Hone__V1__Accuracy *a = network->accuracies[0];
    assert_string_equal(a->part, "search");
    assert_string_equal(a->metric, "top1");
    assert_int_equal(a->n, 60);
    assert_true(a->value > 0.9 && a->value <= 1);
    assert_true(a->agreement == a->value); /* the original's top-1 is the label */
    assert_true(a->kl > 0 && a->kl < 0.05);
    _cleanup_(logits_release) struct logits logits = {0};
    JOB_OK(logits_read(job.store, a->predictions, &logits, err));
    assert_int_equal(logits.n, 60);
    assert_int_equal(logits.width, JOB_CLASSES);
}

static void layers_that_are_not_named_stay_fp32(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *network = build("conv2 gemm");
    _cleanup_(graph_freep) struct graph *g = open_file(network);
    const char *const expected[] = {"fp32", "int8", "fp32", "int8"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(network->layers[i]->precision, expected[i]);
    const struct node *conv1 = NULL;
    for (int n = 0; n < g->n_nodes; n++)
        conv1 = strcmp(g->nodes[n]->name, "conv1") == 0 ? g->nodes[n] : conv1;
    assert_non_null(conv1);
    assert_non_null(graph_input_of(g, conv1, 1)->constant);
}

static void the_file_says_where_it_comes_from(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *network = build("conv2");
    _cleanup_(graph_freep) struct graph *g = open_file(network);
    assert_string_equal(graph_metadata(g, "hone.parent"), "the file as it came");
    assert_string_equal(graph_metadata(g, "hone.version"), HONE_VERSION);
    assert_string_equal(graph_metadata(g, "hone.seed"), "7");
    assert_string_equal(
        graph_metadata(g, "hone.layers"),
        "{\"conv1\":\"fp32\",\"conv2\":\"int8\",\"conv3\":\"fp32\",\"gemm\":\"fp32\"}");
}

static int64_t largest_weight(const struct graph *g, const char *layer)
{
    int64_t most = 0;
    for (int n = 0; n < g->n_nodes; n++) {
        if (strcmp(g->nodes[n]->name, layer) != 0)
            continue;
        const struct node *dq = g->nodes[graph_input_of(g, g->nodes[n], 1)->producer];
        const struct tensor *w = graph_input_of(g, dq, 0)->constant;
        for (int64_t i = 0; i < shape_elements(&w->shape); i++)
            most = llabs(tensor_get_s64(w, i)) > most ? llabs(tensor_get_s64(w, i)) : most;
    }
    return most;
}

static void where_small_is_wanted_networks_are_packed(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *large = build("conv1 conv2 gemm");
    assert_int_equal(large->packed_bytes, 0);
    job.state->spec->objective = HONE__V1__OBJECTIVE__SIZE;
    _cleanup_(message_freep) Hone__V1__Network *small = build("conv1 conv2=int4 gemm=int5");
    _cleanup_(graph_freep) struct graph *g = open_file(small);
    const char *const expected[] = {"int8", "int4", "fp32", "int5"};
    for (size_t i = 0; i < 4; i++)
        assert_string_equal(small->layers[i]->precision, expected[i]);
    assert_int_equal(largest_weight(g, "conv2"), 7);
    assert_int_equal(largest_weight(g, "gemm"), 15);
    assert_string_equal(
        graph_metadata(g, "hone.layers"),
        "{\"conv1\":\"int8\",\"conv2\":\"int4\",\"conv3\":\"fp32\",\"gemm\":\"int5\"}");
    _cleanup_(freep) void *packed = NULL;
    _cleanup_(freep) void *back = NULL;
    _cleanup_(freep) void *file = NULL;
    size_t n, n_back, n_file;
    JOB_OK(store_get(job.store, small->packed, 1 << 20, &packed, &n, err));
    JOB_OK(store_get(job.store, small->artifact, 1 << 20, &file, &n_file, err));
    JOB_OK(packed_read(packed, n, 1 << 20, &back, &n_back, err));
    assert_int_equal(n, small->packed_bytes);
    assert_true(n < n_file / 2);
    assert_int_equal(n_back, n_file);
    assert_memory_equal(back, file, n_file);
}

static void the_same_order_gives_the_same_file(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *a = build(NULL);
    _cleanup_(message_freep) Hone__V1__Network *b = build(NULL);
    assert_string_equal(a->artifact, b->artifact);
}

static void without_labels_the_value_is_the_agreement(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__Network *network = build(NULL);
    const Hone__V1__Accuracy *a = network->accuracies[0];
    assert_string_equal(a->metric, "agreement");
    assert_true(a->value == a->agreement && a->value > 0.9);
}

static void a_layer_that_is_not_there_is_refused(void **state)
{
    (void)state;
    calibrate();
    _cleanup_(message_freep) Hone__V1__BuildTask *order =
        message_new(&hone__v1__build_task__descriptor, NULL);
    order->state = message_clone(job.state, NULL);
    Hone__V1__LayerChoice *choice = message_new(&hone__v1__layer_choice__descriptor, NULL);
    JOB_OK(message_set(&choice->layer, "conv99", err));
    JOB_OK(message_set(&choice->precision, "int8", err));
    JOB_OK(message_append(&order->layers, &order->n_layers, choice, err));
    struct err err = {0};
    assert_int_equal(job_run(&job, exporter_build, order, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "conv99"));
}

static void a_cancelled_task_stops(void **state)
{
    (void)state;
    Hone__V1__StageTask stage = HONE__V1__STAGE_TASK__INIT;
    stage.state = job.state;
    job.running.cancelled = true;
    struct err err = {0};
    assert_int_equal(job_run(&job, exporter_calibrate, &stage, &err), -ERR_CANCELLED);
}

static void targets_without_vnni_get_seven_bits(void **state)
{
    (void)state;
    const char *const targets[] = {"cpu:avx2", "cpu:avx512_core", "cpu:avx512_core_vnni",
                                   "cpu:avx2_vnni", "cpu:avx512_core_amx"};
    const int most = nn_has_int8() ? 8 : 7, bits[] = {7, 7, most, most, most};
    for (int i = 0; i < 5; i++) {
        JOB_OK(message_set(&job.state->spec->target, targets[i], err));
        assert_int_equal(build_weight_bits(job.state), bits[i]);
    }
}

/* ---- students ---- */

/* conv9 -> Relu -> GlobalAveragePool -> Flatten -> Gemm, in the store. */
static void store_student(char ret_name[HASH_HEX_BYTES])
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv conv = {.in = 3, .out = 16, .kernel = 3};
    struct net net;
    net_init(&net, 9);
    int x = net_conv(&net, "conv9", net_input(&net, "input", 4, dims), &conv);
    x = net_unary(&net, OP_GLOBAL_AVERAGE_POOL, "gap9", net_unary(&net, OP_RELU, "relu9", x));
    x = net_gemm(&net, "gemm9", net_unary(&net, OP_FLATTEN, "flat9", x), 16, JOB_CLASSES, true);
    net_finish(&net, x);
    _cleanup_(freep) void *data = NULL;
    size_t bytes;
    JOB_OK(onnx_write_bytes(net.g, &data, &bytes, err));
    JOB_OK(store_put(job.store, data, bytes, ret_name, err));
    net_release(&net);
}

static Hone__V1__BuildTask *student_order(void)
{
    Hone__V1__BuildTask *order = message_new(&hone__v1__build_task__descriptor, NULL);
    char name[HASH_HEX_BYTES];
    store_student(name);
    order->state = message_clone(job.state, NULL);
    order->all_int8 = true;
    order->student = message_new(&hone__v1__student__descriptor, NULL);
    JOB_OK(message_set(&order->name, "student-3", err));
    JOB_OK(message_set(&order->network, name, err));
    JOB_OK(message_set(&order->student->design, "conv:16 head", err));
    return order;
}

/* Without the ranges of the job's network: it is calibrated in the task. */
static void a_trained_network_is_built_from_its_own_weights(void **state)
{
    (void)state;
    _cleanup_(message_freep) Hone__V1__BuildTask *order = student_order();
    JOB_OK(job_run(&job, exporter_build, order, err));
    _cleanup_(message_freep) Hone__V1__BuildResult *result =
        job_result(&job, &hone__v1__build_result__descriptor);
    const Hone__V1__Network *network = result->network;
    _cleanup_(graph_freep) struct graph *g = open_file(network);
    assert_string_equal(network->name, "student-3");
    assert_string_equal(network->design, "conv:16 head");
    assert_int_equal(network->n_layers, 2);
    assert_string_equal(network->layers[0]->layer, "conv9");
    assert_string_equal(network->layers[0]->precision, "int8");
    assert_true(net_count(g, OP_QUANTIZE_LINEAR) > 0);
    assert_string_equal(graph_metadata(g, "hone.design"), "conv:16 head");
    assert_string_equal(graph_metadata(g, "hone.parent"), "the file as it came");
    assert_int_equal(network->accuracies[0]->n, 60); /* against the original's answers */
    assert_true(network->accuracies[0]->kl > 0);
}

static void choose_for(Hone__V1__Student *student, const char *layer, const char *precision)
{
    Hone__V1__LayerChoice *choice = message_new(&hone__v1__layer_choice__descriptor, NULL);
    JOB_OK(message_set(&choice->layer, layer, err));
    JOB_OK(message_set(&choice->precision, precision, err));
    JOB_OK(message_append(&student->layers, &student->n_layers, choice, err));
}

static void layers_of_a_student_keep_the_precision_that_was_selected_with_it(void **state)
{
    (void)state;
    _cleanup_(message_freep) Hone__V1__BuildTask *order = student_order();
    choose_for(order->student, "5-8.", "fp32"); /* the whole of something that is gone */
    choose_for(order->student, "conv", "fp32"); /* no layer of this name */
    choose_for(order->student, "gemm9", "fp32");
    JOB_OK(job_run(&job, exporter_build, order, err));
    _cleanup_(message_freep) Hone__V1__BuildResult *result =
        job_result(&job, &hone__v1__build_result__descriptor);
    assert_int_equal(result->network->n_layers, 2);
    assert_string_equal(result->network->layers[0]->precision, "int8");
    assert_string_equal(result->network->layers[1]->precision, "fp32");
}

/* In few bits; then, as if it had learned on, as it is. */
static void a_network_that_learned_quantized_stays_as_it_is(void **state)
{
    (void)state;
    _cleanup_(message_freep) Hone__V1__BuildTask *order = student_order();
    order->weight_bits = 4;
    order->student->macs = 123;
    JOB_OK(job_run(&job, exporter_build, order, err));
    _cleanup_(message_freep) Hone__V1__BuildResult *first =
        job_result(&job, &hone__v1__build_result__descriptor);
    _cleanup_(graph_freep) struct graph *g = open_file(first->network);
    assert_string_equal(first->network->layers[0]->precision, "int4");
    assert_int_equal(largest_weight(g, "conv9"), 7);
    order->all_int8 = false;
    order->layers = first->network->layers;
    order->n_layers = first->network->n_layers;
    JOB_OK(message_set(&order->network, first->network->artifact, err));
    JOB_OK(message_set(&order->name, "student-3-int4-tuned", err));
    JOB_OK(job_run(&job, exporter_build, order, err));
    order->layers = NULL;
    order->n_layers = 0;
    _cleanup_(message_freep) Hone__V1__BuildResult *second =
        job_result(&job, &hone__v1__build_result__descriptor);
    _cleanup_(graph_freep) struct graph *same = open_file(second->network);
    assert_int_equal(same->n_nodes, g->n_nodes);
    assert_string_equal(graph_metadata(same, "hone.name"), "student-3-int4-tuned");
    assert_string_equal(graph_metadata(same, "hone.layers"), graph_metadata(g, "hone.layers"));
    assert_string_equal(second->network->layers[1]->precision, "int4");
    assert_int_equal(second->network->macs, 123);
    assert_true(second->network->accuracies[0]->kl == first->network->accuracies[0]->kl);
}

static void a_trained_network_of_no_student_is_refused(void **state)
{
    (void)state;
    _cleanup_(message_freep) Hone__V1__BuildTask *order = student_order();
    message_free(order->student);
    order->student = NULL;
    struct err err = {0};
    assert_int_equal(job_run(&job, exporter_build, order, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "student"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(calibration_stores_ranges_and_starts_what_follows),
        TEST(plain_int8_has_every_layer_in_int8),
        TEST(the_network_is_scored_on_the_search_part),
        TEST(layers_that_are_not_named_stay_fp32),
        TEST(the_file_says_where_it_comes_from),
        TEST(where_small_is_wanted_networks_are_packed),
        TEST(the_same_order_gives_the_same_file),
        cmocka_unit_test_setup_teardown(without_labels_the_value_is_the_agreement,
                                        begin_without_labels, end),
        TEST(a_layer_that_is_not_there_is_refused),
        TEST(a_trained_network_is_built_from_its_own_weights),
        TEST(layers_of_a_student_keep_the_precision_that_was_selected_with_it),
        TEST(a_network_that_learned_quantized_stays_as_it_is),
        TEST(a_trained_network_of_no_student_is_refused),
        TEST(a_cancelled_task_stops),
        TEST(targets_without_vnni_get_seven_bits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
