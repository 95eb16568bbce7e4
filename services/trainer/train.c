/* Task "train": a network learns, in as many parts as it takes. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/trainer/keep.h"
#include "services/trainer/teacher.h"
#include "services/trainer/trainer.h"
#include "shared/base/fs.h"
#include "shared/base/log.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/cuts.h"
#include "shared/graph/onnx.h"
#include "shared/work/state.h"

struct training {
    struct work_task *task;
    Hone__V1__TrainTask *q;
    struct recipe how;
    struct dataset *ds;
    struct preprocess pre;
    char *pre_text;
    struct graph *g; /* in training form */
    struct graph *teacher_graph, *judge_graph, *original_graph;
    struct train_features features;
    struct train_judge judge;
    char cache[HASH_HEX_BYTES];
    struct teacher *teacher;
    char *checkpoint, *identity, *stage;
    struct keep keep; /* of the checkpoint */
    bool kept;        /* the run goes on from what was kept there */
    bool stepped;
    struct train_options options;
    struct train_result result;
    int stopped; /* what work_check said, and why */
    struct err why;
};

static void training_release(struct training *t)
{
    message_free(t->q);
    dataset_close(t->ds);
    graph_free(t->g);
    graph_free(t->teacher_graph);
    graph_free(t->judge_graph);
    graph_free(t->original_graph);
    teacher_close(t->teacher);
    train_result_release(&t->result);
    free(t->pre_text);
    free(t->checkpoint);
    free(t->identity);
    free(t->stage);
}

/* ---- what the run says and asks on its way ---- */

/* Asked by one thread at a time. Once it is true it stays true. */
static bool is_stopped(void *ctx)
{
    struct training *t = ctx;
    if (!t->stopped)
        t->stopped = work_check(t->task, &t->why);
    return t->stopped < 0;
}

static void add_number(struct strbuf *to, const char *name, double value)
{
    if (isfinite(value))
        strbuf_printf(to, ",\"%s\":%.6g", name, value);
}

static void add_epoch(const struct training *t, const struct train_progress *p, struct strbuf *to)
{
    strbuf_printf(to, "\"epoch\":%lld,\"epochs\":%lld", (long long)p->epoch + 1,
                  (long long)p->epochs);
    add_number(to, "loss", p->loss);
    add_number(to, "feature_loss", p->feature_loss);
    add_number(to, "accuracy", p->accuracy);
    add_number(to, "images_per_second", p->images_per_second);
    if (!p->finished)
        return;
    add_number(to, "search_accuracy", p->finished->search_accuracy);
    add_number(to, "rate", p->rate);
    add_number(to, "left_s", p->left);
    strbuf_printf(to, ",\"artifact\":\"%.64s\"", t->q->network);
}

/* Whoever has to stop finds it out in is_stopped, so that the checkpoint is written. */
static int on_progress(void *ctx, const struct train_progress *p, struct err *err)
{
    struct training *t = ctx;
    const struct train_options *o = &t->options;
    const double batch = (double)o->batch;
    const int64_t epochs =
        o->stop_after > 0 && o->stop_after < o->epochs ? o->stop_after : o->epochs;
    _cleanup_(strbuf_release) struct strbuf fields = {0};
    t->stepped = true;
    add_epoch(t, p, &fields);
    if (fields.failed)
        return err_oom(err, "an event");
    work_progress_fields(t->task, t->stage, batch * (double)(p->epoch * p->steps + p->step),
                         batch * (double)(epochs * p->steps), "images", fields.data, NULL);
    return p->finished ? work_event(t->task, "epoch", fields.data, err) : 0;
}

/* Who has lost the lease has nothing to say any more: somebody else may be further on. */
static int on_saved(void *ctx, struct err *err)
{
    struct training *t = ctx;
    return t->stopped == -ERR_ABORTED ? 0 : keep_put(&t->keep, err);
}

/* ---- before ---- */

