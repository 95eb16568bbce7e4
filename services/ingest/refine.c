#include "services/ingest/refine.h"

#include <string.h>

#include "shared/base/mem.h"
#include "shared/work/goal.h"
#include "shared/work/message.h"
#include "shared/work/so_far.h"

/* ---- the job that is refined ---- */

static int read_record(struct store *store, struct queue *queue, const char *job,
                       Hone__V1__JobRecord **ret, struct err *err)
{
    _cleanup_(job_info_release) struct job_info info = {0};
    int r = spec_check_id(job, err);
    if (r == 0)
        r = so_far_get_state(store, job, ret, err);
    if (r < 0 || *ret)
        return r;
    r = queue_job_get(queue, job, &info, err);
    if (r < 0)
        return r;
    return err_set(err, ERR_NOT_FOUND, "job %s has no result yet that could be refined", job);
}

/* ---- what is asked for ---- */

static int differs(const char *job, const char *what, struct err *err)
{
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "%s cannot be another one than that of job %s, for all that it measured depends "
                   "on it: that is a new job",
                   what, job);
}

static int take_text(const char *job, const char *what, char **to, const char *from,
                     struct err *err)
{
    if (**to && strcmp(*to, from) != 0)
        return differs(job, what, err);
    return message_set(to, from, err);
}

/* Whether it is for other hardware: nothing that was measured holds there, but what was learned. */
static bool moves(const Hone__V1__JobSpec *spec, const Hone__V1__JobSpec *old)
{
    return *spec->target && strcmp(spec->target, old->target) != 0;
}

static int take_texts(Hone__V1__JobSpec *spec, const Hone__V1__JobSpec *old, struct err *err)
{
    const char *job = spec->refines;
    int r = take_text(job, "model", &spec->model_path, old->model_path, err);
    if (r == 0)
        r = take_text(job, "data", &spec->data_path, old->data_path, err);
    if (r == 0 && !*spec->target)
        r = message_set(&spec->target, old->target, err);
    if (r == 0)
        r = take_text(job, "preprocess", &spec->preprocess, old->preprocess, err);
    if (r == 0 && !*spec->title)
        r = message_set(&spec->title, old->title, err);
    if (r == 0 && !*spec->space)
        r = message_set(&spec->space, old->space, err);
    if (r == 0)
        r = take_text(job, "without", &spec->without, old->without, err);
    return r;
}

static int take_numbers(Hone__V1__JobSpec *spec, const Hone__V1__JobSpec *old, struct err *err)
{
    const char *job = spec->refines;
    const bool kept = !moves(spec, old);
    if (kept && spec->threads && spec->threads != old->threads)
        return differs(job, "threads", err);
    if (kept && spec->batch && spec->batch != old->batch)
        return differs(job, "batch", err);
    if (spec->seed && spec->seed != old->seed)
        return differs(job, "seed", err);
    if (spec->objective && spec->objective != old->objective)
        return differs(job, "objective", err);
    spec->threads = spec->threads ? spec->threads : old->threads;
    spec->batch = spec->batch ? spec->batch : old->batch;
    spec->seed = old->seed;
    spec->objective = old->objective;
    if (!spec->has_max_drop && spec->max_us == 0 && spec->max_bytes == 0) {
        spec->max_drop = old->max_drop;
        spec->has_max_drop = true;
        spec->max_us = old->max_us;
        spec->max_bytes = old->max_bytes;
        if (spec->confidence == 0)
            spec->confidence = old->confidence;
    }
    return 0;
}

/* ---- the state ---- */

static int make_state(const Hone__V1__JobSpec *spec, const Hone__V1__JobRecord *record,
                      job_state *state, struct err *err)
{
    message_free(state->taken);
    state->taken = message_new(&hone__v1__taken__descriptor, err);
    if (!state->taken || !state->spec)
        return state->taken ? err_set(err, ERR_DATA_LOSS, "job %s: no spec", spec->refines)
                            : -ERR_RESOURCE_EXHAUSTED;
    const bool moved = moves(spec, record->asked);
    state->taken->prepared_s = moved ? 0 : record->prepared_s;
    state->spec->threads = spec->threads;
    state->spec->batch = spec->batch;
    state->spec->max_drop = spec->max_drop;
    state->spec->has_max_drop = spec->has_max_drop;
    state->spec->max_us = spec->max_us;
    state->spec->max_bytes = spec->max_bytes;
    state->spec->confidence = spec->confidence;
    int r = message_set(&state->spec->space, spec->space, err);
    if (r == 0)
        r = message_set(&state->spec->target, spec->target, err);
    if (r == 0 && moved)
        r = message_set(&state->taken->target, record->asked->target, err);
    return r < 0 ? r : message_set(&state->taken->job, spec->refines, err);
}

int refine_take(struct store *store, struct queue *queue, Hone__V1__JobSpec *spec,
                Hone__V1__JobState **ret, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__JobRecord *record = NULL;
    int r = read_record(store, queue, spec->refines, &record, err);
    if (r == 0)
        r = take_texts(spec, record->asked, err);
    if (r == 0)
        r = take_numbers(spec, record->asked, err);
    if (r == 0)
        r = spec_complete(spec, record->asked->target, err);
    if (r == 0)
        r = make_state(spec, record, record->state, err);
    if (r < 0)
        return r;
    *ret = record->state;
    record->state = NULL;
    return 0;
}
