#include "shared/work/message.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/rpc/rpc.h"

#define MAX_DEPTH 32

int message_set(char **field, const char *text, struct err *err)
{
    char *copy = strdup(text);
    if (!copy)
        return err_oom(err, "a message");
    if (*field && *field != (char *)protobuf_c_empty_string)
        free(*field);
    *field = copy;
    return 0;
}

int message_setf(char **field, struct err *err, const char *fmt, ...)
{
    char *text = NULL;
    va_list ap;
    va_start(ap, fmt);
    int n = vasprintf(&text, fmt, ap);
    va_end(ap);
    if (n < 0)
        return err_oom(err, "a message");
    int r = message_set(field, text, err);
    free(text);
    return r;
}

int message_append_pointer(void ***array, size_t *n, void *item, struct err *err)
{
    void **grown = mem_realloc(*array, *n + 1, sizeof(void *));
    if (!grown)
        return err_oom(err, "a message");
    grown[(*n)++] = item;
    *array = grown;
    return 0;
}

int message_append_text(char ***array, size_t *n, const char *text, struct err *err)
{
    char *copy = strdup(text);
    if (!copy)
        return err_oom(err, "a message");
    int r = message_append_pointer((void ***)array, n, copy, err);
    if (r < 0)
        free(copy);
    return r;
}

int message_append_f64(double **array, size_t *n, double value, struct err *err)
{
    double *grown = mem_realloc(*array, *n + 1, sizeof(double));
    if (!grown)
        return err_oom(err, "a message");
    grown[(*n)++] = value;
    *array = grown;
    return 0;
}

void *message_new(const ProtobufCMessageDescriptor *type, struct err *err)
{
    ProtobufCMessage *message = malloc(type->sizeof_message);
    if (!message) {
        err_oom(err, type->name);
        return NULL;
    }
    protobuf_c_message_init(type, message);
    return message;
}

void *message_clone(const void *message, struct err *err)
{
    const ProtobufCMessage *base = message;
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    if (message_pack(message, &data, &bytes, err) < 0)
        return NULL;
    ProtobufCMessage *clone = protobuf_c_message_unpack(base->descriptor, NULL, bytes, data);
    if (!clone)
        err_oom(err, base->descriptor->name);
    return clone;
}

void message_free(void *message)
{
    if (message)
        protobuf_c_message_free_unpacked(message, NULL);
}

void message_freep(void *message_pp)
{
    ProtobufCMessage **message = message_pp;
    message_free(*message);
    *message = NULL;
}

int message_pack(const void *message, void **ret_data, size_t *ret_bytes, struct err *err)
{
    size_t bytes = protobuf_c_message_get_packed_size(message);
    uint8_t *data = malloc(bytes + 1);
    if (!data)
        return err_oom(err, "a message");
    protobuf_c_message_pack(message, data);
    *ret_data = data;
    *ret_bytes = bytes;
    return 0;
}

int message_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
                   void *ret_message, struct err *err)
{
    int r = rpc_check_message(type, data, bytes, MAX_DEPTH, err);
    if (r < 0)
        return r;
    ProtobufCMessage *message = protobuf_c_message_unpack(type, NULL, bytes, data);
    if (!message)
        return err_set(err, ERR_DATA_LOSS, "%s: %zu bytes that are no such message", type->name,
                       bytes);
    *(ProtobufCMessage **)ret_message = message;
    return 0;
}

int message_store(struct store *store, const void *message, char ret_name[HASH_HEX_BYTES],
                  struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r = message_pack(message, &data, &bytes, err);
    return r < 0 ? r : store_put(store, data, bytes, ret_name, err);
}

int message_load(struct store *store, const char *name, const ProtobufCMessageDescriptor *type,
                 void *ret_message, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    int r = store_get(store, name, MESSAGE_MAX_BYTES, &data, &bytes, err);
    if (r < 0)
        return r;
    r = message_unpack(type, data, bytes, ret_message, err);
    return r < 0 ? err_wrap(err, "artifact %.12s", name) : 0;
}
