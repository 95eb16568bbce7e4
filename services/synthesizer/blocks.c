/* The first part of a redesign: alternatives of blocks and stages are listed, priced and taught. */
#include "services/synthesizer/blocks.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/join.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/nn/infer.h"

#define LEAST_SECONDS 20.0 /* of training that a job has: below it is not worth beginning */
#define PRICING_SHARE 0.05 /* of the time for training: what is not priced then is left out */
#define LEAST_PRICING_S 2.0
#define SHARE 0.15           /* of the time for training that alternatives learn in */
#define SHARE_ALONE 0.3      /* where there are no whole students */
#define LEAST_SAVING 0.03    /* of what is replaced: what saves less is no alternative */
#define LEAST_SAMPLES 2048.0 /* below an alternative learns nothing: then there are fewer */
#define MOST_EPOCHS 4.0
#define RATE 0.002 /* of Adam */
#define MOST_BATCH 64
#define LEAST_BATCH 8
#define NOT_FASTER "it is not faster"
#define VALUE_BYTES 12 /* of a number of a sample while it is trained: itself, gradients, norms */
#define ARC_BYTES 4e8  /* of one alternative, about: larger ones learn in smaller batches */
#define LESSON_BYTES 1.5e9
#define LESSON_ARCS 16
#define SCORED 256       /* samples, as in the trainer */
#define LESSON_VALUES 16 /* as in the trainer */

bool blocks_wanted(const Hone__V1__JobSpec *spec, const job_state *state)
{
    return spec_space_has(spec, "blocks") && !state->replaced;
}

int blocks_alone(struct work_task *task, const job_state *state, bool *ret, struct err *err)
{
    struct design_ends ends;
    struct err why = {0};
    *ret = !spec_space_has(state->spec, "students");
    int rc = *ret ? 0 : students_ends(task, state, &ends, &why);
    if (rc == -ERR_FAILED_PRECONDITION)
        *ret = true;
    else if (rc < 0)
        return err_set(err, why.code, "%s", why.message);
    return 0;
}

int blocks_leave(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err)
{
    bool alone = false;
    stage->state->replaced = true;
    int rc = blocks_alone(task, stage->state, &alone, err);
    if (rc < 0)
        return rc;
    return alone ? race_finish(out, stage, err)
                 : work_follow(out, "synthesizer", "redesign", &stage->base, err);
}

/* A job that refines this one begins anew. */
static int give_up(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                   const struct err *why, struct err *err)
{
    if (!work_is_permanent(why->code))
        return err_set(err, why->code, "%s", why->message);
    int rc = state_decide(stage->state, err, "no alternatives of blocks: %s", why->message);
    if (rc == 0)
        rc = message_set(&stage->state->library, "", err);
    return rc == 0 ? blocks_leave(task, out, stage, err) : rc;
}

/* ---- prices ---- */

/* Of one number there is no largest: whatever stands in a network of one answer agrees with it. */
static int look_at_answers(const struct graph *g, struct err *err)
{
    int64_t width = 0;
    int rc = infer_output_width(g, &width, err);
    return rc == 0 && width < 2
               ? err_set(err, ERR_FAILED_PRECONDITION, "%s",
                         "the network has one answer, which does not tell how much they hurt")
               : rc;
}

static int ask(struct work_task *task, struct work_output *out, job_state *state, double seconds,
               struct err *err)
{
    _cleanup_(library_parts_release) struct library_parts parts = {0};
    _cleanup_(message_freep) job_library *library = NULL;
    _cleanup_(message_freep) Hone__V1__PriceTask *price =
        message_new(&hone__v1__price_task__descriptor, err);
    _cleanup_(freep) char *queue = state_profiler_queue(state);
    if (!price || !queue)
        return err_oom(err, "prices");
    price->threads = state->spec->threads;
    price->batch = state->spec->batch;
    price->seconds = fmax(PRICING_SHARE * seconds, LEAST_PRICING_S);
    int rc = message_set(&price->target, state->spec->target, err);
    if (rc == 0)
        rc = library_parts_load(task, state, &parts, err);
    if (rc == 0)
        rc = look_at_answers(parts.g, err);
    if (rc == 0)
        rc = library_make(task, state, &parts, price, &library, err);
    if (rc == 0 && library->n_arcs == 0)
        rc = err_set(err, ERR_FAILED_PRECONDITION, "%s",
                     "nothing between two cut points could be replaced");
    if (rc == 0)
        rc = library_keep(task, state, library, err);
    if (rc == 0)
        rc = state_decide(state, err, "blocks: %zu alternatives for %d units of the original",
                          library->n_arcs, parts.units.n);
    return rc == 0 ? work_follow(out, queue, "price", &price->base, err) : rc;
}

