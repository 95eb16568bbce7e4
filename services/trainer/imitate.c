/* Task "imitate": alternatives learn to stand in for what they replace, and are scored there. */
#include <math.h>
#include <stdlib.h>

#include "services/trainer/blend.h"
#include "services/trainer/imitation.h"
#include "services/trainer/inplace.h"
#include "services/trainer/inputs.h"
#include "services/trainer/sensitivity.h"
#include "services/trainer/trainer.h"
#include "shared/base/mem.h"
#include "shared/graph/onnx.h"
#include "shared/work/state.h"

#define SCORED 256        /* samples at most */
#define LEAST_SECONDS 1.0 /* of a lesson, for which it may be too late */

struct lesson {
    struct work_task *task;
    Hone__V1__ImitateTask *q;
    struct graph *parent;
    struct dataset *ds;
    struct preprocess pre;
    char *pre_text;
    int n;
    struct graph **networks;     /* [n]: of the arcs; NULL: nothing */
    struct imitation *learned;   /* [n]: those with a network, in the arcs' order */
    struct inplace_part *placed; /* [n] */
    enum precision precisions[INPLACE_PRECISIONS];
    struct imitation_done done;
};

static void lesson_release(struct lesson *l)
{
    for (int i = 0; l->networks && i < l->n; i++)
        graph_free(l->networks[i]);
    for (int i = 0; l->learned && i < l->n; i++)
        graph_free(l->learned[i].trained);
    free(l->networks);
    free(l->learned);
    free(l->placed);
    free(l->pre_text);
    graph_free(l->parent);
    dataset_close(l->ds);
    message_free(l->q);
}

/* ---- what the task names ---- */

