#include "shared/work/work.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/fs.h"
#include "shared/base/log.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/work/internal.h"

#define CLAIM_WAIT_MS 1000
#define CLAIM_PATIENCE_MS 2000

atomic_bool work_stopping;

int64_t work_wait_until(struct work *work, int64_t deadline_ns)
{
    struct timespec ts = {.tv_sec = deadline_ns / 1000000000, .tv_nsec = deadline_ns % 1000000000};
    pthread_cond_timedwait(&work->changed, &work->lock, &ts);
    return clock_now_ns(NULL);
}

/* ---- configuration ---- */

static int need_env(const char *name, const char *what, const char **ret, struct err *err)
{
    const char *value = getenv(name);
    if (!value || !*value)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s is not set: it names %s", name, what);
    *ret = value;
    return 0;
}

static int number_env(const char *name, int64_t fallback, int64_t min, int64_t max, int64_t *ret,
                      struct err *err)
{
    const char *value = getenv(name);
    *ret = fallback;
    if (!value || !*value)
        return 0;
    return str_parse_i64(value, min, max, ret, err) < 0 ? err_wrap(err, "%s", name) : 0;
}

static int read_names(struct work *work, struct err *err)
{
    const struct work_config *config = work->config;
    const char *host = getenv("HONE_HOST");
    uint32_t noise;
    if (host && *host)
        str_copy(work->host, sizeof(work->host), host);
    else if (gethostname(work->host, sizeof(work->host)) < 0)
        return err_errno(err, errno, "the name of this host");
    work->host[sizeof(work->host) - 1] = 0;
    for (char *p = work->host; *p; p++)
        if (*p <= ' ' || *p > '~')
            *p = '_';
    /* in containers every process may be number 1 */
    if (getrandom(&noise, sizeof(noise), 0) != (ssize_t)sizeof(noise))
        return err_errno(err, errno, "random numbers");
    snprintf(work->name, sizeof(work->name), "%.40s@%s:%d-%04x", config->service, work->host,
             (int)getpid(), noise & 0xffff);
    snprintf(work->measure_lease, sizeof(work->measure_lease), "measure:%s", work->host);
    work->queue_name = config->queue ? config->queue : config->service;
    return 0;
}

static int read_environment(struct work *work, const char **ret_store, struct err *err)
{
    int64_t threads = 0;
    int r = read_names(work, err);
    if (r == 0)
        r = need_env("HONE_REDIS", "the queue (unix:/PATH or redis://HOST:PORT)", &work->redis.url,
                     err);
    if (r == 0)
        r = need_env("HONE_STORE", "the store (file:///FOLDER)", ret_store, err);
    if (r == 0)
        r = number_env("HONE_THREADS", pool_cpus(), 1, 4096, &threads, err);
    if (r == 0)
        r = number_env("HONE_LEASE_MS", 15000, 50, 3600000, &work->lease_ms, err);
    if (r == 0)
        r = number_env("HONE_PATIENCE_MS", 60000, 100, 3600000, &work->patience_ms, err);
    if (r == 0)
        r = number_env("HONE_RETENTION_S", 7 * 24 * 3600, 1, INT32_MAX, &work->redis.retention_ms,
                       err);
    if (r < 0)
        return r;
    work->threads = (int)threads;
    work->redis.retention_ms *= 1000;
    work->redis.prefix = getenv("HONE_PREFIX");
    work->redis.hurry = &work_stopping;
    return 0;
}

/* The process whose end is ours, too: HONE_PARENT_PID. 1: it is gone already. */
static int watch_parent(struct work *work, struct err *err)
{
    int64_t pid = 0;
    int r = number_env("HONE_PARENT_PID", 0, 1, INT32_MAX, &pid, err);
    if (r < 0 || pid == 0)
        return r;
    work->parent = pidfd_open((pid_t)pid, 0);
    if (work->parent < 0 && errno == ESRCH)
        return 1;
    if (work->parent < 0)
        return err_errno(err, errno, "watching process %lld", (long long)pid);
    if (pid == getppid())
        prctl(PR_SET_PDEATHSIG, SIGTERM);
    return 0;
}

/* ---- scratch: FOLDER/SERVICE-XXXXXX, locked while its process lives ---- */

static int lock_folder(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) < 0)
        fs_closep(&fd);
    return fd;
}

/* Folders of processes that were killed: nobody holds their lock. */
static void sweep_scratch(const char *folder, const char *service)
{
    _cleanup_(freep) char *prefix = str_printf("hone-%s-", service);
    DIR *dir = opendir(folder);
    if (!dir || !prefix)
        return;
    for (const struct dirent *e; (e = readdir(dir));) {
        if (!str_starts_with(e->d_name, prefix) ||
            strlen(e->d_name) != strlen(prefix) + strlen("XXXXXX"))
            continue;
        _cleanup_(freep) char *path = str_printf("%s/%s", folder, e->d_name);
        _cleanup_(fs_closep) int fd = path ? lock_folder(path) : -1;
        if (fd >= 0)
            fs_remove_tree(path, NULL);
    }
    closedir(dir);
}

