#include "services/synthesizer/predict.h"

#include <math.h>
#include <stdlib.h>

#include "shared/base/mem.h"

static double exponent_of(const struct learned *s)
{
    const int last = s->n - 1;
    const double e0 = s->errors[last - 1], e1 = s->errors[last];
    const double t0 = s->epochs[last - 1], t1 = s->epochs[last];
    if (!(e0 > 0 && e1 > 0 && t0 > 0 && t1 > t0))
        return NAN;
    return fmin(fmax(log(e0 / e1) / log(t1 / t0), 0), 1);
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double predict_exponent(const struct learned *students, int n)
{
    _cleanup_(freep) double *all = mem_calloc((size_t)n + 1, sizeof(*all));
    int known = 0;
    for (int i = 0; all && i < n; i++) {
        const double g = students[i].n >= 2 ? exponent_of(&students[i]) : NAN;
        if (isfinite(g))
            all[known++] = g;
    }
    if (known == 0)
        return PREDICT_EXPONENT;
    qsort(all, (size_t)known, sizeof(*all), ascending);
    return known % 2 ? all[known / 2] : (all[known / 2 - 1] + all[known / 2]) / 2;
}

double predict_error(const struct learned *student, double exponent, double epochs)
{
    const double e = student->errors[student->n - 1], t = student->epochs[student->n - 1];
    return t > 0 && epochs > t ? e * pow(epochs / t, -exponent) : e;
}

double predict_chance(double error, double limit, double deviation)
{
    if (!(deviation > 0))
        return error <= limit;
    return 0.5 * erfc((error - limit) / (deviation * sqrt(2)));
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
