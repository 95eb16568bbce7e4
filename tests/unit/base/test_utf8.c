/* Copying text that may not be UTF-8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "shared/base/utf8.h"

static void copies_to(const char *from, size_t size, const char *expected)
{
    char to[64];
    memset(to, 'x', sizeof(to));
    utf8_copy(to, size, from);
    assert_string_equal(to, expected);
    assert_int_equal(to[size], 'x'); /* nothing behind the end was touched */
}

static void good_text_stays(void **state)
{
    (void)state;
    copies_to("", 10, "");
    copies_to("a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z", 20,
              "a\xc3\xa4\xe2\x82\xac\xf0\x9f\x98\x80z");
}

static void bad_bytes_become_question_marks(void **state)
{
    (void)state;
    copies_to("a\xff"
              "b",
              20, "a?b");
    copies_to("\xc3", 20, "?"); /* ends early */
    copies_to("\xe2\x82", 20, "??");
    copies_to("\xc0\x80", 20, "??"); /* overlong */
    copies_to("\xe0\x80\x80", 20, "???");
    copies_to("\xed\xa0\x80", 20, "???");      /* a surrogate */
    copies_to("\xf4\x90\x80\x80", 20, "????"); /* beyond the last character */
    copies_to("\xf0\x80\x80\x80", 20, "????");
}

static void long_text_is_cut_between_characters(void **state)
{
    (void)state;
    copies_to("abc", 3, "ab");
    copies_to("a\xc3\xa4", 3, "a");
    copies_to("a\xc3\xa4", 4, "a\xc3\xa4");
    copies_to("abc", 1, "");
}

static void text_may_be_cleaned_where_it_lies(void **state)
{
    (void)state;
    char text[] = "a\xff\xc3\xa4\xfe";
    utf8_copy(text, sizeof(text), text);
    assert_string_equal(text, "a?\xc3\xa4?");
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(good_text_stays),
        cmocka_unit_test(bad_bytes_become_question_marks),
        cmocka_unit_test(long_text_is_cut_between_characters),
        cmocka_unit_test(text_may_be_cleaned_where_it_lies),
    };
    return cmocka_run_group_tests_name("base: UTF-8", tests, NULL, NULL);
}
