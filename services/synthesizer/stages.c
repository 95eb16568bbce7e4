#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/arcs.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/work/state.h"

#define K_BEST 8 /* paths kept under each limit */
#define MAX_CANDIDATES 4
#define MAX_FINALS 3

/* ---- select ---- */

static int load_graph(struct work_task *task, const char *artifact, struct graph **ret,
                      struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r =
        store_get(task->store, artifact, onnx_default_limits.max_file_bytes, &data, &bytes, err);
    return r < 0 ? r : onnx_read_bytes(data, bytes, NULL, NULL, ret, err);
}

/* Merges the group's results into the state: profile, scores, plain int8. */
static int merge_first_results(struct work_task *task, job_state *state, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__ProfileResult *profile = NULL;
    _cleanup_(message_freep) Hone__V1__ScoreResult *scores = NULL;
    _cleanup_(message_freep) Hone__V1__BuildResult *build = NULL;
    if (task->task->n_results != 3)
        return err_set(err, ERR_INTERNAL, "select: %d results, 3 expected", task->task->n_results);
    if (!task->task->results[0])
        return state_group_failed(task, 0, "profiling the original failed", err);
    if (!task->task->results[1])
        return state_group_failed(task, 1, "scoring the layers failed", err);
    if (!task->task->results[2])
        return state_group_failed(task, 2, "building the int8 network failed", err);
    int r = work_group_result(task, 0, &hone__v1__profile_result__descriptor,
                              (ProtobufCMessage **)&profile, err);
    if (r == 0)
        r = work_group_result(task, 1, &hone__v1__score_result__descriptor,
                              (ProtobufCMessage **)&scores, err);
    if (r == 0)
        r = work_group_result(task, 2, &hone__v1__build_result__descriptor,
                              (ProtobufCMessage **)&build, err);
    if (r == 0)
        r = message_set(&state->profile, profile->profile, err);
    if (r == 0)
        r = message_set(&state->scores, scores->scores, err);
    if (r == 0) {
        state->plain_int8 = build->network;
        build->network = NULL;
    }
    return r;
}

static double total_us(const Hone__V1__Profile *profile, const char *precision)
{
    for (size_t i = 0; i < profile->n_precisions && i < profile->n_total_us; i++)
        if (strcmp(profile->precisions[i], precision) == 0)
            return profile->total_us[i];
    return 0;
}

static bool differs_enough(const struct arc_choice *choice, const struct arc_choice *others, int n)
{
    int least = choice->n / 32 > 1 ? choice->n / 32 : 1;
    for (int i = 0; i < n; i++)
        if (arcs_distance(choice, &others[i]) < least)
            return false;
    return true;
}

/* How the plain int8 network chooses, so that no candidate repeats it. */
static int plain_choice(const struct arc_choice *like, const job_network *plain,
                        struct arena *arena, struct arc_choice *ret, struct err *err)
{
    *ret = *like;
    ret->precisions = arena_alloc(arena, (size_t)like->n, sizeof(char *));
    if (!ret->precisions)
        return err_oom(err, "a choice");
    for (int i = 0; i < like->n; i++) {
        ret->precisions[i] = "fp32";
        for (size_t j = 0; j < plain->n_layers; j++)
            if (strcmp(plain->layers[j]->layer, like->layers[i]) == 0)
                ret->precisions[i] = plain->layers[j]->precision;
    }
    return 0;
}

struct proposal {
    struct arc_choice choice[MAX_CANDIDATES + 1]; /* [0] is plain int8 */
    double us[MAX_CANDIDATES + 1], kl[MAX_CANDIDATES + 1];
    int n;
};

/* The fastest path, and the fastest under ever tighter limits on the score, different enough. */
static int propose(const struct arcs *arcs, const struct select_front *front,
                   const job_network *plain, struct arena *arena, struct proposal *ret,
                   struct err *err)
{
    double limit = INFINITY;
    for (int level = 0; level < 8 && ret->n <= MAX_CANDIDATES; level++) {
        int best[K_BEST], n = select_best(front, limit, K_BEST, best);
        if (n == 0)
            break;
        limit = front->paths[best[0]].score / 2;
        for (int i = 0; i < n; i++) {
            struct arc_choice choice;
            int r = arcs_path_choice(arcs, &front->paths[best[i]], arena, &choice, err);
            if (r == 0 && ret->n == 0) {
                r = plain_choice(&choice, plain, arena, &ret->choice[0], err);
                ret->n = 1;
            }
            if (r < 0)
                return r;
            if (!differs_enough(&choice, ret->choice, ret->n))
                continue;
            ret->us[ret->n] = front->paths[best[i]].cost + arcs->floor_us;
            ret->kl[ret->n] = front->paths[best[i]].score;
            ret->choice[ret->n++] = choice;
            break;
        }
        if (limit <= 0)
            break;
    }
    return 0;
}

