#include "services/synthesizer/predict.h"

#include <math.h>
#include <string.h>

#define WEIGHTS PREDICT_WEIGHTS
#define OFFSET 0.06 /* deviation of a student's own level, as a logarithm */
#define PACE 0.1    /* of its own way from the first epochs to the last */
#define NOISE 0.02  /* of a run: the seed */

enum { SAMPLES = PREDICT_TRAITS, DEEP_SAMPLES, HEIRS_SAMPLES, LARGE_SAMPLES, POOL_SAMPLES };

/* What is believed beforehand of each trait's weight. It leans on a fit of this model to 61 runs of
 * students of ResNet-56 on CIFAR-10, with 1 to 103 M products, after 4 to 57 epochs (four jobs and
 * hone train), and to ResNet-20, -32, -44 and -56 themselves; deviations leave room for other data.
 * Those that pool learn quickly, and are a little better in the end; those that begin with large
 * steps are worse in the end than their products promise. Those that inherit are a guess. */
static const struct {
    double mean, deviation;
} prior[WEIGHTS] = {
    [PREDICT_LEVEL] = {0.22, 0.2},
    [PREDICT_MACS] = {-0.03, 0.06},
    [PREDICT_PARAMETERS] = {-0.13, 0.05},
    [PREDICT_DEPTH] = {-0.16, 0.08},
    [PREDICT_RESIDUAL] = {-0.05, 0.1},
    [PREDICT_SEPARABLE] = {-0.05, 0.15},
    [PREDICT_POOL] = {-0.04, 0.12},
    [PREDICT_HEAD_POOL] = {-0.12, 0.1},
    [PREDICT_STEM] = {0.2, 0.1},
    [PREDICT_PATCH] = {-0.04, 0.08},
    [SAMPLES] = {0.56, 0.12},
    [DEEP_SAMPLES] = {0.17, 0.1},
    [PREDICT_INHERITS] = {0, 0.3},
    [HEIRS_SAMPLES] = {-0.35, 0.15},
    [LARGE_SAMPLES] = {0.02, 0.03},
    [POOL_SAMPLES] = {-0.16, 0.1},
};

static double way_to_go(double samples)
{
    return log1p(PREDICT_HALF / samples);
}

static double feature(const double traits[PREDICT_TRAITS], double samples, int i)
{
    static const int with[] = {PREDICT_LEVEL, PREDICT_DEPTH, PREDICT_INHERITS, PREDICT_PARAMETERS,
                               PREDICT_POOL};
    return i < PREDICT_TRAITS ? traits[i] : way_to_go(samples) * traits[with[i - SAMPLES]];
}

static double believed(const double traits[PREDICT_TRAITS], double samples)
{
    double sum = 0;
    for (int i = 0; i < WEIGHTS; i++)
        sum += prior[i].mean * feature(traits, samples, i);
    return sum;
}

/* How two values go together. */
static double kernel(const double *a_traits, double a_samples, int a, const double *b_traits,
                     double b_samples, int b)
{
    double sum = 0;
    for (int i = 0; i < WEIGHTS; i++)
        sum += prior[i].deviation * prior[i].deviation * feature(a_traits, a_samples, i) *
               feature(b_traits, b_samples, i);
    if (a == b && a != PREDICT_NOBODY)
        sum += OFFSET * OFFSET + PACE * PACE * way_to_go(a_samples) * way_to_go(b_samples);
    return sum;
}

static double kernel_of_runs(const struct predict_run *a, const struct predict_run *b)
{
    return kernel(a->traits, a->samples, a->student, b->traits, b->samples, b->student);
}

static double noise_of(const struct predict_run *run)
{
    return NOISE * NOISE + run->deviation * run->deviation;
}

/* ---- linear algebra: matrices of some dozens of rows ---- */

