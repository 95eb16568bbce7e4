#include "services/synthesizer/enrol.h"

#include <math.h>
#include <stdlib.h>

#include "services/synthesizer/rungs.h"
#include "shared/base/mem.h"

#define DRAWS 256         /* of what may be */
#define MOST_SAMPLES 15e6 /* a student sees: 300 epochs of CIFAR-10 */
#define ALIKE_COST 0.06   /* in logarithms: of traits as costs */
#define ALIKE 0.25        /* sum of the differences of the other traits */
#define KNOWN_SHARE 0.95  /* of the cost of one that is there already: worth another */
#define WORST 3.0         /* log(error / reference): worth nothing where few errors are wanted */
#define LEAST_GAIN 1e-9   /* where nobody adds more nobody has a chance */

/* One who may begin. */
struct trial {
    int i;              /* in the space */
    double gain, error; /* means over the draws: what it adds, its error as a logarithm */
    float *errors;      /* [DRAWS] */
    double own;         /* deviation of its own */
};

struct trials {
    const struct space *space;
    const struct enrolment *e;
    double limit; /* as a logarithm */
    int n;
    struct trial *list;
    float *errors;
    double best[DRAWS]; /* what the best so far is worth, expected in each draw */
};

static void trials_release(struct trials *t)
{
    free(t->list);
    free(t->errors);
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

/* ---- what may be ---- */

bool enrol_timely(const struct enrolment *e, double macs, double n_train)
{
    return e->samples_macs >= RUNGS_LEAST_EPOCHS * n_train * macs;
}

static bool eligible(const struct trials *t, const struct space_student *s, double n_train)
{
    return s->cost <= t->e->most_cost && s->cost > t->e->least_cost &&
           enrol_timely(t->e, (double)s->macs, n_train);
}

static int list_trials(struct trials *t, double n_train, struct err *err)
{
    t->list = mem_calloc((size_t)t->space->n_students + 1, sizeof(*t->list));
    if (!t->list)
        return err_oom(err, "students");
    for (int i = 0; i < t->space->n_students; i++)
        if (eligible(t, &t->space->students[i], n_train))
            t->list[t->n++].i = i;
    t->errors = mem_calloc((size_t)t->n + 1, DRAWS * sizeof(float));
    if (!t->errors)
        return err_oom(err, "students");
    for (int k = 0; k < t->n; k++)
        t->list[k].errors = t->errors + (size_t)k * DRAWS;
    return 0;
}

static double best_cost(const struct enrolment *e)
{
    return fmax(e->best_cost, e->most_cost);
}

/* Of those who have learned already. */
static double known_worth(const struct trials *t, const double *reached, int n)
{
    double worth = 0;
    for (int i = 0; i < n; i++) {
        if (t->e->turned)
            worth = fmax(worth, WORST - reached[i]);
        else if (reached[i] <= t->limit)
            worth = fmax(worth, log(best_cost(t->e) / (KNOWN_SHARE * t->e->known[i].cost)));
    }
    return worth;
}

static int draw_all(const struct forecast *forecast, struct trials *t, struct err *err)
{
    _cleanup_(freep) struct predict_weights *weights = mem_calloc(DRAWS, sizeof(*weights));
    struct predict_point points[ENROL_MOST_KNOWN];
    double reached[ENROL_MOST_KNOWN], features[PREDICT_WEIGHTS];
    const int known = t->e->n_known < ENROL_MOST_KNOWN ? t->e->n_known : ENROL_MOST_KNOWN;
    struct rng rng;
    if (!weights)
        return err_oom(err, "students");
    for (int i = 0; i < known; i++)
        points[i] = t->e->known[i].at;
    rng_seed2(&rng, t->e->seed, (uint64_t)forecast->model.n);
    for (int draw = 0; draw < DRAWS; draw++) {
        int rc = predict_draw(&forecast->model, &rng, points, known, reached, &weights[draw], err);
        if (rc < 0)
            return rc;
        t->best[draw] = known_worth(t, reached, known);
    }
    for (int k = 0; k < t->n; k++) {
        struct trial *trial = &t->list[k];
        const struct space_student *s = &t->space->students[trial->i];
        const double samples = fmin(t->e->samples_macs / (double)s->macs, MOST_SAMPLES);
        predict_features(s->traits, samples, features);
        trial->own = predict_own(samples);
        for (int draw = 0; draw < DRAWS; draw++) {
            const double error = predict_sum(&weights[draw], features);
            trial->errors[draw] = (float)error;
            trial->error += error / DRAWS;
        }
    }
    return 0;
}

/* ---- who adds most ---- */

static double adds(const struct trials *t, const struct trial *trial, int draw)
{
    const double error = (double)trial->errors[draw];
    if (t->e->turned)
        return fmax(WORST - error - t->best[draw], 0);
    const double cost = t->space->students[trial->i].cost;
    const double more = log(best_cost(t->e) / cost) - t->best[draw];
    return more > 0 ? more * predict_chance(error, t->limit, trial->own) : 0;
}

static bool is_another(const struct trials *t, const struct trial *trial, const int *taken, int n)
{
    for (int k = 0; k < n; k++)
        if (alike(&t->space->students[trial->i], &t->space->students[taken[k]]))
            return false;
    return true;
}

/* The one that adds most beside those taken; where nobody ever has a chance the one of least error.
 * NULL: there is none. */
static struct trial *next(struct trials *t, const int *taken, int n)
{
    struct trial *best = NULL, *least = NULL;
    for (int k = 0; k < t->n; k++) {
        struct trial *trial = &t->list[k];
        if (!is_another(t, trial, taken, n))
            continue;
        trial->gain = 0;
        for (int draw = 0; draw < DRAWS; draw++)
            trial->gain += adds(t, trial, draw) / DRAWS;
        if (!best || trial->gain > best->gain)
            best = trial;
        if (!least || trial->error < least->error)
            least = trial;
    }
    if (best && best->gain > LEAST_GAIN)
        return best;
    double worth = 0;
    for (int draw = 0; draw < DRAWS; draw++)
        worth += t->best[draw];
    return worth > DRAWS * LEAST_GAIN ? NULL : least;
}

int enrol_choose(const struct forecast *forecast, const struct space *space,
                 const struct enrolment *enrolment, int most, int *ret, struct err *err)
{
    _cleanup_(trials_release) struct trials t = {
        .space = space, .e = enrolment, .limit = forecast_log(forecast, enrolment->error_limit)};
    int n = 0, rc = list_trials(&t, forecast->n_train, err);
    if (rc == 0)
        rc = draw_all(forecast, &t, err);
    while (rc == 0 && n < most) {
        const struct trial *trial = next(&t, ret, n);
        if (!trial)
            break;
        for (int draw = 0; draw < DRAWS; draw++)
            t.best[draw] += adds(&t, trial, draw);
        ret[n++] = trial->i;
    }
    return rc < 0 ? rc : n;
}
