/*
 * The stage "report": the network chosen, the files written. It ends the job, or, where the job may
 * try other architectures and has not, keeps the files as the result so far and starts that.
 */
#include "services/exporter/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/exporter/exporter.h"
#include "services/exporter/report_inputs.h"
#include "shared/base/clock.h"
#include "shared/work/goal.h"
#include "shared/work/so_far.h"

#define NOISE 0.01 /* what two measurements of one network may differ by */

/* ---- choosing and the verdict ---- */

double report_bound(const struct report *r, const job_network *network, double *ret_percent)
{
    const double confidence = goal_confidence(r->state->spec);
    *ret_percent = confidence > 0.5 ? 100 * confidence : 95;
    return confidence > 0.5 ? network->drop_bound_points : network->drop_upper95_points;
}

const char *report_file_of(const struct report *r, const job_network *network, char text[160])
{
    if (strcmp(network->name, r->chosen->name) == 0)
        snprintf(text, 160, "model.onnx");
    else
        snprintf(text, 160, "alternative-%.120s.onnx", network->name);
    return text;
}

double report_speedup(const struct report *r, const job_network *network, const job_network *over,
                      const char *engine)
{
    (void)r;
    const Hone__V1__Timing *a = state_timing(over, engine, NULL);
    const Hone__V1__Timing *b = state_timing(network, engine, NULL);
    return a && b && b->p50_us > 0 ? a->p50_us / b->p50_us : 0;
}

/* The best by what the job asks for (goal.h) among those proved within the limits and better than
 * the original. Of those that measure no worse than the best, but for noise, the one that loses
 * least. */
static const job_network *choose(const job_state *state)
{
    const bool original_allowed =
        goal_affordable(state->spec, goal_cost_of(state, state->baseline));
    const double of_original = original_allowed ? goal_value(state, state->baseline) : INFINITY;
    const double noise = goal_turned(state->spec) ? 0 : NOISE; /* the drop is exact */
    const job_network *best = state->baseline;
    double least = of_original;
    for (size_t i = 0; i < state->n_finals; i++)
        if (state->finals[i]->within_limit)
            least = fmin(least, goal_value(state, state->finals[i]));
    if (!(least < of_original))
        return best;
    for (size_t i = 0; i < state->n_finals; i++) {
        const job_network *n = state->finals[i];
        if (n->within_limit && goal_value(state, n) <= least + noise * fabs(least) &&
            (best == state->baseline || n->drop_upper95_points < best->drop_upper95_points))
            best = n;
    }
    return best;
}

/* Of two that break limits: who breaks one on costs is further off. */
static bool is_closer(const job_state *state, const job_network *a, const job_network *b)
{
    const double of_a = goal_cost_of(state, a), of_b = goal_cost_of(state, b);
    const bool ok_a = goal_affordable(state->spec, of_a), ok_b = goal_affordable(state->spec, of_b);
    if (ok_a != ok_b || !ok_a)
        return of_a < of_b;
    return a->drop_upper95_points < b->drop_upper95_points;
}

static const job_network *closest(const job_state *state)
{
    const job_network *best = state->finals[0];
    for (size_t i = 1; i < state->n_finals; i++)
        if (is_closer(state, state->finals[i], best))
            best = state->finals[i];
    return best;
}

/* What a network costs beside its time, where that was asked: "takes 190 us and 118.2 KB, ". */
static char *write_costs(const job_state *s, const job_network *network)
{
    const Hone__V1__Timing *t = state_timing(network, "hone", NULL);
    char bytes[32];
    return goal_turned(s->spec) || goal_small(s->spec)
               ? str_printf("takes %.0f us and %s, ", t ? t->p50_us : NAN,
                            str_bytes(goal_bytes(network), bytes))
               : strdup("");
}

/* Why the original stays. */
static char *write_refusal(const struct report *r)
{
    const job_state *s = r->state;
    const job_network *best = closest(s);
    char limits[GOAL_TEXT_BYTES];
    double percent;
    const double bound = report_bound(r, best, &percent);
    _cleanup_(freep) char *costs = write_costs(s, best);
    const bool keeps =
        goal_turned(s->spec) && goal_affordable(s->spec, goal_cost_of(s, s->baseline));
    return str_printf("%s %s %s: the original stays. The closest, %s, %sis %.2fx as fast and drops "
                      "%.2f points (at most %.2f with %g %% confidence).",
                      keeps ? "The original is" : "No network stayed", goal_text(s->spec, limits),
                      keeps ? "itself, and nothing loses less" : "and was better than the original",
                      best->name, costs ? costs : "", report_speedup(r, best, s->baseline, "hone"),
                      best->drop_points, bound, percent);
}

/* "29.6x smaller than the original (116.8 KB packed, instead of 3.5 MB), " where that was asked. */
static char *smaller_text(const struct report *r)
{
    const job_state *s = r->state;
    char small[32], large[32];
    return goal_small(s->spec)
               ? str_printf("%.1fx smaller than the original (%s packed, instead of %s), ",
                            goal_bytes(s->baseline) / goal_bytes(r->chosen),
                            str_bytes(goal_bytes(r->chosen), small),
                            str_bytes(goal_bytes(s->baseline), large))
               : strdup("");
}

