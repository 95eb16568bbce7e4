/* Training by the trainer's own program: whatever happens to it on the way, the network that comes
 * out is the same, bit for bit (its artifact has the same name). */
#include "tests/support/redis_ask.h"

#include <math.h>

#include "shared/graph/onnx.h"
#include "shared/work/state.h"
#include "tests/unit/train/drawn.h"

#define PROGRAM HONE_BINARY_DIR "/services/trainer/hone-trainer"
/* A checkpoint after each step; and so slow that there is time to do something to it. */
#define EVERY_STEP "HONE_CHECKPOINT_SECONDS", "0.000001"
#define SLOWLY EVERY_STEP, "HONE_FAILPOINT", "trainer.kept=sleep:20"

static struct drawn data;
static char data_name[HASH_HEX_BYTES], network_name[HASH_HEX_BYTES];

static pid_t start(struct on_redis *on, const char *const *env)
{
    return worker_exec(on, PROGRAM, env);
}

/* ---- what is asked for ---- */

struct asked {
    Hone__V1__TrainTask task;
    Hone__V1__TrainSettings settings;
    Hone__V1__Preprocess pre;
};

static void ask(struct asked *q)
{
    hone__v1__train_task__init(&q->task);
    hone__v1__train_settings__init(&q->settings);
    hone__v1__preprocess__init(&q->pre);
    q->pre.text = (char *)"mean=80 std=60";
    q->settings.epochs = 4;
    q->settings.batch = 48;
    q->settings.crop = 1;
    q->settings.flip = (char *)"none";
    q->settings.seed = 4;
    q->settings.reinit = true;
    q->settings.ema = 0.9;
    q->settings.evaluate = 1;
    q->settings.precision = (char *)"fp32";
    q->task.name = (char *)"student";
    q->task.network = network_name;
    q->task.data = data_name;
    q->task.preprocess = &q->pre;
    q->task.settings = &q->settings;
}

/* The store of this test's workers, with network and data in it. */
static struct store *begin(void)
{
    struct store *store = NULL;
    _cleanup_(graph_freep) struct graph *g = drawn_network(8, 1);
    _cleanup_(freep) void *bytes = NULL;
    size_t n = 0;
    workers_begin();
    _cleanup_(freep) char *url = str_printf("file://%s/store", worker_folder);
    OK(store_open(url, &store, err));
    OK(store_put_file(store, drawn_path(&data, "packed"), data_name, err));
    OK(onnx_write_bytes(g, &bytes, &n, err));
    OK(store_put(store, bytes, n, network_name, err));
    return store;
}

static void end(struct store *store)
{
    store_close(store);
    workers_end();
}

/* ---- a job of one task, whose result comes back to this test ---- */

static void put(struct on_redis *on, const char *job, const char *kind, const void *message)
{
    ask_put(on, job, "trainer", kind, message);
}

static Hone__V1__TrainResult *get_trained(struct on_redis *on)
{
    return ask_get(on, &hone__v1__train_result__descriptor);
}

static Hone__V1__TrainResult *train(struct on_redis *on, const char *job, const struct asked *q)
{
    put(on, job, "train", &q->task);
    return get_trained(on);
}

/* What the same task gives when nothing happens to it. Of this store: of another one it would be
 * remembered. */
static const char *undisturbed(struct on_redis *on)
{
    static char name[HASH_HEX_BYTES];
    struct asked q;
    if (*name)
        return name;
    char test_folder[sizeof(worker_folder)];
    str_copy(test_folder, sizeof(test_folder), worker_folder);
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q);
    _cleanup_(message_freep) Hone__V1__TrainResult *result = train(on, "undisturbed", &q);
    str_copy(name, sizeof(name), result->network->artifact);
    worker_stop(pid);
    end(store);
    str_copy(worker_folder, sizeof(worker_folder), test_folder);
    return name;
}

/* ---- tests ---- */

