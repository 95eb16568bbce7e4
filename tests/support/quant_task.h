#pragma once
/*
 * A task as a handler of exporter and trainer gets it, without queue and loop: a store in a folder
 * of its own, a small network (a teacher) with data that it labels itself, and the state of a job
 * about them as it is when calibration begins.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "shared/base/fs.h"
#include "shared/base/str.h"
#include "shared/data/preprocess.h"
#include "shared/graph/onnx.h"
#include "shared/nn/infer.h"
#include "shared/nn/logits.h"
#include "shared/work/internal.h"
#include "shared/work/state.h"
#include "tests/support/quant_nets.h"

enum { JOB_TRAIN = 240, JOB_TEST = 20, JOB_CLASSES = 4, JOB_PIXELS = 3 * 8 * 8 };

struct job {
    char folder[64];
    struct net net;
    struct store *store;
    struct queue *queue; /* for handlers that remember; NULL: none */
    job_state *state;
    void *ctx; /* of handlers that have one */
    struct work work;
    struct running running;
    struct task task; /* in the queue's sense */
    struct work_task given;
    struct work_output out;
};

#define JOB_OK(call)                                                                               \
    do {                                                                                           \
        struct err job_err = {0};                                                                  \
        struct err *err = &job_err;                                                                \
        if ((call) < 0)                                                                            \
            fail_msg("%s: %s", #call, job_err.message);                                            \
    } while (0)

static inline const char *job_path(const struct job *job, const char *name)
{
    static char path[128];
    snprintf(path, sizeof(path), "%s/%s", job->folder, name);
    return path;
}

/* ---- network and data ---- */

/* conv1 -> Relu -> conv2 -> Relu -> conv3 -> Add -> Relu -> GlobalAveragePool -> Flatten -> Gemm */
static inline void job_make_network(struct job *job)
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv first = {.in = 3, .out = 8, .kernel = 3};
    const struct net_conv next = {.in = 8, .out = 8, .kernel = 3};
    struct net *net = &job->net;
    net_init(net, 5);
    const int a = net_unary(net, OP_RELU, "relu1",
                            net_conv(net, "conv1", net_input(net, "input", 4, dims), &first));
    int x = net_unary(net, OP_RELU, "relu2", net_conv(net, "conv2", a, &next));
    x = net_unary(net, OP_RELU, "relu3", net_add(net, "add", net_conv(net, "conv3", x, &next), a));
    x = net_unary(net, OP_FLATTEN, "flat", net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(net, net_gemm(net, "gemm", x, 8, JOB_CLASSES, true));
}

/* Noise around a mean that differs from sample to sample. */
static inline int job_fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    (void)err;
    const uint64_t *seed = ctx;
    for (int64_t s = 0; s < count; s++) {
        struct rng rng;
        rng_seed2(&rng, *seed, (uint64_t)(first + s));
        double mean[3];
        for (int c = 0; c < 3; c++)
            mean[c] = rng_normal(&rng);
        for (int i = 0; i < JOB_PIXELS; i++)
            out[s * JOB_PIXELS + i] = (float)(rng_normal(&rng) + mean[i / 64]);
    }
    return 0;
}

static inline void job_npy(const struct job *job, const char *name, const char *type,
                           const char *shape, const void *data, size_t bytes)
{
    char head[128];
    snprintf(head, sizeof(head), "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type,
             shape);
    FILE *f = fopen(job_path(job, name), "wb");
    assert_non_null(f);
    const uint16_t length = 118;
    fwrite("\x93NUMPY\x01\x00", 1, 8, f);
    fwrite(&length, 1, 2, f);
    fprintf(f, "%-117s\n", head);
    fwrite(data, 1, bytes, f);
    assert_int_equal(fclose(f), 0);
}

static inline void job_part(struct job *job, const char *part, uint64_t seed, int n, bool labelled)
{
    float *x = calloc((size_t)n * JOB_PIXELS, sizeof(*x));
    float *logits = calloc((size_t)n * JOB_CLASSES, sizeof(*logits));
    int32_t *y = calloc((size_t)n, sizeof(*y));
    const struct infer_options options = {.threads = 1};
    JOB_OK(job_fill(&seed, 0, n, x, err));
    JOB_OK(infer_run(job->net.g, &options, n, job_fill, &seed, logits, err));
    for (int i = 0; i < n; i++)
        for (int k = 1; k < JOB_CLASSES; k++)
            y[i] = logits[i * JOB_CLASSES + k] > logits[i * JOB_CLASSES + y[i]] ? k : y[i];
    char name[32], shape[32];
    snprintf(name, sizeof(name), "x_%s.npy", part);
    snprintf(shape, sizeof(shape), "%d, 3, 8, 8", n);
    job_npy(job, name, "<f4", shape, x, (size_t)n * JOB_PIXELS * sizeof(*x));
    snprintf(name, sizeof(name), "y_%s.npy", part);
    snprintf(shape, sizeof(shape), "%d,", n);
    if (labelled)
        job_npy(job, name, "<i4", shape, y, (size_t)n * sizeof(*y));
    free(x);
    free(logits);
    free(y);
}

/* ---- state ---- */