static int name_files(struct training *t, struct err *err)
{
    const struct work_task *task = t->task;
    const char *name = *t->q->name ? t->q->name : "network";
    t->checkpoint = str_printf("%s/checkpoint", task->scratch);
    t->identity = recipe_identity(&t->how, t->q->network, t->q->data);
    t->stage = str_printf("train %.40s", name);
    if (!t->checkpoint || !t->identity || !t->stage)
        return err_oom(err, "names");
    return keep_init(&t->keep, task->store, "runs", task->task->payload, task->task->payload_bytes,
                     t->checkpoint, err);
}

static int set_options(struct training *t, struct err *err)
{
    const struct trainer *trainer = t->task->ctx;
    struct train_options *o = &t->options;
    int rc = recipe_options(&t->how, t->task->threads, o, err);
    if (rc < 0)
        return err_wrap(err, "settings");
    o->data = t->q->data;
    o->identity = t->identity;
    o->stop_after = (int)(t->q->first_epochs & INT32_MAX);
    o->checkpoint = t->checkpoint;
    o->checkpoint_seconds = trainer->checkpoint_seconds;
    o->saved = on_saved;
    o->saved_ctx = t;
    o->progress = on_progress;
    o->progress_ctx = t;
    o->stop = is_stopped;
    o->stop_ctx = t;
    return 0;
}

static int open_network(struct training *t, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = inputs_learner(t->task->store, t->q->network, "network", &g, err);
    if (rc == 0)
        recipe_settle(&t->how, g);
    if (rc == 0)
        rc = inputs_data(t->task->store, t->q->data, &t->ds, err);
    if (rc == 0)
        rc = inputs_preprocess(t->q->preprocess, &t->pre, &t->pre_text, err);
    if (rc == 0)
        rc = augment_check(&t->options.augment, t->ds, err);
    if (rc == 0)
        rc = recipe_network(&t->how, g, t->ds, &t->pre, t->task->threads, &t->g, &t->options.frozen,
                            err);
    return rc < 0 ? rc : 0;
}

static const Hone__V1__Preprocess *teacher_sees(const Hone__V1__TrainTask *q)
{
    return q->teacher_preprocess ? q->teacher_preprocess : q->preprocess;
}

static int open_teacher(struct training *t, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    const Hone__V1__TrainTask *q = t->q;
    const struct teacher_request request = {.network = q->teacher,
                                            .data = q->data,
                                            .ds = t->ds,
                                            .preprocess = teacher_sees(q),
                                            .how = &t->how,
                                            .augment = &t->options.augment};
    double rate = 0;
    int rc = 0;
    if (!*q->teacher_cache && !*q->teacher)
        return 0;
    if (*q->teacher_cache)
        str_copy(t->cache, sizeof(t->cache), q->teacher_cache);
    else
        rc = teacher_cache(t->task, &request, t->cache, &rate, err);
    if (rc == 0)
        rc = store_get_path(t->task->store, t->cache, &path, err);
    if (rc == 0)
        rc = teacher_open(path, &t->teacher, err);
    t->options.teacher = t->teacher;
    return rc < 0 ? err_wrap(err, "teacher's answers") : 0;
}

/* Whoever learns from features needs the teacher itself. */
static int open_features(struct training *t, struct err *err)
{
    _cleanup_(freep) char *text = NULL;
    struct preprocess pre;
    if (!t->how.features)
        return 0;
    int rc = inputs_network(t->task->store, t->q->teacher, "teacher", &t->teacher_graph, err);
    if (rc == 0)
        rc = inputs_preprocess(teacher_sees(t->q), &pre, &text, err);
    if (rc == 0)
        rc = recipe_features(&t->how, t->teacher_graph, &pre, t->g, &t->features, err);
    t->options.features = &t->features;
    return rc;
}

/* The judge stands for the original, too, that the network was quantized from, unless the task
 * names that. */
static int open_judge(struct training *t, struct err *err)
{
    _cleanup_(freep) char *text = NULL;
    const char *name = *t->q->judge ? t->q->judge : t->q->teacher;
    if (!*name)
        return 0;
    int rc = inputs_network(t->task->store, name, "judge", &t->judge_graph, err);
    if (rc == 0)
        rc = inputs_preprocess(teacher_sees(t->q), &t->judge.pre, &text, err);
    t->judge.network = t->judge_graph;
    t->options.judge = &t->judge;
    t->options.original = t->judge_graph;
    return rc;
}

