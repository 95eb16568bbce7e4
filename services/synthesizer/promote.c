/* The stage "promote": a rung is over, who goes on? */
#include <math.h>
#include <stdlib.h>

#include "services/synthesizer/forecast.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/redesign.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define DRAWS 512 /* of what the finals may bring */

struct prospect {
    job_student *student;
    size_t i; /* of the state's students */
    struct predicted reach;
    double worth, error;
};

static int by_worth(const void *pa, const void *pb)
{
    const struct prospect *a = pa, *b = pb;
    if (a->worth != b->worth)
        return a->worth > b->worth ? -1 : 1;
    return a->error != b->error ? (a->error < b->error ? -1 : 1) : 0;
}

/* chance: to keep the limit on the drop. */
static double worth_of(const job_state *state, const struct forecast *f, const struct prospect *p)
{
    const double cost = race_cost(state, p->student);
    const double limit = forecast_log(f, race_error_limit(state));
    const double chance = predict_chance(p->reach.log_error, limit, p->reach.deviation);
    if (!goal_turned(state->spec))
        return predict_worth(chance, cost, race_best_cost(state));
    const double deviation = p->error * p->reach.deviation;
    return goal_affordable(state->spec, cost)
               ? chance * predict_gain(p->error, race_best_error(state), deviation)
               : 0;
}

/* What each will reach when the rest of the time goes to it and as many others as `n_next`. */
static void weigh(const job_state *state, const struct forecast *f, double seconds, int n_next,
                  struct prospect *list, size_t n)
{
    for (size_t k = 0; k < n; k++) {
        struct prospect *p = &list[k];
        const double each = students_epoch_s(state, p->student, INFINITY);
        const double more = n_next ? seconds / n_next / each : 0;
        p->reach = forecast_at(f, state, p->i, fmin(more, RUNGS_MOST_EPOCHS));
        p->error = forecast_error(f, p->reach.log_error);
        p->worth = worth_of(state, f, p);
    }
    qsort(list, n, sizeof(*list), by_worth);
}

/* What the best of the first n of the list will be worth, on average: each reaches what is expected
 * of it, more or less. */
static double best_worth(const job_state *state, const struct forecast *f,
                         const struct prospect *list, size_t n)
{
    struct rng rng;
    double sum = 0;
    rng_seed2(&rng, state->spec->seed, state->rung);
    for (int draw = 0; draw < DRAWS; draw++) {
        double best = 0;
        for (size_t k = 0; k < n; k++) {
            struct prospect p = list[k];
            p.reach.log_error += p.reach.deviation * rng_normal(&rng);
            p.reach.deviation = 0;
            p.error = forecast_error(f, p.reach.log_error);
            best = fmax(best, worth_of(state, f, &p));
        }
        sum += best;
    }
    return sum / DRAWS;
}

/* How many of up to `most` are to share the finals: of fewer each reaches more, of more one or the
 * other keeps the limit. */
static int finalists(const job_state *state, const struct forecast *f, double seconds, int most,
                     struct prospect *list, size_t n)
{
    double best = -1;
    int ret = 1;
    for (int k = 1; k <= most; k++) {
        weigh(state, f, seconds, k, list, n);
        const double worth = best_worth(state, f, list, (size_t)k);
        ret = worth > best ? k : ret;
        best = fmax(best, worth);
    }
    return ret;
}

static int tell(struct work_task *task, const job_student *s, double worth, bool kept,
                struct err *err)
{
    _cleanup_(freep) char *fields = str_printf(
        "\"name\":\"%s\",\"design\":\"%s\",\"rung\":%u,\"value\":%.4f,\"predicted\":%.4f,"
        "\"deviation\":%.4f,\"predicted_us\":%.1f,\"worth\":%.4f,\"goes_on\":%s",
        s->name, s->design, s->rungs, 1 - students_error(s), s->predicted,
        s->deviation * (1 - s->predicted), s->predicted_us, worth, kept ? "true" : "false");
    return fields ? work_event(task, "student", fields, err) : err_oom(err, "an event");
}

/* Keeps the first `keep` of the list. */
static int cut(struct work_task *task, job_state *state, const struct prospect *list, size_t n,
               size_t keep, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) {
        job_student *s = list[i].student;
        s->predicted = 1 - list[i].error;
        s->deviation = list[i].reach.deviation;
        rc = state_decide(
            state, err, "%s: %.2f %% after rung %u, %.2f +- %.2f %% expected, %.1f us: worth %.3f",
            s->name, 100 * (1 - students_error(s)), s->rungs, 100 * s->predicted,
            100 * s->deviation * list[i].error, s->predicted_us, list[i].worth);
        if (rc == 0)
            rc = tell(task, s, list[i].worth, i < keep, err);
        if (rc == 0 && i >= keep)
            rc = message_setf(&s->out, err, "after rung %u others promise more", state->rung);
    }
    return rc;
}

/* The next rung: how many, for how long, who. */
static int plan(struct work_task *task, job_state *state, double seconds, struct rung *ret,
                struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(freep) struct prospect *list = mem_calloc(state->n_students + 1, sizeof(*list));
    struct forecast forecast;
    double spent = 0;
    size_t n = 0;
    if (!arena || !list)
        return err_oom(err, "students");
    for (size_t i = 0; i < state->n_students; i++) {
        if (!students_active(state->students[i]))
            continue;
        list[n++] = (struct prospect){.student = state->students[i], .i = i};
        spent = fmax(spent, state->students[i]->seconds);
    }
    *ret = rungs_next(rungs_done(state->rung, state->enrolments), (int)n, seconds, spent);
    int rc = forecast_make(state, arena, &forecast, err);
    if (rc < 0)
        return rc;
    if (ret->students > 1 && ret->seconds >= seconds)
        ret->students = finalists(state, &forecast, seconds, ret->students, list, n);
    weigh(state, &forecast, fmax(seconds, 0), ret->students, list, n);
    return cut(task, state, list, n, ret->students > 0 ? (size_t)ret->students : n, err);
}

/* Those who were enrolled have shown what they are: others may be better. */
static bool enrols_again(const job_state *state)
{
    int newcomers = 0;
    for (size_t i = 0; i < state->n_students; i++)
        newcomers += state->students[i]->rung == state->rung && state->students[i]->rungs == 1;
    return !spec_without(state->spec, "race") &&
           rungs_enrol_again((int)state->enrolments, newcomers);
}

int race_next(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
              bool *ret_begun, struct err *err)
{
    double seconds = 0;
    struct rung next = {0};
    *ret_begun = false;
    int rc = race_seconds(task, stage->state, &seconds, err);
    if (rc == 0)
        rc = plan(task, stage->state, seconds, &next, err);
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
    struct err why = {0};
    bool begun = false;
    int rc = race_stage(task, &stage, err);
    if (rc == 0)
        rc = take(task, stage->state, err);
    if (rc == 0)
        rc = race_keep_rate(task, stage->state, err);
    if (rc == 0 && enrols_again(stage->state)) {
        rc = redesign_ask(task, out, stage, &why);
        if (rc == 0 || !work_is_permanent(why.code))
            return rc < 0 ? err_set(err, why.code, "%s", why.message) : 0;
        rc = state_decide(stage->state, err, "no further students: %s", why.message);
    }
    if (rc == 0)
        rc = race_next(task, out, stage, &begun, err);
    return rc < 0 || begun ? rc : race_finish(out, stage, err);
}
