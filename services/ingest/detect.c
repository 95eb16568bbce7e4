#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/ingest/prepare.h"
#include "shared/base/str.h"
#include "shared/nn/infer.h"

#define SAMPLES 400
/* The best convention must beat every one that gives other answers by this much. */
#define CLEAR_ACCURACY 0.02
#define CLEAR_INFORMATION 0.02
/* ... and must say something at all: this many times chance. */
#define ABOVE_CHANCE 1.5

struct candidate {
    const struct preprocess_convention *convention;
    double score;
    float *logits;
};

/* Mutual information (nats) between the network's answer and the sample's class. */
static double mutual_information(const float *logits, int64_t width, const int32_t *labels,
                                 int n_classes, int64_t n)
{
    _cleanup_(freep) double *joint = mem_calloc((size_t)(width * n_classes), sizeof(double));
    _cleanup_(freep) double *answer = mem_calloc((size_t)width, sizeof(double));
    _cleanup_(freep) double *class = mem_calloc((size_t)n_classes, sizeof(double));
    if (!joint || !answer || !class)
        return NAN;
    for (int64_t i = 0; i < n; i++) {
        int64_t top = 0;
        for (int64_t k = 1; k < width; k++)
            if (logits[i * width + k] > logits[i * width + top])
                top = k;
        joint[top * n_classes + labels[i]] += 1.0 / (double)n;
        answer[top] += 1.0 / (double)n;
        class[labels[i]] += 1.0 / (double)n;
    }
    double information = 0;
    for (int64_t a = 0; a < width; a++)
        for (int c = 0; c < n_classes; c++) {
            double p = joint[a * n_classes + c];
            if (p > 0)
                information += p * log(p / (answer[a] * class[c]));
        }
    return information;
}

static int score_candidate(const struct graph *g, struct sample_view *view,
                           const struct preprocess *pre, const int32_t *labels, int n_classes,
                           bool by_accuracy, int64_t width, int threads, double *ret,
                           struct err *err)
{
    _cleanup_(freep) float *logits = mem_calloc((size_t)(view->n * width), sizeof(float));
    if (!logits)
        return err_oom(err, "detecting the preprocessing");
    view->pre = *pre;
    struct infer_options options = {.threads = threads};
    int r = infer_run(g, &options, view->n, sample_view_fill, view, logits, err);
    if (r < 0)
        return r;
    if (by_accuracy) {
        struct infer_metrics metrics;
        infer_metrics(logits, NULL, labels, view->n, width, &metrics);
        *ret = metrics.top1;
    } else {
        *ret = mutual_information(logits, width, labels, n_classes, view->n);
    }
    return 0;
}

/* Conventions that differ only a little (two sets of means for the same data) both fit: only a
 * different scale or order makes the choice matter. */
static bool alike(const struct preprocess *a, const struct preprocess *b)
{
    if (a->bgr != b->bgr)
        return false;
    for (int c = 0; c < 3; c++)
        for (int x = 0; x <= 255; x += 255) {
            double u = (x * a->scale - a->mean[c]) / a->std[c];
            double v = (x * b->scale - b->mean[c]) / b->std[c];
            double span_a = 255 * a->scale / a->std[c], span_b = 255 * b->scale / b->std[c];
            if (fabs(u - v) > 0.25 * (fabs(span_a) < fabs(span_b) ? fabs(span_a) : fabs(span_b)))
                return false;
        }
    return true;
}

static int unclear(const struct preprocess_convention *conventions, const double *scores, int n,
                   const char *by, struct err *err)
{
    int first = 0, second = -1;
    for (int i = 1; i < n; i++)
        if (scores[i] > scores[first])
            first = i;
    for (int i = 0; i < n; i++)
        if (!alike(&conventions[i].pre, &conventions[first].pre) &&
            (second < 0 || scores[i] > scores[second]))
            second = i;
    return err_set(err, ERR_FAILED_PRECONDITION,
                   "no usual preprocessing clearly fits (by %s: '%s' gives %.3f, '%s' %.3f); say "
                   "how pictures become inputs with --preprocess 'scale=... mean=... std=... "
                   "order=rgb|bgr'",
                   by, conventions[first].name, scores[first],
                   second >= 0 ? conventions[second].name : "none", second >= 0 ? scores[second] : 0);
}

static int judge(const struct preprocess_convention *conventions, const double *scores, int n,
                 bool by_accuracy, int n_classes, struct detection *ret, struct err *err)
{
    int best = 0;
    for (int i = 1; i < n; i++)
        if (scores[i] > scores[best])
            best = i;
    double next = 0;
    for (int i = 0; i < n; i++)
        if (!alike(&conventions[i].pre, &conventions[best].pre) && scores[i] > next)
            next = scores[i];
    *ret = (struct detection){.pre = conventions[best].pre,
                              .name = conventions[best].name,
                              .score = scores[best],
                              .next = next,
                              .by = by_accuracy ? "accuracy" : "mutual information"};
    double clear = by_accuracy ? CLEAR_ACCURACY : CLEAR_INFORMATION;
    double chance = by_accuracy ? ABOVE_CHANCE / n_classes : 0.1;
    if (!(scores[best] >= chance) || scores[best] - next < clear)
        return unclear(conventions, scores, n, ret->by, err);
    return 0;
}

int ingest_detect_preprocess(struct work_task *task, const struct graph *g,
                             const struct dataset *ds, bool labels_usable, struct detection *ret,
                             struct err *err)
{
    int n = 0, n_classes = dataset_classes(ds);
    const struct preprocess_convention *conventions = preprocess_conventions(&n);
    if (!dataset_is_picture(ds)) {
        *ret = (struct detection){.pre = preprocess_identity, .name = "none (the data are arrays)"};
        return 0;
    }
    if (n_classes < 2)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "pictures without labels do not tell how they become inputs: say so with "
                       "--preprocess 'scale=... mean=... std=... order=rgb|bgr'");
    _cleanup_(sample_view_release) struct sample_view view = {0};
    _cleanup_(freep) int32_t *labels = NULL;
    _cleanup_(freep) double *scores = mem_calloc((size_t)n, sizeof(double));
    int64_t width = 0;
    int r = scores ? 0 : err_oom(err, "detecting the preprocessing");
    int64_t available = dataset_count(ds, PART_TRAIN);
    if (r == 0)
        r = sample_view_init(&view, ds, PART_TRAIN, &preprocess_identity,
                             available < SAMPLES ? available : SAMPLES, 1, err);
    if (r == 0)
        r = sample_view_labels(&view, &labels, err);
    if (r == 0)
        r = infer_output_width(g, &width, err);
    for (int i = 0; r == 0 && i < n; i++) {
        r = score_candidate(g, &view, &conventions[i].pre, labels, n_classes, labels_usable, width,
                            task->threads, &scores[i], err);
        if (r == 0)
            r = work_progress(task, "find the preprocessing", i + 1, n, "conventions", err);
    }
    return r < 0 ? r : judge(conventions, scores, n, labels_usable, n_classes, ret, err);
}
