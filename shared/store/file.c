/*
 * A store in a folder:
 *
 *     objects/ab/abcd...   artifacts, read-only
 *     records/...          records under their own paths
 *     tmp/                 what is being written; after a day it is removed at the next open
 *     identity             random digits, made once: which store this is
 *
 * Everything appears under its name by rename(2) after fsync(2): whole or not at all.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/store/backend.h"
#include "shared/store/verified.h"

#define TEMP_MAX_AGE_S (24 * 60 * 60)
#define COPY_BYTES ((size_t)1024 * 1024)

struct file_store {
    char *root;
    struct verified *verified;
};

/* ---- writing ---- */

struct temp {
    char *path; /* NULL once it has its final name */
    int fd;
};

static void temp_release(struct temp *temp)
{
    fs_closep(&temp->fd);
    if (temp->path)
        unlink(temp->path);
    freep(&temp->path);
}

static int temp_open(const char *folder, struct temp *ret, struct err *err)
{
    char *path = str_printf("%s/store.tmp.XXXXXX", folder);
    if (!path)
        return err_oom(err, folder);
    int fd = mkostemp(path, O_CLOEXEC);
    if (fd < 0) {
        free(path);
        return err_errno(err, errno, "writing in %s", folder);
    }
    *ret = (struct temp){path, fd};
    return 0;
}

static int write_all(int fd, const char *data, size_t bytes, const char *path, struct err *err)
{
    int r = failpoint("store.write", err);
    if (r < 0)
        return r;
    while (bytes) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "writing %s", path);
        data += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static int fsync_folder(const char *folder, struct err *err)
{
    _cleanup_(fs_closep) int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || fsync(fd) < 0)
        return err_errno(err, errno, "%s", folder);
    return 0;
}

/* The folders of `path` below the store's root. A new one is made durable in its parent at once:
 * else a crash could take the folder away with the file that was reported as written. */
static int make_parents(const struct file_store *fs, const char *path, struct err *err)
{
    char folder[PATH_MAX];
    if (!str_copy(folder, sizeof(folder), path))
        return err_set(err, ERR_INVALID_ARGUMENT, "%.200s...: the path is too long", path);
    for (char *p = folder + strlen(fs->root) + 1; (p = strchr(p, '/')); p++) {
        *p = 0;
        if (mkdir(folder, 0777) == 0) {
            char *parent_end = strrchr(folder, '/');
            *parent_end = 0;
            int r = fsync_folder(folder, err);
            *parent_end = '/';
            if (r < 0)
                return r;
        } else if (errno != EEXIST) {
            return err_errno(err, errno, "making %s", folder);
        }
        *p = '/';
    }
    return 0;
}

/* Gives the written file its name, durably. */
static int temp_commit(struct temp *temp, const char *path, mode_t mode, struct err *err)
{
    if (fchmod(temp->fd, mode) < 0 || fsync(temp->fd) < 0)
        return err_errno(err, errno, "writing %s", path);
    int r = failpoint("store.before_rename", err);
    if (r < 0)
        return r;
    if (rename(temp->path, path) < 0)
        return err_errno(err, errno, "writing %s", path);
    freep(&temp->path);
    char folder[PATH_MAX];
    str_copy(folder, sizeof(folder), path);
    char *end = strrchr(folder, '/');
    *(end == folder ? end + 1 : end) = 0;
    return fsync_folder(folder, err);
}

static int write_below(const struct file_store *fs, const char *path, const void *data,
                       size_t bytes, mode_t mode, struct err *err)
{
    char folder[PATH_MAX];
    snprintf(folder, sizeof(folder), "%s/tmp", fs->root);
    _cleanup_(temp_release) struct temp temp = {NULL, -1};
    int r = make_parents(fs, path, err);
    if (r == 0)
        r = temp_open(folder, &temp, err);
    if (r == 0)
        r = write_all(temp.fd, data, bytes, path, err);
    return r < 0 ? r : temp_commit(&temp, path, mode, err);
}

/* ---- reading ---- */

/* Hashes all of `from`; copies it to `to` at the same time unless that is -1. */
static int copy_hashed(int from, int to, const char *from_path, const char *to_path,
                       char hex[HASH_HEX_BYTES], struct err *err)
{
    _cleanup_(hash_freep) struct hash *hash = hash_new();
    _cleanup_(freep) char *buffer = malloc(COPY_BYTES);
    if (!hash || !buffer)
        return err_oom(err, from_path);
    for (;;) {
        ssize_t n = read(from, buffer, COPY_BYTES);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "reading %s", from_path);
        if (n == 0)
            break;
        hash_add(hash, buffer, (size_t)n);
        int r = to < 0 ? 0 : write_all(to, buffer, (size_t)n, to_path, err);
        if (r < 0)
            return r;
    }
    hash_hex(hash, hex);
    return 0;
}

