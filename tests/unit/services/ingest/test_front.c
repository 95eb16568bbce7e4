/* The RPC front on a real Redis: submit, get, list, watch, cancel. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <nng/nng.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <unistd.h>
#include <yyjson.h>
#include <cmocka.h>

#include "hone/v1/tasks.pb-c.h"
#include "services/ingest/ingest.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/work/so_far.h"
#include "tests/support/redis.h"

#define LONG_MS 60000
#define THREADS 4

static struct test_redis redis;
static char folder[64], model[96], store_url[96], address[96];
static struct front *front;
static struct rpc_client *client;

static int start_all(void **state)
{
    (void)state;
    struct err err = {0};
    str_copy(folder, sizeof(folder), "/tmp/hone-front-XXXXXX");
    if (!mkdtemp(folder) || test_redis_start(&redis, "redis-server", "no") < 0)
        return -1;
    snprintf(model, sizeof(model), "%s/tiny net.onnx", folder);
    snprintf(store_url, sizeof(store_url), "file://%s/store", folder);
    snprintf(address, sizeof(address), "ipc://%s/ingest", folder);
    struct front_options options = {.address = address,
                                    .redis = redis.url,
                                    .store = store_url,
                                    .target = "cpu:test",
                                    .threads = THREADS};
    if (fs_write_atomic(model, "x", 1, &err) < 0 || front_start(&options, &front, &err) < 0 ||
        rpc_client_open(address, &hone__v1__ingest__descriptor, NULL, &client, &err) < 0) {
        print_error("%s\n", err.message);
        return -1;
    }
    return 0;
}

static int stop_all(void **state)
{
    (void)state;
    client = rpc_client_close(client);
    front = front_stop(front);
    test_redis_stop(&redis);
    return fs_remove_tree(folder, NULL);
}

/* ---- calls ---- */

static Hone__V1__JobSpec good_spec(void)
{
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.version = 1;
    spec.model_path = model;
    spec.data_path = folder;
    spec.threads = 2;
    return spec;
}

static int submit(const char *id, Hone__V1__JobSpec *spec, struct err *err)
{
    Hone__V1__SubmitRequest request = HONE__V1__SUBMIT_REQUEST__INIT;
    request.spec = spec;
    request.job_id = (char *)id;
    _cleanup_(rpc_message_freep) Hone__V1__SubmitResponse *reply = NULL;
    int r = rpc_call(client, "Submit", &request.base, LONG_MS, (ProtobufCMessage **)&reply, err);
    if (r == 0)
        assert_string_equal(reply->job_id, id);
    return r;
}

static void submit_good(const char *id)
{
    Hone__V1__JobSpec spec = good_spec();
    struct err err = {0};
    if (submit(id, &spec, &err) < 0)
        fail_msg("%s", err.message);
}

static int get(const char *id, Hone__V1__JobView **ret, struct err *err)
{
    Hone__V1__GetRequest request = HONE__V1__GET_REQUEST__INIT;
    request.job_id = (char *)id;
    return rpc_call(client, "Get", &request.base, LONG_MS, (ProtobufCMessage **)ret, err);
}

static int cancel(const char *id, Hone__V1__JobView **ret, struct err *err)
{
    Hone__V1__CancelRequest request = HONE__V1__CANCEL_REQUEST__INIT;
    request.job_id = (char *)id;
    return rpc_call(client, "Cancel", &request.base, LONG_MS, (ProtobufCMessage **)ret, err);
}

static int watch(const char *id, const char *after, uint32_t wait_ms, Hone__V1__WatchResponse **ret,
                 struct err *err)
{
    Hone__V1__WatchRequest request = HONE__V1__WATCH_REQUEST__INIT;
    request.job_id = (char *)id;
    request.after = (char *)after;
    request.wait_ms = wait_ms;
    return rpc_call(client, "Watch", &request.base, LONG_MS, (ProtobufCMessage **)ret, err);
}

static struct queue *own_queue(void)
{
    struct queue *q = NULL;
    struct queue_options options = {.url = redis.url};
    assert_int_equal(queue_open(&options, &q, NULL), 0);
    return q;
}

/* ---- submit ---- */

