#include "services/ingest/prepare.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/hash.h"
#include "shared/base/str.h"
#include "shared/data/detect.h"
#include "shared/graph/infer.h"
#include "shared/nn/infer.h"
#include "shared/nn/logits.h"
#include "shared/work/state.h"

#define PACK_VERSION 1
#define JUDGE_VERSION 1 /* raised when judge() finds something else */

/* ---- the data ---- */

/* What packing found, kept beside the packed artifact for the next job with the same data. */
struct packing {
    char artifact[HASH_HEX_BYTES];
    struct dataset_report report;
};

static void packing_release(struct packing *p)
{
    dataset_report_release(&p->report);
}

static int on_pack(void *ctx, int64_t done, int64_t total, struct err *err)
{
    return work_progress(ctx, "read the data", (double)done, (double)total, "samples", err);
}

static void sample_shape(const struct graph *g, struct dataset_pack_options *options)
{
    const struct shape *s = &g->values[g->inputs[0]]->shape;
    options->sample_rank = s->rank - 1;
    for (int i = 0; i < 3; i++)
        options->sample_shape[i] = 1;
    for (int i = 1; i < s->rank; i++)
        options->sample_shape[3 - s->rank + i] = s->dim[i];
}

static int data_info(const struct packing *p, const char *source, Hone__V1__DataInfo **ret,
                     struct err *err)
{
    Hone__V1__DataInfo *info = message_new(&hone__v1__data_info__descriptor, err);
    if (!info)
        return -ERR_RESOURCE_EXHAUSTED;
    info->n_train = (uint64_t)p->report.n[PART_TRAIN];
    info->n_search = (uint64_t)p->report.n[PART_SEARCH];
    info->n_test = (uint64_t)p->report.n[PART_TEST];
    info->duplicates = (uint64_t)p->report.duplicates;
    int r = message_set(&info->artifact, p->artifact, err);
    if (r == 0)
        r = message_set(&info->source_hash, source, err);
    for (int i = 0; r == 0 && i < p->report.n_classes; i++)
        r = message_append_text(&info->classes, &info->n_classes, p->report.classes[i], err);
    for (int i = 0; r == 0 && i < p->report.n_warnings; i++)
        r = message_append_text(&info->warnings, &info->n_warnings, p->report.warnings[i], err);
    if (r < 0) {
        message_free(info);
        return r;
    }
    *ret = info;
    return 0;
}

static int pack_anew(struct work_task *task, const job_state *state,
                     const struct dataset_pack_options *options, struct packing *p, struct err *err)
{
    _cleanup_(freep) char *path = str_printf("%s/data.pack", task->scratch);
    if (!path)
        return err_oom(err, "packing the data");
    int r = dataset_pack(state->spec->data_path, options, path, &p->report, err);
    if (r == -ERR_DATA_LOSS || r == -ERR_PERMISSION_DENIED) { /* so it will be the next time */
        if (err)
            err->code = ERR_INVALID_ARGUMENT;
        r = -ERR_INVALID_ARGUMENT;
    }
    return r < 0 ? r : store_put_file(task->store, path, p->artifact, err);
}

/* Packs the data, or finds the same data packed the same way by an earlier job. The preprocessing
 * that a dataset.json beside the data gives goes into *ret_preprocess (malloc'ed or NULL). */