static int open_arcs(struct lesson *l, struct err *err)
{
    l->n = (int)l->q->n_arcs;
    l->networks = mem_calloc((size_t)l->n + 1, sizeof(struct graph *));
    l->learned = mem_calloc((size_t)l->n + 1, sizeof(*l->learned));
    l->placed = mem_calloc((size_t)l->n + 1, sizeof(*l->placed));
    if (!l->networks || !l->learned || !l->placed)
        return err_oom(err, "alternatives");
    for (int i = 0; i < l->n; i++) {
        const Hone__V1__Library__Arc *arc = l->q->arcs[i];
        int rc = *arc->network
                     ? inputs_part(l->task->store, arc->network, arc->text, &l->networks[i], err)
                     : 0;
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int open_precisions(struct lesson *l, struct err *err)
{
    if (l->q->n_precisions > INPLACE_PRECISIONS)
        return err_set(err, ERR_INVALID_ARGUMENT, "more than %d precisions", INPLACE_PRECISIONS);
    for (size_t i = 0; i < l->q->n_precisions; i++) {
        int rc = precision_parse(l->q->precisions[i], &l->precisions[i], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int open_all(struct lesson *l, struct err *err)
{
    int rc = inputs_network(l->task->store, l->q->network, "network", &l->parent, err);
    if (rc == 0)
        rc = inputs_data(l->task->store, l->q->data, &l->ds, err);
    if (rc == 0)
        rc = inputs_preprocess(l->q->preprocess, &l->pre, &l->pre_text, err);
    if (rc == 0)
        rc = open_precisions(l, err);
    return rc == 0 ? open_arcs(l, err) : rc;
}

/* ---- learning ---- */

static int on_step(void *ctx, int64_t done, int64_t total, struct err *err)
{
    const struct lesson *l = ctx;
    return work_progress(l->task, "imitate", (double)done, (double)total, "steps", err);
}

/* Seconds for learning; 0: any. Nothing of a lesson that was interrupted is kept, and the job's
 * time went on: who begins anew has less. */
static int time_for(const struct lesson *l, double *ret, struct err *err)
{
    double elapsed = 0, left = 0;
    *ret = l->q->seconds;
    if (!(*ret > 0))
        return 0;
    int rc = state_time(l->task, &elapsed, &left, err);
    if (rc == 0)
        *ret = fmin(*ret, fmax(left - l->q->reserve_s, LEAST_SECONDS));
    return rc;
}

static int set_options(struct lesson *l, struct imitation_options *ret, struct err *err)
{
    const struct recipe how = recipe_from_message(l->q->settings);
    struct train_options o;
    double seconds = 0;
    int rc = recipe_options(&how, l->task->threads, &o, err);
    if (rc < 0)
        return err_wrap(err, "settings");
    rc = time_for(l, &seconds, err);
    if (rc < 0)
        return rc;
    *ret = (struct imitation_options){.samples = (int64_t)l->q->samples,
                                      .batch = o.batch,
                                      .rate = o.schedule.rate,
                                      .seconds = seconds,
                                      .threads = l->task->threads,
                                      .seed = o.seed,
                                      .precision = o.precision,
                                      .augment = o.augment,
                                      .progress = on_step,
                                      .progress_ctx = l};
    return augment_check(&o.augment, l->ds, err);
}

/* What was learned takes the place of what came. */
static void take(struct lesson *l)
{
    for (int i = 0, k = 0; i < l->n; i++) {
        struct imitation *one = l->networks[i] ? &l->learned[k++] : NULL;
        if (!one)
            continue;
        l->q->arcs[i]->loss = one->loss;
        graph_free(l->networks[i]);
        l->networks[i] = TAKE_PTR(one->trained);
    }
}

static int note_failures(struct lesson *l, struct err *err)
{
    int rc = 0;
    for (int i = 0, k = 0; rc == 0 && i < l->n; i++) {
        struct imitation *one = l->networks[i] ? &l->learned[k++] : NULL;
        if (one && one->why.code)
            rc = message_set(&l->q->arcs[i]->out, one->why.message, err);
    }
    return rc;
}

static int learn(struct lesson *l, struct err *err)
{
    struct imitation_options options;
    int n = 0;
    for (int i = 0; i < l->n; i++)
        if (l->networks[i])
            l->learned[n++] = (struct imitation){
                .from = l->q->arcs[i]->from, .to = l->q->arcs[i]->to, .network = l->networks[i]};
    int rc = set_options(l, &options, err);
    if (rc == 0 && n > 0)
        rc = imitation_run(l->parent, l->ds, &l->pre, &options, l->learned, n, &l->done, err);
    if (rc == 0)
        rc = note_failures(l, err);
    if (rc == 0)
        take(l);
    return rc;
}

/* ---- scoring ---- */

static int on_part(void *ctx, int64_t done, int64_t total, struct err *err)
{
    const struct lesson *l = ctx;
    return work_progress(l->task, "score alternatives", (double)done, (double)total, "alternatives",
                         err);
}

static int score(struct lesson *l, struct err *err)
{
    _cleanup_(blend_release) struct blend samples = {0};
    _cleanup_(freep) char *path = NULL;
    int64_t n = 0;
    int k = 0;
    for (int i = 0; i < l->n; i++)
        if (!*l->q->arcs[i]->out)
            l->placed[k++] = (struct inplace_part){
                .from = l->q->arcs[i]->from, .to = l->q->arcs[i]->to, .network = l->networks[i]};
    int rc = sensitivity_samples(l->parent, (int)l->q->n_precisions, &n, err);
    if (rc == 0)
        rc = store_get_path(l->task->store, l->q->data, &path, err);
    if (rc == 0)
        rc = blend_open(&samples, path, l->pre_text, n < SCORED ? n : SCORED,
                        l->q->settings ? l->q->settings->seed : 0, err);
    if (rc < 0)
        return rc;
    const struct inplace_options options = {.threads = l->task->threads,
                                            .n = samples.view.n,
                                            .fill = blend_fill,
                                            .fill_ctx = &samples,
                                            .precisions = l->precisions,
                                            .n_precisions = (int)l->q->n_precisions,
                                            .weight_bits = nn_has_int8() ? 8 : 7,
                                            .progress = on_part,
                                            .progress_ctx = l};
    return inplace_score(l->parent, &options, l->placed, k, err);
}

/* ---- what comes out ---- */

static int give_network(struct lesson *l, Hone__V1__Library__Arc *arc, const struct graph *g,
                        struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    char name[HASH_HEX_BYTES];
    size_t bytes = 0;
    int rc = onnx_write_bytes(g, &data, &bytes, err);
    if (rc == 0)
        rc = store_put(l->task->store, data, bytes, name, err);
    return rc == 0 ? message_set(&arc->network, name, err) : rc;
}

static int give_scores(const struct lesson *l, Hone__V1__Library__Arc *arc,
                       const struct inplace_part *part, struct err *err)
{
    int rc = 0;
    arc->n_kl = arc->n_agreement = 0;
    if (part->why.code)
        return message_set(&arc->out, part->why.message, err);
    for (size_t i = 0; rc == 0 && i < l->q->n_precisions; i++) {
        rc = message_append_f64(&arc->kl, &arc->n_kl, part->kl[i], err);
        if (rc == 0)
            rc = message_append_f64(&arc->agreement, &arc->n_agreement, part->agreement[i], err);
    }
    return rc;
}

static int give(struct lesson *l, struct work_output *out, struct err *err)
{
    Hone__V1__ImitateResult result = HONE__V1__IMITATE_RESULT__INIT;
    int rc = 0;
    for (int i = 0, k = 0; rc == 0 && i < l->n; i++) {
        Hone__V1__Library__Arc *arc = l->q->arcs[i];
        if (*arc->out)
            continue;
        if (l->networks[i])
            rc = give_network(l, arc, l->networks[i], err);
        if (rc == 0)
            rc = give_scores(l, arc, &l->placed[k++], err);
    }
    result.arcs = l->q->arcs;
    result.n_arcs = l->q->n_arcs;
    result.seconds = l->done.seconds;
    result.samples = (uint64_t)l->done.samples;
    return rc == 0 ? work_result(out, &result.base, err) : rc;
}

int trainer_imitate(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(lesson_release) struct lesson l = {.task = task};
    int rc =
        work_payload(task, &hone__v1__imitate_task__descriptor, (ProtobufCMessage **)&l.q, err);
    if (rc == 0)
        rc = open_all(&l, err);
    if (rc == 0)
        rc = learn(&l, err);
    if (rc == 0)
        rc = score(&l, err);
    return rc == 0 ? give(&l, out, err) : rc;
}