static int open_regular(const char *path, int *ret_fd, struct stat *ret_st, struct err *err)
{
    /* O_NONBLOCK: a FIFO must be refused, not waited for */
    _cleanup_(fs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 || fstat(fd, ret_st) < 0)
        return err_errno(err, errno, "%s", path);
    if (!S_ISREG(ret_st->st_mode))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a regular file", path);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

static char *object_path(const struct file_store *fs, const char *name)
{
    return str_printf("%s/objects/%.2s/%s", fs->root, name, name);
}

static int damaged(const char *path, struct err *err)
{
    return err_set(err, ERR_DATA_LOSS, "artifact %s is damaged: its bytes do not match its name",
                   path);
}

static int open_object(const struct file_store *fs, const char *name, char **ret_path, int *ret_fd,
                       struct stat *ret_st, struct err *err)
{
    _cleanup_(freep) char *path = object_path(fs, name);
    if (!path)
        return err_oom(err, "a path");
    int r = open_regular(path, ret_fd, ret_st, err);
    if (r == -ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND, "artifact %s is not in the store %s", name, fs->root);
    if (r < 0)
        return r;
    *ret_path = TAKE_PTR(path);
    return 0;
}

/* 0 when the artifact is there with the right bytes; compared once for each process and file. */
static int check_object(const struct file_store *fs, const char *name, char **ret_path,
                        struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fs_closep) int fd = -1;
    struct stat st;
    char hex[HASH_HEX_BYTES];
    int r = open_object(fs, name, &path, &fd, &st, err);
    if (r < 0)
        return r;
    if (!verified_has(fs->verified, name, &st)) {
        r = copy_hashed(fd, -1, path, NULL, hex, err);
        if (r < 0)
            return r;
        if (strcmp(hex, name) != 0)
            return damaged(path, err);
        verified_add(fs->verified, name, &st);
    }
    if (ret_path)
        *ret_path = TAKE_PTR(path);
    return 0;
}

/* ---- the table ---- */

static int file_put(void *impl, const void *data, size_t bytes, char ret_name[HASH_HEX_BYTES],
                    struct err *err)
{
    const struct file_store *fs = impl;
    char name[HASH_HEX_BYTES];
    int r = hash_bytes(data, bytes, name, err);
    if (r < 0)
        return r;
    if (check_object(fs, name, NULL, NULL) < 0) { /* absent, or damaged and now healed */
        _cleanup_(freep) char *path = object_path(fs, name);
        r = path ? write_below(fs, path, data, bytes, 0444, err) : err_oom(err, "a path");
        if (r < 0)
            return r;
    }
    memcpy(ret_name, name, sizeof(name));
    return 0;
}

static int file_put_file(void *impl, const char *from, char ret_name[HASH_HEX_BYTES],
                         struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(fs_closep) int fd = -1;
    struct stat st;
    char name[HASH_HEX_BYTES], folder[PATH_MAX];
    int r = open_regular(from, &fd, &st, err);
    if (r == 0)
        r = copy_hashed(fd, -1, from, NULL, name, err);
    if (r < 0)
        return r;
    if (check_object(fs, name, NULL, NULL) < 0) {
        snprintf(folder, sizeof(folder), "%s/tmp", fs->root);
        _cleanup_(temp_release) struct temp temp = {NULL, -1};
        if (lseek(fd, 0, SEEK_SET) < 0)
            return err_errno(err, errno, "%s", from);
        r = temp_open(folder, &temp, err);
        /* hashed again: the file may have changed between the two readings */
        if (r == 0)
            r = copy_hashed(fd, temp.fd, from, temp.path, name, err);
        if (r < 0)
            return r;
        _cleanup_(freep) char *path = object_path(fs, name);
        r = path ? make_parents(fs, path, err) : err_oom(err, "a path");
        if (r == 0)
            r = temp_commit(&temp, path, 0444, err);
        if (r < 0)
            return r;
    }
    memcpy(ret_name, name, sizeof(name));
    return 0;
}

static int file_get(void *impl, const char *name, size_t max_bytes, void **ret_data,
                    size_t *ret_bytes, struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *path = object_path(fs, name);
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    char hex[HASH_HEX_BYTES];
    if (!path)
        return err_oom(err, "a path");
    int r = fs_read(path, max_bytes, &data, &bytes, err);
    if (r == -ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND, "artifact %s is not in the store %s", name, fs->root);
    if (r == 0)
        r = hash_bytes(data, bytes, hex, err);
    if (r < 0)
        return r;
    if (strcmp(hex, name) != 0)
        return damaged(path, err);
    *ret_data = TAKE_PTR(data);
    *ret_bytes = bytes;
    return 0;
}

