/* Task "imitate" of the trainer: parts of a small network are learned anew, and scored. */
#include "tests/support/quant_task.h"
#include "tests/support/redis.h"

#include <math.h>

#include "services/trainer/trainer.h"
#include "shared/graph/cuts.h"

typedef Hone__V1__Library__Arc arc_message;

static struct job job;
static struct net student; /* conv, Relu between relu1 and relu3 */
static char student_name[HASH_HEX_BYTES];
static double seconds, reserve_s; /* of a lesson; kept from it */
static struct test_redis redis;   /* for lessons that have a limit */

static int begin(void **state)
{
    (void)state;
    static const int64_t dims[] = {DIM_BATCH, 8, 8, 8};
    const struct net_conv conv = {.in = 8, .out = 8, .kernel = 3};
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    job_begin(&job, true);
    net_init(&student, 9);
    const int x = net_conv(&student, "conv", net_input(&student, "in", 4, dims), &conv);
    net_finish(&student, net_unary(&student, OP_RELU, "relu", x));
    JOB_OK(onnx_write_bytes(student.g, &data, &bytes, err));
    JOB_OK(store_put(job.store, data, bytes, student_name, err));
    return 0;
}

static int end(void **state)
{
    (void)state;
    job.queue = queue_close(job.queue);
    test_redis_stop(&redis);
    job_end(&job);
    net_release(&student);
    return 0;
}

/* The job of which lessons are, with a budget; 0: with none. */
static void open_job(double budget_s)
{
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    const struct task_spec first = {
        .queue = "none", .kind = "none", .payload = "", .payload_bytes = 0};
    const struct queue_options options = {.url = redis.url};
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    spec.budget_s = budget_s;
    assert_int_equal(test_redis_start(&redis, "redis-server", "no"), 0);
    JOB_OK(queue_open(&options, &job.queue, err));
    JOB_OK(message_pack(&spec, &packed, &bytes, err));
    JOB_OK(queue_job_create(job.queue, "J1", "net", packed, bytes, &first, err));
    str_copy(job.task.job, sizeof(job.task.job), "J1");
}

static arc_message arc(const char *text, const char *from, const char *to, const char *network)
{
    arc_message a = HONE__V1__LIBRARY__ARC__INIT;
    a.text = (char *)text;
    a.from = (char *)from;
    a.to = (char *)to;
    a.network = (char *)network;
    return a;
}

/* One to stand for the block, and nothing at all in its place. */
static int run(uint64_t samples, arc_message *arcs, size_t n, struct err *err)
{
    Hone__V1__ImitateTask task = HONE__V1__IMITATE_TASK__INIT;
    Hone__V1__TrainSettings settings = HONE__V1__TRAIN_SETTINGS__INIT;
    arc_message *list[4];
    static char fp32[] = "fp32", int8[] = "int8", none[] = "none";
    char *precisions[] = {fp32, int8};
    for (size_t i = 0; i < n; i++)
        list[i] = &arcs[i];
    settings.batch = 20;
    settings.rate = 0.01;
    settings.seed = 7;
    settings.flip = none;
    settings.crop = 0;
    task.network = job.state->network;
    task.data = job.state->data->artifact;
    task.preprocess = job.state->preprocess;
    task.settings = &settings;
    task.arcs = list;
    task.n_arcs = n;
    task.samples = samples;
    task.seconds = seconds;
    task.reserve_s = reserve_s;
    task.precisions = precisions;
    task.n_precisions = 2;
    return job_run(&job, trainer_imitate, &task, err);
}

static Hone__V1__ImitateResult *lesson(uint64_t samples)
{
    arc_message arcs[] = {arc("conv", "relu1_out", "relu3_out", student_name),
                          arc("identity", "relu1_out", "relu3_out", "")};
    JOB_OK(run(samples, arcs, 2, err));
    return job_result(&job, &hone__v1__imitate_result__descriptor);
}

