#include "services/synthesizer/retarget.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/race.h"
#include "services/synthesizer/redesign.h"
#include "services/synthesizer/refine.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"

#define PRICING_SHARE 0.1 /* of the time that is left */
#define LEAST_PRICING_S 1.0
#define MOST_PRICING_S 60.0 /* a piece takes half a second */

bool retarget_wanted(const job_state *state)
{
    return state->taken && *state->taken->target;
}

/* ---- what does not hold here ---- */

static void drop_networks(job_network **list, size_t *n)
{
    for (size_t i = 0; i < *n; i++)
        message_free(list[i]);
    *n = 0;
}

static void drop_timings(job_network *network)
{
    for (size_t i = 0; i < network->n_timings; i++)
        message_free(network->timings[i]);
    network->n_timings = 0;
}

/* Decisions are those of the job before; what networks answer stays in the record of the test part.
 */
static int forget(job_state *state, struct err *err)
{
    for (size_t i = 0; i < state->n_decisions; i++)
        free(state->decisions[i]);
    state->n_decisions = 0;
    drop_timings(state->baseline);
    message_free(state->plain_int8);
    state->plain_int8 = NULL;
    drop_networks(state->candidates, &state->n_candidates);
    drop_networks(state->finals, &state->n_finals);
    state->model_error = 0;
    state->n_proposed = 0;
    state->reserve_s = 0;
    int rc = message_set(&state->profile, "", err);
    if (rc == 0)
        rc = message_set(&state->scores, "", err);
    if (rc == 0)
        rc = message_set(&state->ranges, "", err);
    return rc == 0 ? message_set(&state->library, "", err) : rc;
}

/* Without a price nobody takes part (race_affordable). Those that are made of the original's blocks
 * get none: the prices of their parts went. */
static int forget_costs(job_student *s, struct err *err)
{
    s->predicted_us = 0;
    s->rung = 0;
    int rc = message_set(&s->built, "", err);
    if (rc == 0 && s->rungs == 0 && !*s->out)
        rc = message_set(&s->out, "it never learned", err);
    if (rc == 0 && s->inherits)
        rc = message_set(&s->out, "blocks begin anew on another target", err);
    return rc;
}

/* ---- what does ---- */

static bool has_learned(const job_student *s)
{
    return s->rungs > 0 && !s->inherits;
}

static int by_error(const void *pa, const void *pb)
{
    const job_student *a = *(job_student *const *)pa, *b = *(job_student *const *)pb;
    const double x = students_error(a), y = students_error(b);
    return x != y ? (x < y ? -1 : 1) : strcmp(a->name, b->name);
}

/* The space of those who learned, the best first: what there is no time for is not priced. */
static int known_space(struct work_task *task, const job_state *state, struct arena *arena,
                       struct space *ret, struct err *err)
{
    struct design_ends ends;
    job_student **known = arena_alloc(arena, state->n_students + 1, sizeof(job_student *));
    const char **designs = arena_alloc(arena, state->n_students + 1, sizeof(*designs));
    int n = 0;
    *ret = (struct space){0};
    if (!known || !designs)
        return err_oom(err, "students");
    for (size_t i = 0; i < state->n_students; i++)
        if (has_learned(state->students[i]))
            known[n++] = state->students[i];
    if (n == 0)
        return 0;
    qsort(known, (size_t)n, sizeof(job_student *), by_error);
    for (int i = 0; i < n; i++)
        designs[i] = known[i]->design;
    int rc = students_ends(task, state, &ends, err);
    return rc == 0 ? space_of_designs(&ends, students_original(state), designs, n, arena, ret, err)
                   : rc;
}

/* As any job once its data are read. */
static int go_on(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err)
{
    int rc = refine_tell(task, stage->state, err);
    return rc == 0 ? work_follow(out, "exporter", "calibrate", &stage->base, err) : rc;
}

int retarget_begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                   struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space = {0};
    job_state *state = stage->state;
    double elapsed = 0, left = 0;
    int rc = arena ? forget(state, err) : err_oom(err, "students");
    for (size_t i = 0; rc == 0 && i < state->n_students; i++)
        rc = forget_costs(state->students[i], err);
    if (rc == 0)
        rc = known_space(task, state, arena, &space, err);
    if (rc < 0 || space.n_pieces == 0)
        return rc < 0 ? rc : go_on(task, out, stage, err);
    rc = state_time(task, &elapsed, &left, err);
    const double seconds = fmin(fmax(PRICING_SHARE * left, LEAST_PRICING_S), MOST_PRICING_S);
    if (rc == 0)
        rc = redesign_ask_prices(out, state, &space, seconds, err);
    return rc == 0 ? work_continue(out, "synthesizer", "retarget", &stage->base, err) : rc;
}

/* ---- the stage retarget ---- */

static int price(job_state *state, const struct space *space, job_student *s, struct err *err)
{
    double us = INFINITY;
    for (int i = 0; i < space->n_students; i++)
        if (strcmp(space->students[i].text, s->design) == 0)
            us = space->students[i].us;
    if (!isfinite(us))
        return message_set(&s->out, "its time on this target is not known", err);
    s->predicted_us = us;
    return refine_admit(state, s, err);
}

/* Prices that cannot be had leave students out. */
static int take(struct work_task *task, job_state *state, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct space space;
    struct err why = {0};
    int rc = arena ? known_space(task, state, arena, &space, err) : err_oom(err, "students");
    if (rc < 0)
        return rc;
    rc = redesign_take_prices(task, &space, &why);
    if (rc < 0 && !work_is_permanent(why.code))
        return err_set(err, why.code, "%s", why.message);
    rc = rc < 0 ? state_decide(state, err, "prices of students: %s", why.message) : 0;
    for (size_t i = 0; rc == 0 && i < state->n_students; i++)
        if (has_learned(state->students[i]))
            rc = price(state, &space, state->students[i], err);
    return rc;
}

int synthesizer_retarget(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int rc = race_stage(task, &stage, err);
    if (rc == 0)
        rc = take(task, stage->state, err);
    return rc == 0 ? go_on(task, out, stage, err) : rc;
}
