/* Proofs and the last measurement merged into the state of the job. */
#include "services/exporter/report_inputs.h"

#include <stdlib.h>
#include <string.h>

#include "services/exporter/build.h"
#include "services/exporter/test_part.h"

void report_inputs_release(struct report_inputs *in)
{
    message_free(in->stage);
    message_free(in->measured);
    message_free(in->profile);
    message_free(in->scores);
    message_free(in->asked);
    message_free(in->record);
    for (size_t i = 0; i < in->n_runs; i++)
        message_free(in->runs[i]);
    free(in->runs);
    free(in->trained);
    message_free(in->library);
    job_info_release(&in->job);
}

/* ---- the group ---- */

/* Where what is among the results of the task. */
struct group {
    struct work_task *task;
    int plain_proof; /* -1: plain int8 has none of its own */
    int measure;     /* -1: no results at all */
    int *proofs;     /* of each final as it was; -1: it was proved before */
    char **names;    /* of the finals as they were */
    size_t n_names;
};

static void group_release(struct group *g)
{
    for (size_t i = 0; i < g->n_names; i++)
        free(g->names[i]);
    free(g->names);
    free(g->proofs);
}

static bool is_plain_int8(const job_state *state, const char *name)
{
    return strcmp(name, state->plain_int8->name) == 0;
}

static int group_find(struct group *g, const job_state *state, struct err *err)
{
    int next = 0, r = 0;
    bool plain = state_proved(state->plain_int8);
    g->proofs = mem_calloc(state->n_finals + 1, sizeof(*g->proofs));
    if (!g->proofs)
        return err_oom(err, "the report");
    for (size_t i = 0; r == 0 && i < state->n_finals; i++) {
        g->proofs[i] = state_proved(state->finals[i]) ? -1 : next++;
        plain |= is_plain_int8(state, state->finals[i]->name);
        r = message_append_text(&g->names, &g->n_names, state->finals[i]->name, err);
    }
    if (r < 0)
        return r;
    g->plain_proof = plain ? -1 : next++;
    g->measure = next == 0 && g->task->task->n_results == 0 ? -1 : next;
    if (g->task->task->n_results != g->measure + 1)
        return err_set(err, ERR_INTERNAL, "report: %d results, %d expected",
                       g->task->task->n_results, g->measure + 1);
    if (g->measure >= 0 && !g->task->task->results[g->measure])
        return state_group_failed(g->task, g->measure, "measuring the finals failed", err);
    return 0;
}

static const char *why_not(const struct group *g, int i)
{
    const char *why = g->task->task->failures[i];
    return why ? why : "unknown";
}

static int proved_network(const struct group *g, int i, job_network **ret, struct err *err)
{
    Hone__V1__ProveResult *proved = NULL;
    int r = work_group_result(g->task, i, &hone__v1__prove_result__descriptor,
                              (ProtobufCMessage **)&proved, err);
    if (r < 0)
        return r;
    *ret = proved->network;
    proved->network = NULL;
    message_free(proved);
    return 0;
}

/* ---- merging ---- */

static int merge_proofs(const struct group *g, job_state *state, struct err *err)
{
    size_t kept = 0;
    int r = 0;
    for (size_t i = 0; i < state->n_finals; i++) {
        job_network *network = state->finals[i], *proved = network;
        if (r == 0 && g->proofs[i] >= 0 && !g->task->task->results[g->proofs[i]]) {
            r = state_decide(state, err, "%s could not be proved: %s", network->name,
                             why_not(g, g->proofs[i]));
            proved = NULL;
        } else if (r == 0 && g->proofs[i] >= 0) {
            proved = NULL;
            r = proved_network(g, g->proofs[i], &proved, err);
        }
        if (proved != network)
            message_free(network);
        if (proved)
            state->finals[kept++] = proved;
    }
    state->n_finals = kept;
    if (r == 0 && kept == 0)
        return state_group_failed(g->task, 0, "no final network could be proved", err);
    return r;
}

/* What plain int8 scores on the test part: known, from its own proof, or it was among the finals.
 */
static int merge_plain_int8(const struct group *g, job_state *state, struct err *err)
{
    _cleanup_(message_freep) job_network *proved = NULL;
    const job_network *from = NULL;
    if (state_proved(state->plain_int8))
        return 0;
    if (g->plain_proof >= 0 && !g->task->task->results[g->plain_proof])
        return state_decide(state, err, "plain int8 could not be proved: %s",
                            why_not(g, g->plain_proof));
    if (g->plain_proof >= 0) {
        int r = proved_network(g, g->plain_proof, &proved, err);
        if (r < 0)
            return r;
        from = proved;
    }
    for (size_t i = 0; !from && i < state->n_finals; i++)
        if (is_plain_int8(state, state->finals[i]->name))
            from = state->finals[i];
    const Hone__V1__Accuracy *accuracy = from ? state_accuracy(from, "test", "hone") : NULL;
    return accuracy ? state_add_accuracy(state->plain_int8, accuracy, err) : 0;
}

