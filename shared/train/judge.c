#include "shared/train/judge.h"

#include <stdlib.h>

#include "shared/base/mem.h"

const char *judge_metric_name(enum judge_metric metric)
{
    return metric == JUDGE_TOP1 ? "top1" : metric == JUDGE_AGREEMENT ? "agreement" : NULL;
}

enum judge_metric judge_metric_of(const struct train_judge *judge, const struct dataset *ds,
                                  int64_t width, bool labels_learned)
{
    const int64_t classes = dataset_classes(ds);
    const bool possible = classes > 0 && classes <= width;
    if (classes == width || (possible && labels_learned))
        return JUDGE_TOP1;
    return judge ? JUDGE_AGREEMENT : possible ? JUDGE_TOP1 : JUDGE_NONE;
}

/* The network's answers to the whole view: malloc'ed, [view->n][*ret_width]. */
static int answers(const struct graph *g, struct sample_view *view,
                   const struct infer_options *options, float **ret, int64_t *ret_width,
                   struct err *err)
{
    int rc = infer_output_width(g, ret_width, err);
    if (rc < 0)
        return rc;
    _cleanup_(freep) float *logits =
        mem_calloc((size_t)view->n, (size_t)*ret_width * sizeof(*logits));
    if (!logits)
        return err_oom(err, "evaluation");
    rc = infer_run(g, options, view->n, sample_view_fill, view, logits, err);
    if (rc < 0)
        return err_wrap(err, "evaluation");
    *ret = TAKE_PTR(logits);
    return 0;
}

static int tops(const struct train_judge *judge, struct sample_view *view,
                const struct infer_options *options, int32_t **ret, struct err *err)
{
    struct infer_options as_it_says = *options;
    _cleanup_(freep) float *logits = NULL;
    int64_t width = 0;
    as_it_says.precision = PRECISION_AUTO;
    int rc = answers(judge->network, view, &as_it_says, &logits, &width, err);
    if (rc < 0)
        return err_wrap(err, "the judge");
    int32_t *right = mem_calloc((size_t)view->n, sizeof(*right));
    if (!right)
        return err_oom(err, "evaluation");
    for (int64_t i = 0; i < view->n; i++)
        right[i] = infer_top(logits + i * width, width);
    *ret = right;
    return 0;
}

int judge_right(enum judge_metric metric, const struct train_judge *judge, const struct dataset *ds,
                enum part part, const struct infer_options *options, int32_t **ret, int64_t *ret_n,
                struct err *err)
{
    _cleanup_(sample_view_release) struct sample_view view = {0};
    const struct preprocess *pre = metric == JUDGE_AGREEMENT ? &judge->pre : &preprocess_identity;
    int rc = sample_view_init(&view, ds, part, pre, 0, 0, err);
    if (rc < 0)
        return rc;
    *ret_n = view.n;
    return metric == JUDGE_AGREEMENT ? tops(judge, &view, options, ret, err)
                                     : sample_view_labels(&view, ret, err);
}

int judge_score(const struct graph *g, const struct dataset *ds, enum part part,
                const struct preprocess *pre, const struct infer_options *options,
                const int32_t *right, double *ret, struct err *err)
{
    _cleanup_(sample_view_release) struct sample_view view = {0};
    _cleanup_(freep) float *logits = NULL;
    struct infer_metrics metrics;
    int64_t width = 0;
    int rc = sample_view_init(&view, ds, part, pre, 0, 0, err);
    if (rc == 0)
        rc = answers(g, &view, options, &logits, &width, err);
    if (rc < 0)
        return rc;
    infer_metrics(logits, NULL, right, view.n, width, &metrics);
    *ret = metrics.top1;
    return 0;
}
