#include "services/cli/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "services/cli/child.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/log.h"
#include "shared/base/mem.h"
#include "shared/nn/plan.h"
#include "shared/queue/queue.h"

#define SECOND ((int64_t)1000000000)
#define QUICK (10 * SECOND) /* a life shorter than this is a quick death */
#define MAX_QUICK_DEATHS 5
#define START_LIMIT (60 * SECOND)
#define STOP_LIMIT (10 * SECOND) /* from SIGTERM to SIGKILL */
#define MAX_LOG ((int64_t)8 * 1024 * 1024)
#define MAX_CHILDREN 8
#define TICK_MS 250

static const char services[][16] = {"ingest", "profiler", "synthesizer", "trainer", "exporter"};

struct supervisor {
    const struct home *home;
    struct child children[MAX_CHILDREN]; /* [0] is Redis */
    int n_children, n_started;
    int lock_fd, signal_fd, clients_fd;
    bool stopping, gave_up, has_ingest;
    int64_t idle_exit_ns, idle_since_ns, checked_ns;
    struct queue *queue;
};

bool socket_answers(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    _cleanup_(fs_closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    return fd >= 0 && str_copy(un.sun_path, sizeof(un.sun_path), path) &&
           connect(fd, (const struct sockaddr *)&un, sizeof(un)) == 0;
}

/* ---- what runs ---- */

static struct child *new_child(struct supervisor *s, const char *name, struct err *err)
{
    struct child *c = &s->children[s->n_children++];
    str_copy(c->name, sizeof(c->name), name);
    _cleanup_(freep) char *file = str_printf("%s.log", name);
    c->log = file ? home_path(s->home, "logs", file) : NULL;
    if (c->log)
        return c;
    err_oom(err, name);
    return NULL;
}

static int add_redis(struct supervisor *s, struct err *err)
{
    struct child *c = new_child(s, "redis", err);
    _cleanup_(freep) char *program = NULL;
    _cleanup_(freep) char *dir = str_printf("%s/redis", s->home->dir);
    if (!c || !dir)
        return err_oom(err, "redis");
    int r = child_find_program(NULL, "redis-server", &program, err);
    if (r < 0)
        r = child_find_program(NULL, "valkey-server", &program, NULL);
    if (r < 0)
        return err_set(err, ERR_NOT_FOUND, "%s",
                       "neither redis-server nor valkey-server found in PATH; install one "
                       "(Debian: apt install redis-server)");
    const char *const args[] = {
        program,
        "--port",
        "0",
        "--unixsocket",
        s->home->redis_socket,
        "--unixsocketperm",
        "700",
        "--dir",
        dir,
        "--appendonly",
        "yes",
        "--appendfsync",
        "everysec",
        "--save",
        "",
        "--maxmemory-policy",
        "noeviction",
        "--daemonize",
        "no",
    };
    for (size_t i = 0; i < sizeof(args) / sizeof(args[0]); i++)
        if (child_add_arg(c, args[i], err) < 0)
            return -ERR_RESOURCE_EXHAUSTED;
    return 0;
}

/* HONE_SERVICES names those to run, separated by commas (for development); all by default. */
static bool wanted(const char *service)
{
    const char *p = getenv("HONE_SERVICES");
    if (!p || !*p)
        return true;
    for (size_t n; *p; p += n + (p[n] == ',')) {
        n = strcspn(p, ",");
        if (strlen(service) == n && memcmp(service, p, n) == 0)
            return true;
    }
    return false;
}

static int add_services(struct supervisor *s, struct err *err)
{
    for (size_t i = 0; i < sizeof(services) / sizeof(services[0]); i++) {
        if (!wanted(services[i]))
            continue;
        _cleanup_(freep) char *name = str_printf("hone-%s", services[i]);
        _cleanup_(freep) char *program = NULL;
        struct child *c = name ? new_child(s, services[i], err) : NULL;
        int r = c ? child_find_program(services[i], name, &program, err) : err_oom(err, "service");
        if (r == 0)
            r = child_add_arg(c, program, err);
        if (r < 0)
            return r;
        s->has_ingest |= strcmp(services[i], "ingest") == 0;
    }
    return 0;
}

static int set_environment(const struct home *h, struct err *err)
{
    char pid[16], target[64];
    snprintf(pid, sizeof(pid), "%d", (int)getpid());
    snprintf(target, sizeof(target), "cpu:%s", nn_isa());
    _cleanup_(freep) char *scratch = str_printf("%s/scratch", h->dir);
    if (!scratch || setenv("HONE_REDIS", h->redis_url, 1) < 0 ||
        setenv("HONE_STORE", h->store_url, 1) < 0 ||
        setenv("HONE_INGEST", h->ingest_address, 1) < 0 || setenv("HONE_SCRATCH", scratch, 1) < 0 ||
        setenv("HONE_PARENT_PID", pid, 1) < 0 || setenv("HONE_TARGET", target, 0) < 0 ||
        setenv("HONE_HOME", h->dir, 1) < 0)
        return err_oom(err, "environment");
    unsetenv("HONE_READY_FD");
    unsetenv("HONE_PREFIX"); /* this Redis is ours alone */
    return 0;
}

/* ---- deaths ---- */

static void describe_end(int status, char text[64])
{
    if (WIFSIGNALED(status))
        snprintf(text, 64, "was killed by signal %d", WTERMSIG(status));
    else
        snprintf(text, 64, "ended with code %d", WEXITSTATUS(status));
}

/* A program that does not stay up: say why, once and for all to read. */
static void give_up(struct supervisor *s, const struct child *c, const char *how)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_printf(&text, "%s %s, %d times within seconds of its start; the end of %s:\n", c->name,
                  how, c->quick_deaths, c->log);
    log_tail(c->log, 8, "    ", &text);
    s->gave_up = s->stopping = true;
    if (text.failed)
        return;
    log_error("%s", text.data);
    fs_write_atomic(s->home->failure, text.data, text.length, NULL);
}