static void a_job_is_created_with_its_first_task_and_its_record(void **state)
{
    (void)state;
    static const char *const queues[] = {"ingest"};
    submit_good("A1");
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(task_freep) struct task *task = NULL;
    struct err err = {0};
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &task, &err), 0);
    assert_non_null(task);
    assert_string_equal(task->kind, "prepare");
    _cleanup_(rpc_message_freep) Hone__V1__StageTask *stage = NULL;
    assert_int_equal(rpc_unpack(&hone__v1__stage_task__descriptor, task->payload,
                                task->payload_bytes, (ProtobufCMessage **)&stage, &err),
                     0);
    assert_string_equal(stage->state->spec->model_path, model);
    assert_string_equal(stage->state->spec->title, "tiny net");
    assert_string_equal(stage->state->spec->target, "cpu:test");
    assert_true(stage->state->spec->max_drop == 1.0);
    assert_int_equal(stage->state->spec->threads, 2);
    assert_int_equal(stage->state->spec->batch, 1);

    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(freep) void *text = NULL;
    size_t bytes = 0;
    assert_int_equal(store_open(store_url, &store, &err), 0);
    assert_int_equal(store_record_get(store, "jobs/A1/job.json", 1 << 20, &text, &bytes, &err), 0);
    yyjson_doc *doc = yyjson_read(text, bytes, 0);
    yyjson_val *spec = yyjson_obj_get(yyjson_doc_get_root(doc), "spec");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(spec, "model_path")), model);
    assert_int_equal(yyjson_get_int(yyjson_obj_get(spec, "threads")), 2);
    yyjson_doc_free(doc);
}

/* What the job was asked for once it is completed; the caller's. */
static Hone__V1__JobSpec *completed(const char *id, Hone__V1__JobSpec *spec)
{
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    assert_int_equal(submit(id, spec, NULL), 0);
    assert_int_equal(get(id, &view, NULL), 0);
    Hone__V1__JobSpec *asked = view->spec;
    view->spec = NULL;
    return asked;
}

static void throughput_is_that_of_all_processors_in_large_batches(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = good_spec();
    spec.objective = HONE__V1__OBJECTIVE__THROUGHPUT;
    spec.threads = 0;
    _cleanup_(rpc_message_freep) Hone__V1__JobSpec *usual = completed("A1", &spec);
    assert_int_equal(usual->threads, pool_cpus());
    assert_int_equal(usual->batch, 64);
    _cleanup_(queue_closep) struct queue *q = own_queue();
    assert_int_equal(queue_table_put(q, WORK_THREADS, "profiler:cpu:test", "48", NULL), 0);
    _cleanup_(rpc_message_freep) Hone__V1__JobSpec *of_target = completed("A3", &spec);
    assert_int_equal(of_target->threads, 48);
    spec.threads = 3;
    spec.batch = 5;
    _cleanup_(rpc_message_freep) Hone__V1__JobSpec *given = completed("A2", &spec);
    assert_int_equal(given->threads, 3);
    assert_int_equal(given->batch, 5);
}

static void beside_limits_on_costs_the_drop_has_none_unless_it_is_given(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = good_spec();
    spec.max_us = 200;
    _cleanup_(rpc_message_freep) Hone__V1__JobSpec *any = completed("A1", &spec);
    assert_true(any->max_drop == 100);
    spec.has_max_drop = true;
    spec.max_drop = 2;
    _cleanup_(rpc_message_freep) Hone__V1__JobSpec *both = completed("A2", &spec);
    assert_true(both->max_drop == 2);
}

static void two_jobs_with_the_same_inputs_have_the_same_first_payload(void **state)
{
    (void)state;
    static const char *const queues[] = {"ingest"};
    submit_good("A1");
    submit_good("A2");
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(task_freep) struct task *one = NULL;
    _cleanup_(task_freep) struct task *two = NULL;
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &one, NULL), 0);
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &two, NULL), 0);
    assert_int_equal(one->payload_bytes, two->payload_bytes);
    assert_memory_equal(one->payload, two->payload, one->payload_bytes);
}

/* What was computed before the redesign serves jobs that stop there. */
static void what_may_change_stays_with_the_job(void **state)
{
    (void)state;
    static const char *const queues[] = {"ingest"};
    static char precision[] = "precision,students";
    Hone__V1__JobSpec spec = good_spec();
    spec.space = precision;
    struct err err = {0};
    submit_good("A1");
    assert_int_equal(submit("A2", &spec, &err), 0);
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(task_freep) struct task *one = NULL;
    _cleanup_(task_freep) struct task *two = NULL;
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &one, NULL), 0);
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &two, NULL), 0);
    assert_int_equal(one->payload_bytes, two->payload_bytes);
    assert_memory_equal(one->payload, two->payload, one->payload_bytes);
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    assert_int_equal(get("A2", &view, NULL), 0);
    assert_string_equal(view->spec->space, "precision,students");
}

