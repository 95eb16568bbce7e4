/* Messages of plain fields as JSON, and back. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <hone/v1/tasks.pb-c.h>

#include "shared/base/mem.h"
#include "shared/work/message.h"
#include "shared/work/message_json.h"

typedef Hone__V1__TrainSettings settings;

static char *text_of(const settings *s)
{
    yyjson_mut_doc *doc = yyjson_mut_doc_new(NULL);
    yyjson_mut_doc_set_root(doc, message_to_json(&s->base, doc));
    char *text = yyjson_mut_write(doc, 0, NULL);
    yyjson_mut_doc_free(doc);
    assert_non_null(text);
    return text;
}

static int read_text(const char *text, settings **ret, struct err *err)
{
    yyjson_doc *doc = yyjson_read(text, strlen(text), 0);
    assert_non_null(doc);
    *ret = message_new(&hone__v1__train_settings__descriptor, err);
    const int r = message_from_json(yyjson_doc_get_root(doc), &(*ret)->base, err);
    yyjson_doc_free(doc);
    return r;
}

static void what_is_said_comes_back(void **state)
{
    (void)state;
    settings s = HONE__V1__TRAIN_SETTINGS__INIT;
    _cleanup_(message_freep) settings *back = NULL;
    struct err err = {0};
    s.epochs = 12;
    s.rate = 0.1;
    s.distil = -1;
    s.evaluate = -1;
    s.seed = UINT64_MAX;
    s.reinit = true;
    s.schedule = (char *)"one-cycle \"quoted\"";
    _cleanup_(freep) char *text = text_of(&s);
    if (read_text(text, &back, &err) < 0)
        fail_msg("%s: %s", err.message, text);
    assert_int_equal(back->epochs, 12);
    assert_true(back->rate == 0.1 && back->distil == -1);
    assert_int_equal(back->evaluate, -1);
    assert_true(back->seed == UINT64_MAX);
    assert_true(back->reinit && !back->whiten);
    assert_string_equal(back->schedule, s.schedule);
    assert_string_equal(back->optimizer, "");
}

static void fields_that_hold_nothing_are_left_out(void **state)
{
    (void)state;
    settings s = HONE__V1__TRAIN_SETTINGS__INIT;
    s.views = 4;
    _cleanup_(freep) char *text = text_of(&s);
    assert_string_equal(text, "{\"views\":4}");
}

static void what_is_not_known_or_of_another_kind_is_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *why;
    } cases[] = {
        {"{\"epoch\":4}", "'epoch' is not known"},
        {"{\"epochs\":\"4\"}", "'epochs' is of"},
        {"{\"epochs\":-4}", "'epochs' is of"},
        {"{\"epochs\":5000000000}", "'epochs' is of"},
        {"{\"evaluate\":1e9}", "'evaluate' is of"},
        {"{\"rate\":\"much\"}", "'rate' is of"},
        {"{\"reinit\":1}", "'reinit' is of"},
        {"{\"flip\":false}", "'flip' is of"},
        {"{\"evaluate\":3000000000}", "'evaluate' is of"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        _cleanup_(message_freep) settings *back = NULL;
        struct err err = {0};
        assert_true(read_text(cases[i].text, &back, &err) == -ERR_INVALID_ARGUMENT);
        if (!strstr(err.message, cases[i].why))
            fail_msg("'%s' lacks '%s'", err.message, cases[i].why);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_said_comes_back),
        cmocka_unit_test(fields_that_hold_nothing_are_left_out),
        cmocka_unit_test(what_is_not_known_or_of_another_kind_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