/* What a quantized network was made from, where the task says. */
static int open_original(struct training *t, struct err *err)
{
    if (!*t->q->original)
        return 0;
    int rc = inputs_network(t->task->store, t->q->original, "original", &t->original_graph, err);
    t->options.original = t->original_graph;
    return rc;
}

/* ---- the run ---- */

/* From the checkpoint that the task names, or from the start. */
static int begin(struct training *t, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    int rc = fs_remove_tree(t->checkpoint, err);
    t->kept = false;
    t->options.resume = *t->q->continue_from;
    if (rc < 0 || !*t->q->continue_from)
        return rc;
    rc = store_get_path(t->task->store, t->q->continue_from, &path, err);
    if (rc == 0)
        rc = fs_copy(path, t->checkpoint, err);
    return rc < 0 ? err_wrap(err, "continue_from") : 0;
}

static int go_on(struct training *t, struct err *err)
{
    int rc = keep_fetch(&t->keep, err);
    t->kept = t->options.resume = rc == 1;
    return rc == 0 ? begin(t, err) : rc < 0 ? rc : 0;
}

/* What was kept by another version, or is damaged, costs time and nothing else. */
static bool is_useless(const struct training *t, int rc)
{
    return t->kept && !t->stepped && (rc == -ERR_DATA_LOSS || rc == -ERR_FAILED_PRECONDITION);
}

static int run(struct training *t, struct err *err)
{
    struct err why = {0};
    int rc = go_on(t, err);
    if (rc < 0)
        return rc;
    if (t->kept)
        log_info("training goes on where it was stopped");
    rc = train_run(t->g, t->ds, &t->pre, &t->options, &t->result, &why);
    if (is_useless(t, rc)) {
        log_warn("training starts again: %s", why.message);
        why = (struct err){0};
        rc = begin(t, err);
        if (rc < 0)
            return rc;
        rc = train_run(t->g, t->ds, &t->pre, &t->options, &t->result, &why);
    }
    if (rc == -ERR_CANCELLED && t->stopped)
        return err_set(err, t->why.code, "%s", t->why.message);
    return rc < 0 ? err_set(err, why.code, "%s", why.message) : 0;
}

/* ---- after ---- */

/* Against a judge that is right by definition. */
static void add_drop(Hone__V1__Accuracy *accuracy)
{
    const int64_t n = (int64_t)accuracy->n;
    const int64_t worse = n - llround(accuracy->value * (double)n);
    accuracy->agreement = accuracy->value;
    accuracy->drop_points = n > 0 ? 100 * (double)worse / (double)n : 0;
    accuracy->drop_upper95_points = infer_drop_bound(worse, 0, n, 0.05);
    accuracy->worse = (uint64_t)worse;
}

static int add_accuracy(const struct training *t, Hone__V1__Network *network, struct err *err)
{
    const struct train_result *r = &t->result;
    const double value = r->n_epochs ? r->curve[r->n_epochs - 1].search_accuracy : NAN;
    Hone__V1__Accuracy accuracy = HONE__V1__ACCURACY__INIT;
    if (!isfinite(value))
        return 0;
    accuracy.metric = (char *)judge_metric_name(r->metric);
    accuracy.part = (char *)"search";
    accuracy.engine = (char *)"hone";
    accuracy.value = value;
    accuracy.n = (uint64_t)dataset_count(t->ds, PART_SEARCH);
    if (r->metric == JUDGE_AGREEMENT)
        add_drop(&accuracy);
    return state_add_accuracy(network, &accuracy, err);
}

static int give_network(struct training *t, Hone__V1__Network *network, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    char name[HASH_HEX_BYTES];
    size_t bytes = 0;
    int rc = recipe_ship(&t->how, t->result.graph, t->pre_text, err);
    if (rc == 0)
        rc = onnx_write_bytes(t->result.graph, &data, &bytes, err);
    if (rc == 0)
        rc = store_put(t->task->store, data, bytes, name, err);
    if (rc == 0)
        rc = message_set(&network->artifact, name, err);
    if (rc == 0)
        rc = message_set(&network->name, t->q->name, err);
    if (rc < 0)
        return rc;
    const struct cost cost = graph_cost(t->result.graph);
    network->bytes = bytes;
    network->macs = (uint64_t)cost.macs;
    network->parameters = (uint64_t)cost.parameters;
    return add_accuracy(t, network, err);
}

