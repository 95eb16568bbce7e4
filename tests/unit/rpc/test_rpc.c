/* Server and client over real sockets. The service is hone.v1.Ingest with handlers of this file:
 * Get answers with the job id; ids that begin with '!' ask for something special. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <nng/nng.h>
#include <nng/protocol/reqrep0/req.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "hone/v1/ingest.pb-c.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/rpc/internal.h"
#include "shared/rpc/rpc.h"

#define LONG_MS 60000

static const ProtobufCServiceDescriptor *const service = &hone__v1__ingest__descriptor;

/* ---- the server under test ---- */

static atomic_int calls_handled;
static atomic_bool released;

static int handle_get(void *ctx, const struct rpc_call *call, const ProtobufCMessage *request,
                      ProtobufCMessage **ret_reply, struct err *err)
{
    (void)ctx;
    const char *id = ((const Hone__V1__GetRequest *)request)->job_id;
    int count = atomic_fetch_add(&calls_handled, 1) + 1;
    if (strcmp(id, "!missing") == 0)
        return err_set(err, ERR_NOT_FOUND, "job %s: there is none", id);
    if (strcmp(id, "!nothing") == 0)
        return 0;
    if (strcmp(id, "!die") == 0)
        _exit(1);
    if (strcmp(id, "!wait") == 0)
        while (!rpc_call_is_over(call))
            clock_sleep_ms(1);
    if (strcmp(id, "!hang") == 0)
        while (!atomic_load(&released))
            clock_sleep_ms(1);
    Hone__V1__JobView *view = malloc(sizeof(*view));
    hone__v1__job_view__init(view);
    view->job_id = strdup(id);
    view->created_ms = count;
    if (strcmp(id, "!big") == 0) {
        view->title = malloc(RPC_MAX_MESSAGE + 1);
        memset(view->title, 'x', RPC_MAX_MESSAGE);
        view->title[RPC_MAX_MESSAGE] = 0;
    }
    *ret_reply = &view->base;
    return 0;
}

static const struct rpc_method methods[] = {{"Get", handle_get}};

static int start(const char *address, const char *token, struct rpc_server **ret, struct err *err)
{
    struct rpc_server_options options = {
        .address = address,
        .service = service,
        .methods = methods,
        .n_methods = 1,
        .token = token,
    };
    return rpc_server_start(&options, ret, err);
}

/* ---- each test has a folder and a server in it ---- */

struct fixture {
    char folder[64], address[128];
    struct rpc_server *server;
    struct rpc_client *client;
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct err err = {0};
    str_copy(f->folder, sizeof(f->folder), "/tmp/hone-rpc-XXXXXX");
    if (!mkdtemp(f->folder))
        return -1;
    snprintf(f->address, sizeof(f->address), "ipc://%s/s", f->folder);
    if (start(f->address, NULL, &f->server, &err) < 0 ||
        rpc_client_open(f->address, service, NULL, &f->client, &err) < 0) {
        print_error("%s\n", err.message);
        return -1;
    }
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;
    atomic_store(&released, true);
    rpc_client_close(f->client);
    rpc_server_stop(f->server);
    atomic_store(&released, false);
    fs_remove_tree(f->folder, NULL);
    free(f);
    return 0;
}

static int get_within(struct rpc_client *client, const char *id, int64_t timeout_ms,
                      Hone__V1__JobView **ret, struct err *err)
{
    Hone__V1__GetRequest request = HONE__V1__GET_REQUEST__INIT;
    request.job_id = (char *)id;
    return rpc_call(client, "Get", &request.base, timeout_ms, (ProtobufCMessage **)ret, err);
}

static int get(struct rpc_client *client, const char *id, struct err *err)
{
    _cleanup_(rpc_message_freep) Hone__V1__JobView *view = NULL;
    int r = get_within(client, id, LONG_MS, &view, err);
    if (r == 0)
        assert_string_equal(view->job_id, id);
    return r;
}

/* ---- calls ---- */

static void a_call_is_answered(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    assert_int_equal(get(f->client, "J1", &err), 0);
    assert_int_equal(get(f->client, "", &err), 0);
}

