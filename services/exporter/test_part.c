#include "services/exporter/test_part.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/nn/infer.h"
#include "shared/work/goal.h"
#include "shared/work/so_far.h"

/* ---- openings ---- */

static bool was_scored(const Hone__V1__JobRecord *record, const char *artifact)
{
    for (size_t i = 0; i < record->n_openings; i++)
        for (size_t k = 0; k < record->openings[i]->n_artifacts; k++)
            if (strcmp(record->openings[i]->artifacts[k], artifact) == 0)
                return true;
    return false;
}

static int add_network(const Hone__V1__JobRecord *record, const job_network *network,
                       Hone__V1__Opening *opening, struct err *err)
{
    if (!state_proved(network) || was_scored(record, network->artifact))
        return 0;
    for (size_t i = 0; i < opening->n_artifacts; i++)
        if (strcmp(opening->artifacts[i], network->artifact) == 0)
            return 0;
    int rc = message_append_text(&opening->networks, &opening->n_networks, network->name, err);
    return rc < 0 ? rc
                  : message_append_text(&opening->artifacts, &opening->n_artifacts,
                                        network->artifact, err);
}

static int add_opening(Hone__V1__JobRecord *record, const job_state *state, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__Opening *opening =
        message_new(&hone__v1__opening__descriptor, err);
    int rc = opening ? 0 : -ERR_RESOURCE_EXHAUSTED;
    for (size_t i = 0; rc == 0 && i < state->n_finals; i++)
        rc = add_network(record, state->finals[i], opening, err);
    if (rc == 0)
        rc = add_network(record, state->plain_int8, opening, err);
    if (rc < 0 || opening->n_networks == 0)
        return rc;
    opening->time_ms = clock_wall_ms();
    rc = message_append(&record->openings, &record->n_openings, opening, err);
    if (rc == 0)
        (void)TAKE_PTR(opening);
    return rc;
}

int test_part_openings(struct work_task *task, const job_state *state, Hone__V1__JobRecord **ret,
                       struct err *err)
{
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    int rc = so_far_get_state(task->store, task->task->job, &record, err);
    if (rc == 0 && !record && state->taken)
        rc = so_far_get_state(task->store, state->taken->job, &record, err);
    if (rc == 0 && !record) {
        record = message_new(&hone__v1__job_record__descriptor, err);
        rc = record ? 0 : -ERR_RESOURCE_EXHAUSTED;
    }
    if (rc == 0)
        rc = add_opening(record, state, err);
    if (rc == 0)
        *ret = TAKE_PTR(record);
    return rc;
}

/* ---- bounds ---- */

/* Who is asked for the point estimate is asked for no proof. */
static void take_estimates(job_state *state)
{
    for (size_t i = 0; i < state->n_finals; i++)
        state->finals[i]->drop_bound_points = state->finals[i]->drop_points;
}

static int take_bounds(job_state *state, double miss, struct err *err)
{
    const double limit = goal_turned(state->spec) ? -INFINITY : state->spec->max_drop;
    _cleanup_(freep) struct drop_case *cases = mem_calloc(state->n_finals + 1, sizeof(*cases));
    if (!cases)
        return err_oom(err, "bounds");
    for (size_t i = 0; i < state->n_finals; i++) {
        const Hone__V1__Accuracy *a = state_accuracy(state->finals[i], "test", "hone");
        if (a)
            cases[i] = (struct drop_case){
                .worse = (int64_t)a->worse, .better = (int64_t)a->better, .n = (int64_t)a->n};
    }
    infer_drop_bounds(cases, (int)state->n_finals, miss, limit);
    for (size_t i = 0; i < state->n_finals; i++)
        state->finals[i]->drop_bound_points = cases[i].bound;
    return 0;
}

int test_part_judge(job_state *state, struct err *err)
{
    const double confidence = goal_confidence(state->spec);
    int rc = 0;
    if (confidence > 0.5)
        rc = take_bounds(state, 1 - confidence, err);
    else
        take_estimates(state);
    for (size_t i = 0; i < state->n_finals; i++) {
        job_network *n = state->finals[i];
        n->within_limit = state_proved(n) && n->drop_bound_points <= state->spec->max_drop &&
                          goal_affordable(state->spec, goal_cost_of(state, n));
    }
    return rc;
}
