#include "shared/base/fs.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"

void fs_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

static int read_full(int fd, char *data, size_t bytes, const char *path, struct err *err)
{
    size_t done = 0;
    while (done < bytes) {
        ssize_t n = read(fd, data + done, bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "%s", path);
        if (n == 0)
            return err_set(err, ERR_DATA_LOSS, "%s: shrank while it was read", path);
        done += (size_t)n;
    }
    return 0;
}

int fs_read(const char *path, size_t max_bytes, void **ret_data, size_t *ret_bytes, struct err *err)
{
    _cleanup_(fs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a regular file", path);
    if ((uint64_t)st.st_size > max_bytes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%s: %lld bytes, above the limit of %zu", path,
                       (long long)st.st_size, max_bytes);
    size_t bytes = (size_t)st.st_size;
    _cleanup_(freep) char *data = malloc(bytes + 1);
    if (!data)
        return err_oom(err, path);
    int r = read_full(fd, data, bytes, path, err);
    if (r < 0)
        return r;
    data[bytes] = 0;
    *ret_data = TAKE_PTR(data);
    *ret_bytes = bytes;
    return 0;
}

static int write_full(int fd, const char *data, size_t bytes, const char *path, struct err *err)
{
    while (bytes) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "%s", path);
        data += n;
        bytes -= (size_t)n;
    }
    return 0;
}

static void fsync_folder(const char *path)
{
    char folder[PATH_MAX];
    if (!str_copy(folder, sizeof(folder), path))
        return;
    _cleanup_(fs_closep) int fd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        fsync(fd);
}

int fs_write_atomic(const char *path, const void *data, size_t bytes, struct err *err)
{
    _cleanup_(freep) char *temp = str_printf("%s.tmp.XXXXXX", path);
    if (!temp)
        return err_oom(err, path);
    _cleanup_(fs_closep) int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "%s", path);
    int r = write_full(fd, data, bytes, path, err);
    if (r == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0))
        r = err_errno(err, errno, "%s", path);
    if (r == 0 && rename(temp, path) < 0)
        r = err_errno(err, errno, "%s", path);
    if (r < 0)
        unlink(temp);
    else
        fsync_folder(path);
    return r;
}

int fs_mkdirs(const char *path, struct err *err)
{
    char buffer[PATH_MAX];
    if (!*path || !str_copy(buffer, sizeof(buffer), path))
        return err_set(err, ERR_INVALID_ARGUMENT, "'%.100s': no usable path", path);
    for (char *p = buffer + 1;; p++) {
        if (*p && *p != '/')
            continue;
        char end = *p;
        *p = 0;
        if (mkdir(buffer, 0777) < 0 && !(errno == EEXIST && fs_is_dir(buffer)))
            return err_errno(err, errno, "%s", buffer);
        *p = end;
        if (!end)
            return 0;
    }
}

int64_t fs_room(const char *path)
{
    struct statvfs v;
    if (statvfs(path, &v) < 0)
        return -1;
    return (int64_t)(v.f_bavail * v.f_frsize);
}

bool fs_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

bool fs_is_dir(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static int remove_one(const char *path, const struct stat *st, int kind, struct FTW *ftw)
{
    (void)st, (void)kind, (void)ftw;
    return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

int fs_remove_tree(const char *path, struct err *err)
{
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) < 0 && errno != ENOENT)
        return err_errno(err, errno, "removing %s", path);
    return 0;
}

int fs_copy(const char *from, const char *to, struct err *err)
{
    struct fs_map map = {0};
    int r = fs_map(from, &map, err);
    if (r < 0)
        return r;
    r = fs_write_atomic(to, map.data, map.bytes, err);
    fs_unmap(&map);
    return r;
}

int fs_realpath(const char *path, char **ret_path, struct err *err)
{
    char *real = realpath(path, NULL);
    if (!real)
        return err_errno(err, errno, "%s", path);
    *ret_path = real;
    return 0;
}

int fs_map(const char *path, struct fs_map *ret_map, struct err *err)
{
    _cleanup_(fs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    struct stat st;
    if (fd < 0 || fstat(fd, &st) < 0)
        return err_errno(err, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a regular file", path);
    if (st.st_size == 0) {
        *ret_map = (struct fs_map){"", 0};
        return 0;
    }
    void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        return err_errno(err, errno, "%s", path);
    *ret_map = (struct fs_map){data, (size_t)st.st_size};
    return 0;
}

void fs_unmap(struct fs_map *map)
{
    if (map->bytes)
        munmap((void *)map->data, map->bytes);
    *map = (struct fs_map){0};
}
