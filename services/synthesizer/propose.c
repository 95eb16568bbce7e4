#include "services/synthesizer/propose.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/arcs.h"
#include "services/synthesizer/budget.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/retarget.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"
#include "shared/work/goal.h"
#include "shared/work/state.h"

#define K_BEST 8       /* paths kept under each limit */
#define MAX_PROPOSED 4 /* in one round */

int load_graph(struct work_task *task, const char *artifact, struct graph **ret, struct err *err)
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
    struct arc_choice choice[MAX_PROPOSED + 1];          /* [0] is plain int8 */
    double cost[MAX_PROPOSED + 1], kl[MAX_PROPOSED + 1]; /* us, or bytes of weights */
    int n;
};

/* Under which limits on the score a round looks. */
struct ladder {
    double limit; /* of the first level; INFINITY: the fastest path of all */
    double step;  /* each level's limit is that of the level's best path divided by this */
    double most;  /* us, or bytes: nothing above; the gentlest of those comes first. INFINITY: there
                     is no limit */
};

static int count_precision(const struct arc_choice *choice, const char *precision)
{
    int n = 0;
    for (int i = 0; i < choice->n; i++)
        n += strcmp(choice->precisions[i], precision) == 0;
    return n;
}

/* Takes the path up where it is different enough: 1, else 0. */
static int consider(const struct arcs *arcs, const struct select_path *path,
                    const job_network *plain, struct arena *arena, struct proposal *ret,
                    struct err *err)
{
    struct arc_choice choice;
    int r = arcs_path_choice(arcs, path, arena, &choice, err);
    if (r == 0 && ret->n == 0) {
        r = plain_choice(&choice, plain, arena, &ret->choice[0], err);
        ret->n = 1;
    }
    if (r < 0)
        return r;
    if (count_precision(&choice, "fp32") == choice.n ||
        !differs_enough(&choice, ret->choice, ret->n))
        return 0;
    ret->cost[ret->n] = path->cost + arcs->floor_us;
    ret->kl[ret->n] = path->score;
    ret->choice[ret->n++] = choice;
    return 1;
}

/* The fastest path under ever tighter limits on the score, different enough; at most `most`. */
static int propose(const struct arcs *arcs, const struct select_front *front,
                   const job_network *plain, struct ladder ladder, int most, struct arena *arena,
                   struct proposal *ret, struct err *err)
{
    const double most_cost = ladder.most - arcs->floor_us;
    const int gentlest = isfinite(most_cost) ? select_gentlest(front, most_cost) : -1;
    double limit = ladder.limit;
    int r = gentlest >= 0 && most > 0
                ? consider(arcs, &front->paths[gentlest], plain, arena, ret, err)
                : 0;
    for (int level = 0; r >= 0 && level < 8 && most > 0 && ret->n <= most; level++) {
        int best[K_BEST], n = select_best(front, limit, K_BEST, best);
        if (n == 0 || front->paths[best[0]].cost > most_cost)
            break;
        limit = front->paths[best[0]].score / ladder.step;
        r = 0;
        for (int i = 0; r == 0 && i < n; i++)
            if (front->paths[best[i]].cost <= most_cost)
                r = consider(arcs, &front->paths[best[i]], plain, arena, ret, err);
        if (limit <= 0)
            break;
    }
    return r < 0 ? r : 0;
}

static int add_build(struct work_output *out, const job_state *state, const struct proposal *p,
                     int i, struct err *err)
{
    Hone__V1__BuildTask build = HONE__V1__BUILD_TASK__INIT;
    size_t n = (size_t)p->choice[i].n;
    _cleanup_(freep) Hone__V1__LayerChoice *layers = mem_calloc(n, sizeof(*layers));
    _cleanup_(freep) Hone__V1__LayerChoice **pointers = mem_calloc(n, sizeof(*pointers));
    _cleanup_(freep) char *name = str_printf("candidate-%d", (int)state->n_proposed + i);
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
    build.predicted_us = goal_small(state->spec) ? 0 : p->cost[i];
    build.predicted_kl = p->kl[i];
    return work_follow(out, "exporter", "build", &build.base, err);
}

/* "candidate-2: 12 layers int8, 3 fp32; predicted 190.1 us, KL 0.00123" */
static int decide_candidate(job_state *state, const struct proposal *p, int i, struct err *err)
{
    static const char *const names[] = {"int4", "int5", "int6", "int8", "bf16", "fp32"};
    _cleanup_(strbuf_release) struct strbuf layers = {0};
    char cost[32];
    for (size_t k = 0; k < sizeof(names) / sizeof(*names); k++) {
        const int n = count_precision(&p->choice[i], names[k]);
        if (n > 0)
            strbuf_printf(&layers, "%s%d %s%s", layers.length ? ", " : "", n,
                          layers.length ? "" : "layers ", names[k]);
    }
    if (layers.failed)
        return err_oom(err, "a decision");
    if (goal_small(state->spec))
        str_bytes(p->cost[i], cost);
    else
        snprintf(cost, sizeof(cost), "%.1f us", p->cost[i]);
    return state_decide(state, err, "candidate-%d: %s; predicted %s%s, KL %.5f",
                        (int)state->n_proposed + i, layers.data ? layers.data : "", cost,
                        goal_small(state->spec) ? " of weights" : "", p->kl[i]);
}

