#include "shared/train/loss.h"

#include <math.h>

/* ret = softmax(z / temperature); returns log of the sum that it was divided by, less the maximum's
 * part, so that log ret[i] = z[i] / temperature - returned. */
static double soften(const float *z, int64_t n, double temperature, double *ret)
{
    double top = (double)z[0], sum = 0;
    for (int64_t i = 1; i < n; i++)
        top = fmax(top, (double)z[i]);
    for (int64_t i = 0; i < n; i++) {
        ret[i] = exp(((double)z[i] - top) / temperature);
        sum += ret[i];
    }
    for (int64_t i = 0; i < n; i++)
        ret[i] /= sum;
    return top / temperature + log(sum);
}

int64_t loss_spare(const struct loss *l)
{
    return 3 * l->width;
}

/* Cross-entropy with the label's (or labels') target. */
static double label_loss(const struct loss *l, const struct loss_target *t, const float *logits,
                         double scale, float *gradient, double *p)
{
    const double norm = soften(logits, l->width, 1, p), even = l->smoothing / (double)l->width;
    const double own = t->share < 1 ? (double)t->share : 1;
    double sum = 0;
    for (int64_t i = 0; i < l->width; i++) {
        double target = even;
        target += i == t->label ? (1 - l->smoothing) * own : 0;
        target += own < 1 && i == t->other ? (1 - l->smoothing) * (1 - own) : 0;
        sum -= target * ((double)logits[i] - norm);
        gradient[i] += (float)(scale * (p[i] - target));
    }
    return sum;
}

/* target = softmax(teacher / T), of both samples where two are mixed. */
static void teacher_target(const struct loss *l, const struct loss_target *t, double *target,
                           double *spare)
{
    soften(t->teacher, l->width, l->temperature, target);
    if (!(t->share < 1))
        return;
    soften(t->teacher_other, l->width, l->temperature, spare);
    for (int64_t i = 0; i < l->width; i++)
        target[i] = (double)t->share * target[i] + (1 - (double)t->share) * spare[i];
}

static double teacher_loss(const struct loss *l, const struct loss_target *t, const float *logits,
                           double scale, float *gradient, double *spare)
{
    double *p = spare, *target = spare + l->width, sum = 0;
    teacher_target(l, t, target, spare + 2 * l->width);
    const double norm = soften(logits, l->width, l->temperature, p);
    for (int64_t i = 0; i < l->width; i++) {
        const double own = (double)logits[i] / l->temperature - norm;
        if (target[i] > 0)
            sum += target[i] * (log(target[i]) - own);
        gradient[i] += (float)(scale * l->temperature * (p[i] - target[i]));
    }
    return l->temperature * l->temperature * sum;
}

double loss_sample(const struct loss *l, const struct loss_target *t, const float *logits,
                   double scale, float *gradient, double *spare)
{
    double sum = 0;
    if (l->distil < 1)
        sum += (1 - l->distil) * label_loss(l, t, logits, scale * (1 - l->distil), gradient, spare);
    if (l->distil > 0)
        sum += l->distil * teacher_loss(l, t, logits, scale * l->distil, gradient, spare);
    return sum;
}

double loss_power(const float *parent, int64_t n)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)parent[i] * (double)parent[i];
    return sum;
}

double loss_feature(const float *out, const float *parent, int64_t n, double power, double scale,
                    float *gradient)
{
    double sum = 0;
    if (!(power > 0)) /* a parent that says nothing teaches nothing */
        return 0;
    const double factor = 2 * scale / power;
    for (int64_t i = 0; i < n; i++) {
        const double d = (double)out[i] - (double)parent[i];
        sum += d * d;
        gradient[i] += (float)(factor * d);
    }
    return sum / power;
}

/* ---- features of a sample ---- */

/* The sum of the squared deviations from the mean. */
static double variation(const float *x, int64_t n)
{
    double sum = 0, square = 0;
    for (int64_t i = 0; i < n; i++)
        sum += (double)x[i];
    for (int64_t i = 0; i < n; i++)
        square += ((double)x[i] - sum / (double)n) * ((double)x[i] - sum / (double)n);
    return square;
}

static double cosine_loss(const float *out, const float *parent, int64_t n, double scale,
                          float *gradient)
{
    const double a = sqrt(loss_power(out, n)), b = sqrt(loss_power(parent, n));
    double dot = 0;
    if (!(a > 0) || !(b > 0))
        return 0;
    for (int64_t i = 0; i < n; i++)
        dot += (double)out[i] * (double)parent[i];
    const double cosine = dot / (a * b);
    for (int64_t i = 0; i < n; i++)
        gradient[i] -= (float)(scale * ((double)parent[i] / b - cosine * (double)out[i] / a) / a);
    return 1 - cosine;
}

/* map[pixel]: the mean over the channels of the squares, of length 1; returns the length that it
 * had. */
static double energy(const float *x, int64_t channels, int64_t pixels, double *map)
{
    double length = 0;
    for (int64_t s = 0; s < pixels; s++) {
        map[s] = 0;
        for (int64_t c = 0; c < channels; c++)
            map[s] += (double)x[c * pixels + s] * (double)x[c * pixels + s] / (double)channels;
        length += map[s] * map[s];
    }
    length = sqrt(length);
    for (int64_t s = 0; s < pixels && length > 0; s++)
        map[s] /= length;
    return length;
}

static double attention_loss(const struct loss_features *f, const float *out, const float *parent,
                             double scale, float *gradient, double *spare)
{
    double *own = spare, *other = spare + f->pixels, sum = 0, dot = 0;
    const double length = energy(out, f->channels, f->pixels, own);
    if (!(energy(parent, f->parent_channels, f->pixels, other) > 0) || !(length > 0))
        return 0;
    for (int64_t s = 0; s < f->pixels; s++) {
        const double d = own[s] - other[s];
        sum += d * d;
        dot += 2 * d * own[s];
    }
    for (int64_t s = 0; s < f->pixels; s++) {
        const double slope = (2 * (own[s] - other[s]) - own[s] * dot) / length;
        const double factor = 2 * scale * slope / (double)f->channels;
        for (int64_t c = 0; c < f->channels; c++)
            gradient[c * f->pixels + s] += (float)(factor * (double)out[c * f->pixels + s]);
    }
    return sum;
}

int64_t loss_features_spare(const struct loss_features *f)
{
    return f->kind == FEATURE_ATTENTION ? 2 * f->pixels : 0;
}

double loss_features(const struct loss_features *f, const float *out, const float *parent,
                     double scale, float *gradient, double *spare)
{
    const int64_t n = f->channels * f->pixels;
    switch (f->kind) {
    case FEATURE_COSINE:
        return cosine_loss(out, parent, n, scale, gradient);
    case FEATURE_ATTENTION:
        return attention_loss(f, out, parent, scale, gradient, spare);
    default:
        return loss_feature(out, parent, n, variation(parent, n), scale, gradient);
    }
}
