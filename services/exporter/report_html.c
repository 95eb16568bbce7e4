/* report.html: one self-contained file, no scripts, nothing loaded from elsewhere. */
#include <math.h>
#include <string.h>

#include <embed_hone_svc_exporter.h>

#include "services/exporter/report.h"
#include "shared/base/clock.h"
#include "shared/base/utf8.h"
#include "shared/nn/ort.h"
#include "shared/nn/plan.h"

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

static void add_tagged(struct strbuf *out, const char *open, const char *text, const char *close)
{
    strbuf_add(out, open);
    report_escaped(out, text);
    strbuf_add(out, close);
}

static void add_us(struct strbuf *out, double us)
{
    if (us >= 10000)
        strbuf_printf(out, "%.2f ms", us / 1000);
    else
        strbuf_printf(out, us >= 100 ? "%.0f &micro;s" : "%.1f &micro;s", us);
}

static const char *title_of(const struct report *r)
{
    if (!r->asked || !*r->asked->model_path)
        return "network";
    const char *slash = strrchr(r->asked->model_path, '/');
    return slash ? slash + 1 : r->asked->model_path;
}

static bool labelled(const struct report *r)
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
    add_tagged(out, "<p class=verdict>", r->verdict, "</p>");
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
            labelled(r) ? "points of accuracy lost (test part)"
                        : "points of disagreement (test part)",
            "%.2f", r->chosen->drop_points);
    add_kpi(out, "smaller file", "%.2f&times;",
            (double)r->state->baseline->bytes / (double)r->chosen->bytes);
    strbuf_add(out, "</div>");
}

/* ---- the table of results ---- */

static void add_us_cell(struct strbuf *out, double us)
{
    strbuf_add(out, "<td>");
    if (us > 0)
        add_us(out, us);
    else
        strbuf_add(out, "&ndash;");
    strbuf_add(out, "</td>");
}

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

static void add_row(const struct report *r, const job_network *n, const char *name, bool is_final,
                    struct strbuf *out)
{
    const Hone__V1__Timing *t = state_timing(n, "hone", NULL);
    const Hone__V1__Timing *peer = state_timing(n, "onnxruntime", NULL);
    const Hone__V1__Accuracy *accuracy = state_accuracy(n, "test", "hone");
    char bytes[32];
    strbuf_add(out, n == r->chosen ? "<tr class=chosen>" : "<tr>");
    add_tagged(out, "<td>", name, "</td>");
    add_us_cell(out, t ? t->p50_us : 0);
    add_us_cell(out, t ? t->p90_us : 0);
    add_ratio_cell(out, report_speedup(r, n, r->state->baseline, "hone"));
    add_ratio_cell(out, report_speedup(r, n, r->state->plain_int8, "hone"));
    add_percent_cell(out, accuracy);
    if (is_final)
        strbuf_printf(out, "<td>%.2f</td><td class=%s>%.2f %s</td>", n->drop_points,
                      n->within_limit ? "ok" : "no", n->drop_upper95_points,
                      n->within_limit ? "&#10003;" : "&#10007;");
    else if (accuracy && n != r->state->baseline)
        strbuf_printf(out, "<td>%.2f</td><td>%.2f</td>", accuracy->drop_points,
                      accuracy->drop_upper95_points);
    else
        strbuf_add(out, "<td>&ndash;</td><td>&ndash;</td>");
    strbuf_printf(out, "<td>%s</td>", str_bytes((double)n->bytes, bytes));
    add_us_cell(out, peer ? peer->p50_us : 0);
    add_percent_cell(out, state_accuracy(n, "test", "onnxruntime"));
    strbuf_add(out, "</tr>");
}

static void add_table(const struct report *r, struct strbuf *out)
{
    strbuf_printf(out,
                  "<section><h2>Results</h2><table><tr><th>Network<th>median<th>90th "
                  "percentile<th>over fp32<th>over int8<th>%s<th>drop<th>drop at most (95 %%)"
                  "<th>file<th>ONNX Runtime %s<th>%s there</tr>",
                  labelled(r) ? "accuracy" : "agreement", ort_version(),
                  labelled(r) ? "accuracy" : "agreement");
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
                  "output conversions, measured interleaved. %s on the test part, opened once. The "
                  "drop is paired with the original sample by sample; the limit is %.2f "
                  "points.</p></section>",
                  labelled(r) ? "Accuracy is" : "Agreement with the original's top answer is",
                  r->state->spec->max_drop);
}