static int add_build(struct work_output *out, const job_state *state, const struct proposal *p,
                     int i, struct err *err)
{
    Hone__V1__BuildTask build = HONE__V1__BUILD_TASK__INIT;
    size_t n = (size_t)p->choice[i].n;
    _cleanup_(freep) Hone__V1__LayerChoice *layers = mem_calloc(n, sizeof(*layers));
    _cleanup_(freep) Hone__V1__LayerChoice **pointers = mem_calloc(n, sizeof(*pointers));
    _cleanup_(freep) char *name = str_printf("candidate-%d", i);
    if (!layers || !pointers || !name)
        return err_oom(err, "a build task");
    for (size_t j = 0; j < n; j++) {
        hone__v1__layer_choice__init(&layers[j]);
        layers[j].layer = (char *)p->choice[i].layers[j];
        layers[j].precision = (char *)p->choice[i].precisions[j];
        pointers[j] = &layers[j];
    }
    build.state = (job_state *)state;
    build.name = name;
    build.layers = pointers;
    build.n_layers = n;
    build.predicted_us = p->us[i];
    build.predicted_kl = p->kl[i];
    return work_follow(out, "exporter", "build", &build.base, err);
}

static int count_precision(const struct arc_choice *choice, const char *precision)
{
    int n = 0;
    for (int i = 0; i < choice->n; i++)
        n += strcmp(choice->precisions[i], precision) == 0;
    return n;
}

static int emit_proposals(struct work_task *task, struct work_output *out, job_state *state,
                          const struct proposal *p, const struct select_front *front,
                          struct err *err)
{
    int r = state_decide(state, err,
                         "selection: %d paths on the front (%s), %d candidates proposed beside "
                         "plain int8",
                         front->n_paths, front->exact ? "exact" : "thinned", p->n - 1);
    for (int i = 1; r == 0 && i < p->n; i++)
        r = state_decide(
            state, err,
            "candidate-%d: %d layers int8, %d bf16, %d fp32; predicted %.1f us, KL %.5f", i,
            count_precision(&p->choice[i], "int8"), count_precision(&p->choice[i], "bf16"),
            count_precision(&p->choice[i], "fp32"), p->us[i], p->kl[i]);
    for (int i = 1; r == 0 && i < p->n; i++)
        r = add_build(out, state, p, i, err);
    Hone__V1__StageTask next = HONE__V1__STAGE_TASK__INIT;
    next.state = state;
    if (r == 0)
        r = work_continue(out, "synthesizer", "assemble", &next.base, err);
    return r < 0 ? r : work_progress(task, "select", p->n - 1, p->n - 1, "candidates", err);
}

int synthesizer_select(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    _cleanup_(message_freep) Hone__V1__Profile *profile = NULL;
    _cleanup_(message_freep) Hone__V1__Scores *scores = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    if (!arena)
        return err_oom(err, "the selection");
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r == 0)
        r = merge_first_results(task, stage->state, err);
    job_state *state = r == 0 ? stage->state : NULL;
    if (r == 0)
        r = message_load(task->store, state->profile, &hone__v1__profile__descriptor, &profile,
                         err);
    if (r == 0)
        r = message_load(task->store, state->scores, &hone__v1__scores__descriptor, &scores, err);
    if (r == 0)
        r = load_graph(task, state->network, &g, err);
    if (r == 0)
        r = state_best_event(task, state->plain_int8, total_us(profile, "int8"),
                             total_us(profile, "fp32"), true, err);
    struct arcs arcs;
    struct select_front front;
    struct select_options options = {.k = K_BEST, .max_score = -1};
    if (r == 0)
        r = arcs_build(g, profile, scores, arena, &arcs, err);
    if (r == 0)
        r = select_front(&arcs.problem, &options, arena, &front, err);
    if (r < 0)
        return r;
    front.exact &= arcs.exact;
    struct proposal proposal = {0};
    r = propose(&arcs, &front, state->plain_int8, arena, &proposal, err);
    return r < 0 ? r : emit_proposals(task, out, state, &proposal, &front, err);
}

/* ---- assemble ---- */

int synthesizer_assemble(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r < 0)
        return r;
    job_state *state = stage->state;
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
    _cleanup_(message_freep) Hone__V1__MeasureTask *measure =
        message_new(&hone__v1__measure_task__descriptor, err);
    if (!measure)
        return -ERR_RESOURCE_EXHAUSTED;
    measure->threads = state->spec->threads;
    measure->batch = state->spec->batch;
    measure->objective = state->spec->objective;
    r = message_set(&measure->target, state->spec->target, err);
    if (r == 0)
        r = state_measure_item(measure, state->baseline, "hone", "fp32", err);
    if (r == 0)
        r = state_measure_item(measure, state->plain_int8, "hone", "auto", err);
    for (size_t i = 0; r == 0 && i < state->n_candidates; i++)
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

/* ---- choose ---- */

static double objective_value(const job_state *state, const job_network *network)
{
    if (state->spec->objective == HONE__V1__OBJECTIVE__SIZE)
        return (double)network->bytes;
    const Hone__V1__Timing *t = state_timing(network, "hone", NULL);
    if (!t)
        return INFINITY;
    return state->spec->objective == HONE__V1__OBJECTIVE__THROUGHPUT && t->images_per_s > 0
               ? 1e6 / t->images_per_s
               : t->p50_us;
}

