/* What a report says of students: those that were tried, and one that was chosen. */
#include "tests/support/report_example.h"

#include "tests/support/quant_nets.h"

#define DESIGN "conv:16 conv:32:pool head"

struct students {
    struct example *e;
    Hone__V1__Student student[3], *list[3];
    double epochs[3][2], accuracies[3][2];
    job_network final;
    Hone__V1__Timing timing, *timings[1];
    Hone__V1__Accuracy accuracy[2], *accuracies_of_final[2];
    Hone__V1__LayerChoice choice[2], *choices[2];
    Hone__V1__Accuracy original_searched, *of_original[2];
    struct net was, is;
};
static struct students known;

static void make_student(int i, const char *name, const char *design, double us, double accuracy,
                         const char *out)
{
    Hone__V1__Student *s = &known.student[i];
    hone__v1__student__init(s);
    known.list[i] = s;
    s->name = (char *)name;
    s->design = (char *)design;
    s->predicted_us = us;
    s->macs = 2500000;
    s->parameters = 60500;
    s->rungs = 2;
    known.epochs[i][0] = 4;
    known.epochs[i][1] = 12;
    known.accuracies[i][0] = 0.5;
    known.accuracies[i][1] = accuracy;
    s->epochs = known.epochs[i];
    s->accuracies = known.accuracies[i];
    s->n_epochs = s->n_accuracies = 2;
    s->seconds = 61;
    s->predicted = accuracy + 0.01;
    s->out = (char *)out;
}

/* Three layers of 8 channels at 8 x 8 and 4 x 4, and the answers. */
static void make_original(struct net *net)
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv first = {.in = 3, .out = 8, .kernel = 3};
    const struct net_conv next = {.in = 8, .out = 8, .kernel = 3, .stride = 2};
    net_init(net, 5);
    int x = net_conv(net, "conv1", net_input(net, "input", 4, dims), &first);
    x = net_conv(net, "conv2", net_unary(net, OP_RELU, "relu1", x), &next);
    x = net_unary(net, OP_FLATTEN, "flat", net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", x));
    net_finish(net, net_gemm(net, "gemm", x, 8, 10, true));
}

static void make_redesigned(struct net *net)
{
    const int64_t dims[] = {DIM_BATCH, 3, 8, 8};
    const struct net_conv conv = {.in = 3, .out = 16, .kernel = 3};
    net_init(net, 6);
    int x = net_conv(net, "new1", net_input(net, "input", 4, dims), &conv);
    x = net_unary(net, OP_GLOBAL_AVERAGE_POOL, "gap", net_unary(net, OP_RELU, "relu1", x));
    net_finish(net, net_gemm(net, "head", net_unary(net, OP_FLATTEN, "flat", x), 16, 10, true));
}

static void make_final(void)
{
    network(&known.final, "student-1", 500);
    known.final.design = (char *)DESIGN;
    known.final.drop_points = 0.6;
    known.final.drop_upper95_points = 0.85;
    known.final.drop_bound_points = 0.9;
    known.final.within_limit = true;
    timing(&known.timing, "hone", 10);
    known.timings[0] = &known.timing;
    known.final.timings = known.timings;
    known.final.n_timings = 1;
    accuracy(&known.accuracy[0], "test", 0.914, 0.6);
    accuracy(&known.accuracy[1], "search", 0.913, 7);
    known.accuracies_of_final[0] = &known.accuracy[0];
    known.accuracies_of_final[1] = &known.accuracy[1];
    known.final.accuracies = known.accuracies_of_final;
    known.final.n_accuracies = 2;
    for (int i = 0; i < 2; i++) {
        hone__v1__layer_choice__init(&known.choice[i]);
        known.choices[i] = &known.choice[i];
        known.choice[i].layer = (char *)(i ? "head" : "new1");
        known.choice[i].precision = (char *)(i ? "fp32" : "int8");
    }
    known.final.layers = known.choices;
    known.final.n_layers = 2;
}

