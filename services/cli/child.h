#pragma once
/* A process that the supervisor keeps alive, and its log file. */
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "shared/base/err.h"
#include "shared/base/str.h"

#define CHILD_MAX_ARGS 32

struct child {
    char name[32];
    char *argv[CHILD_MAX_ARGS]; /* malloc'ed; argv[0] is the program's path */
    char *log;                  /* path */
    pid_t pid;                  /* 0: not running */
    int64_t started_ns, due_ns; /* due: when to start it again */
    int quick_deaths;           /* in a row */
};

/* malloc'ed path of the program: beside this one (installed, or in the build folder), else in PATH.
 * NOT_FOUND says where it was looked for. */
int child_find_program(const char *service, const char *program, char **ret, struct err *err);
/* Appends one argument. */
int child_add_arg(struct child *child, const char *arg, struct err *err);
void child_release(struct child *child);

/* Starts it: stdin empty, output to its log, ended by SIGTERM when the supervisor dies. */
int child_start(struct child *child, struct err *err);

/* The log of the run before becomes LOG.1. */
void log_rotate(const char *path);
/* Keeps a log that is being written below its limit: what is there moves to LOG.1. */
void log_bound(const char *path, int64_t max_bytes);
/* Adds the last lines of a log, each behind `indent`. */
void log_tail(const char *path, int lines, const char *indent, struct strbuf *out);
