#include "shared/work/state.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

const Hone__V1__Timing *state_timing(const job_network *network, const char *engine,
                                     const char *precision)
{
    for (size_t i = network->n_timings; i > 0; i--) {
        const Hone__V1__Timing *t = network->timings[i - 1];
        if (strcmp(t->engine, engine) == 0 && t->p50_us > 0 &&
            (!precision || strcmp(t->precision, precision) == 0))
            return t;
    }
    return NULL;
}

const Hone__V1__Accuracy *state_accuracy(const job_network *network, const char *part,
                                         const char *engine)
{
    for (size_t i = network->n_accuracies; i > 0; i--) {
        const Hone__V1__Accuracy *a = network->accuracies[i - 1];
        if (strcmp(a->part, part) == 0 && strcmp(a->engine, engine) == 0)
            return a;
    }
    return NULL;
}

/* A list with commas. */
static bool list_has(const char *list, const char *what)
{
    const size_t n = strlen(what);
    const char *p = list;
    while (*p && !(strncmp(p, what, n) == 0 && (p[n] == ',' || p[n] == 0))) {
        p += strcspn(p, ",");
        p += *p == ',';
    }
    return *p;
}

bool spec_space_has(const Hone__V1__JobSpec *spec, const char *what)
{
    return list_has(*spec->space ? spec->space : SPEC_USUAL_SPACE, what);
}

bool spec_without(const Hone__V1__JobSpec *spec, const char *what)
{
    return list_has(spec->without, what);
}

static double proportion_variance(const Hone__V1__Accuracy *a)
{
    return a->n > 0 ? a->value * (1 - a->value) / (double)a->n : INFINITY;
}

/* Measured on ResNet-56's students on CIFAR-10 (docs/RESULTS.md): 0.06 after 6 epochs, 0 to 0.26,
 * on average 0.12, after 12 to 57. */
#define HANDED_ON 0.13

double state_optimism(const job_state *state)
{
    const Hone__V1__Accuracy *known = state_accuracy(state->baseline, "search", "hone"),
                             *unknown = state_accuracy(state->baseline, "test", "hone");
    if (!known || !unknown || !state->data->labels_usable || spec_without(state->spec, "teacher") ||
        !(known->value > unknown->value))
        return 0;
    return HANDED_ON * (known->value - unknown->value);
}

double state_expected_drop(const job_state *state, const job_network *network, double *ret_upper95)
{
    const Hone__V1__Accuracy *its = state_accuracy(network, "search", "hone");
    const bool trained = *network->design && state->data->labels_usable;
    const Hone__V1__Accuracy *original =
        trained ? state_accuracy(state->baseline, "test", "hone") : NULL;
    *ret_upper95 = INFINITY;
    if (!its || (trained && !original))
        return INFINITY;
    if (!trained) {
        *ret_upper95 = its->drop_upper95_points;
        return its->drop_points;
    }
    const double points = 100 * (original->value - its->value + state_optimism(state));
    *ret_upper95 = points + 164.5 * sqrt(proportion_variance(original) + proportion_variance(its));
    return points;
}

bool state_proved(const job_network *network)
{
    return state_accuracy(network, "test", "hone") != NULL;
}

int state_add_timing(job_network *network, const Hone__V1__Timing *timing, struct err *err)
{
    Hone__V1__Timing *clone = message_clone(timing, err);
    if (!clone)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_append(&network->timings, &network->n_timings, clone, err);
    if (r < 0)
        message_free(clone);
    return r;
}

int state_add_accuracy(job_network *network, const Hone__V1__Accuracy *accuracy, struct err *err)
{
    Hone__V1__Accuracy *clone = message_clone(accuracy, err);
    if (!clone)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_append(&network->accuracies, &network->n_accuracies, clone, err);
    if (r < 0)
        message_free(clone);
    return r;
}

int state_decide(job_state *state, struct err *err, const char *fmt, ...)
{
    _cleanup_(freep) char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_oom(err, "a decision");
    return message_append_text(&state->decisions, &state->n_decisions, text, err);
}

char *state_profiler_queue(const job_state *state)
{
    return str_printf("profiler:%s", state->spec->target);
}

