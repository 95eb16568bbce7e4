/* The files that a user gets: well-formed whatever names and numbers they hold, and right. */
#include "tests/support/report_example.h"

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

static void where_throughput_is_wanted_it_is_said(void **state)
{
    (void)state;
    struct example *e = make_example();
    _cleanup_(freep) char *usual = text_of(report_html, &e->report);
    assert_has(usual, "<th>90th percentile");
    assert_has_not(usual, "images/s");
    e->spec.objective = HONE__V1__OBJECTIVE__THROUGHPUT;
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_well_formed(html);
    assert_has(html, "<th>images/s");
    assert_has(html, "<td>25000</td>");
    assert_has(html, "--objective throughput");
}

static void how_to_reproduce_has_all_limits_and_what_was_left_out(void **state)
{
    (void)state;
    static char race[] = "race";
    struct example *e = make_example();
    e->spec.max_us = 200;
    e->spec.max_bytes = 4096;
    e->spec.max_drop = 100;
    _cleanup_(freep) char *turned = text_of(report_html, &e->report);
    assert_has(turned, " --max-latency 200us --max-bytes 4096</pre>");
    assert_has_not(turned, "points lost</text>"); /* no limit is drawn */
    e->spec.max_drop = 0;
    e->spec.confidence = 0.5;
    e->spec.without = race;
    e->asked.budget_s = 900;
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    assert_has(html,
               " --without race --budget 900s --max-latency 200us --max-bytes 4096 --max-drop 0 "
               "--confidence 50</pre>");
    yyjson_doc *doc = json_of(report_result_json, &e->report);
    number_is(doc, "/limit/confidence", 0.5);
    number_is(doc, "/limit/max_us", 200);
    yyjson_doc_free(doc);
    doc = json_of(report_manifest_json, &e->report);
    assert_string_equal(yyjson_get_str(at(doc, "/settings/without")), "race");
    yyjson_doc_free(doc);
}

/* conv1 takes what it takes in the kernels of 8 bits. */
static void layers_in_few_bits_are_shown_as_such(void **state)
{
    (void)state;
    struct example *e = make_example();
    e->choice.precision = (char *)"int4";
    _cleanup_(freep) char *html = text_of(report_html, &e->report);
    e->choice.precision = (char *)"int8";
    _cleanup_(freep) char *usual = text_of(report_html, &e->report);
    assert_has(html, "<span class='tag p-int8'>int4</span>");
    assert_int_equal(strlen(html), strlen(usual)); /* every other number is the same */
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
    number_is(doc, "/results/0/drop_bound_points", 0.8);
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
    assert_string_equal(yyjson_get_str(at(doc, "/schema")), "hone.manifest/2");
    assert_int_equal(yyjson_arr_size(at(doc, "/networks")), 3);
    assert_int_equal(yyjson_arr_size(at(doc, "/finals")), 1);
    assert_int_equal(yyjson_arr_size(at(doc, "/decisions")), 3); /* with the verdict */
    assert_string_equal(yyjson_get_str(at(doc, "/created")), "2023-11-14T22:13:20Z");
    number_is(doc, "/networks/2/timings/0/p50_us", 40);
    number_is(doc, "/networks/2/macs", 1000000);
    number_is(doc, "/networks/2/parameters", 5000);
    yyjson_doc_free(doc);
}

static void the_manifest_names_the_files_beside_it(void **state)
{
    (void)state;
    struct example *e = make_example();
    Hone__V1__JobResult result = HONE__V1__JOB_RESULT__INIT;
    Hone__V1__JobResult__File file = HONE__V1__JOB_RESULT__FILE__INIT, *list[] = {&file};
    file.name = (char *)"model.onnx";
    file.artifact = (char *)"0123abcd";
    file.bytes = 1000;
    result.files = list;
    result.n_files = 1;
    e->report.delivered = &result;
    yyjson_doc *doc = json_of(report_manifest_json, &e->report);
    assert_string_equal(yyjson_get_str(at(doc, "/files/0/name")), "model.onnx");
    assert_string_equal(yyjson_get_str(at(doc, "/files/0/sha256")), "0123abcd");
    number_is(doc, "/files/0/bytes", 1000);
    yyjson_doc_free(doc);
}

/* What speed-ups over int8 are over. */
static void plain_int8_has_a_file(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_result_json, &make_example()->report);
    assert_string_equal(yyjson_get_str(at(doc, "/plain_int8/file")), "alternative-int8.onnx");
    assert_string_equal(yyjson_get_str(at(doc, "/results/0/file")), "model.onnx");
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
        cmocka_unit_test(where_throughput_is_wanted_it_is_said),
        cmocka_unit_test(how_to_reproduce_has_all_limits_and_what_was_left_out),
        cmocka_unit_test(layers_in_few_bits_are_shown_as_such),
        cmocka_unit_test(a_job_without_gain_has_a_page_too),
        cmocka_unit_test(a_page_without_a_single_measurement_is_still_one),
        cmocka_unit_test(result_json_has_the_figures),
        cmocka_unit_test(manifest_json_has_every_network_and_decision),
        cmocka_unit_test(the_manifest_names_the_files_beside_it),
        cmocka_unit_test(plain_int8_has_a_file),
        cmocka_unit_test(hostile_names_come_back_from_json_as_they_were),
        cmocka_unit_test(what_is_no_number_is_null),
        cmocka_unit_test(names_that_are_no_utf8_still_give_json),
        cmocka_unit_test(curves_of_what_was_trained_are_drawn),
        cmocka_unit_test(curves_are_in_result_json),
    };
    return cmocka_run_group_tests_name("report", tests, NULL, NULL);
}
