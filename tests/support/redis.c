#include "tests/support/redis.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

bool test_redis_available(const char *server)
{
    const char *path = getenv("PATH");
    _cleanup_(freep) char *copy = strdup(path ? path : "/usr/bin");
    char *rest = copy;
    for (char *dir; (dir = strsep(&rest, ":"));) {
        _cleanup_(freep) char *file = str_printf("%s/%s", dir, server);
        if (file && access(file, X_OK) == 0)
            return true;
    }
    return false;
}

static int connect_to(const struct test_redis *r)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    str_copy(address.sun_path, sizeof(address.sun_path), r->url + strlen("unix:"));
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct timeval timeout = {.tv_sec = 5};
    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &timeout, sizeof(timeout)) < 0 ||
        connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0)
        fs_closep(&fd);
    return fd;
}

int test_redis_ask(struct test_redis *r, const char *line, char *answer, size_t size)
{
    _cleanup_(fs_closep) int fd = connect_to(r);
    _cleanup_(freep) char *text = str_printf("%s\r\n", line);
    if (fd < 0 || !text || send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        return -1;
    size_t n = 0;
    while (n + 1 < size && read(fd, answer + n, 1) == 1 && answer[n] != '\r')
        n++;
    answer[n] = 0;
    return n ? 0 : -1;
}

long long test_redis_number(struct test_redis *r, const char *line)
{
    char answer[128];
    int64_t value = 0;
    if (test_redis_ask(r, line, answer, sizeof(answer)) < 0 || answer[0] != ':' ||
        str_parse_i64(answer + 1, INT64_MIN, INT64_MAX, &value, NULL) < 0)
        return -1000;
    return value;
}

static void run_server(const struct test_redis *r, pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    _cleanup_(freep) char *log = str_printf("%s/log", r->dir);
    int fd = log ? open(log, O_WRONLY | O_CREAT | O_APPEND, 0644) : -1;
    if (fd >= 0) {
        dup2(fd, STDOUT_FILENO);
        dup2(fd, STDERR_FILENO);
    }
    execlp(r->server, r->server, "--port", "0", "--unixsocket", r->url + strlen("unix:"), "--dir",
           r->dir, "--save", "", "--appendonly", "yes", "--appendfsync", r->fsync,
           "--maxmemory-policy", "noeviction", "--daemonize", "no", (char *)NULL);
    _exit(127);
}

int test_redis_restart(struct test_redis *r)
{
    pid_t parent = getpid();
    r->pid = fork();
    if (r->pid == 0)
        run_server(r, parent);
    for (int i = 0; r->pid > 0 && i < 30000; i++) {
        char answer[64];
        if (test_redis_ask(r, "PING", answer, sizeof(answer)) == 0 && !strcmp(answer, "+PONG"))
            return 0;
        int status;
        if (waitpid(r->pid, &status, WNOHANG) == r->pid) {
            r->pid = 0;
            break;
        }
        clock_sleep_ms(1);
    }
    fprintf(stderr, "%s did not start in %s: see its log there\n", r->server, r->dir);
    test_redis_kill(r);
    return -1;
}

int test_redis_start(struct test_redis *r, const char *server, const char *appendfsync)
{
    *r = (struct test_redis){.dir = "/tmp/hone-redis-XXXXXX"};
    str_copy(r->server, sizeof(r->server), server);
    str_copy(r->fsync, sizeof(r->fsync), appendfsync);
    if (!mkdtemp(r->dir)) {
        fprintf(stderr, "%s: %s\n", r->dir, strerrordesc_np(errno));
        return -1;
    }
    snprintf(r->url, sizeof(r->url), "unix:%s/socket", r->dir);
    return test_redis_restart(r);
}

void test_redis_kill(struct test_redis *r)
{
    if (r->pid > 0) {
        kill(r->pid, SIGKILL);
        waitpid(r->pid, NULL, 0);
    }
    r->pid = 0;
    if (r->url[0])
        unlink(r->url + strlen("unix:"));
}

void test_redis_stop(struct test_redis *r)
{
    test_redis_kill(r);
    if (str_starts_with(r->dir, "/tmp/hone-redis-"))
        fs_remove_tree(r->dir, NULL);
    *r = (struct test_redis){0};
}
