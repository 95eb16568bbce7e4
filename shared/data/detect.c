#include "shared/data/detect.h"

#include <math.h>
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

/* Every convention is tried on a few pictures, the promising ones on more. */
#define SAMPLES_FIRST 128
#define SAMPLES 800
#define PROMISING 8
#define SHOWN 5 /* named where none is clear */
/* The best must say something at all: this many times chance with labels; without usable ones this
 * much information (nats), and this much more than any that gives other inputs. */
#define ABOVE_CHANCE 2.0
#define ABOVE_NOTHING 0.1
#define CLEAR_INFORMATION 0.02
/* Accuracies that differ by less than this are equal: a few samples of SAMPLES. */
#define EQUAL_ACCURACY 0.01
/* Probabilities below this count as this, so that a few hopeless samples do not decide alone. */
#define WORST 0.01

struct trial {
    const struct preprocess_convention *convention;
    bool done;
    double shown; /* accuracy, or information: what people are told */
    double merit; /* mean log likelihood of the labels, or information: what decides */
};

struct detecting {
    const struct detect_network *network;
    struct sample_view view;
    int32_t *labels;
    int n_classes;
    bool by_labels;
    struct trial *trials;
    int n;
};

static void detecting_release(struct detecting *d)
{
    sample_view_release(&d->view);
    free(d->labels);
    free(d->trials);
}

static int64_t argmax(const float *row, int64_t width)
{
    int64_t top = 0;
    for (int64_t k = 1; k < width; k++)
        if (row[k] > row[top])
            top = k;
    return top;
}

/* log of the probability of `label`; rows that are probabilities already are taken as they are. */
static double log_likelihood(const float *row, int64_t width, int32_t label)
{
    double sum = 0, total = 0, top = row[argmax(row, width)];
    bool nonnegative = true;
    for (int64_t k = 0; k < width; k++) {
        sum += row[k];
        total += exp(row[k] - top);
        nonnegative &= row[k] >= 0;
    }
    if (nonnegative && fabs(sum - 1) < 1e-3)
        return log(row[label] > WORST ? (double)row[label] : WORST);
    double value = row[label] - top - log(total);
    return value > log(WORST) ? value : log(WORST); /* NaN too */
}

/* Mutual information (nats) between the network's answer and the sample's class. */
static double mutual_information(const struct detecting *d, const float *logits)
{
    const int classes = d->n_classes;
    _cleanup_(freep) double *joint =
        mem_calloc((size_t)(d->network->width * classes), sizeof(double));
    _cleanup_(freep) double *answer = mem_calloc((size_t)d->network->width, sizeof(double));
    _cleanup_(freep) double *class = mem_calloc((size_t)classes, sizeof(double));
    if (!joint || !answer || !class)
        return NAN;
    const double one = 1.0 / (double)d->view.n;
    for (int64_t i = 0; i < d->view.n; i++) {
        int64_t top = argmax(logits + i * d->network->width, d->network->width);
        joint[top * classes + d->labels[i]] += one;
        answer[top] += one;
        class[d->labels[i]] += one;
    }
    double information = 0;
    for (int64_t a = 0; a < d->network->width; a++)
        for (int c = 0; c < classes; c++) {
            double p = joint[a * classes + c];
            if (p > 0)
                information += p * log(p / (answer[a] * class[c]));
        }
    return information;
}

static int run_trial(struct detecting *d, struct trial *t, struct err *err)
{
    _cleanup_(freep) float *logits =
        mem_calloc((size_t)(d->view.n * d->network->width), sizeof(float));
    if (!logits)
        return err_oom(err, "detecting the preprocessing");
    d->view.pre = t->convention->pre;
    int r = d->network->run(d->network->ctx, &d->view, logits, err);
    if (r < 0)
        return r;
    t->done = true;
    if (!d->by_labels) {
        t->shown = t->merit = mutual_information(d, logits);
        return 0;
    }
    int64_t right = 0;
    double sum = 0;
    for (int64_t i = 0; i < d->view.n; i++) {
        const float *row = logits + i * d->network->width;
        right += argmax(row, d->network->width) == d->labels[i];
        sum += log_likelihood(row, d->network->width, d->labels[i]);
    }
    t->shown = (double)right / (double)d->view.n;
    t->merit = sum / (double)d->view.n;
    return 0;
}

static int by_merit(const void *pa, const void *pb)
{
    const struct trial *a = pa, *b = pb;
    if (a->done != b->done)
        return a->done ? -1 : 1;
    if (a->merit != b->merit)
        return a->merit > b->merit ? -1 : 1;
    return a->convention < b->convention ? -1 : 1; /* the more common one first */
}