static int file_get_path(void *impl, const char *name, char **ret_path, struct err *err)
{
    return check_object(impl, name, ret_path, err);
}

static int file_export(void *impl, const char *name, const char *to, struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *path = NULL;
    _cleanup_(fs_closep) int fd = -1;
    _cleanup_(temp_release) struct temp temp = {NULL, -1};
    struct stat st;
    char hex[HASH_HEX_BYTES], folder[PATH_MAX];
    if (!str_copy(folder, sizeof(folder), to) || !*to)
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.100s': no usable path", to);
    char *end = strrchr(folder, '/');
    if (end)
        *(end == folder ? end + 1 : end) = 0;
    else
        str_copy(folder, sizeof(folder), ".");
    int r = open_object(fs, name, &path, &fd, &st, err);
    if (r == 0)
        r = temp_open(folder, &temp, err);
    if (r == 0)
        r = copy_hashed(fd, temp.fd, path, to, hex, err);
    if (r < 0)
        return r;
    if (strcmp(hex, name) != 0)
        return damaged(path, err);
    char absolute[PATH_MAX];
    if (snprintf(absolute, sizeof(absolute), "%s%s", end ? "" : "./", to) >= (int)sizeof(absolute))
        return err_set(err, ERR_INVALID_ARGUMENT, "%.100s...: the path is too long", to);
    return temp_commit(&temp, absolute, 0644, err);
}

static int file_has(void *impl, const char *name, struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *path = object_path(fs, name);
    struct stat st;
    if (!path)
        return err_oom(err, "a path");
    if (stat(path, &st) == 0)
        return 1;
    return errno == ENOENT ? 0 : err_errno(err, errno, "%s", path);
}

static int file_record_put(void *impl, const char *path, const void *data, size_t bytes,
                           struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *full = str_printf("%s/records/%s", fs->root, path);
    return full ? write_below(fs, full, data, bytes, 0644, err) : err_oom(err, "a path");
}

static int file_record_get(void *impl, const char *path, size_t max_bytes, void **ret_data,
                           size_t *ret_bytes, struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *full = str_printf("%s/records/%s", fs->root, path);
    if (!full)
        return err_oom(err, "a path");
    int r = fs_read(full, max_bytes, ret_data, ret_bytes, err);
    if (r == -ERR_NOT_FOUND)
        return err_set(err, ERR_NOT_FOUND, "record %s is not in the store %s", path, fs->root);
    return r;
}

