/* The stage "refine": a job begins where another one stood, with limits of its own. From there it
 * goes on as any job does once its candidates are built: to a first result, then to a redesign. */
#include "services/synthesizer/refine.h"

#include "services/synthesizer/race.h"
#include "services/synthesizer/retarget.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

int refine_admit(job_state *state, job_student *s, struct err *err)
{
    s->rung = 0;
    if (s->rungs == 0 && *s->out)
        return 0;
    const bool allowed = race_affordable(state, s);
    return message_set(&s->out, allowed ? "" : "the limits exclude it", err);
}

/* Training that is of use here was saved. */
static void count(job_state *state)
{
    state->taken->students = 0;
    state->taken->training_s = 0;
    for (size_t i = 0; i < state->n_students; i++) {
        const job_student *s = state->students[i];
        if (s->rungs == 0 || !students_active(s))
            continue;
        state->taken->students++;
        state->taken->training_s += s->seconds;
    }
}

static int tell(struct work_task *task, const Hone__V1__Taken *taken, struct err *err)
{
    _cleanup_(freep) char *fields =
        str_printf("\"job\":\"%s\",\"students\":%u,\"training_s\":%.1f,\"prepared_s\":%.1f",
                   taken->job, taken->students, taken->training_s, taken->prepared_s);
    return fields ? work_event(task, "refines", fields, err) : err_oom(err, "an event");
}

int refine_tell(struct work_task *task, job_state *state, struct err *err)
{
    const Hone__V1__Taken *taken = state->taken;
    char limits[GOAL_TEXT_BYTES];
    count(state);
    goal_text(state->spec, limits);
    int rc = *taken->target
                 ? state_decide(state, err,
                                "refines job %s for %s instead of %s, %s: %u students with %.0f s "
                                "of training are taken over",
                                taken->job, state->spec->target, taken->target, limits,
                                taken->students, taken->training_s)
                 : state_decide(state, err,
                                "refines job %s %s: %zu networks that were measured and %u "
                                "students with %.0f s of training are taken over",
                                taken->job, limits, state->n_candidates + 1, taken->students,
                                taken->training_s);
    return rc == 0 ? tell(task, taken, err) : rc;
}

static int take_over(job_state *state, struct err *err)
{
    int rc = 0;
    if (!state->taken || !state->baseline || !state->plain_int8 || state->n_finals == 0)
        return err_set(err, ERR_FAILED_PRECONDITION, "refine: a job that had no result");
    state->rung = 0;
    state->enrolments = 0;
    state->n_rounds = 0;
    state->redesigned = false;
    state->replaced = false; /* other limits, other paths */
    goal_judge(state);
    for (size_t i = 0; rc == 0 && i < state->n_students && !retarget_wanted(state); i++)
        rc = refine_admit(state, state->students[i], err);
    return rc;
}

int synthesizer_refine(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int rc = race_stage(task, &stage, err);
    if (rc == 0)
        rc = take_over(stage->state, err);
    if (rc == 0 && retarget_wanted(stage->state))
        return retarget_begin(task, out, stage, err);
    if (rc == 0)
        rc = refine_tell(task, stage->state, err);
    return rc == 0 ? race_resume(out, stage, err) : rc;
}
