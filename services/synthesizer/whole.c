#include "services/synthesizer/whole.h"

#include <math.h>
#include <string.h>

#include "services/synthesizer/blocks.h"
#include "services/synthesizer/propose.h"
#include "services/synthesizer/race.h"
#include "services/synthesizer/synthesizer.h"
#include "shared/base/mem.h"

#define MOST_EPOCHS 20.0
#define RATE 0.001 /* of Adam */
#define BATCH 32
#define SCORED "int8" /* in which they are compared: that is what they will be built in */

int whole_needed(struct work_task *task, const job_state *state, bool *ret, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    int rc = load_graph(task, state->network, &g, err);
    if (rc < 0)
        return rc;
    const struct shape *out = &g->values[g->outputs[0]]->shape;
    *ret = g->n_outputs != 1 || out->rank != 2 || out->dim[1] < 2;
    return 0;
}

/* ---- the lesson ---- */

/* From the network's input to its output. */
static int add_arc(struct work_task *task, const struct graph *g, const job_student *student,
                   Hone__V1__ImitateTask *lesson, struct err *err)
{
    _cleanup_(graph_freep) struct graph *own = NULL;
    int rc = load_graph(task, student->network, &own, err);
    job_arc *arc = rc == 0 ? message_new(&hone__v1__library__arc__descriptor, err) : NULL;
    if (!arc)
        return rc < 0 ? rc : -ERR_RESOURCE_EXHAUSTED;
    arc->values = library_values(own);
    rc = message_set(&arc->text, student->name, err);
    if (rc == 0)
        rc = message_set(&arc->from, g->values[g->inputs[0]]->name, err);
    if (rc == 0)
        rc = message_set(&arc->to, g->values[g->outputs[0]]->name, err);
    if (rc == 0)
        rc = message_set(&arc->network, student->network, err);
    if (rc == 0)
        rc = message_append(&lesson->arcs, &lesson->n_arcs, arc, err);
    if (rc < 0)
        message_free(arc);
    return rc;
}

static int set_lesson(struct work_task *task, const job_state *state, const struct graph *g,
                      Hone__V1__ImitateTask *lesson, struct err *err)
{
    struct design_ends ends;
    int rc = message_set(&lesson->network, state->network, err);
    if (rc == 0)
        rc = message_set(&lesson->data, state->data->artifact, err);
    if (rc == 0)
        rc = message_append_text(&lesson->precisions, &lesson->n_precisions, SCORED, err);
    if (rc == 0)
        rc = students_reads(task, state, &ends, err);
    for (size_t i = 0; rc == 0 && i < state->n_students; i++)
        if (students_active(state->students[i]))
            rc = add_arc(task, g, state->students[i], lesson, err);
    if (rc < 0)
        return rc;
    students_look(&ends, lesson->settings);
    return 0;
}

/* Seconds to score all, in one precision and once for the ranges of values. */
static double scoring_s(const job_state *state, double mac_per_s)
{
    double macs = 0;
    for (size_t i = 0; i < state->n_students; i++)
        if (students_active(state->students[i]))
            macs += (double)state->students[i]->macs;
    return BLOCKS_SMALL * 2 * BLOCKS_SCORED * macs / mac_per_s;
}

/* How many samples there is time for, by the products of all and of the original. */
static double samples_for(const job_state *state, double seconds, double mac_per_s)
{
    double macs = (double)state->baseline->macs;
    for (size_t i = 0; i < state->n_students; i++)
        if (students_active(state->students[i]))
            macs += 3 * (double)state->students[i]->macs;
    return fmin(seconds * mac_per_s / macs, MOST_EPOCHS * (double)state->data->n_train);
}

/* All learn together. */
static uint32_t batch_of(const job_state *state, const Hone__V1__ImitateTask *lesson)
{
    double values = 0;
    for (size_t i = 0; i < lesson->n_arcs; i++)
        values += (double)lesson->arcs[i]->values;
    return blocks_batch_within(BATCH, values, state->data->n_train);
}