static void the_same_submit_again_gives_the_same_job(void **state)
{
    (void)state;
    submit_good("A1");
    submit_good("A1");
    Hone__V1__ListRequest request = HONE__V1__LIST_REQUEST__INIT;
    _cleanup_(rpc_message_freep) Hone__V1__ListResponse *list = NULL;
    assert_int_equal(
        rpc_call(client, "List", &request.base, LONG_MS, (ProtobufCMessage **)&list, NULL), 0);
    assert_int_equal(list->n_jobs, 1);
}

static void another_job_does_not_take_an_id_that_is_taken(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = good_spec();
    struct err err = {0};
    submit_good("A1");
    spec.seed = 7;
    assert_int_equal(submit("A1", &spec, &err), -ERR_ALREADY_EXISTS);
    assert_non_null(strstr(err.message, "A1"));
}

struct bad {
    const char *words; /* of the message */
    int code;
    void (*spoil)(Hone__V1__JobSpec *spec);
};

static char odd_space[] = "precision,wieghts", no_precision[] = "students",
            open_space[] = "precision,";
static char missing[] = "/no/such/file.onnx", relative[] = "net.onnx", odd[] = "cpu avx2",
            nonsense[] = "scale=x", device[] = "/dev/null", empty[] = "";
static char long_title[200];

#define SPOIL(name, change)                                                                        \
    static void name(Hone__V1__JobSpec *s)                                                         \
    {                                                                                              \
        change;                                                                                    \
    }
SPOIL(no_version, s->version = 0)
SPOIL(no_model, s->model_path = empty)
SPOIL(missing_model, s->model_path = missing)
SPOIL(relative_model, s->model_path = relative)
SPOIL(folder_model, s->model_path = folder)
SPOIL(missing_data, s->data_path = missing)
SPOIL(device_data, s->data_path = device)
SPOIL(many_threads, s->threads = 1025)
SPOIL(large_batch, s->batch = 1000000)
SPOIL(negative_drop, (s->max_drop = -1, s->has_max_drop = true))
SPOIL(nan_drop, (s->max_drop = __builtin_nan(""), s->has_max_drop = true))
SPOIL(large_drop, (s->max_drop = 101, s->has_max_drop = true))
SPOIL(negative_budget, s->budget_s = -1)
SPOIL(sure_of_nothing, s->confidence = 0.2)
SPOIL(sure_of_all, s->confidence = 1)
SPOIL(nan_confidence, s->confidence = __builtin_nan(""))
SPOIL(negative_latency, s->max_us = -1)
SPOIL(nan_latency, s->max_us = __builtin_nan(""))
SPOIL(no_time_at_all, s->max_us = 1e-3)
SPOIL(hardly_a_byte, s->max_bytes = 3)
SPOIL(no_such_objective, s->objective = (Hone__V1__Objective)9)
SPOIL(odd_target, s->target = odd)
SPOIL(nonsense_preprocess, s->preprocess = nonsense)
SPOIL(space_of_something, s->space = odd_space)
SPOIL(space_without_precision, s->space = no_precision)
SPOIL(space_with_an_end, s->space = open_space)
static char odd_without[] = "teacher,everything";
SPOIL(without_everything, s->without = odd_without)
SPOIL(endless_title, s->title = long_title)

