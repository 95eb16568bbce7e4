#pragma once
/*
 * A private Redis (or Valkey) for a test: on a unix socket in a temporary folder, with an
 * append-only file, so that it can be killed and started again with what it had written.
 */
#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

struct test_redis {
    char server[64]; /* "redis-server", "valkey-server" */
    char fsync[16];  /* "always", "everysec", "no" */
    char dir[64], url[128];
    pid_t pid; /* 0: not running */
};

/* Whether the program is in PATH. */
bool test_redis_available(const char *server);
/* These return 0, or -1 after printing what went wrong. The server ends with the test's process. */
int test_redis_start(struct test_redis *r, const char *server, const char *appendfsync);
int test_redis_restart(struct test_redis *r); /* again, after test_redis_kill, with the same data */
void test_redis_kill(struct test_redis *r);   /* SIGKILL */
void test_redis_stop(struct test_redis *r); /* and removes the folder; harmless when not started */
/* Sends one line ("TTL key"), gives the first line of the answer without its end. */
int test_redis_ask(struct test_redis *r, const char *line, char *answer, size_t size);
/* The answer as a number (":5", or a bulk string of digits is not one): -1000 when it is none. */
long long test_redis_number(struct test_redis *r, const char *line);