static int begin(void **state)
{
    (void)state;
    struct example *e = known.e = make_example();
    make_student(0, "student-1", DESIGN, 11, 0.913, "");
    make_student(1, "student-2", "residual:16*2 head", 20, 0.89, "72 " HOSTILE);
    make_student(2, "student-3", "conv:8 head", 5, 0.4, "too far behind");
    make_final();
    e->state.students = known.list;
    e->state.n_students = 3;
    e->candidates[0] = &known.final;
    e->finals[1] = &known.final;
    e->state.n_finals = 2;
    e->report.chosen = &known.final;
    e->report.final = true;
    e->layer[0].layer = (char *)"conv1";
    e->layer[1].layer = (char *)"conv2";
    make_original(&known.was);
    make_redesigned(&known.is);
    e->report.original = known.was.g;
    e->report.redesigned = known.is.g;
    return 0;
}

static int end(void **state)
{
    (void)state;
    net_release(&known.was);
    net_release(&known.is);
    return 0;
}

static void the_page_with_students_is_well_formed(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_well_formed(html);
    assert_has_not(html, "<script");
    assert_has_not(html, "nan");
}

static void students_are_listed_with_what_became_of_them(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_has(html, "3 networks of another architecture that learned what the original knows, in "
                     "3 m 03 s of training");
    assert_has(html, "<td>student-1</td><td class='left design'>" DESIGN
                     "</td><td>11.0 &micro;s</td><td>2.50</td><td>60.5</td><td class=left>4: 50.00 "
                     "%; 12: 91.30 %</td><td>92.30 %</td>");
    assert_has(html, "<td class='left why'>kept</td>");
    assert_has(html, "<td class='left why'>too far behind</td>");
}

/* student-2 at 20 us has lost 3 points of 92; student-3, at 42, would dwarf the picture. */
static void students_stand_on_the_front_where_they_were_left(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_has(html, "<title>student-2: 20.0 us predicted, 3.00 points</title>");
    assert_has_not(html, "<title>student-3");
    assert_has(html, "(2; 1 of them, that lose more than is drawn, left out)");
    assert_has(html, "<title>student-1: 10.0 us, 0.60 points</title>");
}

/* Where a name stands in the picture: the attributes before its text. */
static void place_of(const char *html, const char *name, double *ret_x, double *ret_y)
{
    _cleanup_(freep) char *end = str_printf(">%s</text>", name);
    const char *text = strstr(html, end), *at = text;
    assert_non_null(text);
    while (at > html && strncmp(at, "<text x=", 8) != 0)
        at--;
    assert_int_equal(sscanf(at, "<text x=%lf y=%lf", ret_x, ret_y), 2);
}

static void names_of_marks_that_coincide_stand_apart(void **state)
{
    (void)state;
    double x[2], y[2];
    const double us = known.timing.p50_us, drop = known.final.drop_points;
    known.timing.p50_us = 40; /* candidate-1's */
    known.final.drop_points = 0.5;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    known.timing.p50_us = us;
    known.final.drop_points = drop;
    place_of(html, "student-1", &x[0], &y[0]);
    place_of(html, "candidate-1", &x[1], &y[1]);
    assert_true(fabs(y[0] - y[1]) >= 13 || fabs(x[0] - x[1]) >= 9 * 7.2);
}

static void where_size_is_the_objective_the_front_is_of_sizes(void **state)
{
    (void)state;
    const Hone__V1__Objective before = known.e->spec.objective;
    known.e->spec.objective = HONE__V1__OBJECTIVE__SIZE;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    known.e->spec.objective = before;
    assert_has(html, "<h2>Accuracy against size</h2>");
    assert_has(html, ">smallest file, KB</text>");
    assert_has_not(html, "<title>student-2"); /* no file of it was written */
    yyjson_val *final = at(doc, "/front/5");
    assert_string_equal(yyjson_get_str(yyjson_obj_get(final, "name")), "student-1");
    assert_int_equal(yyjson_get_uint(yyjson_obj_get(final, "bytes")), known.final.bytes);
    yyjson_doc_free(doc);
}

