/* report.html: one self-contained file, no scripts, nothing loaded from elsewhere. */
#include <string.h>

#include <embed_hone_svc_exporter.h>

#include "services/exporter/report_parts.h"
#include "shared/base/clock.h"
#include "shared/base/utf8.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan.h"
#include "shared/work/goal.h"

/* ---- text ---- */

void report_escaped(struct strbuf *out, const char *text)
{
    for (const char *p = text; *p; p++) {
        switch (*p) {
        case '<':
            strbuf_add(out, "&lt;");
            break;
        case '>':
            strbuf_add(out, "&gt;");
            break;
        case '&':
            strbuf_add(out, "&amp;");
            break;
        case '"':
            strbuf_add(out, "&quot;");
            break;
        case '\'':
            strbuf_add(out, "&#39;");
            break;
        default:
            strbuf_add_bytes(out, (unsigned char)*p < ' ' ? " " : p, 1);
        }
    }
}

void report_tagged(struct strbuf *out, const char *open, const char *text, const char *close)
{
    strbuf_add(out, open);
    report_escaped(out, text);
    strbuf_add(out, close);
}

void report_us(struct strbuf *out, double us)
{
    if (us >= 10000)
        strbuf_printf(out, "%.2f ms", us / 1000);
    else
        strbuf_printf(out, us >= 100 ? "%.0f &micro;s" : "%.1f &micro;s", us);
}

void report_us_cell(struct strbuf *out, double us)
{
    strbuf_add(out, "<td>");
    if (us > 0)
        report_us(out, us);
    else
        strbuf_add(out, "&ndash;");
    strbuf_add(out, "</td>");
}

static const char *title_of(const struct report *r)
{
    if (!r->asked || !*r->asked->model_path)
        return "network";
    const char *slash = strrchr(r->asked->model_path, '/');
    return slash ? slash + 1 : r->asked->model_path;
}

bool report_labelled(const struct report *r)
{
    return r->state->data->labels_usable;
}

/* ---- head ---- */

static void add_kpi(struct strbuf *out, const char *label, const char *fmt, double value)
{
    strbuf_add(out, "<div class=kpi><b>");
    strbuf_printf(out, fmt, value);
    strbuf_printf(out, "</b><span>%s</span></div>", label);
}

static void add_head(const struct report *r, struct strbuf *out)
{
    strbuf_add(out,
               "<!doctype html><html lang=en><meta charset=utf-8>"
               "<meta name=viewport content='width=device-width,initial-scale=1'><title>Hone: ");
    report_escaped(out, title_of(r));
    strbuf_add(out, "</title><style>");
    strbuf_add(out, embed_report_css);
    strbuf_add(out, "</style><main><h1>Hone: ");
    report_escaped(out, title_of(r));
    strbuf_add(out, "</h1><p class=soft>");
    char when[32];
    strbuf_printf(out, "Job %s, %s, on ", r->job, clock_iso8601(r->ended_ms, when));
    report_escaped(out, r->measured->cpu);
    strbuf_printf(out, " (%s), %u thread%s, batch %u</p>", r->measured->isa,
                  r->state->spec->threads, r->state->spec->threads == 1 ? "" : "s",
                  r->state->spec->batch);
    report_tagged(out, "<p class=verdict>", r->verdict, "</p>");
    if (!r->final)
        strbuf_add(out,
                   "<p>This is the best so far: when it was written the job went on with other "
                   "architectures.</p>");
    if (r->chosen == r->state->baseline)
        return;
    strbuf_add(out, "<div class=kpis>");
    add_kpi(out, "faster than the original in fp32, same kernels", "%.2f&times;",
            report_speedup(r, r->chosen, r->state->baseline, "hone"));
    const Hone__V1__Timing *ort = state_timing(r->state->baseline, "onnxruntime", NULL);
    const Hone__V1__Timing *here = state_timing(r->chosen, "hone", NULL);
    if (ort && here)
        add_kpi(out, "faster than the original in fp32 on ONNX Runtime", "%.2f&times;",
                ort->p50_us / here->p50_us);
    add_kpi(out, "as fast as the original in plain int8", "%.2f&times;",
            report_speedup(r, r->chosen, r->state->plain_int8, "hone"));
    add_kpi(out,
            report_labelled(r) ? "points of accuracy lost (test part)"
                               : "points of disagreement (test part)",
            "%.2f", r->chosen->drop_points);
    add_kpi(out, "smaller file", "%.2f&times;",
            goal_bytes(r->state->baseline) / goal_bytes(r->chosen));
    strbuf_add(out, "</div>");
}

/* ---- the table of results ---- */

static void add_ratio_cell(struct strbuf *out, double ratio)
{
    if (ratio > 0)
        strbuf_printf(out, "<td>%.2f&times;</td>", ratio);
    else
        strbuf_add(out, "<td>&ndash;</td>");
}

static void add_percent_cell(struct strbuf *out, const Hone__V1__Accuracy *a)
{
    if (a)
        strbuf_printf(out, "<td>%.2f %%</td>", 100 * a->value);
    else
        strbuf_add(out, "<td>&ndash;</td>");
}