/* ---- the picture: accuracy against latency ---- */

#define PLOT_W 900.0
#define PLOT_H 340.0
#define LEFT 60.0
#define RIGHT 30.0
#define TOP 20.0
#define BOTTOM 46.0

struct plot {
    double max_us, min_drop, max_drop;
};

static double plot_x(const struct plot *p, double us)
{
    return LEFT + (PLOT_W - LEFT - RIGHT) * us / p->max_us;
}

static double plot_y(const struct plot *p, double drop)
{
    return TOP + (PLOT_H - TOP - BOTTOM) * (drop - p->min_drop) / (p->max_drop - p->min_drop);
}

static double nice_step(double span, int ticks)
{
    double raw = span / ticks, unit = pow(10, floor(log10(raw)));
    double f = raw / unit;
    return unit * (f <= 1 ? 1 : f <= 2 ? 2 : f <= 5 ? 5 : 10);
}

static void plot_extend(struct plot *p, const job_network *n, double drop, double upper)
{
    const Hone__V1__Timing *t = state_timing(n, "hone", NULL);
    if (t && t->p50_us > p->max_us)
        p->max_us = t->p50_us;
    if (upper > p->max_drop)
        p->max_drop = upper;
    if (drop < p->min_drop)
        p->min_drop = drop;
}

static void plot_axes(const struct plot *p, const struct report *r, struct strbuf *out)
{
    double step = nice_step(p->max_us, 6);
    for (double us = 0; us <= p->max_us; us += step) {
        double x = plot_x(p, us);
        strbuf_printf(out,
                      "<line class=grid x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=label x=%.1f "
                      "y=%.1f text-anchor=middle>%g</text>",
                      x, TOP, x, PLOT_H - BOTTOM, x, PLOT_H - BOTTOM + 16, us);
    }
    step = nice_step(p->max_drop - p->min_drop, 5);
    for (double d = ceil(p->min_drop / step) * step; d <= p->max_drop + 1e-9; d += step) {
        double y = plot_y(p, d);
        strbuf_printf(out,
                      "<line class=grid x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=label x=%.1f "
                      "y=%.1f text-anchor=end>%.2f</text>",
                      LEFT, y, PLOT_W - RIGHT, y, LEFT - 8, y + 4, fabs(d) < 1e-9 ? 0 : -d);
    }
    double limit = plot_y(p, r->state->spec->max_drop);
    strbuf_printf(out,
                  "<line class=limit x1=%.1f y1=%.1f x2=%.1f y2=%.1f /><text class=limit-text "
                  "x=%.1f y=%.1f text-anchor=end>limit: %.2f points lost</text>",
                  LEFT, limit, PLOT_W - RIGHT, limit, PLOT_W - RIGHT, limit - 5,
                  r->state->spec->max_drop);
    strbuf_printf(out,
                  "<text class=label x=%.1f y=%.1f text-anchor=middle>median latency, "
                  "microseconds</text><text class=label transform='translate(14 %.1f) rotate(-90)' "
                  "text-anchor=middle>points against the original</text>",
                  (LEFT + PLOT_W - RIGHT) / 2, PLOT_H - 8, (TOP + PLOT_H - BOTTOM) / 2);
}

