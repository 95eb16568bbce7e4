#pragma once
/*
 * Unary calls: protobuf-c services over NNG REQ/REP.
 *
 * A call is the message hone.v1.RpcCall {service, method, call id, deadline, traceparent, token,
 * payload}, a reply hone.v1.RpcReply {gRPC status code, message, payload}
 * (proto/hone/v1/rpc.proto). A server dispatches through the protobuf-c service descriptor after
 * checking envelope size, nesting and the method's name. A client whose connection breaks repeats
 * the call with the same id until the deadline; the server remembers recent ids and answers a
 * repeat with the reply it gave. (NNG's own resend timer is off.) Addresses are NNG's: ipc:///path,
 * tcp://127.0.0.1:7450.
 */
#include <protobuf-c/protobuf-c.h>
#include <stdbool.h>
#include <stdint.h>

#include "shared/base/err.h"

#define RPC_MAX_MESSAGE ((size_t)4 * 1024 * 1024)

struct rpc_server;

/* What a handler knows about the call that it answers. */
struct rpc_call {
    const char *method, *traceparent, *token;
    int64_t deadline_ns; /* monotonic */
    const struct rpc_server *server;
};
/* For handlers that wait: the deadline has passed or the server is stopping, so answer now. */
bool rpc_call_is_over(const struct rpc_call *call);

/* One method: unpacked request in; the reply is malloc'ed by the handler (protobuf-c defaults) and
 * freed by the server. A negative return sends err's code and message instead. Handlers run on the
 * server's threads, several at once. */
typedef int rpc_handler(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                        ProtobufCMessage **ret_reply, struct err *err);

struct rpc_method {
    const char *name; /* as in the .proto */
    rpc_handler *handle;
};

struct rpc_server_options {
    const char *address;
    const ProtobufCServiceDescriptor *service;
    const struct rpc_method *methods;
    int n_methods;
    void *ctx;
    int threads;        /* contexts that answer in parallel; 0: 8 */
    size_t max_message; /* 0: RPC_MAX_MESSAGE */
    const char *token;  /* NULL: none asked for; else calls without it are UNAUTHENTICATED */
};
/* Listens and answers until rpc_server_stop. A Health method is always answered. An address in use
 * is ALREADY_EXISTS and named; a stale ipc socket file of a dead process is replaced. */
int rpc_server_start(const struct rpc_server_options *options, struct rpc_server **ret,
                     struct err *err);
struct rpc_server *rpc_server_stop(struct rpc_server *server); /* NULL-safe, returns NULL; waits */

struct rpc_client;
int rpc_client_open(const char *address, const ProtobufCServiceDescriptor *service,
                    const char *token, struct rpc_client **ret, struct err *err);
struct rpc_client *rpc_client_close(struct rpc_client *client);
void rpc_client_closep(struct rpc_client **client);
/* Calls and waits up to timeout_ms; the reply (protobuf_c_message_free_unpacked) is of the method's
 * output type. Thread-safe. UNAVAILABLE when nobody listens, DEADLINE_EXCEEDED after the time. */
int rpc_call(struct rpc_client *client, const char *method, const ProtobufCMessage *request,
             int64_t timeout_ms, ProtobufCMessage **ret_reply, struct err *err);

/* Scans a protobuf message before it is unpacked, for every parser of outside bytes: nesting (by
 * the descriptor: an outermost message is depth 1), lengths, wire types, strings without zero
 * bytes, and the memory that unpacking will take (at most RPC_MAX_UNPACKED, or RPC_MAX_GROWTH times
 * `bytes` for large messages). A singular submessage may come once: protobuf-c would merge repeats
 * in quadratic time, and no serializer writes them. INVALID_ARGUMENT names field and byte;
 * RESOURCE_EXHAUSTED. */
#define RPC_MAX_UNPACKED ((size_t)64 * 1024 * 1024)
#define RPC_MAX_GROWTH 16
#define RPC_MAX_DEPTH 32 /* what the server and the client allow */
int rpc_check_message(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
                      int max_depth, struct err *err);

/* Checks (depth RPC_MAX_DEPTH) and unpacks; free with protobuf_c_message_free_unpacked. */
int rpc_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
               ProtobufCMessage **ret, struct err *err);
/* malloc'ed. */
int rpc_pack(const ProtobufCMessage *message, void **ret_data, size_t *ret_bytes, struct err *err);
/* `_cleanup_(rpc_message_freep) ProtobufCMessage *m`; any generated message pointer will do. */
void rpc_message_freep(void *message_pointer);
