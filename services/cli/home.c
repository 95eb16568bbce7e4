#include "services/cli/home.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

/* A socket's path may have 107 bytes; the longest name in the run folder, with its slash. */
#define MAX_RUN_PATH (107 - (int)sizeof("/ingest.sock.lock"))

static const char *setting(const char *name)
{
    const char *value = getenv(name);
    return value && *value ? value : NULL;
}

static char *choose_dir(const char *flag)
{
    if (flag)
        return strdup(flag);
    if (setting("HONE_HOME"))
        return strdup(setting("HONE_HOME"));
    if (setting("XDG_STATE_HOME"))
        return str_printf("%s/hone", setting("XDG_STATE_HOME"));
    return setting("HOME") ? str_printf("%s/.local/state/hone", setting("HOME"))
                           : str_printf("/tmp/hone-home-%d", (int)geteuid());
}

/* A folder in a place that others may write to must be ours alone. */
static int make_private(const char *path, struct err *err)
{
    struct stat st;
    if (mkdir(path, 0700) < 0 && errno != EEXIST)
        return err_errno(err, errno, "%s", path);
    if (lstat(path, &st) < 0)
        return err_errno(err, errno, "%s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return err_set(err, ERR_PERMISSION_DENIED, "%s: not a folder of this user", path);
    if (st.st_mode & 077 && chmod(path, 0700) < 0)
        return err_errno(err, errno, "%s", path);
    return 0;
}

static int choose_run(struct home *h, struct err *err)
{
    char hash[HASH_HEX_BYTES];
    h->run = str_printf("%s/run", h->dir);
    if (!h->run)
        return err_oom(err, "home");
    if (strlen(h->run) <= MAX_RUN_PATH)
        return make_private(h->run, err);
    int r = hash_bytes(h->dir, strlen(h->dir), hash, err);
    if (r < 0)
        return r;
    const char *runtime = setting("XDG_RUNTIME_DIR");
    free(h->run);
    h->run = runtime && strlen(runtime) < 60
                 ? str_printf("%s/hone-%.12s", runtime, hash)
                 : str_printf("/tmp/hone-%d-%.12s", (int)geteuid(), hash);
    return h->run ? make_private(h->run, err) : err_oom(err, "home");
}

static int make_folders(const struct home *h, struct err *err)
{
    static const char *const subs[] = {"artifacts", "redis", "logs", "scratch"};
    for (size_t i = 0; i < sizeof(subs) / sizeof(subs[0]); i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s", h->dir, subs[i]);
        int r = path ? make_private(path, err) : err_oom(err, "home");
        if (r < 0)
            return r;
    }
    return 0;
}

int home_open(const char *flag, struct home *ret, struct err *err)
{
    _cleanup_(home_release) struct home h = {0};
    _cleanup_(freep) char *dir = choose_dir(flag);
    int r = dir ? fs_mkdirs(dir, err) : err_oom(err, "home");
    if (r == 0)
        r = fs_realpath(dir, &h.dir, err);
    if (r == 0)
        r = choose_run(&h, err);
    if (r == 0)
        r = make_folders(&h, err);
    if (r < 0)
        return err_wrap(err, "home folder");
    h.redis_socket = str_printf("%s/redis.sock", h.run);
    h.redis_url = str_printf("unix:%s/redis.sock", h.run);
    h.ingest_socket = str_printf("%s/ingest.sock", h.run);
    h.ingest_address = str_printf("ipc://%s/ingest.sock", h.run);
    h.store_url = str_printf("file://%s/artifacts", h.dir);
    h.lock = str_printf("%s/supervisor.lock", h.dir);
    h.clients = str_printf("%s/clients.lock", h.dir);
    h.failure = str_printf("%s/failure.txt", h.dir);
    if (!h.redis_socket || !h.redis_url || !h.ingest_socket || !h.ingest_address || !h.store_url ||
        !h.lock || !h.clients || !h.failure)
        return err_oom(err, "home");
    *ret = h;
    h = (struct home){0};
    return 0;
}

void home_release(struct home *h)
{
    char *all[] = {h->dir,           h->run,       h->redis_socket, h->redis_url, h->ingest_address,
                   h->ingest_socket, h->store_url, h->lock,         h->clients,   h->failure};
    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        free(all[i]);
    *h = (struct home){0};
}

char *home_path(const struct home *home, const char *sub, const char *name)
{
    return str_printf("%s/%s/%s", home->dir, sub, name);
}

pid_t home_supervisor(const struct home *home)
{
    _cleanup_(fs_closep) int fd = open(home->lock, O_RDONLY | O_CLOEXEC);
    char text[32] = "";
    int64_t pid = 0;
    /* A shared lock fails only while the supervisor has its exclusive one. */
    if (fd < 0 || flock(fd, LOCK_SH | LOCK_NB) == 0)
        return 0;
    ssize_t n = pread(fd, text, sizeof(text) - 1, 0);
    if (n <= 0 || str_parse_i64(text, 1, INT32_MAX, &pid, NULL) < 0)
        return -1; /* it has the lock and is about to write */
    return (pid_t)pid;
}

int home_lock(const struct home *home, int *ret_fd, struct err *err)
{
    _cleanup_(fs_closep) int fd = open(home->lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, errno, "%s", home->lock);
    int taken = flock(fd, LOCK_EX | LOCK_NB);
    for (int i = 0; i < 20 && taken < 0 && errno == EWOULDBLOCK; i++) {
        clock_sleep_ms(10); /* somebody may just be looking (home_supervisor) */
        taken = flock(fd, LOCK_EX | LOCK_NB);
    }
    if (taken < 0) {
        if (errno != EWOULDBLOCK)
            return err_errno(err, errno, "locking %s", home->lock);
        return err_set(err, ERR_ALREADY_EXISTS, "Hone is already up in %s (process %d)", home->dir,
                       (int)home_supervisor(home));
    }
    char text[32];
    int n = snprintf(text, sizeof(text), "%d", (int)getpid());
    if (ftruncate(fd, 0) < 0 || pwrite(fd, text, (size_t)n, 0) != n)
        return err_errno(err, errno, "%s", home->lock);
    *ret_fd = fd;
    fd = -1;
    return 0;
}

int home_attach(const struct home *home, int *ret_fd, struct err *err)
{
    _cleanup_(fs_closep) int fd = open(home->clients, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (fd < 0)
        return err_errno(err, errno, "%s", home->clients);
    while (flock(fd, LOCK_SH) < 0)
        if (errno != EINTR)
            return err_errno(err, errno, "locking %s", home->clients);
    *ret_fd = fd;
    fd = -1;
    return 0;
}