static void what_cannot_work_is_refused_by_name(void **state)
{
    (void)state;
    static const struct bad bads[] = {
        {"version", ERR_INVALID_ARGUMENT, no_version},
        {"no model", ERR_INVALID_ARGUMENT, no_model},
        {"model /no/such/file.onnx", ERR_NOT_FOUND, missing_model},
        {"model 'net.onnx'", ERR_INVALID_ARGUMENT, relative_model},
        {"not a file", ERR_INVALID_ARGUMENT, folder_model},
        {"data /no/such/file.onnx", ERR_NOT_FOUND, missing_data},
        {"not a folder or file", ERR_INVALID_ARGUMENT, device_data},
        {"threads", ERR_OUT_OF_RANGE, many_threads},
        {"batch", ERR_OUT_OF_RANGE, large_batch},
        {"max-drop", ERR_OUT_OF_RANGE, negative_drop},
        {"max-drop", ERR_OUT_OF_RANGE, nan_drop},
        {"max-drop", ERR_OUT_OF_RANGE, large_drop},
        {"budget", ERR_OUT_OF_RANGE, negative_budget},
        {"confidence: 20 % is outside", ERR_OUT_OF_RANGE, sure_of_nothing},
        {"confidence", ERR_OUT_OF_RANGE, sure_of_all},
        {"confidence", ERR_OUT_OF_RANGE, nan_confidence},
        {"max-latency", ERR_OUT_OF_RANGE, negative_latency},
        {"max-latency", ERR_OUT_OF_RANGE, nan_latency},
        {"max-latency: 0.001 us is outside", ERR_OUT_OF_RANGE, no_time_at_all},
        {"max-bytes: no network has as little as 3 bytes", ERR_OUT_OF_RANGE, hardly_a_byte},
        {"objective", ERR_INVALID_ARGUMENT, no_such_objective},
        {"target", ERR_INVALID_ARGUMENT, odd_target},
        {"preprocess", ERR_INVALID_ARGUMENT, nonsense_preprocess},
        {"title", ERR_INVALID_ARGUMENT, endless_title},
        {"wieghts", ERR_INVALID_ARGUMENT, space_of_something},
        {"precision must be in it", ERR_INVALID_ARGUMENT, space_without_precision},
        {"space 'precision,'", ERR_INVALID_ARGUMENT, space_with_an_end},
        {"not a list of teacher, cache, race", ERR_INVALID_ARGUMENT, without_everything},
    };
    memset(long_title, 't', sizeof(long_title) - 1);
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        Hone__V1__JobSpec spec = good_spec();
        struct err err = {0};
        bads[i].spoil(&spec);
        int r = submit("A1", &spec, &err);
        if (r != -bads[i].code || !strstr(err.message, bads[i].words))
            fail_msg("%s: %d %s", bads[i].words, r, err.message);
    }
    assert_int_equal(get("A1", &(Hone__V1__JobView *){NULL}, NULL), -ERR_NOT_FOUND);
}

static void a_submit_without_spec_or_usable_id_is_refused(void **state)
{
    (void)state;
    Hone__V1__JobSpec spec = good_spec();
    assert_int_equal(submit("A1", NULL, NULL), -ERR_INVALID_ARGUMENT);
    assert_int_equal(submit("", &spec, NULL), -ERR_INVALID_ARGUMENT);
    assert_int_equal(submit("../x", &spec, NULL), -ERR_INVALID_ARGUMENT);
}

/* ---- jobs that refine others ---- */

/* "A1" has a result: a final, and what it was asked. */
static void finish(const char *id, uint32_t version)
{
    Hone__V1__JobState reached = HONE__V1__JOB_STATE__INIT;
    Hone__V1__JobRecord record = HONE__V1__JOB_RECORD__INIT;
    Hone__V1__JobSpec spec = good_spec(), inner = HONE__V1__JOB_SPEC__INIT;
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    char path[64];
    static char gone[] = "/no/such/file.onnx", title[] = "tiny net", target[] = "cpu:test",
                space[] = "precision,students", artifact[] = "0123";
    spec.model_path = gone;
    spec.data_path = gone;
    spec.title = title;
    spec.target = target;
    spec.space = space;
    spec.batch = 1;
    spec.seed = 3;
    spec.max_drop = 0.5;
    spec.has_max_drop = true;
    spec.budget_s = 600;
    inner.max_drop = 0.5;
    inner.threads = 2;
    reached.version = 1;
    reached.spec = &inner;
    reached.network = artifact;
    record.version = version;
    record.state = &reached;
    record.asked = &spec;
    record.prepared_s = 44;
    snprintf(path, sizeof(path), "jobs/%s/state", id);
    assert_int_equal(store_open(store_url, &store, NULL), 0);
    assert_int_equal(rpc_pack(&record.base, &packed, &bytes, NULL), 0);
    assert_int_equal(store_record_put(store, path, packed, bytes, NULL), 0);
}

static Hone__V1__JobSpec refinement(char *of)
{
    Hone__V1__JobSpec spec = HONE__V1__JOB_SPEC__INIT;
    spec.version = 1;
    spec.refines = of;
    return spec;
}

/* Its first task's payload; the caller's. */
static Hone__V1__StageTask *first_of_refined(void)
{
    static const char *const queues[] = {"synthesizer"};
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(task_freep) struct task *task = NULL;
    Hone__V1__StageTask *stage = NULL;
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &task, NULL), 0);
    assert_non_null(task);
    assert_string_equal(task->kind, "refine");
    assert_int_equal(rpc_unpack(&hone__v1__stage_task__descriptor, task->payload,
                                task->payload_bytes, (ProtobufCMessage **)&stage, NULL),
                     0);
    return stage;
}

