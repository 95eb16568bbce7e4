/* The stages "redesign" and "enroll": students are priced, and the race begins. */
#include "services/synthesizer/redesign.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/ablate.h"
#include "services/synthesizer/blocks.h"
#include "services/synthesizer/enrol.h"
#include "services/synthesizer/join.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define LEAST_TRAINING_S 30.0 /* below: not worth beginning */
#define BEST_FACTOR 40.0      /* of the original's cost: the least that is enrolled */
#define MOST_SHARE 0.8        /* of the best network so far: the most */
#define LEAST_USED 0.4        /* of a limit on costs: the least that is enrolled */
#define FINAL_SHARE 0.4       /* of the time for training: that the best is expected to get */
/* Views of each sample that the original answers: one for so many seconds of training (the teacher
 * takes some 1.5 % of them on CIFAR-10), within bounds. */
#define PRICING_SHARE 0.1 /* of the time for training: what is not priced then is left out */
#define LEAST_PRICING_S 1.0
#define VIEW_S 240.0
#define LEAST_VIEWS 4.0
#define MOST_VIEWS 32.0

/* ---- time ---- */

/* Whether whole students can be had, where they are wanted; says why not. */
static int may_have_students(struct work_task *task, job_state *state,
                             const Hone__V1__JobSpec *asked, bool *ret, struct err *err)
{
    struct design_ends ends;
    struct err why = {0};
    *ret = spec_space_has(asked, "students");
    int rc = *ret ? students_ends(task, state, &ends, &why) : 0;
    if (rc < 0 && rc != -ERR_FAILED_PRECONDITION)
        return err_set(err, why.code, "%s", why.message);
    if (rc == 0)
        return 0;
    *ret = false;
    return state_decide(state, err, "no %s: %s",
                        blocks_wanted(asked, state) ? "whole students" : "redesign", why.message);
}

int redesign_decide(struct work_task *task, job_state *state, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__JobSpec *asked = NULL;
    bool students = false;
    double seconds = 0;
    state->redesigned = true;
    int rc = state_asked(task, &asked, err);
    if (rc == 0)
        rc = may_have_students(task, state, asked, &students, err);
    if (rc < 0 || (!students && !blocks_wanted(asked, state)))
        return rc;
    rc = race_seconds(task, state, &seconds, err);
    if (rc < 0)
        return rc;
    if (seconds < LEAST_TRAINING_S)
        return state_decide(state, err, "no redesign: the budget leaves %.0f s for training",
                            fmax(seconds, 0));
    state->redesigned = false;
    return 0;
}

/* ---- the stage redesign: what do pieces cost? ---- */

int redesign_ask_prices(struct work_output *out, const job_state *state, const struct space *space,
                        double seconds, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__PriceTask *price =
        message_new(&hone__v1__price_task__descriptor, err);
    _cleanup_(freep) char *queue = state_profiler_queue(state);
    if (!price || !queue)
        return err_oom(err, "prices");
    price->threads = state->spec->threads;
    price->batch = state->spec->batch;
    price->seconds = seconds;
    int rc = message_set(&price->target, state->spec->target, err);
    for (int i = 0; rc == 0 && i < space->n_pieces; i++) {
        const struct space_piece *from = &space->pieces[i];
        Hone__V1__PriceTask__Piece *piece =
            message_new(&hone__v1__price_task__piece__descriptor, err);
        if (!piece)
            return -ERR_RESOURCE_EXHAUSTED;
        piece->channels = (uint64_t)from->at.channels;
        piece->height = (uint64_t)from->at.height;
        piece->width = (uint64_t)from->at.width;
        piece->outputs = (uint64_t)from->at.outputs;
        piece->first = from->first;
        rc = message_set(&piece->text, from->text, err);
        if (rc == 0)
            rc = message_append(&price->pieces, &price->n_pieces, piece, err);
        if (rc < 0)
            message_free(piece);
    }
    return rc == 0 ? work_follow(out, queue, "price", &price->base, err) : rc;
}

