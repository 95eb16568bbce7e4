/* The name of a source for caches: any change of a file in it changes the hash. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/data/source.h"

struct hashing {
    const char *folder;
    const struct file_list *files;
    char (*hex)[HASH_HEX_BYTES];
};

static int hash_one(void *ctx, int64_t i, int worker, struct err *err)
{
    struct hashing *h = ctx;
    (void)worker;
    if (str_ends_with(h->files->names[i], "/"))
        return 0;
    _cleanup_(freep) char *path = str_printf("%s/%s", h->folder, h->files->names[i]);
    return path ? hash_file(path, h->hex[i], err) : err_oom(err, h->folder);
}

/* Over "name, zero, size, space, hash, newline" of each file and "name/, zero, newline" of each
 * folder: an empty test/ is an error of its own when packing. */
static int hash_folder(const char *folder, char ret_hex[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(file_list_release) struct file_list files = {0};
    int r = file_list_read(folder, &files, err);
    if (r < 0)
        return r;
    _cleanup_(freep) void *hex = mem_calloc((size_t)files.n + 1, HASH_HEX_BYTES);
    if (!hex)
        return err_oom(err, folder);
    struct hashing h = {folder, &files, hex};
    r = pool_for(files.n, pool_cpus(), hash_one, &h, err);
    if (r < 0)
        return r;
    _cleanup_(hash_freep) struct hash *hash = hash_new();
    if (!hash)
        return err_oom(err, folder);
    for (int64_t i = 0; i < files.n; i++) {
        char line[HASH_HEX_BYTES + 32] = "\n";
        if (*h.hex[i])
            snprintf(line, sizeof(line), "%lld %s\n", (long long)files.bytes[i], h.hex[i]);
        hash_add(hash, files.names[i], strlen(files.names[i]) + 1);
        hash_add(hash, line, strlen(line));
    }
    hash_hex(hash, ret_hex);
    return 0;
}

int dataset_source_hash(const char *path, char ret_hex[65], struct err *err)
{
    if (fs_is_dir(path))
        return hash_folder(path, ret_hex, err);
    int r = hash_file(path, ret_hex, err);
    _cleanup_(freep) char *beside = str_printf("%s.dataset.json", path);
    if (r == 0 && !beside)
        return err_oom(err, path);
    if (r < 0 || !fs_exists(beside))
        return r;
    /* the settings beside the file are part of the source */
    char pair[2 * HASH_HEX_BYTES];
    memcpy(pair, ret_hex, HASH_HEX_BYTES);
    r = hash_file(beside, pair + HASH_HEX_BYTES, err);
    return r < 0 ? r : hash_bytes(pair, sizeof(pair), ret_hex, err);
}
