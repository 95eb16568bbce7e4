/* The stages "assemble" and "choose": candidates are measured, finals picked. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/budget.h"
#include "services/synthesizer/propose.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/redesign.h"
#include "services/synthesizer/stages.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MAX_FINALS 3
#define MAX_ROUNDS 3

/* ---- assemble ---- */

static bool is_measured(const job_network *network)
{
    return state_timing(network, "hone", NULL) != NULL;
}

int stages_take_builds(struct work_task *task, job_state *state, struct err *err)
{
    int r = 0;
    for (int i = 0; i < task->task->n_results; i++) {
        if (!task->task->results[i]) {
            r = state_decide(state, err, "a candidate could not be built: %s",
                             task->task->failures[i] ? task->task->failures[i] : "unknown");
            if (r < 0)
                return r;
            continue;
        }
        _cleanup_(message_freep) Hone__V1__BuildResult *build = NULL;
        r = work_group_result(task, i, &hone__v1__build_result__descriptor,
                              (ProtobufCMessage **)&build, err);
        if (r == 0)
            r = message_append(&state->candidates, &state->n_candidates, build->network, err);
        if (r < 0)
            return r;
        build->network = NULL;
    }
    return 0;
}

int stages_measure(struct work_output *out, Hone__V1__StageTask *stage, struct err *err)
{
    job_state *state = stage->state;
    _cleanup_(message_freep) Hone__V1__MeasureTask *measure =
        message_new(&hone__v1__measure_task__descriptor, err);
    if (!measure)
        return -ERR_RESOURCE_EXHAUSTED;
    measure->threads = state->spec->threads;
    measure->batch = state->spec->batch;
    int r = message_set(&measure->target, state->spec->target, err);
    if (r == 0)
        r = state_measure_item(measure, state->baseline, "hone", "fp32", err);
    if (r == 0)
        r = state_measure_item(measure, state->plain_int8, "hone", "auto", err);
    for (size_t i = 0; r == 0 && i < state->n_candidates; i++)
        if (!is_measured(state->candidates[i]))
            r = state_measure_item(measure, state->candidates[i], "hone", "auto", err);
    _cleanup_(freep) char *queue = state_profiler_queue(state);
    if (r == 0 && !queue)
        r = err_oom(err, "a queue's name");
    if (r == 0)
        r = work_follow(out, queue, "measure", &measure->base, err);
    if (r == 0)
        r = work_continue(out, "synthesizer", "choose", &stage->base, err);
    return r;
}

int synthesizer_assemble(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r == 0)
        r = stages_take_builds(task, stage->state, err);
    return r < 0 ? r : stages_measure(out, stage, err);
}

/* ---- choose ---- */

/* Of a student the bound, which compares different samples, would ask too much: the proof on the
 * test part compares the same ones. */
static bool promising(const job_state *state, const job_network *network)
{
    double upper95;
    if (!goal_affordable(state->spec, goal_cost_of(state, network)))
        return false;
    const Hone__V1__Accuracy *a = state_accuracy(network, "search", "hone");
    if (*network->design && a && state->data->labels_usable)
        return 1 - a->value <= race_error_limit(state);
    const double drop = state_expected_drop(state, network, &upper95);
    return goal_bound(state->spec, drop, upper95) <= state->spec->max_drop;
}

static bool nothing_promising(const job_state *state)
{
    bool any = promising(state, state->plain_int8);
    for (size_t i = 0; i < state->n_candidates; i++)
        any |= promising(state, state->candidates[i]);
    return !any;
}

/* Networks in the order in which they are tried: those that keep the limits on the search part by
 * what the job wants of them, then the others by how little they drop; last those that break a
 * limit on costs, by those. */
struct ranked {
    const job_state *state;
    job_network *network;
};

static int class_of(const struct ranked *r)
{
    if (promising(r->state, r->network))
        return 0;
    return goal_affordable(r->state->spec, goal_cost_of(r->state, r->network)) ? 1 : 2;
}

static double key_of(const struct ranked *r, int class)
{
    double upper95;
    return class == 0   ? goal_expected(r->state, r->network)
           : class == 1 ? state_expected_drop(r->state, r->network, &upper95)
                        : goal_cost_of(r->state, r->network);
}

static int by_rank(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    const int of_a = class_of(a), of_b = class_of(b);
    if (of_a != of_b)
        return of_a < of_b ? -1 : 1;
    const double x = key_of(a, of_a), y = key_of(b, of_b);
    if (x != y)
        return x < y ? -1 : 1;
    return strcmp(a->network->name, b->network->name);
}