/* Whether a job before has taught and scored any of its alternatives. */
static int is_taught(struct work_task *task, const job_state *state, bool *ret, struct err *err)
{
    _cleanup_(message_freep) job_library *library = NULL;
    struct err why = {0};
    *ret = false;
    int rc = *state->library ? library_load(task, state, &library, &why) : 0;
    for (size_t i = 0; library && i < library->n_arcs; i++)
        *ret |= library->arcs[i]->n_kl > 0;
    return rc == 0 || work_is_permanent(rc) ? 0 : err_set(err, why.code, "%s", why.message);
}

int blocks_begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                 struct err *err)
{
    struct err why = {0};
    double seconds = 0;
    bool taught = false;
    int rc = race_keep_reserve(task, stage->state, err);
    if (rc == 0)
        rc = is_taught(task, stage->state, &taught, err);
    if (rc == 0)
        rc = race_seconds(task, stage->state, &seconds, err);
    if (rc < 0)
        return rc;
    if (taught)
        return join_again(task, out, stage, err);
    rc = seconds < LEAST_SECONDS
             ? err_set(&why, ERR_FAILED_PRECONDITION, "the budget leaves %.0f s for training",
                       fmax(seconds, 0))
             : ask(task, out, stage->state, seconds, &why);
    return rc < 0 ? give_up(task, out, stage, &why, err)
                  : work_continue(out, "synthesizer", "imitate", &stage->base, err);
}

/* ---- who learns ---- */

static bool is_in(const job_arc *arc)
{
    return !*arc->out;
}

/* Whether a batch can be trained of what has so many numbers for each sample. */
static bool fits(uint32_t batch, double values, double bytes)
{
    return VALUE_BYTES * (double)batch * values <= bytes;
}

static int drop_unfit(const struct library_parts *parts, job_library *library, struct err *err)
{
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < library->n_arcs; i++) {
        job_arc *arc = library->arcs[i];
        double kept = INFINITY;
        for (size_t p = 0; p < library->n_precisions; p++) {
            const double us = library_kept_us(parts, arc, p);
            kept = us > 0 ? fmin(kept, us) : kept;
        }
        if (!(library_saving(parts, arc) > LEAST_SAVING * kept))
            rc = message_set(&arc->out, NOT_FASTER, err);
        else if (!fits(LEAST_BATCH, (double)arc->values, LESSON_BYTES))
            rc = message_set(&arc->out, "it is too large to learn", err);
    }
    return rc;
}

/* Products for each sample that the arcs of a lesson learn from: each of them forward and backward,
 * the original forward. */
static double lesson_macs(const job_state *state, const job_library *library, size_t first,
                          size_t end)
{
    double macs = (double)state->baseline->macs;
    for (size_t i = first; i < end; i++)
        macs += is_in(library->arcs[i]) ? 3 * (double)library->arcs[i]->macs : 0;
    return macs;
}

static double all_macs(const job_state *state, const job_library *library)
{
    double macs = 0;
    for (size_t first = 0, end; first < library->n_arcs; first = end) {
        end = blocks_lesson(library, first);
        macs += lesson_macs(state, library, first, end);
    }
    return macs;
}

/* Seconds of trainers for each sample that all learn from. */
static double seconds_each(const job_state *state, const job_library *library, double mac_per_s)
{
    return BLOCKS_SMALL * all_macs(state, library) / mac_per_s;
}

static size_t count_in(const job_library *library)
{
    size_t n = 0;
    for (size_t i = 0; i < library->n_arcs; i++)
        n += is_in(library->arcs[i]);
    return n;
}

/* Seconds of trainers to score them: what lies behind each, half of the original on average, in
 * every precision and once for the ranges of values. */
static double scoring_s(const job_state *state, const job_library *library, double mac_per_s)
{
    const double runs = (double)(count_in(library) * (library->n_precisions + 1));
    return BLOCKS_SMALL * BLOCKS_SCORED * runs * (double)state->baseline->macs / 2 / mac_per_s;
}

/* worth[i]: what arc i saves for what it costs to teach. */
static job_arc *least_worth(const job_library *library, const double *worth)
{
    job_arc *least = NULL;
    double w = INFINITY;
    for (size_t i = 0; i < library->n_arcs; i++)
        if (is_in(library->arcs[i]) && worth[i] < w) {
            w = worth[i];
            least = library->arcs[i];
        }
    return least;
}

