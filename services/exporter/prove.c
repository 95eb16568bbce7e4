/*
 * Proof: the exported file on the test part, by the kernels that ship and by ONNX Runtime, sample
 * by sample against the original.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/exporter/exporter.h"
#include "shared/data/preprocess.h"
#include "shared/graph/onnx.h"
#include "shared/nn/infer.h"
#include "shared/nn/logits.h"
#include "shared/work/state.h"

struct proof {
    struct work_task *task;
    const job_state *state;
    job_network *network;
    struct dataset *ds;
    struct sample_view view;
    int32_t *labels; /* NULL: fidelity */
    struct logits original;
    void *onnx;
    size_t onnx_bytes;
    struct graph *graph;
    int64_t width;
};

static void proof_release(struct proof *p)
{
    dataset_close(p->ds);
    sample_view_release(&p->view);
    free(p->labels);
    logits_release(&p->original);
    free(p->onnx);
    graph_free(p->graph);
}

static int proof_open(struct proof *p, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    struct preprocess pre;
    const Hone__V1__Accuracy *original = state_accuracy(p->state->baseline, "test", "hone");
    if (!original)
        return err_set(err, ERR_INTERNAL, "the original was not scored on the test part");
    int r = store_get_path(p->task->store, p->state->data->artifact, &path, err);
    if (r == 0)
        r = dataset_open(path, &p->ds, err);
    if (r == 0)
        r = preprocess_parse(p->state->preprocess->text, &pre, err);
    if (r == 0)
        r = sample_view_init(&p->view, p->ds, PART_TEST, &pre, 0, 0, err);
    if (r == 0 && p->state->data->labels_usable)
        r = sample_view_labels(&p->view, &p->labels, err);
    if (r == 0)
        r = logits_read(p->task->store, original->predictions, &p->original, err);
    if (r == 0)
        r = store_get(p->task->store, p->network->artifact, onnx_default_limits.max_file_bytes,
                      &p->onnx, &p->onnx_bytes, err);
    if (r == 0)
        r = onnx_read_bytes(p->onnx, p->onnx_bytes, NULL, NULL, &p->graph, err);
    if (r == 0)
        r = infer_output_width(p->graph, &p->width, err);
    if (r == 0 && (p->original.n != p->view.n || p->original.width != p->width))
        r = err_set(err, ERR_INTERNAL, "the original's outputs do not fit the test part");
    return r;
}

static int add_accuracy(struct proof *p, const float *logits, const char *engine, struct err *err)
{
    Hone__V1__Accuracy *a = message_new(&hone__v1__accuracy__descriptor, err);
    if (!a)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_append(&p->network->accuracies, &p->network->n_accuracies, a, err);
    if (r < 0) {
        message_free(a);
        return r;
    }
    struct infer_metrics m;
    infer_metrics(logits, p->original.rows, p->labels, p->view.n, p->width, &m);
    a->value = p->labels ? m.top1 : m.agreement;
    a->agreement = m.agreement;
    a->kl = m.kl;
    a->n = (uint64_t)p->view.n;
    struct paired_drop drop;
    infer_paired_drop(logits, p->original.rows, p->labels, p->view.n, p->width, &drop);
    a->drop_points = drop.points;
    a->drop_upper95_points = drop.upper95_points;
    a->worse = (uint64_t)drop.worse;
    a->better = (uint64_t)drop.better;
    char name[HASH_HEX_BYTES];
    r = logits_write(p->task->store, logits, p->view.n, p->width, name, err);
    if (r == 0)
        r = message_set(&a->predictions, name, err);
    if (r == 0)
        r = message_set(&a->metric, p->state->metric, err);
    if (r == 0)
        r = message_set(&a->part, "test", err);
    return r < 0 ? r : message_set(&a->engine, engine, err);
}

static int on_progress(void *ctx, int64_t done, int64_t total, struct err *err)
{
    return work_progress(ctx, "prove", (double)done, (double)total, "samples", err);
}

static int prove_here(struct proof *p, float *logits, struct err *err)
{
    struct infer_options options = {
        .threads = p->task->threads, .progress = on_progress, .progress_ctx = p->task};
    int r = infer_run(p->graph, &options, p->view.n, sample_view_fill, &p->view, logits, err);
    return r < 0 ? r : add_accuracy(p, logits, "hone", err);
}

/* ---- ONNX Runtime over the same samples ---- */

static int on_peer(void *ctx, int64_t done, int64_t total, struct err *err)
{
    return work_progress(ctx, "prove on ONNX Runtime", (double)done, (double)total, "samples", err);
}

/* A file that ONNX Runtime cannot run is a finding: it is recorded and the proof goes on. */
static int prove_peer(struct proof *p, float *logits, struct err *err)
{
    const struct infer_options options = {
        .threads = p->task->threads, .progress = on_peer, .progress_ctx = p->task};
    struct err why = {0};
    int r = infer_run_ort(p->onnx, p->onnx_bytes, p->graph, &options, p->view.n, sample_view_fill,
                          &p->view, logits, &why);
    if (r == 0)
        return add_accuracy(p, logits, "onnxruntime", err);
    if (r == -ERR_CANCELLED || r == -ERR_ABORTED || r == -ERR_RESOURCE_EXHAUSTED) {
        if (err)
            *err = why;
        return r;
    }
    char fields[ERR_MESSAGE_MAX + 64];
    snprintf(fields, sizeof(fields), "\"text\":\"ONNX Runtime did not run %s\"", p->network->name);
    return work_event(p->task, "warning", fields, err);
}

int exporter_prove(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__ProveTask *prove = NULL;
    int r = work_payload(task, &hone__v1__prove_task__descriptor, (ProtobufCMessage **)&prove, err);
    if (r < 0)
        return r;
    _cleanup_(proof_release) struct proof p = {
        .task = task, .state = prove->state, .network = prove->network};
    r = proof_open(&p, err);
    if (r < 0)
        return err_wrap(err, "proving %s", prove->network->name);
    _cleanup_(freep) float *logits = mem_calloc((size_t)p.view.n, (size_t)p.width * sizeof(float));
    if (!logits)
        return err_oom(err, "the proof");
    r = prove_here(&p, logits, err);
    if (r == 0 && !prove->alone)
        r = prove_peer(&p, logits, err);
    if (r < 0)
        return r;
    const Hone__V1__Accuracy *test = state_accuracy(p.network, "test", "hone");
    p.network->drop_points = test->drop_points;
    p.network->drop_upper95_points = test->drop_upper95_points;
    Hone__V1__ProveResult result = HONE__V1__PROVE_RESULT__INIT;
    result.network = p.network;
    return work_result(out, &result.base, err);
}
