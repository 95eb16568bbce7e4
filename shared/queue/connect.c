/* The connection: made when it is needed, made again when it breaks. */
#include <errno.h>
#include <hiredis/sds.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "embed_hone_queue.h"
#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/queue/internal.h"

static const char *const script_text[SCRIPT_COUNT] = {
    [SCRIPT_JOB_CREATE] = embed_job_create_lua,
    [SCRIPT_JOB_GET] = embed_job_get_lua,
    [SCRIPT_JOB_CANCEL] = embed_job_cancel_lua,
    [SCRIPT_TASK_CLAIM] = embed_task_claim_lua,
    [SCRIPT_TASK_HEARTBEAT] = embed_task_heartbeat_lua,
    [SCRIPT_TASK_COMPLETE] = embed_task_complete_lua,
    [SCRIPT_TASK_FAIL] = embed_task_fail_lua,
    [SCRIPT_TASK_RELEASE] = embed_task_release_lua,
    [SCRIPT_EVENT_ADD] = embed_event_add_lua,
    [SCRIPT_LEASE] = embed_lease_lua,
};

/* ---- words of a command ---- */

void args_release(struct args *args)
{
    for (int i = 0; i < args->n; i++)
        if (args->owned[i])
            free((char *)args->words[i]);
    free(args->words);
    free(args->bytes);
    free(args->owned);
    *args = (struct args){0};
}

static bool grow(struct args *args)
{
    int capacity = args->capacity ? 2 * args->capacity : 32;
    const char **words = mem_realloc(args->words, (size_t)capacity, sizeof(*words));
    if (words)
        args->words = words;
    size_t *bytes = mem_realloc(args->bytes, (size_t)capacity, sizeof(*bytes));
    if (bytes)
        args->bytes = bytes;
    bool *owned = mem_realloc(args->owned, (size_t)capacity, sizeof(*owned));
    if (owned)
        args->owned = owned;
    if (!words || !bytes || !owned)
        return false;
    args->capacity = capacity;
    return true;
}

static void add_word(struct args *args, const char *word, size_t bytes, bool owned)
{
    if (!word || args->failed || (args->n == args->capacity && !grow(args))) {
        args->failed = true;
        if (owned)
            free((char *)word);
        return;
    }
    args->words[args->n] = word;
    args->bytes[args->n] = bytes;
    args->owned[args->n++] = owned;
}

void args_bytes(struct args *args, const void *data, size_t bytes)
{
    add_word(args, bytes ? data : "", bytes, false);
}

void args_text(struct args *args, const char *text)
{
    args_bytes(args, text, strlen(text));
}

void args_number(struct args *args, int64_t number)
{
    char *text = str_printf("%lld", (long long)number);
    add_word(args, text, text ? strlen(text) : 0, true);
}

void queue_script_args(struct queue *q, enum script script, struct args *args)
{
    args_text(args, "EVALSHA");
    args_text(args, q->sha[script]);
    args_text(args, "1");
    args_text(args, q->prefix);
    args_number(args, q->retention_ms);
}

void reply_freep(redisReply **reply)
{
    if (*reply)
        freeReplyObject(*reply);
    *reply = NULL;
}

/* ---- one attempt ---- */

static void disconnect(struct queue *q)
{
    if (q->redis)
        redisFree(q->redis);
    q->redis = NULL;
}

static struct timeval timeval_of(int64_t ms)
{
    return (struct timeval){.tv_sec = ms / 1000, .tv_usec = ms % 1000 * 1000};
}

/* hiredis' own would raise SIGPIPE when the server has gone. */
static ssize_t write_without_signal(redisContext *c)
{
    ssize_t n = send(c->fd, c->obuf, sdslen(c->obuf), MSG_NOSIGNAL);
    if (n >= 0)
        return n;
    if (errno == EINTR)
        return 0;
    c->err = REDIS_ERR_IO;
    const char *why = strerrordesc_np(errno);
    str_copy(c->errstr, sizeof(c->errstr), why ? why : "write failed");
    return -1;
}

static int connection_lost(struct queue *q, struct err *err)
{
    char why[128];
    str_copy(why, sizeof(why), q->redis && q->redis->err ? q->redis->errstr : "no connection");
    if (q->redis && q->redis->err == REDIS_ERR_IO && errno == EAGAIN)
        str_copy(why, sizeof(why), "no answer in time");
    disconnect(q);
    return err_set(err, ERR_UNAVAILABLE, "Redis at %s: %s", q->address.shown, why);
}

struct error_code {
    const char *prefix;
    enum err_code code;
};

