/* Options: parsing, messages about mistakes, help. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "services/cli/cli.h"
#include "shared/base/str.h"

#define MAX_WORD 64

/* ---- the nearest name (Levenshtein, where a swap of neighbours costs one) ---- */

static int min3(int a, int b, int c)
{
    int m = a < b ? a : b;
    return m < c ? m : c;
}

static int distance(const char *a, const char *b)
{
    int n = (int)strlen(a), m = (int)strlen(b), d[MAX_WORD + 1][MAX_WORD + 1];
    if (n > MAX_WORD || m > MAX_WORD)
        return MAX_WORD;
    for (int i = 0; i <= n; i++)
        d[i][0] = i;
    for (int j = 0; j <= m; j++)
        d[0][j] = j;
    for (int i = 1; i <= n; i++)
        for (int j = 1; j <= m; j++) {
            d[i][j] =
                min3(d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] != b[j - 1]));
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                d[i - 2][j - 2] + 1 < d[i][j])
                d[i][j] = d[i - 2][j - 2] + 1;
        }
    return d[n][m];
}

const char *cli_nearest(const char *word, const char *const *names, int n)
{
    const char *best = NULL;
    int least = (int)strlen(word) / 3 + 2; /* one slip in three letters, and one more */
    for (int i = 0; i < n; i++) {
        int d = distance(word, names[i]);
        bool begins = strlen(word) >= 2 && str_starts_with(names[i], word);
        if (begins)
            d = 1;
        if (d < least) {
            least = d;
            best = names[i];
        }
    }
    return best;
}

/* ---- mistakes ---- */

int cli_usage_error(const struct cli_command *command, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    fprintf(stderr, "hone %s: ", command->name);
    vfprintf(stderr, fmt, ap);
    fprintf(stderr, "\nTry 'hone %s --help'.\n", command->name);
    va_end(ap);
    return CLI_USAGE;
}

static int unknown_option(const struct cli_command *command, const struct cli_option *options,
                          const char *word)
{
    const char *names[64] = {"help"};
    int n = 1;
    for (const struct cli_option *o = options; o->name && n < 64; o++)
        names[n++] = o->name;
    const char *near = cli_nearest(word + strspn(word, "-"), names, n);
    if (near)
        return cli_usage_error(command, "there is no option %s; did you mean --%s?", word, near);
    return cli_usage_error(command, "there is no option %s", word);
}

/* ---- values ---- */

static bool is_choice(const char *choices, const char *text)
{
    size_t n = strlen(text);
    for (const char *p = choices; n > 0; p++) {
        size_t length = strcspn(p, "|");
        if (length == n && memcmp(p, text, n) == 0)
            return true;
        p += length;
        if (!*p)
            break;
    }
    return false;
}

static int set_number(const struct cli_option *o, const char *text, struct err *err)
{
    bool bounded = o->min != 0 || o->max != 0;
    double real = 0;
    int64_t whole = 0;
    uint64_t bytes = 0;
    int r = o->kind == CLI_REAL      ? str_parse_f64(text, &real, err)
            : o->kind == CLI_MICROS  ? str_parse_micros(text, &real, err)
            : o->kind == CLI_BYTES   ? str_parse_bytes(text, &bytes, err)
            : o->kind == CLI_SECONDS ? str_parse_duration(text, &whole, err)
                                     : str_parse_i64(text, INT64_MIN, INT64_MAX, &whole, err);
    if (r < 0)
        return r;
    const bool is_real = o->kind == CLI_REAL || o->kind == CLI_MICROS;
    const double value = is_real ? real : o->kind == CLI_BYTES ? (double)bytes : (double)whole;
    if (bounded && !(value >= o->min && value <= o->max))
        return err_set(err, ERR_OUT_OF_RANGE, "%s is outside %g to %g", text, o->min, o->max);
    if (is_real)
        *(double *)o->to = real;
    else if (o->kind == CLI_BYTES)
        *(uint64_t *)o->to = bytes;
    else
        *(int64_t *)o->to = whole;
    return 0;
}