static void an_error_keeps_its_code_and_text(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    assert_int_equal(get(f->client, "!missing", &err), -ERR_NOT_FOUND);
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_string_equal(err.message, "job !missing: there is none");
}

static void a_handler_without_a_reply_is_an_internal_error(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(get(f->client, "!nothing", NULL), -ERR_INTERNAL);
}

static void health_is_answered_without_a_handler(void **state)
{
    struct fixture *f = *state;
    Hone__V1__HealthRequest request = HONE__V1__HEALTH_REQUEST__INIT;
    _cleanup_(rpc_message_freep) Hone__V1__HealthResponse *reply = NULL;
    struct err err = {0};
    assert_int_equal(
        rpc_call(f->client, "Health", &request.base, LONG_MS, (ProtobufCMessage **)&reply, &err),
        0);
    assert_true(reply->ready);
    assert_string_equal(reply->service, "hone.v1.Ingest");
}

static void a_method_without_a_handler_is_unimplemented(void **state)
{
    struct fixture *f = *state;
    Hone__V1__ListRequest request = HONE__V1__LIST_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    struct err err = {0};
    assert_int_equal(rpc_call(f->client, "List", &request.base, LONG_MS, &reply, &err),
                     -ERR_UNIMPLEMENTED);
    assert_non_null(strstr(err.message, "List"));
    assert_null(reply);
}

static void a_method_that_the_service_does_not_have_is_unimplemented(void **state)
{
    struct fixture *f = *state;
    Hone__V1__ListRequest request = HONE__V1__LIST_REQUEST__INIT;
    ProtobufCMessage *reply = NULL;
    assert_int_equal(rpc_call(f->client, "Explode", &request.base, LONG_MS, &reply, NULL),
                     -ERR_UNIMPLEMENTED);
}

static void a_call_ends_at_its_deadline(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    Hone__V1__JobView *view = NULL;
    assert_int_equal(get_within(f->client, "!hang", 30, &view, &err), -ERR_DEADLINE_EXCEEDED);
    assert_non_null(strstr(err.message, "30 ms"));
    assert_int_equal(get_within(f->client, "J1", 0, &view, &err), -ERR_DEADLINE_EXCEEDED);
    assert_null(view);
    assert_int_equal(get(f->client, "J2", &err), 0);
}

static void a_request_above_the_limit_is_not_sent(void **state)
{
    struct fixture *f = *state;
    _cleanup_(freep) char *id = malloc(RPC_MAX_MESSAGE + 1);
    struct err err = {0};
    memset(id, 'x', RPC_MAX_MESSAGE);
    id[RPC_MAX_MESSAGE] = 0;
    assert_int_equal(get(f->client, id, &err), -ERR_RESOURCE_EXHAUSTED);
}

static void a_reply_above_the_limit_is_an_error_of_that_call_alone(void **state)
{
    struct fixture *f = *state;
    struct err err = {0};
    assert_int_equal(get(f->client, "!big", &err), -ERR_RESOURCE_EXHAUSTED);
    assert_int_equal(get(f->client, "J1", &err), 0);
}

struct caller {
    struct rpc_client *client;
    int number, failures;
    pthread_t thread;
};

static void *call_often(void *arg)
{
    struct caller *c = arg;
    for (int i = 0; i < 200; i++) {
        char id[32];
        snprintf(id, sizeof(id), "J%d-%d", c->number, i);
        Hone__V1__JobView *view = NULL;
        if (get_within(c->client, id, LONG_MS, &view, NULL) < 0 || strcmp(view->job_id, id) != 0)
            c->failures++;
        rpc_message_freep(&view);
    }
    return NULL;
}