static int prepare_data(struct work_task *task, const struct graph *g, job_state *state,
                        char **ret_preprocess, struct err *err)
{
    char source[65];
    struct dataset_pack_options options = {.seed = state->spec->seed,
                                           .threads = task->threads,
                                           .progress = on_pack,
                                           .progress_ctx = task};
    sample_shape(g, &options);
    int r = work_progress(task, "read the data", 0, 1, "samples", err);
    if (r == 0)
        r = dataset_source_hash(state->spec->data_path, source, err);
    if (r < 0)
        return r;
    _cleanup_(freep) char *key = str_printf(
        "pack:v%d:%s:%lldx%lldx%lld:r%d:s%llu", PACK_VERSION, source,
        (long long)options.sample_shape[0], (long long)options.sample_shape[1],
        (long long)options.sample_shape[2], options.sample_rank, (unsigned long long)options.seed);
    _cleanup_(freep) void *kept = NULL;
    size_t kept_bytes = 0;
    if (!key)
        return err_oom(err, "packing the data");
    r = queue_memo_get(task->queue, key, &kept, &kept_bytes, err);
    if (r < 0)
        return r;
    _cleanup_(message_freep) Hone__V1__JobState *memo = NULL;
    if (kept &&
        message_unpack(&hone__v1__job_state__descriptor, kept, kept_bytes, &memo, NULL) == 0 &&
        memo->data && store_has(task->store, memo->data->artifact, NULL) == 1) {
        state->data = TAKE_PTR(memo->data);
        if (memo->preprocess)
            *ret_preprocess = strdup(memo->preprocess->text);
        return work_event(task, "reused", "\"what\":\"packed data\"", err);
    }
    _cleanup_(packing_release) struct packing packing = {0};
    r = pack_anew(task, state, &options, &packing, err);
    if (r == 0)
        r = data_info(&packing, source, &state->data, err);
    if (r < 0)
        return r;
    *ret_preprocess = packing.report.preprocess ? strdup(packing.report.preprocess) : NULL;
    Hone__V1__JobState remember = HONE__V1__JOB_STATE__INIT;
    Hone__V1__Preprocess pre = HONE__V1__PREPROCESS__INIT;
    remember.data = state->data;
    if (packing.report.preprocess) {
        pre.text = packing.report.preprocess;
        remember.preprocess = &pre;
    }
    _cleanup_(freep) void *packed = NULL;
    size_t packed_bytes = 0;
    r = message_pack(&remember, &packed, &packed_bytes, err);
    return r < 0 ? r : queue_memo_put(task->queue, key, packed, packed_bytes, err);
}

/* Labels can be used when there is one class for each output. */
static int decide_metric(struct work_task *task, const struct graph *g, job_state *state,
                         struct err *err)
{
    int64_t width = 0;
    int r = infer_output_width(g, &width, err);
    if (r < 0)
        return r;
    int64_t classes = (int64_t)state->data->n_classes;
    if (width < 2) /* the top one of one answer is always the same */
        return err_set(err, ERR_UNIMPLEMENTED,
                       "%s: the network answers with one number; networks are judged by the "
                       "largest of several answers, and what another one of these loses cannot be "
                       "told",
                       state->spec->model_path);
    if (classes > width)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: the data has %lld classes, the network only %lld outputs",
                       state->spec->data_path, (long long)classes, (long long)width);
    state->data->labels_usable = classes == width;
    r = message_set(&state->metric, state->data->labels_usable ? "top1" : "agreement", err);
    if (r < 0 || state->data->labels_usable)
        return r;
    r = state_decide(
        state, err,
        "metric: fidelity to the original (top-1 agreement and KL), since the data has "
        "%lld classes and the network %lld outputs",
        (long long)classes, (long long)width);
    _cleanup_(freep) char *fields = str_printf(
        "\"text\":\"The data has %lld classes and the network %lld outputs: its labels are not "
        "used. The metric is fidelity to the original (agreement of the top answer, KL).\"",
        (long long)classes, (long long)width);
    if (r == 0)
        r = fields ? work_event(task, "warning", fields, err) : err_oom(err, "an event");
    return r;
}

/* ---- preprocessing ---- */

static int keep_preprocess(job_state *state, const struct preprocess *pre, const char *how,
                           struct err *err)
{
    Hone__V1__Preprocess *message = message_new(&hone__v1__preprocess__descriptor, err);
    _cleanup_(freep) char *text = preprocess_text(pre);
    if (!message || !text) {
        message_free(message);
        return err_oom(err, "the preprocessing");
    }
    state->preprocess = message;
    message->scale = pre->scale;
    message->bgr = pre->bgr;
    int r = message_set(&message->text, text, err);
    if (r == 0)
        r = message_set(&message->how, how, err);
    for (int c = 0; r == 0 && c < 3; c++)
        r = message_append_f64(&message->mean, &message->n_mean, pre->mean[c], err);
    for (int c = 0; r == 0 && c < 3; c++)
        r = message_append_f64(&message->std, &message->n_std, pre->std[c], err);
    return r;
}

