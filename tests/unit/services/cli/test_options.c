#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>
#include <unistd.h>
#include <cmocka.h>

#include "services/cli/cli.h"

struct values {
    bool flag;
    const char *text, *choice;
    int64_t whole, seconds;
    double real;
    const char *args[2];
};

/* What the last parse printed on stderr. */
static char printed[16384];

/* Runs fn with stdout and stderr going to a file, and reads it. */
static int captured(int (*fn)(void *ctx), void *ctx)
{
    fflush(NULL);
    FILE *file = tmpfile();
    int out = dup(STDOUT_FILENO), err = dup(STDERR_FILENO);
    assert_non_null(file);
    dup2(fileno(file), STDOUT_FILENO);
    dup2(fileno(file), STDERR_FILENO);
    int r = fn(ctx);
    fflush(NULL);
    dup2(out, STDOUT_FILENO);
    dup2(err, STDERR_FILENO);
    close(out);
    close(err);
    rewind(file);
    printed[fread(printed, 1, sizeof(printed) - 1, file)] = 0;
    fclose(file);
    return r;
}

struct parse {
    struct values v;
    int argc;
    char *argv[16];
};

static int do_parse(void *ctx)
{
    struct parse *p = ctx;
    const struct cli_option options[] = {
        {.name = "flag", .kind = CLI_FLAG, .to = &p->v.flag, .help = "a flag"},
        {.name = "text", .value = "T", .kind = CLI_TEXT, .to = &p->v.text, .help = "a text"},
        {.name = "whole",
         .value = "N",
         .kind = CLI_INT,
         .to = &p->v.whole,
         .min = 1,
         .max = 9,
         .help = "a number"},
        {.name = "real",
         .value = "X",
         .kind = CLI_REAL,
         .to = &p->v.real,
         .max = 100,
         .help = "a number"},
        {.name = "time", .value = "T", .kind = CLI_SECONDS, .to = &p->v.seconds, .help = "a time"},
        {.name = "choice",
         .value = "C",
         .kind = CLI_CHOICE,
         .to = &p->v.choice,
         .choices = "one|two",
         .help = "a choice"},
        CLI_OPTIONS_END,
    };
    static const struct cli_command command = {.name = "try", .usage = "A [B]", .summary = "tries"};
    return cli_parse(&command, options, p->argc, p->argv, 1, 2, p->v.args);
}

/* Parses the words (ended by NULL). */
static int parse(struct values *ret, const char *first, ...)
{
    struct parse p = {.argc = 1, .argv = {(char *)"try"}};
    va_list ap;
    va_start(ap, first);
    for (const char *word = first; word; word = va_arg(ap, const char *))
        p.argv[p.argc++] = (char *)word;
    va_end(ap);
    int r = captured(do_parse, &p);
    if (ret)
        *ret = p.v;
    return r;
}

static void assert_printed(const char *text)
{
    if (!strstr(printed, text))
        fail_msg("'%s' was not printed, but: %s", text, printed);
}

static void options_and_arguments_may_be_mixed(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(parse(&v, "--flag", "a", "--text", "x", "--whole=7", "b", "--real", "1/4",
                           "--time", "1h30m", "--choice", "two", NULL),
                     -1);
    assert_true(v.flag);
    assert_string_equal(v.text, "x");
    assert_int_equal(v.whole, 7);
    assert_true(v.real == 0.25);
    assert_int_equal(v.seconds, 5400);
    assert_string_equal(v.choice, "two");
    assert_string_equal(v.args[0], "a");
    assert_string_equal(v.args[1], "b");
}

static void two_dashes_end_the_options(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(parse(&v, "--", "--flag", NULL), -1);
    assert_string_equal(v.args[0], "--flag");
    assert_false(v.flag);
}

static void a_value_may_be_empty_or_begin_with_a_dash(void **state)
{
    (void)state;
    struct values v;
    assert_int_equal(parse(&v, "a", "--text=", NULL), -1);
    assert_string_equal(v.text, "");
    assert_int_equal(parse(&v, "a", "--text", "-x", NULL), -1);
    assert_string_equal(v.text, "-x");
}

static void an_unknown_option_is_named_with_the_nearest(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "a", "--txet", "x", NULL), CLI_USAGE);
    assert_printed("--txet");
    assert_printed("did you mean --text?");
    assert_int_equal(parse(NULL, "a", "--zzzzzz", NULL), CLI_USAGE);
    assert_null(strstr(printed, "did you mean"));
    assert_int_equal(parse(NULL, "a", "-t", NULL), CLI_USAGE);
    assert_printed("-t");
}