static void plot_point(const struct plot *p, const job_network *n, const char *name, double drop,
                       double upper, bool solid, const char *color, struct strbuf *out)
{
    const Hone__V1__Timing *t = state_timing(n, "hone", NULL);
    if (!t)
        return;
    double x = plot_x(p, t->p50_us), y = plot_y(p, drop);
    if (upper > drop)
        strbuf_printf(out,
                      "<line style='stroke:var(--%s)' stroke-width=2 x1=%.1f y1=%.1f x2=%.1f "
                      "y2=%.1f />",
                      color, x, y, x, plot_y(p, upper));
    strbuf_printf(out,
                  "<circle cx=%.1f cy=%.1f r=6 style='stroke:var(--%s);fill:%s%s%s' "
                  "stroke-width=2><title>",
                  x, y, color, solid ? "var(--" : "none", solid ? color : "", solid ? ")" : "");
    report_escaped(out, name);
    strbuf_printf(out, ": %.1f us, %.2f points</title></circle>", t->p50_us, drop);
    bool right = x > PLOT_W - 160;
    strbuf_printf(out, "<text x=%.1f y=%.1f text-anchor=%s>", right ? x - 10 : x + 10, y + 4,
                  right ? "end" : "start");
    report_escaped(out, name);
    strbuf_add(out, "</text>");
}

static bool is_final(const struct report *r, const job_network *n)
{
    for (size_t i = 0; i < r->state->n_finals; i++)
        if (strcmp(r->state->finals[i]->name, n->name) == 0)
            return true;
    return false;
}

/* Candidates that were no finals have their drop from the search part only. */
static void plot_search_points(const struct report *r, struct plot *p, bool draw,
                               struct strbuf *out)
{
    for (size_t i = 0; i <= r->state->n_candidates; i++) {
        const job_network *n =
            i < r->state->n_candidates ? r->state->candidates[i] : r->state->plain_int8;
        const Hone__V1__Accuracy *a = state_accuracy(n, "search", "hone");
        if (is_final(r, n) || !a)
            continue;
        if (draw)
            plot_point(p, n, n->name, a->drop_points, a->drop_points, false, "fp32", out);
        else
            plot_extend(p, n, a->drop_points, a->drop_points);
    }
}

static void add_plot(const struct report *r, struct strbuf *out)
{
    double limit = r->state->spec->max_drop;
    struct plot p = {.min_drop = -0.2 * (limit > 0.5 ? limit : 0.5),
                     .max_drop = 1.15 * limit + 0.1};
    plot_extend(&p, r->state->baseline, 0, 0);
    plot_search_points(r, &p, false, out);
    for (size_t i = 0; i < r->state->n_finals; i++)
        plot_extend(&p, r->state->finals[i], r->state->finals[i]->drop_points - 0.05,
                    r->state->finals[i]->drop_upper95_points + 0.05);
    p.max_us *= 1.05;
    if (p.max_us <= 0)
        return;
    strbuf_printf(out,
                  "<section><h2>%s against latency</h2><svg viewBox='0 0 %.0f %.0f' role=img "
                  "aria-label='accuracy against latency'>",
                  labelled(r) ? "Accuracy" : "Fidelity", PLOT_W, PLOT_H);
    plot_axes(&p, r, out);
    plot_search_points(r, &p, true, out);
    plot_point(&p, r->state->baseline, "original", 0, 0, true, "accent", out);
    for (size_t i = 0; i < r->state->n_finals; i++) {
        const job_network *n = r->state->finals[i];
        plot_point(&p, n, n->name, n->drop_points, n->drop_upper95_points, true,
                   n->within_limit ? "good" : "bad", out);
    }
    strbuf_add(out,
               "</svg><p class=soft>Up and left is better. Filled: proved on the test part, the "
               "bar reaches down to the 95 % bound. Hollow: candidates that were not proved, "
               "with their drop on the search part.</p></section>");
}

/* ---- layers ---- */

static int precision_index(const Hone__V1__Profile *profile, const char *precision)
{
    for (size_t i = 0; i < profile->n_precisions; i++)
        if (strcmp(profile->precisions[i], precision) == 0)
            return (int)i;
    return -1;
}

static double layer_us(const Hone__V1__Profile *profile, const Hone__V1__Profile__Layer *layer,
                       const char *precision)
{
    int i = precision_index(profile, precision);
    return i >= 0 && (size_t)i < layer->n_us ? layer->us[i] : 0;
}

static const char *chosen_precision(const struct report *r, const char *layer)
{
    for (size_t i = 0; i < r->chosen->n_layers; i++)
        if (strcmp(r->chosen->layers[i]->layer, layer) == 0)
            return r->chosen->layers[i]->precision;
    return NULL;
}