/* "193 us instead of 388 us, batch 1, 1 thread". */
static char *speed_text(const struct report *r)
{
    const job_state *s = r->state;
    const Hone__V1__Timing *t = state_timing(r->chosen, "hone", NULL);
    const Hone__V1__Timing *t0 = state_timing(s->baseline, "hone", NULL);
    const double us = t ? t->p50_us : 0, us0 = t0 ? t0->p50_us : 0;
    const double images = state_images_per_s(s, us);
    return str_printf("%.0f %s instead of %.0f%s, batch %u, %u thread%s", images > 0 ? images : us,
                      images > 0 ? "images/s" : "us", images > 0 ? state_images_per_s(s, us0) : us0,
                      images > 0 ? "" : " us", s->spec->batch, s->spec->threads,
                      s->spec->threads == 1 ? "" : "s");
}

static char *write_verdict(const struct report *r)
{
    const job_state *s = r->state;
    const Hone__V1__Accuracy *base = state_accuracy(s->baseline, "test", "hone");
    const bool labels = s->data->labels_usable;
    char limits[GOAL_TEXT_BYTES];
    if (r->chosen == s->baseline)
        return write_refusal(r);
    const Hone__V1__Accuracy *a = state_accuracy(r->chosen, "test", "hone");
    double percent;
    const double bound = report_bound(r, r->chosen, &percent);
    _cleanup_(freep) char *speed = speed_text(r);
    _cleanup_(freep) char *smaller = smaller_text(r);
    _cleanup_(freep) char *quality =
        labels ? str_printf("%.2f %% instead of %.2f %% accurate on %llu test samples",
                            100 * a->value, 100 * base->value, (unsigned long long)a->n)
               : str_printf("agreeing with it on %.2f %% of %llu test samples", 100 * a->value,
                            (unsigned long long)a->n);
    _cleanup_(freep) char *turned =
        goal_turned(s->spec)
            ? str_printf("Of the networks %s %s loses least: ", goal_text(s->spec, limits),
                         r->chosen->name)
            : strdup("");
    return str_printf(
        "%s%s%.2fx faster than the original in fp32 (%s), %s; the drop is at most %.2f points with "
        "%g %% confidence.",
        turned ? turned : "", smaller ? smaller : "",
        report_speedup(r, r->chosen, s->baseline, "hone"), speed ? speed : "",
        quality ? quality : "", bound, percent);
}

/* ---- files ---- */

static int add_file(Hone__V1__JobResult *result, const char *name, const char *artifact,
                    size_t bytes, struct err *err)
{
    Hone__V1__JobResult__File *file = message_new(&hone__v1__job_result__file__descriptor, err);
    if (!file)
        return -ERR_RESOURCE_EXHAUSTED;
    file->bytes = bytes;
    int r = message_set(&file->name, name, err);
    if (r == 0)
        r = message_set(&file->artifact, artifact, err);
    if (r == 0)
        r = message_append(&result->files, &result->n_files, file, err);
    if (r < 0)
        message_free(file);
    return r;
}

typedef int report_writer(const struct report *report, struct strbuf *out, struct err *err);

static int add_text(struct work_task *task, const struct report *report, report_writer *write,
                    const char *name, Hone__V1__JobResult *result, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    char artifact[HASH_HEX_BYTES];
    int r = write(report, &text, err);
    if (r == 0)
        r = store_put(task->store, text.data, text.length, artifact, err);
    if (r < 0)
        return err_wrap(err, "%s", name);
    return add_file(result, name, artifact, text.length, err);
}

/* Under its name, unless that has been given away. */
static int add_network(const struct report *report, const job_network *network,
                       Hone__V1__JobResult *result, struct err *err)
{
    char file[160];
    report_file_of(report, network, file);
    for (size_t i = 0; i < result->n_files; i++)
        if (strcmp(result->files[i]->name, file) == 0)
            return 0;
    return add_file(result, file, network->artifact, network->bytes, err);
}

/* The manifest last: it names the others. */
static int write_files(struct work_task *task, struct report *report, Hone__V1__JobResult *result,
                       struct err *err)
{
    const job_state *s = report->state;
    /* The original as it came, when nothing better was found. */
    const char *model = report->chosen == s->baseline ? s->model : report->chosen->artifact;
    int r = add_file(result, "model.onnx", model, report->chosen->bytes, err);
    if (r == 0 && report->chosen->packed_bytes)
        r = add_file(result, "model.hone", report->chosen->packed, report->chosen->packed_bytes,
                     err);
    if (r == 0)
        r = add_text(task, report, report_result_json, "result.json", result, err);
    if (r == 0)
        r = add_text(task, report, report_html, "report.html", result, err);
    for (size_t i = 0; r == 0 && i < s->n_finals; i++)
        r = add_network(report, s->finals[i], result, err);
    if (r == 0) /* what speed-ups over int8 are over */
        r = add_network(report, s->plain_int8, result, err);
    report->delivered = result;
    if (r == 0)
        r = add_text(task, report, report_manifest_json, "manifest.json", result, err);
    return r == 0 ? message_set(&result->verdict, report->verdict, err) : r;
}