/* Everything up to the question. */
static int ask(struct work_task *task, struct work_output *out, job_state *state, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct design_ends ends;
    struct space space;
    double seconds = 0;
    int rc = arena ? students_ends(task, state, &ends, err) : err_oom(err, "the redesign");
    if (rc == 0)
        rc = space_build(&ends, students_original(state), arena, &space, err);
    if (rc == 0 && state->enrolments == 0)
        rc = state_decide(state, err, "redesign: %d students of %d pieces", space.n_students,
                          space.n_pieces);
    if (rc == 0)
        rc = race_seconds(task, state, &seconds, err);
    const double most = fmax(PRICING_SHARE * seconds, LEAST_PRICING_S);
    return rc == 0 ? redesign_ask_prices(out, state, &space, most, err) : rc;
}

int redesign_ask(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err)
{
    int rc = ask(task, out, stage->state, err);
    return rc == 0 ? work_continue(out, "synthesizer", "enroll", &stage->base, err) : rc;
}

/* A failure that lasts is a decision, others are the task's. */
static int note_failure(job_state *state, const struct err *why, struct err *err)
{
    return work_is_permanent(why->code) ? state_decide(state, err, "redesign: %s", why->message)
                                        : err_set(err, why->code, "%s", why->message);
}

/* A failure that lasts costs the redesign, not the job: those who are there already, from blocks or
 * from a job before, race each other, or the job ends with what it has. */
static int end_early(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                     const struct err *why, struct err *err)
{
    struct err again = {0};
    double seconds = 0;
    bool begun = false;
    int rc = note_failure(stage->state, why, err);
    if (rc < 0)
        return rc;
    rc = race_seconds(task, stage->state, &seconds, &again);
    if (rc == 0)
        rc = join_race(task, out, stage, seconds, &begun, &again);
    if (rc == 0 && begun)
        return 0;
    if (rc < 0)
        rc = note_failure(stage->state, &again, err);
    return rc == 0 ? race_finish(out, stage, err) : rc;
}

int synthesizer_redesign(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    struct err why = {0};
    int rc = race_stage(task, &stage, err);
    if (rc < 0)
        return rc;
    if (blocks_wanted(stage->state->spec, stage->state))
        return blocks_begin(task, out, stage, err);
    /* Where blocks came first it was kept before they learned, which is no part of the end. */
    if (!spec_space_has(stage->state->spec, "blocks"))
        rc = race_keep_reserve(task, stage->state, &why);
    if (rc == 0)
        rc = redesign_ask(task, out, stage, &why);
    return rc < 0 ? end_early(task, out, stage, &why, err) : 0;
}

/* ---- the stage enroll ---- */

/* What the job counts as costs. */
static void set_costs(const job_state *state, struct space *space)
{
    for (int i = 0; i < space->n_students; i++) {
        struct space_student *s = &space->students[i];
        const double bytes = space_bytes(goal_small(state->spec), (double)s->parameters);
        s->cost = isfinite(s->us) ? goal_cost(state->spec, s->us, bytes) : INFINITY;
    }
}

/* Who is much like one that the job has already does not begin. */
static void leave_out_known(const job_state *state, const struct forecast *forecast,
                            struct space *space)
{
    for (int i = 0; i < space->n_students; i++) {
        struct space_student *s = &space->students[i];
        for (size_t k = 0; isfinite(s->cost) && k < state->n_students; k++)
            if (enrol_alike(s->traits, s->cost, forecast->traits[k],
                            race_cost(state, state->students[k])))
                s->cost = INFINITY;
    }
}

int redesign_take_prices(struct work_task *task, struct space *space, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__PriceResult *result = NULL;
    if (task->task->n_results != 1 || !task->task->results[0])
        return state_group_failed(task, 0, "pricing pieces failed", err);
    int rc = work_group_result(task, 0, &hone__v1__price_result__descriptor,
                               (ProtobufCMessage **)&result, err);
    if (rc < 0)
        return rc;
    if (result->n_us != (size_t)space->n_pieces)
        return err_set(err, ERR_INTERNAL, "%zu prices of %d pieces", result->n_us, space->n_pieces);
    space_price(space, result->us, result->floor_us);
    return 0;
}

