/* Task "train" of the trainer, given a network in few bits: it learns on in them. */
#include "tests/support/quant_task.h"

#include "services/trainer/trainer.h"
#include "shared/nn/quantize.h"

#define MOST 3 /* of 3 bits */

static struct job job;
static struct trainer context = {.checkpoint_seconds = 1000};
static struct graph *before; /* the network in few bits */

static int begin(void **state)
{
    (void)state;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    const struct infer_options infer = {.threads = 1};
    const struct quant_options bits = {.weight_bits = 3};
    uint64_t seed = 1;
    job_begin(&job, true);
    job.ctx = &context;
    JOB_OK(quant_calibrate(job.net.g, &infer, 64, job_fill, &seed, &ranges, err));
    JOB_OK(quant_rewrite_all(job.net.g, &ranges, &bits, &before, err));
    JOB_OK(graph_set_metadata(before, "hone.weight_bits", "8", err));
    return 0;
}

static int end(void **state)
{
    (void)state;
    graph_free(before);
    job_end(&job);
    return 0;
}

static void store_network(const struct graph *g, char name[HASH_HEX_BYTES])
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    JOB_OK(onnx_write_bytes(g, &data, &bytes, err));
    JOB_OK(store_put(job.store, data, bytes, name, err));
}

/* Some epochs from the original's answers. */
static struct graph *train(void)
{
    Hone__V1__TrainTask task = HONE__V1__TRAIN_TASK__INIT;
    Hone__V1__TrainSettings how = HONE__V1__TRAIN_SETTINGS__INIT;
    char name[HASH_HEX_BYTES];
    store_network(before, name);
    how.epochs = 12;
    how.batch = 30;
    how.optimizer = (char *)"adam";
    how.schedule = (char *)"cosine";
    how.rate = 5e-3;
    how.evaluate = -1;
    how.flip = (char *)"none";
    how.views = 1;
    how.distil = 1;
    how.temperature = 4;
    task.name = (char *)"student-1-int3";
    task.network = name;
    task.data = job.state->data->artifact;
    task.preprocess = job.state->preprocess;
    task.settings = &how;
    task.teacher = task.judge = task.original = job.state->network;
    JOB_OK(job_run(&job, trainer_train, &task, err));
    _cleanup_(message_freep) Hone__V1__TrainResult *result =
        job_result(&job, &hone__v1__train_result__descriptor);
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    struct graph *g = NULL;
    JOB_OK(store_get(job.store, result->network->artifact, 1 << 20, &data, &bytes, err));
    JOB_OK(onnx_read_bytes(data, bytes, NULL, NULL, &g, err));
    return g;
}

/* KL from the original on samples that nobody has learned. */
static double divergence(const struct graph *g)
{
    enum { N = 200 };
    static float was[N * JOB_CLASSES], is[N * JOB_CLASSES];
    const struct infer_options infer = {.threads = 1};
    uint64_t seed = 3;
    struct infer_metrics m;
    JOB_OK(infer_run(job.net.g, &infer, N, job_fill, &seed, was, err));
    JOB_OK(infer_run(g, &infer, N, job_fill, &seed, is, err));
    infer_metrics(is, was, NULL, N, JOB_CLASSES, &m);
    return m.kl;
}

/* How many weights there are, all within their bits. */
static int64_t count_weights(const struct graph *g)
{
    int64_t n = 0;
    for (int v = 0; v < g->n_values; v++) {
        const struct tensor *t = g->values[v]->constant;
        for (int64_t i = 0; t && t->dtype == DTYPE_S8 && i < shape_elements(&t->shape); i++, n++)
            assert_in_range(tensor_get_s64(t, i) + MOST, 0, 2 * MOST);
    }
    return n;
}

static void what_learns_in_few_bits_keeps_to_them_and_comes_nearer(void **state)
{
    (void)state;
    _cleanup_(graph_freep) struct graph *after = train();
    assert_true(quant_is_quantized(after));
    assert_string_equal(graph_metadata(after, "hone.weight_bits"), "8");
    assert_int_equal(net_count(after, OP_DEQUANTIZE_LINEAR),
                     net_count(before, OP_DEQUANTIZE_LINEAR));
    assert_int_equal(count_weights(after), count_weights(before));
    const double was = divergence(before), is = divergence(after);
    if (!(is < 0.8 * was))
        fail_msg("KL %g, before it learned %g", is, was);
}

static void an_original_that_is_not_there_is_named(void **state)
{
    (void)state;
    Hone__V1__TrainTask task = HONE__V1__TRAIN_TASK__INIT;
    Hone__V1__TrainSettings how = HONE__V1__TRAIN_SETTINGS__INIT;
    struct err err = {0};
    char name[HASH_HEX_BYTES];
    store_network(before, name);
    how.epochs = 1;
    task.network = name;
    task.data = job.state->data->artifact;
    task.preprocess = job.state->preprocess;
    task.settings = &how;
    task.original = (char *)"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
    assert_true(job_run(&job, trainer_train, &task, &err) < 0);
    assert_non_null(strstr(err.message, "0123456789abcdef"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_learns_in_few_bits_keeps_to_them_and_comes_nearer,
                                        begin, end),
        cmocka_unit_test_setup_teardown(an_original_that_is_not_there_is_named, begin, end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
