/* Task "score" of the trainer, on a small network that labels its own data. */
#include "tests/support/quant_task.h"

#include "services/trainer/trainer.h"
#include "shared/nn/quantize.h"
#include "shared/nn/ranges.h"

static struct job job;

static int begin(void **state)
{
    (void)state;
    _cleanup_(quant_ranges_release) struct quant_ranges ranges = {0};
    _cleanup_(message_freep) Hone__V1__Ranges *message = NULL;
    const struct infer_options options = {.threads = 1};
    uint64_t seed = 1;
    char name[HASH_HEX_BYTES];
    job_begin(&job, true);
    JOB_OK(quant_calibrate(job.net.g, &options, 64, job_fill, &seed, &ranges, err));
    JOB_OK(ranges_to_message(&ranges, &message, err));
    JOB_OK(message_store(job.store, message, name, err));
    JOB_OK(message_set(&job.state->ranges, name, err));
    return 0;
}

static int end(void **state)
{
    (void)state;
    job_end(&job);
    return 0;
}

static int run(struct err *err)
{
    Hone__V1__StageTask stage = HONE__V1__STAGE_TASK__INIT;
    stage.state = job.state;
    return job_run(&job, trainer_score, &stage, err);
}

static void every_layer_gets_a_score(void **state)
{
    (void)state;
    const char *const layers[] = {"conv1", "conv2", "conv3", "gemm"};
    JOB_OK(run(err));
    _cleanup_(message_freep) Hone__V1__ScoreResult *result =
        job_result(&job, &hone__v1__score_result__descriptor);
    _cleanup_(message_freep) Hone__V1__Scores *scores = NULL;
    JOB_OK(message_load(job.store, result->scores, &hone__v1__scores__descriptor, &scores, err));
    assert_int_equal(scores->samples, 60); /* the whole search part */
    int found = 0;
    for (size_t i = 0; i < scores->n_scores; i++) {
        const Hone__V1__Scores__Score *s = scores->scores[i];
        if (strcmp(s->precision, "int8") != 0)
            continue;
        assert_true(found < 4);
        assert_string_equal(s->layer, layers[found++]);
        assert_true(s->kl > 0 && s->kl < 0.05);
        assert_true(s->agreement > 0.9 && s->agreement <= 1);
    }
    assert_int_equal(found, 4);
}

static void the_same_task_gives_the_same_scores(void **state)
{
    (void)state;
    JOB_OK(run(err));
    _cleanup_(message_freep) Hone__V1__ScoreResult *a =
        job_result(&job, &hone__v1__score_result__descriptor);
    JOB_OK(run(err));
    _cleanup_(message_freep) Hone__V1__ScoreResult *b =
        job_result(&job, &hone__v1__score_result__descriptor);
    assert_string_equal(a->scores, b->scores);
}

static void ranges_that_are_not_there_are_an_error(void **state)
{
    (void)state;
    struct err err = {0};
    memset(job.state->ranges, '0', 64);
    assert_int_equal(run(&err), -ERR_NOT_FOUND);
}

static void a_cancelled_task_stops(void **state)
{
    (void)state;
    struct err err = {0};
    job.running.cancelled = true;
    assert_int_equal(run(&err), -ERR_CANCELLED);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(every_layer_gets_a_score),
        TEST(the_same_task_gives_the_same_scores),
        TEST(ranges_that_are_not_there_are_an_error),
        TEST(a_cancelled_task_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
