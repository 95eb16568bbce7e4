/* Task "score": the sensitivity of every layer to every lower precision that the CPU computes in;
 * where a small file is wanted, to every number of bits that weights may have. */
#include <stdlib.h>
#include <string.h>

#include <hone/v1/job.pb-c.h>
#include <hone/v1/tasks.pb-c.h>

#include "services/trainer/blend.h"
#include "services/trainer/sensitivity.h"
#include "services/trainer/trainer.h"
#include "shared/graph/onnx.h"
#include "shared/nn/ranges.h"
#include "shared/work/goal.h"
#include "shared/work/state.h"

struct score {
    struct work_task *task;
    const job_state *state;
    struct graph *graph;
    struct quant_ranges ranges;
    struct blend samples;
    struct arena *arena;
};

static void score_release(struct score *s)
{
    graph_free(s->graph);
    quant_ranges_release(&s->ranges);
    blend_release(&s->samples);
    arena_free(s->arena);
}

static int open_network(struct score *s, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(message_freep) Hone__V1__Ranges *ranges = NULL;
    size_t bytes = 0;
    int rc = store_get(s->task->store, s->state->network, onnx_default_limits.max_file_bytes, &data,
                       &bytes, err);
    if (rc == 0)
        rc = onnx_read_bytes(data, bytes, NULL, NULL, &s->graph, err);
    if (rc == 0)
        rc = message_load(s->task->store, s->state->ranges, &hone__v1__ranges__descriptor, &ranges,
                          err);
    return rc < 0 ? rc : ranges_from_message(ranges, &s->ranges, err);
}

static int open_samples(struct score *s, int n_choices, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    int64_t n = 0;
    int rc = sensitivity_samples(s->graph, n_choices, &n, err);
    if (rc == 0)
        rc = store_get_path(s->task->store, s->state->data->artifact, &path, err);
    return rc == 0 ? blend_open(&s->samples, path, s->state->preprocess->text, n,
                                s->state->spec->seed, err)
                   : rc;
}

static int on_progress(void *ctx, int64_t done, int64_t total, struct err *err)
{
    const struct score *s = ctx;
    const double samples = (double)s->samples.view.n;
    return work_progress(s->task, "score", (double)done / samples, (double)total / samples,
                         "layers", err);
}

static int add_score(Hone__V1__Scores *scores, const struct sensitivity *from, struct err *err)
{
    Hone__V1__Scores__Score *score = message_new(&hone__v1__scores__score__descriptor, err);
    if (!score)
        return -ERR_RESOURCE_EXHAUSTED;
    score->kl = from->kl;
    score->agreement = from->agreement;
    score->bytes = from->bytes;
    char text[8];
    int rc = message_set(&score->layer, from->choice.layer, err);
    if (rc == 0)
        rc = message_set(&score->precision, quant_choice_name(&from->choice, text), err);
    if (rc == 0)
        rc = message_append(&scores->scores, &scores->n_scores, score, err);
    if (rc < 0)
        message_free(score);
    return rc;
}

static int finish(const struct score *s, const struct sensitivity *found, int n,
                  struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__Scores *scores =
        message_new(&hone__v1__scores__descriptor, err);
    if (!scores)
        return -ERR_RESOURCE_EXHAUSTED;
    scores->samples = (uint64_t)s->samples.view.n;
    char name[HASH_HEX_BYTES];
    int rc = 0;
    for (int i = 0; i < n && rc == 0; i++)
        rc = add_score(scores, &found[i], err);
    if (rc == 0)
        rc = message_store(s->task->store, scores, name, err);
    if (rc < 0)
        return rc;
    Hone__V1__ScoreResult result = HONE__V1__SCORE_RESULT__INIT;
    result.scores = name;
    return work_result(out, &result.base, err);
}

/* What is tried; returns how many. */
static int choices_of(const job_state *state, const struct quant_choice **ret)
{
    static const struct quant_choice fast[] = {{.precision = PRECISION_INT8},
                                               {.precision = PRECISION_BF16}};
    static const struct quant_choice small[] = {{.precision = PRECISION_INT8},
                                                {.precision = PRECISION_INT8, .weight_bits = 6},
                                                {.precision = PRECISION_INT8, .weight_bits = 5},
                                                {.precision = PRECISION_INT8, .weight_bits = 4}};
    const bool by_size = goal_small(state->spec);
    *ret = by_size ? small : fast;
    return by_size ? 4 : nn_has_bf16() ? 2 : 1;
}

int trainer_score(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int rc =
        work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&stage, err);
    if (rc < 0)
        return rc;
    _cleanup_(score_release) struct score s = {
        .task = task, .state = stage->state, .arena = arena_new()};
    if (!s.arena)
        return err_oom(err, "the scores");
    const struct quant_choice *choices;
    const int n_choices = choices_of(s.state, &choices);
    rc = open_network(&s, err);
    if (rc == 0)
        rc = open_samples(&s, n_choices, err);
    if (rc < 0)
        return err_wrap(err, "scoring layers");
    const struct sensitivity_options options = {
        .threads = task->threads,
        .n = s.samples.view.n,
        .fill = blend_fill,
        .fill_ctx = &s.samples,
        .choices = choices,
        .n_choices = n_choices,
        .weight_bits = nn_has_int8() ? 8 : 7, /* 8 would saturate here */
        .progress = on_progress,
        .progress_ctx = &s,
    };
    struct sensitivity *found;
    int n;
    rc = sensitivity_measure(s.graph, &s.ranges, &options, s.arena, &found, &n, err);
    return rc < 0 ? rc : finish(&s, found, n, out, err);
}
