#pragma once
/*
 * Artifacts: immutable, named by the SHA-256 of their bytes. And records: small documents under a
 * path of their own (a job's manifest), replaced atomically.
 *
 * A store is opened by URL: file:///path/of/a/folder, or s3://bucket/prefix (not in this build:
 * UNIMPLEMENTED says so). Thread-safe; several processes may share one. Every read checks the
 * content against its name: DATA_LOSS when a byte has changed.
 */
#include "shared/base/err.h"
#include "shared/base/hash.h"

struct store;
int store_open(const char *url, struct store **ret, struct err *err);
struct store *store_close(struct store *store); /* NULL-safe, returns NULL */
void store_closep(struct store **store);

/* Keeps the bytes, gives their name, durably. Keeping what is there already costs hashing only; a
 * damaged artifact is replaced by the good bytes. After a failure (full disk) nothing is left. */
int store_put(struct store *store, const void *data, size_t bytes, char ret_name[HASH_HEX_BYTES],
              struct err *err);
int store_put_file(struct store *store, const char *path, char ret_name[HASH_HEX_BYTES],
                   struct err *err);

/* malloc'ed bytes (one zero byte behind them); refused above max_bytes. */
int store_get(struct store *store, const char *name, size_t max_bytes, void **ret_data,
              size_t *ret_bytes, struct err *err);
/* malloc'ed path of a local file that holds the artifact's verified bytes, to map; it must not be
 * changed. (Verified once per process and artifact.) */
int store_get_path(struct store *store, const char *name, char **ret_path, struct err *err);
/* Copies the artifact to a path, atomically. */
int store_export(struct store *store, const char *name, const char *path, struct err *err);
/* 1: there, 0: not there, negative: error. */
int store_has(struct store *store, const char *name, struct err *err);

/* 64 hexadecimal digits, drawn when the store was made: tells one store from another, so that what
 * was remembered about artifacts is not believed of a store that never had them. */
int store_identity(struct store *store, char ret_id[HASH_HEX_BYTES], struct err *err);

/* Records. `path` is [A-Za-z0-9._/-]+ without "..": jobs/J123/manifest.json. */
int store_record_put(struct store *store, const char *path, const void *data, size_t bytes,
                     struct err *err);
int store_record_get(struct store *store, const char *path, size_t max_bytes, void **ret_data,
                     size_t *ret_bytes, struct err *err);
/* Calls fn for each record path that begins with `prefix`, in order (strcmp); a negative return
 * stops and is returned. */
int store_record_list(struct store *store, const char *prefix,
                      int (*fn)(void *ctx, const char *path), void *ctx, struct err *err);
