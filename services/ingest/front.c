/* The RPC front's life: the server, the store, connections to Redis that calls borrow. */
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "services/ingest/ingest.h"
#include "shared/base/mem.h"

#define DEFAULT_THREADS 32
#define REDIS_PATIENCE_MS 5000

struct front {
    struct rpc_server *server;
    struct store *store;
    char *redis, *prefix, *target;
    pthread_mutex_t mutex;
    struct queue **idle; /* connections that nobody uses */
    int n_idle, threads;
    atomic_int waiting;
};

static const struct rpc_method methods[] = {
    {"Submit", front_submit}, {"Get", front_get},       {"List", front_list},
    {"Watch", front_watch},   {"Cancel", front_cancel},
};

static int front_open(struct front *f, const struct front_options *o, struct err *err)
{
    f->threads = o->threads > 0 ? o->threads : DEFAULT_THREADS;
    f->redis = strdup(o->redis);
    f->prefix = o->prefix ? strdup(o->prefix) : NULL;
    f->target = strdup(o->target);
    f->idle = mem_calloc((size_t)f->threads, sizeof(struct queue *));
    if (!f->redis || !f->target || !f->idle)
        return err_oom(err, "ingest");
    int r = store_open(o->store, &f->store, err);
    if (r < 0)
        return r;
    struct rpc_server_options server = {
        .address = o->address,
        .service = &hone__v1__ingest__descriptor,
        .methods = methods,
        .n_methods = sizeof(methods) / sizeof(methods[0]),
        .ctx = f,
        .threads = f->threads,
        .token = o->token,
    };
    return rpc_server_start(&server, &f->server, err);
}

int front_start(const struct front_options *options, struct front **ret, struct err *err)
{
    struct front *f = calloc(1, sizeof(*f));
    if (!f)
        return err_oom(err, "ingest");
    pthread_mutex_init(&f->mutex, NULL);
    int r = front_open(f, options, err);
    if (r < 0) {
        front_stop(f);
        return r;
    }
    *ret = f;
    return 0;
}

struct front *front_stop(struct front *f)
{
    if (!f)
        return NULL;
    rpc_server_stop(f->server);
    for (int i = 0; i < f->n_idle; i++)
        queue_close(f->idle[i]);
    store_close(f->store);
    pthread_mutex_destroy(&f->mutex);
    free(f->idle);
    free(f->redis);
    free(f->prefix);
    free(f->target);
    free(f);
    return NULL;
}

int front_queue_take(struct front *f, struct queue **ret, struct err *err)
{
    struct queue *q = NULL;
    pthread_mutex_lock(&f->mutex);
    if (f->n_idle > 0)
        q = f->idle[--f->n_idle];
    pthread_mutex_unlock(&f->mutex);
    if (q) {
        *ret = q;
        return 0;
    }
    struct queue_options options = {
        .url = f->redis, .prefix = f->prefix, .patience_ms = REDIS_PATIENCE_MS};
    return queue_open(&options, ret, err);
}

void front_queue_give(struct front *f, struct queue *q)
{
    pthread_mutex_lock(&f->mutex);
    if (f->n_idle < f->threads) {
        f->idle[f->n_idle++] = q;
        q = NULL;
    }
    pthread_mutex_unlock(&f->mutex);
    queue_close(q);
}

struct store *front_store(struct front *f)
{
    return f->store;
}

const char *front_target(const struct front *f)
{
    return f->target;
}

bool front_wait_begin(struct front *f)
{
    int most = f->threads - (f->threads + 3) / 4; /* a quarter stays for calls that do not wait */
    if (atomic_fetch_add(&f->waiting, 1) < most)
        return true;
    atomic_fetch_sub(&f->waiting, 1);
    return false;
}

void front_wait_end(struct front *f)
{
    atomic_fetch_sub(&f->waiting, 1);
}
