/* The stage "promote": a rung is over, who goes on? */
#include <math.h>
#include <stdlib.h>

#include "services/synthesizer/prospects.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/redesign.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

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

/* The first `keep` of the list go on; 0: there is no further rung, and everybody stays as it is. */
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
        if (rc == 0 && i < keep)
            rc = message_set(&s->out, "", err);
        if (rc == 0 && keep > 0 && i >= keep && students_active(s))
            rc = message_setf(&s->out, err, "after rung %u others promise more", state->rung);
    }
    return rc;
}

/* Everybody who learned may go on, those who were given up for others too: what others were
 * expected to reach they may have missed. */
static int list_prospects(const job_state *state, struct prospect *list, double *ret_spent)
{
    int n = 0;
    for (size_t i = 0; i < state->n_students; i++) {
        job_student *s = state->students[i];
        if (s->failed || s->rungs == 0 || !race_affordable(state, s))
            continue;
        list[n++] = (struct prospect){.student = s, .i = i};
        *ret_spent = students_active(s) ? fmax(*ret_spent, s->seconds) : *ret_spent;
    }
    return n;
}

/* The next rung: how many, for how long, who. */
static int plan(struct work_task *task, job_state *state, double seconds, struct rung *ret,
                struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    _cleanup_(freep) struct prospect *list = mem_calloc(state->n_students + 1, sizeof(*list));
    _cleanup_(freep) job_student **active = mem_calloc(state->n_students + 1, sizeof(*active));
    struct forecast forecast;
    double spent = 0;
    int go_on = 0;
    if (!arena || !list || !active)
        return err_oom(err, "students");
    const int n = list_prospects(state, list, &spent);
    const int n_active = (int)race_active(state, active);
    const int done = rungs_done(state->rung, state->enrolments);
    *ret = rungs_next(done, n_active, seconds, spent);
    int rc = forecast_make(state, arena, &forecast, err);
    if (rc == 0)
        rc = prospects_choose(state, &forecast, fmax(seconds, 0), ret->students,
                              done + 1 == RUNGS_MOST, list, n, &go_on, err);
    if (rc < 0)
        return rc;
    ret->students = go_on;
    return cut(task, state, list, (size_t)n, (size_t)go_on, err);
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