static void eight_threads_call_through_one_client(void **state)
{
    struct fixture *f = *state;
    struct caller callers[8];
    for (int i = 0; i < 8; i++) {
        callers[i] = (struct caller){.client = f->client, .number = i};
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (int i = 0; i < 8; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_int_equal(callers[i].failures, 0);
    }
}

/* ---- tokens ---- */

static int call_with_token(const struct fixture *f, const char *token)
{
    char address[160];
    struct rpc_server *server = NULL;
    struct rpc_client *client = NULL;
    snprintf(address, sizeof(address), "ipc://%s/secret", f->folder);
    assert_int_equal(start(address, "sesame", &server, NULL), 0);
    assert_int_equal(rpc_client_open(address, service, token, &client, NULL), 0);
    int r = get(client, "J1", NULL);
    rpc_client_close(client);
    rpc_server_stop(server);
    return r;
}

static void a_call_needs_the_servers_token(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(call_with_token(f, "sesame"), 0);
    assert_int_equal(call_with_token(f, "sesamE"), -ERR_UNAUTHENTICATED);
    assert_int_equal(call_with_token(f, "sesame2"), -ERR_UNAUTHENTICATED);
    assert_int_equal(call_with_token(f, NULL), -ERR_UNAUTHENTICATED);
}

/* ---- bytes from strangers ---- */

static nng_socket raw_socket(const struct fixture *f)
{
    nng_socket s;
    assert_int_equal(nng_req0_open(&s), 0);
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_RECVTIMEO, LONG_MS), 0);
    assert_int_equal(nng_dial(s, f->address, NULL, 0), 0);
    return s;
}

/* The reply's code; its payload as a JobView's created_ms, when there is one. */
static int raw_exchange(nng_socket s, const void *data, size_t bytes, int64_t *ret_created)
{
    nng_msg *message = NULL;
    assert_int_equal(nng_msg_alloc(&message, 0), 0);
    assert_int_equal(nng_msg_append(message, data, bytes), 0);
    assert_int_equal(nng_sendmsg(s, message, 0), 0);
    assert_int_equal(nng_recvmsg(s, &message, 0), 0);
    Hone__V1__RpcReply *reply =
        hone__v1__rpc_reply__unpack(NULL, nng_msg_len(message), nng_msg_body(message));
    assert_non_null(reply);
    int code = (int)reply->code;
    if (code == 0 && ret_created) {
        Hone__V1__JobView *view =
            hone__v1__job_view__unpack(NULL, reply->payload.len, reply->payload.data);
        assert_non_null(view);
        *ret_created = view->created_ms;
        rpc_message_freep(&view);
    }
    rpc_message_freep(&reply);
    nng_msg_free(message);
    return code;
}

/* A Get of job J1, changed by the tests before it is sent. */
static Hone__V1__RpcCall good_call(void)
{
    static uint8_t id[CALL_ID_BYTES] = "0123456789abcdef", payload[] = "\x0a\x02J1";
    static uint8_t next = 1;
    Hone__V1__RpcCall call = HONE__V1__RPC_CALL__INIT;
    id[0] = next++;
    call.version = RPC_VERSION;
    call.service = (char *)service->name;
    call.method = (char *)"Get";
    call.call_id = (ProtobufCBinaryData){sizeof(id), id};
    call.timeout_ms = LONG_MS;
    call.payload = (ProtobufCBinaryData){sizeof(payload) - 1, payload};
    return call;
}

static int raw_call(nng_socket s, const Hone__V1__RpcCall *call, int64_t *ret_created)
{
    void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(rpc_pack(&call->base, &data, &bytes, NULL), 0);
    int code = raw_exchange(s, data, bytes, ret_created);
    free(data);
    return code;
}

static void garbage_gets_an_error_and_the_server_lives(void **state)
{
    struct fixture *f = *state;
    nng_socket s = raw_socket(f);
    assert_int_equal(raw_exchange(s, "GET / HTTP/1.1\r\n\r\n", 18, NULL), ERR_INVALID_ARGUMENT);
    assert_int_equal(raw_exchange(s, "\xff\xff\xff\xff", 4, NULL), ERR_INVALID_ARGUMENT);
    assert_int_equal(raw_exchange(s, "", 0, NULL), ERR_UNIMPLEMENTED);
    nng_close(s);
    assert_int_equal(get(f->client, "J1", NULL), 0);
}