static void a_network_learns_and_its_curve_comes_with_it(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q);
    q.settings.epochs = 12;
    _cleanup_(message_freep) Hone__V1__TrainResult *r = train(on, "J1", &q);
    assert_int_equal(r->n_curve, 12);
    assert_int_equal(r->epochs, 12);
    assert_true(r->curve[11]->loss < r->curve[0]->loss / 2);
    assert_true(r->seconds > 0 && r->images_per_second > 0);
    assert_int_equal(r->network->n_accuracies, 1);
    assert_string_equal(r->network->accuracies[0]->part, "search");
    assert_true(r->network->accuracies[0]->value > 0.85);
    assert_true(r->network->accuracies[0]->value == r->curve[11]->search_accuracy);
    assert_int_equal(r->network->accuracies[0]->n, 48);
    assert_true(r->network->macs > 0 && r->network->bytes > 0);
    assert_int_equal(store_has(store, r->network->artifact, NULL), 1);
    assert_string_equal(r->checkpoint, ""); /* there is nothing left to go on to */
    _cleanup_(freep) char *events = job_events(on, "J1");
    const char *progress = strstr(events, "\"stage\":\"train student\"");
    assert_non_null(progress);
    const char *loss = strstr(progress, "\"loss\":");
    assert_true(loss && loss < strchr(progress, '\n'));
    assert_non_null(strstr(events, "\"type\":\"epoch\",\"epoch\":12,\"epochs\":12,\"loss\":"));

    /* the same once more is remembered, its epochs too */
    _cleanup_(message_freep) Hone__V1__TrainResult *again = train(on, "J2", &q);
    assert_string_equal(again->network->artifact, r->network->artifact);
    _cleanup_(freep) char *repeated = job_events(on, "J2");
    assert_non_null(strstr(repeated, "\"type\":\"reused\""));
    assert_non_null(strstr(repeated, "\"type\":\"epoch\",\"epoch\":12"));
    worker_stop(pid);
    end(store);
}

static void a_killed_run_goes_on_at_its_last_checkpoint(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    const char *expected = undisturbed(on);
    struct store *store = begin();
    ask(&q);
    put(on, "J1", "train", &q.task);
    for (int death = 0; death < 2; death++) {
        int status = worker_wait(start(
            on, ENV("HONE_LEASE_MS", "100", EVERY_STEP, "HONE_FAILPOINT", "trainer.kept=kill@11")));
        assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    }
    pid_t pid = start(on, ENV(EVERY_STEP));
    _cleanup_(message_freep) Hone__V1__TrainResult *r = get_trained(on);
    assert_string_equal(r->network->artifact, expected);
    assert_int_equal(r->n_curve, 4);
    /* 36 steps, 22 of them done by the dead: three epochs end in what is left */
    _cleanup_(freep) char *events = job_events(on, "J1");
    assert_null(strstr(strstr(events, "\"type\":\"retried\""), "\"type\":\"epoch\",\"epoch\":1,"));
    worker_wait_log(on, "training goes on where it was stopped");
    worker_stop(pid);
    end(store);
}

static void a_run_without_a_checkpoint_starts_again(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    const char *expected = undisturbed(on);
    struct store *store = begin();
    ask(&q);
    put(on, "J1", "train", &q.task);
    worker_wait(start(on, ENV("HONE_LEASE_MS", "100", EVERY_STEP, "HONE_FAILPOINT",
                              "store.before_rename=kill@1")));
    pid_t pid = start(on, NULL);
    _cleanup_(message_freep) Hone__V1__TrainResult *r = get_trained(on);
    assert_string_equal(r->network->artifact, expected);
    worker_stop(pid);
    end(store);
}

static void a_damaged_checkpoint_costs_time_only(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    const char *expected = undisturbed(on);
    struct store *store = begin();
    _cleanup_(freep) void *payload = NULL;
    size_t bytes = 0;
    char hex[HASH_HEX_BYTES];
    ask(&q);
    OK(message_pack(&q.task, &payload, &bytes, err));
    OK(hash_bytes(payload, bytes, hex, err));
    _cleanup_(freep) char *record = str_printf("trainer/runs/%s", hex);
    OK(store_record_put(store, record, "not a checkpoint", 16, err));
    pid_t pid = start(on, NULL);
    _cleanup_(message_freep) Hone__V1__TrainResult *r = train(on, "J1", &q);
    assert_string_equal(r->network->artifact, expected);
    worker_wait_log(on, "training starts again");
    worker_stop(pid);
    end(store);
}

static void a_worker_that_stops_hands_its_run_over(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    char after[32] = "0";
    const char *expected = undisturbed(on);
    struct store *store = begin();
    pid_t pid = start(on, ENV(SLOWLY));
    ask(&q);
    put(on, "J1", "train", &q.task);
    job_wait_event(on, "J1", "epoch", after);
    worker_stop(pid);
    worker_wait_log(on, "the task was given back");
    pid = start(on, NULL);
    _cleanup_(message_freep) Hone__V1__TrainResult *r = get_trained(on);
    assert_string_equal(r->network->artifact, expected);
    worker_wait_log(on, "training goes on where it was stopped");
    worker_stop(pid);
    end(store);
}