static int follow(struct work_task *task, struct work_output *out, job_state *state,
                  const struct graph *g, double samples, double seconds, struct err *err)
{
    Hone__V1__TrainSettings settings = HONE__V1__TRAIN_SETTINGS__INIT;
    _cleanup_(message_freep) Hone__V1__ImitateTask *lesson =
        message_new(&hone__v1__imitate_task__descriptor, err);
    if (!lesson)
        return -ERR_RESOURCE_EXHAUSTED;
    lesson->settings = &settings;
    int rc = set_lesson(task, state, g, lesson, err);
    settings.batch = batch_of(state, lesson);
    settings.rate = RATE;
    settings.seed = state->spec->seed;
    lesson->preprocess = state->preprocess;
    lesson->samples = (uint64_t)samples;
    lesson->seconds = ceil(seconds);
    lesson->reserve_s = state->reserve_s;
    if (rc == 0)
        rc = work_follow(out, "trainer", "imitate", &lesson->base, err);
    lesson->settings = NULL; /* not its own */
    lesson->preprocess = NULL;
    return rc;
}

int whole_begin(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                bool *ret_begun, struct err *err)
{
    _cleanup_(graph_freep) struct graph *g = NULL;
    job_state *state = stage->state;
    double seconds = 0, rate = 0;
    *ret_begun = false;
    int rc = load_graph(task, state->network, &g, err);
    if (rc == 0) /* what is to be small does not learn on afterwards */
        rc = race_time(task, state, &seconds, err);
    if (rc == 0)
        rc = race_rate(task, &rate, err);
    if (rc < 0)
        return rc;
    seconds -= scoring_s(state, rate);
    const double samples = samples_for(state, seconds, rate);
    if (g->n_outputs != 1 || !(samples >= BATCH))
        return state_decide(state, err, "%s do not learn as a whole: %s",
                            "networks of alternatives",
                            g->n_outputs != 1 ? "there are several outputs" : "there is no time");
    rc = state_decide(state, err,
                      "networks of alternatives learn what the original yields, from %.0f samples "
                      "each, about %.0f s",
                      samples, seconds);
    if (rc == 0)
        rc = follow(task, out, state, g, samples, seconds, err);
    *ret_begun = rc == 0;
    return rc == 0 ? work_continue(out, "synthesizer", "settle", &stage->base, err) : rc;
}

/* ---- what came of it ---- */

static job_student *student_of(const job_state *state, const char *name)
{
    for (size_t i = 0; i < state->n_students; i++)
        if (strcmp(state->students[i]->name, name) == 0)
            return state->students[i];
    return NULL;
}

static int take(const Hone__V1__Library__Arc *arc, double epochs, double seconds,
                job_student *student, struct err *err)
{
    if (*arc->out || arc->n_agreement == 0)
        return message_set(&student->out, *arc->out ? arc->out : "it was not scored", err);
    student->rungs++;
    student->seconds += seconds;
    int rc = message_set(&student->network, arc->network, err);
    if (rc == 0)
        rc = message_append_f64(&student->epochs, &student->n_epochs, epochs, err);
    return rc == 0 ? message_append_f64(&student->accuracies, &student->n_accuracies,
                                        arc->agreement[0], err)
                   : rc;
}

static int take_all(struct work_task *task, job_state *state, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__ImitateResult *result = NULL;
    if (task->task->n_results != 1 || !task->task->results[0])
        return state_group_failed(task, 0, "networks of alternatives did not learn", err);
    int rc = work_group_result(task, 0, &hone__v1__imitate_result__descriptor,
                               (ProtobufCMessage **)&result, err);
    const double epochs =
        rc == 0 ? (double)result->samples / fmax((double)state->data->n_train, 1) : 0;
    for (size_t i = 0; rc == 0 && i < result->n_arcs; i++) {
        job_student *student = student_of(state, result->arcs[i]->text);
        if (student)
            rc = take(result->arcs[i], epochs, result->seconds / (double)result->n_arcs, student,
                      err);
    }
    return rc;
}

int synthesizer_settle(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    struct err why = {0};
    int rc = race_stage(task, &stage, err);
    if (rc < 0)
        return rc;
    rc = take_all(task, stage->state, &why);
    if (rc < 0 && !work_is_permanent(why.code))
        return err_set(err, why.code, "%s", why.message);
    if (rc < 0)
        rc = state_decide(stage->state, err, "%s", why.message);
    return rc == 0 ? race_finish(out, stage, err) : rc;
}
