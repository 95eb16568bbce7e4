/* The client. Each call has a context of its own, so that threads share one connection. NNG's
 * resend is off: a broken connection comes back to the call, which repeats itself under the same
 * id. */
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "hone/v1/rpc.pb-c.h"
#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/rpc/internal.h"
#include "shared/rpc/rpc.h"

#define RECONNECT_MIN_MS 20
#define RECONNECT_MAX_MS 200
/* How long a call waits for somebody to listen: several attempts to connect. */
#define PATIENCE_LOCAL_MS 600
#define PATIENCE_REMOTE_MS 2500
/* A server that breaks the connection this often while it answers one call dies of that call. */
#define MAX_ATTEMPTS 5

struct rpc_client {
    nng_socket socket;
    bool open;
    char *address, *token;
    const ProtobufCServiceDescriptor *service;
    int64_t patience_ms;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    nng_dialer dialer;
    bool dialing; /* begun with the first call: NNG 1.10 leaks a connection closed while it is made
                   */
    int pipes;    /* connections that are up: 0 or 1 */
};

/* ---- the connection ---- */

static void pipe_event(nng_pipe pipe, nng_pipe_ev event, void *arg)
{
    (void)pipe;
    struct rpc_client *c = arg;
    pthread_mutex_lock(&c->mutex);
    c->pipes += event == NNG_PIPE_EV_ADD_POST ? 1 : -1;
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->mutex);
}

static int dial(struct rpc_client *c, struct err *err)
{
    pthread_mutex_lock(&c->mutex);
    bool first = !c->dialing;
    c->dialing = true;
    pthread_mutex_unlock(&c->mutex);
    int e = first ? nng_dialer_start(c->dialer, NNG_FLAG_NONBLOCK) : 0;
    return e == 0 ? 0 : nng_fail(err, e, c->address);
}

static bool wait_connected(struct rpc_client *c, int64_t until_ns)
{
    struct timespec until = {until_ns / 1000000000, until_ns % 1000000000};
    pthread_mutex_lock(&c->mutex);
    int late = 0;
    while (c->pipes <= 0 && !late)
        late = pthread_cond_timedwait(&c->changed, &c->mutex, &until);
    bool connected = c->pipes > 0;
    pthread_mutex_unlock(&c->mutex);
    return connected;
}

static int prepare_socket(struct rpc_client *c, struct err *err)
{
    int r = address_check(c->address, err);
    if (r < 0)
        return r;
    int e = nng_req0_open(&c->socket);
    if (e != 0)
        return nng_fail(err, e, c->address);
    c->open = true;
    e = nng_socket_set_ms(c->socket, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE);
    if (e == 0)
        e = nng_socket_set_size(c->socket, NNG_OPT_RECVMAXSZ, RPC_MAX_MESSAGE);
    if (e == 0)
        e = nng_socket_set_ms(c->socket, NNG_OPT_RECONNMINT, RECONNECT_MIN_MS);
    if (e == 0)
        e = nng_socket_set_ms(c->socket, NNG_OPT_RECONNMAXT, RECONNECT_MAX_MS);
    if (e == 0)
        e = nng_pipe_notify(c->socket, NNG_PIPE_EV_ADD_POST, pipe_event, c);
    if (e == 0)
        e = nng_pipe_notify(c->socket, NNG_PIPE_EV_REM_POST, pipe_event, c);
    if (e == 0)
        e = nng_dialer_create(&c->dialer, c->socket, c->address);
    return e == 0 ? 0 : nng_fail(err, e, c->address);
}

int rpc_client_open(const char *address, const ProtobufCServiceDescriptor *service,
                    const char *token, struct rpc_client **ret, struct err *err)
{
    struct rpc_client *c = calloc(1, sizeof(*c));
    if (!c)
        return err_oom(err, "client");
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&c->mutex, NULL);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
    c->service = service;
    c->patience_ms = str_starts_with(address, "tcp://") ? PATIENCE_REMOTE_MS : PATIENCE_LOCAL_MS;
    c->address = strdup(address);
    c->token = strdup(token ? token : "");
    int r = c->address && c->token ? prepare_socket(c, err) : err_oom(err, "client");
    if (r < 0) {
        rpc_client_close(c);
        return r;
    }
    *ret = c;
    return 0;
}