/* Neither model nor data are read again: they may be gone. */
static void a_job_can_begin_where_another_one_stood(void **state)
{
    (void)state;
    static char a1[] = "A1";
    Hone__V1__JobSpec spec = refinement(a1);
    struct err err = {0};
    spec.budget_s = 60;
    finish("A1", 1);
    if (submit("A2", &spec, &err) < 0)
        fail_msg("%s", err.message);
    _cleanup_(rpc_message_freep) Hone__V1__StageTask *stage = first_of_refined();
    assert_string_equal(stage->state->network, "0123");
    assert_string_equal(stage->state->taken->job, "A1");
    assert_true(stage->state->taken->prepared_s == 44);
    assert_true(stage->state->spec->max_drop == 0.5);
    assert_true(stage->state->spec->budget_s == 0);
    assert_string_equal(stage->state->spec->space, "precision,students");
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    assert_int_equal(get("A2", &view, NULL), 0);
    assert_string_equal(view->title, "tiny net");
    assert_string_equal(view->spec->model_path, "/no/such/file.onnx");
    assert_int_equal(view->spec->threads, 2);
    assert_int_equal(view->spec->seed, 3);
    assert_true(view->spec->budget_s == 60);
    assert_int_equal(submit("A2", &spec, &err), 0); /* the same again */
}

/* Where what counts is measured anew, so may be what it depends on. */
static void a_job_can_be_refined_for_another_target(void **state)
{
    (void)state;
    static char a1[] = "A1", other_target[] = "cpu:other";
    for (int threads = 0; threads < 2; threads++) {
        Hone__V1__JobSpec spec = refinement(a1);
        finish("A1", 1);
        spec.target = other_target;
        spec.threads = threads ? 7 : 0;
        assert_int_equal(submit(threads ? "D2" : "D1", &spec, NULL), 0);
        _cleanup_(rpc_message_freep) Hone__V1__StageTask *stage = first_of_refined();
        assert_string_equal(stage->state->spec->target, "cpu:other");
        assert_int_equal(stage->state->spec->threads, threads ? 7 : 2);
        assert_string_equal(stage->state->taken->target, "cpu:test");
        assert_true(stage->state->taken->prepared_s == 0);
    }
}

/* All limits are given anew, or none is. */
static void limits_that_are_given_replace_those_before(void **state)
{
    (void)state;
    static const struct {
        double max_drop, max_us; /* below 0: not given */
        double want_drop;
    } cases[] = {{-1, 0, 0.5}, {20, 0, 20}, {-1, 200, 100}, {2, 200, 2}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        static char a1[] = "A1";
        char id[8];
        Hone__V1__JobSpec spec = refinement(a1);
        finish("A1", 1);
        spec.has_max_drop = cases[i].max_drop >= 0;
        spec.max_drop = spec.has_max_drop ? cases[i].max_drop : 0;
        spec.max_us = cases[i].max_us;
        snprintf(id, sizeof(id), "B%zu", i);
        assert_int_equal(submit(id, &spec, NULL), 0);
        _cleanup_(rpc_message_freep) Hone__V1__StageTask *stage = first_of_refined();
        assert_true(stage->state->spec->max_drop == cases[i].want_drop);
        assert_true(stage->state->spec->max_us == cases[i].max_us);
    }
}

static void how_sure_it_must_be_is_taken_over_unless_it_is_said(void **state)
{
    (void)state;
    static char a1[] = "A1";
    Hone__V1__JobSpec spec = refinement(a1);
    finish("A1", 1);
    spec.confidence = 0.99;
    assert_int_equal(submit("C1", &spec, NULL), 0);
    _cleanup_(rpc_message_freep) Hone__V1__StageTask *stage = first_of_refined();
    assert_true(stage->state->spec->max_drop == 0.5);
    assert_true(stage->state->spec->confidence == 0.99);
}

static char no_job[] = "A9", no_id[] = "../A1";
SPOIL(unknown_job, s->refines = no_job)
SPOIL(odd_job, s->refines = no_id)
SPOIL(another_model, s->model_path = model)
SPOIL(more_threads, s->threads = 7)
SPOIL(more_samples, s->batch = 7)
SPOIL(another_seed, s->seed = 7)
SPOIL(another_objective, s->objective = HONE__V1__OBJECTIVE__SIZE)