static bool promising(const job_state *state, const job_network *network)
{
    const Hone__V1__Accuracy *a = state_accuracy(network, "search", "hone");
    return a && a->drop_upper95_points <= state->spec->max_drop;
}

/* Networks in the order in which they are tried: those that keep the limit on the search part by
 * the objective, then the others by how little they drop. */
struct ranked {
    const job_state *state;
    job_network *network;
};

static int by_rank(const void *pa, const void *pb)
{
    const struct ranked *a = pa, *b = pb;
    bool ok_a = promising(a->state, a->network), ok_b = promising(b->state, b->network);
    if (ok_a != ok_b)
        return ok_a ? -1 : 1;
    double x, y;
    if (ok_a) {
        x = objective_value(a->state, a->network);
        y = objective_value(b->state, b->network);
    } else {
        const Hone__V1__Accuracy *p = state_accuracy(a->network, "search", "hone");
        const Hone__V1__Accuracy *q = state_accuracy(b->network, "search", "hone");
        x = p ? p->drop_points : INFINITY;
        y = q ? q->drop_points : INFINITY;
    }
    if (x != y)
        return x < y ? -1 : 1;
    return strcmp(a->network->name, b->network->name);
}

static int take_timings(job_state *state, const Hone__V1__MeasureResult *measured, struct err *err)
{
    size_t expected = 2 + state->n_candidates;
    if (measured->n_timings != expected)
        return err_set(err, ERR_INTERNAL, "choose: %zu timings, %zu expected", measured->n_timings,
                       expected);
    int r = state_add_timing(state->baseline, measured->timings[0], err);
    if (r == 0)
        r = state_add_timing(state->plain_int8, measured->timings[1], err);
    for (size_t i = 0; r == 0 && i < state->n_candidates; i++)
        r = state_add_timing(state->candidates[i], measured->timings[2 + i], err);
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
    double errors[MAX_CANDIDATES + 1], signed_sum = 0;
    int n = 0;
    for (size_t i = 0; i < state->n_candidates && n < MAX_CANDIDATES; i++) {
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

static int pick_finals(job_state *state, struct err *err)
{
    struct ranked ranked[MAX_CANDIDATES + 1];
    size_t n = 0;
    ranked[n++] = (struct ranked){state, state->plain_int8};
    for (size_t i = 0; i < state->n_candidates && n <= MAX_CANDIDATES; i++)
        ranked[n++] = (struct ranked){state, state->candidates[i]};
    qsort(ranked, n, sizeof(*ranked), by_rank);
    double gentlest = INFINITY; /* KL of the finals so far: a further one must be gentler */
    for (size_t i = 0; i < n && state->n_finals < MAX_FINALS; i++) {
        const Hone__V1__Accuracy *a = state_accuracy(ranked[i].network, "search", "hone");
        if (!a || a->kl >= gentlest)
            continue;
        gentlest = a->kl;
        job_network *clone = message_clone(ranked[i].network, err);
        if (!clone)
            return -ERR_RESOURCE_EXHAUSTED;
        int r = message_append(&state->finals, &state->n_finals, clone, err);
        if (r < 0) {
            message_free(clone);
            return r;
        }
        r = state_decide(state, err, "final %zu: %s (search part: drop %.3f points, at most %.3f)",
                         state->n_finals, clone->name, a->drop_points, a->drop_upper95_points);
        if (r < 0)
            return r;
    }
    if (state->n_finals == 0)
        return err_set(err, ERR_INTERNAL, "no network was scored on the search part");
    return 0;
}

static int follow_finals(job_state *state, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__MeasureTask *measure =
        message_new(&hone__v1__measure_task__descriptor, err);
    if (!measure)
        return -ERR_RESOURCE_EXHAUSTED;
    measure->threads = state->spec->threads;
    measure->batch = state->spec->batch;
    measure->objective = state->spec->objective;
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
        Hone__V1__ProveTask prove = HONE__V1__PROVE_TASK__INIT;
        prove.state = state;
        prove.network = state->finals[i];
        r = work_follow(out, "exporter", "prove", &prove.base, err);
        if (r == 0)
            r = state_measure_item(measure, state->finals[i], "hone", "auto", err);
        if (r == 0)
            r = state_measure_item(measure, state->finals[i], "onnxruntime", "auto", err);
    }
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
    if (r == 0)
        r = pick_finals(stage->state, err);
    if (r < 0)
        return r;
    job_state *state = stage->state;
    const Hone__V1__Timing *base = state_timing(state->baseline, "hone", NULL);
    const Hone__V1__Timing *best = state_timing(state->finals[0], "hone", NULL);
    if (base && best)
        r = state_best_event(task, state->finals[0], best->p50_us, base->p50_us, true, err);
    return r < 0 ? r : follow_finals(state, out, err);
}
