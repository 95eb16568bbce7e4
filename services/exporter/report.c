/* The end of a job: proofs and last measurement merged, the network chosen, the files written. */
#include "services/exporter/report.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "services/exporter/exporter.h"
#include "shared/base/clock.h"

#define NOISE 0.01 /* what two measurements of one network may differ by */

/* ---- merging ---- */

static int merge_proofs(struct work_task *task, job_state *state, struct err *err)
{
    size_t kept = 0;
    for (size_t i = 0; i < state->n_finals; i++) {
        job_network *old = state->finals[i];
        if (!task->task->results[i]) {
            int r = state_decide(state, err, "%s could not be proved: %s", old->name,
                                 task->task->failures[i] ? task->task->failures[i] : "unknown");
            if (r < 0)
                return r;
        } else {
            Hone__V1__ProveResult *proved = NULL;
            int r = work_group_result(task, (int)i, &hone__v1__prove_result__descriptor,
                                      (ProtobufCMessage **)&proved, err);
            if (r < 0)
                return r;
            state->finals[kept++] = proved->network;
            proved->network = NULL;
            message_free(proved);
        }
        message_free(old);
    }
    state->n_finals = kept;
    if (kept == 0)
        return state_group_failed(task, 0, "no final network could be proved", err);
    return 0;
}

static int add_timing_of(job_network *network, const Hone__V1__MeasureResult *m, size_t i,
                         struct err *err)
{
    return i < m->n_timings ? state_add_timing(network, m->timings[i], err)
                            : err_set(err, ERR_INTERNAL, "the last measurement is incomplete");
}

static bool is_plain_int8(const job_state *state, const char *name)
{
    return strcmp(name, state->plain_int8->name) == 0;
}

/* What plain int8 scores on the test part: from its own proof, or it was among the finals. */
static int merge_plain_int8(struct work_task *task, job_state *state, int proof, struct err *err)
{
    _cleanup_(message_freep) Hone__V1__ProveResult *proved = NULL;
    const job_network *from = NULL;
    if (proof >= 0 && !task->task->results[proof])
        return state_decide(state, err, "plain int8 could not be proved: %s",
                            task->task->failures[proof] ? task->task->failures[proof] : "unknown");
    if (proof >= 0) {
        int r = work_group_result(task, proof, &hone__v1__prove_result__descriptor,
                                  (ProtobufCMessage **)&proved, err);
        if (r < 0)
            return r;
        from = proved->network;
    }
    for (size_t i = 0; !from && i < state->n_finals; i++)
        if (is_plain_int8(state, state->finals[i]->name))
            from = state->finals[i];
    const Hone__V1__Accuracy *accuracy = from ? state_accuracy(from, "test", "hone") : NULL;
    return accuracy ? state_add_accuracy(state->plain_int8, accuracy, err) : 0;
}

/* Order of the items: see follow_finals in the synthesizer. A final that could not be proved was
 * measured all the same: `names` finds each. */
static int merge_timings(job_state *state, const Hone__V1__MeasureResult *m,
                         char *const *final_names, size_t n_names, struct err *err)
{
    int r = add_timing_of(state->baseline, m, 0, err);
    if (r == 0)
        r = add_timing_of(state->baseline, m, 1, err);
    if (r == 0)
        r = add_timing_of(state->plain_int8, m, 2, err);
    if (r == 0)
        r = add_timing_of(state->plain_int8, m, 3, err);
    for (size_t i = 0; r == 0 && i < state->n_finals; i++)
        for (size_t k = 0; r == 0 && k < n_names; k++) {
            if (strcmp(final_names[k], state->finals[i]->name) != 0)
                continue;
            r = add_timing_of(state->finals[i], m, 4 + 2 * k, err);
            if (r == 0)
                r = add_timing_of(state->finals[i], m, 5 + 2 * k, err);
        }
    return r;
}

/* ---- choosing and the verdict ---- */

