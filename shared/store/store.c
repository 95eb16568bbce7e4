#include "shared/store/store.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/store/backend.h"

struct store {
    const struct store_backend *backend;
    void *impl;
};

int store_open(const char *url, struct store **ret, struct err *err)
{
    const struct store_backend *backend = NULL;
    void *impl = NULL;
    if (str_starts_with(url, "s3://"))
        return err_set(err, ERR_UNIMPLEMENTED,
                       "%s: this build keeps artifacts in files only (file:///FOLDER)", url);
    if (!str_starts_with(url, "file:///"))
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "'%s' is no store: file:///FOLDER is (an absolute path)", url);
    int r = store_file_open(url + strlen("file://"), &backend, &impl, err);
    if (r < 0)
        return r;
    struct store *store = calloc(1, sizeof(*store));
    if (!store) {
        backend->close(impl);
        return err_oom(err, "a store");
    }
    *store = (struct store){backend, impl};
    *ret = store;
    return 0;
}

struct store *store_close(struct store *store)
{
    if (store)
        store->backend->close(store->impl);
    free(store);
    return NULL;
}

void store_closep(struct store **store)
{
    *store = store_close(*store);
}

static int check_name(const char *name, struct err *err)
{
    if (strspn(name, "0123456789abcdef") != HASH_HEX_BYTES - 1 || name[HASH_HEX_BYTES - 1])
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "'%.80s' names no artifact: 64 hexadecimal digits do", name);
    return 0;
}

/* A record's path cannot leave its folder: no empty, "." or ".." part. */
static int check_record(const char *path, struct err *err)
{
    static const char allowed[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
    const char *p = path;
    bool good = strlen(path) < 512;
    while (good) {
        size_t n = strspn(p, allowed);
        good = n > 0 && n < 200 && !(n == 1 && p[0] == '.') && !memmem(p, n, "..", 2);
        p += n;
        if (*p != '/')
            break;
        p++;
    }
    if (!good || *p)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "'%.200s' is no path of a record: parts of [A-Za-z0-9._-] with / between",
                       path);
    return 0;
}

int store_put(struct store *store, const void *data, size_t bytes, char ret_name[HASH_HEX_BYTES],
              struct err *err)
{
    return store->backend->put(store->impl, data, bytes, ret_name, err);
}

int store_put_file(struct store *store, const char *path, char ret_name[HASH_HEX_BYTES],
                   struct err *err)
{
    return store->backend->put_file(store->impl, path, ret_name, err);
}

int store_get(struct store *store, const char *name, size_t max_bytes, void **ret_data,
              size_t *ret_bytes, struct err *err)
{
    int r = check_name(name, err);
    return r < 0 ? r : store->backend->get(store->impl, name, max_bytes, ret_data, ret_bytes, err);
}

int store_get_path(struct store *store, const char *name, char **ret_path, struct err *err)
{
    int r = check_name(name, err);
    return r < 0 ? r : store->backend->get_path(store->impl, name, ret_path, err);
}

int store_export(struct store *store, const char *name, const char *path, struct err *err)
{
    int r = check_name(name, err);
    return r < 0 ? r : store->backend->export(store->impl, name, path, err);
}

int store_has(struct store *store, const char *name, struct err *err)
{
    int r = check_name(name, err);
    return r < 0 ? r : store->backend->has(store->impl, name, err);
}

int store_identity(struct store *store, char ret_id[HASH_HEX_BYTES], struct err *err)
{
    return store->backend->identity(store->impl, ret_id, err);
}

int store_record_put(struct store *store, const char *path, const void *data, size_t bytes,
                     struct err *err)
{
    int r = check_record(path, err);
    return r < 0 ? r : store->backend->record_put(store->impl, path, data, bytes, err);
}

int store_record_get(struct store *store, const char *path, size_t max_bytes, void **ret_data,
                     size_t *ret_bytes, struct err *err)
{
    int r = check_record(path, err);
    if (r < 0)
        return r;
    return store->backend->record_get(store->impl, path, max_bytes, ret_data, ret_bytes, err);
}

static int by_text(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

int store_record_list(struct store *store, const char *prefix,
                      int (*fn)(void *ctx, const char *path), void *ctx, struct err *err)
{
    _cleanup_(freep) char *lines = NULL;
    int r = store->backend->record_list(store->impl, prefix, &lines, err);
    if (r < 0)
        return r;
    size_t n = 0;
    for (const char *p = lines; *p; p++)
        n += *p == '\n';
    _cleanup_(freep) char **paths = mem_calloc(n, sizeof(*paths));
    if (!paths)
        return err_oom(err, "the list of records");
    char *rest = lines;
    for (size_t i = 0; i < n; i++)
        paths[i] = strsep(&rest, "\n");
    qsort(paths, n, sizeof(*paths), by_text);
    for (size_t i = 0; i < n; i++) {
        r = fn(ctx, paths[i]);
        if (r < 0)
            return err_set(err, (enum err_code) - r, "the list of records stopped at %s", paths[i]);
    }
    return 0;
}