static void a_bad_value_is_named_with_its_option(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "a", "--whole", "x", NULL), CLI_USAGE);
    assert_printed("--whole: 'x'");
    assert_int_equal(parse(NULL, "a", "--whole", "10", NULL), CLI_USAGE);
    assert_printed("outside 1 to 9");
    assert_int_equal(parse(NULL, "a", "--real", "nan", NULL), CLI_USAGE);
    assert_int_equal(parse(NULL, "a", "--real", "-1", NULL), CLI_USAGE);
    assert_int_equal(parse(NULL, "a", "--time", "soon", NULL), CLI_USAGE);
    assert_int_equal(parse(NULL, "a", "--choice", "tw", NULL), CLI_USAGE);
    assert_printed("one|two");
    assert_int_equal(parse(NULL, "a", "--choice", "", NULL), CLI_USAGE);
    assert_int_equal(parse(NULL, "a", "--flag=1", NULL), CLI_USAGE);
}

static void missing_words_are_named(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "--flag", NULL), CLI_USAGE);
    assert_printed("hone try A [B]");
    assert_int_equal(parse(NULL, "a", "--text", NULL), CLI_USAGE);
    assert_printed("--text needs a value");
    assert_int_equal(parse(NULL, "a", "b", "c", NULL), CLI_USAGE);
    assert_printed("'c'");
}

static void help_lists_every_option_and_ends_well(void **state)
{
    (void)state;
    assert_int_equal(parse(NULL, "--help", NULL), CLI_OK);
    assert_printed("usage: hone try A [B]");
    assert_printed("--whole N");
    assert_printed("one|two");
}

static int do_main(void *ctx)
{
    char **words = ctx;
    int n = 0;
    while (words[n])
        n++;
    return cli_main(n, words);
}

static void an_unknown_command_is_named_with_the_nearest(void **state)
{
    (void)state;
    char *words[] = {(char *)"hone", (char *)"optimise", NULL};
    assert_int_equal(captured(do_main, words), CLI_USAGE);
    assert_printed("did you mean 'hone optimize'?");
    words[1] = (char *)"frobnicate";
    assert_int_equal(captured(do_main, words), CLI_USAGE);
    assert_null(strstr(printed, "did you mean"));
}

static void every_command_has_help_with_usage_and_examples(void **state)
{
    (void)state;
    for (int i = 0; cli_commands[i]; i++) {
        char *words[] = {(char *)"hone", (char *)cli_commands[i]->name, (char *)"--help", NULL};
        assert_int_equal(captured(do_main, words), CLI_OK);
        assert_printed("usage: hone ");
        assert_printed("examples:");
        assert_printed("exit codes:");
        for (const char *line = printed; *line; line += strcspn(line, "\n") + 1)
            assert_true(strcspn(line, "\n") <= 110);
    }
}

static void no_command_gives_the_list(void **state)
{
    (void)state;
    char *words[] = {(char *)"hone", NULL};
    assert_int_equal(captured(do_main, words), CLI_OK);
    for (int i = 0; cli_commands[i]; i++)
        assert_printed(cli_commands[i]->name);
}

static void the_nearest_name_is_near(void **state)
{
    (void)state;
    const char *const names[] = {"optimize", "inspect", "jobs", "up"};
    assert_string_equal(cli_nearest("opt", names, 4), "optimize");
    assert_string_equal(cli_nearest("jobbs", names, 4), "jobs");
    assert_string_equal(cli_nearest("ispnect", names, 4), "inspect");
    assert_null(cli_nearest("download", names, 4));
    assert_null(cli_nearest("", names, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_and_arguments_may_be_mixed),
        cmocka_unit_test(two_dashes_end_the_options),
        cmocka_unit_test(a_value_may_be_empty_or_begin_with_a_dash),
        cmocka_unit_test(an_unknown_option_is_named_with_the_nearest),
        cmocka_unit_test(a_bad_value_is_named_with_its_option),
        cmocka_unit_test(missing_words_are_named),
        cmocka_unit_test(help_lists_every_option_and_ends_well),
        cmocka_unit_test(an_unknown_command_is_named_with_the_nearest),
        cmocka_unit_test(every_command_has_help_with_usage_and_examples),
        cmocka_unit_test(no_command_gives_the_list),
        cmocka_unit_test(the_nearest_name_is_near),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
