/* The files that a user gets: well-formed whatever names and numbers they hold, and right. */
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

static void timing(Hone__V1__Timing *t, const char *engine, double us)
{
    hone__v1__timing__init(t);
    t->engine = (char *)engine;
    t->precision = (char *)"auto";
    t->p50_us = us;
    t->p90_us = us * 1.1;
    t->images_per_s = 1e6 / us;
    t->runs = 1000;
}

static void accuracy(Hone__V1__Accuracy *a, const char *part, double value, double drop)
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

static void network(job_network *n, const char *name, uint64_t bytes)
{
    hone__v1__network__init(n);
    n->name = (char *)name;
    n->artifact = (char *)"0123abcd";
    n->bytes = bytes;
    n->macs = 1000000;
    n->parameters = 5000;
}

/* baseline 100 us; int8 50 us; candidate-1, chosen, 40 us, drop 0.5 (at most 0.75) of 1.0 */
static void make_networks(struct example *e)
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
    e->candidate.within_limit = true;
    hone__v1__layer_choice__init(&e->choice);
    e->choice.layer = (char *)HOSTILE;
    e->choice.precision = (char *)"int8";
    e->choices[0] = &e->choice;
    e->candidate.layers = e->choices;
    e->candidate.n_layers = 1;
}

static void make_profile(struct example *e)
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

static void make_state(struct example *e)
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

static struct example *make_example(void)
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

static char *text_of(writer *write, const struct report *report)
{
    struct strbuf out = {0};
    struct err err = {0};
    if (write(report, &out, &err) < 0)
        fail_msg("%s", err.message);
    return strbuf_take(&out);
}

static yyjson_doc *json_of(writer *write, const struct report *report)
{
    _cleanup_(freep) char *text = text_of(write, report);
    yyjson_read_err why;
    yyjson_doc *doc = yyjson_read_opts(text, strlen(text), YYJSON_READ_NOFLAG, NULL, &why);
    if (!doc)
        fail_msg("%s at byte %zu: %s", why.msg, why.pos, text);
    return doc;
}

/* "results.0.value" */
static yyjson_val *at(yyjson_doc *doc, const char *pointer)
{
    yyjson_val *v = yyjson_doc_ptr_get(doc, pointer);
    if (!v)
        fail_msg("%s is not there", pointer);
    return v;
}

static void number_is(yyjson_doc *doc, const char *pointer, double expected)
{
    double value = yyjson_get_num(at(doc, pointer));
    if (!yyjson_is_num(at(doc, pointer)) || fabs(value - expected) > 1e-9)
        fail_msg("%s is %.12g, not %.12g", pointer, value, expected);
}

/* ---- HTML ---- */

static const char *const void_tags[] = {"meta", "line", "circle", "br"};
/* Those that HTML closes by itself. */
static const char *const loose_tags[] = {"th", "html"};

static bool is_one_of(const char *tag, const char *const *list, int n)
{
    for (int i = 0; i < n; i++)
        if (strcmp(tag, list[i]) == 0)
            return true;
    return false;
}

/* Every element that is opened is closed in order, and a '<' or a bare '&' is nowhere else. */
static void assert_well_formed(const char *html)
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

static void assert_has(const char *text, const char *part)
{
    if (!strstr(text, part))
        fail_msg("'%s' is not in %s", part, text);
}

static void assert_has_not(const char *text, const char *part)
{
    const char *found = strstr(text, part);
    if (found)
        fail_msg("'%s' is in it: %.100s", part, found);
}

static void the_page_is_well_formed_and_loads_nothing(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &make_example()->report);
    assert_well_formed(html);
    assert_has_not(html, "src=");
    assert_has_not(html, "http");
    assert_has_not(html, "nan");
    assert_has_not(html, "inf<");
}

static void hostile_names_are_text_on_the_page(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &make_example()->report);
    assert_has_not(html, "<script");
    assert_has_not(html, "alert(\"");
    assert_has(html, "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#39;x");
}

static void bytes_that_are_no_text_do_not_reach_the_page(void **state)
{
    (void)state;
    struct example *e = make_example();
    e->asked.model_path = (char *)"/models/" BROKEN ".onnx";
    e->layer[1].layer = (char *)"a\x01\x1b" BROKEN;
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_well_formed(html);
    for (const unsigned char *p = (const unsigned char *)html; *p; p++)
        if (*p >= 0x80 || (*p < 0x20 && *p != '\n' && *p != '\t'))
            fail_msg("byte %d: %.40s", *p, (const char *)p - 20);
}

/* What is shown can be pasted into a shell. */
static void the_command_quotes_as_a_shell_does(void **state)
{
    (void)state;
    struct example *e = make_example();
    e->asked.data_path = (char *)"/data/it's here";
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_has(html, "--data &#39;/data/it&#39;\\&#39;&#39;s here&#39;");
}