/* In place, the lower half. */
static int cholesky(double *a, int n)
{
    for (int j = 0; j < n; j++) {
        for (int k = 0; k < j; k++)
            a[j * n + j] -= a[j * n + k] * a[j * n + k];
        if (!(a[j * n + j] > 0))
            return -1;
        a[j * n + j] = sqrt(a[j * n + j]);
        for (int i = j + 1; i < n; i++) {
            for (int k = 0; k < j; k++)
                a[i * n + j] -= a[i * n + k] * a[j * n + k];
            a[i * n + j] /= a[j * n + j];
        }
    }
    return 0;
}

/* L y = b, in place. */
static void forward(const double *l, int n, double *b)
{
    for (int i = 0; i < n; i++) {
        for (int k = 0; k < i; k++)
            b[i] -= l[i * n + k] * b[k];
        b[i] /= l[i * n + i];
    }
}

/* L L' x = b, in place. */
static void solve(const double *l, int n, double *b)
{
    forward(l, n, b);
    for (int i = n - 1; i >= 0; i--) {
        for (int k = i + 1; k < n; k++)
            b[i] -= l[k * n + i] * b[k];
        b[i] /= l[i * n + i];
    }
}

/* ---- the model ---- */

int predict_learn(const struct predict_run *runs, int n, struct arena *arena, struct predictor *ret,
                  struct err *err)
{
    *ret = (struct predictor){.n = n, .runs = runs};
    ret->factor = arena_alloc(arena, (size_t)n * (size_t)n + 1, sizeof(double));
    ret->weight = arena_alloc(arena, (size_t)n + 1, sizeof(double));
    ret->scratch = arena_alloc(arena, (size_t)n + 1, sizeof(double));
    if (!ret->factor || !ret->weight || !ret->scratch)
        return err_oom(err, "predictions");
    for (int i = 0; i < n; i++) {
        for (int k = 0; k <= i; k++)
            ret->factor[i * n + k] = kernel_of_runs(&runs[i], &runs[k]);
        ret->factor[i * n + i] += noise_of(&runs[i]);
        ret->weight[i] = runs[i].log_error - believed(runs[i].traits, runs[i].samples);
    }
    if (cholesky(ret->factor, n) < 0)
        return err_set(err, ERR_INTERNAL, "predictions of %d runs: no number among them", n);
    solve(ret->factor, n, ret->weight);
    return 0;
}

struct predicted predict_at(const struct predictor *model, const double traits[PREDICT_TRAITS],
                            int student, double samples)
{
    double mean = believed(traits, samples);
    double variance = kernel(traits, samples, student, traits, samples, student);
    if (student == PREDICT_NOBODY) /* it will turn out to be somebody */
        variance += OFFSET * OFFSET + PACE * PACE * way_to_go(samples) * way_to_go(samples);
    double *v = model->scratch;
    for (int i = 0; i < model->n; i++) {
        const struct predict_run *r = &model->runs[i];
        v[i] = kernel(traits, samples, student, r->traits, r->samples, r->student);
        mean += v[i] * model->weight[i];
    }
    forward(model->factor, model->n, v);
    for (int i = 0; i < model->n; i++)
        variance -= v[i] * v[i];
    return (struct predicted){mean, sqrt(fmax(variance, 0) + NOISE * NOISE)};
}

/* Matheron's rule: a draw from before the runs, and by how much these correct it. */
struct path {
    struct predict_weights weights; /* beforehand */
    double *own;                    /* [2 * students]: level and pace of each, beforehand */
    double *correction;             /* [n], of each run: to be weighed by the kernel */
};

static void path_release(struct path *p)
{
    freep(&p->own);
    freep(&p->correction);
}

static double own_of(const struct path *p, int student, double samples)
{
    return p->own[2 * student] + p->own[2 * student + 1] * way_to_go(samples);
}