const char *report_file_of(const struct report *r, const job_network *network, char text[160])
{
    if (network == r->chosen)
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

static double objective(const job_state *state, const job_network *network)
{
    const Hone__V1__Timing *t = state_timing(network, "hone", NULL);
    if (state->spec->objective == HONE__V1__OBJECTIVE__SIZE)
        return (double)network->bytes;
    return t ? t->p50_us : INFINITY; /* for throughput too: all have as many streams */
}

/* The best by the objective among those proved within the limit and better than the original. Of
 * those that measure no worse than the best, but for noise, the one that loses least. */
static const job_network *choose(const job_state *state)
{
    const job_network *best = state->baseline;
    double least = objective(state, best);
    for (size_t i = 0; i < state->n_finals; i++)
        if (state->finals[i]->within_limit)
            least = fmin(least, objective(state, state->finals[i]));
    if (!(least < objective(state, best)))
        return best;
    for (size_t i = 0; i < state->n_finals; i++) {
        const job_network *n = state->finals[i];
        if (n->within_limit && objective(state, n) <= least * (1 + NOISE) &&
            (best == state->baseline || n->drop_upper95_points < best->drop_upper95_points))
            best = n;
    }
    return best;
}

static char *write_verdict(const struct report *r)
{
    const job_state *s = r->state;
    const Hone__V1__Accuracy *base = state_accuracy(s->baseline, "test", "hone");
    const bool labels = s->data->labels_usable;
    if (r->chosen == s->baseline) {
        const job_network *best = s->finals[0];
        return str_printf("No network stayed within %.2f points and was better than the original: "
                          "the original stays. The closest, %s, is %.2fx as fast and drops %.2f "
                          "points (at most %.2f with 95 %% confidence).",
                          s->spec->max_drop, best->name,
                          report_speedup(r, best, s->baseline, "hone"), best->drop_points,
                          best->drop_upper95_points);
    }
    const Hone__V1__Accuracy *a = state_accuracy(r->chosen, "test", "hone");
    const Hone__V1__Timing *t = state_timing(r->chosen, "hone", NULL);
    const Hone__V1__Timing *t0 = state_timing(s->baseline, "hone", NULL);
    _cleanup_(freep) char *quality =
        labels ? str_printf("%.2f %% instead of %.2f %% accurate on %llu test samples",
                            100 * a->value, 100 * base->value, (unsigned long long)a->n)
               : str_printf("agreeing with it on %.2f %% of %llu test samples", 100 * a->value,
                            (unsigned long long)a->n);
    return str_printf(
        "%.2fx faster than the original in fp32 (%.0f us instead of %.0f us, batch %u, %u "
        "thread%s), %s; the drop is at most %.2f points with "
        "95 %% confidence.",
        report_speedup(r, r->chosen, s->baseline, "hone"), t ? t->p50_us : 0, t0 ? t0->p50_us : 0,
        s->spec->batch, s->spec->threads, s->spec->threads == 1 ? "" : "s", quality ? quality : "",
        r->chosen->drop_upper95_points);
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

static int write_files(struct work_task *task, const struct report *report,
                       Hone__V1__JobResult *result, struct err *err)
{
    const job_state *s = report->state;
    /* The original as it came, when nothing better was found. */
    const char *model = report->chosen == s->baseline ? s->model : report->chosen->artifact;
    int r = add_file(result, "model.onnx", model, report->chosen->bytes, err);
    if (r == 0)
        r = add_text(task, report, report_result_json, "result.json", result, err);
    if (r == 0)
        r = add_text(task, report, report_html, "report.html", result, err);
    if (r == 0)
        r = add_text(task, report, report_manifest_json, "manifest.json", result, err);
    for (size_t i = 0; r == 0 && i < s->n_finals; i++) {
        char file[160];
        if (s->finals[i] == report->chosen)
            continue;
        r = add_file(result, report_file_of(report, s->finals[i], file), s->finals[i]->artifact,
                     s->finals[i]->bytes, err);
    }
    return r == 0 ? message_set(&result->verdict, report->verdict, err) : r;
}

/* ---- the stage ---- */

struct inputs {
    Hone__V1__StageTask *stage;
    Hone__V1__MeasureResult *measured;
    Hone__V1__Profile *profile;
    Hone__V1__Scores *scores;
    Hone__V1__JobSpec *asked;
    Hone__V1__TrainResult **trained;
    size_t n_trained;
    struct job_info job;
    char **names; /* of the finals before merging */
    size_t n_names;
    int plain_proof; /* index of plain int8's own proof; -1: it is among the finals */
};

static void inputs_release(struct inputs *in)
{
    message_free(in->stage);
    message_free(in->measured);
    message_free(in->profile);
    message_free(in->scores);
    message_free(in->asked);
    for (size_t i = 0; i < in->n_trained; i++)
        message_free(in->trained[i]);
    free(in->trained);
    job_info_release(&in->job);
    for (size_t i = 0; i < in->n_names; i++)
        free(in->names[i]);
    free(in->names);
}

/* The curves of what was trained on the way. */
static int read_trained(struct work_task *task, const job_state *state, struct inputs *in,
                        struct err *err)
{
    int r = 0;
    for (size_t i = 0; r == 0 && i < state->n_trained; i++) {
        Hone__V1__TrainResult *trained = NULL;
        r = message_load(task->store, state->trained[i], &hone__v1__train_result__descriptor,
                         &trained, err);
        if (r == 0)
            r = message_append(&in->trained, &in->n_trained, trained, err);
        if (r < 0)
            message_free(trained);
    }
    return r;
}

static int inputs_read(struct work_task *task, struct inputs *in, struct err *err)
{
    int r =
        work_payload(task, &hone__v1__stage_task__descriptor, (ProtobufCMessage **)&in->stage, err);
    if (r < 0)
        return r;
    job_state *state = in->stage->state;
    in->plain_proof = (int)state->n_finals;
    for (size_t i = 0; i < state->n_finals; i++)
        if (is_plain_int8(state, state->finals[i]->name))
            in->plain_proof = -1;
    int measure = (int)state->n_finals + (in->plain_proof >= 0);
    if (task->task->n_results != measure + 1)
        return err_set(err, ERR_INTERNAL, "report: %d results, %d expected", task->task->n_results,
                       measure + 1);
    if (!task->task->results[measure])
        return state_group_failed(task, measure, "measuring the finals failed", err);
    for (size_t i = 0; r == 0 && i < state->n_finals; i++)
        r = message_append_text(&in->names, &in->n_names, state->finals[i]->name, err);
    if (r == 0)
        r = work_group_result(task, measure, &hone__v1__measure_result__descriptor,
                              (ProtobufCMessage **)&in->measured, err);
    if (r == 0)
        r = message_load(task->store, state->profile, &hone__v1__profile__descriptor, &in->profile,
                         err);
    if (r == 0)
        r = message_load(task->store, state->scores, &hone__v1__scores__descriptor, &in->scores,
                         err);
    if (r == 0)
        r = read_trained(task, state, in, err);
    if (r == 0)
        r = queue_job_get(task->queue, task->task->job, &in->job, err);
    if (r == 0 && in->job.spec)
        r = message_unpack(&hone__v1__job_spec__descriptor, in->job.spec, in->job.spec_bytes,
                           &in->asked, err);
    return r;
}

int exporter_report(struct work_task *task, struct work_output *out, struct err *err)
{
    _cleanup_(inputs_release) struct inputs in = {0};
    int r = inputs_read(task, &in, err);
    if (r == 0)
        r = merge_proofs(task, in.stage->state, err);
    if (r == 0)
        r = merge_plain_int8(task, in.stage->state, in.plain_proof, err);
    if (r == 0)
        r = merge_timings(in.stage->state, in.measured, in.names, in.n_names, err);
    if (r < 0)
        return r;
    job_state *state = in.stage->state;
    struct report report = {.state = state,
                            .asked = in.asked,
                            .job = task->task->job,
                            .profile = in.profile,
                            .scores = in.scores,
                            .measured = in.measured,
                            .trained = in.trained,
                            .n_trained = in.n_trained,
                            .chosen = choose(state),
                            .created_ms = in.job.created_ms,
                            .ended_ms = clock_wall_ms()};
    _cleanup_(freep) char *verdict = write_verdict(&report);
    if (!verdict)
        return err_oom(err, "the verdict");
    report.verdict = verdict;
    const Hone__V1__Timing *t = state_timing(report.chosen, "hone", NULL);
    const Hone__V1__Timing *t0 = state_timing(state->baseline, "hone", NULL);
    if (t && t0)
        r = state_best_event(task, report.chosen, t->p50_us, t0->p50_us, true, err);
    _cleanup_(message_freep) Hone__V1__JobResult *result =
        message_new(&hone__v1__job_result__descriptor, err);
    if (r == 0 && !result)
        return -ERR_RESOURCE_EXHAUSTED;
    if (r == 0)
        r = write_files(task, &report, result, err);
    if (r == 0)
        r = work_result(out, &result->base, err);
    out->finish_job = r == 0;
    return r;
}
