#include "shared/base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "shared/base/mem.h"

struct loop {
    pool_fn *fn;
    void *ctx;
    int64_t n;
    atomic_llong next;
    atomic_int result;
    pthread_mutex_t lock;
    struct err *err;
};

struct member {
    struct loop *loop;
    int worker;
    pthread_t thread;
};

static void *member_run(void *arg)
{
    struct member *member = arg;
    struct loop *loop = member->loop;
    while (atomic_load(&loop->result) == 0) {
        int64_t i = atomic_fetch_add(&loop->next, 1);
        if (i >= loop->n)
            break;
        struct err err = {0};
        int r = loop->fn(loop->ctx, i, member->worker, &err);
        if (r >= 0)
            continue;
        pthread_mutex_lock(&loop->lock);
        if (atomic_load(&loop->result) == 0) {
            if (loop->err)
                *loop->err = err;
            atomic_store(&loop->result, r);
        }
        pthread_mutex_unlock(&loop->lock);
    }
    return NULL;
}

int pool_for(int64_t n, int threads, pool_fn *fn, void *ctx, struct err *err)
{
    struct loop loop = {.fn = fn, .ctx = ctx, .n = n, .err = err};
    pthread_mutex_init(&loop.lock, NULL);
    if (threads > n)
        threads = (int)n;
    if (threads < 1)
        threads = 1;
    _cleanup_(freep) struct member *members = mem_calloc((size_t)threads, sizeof(*members));
    if (!members)
        return err_oom(err, "a parallel loop");
    int started = 1;
    members[0] = (struct member){.loop = &loop};
    while (started < threads) {
        members[started] = (struct member){.loop = &loop, .worker = started};
        if (pthread_create(&members[started].thread, NULL, member_run, &members[started]) != 0)
            break; /* fewer threads do the same work */
        started++;
    }
    member_run(&members[0]);
    for (int i = 1; i < started; i++)
        pthread_join(members[i].thread, NULL);
    pthread_mutex_destroy(&loop.lock);
    return atomic_load(&loop.result);
}

int pool_cpus(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof(set), &set) < 0)
        return 1;
    return CPU_COUNT(&set);
}