static void each_field_of_the_envelope_is_checked(void **state)
{
    struct fixture *f = *state;
    nng_socket s = raw_socket(f);
    Hone__V1__RpcCall call = good_call();
    assert_int_equal(raw_call(s, &call, NULL), ERR_OK);
    call = good_call();
    call.version = 2;
    assert_int_equal(raw_call(s, &call, NULL), ERR_UNIMPLEMENTED);
    call = good_call();
    call.service = (char *)"hone.v1.Other";
    assert_int_equal(raw_call(s, &call, NULL), ERR_UNIMPLEMENTED);
    call = good_call();
    call.method = (char *)"get";
    assert_int_equal(raw_call(s, &call, NULL), ERR_UNIMPLEMENTED);
    call = good_call();
    call.call_id.len = 15;
    assert_int_equal(raw_call(s, &call, NULL), ERR_INVALID_ARGUMENT);
    call = good_call();
    call.timeout_ms = 0;
    assert_int_equal(raw_call(s, &call, NULL), ERR_DEADLINE_EXCEEDED);
    call = good_call();
    call.payload.len--;
    assert_int_equal(raw_call(s, &call, NULL), ERR_INVALID_ARGUMENT);
    nng_close(s);
}

static void a_handler_that_waits_is_told_of_the_deadline(void **state)
{
    struct fixture *f = *state;
    nng_socket s = raw_socket(f);
    Hone__V1__RpcCall call = good_call();
    call.timeout_ms = 1;
    call.payload = (ProtobufCBinaryData){7, (uint8_t *)"\x0a\x05!wait"};
    assert_int_equal(raw_call(s, &call, NULL), ERR_OK);
    nng_close(s);
}

static void an_oversized_message_costs_its_sender_the_connection_only(void **state)
{
    struct fixture *f = *state;
    nng_socket s = raw_socket(f);
    nng_msg *message = NULL;
    assert_int_equal(nng_socket_set_ms(s, NNG_OPT_REQ_RESENDTIME, NNG_DURATION_INFINITE), 0);
    assert_int_equal(nng_msg_alloc(&message, RPC_MAX_MESSAGE + 100), 0);
    assert_int_equal(nng_sendmsg(s, message, 0), 0);
    assert_int_equal(nng_recvmsg(s, &message, 0), NNG_ECONNRESET);
    nng_close(s);
    assert_int_equal(get(f->client, "J1", NULL), 0);
}

static void a_repeated_call_id_is_handled_once(void **state)
{
    struct fixture *f = *state;
    nng_socket s = raw_socket(f), other = raw_socket(f);
    Hone__V1__RpcCall call = good_call();
    int64_t first = 0, second = 0, third = 0;
    int before = atomic_load(&calls_handled);
    assert_int_equal(raw_call(s, &call, &first), ERR_OK);
    assert_int_equal(raw_call(s, &call, &second), ERR_OK);
    assert_int_equal(raw_call(other, &call, &third), ERR_OK);
    assert_int_equal(first, second);
    assert_int_equal(first, third);
    assert_int_equal(atomic_load(&calls_handled), before + 1);
    call.payload.data = (uint8_t *)"\x0a\x02J2";
    assert_int_equal(raw_call(s, &call, &second), ERR_INVALID_ARGUMENT);
    nng_close(s);
    nng_close(other);
}

/* ---- sockets and processes that come and go ---- */

static void nobody_listening_is_unavailable(void **state)
{
    struct fixture *f = *state;
    char address[160];
    struct rpc_client *client = NULL;
    struct err err = {0};
    snprintf(address, sizeof(address), "ipc://%s/nobody", f->folder);
    assert_int_equal(rpc_client_open(address, service, NULL, &client, &err), 0);
    assert_int_equal(get(client, "J1", &err), -ERR_UNAVAILABLE);
    assert_non_null(strstr(err.message, address));
    rpc_client_close(client);
}

static void an_address_in_use_is_refused_by_name(void **state)
{
    struct fixture *f = *state;
    struct rpc_server *second = NULL;
    struct err err = {0};
    assert_int_equal(start(f->address, NULL, &second, &err), -ERR_ALREADY_EXISTS);
    assert_non_null(strstr(err.message, f->address));
    assert_int_equal(get(f->client, "J1", NULL), 0);
}

