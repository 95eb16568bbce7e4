#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/rpc/internal.h"

#define IPC "ipc://"

int nng_fail(struct err *err, int nng_error, const char *what)
{
    enum err_code code = ERR_INTERNAL;
    switch (nng_error) {
    case NNG_EADDRINUSE:
        code = ERR_ALREADY_EXISTS;
        break;
    case NNG_ECONNREFUSED:
    case NNG_ECONNRESET:
    case NNG_ECONNABORTED:
    case NNG_ECONNSHUT:
    case NNG_ECLOSED:
    case NNG_EUNREACHABLE:
        code = ERR_UNAVAILABLE;
        break;
    case NNG_ETIMEDOUT:
        code = ERR_DEADLINE_EXCEEDED;
        break;
    case NNG_EADDRINVAL:
    case NNG_EINVAL:
    case NNG_ENOTSUP:
        code = ERR_INVALID_ARGUMENT;
        break;
    case NNG_EPERM:
        code = ERR_PERMISSION_DENIED;
        break;
    case NNG_ENOENT:
        code = ERR_NOT_FOUND;
        break;
    case NNG_ENOMEM:
    case NNG_ENOFILES:
    case NNG_ENOSPC:
    case NNG_EMSGSIZE:
        code = ERR_RESOURCE_EXHAUSTED;
        break;
    default:
        break;
    }
    return err_set(err, code, "%s: %s", what, nng_strerror(nng_error));
}

int address_check(const char *address, struct err *err)
{
    static const char *const others[] = {"tcp://", "inproc://"};
    if (str_starts_with(address, IPC)) {
        struct sockaddr_un un;
        const char *path = address + strlen(IPC);
        if (*path != '/')
            return err_set(err, ERR_INVALID_ARGUMENT, "address '%.200s': the path must be absolute",
                           address);
        if (strlen(path) >= sizeof(un.sun_path))
            return err_set(err, ERR_INVALID_ARGUMENT,
                           "address '%.200s': a socket's path may have %zu bytes, this has %zu",
                           address, sizeof(un.sun_path) - 1, strlen(path));
        return 0;
    }
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++)
        if (str_starts_with(address, others[i]))
            return 0;
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "address '%.200s' begins with none of ipc://, tcp://, inproc://", address);
}

/* 1: somebody answers on the socket, 0: nobody. */
static int socket_is_live(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    _cleanup_(fs_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0 || !str_copy(un.sun_path, sizeof(un.sun_path), path))
        return 1; /* not known: then it must not be removed */
    int r = connect(fd, (const struct sockaddr *)&un, sizeof(un));
    return !(r < 0 && (errno == ECONNREFUSED || errno == ENOENT));
}

static int remove_stale(const char *address, const char *path, struct err *err)
{
    struct stat st;
    if (lstat(path, &st) < 0)
        return errno == ENOENT ? 0 : err_errno(err, errno, "%s", path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, ERR_ALREADY_EXISTS, "%s: exists and is no socket", path);
    if (socket_is_live(path))
        return err_set(err, ERR_ALREADY_EXISTS, "%s: another process listens there", address);
    if (unlink(path) < 0 && errno != ENOENT)
        return err_errno(err, errno, "removing the stale socket %s", path);
    return 0;
}

int address_claim(const char *address, int *ret_fd, struct err *err)
{
    if (!str_starts_with(address, IPC))
        return 0;
    const char *path = address + strlen(IPC);
    _cleanup_(freep) char *lock = str_printf("%s.lock", path);
    if (!lock)
        return err_oom(err, address);
    /* The lock file stays behind: removing it would let two processes lock two files of one name.
     */
    _cleanup_(fs_closep) int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_errno(err, errno, "%s", lock);
    if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
        if (errno == EWOULDBLOCK)
            return err_set(err, ERR_ALREADY_EXISTS, "%s: another process listens there", address);
        return err_errno(err, errno, "locking %s", lock);
    }
    int r = remove_stale(address, path, err);
    if (r < 0)
        return r;
    *ret_fd = fd;
    fd = -1;
    return 0;
}