static void child_died(struct supervisor *s, struct child *c, int status)
{
    char how[64];
    int64_t now = clock_now_ns(NULL);
    describe_end(status, how);
    c->pid = 0;
    if (s->stopping)
        return;
    c->quick_deaths = now - c->started_ns < QUICK ? c->quick_deaths + 1 : 1;
    if (c->quick_deaths >= MAX_QUICK_DEATHS) {
        give_up(s, c, how);
        return;
    }
    c->due_ns = now + (SECOND / 10 << (c->quick_deaths - 1));
    log_warn("%s %s; starting it again", c->name, how);
}

static void reap(struct supervisor *s)
{
    int status;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
        for (int i = 0; i < s->n_children; i++)
            if (s->children[i].pid == pid)
                child_died(s, &s->children[i], status);
}

static void start_due(struct supervisor *s)
{
    struct err err = {0};
    for (int i = 0; i < s->n_started && !s->stopping; i++) {
        struct child *c = &s->children[i];
        if (c->pid || clock_now_ns(NULL) < c->due_ns)
            continue;
        if (child_start(c, &err) < 0) {
            log_error("%s", err.message);
            c->due_ns = clock_now_ns(NULL) + SECOND;
        }
    }
}

/* ---- the loop ---- */

/* Waits up to timeout_ms for a signal, and does what is due. */
static void turn(struct supervisor *s, int timeout_ms)
{
    struct pollfd p = {.fd = s->signal_fd, .events = POLLIN};
    struct signalfd_siginfo info;
    poll(&p, 1, timeout_ms);
    while (read(s->signal_fd, &info, sizeof(info)) == (ssize_t)sizeof(info)) {
        if (info.ssi_signo == SIGCHLD || s->stopping)
            continue;
        log_info("%s: stopping", strsignal((int)info.ssi_signo));
        s->stopping = true;
    }
    reap(s);
    start_due(s);
}

/* 1: no job runs, no client is there; the clients' lock is held then. 0 otherwise. */
static bool is_idle(struct supervisor *s)
{
    int64_t jobs = 1;
    if (flock(s->clients_fd, LOCK_EX | LOCK_NB) < 0)
        return false;
    if (!s->queue) {
        struct queue_options options = {.url = s->home->redis_url, .patience_ms = 500};
        if (queue_open(&options, &s->queue, NULL) < 0)
            s->queue = NULL;
    }
    if (s->queue && queue_running_jobs(s->queue, &jobs, NULL) == 0 && jobs == 0)
        return true;
    flock(s->clients_fd, LOCK_UN);
    return false;
}

