/* The server: threads that each receive, check, dispatch and answer through a context of their own.
 * (A context holds its request until it has answered; a bare REP socket would mix callers up.) */
#include <nng/nng.h>
#include <nng/protocol/reqrep0/rep.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "hone/v1/rpc.pb-c.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/rpc/internal.h"
#include "shared/rpc/rpc.h"

#define DEFAULT_THREADS 8
#define MAX_THREADS 256
#define MAX_CALL_MS ((int64_t)10 * 60 * 1000)
/* How long an answer may wait for a caller that does not read before it is dropped. */
#define SEND_TIMEOUT_MS 5000
#define RECENT_CALLS 1024
#define RECENT_BYTES ((size_t)16 * 1024 * 1024)

struct worker {
    struct rpc_server *server;
    pthread_t thread;
    nng_ctx ctx;
    nng_aio *aio;
    bool has_ctx, started;
};

struct rpc_server {
    nng_socket socket;
    nng_listener listener;
    bool open, listening;
    int lock_fd;
    char *address, *token;
    const ProtobufCServiceDescriptor *service;
    struct rpc_method *methods;
    int n_methods, n_workers;
    struct worker *workers;
    void *ctx;
    size_t max_message;
    struct recent *recent;
    atomic_bool stopping;
};

bool rpc_call_is_over(const struct rpc_call *call)
{
    return atomic_load(&call->server->stopping) || clock_now_ns(NULL) >= call->deadline_ns;
}

/* ---- one call ---- */

/* Takes as long for every token of the same length. */
static bool token_equal(const char *expected, const char *given)
{
    size_t n = strlen(expected);
    if (strlen(given) != n)
        return false;
    volatile unsigned char difference = 0;
    for (size_t i = 0; i < n; i++)
        difference = (unsigned char)(difference | (expected[i] ^ given[i]));
    return difference == 0;
}

/* FNV-1a over method and payload: tells a repeat of a call from a reused id. */
static uint64_t fingerprint_of(const Hone__V1__RpcCall *call)
{
    uint64_t hash = 14695981039346656037u;
    for (const char *p = call->method; *p; p++)
        hash = (hash ^ (unsigned char)*p) * 1099511628211u;
    for (size_t i = 0; i < call->payload.len; i++)
        hash = (hash ^ call->payload.data[i]) * 1099511628211u;
    return hash;
}

static int check_call(const struct rpc_server *s, const Hone__V1__RpcCall *call, struct err *err)
{
    if (call->version != RPC_VERSION)
        return err_set(err, ERR_UNIMPLEMENTED, "call of version %u; this server speaks version %d",
                       call->version, RPC_VERSION);
    if (s->token && !token_equal(s->token, call->token))
        return err_set(err, ERR_UNAUTHENTICATED, "%s", "the call's token is missing or wrong");
    if (strcmp(call->service, s->service->name) != 0)
        return err_set(err, ERR_UNIMPLEMENTED, "service '%.100s' is not served here (%s is)",
                       call->service, s->service->name);
    if (call->call_id.len != CALL_ID_BYTES)
        return err_set(err, ERR_INVALID_ARGUMENT, "call id of %zu bytes, not %d", call->call_id.len,
                       CALL_ID_BYTES);
    if (call->timeout_ms <= 0)
        return err_set(err, ERR_DEADLINE_EXCEEDED, "%s", "the call's time is over");
    return 0;
}

static int answer_health(const struct rpc_server *s, ProtobufCMessage **ret_reply, struct err *err)
{
    Hone__V1__HealthResponse *reply = malloc(sizeof(*reply));
    if (!reply)
        return err_oom(err, "reply");
    hone__v1__health_response__init(reply);
    reply->ready = true;
    reply->service = strdup(s->service->name);
    reply->version = strdup(HONE_VERSION);
    *ret_reply = &reply->base;
    return 0;
}

/* Finds the method, unpacks the request, runs the handler. */
static int dispatch(const struct rpc_server *s, const Hone__V1__RpcCall *call, int64_t deadline_ns,
                    ProtobufCMessage **ret_reply, struct err *err)
{
    const ProtobufCMethodDescriptor *type =
        protobuf_c_service_descriptor_get_method_by_name(s->service, call->method);
    const struct rpc_method *method = NULL;
    for (int i = 0; i < s->n_methods && !method; i++)
        if (strcmp(s->methods[i].name, call->method) == 0)
            method = &s->methods[i];
    bool health = !method && strcmp(call->method, "Health") == 0;
    if (!health && (!type || !method))
        return err_set(err, ERR_UNIMPLEMENTED, "service %s has no method '%.100s'",
                       s->service->name, call->method);
    _cleanup_(rpc_message_freep) ProtobufCMessage *request = NULL;
    int r = rpc_unpack(health ? &hone__v1__health_request__descriptor : type->input,
                       call->payload.data, call->payload.len, &request, err);
    if (r < 0)
        return r;
    if (health)
        return answer_health(s, ret_reply, err);
    struct rpc_call about = {
        .method = method->name,
        .traceparent = call->traceparent,
        .token = call->token,
        .deadline_ns = deadline_ns,
        .server = s,
    };
    _cleanup_(rpc_message_freep) ProtobufCMessage *reply = NULL;
    r = method->handle(s->ctx, &about, request, &reply, err);
    if (r < 0)
        return r;
    if (!reply || reply->descriptor != type->output)
        return err_set(err, ERR_INTERNAL, "method %s gave no reply of its type", call->method);
    *ret_reply = TAKE_PTR(reply);
    return 0;
}