static void a_cancelled_run_ends_and_its_worker_is_free(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    char after[32] = "0";
    const char *expected = undisturbed(on);
    struct store *store = begin();
    pid_t pid = start(on, ENV("HONE_LEASE_MS", "300", SLOWLY));
    ask(&q);
    put(on, "J1", "train", &q.task);
    job_wait_event(on, "J1", "epoch", after);
    OK(queue_job_cancel(on->q, "J1", err));
    worker_wait_log(on, "train was cancelled");
    /* who asks again does not pay again */
    _cleanup_(message_freep) Hone__V1__TrainResult *r = train(on, "J2", &q);
    assert_string_equal(r->network->artifact, expected);
    worker_wait_log(on, "training goes on where it was stopped");
    worker_stop(pid);
    end(store);
}

static void a_promoted_student_goes_on(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    const char *expected = undisturbed(on);
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q);
    q.task.first_epochs = 1;
    _cleanup_(message_freep) Hone__V1__TrainResult *first = train(on, "J1", &q);
    assert_int_equal(first->n_curve, 1);
    assert_int_equal(first->epochs, 4);
    assert_false(isnan(first->curve[0]->search_accuracy));
    assert_string_not_equal(first->network->artifact, expected);
    q.task.first_epochs = 3;
    q.task.continue_from = first->checkpoint;
    _cleanup_(message_freep) Hone__V1__TrainResult *second = train(on, "J2", &q);
    assert_int_equal(second->n_curve, 3);
    q.task.first_epochs = 0;
    q.task.continue_from = second->checkpoint;
    _cleanup_(message_freep) Hone__V1__TrainResult *whole = train(on, "J3", &q);
    assert_int_equal(whole->n_curve, 4);
    assert_true(whole->curve[0]->loss == first->curve[0]->loss);
    assert_string_equal(whole->network->artifact, expected);
    worker_stop(pid);
    end(store);
}

static int norms_of(struct store *store, const char *artifact)
{
    _cleanup_(freep) void *bytes = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    size_t n = 0;
    int norms = 0;
    OK(store_get(store, artifact, 1 << 30, &bytes, &n, err));
    OK(onnx_read_bytes(bytes, n, NULL, NULL, &g, err));
    for (int i = 0; i < g->n_nodes; i++)
        norms += g->nodes[i]->op == OP_BATCH_NORMALIZATION;
    return norms;
}

/* With what its norms have learned; what is shipped has them folded. */
static void a_run_goes_on_from_the_trunk_of_another(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q);
    q.settings.schedule = (char *)"trapezoid";
    _cleanup_(message_freep) Hone__V1__TrainResult *first = train(on, "J1", &q);
    assert_string_not_equal(first->trunk, "");
    const int norms = norms_of(store, first->trunk);
    assert_true(norms > 0);
    assert_int_equal(norms_of(store, first->network->artifact), 0);
    q.task.network = first->trunk;
    q.settings.reinit = q.settings.zero_residual = false;
    _cleanup_(message_freep) Hone__V1__TrainResult *second = train(on, "J2", &q);
    assert_true(second->curve[0]->loss < first->curve[0]->loss);
    assert_string_not_equal(second->trunk, first->trunk);
    assert_int_equal(norms_of(store, second->trunk), norms);
    assert_int_equal(norms_of(store, second->network->artifact), 0);
    worker_stop(pid);
    end(store);
}

static void a_teachers_answers_are_asked_for_once(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q);
    q.settings.views = 2;
    Hone__V1__TeachTask teach = HONE__V1__TEACH_TASK__INIT;
    teach.teacher = network_name;
    teach.data = data_name;
    teach.preprocess = &q.pre;
    teach.settings = &q.settings;
    put(on, "J1", "teach", &teach);
    _cleanup_(message_freep) Hone__V1__TeachResult *taught =
        ask_get(on, &hone__v1__teach_result__descriptor);
    assert_int_equal(taught->views, 2);
    assert_int_equal(taught->samples, DRAWN_TRAIN - 48);
    assert_true(taught->images_per_second > 0);

    q.task.teacher = network_name;
    _cleanup_(message_freep) Hone__V1__TrainResult *a = train(on, "J2", &q);
    assert_string_equal(a->teacher_cache, taught->cache);
    assert_true(a->curve[3]->loss < a->curve[0]->loss);
    q.task.teacher = (char *)"";
    q.task.teacher_cache = taught->cache;
    _cleanup_(message_freep) Hone__V1__TrainResult *b = train(on, "J3", &q);
    assert_string_equal(b->network->artifact, a->network->artifact);
    worker_stop(pid);
    end(store);
}