/* students: one more than the largest number that is asked for. */
static int path_draw(const struct predictor *model, struct rng *rng, int students, struct path *p,
                     struct err *err)
{
    for (int i = 0; i < model->n; i++)
        students = model->runs[i].student < students ? students : model->runs[i].student + 1;
    p->own = mem_calloc((size_t)students + 1, 2 * sizeof(*p->own));
    p->correction = mem_calloc((size_t)model->n + 1, sizeof(*p->correction));
    if (!p->own || !p->correction)
        return err_oom(err, "predictions");
    for (int i = 0; i < WEIGHTS; i++)
        p->weights.of[i] = prior[i].mean + prior[i].deviation * rng_normal(rng);
    for (int i = 0; i < students; i++) {
        p->own[2 * i] = OFFSET * rng_normal(rng);
        p->own[2 * i + 1] = PACE * rng_normal(rng);
    }
    for (int i = 0; i < model->n; i++) {
        const struct predict_run *r = &model->runs[i];
        p->correction[i] = r->log_error - predict_drawn(&p->weights, r->traits, r->samples) -
                           own_of(p, r->student, r->samples) - sqrt(noise_of(r)) * rng_normal(rng);
    }
    solve(model->factor, model->n, p->correction);
    return 0;
}

/* What the runs make of the weights that were drawn. */
static struct predict_weights path_weights(const struct predictor *model, const struct path *p)
{
    struct predict_weights weights = p->weights;
    for (int i = 0; i < WEIGHTS; i++)
        for (int k = 0; k < model->n; k++)
            weights.of[i] += prior[i].deviation * prior[i].deviation * p->correction[k] *
                             feature(model->runs[k].traits, model->runs[k].samples, i);
    return weights;
}

static double path_at(const struct predictor *model, const struct path *p,
                      const struct predict_point *at)
{
    double y =
        predict_drawn(&p->weights, at->traits, at->samples) + own_of(p, at->student, at->samples);
    for (int k = 0; k < model->n; k++) {
        const struct predict_run *r = &model->runs[k];
        y += p->correction[k] *
             kernel(at->traits, at->samples, at->student, r->traits, r->samples, r->student);
    }
    return y;
}

int predict_draw(const struct predictor *model, struct rng *rng, const struct predict_point *points,
                 int n, double *ret, struct predict_weights *ret_weights, struct err *err)
{
    _cleanup_(path_release) struct path p = {0};
    int students = 0;
    for (int i = 0; i < n; i++)
        students = points[i].student < students ? students : points[i].student + 1;
    int rc = path_draw(model, rng, students, &p, err);
    for (int i = 0; rc == 0 && i < n; i++)
        ret[i] = path_at(model, &p, &points[i]) + NOISE * rng_normal(rng);
    if (rc == 0 && ret_weights)
        *ret_weights = path_weights(model, &p);
    return rc;
}

void predict_features(const double traits[PREDICT_TRAITS], double samples,
                      double ret[PREDICT_WEIGHTS])
{
    for (int i = 0; i < WEIGHTS; i++)
        ret[i] = feature(traits, samples, i);
}

double predict_sum(const struct predict_weights *weights, const double features[PREDICT_WEIGHTS])
{
    double sum = 0;
    for (int i = 0; i < WEIGHTS; i++)
        sum += weights->of[i] * features[i];
    return sum;
}

double predict_drawn(const struct predict_weights *weights, const double traits[PREDICT_TRAITS],
                     double samples)
{
    double features[WEIGHTS];
    predict_features(traits, samples, features);
    return predict_sum(weights, features);
}

double predict_own(double samples)
{
    const double pace = PACE * way_to_go(samples);
    return sqrt(OFFSET * OFFSET + pace * pace + NOISE * NOISE);
}

/* ---- what it is worth ---- */

double predict_chance(double mean, double limit, double deviation)
{
    if (!(deviation > 0))
        return mean <= limit;
    return 0.5 * erfc((mean - limit) / (deviation * sqrt(2)));
}

double predict_gain(double error, double best_error, double deviation)
{
    const double gain = best_error - error;
    if (!(deviation > 0))
        return fmax(gain, 0);
    const double z = gain / deviation;
    return gain * predict_chance(error, best_error, deviation) +
           deviation * exp(-z * z / 2) / sqrt(2 * acos(-1));
}

double predict_worth(double chance, double cost, double best_cost)
{
    return cost > 0 && cost < best_cost ? chance * log(best_cost / cost) : 0;
}
