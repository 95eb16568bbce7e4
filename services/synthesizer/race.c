#include "services/synthesizer/race.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/synthesizer/ablate.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define USUAL_BUDGET_S 7200.0 /* where none was given */
#define TAIL_SHARE 0.9        /* of the time until the first proof: to build and prove at the end */
#define TAIL_LEAST_S 30.0
#define MAC_PER_S 4e10        /* of training on a core, where none has been measured */
#define BF16_MAC_PER_S 15e10  /* where it computes in bf16 */
#define RATE_TABLE "training" /* what was measured: of trainers together, for jobs to come */
#define TUNE_SHARE 0.2        /* of the time for training, at each rung: for few bits (tune.c) */
#define MOST_BUILT 3
#define MOST_FINALS 3 /* that are judged together */
/* Of the weights of students that are to be small; the fewest: STUDENT_BITS. */
#define MOST_BITS 5
#define DISAGREEMENT 0.06 /* between two networks of like accuracy: for the bound on the drop */

int race_stage(struct work_task *task, Hone__V1__StageTask **ret, struct err *err)
{
    return work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)ret, err);
}

/* ---- time ---- */

int race_time(struct work_task *task, const job_state *state, double *ret_s, struct err *err)
{
    double elapsed = 0, left = 0;
    int rc = state_time(task, &elapsed, &left, err);
    if (rc < 0)
        return rc;
    if (!isfinite(left))
        left = USUAL_BUDGET_S - elapsed;
    const double tail =
        state->reserve_s > 0 ? state->reserve_s : fmax(TAIL_SHARE * elapsed, TAIL_LEAST_S);
    *ret_s = left - tail;
    return 0;
}

int race_seconds(struct work_task *task, const job_state *state, double *ret_s, struct err *err)
{
    int rc = race_time(task, state, ret_s, err);
    if (rc == 0 && goal_small(state->spec))
        *ret_s *= 1 - TUNE_SHARE;
    return rc;
}

/* The end takes about as long as the first proof did. In tens of seconds, so that jobs which were
 * equally quick have equal states. */
int race_keep_reserve(struct work_task *task, job_state *state, struct err *err)
{
    double elapsed = 0, left = 0;
    int rc = state_time(task, &elapsed, &left, err);
    /* Of a job that was refined its own, which is known. */
    state->reserve_s =
        fmax(state->reserve_s, 10 * ceil(fmax(TAIL_SHARE * elapsed, TAIL_LEAST_S) / 10));
    return rc;
}

/* Of trainers like this process: pools are of one kind. */
static const char *rate_field(const struct work_task *task, char text[48])
{
    snprintf(text, 48, "mac_per_s %dt%s", task->threads,
             __builtin_cpu_supports("avx512bf16") ? " bf16" : "");
    return text;
}

int race_rate(struct work_task *task, double *ret, struct err *err)
{
    char field[48];
    _cleanup_(freep) char *text = NULL;
    *ret = task->threads * (__builtin_cpu_supports("avx512bf16") ? BF16_MAC_PER_S : MAC_PER_S);
    int rc = queue_table_get(task->queue, RATE_TABLE, rate_field(task, field), &text, err);
    return rc < 0 || !text ? rc : str_parse_f64(text, ret, err);
}

static int ascending(const void *a, const void *b)
{
    return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b);
}

/* The median of this job's students. */
int race_keep_rate(struct work_task *task, const job_state *state, struct err *err)
{
    char field[48], text[32];
    _cleanup_(freep) double *rates = mem_calloc(state->n_students + 1, sizeof(*rates));
    size_t n = 0;
    if (!rates)
        return err_oom(err, "students");
    for (size_t i = 0; i < state->n_students; i++) {
        const job_student *s = state->students[i];
        const double epoch_s = students_epoch_s(state, s, INFINITY);
        if (s->n_epochs > 0 && epoch_s > 0)
            rates[n++] = 3 * (double)s->macs * (double)state->data->n_train / epoch_s;
    }
    if (n == 0)
        return 0;
    qsort(rates, n, sizeof(*rates), ascending);
    snprintf(text, sizeof(text), "%.4g", rates[n / 2]);
    return queue_table_put(task->queue, RATE_TABLE, rate_field(task, field), text, err);
}

/* ---- what to beat ---- */

double race_cost(const job_state *state, const job_student *student)
{
    if (!(student->predicted_us > 0))
        return INFINITY;
    return goal_cost(state->spec, student->predicted_us,
                     space_bytes(goal_small(state->spec), (double)student->parameters));
}

