/* The stage "join": alternatives have learned; the best paths take part among the students. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/blocks.h"
#include "services/synthesizer/join.h"
#include "services/synthesizer/paths.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/synthesizer.h"
#include "services/synthesizer/whole.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/goal.h"

#define MOST_PATHS 4
#define MOST_SHARE 0.9   /* of the cost of the best network so far: the most that is enrolled */
#define VIEWS 8          /* of each sample that the original answers for them */
#define FIRST_SHARE 0.35 /* of the time for training, for paths that race each other alone */

/* ---- what was learned ---- */

static bool same_arc(const job_arc *a, const job_arc *b)
{
    return a->first == b->first && a->last == b->last && strcmp(a->text, b->text) == 0;
}

/* The arc's entry in the library becomes what came back. */
static void replace(job_library *library, job_arc **learned)
{
    for (size_t i = 0; i < library->n_arcs; i++) {
        if (!same_arc(library->arcs[i], *learned))
            continue;
        job_arc *old = library->arcs[i];
        library->arcs[i] = *learned;
        *learned = old; /* freed with the result */
        return;
    }
}

static int take_lesson(struct work_task *task, int i, job_state *state, job_library *library,
                       struct err *err)
{
    _cleanup_(message_freep) Hone__V1__ImitateResult *result = NULL;
    if (!task->task->results[i])
        return state_decide(state, err, "some alternatives did not learn: %s",
                            task->task->failures[i] ? task->task->failures[i] : "lost");
    int rc = work_group_result(task, i, &hone__v1__imitate_result__descriptor,
                               (ProtobufCMessage **)&result, err);
    for (size_t k = 0; rc == 0 && k < result->n_arcs; k++)
        replace(library, &result->arcs[k]);
    if (rc < 0)
        return rc;
    library->seconds += result->seconds;
    if (result->samples > 0 && result->samples < library->samples) /* 0: nothing was to learn */
        library->samples = result->samples;                        /* there was no time for more */
    return 0;
}

/* How much of the alternatives' losses there is to say. */
static int tell_learned(job_state *state, const job_library *library, struct err *err)
{
    size_t scored = 0, learned = 0;
    double loss = 0;
    for (size_t i = 0; i < library->n_arcs; i++) {
        const job_arc *arc = library->arcs[i];
        scored += arc->n_kl > 0;
        if (arc->n_kl == 0 || !isfinite(arc->loss))
            continue;
        learned++;
        loss += arc->loss;
    }
    return state_decide(state, err,
                        "blocks: %zu alternatives scored; their loss is %.4f on average after "
                        "%.0f s of training, %llu samples at least",
                        scored, learned ? loss / (double)learned : 0, library->seconds,
                        (unsigned long long)library->samples);
}

/* ---- who takes part ---- */

/* Everything that is not to run in 8 bits. */
static int note_precisions(job_student *student, const struct path *path, struct err *err)
{
    char prefix[PATHS_PREFIX_BYTES];
    int rc = 0;
    for (int i = 0; rc == 0 && i < path->kept.n; i++)
        if (strcmp(path->kept.precisions[i], "int8") != 0)
            rc = students_lower(student, path->kept.layers[i], path->kept.precisions[i], err);
    for (int i = 0; rc == 0 && i < path->n; i++) {
        const struct arc_choice *a = path->alternatives[i];
        if (*a->instead->network && strcmp(a->precision, "int8") != 0)
            rc = students_lower(student, paths_prefix(a->instead, prefix), a->precision, err);
    }
    return rc;
}

static bool is_known_design(const job_state *state, const char *design)
{
    for (size_t i = 0; i < state->n_students; i++)
        if (strcmp(state->students[i]->design, design) == 0 &&
            state->students[i]->predicted_us > 0) /* else it was one on another target */
            return true;
    return false;
}

static bool is_affordable(const job_state *state, const struct graph *g, double us)
{
    const double bytes = space_bytes(goal_small(state->spec), (double)graph_cost(g).parameters);
    return goal_affordable(state->spec, goal_cost(state->spec, us, bytes));
}

static int enrol(struct work_task *task, job_state *state, const struct library_parts *parts,
                 const struct path *path, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(freep) char *text = paths_text(path, parts->units.n);
    struct err why = {0};
    if (!text)
        return err_oom(err, "a path");
    if (is_known_design(state, text))
        return 0;
    int rc = paths_assemble(task, parts, path, &g, &why);
    if (rc < 0)
        return work_is_permanent(rc)
                   ? state_decide(state, err, "%s is left out: %s", text, why.message)
                   : err_set(err, why.code, "%s", why.message);
    if (!is_affordable(state, g, path->us))
        return 0;
    rc = students_inherit(task, state, g, text, path->us, err);
    if (rc == 0 && !goal_small(state->spec)) /* small ones are built in several forms */
        rc = note_precisions(state->students[state->n_students - 1], path, err);
    if (rc < 0)
        return rc;
    rc = students_tell(task, state, err);
    return rc == 0 ? state_decide(state, err, "%s: KL %.4f before it learns as a whole",
                                  state->students[state->n_students - 1]->name, path->kl)
                   : rc;
}

/* The most that a path may cost, in time or in bytes: a limit, or clearly less than the best so
 * far.
 */
