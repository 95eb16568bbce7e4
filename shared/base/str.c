#include "shared/base/str.h"

#include <ctype.h>
#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"

static bool strbuf_reserve(struct strbuf *buf, size_t more)
{
    if (buf->failed)
        return false;
    size_t need;
    if (__builtin_add_overflow(buf->length, more + 1, &need)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->capacity)
        return true;
    size_t capacity = buf->capacity ? buf->capacity : 64;
    while (capacity < need && capacity < SIZE_MAX / 2)
        capacity *= 2;
    char *data = mem_realloc(buf->data, capacity, 1);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->capacity = capacity;
    return true;
}

void strbuf_add_bytes(struct strbuf *buf, const void *data, size_t n)
{
    if (!strbuf_reserve(buf, n))
        return;
    if (n)
        memcpy(buf->data + buf->length, data, n);
    buf->length += n;
    buf->data[buf->length] = 0;
}

void strbuf_add(struct strbuf *buf, const char *text)
{
    strbuf_add_bytes(buf, text, strlen(text));
}

void strbuf_printf(struct strbuf *buf, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    if (n < 0 || !strbuf_reserve(buf, (size_t)n)) {
        buf->failed = true;
        return;
    }
    va_start(ap, fmt);
    vsnprintf(buf->data + buf->length, (size_t)n + 1, fmt, ap);
    va_end(ap);
    buf->length += (size_t)n;
}

void strbuf_clear(struct strbuf *buf)
{
    buf->length = 0;
    buf->failed = false;
    if (buf->data)
        buf->data[0] = 0;
}

void strbuf_release(struct strbuf *buf)
{
    free(buf->data);
    *buf = (struct strbuf){0};
}

char *strbuf_take(struct strbuf *buf)
{
    if (!buf->data)
        strbuf_add_bytes(buf, "", 0);
    if (buf->failed)
        return NULL;
    char *data = buf->data;
    *buf = (struct strbuf){0};
    return data;
}

char *str_printf(const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    return n < 0 ? NULL : text;
}

int str_parse_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value, struct err *err)
{
    char *end = NULL;
    errno = 0;
    long long value = strtoll(text, &end, 10);
    if (end == text || *end || errno || isspace((unsigned char)*text))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a whole number", text);
    if (value < min || value > max)
        return err_set(err, ERR_OUT_OF_RANGE, "%s is outside %lld to %lld", text, (long long)min,
                       (long long)max);
    *ret_value = value;
    return 0;
}

static int parse_double(const char *text, double *ret_value, const char **ret_end)
{
    char *end = NULL;
    errno = 0;
    double value = strtod(text, &end);
    if (end == text || isspace((unsigned char)*text) || !isfinite(value))
        return -1;
    *ret_value = value;
    *ret_end = end;
    return 0;
}

int str_parse_f64(const char *text, double *ret_value, struct err *err)
{
    const char *end = NULL;
    double value = 0, divisor = 1;
    int bad = parse_double(text, &value, &end);
    if (!bad && *end == '/')
        bad = parse_double(end + 1, &divisor, &end);
    if (bad || *end || divisor == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is not a number", text);
    *ret_value = value / divisor;
    return 0;
}

int str_parse_duration(const char *text, int64_t *ret_seconds, struct err *err)
{
    double total = 0;
    const char *p = text;
    while (*p) {
        double value = 0;
        const char *end = NULL;
        if (parse_double(p, &value, &end) < 0 || value < 0)
            break;
        double unit = *end == 'h' ? 3600 : *end == 'm' ? 60 : *end == 's' || !*end ? 1 : 0;
        if (unit == 0)
            break;
        total += value * unit;
        p = *end ? end + 1 : end;
    }
    if (p == text || *p || total > 1e9)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is no duration such as 90s, 15m or 2h",
                       text);
    *ret_seconds = (int64_t)ceil(total);
    return 0;
}

int str_parse_micros(const char *text, double *ret_us, struct err *err)
{
    static const struct {
        const char *name;
        double us;
    } units[] = {{"us", 1}, {"ms", 1e3}, {"s", 1e6}};
    double value = 0;
    const char *end = "";
    if (parse_double(text, &value, &end) == 0 && value >= 0)
        for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++)
            if (strcmp(end, units[i].name) == 0 && value * units[i].us < 1e15) {
                *ret_us = value * units[i].us;
                return 0;
            }
    return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is no time such as 200us, 1.5ms or 2s", text);
}

int str_parse_bytes(const char *text, uint64_t *ret_bytes, struct err *err)
{
    double value = 0;
    const char *end = NULL;
    static const char units[] = "KMGT";
    if (parse_double(text, &value, &end) == 0 && value >= 0) {
        const char *unit = *end ? strchr(units, toupper((unsigned char)*end)) : NULL;
        double factor = unit ? pow(1024, (double)(unit - units) + 1) : 1;
        if ((unit && !end[1]) || !*end) {
            if (value * factor < 9e18) {
                *ret_bytes = (uint64_t)(value * factor);
                return 0;
            }
        }
    }
    return err_set(err, ERR_INVALID_ARGUMENT, "'%s' is no size such as 300K, 4M or 2G", text);
}

bool str_ends_with(const char *s, const char *suffix)
{
    size_t n = strlen(s), m = strlen(suffix);
    return n >= m && memcmp(s + n - m, suffix, m) == 0;
}

bool str_starts_with(const char *s, const char *prefix)
{
    return strncmp(s, prefix, strlen(prefix)) == 0;
}

bool str_copy(char *to, size_t size, const char *from)
{
    size_t n = strnlen(from, size);
    bool fits = n < size;
    if (!fits)
        n = size - 1;
    memcpy(to, from, n);
    to[n] = 0;
    return fits;
}

const char *str_bytes(double bytes, char text[32])
{
    static const char *const units[] = {"B", "KB", "MB", "GB", "TB"};
    int unit = 0;
    while (bytes >= 1000 && unit < 4) {
        bytes /= 1000;
        unit++;
    }
    snprintf(text, 32, unit ? "%.1f %s" : "%.0f %s", bytes, units[unit]);
    return text;
}

const char *str_seconds(double s, char text[32])
{
    if (s < 1e-3)
        snprintf(text, 32, "%.0f us", s * 1e6);
    else if (s < 1)
        snprintf(text, 32, "%.0f ms", s * 1e3);
    else if (s < 60)
        snprintf(text, 32, "%.1f s", s);
    else if (s < 3600)
        snprintf(text, 32, "%d m %02d s", (int)(s / 60), (int)s % 60);
    else
        snprintf(text, 32, "%d h %02d m", (int)(s / 3600), (int)(s / 60) % 60);
    return text;
}