static int make_scratch(struct work *work, struct err *err)
{
    const char *folder = getenv("HONE_SCRATCH"), *tmp = getenv("TMPDIR");
    if (!folder || !*folder)
        folder = tmp && *tmp ? tmp : "/tmp";
    int r = fs_mkdirs(folder, err);
    if (r < 0)
        return err_wrap(err, "HONE_SCRATCH");
    for (int tries = 0; tries < 100; tries++) {
        work->scratch = str_printf("%s/hone-%s-XXXXXX", folder, work->config->service);
        if (!work->scratch)
            return err_oom(err, "a path");
        if (!mkdtemp(work->scratch)) {
            r = err_errno(err, errno, "%s", work->scratch);
            freep(&work->scratch);
            return r;
        }
        work->scratch_lock = lock_folder(work->scratch);
        if (work->scratch_lock >= 0 && fs_is_dir(work->scratch))
            break;
        /* another process swept it between the two calls */
        fs_closep(&work->scratch_lock);
        freep(&work->scratch);
    }
    if (!work->scratch)
        return err_set(err, ERR_INTERNAL, "no scratch folder could be kept in %s", folder);
    sweep_scratch(folder, work->config->service);
    return 0;
}

/* ---- the loop ---- */

static void on_signal(int signal)
{
    (void)signal;
    atomic_store(&work_stopping, true);
}

static void catch_signals(void)
{
    struct sigaction stop = {.sa_handler = on_signal};
    sigemptyset(&stop.sa_mask);
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGINT, &stop, NULL);
    struct sigaction ignore = {.sa_handler = SIG_IGN};
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGPIPE, &ignore, NULL);
}

static void pause_ms(int64_t ms)
{
    for (int64_t done = 0; done < ms && !atomic_load(&work_stopping); done += 50)
        clock_sleep_ms(50);
}

/* How many threads there are, for those who ask this queue for something. */
static int announce(struct work *work, struct err *err)
{
    char text[16];
    snprintf(text, sizeof(text), "%d", work->threads);
    return queue_table_put(work->queue, WORK_THREADS, work->queue_name, text, err);
}

static void claim_and_handle(struct work *work)
{
    int64_t pause = 100;
    bool away = false, announced = false;
    while (!atomic_load(&work_stopping)) {
        struct err err = {0};
        _cleanup_(task_freep) struct task *task = NULL;
        int r = announced ? 0 : announce(work, &err);
        announced |= r == 0;
        if (r == 0)
            r = queue_claim(work->queue, &work->queue_name, 1, work->name, work->lease_ms,
                            CLAIM_WAIT_MS, &task, &err);
        if (r < 0) {
            if (!away)
                log_warn("no tasks can be claimed, trying on: %s", err.message);
            away = true;
            pause_ms(pause);
            pause = pause < 2000 ? 2 * pause : 2000;
            continue;
        }
        if (away)
            log_info("tasks can be claimed again");
        away = false;
        pause = 100;
        if (task)
            work_handle(work, task);
    }
}

static int open_all(struct work *work, struct err *err)
{
    const char *store_url = NULL;
    int r = read_environment(work, &store_url, err);
    if (r == 0)
        r = store_open(store_url, &work->store, err);
    if (r == 0)
        r = store_identity(work->store, work->store_id, err);
    if (r == 0)
        r = make_scratch(work, err);
    struct queue_options options = work->redis;
    options.patience_ms = CLAIM_PATIENCE_MS;
    if (r == 0)
        r = queue_open(&options, &work->queue, err);
    options.patience_ms = work->patience_ms;
    if (r == 0)
        r = queue_open(&options, &work->handler_queue, err);
    return r;
}

static void close_all(struct work *work)
{
    queue_close(work->queue);
    queue_close(work->handler_queue);
    store_close(work->store);
    if (work->scratch)
        fs_remove_tree(work->scratch, NULL);
    free(work->scratch);
    fs_closep(&work->scratch_lock);
    fs_closep(&work->parent);
}

int work_main(const struct work_config *config)
{
    struct work work = {.config = config, .scratch_lock = -1, .parent = -1};
    struct err err = {0};
    log_init(config->service);
    atomic_store(&work_stopping, false);
    catch_signals();
    int gone = 0, r = failpoint_init(&err);
    if (r == 0)
        r = gone = watch_parent(&work, &err);
    if (r == 0)
        r = open_all(&work, &err);
    if (r == 0)
        r = companion_start(&work, &err);
    if (r == 0) {
        log_info("ready: queue %s at %s, worker %s, %d threads", work.queue_name,
                 queue_address(work.queue), work.name, work.threads);
        claim_and_handle(&work);
        companion_stop(&work);
        log_info("stopped");
    }
    close_all(&work);
    if (r < 0)
        log_error("%s", err.message);
    return gone == 1 || r == 0 ? 0 : 1;
}