/* Costs of those that may begin, and what the best can learn. */
static struct enrolment enrolment_of(const job_state *state, double seconds, double mac_per_s,
                                     const struct forecast *forecast)
{
    const bool turned = goal_turned(state->spec);
    return (struct enrolment){.turned = turned,
                              .most_cost = turned ? 1 : MOST_SHARE * race_best_cost(state),
                              .best_cost = race_best_cost(state),
                              .least_cost =
                                  turned ? LEAST_USED : race_original_cost(state) / BEST_FACTOR,
                              .error_limit = turned ? forecast->reference : race_error_limit(state),
                              .samples_macs = FINAL_SHARE * seconds * mac_per_s / 3,
                              .seed = state->spec->seed};
}

/* Who has learned already, given as much as the best is to get. */
static int known_of(const job_state *state, const struct forecast *forecast, struct arena *arena,
                    struct enrolment *e, struct err *err)
{
    struct enrol_known *known = arena_alloc(arena, state->n_students + 1, sizeof(*known));
    if (!known)
        return err_oom(err, "students");
    e->known = known;
    for (size_t i = 0; i < state->n_students; i++) {
        const job_student *s = state->students[i];
        if (s->rungs == 0 || s->failed || !race_affordable(state, s))
            continue;
        const double epochs = e->samples_macs / ((double)s->macs * forecast->n_train);
        known[e->n_known++] = (struct enrol_known){
            race_cost(state, s),
            forecast_point(forecast, state, i, fmin(epochs, RUNGS_MOST_EPOCHS))};
    }
    return 0;
}

/* Who begins. */
struct chosen {
    int *list; /* indices into the space, room for as many as any way has */
    int n;
    int found;      /* how many are cheap enough */
    bool better;    /* some are, with the time there is, not worse than those before: n may still
                       be 0 for lack of time */
    double seconds; /* of the rung */
};

/* Seconds of an epoch of those who have not learned yet and are there already. */
static double waiting_epoch_s(const job_state *state, double mac_per_s)
{
    double epoch_s = 0;
    for (size_t i = 0; i < state->n_students; i++) {
        const job_student *s = state->students[i];
        if (students_active(s) && s->rungs == 0)
            epoch_s += students_epoch_s(state, s, mac_per_s);
    }
    return epoch_s;
}

/* As many as can have enough epochs in their share of the time. */
static int choose_first(const job_state *state, const struct space *space,
                        const struct forecast *forecast, double seconds, double mac_per_s,
                        struct arena *arena, struct chosen *ret, struct err *err)
{
    struct enrolment e = enrolment_of(state, seconds, mac_per_s, forecast);
    int rc = known_of(state, forecast, arena, &e, err);
    if (rc < 0)
        return rc;
    if (spec_without(state->spec, "race")) {
        ret->n = ret->found = ablate_enrol(state, space, e.most_cost, e.least_cost, ret->list);
        ret->seconds = seconds;
        return 0;
    }
    const int enrolment = (int)state->enrolments + 1;
    const struct rung_first *way = rungs_first(enrolment, 0);
    const int n = enrol_choose(forecast, space, &e, way->students, ret->list, err);
    bool timely = false;
    for (int i = 0; i < space->n_students; i++) {
        const struct space_student *s = &space->students[i];
        const bool cheap = s->cost <= e.most_cost && s->cost > e.least_cost;
        ret->found += cheap;
        timely |= cheap && enrol_timely(&e, (double)s->macs, forecast->n_train);
    }
    ret->better = n > 0 || !timely;
    for (int i = 1; n > 0 && way; way = rungs_first(enrolment, i++)) {
        double epoch_s = waiting_epoch_s(state, mac_per_s);
        ret->n = n < way->students ? n : way->students;
        for (int k = 0; k < ret->n; k++)
            epoch_s += 3 * (double)space->students[ret->list[k]].macs *
                       (double)state->data->n_train / mac_per_s;
        /* one alone races nobody */
        ret->seconds = seconds * (ret->n > 1 || state->n_students > 0 ? way->share : 1);
        if (ret->seconds >= epoch_s * way->epochs)
            return 0;
    }
    ret->n = 0;
    return n < 0 ? n : 0;
}