static int take_timings(job_state *state, const Hone__V1__MeasureResult *measured, struct err *err)
{
    size_t next = 2;
    if (measured->n_timings < next)
        return err_set(err, ERR_INTERNAL, "choose: %zu timings", measured->n_timings);
    int r = state_add_timing(state->baseline, measured->timings[0], err);
    if (r == 0)
        r = state_add_timing(state->plain_int8, measured->timings[1], err);
    for (size_t i = 0; r == 0 && i < state->n_candidates; i++) {
        if (is_measured(state->candidates[i]))
            continue;
        if (next == measured->n_timings)
            return err_set(err, ERR_INTERNAL, "choose: no timing of %s",
                           state->candidates[i]->name);
        r = state_add_timing(state->candidates[i], measured->timings[next++], err);
    }
    return r;
}

static int compare_f64(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* The additive model against the assembled networks: the median error. */
static int check_model(struct work_task *task, job_state *state, struct err *err)
{
    _cleanup_(freep) double *errors = mem_calloc(state->n_candidates + 1, sizeof(*errors));
    double signed_sum = 0;
    int n = 0;
    if (!errors)
        return err_oom(err, "the model's errors");
    for (size_t i = 0; i < state->n_candidates; i++) {
        const job_network *c = state->candidates[i];
        const Hone__V1__Timing *t = state_timing(c, "hone", NULL);
        if (!t || c->predicted_us <= 0)
            continue;
        signed_sum += c->predicted_us / t->p50_us - 1;
        errors[n++] = fabs(c->predicted_us / t->p50_us - 1);
    }
    if (n == 0)
        return 0;
    qsort(errors, (size_t)n, sizeof(*errors), compare_f64);
    state->model_error = errors[n / 2];
    int r = state_decide(state, err,
                         "additive latency model on %d assembled networks: median error %.1f %%, "
                         "mean %+.1f %%",
                         n, 100 * state->model_error, 100 * signed_sum / n);
    _cleanup_(freep) char *fields =
        str_printf("\"networks\":%d,\"median_error\":%.4f,\"mean_error\":%.4f", n,
                   state->model_error, signed_sum / n);
    if (r == 0)
        r = fields ? work_event(task, "model", fields, err) : err_oom(err, "an event");
    return r;
}

/* What the finals so far leave to a further one, of each kind of network. */
struct bar {
    double kl;    /* of the original's architecture: it must be gentler */
    double value; /* of those that were trained: it must score better on the search part */
};
/* By the finals that do not keep the limits, for who promises to; by all of them, for who does not.
 */
struct bars {
    struct bar failed, all;
};

/* Whether it was too low for the network; where not, it is the network's now. */
static bool raise_bar(struct bar *bar, const job_network *network)
{
    const Hone__V1__Accuracy *a = state_accuracy(network, "search", "hone");
    if (!a || (*network->design ? a->value <= bar->value : a->kl >= bar->kl))
        return false;
    if (*network->design)
        bar->value = a->value;
    else
        bar->kl = a->kl;
    return true;
}

static bool is_final(const job_state *state, const job_network *network)
{
    for (size_t i = 0; i < state->n_finals; i++)
        if (strcmp(state->finals[i]->name, network->name) == 0)
            return true;
    return false;
}

static int add_final(job_state *state, const job_network *network, struct err *err)
{
    job_network *clone = message_clone(network, err);
    if (!clone)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_append(&state->finals, &state->n_finals, clone, err);
    if (r < 0) {
        message_free(clone);
        return r;
    }
    double upper95, drop = state_expected_drop(state, clone, &upper95);
    return state_decide(state, err, "final %zu: %s (search part: drop %.3f points, at most %.3f)",
                        state->n_finals, clone->name, drop, upper95);
}

/* Whether a network that was proved is as good in what the job asks for: another that is not
 * better has nothing to add. */
static bool is_beaten(const job_state *state, const job_network *network)
{
    for (size_t i = 0; i < state->n_finals; i++)
        if (state->finals[i]->within_limit &&
            goal_expected(state, state->finals[i]) <= goal_expected(state, network))
            return true;
    return false;
}

/* Whether it is worth a proof beside the finals so far; the bars are raised by it then. */
static bool adds(const job_state *state, const job_network *network, struct bars *bars)
{
    const bool hopeful = promising(state, network);
    if (is_final(state, network) || is_beaten(state, network))
        return false;
    if (goal_turned(state->spec)) /* the next best, in case that the proof says otherwise */
        return hopeful || state->n_finals == 0;
    if (!raise_bar(hopeful ? &bars->failed : &bars->all, network))
        return false;
    raise_bar(hopeful ? &bars->all : &bars->failed, network);
    return true;
}

/* At most `most` beside those that an earlier round proved, which stay. */
static int pick_finals(job_state *state, int most, struct err *err)
{
    _cleanup_(freep) struct ranked *ranked = mem_calloc(state->n_candidates + 1, sizeof(*ranked));
    struct bars bars = {{INFINITY, -INFINITY}, {INFINITY, -INFINITY}};
    size_t n = 0;
    if (!ranked)
        return err_oom(err, "the finals");
    for (size_t i = 0; i < state->n_finals; i++) {
        raise_bar(&bars.all, state->finals[i]);
        if (!state->finals[i]->within_limit)
            raise_bar(&bars.failed, state->finals[i]);
    }
    ranked[n++] = (struct ranked){state, state->plain_int8};
    for (size_t i = 0; i < state->n_candidates; i++)
        ranked[n++] = (struct ranked){state, state->candidates[i]};
    qsort(ranked, n, sizeof(*ranked), by_rank);
    for (size_t i = 0; i < n && most > 0; i++) {
        if (!adds(state, ranked[i].network, &bars))
            continue;
        int r = add_final(state, ranked[i].network, err);
        if (r < 0)
            return r;
        most--;
    }
    if (state->n_finals == 0)
        return err_set(err, ERR_INTERNAL, "no network was scored on the search part");
    return 0;
}

static int follow_prove(struct work_output *out, job_state *state, job_network *network, bool alone,
                        struct err *err)
{
    Hone__V1__ProveTask prove = HONE__V1__PROVE_TASK__INIT;
    prove.state = state;
    prove.network = network;
    prove.alone = alone;
    return work_follow(out, "exporter", "prove", &prove.base, err);
}

/* A proof for each final that has none yet, one for plain int8 where it has none and is no final,
 * and the last measurement, of them all: the group whose results the report takes, in this order.
 */
static int follow_finals(job_state *state, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__MeasureTask *measure =
        message_new(&hone__v1__measure_task__descriptor, err);
    if (!measure)
        return -ERR_RESOURCE_EXHAUSTED;
    measure->threads = state->spec->threads;
    measure->batch = state->spec->batch;
    measure->salt = 1; /* the finals are measured anew, beside the peers */
    int r = message_set(&measure->target, state->spec->target, err);
    if (r == 0)
        r = state_measure_item(measure, state->baseline, "hone", "fp32", err);
    if (r == 0)
        r = state_measure_item(measure, state->baseline, "onnxruntime", "fp32", err);
    if (r == 0)
        r = state_measure_item(measure, state->plain_int8, "hone", "auto", err);
    if (r == 0)
        r = state_measure_item(measure, state->plain_int8, "onnxruntime", "auto", err);
    for (size_t i = 0; r == 0 && i < state->n_finals; i++) {
        if (!state_proved(state->finals[i]))
            r = follow_prove(out, state, state->finals[i], false, err);
        if (r == 0)
            r = state_measure_item(measure, state->finals[i], "hone", "auto", err);
        if (r == 0)
            r = state_measure_item(measure, state->finals[i], "onnxruntime", "auto", err);
    }
    /* what the user would have got without a search */
    if (r == 0 && !state_proved(state->plain_int8) && !is_final(state, state->plain_int8))
        r = follow_prove(out, state, state->plain_int8, true, err);
    _cleanup_(freep) char *queue = state_profiler_queue(state);
    if (r == 0 && !queue)
        r = err_oom(err, "a queue's name");
    if (r == 0)
        r = work_follow(out, queue, "measure", &measure->base, err);
    Hone__V1__StageTask next = HONE__V1__STAGE_TASK__INIT;
    next.state = state;
    if (r == 0)
        r = work_continue(out, "exporter", "report", &next.base, err);
    return r;
}

int synthesizer_choose(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    _cleanup_(message_freep) Hone__V1__MeasureResult *measured = NULL;
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r == 0 && (task->task->n_results != 1 || !task->task->results[0]))
        r = state_group_failed(task, 0, "measuring the candidates failed", err);
    if (r == 0)
        r = work_group_result(task, 0, &hone__v1__measure_result__descriptor,
                              (ProtobufCMessage **)&measured, err);
    if (r == 0)
        r = take_timings(stage->state, measured, err);
    if (r == 0)
        r = check_model(task, stage->state, err);
    bool again = false;
    const bool after_redesign = r == 0 && stage->state->redesigned;
    if (r == 0 && !after_redesign && !goal_turned(stage->state->spec) &&
        nothing_promising(stage->state) && ++stage->state->n_rounds < MAX_ROUNDS)
        r = propose_gentler(task, out, stage->state, &again, err);
    if (r < 0 || again)
        return r;
    if (!after_redesign)
        r = redesign_decide(task, stage->state, err);
    int most = 0;
    const size_t before = stage->state->n_finals;
    if (r == 0)
        r = affordable(task, stage->state, budget_finals, MAX_FINALS, "finals", &most, err);
    if (r == 0)
        r = pick_finals(stage->state, most, err);
    if (r < 0)
        return r;
    job_state *state = stage->state;
    const job_network *first = state->finals[before < state->n_finals ? before : 0];
    const Hone__V1__Timing *base = state_timing(state->baseline, "hone", NULL);
    const Hone__V1__Timing *best = state_timing(first, "hone", NULL);
    if (base && best)
        r = state_best_event(task, state, first, best->p50_us, base->p50_us, true, err);
    return r < 0 ? r : follow_finals(state, out, err);
}