struct detecting {
    struct work_task *task;
    const struct graph *g;
};

static int run_convention(void *ctx, struct sample_view *view, float *ret_logits, struct err *err)
{
    const struct detecting *d = ctx;
    const struct infer_options options = {.threads = d->task->threads};
    return infer_run(d->g, &options, view->n, sample_view_fill, view, ret_logits, err);
}

static int on_conventions(void *ctx, const char *stage, int64_t done, int64_t total,
                          struct err *err)
{
    const struct detecting *d = ctx;
    return work_progress(d->task, stage, (double)done, (double)total, "conventions", err);
}

static int detect(struct work_task *task, const struct graph *g, const struct dataset *ds,
                  bool labels_usable, struct detection *ret, struct err *err)
{
    struct detecting detecting = {task, g};
    struct detect_network network = {
        .run = run_convention, .progress = on_conventions, .ctx = &detecting};
    int r = infer_output_width(g, &network.width, err);
    return r < 0 ? r : detect_preprocess(ds, &network, labels_usable, ret, err);
}

static int prepare_preprocess(struct work_task *task, const struct graph *g,
                              const struct dataset *ds, const char *from_data, job_state *state,
                              struct err *err)
{
    const char *given = state->spec->preprocess;
    const char *of_network = graph_metadata(g, "hone.preprocess"); /* who trained it noted it */
    const char *text = *given ? given : from_data ? from_data : of_network;
    if (text) {
        struct preprocess pre;
        int r = preprocess_parse(text, &pre, err);
        if (r < 0)
            return err_wrap(err, "%s",
                            *given      ? "--preprocess"
                            : from_data ? "dataset.json"
                                        : "the network's hone.preprocess");
        return keep_preprocess(state, &pre,
                               *given      ? "given"
                               : from_data ? "dataset.json"
                                           : "of the network",
                               err);
    }
    struct detection found;
    int r = detect(task, g, ds, state->data->labels_usable, &found, err);
    if (r == 0)
        r = keep_preprocess(state, &found.pre, "detected", err);
    if (r < 0 || !found.by)
        return r;
    r = state_decide(state, err,
                     "preprocessing detected by %s: %s (%.3f; the next that differs %.3f)",
                     found.by, found.name, found.score, found.next);
    _cleanup_(freep) char *fields =
        str_printf("\"name\":\"%s\",\"text\":\"%s\",\"by\":\"%s\",\"score\":%.4f,\"next\":%.4f",
                   found.name, state->preprocess->text, found.by, found.score, found.next);
    if (r == 0)
        r = fields ? work_event(task, "preprocess", fields, err) : err_oom(err, "an event");
    return r;
}

/* ---- what the original scores ---- */

struct part_progress {
    struct work_task *task;
    const char *stage;
};

static int on_infer(void *ctx, int64_t done, int64_t total, struct err *err)
{
    struct part_progress *p = ctx;
    return work_progress(p->task, p->stage, (double)done, (double)total, "samples", err);
}

/* With answers that are no numbers nothing could be compared. */
static int check_answers(const float *logits, int64_t n, int64_t width, enum part part,
                         struct err *err)
{
    for (int64_t i = 0; i < n * width; i++)
        if (!isfinite(logits[i]))
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "the network answers sample %lld of the %s part with %s; is the "
                           "preprocessing the right one?",
                           (long long)(i / width), part_name(part),
                           isnan(logits[i]) ? "NaN" : "infinity");
    return 0;
}