struct rpc_client *rpc_client_close(struct rpc_client *c)
{
    if (!c)
        return NULL;
    if (c->open)
        nng_close(c->socket); /* waits for callbacks */
    pthread_cond_destroy(&c->changed);
    pthread_mutex_destroy(&c->mutex);
    free(c->address);
    free(c->token);
    free(c);
    return NULL;
}

void rpc_client_closep(struct rpc_client **client)
{
    *client = rpc_client_close(*client);
}

/* ---- one call ---- */

static int64_t left_ms(int64_t deadline_ns)
{
    int64_t ns = deadline_ns - clock_now_ns(NULL);
    return ns > 0 ? (ns + 999999) / 1000000 : 0;
}

static int late(const struct rpc_client *c, const char *method, int64_t timeout_ms, struct err *err)
{
    return err_set(err, ERR_DEADLINE_EXCEEDED, "%s: %s was not answered within %lld ms", c->address,
                   method, (long long)timeout_ms);
}

/* The envelope for what is left of the time; *ret is an NNG message. */
static int make_call(const struct rpc_client *c, const char *method,
                     const uint8_t id[CALL_ID_BYTES], int64_t deadline_ns, const void *payload,
                     size_t bytes, nng_msg **ret, struct err *err)
{
    uint8_t trace[24];
    if (getrandom(trace, sizeof(trace), 0) != (ssize_t)sizeof(trace))
        return err_set(err, ERR_INTERNAL, "%s", "no random numbers from the system");
    char traceparent[64] = "00-";
    size_t at = 3;
    for (size_t i = 0; i < sizeof(trace); i++)
        at += (size_t)snprintf(traceparent + at, sizeof(traceparent) - at,
                               i == 16 ? "-%02x" : "%02x", trace[i]);
    snprintf(traceparent + at, sizeof(traceparent) - at, "-01");

    Hone__V1__RpcCall call = HONE__V1__RPC_CALL__INIT;
    call.version = RPC_VERSION;
    call.service = (char *)c->service->name;
    call.method = (char *)method;
    call.call_id = (ProtobufCBinaryData){CALL_ID_BYTES, (uint8_t *)id};
    call.timeout_ms = left_ms(deadline_ns);
    call.traceparent = traceparent;
    call.token = c->token;
    call.payload = (ProtobufCBinaryData){bytes, (uint8_t *)payload};
    size_t packed = hone__v1__rpc_call__get_packed_size(&call);
    if (packed > RPC_MAX_MESSAGE - 64)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "%s: request of %zu bytes, above the limit of %zu", method, packed,
                       RPC_MAX_MESSAGE);
    nng_msg *message = NULL;
    int e = nng_msg_alloc(&message, packed);
    if (e != 0)
        return nng_fail(err, e, method);
    hone__v1__rpc_call__pack(&call, nng_msg_body(message));
    *ret = message;
    return 0;
}

/* One attempt. NNG's error, 0 with *ret_reply set. Takes the message. */
static int send_and_receive(struct rpc_client *c, nng_msg *message, int64_t deadline_ns,
                            nng_msg **ret_reply)
{
    nng_ctx ctx;
    int e = nng_ctx_open(&ctx, c->socket);
    if (e != 0) {
        nng_msg_free(message);
        return e;
    }
    int64_t ms = left_ms(deadline_ns);
    nng_duration limit = (nng_duration)(ms < INT32_MAX ? ms : INT32_MAX);
    nng_ctx_set_ms(ctx, NNG_OPT_SENDTIMEO, limit < 1000 ? limit : 1000);
    nng_ctx_set_ms(ctx, NNG_OPT_RECVTIMEO, limit);
    e = nng_ctx_sendmsg(ctx, message, 0);
    if (e != 0) {
        nng_msg_free(message);
        if (e == NNG_ETIMEDOUT)
            e = NNG_ECONNRESET; /* no connection took it: try again while there is time */
    } else {
        e = nng_ctx_recvmsg(ctx, ret_reply, 0);
    }
    nng_ctx_close(ctx);
    return e;
}

