#pragma once
/*
 * Runs a list of tests against redis-server and again against valkey-server. Each test gets an
 * empty server and a `struct on_redis *` as its state. A server that is not installed is skipped,
 * and said.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <setjmp.h>

#include <cmocka.h>

#include "shared/queue/queue.h"
#include "tests/support/redis.h"

struct on_redis {
    const char *server;
    struct test_redis redis;
    struct queue *q; /* short backoff, patience of 5 s */
    struct err err;  /* empty before each test */
};

static inline struct queue *on_redis_open(struct on_redis *on, int64_t patience_ms)
{
    struct queue *q = NULL;
    struct queue_options options = {.url = on->redis.url,
                                    .prefix = "test",
                                    .patience_ms = patience_ms,
                                    .retention_ms = 600000,
                                    .backoff_ms = 1,
                                    .backoff_max_ms = 5};
    assert_int_equal(queue_open(&options, &q, &on->err), 0);
    return q;
}

static inline int on_redis_setup(void **state)
{
    struct on_redis *on = *state;
    char answer[64];
    /* a test may have killed the server, or filled it */
    if (!on->redis.pid && test_redis_start(&on->redis, on->server, "always") < 0)
        return -1;
    if (test_redis_ask(&on->redis, "FLUSHALL", answer, sizeof(answer)) < 0)
        return -1;
    on->err = (struct err){0};
    on->q = on_redis_open(on, 5000);
    return 0;
}

static inline int on_redis_teardown(void **state)
{
    struct on_redis *on = *state;
    on->q = queue_close(on->q);
    return 0;
}

static inline void on_redis_absent(void **state)
{
    const struct on_redis *on = *state;
    print_message("skip: %s is not installed\n", on->server);
    skip();
}

static inline int on_redis_run(const char *group, const struct CMUnitTest *tests, size_t n)
{
    static struct on_redis servers[] = {{.server = "redis-server"}, {.server = "valkey-server"}};
    enum { SERVERS = sizeof(servers) / sizeof(servers[0]) };
    struct CMUnitTest *all = calloc(SERVERS * n, sizeof(*all));
    char(*names)[200] = calloc(SERVERS * n, sizeof(*names));
    if (!all || !names)
        return 1;
    for (size_t s = 0; s < SERVERS; s++) {
        bool there = test_redis_available(servers[s].server);
        for (size_t i = 0; i < n; i++) {
            size_t k = s * n + i;
            snprintf(names[k], sizeof(names[k]), "%s: %s", servers[s].server, tests[i].name);
            all[k] = (struct CMUnitTest){names[k], there ? tests[i].test_func : on_redis_absent,
                                         there ? on_redis_setup : NULL,
                                         there ? on_redis_teardown : NULL, &servers[s]};
        }
    }
    int failed = _cmocka_run_group_tests(group, all, SERVERS * n, NULL, NULL);
    for (size_t s = 0; s < SERVERS; s++)
        test_redis_stop(&servers[s].redis);
    free(all);
    free(names);
    return failed;
}
#define ON_REDIS_RUN(group, tests) on_redis_run(group, tests, sizeof(tests) / sizeof((tests)[0]))
