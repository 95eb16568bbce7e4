#include "services/synthesizer/enrol.h"

#include <math.h>
#include <stdlib.h>

#define DRAWS 40          /* for each that is wanted */
#define MOST_SAMPLES 15e6 /* a student sees: 300 epochs of CIFAR-10 */
#define ALIKE_COST 0.06   /* in logarithms: of traits as costs */
#define ALIKE 0.25        /* sum of the differences of the other traits */
#define KNOWN_SHARE 0.95  /* of the cost of one that is there already: worth another */

/* What those who have learned already leave to others, when this is how things are. */
struct bar {
    double cost, error; /* as a logarithm; who is to begin must be below it: in cost, or turned in
                           error */
};

static bool eligible(const struct space_student *s, const struct enrolment *e, double most_cost)
{
    return s->cost <= most_cost && s->cost > e->least_cost;
}

/* reached: by those who are known. */
static struct bar bar_of(const struct enrolment *e, double limit, const double *reached, int n)
{
    struct bar bar = {.cost = e->most_cost, .error = INFINITY};
    for (int i = 0; i < n; i++) {
        if (e->turned)
            bar.error = fmin(bar.error, reached[i]);
        else if (reached[i] <= limit)
            bar.cost = fmin(bar.cost, KNOWN_SHARE * e->known[i].cost);
    }
    return bar;
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
 * keeps the limit on the error, or where none does, of those before neither, the one of least
 * error. */
static int winner(const struct forecast *f, const struct space *space, const struct enrolment *e,
                  const struct predict_weights *w, const double *reached, int n_reached)
{
    const double limit = forecast_log(f, e->error_limit);
    const struct bar bar = bar_of(e, limit, reached, n_reached);
    int cheapest = -1, best = -1;
    double least = bar.error;
    for (int i = 0; i < space->n_students; i++) {
        const struct space_student *s = &space->students[i];
        if (!eligible(s, e, bar.cost))
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
    if (e->turned)
        return best;
    return cheapest >= 0 ? cheapest : bar.cost < e->most_cost ? -1 : best;
}

int enrol_choose(const struct forecast *forecast, const struct space *space,
                 const struct enrolment *enrolment, int most, int *ret, struct err *err)
{
    struct predict_point points[ENROL_MOST_KNOWN];
    double reached[ENROL_MOST_KNOWN];
    const int known = enrolment->n_known < ENROL_MOST_KNOWN ? enrolment->n_known : ENROL_MOST_KNOWN;
    struct rng rng;
    int n = 0;
    for (int i = 0; i < known; i++)
        points[i] = enrolment->known[i].at;
    rng_seed2(&rng, enrolment->seed, (uint64_t)forecast->model.n);
    for (int draw = 0; draw < DRAWS * most && n < most; draw++) {
        struct predict_weights weights;
        int rc = predict_draw(&forecast->model, &rng, points, known, reached, &weights, err);
        if (rc < 0)
            return rc;
        const int i = winner(forecast, space, enrolment, &weights, reached, known);
        bool another = i >= 0;
        for (int k = 0; another && k < n; k++)
            another = !alike(&space->students[i], &space->students[ret[k]]);
        if (another)
            ret[n++] = i;
    }
    return n;
}