static void what_learns_does_better_than_what_does_not(void **state)
{
    (void)state;
    _cleanup_(message_freep) Hone__V1__ImitateResult *before = lesson(0), *after = lesson(4000);
    assert_int_equal(after->n_arcs, 2);
    const arc_message *conv = after->arcs[0], *nothing = after->arcs[1];
    assert_string_equal(conv->out, "");
    assert_true(isnan(before->arcs[0]->loss));
    assert_true(conv->loss > 0 && conv->loss < 0.5);
    assert_string_not_equal(conv->network, student_name);
    assert_string_equal(nothing->network, "");
    for (int p = 0; p < 2; p++) {
        assert_int_equal(conv->n_kl, 2);
        assert_true(conv->kl[p] > 0 && conv->kl[p] < before->arcs[0]->kl[p]);
        assert_true(nothing->kl[p] > 0 && nothing->kl[p] == before->arcs[1]->kl[p]);
        assert_true(conv->agreement[p] > 0.3 && conv->agreement[p] <= 1);
    }
    assert_true(after->seconds > 0);
}

static void the_same_lesson_gives_the_same_networks(void **state)
{
    (void)state;
    _cleanup_(message_freep) Hone__V1__ImitateResult *a = lesson(400), *b = lesson(400);
    assert_string_equal(a->arcs[0]->network, b->arcs[0]->network);
    assert_true(a->arcs[0]->kl[1] == b->arcs[0]->kl[1]);
}

/* Where that is not enough, samples are fewer. */
static void a_lesson_keeps_its_time(void **state)
{
    (void)state;
    arc_message arcs[] = {arc("conv", "relu1_out", "relu3_out", student_name)};
    open_job(0);
    seconds = 1e-6;
    JOB_OK(run(100000, arcs, 1, err));
    seconds = 0;
    _cleanup_(message_freep) Hone__V1__ImitateResult *result =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_in_range(result->samples, 20, 1000);
    assert_true(isfinite(result->arcs[0]->loss));
}

/* One that begins anew after it was interrupted has what is left of the job, no more. */
static void a_lesson_that_is_late_is_short(void **state)
{
    (void)state;
    arc_message arcs[] = {arc("conv", "relu1_out", "relu3_out", student_name)};
    open_job(120);
    seconds = 60;
    reserve_s = 120;
    JOB_OK(run(1000000000, arcs, 1, err));
    seconds = reserve_s = 0;
    _cleanup_(message_freep) Hone__V1__ImitateResult *result =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_true(result->seconds < 30);
    assert_true(isfinite(result->arcs[0]->loss));
}

/* The block as it is has learned everything already. */
static void the_original_itself_hurts_nobody(void **state)
{
    (void)state;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(graph_freep) struct graph *block = NULL;
    _cleanup_(freep) void *data = NULL;
    struct cuts cuts;
    size_t bytes = 0;
    char name[HASH_HEX_BYTES];
    JOB_OK(graph_cuts(job.net.g, arena, &cuts, err));
    int first = -1, last = -1;
    for (int b = 0; b < cuts.n_blocks; b++) {
        const char *from = job.net.g->values[cuts.blocks[b].from]->name;
        const char *to = job.net.g->values[cuts.blocks[b].to]->name;
        first = strcmp(from, "relu1_out") == 0 ? b : first;
        last = strcmp(to, "relu3_out") == 0 ? b : last;
    }
    JOB_OK(graph_extract_blocks(job.net.g, &cuts, first, last, &block, err));
    JOB_OK(onnx_write_bytes(block, &data, &bytes, err));
    JOB_OK(store_put(job.store, data, bytes, name, err));
    arc_message arcs[] = {arc("keep", "relu1_out", "relu3_out", name)};
    JOB_OK(run(0, arcs, 1, err));
    _cleanup_(message_freep) Hone__V1__ImitateResult *result =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_true(fabs(result->arcs[0]->kl[0]) < 1e-6);
    assert_true(result->arcs[0]->kl[1] > 1e-6); /* in 8 bits */
    JOB_OK(run(200, arcs, 1, err)); /* steps that are too large for it leave it as it is */
    _cleanup_(message_freep) Hone__V1__ImitateResult *trained =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_true(trained->arcs[0]->loss < 0.05);
    assert_true(trained->arcs[0]->kl[0] < 1e-3);
}