/* As many alternatives as can learn something in the time and be scored, and from how many samples
 * each. What scoring takes is taken off the seconds. */
static int spread_time(const job_state *state, const struct library_parts *parts,
                       job_library *library, double *seconds, double mac_per_s, struct err *err)
{
    const double most = MOST_EPOCHS * (double)state->data->n_train;
    const double least = fmin(LEAST_SAMPLES, most);
    _cleanup_(freep) double *worth = mem_calloc(library->n_arcs + 1, sizeof(*worth));
    job_arc *last;
    if (!worth)
        return err_oom(err, "alternatives");
    for (size_t i = 0; i < library->n_arcs; i++)
        worth[i] = library_saving(parts, library->arcs[i]) / ((double)library->arcs[i]->macs + 1);
    double each = seconds_each(state, library, mac_per_s);
    double scoring = scoring_s(state, library, mac_per_s);
    while (each * least + scoring > *seconds && (last = least_worth(library, worth)) != NULL) {
        int rc = message_set(&last->out, "there is no time for it to learn", err);
        if (rc < 0)
            return rc;
        each = seconds_each(state, library, mac_per_s);
        scoring = scoring_s(state, library, mac_per_s);
    }
    *seconds = fmax(*seconds - scoring, 0);
    library->samples = each > 0 ? (uint64_t)fmin(*seconds / each, most) : 0;
    return 0;
}

/* ---- lessons ---- */

static bool is_known(const char *const *values, int n, const char *value)
{
    for (int i = 0; i < n; i++)
        if (strcmp(values[i], value) == 0)
            return true;
    return false;
}

uint32_t blocks_batch(const job_library *library)
{
    uint32_t batch = MOST_BATCH;
    double most = 0;
    for (size_t i = 0; i < library->n_arcs; i++)
        if (is_in(library->arcs[i]))
            most = fmax(most, (double)library->arcs[i]->values);
    while (batch > LEAST_BATCH && !fits(batch, most, ARC_BYTES))
        batch /= 2;
    return batch;
}

uint32_t blocks_batch_within(uint32_t batch, double values, uint64_t n)
{
    while (batch > LEAST_BATCH && !fits(batch, values, LESSON_BYTES))
        batch /= 2;
    while (batch > 1 && batch > n)
        batch /= 2;
    return batch;
}

size_t blocks_lesson(const job_library *library, size_t first)
{
    const char *values[LESSON_VALUES + 2];
    const double each = VALUE_BYTES * blocks_batch(library);
    double bytes = 0;
    int n = 0, arcs = 0;
    size_t i = first;
    for (; i < library->n_arcs && arcs < LESSON_ARCS; i++) {
        const job_arc *arc = library->arcs[i];
        if (!is_in(arc))
            continue;
        if (!is_known(values, n, arc->from))
            values[n++] = arc->from;
        if (!is_known(values, n, arc->to))
            values[n++] = arc->to;
        bytes += each * (double)arc->values;
        if (n > LESSON_VALUES || (arcs > 0 && bytes > LESSON_BYTES))
            break;
        arcs++;
    }
    return i;
}

/* Where they begin in the network, then in the order in which they were listed. */
struct placed {
    job_arc *arc;
    size_t index;
};

static int by_place(const void *pa, const void *pb)
{
    const struct placed *a = pa, *b = pb;
    if (a->arc->first != b->arc->first)
        return a->arc->first < b->arc->first ? -1 : 1;
    return a->index < b->index ? -1 : a->index > b->index;
}

static int sort_arcs(job_library *library, struct err *err)
{
    _cleanup_(freep) struct placed *list = mem_calloc(library->n_arcs + 1, sizeof(*list));
    if (!list)
        return err_oom(err, "alternatives");
    for (size_t i = 0; i < library->n_arcs; i++)
        list[i] = (struct placed){library->arcs[i], i};
    qsort(list, library->n_arcs, sizeof(*list), by_place);
    for (size_t i = 0; i < library->n_arcs; i++)
        library->arcs[i] = list[i].arc;
    return 0;
}