static void figures_on_the_page_are_those_that_were_measured(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &make_example()->report);
    assert_has(html, "<b>2.50&times;</b><span>faster than the original in fp32, same kernels");
    assert_has(html, "<b>2.00&times;</b><span>faster than the original in fp32 on ONNX Runtime");
    assert_has(html, "<b>1.25&times;</b><span>as fast as the original in plain int8");
    assert_has(html, "<b>0.50</b><span>points of accuracy lost");
    assert_has(html, "<b>4.00&times;</b><span>smaller file");
    assert_has(html, "92.00 %");
    assert_has(html, "91.50 %");
    /* layers: the hostile one went from 60 to 20 us in int8, the plain one stays at 30 */
    assert_has(html, "sum of layers</td><td></td><td class=left>90.0 &micro;s</td>"
                     "<td class=left>50.0 &micro;s");
}

static void a_job_without_gain_has_a_page_too(void **state)
{
    (void)state;
    struct example *e = make_example();
    e->report.chosen = &e->baseline;
    e->report.asked = NULL;
    e->candidate.within_limit = false;
    e->spec.max_drop = 0;
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_well_formed(html);
    assert_has_not(html, "class=kpi>");
    assert_has(html, "&#10007;");
}

static void a_page_without_a_single_measurement_is_still_one(void **state)
{
    (void)state;
    struct example *e = make_example();
    e->baseline.n_timings = e->int8.n_timings = e->candidate.n_timings = 0;
    e->baseline.n_accuracies = e->int8.n_accuracies = e->candidate.n_accuracies = 0;
    e->profile.n_layers = 0;
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_well_formed(html);
    assert_has_not(html, "nan");
    assert_has_not(html, "inf");
}

/* ---- JSON ---- */

static void result_json_has_the_figures(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_result_json, &make_example()->report);
    assert_string_equal(yyjson_get_str(at(doc, "/schema")), "hone.result/1");
    assert_string_equal(yyjson_get_str(at(doc, "/chosen")), "candidate-1");
    assert_string_equal(yyjson_get_str(at(doc, "/results/0/file")), "model.onnx");
    assert_string_equal(yyjson_get_str(at(doc, "/limit/objective")), "latency");
    number_is(doc, "/limit/max_drop_points", 1);
    number_is(doc, "/baseline/p50_us", 100);
    number_is(doc, "/baseline/value", 0.92);
    number_is(doc, "/results/0/p50_us", 40);
    number_is(doc, "/results/0/value", 0.915);
    number_is(doc, "/results/0/n", 1000);
    number_is(doc, "/results/0/speedup_fp32", 2.5);
    number_is(doc, "/results/0/speedup_int8", 1.25);
    number_is(doc, "/results/0/drop_points", 0.5);
    number_is(doc, "/results/0/drop_upper95_points", 0.75);
    number_is(doc, "/results/0/images_per_s", 25000);
    number_is(doc, "/results/0/peers/onnxruntime/p50_us", 20);
    assert_true(yyjson_get_bool(at(doc, "/results/0/within_limit")));
    assert_int_equal(yyjson_arr_size(at(doc, "/results")), 1);
    yyjson_doc_free(doc);
}

static void manifest_json_has_every_network_and_decision(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_manifest_json, &make_example()->report);
    assert_string_equal(yyjson_get_str(at(doc, "/schema")), "hone.manifest/1");
    assert_int_equal(yyjson_arr_size(at(doc, "/networks")), 3);
    assert_int_equal(yyjson_arr_size(at(doc, "/finals")), 1);
    assert_int_equal(yyjson_arr_size(at(doc, "/decisions")), 3); /* with the verdict */
    assert_string_equal(yyjson_get_str(at(doc, "/created")), "2023-11-14T22:13:20Z");
    number_is(doc, "/networks/2/timings/0/p50_us", 40);
    yyjson_doc_free(doc);
}

static void hostile_names_come_back_from_json_as_they_were(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_manifest_json, &make_example()->report);
    assert_string_equal(yyjson_get_str(at(doc, "/decisions/0")), HOSTILE);
    assert_string_equal(yyjson_get_str(at(doc, "/inputs/data_path")), "/data/" HOSTILE);
    yyjson_val *layers = at(doc, "/finals/0/layers");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(layers, HOSTILE)), "int8");
    yyjson_doc_free(doc);
}

static void what_is_no_number_is_null(void **state)
{
    (void)state;
    static const double odd[] = {NAN, INFINITY, -INFINITY};
    for (int i = 0; i < 3; i++) {
        struct example *e = make_example();
        e->accuracy[2].kl = odd[i];
        e->timing[4].p90_us = odd[i];
        yyjson_doc *doc = json_of(report_result_json, &e->report);
        assert_true(yyjson_is_null(at(doc, "/results/0/kl")));
        assert_true(yyjson_is_null(at(doc, "/results/0/p90_us")));
        yyjson_doc_free(doc);
        doc = json_of(report_manifest_json, &e->report);
        yyjson_doc_free(doc);
    }
}