/* ---- what comes next ---- */

/* Whether other architectures are to be tried now; says so where time alone forbids it. */
static int goes_on(struct work_task *task, const struct report_inputs *in, bool *ret,
                   struct err *err)
{
    double elapsed = 0, left = 0;
    *ret = false;
    if (in->stage->state->redesigned || !in->asked ||
        !(spec_space_has(in->asked, "students") || spec_space_has(in->asked, "blocks")))
        return 0;
    int r = state_time(task, &elapsed, &left, err);
    if (r < 0)
        return r;
    *ret = left > 0;
    if (left > 0)
        return 0;
    return state_decide(in->stage->state, err,
                        "no other architectures: the budget was over after %.0f s", elapsed);
}

static int tell(struct work_task *task, const char *verdict, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf fields = {0};
    strbuf_add(&fields, "\"final\":false,\"verdict\":\"");
    for (const char *p = verdict; *p; p++) {
        const bool quoted = *p == '"' || *p == '\\';
        strbuf_printf(&fields, quoted ? "\\%c" : "%c", *p);
    }
    strbuf_add(&fields, "\"");
    return fields.failed ? err_oom(err, "an event") : work_event(task, "result", fields.data, err);
}

/* The job keeps what it has, and tries other architectures. */
static int go_on(struct work_task *task, const struct report_inputs *in,
                 const Hone__V1__JobResult *result, struct work_output *out, struct err *err)
{
    Hone__V1__StageTask next = HONE__V1__STAGE_TASK__INIT;
    next.state = in->stage->state;
    int r = so_far_put(task->store, task->task->job, result, err);
    if (r == 0)
        r = tell(task, result->verdict, err);
    if (r == 0)
        r = state_decide(next.state, err, "so far: %s", result->verdict);
    if (r == 0) /* known to the stages from here on */
        r = message_set(&next.state->spec->space, in->asked->space, err);
    return r < 0 ? r : work_follow(out, "synthesizer", "redesign", &next.base, err);
}

/* ---- the stage ---- */

static int finish(struct work_output *out, const Hone__V1__JobResult *result, struct err *err)
{
    int r = work_result(out, &result->base, err);
    out->finish_job = r == 0;
    return r;
}

static int write_report(struct work_task *task, struct report *report, Hone__V1__JobResult *result,
                        struct err *err)
{
    const job_state *state = report->state;
    const Hone__V1__Timing *t = state_timing(report->chosen, "hone", NULL);
    const Hone__V1__Timing *t0 = state_timing(state->baseline, "hone", NULL);
    report->verdict = write_verdict(report);
    if (!report->verdict)
        return err_oom(err, "the verdict");
    int r = t && t0
                ? state_best_event(task, state, report->chosen, t->p50_us, t0->p50_us, true, err)
                : 0;
    if (r == 0)
        r = write_files(task, report, result, err);
    free(report->verdict);
    report->verdict = NULL;
    return r;
}

int exporter_report(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(report_inputs_release) struct report_inputs in = {0};
    bool more = false;
    int r = report_inputs_read(task, &in, err);
    if (r == 0)
        r = goes_on(task, &in, &more, err);
    if (r < 0)
        return r;
    struct report report = {.state = in.stage->state,
                            .asked = in.asked,
                            .job = task->task->job,
                            .final = !more,
                            .profile = in.profile,
                            .scores = in.scores,
                            .measured = in.measured,
                            .trained = in.trained,
                            .n_trained = in.n_trained,
                            .library = in.library,
                            .runs = in.runs,
                            .n_runs = in.n_runs,
                            .openings = in.record->openings,
                            .n_openings = in.record->n_openings,
                            .chosen = choose(in.stage->state),
                            .created_ms = in.job.created_ms,
                            .ended_ms = clock_wall_ms()};
    _cleanup_(graph_freep) struct graph *original = NULL;
    _cleanup_(graph_freep) struct graph *redesigned = NULL;
    r = report_inputs_networks(task, report.state, report.chosen, &original, &redesigned, err);
    if (r < 0)
        return r;
    report.original = original;
    report.redesigned = redesigned;
    _cleanup_(message_freep) Hone__V1__JobResult *result =
        message_new(&hone__v1__job_result__descriptor, err);
    if (!result)
        return -ERR_RESOURCE_EXHAUSTED;
    r = write_report(task, &report, result, err);
    const int64_t took_ms = report.ended_ms - report.created_ms - in.job.away_ms;
    if (r == 0 && in.asked)
        r = so_far_put_state(task->store, task->task->job, report.state, in.asked, in.record,
                             (double)took_ms / 1000, err);
    if (r < 0)
        return r;
    return more ? go_on(task, &in, result, out, err) : finish(out, result, err);
}