static void what_cannot_be_refined_is_refused_by_name(void **state)
{
    (void)state;
    static char a1[] = "A1";
    static const struct bad bads[] = {
        {"A9", ERR_NOT_FOUND, unknown_job},
        {"is no job id", ERR_INVALID_ARGUMENT, odd_job},
        {"model cannot be another one than that of job A1", ERR_INVALID_ARGUMENT, another_model},
        {"threads cannot", ERR_INVALID_ARGUMENT, more_threads},
        {"batch cannot", ERR_INVALID_ARGUMENT, more_samples},
        {"seed cannot", ERR_INVALID_ARGUMENT, another_seed},
        {"objective cannot", ERR_INVALID_ARGUMENT, another_objective},
        {"max-latency", ERR_OUT_OF_RANGE, negative_latency},
        {"max-latency", ERR_OUT_OF_RANGE, nan_latency},
        {"max-drop", ERR_OUT_OF_RANGE, large_drop},
        {"wieghts", ERR_INVALID_ARGUMENT, space_of_something},
    };
    finish("A1", 1);
    for (size_t i = 0; i < sizeof(bads) / sizeof(bads[0]); i++) {
        Hone__V1__JobSpec spec = refinement(a1);
        struct err err = {0};
        bads[i].spoil(&spec);
        int r = submit("A2", &spec, &err);
        if (r != -bads[i].code || !strstr(err.message, bads[i].words))
            fail_msg("%s: %d %s", bads[i].words, r, err.message);
    }
    assert_int_equal(get("A2", &(Hone__V1__JobView *){NULL}, NULL), -ERR_NOT_FOUND);
}

static void a_job_without_a_result_cannot_be_refined(void **state)
{
    (void)state;
    static char a1[] = "A1";
    Hone__V1__JobSpec spec = refinement(a1);
    struct err err = {0};
    submit_good("A1");
    assert_int_equal(submit("A2", &spec, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "job A1 has no result yet"));
    finish("A1", 2);
    assert_int_equal(submit("A2", &spec, &err), -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "another version"));
}

/* ---- get, list, cancel ---- */

static void get_gives_spec_and_state(void **state)
{
    (void)state;
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    submit_good("A1");
    assert_int_equal(get("A1", &view, NULL), 0);
    assert_string_equal(view->state, "running");
    assert_string_equal(view->title, "tiny net");
    assert_string_equal(view->spec->model_path, model);
    assert_true(view->created_ms > 0);
    assert_null(view->result);
}

static void a_job_that_is_not_there_is_not_found_by_any_call(void **state)
{
    (void)state;
    Hone__V1__JobView *view = NULL;
    Hone__V1__WatchResponse *events = NULL;
    assert_int_equal(get("B1", &view, NULL), -ERR_NOT_FOUND);
    assert_int_equal(cancel("B1", &view, NULL), -ERR_NOT_FOUND);
    assert_int_equal(watch("B1", "", LONG_MS, &events, NULL), -ERR_NOT_FOUND);
    assert_int_equal(get("B 1", &view, NULL), -ERR_INVALID_ARGUMENT);
}

static void list_gives_the_newest_first_and_no_more_than_asked(void **state)
{
    (void)state;
    Hone__V1__ListRequest request = HONE__V1__LIST_REQUEST__INIT;
    _cleanup_(rpc_message_freep) Hone__V1__ListResponse *list = NULL;
    submit_good("A1");
    submit_good("A2");
    submit_good("A3");
    request.max = 2;
    assert_int_equal(
        rpc_call(client, "List", &request.base, LONG_MS, (ProtobufCMessage **)&list, NULL), 0);
    assert_int_equal(list->n_jobs, 2);
    assert_string_equal(list->jobs[0]->job_id, "A3");
    assert_string_equal(list->jobs[1]->job_id, "A2");
    assert_null(list->jobs[0]->spec);
}

static void a_cancelled_job_says_so_and_may_be_cancelled_again(void **state)
{
    (void)state;
    submit_good("A1");
    for (int i = 0; i < 2; i++) {
        _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
        assert_int_equal(cancel("A1", &view, NULL), 0);
        assert_string_equal(view->state, "cancelled");
    }
}

static void a_finished_job_shows_its_result(void **state)
{
    (void)state;
    static const char *const queues[] = {"ingest"};
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(task_freep) struct task *task = NULL;
    Hone__V1__JobResult result = HONE__V1__JOB_RESULT__INIT;
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    submit_good("A1");
    result.verdict = (char *)"Twice as fast.";
    assert_int_equal(rpc_pack(&result.base, &packed, &bytes, NULL), 0);
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &task, NULL), 0);
    assert_int_equal(queue_job_finish(q, task, packed, bytes, NULL), 0);
    assert_int_equal(get("A1", &view, NULL), 0);
    assert_string_equal(view->state, "succeeded");
    assert_string_equal(view->result->verdict, "Twice as fast.");
}