static int follow_lesson(struct work_output *out, const job_state *state,
                         const struct design_ends *ends, const job_library *library, size_t first,
                         size_t end, double seconds, struct err *err)
{
    Hone__V1__ImitateTask lesson = HONE__V1__IMITATE_TASK__INIT;
    Hone__V1__TrainSettings settings = HONE__V1__TRAIN_SETTINGS__INIT;
    _cleanup_(freep) job_arc **arcs = mem_calloc(end - first + 1, sizeof(*arcs));
    if (!arcs)
        return err_oom(err, "alternatives");
    for (size_t i = first; i < end; i++)
        if (is_in(library->arcs[i]))
            arcs[lesson.n_arcs++] = library->arcs[i];
    students_look(ends, &settings);
    settings.batch = blocks_batch_within(blocks_batch(library), 0, state->data->n_train);
    settings.rate = RATE;
    settings.seed = state->spec->seed;
    lesson.arcs = arcs;
    lesson.network = state->network;
    lesson.data = state->data->artifact;
    lesson.preprocess = state->preprocess;
    lesson.settings = &settings;
    lesson.samples = library->samples;
    lesson.seconds = seconds;
    lesson.reserve_s = state->reserve_s;
    lesson.precisions = library->precisions;
    lesson.n_precisions = library->n_precisions;
    return lesson.n_arcs > 0 ? work_follow(out, "trainer", "imitate", &lesson.base, err) : 0;
}

/* Each has the time that its products need of all. */
static int follow_lessons(struct work_task *task, struct work_output *out, const job_state *state,
                          const job_library *library, double seconds, struct err *err)
{
    struct design_ends ends;
    const double all = all_macs(state, library);
    int rc = students_reads(task, state, &ends, err);
    for (size_t first = 0, end; rc == 0 && first < library->n_arcs; first = end) {
        end = blocks_lesson(library, first);
        const double share = lesson_macs(state, library, first, end) / all;
        rc = follow_lesson(out, state, &ends, library, first, end, ceil(seconds * share), err);
    }
    return rc;
}

/* ---- the stage imitate ---- */

static int tell(struct work_task *task, job_state *state, const job_library *library,
                double seconds, struct err *err)
{
    const size_t n = count_in(library);
    size_t faster = 0;
    char fields[160];
    for (size_t i = 0; i < library->n_arcs; i++)
        faster += strcmp(library->arcs[i]->out, NOT_FASTER) != 0;
    if (n == 0)
        return err_set(err, ERR_FAILED_PRECONDITION, "%s",
                       faster ? "there is no time for any of them to learn"
                              : "none of them is faster");
    snprintf(fields, sizeof(fields), "\"alternatives\":%zu,\"samples\":%llu,\"seconds\":%.0f", n,
             (unsigned long long)library->samples, seconds);
    int rc = state_decide(state, err,
                          "blocks: %zu alternatives are faster; each learns from %llu samples, "
                          "about %.0f s",
                          n, (unsigned long long)library->samples, seconds);
    return rc == 0 ? work_event(task, "blocks", fields, err) : rc;
}

static int teach(struct work_task *task, struct work_output *out, job_state *state, struct err *err)
{
    _cleanup_(library_parts_release) struct library_parts parts = {0};
    _cleanup_(message_freep) job_library *library = NULL;
    _cleanup_(message_freep) Hone__V1__PriceResult *prices = NULL;
    double seconds = 0, rate = 0;
    bool alone = false;
    if (task->task->n_results != 1 || !task->task->results[0])
        return state_group_failed(task, 0, "pricing alternatives failed", err);
    int rc = work_group_result(task, 0, &hone__v1__price_result__descriptor,
                               (ProtobufCMessage **)&prices, err);
    if (rc == 0)
        rc = library_load(task, state, &library, err);
    if (rc == 0)
        rc = library_price(library, prices, err);
    if (rc == 0)
        rc = library_parts_load(task, state, &parts, err);
    if (rc == 0)
        rc = drop_unfit(&parts, library, err);
    if (rc == 0)
        rc = race_seconds(task, state, &seconds, err);
    if (rc == 0)
        rc = race_rate(task, &rate, err);
    if (rc == 0)
        rc = blocks_alone(task, state, &alone, err);
    seconds *= alone ? SHARE_ALONE : SHARE;
    if (rc == 0)
        rc = sort_arcs(library, err);
    if (rc == 0)
        rc = spread_time(state, &parts, library, &seconds, rate, err);
    if (rc == 0)
        rc = tell(task, state, library, seconds, err);
    if (rc == 0)
        rc = library_keep(task, state, library, err);
    return rc == 0 ? follow_lessons(task, out, state, library, seconds, err) : rc;
}

int synthesizer_imitate(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    struct err why = {0};
    int rc = race_stage(task, &stage, err);
    if (rc < 0)
        return rc;
    rc = teach(task, out, stage->state, &why);
    return rc < 0 ? give_up(task, out, stage, &why, err)
                  : work_continue(out, "synthesizer", "join", &stage->base, err);
}
