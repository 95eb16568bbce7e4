#include "shared/base/failpoint.h"

#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MAX_RULES 16

enum action { KILL, FAIL, SLEEP };
static struct rule {
    char name[64];
    enum action action;
    int64_t ms;
    int64_t only; /* 0: every time */
    atomic_int_fast64_t hits;
} rules[MAX_RULES];
static int n_rules;
bool failpoint_active;

static int parse_rule(char *text, struct rule *rule, struct err *err)
{
    char *action = strchr(text, '=');
    if (!action)
        return err_set(err, ERR_INVALID_ARGUMENT, "failpoint '%s': name=action is needed", text);
    *action++ = 0;
    char *only = strchr(action, '@');
    if (only)
        *only++ = 0;
    *rule = (struct rule){0};
    if (!str_copy(rule->name, sizeof(rule->name), text))
        return err_set(err, ERR_INVALID_ARGUMENT, "failpoint '%s': the name is too long", text);
    if (only && str_parse_i64(only, 1, INT64_MAX, &rule->only, err) < 0)
        return err_wrap(err, "failpoint %s", text);
    if (!strcmp(action, "kill"))
        rule->action = KILL;
    else if (!strcmp(action, "error"))
        rule->action = FAIL;
    else if (str_starts_with(action, "sleep:"))
        rule->action = SLEEP;
    else
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "failpoint %s: '%s' is none of kill, error, sleep:MS", text, action);
    if (rule->action == SLEEP &&
        str_parse_i64(action + strlen("sleep:"), 0, 3600000, &rule->ms, err) < 0)
        return err_wrap(err, "failpoint %s", text);
    return 0;
}

int failpoint_set(const char *text, struct err *err)
{
    failpoint_active = false;
    n_rules = 0;
    if (!text || !*text)
        return 0;
    _cleanup_(freep) char *copy = strdup(text);
    if (!copy)
        return err_oom(err, "failpoints");
    char *rest = copy;
    for (char *one; (one = strsep(&rest, ";"));) {
        if (!*one)
            continue;
        if (n_rules == MAX_RULES)
            return err_set(err, ERR_INVALID_ARGUMENT, "more than %d failpoints", MAX_RULES);
        int r = parse_rule(one, &rules[n_rules], err);
        if (r < 0)
            return r;
        n_rules++;
    }
    failpoint_active = n_rules > 0;
    return 0;
}

int failpoint_init(struct err *err)
{
    return failpoint_set(getenv("HONE_FAILPOINT"), err);
}

int failpoint_hit(const char *name, struct err *err)
{
    for (int i = 0; i < n_rules; i++) {
        struct rule *rule = &rules[i];
        if (strcmp(rule->name, name) != 0)
            continue;
        int64_t hit = atomic_fetch_add(&rule->hits, 1) + 1;
        if (rule->only && hit != rule->only)
            continue;
        if (rule->action == KILL)
            kill(getpid(), SIGKILL);
        if (rule->action == SLEEP)
            clock_sleep_ms(rule->ms);
        if (rule->action == FAIL)
            return err_set(err, ERR_UNAVAILABLE, "failpoint %s", name);
    }
    return 0;
}