static bool wants_throughput(const struct report *r)
{
    return r->state->spec->objective == HONE__V1__OBJECTIVE__THROUGHPUT;
}

/* What a run takes; where throughput is wanted also what that comes to. */
static void add_time_cells(const struct report *r, const Hone__V1__Timing *t, struct strbuf *out)
{
    report_us_cell(out, t ? t->p50_us : 0);
    if (!wants_throughput(r))
        report_us_cell(out, t ? t->p90_us : 0);
    else if (t)
        strbuf_printf(out, "<td>%.0f</td>", t->images_per_s);
    else
        strbuf_add(out, "<td>&ndash;</td>");
}

static void add_row(const struct report *r, const job_network *n, const char *name, bool is_final,
                    struct strbuf *out)
{
    const Hone__V1__Timing *t = state_timing(n, "hone", NULL);
    const Hone__V1__Timing *peer = state_timing(n, "onnxruntime", NULL);
    const Hone__V1__Accuracy *accuracy = state_accuracy(n, "test", "hone");
    char bytes[32];
    double percent;
    strbuf_add(out, n == r->chosen ? "<tr class=chosen>" : "<tr>");
    report_tagged(out, "<td>", name, "</td>");
    add_time_cells(r, t, out);
    add_ratio_cell(out, report_speedup(r, n, r->state->baseline, "hone"));
    add_ratio_cell(out, report_speedup(r, n, r->state->plain_int8, "hone"));
    add_percent_cell(out, accuracy);
    if (is_final)
        strbuf_printf(out, "<td>%.2f</td><td class=%s>%.2f %s</td>", n->drop_points,
                      n->within_limit ? "ok" : "no", report_bound(r, n, &percent),
                      n->within_limit ? "&#10003;" : "&#10007;");
    else if (accuracy && n != r->state->baseline)
        strbuf_printf(out, "<td>%.2f</td><td>%.2f</td>", accuracy->drop_points,
                      accuracy->drop_upper95_points);
    else
        strbuf_add(out, "<td>&ndash;</td><td>&ndash;</td>");
    strbuf_printf(out, "<td>%s</td>", str_bytes(goal_bytes(n), bytes));
    report_us_cell(out, peer ? peer->p50_us : 0);
    add_percent_cell(out, state_accuracy(n, "test", "onnxruntime"));
    strbuf_add(out, "</tr>");
}

static void add_table(const struct report *r, struct strbuf *out)
{
    char limits[GOAL_TEXT_BYTES];
    double percent;
    report_bound(r, r->state->baseline, &percent);
    strbuf_printf(out,
                  "<section><h2>Results</h2><table><tr><th>Network<th>median<th>%s"
                  "<th>over fp32<th>over int8<th>%s<th>drop<th>drop at most (%g %%)"
                  "<th>file<th>ONNX Runtime %s<th>%s there</tr>",
                  wants_throughput(r) ? "images/s" : "90th percentile",
                  report_labelled(r) ? "accuracy" : "agreement", percent, ort_version(),
                  report_labelled(r) ? "accuracy" : "agreement");
    add_row(r, r->state->baseline, "original, fp32", false, out);
    bool listed = false;
    for (size_t i = 0; i < r->state->n_finals; i++)
        listed |= strcmp(r->state->finals[i]->name, r->state->plain_int8->name) == 0;
    if (!listed)
        add_row(r, r->state->plain_int8, "original, plain int8", false, out);
    for (size_t i = 0; i < r->state->n_finals; i++) {
        const job_network *n = r->state->finals[i];
        bool plain = strcmp(n->name, r->state->plain_int8->name) == 0;
        add_row(r, n, plain ? "original, plain int8" : n->name, true, out);
    }
    strbuf_printf(out,
                  "</table><p class=soft>Times are of one run of the network with its input and "
                  "output conversions, measured interleaved. %s on the test part, on which each "
                  "final was scored once. The drop is paired with the original sample by sample; "
                  "the limit: %s.</p>",
                  report_labelled(r) ? "Accuracy is"
                                     : "Agreement with the original's top answer is",
                  goal_text(r->state->spec, limits));
    report_test_part_html(r, out);
    strbuf_add(out, "</section>");
}

/* What was not done again. */
static void add_saved(const struct report *r, struct strbuf *out)
{
    const Hone__V1__Taken *t = r->state->taken;
    char all[32], training[32], prepared[32];
    if (!t)
        return;
    strbuf_add(out, "<p>Refines job ");
    report_escaped(out, t->job);
    if (*t->target) {
        strbuf_add(out, ", which was for ");
        report_escaped(out, t->target);
    }
    if (t->training_s + t->prepared_s == 0) {
        strbuf_add(out, ".</p>");
        return;
    }
    strbuf_printf(out, ", whose work was not done again: %s: ",
                  str_seconds(t->training_s + t->prepared_s, all));
    if (t->students > 0)
        strbuf_printf(out, "%s of training %u student%s", str_seconds(t->training_s, training),
                      t->students, t->students == 1 ? "" : "s");
    if (!*t->target)
        strbuf_printf(out, "%s%s from its submission to its first result",
                      t->students > 0 ? ", " : "", str_seconds(t->prepared_s, prepared));
    strbuf_add(out, ".</p>");
}