static void add_bar(struct strbuf *out, double us, double max_us, const char *precision)
{
    strbuf_printf(out, "<div class=bar><i class=p-%s style='width:%.1f%%'></i><span>", precision,
                  max_us > 0 ? 65 * us / max_us : 0);
    add_us(out, us);
    strbuf_add(out, "</span></div>");
}

static void add_layers(const struct report *r, struct strbuf *out)
{
    double max_us = 0, before = 0, after = 0;
    const char *last = "fp32"; /* of the layer before that somebody chose for */
    for (size_t i = 0; i < r->profile->n_layers; i++) {
        double us = layer_us(r->profile, r->profile->layers[i], "fp32");
        max_us = us > max_us ? us : max_us;
    }
    strbuf_add(out, "<section><h2>Layer by layer</h2><table><tr><th>Layer<th>M MACs<th class=left>"
                    "before, fp32<th class=left>after<th class=left>precision</tr>");
    for (size_t i = 0; i < r->profile->n_layers; i++) {
        const Hone__V1__Profile__Layer *layer = r->profile->layers[i];
        const char *chosen = chosen_precision(r, layer->layer);
        double fp32 = layer_us(r->profile, layer, "fp32");
        /* A layer that nobody chose for (a pool, a slice) follows what comes before it. */
        last = chosen ? chosen : last;
        const char *precision = last;
        double us = layer_us(r->profile, layer, precision);
        if (us <= 0) {
            precision = "fp32";
            us = fp32;
        }
        before += fp32;
        after += us;
        add_tagged(out, "<tr><td>", layer->layer, "</td>");
        strbuf_printf(out, "<td>%.2f</td><td class=left>", (double)layer->macs * 1e-6);
        add_bar(out, fp32, max_us, "fp32");
        strbuf_add(out, "</td><td class=left>");
        add_bar(out, us, max_us, precision);
        strbuf_printf(out, "</td><td class=left><span class='tag p-%s'>%s</span></td></tr>",
                      precision, precision);
    }
    strbuf_add(out, "<tr><td>sum of layers</td><td></td><td class=left>");
    add_us(out, before);
    strbuf_add(out, "</td><td class=left>");
    add_us(out, after);
    strbuf_add(out,
               "</td><td></td></tr></table><p class=soft>Each layer's time inside the whole "
               "network, fp32 and in the precision chosen for it. Conversions between precisions "
               "are not listed; the table above has the measured whole.");
    if (r->state->model_error > 0)
        strbuf_printf(out,
                      " The sum of layers predicted the assembled networks with a median error "
                      "of %.1f %%.",
                      100 * r->state->model_error);
    strbuf_add(out, "</p></section>");
}

/* ---- how it came about, and how to get it again ---- */

static void add_decisions(const struct report *r, struct strbuf *out)
{
    strbuf_add(out, "<section><h2>How it was decided</h2><ol>");
    for (size_t i = 0; i < r->state->n_decisions; i++)
        add_tagged(out, "<li>", r->state->decisions[i], "</li>");
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
    strbuf_printf(out, " --objective %s --max-drop %g --threads %u --batch %u --seed %llu",
                  objectives[(unsigned)s->spec->objective % 3], s->spec->max_drop, s->spec->threads,
                  s->spec->batch, (unsigned long long)s->spec->seed);
    if (r->asked && *r->asked->space) {
        strbuf_add(out, " --space ");
        report_escaped(out, r->asked->space);
    }
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
                    "number.</p></section>");
}

int report_html(const struct report *r, struct strbuf *out, struct err *err)
{
    add_head(r, out);
    add_table(r, out);
    add_plot(r, out);
    report_curves_html(r, out);
    add_layers(r, out);
    add_decisions(r, out);
    add_reproduce(r, out);
    strbuf_add(out, "</main></html>\n");
    if (out->failed)
        return err_oom(err, "report.html");
    utf8_copy(out->data, out->length + 1, out->data); /* names of layers may be any bytes */
    out->length = strlen(out->data);
    return 0;
}