static int add_timing_of(job_network *network, const Hone__V1__MeasureResult *m, size_t i,
                         struct err *err)
{
    return i < m->n_timings ? state_add_timing(network, m->timings[i], err)
                            : err_set(err, ERR_INTERNAL, "the last measurement is incomplete");
}

/* A final that could not be proved was measured all the same: names find each. */
static int merge_timings(const struct group *g, job_state *state, const Hone__V1__MeasureResult *m,
                         struct err *err)
{
    int r = add_timing_of(state->baseline, m, 0, err);
    if (r == 0)
        r = add_timing_of(state->baseline, m, 1, err);
    if (r == 0)
        r = add_timing_of(state->plain_int8, m, 2, err);
    if (r == 0)
        r = add_timing_of(state->plain_int8, m, 3, err);
    for (size_t i = 0; r == 0 && i < state->n_finals; i++)
        for (size_t k = 0; r == 0 && k < g->n_names; k++) {
            if (strcmp(g->names[k], state->finals[i]->name) != 0)
                continue;
            r = add_timing_of(state->finals[i], m, 4 + 2 * k, err);
            if (r == 0)
                r = add_timing_of(state->finals[i], m, 5 + 2 * k, err);
        }
    return r;
}

static int merge(const struct group *g, struct report_inputs *in, struct err *err)
{
    job_state *state = in->stage->state;
    int r = work_group_result(g->task, g->measure, &hone__v1__measure_result__descriptor,
                              (ProtobufCMessage **)&in->measured, err);
    if (r == 0)
        r = merge_proofs(g, state, err);
    if (r == 0)
        r = merge_plain_int8(g, state, err);
    return r < 0 ? r : merge_timings(g, state, in->measured, err);
}

/* Nothing was measured since the report before: on what, the profile says. */
static int take_machine(struct report_inputs *in, struct err *err)
{
    in->measured = message_new(&hone__v1__measure_result__descriptor, err);
    if (!in->measured)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_set(&in->measured->cpu, in->profile->cpu, err);
    return r < 0 ? r : message_set(&in->measured->isa, in->profile->isa, err);
}

/* ---- what the state names ---- */

static int read_one(struct work_task *task, const char *name, struct report_inputs *in,
                    struct err *err)
{
    Hone__V1__TrainResult *trained = NULL;
    int r = message_load(task->store, name, &hone__v1__train_result__descriptor, &trained, err);
    if (r == 0)
        r = message_append(&in->runs, &in->n_runs, trained, err);
    if (r < 0)
        message_free(trained);
    return r;
}

/* Of each student the last run is its curve: it goes on from those before. */
static int read_trained(struct work_task *task, const job_state *state, struct report_inputs *in,
                        struct err *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < state->n_students; i++) {
        const Hone__V1__Student *s = state->students[i];
        for (size_t k = 0; r == 0 && k < s->n_trained; k++)
            r = read_one(task, s->trained[k], in, err);
        if (r == 0 && s->n_trained > 0)
            r = message_append(&in->trained, &in->n_trained, in->runs[in->n_runs - 1], err);
    }
    return r;
}

static int load(struct work_task *task, struct report_inputs *in, struct err *err)
{
    const job_state *state = in->stage->state;
    int r = message_load(task->store, state->profile, &hone__v1__profile__descriptor, &in->profile,
                         err);
    if (r == 0)
        r = message_load(task->store, state->scores, &hone__v1__scores__descriptor, &in->scores,
                         err);
    if (r == 0)
        r = read_trained(task, state, in, err);
    if (r == 0 && *state->library)
        r = message_load(task->store, state->library, &hone__v1__library__descriptor, &in->library,
                         err);
    if (r == 0)
        r = queue_job_get(task->queue, task->task->job, &in->job, err);
    if (r == 0 && in->job.spec)
        r = message_unpack(&hone__v1__job_spec__descriptor, in->job.spec, in->job.spec_bytes,
                           &in->asked, err);
    return r;
}

int report_inputs_read(struct work_task *task, struct report_inputs *in, struct err *err)
{
    _cleanup_(group_release) struct group group = {.task = task};
    int r =
        work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&in->stage, err);
    if (r == 0)
        r = group_find(&group, in->stage->state, err);
    if (r == 0)
        r = load(task, in, err);
    if (r < 0)
        return r;
    r = group.measure >= 0 ? merge(&group, in, err) : take_machine(in, err);
    if (r == 0)
        r = test_part_judge(in->stage->state, err);
    if (r < 0)
        return r;
    return test_part_openings(task, in->stage->state, &in->record, err);
}

int report_inputs_networks(struct work_task *task, const job_state *state,
                           const job_network *chosen, struct graph **ret_original,
                           struct graph **ret_redesigned, struct err *err)
{
    if (!*chosen->design)
        return 0;
    int r = build_read_network(task, state->network, ret_original, err);
    return r < 0 ? r : build_read_network(task, chosen->artifact, ret_redesigned, err);
}