/* Once a second: logs within bounds; ends an idle supervisor. */
static void look_around(struct supervisor *s)
{
    int64_t now = clock_now_ns(NULL);
    if (now - s->checked_ns < SECOND)
        return;
    s->checked_ns = now;
    for (int i = 0; i < s->n_children; i++)
        log_bound(s->children[i].log, MAX_LOG);
    if (s->idle_exit_ns == 0)
        return;
    if (!is_idle(s)) {
        s->idle_since_ns = now;
    } else if (now - s->idle_since_ns < s->idle_exit_ns) {
        flock(s->clients_fd, LOCK_UN);
    } else { /* the lock stays: a client that comes now waits for our end, then starts anew */
        log_info("idle for %lld s: stopping", (long long)(s->idle_exit_ns / SECOND));
        s->stopping = true;
    }
}

/* Runs turns until the socket answers. */
static int wait_for(struct supervisor *s, const struct child *c, const char *socket,
                    struct err *err)
{
    int64_t limit = clock_now_ns(NULL) + START_LIMIT;
    while (!s->stopping && !socket_answers(socket)) {
        if (clock_now_ns(NULL) > limit)
            return err_set(err, ERR_DEADLINE_EXCEEDED, "%s does not answer; see %s", c->name,
                           c->log);
        turn(s, 20);
    }
    if (!s->stopping)
        return 0;
    _cleanup_(freep) void *why = NULL;
    size_t bytes = 0;
    if (s->gave_up && fs_read(s->home->failure, 1 << 16, &why, &bytes, NULL) == 0)
        return err_set(err, ERR_UNAVAILABLE, "%s", (char *)why);
    return err_set(err, ERR_CANCELLED, "%s", "stopped while it started");
}

static int start_all(struct supervisor *s, struct err *err)
{
    for (int i = 0; i < s->n_children; i++)
        log_rotate(s->children[i].log);
    s->n_started = 1;
    start_due(s);
    int r = wait_for(s, &s->children[0], s->home->redis_socket, err);
    if (r < 0)
        return r;
    s->n_started = s->n_children;
    start_due(s);
    return s->has_ingest ? wait_for(s, &s->children[1], s->home->ingest_socket, err) : 0;
}

/* ---- the end ---- */

static bool any_alive(const struct supervisor *s, int from, int to)
{
    for (int i = from; i < to; i++)
        if (s->children[i].pid)
            return true;
    return false;
}

static void end_children(struct supervisor *s, int from, int to)
{
    static const int signals[] = {SIGTERM, SIGKILL};
    for (int step = 0; step < 2; step++) {
        for (int i = from; i < to; i++)
            if (s->children[i].pid)
                kill(s->children[i].pid, signals[step]);
        int64_t limit = clock_now_ns(NULL) + STOP_LIMIT;
        while (any_alive(s, from, to) && clock_now_ns(NULL) < limit)
            turn(s, TICK_MS);
    }
}

static void supervisor_release(struct supervisor *s)
{
    s->stopping = true;
    s->queue = queue_close(s->queue);
    if (s->signal_fd >= 0) {
        end_children(s, 1, s->n_children); /* they give their tasks back to Redis */
        end_children(s, 0, s->n_children < 1 ? 0 : 1);
    }
    for (int i = 0; i < s->n_children; i++)
        child_release(&s->children[i]);
    fs_closep(&s->signal_fd);
    fs_closep(&s->lock_fd);
    fs_closep(&s->clients_fd); /* last: who waits for it must find no supervisor */
}

static void say_ready(int fd, const char *text)
{
    if (fd >= 0 && write(fd, text, strlen(text)) < 0)
        log_warn("nobody waits for the start any more");
    if (fd >= 0)
        close(fd);
}