/* candidate-1 takes longer than student-1, and loses less. */
static void the_front_is_in_result_json(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    static const struct {
        const char *name, *kind;
        double us, drop;
        bool measured, on_front;
    } expected[] = {{"student-2", "student", 20, 3, false, false},
                    {"student-3", "student", 5, 42, false, false},
                    {"int8", "candidate", 50, 0.8, true, false},
                    {"original", "original", 100, 0, true, true},
                    {"candidate-1", "final", 40, 0.5, true, true},
                    {"student-1", "final", 10, 0.6, true, true}};
    assert_int_equal(yyjson_arr_size(at(doc, "/front")), 6);
    for (size_t i = 0; i < 6; i++) {
        yyjson_val *o = yyjson_arr_get(at(doc, "/front"), i);
        assert_string_equal(yyjson_get_str(yyjson_obj_get(o, "name")), expected[i].name);
        assert_string_equal(yyjson_get_str(yyjson_obj_get(o, "kind")), expected[i].kind);
        assert_true(yyjson_get_num(yyjson_obj_get(o, "us")) == expected[i].us);
        assert_true(fabs(yyjson_get_num(yyjson_obj_get(o, "drop_points")) - expected[i].drop) <
                    1e-9);
        assert_true(yyjson_get_bool(yyjson_obj_get(o, "measured")) == expected[i].measured);
        assert_true(yyjson_get_bool(yyjson_obj_get(o, "on_front")) == expected[i].on_front);
    }
    yyjson_doc_free(doc);
}

static void students_are_in_result_json(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    assert_int_equal(yyjson_arr_size(at(doc, "/students")), 3);
    assert_string_equal(yyjson_get_str(at(doc, "/students/0/design")), DESIGN);
    assert_string_equal(yyjson_get_str(at(doc, "/students/1/given_up")), "72 " HOSTILE);
    number_is(doc, "/students/1/rungs/1/epochs", 12);
    number_is(doc, "/students/1/rungs/1/accuracy", 0.89);
    number_is(doc, "/students/2/predicted_us", 5);
    number_is(doc, "/students/2/seconds", 61);
    assert_string_equal(yyjson_get_str(at(doc, "/results/1/design")), DESIGN);
    assert_null(yyjson_doc_ptr_get(doc, "/results/0/design"));
    yyjson_doc_free(doc);
}

/* 8 x 8: conv1 (13824 MACs, 60 us) beside new1; 4 x 4: conv2 (9216, 30 us) beside nothing. */
static void a_new_architecture_stands_beside_the_original(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_has_not(html, "sum of layers");
    assert_has(html, "<tr><td>8 x 8</td><td>1</td><td>8</td><td>0.01</td><td>60.0 &micro;s</td>"
                     "<td>1</td><td>16</td><td>0.03</td></tr>");
    assert_has(html, "<tr><td>4 x 4</td><td>1</td><td>8</td><td>0.01</td><td>30.0 &micro;s</td>"
                     "<td>&ndash;</td><td>&ndash;</td><td>&ndash;</td></tr>");
    assert_has(html, "the original takes 100 &micro;s in fp32 and the new network 10.0 &micro;s");
    assert_has(html, "<tr><td>new1</td><td class=left>Conv + Relu</td><td>16 x 8 x 8</td>"
                     "<td>0.03</td><td class=left><span class='tag p-int8'>int8</span></td></tr>");
    assert_has(html, "<tr><td>head</td><td class=left>Gemm</td><td>10</td>");
}

static void the_new_architecture_is_in_result_json(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    assert_int_equal(yyjson_arr_size(at(doc, "/architecture/original_stages")), 3);
    assert_int_equal(yyjson_arr_size(at(doc, "/architecture/stages")), 2);
    number_is(doc, "/architecture/original_stages/0/macs", 13824);
    number_is(doc, "/architecture/original_stages/1/fp32_us", 30);
    assert_string_equal(yyjson_get_str(at(doc, "/architecture/original_stages/2/size")), "answers");
    assert_int_equal(yyjson_arr_size(at(doc, "/architecture/layers")), 3);
    assert_string_equal(yyjson_get_str(at(doc, "/architecture/layers/0/operators")), "Conv + Relu");
    assert_string_equal(yyjson_get_str(at(doc, "/architecture/layers/0/precision")), "int8");
    assert_string_equal(yyjson_get_str(at(doc, "/architecture/layers/2/precision")), "fp32");
    yyjson_doc_free(doc);
}

static void the_manifest_has_the_hashes_of_students(void **state)
{
    (void)state;
    char *trained[] = {(char *)"0a", (char *)"0b"};
    known.student[0].network = (char *)"0c";
    known.student[0].trained = trained;
    known.student[0].n_trained = 2;
    yyjson_doc *doc = json_of(report_manifest_json, &known.e->report);
    assert_string_equal(yyjson_get_str(at(doc, "/students/0/sha256")), "0c");
    assert_string_equal(yyjson_get_str(at(doc, "/students/0/trained_sha256/1")), "0b");
    assert_string_equal(yyjson_get_str(at(doc, "/networks/2/design")), DESIGN);
    yyjson_doc_free(doc);
}

