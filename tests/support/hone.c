#include "tests/support/hone.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define LIMIT_S 120
#define MAX_ARGUMENTS 32

struct hone_ran ran;
char hone_home[96];
static char folder[64], program[512];
static int n_started;

static double now(void)
{
    return (double)clock_now_ns(NULL) / 1e9;
}

/* ---- a program's life ---- */

static bool write_map(const char *path, const char *text)
{
    _cleanup_(fs_closep) int fd = open(path, O_WRONLY | O_CLOEXEC);
    return fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);
}

/* A file system of its own at `path`, seen by this process and its children only. Who is not root
 * is root in a user namespace of his own, where that is allowed. */
static bool mount_small(const char *path, size_t bytes)
{
    char size[64], uids[64], gids[64];
    snprintf(size, sizeof(size), "size=%zu,mode=0700", bytes);
    snprintf(uids, sizeof(uids), "0 %d 1", (int)geteuid());
    snprintf(gids, sizeof(gids), "0 %d 1", (int)getegid());
    if (unshare(CLONE_NEWNS) < 0 &&
        (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0 || !write_map("/proc/self/setgroups", "deny") ||
         !write_map("/proc/self/uid_map", uids) || !write_map("/proc/self/gid_map", gids)))
        return false;
    return mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0 &&
           mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, size) == 0;
}

bool hone_may_mount(void)
{
    int status = -1;
    pid_t pid = fork();
    if (pid == 0)
        _exit(mount_small(folder, 1 << 20) ? 0 : 1);
    bool may = pid > 0 && waitpid(pid, &status, 0) == pid && status == 0;
    if (!may)
        print_message("skip: this user may not mount a small disk (no user namespaces here)\n");
    return may;
}