bool race_affordable(const job_state *state, const job_student *student)
{
    const double cost = race_cost(state, student);
    return isfinite(cost) && goal_affordable(state->spec, cost);
}

double race_original_cost(const job_state *state)
{
    return goal_cost_of(state, state->baseline);
}

double race_best_cost(const job_state *state)
{
    double best = race_original_cost(state);
    for (size_t i = 0; i < state->n_finals; i++)
        if (state->finals[i]->within_limit)
            best = fmin(best, goal_cost_of(state, state->finals[i]));
    return best;
}

/* On the test part. */
static double original_error(const job_state *state)
{
    const Hone__V1__Accuracy *a = state_accuracy(state->baseline, "test", "hone");
    return 1 - (a ? a->value : 0);
}

double race_best_error(const job_state *state)
{
    double drop = 100;
    for (size_t i = 0; i < state->n_finals; i++)
        if (state->finals[i]->within_limit)
            drop = fmin(drop, state_expected_drop(state, state->finals[i], &(double){0}));
    return fmin(original_error(state) + drop / 100, 1);
}

/* Finals are judged together. By Holm's correction the least sure of them, which is the one that
 * matters here, is judged as if it were alone where those beside it are surer; with a limit on
 * costs each bears its share. */
double race_error_limit(const job_state *state)
{
    const Hone__V1__Accuracy *a = state_accuracy(state->baseline, "test", "hone");
    const double n = a && a->n ? (double)a->n : 1;
    return original_error(state) + state->spec->max_drop / 100 - state_optimism(state) -
           goal_deviations_among(state->spec, goal_turned(state->spec) ? MOST_FINALS : 1) *
               sqrt(DISAGREEMENT / n);
}

/* ---- the end: those that were trained are built ---- */

struct built {
    job_student *student;
    double cost;
    bool keeps;  /* the limits, as far as is known */
    bool turned; /* costs have a limit: goal.h */
};

/* Those that keep the limits by their cost, then the others by their error; by their error alone
 * where costs have a limit. */
static int by_promise(const void *pa, const void *pb)
{
    const struct built *a = pa, *b = pb;
    if (a->keeps != b->keeps)
        return a->keeps ? -1 : 1;
    const bool cheapest = a->keeps && !a->turned;
    const double x = cheapest ? a->cost : students_error(a->student);
    const double y = cheapest ? b->cost : students_error(b->student);
    return x != y ? (x < y ? -1 : 1) : strcmp(a->student->name, b->student->name);
}

/* One that was built before and has learned on since is another network. */
static char *built_name(const job_student *student, int bits)
{
    char after[32] = "", int_n[16] = "";
    if (*student->built)
        snprintf(after, sizeof(after), "-after-%u", student->rungs);
    if (bits)
        snprintf(int_n, sizeof(int_n), "-int%d", bits);
    return str_printf("%s%s%s", student->name, after, int_n);
}

/* bits: of its weights; 0: the usual ones. */
static int ask_build(struct work_output *out, job_state *state, job_student *student, int bits,
                     struct err *err)
{
    Hone__V1__BuildTask build = HONE__V1__BUILD_TASK__INIT;
    _cleanup_(freep) char *name = built_name(student, bits);
    if (!name)
        return err_oom(err, "a name");
    build.state = state;
    build.name = name;
    build.all_int8 = true;
    build.weight_bits = (uint32_t)bits;
    build.predicted_us = student->predicted_us;
    build.network = student->network;
    build.student = student;
    return work_follow(out, "exporter", "build", &build.base, err);
}

/* In each form that may be the best: small ones lose more. */
static int ask_builds(struct work_output *out, job_state *state, job_student *student,
                      struct err *err)
{
    const bool small = goal_small(state->spec);
    int rc = 0;
    for (int bits = small ? STUDENT_BITS : 0; rc == 0 && bits <= (small ? MOST_BITS : 0); bits++)
        rc = ask_build(out, state, student, bits, err);
    return rc == 0 ? message_set(&student->built, student->network, err) : rc;
}

/* Learned in one of the last two rungs, or for a job before, and was not built since. */
static bool is_ripe(const job_state *state, const job_student *s)
{
    return s->rungs > 0 && (s->rung == 0 || s->rung + 1 >= state->rung) &&
           strcmp(s->built, s->network) != 0;
}

static size_t list_built(const job_state *state, struct built *list)
{
    size_t n = 0;
    for (size_t i = 0; i < state->n_students; i++) {
        job_student *s = state->students[i];
        if (is_ripe(state, s) && race_affordable(state, s))
            list[n++] = (struct built){.student = s,
                                       .cost = race_cost(state, s),
                                       .keeps = students_error(s) <= race_error_limit(state),
                                       .turned = goal_turned(state->spec)};
    }
    qsort(list, n, sizeof(*list), by_promise);
    return n < MOST_BUILT ? n : MOST_BUILT;
}