/* ---- envelopes ---- */

static int pack_envelope(const Hone__V1__RpcReply *reply, void **ret, size_t *ret_bytes)
{
    return rpc_pack(&reply->base, ret, ret_bytes, NULL);
}

/* The packed envelope for what a call came to; *ret stays NULL when memory is out. */
static void make_reply(const struct rpc_server *s, ProtobufCBinaryData call_id, int result,
                       const ProtobufCMessage *message, struct err *err, void **ret,
                       size_t *ret_bytes)
{
    Hone__V1__RpcReply reply = HONE__V1__RPC_REPLY__INIT;
    _cleanup_(freep) void *payload = NULL;
    size_t bytes = 0;
    if (result == 0)
        result = rpc_pack(message, &payload, &bytes, err);
    if (result == 0 && bytes + 256 > s->max_message)
        result = err_set(err, ERR_RESOURCE_EXHAUSTED, "reply of %zu bytes, above the limit of %zu",
                         bytes, s->max_message);
    reply.version = RPC_VERSION;
    reply.call_id = call_id;
    if (result < 0) {
        reply.code = (uint32_t)-result;
        reply.message = err->message;
    } else {
        reply.payload = (ProtobufCBinaryData){bytes, payload};
    }
    pack_envelope(&reply, ret, ret_bytes);
}

static void answer_call(const struct rpc_server *s, const Hone__V1__RpcCall *call, void **ret,
                        size_t *ret_bytes)
{
    struct err err = {0};
    int64_t ms = call->timeout_ms < MAX_CALL_MS ? call->timeout_ms : MAX_CALL_MS;
    int64_t deadline_ns = clock_now_ns(NULL) + ms * 1000000;
    int r = check_call(s, call, &err);
    if (r < 0) {
        make_reply(s, call->call_id, r, NULL, &err, ret, ret_bytes);
        return;
    }
    switch (recent_begin(s->recent, call->call_id.data, fingerprint_of(call), deadline_ns, ret,
                         ret_bytes)) {
    case RECENT_REPEAT:
    case RECENT_DROP:
        return;
    case RECENT_MISUSED:
        r = err_set(&err, ERR_INVALID_ARGUMENT, "%s", "the call's id belongs to another call");
        make_reply(s, call->call_id, r, NULL, &err, ret, ret_bytes);
        return;
    case RECENT_NEW:
        break;
    }
    _cleanup_(rpc_message_freep) ProtobufCMessage *message = NULL;
    r = dispatch(s, call, deadline_ns, &message, &err);
    make_reply(s, call->call_id, r, message, &err, ret, ret_bytes);
    recent_end(s->recent, call->call_id.data, *ret, *ret_bytes);
}

/* malloc'ed reply to the bytes of one request; NULL: none. */
static void *answer(const struct rpc_server *s, const void *data, size_t bytes, size_t *ret_bytes)
{
    void *reply = NULL;
    struct err err = {0};
    _cleanup_(rpc_message_freep) ProtobufCMessage *message = NULL;
    int r = rpc_unpack(&hone__v1__rpc_call__descriptor, data, bytes, &message, &err);
    if (r < 0)
        make_reply(s, (ProtobufCBinaryData){0}, r, NULL, &err, &reply, ret_bytes);
    else
        answer_call(s, (const Hone__V1__RpcCall *)message, &reply, ret_bytes);
    return reply;
}

/* ---- threads ---- */

static void send_reply(struct worker *w, const void *data, size_t bytes)
{
    nng_msg *message = NULL;
    if (nng_msg_alloc(&message, 0) != 0)
        return;
    if (nng_msg_append(message, data, bytes) != 0 || nng_ctx_sendmsg(w->ctx, message, 0) != 0)
        nng_msg_free(message); /* the caller is gone or does not read */
}

static void *work(void *arg)
{
    struct worker *w = arg;
    while (!atomic_load(&w->server->stopping)) {
        nng_ctx_recv(w->ctx, w->aio);
        nng_aio_wait(w->aio);
        int result = nng_aio_result(w->aio);
        if (result == NNG_ECLOSED || result == NNG_ECANCELED)
            break;
        if (result != 0) { /* memory: others may give some back */
            clock_sleep_ms(10);
            continue;
        }
        nng_msg *message = nng_aio_get_msg(w->aio);
        size_t bytes = 0;
        _cleanup_(freep) void *reply =
            answer(w->server, nng_msg_body(message), nng_msg_len(message), &bytes);
        nng_msg_free(message);
        if (reply)
            send_reply(w, reply, bytes);
    }
    return NULL;
}