/* Repeats the call over new connections until it is answered or the time is over. */
static int exchange(struct rpc_client *c, const char *method, const void *payload, size_t bytes,
                    int64_t timeout_ms, uint8_t id[CALL_ID_BYTES], nng_msg **ret, struct err *err)
{
    int64_t deadline_ns = clock_now_ns(NULL) + timeout_ms * 1000000;
    int r = dial(c, err);
    if (r < 0)
        return r;
    for (int attempt = 0; attempt < MAX_ATTEMPTS; attempt++) {
        int64_t until = clock_now_ns(NULL) + c->patience_ms * 1000000;
        if (!wait_connected(c, until < deadline_ns ? until : deadline_ns))
            return err_set(err, ERR_UNAVAILABLE,
                           attempt ? "%s: the connection broke and nobody listens there any more"
                                   : "%s: nobody listens there",
                           c->address);
        nng_msg *message = NULL;
        r = make_call(c, method, id, deadline_ns, payload, bytes, &message, err);
        if (r < 0)
            return r;
        int e = send_and_receive(c, message, deadline_ns, ret);
        if (e == 0)
            return 0;
        if (left_ms(deadline_ns) == 0)
            return late(c, method, timeout_ms, err);
        if (e != NNG_ECONNRESET && e != NNG_ETIMEDOUT)
            return nng_fail(err, e, c->address);
    }
    return err_set(err, ERR_UNAVAILABLE, "%s: the connection broke %d times during %s", c->address,
                   MAX_ATTEMPTS, method);
}

/* The message inside a reply envelope, or the error that it carries. */
static int open_reply(const struct rpc_client *c, const ProtobufCMessageDescriptor *type,
                      const uint8_t id[CALL_ID_BYTES], const void *data, size_t bytes,
                      ProtobufCMessage **ret, struct err *err)
{
    _cleanup_(rpc_message_freep) ProtobufCMessage *message = NULL;
    int r = rpc_unpack(&hone__v1__rpc_reply__descriptor, data, bytes, &message, err);
    if (r < 0)
        return err_wrap(err, "%s: reply", c->address);
    const Hone__V1__RpcReply *reply = (const Hone__V1__RpcReply *)message;
    if (reply->code != ERR_OK)
        return err_set(err, reply->code <= ERR_UNAUTHENTICATED ? reply->code : ERR_UNKNOWN, "%s",
                       *reply->message ? reply->message : err_code_name((int)reply->code & 31));
    if (reply->call_id.len != CALL_ID_BYTES || memcmp(reply->call_id.data, id, CALL_ID_BYTES) != 0)
        return err_set(err, ERR_INTERNAL, "%s: reply to another call", c->address);
    r = rpc_unpack(type, reply->payload.data, reply->payload.len, ret, err);
    return r < 0 ? err_wrap(err, "%s: reply", c->address) : 0;
}

int rpc_call(struct rpc_client *c, const char *method, const ProtobufCMessage *request,
             int64_t timeout_ms, ProtobufCMessage **ret_reply, struct err *err)
{
    const ProtobufCMethodDescriptor *type =
        protobuf_c_service_descriptor_get_method_by_name(c->service, method);
    const ProtobufCMessageDescriptor *output = type ? type->output : NULL;
    if (!type && strcmp(method, "Health") == 0)
        output = &hone__v1__health_response__descriptor;
    if (!output)
        return err_set(err, ERR_UNIMPLEMENTED, "service %s has no method '%s'", c->service->name,
                       method);
    struct err local = {0};
    err = err ? err : &local;
    _cleanup_(freep) void *payload = NULL;
    size_t bytes = 0;
    uint8_t id[CALL_ID_BYTES];
    int r = rpc_pack(request, &payload, &bytes, err);
    if (r < 0)
        return r;
    if (getrandom(id, sizeof(id), 0) != (ssize_t)sizeof(id))
        return err_set(err, ERR_INTERNAL, "%s", "no random numbers from the system");
    nng_msg *reply = NULL;
    r = exchange(c, method, payload, bytes, timeout_ms, id, &reply, err);
    if (r < 0)
        return r;
    r = open_reply(c, output, id, nng_msg_body(reply), nng_msg_len(reply), ret_reply, err);
    nng_msg_free(reply);
    return r;
}