static void features_are_learned_from_a_teacher_that_runs_along(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q);
    q.settings.seed = 5; /* another network than the teacher, of the same shapes */
    q.settings.features = (char *)"auto";
    q.task.teacher = network_name;
    _cleanup_(message_freep) Hone__V1__TrainResult *r = train(on, "J1", &q);
    assert_true(r->curve[3]->feature_loss > 0);
    assert_true(r->curve[3]->feature_loss < r->curve[0]->feature_loss);
    worker_stop(pid);
    end(store);
}

static void refused(struct on_redis *on, const char *job, const struct asked *q, const char *why)
{
    put(on, job, "train", &q->task);
    _cleanup_(task_freep) struct task *task = ask_claim(on);
    assert_null(task->results[0]);
    assert_true(str_starts_with(task->failures[0], "trainer train: "));
    if (!strstr(task->failures[0], why))
        fail_msg("'%s' lacks '%s'", task->failures[0], why);
    assert_null(strchr(task->failures[0], '\n'));
    assert_null(strstr(task->failures[0], "delivery")); /* not tried again */
    OK(queue_job_finish(on->q, task, "", 0, err));
}

static void what_makes_no_sense_is_refused_in_one_sentence(void **state)
{
    struct on_redis *on = *state;
    struct asked q;
    char nowhere[HASH_HEX_BYTES];
    memset(nowhere, '0', sizeof(nowhere) - 1);
    nowhere[HASH_HEX_BYTES - 1] = 0;
    struct store *store = begin();
    pid_t pid = start(on, NULL);
    ask(&q), q.task.network = (char *)"";
    refused(on, "J1", &q, "the task names no network");
    ask(&q), q.task.network = nowhere;
    refused(on, "J2", &q, "network: ");
    ask(&q), q.task.data = nowhere;
    refused(on, "J3", &q, "data: ");
    ask(&q), q.task.preprocess = NULL;
    refused(on, "J4", &q, "says nothing of preprocessing");
    ask(&q), q.settings.optimizer = (char *)"sdg";
    refused(on, "J5", &q, "settings: optimizer='sdg' is none of sgd, adam, adamw");
    ask(&q), q.settings.ema = 2;
    refused(on, "J6", &q, "settings: ema=2: 0 to 0.99999 are possible");
    ask(&q), q.settings.rate = NAN;
    refused(on, "J7", &q, "settings: rate=nan");
    ask(&q), q.settings.batch = 60000;
    refused(on, "J8", &q, "too few for a batch of 60000");
    ask(&q), q.settings.crop = 99;
    refused(on, "J9", &q, "crop of 99");
    ask(&q), q.settings.features = (char *)"auto";
    refused(on, "J13", &q, "the task names no teacher");
    ask(&q), q.task.continue_from = nowhere;
    refused(on, "J10", &q, "continue_from: ");
    ask(&q), q.task.first_epochs = 1;
    _cleanup_(message_freep) Hone__V1__TrainResult *first = train(on, "J11", &q);
    ask(&q), q.task.continue_from = first->checkpoint, q.settings.seed = 5;
    refused(on, "J12", &q, "seed=4, this run has seed=5");
    worker_stop(pid);
    end(store);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_network_learns_and_its_curve_comes_with_it),
        cmocka_unit_test(a_killed_run_goes_on_at_its_last_checkpoint),
        cmocka_unit_test(a_run_without_a_checkpoint_starts_again),
        cmocka_unit_test(a_damaged_checkpoint_costs_time_only),
        cmocka_unit_test(a_worker_that_stops_hands_its_run_over),
        cmocka_unit_test(a_cancelled_run_ends_and_its_worker_is_free),
        cmocka_unit_test(a_promoted_student_goes_on),
        cmocka_unit_test(a_run_goes_on_from_the_trunk_of_another),
        cmocka_unit_test(a_teachers_answers_are_asked_for_once),
        cmocka_unit_test(features_are_learned_from_a_teacher_that_runs_along),
        cmocka_unit_test(what_makes_no_sense_is_refused_in_one_sentence),
    };
    drawn_open(&data);
    const int failed = ON_REDIS_RUN("faults: training", tests);
    drawn_close(&data);
    return failed;
}
