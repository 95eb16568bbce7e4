#pragma once
/*
 * Changing protobuf-c messages: strings, repeated fields, clones, messages kept as artifacts. All
 * memory is malloc'ed, so that protobuf_c_message_free_unpacked(message, NULL) frees the whole.
 */
#include <protobuf-c/protobuf-c.h>

#include "shared/store/store.h"

/* Largest message that is read back from an artifact. */
#define MESSAGE_MAX_BYTES ((size_t)256 * 1024 * 1024)

/* Replaces a string field. */
int message_set(char **field, const char *text, struct err *err);
int message_setf(char **field, struct err *err, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));
/* Appends to a repeated field of pointers (messages or strings), which takes the item over:
 * message_append(&state->finals, &state->n_finals, network, err). The item is not freed on failure.
 */
#define message_append(array, n, item, err) message_append_pointer((void ***)(array), n, item, err)
int message_append_pointer(void ***array, size_t *n, void *item, struct err *err);
int message_append_text(char ***array, size_t *n, const char *text, struct err *err);
/* Appends to a repeated field of doubles. */
int message_append_f64(double **array, size_t *n, double value, struct err *err);
/* A new empty message of the type. */
void *message_new(const ProtobufCMessageDescriptor *type, struct err *err);
void *message_clone(const void *message, struct err *err);
void message_free(void *message); /* NULL-safe */
void message_freep(void *message_pp);

/* malloc'ed bytes of a message, and back (checked for depth and size before unpacking). */
int message_pack(const void *message, void **ret_data, size_t *ret_bytes, struct err *err);
int message_unpack(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
                   void *ret_message, struct err *err);

/* A message as an artifact. `ret_message` is a pointer to a message pointer. */
int message_store(struct store *store, const void *message, char ret_name[HASH_HEX_BYTES],
                  struct err *err);
int message_load(struct store *store, const char *name, const ProtobufCMessageDescriptor *type,
                 void *ret_message, struct err *err);