static int baseline_part(struct work_task *task, const struct graph *g, const struct dataset *ds,
                         enum part part, const struct preprocess *pre, job_state *state,
                         struct err *err)
{
    _cleanup_(sample_view_release) struct sample_view view = {0};
    _cleanup_(freep) int32_t *labels = NULL;
    int64_t width = 0;
    int r = sample_view_init(&view, ds, part, pre, 0, 0, err);
    if (r == 0 && state->data->labels_usable)
        r = sample_view_labels(&view, &labels, err);
    if (r == 0)
        r = infer_output_width(g, &width, err);
    if (r < 0)
        return r;
    _cleanup_(freep) float *logits = mem_calloc((size_t)view.n, (size_t)width * sizeof(float));
    if (!logits)
        return err_oom(err, "the original's outputs");
    struct part_progress progress = {task, part == PART_TEST ? "score the original (test)"
                                                             : "score the original (search)"};
    struct infer_options options = {
        .threads = task->threads, .progress = on_infer, .progress_ctx = &progress};
    r = infer_run(g, &options, view.n, sample_view_fill, &view, logits, err);
    if (r == 0)
        r = check_answers(logits, view.n, width, part, err);
    if (r < 0)
        return r;
    Hone__V1__Accuracy *a = message_new(&hone__v1__accuracy__descriptor, err);
    if (!a)
        return -ERR_RESOURCE_EXHAUSTED;
    r = message_append(&state->baseline->accuracies, &state->baseline->n_accuracies, a, err);
    if (r < 0) {
        message_free(a);
        return r;
    }
    struct infer_metrics metrics;
    infer_metrics(logits, logits, labels, view.n, width, &metrics);
    a->value = labels ? metrics.top1 : 1.0;
    a->agreement = 1.0;
    a->n = (uint64_t)view.n;
    char name[HASH_HEX_BYTES];
    r = logits_write(task->store, logits, view.n, width, name, err);
    if (r == 0)
        r = message_set(&a->predictions, name, err);
    if (r == 0)
        r = message_set(&a->metric, state->metric, err);
    if (r == 0)
        r = message_set(&a->part, part_name(part), err);
    if (r == 0)
        r = message_set(&a->engine, "hone", err);
    return r;
}

static int baseline_event(struct work_task *task, const job_state *state, struct err *err)
{
    const Hone__V1__Accuracy *test = state_accuracy(state->baseline, "test", "hone");
    _cleanup_(freep) char *fields = str_printf(
        "\"metric\":\"%s\",\"value\":%.6f,\"n\":%llu,\"part\":\"test\",\"macs\":%llu,"
        "\"parameters\":%llu",
        state->metric, test->value, (unsigned long long)test->n,
        (unsigned long long)state->baseline->macs, (unsigned long long)state->baseline->parameters);
    return fields ? work_event(task, "baseline", fields, err) : err_oom(err, "an event");
}

