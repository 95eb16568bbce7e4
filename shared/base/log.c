#include "shared/base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static const char *const level_names[] = {"debug", "info", "warn", "error"};
static struct {
    const char *service;
    enum log_level level;
    bool json;
} config = {.service = "hone", .level = LOG_INFO};

static _Thread_local struct {
    char job[64], task[64], trace[64];
} context;

void log_init(const char *service)
{
    config.service = service;
    const char *level = getenv("HONE_LOG_LEVEL"), *format = getenv("HONE_LOG_FORMAT");
    for (int i = 0; level && i <= LOG_ERROR; i++)
        if (strcasecmp(level, level_names[i]) == 0)
            config.level = (enum log_level)i;
    config.json = format && strcmp(format, "json") == 0;
}

void log_context(const char *job, const char *task, const char *trace)
{
    str_copy(context.job, sizeof(context.job), job ? job : "");
    str_copy(context.task, sizeof(context.task), task ? task : "");
    str_copy(context.trace, sizeof(context.trace), trace ? trace : "");
}

static void add_json_string(struct strbuf *line, const char *text)
{
    strbuf_add(line, "\"");
    for (const char *p = text; *p; p++) {
        unsigned char c = (unsigned char)*p;
        if (c == '"' || c == '\\')
            strbuf_printf(line, "\\%c", c);
        else if (c < 0x20)
            strbuf_printf(line, "\\u%04x", c);
        else
            strbuf_add_bytes(line, p, 1);
    }
    strbuf_add(line, "\"");
}

static void add_field(struct strbuf *line, const char *name, const char *value)
{
    if (!*value)
        return;
    if (config.json) {
        strbuf_printf(line, ",\"%s\":", name);
        add_json_string(line, value);
    } else {
        strbuf_printf(line, " %s=%s", name, value);
    }
}

void log_write(enum log_level level, const char *fmt, ...)
{
    if (level < config.level)
        return;
    char message[2048], when[32];
    va_list ap;
    va_start(ap, fmt);
    vsnprintf(message, sizeof(message), fmt, ap);
    va_end(ap);
    clock_iso8601(clock_wall_ms(), when);
    _cleanup_(strbuf_release) struct strbuf line = {0};
    if (config.json) {
        strbuf_printf(&line,
                      "{\"time\":\"%s\",\"level\":\"%s\",\"service\":\"%s\",\"message\":", when,
                      level_names[level], config.service);
        add_json_string(&line, message);
    } else {
        strbuf_printf(&line, "%s %-5s %s: %s", when, level_names[level], config.service, message);
    }
    add_field(&line, "job", context.job);
    add_field(&line, "task", context.task);
    add_field(&line, "trace", context.trace);
    strbuf_add(&line, config.json ? "}\n" : "\n");
    if (!line.failed && write(STDERR_FILENO, line.data, line.length) < 0)
        return; /* nowhere left to say so */
}
