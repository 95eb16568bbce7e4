#pragma once
/* Strings: a growing buffer, strict number parsing, small helpers. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

/* Growing text. Zero-initialise; `data` is always zero-terminated once anything was added. After a
 * lack of memory `failed` is set and further additions do nothing: check once at the end. */
struct strbuf {
    char *data;
    size_t length, capacity;
    bool failed;
};
void strbuf_add(struct strbuf *buf, const char *text);
void strbuf_add_bytes(struct strbuf *buf, const void *data, size_t n);
void strbuf_printf(struct strbuf *buf, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void strbuf_clear(struct strbuf *buf);   /* empties, keeps the memory */
void strbuf_release(struct strbuf *buf); /* frees; for _cleanup_ */
/* The text (never NULL while !failed), owned by the caller afterwards; buf is empty again. */
char *strbuf_take(struct strbuf *buf);

/* malloc'ed text; NULL when memory is out. */
char *str_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The whole text must be one number in [min, max]; otherwise an error that quotes it. */
int str_parse_i64(const char *text, int64_t min, int64_t max, int64_t *ret_value, struct err *err);
/* Finite number; decimal, or a fraction such as 1/255. */
int str_parse_f64(const char *text, double *ret_value, struct err *err);
/* "90s", "15m", "2h", "1h30m", plain seconds. */
int str_parse_duration(const char *text, int64_t *ret_seconds, struct err *err);
/* "200us", "1.5ms", "2s": a time that is short; the unit must be there. */
int str_parse_micros(const char *text, double *ret_us, struct err *err);
/* "300K", "4M", "2G" (powers of 1024), plain bytes. */
int str_parse_bytes(const char *text, uint64_t *ret_bytes, struct err *err);

bool str_ends_with(const char *s, const char *suffix);
bool str_starts_with(const char *s, const char *prefix);
/* Copies with truncation; always terminated. Returns whether it fitted. */
bool str_copy(char *to, size_t size, const char *from);
/* "1.2 MB", "53.0 KB": for people. */
const char *str_bytes(double bytes, char text[32]);
/* "2 m 05 s", "850 ms", "41 us": for people. */
const char *str_seconds(double seconds, char text[32]);
