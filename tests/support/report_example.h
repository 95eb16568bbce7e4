#pragma once
/* A report about an invented job, and what tests of its files ask: /results/0/value of a JSON, tags
 * of a page that close. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <yyjson.h>
#include <cmocka.h>

#include "services/exporter/report.h"
#include "shared/base/mem.h"

#define HOSTILE "<script>alert(\"1\")</script>&'x"
#define BROKEN "caf\xe9\xff" /* no UTF-8 */

/* ---- a report ---- */

struct example {
    job_state state;
    Hone__V1__JobSpec spec, asked;
    Hone__V1__DataInfo data;
    Hone__V1__Preprocess pre;
    job_network baseline, int8, candidate;
    job_network *candidates[1], *finals[2];
    Hone__V1__Timing timing[6], *of_baseline[2], *of_int8[2], *of_candidate[2];
    Hone__V1__Accuracy accuracy[4], *acc_baseline[1], *acc_int8[1], *acc_candidate[2];
    Hone__V1__LayerChoice choice, *choices[1];
    Hone__V1__Profile profile;
    Hone__V1__Profile__Layer layer[2], *layers[2];
    char *precisions[2];
    double us[2][2];
    Hone__V1__Scores scores;
    Hone__V1__MeasureResult measured;
    char *decisions[2];
    struct report report;
};

static inline void timing(Hone__V1__Timing *t, const char *engine, double us)
{
    hone__v1__timing__init(t);
    t->engine = (char *)engine;
    t->precision = (char *)"auto";
    t->p50_us = us;
    t->p90_us = us * 1.1;
    t->images_per_s = 1e6 / us;
    t->runs = 1000;
}

static inline void accuracy(Hone__V1__Accuracy *a, const char *part, double value, double drop)
{
    hone__v1__accuracy__init(a);
    a->engine = (char *)"hone";
    a->metric = (char *)"top1";
    a->part = (char *)part;
    a->value = value;
    a->n = 1000;
    a->agreement = 0.99;
    a->drop_points = drop;
    a->drop_upper95_points = drop + 0.25;
}

static inline void network(job_network *n, const char *name, uint64_t bytes)
{
    hone__v1__network__init(n);
    n->name = (char *)name;
    n->artifact = (char *)"0123abcd";
    n->bytes = bytes;
    n->macs = 1000000;
    n->parameters = 5000;
}

/* baseline 100 us; int8 50 us; candidate-1, chosen, 40 us, drop 0.5 (at most 0.75) of 1.0 */
static inline void make_networks(struct example *e)
{
    static const double us[] = {100, 80, 50, 90, 40, 20};
    for (int i = 0; i < 6; i++)
        timing(&e->timing[i], i % 2 ? "onnxruntime" : "hone", us[i]);
    for (int i = 0; i < 2; i++) {
        e->of_baseline[i] = &e->timing[i];
        e->of_int8[i] = &e->timing[2 + i];
        e->of_candidate[i] = &e->timing[4 + i];
    }
    accuracy(&e->accuracy[0], "test", 0.92, 0);
    accuracy(&e->accuracy[1], "search", 0.91, 0.8);
    accuracy(&e->accuracy[2], "test", 0.915, 0.5);
    accuracy(&e->accuracy[3], "search", 0.915, 0.4);
    network(&e->baseline, "baseline", 4000);
    network(&e->int8, "int8", 1100);
    network(&e->candidate, "candidate-1", 1000);
    e->acc_baseline[0] = &e->accuracy[0];
    e->acc_int8[0] = &e->accuracy[1];
    e->acc_candidate[0] = &e->accuracy[2];
    e->acc_candidate[1] = &e->accuracy[3];
    e->baseline.timings = e->of_baseline;
    e->int8.timings = e->of_int8;
    e->candidate.timings = e->of_candidate;
    e->baseline.n_timings = e->int8.n_timings = e->candidate.n_timings = 2;
    e->baseline.accuracies = e->acc_baseline;
    e->int8.accuracies = e->acc_int8;
    e->candidate.accuracies = e->acc_candidate;
    e->baseline.n_accuracies = e->int8.n_accuracies = 1;
    e->candidate.n_accuracies = 2;
    e->candidate.drop_points = 0.5;
    e->candidate.drop_upper95_points = 0.75;
    e->candidate.drop_bound_points = 0.8;
    e->candidate.within_limit = true;
    hone__v1__layer_choice__init(&e->choice);
    e->choice.layer = (char *)HOSTILE;
    e->choice.precision = (char *)"int8";
    e->choices[0] = &e->choice;
    e->candidate.layers = e->choices;
    e->candidate.n_layers = 1;
}

static inline void make_profile(struct example *e)
{
    static const double us[2][2] = {{60, 20}, {30, 0}};
    hone__v1__profile__init(&e->profile);
    e->precisions[0] = (char *)"fp32";
    e->precisions[1] = (char *)"int8";
    e->profile.precisions = e->precisions;
    e->profile.n_precisions = 2;
    for (int i = 0; i < 2; i++) {
        hone__v1__profile__layer__init(&e->layer[i]);
        e->layers[i] = &e->layer[i];
        memcpy(e->us[i], us[i], sizeof(us[i]));
        e->layer[i].layer = (char *)(i ? "plain" : HOSTILE);
        e->layer[i].us = e->us[i];
        e->layer[i].n_us = 2;
        e->layer[i].macs = 500000;
    }
    e->profile.layers = e->layers;
    e->profile.n_layers = 2;
}