static int prepare(struct supervisor *s, struct err *err)
{
    sigset_t set;
    int r = home_lock(s->home, &s->lock_fd, err);
    if (r < 0)
        return r;
    unlink(s->home->failure); /* of the run before */
    s->clients_fd = open(s->home->clients, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    if (s->clients_fd < 0)
        return err_errno(err, errno, "%s", s->home->clients);
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    s->signal_fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    if (s->signal_fd < 0)
        return err_errno(err, errno, "signals");
    r = set_environment(s->home, err);
    if (r == 0)
        r = add_redis(s, err);
    return r == 0 ? add_services(s, err) : r;
}

int supervisor_run(const struct home *home, const struct supervisor_options *o, struct err *err)
{
    struct supervisor s = {.home = home,
                           .lock_fd = -1,
                           .signal_fd = -1,
                           .clients_fd = -1,
                           .idle_exit_ns = o->idle_exit_s * SECOND,
                           .idle_since_ns = clock_now_ns(NULL)};
    if (o->ready_fd >= 0)
        fcntl(o->ready_fd, F_SETFD, FD_CLOEXEC); /* or services would keep the launcher waiting */
    int r = prepare(&s, err);
    if (r == 0)
        r = start_all(&s, err);
    if (r == 0) {
        log_info("up in %s", home->dir);
        say_ready(o->ready_fd, "ok");
    }
    while (r == 0 && !s.stopping) {
        turn(&s, TICK_MS);
        look_around(&s);
    }
    bool started = r == 0;
    if (r == 0 && s.gave_up)
        r = err_set(err, ERR_UNAVAILABLE, "%s", "a service does not stay up");
    supervisor_release(&s);
    if (!started) /* after the lock is gone: whoever hears it finds no supervisor */
        say_ready(o->ready_fd, err && err->message[0] ? err->message : "failed");
    return r;
}

/* ---- from outside ---- */

/* In the child of the launcher: becomes `hone up` in a session of its own. */
static void run_detached(const struct home *home, int64_t idle_exit_s, int ready_fd)
{
    char fd[16], idle[32];
    _cleanup_(freep) char *log = home_path(home, "logs", "supervisor.log");
    snprintf(fd, sizeof(fd), "%d", ready_fd);
    snprintf(idle, sizeof(idle), "%lld", (long long)idle_exit_s);
    if (!log)
        _exit(126);
    log_rotate(log);
    int out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    int in = open("/dev/null", O_RDONLY | O_CLOEXEC);
    if (setsid() < 0 || dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
        dup2(out, STDERR_FILENO) < 0 || setenv("HONE_READY_FD", fd, 1) < 0)
        _exit(126);
    execl("/proc/self/exe", "hone", "up", "--home", home->dir, "--idle-exit", idle, (char *)NULL);
    _exit(127);
}

int supervisor_launch(const struct home *home, int64_t idle_exit_s, struct err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) < 0)
        return err_errno(err, errno, "starting Hone");
    pid_t pid = fork();
    if (pid < 0) {
        close(ends[0]);
        close(ends[1]);
        return err_errno(err, errno, "starting Hone");
    }
    if (pid == 0) {
        fcntl(ends[1], F_SETFD, 0);
        run_detached(home, idle_exit_s, ends[1]);
    }
    close(ends[1]);
    char text[ERR_MESSAGE_MAX] = "";
    size_t n = 0;
    ssize_t got = 1;
    while (n < sizeof(text) - 1 && got > 0) {
        got = read(ends[0], text + n, sizeof(text) - 1 - n);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            n += (size_t)got;
    }
    close(ends[0]);
    if (strcmp(text, "ok") == 0)
        return 0;
    if (!*text)
        return err_set(err, ERR_UNAVAILABLE, "Hone did not start; see %s/logs/supervisor.log",
                       home->dir);
    return err_set(err, ERR_UNAVAILABLE, "Hone did not start: %s", text);
}

int supervisor_stop(const struct home *home, struct err *err)
{
    pid_t pid = home_supervisor(home);
    if (pid == 0)
        return err_set(err, ERR_FAILED_PRECONDITION, "Hone is not up in %s", home->dir);
    if (pid < 0 || kill(pid, SIGTERM) < 0)
        return err_set(err, ERR_UNAVAILABLE, "the supervisor of %s cannot be reached", home->dir);
    int64_t limit = clock_now_ns(NULL) + 3 * STOP_LIMIT;
    while (home_supervisor(home) == pid) {
        if (clock_now_ns(NULL) > limit)
            return err_set(err, ERR_DEADLINE_EXCEEDED, "process %d does not end", (int)pid);
        clock_sleep_ms(50);
    }
    return 0;
}