static void a_tcp_port_in_use_is_refused_by_name(void **state)
{
    (void)state;
    struct sockaddr_in {
        unsigned short family, port;
        unsigned address;
        char zero[8];
    } in = {AF_INET, 0, 0x0100007f, {0}};
    socklen_t size = sizeof(in);
    _cleanup_(fs_closep) int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&in, sizeof(in)), 0);
    assert_int_equal(listen(fd, 1), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&in, &size), 0);
    char address[64];
    unsigned port = (unsigned)((in.port >> 8) | ((in.port & 0xff) << 8));
    snprintf(address, sizeof(address), "tcp://127.0.0.1:%u", port);
    struct rpc_server *server = NULL;
    struct err err = {0};
    assert_int_equal(start(address, NULL, &server, &err), -ERR_ALREADY_EXISTS);
    assert_non_null(strstr(err.message, address));
}

static void a_socket_that_somebody_else_listens_on_is_left_alone(void **state)
{
    struct fixture *f = *state;
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    char address[160];
    snprintf(un.sun_path, sizeof(un.sun_path), "%s/foreign", f->folder);
    snprintf(address, sizeof(address), "ipc://%s", un.sun_path);
    _cleanup_(fs_closep) int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 4), 0);
    struct rpc_server *server = NULL;
    assert_int_equal(start(address, NULL, &server, NULL), -ERR_ALREADY_EXISTS);
    assert_true(fs_exists(un.sun_path));
}

static void a_file_that_is_no_socket_is_left_alone(void **state)
{
    struct fixture *f = *state;
    char path[96], address[160];
    struct rpc_server *server = NULL;
    snprintf(path, sizeof(path), "%s/file", f->folder);
    snprintf(address, sizeof(address), "ipc://%s", path);
    assert_int_equal(fs_write_atomic(path, "x", 1, NULL), 0);
    assert_int_equal(start(address, NULL, &server, NULL), -ERR_ALREADY_EXISTS);
    assert_true(fs_exists(path));
}