static int emit_proposals(struct work_task *task, struct work_output *out, job_state *state,
                          const struct proposal *p, const struct select_front *front,
                          struct err *err)
{
    const int n = p->n > 0 ? p->n - 1 : 0;
    int r = state_decide(state, err,
                         "selection: %d paths on the front (%s), %d candidates proposed beside "
                         "plain int8",
                         front->n_paths, front->exact ? "exact" : "thinned", n);
    for (int i = 1; r == 0 && i < p->n; i++)
        r = decide_candidate(state, p, i, err);
    for (int i = 1; r == 0 && i < p->n; i++)
        r = add_build(out, state, p, i, err);
    state->n_proposed += (uint32_t)n;
    /* Who learned for another target, and needs not learn on in few bits first, keeps them company.
     */
    if (r == 0 && state->n_rounds == 0 && retarget_wanted(state) && !goal_small(state->spec))
        r = race_ask_known(out, state, err);
    Hone__V1__StageTask next = HONE__V1__STAGE_TASK__INIT;
    next.state = state;
    if (r == 0)
        r = work_continue(out, "synthesizer", "assemble", &next.base, err);
    return r < 0 ? r : work_progress(task, "select", n, n, "candidates", err);
}

/* ---- the budget ---- */

int affordable(struct work_task *task, job_state *state, budget_fn *allows, int most,
               const char *what, int *ret, struct err *err)
{
    double elapsed = 0, left = 0;
    int r = state_time(task, &elapsed, &left, err);
    if (r < 0)
        return r;
    /* Steps at the end take no longer for all the training before them. */
    *ret = allows(state->reserve_s > 0 ? fmin(elapsed, state->reserve_s) : elapsed, left, most);
    if (*ret == most)
        return 0;
    r = state_decide(state, err, "budget: %.0f s after %.0f s, at most %d %s", left, elapsed, *ret,
                     what);
    char fields[128];
    snprintf(fields, sizeof(fields), "\"elapsed_s\":%.1f,\"left_s\":%.1f,\"%s\":%d", elapsed, left,
             what, *ret);
    return r < 0 ? r : work_event(task, "budget", fields, err);
}

/* ---- a round ---- */

/* Profile, scores and network become arcs; their best paths become candidates to be built. The
 * first round goes on without any, too: to plain int8. */
static int design(struct work_task *task, struct work_output *out, job_state *state,
                  const Hone__V1__Profile *profile, struct ladder ladder, int most, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__Scores *scores = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    _cleanup_(arena_freep) struct arena *arena = arena_new();
    if (!arena)
        return err_oom(err, "the selection");
    struct arcs arcs;
    struct select_front front;
    struct select_options options = {.k = K_BEST, .max_score = -1};
    struct proposal proposal = {0};
    int r = message_load(task->store, state->scores, &hone__v1__scores__descriptor, &scores, err);
    if (r == 0)
        r = load_graph(task, state->network, &g, err);
    if (r == 0)
        r = arcs_build(g, profile, scores, NULL, goal_small(state->spec), arena, &arcs, err);
    if (r == 0)
        r = select_front(&arcs.problem, &options, arena, &front, err);
    if (r < 0)
        return r;
    front.exact &= arcs.exact;
    r = propose(&arcs, &front, state->plain_int8, ladder, most, arena, &proposal, err);
    if (r < 0 || (proposal.n <= 1 && state->n_rounds > 0))
        return r;
    return emit_proposals(task, out, state, &proposal, &front, err);
}

static int load_profile(struct work_task *task, const job_state *state, Hone__V1__Profile **ret,
                        struct err *err)
{
    return message_load(task->store, state->profile, &hone__v1__profile__descriptor, ret, err);
}

int synthesizer_select(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    _cleanup_(message_freep) Hone__V1__Profile *profile = NULL;
    int most = 0;
    int r = work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (r == 0)
        r = merge_first_results(task, stage->state, err);
    job_state *state = r == 0 ? stage->state : NULL;
    if (r == 0)
        r = load_profile(task, state, &profile, err);
    if (r == 0)
        r = state_best_event(task, state, state->plain_int8, total_us(profile, "int8"),
                             total_us(profile, "fp32"), true, err);
    if (r == 0)
        r = affordable(task, state, budget_candidates, MAX_PROPOSED, "candidates", &most, err);
    if (r < 0)
        return r;
    const double limit =
        goal_small(state->spec) ? (double)state->spec->max_bytes : state->spec->max_us;
    const struct ladder ladder = {INFINITY, 2, limit > 0 ? limit : INFINITY};
    return design(task, out, state, profile, ladder, most, err);
}

/* The score that the gentlest candidate was expected to have. */
static double gentlest_kl(const job_state *state)
{
    double least = INFINITY;
    for (size_t i = 0; i < state->n_candidates; i++)
        if (state->candidates[i]->predicted_kl > 0)
            least = fmin(least, state->candidates[i]->predicted_kl);
    return least;
}

int propose_gentler(struct work_task *task, struct work_output *out, job_state *state,
                    bool *ret_proposed, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__Profile *profile = NULL;
    const double kl = gentlest_kl(state);
    int most = 0;
    *ret_proposed = false;
    int r = affordable(task, state, budget_candidates, MAX_PROPOSED, "candidates", &most, err);
    if (r < 0 || most == 0 || !isfinite(kl))
        return r;
    r = state_decide(state, err, "no network keeps the limit on the search part: gentler ones");
    if (r == 0)
        r = load_profile(task, state, &profile, err);
    const uint32_t before = state->n_proposed;
    if (r == 0)
        r = design(task, out, state, profile, (struct ladder){kl / 4, 4, INFINITY}, most, err);
    *ret_proposed = r == 0 && state->n_proposed > before;
    return r;
}
