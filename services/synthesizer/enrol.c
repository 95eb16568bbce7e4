#include "services/synthesizer/enrol.h"

#include <math.h>
#include <stdlib.h>

#define DRAWS 40          /* for each that is wanted */
#define MOST_SAMPLES 15e6 /* a student sees: 300 epochs of CIFAR-10 */
#define ALIKE_COST 0.06   /* in logarithms: of traits as costs */
#define ALIKE 0.25        /* sum of the differences of the other traits */

static bool eligible(const struct space_student *s, const struct enrolment *e)
{
    return s->cost <= e->most_cost && s->cost > e->least_cost;
}

bool enrol_alike(const double a_traits[PREDICT_TRAITS], double a_cost,
                 const double b_traits[PREDICT_TRAITS], double b_cost)
{
    double sum = 0;
    for (int i = 0; i < PREDICT_TRAITS; i++)
        sum += fabs(a_traits[i] - b_traits[i]);
    return fabs(log(a_cost / b_cost)) < ALIKE_COST && sum < ALIKE;
}

static bool alike(const struct space_student *a, const struct space_student *b)
{
    return enrol_alike(a->traits, a->cost, b->traits, b->cost);
}

/* Who wins when this is how things are; -1: nobody. Without a limit on costs: the cheapest that
 * keeps the limit on the error, or where none does the one of least error. */
static int winner(const struct forecast *f, const struct space *space, const struct enrolment *e,
                  const struct predict_weights *w)
{
    const double limit = forecast_log(f, e->error_limit);
    int cheapest = -1, best = -1;
    double least = INFINITY;
    for (int i = 0; i < space->n_students; i++) {
        const struct space_student *s = &space->students[i];
        if (!eligible(s, e))
            continue;
        const double samples = fmin(e->samples_macs / (double)s->macs, MOST_SAMPLES);
        const double error = predict_drawn(w, s->traits, samples);
        if (error <= limit && (cheapest < 0 || s->cost < space->students[cheapest].cost))
            cheapest = i;
        if (error < least) {
            least = error;
            best = i;
        }
    }
    return !e->turned && cheapest >= 0 ? cheapest : best;
}

int enrol_choose(const struct forecast *forecast, const struct space *space,
                 const struct enrolment *enrolment, int most, int *ret, struct err *err)
{
    struct rng rng;
    int n = 0;
    rng_seed2(&rng, enrolment->seed, (uint64_t)forecast->model.n);
    for (int draw = 0; draw < DRAWS * most && n < most; draw++) {
        struct predict_weights weights;
        int rc = predict_draw(&forecast->model, &rng, &weights, err);
        if (rc < 0)
            return rc;
        const int i = winner(forecast, space, enrolment, &weights);
        bool another = i >= 0;
        for (int k = 0; another && k < n; k++)
            another = !alike(&space->students[i], &space->students[ret[k]]);
        if (another)
            ret[n++] = i;
    }
    return n;
}
