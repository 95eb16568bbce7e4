/* The stage "promote": a rung is over, who goes on? */
#include <math.h>
#include <stdlib.h>

#include "services/synthesizer/predict.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

/* Deviation of predictions, by the rungs that come (the last entry: more than one). */
static const double deviations[] = {0.003, 0.006, 0.010};

struct prospect {
    job_student *student;
    double worth, error;
};

static int by_worth(const void *pa, const void *pb)
{
    const struct prospect *a = pa, *b = pb;
    if (a->worth != b->worth)
        return a->worth > b->worth ? -1 : 1;
    return a->error != b->error ? (a->error < b->error ? -1 : 1) : 0;
}

/* Its last runs, RUNGS_MOST at most. */
static struct learned learned_of(const job_student *s, double *epochs, double *errors)
{
    const size_t runs = s->n_accuracies < RUNGS_MOST ? s->n_accuracies : RUNGS_MOST;
    const size_t skipped = s->n_accuracies - runs;
    double sum = 0;
    for (size_t k = 0; k < s->n_accuracies; k++) {
        sum += s->epochs[k];
        if (k < skipped)
            continue;
        epochs[k - skipped] = sum;
        errors[k - skipped] = 1 - s->accuracies[k];
    }
    return (struct learned){(int)runs, epochs, errors};
}

/* chance: to keep the limit on the drop. */
static double worth_of(const job_state *state, const job_student *s, double error, double chance,
                       double deviation)
{
    const double cost = race_cost(state, s);
    if (!goal_turned(state->spec))
        return predict_worth(chance, cost, race_best_cost(state));
    return goal_affordable(state->spec, cost)
               ? chance * predict_gain(error, race_best_error(state), deviation)
               : 0;
}

/* What each will reach when the rest of the time goes to it and as many others as `n`. */
static int weigh(job_state *state, double seconds, int n_next, struct prospect *list, size_t n,
                 struct err *err)
{
    _cleanup_(freep) double *sums = mem_calloc(n + 1, RUNGS_MOST * 2 * sizeof(double));
    _cleanup_(freep) struct learned *learned = mem_calloc(n + 1, sizeof(*learned));
    if (!sums || !learned)
        return err_oom(err, "students");
    for (size_t i = 0; i < n; i++) {
        double *epochs = sums + i * RUNGS_MOST * 2;
        learned[i] = learned_of(list[i].student, epochs, epochs + RUNGS_MOST);
    }
    const double exponent = predict_exponent(learned, (int)n), limit = race_error_limit(state);
    const double deviation = deviations[n_next > 1 ? 2 : n_next];
    for (size_t i = 0; i < n; i++) {
        job_student *s = list[i].student;
        const double more = n_next ? seconds / n_next / students_epoch_s(state, s, INFINITY) : 0;
        const double so_far = learned[i].epochs[learned[i].n - 1];
        list[i].error =
            predict_error(&learned[i], exponent, so_far + fmin(more, RUNGS_MOST_EPOCHS));
        s->predicted = 1 - list[i].error;
        const double chance = predict_chance(list[i].error, limit, deviation);
        list[i].worth = worth_of(state, s, list[i].error, chance, deviation);
    }
    qsort(list, n, sizeof(*list), by_worth);
    return 0;
}

static int tell(struct work_task *task, const job_student *s, double worth, bool kept,
                struct err *err)
{
    _cleanup_(freep) char *fields = str_printf(
        "\"name\":\"%s\",\"design\":\"%s\",\"rung\":%u,\"value\":%.4f,\"predicted\":%.4f,"
        "\"predicted_us\":%.1f,\"worth\":%.4f,\"goes_on\":%s",
        s->name, s->design, s->rungs, 1 - students_error(s), s->predicted, s->predicted_us, worth,
        kept ? "true" : "false");
    return fields ? work_event(task, "student", fields, err) : err_oom(err, "an event");
}

/* Keeps the first `keep` of the list. */
static int cut(struct work_task *task, job_state *state, const struct prospect *list, size_t n,
               size_t keep, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        job_student *s = list[i].student;
        rc = state_decide(state, err,
                          "%s: %.2f %% after rung %u, %.2f %% expected, %.1f us: worth %.3f",
                          s->name, 100 * (1 - students_error(s)), s->rungs, 100 * s->predicted,
                          s->predicted_us, list[i].worth);
        if (rc == 0)
            rc = tell(task, s, list[i].worth, i < keep, err);
        if (rc == 0 && i >= keep)
            rc = message_setf(&s->out, err, "after rung %u others promise more", state->rung);
    }
    return rc;
}

int race_next(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
              bool *ret_begun, struct err *err)
{
    job_state *state = stage->state;
    _cleanup_(freep) job_student **list = mem_calloc(state->n_students + 1, sizeof(*list));
    _cleanup_(freep) struct prospect *prospects =
        mem_calloc(state->n_students + 1, sizeof(*prospects));
    double seconds = 0, spent = 0;
    *ret_begun = false;
    int rc =
        list && prospects ? race_seconds(task, state, &seconds, err) : err_oom(err, "students");
    if (rc < 0)
        return rc;
    const size_t n = race_active(state, list);
    for (size_t i = 0; i < n; i++) {
        prospects[i].student = list[i];
        spent = fmax(spent, list[i]->seconds);
    }
    const struct rung next = rungs_next((int)state->rung, (int)n, seconds, spent);
    rc = weigh(state, fmax(seconds, 0), next.students, prospects, n, err);
    if (rc == 0)
        rc = cut(task, state, prospects, n, next.students > 0 ? (size_t)next.students : n, err);
    return rc == 0 && next.students > 0
               ? race_begin_rung(task, out, stage, next.seconds, ret_begun, err)
               : rc;
}

static bool learned_now(const job_state *state, const job_student *student)
{
    return students_active(student) && student->rung == state->rung;
}

/* What those bring who learned in this rung. */
static int take(struct work_task *task, job_state *state, struct err *err)
{
    int rc = 0, n = 0, result = 0;
    for (size_t i = 0; i < state->n_students; i++)
        n += learned_now(state, state->students[i]);
    if (n != task->task->n_results)
        return err_set(err, ERR_INTERNAL, "promote: %d results of %d students",
                       task->task->n_results, n);
    for (size_t i = 0; rc == 0 && i < state->n_students; i++)
        if (learned_now(state, state->students[i]))
            rc = students_take(task, result++, state, state->students[i], err);
    return rc;
}

int synthesizer_promote(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    bool begun = false;
    int rc = race_stage(task, &stage, err);
    if (rc == 0)
        rc = take(task, stage->state, err);
    if (rc == 0)
        rc = race_keep_rate(task, stage->state, err);
    if (rc == 0)
        rc = race_next(task, out, stage, &begun, err);
    return rc < 0 || begun ? rc : race_finish(out, stage, err);
}
