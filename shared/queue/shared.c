/* What jobs share: memos, tables, leases on things. */
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/queue/internal.h"

#define NAME_MAX_BYTES 512

static int check_name(const char *what, const char *name, struct err *err)
{
    size_t n = 0;
    while (name[n] >= ' ' && name[n] <= '~')
        n++;
    if (n == 0 || name[n] || n > NAME_MAX_BYTES)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s '%.100s' is not 1 to %d of [ -~]", what, name,
                       NAME_MAX_BYTES);
    return 0;
}

/* COMMAND key [field] [value], after checks; field and value may be NULL. */
static int simple(struct queue *q, const char *command, const char *kind, const char *name,
                  const char *field, const void *value, size_t bytes, redisReply **ret,
                  struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    int r = check_name(kind, name, err);
    if (r == 0 && field)
        r = check_name("field", field, err);
    if (r == 0)
        r = check_size(kind, bytes, err);
    if (r < 0)
        return r;
    _cleanup_(freep) char *key = queue_key(q, kind, name);
    if (!key)
        return err_oom(err, "a key");
    args_text(&args, command);
    args_text(&args, key);
    if (field)
        args_text(&args, field);
    if (value)
        args_bytes(&args, value, bytes);
    return queue_command(q, &args, 0, ret, err);
}

int queue_memo_get(struct queue *q, const char *key, void **ret, size_t *ret_bytes, struct err *err)
{
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = simple(q, "GET", "memo", key, NULL, NULL, 0, &reply, err);
    if (r < 0)
        return r;
    if (reply->type == REDIS_REPLY_NIL) {
        *ret = NULL;
        *ret_bytes = 0;
        return 0;
    }
    char *copy = malloc(reply->len + 1);
    if (!copy)
        return err_oom(err, "a memo");
    memcpy(copy, reply->str, reply->len + 1);
    *ret = copy;
    *ret_bytes = reply->len;
    return 0;
}

int queue_memo_put(struct queue *q, const char *key, const void *data, size_t bytes,
                   struct err *err)
{
    _cleanup_(reply_freep) redisReply *reply = NULL;
    return simple(q, "SET", "memo", key, NULL, bytes ? data : "", bytes, &reply, err);
}

int queue_table_put(struct queue *q, const char *table, const char *field, const char *text,
                    struct err *err)
{
    _cleanup_(reply_freep) redisReply *reply = NULL;
    return simple(q, "HSET", "table", table, field, text, strlen(text), &reply, err);
}

int queue_table_get(struct queue *q, const char *table, const char *field, char **ret_text,
                    struct err *err)
{
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = simple(q, "HGET", "table", table, field, NULL, 0, &reply, err);
    if (r < 0)
        return r;
    char *text = reply->type == REDIS_REPLY_NIL ? NULL : strdup(reply->str);
    if (!text && reply->type != REDIS_REPLY_NIL)
        return err_oom(err, "a table's field");
    *ret_text = text;
    return 0;
}

static int lease(struct queue *q, const char *verb, const char *name, const char *holder,
                 int64_t ttl_ms, struct err *err)
{
    _cleanup_(args_release) struct args args = {0};
    _cleanup_(reply_freep) redisReply *reply = NULL;
    int r = check_name("lease", name, err);
    if (r == 0 && *holder)
        r = check_name("holder", holder, err);
    if (r < 0)
        return r;
    queue_script_args(q, SCRIPT_LEASE, &args);
    args_text(&args, verb);
    args_text(&args, name);
    args_text(&args, holder);
    args_number(&args, ttl_ms);
    r = queue_run(q, SCRIPT_LEASE, &args, 2, &reply, err);
    return r < 0 ? r : (int)item_number(reply, 1);
}

int queue_lease_take(struct queue *q, const char *name, const char *holder, int64_t ttl_ms,
                     struct err *err)
{
    if (ttl_ms < 1 || !*holder)
        return err_set(err, ERR_INVALID_ARGUMENT, "lease %.100s: for %lld ms by '%.100s'", name,
                       (long long)ttl_ms, holder);
    return lease(q, "take", name, holder, ttl_ms, err);
}

int queue_lease_drop(struct queue *q, const char *name, const char *holder, struct err *err)
{
    int r = lease(q, "drop", name, holder, 1, err);
    return r < 0 ? r : 0;
}

int queue_lease_held(struct queue *q, const char *name, const char *holder, struct err *err)
{
    return lease(q, "held", name, holder ? holder : "", 1, err);
}
