#pragma once
/* Worker processes for tests: children of the test that run work_main on the test's Redis. */
#include "tests/support/redis_both.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/work/work.h"

static char worker_folder[64]; /* store, scratch and log of this test's workers */

static inline void workers_begin(void)
{
    str_copy(worker_folder, sizeof(worker_folder), "/tmp/hone-work-XXXXXX");
    assert_non_null(mkdtemp(worker_folder));
}

static inline void workers_end(void)
{
    assert_int_equal(fs_remove_tree(worker_folder, NULL), 0);
}

/* A child that is ready to become a worker (0 there), with these environment variables set: name,
 * value, name, value, ..., NULL. */
static inline pid_t worker_fork(struct on_redis *on, const char *const *env)
{
    fflush(NULL); /* the child exits as a program does, so that leaks of the loop are found */
    pid_t parent = getpid(), pid = fork();
    assert_true(pid >= 0);
    if (pid)
        return pid;
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    _cleanup_(freep) char *store = str_printf("file://%s/store", worker_folder);
    _cleanup_(freep) char *scratch = str_printf("%s/scratch", worker_folder);
    _cleanup_(freep) char *log = str_printf("%s/log", worker_folder);
    int fd = open(log, O_WRONLY | O_CREAT | O_APPEND, 0644);
    if (getppid() != parent || fd < 0 || dup2(fd, STDERR_FILENO) < 0)
        _exit(1);
    setenv("HONE_REDIS", on->redis.url, 1);
    setenv("HONE_STORE", store, 1);
    setenv("HONE_SCRATCH", scratch, 1);
    setenv("HONE_PREFIX", "test", 1);
    setenv("HONE_THREADS", "1", 1);
    setenv("HONE_HOST", "here", 1);
    for (; env && *env; env += 2)
        setenv(env[0], env[1], 1);
    return 0;
}

static inline pid_t worker_start(struct on_redis *on, const struct work_config *config,
                                 const char *const *env)
{
    pid_t pid = worker_fork(on, env);
    if (pid == 0)
        exit(work_main(config));
    return pid;
}

/* A service's own program. */
static inline pid_t worker_exec(struct on_redis *on, const char *program, const char *const *env)
{
    pid_t pid = worker_fork(on, env);
    if (pid == 0) {
        execl(program, program, (char *)NULL);
        _exit(127);
    }
    return pid;
}

/* Until the workers of this test have said so in their log. */
static inline void worker_wait_log(struct on_redis *on, const char *line)
{
    _cleanup_(freep) char *log = str_printf("%s/log", worker_folder);
    bool said = false;
    for (int i = 0; i < 60000 && !said; i++) {
        _cleanup_(freep) char *text = NULL;
        size_t bytes = 0;
        assert_int_equal(fs_read(log, 1 << 20, (void **)&text, &bytes, &on->err), 0);
        said = strstr(text, line) != NULL;
        clock_sleep_ms(1);
    }
    assert_true(said);
}
#define ENV(...) ((const char *const[]){__VA_ARGS__, NULL})

static inline int worker_wait(pid_t pid)
{
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return status;
}

/* SIGTERM; it must end well. */
static inline void worker_stop(pid_t pid)
{
    assert_int_equal(kill(pid, SIGTERM), 0);
    int status = worker_wait(pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static inline void worker_kill(pid_t pid)
{
    kill(pid, SIGKILL);
    worker_wait(pid);
}

/* Creates a job whose first task, for the service "tester", is this. */
static inline void job_put(struct on_redis *on, const char *job, const char *kind,
                           const char *payload)
{
    struct task_spec spec = {
        .queue = "tester", .kind = kind, .payload = payload, .payload_bytes = strlen(payload)};
    assert_int_equal(queue_job_create(on->q, job, "", "", 0, &spec, &on->err), 0);
}

/* Waits for the job's last event; gives all of them as one text. */
static inline char *job_events(struct on_redis *on, const char *job)
{
    struct strbuf all = {0};
    char after[32] = "0";
    for (bool ended = false; !ended;) {
        struct event *events = NULL;
        int n = 0;
        if (queue_events(on->q, job, after, 100, 60000, &events, &n, &on->err) < 0)
            fail_msg("%s", on->err.message);
        if (n == 0)
            fail_msg("job %s does not end: %s", job, all.data ? all.data : "");
        for (int i = 0; i < n; i++) {
            strbuf_printf(&all, "%s\n", events[i].text);
            str_copy(after, sizeof(after), events[i].id);
            ended |= strstr(events[i].text, "\"type\":\"succeeded\"") ||
                     strstr(events[i].text, "\"type\":\"failed\"") ||
                     strstr(events[i].text, "\"type\":\"cancelled\"");
        }
        events_free(events, n);
    }
    return strbuf_take(&all);
}

/* Waits for the next event of this type after `after`, which moves on. */
static inline void job_wait_event(struct on_redis *on, const char *job, const char *type,
                                  char after[32])
{
    _cleanup_(freep) char *wanted = str_printf("{\"type\":\"%s\"", type);
    for (bool found = false; !found;) {
        struct event *events = NULL;
        int n = 0;
        if (queue_events(on->q, job, after, 1, 60000, &events, &n, &on->err) < 0)
            fail_msg("%s", on->err.message);
        if (n == 0)
            fail_msg("job %s: no event '%s'", job, type);
        str_copy(after, 32, events[0].id);
        found = str_starts_with(events[0].text, wanted);
        events_free(events, n);
    }
}

static inline void job_result_is(struct on_redis *on, const char *job, const char *expected)
{
    _cleanup_(freep) char *events = job_events(on, job);
    _cleanup_(job_info_release) struct job_info info = {0};
    assert_int_equal(queue_job_get(on->q, job, &info, &on->err), 0);
    assert_string_equal(info.error, "");
    assert_string_equal(info.state, "succeeded");
    assert_string_equal(info.result, expected);
}

static inline void job_error_is(struct on_redis *on, const char *job, const char *expected)
{
    _cleanup_(freep) char *events = job_events(on, job);
    _cleanup_(job_info_release) struct job_info info = {0};
    assert_int_equal(queue_job_get(on->q, job, &info, &on->err), 0);
    assert_string_equal(info.state, "failed");
    assert_string_equal(info.error, expected);
}