static int say_nobody(job_state *state, const struct chosen *chosen, double seconds,
                      struct err *err)
{
    if (chosen->found > 0 && !chosen->better)
        return state_decide(state, err,
                            "redesign: no further student promises more than those "
                            "who have learned");
    if (chosen->found > 0)
        return state_decide(state, err, "redesign: %.0f s of training are not enough%s",
                            fmax(seconds, 0), state->n_students > 0 ? " for further students" : "");
    return state_decide(
        state, err, "redesign: no %sstudent is %s", state->n_students > 0 ? "further " : "",
        goal_turned(state->spec) ? "within the limits" : "cheaper than the best network");
}

static int enrol(struct work_task *task, job_state *state, struct space *space,
                 const struct design_ends *ends, double seconds, double *ret_rung_s,
                 struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    struct chosen chosen = {0};
    struct forecast forecast;
    double rate = 0;
    if (arena)
        chosen.list = arena_alloc(arena, RUNGS_MOST_STUDENTS, sizeof(*chosen.list));
    int rc = chosen.list ? race_rate(task, &rate, err) : err_oom(err, "students");
    if (rc == 0)
        rc = forecast_make(state, arena, &forecast, err);
    if (rc == 0)
        leave_out_known(state, &forecast, space);
    if (rc == 0)
        rc = choose_first(state, space, &forecast, seconds, rate, arena, &chosen, err);
    const double views = fmin(fmax(seconds / VIEW_S, LEAST_VIEWS), MOST_VIEWS);
    state->views = (uint32_t)fmax(views, state->views);
    if (rc == 0 && chosen.n == 0)
        rc = say_nobody(state, &chosen, seconds, err);
    for (int i = 0; rc == 0 && i < chosen.n; i++) {
        rc = students_add(task, state, &space->students[chosen.list[i]], ends, err);
        if (rc == 0)
            rc = students_tell(task, state, err);
    }
    state->enrolments += chosen.n > 0;
    *ret_rung_s = chosen.seconds;
    return rc;
}

/* Everything up to the first rung. */
static int begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 bool *ret_begun, struct err *err)
{
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    job_state *state = stage->state;
    struct design_ends ends;
    struct space space;
    const size_t known = state->n_students;
    double seconds = 0, rung_s = 0;
    int rc = arena ? students_ends(task, state, &ends, err) : err_oom(err, "the redesign");
    if (rc == 0)
        rc = space_build(&ends, students_original(state), arena, &space, err);
    if (rc == 0)
        rc = redesign_take_prices(task, &space, err);
    if (rc == 0)
        set_costs(state, &space);
    if (rc == 0)
        rc = race_seconds(task, state, &seconds, err);
    if (rc == 0)
        rc = enrol(task, state, &space, &ends, seconds, &rung_s, err);
    if (rc < 0)
        return rc;
    if (state->n_students == known)
        return join_race(task, out, stage, seconds, ret_begun, err);
    return race_begin_rung(task, out, stage, rung_s, ret_begun, err);
}

int synthesizer_enroll(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    struct err why = {0};
    bool begun = false;
    int rc = race_stage(task, &stage, err);
    if (rc < 0)
        return rc;
    rc = begin(task, out, stage, &begun, &why);
    if (rc < 0)
        return end_early(task, out, stage, &why, err);
    return begun ? 0 : race_finish(out, stage, err);
}