/* What Redis answers with an error. UNAVAILABLE is tried again. */
static int error_reply(struct queue *q, const redisReply *reply, struct err *err)
{
    static const struct error_code codes[] = {
        {"LOADING", ERR_UNAVAILABLE},        {"BUSY ", ERR_UNAVAILABLE},
        {"TRYAGAIN", ERR_UNAVAILABLE},       {"CLUSTERDOWN", ERR_UNAVAILABLE},
        {"MASTERDOWN", ERR_UNAVAILABLE},     {"READONLY", ERR_UNAVAILABLE},
        {"UNBLOCKED", ERR_UNAVAILABLE},      {"NOREPLICAS", ERR_UNAVAILABLE},
        {"MISCONF", ERR_RESOURCE_EXHAUSTED}, {"OOM", ERR_RESOURCE_EXHAUSTED},
        {"NOAUTH", ERR_UNAUTHENTICATED},     {"WRONGPASS", ERR_UNAUTHENTICATED},
        {"NOPERM", ERR_PERMISSION_DENIED},
    };
    enum err_code code = ERR_INTERNAL;
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++)
        if (str_starts_with(reply->str, codes[i].prefix))
            code = codes[i].code;
    return err_set(err, code, "Redis at %s: %s", q->address.shown, reply->str);
}

static int set_timeout(struct queue *q, int64_t ms, struct err *err)
{
    if (q->timeout_ms == ms)
        return 0;
    if (redisSetTimeout(q->redis, timeval_of(ms)) != REDIS_OK)
        return connection_lost(q, err);
    q->timeout_ms = ms;
    return 0;
}

static int send_once(struct queue *q, int n, const char **words, const size_t *bytes,
                     redisReply **ret, struct err *err)
{
    _cleanup_(reply_freep) redisReply *reply = redisCommandArgv(q->redis, n, words, bytes);
    if (!reply)
        return connection_lost(q, err);
    if (reply->type == REDIS_REPLY_ERROR && !str_starts_with(reply->str, "NOSCRIPT"))
        return error_reply(q, reply, err);
    *ret = TAKE_PTR(reply);
    return 0;
}

static int log_in(struct queue *q, struct err *err)
{
    const struct address *a = &q->address;
    char db[16];
    snprintf(db, sizeof(db), "%d", a->db);
    const char *auth[3] = {"AUTH"}, *select[2] = {"SELECT", db};
    int n = 1;
    if (a->user && *a->user)
        auth[n++] = a->user;
    if (a->password && *a->password)
        auth[n++] = a->password;
    _cleanup_(reply_freep) redisReply *reply = NULL, *selected = NULL;
    int r = n == 1 ? 0 : send_once(q, n, auth, NULL, &reply, err);
    if (r == 0 && a->db)
        r = send_once(q, 2, select, NULL, &selected, err);
    if (r < 0)
        disconnect(q);
    return r;
}

static int connect_once(struct queue *q, int64_t timeout_ms, struct err *err)
{
    struct timeval timeout = timeval_of(timeout_ms);
    redisOptions options = {.connect_timeout = &timeout, .command_timeout = &timeout};
    if (q->address.socket)
        REDIS_OPTIONS_SET_UNIX(&options, q->address.socket);
    else
        REDIS_OPTIONS_SET_TCP(&options, q->address.host, q->address.port);
    errno = 0;
    q->redis = redisConnectWithOptions(&options);
    if (!q->redis)
        return err_oom(err, "a connection");
    if (q->redis->err)
        return connection_lost(q, err);
    q->functions = *q->redis->funcs;
    q->functions.write = write_without_signal;
    q->redis->funcs = &q->functions;
    q->timeout_ms = timeout_ms;
    if (!q->address.socket)
        redisEnableKeepAlive(q->redis);
    return log_in(q, err);
}

static int load_script(struct queue *q, enum script script, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_add(&text, embed_lib_lua);
    strbuf_add(&text, script_text[script]);
    if (text.failed)
        return err_oom(err, "a script");
    const char *words[] = {"SCRIPT", "LOAD", text.data};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = send_once(q, 3, words, NULL, &reply, err);
    if (r < 0)
        return r;
    if (reply->type != REDIS_REPLY_STRING || reply->len != 40)
        return err_set(err, ERR_INTERNAL, "Redis at %s: odd answer to SCRIPT LOAD",
                       q->address.shown);
    str_copy(q->sha[script], sizeof(q->sha[script]), reply->str);
    return 0;
}

static int cut_by_failpoint(struct queue *q, const char *name, struct err *err)
{
    if (failpoint(name, NULL) == 0)
        return 0;
    disconnect(q);
    return err_set(err, ERR_UNAVAILABLE, "Redis at %s: cut by a failpoint", q->address.shown);
}

