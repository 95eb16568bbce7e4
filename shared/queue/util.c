/* Reading answers, checking names. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/queue/internal.h"

const char *item_text(const redisReply *reply, size_t i)
{
    if (reply->type != REDIS_REPLY_ARRAY || i >= reply->elements || !reply->element[i]->str)
        return "";
    return reply->element[i]->str;
}

int64_t item_number(const redisReply *reply, size_t i)
{
    if (reply->type != REDIS_REPLY_ARRAY || i >= reply->elements)
        return 0;
    if (reply->element[i]->type == REDIS_REPLY_INTEGER)
        return reply->element[i]->integer;
    int64_t value = 0;
    return str_parse_i64(item_text(reply, i), INT64_MIN, INT64_MAX, &value, NULL) < 0 ? 0 : value;
}

int item_copy(const redisReply *reply, size_t i, void **ret, size_t *ret_bytes, struct err *err)
{
    bool there = i < reply->elements && reply->element[i]->str;
    size_t bytes = there ? reply->element[i]->len : 0;
    char *copy = malloc(bytes + 1);
    if (!copy)
        return err_oom(err, "an answer of Redis");
    if (bytes)
        memcpy(copy, reply->element[i]->str, bytes);
    copy[bytes] = 0;
    *ret = copy;
    *ret_bytes = bytes;
    return 0;
}

char *queue_key(const struct queue *q, const char *kind, const char *id)
{
    return str_printf("%s:%s%s%s", q->prefix, kind, *id ? ":" : "", id);
}

void queue_nonce(struct queue *q, char nonce[33])
{
    snprintf(nonce, 33, "%016llx%016llx", (unsigned long long)rng_u64(&q->rng),
             (unsigned long long)rng_u64(&q->rng));
}

#define LETTERS "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

int check_id(const char *what, const char *id, size_t max, struct err *err)
{
    size_t n = strspn(id, LETTERS "_-");
    if (n == 0 || id[n] || n > max)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s '%.100s' is not 1 to %zu of [A-Za-z0-9_-]",
                       what, id, max);
    return 0;
}

int check_queue_name(const char *name, struct err *err)
{
    size_t n = strspn(name, LETTERS "_-:.+");
    if (n == 0 || name[n] || n >= sizeof(((struct task *)0)->queue))
        return err_set(err, ERR_INVALID_ARGUMENT, "queue '%.100s' is not 1 to %zu of %s", name,
                       sizeof(((struct task *)0)->queue) - 1, "[A-Za-z0-9_:.+-]");
    return 0;
}

int check_size(const char *what, size_t bytes, struct err *err)
{
    if (bytes > QUEUE_BYTES_MAX)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s of %zu bytes is above %zu: large things belong into the store", what,
                       bytes, QUEUE_BYTES_MAX);
    return 0;
}