/* ---- how it came about, and how to get it again ---- */

static void add_decisions(const struct report *r, struct strbuf *out)
{
    strbuf_add(out, "<section><h2>How it was decided</h2><ol>");
    for (size_t i = 0; i < r->state->n_decisions; i++)
        report_tagged(out, "<li>", r->state->decisions[i], "</li>");
    strbuf_add(out, "</ol></section>");
}

static void add_fact(struct strbuf *out, const char *name, const char *text)
{
    strbuf_printf(out, "<dt>%s</dt><dd>", name);
    report_escaped(out, text);
    strbuf_add(out, "</dd>");
}

/* For a shell, which knows no escape between single quotes. */
static void add_quoted(struct strbuf *out, const char *text)
{
    strbuf_add(out, " &#39;");
    for (size_t n; *text; text += n) {
        n = strcspn(text, "'");
        _cleanup_(freep) char *part = strndup(text, n);
        report_escaped(out, part ? part : "");
        for (; text[n] == '\''; text++)
            strbuf_add(out, "&#39;\\&#39;&#39;");
    }
    strbuf_add(out, "&#39;");
}

/* As options. */
static void add_limits(const Hone__V1__JobSpec *spec, struct strbuf *out)
{
    if (spec->max_us > 0)
        strbuf_printf(out, " --max-latency %gus", spec->max_us);
    if (spec->max_bytes > 0)
        strbuf_printf(out, " --max-bytes %llu", (unsigned long long)spec->max_bytes);
    if (spec->max_drop < GOAL_ANY_DROP || !goal_turned(spec))
        strbuf_printf(out, " --max-drop %g", spec->max_drop);
    if (spec->confidence > 0)
        strbuf_printf(out, " --confidence %g", 100 * spec->confidence);
}

static void add_reproduce(const struct report *r, struct strbuf *out)
{
    const job_state *s = r->state;
    static const char *const objectives[] = {"latency", "throughput", "size"};
    strbuf_add(out, "<section><h2>How to reproduce</h2><pre>hone optimize");
    add_quoted(out, r->asked ? r->asked->model_path : "MODEL");
    strbuf_add(out, " --data");
    add_quoted(out, r->asked ? r->asked->data_path : "DATA");
    strbuf_add(out, " --preprocess");
    add_quoted(out, s->preprocess->text);
    strbuf_printf(out, " --objective %s --threads %u --batch %u --seed %llu",
                  objectives[(unsigned)s->spec->objective % 3], s->spec->threads, s->spec->batch,
                  (unsigned long long)s->spec->seed);
    if (*s->spec->without) {
        strbuf_add(out, " --without ");
        report_escaped(out, s->spec->without);
    }
    if (s->taken && *s->taken->target) {
        strbuf_add(out, " --target ");
        report_escaped(out, s->taken->target);
    }
    if (s->taken) /* what it refines had limits, a budget and a space of its own */
        strbuf_add(out, "\nhone refine JOB");
    if (s->taken && *s->taken->target) {
        strbuf_add(out, " --target ");
        report_escaped(out, s->spec->target);
    }
    if (r->asked && *r->asked->space) {
        strbuf_add(out, " --space ");
        report_escaped(out, r->asked->space);
    }
    if (r->asked && r->asked->budget_s > 0)
        strbuf_printf(out, " --budget %.6gs", r->asked->budget_s);
    add_limits(s->spec, out);
    strbuf_add(out, "</pre><dl>");
    add_fact(out, "model (SHA-256)", s->model);
    add_fact(out, "data (SHA-256)", s->data->source_hash);
    add_fact(out, "preprocessing", s->preprocess->text);
    strbuf_printf(out,
                  "<dt>samples</dt><dd>%llu train, %llu search, %llu test; %llu duplicates between "
                  "parts</dd>",
                  (unsigned long long)s->data->n_train, (unsigned long long)s->data->n_search,
                  (unsigned long long)s->data->n_test, (unsigned long long)s->data->duplicates);
    strbuf_printf(out, "<dt>software</dt><dd>Hone %s, %s, ONNX Runtime %s</dd>", HONE_VERSION,
                  nn_version(), ort_version());
    add_fact(out, "hardware", r->measured->cpu);
    strbuf_add(out, "</dl><p class=soft>manifest.json beside this file has every hash, seed and "
                    "number; hone reproduce manifest.json finds them again (with --retrain, the "
                    "weights of all students, too).</p></section>");
}

int report_html(const struct report *r, struct strbuf *out, struct err *err)
{
    add_head(r, out);
    add_saved(r, out);
    add_table(r, out);
    report_front_html(r, out);
    report_layers_html(r, out);
    report_students_html(r, out);
    report_blocks_html(r, out);
    report_curves_html(r, out);
    add_decisions(r, out);
    add_reproduce(r, out);
    strbuf_add(out, "</main></html>\n");
    if (out->failed)
        return err_oom(err, "report.html");
    utf8_copy(out->data, out->length + 1, out->data); /* names of layers may be any bytes */
    out->length = strlen(out->data);
    return 0;
}