static void an_address_that_cannot_be_is_refused(void **state)
{
    (void)state;
    struct rpc_server *server = NULL;
    struct rpc_client *client = NULL;
    struct err err = {0};
    char address[200] = "ipc:///tmp/";
    memset(address + strlen(address), 'x', 150);
    assert_int_equal(start(address, NULL, &server, &err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(start("ipc://relative", NULL, &server, &err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(rpc_client_open("http://x", service, NULL, &client, &err),
                     -ERR_INVALID_ARGUMENT);
}

/* This program again, as a server of its own process: returns once it listens. */
static pid_t spawn_server(const char *address)
{
    int ready[2];
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ready[1], STDOUT_FILENO);
        close(ready[0]);
        execl("/proc/self/exe", "test_rpc", "serve", address, (char *)NULL);
        _exit(127);
    }
    close(ready[1]);
    char byte = 0;
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static int serve(const char *address)
{
    struct rpc_server *server = NULL;
    struct err err = {0};
    if (start(address, NULL, &server, &err) < 0 || write(STDOUT_FILENO, "r", 1) != 1)
        return 1;
    for (;;)
        pause();
}

static void a_server_that_dies_in_a_call_is_unavailable(void **state)
{
    struct fixture *f = *state;
    char address[160];
    struct rpc_client *client = NULL;
    struct err err = {0};
    snprintf(address, sizeof(address), "ipc://%s/mortal", f->folder);
    pid_t pid = spawn_server(address);
    assert_int_equal(rpc_client_open(address, service, NULL, &client, &err), 0);
    assert_int_equal(get(client, "J1", &err), 0);
    assert_int_equal(get(client, "!die", &err), -ERR_UNAVAILABLE);
    waitpid(pid, NULL, 0);
    rpc_client_close(client);
}

static void the_socket_of_a_dead_server_is_replaced_and_clients_come_back(void **state)
{
    struct fixture *f = *state;
    char address[160], path[96];
    struct rpc_client *client = NULL;
    struct rpc_server *server = NULL;
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/mortal", f->folder);
    snprintf(address, sizeof(address), "ipc://%s", path);
    pid_t pid = spawn_server(address);
    assert_int_equal(rpc_client_open(address, service, NULL, &client, &err), 0);
    assert_int_equal(get(client, "J1", &err), 0);
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    assert_true(fs_exists(path));
    assert_int_equal(start(address, NULL, &server, &err), 0);
    assert_int_equal(get(client, "J2", &err), 0);
    rpc_client_close(client);
    rpc_server_stop(server);
}

static void a_socket_is_for_its_user_only(void **state)
{
    struct fixture *f = *state;
    struct stat st;
    assert_int_equal(stat(f->address + strlen("ipc://"), &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
}

static void *wait_for_stop(void *arg)
{
    const struct fixture *f = arg;
    Hone__V1__JobView *view = NULL;
    int r = get_within(f->client, "!wait", LONG_MS, &view, NULL);
    rpc_message_freep(&view);
    return (void *)(intptr_t)r;
}

static void a_stopping_server_ends_the_calls_that_wait(void **state)
{
    struct fixture *f = *state;
    pthread_t thread;
    void *result = NULL;
    int before = atomic_load(&calls_handled);
    assert_int_equal(pthread_create(&thread, NULL, wait_for_stop, f), 0);
    while (atomic_load(&calls_handled) == before)
        sched_yield();
    f->server = rpc_server_stop(f->server);
    pthread_join(thread, &result);
    assert_true((intptr_t)result == 0 || (intptr_t)result == -ERR_UNAVAILABLE);
}

static void servers_start_and_stop_many_times(void **state)
{
    struct fixture *f = *state;
    char address[160];
    snprintf(address, sizeof(address), "ipc://%s/again", f->folder);
    for (int i = 0; i < 50; i++) {
        struct rpc_server *server = NULL;
        struct err err = {0};
        assert_int_equal(start(address, NULL, &server, &err), 0);
        assert_null(rpc_server_stop(server));
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(int argc, char **argv)
{
    if (argc == 3 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2]);
    const struct CMUnitTest tests[] = {
        TEST(a_call_is_answered),
        TEST(an_error_keeps_its_code_and_text),
        TEST(a_handler_without_a_reply_is_an_internal_error),
        TEST(health_is_answered_without_a_handler),
        TEST(a_method_without_a_handler_is_unimplemented),
        TEST(a_method_that_the_service_does_not_have_is_unimplemented),
        TEST(a_call_ends_at_its_deadline),
        TEST(a_handler_that_waits_is_told_of_the_deadline),
        TEST(a_request_above_the_limit_is_not_sent),
        TEST(a_reply_above_the_limit_is_an_error_of_that_call_alone),
        TEST(eight_threads_call_through_one_client),
        TEST(a_call_needs_the_servers_token),
        TEST(garbage_gets_an_error_and_the_server_lives),
        TEST(each_field_of_the_envelope_is_checked),
        TEST(an_oversized_message_costs_its_sender_the_connection_only),
        TEST(a_repeated_call_id_is_handled_once),
        TEST(nobody_listening_is_unavailable),
        TEST(an_address_in_use_is_refused_by_name),
        TEST(a_tcp_port_in_use_is_refused_by_name),
        TEST(a_socket_that_somebody_else_listens_on_is_left_alone),
        TEST(a_file_that_is_no_socket_is_left_alone),
        TEST(an_address_that_cannot_be_is_refused),
        TEST(a_server_that_dies_in_a_call_is_unavailable),
        TEST(the_socket_of_a_dead_server_is_replaced_and_clients_come_back),
        TEST(a_socket_is_for_its_user_only),
        TEST(a_stopping_server_ends_the_calls_that_wait),
        TEST(servers_start_and_stop_many_times),
    };
    int failures = cmocka_run_group_tests(tests, NULL, NULL);
    nng_fini(); /* waits for what NNG frees in the background */
    return failures;
}
