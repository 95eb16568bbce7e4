#include "services/cli/train.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/cli/network.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/nn/quantize.h"

void train_job_release(struct train_job *job)
{
    teacher_close(job->teacher);
    samples_release(&job->samples);
    train_result_release(&job->result);
    graph_free(job->original);
    graph_free(job->g);
    graph_free(job->teacher_graph);
    graph_free(job->trained);
    free(job->out);
    free(job->checkpoint);
    free(job->cache);
    free(job->identity);
}

static int set_options(struct train_job *job, struct err *err)
{
    struct train_options *o = &job->options;
    int r = recipe_options(&job->how, (int)job->q->threads, o, err);
    o->checkpoint = job->checkpoint;
    o->resume = job->q->resume;
    o->identity = job->identity;
    o->data = job->data_hash;
    return r;
}

/* ---- files ---- */

/* "path/resnet.onnx" -> "resnet-trained.onnx" */
static char *usual_out(const char *model)
{
    const char *slash = strrchr(model, '/'), *name = slash ? slash + 1 : model;
    size_t n = strlen(name);
    if (str_ends_with(name, ".onnx"))
        n -= strlen(".onnx");
    return str_printf("%.*s-trained.onnx", (int)n, name);
}

static int name_files(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    job->out = q->out ? str_printf("%s", q->out) : usual_out(q->model);
    if (!job->out)
        return err_oom(err, "names");
    job->checkpoint =
        q->checkpoint ? str_printf("%s", q->checkpoint) : str_printf("%s.checkpoint", job->out);
    job->cache =
        q->teacher_cache ? str_printf("%s", q->teacher_cache) : str_printf("%s.teacher", job->out);
    if (!job->checkpoint || !job->cache)
        return err_oom(err, "names");
    if (q->resume && !fs_exists(job->checkpoint))
        return err_set(err, ERR_NOT_FOUND, "%s: there is no checkpoint to go on from",
                       job->checkpoint);
    if (!q->resume && fs_exists(job->checkpoint))
        return err_set(err, ERR_ALREADY_EXISTS,
                       "%s: a run was stopped there: go on with it (--resume), or remove the file",
                       job->checkpoint);
    return 0;
}

/* ---- networks and data ---- */

static int read_networks(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    int r = network_read_learner(q->model, &job->original, err);
    if (r < 0)
        return err_wrap(err, "%s", q->model);
    job->how = q->how;
    recipe_settle(&job->how, job->original);
    if (!q->teacher)
        return 0;
    r = network_read(q->teacher, PRECISION_AUTO, &job->teacher_graph, err);
    return r < 0 ? err_wrap(err, "%s", q->teacher) : 0;
}

/* What a quantized network was made for its original sees, too; NULL: not said. */
static const char *teacher_given(const struct train_job *job)
{
    const struct train_request *q = job->q;
    if (q->teacher_preprocess || q->preprocess)
        return q->teacher_preprocess ? q->teacher_preprocess : q->preprocess;
    return quant_is_quantized(job->original) ? graph_metadata(job->original, "hone.preprocess")
                                             : NULL;
}

static int choose_preprocess(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    const struct infer_options options = {.threads = (int)q->threads};
    struct samples *s = &job->samples;
    int r = 0;
    if (job->teacher_graph) {
        r = samples_preprocess(s, job->teacher_graph, &options, teacher_given(job), err);
        job->teacher_pre = s->pre;
        if (r < 0)
            return err_wrap(err, "%s", q->teacher);
    }
    if (q->how.reinit && job->teacher_graph && !q->preprocess) {
        s->pre_how = "the teacher's";
        return 0;
    }
    return q->how.reinit ? samples_preprocess_new(s, job->original, q->preprocess, err)
                         : samples_preprocess(s, job->original, &options, q->preprocess, err);
}

static int identify(struct train_job *job, struct err *err)
{
    char model[HASH_HEX_BYTES];
    int r = hash_file(job->q->model, model, err);
    if (r == 0)
        r = dataset_source_hash(job->q->data, job->data_hash, err);
    if (r < 0)
        return r;
    job->identity = recipe_identity(&job->how, model, job->data_hash);
    return job->identity ? 0 : err_oom(err, "names");
}