/* A whole network is an arc like any. */
static void a_network_learns_as_a_whole(void **state)
{
    (void)state;
    arc_message arcs[] = {arc("student-1", "input", "gemm_out", job.state->network)};
    JOB_OK(run(40, arcs, 1, err));
    _cleanup_(message_freep) Hone__V1__ImitateResult *result =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_string_equal(result->arcs[0]->out, "");
    assert_true(result->arcs[0]->loss < 0.2);
    assert_true(result->arcs[0]->agreement[0] > 0.8);
}

/* One that does not fit learns nothing, and says why; the others do. */
static void who_cannot_learn_says_why(void **state)
{
    (void)state;
    arc_message arcs[] = {arc("wrong", "relu1_out", "gap_out", student_name),
                          arc("conv", "relu1_out", "relu3_out", student_name),
                          arc("wide", "gap_out", "gemm_out", student_name),
                          arc("wide", "input", "relu3_out", student_name)};
    JOB_OK(run(100, arcs, 4, err));
    _cleanup_(message_freep) Hone__V1__ImitateResult *result =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_non_null(strstr(result->arcs[0]->out, "yields 512 values, the original 8"));
    assert_int_equal(result->arcs[0]->n_kl, 0);
    assert_string_equal(result->arcs[1]->out, "");
    assert_int_equal(result->arcs[1]->n_kl, 2);
    assert_non_null(strstr(result->arcs[2]->out, "reads 512 values, the original has 8"));
    assert_non_null(strstr(result->arcs[3]->out, "reads 512 values, the original has "));
}

static void what_cannot_stand_in_its_place_says_why(void **state)
{
    (void)state;
    arc_message arcs[] = {arc("identity", "input", "gemm_out", ""), /* an answer keeps its name */
                          arc("identity", "relu1_out", "relu3_out", "")};
    JOB_OK(run(0, arcs, 2, err));
    _cleanup_(message_freep) Hone__V1__ImitateResult *result =
        job_result(&job, &hone__v1__imitate_result__descriptor);
    assert_string_not_equal(result->arcs[0]->out, "");
    assert_int_equal(result->arcs[0]->n_kl, 0);
    assert_int_equal(result->arcs[1]->n_kl, 2);
}

static void values_that_are_not_there_are_an_error(void **state)
{
    (void)state;
    struct err err = {0};
    arc_message arcs[] = {arc("conv", "relu1_out", "no such value", student_name)};
    assert_int_equal(run(100, arcs, 1, &err), -ERR_INVALID_ARGUMENT);
    assert_non_null(strstr(err.message, "no such value"));
}

static void a_cancelled_lesson_stops(void **state)
{
    (void)state;
    struct err err = {0};
    arc_message arcs[] = {arc("conv", "relu1_out", "relu3_out", student_name)};
    job.running.cancelled = true;
    assert_int_equal(run(1000000, arcs, 1, &err), -ERR_CANCELLED);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(what_learns_does_better_than_what_does_not),
        TEST(the_same_lesson_gives_the_same_networks),
        TEST(a_lesson_keeps_its_time),
        TEST(a_lesson_that_is_late_is_short),
        TEST(the_original_itself_hurts_nobody),
        TEST(a_network_learns_as_a_whole),
        TEST(who_cannot_learn_says_why),
        TEST(what_cannot_stand_in_its_place_says_why),
        TEST(values_that_are_not_there_are_an_error),
        TEST(a_cancelled_lesson_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