static inline void make_state(struct example *e)
{
    hone__v1__job_spec__init(&e->spec);
    e->spec.max_drop = 1;
    e->spec.threads = e->spec.batch = 1;
    e->spec.target = (char *)"cpu:test";
    e->asked = e->spec;
    e->asked.model_path = (char *)"/models/" HOSTILE ".onnx";
    e->asked.data_path = (char *)"/data/" HOSTILE;
    hone__v1__data_info__init(&e->data);
    e->data.labels_usable = true;
    e->data.n_test = 1000;
    hone__v1__preprocess__init(&e->pre);
    e->pre.text = (char *)"scale=1/255";
    e->pre.how = (char *)"given";
    hone__v1__job_state__init(&e->state);
    e->state.spec = &e->spec;
    e->state.data = &e->data;
    e->state.preprocess = &e->pre;
    e->state.baseline = &e->baseline;
    e->state.plain_int8 = &e->int8;
    e->candidates[0] = e->finals[0] = &e->candidate;
    e->state.candidates = e->candidates;
    e->state.finals = e->finals;
    e->state.n_candidates = e->state.n_finals = 1;
    e->decisions[0] = (char *)HOSTILE;
    e->decisions[1] = (char *)"a plain sentence";
    e->state.decisions = e->decisions;
    e->state.n_decisions = 2;
}

static inline struct example *make_example(void)
{
    static struct example e;
    memset(&e, 0, sizeof(e));
    make_networks(&e);
    make_profile(&e);
    make_state(&e);
    hone__v1__scores__init(&e.scores);
    hone__v1__measure_result__init(&e.measured);
    e.measured.cpu = (char *)"CPU " HOSTILE;
    e.measured.isa = (char *)"avx2";
    e.report = (struct report){.state = &e.state,
                               .asked = &e.asked,
                               .job = "1abc",
                               .profile = &e.profile,
                               .scores = &e.scores,
                               .measured = &e.measured,
                               .chosen = &e.candidate,
                               .verdict = (char *)"2.50x faster " HOSTILE,
                               .created_ms = 1700000000000,
                               .ended_ms = 1700000100000};
    return &e;
}

typedef int writer(const struct report *report, struct strbuf *out, struct err *err);

static inline char *text_of(writer *write, const struct report *report)
{
    struct strbuf out = {0};
    struct err err = {0};
    if (write(report, &out, &err) < 0)
        fail_msg("%s", err.message);
    return strbuf_take(&out);
}

static inline yyjson_doc *json_of(writer *write, const struct report *report)
{
    _cleanup_(freep) char *text = text_of(write, report);
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts(text, strlen(text), YYJSON_READ_NOFLAG, NULL, &why);
    if (!doc)
        fail_msg("%s at byte %zu: %s", why.msg, why.pos, text);
    return doc;
}

/* "results.0.value" */
static inline yyjson_val *at(yyjson_doc *doc, const char *pointer)
{
    yyjson_val *v = yyjson_doc_ptr_get(doc, pointer);
    if (!v)
        fail_msg("%s is not there", pointer);
    return v;
}

static inline void number_is(yyjson_doc *doc, const char *pointer, double expected)
{
    double value = yyjson_get_num(at(doc, pointer));
    if (!yyjson_is_num(at(doc, pointer)) || fabs(value - expected) > 1e-9)
        fail_msg("%s is %.12g, not %.12g", pointer, value, expected);
}

/* ---- HTML ---- */

static const char *const void_tags[] = {"meta", "line", "circle", "br"};
/* Those that HTML closes by itself. */
static const char *const loose_tags[] = {"th", "html"};

static inline bool is_one_of(const char *tag, const char *const *list, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(tag, list[i]) == 0)
            return true;
    return false;
}

/* Every element that is opened is closed in order, and a '<' or a bare '&' is nowhere else. */
static inline void assert_well_formed(const char *html)
{
    char stack[64][16];
    int depth = 0;
    bool style = false;
    for (const char *p = html; *p; p++) {
        if (*p == '&' && !style && strcspn(p, ";") > 8)
            fail_msg("a bare '&': %.60s", p);
        if (*p != '<' || (style && !str_starts_with(p, "</style>")))
            continue;
        bool closing = p[1] == '/';
        const char *name = p + 1 + closing;
        size_t n = strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789");
        if (*name == '!')
            continue;
        char tag[16];
        if (n == 0 || n >= sizeof(tag))
            fail_msg("no tag: %.60s", p);
        snprintf(tag, sizeof(tag), "%.*s", (int)n, name);
        if (is_one_of(tag, void_tags, 4) || is_one_of(tag, loose_tags, 2))
            continue;
        style = !closing && strcmp(tag, "style") == 0;
        if (closing && (depth == 0 || strcmp(stack[--depth], tag) != 0))
            fail_msg("</%s> closes <%s>: %.80s", tag, depth >= 0 ? stack[depth] : "nothing", p);
        if (!closing) {
            assert_true(depth < 64);
            memcpy(stack[depth++], tag, sizeof(tag));
        }
    }
    if (depth != 0)
        fail_msg("<%s> is not closed", stack[depth - 1]);
}

static inline void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in %s", part, text);
}

static inline void assert_has_not(const char *text, const char *part)
{
    const char *found = strstr(text, part);
    if (found)
        fail_msg("'%s' is in it: %.100s", part, found);
}