static void a_student_that_was_tried_in_vain_leaves_the_original_as_it_is(void **state)
{
    (void)state;
    known.e->report.chosen = &known.e->candidate;
    known.e->report.original = known.e->report.redesigned = NULL;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_well_formed(html);
    assert_has(html, "Layer by layer");
    assert_has(html, "<h2>Students</h2>");
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    assert_null(yyjson_doc_ptr_get(doc, "/architecture"));
    yyjson_doc_free(doc);
}

static void a_result_so_far_says_so(void **state)
{
    (void)state;
    _cleanup_(freep) char *last = text_of(report_html, &known.e->report);
    assert_has_not(last, "best so far");
    known.e->report.final = false;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_has(html, "This is the best so far");
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, begin, end)

/* With the run that was asked for; result.json tells only what came of it. */
static void the_manifest_says_how_to_train_a_student_again(void **state)
{
    (void)state;
    Hone__V1__TrainSettings settings = HONE__V1__TRAIN_SETTINGS__INIT;
    Hone__V1__TrainTask asked = HONE__V1__TRAIN_TASK__INIT;
    Hone__V1__TrainResult result = HONE__V1__TRAIN_RESULT__INIT, *runs[] = {&result, &result};
    job_network trained = HONE__V1__NETWORK__INIT;
    char *names[] = {(char *)"r1", (char *)"r2"};
    settings.epochs = 4;
    settings.rate = 0.025;
    settings.evaluate = -1;
    settings.schedule = (char *)"one-cycle";
    settings.reinit = true;
    asked.settings = &settings;
    asked.network = (char *)"from";
    asked.teacher = (char *)"teacher";
    trained.artifact = (char *)"weights";
    result.network = &trained;
    result.asked = &asked;
    result.threads = 2;
    known.student[1].trained = names;
    known.student[1].n_trained = 2;
    known.e->report.runs = runs;
    known.e->report.n_runs = 2;
    yyjson_doc *doc = json_of(report_manifest_json, &known.e->report);
    assert_string_equal(yyjson_get_str(at(doc, "/students/1/rungs/1/sha256")), "weights");
    assert_string_equal(yyjson_get_str(at(doc, "/students/1/rungs/1/from_sha256")), "from");
    assert_string_equal(yyjson_get_str(at(doc, "/students/1/rungs/0/teacher_sha256")), "teacher");
    number_is(doc, "/students/1/rungs/0/threads", 2);
    number_is(doc, "/students/1/rungs/0/settings/rate", 0.025);
    number_is(doc, "/students/1/rungs/0/settings/evaluate", -1);
    assert_true(yyjson_get_bool(at(doc, "/students/1/rungs/0/settings/reinit")));
    assert_null(yyjson_doc_ptr_get(doc, "/students/1/rungs/0/settings/decay")); /* the usual one */
    assert_null(yyjson_doc_ptr_get(doc, "/students/0/rungs/0/settings"));       /* it has no runs */
    yyjson_doc_free(doc);
    doc = json_of(report_result_json, &known.e->report);
    assert_null(yyjson_doc_ptr_get(doc, "/students/1/rungs/0/settings"));
    yyjson_doc_free(doc);
    known.student[1].n_trained = 0;
    known.e->report.n_runs = 0;
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        TEST(the_page_with_students_is_well_formed),
        TEST(students_are_listed_with_what_became_of_them),
        TEST(students_stand_on_the_front_where_they_were_left),
        TEST(names_of_marks_that_coincide_stand_apart),
        TEST(where_size_is_the_objective_the_front_is_of_sizes),
        TEST(the_front_is_in_result_json),
        TEST(students_are_in_result_json),
        TEST(a_new_architecture_stands_beside_the_original),
        TEST(the_new_architecture_is_in_result_json),
        TEST(the_manifest_has_the_hashes_of_students),
        TEST(the_manifest_says_how_to_train_a_student_again),
        TEST(a_student_that_was_tried_in_vain_leaves_the_original_as_it_is),
        TEST(a_result_so_far_says_so),
    };
    return cmocka_run_group_tests_name("report of students", tests, NULL, NULL);
}
