#pragma once
/*
 * What a kind of store does for store.c, which has checked names and paths before it calls. A new
 * kind (s3://) fills this table and gets a line in store_open. All calls may come from several
 * threads at once; errors name the place (path or URL).
 */
#include "shared/store/store.h"

struct store_backend {
    int (*put)(void *impl, const void *data, size_t bytes, char ret_name[HASH_HEX_BYTES],
               struct err *err);
    int (*put_file)(void *impl, const char *path, char ret_name[HASH_HEX_BYTES], struct err *err);
    int (*get)(void *impl, const char *name, size_t max_bytes, void **ret_data, size_t *ret_bytes,
               struct err *err);
    int (*get_path)(void *impl, const char *name, char **ret_path, struct err *err);
    int (*export)(void *impl, const char *name, const char *path, struct err *err);
    int (*has)(void *impl, const char *name, struct err *err);
    int (*record_put)(void *impl, const char *path, const void *data, size_t bytes,
                      struct err *err);
    int (*record_get)(void *impl, const char *path, size_t max_bytes, void **ret_data,
                      size_t *ret_bytes, struct err *err);
    /* All record paths that begin with `prefix`, one for each line of *ret_lines, in any order. */
    int (*record_list)(void *impl, const char *prefix, char **ret_lines, struct err *err);
    int (*identity)(void *impl, char ret_id[HASH_HEX_BYTES], struct err *err);
    void (*close)(void *impl);
};

/* file:///folder: `folder` is an absolute path; it is made when it is not there. */
int store_file_open(const char *folder, const struct store_backend **ret_backend, void **ret_impl,
                    struct err *err);