/* Running, and when it was cancelled; the end takes its place. */
static void a_job_that_goes_on_shows_what_it_has_reached(void **state)
{
    (void)state;
    static const char *const ends[] = {"running", "cancelled", "failed"}, *const queues[] = {
                                                                              "ingest"};
    _cleanup_(store_closep) struct store *store = NULL;
    Hone__V1__JobResult result = HONE__V1__JOB_RESULT__INIT;
    result.verdict = (char *)"Twice as fast.";
    assert_int_equal(store_open(store_url, &store, NULL), 0);
    for (int i = 0; i < 3; i++) {
        _cleanup_(queue_closep) struct queue *q = own_queue();
        _cleanup_(task_freep) struct task *task = NULL;
        _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
        submit_good(ends[i]);
        assert_int_equal(so_far_put(store, ends[i], &result, NULL), 0);
        if (i == 1)
            assert_int_equal(queue_job_cancel(q, ends[i], NULL), 0);
        assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, i == 1 ? 0 : 1000, &task, NULL),
                         0);
        if (i == 2)
            assert_int_equal(queue_fail(q, task, false, "no memory", NULL), 0);
        assert_int_equal(get(ends[i], &view, NULL), 0);
        assert_string_equal(view->state, ends[i]);
        assert_string_equal(view->result->verdict, "Twice as fast.");
    }
}

static void the_end_of_a_job_takes_the_place_of_what_it_had_reached(void **state)
{
    (void)state;
    static const char *const queues[] = {"ingest"};
    _cleanup_(store_closep) struct store *store = NULL;
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(task_freep) struct task *task = NULL;
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    Hone__V1__JobResult result = HONE__V1__JOB_RESULT__INIT;
    assert_int_equal(store_open(store_url, &store, NULL), 0);
    submit_good("A1");
    result.verdict = (char *)"Twice as fast.";
    assert_int_equal(so_far_put(store, "A1", &result, NULL), 0);
    result.verdict = (char *)"Nine times as fast.";
    assert_int_equal(rpc_pack(&result.base, &packed, &bytes, NULL), 0);
    assert_int_equal(queue_claim(q, queues, 1, "test", LONG_MS, 1000, &task, NULL), 0);
    assert_int_equal(queue_job_finish(q, task, packed, bytes, NULL), 0);
    assert_int_equal(get("A1", &view, NULL), 0);
    assert_string_equal(view->result->verdict, "Nine times as fast.");
}

/* ---- watch ---- */

static void watch_resumes_after_an_event(void **state)
{
    (void)state;
    _cleanup_(queue_closep) struct queue *q = own_queue();
    _cleanup_(rpc_message_freep) Hone__V1__WatchResponse *first = NULL;
    _cleanup_(rpc_message_freep) Hone__V1__WatchResponse *second = NULL;
    submit_good("A1");
    assert_int_equal(queue_event_add(q, "A1", "{\"n\":1}", NULL), 0);
    assert_int_equal(watch("A1", "", 0, &first, NULL), 0);
    assert_true(first->n_events >= 1);
    const Hone__V1__Event *last = first->events[first->n_events - 1];
    assert_string_equal(last->json, "{\"n\":1}");
    assert_string_equal(first->state, "running");
    assert_int_equal(queue_event_add(q, "A1", "{\"n\":2}", NULL), 0);
    assert_int_equal(watch("A1", last->id, 0, &second, NULL), 0);
    assert_int_equal(second->n_events, 1);
    assert_string_equal(second->events[0]->json, "{\"n\":2}");
}

static void an_event_id_that_is_none_is_refused(void **state)
{
    (void)state;
    Hone__V1__WatchResponse *events = NULL;
    submit_good("A1");
    assert_int_equal(watch("A1", "$; DROP", 0, &events, NULL), -ERR_INVALID_ARGUMENT);
}

struct watcher {
    pthread_t thread;
    char after[32];
    int result;
    size_t n_events;
    char state[16];
};
static atomic_int watchers_begun;

static void *watch_long(void *arg)
{
    struct watcher *w = arg;
    Hone__V1__WatchResponse *reply = NULL;
    atomic_fetch_add(&watchers_begun, 1);
    w->result = watch("A1", w->after, 20000, &reply, NULL);
    if (w->result == 0) {
        w->n_events = reply->n_events;
        str_copy(w->state, sizeof(w->state), reply->state);
    }
    rpc_message_freep(&reply);
    return NULL;
}

static void last_event(char ret_id[32])
{
    _cleanup_(rpc_message_freep) Hone__V1__WatchResponse *reply = NULL;
    *ret_id = 0;
    assert_int_equal(watch("A1", "", 0, &reply, NULL), 0);
    if (reply->n_events)
        str_copy(ret_id, 32, reply->events[reply->n_events - 1]->id);
}