int train_job_open(struct train_job *job, struct err *err)
{
    const struct train_request *q = job->q;
    int r = name_files(job, err);
    if (r == 0)
        r = read_networks(job, err);
    if (r == 0)
        r = samples_open(&job->samples, q->data, job->original, q->model, (int)q->threads, err);
    if (r == 0)
        r = identify(job, err);
    if (r == 0)
        r = choose_preprocess(job, err);
    if (r == 0 && strcmp(q->learn_from, "train+search") == 0)
        dataset_join_search(job->samples.ds);
    if (r == 0)
        r = set_options(job, err);
    if (r == 0)
        r = augment_check(&job->options.augment, job->samples.ds, err);
    if (r == 0)
        r = recipe_network(&job->how, job->original, job->samples.ds, &job->samples.pre,
                           (int)q->threads, &job->g, &job->options.frozen, err);
    job->judge = (struct train_judge){job->teacher_graph, job->teacher_pre};
    job->options.judge = job->teacher_graph ? &job->judge : NULL;
    job->options.original = job->teacher_graph;
    if (r < 0 || !q->how.features)
        return r < 0 ? r : 0;
    r = recipe_features(&job->how, job->teacher_graph, &job->teacher_pre, job->g, &job->features,
                        err);
    job->options.features = &job->features;
    return r;
}

/* ---- the teacher ---- */

int train_job_teach(struct train_job *job, infer_progress *progress, void *ctx, struct err *err)
{
    const struct train_request *q = job->q;
    if (!job->teacher_graph)
        return 0;
    const struct augmenter views = {.ds = job->samples.ds,
                                    .part = PART_TRAIN,
                                    .pre = job->teacher_pre,
                                    .how = job->options.augment,
                                    .seed = job->options.seed};
    struct teacher_options options = recipe_teacher(&job->how, job->teacher_graph, (int)q->threads);
    options.data = job->data_hash;
    options.progress = progress;
    options.progress_ctx = ctx;
    int r =
        teacher_build(job->teacher_graph, &views, &options, job->cache, &job->teacher_rate, err);
    if (r == 0)
        r = teacher_open(job->cache, &job->teacher, err);
    job->options.teacher = job->teacher;
    return r;
}

/* ---- the run and what comes out ---- */

static int write_network(struct train_job *job, struct err *err)
{
    job->trained = TAKE_PTR(job->result.graph);
    int r = recipe_ship(&job->how, job->trained, job->samples.pre_text, err);
    return r < 0 ? r : onnx_write_file(job->trained, job->out, err);
}

static int write_trunk(struct train_job *job, struct err *err)
{
    if (!job->q->trunk)
        return 0;
    int r =
        recipe_trunk(&job->how, job->result.trunk, job->options.frozen, job->samples.pre_text, err);
    return r < 0 ? r : onnx_write_file(job->result.trunk, job->q->trunk, err);
}

static int write_curve(struct train_job *job, struct err *err)
{
    if (!job->q->curve)
        return 0;
    _cleanup_(freep) char *text = train_curve_json(job->result.curve, job->result.n_epochs);
    return text ? fs_write_atomic(job->q->curve, text, strlen(text), err)
                : err_oom(err, "the curve");
}

/* The test part is looked at once, here. */
static int score(struct train_job *job, struct err *err)
{
    const struct infer_options options = {.threads = (int)job->q->threads};
    const struct dataset *ds = job->samples.ds;
    _cleanup_(freep) int32_t *right = NULL;
    job->score = NAN;
    if (dataset_count(ds, PART_TEST) < 1 || job->result.metric == JUDGE_NONE)
        return 0;
    int r = judge_right(job->result.metric, job->options.judge, ds, PART_TEST, &options, &right,
                        &job->n_scored, err);
    return r < 0 ? r
                 : judge_score(job->trained, ds, PART_TEST, &job->samples.pre, &options, right,
                               &job->score, err);
}

int train_job_run(struct train_job *job, struct err *err)
{
    int r = train_run(job->g, job->samples.ds, &job->samples.pre, &job->options, &job->result, err);
    if (r == 0)
        r = write_network(job, err);
    if (r == 0)
        r = write_trunk(job, err);
    if (r == 0)
        r = write_curve(job, err);
    if (r == 0)
        r = score(job, err);
    return r == 0 ? fs_remove_tree(job->checkpoint, err) : r;
}
