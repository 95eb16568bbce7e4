#include "services/synthesizer/prospects.h"

#include <math.h>
#include <stdlib.h>

#include "services/synthesizer/race.h"

#define DRAWS 4096 /* of what they may reach */

/* How each of n fares in each draw. */
struct draws {
    double *worth; /* [DRAWS * n] */
    double *best;  /* [DRAWS]: of those that were picked */
};

static void draws_release(struct draws *d)
{
    freep(&d->worth);
    freep(&d->best);
}

/* What it is worth to reach this, or about this. */
static double worth_of(const job_state *state, const struct forecast *f, const struct prospect *p,
                       double log_error, double deviation)
{
    const double cost = race_cost(state, p->student);
    const double limit = forecast_log(f, race_error_limit(state));
    const double chance = predict_chance(log_error, limit, deviation);
    if (!goal_turned(state->spec))
        return predict_worth(chance, cost, race_best_cost(state));
    const double error = forecast_error(f, log_error); /* on the search part, the best one's not */
    const double best = race_best_error(state) - state_optimism(state);
    return goal_affordable(state->spec, cost)
               ? chance * predict_gain(error, best, error * deviation)
               : 0;
}

/* Everybody when they are `sharing` the time. */
static int draw_all(const job_state *state, const struct forecast *f, double seconds, int sharing,
                    struct prospect *list, int n, struct draws *d, struct err *err)
{
    _cleanup_(freep) struct predict_point *points = mem_calloc((size_t)n + 1, sizeof(*points));
    _cleanup_(freep) double *reached = mem_calloc((size_t)n + 1, sizeof(*reached));
    struct rng rng;
    if (!points || !reached)
        return err_oom(err, "students");
    for (int i = 0; i < n; i++) {
        const double each = students_epoch_s(state, list[i].student, INFINITY);
        const double more = fmin(sharing ? seconds / sharing / each : 0, RUNGS_MOST_EPOCHS);
        points[i] = forecast_point(f, state, list[i].i, more);
        list[i].reach = forecast_at(f, state, list[i].i, more);
        list[i].error = forecast_error(f, list[i].reach.log_error);
        list[i].worth =
            worth_of(state, f, &list[i], list[i].reach.log_error, list[i].reach.deviation);
    }
    rng_seed2(&rng, state->spec->seed, state->rung);
    for (int draw = 0; draw < DRAWS; draw++) {
        int rc = predict_draw(&f->model, &rng, points, n, reached, NULL, err);
        if (rc < 0)
            return rc;
        for (int i = 0; i < n; i++)
            d->worth[draw * n + i] = worth_of(state, f, &list[i], reached[i], 0);
    }
    return 0;
}

static double added(const struct draws *d, int n, int i)
{
    double sum = 0;
    for (int draw = 0; draw < DRAWS; draw++)
        sum += fmax(d->worth[draw * n + i] - d->best[draw], 0);
    return sum / DRAWS;
}

/* Whether a is to be preferred where both add as much. */
static bool before(const struct prospect *a, const struct prospect *b)
{
    return a->worth != b->worth ? a->worth > b->worth : a->error < b->error;
}

/* Picks `most` of them: their indices; what the best of them is worth. */
static double pick(struct draws *d, const struct prospect *list, int n, int most, int *ret)
{
    double worth = 0;
    for (int draw = 0; draw < DRAWS; draw++)
        d->best[draw] = 0;
    for (int k = 0; k < most; k++) {
        int best = -1;
        double most_added = 0;
        for (int i = 0; i < n; i++) {
            bool taken = false;
            for (int j = 0; j < k; j++)
                taken = taken || ret[j] == i;
            const double adds = taken ? 0 : added(d, n, i);
            if (!taken && (best < 0 || adds > most_added ||
                           (adds == most_added && before(&list[i], &list[best])))) {
                best = i;
                most_added = adds;
            }
        }
        ret[k] = best;
        worth += most_added;
        for (int draw = 0; draw < DRAWS; draw++)
            if (best >= 0)
                d->best[draw] = fmax(d->best[draw], d->worth[draw * n + best]);
    }
    return worth;
}

static int by_worth(const void *pa, const void *pb)
{
    const struct prospect *a = pa, *b = pb;
    return before(a, b) ? -1 : before(b, a);
}

/* Those that were picked first, in that order. */
static int order(struct prospect *list, int n, const int *picked, int k, struct err *err)
{
    _cleanup_(freep) struct prospect *copy = mem_calloc((size_t)n + 1, sizeof(*copy));
    if (!copy)
        return err_oom(err, "students");
    int at = k;
    for (int i = 0; i < n; i++) {
        int place = -1;
        for (int j = 0; j < k; j++)
            place = picked[j] == i ? j : place;
        copy[place >= 0 ? place : at++] = list[i];
    }
    qsort(copy + k, (size_t)(n - k), sizeof(*copy), by_worth);
    for (int i = 0; i < n; i++)
        list[i] = copy[i];
    return 0;
}

int prospects_choose(const job_state *state, const struct forecast *forecast, double seconds,
                     int most, bool finals, struct prospect *list, int n, int *ret_n,
                     struct err *err)
{
    _cleanup_(draws_release) struct draws d = {
        .worth = mem_calloc((size_t)n + 1, DRAWS * sizeof(double)),
        .best = mem_calloc(DRAWS, sizeof(double))};
    _cleanup_(freep) int *picked = mem_calloc((size_t)n + 1, sizeof(*picked));
    double best = -1;
    most = most < n ? most : n;
    *ret_n = most;
    if (!d.worth || !d.best || !picked)
        return err_oom(err, "students");
    int rc = 0;
    for (int k = 1; rc == 0 && finals && k <= most; k++) {
        rc = draw_all(state, forecast, seconds, k, list, n, &d, err);
        const double worth = rc == 0 ? pick(&d, list, n, k, picked) : 0;
        *ret_n = worth > best ? k : *ret_n;
        best = fmax(best, worth);
    }
    if (rc == 0)
        rc = draw_all(state, forecast, seconds, *ret_n, list, n, &d, err);
    if (rc < 0)
        return rc;
    pick(&d, list, n, *ret_n, picked);
    return order(list, n, picked, *ret_n, err);
}