static int give_trunk(struct training *t, Hone__V1__TrainResult *result, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    char name[HASH_HEX_BYTES];
    size_t bytes = 0;
    if (!t->result.trunk)
        return 0;
    int rc = recipe_trunk(&t->how, t->result.trunk, t->options.frozen, t->pre_text, err);
    if (rc == 0)
        rc = onnx_write_bytes(t->result.trunk, &data, &bytes, err);
    if (rc == 0)
        rc = store_put(t->task->store, data, bytes, name, err);
    return rc == 0 ? message_set(&result->trunk, name, err) : rc;
}

static int give_curve(const struct training *t, Hone__V1__TrainResult *result, struct err *err)
{
    int rc = 0;
    for (int64_t i = 0; i < t->result.n_epochs && rc == 0; i++) {
        const struct train_epoch *from = &t->result.curve[i];
        Hone__V1__TrainResult__Epoch *row =
            message_new(&hone__v1__train_result__epoch__descriptor, err);
        if (!row)
            return -ERR_RESOURCE_EXHAUSTED;
        row->epoch = (uint32_t)from->epoch + 1;
        row->loss = from->loss;
        row->accuracy = from->accuracy;
        row->search_accuracy = from->search_accuracy;
        row->rate = from->rate;
        row->seconds = from->seconds;
        row->images_per_second = from->images_per_second;
        row->feature_loss = from->feature_loss;
        rc = message_append(&result->curve, &result->n_curve, row, err);
        if (rc < 0)
            message_free(row);
    }
    return rc;
}

/* For those who will give the run more epochs. */
static int give_checkpoint(const struct training *t, Hone__V1__TrainResult *result, struct err *err)
{
    char name[HASH_HEX_BYTES];
    if (t->result.n_epochs >= t->options.epochs)
        return 0;
    int rc = store_put_file(t->task->store, t->checkpoint, name, err);
    return rc == 0 ? message_set(&result->checkpoint, name, err) : rc;
}

static int give(struct training *t, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__TrainResult *result =
        message_new(&hone__v1__train_result__descriptor, err);
    if (!result)
        return -ERR_RESOURCE_EXHAUSTED;
    result->network = message_new(&hone__v1__network__descriptor, err);
    if (!result->network)
        return -ERR_RESOURCE_EXHAUSTED;
    result->epochs = (uint32_t)t->options.epochs;
    result->seconds = t->result.seconds;
    result->images_per_second = t->result.images_per_second;
    result->threads = (uint32_t)t->task->threads;
    int rc = give_network(t, result->network, err);
    if (rc == 0)
        rc = give_trunk(t, result, err);
    if (rc == 0)
        rc = give_curve(t, result, err);
    if (rc == 0)
        rc = give_checkpoint(t, result, err);
    if (rc == 0)
        rc = message_set(&result->teacher_cache, t->cache, err);
    if (rc == 0) {
        result->asked = message_clone(t->q, err);
        rc = result->asked ? 0 : -ERR_RESOURCE_EXHAUSTED;
    }
    if (rc == 0)
        rc = message_set(&result->precision, precision_name(t->result.precision), err);
    return rc == 0 ? work_result(out, &result->base, err) : rc;
}

int trainer_train(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(training_release) struct training t = {.task = task};
    int rc = work_payload(task, &hone__v1__train_task__descriptor, (ProtobufCMessage **)&t.q, err);
    if (rc < 0)
        return rc;
    t.how = recipe_from_message(t.q->settings);
    rc = name_files(&t, err);
    if (rc == 0)
        rc = set_options(&t, err);
    if (rc == 0)
        rc = open_network(&t, err);
    if (rc == 0)
        rc = open_teacher(&t, err);
    if (rc == 0)
        rc = open_features(&t, err);
    if (rc == 0)
        rc = open_judge(&t, err);
    if (rc == 0)
        rc = open_original(&t, err);
    if (rc == 0)
        rc = run(&t, err);
    return rc == 0 ? give(&t, out, err) : rc;
}