static void become(const struct hone_how *how, const struct hone_process *p,
                   const char *const *arguments)
{
    char *argv[MAX_ARGUMENTS + 5] = {0};
    int n = 0;
    int out = open(how->out ? how->out : p->out, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int err = open(p->err, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    int in = open("/dev/null", O_RDONLY);
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (in < 0 || dup2(in, 0) < 0 || dup2(out, 1) < 0 || dup2(err, 2) < 0)
        _exit(126);
    close_range(3, ~0U, 0);
    if (how->script) {
        argv[n++] = (char *)"/bin/sh";
        argv[n++] = (char *)"-c";
        argv[n++] = (char *)how->script;
    }
    argv[n++] = program;
    for (int i = 0; arguments[i]; i++)
        argv[n++] = (char *)arguments[i];
    setenv("HONE_HOME", hone_home, 1);
    if (how->path)
        setenv("PATH", how->path, 1);
    if (how->ingest)
        setenv("HONE_INGEST", how->ingest, 1);
    const struct rlimit memory = {how->max_memory, how->max_memory};
    if (how->max_memory && !HONE_SANITIZED && setrlimit(RLIMIT_AS, &memory) < 0)
        _exit(125);
    if (how->tmpfs && !mount_small(how->tmpfs, how->tmpfs_bytes))
        _exit(124);
    signal(SIGINT, SIG_DFL);
    execv(argv[0], argv);
    _exit(127);
}

struct hone_process hone_start(const struct hone_how *how, const char *const *arguments)
{
    static const struct hone_how usual = {0};
    struct hone_process p = {.since = now()};
    int n = 0;
    while (arguments[n])
        n++;
    assert_true(n <= MAX_ARGUMENTS);
    how = how ? how : &usual;
    p.limit_s = how->limit_s ? how->limit_s : LIMIT_S;
    snprintf(p.out, sizeof(p.out), "%s/%d.out", folder, n_started);
    snprintf(p.err, sizeof(p.err), "%s/%d.err", folder, n_started++);
    fflush(NULL);
    p.pid = fork();
    assert_true(p.pid >= 0);
    if (p.pid == 0)
        become(how, &p, arguments);
    return p;
}

static void read_text(const char *path, char *text, size_t size)
{
    _cleanup_(fs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    size_t n = 0;
    ssize_t got = 0;
    while (fd >= 0 && n + 1 < size && (got = read(fd, text + n, size - 1 - n)) > 0)
        n += (size_t)got;
    text[n] = 0;
}

void hone_wait(struct hone_process *p)
{
    int status = 0;
    pid_t got = 0;
    while (got == 0 && now() - p->since < p->limit_s) {
        got = waitpid(p->pid, &status, WNOHANG);
        if (got == 0)
            clock_sleep_ms(5);
    }
    if (got == 0) {
        kill(p->pid, SIGKILL);
        waitpid(p->pid, &status, 0);
    }
    ran.seconds = now() - p->since;
    ran.code = WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
    read_text(p->out, ran.out, sizeof(ran.out));
    read_text(p->err, ran.err, sizeof(ran.err));
    p->pid = 0;
    if (got == 0)
        fail_msg("it did not end within %d s; it said: %s%s", p->limit_s, ran.out, ran.err);
    if (ran.code < 0 || strstr(ran.err, "Sanitizer"))
        fail_msg("it crashed (%d): %s%s", ran.code, ran.out, ran.err);
}

void hone_call(const struct hone_how *how, const char *const *arguments)
{
    struct hone_process p = hone_start(how, arguments);
    hone_wait(&p);
}

/* ---- what it said ---- */

void hone_assert_code(int code)
{
    if (ran.code != code)
        fail_msg("exit code %d instead of %d: %s%s", ran.code, code, ran.out, ran.err);
}

void hone_assert_says(const char *const *words)
{
    for (int i = 0; words[i]; i++)
        if (!strstr(ran.err, words[i]))
            fail_msg("'%s' is not in what it said: %s", words[i], ran.err);
}

void hone_assert_refused(const char *const *words)
{
    hone_assert_code(1);
    hone_assert_says(words);
    const char *end = strchr(ran.err, '\n');
    if (strncmp(ran.err, "hone: ", 6) != 0 || !end || end[1])
        fail_msg("not one sentence: %s", ran.err);
}

/* ---- what runs ---- */

static pid_t read_pid(const char *path)
{
    char text[64];
    int64_t pid = 0;
    read_text(path, text, sizeof(text));
    text[strcspn(text, " \n")] = 0;
    return str_parse_i64(text, 1, INT32_MAX, &pid, NULL) < 0 ? 0 : (pid_t)pid;
}

static pid_t supervisor(void)
{
    char path[128];
    snprintf(path, sizeof(path), "%s/supervisor.lock", hone_home);
    return read_pid(path);
}

static bool runs_program(pid_t pid, const char *name)
{
    char path[64], command[512];
    snprintf(path, sizeof(path), "/proc/%d/cmdline", (int)pid);
    read_text(path, command, sizeof(command));
    command[strcspn(command, " ")] = 0; /* redis makes its own: "redis-server unixsocket:/..." */
    const char *slash = strrchr(command, '/');
    return strcmp(slash ? slash + 1 : command, name) == 0;
}

pid_t hone_service(const char *name)
{
    char path[96], list[1024], *rest = list;
    pid_t parent = supervisor();
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)parent, (int)parent);
    read_text(path, list, sizeof(list));
    for (char *word; (word = strsep(&rest, " \n"));) {
        int64_t pid = 0;
        if (str_parse_i64(word, 1, INT32_MAX, &pid, NULL) == 0 && runs_program((pid_t)pid, name))
            return (pid_t)pid;
    }
    return 0;
}

long hone_peak_mb(pid_t pid)
{
    char path[64], text[4096];
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    read_text(path, text, sizeof(text));
    const char *line = strstr(text, "VmHWM:");
    assert_non_null(line);
    char digits[16] = "";
    const char *from = line + strcspn(line, "0123456789");
    snprintf(digits, sizeof(digits), "%.*s", (int)strspn(from, "0123456789"), from);
    int64_t kb = 0;
    assert_int_equal(str_parse_i64(digits, 0, INT32_MAX, &kb, NULL), 0);
    return (long)(kb / 1024);
}

void hone_await_text(const char *file, const char *text)
{
    static char seen[1 << 18];
    for (double begin = now(); now() - begin < 30; clock_sleep_ms(5)) {
        read_text(file, seen, sizeof(seen));
        if (strstr(seen, text))
            return;
    }
    fail_msg("'%s' was not written, but: %s", text, seen);
}

/* ---- the whole ---- */

int hone_set_up(void **state)
{
    (void)state;
    str_copy(folder, sizeof(folder), "/tmp/hone-cli-XXXXXX");
    str_copy(program, sizeof(program), HONE_BINARY_DIR "/services/cli/hone");
    if (!mkdtemp(folder))
        return -1;
    snprintf(hone_home, sizeof(hone_home), "%s/home", folder);
    setenv("HONE_THREADS", "2", 1);
    setenv("HONE_LEASE_MS", "2000", 1); /* tasks of services that were killed come back soon */
    unsetenv("HONE_INGEST");
    return 0;
}

static const char *const logs[] = {"supervisor", "ingest",   "profiler", "synthesizer",
                                   "trainer",    "exporter", "redis"};

void hone_forget_logs(void)
{
    for (size_t i = 0; i < sizeof(logs) / sizeof(logs[0]); i++)
        for (int old = 0; old < 2; old++) {
            char path[160];
            snprintf(path, sizeof(path), "%s/logs/%s.log%s", hone_home, logs[i], old ? ".1" : "");
            if (truncate(path, 0) < 0)
                continue; /* not there */
        }
}

static int look_into(const char *path)
{
    static const char *const bad[] = {"starting it again", "Sanitizer", "runtime error:"};
    static char text[1 << 20];
    read_text(path, text, sizeof(text));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const char *at = strstr(text, bad[i]);
        if (!at)
            continue;
        print_error("%s says: %.3000s\n", path, at - text > 200 ? at - 200 : text);
        return -1;
    }
    return 0;
}

int hone_tear_down(void **state)
{
    (void)state;
    int r = 0;
    HONE("down");
    for (size_t i = 0; i < sizeof(logs) / sizeof(logs[0]); i++)
        for (int old = 0; old < 2; old++) {
            char path[160];
            snprintf(path, sizeof(path), "%s/logs/%s.log%s", hone_home, logs[i], old ? ".1" : "");
            if (look_into(path) < 0)
                r = -1;
        }
    if (fs_remove_tree(folder, NULL) < 0)
        r = -1;
    return r;
}
