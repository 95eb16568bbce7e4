/* What a report says of alternatives of blocks. */
#include "tests/support/report_example.h"

struct alternatives {
    struct example *e;
    Hone__V1__Library library;
    Hone__V1__Library__Arc arc[3], *list[3];
    double us[2], kl[3][2];
    Hone__V1__Student student, *students[1];
};
static struct alternatives known;
static char *precisions[] = {(char *)"fp32", (char *)"int8"};

static void make_arc(int i, const char *text, unsigned first, unsigned last, const char *network)
{
    Hone__V1__Library__Arc *a = &known.arc[i];
    hone__v1__library__arc__init(a);
    known.list[i] = a;
    a->text = (char *)text;
    a->first = first;
    a->last = last;
    a->network = (char *)network;
    a->loss = NAN;
}

static int begin(void **state)
{
    (void)state;
    struct example *e = known.e = make_example();
    hone__v1__library__init(&known.library);
    make_arc(0, "keep:2", 4, 7, "0a");
    make_arc(1, "identity", 8, 8, "");
    make_arc(2, "conv:32 " HOSTILE, 2, 2, "0b");
    known.us[0] = 12.5;
    known.us[1] = 3.25;
    known.arc[0].us = known.us;
    known.arc[0].n_us = 2;
    known.arc[0].loss = 0.0625;
    known.arc[0].macs = 1500000;
    known.arc[2].out = (char *)"it is not faster " HOSTILE;
    for (int i = 0; i < 2; i++) {
        known.kl[i][0] = i ? 0.5 : 0.125;
        known.kl[i][1] = i ? 0.5 : (double)NAN;
        known.arc[i].kl = known.kl[i];
        known.arc[i].n_kl = 2;
    }
    known.library.precisions = precisions;
    known.library.n_precisions = 2;
    known.library.arcs = known.list;
    known.library.n_arcs = 3;
    known.library.seconds = 61;
    hone__v1__student__init(&known.student);
    known.student.name = (char *)"student-1";
    known.student.design = (char *)"1-4 5-8=keep:2 9-28";
    known.students[0] = &known.student;
    e->state.students = known.students;
    e->state.n_students = 1;
    e->report.library = &known.library;
    return 0;
}

static void alternatives_are_listed_with_what_became_of_them(void **state)
{
    (void)state;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_well_formed(html);
    assert_has_not(html, "<script");
    assert_has_not(html, "nan");
    assert_has(html, "2 of 3 alternatives for parts of the original were scored, after learning to "
                     "do the same in 1 m 01 s");
    assert_has(html, "<tr><td>5-8</td><td class='left design'>keep:2</td><td>1.50</td>"
                     "<td>3.2 &micro;s</td><td>0.0625</td><td>0.1250</td>"
                     "<td class='left why'>in a student</td></tr>");
    assert_has(html, "<tr><td>9</td><td class='left design'>identity</td><td>0.00</td>");
    assert_has(html, "it is not faster");
}

static void alternatives_are_in_result_json(void **state)
{
    (void)state;
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    assert_int_equal(yyjson_arr_size(at(doc, "/alternatives")), 3);
    assert_string_equal(yyjson_get_str(at(doc, "/alternatives/0/units")), "5-8");
    assert_string_equal(yyjson_get_str(at(doc, "/alternatives/0/instead")), "keep:2");
    assert_string_equal(yyjson_get_str(at(doc, "/alternatives/0/sha256")), "0a");
    number_is(doc, "/alternatives/0/us/int8", 3.25);
    number_is(doc, "/alternatives/0/kl/fp32", 0.125);
    number_is(doc, "/alternatives/0/loss", 0.0625);
    assert_true(yyjson_is_null(at(doc, "/alternatives/0/kl/int8")));
    assert_null(yyjson_doc_ptr_get(doc, "/alternatives/1/us"));
    assert_string_equal(yyjson_get_str(at(doc, "/alternatives/2/left_out")),
                        "it is not faster " HOSTILE);
    yyjson_doc_free(doc);
}

static void a_job_without_alternatives_says_nothing_of_them(void **state)
{
    (void)state;
    known.e->report.library = NULL;
    _cleanup_(freep) char *html = text_of(report_html, &known.e->report);
    assert_has_not(html, "Alternatives of blocks");
    yyjson_doc *doc = json_of(report_result_json, &known.e->report);
    assert_null(yyjson_doc_ptr_get(doc, "/alternatives"));
    yyjson_doc_free(doc);
}

#define TEST(fn) cmocka_unit_test_setup(fn, begin)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(alternatives_are_listed_with_what_became_of_them),
        TEST(alternatives_are_in_result_json),
        TEST(a_job_without_alternatives_says_nothing_of_them),
    };
    return cmocka_run_group_tests_name("report of blocks", tests, NULL, NULL);
}