/* Tries the first `n_trials` of the trials on up to `samples` pictures and sorts them by merit. */
static int run_round(struct detecting *d, const struct dataset *ds, int n_trials, int64_t samples,
                     const char *stage, struct err *err)
{
    int64_t available = dataset_count(ds, PART_TRAIN);
    sample_view_release(&d->view);
    free(d->labels);
    d->labels = NULL;
    int r = sample_view_init(&d->view, ds, PART_TRAIN, &preprocess_identity,
                             available < samples ? available : samples, 1, err);
    if (r == 0)
        r = sample_view_labels(&d->view, &d->labels, err);
    for (int i = 0; i < d->n; i++)
        d->trials[i].done = false;
    for (int i = 0; r == 0 && i < n_trials; i++) {
        r = run_trial(d, &d->trials[i], err);
        if (r == 0 && d->network->progress)
            r = d->network->progress(d->network->ctx, stage, i + 1, n_trials, err);
    }
    qsort(d->trials, (size_t)d->n, sizeof(*d->trials), by_merit);
    return r;
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
            double span_a = fabs(255 * a->scale / a->std[c]);
            double span_b = fabs(255 * b->scale / b->std[c]);
            if (fabs(u - v) > 0.25 * (span_a < span_b ? span_a : span_b))
                return false;
        }
    return true;
}

/* The best by merit; but RGB where a network is indifferent to the order of colours. */
static const struct trial *take(const struct detecting *d)
{
    const struct trial *best = &d->trials[0];
    if (!d->by_labels || !best->convention->pre.bgr)
        return best;
    for (int i = 1; i < d->n && d->trials[i].done; i++)
        if (!d->trials[i].convention->pre.bgr && best->shown - d->trials[i].shown < EQUAL_ACCURACY)
            return &d->trials[i];
    return best;
}

/* The error names what came close. */
static int unclear(const struct detecting *d, const char *by, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf tried = {0};
    for (int i = 0; i < d->n && i < SHOWN && d->trials[i].done; i++)
        strbuf_printf(&tried, "%s'%s' %.3f", i ? ", " : "", d->trials[i].convention->name,
                      d->trials[i].shown);
    return err_set(err, ERR_FAILED_PRECONDITION,
                   "no usual preprocessing clearly fits (%s: %s); say how pictures become inputs "
                   "with --preprocess 'scale=... mean=... std=... order=rgb|bgr'",
                   by, tried.failed ? "?" : tried.data);
}

/* With labels the convention that explains them best is taken when it is well above chance: where
 * another comes close, the choice between them matters little. Without labels the best must stand
 * out. */
static int judge(const struct detecting *d, struct detection *ret, struct err *err)
{
    const struct trial *taken = take(d), *next = NULL;
    for (int i = 0; !next && i < d->n && d->trials[i].done; i++)
        if (!alike(&d->trials[i].convention->pre, &taken->convention->pre))
            next = &d->trials[i];
    *ret = (struct detection){.pre = taken->convention->pre,
                              .name = taken->convention->name,
                              .score = taken->shown,
                              .next = next ? next->shown : 0,
                              .by = d->by_labels ? "accuracy" : "mutual information"};
    bool clear = d->by_labels ? taken->shown >= ABOVE_CHANCE / d->n_classes
                              : taken->shown >= ABOVE_NOTHING &&
                                    taken->merit - (next ? next->merit : 0) >= CLEAR_INFORMATION;
    return clear ? 0 : unclear(d, ret->by, err);
}

int detect_preprocess(const struct dataset *ds, const struct detect_network *network,
                      bool by_labels, struct detection *ret, struct err *err)
{
    if (!dataset_is_picture(ds)) {
        *ret = (struct detection){.pre = preprocess_identity, .name = "none (the data are arrays)"};
        return 0;
    }
    _cleanup_(detecting_release) struct detecting d = {
        .network = network, .by_labels = by_labels, .n_classes = dataset_classes(ds)};
    if (d.n_classes < 2)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "pictures without labels do not tell how they become inputs: say so with "
                       "--preprocess 'scale=... mean=... std=... order=rgb|bgr'");
    const struct preprocess_convention *conventions = preprocess_conventions(&d.n);
    d.trials = mem_calloc((size_t)d.n, sizeof(*d.trials));
    if (!d.trials)
        return err_oom(err, "detecting the preprocessing");
    for (int i = 0; i < d.n; i++)
        d.trials[i].convention = &conventions[i];
    int r = run_round(&d, ds, d.n, SAMPLES_FIRST, "find the preprocessing", err);
    if (r == 0)
        r = run_round(&d, ds, d.n < PROMISING ? d.n : PROMISING, SAMPLES,
                      "confirm the preprocessing", err);
    return r < 0 ? r : judge(&d, ret, err);
}