/* Signals are for the program's own threads. */
static int start_thread(struct worker *w)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int r = pthread_create(&w->thread, NULL, work, w);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    w->started = r == 0;
    return r;
}

static int start_workers(struct rpc_server *s, int threads, struct err *err)
{
    s->workers = mem_calloc((size_t)threads, sizeof(*s->workers));
    if (!s->workers)
        return err_oom(err, "server threads");
    for (; s->n_workers < threads; s->n_workers++) {
        struct worker *w = &s->workers[s->n_workers];
        w->server = s;
        int e = nng_ctx_open(&w->ctx, s->socket);
        if (e != 0)
            return nng_fail(err, e, s->address);
        w->has_ctx = true;
        nng_ctx_set_ms(w->ctx, NNG_OPT_SENDTIMEO, SEND_TIMEOUT_MS);
        e = nng_aio_alloc(&w->aio, NULL, NULL);
        if (e != 0) {
            s->n_workers++;
            return nng_fail(err, e, s->address);
        }
    }
    for (int i = 0; i < threads; i++) {
        int e = start_thread(&s->workers[i]);
        if (e != 0)
            return err_errno(err, e, "starting a thread of the server");
    }
    return 0;
}

static int listen_at(struct rpc_server *s, struct err *err)
{
    int r = address_check(s->address, err);
    if (r == 0)
        r = address_claim(s->address, &s->lock_fd, err);
    if (r < 0)
        return r;
    int e = nng_rep0_open(&s->socket);
    if (e != 0)
        return nng_fail(err, e, s->address);
    s->open = true;
    e = nng_socket_set_size(s->socket, NNG_OPT_RECVMAXSZ, s->max_message);
    if (e == 0)
        e = nng_listener_create(&s->listener, s->socket, s->address);
    if (e == 0 && str_starts_with(s->address, "ipc://"))
        e = nng_listener_set_int(s->listener, NNG_OPT_IPC_PERMISSIONS, 0600);
    return e == 0 ? 0 : nng_fail(err, e, s->address);
}

static int server_start(struct rpc_server *s, const struct rpc_server_options *o, struct err *err)
{
    int threads = o->threads > 0 ? o->threads : DEFAULT_THREADS;
    if (threads > MAX_THREADS)
        threads = MAX_THREADS;
    s->address = strdup(o->address);
    s->token = o->token && *o->token ? strdup(o->token) : NULL;
    s->methods = mem_calloc((size_t)o->n_methods, sizeof(*s->methods));
    s->recent = recent_new(RECENT_CALLS, RECENT_BYTES, (threads + 1) / 2);
    if (!s->address || !s->methods || !s->recent || (o->token && *o->token && !s->token))
        return err_oom(err, "server");
    for (int i = 0; i < o->n_methods; i++)
        s->methods[s->n_methods++] = o->methods[i];
    int r = listen_at(s, err);
    if (r == 0)
        r = start_workers(s, threads, err);
    if (r < 0)
        return r;
    int e = nng_listener_start(s->listener, 0);
    return e == 0 ? 0 : nng_fail(err, e, s->address);
}

int rpc_server_start(const struct rpc_server_options *o, struct rpc_server **ret, struct err *err)
{
    struct rpc_server *s = calloc(1, sizeof(*s));
    if (!s)
        return err_oom(err, "server");
    s->lock_fd = -1;
    s->service = o->service;
    s->ctx = o->ctx;
    s->max_message = o->max_message ? o->max_message : RPC_MAX_MESSAGE;
    int r = server_start(s, o, err);
    if (r < 0) {
        rpc_server_stop(s);
        return r;
    }
    *ret = s;
    return 0;
}

struct rpc_server *rpc_server_stop(struct rpc_server *s)
{
    if (!s)
        return NULL;
    atomic_store(&s->stopping, true);
    /* Threads that wait for a call end; threads that answer one finish and send it first. */
    for (int i = 0; i < s->n_workers; i++)
        if (s->workers[i].aio)
            nng_aio_stop(s->workers[i].aio);
    for (int i = 0; i < s->n_workers; i++) {
        struct worker *w = &s->workers[i];
        if (w->started)
            pthread_join(w->thread, NULL);
        if (w->has_ctx)
            nng_ctx_close(w->ctx);
        nng_aio_free(w->aio);
    }
    if (s->open)
        nng_close(s->socket); /* removes the ipc socket */
    fs_closep(&s->lock_fd);
    recent_free(s->recent);
    free(s->workers);
    free(s->methods);
    free(s->address);
    free(s->token);
    free(s);
    return NULL;
}
