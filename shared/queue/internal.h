#pragma once
/* Inside shared/queue: the connection, and how a script or command is sent and its answer read. */
#include <hiredis/hiredis.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/rng.h"
#include "shared/queue/queue.h"

/* Payloads, results, specs and memos; what is larger belongs into the store. */
#define QUEUE_BYTES_MAX ((size_t)64 * 1024 * 1024)
#define QUEUE_EVENT_MAX ((size_t)256 * 1024)
#define QUEUE_FOLLOW_MAX 10000

enum script {
    SCRIPT_JOB_CREATE,
    SCRIPT_JOB_GET,
    SCRIPT_JOB_CANCEL,
    SCRIPT_TASK_CLAIM,
    SCRIPT_TASK_HEARTBEAT,
    SCRIPT_TASK_COMPLETE,
    SCRIPT_TASK_FAIL,
    SCRIPT_TASK_RELEASE,
    SCRIPT_EVENT_ADD,
    SCRIPT_LEASE,
    SCRIPT_COUNT,
};

struct address {
    char *shown;  /* for messages: without the password */
    char *socket; /* or host and port */
    char *host;
    int port;
    char *user, *password; /* "" where there is none */
    int db;
};
int address_parse(const char *url, struct address *ret, struct err *err);
void address_release(struct address *address);

struct queue {
    struct address address;
    char *prefix; /* "{hone}" */
    int64_t patience_ms, retention_ms, backoff_ms, backoff_max_ms;
    const atomic_bool *hurry;
    redisContext *redis; /* NULL: not connected */
    redisContextFuncs functions;
    int64_t timeout_ms;         /* that the socket has now */
    char sha[SCRIPT_COUNT][41]; /* "": not loaded by this handle yet */
    struct rng rng;             /* jitter and nonces */
};

/* A command's words. Pointers are borrowed, numbers are kept inside. */
struct args {
    int n, capacity;
    const char **words;
    size_t *bytes;
    bool *owned; /* numbers: freed with the words */
    bool failed; /* no memory: the call says so */
};
void args_release(struct args *args);
void args_text(struct args *args, const char *text);
void args_bytes(struct args *args, const void *data, size_t bytes);
void args_number(struct args *args, int64_t number);

/* queue, kind, payload and deliveries of a task to be made, checked. */
int task_spec_args(struct args *args, const struct task_spec *spec, struct err *err);

/* Words of a script call up to and with ARGV[1]; more follow as ARGV[2].. */
void queue_script_args(struct queue *q, enum script script, struct args *args);

void reply_freep(redisReply **reply);
/* Sends and waits, reconnecting for as long as the handle is patient. The server may hold the
 * answer back for block_ms. An error reply is an error here. Safe to repeat: all that is sent is.
 */
int queue_command(struct queue *q, const struct args *args, int64_t block_ms, redisReply **ret,
                  struct err *err);
/* As queue_command for a script; an answer that starts with a code becomes that error. *ret has at
 * least min_items items, the first being the zero. */
int queue_run(struct queue *q, enum script script, struct args *args, size_t min_items,
              redisReply **ret, struct err *err);

/* An item as text ("" when it is none) and as a number (0). */
const char *item_text(const redisReply *reply, size_t i);
int64_t item_number(const redisReply *reply, size_t i);
/* malloc'ed copy with a zero behind. */
int item_copy(const redisReply *reply, size_t i, void **ret, size_t *ret_bytes, struct err *err);

char *queue_key(const struct queue *q, const char *kind, const char *id);
/* 32 hexadecimal digits that tell one call from any other. */
void queue_nonce(struct queue *q, char nonce[33]);
/* Ids of jobs and tasks, names of queues and kinds. */
int check_id(const char *what, const char *id, size_t max, struct err *err);
int check_queue_name(const char *name, struct err *err);
int check_size(const char *what, size_t bytes, struct err *err);