/* script: SCRIPT_COUNT for a plain command. */
static int attempt(struct queue *q, enum script script, const struct args *args, int64_t block_ms,
                   redisReply **ret, struct err *err)
{
    int64_t timeout_ms = q->patience_ms / 2;
    timeout_ms = timeout_ms < 500 ? 500 : timeout_ms > 5000 ? 5000 : timeout_ms;
    int r = q->redis ? 0 : connect_once(q, timeout_ms, err);
    if (r == 0)
        r = set_timeout(q, timeout_ms + block_ms, err);
    for (int tries = 0; r == 0 && tries < 2; tries++) {
        _cleanup_(reply_freep) redisReply *reply = NULL;
        if (script < SCRIPT_COUNT && (tries || !q->sha[script][0])) {
            r = load_script(q, script, err);
            args->words[1] = q->sha[script];
            args->bytes[1] = strlen(q->sha[script]);
        }
        if (r == 0)
            r = cut_by_failpoint(q, "queue.send", err);
        if (r == 0)
            r = send_once(q, args->n, args->words, args->bytes, &reply, err);
        if (r == 0)
            r = cut_by_failpoint(q, "queue.reply", err);
        if (r == 0 && reply->type != REDIS_REPLY_ERROR) {
            *ret = TAKE_PTR(reply);
            return 0;
        }
    }
    /* the script was dropped twice within a moment: some other time */
    return r < 0 ? r : err_set(err, ERR_UNAVAILABLE, "Redis at %s: NOSCRIPT", q->address.shown);
}

/* ---- attempts until patience ends ---- */

static int send_patiently(struct queue *q, enum script script, const struct args *args,
                          int64_t block_ms, redisReply **ret, struct err *err)
{
    if (args->failed)
        return err_oom(err, "a command to Redis");
    int64_t begin = clock_now_ns(NULL), pause = 5;
    for (;;) {
        struct err why = {0};
        int r = attempt(q, script, args, block_ms, ret, &why);
        if (r == 0)
            return 0;
        int64_t waited = (clock_now_ns(NULL) - begin) / 1000000 - block_ms;
        if (r != -ERR_UNAVAILABLE)
            return err_set(err, (enum err_code) - r, "%s", why.message);
        if (waited >= q->patience_ms || (q->hurry && atomic_load(q->hurry)))
            return err_set(err, ERR_UNAVAILABLE, "%s (tried for %.1f s)", why.message,
                           (double)(waited > 0 ? waited : 0) / 1000);
        int64_t left = q->patience_ms - waited;
        int64_t jittered = pause / 2 + (int64_t)rng_below(&q->rng, (uint64_t)pause);
        clock_sleep_ms(jittered < left ? jittered : left);
        pause = pause < 250 ? 2 * pause : 500;
    }
}

int queue_command(struct queue *q, const struct args *args, int64_t block_ms, redisReply **ret,
                  struct err *err)
{
    return send_patiently(q, SCRIPT_COUNT, args, block_ms, ret, err);
}

int queue_run(struct queue *q, enum script script, struct args *args, size_t min_items,
              redisReply **ret, struct err *err)
{
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = send_patiently(q, script, args, 0, &reply, err);
    if (r < 0)
        return r;
    bool odd = reply->type != REDIS_REPLY_ARRAY || reply->elements < 1 ||
               reply->element[0]->type != REDIS_REPLY_INTEGER;
    int64_t code = odd ? 0 : reply->element[0]->integer;
    if (code > 0 && code <= ERR_UNAUTHENTICATED)
        return err_set(err, (enum err_code)code, "%s", item_text(reply, 1));
    if (odd || code || reply->elements < min_items)
        return err_set(err, ERR_INTERNAL, "Redis at %s: odd answer from a script",
                       q->address.shown);
    *ret = TAKE_PTR(reply);
    return 0;
}

/* ---- handles ---- */

static int set_options(struct queue *q, const struct queue_options *options, struct err *err)
{
    const char *prefix = options->prefix ? options->prefix : "hone";
    if (!*prefix || strlen(prefix) > 64 || strpbrk(prefix, "{} \r\n"))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.80s' is no prefix for keys", prefix);
    q->prefix = str_printf("{%s}", prefix);
    q->patience_ms = options->patience_ms > 0 ? options->patience_ms : 10000;
    q->retention_ms = options->retention_ms > 0 ? options->retention_ms : 7 * 24 * 3600 * 1000LL;
    q->backoff_ms = options->backoff_ms > 0 ? options->backoff_ms : 1000;
    q->backoff_max_ms = options->backoff_max_ms > 0 ? options->backoff_max_ms : 60000;
    q->hurry = options->hurry;
    uint64_t seed[2];
    if (getrandom(seed, sizeof(seed), 0) != (ssize_t)sizeof(seed))
        return err_errno(err, errno, "random numbers");
    rng_seed2(&q->rng, seed[0], seed[1]);
    return q->prefix ? address_parse(options->url, &q->address, err) : err_oom(err, "a prefix");
}

int queue_open(const struct queue_options *options, struct queue **ret, struct err *err)
{
    _cleanup_(queue_closep) struct queue *q = calloc(1, sizeof(*q));
    if (!q)
        return err_oom(err, "a queue");
    int r = set_options(q, options, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(q);
    return 0;
}

struct queue *queue_close(struct queue *q)
{
    if (!q)
        return NULL;
    disconnect(q);
    address_release(&q->address);
    free(q->prefix);
    free(q);
    return NULL;
}

void queue_closep(struct queue **q)
{
    *q = queue_close(*q);
}

const char *queue_address(const struct queue *q)
{
    return q->address.shown;
}

int queue_ping(struct queue *q, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    args_text(&args, "PING");
    return queue_command(q, &args, 0, &reply, err);
}