static int warn_all(struct work_task *task, const job_state *state, struct err *err)
{
    for (size_t i = 0; i < state->data->n_warnings; i++) {
        _cleanup_(strbuf_release) struct strbuf fields = {0};
        strbuf_add(&fields, "\"text\":\"");
        for (const char *p = state->data->warnings[i]; *p; p++)
            if (*p == '"' || *p == '\\')
                strbuf_printf(&fields, "\\%c", *p);
            else if ((unsigned char)*p >= 0x20)
                strbuf_add_bytes(&fields, p, 1);
        strbuf_add(&fields, "\"");
        int r = fields.failed ? err_oom(err, "an event")
                              : work_event(task, "warning", fields.data, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* From here on nothing depends on where the files lay, so that equal files give equal tasks. */
static int forget_paths(job_state *state, struct err *err)
{
    int r = message_set(&state->spec->model_path, "", err);
    if (r == 0)
        r = message_set(&state->spec->data_path, "", err);
    if (r == 0)
        r = message_set(&state->spec->title, "", err);
    if (r == 0 && !*state->spec->target)
        r = message_set(&state->spec->target, "local", err);
    return r;
}

/* ---- what an earlier job found about the same model and data ----
 *
 * The loop's memory (work_kind.memo) would not do: it goes by the payload, which holds paths, and
 * there may be another file at a path today. Here everything that was read is in the state, by
 * hash.
 */
static int judgement_key(const job_state *state, const char *from_data, char **ret, struct err *err)
{
    _cleanup_(message_freep) job_state *copy = message_clone(state, err);
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    char hash[HASH_HEX_BYTES];
    int r = copy ? forget_paths(copy, err) : -ERR_RESOURCE_EXHAUSTED;
    if (r == 0 && from_data && !*copy->spec->preprocess)
        r = message_set(&copy->spec->preprocess, from_data, err);
    if (r == 0)
        r = message_pack(copy, &packed, &bytes, err);
    if (r == 0)
        r = hash_bytes(packed, bytes, hash, err);
    if (r < 0)
        return r;
    *ret = str_printf("judged:v%d:%s", JUDGE_VERSION, hash);
    return *ret ? 0 : err_oom(err, "a key");
}

/* 1: *state has become what it was then. */
static int recall(struct work_task *task, const char *key, job_state **state, struct err *err)
{
    _cleanup_(message_freep) job_state *then = NULL;
    _cleanup_(freep) void *kept = NULL;
    size_t bytes = 0;
    int r = queue_memo_get(task->queue, key, &kept, &bytes, err);
    if (r < 0 || !kept)
        return r;
    if (message_unpack(&hone__v1__job_state__descriptor, kept, bytes, &then, NULL) < 0)
        return 0;
    for (size_t i = 0; i < then->baseline->n_accuracies; i++)
        if (store_has(task->store, then->baseline->accuracies[i]->predictions, NULL) != 1)
            return 0;
    r = work_event(task, "reused", "\"what\":\"the original's answers\"", err);
    if (r < 0)
        return r;
    message_free(*state);
    *state = TAKE_PTR(then);
    return 1;
}

static int remember(struct work_task *task, const char *key, const job_state *state,
                    struct err *err)
{
    _cleanup_(freep) void *packed = NULL;
    size_t bytes = 0;
    int r = message_pack(state, &packed, &bytes, err);
    return r < 0 ? r : queue_memo_put(task->queue, key, packed, bytes, err);
}

/* ---- the stage ---- */

/* How pixels become inputs, and what the original answers then. */
static int judge(struct work_task *task, const struct graph *g, const char *from_data,
                 job_state *state, struct err *err)
{
    _cleanup_(freep) char *packed = NULL;
    _cleanup_(dataset_closep) struct dataset *ds = NULL;
    struct preprocess pre;
    int r = store_get_path(task->store, state->data->artifact, &packed, err);
    if (r == 0)
        r = dataset_open(packed, &ds, err);
    if (r == 0)
        r = prepare_preprocess(task, g, ds, from_data, state, err);
    if (r == 0)
        r = preprocess_parse(state->preprocess->text, &pre, err);
    if (r == 0)
        r = baseline_part(task, g, ds, PART_SEARCH, &pre, state, err);
    return r < 0 ? r : baseline_part(task, g, ds, PART_TEST, &pre, state, err);
}

int ingest_prepare(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) char *from_data = NULL;
    _cleanup_(freep) char *key = NULL;
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r < 0)
        return r;
    r = ingest_prepare_model(task, stage->state, &g, err);
    if (r == 0)
        r = prepare_data(task, g, stage->state, &from_data, err);
    if (r == 0)
        r = warn_all(task, stage->state, err);
    if (r == 0)
        r = decide_metric(task, g, stage->state, err);
    if (r == 0)
        r = judgement_key(stage->state, from_data, &key, err);
    if (r == 0)
        r = recall(task, key, &stage->state, err);
    if (r == 0) {
        r = judge(task, g, from_data, stage->state, err);
        if (r == 0)
            r = forget_paths(stage->state, err);
        if (r == 0)
            r = remember(task, key, stage->state, err);
    }
    if (r >= 0)
        r = baseline_event(task, stage->state, err);
    return r < 0 ? r : work_follow(out, "exporter", "calibrate", &stage->base, err);
}