static void a_watcher_that_waits_is_told_when_the_job_ends(void **state)
{
    (void)state;
    struct watcher w = {0};
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    submit_good("A1");
    last_event(w.after);
    assert_int_equal(pthread_create(&w.thread, NULL, watch_long, &w), 0);
    assert_int_equal(cancel("A1", &view, NULL), 0);
    pthread_join(w.thread, NULL);
    assert_int_equal(w.result, 0);
    assert_string_equal(w.state, "cancelled");
}

static void many_watchers_leave_room_for_other_calls(void **state)
{
    (void)state;
    struct watcher w[3 * THREADS] = {0};
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    _cleanup_(rpc_message_freep) Hone__V1__JobView *ended = NULL;
    atomic_store(&watchers_begun, 0);
    submit_good("A1");
    last_event(w[0].after);
    for (int i = 0; i < 3 * THREADS; i++) {
        memcpy(w[i].after, w[0].after, sizeof(w[i].after));
        assert_int_equal(pthread_create(&w[i].thread, NULL, watch_long, &w[i]), 0);
    }
    while (atomic_load(&watchers_begun) < 3 * THREADS)
        sched_yield();
    assert_int_equal(get("A1", &view, NULL), 0); /* would wait 20 s and more behind them */
    assert_int_equal(cancel("A1", &ended, NULL), 0);
    for (int i = 0; i < 3 * THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        assert_int_equal(w[i].result, 0);
    }
}

static void a_watcher_does_not_hold_up_the_end_of_the_server(void **state)
{
    (void)state;
    struct watcher w = {0};
    submit_good("A1");
    last_event(w.after);
    atomic_store(&watchers_begun, 0);
    assert_int_equal(pthread_create(&w.thread, NULL, watch_long, &w), 0);
    while (atomic_load(&watchers_begun) < 1)
        sched_yield();
    front = front_stop(front);
    pthread_join(w.thread, NULL);
    assert_true(w.result == 0 || w.result == -ERR_UNAVAILABLE);
}

static void a_redis_that_is_gone_is_unavailable_and_comes_back(void **state)
{
    (void)state;
    Hone__V1__JobView *view = NULL;
    struct err err = {0};
    submit_good("A1");
    test_redis_kill(&redis);
    assert_int_equal(get("A1", &view, &err), -ERR_UNAVAILABLE);
    assert_int_equal(test_redis_restart(&redis), 0);
    assert_int_equal(get("A1", &view, &err), 0);
    rpc_message_freep(&view);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, start_all, stop_all)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_job_is_created_with_its_first_task_and_its_record),
        TEST(throughput_is_that_of_all_processors_in_large_batches),
        TEST(beside_limits_on_costs_the_drop_has_none_unless_it_is_given),
        TEST(two_jobs_with_the_same_inputs_have_the_same_first_payload),
        TEST(what_may_change_stays_with_the_job),
        TEST(the_same_submit_again_gives_the_same_job),
        TEST(another_job_does_not_take_an_id_that_is_taken),
        TEST(what_cannot_work_is_refused_by_name),
        TEST(a_submit_without_spec_or_usable_id_is_refused),
        TEST(a_job_can_begin_where_another_one_stood),
        TEST(a_job_can_be_refined_for_another_target),
        TEST(limits_that_are_given_replace_those_before),
        TEST(how_sure_it_must_be_is_taken_over_unless_it_is_said),
        TEST(what_cannot_be_refined_is_refused_by_name),
        TEST(a_job_without_a_result_cannot_be_refined),
        TEST(get_gives_spec_and_state),
        TEST(a_job_that_is_not_there_is_not_found_by_any_call),
        TEST(list_gives_the_newest_first_and_no_more_than_asked),
        TEST(a_cancelled_job_says_so_and_may_be_cancelled_again),
        TEST(a_finished_job_shows_its_result),
        TEST(a_job_that_goes_on_shows_what_it_has_reached),
        TEST(the_end_of_a_job_takes_the_place_of_what_it_had_reached),
        TEST(watch_resumes_after_an_event),
        TEST(an_event_id_that_is_none_is_refused),
        TEST(a_watcher_that_waits_is_told_when_the_job_ends),
        TEST(many_watchers_leave_room_for_other_calls),
        TEST(a_watcher_does_not_hold_up_the_end_of_the_server),
        TEST(a_redis_that_is_gone_is_unavailable_and_comes_back),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    nng_fini(); /* waits for what NNG frees in the background */
    return failures;
}