static void names_that_are_no_utf8_still_give_json(void **state)
{
    (void)state;
    struct example *e = make_example();
    e->asked.model_path = (char *)"/models/" BROKEN ".onnx";
    e->asked.data_path = (char *)BROKEN;
    e->choice.layer = (char *)BROKEN;
    e->decisions[0] = (char *)BROKEN;
    e->report.verdict = (char *)BROKEN;
    e->measured.cpu = (char *)BROKEN;
    yyjson_doc *doc = json_of(report_result_json, &e->report);
    assert_string_equal(yyjson_get_str(at(doc, "/baseline/file")), "/models/caf??.onnx");
    yyjson_doc_free(doc);
    doc = json_of(report_manifest_json, &e->report);
    assert_string_equal(yyjson_get_str(at(doc, "/inputs/model_path")), "/models/caf??.onnx");
    yyjson_doc_free(doc);
}

/* ---- networks that were trained ---- */

struct learned {
    Hone__V1__TrainResult result, *list[1];
    Hone__V1__TrainResult__Epoch epoch[3], *epochs[3];
    job_network network;
};

/* Three of four epochs; the second was not looked at on the search part. */
static void learn(struct learned *l, struct example *e)
{
    static const double loss[] = {2, 1, 0.5}, search[] = {0.25, NAN, 0.75};
    hone__v1__train_result__init(&l->result);
    network(&l->network, HOSTILE, 1000);
    for (int i = 0; i < 3; i++) {
        hone__v1__train_result__epoch__init(&l->epoch[i]);
        l->epoch[i].epoch = (uint32_t)i + 1;
        l->epoch[i].loss = loss[i];
        l->epoch[i].feature_loss = NAN;
        l->epoch[i].accuracy = 0.2 * (i + 1);
        l->epoch[i].search_accuracy = search[i];
        l->epochs[i] = &l->epoch[i];
    }
    l->result.network = &l->network;
    l->result.curve = l->epochs;
    l->result.n_curve = 3;
    l->result.epochs = 4;
    l->list[0] = &l->result;
    e->report.trained = l->list;
    e->report.n_trained = 1;
}

static void curves_of_what_was_trained_are_drawn(void **state)
{
    (void)state;
    struct example *e = make_example();
    struct learned l;
    _cleanup_(freep) char *before = text_of(report_html, &e->report);
    assert_has_not(before, "Learning curves");
    learn(&l, e);
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_well_formed(html);
    assert_has_not(html, "<script>");
    assert_has(html, "3 of 4 epochs");
    /* loss 2, 1, 0.5 of at most 2; the search part without its second point */
    assert_has(html, "points='50.0,12.0 203.3,109.0 356.7,157.5 '");
    assert_has(html, "points='50.0,157.5 356.7,60.5 '");
    assert_has_not(html, "nan");
}

static void curves_are_in_result_json(void **state)
{
    (void)state;
    struct example *e = make_example();
    struct learned l;
    learn(&l, e);
    yyjson_doc *doc = json_of(report_result_json, &e->report);
    number_is(doc, "/curves/0/epochs/0/epoch", 1);
    number_is(doc, "/curves/0/epochs/2/loss", 0.5);
    number_is(doc, "/curves/0/epochs/2/search_accuracy", 0.75);
    assert_null(yyjson_doc_ptr_get(doc, "/curves/0/epochs/1/search_accuracy"));
    assert_string_equal(yyjson_get_str(at(doc, "/curves/0/name")), HOSTILE);
    yyjson_doc_free(doc);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_page_is_well_formed_and_loads_nothing),
        cmocka_unit_test(hostile_names_are_text_on_the_page),
        cmocka_unit_test(bytes_that_are_no_text_do_not_reach_the_page),
        cmocka_unit_test(the_command_quotes_as_a_shell_does),
        cmocka_unit_test(figures_on_the_page_are_those_that_were_measured),
        cmocka_unit_test(a_job_without_gain_has_a_page_too),
        cmocka_unit_test(a_page_without_a_single_measurement_is_still_one),
        cmocka_unit_test(result_json_has_the_figures),
        cmocka_unit_test(manifest_json_has_every_network_and_decision),
        cmocka_unit_test(hostile_names_come_back_from_json_as_they_were),
        cmocka_unit_test(what_is_no_number_is_null),
        cmocka_unit_test(names_that_are_no_utf8_still_give_json),
        cmocka_unit_test(curves_of_what_was_trained_are_drawn),
        cmocka_unit_test(curves_are_in_result_json),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
