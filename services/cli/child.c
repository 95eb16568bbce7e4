#include "services/cli/child.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"

/* ---- programs ---- */

static bool is_program(const char *path)
{
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, X_OK) == 0;
}

/* The folder of this program. */
static bool own_folder(char folder[PATH_MAX])
{
    ssize_t n = readlink("/proc/self/exe", folder, PATH_MAX - 1);
    if (n <= 0)
        return false;
    folder[n] = 0;
    char *slash = strrchr(folder, '/');
    if (slash)
        *slash = 0;
    return slash != NULL;
}

static char *search_path(const char *program)
{
    const char *p = getenv("PATH");
    while (p && *p) {
        size_t n = strcspn(p, ":");
        char *path = str_printf("%.*s/%s", (int)n, p, program);
        if (path && n > 0 && is_program(path))
            return path;
        free(path);
        p += n + (p[n] == ':');
    }
    return NULL;
}

int child_find_program(const char *service, const char *program, char **ret, struct err *err)
{
    char folder[PATH_MAX] = "";
    if (service && own_folder(folder)) {
        char *places[] = {
            str_printf("%s/%s", folder, program),
            str_printf("%s/../%s/%s", folder, service, program),
            str_printf("%s/../libexec/hone/%s", folder, program),
        };
        char *found = NULL;
        for (size_t i = 0; i < sizeof(places) / sizeof(places[0]); i++) {
            if (!found && places[i] && is_program(places[i]))
                found = TAKE_PTR(places[i]);
            free(places[i]);
        }
        if (found) {
            *ret = found;
            return 0;
        }
    }
    *ret = search_path(program);
    if (*ret)
        return 0;
    if (service)
        return err_set(err, ERR_NOT_FOUND,
                       "program %s not found (looked in %s, %s/../%s, %s/../libexec/hone and PATH)",
                       program, folder, folder, service, folder);
    return err_set(err, ERR_NOT_FOUND, "program %s not found in PATH", program);
}

int child_add_arg(struct child *child, const char *arg, struct err *err)
{
    int n = 0;
    while (n < CHILD_MAX_ARGS && child->argv[n])
        n++;
    if (n >= CHILD_MAX_ARGS - 1)
        return err_set(err, ERR_INTERNAL, "%s: too many arguments", child->name);
    child->argv[n] = strdup(arg);
    return child->argv[n] ? 0 : err_oom(err, child->name);
}

void child_release(struct child *child)
{
    for (int i = 0; i < CHILD_MAX_ARGS; i++)
        free(child->argv[i]);
    free(child->log);
    *child = (struct child){0};
}

/* ---- starting ---- */

static void run_child(const struct child *child, int log, pid_t supervisor)
{
    sigset_t none;
    sigemptyset(&none);
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (getppid() != supervisor)
        _exit(1);  /* it died before we asked to be told */
    setpgid(0, 0); /* Ctrl-C is for the supervisor, which ends us in order */
    int nothing = open("/dev/null", O_RDONLY);
    if (nothing < 0 || dup2(nothing, STDIN_FILENO) < 0 || dup2(log, STDOUT_FILENO) < 0 ||
        dup2(log, STDERR_FILENO) < 0)
        _exit(126);
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execv(child->argv[0], child->argv);
    dprintf(STDERR_FILENO, "%s: %s\n", child->argv[0], strerror(errno));
    _exit(127);
}

int child_start(struct child *child, struct err *err)
{
    _cleanup_(fs_closep) int log =
        open(child->log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log < 0)
        return err_errno(err, errno, "%s", child->log);
    pid_t supervisor = getpid(), pid = fork();
    if (pid < 0)
        return err_errno(err, errno, "starting %s", child->name);
    if (pid == 0)
        run_child(child, log, supervisor);
    child->pid = pid;
    child->started_ns = clock_now_ns(NULL);
    child->due_ns = 0;
    return 0;
}

/* ---- logs ---- */

void log_rotate(const char *path)
{
    _cleanup_(freep) char *old = str_printf("%s.1", path);
    struct stat st;
    if (old && stat(path, &st) == 0 && st.st_size > 0)
        rename(path, old);
}

void log_bound(const char *path, int64_t max_bytes)
{
    struct stat st;
    _cleanup_(freep) char *old = str_printf("%s.1", path);
    if (!old || stat(path, &st) < 0 || st.st_size <= max_bytes)
        return;
    /* The writer appends, so it goes on at the new end. Lines written between the two steps are
     * lost. */
    if (fs_copy(path, old, NULL) < 0 || truncate(path, 0) < 0)
        return;
}

void log_tail(const char *path, int lines, const char *indent, struct strbuf *out)
{
    char text[8192];
    _cleanup_(fs_closep) int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t size = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t from = size > (off_t)sizeof(text) - 1 ? size - (off_t)sizeof(text) + 1 : 0;
    ssize_t n = fd < 0 ? 0 : pread(fd, text, sizeof(text) - 1, from);
    if (n <= 0)
        return;
    text[n] = 0;
    char *p = text + n - 1;
    for (int seen = 0; p > text; p--)
        if (*p == '\n' && p[1] && ++seen == lines)
            break;
    p += *p == '\n';
    while (*p) {
        size_t length = strcspn(p, "\n");
        strbuf_printf(out, "%s%.*s\n", indent, (int)length, p);
        p += length + (p[length] == '\n');
    }
}
