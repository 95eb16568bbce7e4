#pragma once
/*
 * Logging, for programs (services, the CLI): library code returns errors instead. One line an
 * event on stderr, as text or as JSON (HONE_LOG_FORMAT=json), from level HONE_LOG_LEVEL on
 * (debug, info, warn, error; default info). Fields that belong to the thread (job, task, trace id)
 * are set once and go on every line. Thread-safe.
 */
enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARN, LOG_ERROR };

void log_init(const char *service); /* reads the environment; `service` must outlive the process */
void log_write(enum log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
/* Fields of this thread; NULL or "" clears one. Copied. */
void log_context(const char *job, const char *task, const char *trace);

#define log_debug(...) log_write(LOG_DEBUG, __VA_ARGS__)
#define log_info(...) log_write(LOG_INFO, __VA_ARGS__)
#define log_warn(...) log_write(LOG_WARN, __VA_ARGS__)
#define log_error(...) log_write(LOG_ERROR, __VA_ARGS__)