static double most_cost(const job_state *state)
{
    if (goal_small(state->spec))
        return !goal_turned(state->spec) ? MOST_SHARE * race_best_cost(state)
               : state->spec->max_bytes  ? (double)state->spec->max_bytes
                                         : INFINITY;
    const Hone__V1__Timing *t = state_timing(state->baseline, "hone", NULL);
    double us = t ? t->p50_us : INFINITY;
    if (goal_turned(state->spec))
        return state->spec->max_us > 0 ? state->spec->max_us : us;
    for (size_t i = 0; i < state->n_finals; i++) {
        t = state_timing(state->finals[i], "hone", NULL);
        if (state->finals[i]->within_limit && t)
            us = fmin(us, t->p50_us);
    }
    return MOST_SHARE * us;
}

static int select_paths(struct work_task *task, job_state *state, const job_library *library,
                        struct err *err)
{
    _cleanup_(library_parts_release) struct library_parts parts = {0};
    _cleanup_(message_freep) Hone__V1__Scores *scores = NULL;
    struct path paths[MOST_PATHS];
    struct paths_found found = {0};
    int n = 0;
    int rc = library_parts_load(task, state, &parts, err);
    if (rc == 0)
        rc = message_load(task->store, state->scores, &hone__v1__scores__descriptor, &scores, err);
    if (rc == 0)
        rc = paths_select(&parts, scores, library, goal_small(state->spec), most_cost(state),
                          MOST_PATHS, parts.arena, paths, &n, &found, err);
    if (rc == 0)
        rc = state_decide(state, err,
                          "blocks: %d paths on the front of %d arcs (%s), %d of them promise most",
                          found.n_front, found.n_arcs, found.exact ? "exact" : "thinned", n);
    for (int i = 0; rc == 0 && i < n; i++)
        rc = enrol(task, state, &parts, &paths[i], err);
    return rc;
}

static int learn(struct work_task *task, job_state *state, struct err *err)
{
    _cleanup_(message_freep) job_library *library = NULL;
    int rc = library_load(task, state, &library, err);
    for (int i = 0; rc == 0 && i < task->task->n_results; i++)
        rc = take_lesson(task, i, state, library, err);
    if (rc == 0)
        rc = tell_learned(state, library, err);
    if (rc == 0)
        rc = library_keep(task, state, library, err);
    return rc == 0 ? select_paths(task, state, library, err) : rc;
}

/* ---- what comes then ---- */

static int count_newcomers(const job_state *state, job_student **ret_last)
{
    int n = 0;
    for (size_t i = 0; i < state->n_students; i++) {
        if (!students_active(state->students[i]) || state->students[i]->rungs > 0)
            continue;
        *ret_last = state->students[i];
        n++;
    }
    return n;
}

int join_race(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
              double seconds, bool *ret_begun, struct err *err)
{
    job_student *last = NULL;
    int n = count_newcomers(stage->state, &last), rc = 0;
    if (n == 0)
        return race_next(task, out, stage, ret_begun, err);
    stage->state->views = stage->state->views ? stage->state->views : VIEWS;
    for (*ret_begun = false; rc == 0; n--) {
        rc = race_begin_rung(task, out, stage, n > 1 ? FIRST_SHARE * seconds : seconds, ret_begun,
                             err);
        if (rc < 0 || *ret_begun || n == 1)
            return rc;
        rc = message_set(&last->out, "there is no time for it to learn", err);
        count_newcomers(stage->state, &last);
    }
    return rc;
}

/* Without whole students paths race each other alone. */
static int race(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                struct err *err)
{
    double seconds = 0;
    bool begun = false, whole = false;
    int rc = race_seconds(task, stage->state, &seconds, err);
    if (rc == 0)
        rc = whole_needed(task, stage->state, &whole, err);
    if (rc == 0 && whole)
        rc = whole_begin(task, out, stage, &begun, err);
    else if (rc == 0)
        rc = join_race(task, out, stage, seconds, &begun, err);
    return rc < 0 || begun ? rc : race_finish(out, stage, err);
}

/* What the library gave, or why it gave nothing; then whoever is in the race learns. */
static int go_on(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 int rc, const struct err *why, struct err *err)
{
    if (rc < 0 && !work_is_permanent(why->code))
        return err_set(err, why->code, "%s", why->message);
    if (rc < 0)
        rc = state_decide(stage->state, err, "no alternatives of blocks: %s", why->message);
    if (rc < 0)
        return rc;
    bool alone = false;
    rc = blocks_alone(task, stage->state, &alone, err);
    if (rc < 0)
        return rc;
    if (!alone || stage->state->n_students == 0)
        return blocks_leave(task, out, stage, err);
    stage->state->replaced = true;
    return race(task, out, stage, err);
}

int synthesizer_join(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    struct err why = {0};
    int rc = race_stage(task, &stage, err);
    if (rc < 0)
        return rc;
    rc = learn(task, stage->state, &why);
    return go_on(task, out, stage, rc, &why, err);
}

int join_again(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
               struct err *err)
{
    _cleanup_(message_freep) job_library *library = NULL;
    struct err why = {0};
    int rc = library_load(task, stage->state, &library, &why);
    if (rc == 0)
        rc = select_paths(task, stage->state, library, &why);
    return go_on(task, out, stage, rc, &why, err);
}
