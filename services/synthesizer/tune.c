/*
 * The stages "tune" and "tuned": students in few bits learn on in them. What is trained is what
 * ships: every step computes with the integers of the file (shared/train/network.md).
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/race.h"
#include "services/synthesizer/stages.h"
#include "services/synthesizer/synthesizer.h"
#include "services/synthesizer/whole.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MOST_EPOCHS 20
#define SPENT                                                                                      \
    0.9 /* of the time there is: the rest is for the teacher's answers, and for surprises */
/* Epochs of quantized networks are in fp32, and round as they go: so much longer than those before,
 * which were in bf16 where the CPU has it. */
#define SLOWER 4.0

/* ---- who ---- */

static job_student *student_of(const job_state *state, const job_network *network)
{
    for (size_t i = 0; i < state->n_students; i++)
        if (strcmp(state->students[i]->design, network->design) == 0)
            return state->students[i];
    return NULL;
}

static bool has_fewest_bits(const job_network *network)
{
    char fewest[16];
    snprintf(fewest, sizeof(fewest), "int%d", STUDENT_BITS);
    for (size_t i = 0; i < network->n_layers; i++)
        if (strcmp(network->layers[i]->precision, fewest) == 0)
            return true;
    return false;
}

struct pupil {
    job_network *network;
    job_student *student;
    double epoch_s;
};

/* Of the candidates that are new, in the order in which they were asked for; returns how many. */
static int list_pupils(const job_state *state, size_t old, double mac_per_s, struct pupil *list)
{
    int n = 0;
    for (size_t i = old; i < state->n_candidates; i++) {
        job_network *network = state->candidates[i];
        job_student *student = *network->design ? student_of(state, network) : NULL;
        if (student && has_fewest_bits(network))
            list[n++] = (struct pupil){network, student,
                                       SLOWER * students_epoch_s(state, student, mac_per_s)};
    }
    return n;
}

/* Epochs for each of the first *n; fewer of them where there would be none. */
static int epochs_for(const struct pupil *list, int *n, double seconds)
{
    for (; *n > 0; (*n)--) {
        double epoch_s = 0;
        for (int i = 0; i < *n; i++)
            epoch_s += list[i].epoch_s;
        if (SPENT * seconds >= epoch_s)
            return (int)fmin(floor(SPENT * seconds / epoch_s), MOST_EPOCHS);
    }
    return 0;
}

/* ---- tune ---- */

static int ask(struct work_task *task, struct work_output *out, job_state *state,
               const struct pupil *list, int n, int epochs, struct err *err)
{
    struct design_ends ends;
    int rc = students_reads(task, state, &ends, err);
    if (rc == 0)
        rc = state_decide(state, err, "few bits: %d networks learn on in them, %d epochs each", n,
                          epochs);
    for (int i = 0; rc == 0 && i < n; i++) {
        rc = message_append_text(&state->tuning, &state->n_tuning, list[i].network->name, err);
        if (rc == 0)
            rc = students_tune(out, state, list[i].student, list[i].network, &ends, epochs, err);
    }
    return rc;
}

/* *ret_begun: whether anybody learns on. They learn by their answers, which must be classes. */
static int begin(struct work_task *task, struct work_output *out, job_state *state, size_t old,
                 bool *ret_begun, struct err *err)
{
    _cleanup_(freep) struct pupil *list = mem_calloc(state->n_candidates + 1, sizeof(*list));
    double seconds = 0, rate = 0;
    bool whole = false;
    *ret_begun = false;
    int rc = list ? race_time(task, state, &seconds, err) : err_oom(err, "students");
    if (rc == 0)
        rc = race_rate(task, &rate, err);
    if (rc == 0)
        rc = whole_needed(task, state, &whole, err);
    if (rc < 0 || whole)
        return rc;
    int n = list_pupils(state, old, rate, list);
    const int epochs = epochs_for(list, &n, seconds);
    if (n == 0)
        return 0;
    rc = ask(task, out, state, list, n, epochs, err);
    *ret_begun = rc == 0;
    return rc;
}

/* A failure that lasts costs the tuning: what was built is measured as it is. */
int synthesizer_tune(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    struct err why = {0};
    bool begun = false;
    int rc = race_stage(task, &stage, err);
    const size_t old = rc == 0 ? stage->state->n_candidates : 0;
    if (rc == 0)
        rc = stages_take_builds(task, stage->state, err);
    if (rc < 0)
        return rc;
    rc = begin(task, out, stage->state, old, &begun, &why);
    if (rc < 0 && !work_is_permanent(rc))
        return err_set(err, why.code, "%s", why.message);
    if (rc < 0)
        rc =
            state_decide(stage->state, err, "few bits: nothing learns on in them: %s", why.message);
    if (rc < 0)
        return rc;
    return begun ? work_continue(out, "synthesizer", "tuned", &stage->base, err)
                 : stages_measure(out, stage, err);
}

/* ---- tuned ---- */

static job_network *candidate_named(const job_state *state, const char *name)
{
    for (size_t i = 0; i < state->n_candidates; i++)
        if (strcmp(state->candidates[i]->name, name) == 0)
            return state->candidates[i];
    return NULL;
}

/* Its layers are those of the network that it was. */
static int ask_build(struct work_output *out, job_state *state, const job_network *was,
                     const char *artifact, struct err *err)
{
    Hone__V1__BuildTask build = HONE__V1__BUILD_TASK__INIT;
    _cleanup_(freep) char *name = str_printf("%s-tuned", was->name);
    if (!name)
        return err_oom(err, "a name");
    build.state = state;
    build.name = name;
    build.layers = was->layers;
    build.n_layers = was->n_layers;
    build.predicted_us = was->predicted_us;
    build.network = (char *)artifact;
    build.student = student_of(state, was);
    return work_follow(out, "exporter", "build", &build.base, err);
}

static int take(struct work_task *task, struct work_output *out, job_state *state, int i,
                const char *name, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__TrainResult *result = NULL;
    const job_network *was = candidate_named(state, name);
    if (!was || !student_of(state, was))
        return err_set(err, ERR_INTERNAL, "tuned: there is no candidate '%s'", name);
    if (!task->task->results[i])
        return state_decide(state, err, "%s did not learn on: %s", name,
                            task->task->failures[i] ? task->task->failures[i] : "unknown");
    int rc = work_group_result(task, i, &hone__v1__train_result__descriptor,
                               (ProtobufCMessage **)&result, err);
    return rc == 0 ? ask_build(out, state, was, result->network->artifact, err) : rc;
}

int synthesizer_tuned(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__StageTask *stage = NULL;
    int rc = race_stage(task, &stage, err);
    if (rc < 0)
        return rc;
    job_state *state = stage->state;
    if ((size_t)task->task->n_results != state->n_tuning)
        return err_set(err, ERR_INTERNAL, "tuned: %d results of %zu networks",
                       task->task->n_results, state->n_tuning);
    for (int i = 0; rc == 0 && i < task->task->n_results; i++)
        rc = take(task, out, state, i, state->tuning[i], err);
    for (size_t i = 0; i < state->n_tuning; i++)
        free(state->tuning[i]);
    state->n_tuning = 0;
    if (rc < 0 || out->n_tasks == 0)
        return rc < 0 ? rc : stages_measure(out, stage, err);
    return work_continue(out, "synthesizer", "assemble", &stage->base, err);
}