int state_measure_item(Hone__V1__MeasureTask *measure, const job_network *network,
                       const char *engine, const char *precision, struct err *err)
{
    Hone__V1__MeasureTask__Item *item = message_new(&hone__v1__measure_task__item__descriptor, err);
    if (!item)
        return -ERR_RESOURCE_EXHAUSTED;
    int r = message_set(&item->artifact, network->artifact, err);
    if (r == 0)
        r = message_set(&item->name, network->name, err);
    if (r == 0)
        r = message_set(&item->engine, engine, err);
    if (r == 0)
        r = message_set(&item->precision, precision, err);
    if (r == 0)
        r = message_append(&measure->items, &measure->n_items, item, err);
    if (r < 0)
        message_free(item);
    return r;
}

/* Whether its drop against the original says something: not where the original has learned the
 * samples and the network has not. */
static bool is_comparable(const job_network *network, const Hone__V1__Accuracy *a)
{
    return !*network->design || strcmp(a->part, "search") != 0 || strcmp(a->metric, "top1") != 0;
}

double state_images_per_s(const job_state *state, double us)
{
    const bool asked = state->spec->objective == HONE__V1__OBJECTIVE__THROUGHPUT;
    return asked && us > 0 ? 1e6 * state->spec->batch / us : 0;
}

int state_best_event(struct work_task *task, const job_state *state, const job_network *network,
                     double us, double baseline_us, bool verified, struct err *err)
{
    const Hone__V1__Accuracy *a = state_accuracy(network, "test", "hone");
    if (!a)
        a = state_accuracy(network, "search", "hone");
    _cleanup_(strbuf_release) struct strbuf fields = {0};
    strbuf_printf(&fields, "\"name\":\"%s\",\"p50_us\":%.1f,\"speedup_fp32\":%.3f", network->name,
                  us, us > 0 ? baseline_us / us : 0);
    if (network->packed_bytes)
        strbuf_printf(&fields, ",\"packed_bytes\":%llu", (unsigned long long)network->packed_bytes);
    if (state_images_per_s(state, us) > 0)
        strbuf_printf(&fields, ",\"images_per_s\":%.0f", state_images_per_s(state, us));
    if (a)
        strbuf_printf(&fields,
                      ",\"metric\":\"%s\",\"value\":%.6f,\"part\":\"%s\",\"agreement\":%.6f",
                      a->metric, a->value, a->part, a->agreement);
    if (a && is_comparable(network, a))
        strbuf_printf(&fields, ",\"drop_points\":%.3f", a->drop_points);
    strbuf_printf(&fields, ",\"verified\":%s,\"artifact\":\"%s\"", verified ? "true" : "false",
                  network->artifact);
    return fields.failed ? err_oom(err, "an event") : work_event(task, "best", fields.data, err);
}

int state_asked(struct work_task *task, Hone__V1__JobSpec **ret, struct err *err)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    int r = queue_job_get(task->queue, task->task->job, &job, err);
    return r < 0 ? r
                 : message_unpack(&hone__v1__job_spec__descriptor, job.spec, job.spec_bytes, ret,
                                  err);
}

int state_time(struct work_task *task, double *ret_elapsed_s, double *ret_left_s, struct err *err)
{
    _cleanup_(job_info_release) struct job_info job = {0};
    _cleanup_(message_freep) Hone__V1__JobSpec *spec = NULL;
    int r = queue_job_get(task->queue, task->task->job, &job, err);
    if (r == 0)
        r = message_unpack(&hone__v1__job_spec__descriptor, job.spec, job.spec_bytes, &spec, err);
    if (r < 0)
        return r;
    *ret_elapsed_s = (double)(clock_wall_ms() - job.created_ms - job.away_ms) / 1000;
    *ret_left_s = spec->budget_s > 0 ? spec->budget_s - *ret_elapsed_s : INFINITY;
    return 0;
}

int state_group_failed(const struct work_task *task, int i, const char *what, struct err *err)
{
    const char *why = i < task->task->n_results ? task->task->failures[i] : "it never ran";
    return err_set(err, ERR_FAILED_PRECONDITION, "%s: %s", what, why ? why : "no result");
}