/* Those who keep the limits, as far as is known, and others (`all`) where there are too few.
 * *ret_n: how many. */
static int ask_best(struct work_output *out, job_state *state, bool all, size_t *ret_n,
                    struct err *err)
{
    _cleanup_(freep) struct built *list = mem_calloc(state->n_students + 1, sizeof(*list));
    if (!list)
        return err_oom(err, "students");
    size_t n = list_built(state, list);
    while (n > 0 && !all && !list[n - 1].keeps)
        n--;
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < n; i++) /* given up for the rungs, not for the end */
        rc = message_set(&list[i].student->out, "", err);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = ask_builds(out, state, list[i].student, err);
    *ret_n = n;
    return rc;
}

int race_ask_known(struct work_output *out, job_state *state, struct err *err)
{
    return ask_best(out, state, false, &(size_t){0}, err);
}

/* What is to be small learns on in its few bits. */
int race_finish(struct work_output *out, Hone__V1__StageTask *stage, struct err *err)
{
    size_t n = 0;
    stage->state->redesigned = true;
    int rc = ask_best(out, stage->state, true, &n, err);
    const char *next = n > 0 && goal_small(stage->state->spec) ? "tune" : "assemble";
    return rc == 0 ? work_continue(out, "synthesizer", next, &stage->base, err) : rc;
}

int race_resume(struct work_output *out, Hone__V1__StageTask *stage, struct err *err)
{
    int rc = race_ask_known(out, stage->state, err);
    return rc == 0 ? work_continue(out, "synthesizer", "assemble", &stage->base, err) : rc;
}

/* ---- a rung ---- */

size_t race_active(const job_state *state, job_student **ret)
{
    size_t n = 0;
    for (size_t i = 0; i < state->n_students; i++)
        if (students_active(state->students[i]))
            ret[n++] = state->students[i];
    return n;
}

/* Those who are to learn now: who never has, where there are any, for the others can be judged
 * already. */
static size_t list_learning(const job_state *state, job_student **list)
{
    size_t n = race_active(state, list), fresh = 0;
    for (size_t i = 0; i < n; i++)
        if (list[i]->rungs == 0)
            list[fresh++] = list[i];
    return fresh ? fresh : n;
}

static int tell_rung(struct work_task *task, const job_state *state, size_t n, int epochs,
                     double seconds, struct err *err)
{
    char fields[192];
    double left = 0;
    int rc = race_seconds(task, state, &left, err);
    snprintf(fields, sizeof(fields),
             "\"rung\":%u,\"students\":%zu,\"epochs\":%d,\"seconds\":%.0f,\"left_s\":%.0f",
             state->rung, n, epochs, seconds, left + state->reserve_s);
    return rc < 0 ? rc : work_event(task, "rung", fields, err);
}

int race_begin_rung(struct work_task *task, struct work_output *out, Hone__V1__StageTask *stage,
                    double seconds, bool *ret_begun, struct err *err)
{
    job_state *state = stage->state;
    _cleanup_(freep) job_student **list = mem_calloc(state->n_students + 1, sizeof(*list));
    _cleanup_(freep) double *epoch_s = mem_calloc(state->n_students + 1, sizeof(*epoch_s));
    struct design_ends ends;
    double rate = 0;
    int rc = list && epoch_s ? race_rate(task, &rate, err) : err_oom(err, "students");
    if (rc == 0)
        rc = students_reads(task, state, &ends, err);
    if (rc < 0)
        return rc;
    const size_t n = list_learning(state, list);
    for (size_t i = 0; i < n; i++)
        epoch_s[i] = students_epoch_s(state, list[i], rate) + ablate_teacher_s(state, rate);
    const int epochs = rungs_epochs(seconds, epoch_s, (int)n);
    *ret_begun = epochs > 0;
    if (epochs == 0)
        return 0;
    state->rung++;
    rc = state_decide(state, err, "rung %u: %zu students, %d epochs each, about %.0f s",
                      state->rung, n, epochs, seconds);
    for (size_t i = 0; rc == 0 && i < n; i++) {
        list[i]->rung = state->rung;
        rc = students_train(out, state, list[i], &ends, epochs, err);
    }
    if (rc == 0)
        rc = tell_rung(task, state, n, epochs, seconds, err);
    return rc == 0 ? work_continue(out, "synthesizer", "promote", &stage->base, err) : rc;
}