static int set_value(const struct cli_option *o, const char *text, struct err *err)
{
    switch (o->kind) {
    case CLI_FLAG:
        *(bool *)o->to = true;
        return 0;
    case CLI_TEXT:
        *(const char **)o->to = text;
        return 0;
    case CLI_CHOICE:
        if (!is_choice(o->choices, text))
            return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is none of %s", text, o->choices);
        *(const char **)o->to = text;
        return 0;
    default:
        return set_number(o, text, err);
    }
}

static const struct cli_option *find_option(const struct cli_option *options, const char *word,
                                            size_t n)
{
    for (const struct cli_option *o = options; o->name; o++)
        if (strlen(o->name) == n && memcmp(o->name, word, n) == 0)
            return o;
    return NULL;
}

/* One option at argv[*i], with its value; *i moves to the last word used. */
static int parse_option(const struct cli_command *command, const struct cli_option *options,
                        int argc, char **argv, int *i)
{
    const char *word = argv[*i], *equals = strchr(word, '=');
    size_t n = equals ? (size_t)(equals - word) - 2 : strlen(word) - 2;
    const struct cli_option *o = find_option(options, word + 2, n);
    struct err err = {0};
    if (!o)
        return unknown_option(command, options, word);
    const char *value = equals ? equals + 1 : NULL;
    if (o->kind == CLI_FLAG && value)
        return cli_usage_error(command, "--%s takes no value", o->name);
    if (o->kind != CLI_FLAG && !value) {
        if (*i + 1 >= argc)
            return cli_usage_error(command, "--%s needs a value: --%s %s", o->name, o->name,
                                   o->value);
        value = argv[++*i];
    }
    if (set_value(o, value, &err) < 0)
        return cli_usage_error(command, "--%s: %s", o->name, err.message);
    return -1;
}

int cli_parse(const struct cli_command *command, const struct cli_option *options, int argc,
              char **argv, int min, int max, const char **args)
{
    int n = 0;
    bool only_args = false;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (!only_args && strcmp(word, "--") == 0) {
            only_args = true;
        } else if (!only_args && (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0)) {
            cli_print_help(command, options);
            return CLI_OK;
        } else if (!only_args && str_starts_with(word, "--")) {
            int code = parse_option(command, options, argc, argv, &i);
            if (code >= 0)
                return code;
        } else if (!only_args && word[0] == '-' && word[1]) {
            return unknown_option(command, options, word);
        } else if (n == max) {
            return cli_usage_error(command, "'%s' is one argument too many: hone %s %s", word,
                                   command->name, command->usage);
        } else {
            args[n++] = word;
        }
    }
    if (n < min)
        return cli_usage_error(command, "an argument is missing: hone %s %s", command->name,
                               command->usage);
    return -1;
}

/* ---- help ---- */

static void print_option(const struct cli_option *o)
{
    char left[64];
    snprintf(left, sizeof(left), "--%s%s%s", o->name, o->value ? " " : "",
             o->value ? o->value : "");
    if (strlen(left) > 22)
        printf("  %s\n  %-22s  %s", left, "", o->help);
    else
        printf("  %-22s  %s", left, o->help);
    if (o->choices)
        printf(" (%s)", o->choices);
    printf("\n");
}

void cli_print_help(const struct cli_command *command, const struct cli_option *options)
{
    printf("hone %s: %s\n\nusage: hone %s%s%s\n", command->name, command->summary, command->name,
           *command->usage ? " " : "", command->usage);
    if (command->details)
        printf("\n%s\n", command->details);
    printf("\noptions:\n");
    for (const struct cli_option *o = options; o->name; o++)
        print_option(o);
    printf("  %-22s  %s\n", "-h, --help", "this text");
    if (command->examples)
        printf("\nexamples:\n%s", command->examples);
    printf("\nexit codes: 0 done, 1 failed, 2 wrong usage, 3 no faster network within the limit,\n"
           "4 not reproduced, 130 interrupted\n");
}
