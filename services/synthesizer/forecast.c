#include "services/synthesizer/forecast.h"

#include <math.h>

#include "shared/train/schedule.h"

#define LEAST_REFERENCE 0.01 /* originals that make no errors, as by agreement with themselves */

/* A student that is no design of pieces has no other traits than its costs; one that inherits is of
 * a kind of its own. */
static int traits_of(const job_student *student, struct cost original, struct arena *arena,
                     double ret[PREDICT_TRAITS])
{
    const struct cost cost = {.macs = (int64_t)student->macs,
                              .parameters = (int64_t)student->parameters};
    struct design design = {0};
    struct err ignored = {0};
    if (student->inherits)
        ret[PREDICT_INHERITS] = 1;
    else if (design_parse(student->design, arena, &design, &ignored) == -ERR_RESOURCE_EXHAUSTED)
        return -ERR_RESOURCE_EXHAUSTED;
    space_traits(&design, cost, original, ret);
    return 0;
}

/* An error of no sample may be one of less than a sample: half of one is counted. */
static struct predict_run run_of(const struct forecast *f, double error, double n_search)
{
    const double counted = fmin(fmax(error, 0.5 / n_search), 1 - 0.5 / n_search);
    return (struct predict_run){.log_error = forecast_log(f, counted),
                                .deviation = sqrt((1 - counted) / (counted * n_search))};
}

/* Epochs that a network has behind it when it learns for `more` after so many runs: what came of
 * their ways down stayed behind. */
static double epochs_of(const job_student *s, size_t runs, double more)
{
    const double kept = *s->trunk ? 1 - SCHEDULE_DOWN : 1;
    for (size_t k = 0; k < runs; k++)
        more += kept * s->epochs[k];
    return more;
}

static int add_runs(const struct forecast *f, const job_state *state, size_t i,
                    struct predict_run *runs)
{
    const job_student *s = state->students[i];
    const double n_search = fmax((double)state->data->n_search, 1);
    int n = 0;
    for (size_t k = 0; k < s->n_accuracies; k++) {
        const double samples = epochs_of(s, k, s->epochs[k]) * f->n_train;
        if (!(samples > 0))
            continue;
        runs[n] = run_of(f, 1 - s->accuracies[k], n_search);
        runs[n].student = (int)i;
        runs[n].samples = samples;
        for (int t = 0; t < PREDICT_TRAITS; t++)
            runs[n].traits[t] = f->traits[i][t];
        n++;
    }
    return n;
}

int forecast_make(const job_state *state, struct arena *arena, struct forecast *ret,
                  struct err *err)
{
    const Hone__V1__Accuracy *a = state_accuracy(state->baseline, "test", "hone");
    size_t most = 0;
    int n = 0;
    ret->original = students_original(state);
    ret->reference = fmax(1 - (a ? a->value : 0), LEAST_REFERENCE);
    ret->n_train = (double)state->data->n_train;
    ret->traits = arena_alloc(arena, state->n_students + 1, sizeof(*ret->traits));
    for (size_t i = 0; i < state->n_students; i++)
        most += state->students[i]->n_accuracies;
    struct predict_run *runs = arena_alloc(arena, most + 1, sizeof(*runs));
    if (!runs || !ret->traits)
        return err_oom(err, "predictions");
    for (size_t i = 0; i < state->n_students; i++) {
        if (traits_of(state->students[i], ret->original, arena, ret->traits[i]) < 0)
            return err_oom(err, "predictions");
        n += add_runs(ret, state, i, runs + n);
    }
    return predict_learn(runs, n, arena, &ret->model, err);
}

double forecast_log(const struct forecast *forecast, double error)
{
    return error > 0 ? log(error / forecast->reference) : -INFINITY;
}

double forecast_error(const struct forecast *forecast, double log_error)
{
    return fmin(forecast->reference * exp(log_error), 1);
}

struct predict_point forecast_point(const struct forecast *forecast, const job_state *state,
                                    size_t i, double epochs)
{
    const job_student *s = state->students[i];
    const size_t n = s->n_epochs;
    const double all =
        epochs > 0 || n == 0 ? epochs_of(s, n, epochs) : epochs_of(s, n - 1, s->epochs[n - 1]);
    return (struct predict_point){forecast->traits[i], (int)i, fmax(all, 1) * forecast->n_train};
}

struct predicted forecast_at(const struct forecast *forecast, const job_state *state, size_t i,
                             double epochs)
{
    const struct predict_point p = forecast_point(forecast, state, i, epochs);
    return predict_at(&forecast->model, p.traits, p.student, p.samples);
}