static void closedirp(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

/* `below` is the folder's path within records/, "" or ended by '/'. */
static int list_folder(const char *records, const char *below, const char *prefix,
                       struct strbuf *lines, struct err *err)
{
    _cleanup_(freep) char *folder = str_printf("%s/%s", records, below);
    if (!folder)
        return err_oom(err, "a path");
    _cleanup_(closedirp) DIR *dir = opendir(folder);
    if (!dir)
        return errno == ENOENT ? 0 : err_errno(err, errno, "%s", folder);
    for (const struct dirent *e; (e = readdir(dir));) {
        if (e->d_name[0] == '.' && (!e->d_name[1] || !strcmp(e->d_name, "..")))
            continue;
        struct stat st;
        if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
            continue; /* gone meanwhile */
        bool is_folder = S_ISDIR(st.st_mode);
        _cleanup_(freep) char *path = str_printf("%s%s%s", below, e->d_name, is_folder ? "/" : "");
        if (!path)
            return err_oom(err, "a path");
        bool matches = str_starts_with(path, prefix);
        if (is_folder && (matches || str_starts_with(prefix, path))) {
            int r = list_folder(records, path, prefix, lines, err);
            if (r < 0)
                return r;
        } else if (!is_folder && matches) {
            strbuf_printf(lines, "%s\n", path);
        }
    }
    return 0;
}

static int file_record_list(void *impl, const char *prefix, char **ret_lines, struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *records = str_printf("%s/records", fs->root);
    _cleanup_(strbuf_release) struct strbuf lines = {0};
    if (!records)
        return err_oom(err, "a path");
    int r = list_folder(records, "", prefix, &lines, err);
    if (r < 0)
        return r;
    char *text = strbuf_take(&lines);
    if (!text)
        return err_oom(err, "the list of records");
    *ret_lines = text;
    return 0;
}

/* ---- opening ---- */

static int file_identity(void *impl, char ret_id[HASH_HEX_BYTES], struct err *err)
{
    const struct file_store *fs = impl;
    _cleanup_(freep) char *path = str_printf("%s/identity", fs->root);
    _cleanup_(freep) char *text = NULL;
    size_t bytes = 0;
    if (!path)
        return err_oom(err, "a path");
    int r = fs_read(path, 4096, (void **)&text, &bytes, err);
    if (r < 0)
        return r;
    if (bytes != HASH_HEX_BYTES - 1 || strspn(text, "0123456789abcdef") != bytes)
        return err_set(err, ERR_DATA_LOSS, "%s: does not hold 64 hexadecimal digits", path);
    memcpy(ret_id, text, HASH_HEX_BYTES);
    return 0;
}

/* link(2) lets the first of several processes win. */
static int make_identity(const struct file_store *fs, struct err *err)
{
    _cleanup_(freep) char *path = str_printf("%s/identity", fs->root);
    _cleanup_(freep) char *folder = str_printf("%s/tmp", fs->root);
    _cleanup_(temp_release) struct temp temp = {NULL, -1};
    unsigned char noise[32];
    char hex[HASH_HEX_BYTES];
    if (!path || !folder)
        return err_oom(err, "a path");
    if (fs_exists(path))
        return 0;
    if (getrandom(noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
        return err_errno(err, errno, "random numbers");
    int r = hash_bytes(noise, sizeof(noise), hex, err);
    if (r == 0)
        r = temp_open(folder, &temp, err);
    if (r == 0)
        r = write_all(temp.fd, hex, HASH_HEX_BYTES - 1, path, err);
    if (r < 0)
        return r;
    if (fchmod(temp.fd, 0444) < 0 || fsync(temp.fd) < 0 ||
        (link(temp.path, path) < 0 && errno != EEXIST))
        return err_errno(err, errno, "writing %s", path);
    return fsync_folder(fs->root, err);
}

/* Temporary files of processes that died. A day: nobody writes one file for so long. */
static void sweep_temps(const struct file_store *fs)
{
    _cleanup_(freep) char *folder = str_printf("%s/tmp", fs->root);
    _cleanup_(closedirp) DIR *dir = folder ? opendir(folder) : NULL;
    if (!dir)
        return;
    int64_t now = clock_wall_ms() / 1000;
    for (const struct dirent *e; (e = readdir(dir));) {
        struct stat st;
        if (str_starts_with(e->d_name, "store.tmp.") &&
            fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            now - st.st_mtim.tv_sec > TEMP_MAX_AGE_S)
            unlinkat(dirfd(dir), e->d_name, 0);
    }
}

static void file_close(void *impl)
{
    struct file_store *fs = impl;
    if (!fs)
        return;
    verified_free(fs->verified);
    free(fs->root);
    free(fs);
}

static void file_closep(struct file_store **fs)
{
    file_close(*fs);
}

int store_file_open(const char *folder, const struct store_backend **ret_backend, void **ret_impl,
                    struct err *err)
{
    static const struct store_backend backend = {
        .put = file_put,
        .put_file = file_put_file,
        .get = file_get,
        .get_path = file_get_path,
        .export = file_export,
        .has = file_has,
        .record_put = file_record_put,
        .record_get = file_record_get,
        .record_list = file_record_list,
        .identity = file_identity,
        .close = file_close,
    };
    _cleanup_(file_closep) struct file_store *fs = calloc(1, sizeof(*fs));
    if (!fs || !(fs->verified = verified_new()))
        return err_oom(err, "a store");
    int r = fs_mkdirs(folder, err);
    if (r == 0)
        r = fs_realpath(folder, &fs->root, err);
    if (r < 0)
        return err_wrap(err, "store file://%s", folder);
    if (strlen(fs->root) > PATH_MAX - 1024)
        return err_set(err, ERR_INVALID_ARGUMENT, "store %.100s...: the path is too long",
                       fs->root);
    static const char *const parts[] = {"objects", "records", "tmp"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++) {
        char path[PATH_MAX];
        snprintf(path, sizeof(path), "%s/%s", fs->root, parts[i]);
        if (mkdir(path, 0777) < 0 && errno != EEXIST)
            return err_errno(err, errno, "store %s", path);
    }
    sweep_temps(fs);
    r = make_identity(fs, err);
    if (r < 0)
        return err_wrap(err, "store file://%s", folder);
    *ret_backend = &backend;
    *ret_impl = TAKE_PTR(fs);
    return 0;
}