static inline void job_data(struct job *job, bool labelled)
{
    const struct dataset_pack_options options = {.sample_shape = {3, 8, 8},
                                                 .sample_rank = 3,
                                                 .search_fraction = 0.25,
                                                 .seed = 1,
                                                 .threads = 1};
    char name[HASH_HEX_BYTES], packed[128];
    job_part(job, "train", 1, JOB_TRAIN, labelled);
    job_part(job, "test", 2, JOB_TEST, labelled);
    str_copy(packed, sizeof(packed), job_path(job, "packed"));
    JOB_OK(dataset_pack(job->folder, &options, packed, NULL, err));
    JOB_OK(store_put_file(job->store, packed, name, err));
    job->state->data = message_new(&hone__v1__data_info__descriptor, NULL);
    JOB_OK(message_set(&job->state->data->artifact, name, err));
    job->state->data->labels_usable = labelled;
}

static inline void job_baseline(struct job *job)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(dataset_closep) struct dataset *ds = NULL;
    _cleanup_(sample_view_release) struct sample_view view = {0};
    char name[HASH_HEX_BYTES];
    JOB_OK(store_get_path(job->store, job->state->data->artifact, &path, err));
    JOB_OK(dataset_open(path, &ds, err));
    JOB_OK(sample_view_init(&view, ds, PART_SEARCH, &preprocess_identity, 0, 0, err));
    _cleanup_(freep) float *logits = calloc((size_t)view.n * JOB_CLASSES, sizeof(*logits));
    const struct infer_options options = {.threads = 1};
    JOB_OK(infer_run(job->net.g, &options, view.n, sample_view_fill, &view, logits, err));
    JOB_OK(logits_write(job->store, logits, view.n, JOB_CLASSES, name, err));
    job->state->baseline = message_new(&hone__v1__network__descriptor, NULL);
    Hone__V1__Accuracy *a = message_new(&hone__v1__accuracy__descriptor, NULL);
    JOB_OK(message_set(&a->predictions, name, err));
    JOB_OK(message_set(&a->part, "search", err));
    JOB_OK(message_set(&a->engine, "hone", err));
    JOB_OK(message_append(&job->state->baseline->accuracies, &job->state->baseline->n_accuracies, a,
                          err));
}

static inline void job_begin(struct job *job, bool labelled)
{
    *job = (struct job){0};
    str_copy(job->folder, sizeof(job->folder), "/tmp/hone-quant-XXXXXX");
    assert_non_null(mkdtemp(job->folder));
    char url[128], name[HASH_HEX_BYTES];
    snprintf(url, sizeof(url), "file://%s/store", job->folder);
    JOB_OK(store_open(url, &job->store, err));
    job_make_network(job);
    job->state = message_new(&hone__v1__job_state__descriptor, NULL);
    job->state->spec = message_new(&hone__v1__job_spec__descriptor, NULL);
    job->state->spec->seed = 7;
    JOB_OK(message_set(&job->state->spec->target, "cpu:avx512_core_vnni", err));
    job->state->preprocess = message_new(&hone__v1__preprocess__descriptor, NULL);
    _cleanup_(freep) char *text = preprocess_text(&preprocess_identity);
    JOB_OK(message_set(&job->state->preprocess->text, text, err));
    JOB_OK(message_set(&job->state->metric, labelled ? "top1" : "agreement", err));
    JOB_OK(message_set(&job->state->model, "the file as it came", err));
    _cleanup_(freep) void *data = NULL;
    size_t bytes;
    JOB_OK(onnx_write_bytes(job->net.g, &data, &bytes, err));
    JOB_OK(store_put(job->store, data, bytes, name, err));
    JOB_OK(message_set(&job->state->network, name, err));
    job_data(job, labelled);
    job_baseline(job);
}

static inline void job_forget(struct job *job)
{
    output_release(&job->out);
    job->out = (struct work_output){0};
    free(job->task.payload);
    job->task.payload = NULL;
    report_release(&job->running);
    job->running = (struct running){.cancelled = job->running.cancelled};
}

static inline void job_end(struct job *job)
{
    job_forget(job);
    message_free(job->state);
    store_closep(&job->store);
    net_release(&job->net);
    JOB_OK(fs_remove_tree(job->folder, err));
}

/* ---- running ---- */

/* Gives the message to the handler as its payload; what comes out is in job->out. */
static inline int job_run(struct job *job, work_handler *handle, const void *payload,
                          struct err *ret_err)
{
    static const struct work_config config = {.service = "test"};
    static const struct work_kind kind = {.kind = "test", .memo = true}; /* events are kept */
    job_forget(job);
    JOB_OK(message_pack(payload, &job->task.payload, &job->task.payload_bytes, err));
    job->work.config = &config;
    pthread_mutex_init(&job->work.lock, NULL);
    pthread_cond_init(&job->work.changed, NULL);
    job->running.work = &job->work;
    job->running.task = &job->task;
    job->running.kind = &kind;
    job->given = (struct work_task){.work = &job->work,
                                    .task = &job->task,
                                    .store = job->store,
                                    .queue = job->queue,
                                    .scratch = job->folder,
                                    .threads = 2,
                                    .ctx = job->ctx,
                                    .internal = &job->running};
    return handle(&job->given, &job->out, ret_err);
}

/* The result of the last run; the caller frees it. */
static inline void *job_result(const struct job *job, const ProtobufCMessageDescriptor *type)
{
    void *message = NULL;
    JOB_OK(message_unpack(type, job->out.result, job->out.result_bytes, &message, err));
    return message;
}
