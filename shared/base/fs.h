#pragma once
/* Files: whole reads, atomic writes, mappings. Errors name the path. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

/* Whole file, malloc'ed, one zero byte added behind; refused above max_bytes. */
int fs_read(const char *path, size_t max_bytes, void **ret_data, size_t *ret_bytes,
            struct err *err);

/* Writes to a temporary file beside `path`, fsyncs, renames, fsyncs the folder: after a crash or on
 * a full disk the old content or the new one is there, never a part. */
int fs_write_atomic(const char *path, const void *data, size_t bytes, struct err *err);

/* mkdir -p */
int fs_mkdirs(const char *path, struct err *err);
bool fs_exists(const char *path);
/* Bytes that may still be written to the file system of `path`; -1: it does not say. */
int64_t fs_room(const char *path);
bool fs_is_dir(const char *path);
/* Removes a file or a folder with all in it; nothing there is no error. */
int fs_remove_tree(const char *path, struct err *err);
int fs_copy(const char *from, const char *to, struct err *err);
/* malloc'ed absolute path without symbolic links; the file must exist. */
int fs_realpath(const char *path, char **ret_path, struct err *err);

/* A file mapped read-only. */
struct fs_map {
    const void *data;
    size_t bytes;
};
int fs_map(const char *path, struct fs_map *ret_map, struct err *err);
void fs_unmap(struct fs_map *map); /* for _cleanup_; zeroes */

/* `_cleanup_(fs_closep) int fd = -1;` */
void fs_closep(int *fd);
