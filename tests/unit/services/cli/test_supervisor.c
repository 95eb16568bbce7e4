/* The supervisor, as the program `hone up`: with Redis alone (HONE_SERVICES=none), and with scripts
 * in place of a service. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "services/cli/home.h"
#include "services/cli/supervisor.h"
#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static char folder[64], program[256], output[8192];
static struct home home;

static int set_up(void **state)
{
    (void)state;
    str_copy(folder, sizeof(folder), "/tmp/hone-sup-XXXXXX");
    snprintf(program, sizeof(program), "%s/services/cli/hone", HONE_BINARY_DIR);
    setenv("HONE_SERVICES", "none", 1);
    return mkdtemp(folder) && home_open(folder, &home, NULL) == 0 ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    if (home_supervisor(&home))
        supervisor_stop(&home, NULL);
    home_release(&home);
    return fs_remove_tree(folder, NULL);
}

/* Runs `hone WORD [--detach ...]` with --home; its output is in `output`. Returns the exit code. */
static int hone(const char *word, const char *a, const char *b)
{
    int ends[2], status = 0;
    size_t n = 0;
    ssize_t got;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    pid_t pid = fork();
    if (pid == 0) {
        dup2(ends[1], STDOUT_FILENO);
        dup2(ends[1], STDERR_FILENO);
        execl(program, "hone", word, "--home", folder, a, b, (char *)NULL);
        _exit(127);
    }
    close(ends[1]);
    while ((got = read(ends[0], output + n, sizeof(output) - 1 - n)) > 0)
        n += (size_t)got;
    output[n] = 0;
    close(ends[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void assert_output(const char *text)
{
    if (!strstr(output, text))
        fail_msg("'%s' was not printed, but: %s", text, output);
}

/* Waits until it is so; half a minute at most. */
#define EVENTUALLY(condition)                                                                      \
    do {                                                                                           \
        int64_t limit_ = clock_now_ns(NULL) + 30 * (int64_t)1000000000;                            \
        while (!(condition) && clock_now_ns(NULL) < limit_)                                        \
            clock_sleep_ms(5);                                                                     \
        assert_true(condition);                                                                    \
    } while (0)

static pid_t pid_of_redis(void)
{
    char path[128];
    _cleanup_(freep) char *text = NULL;
    size_t bytes = 0;
    snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)home_supervisor(&home),
             (int)home_supervisor(&home));
    FILE *file = fopen(path, "re");
    int pid = 0;
    if (file && getdelim(&text, &bytes, ' ', file) > 0) {
        int64_t value = 0;
        text[strcspn(text, " \n")] = 0;
        if (str_parse_i64(text, 1, INT32_MAX, &value, NULL) == 0)
            pid = (int)value;
    }
    if (file)
        fclose(file);
    return (pid_t)pid;
}

static void up_starts_redis_and_down_ends_it(void **state)
{
    (void)state;
    assert_int_equal(hone("up", "--detach", NULL), 0);
    assert_output("Hone is up in ");
    assert_true(socket_answers(home.redis_socket));
    assert_int_equal(hone("down", NULL, NULL), 0);
    assert_output("Hone is down.");
    assert_false(socket_answers(home.redis_socket));
    assert_int_equal(home_supervisor(&home), 0);
}

static void a_second_up_is_refused(void **state)
{
    (void)state;
    assert_int_equal(hone("up", "--detach", NULL), 0);
    assert_int_equal(hone("up", "--detach", NULL), 1);
    assert_output("already up");
    assert_int_equal(hone("up", NULL, NULL), 1);
    assert_output("already up");
    assert_true(socket_answers(home.redis_socket));
}

static void down_without_up_is_no_failure(void **state)
{
    (void)state;
    assert_int_equal(hone("down", NULL, NULL), 0);
    assert_output("not up");
}

static void a_redis_that_is_killed_comes_back(void **state)
{
    (void)state;
    assert_int_equal(hone("up", "--detach", NULL), 0);
    pid_t before = pid_of_redis();
    assert_true(before > 0);
    assert_int_equal(kill(before, SIGKILL), 0);
    EVENTUALLY(pid_of_redis() > 0 && pid_of_redis() != before);
    EVENTUALLY(socket_answers(home.redis_socket));
}

static void what_a_killed_supervisor_ran_ends_with_it(void **state)
{
    (void)state;
    assert_int_equal(hone("up", "--detach", NULL), 0);
    assert_int_equal(kill(home_supervisor(&home), SIGKILL), 0);
    EVENTUALLY(home_supervisor(&home) == 0);
    EVENTUALLY(!socket_answers(home.redis_socket));
    assert_int_equal(hone("up", "--detach", NULL), 0); /* nothing is in the way */
}

static void an_idle_supervisor_ends_by_itself(void **state)
{
    (void)state;
    assert_int_equal(hone("up", "--detach", "--idle-exit=1"), 0);
    EVENTUALLY(home_supervisor(&home) == 0);
    assert_false(socket_answers(home.redis_socket));
}

static void a_client_keeps_an_idle_supervisor_up(void **state)
{
    (void)state;
    int fd = -1;
    assert_int_equal(home_attach(&home, &fd, NULL), 0);
    assert_int_equal(hone("up", "--detach", "--idle-exit=1"), 0);
    int64_t limit = clock_now_ns(NULL) + 3 * (int64_t)1000000000;
    while (clock_now_ns(NULL) < limit) {
        assert_true(home_supervisor(&home) != 0);
        clock_sleep_ms(50);
    }
    fs_closep(&fd);
    EVENTUALLY(home_supervisor(&home) == 0);
}

/* ---- services ---- */

/* A copy of the program beside a script that stands for ingest. */
static void stage_service(const char *script)
{
    char path[160];
    snprintf(path, sizeof(path), "%s/hone", folder);
    assert_int_equal(fs_copy(program, path, NULL), 0);
    assert_int_equal(chmod(path, 0755), 0);
    str_copy(program, sizeof(program), path);
    setenv("HONE_SERVICES", "ingest", 1);
    if (!script)
        return;
    snprintf(path, sizeof(path), "%s/hone-ingest", folder);
    assert_int_equal(fs_write_atomic(path, script, strlen(script), NULL), 0);
    assert_int_equal(chmod(path, 0755), 0);
}

static void a_missing_program_is_named_before_anything_starts(void **state)
{
    (void)state;
    stage_service(NULL);
    setenv("PATH", "/usr/bin:/bin", 1);
    assert_int_equal(hone("up", "--detach", NULL), 1);
    assert_output("program hone-ingest not found");
    assert_int_equal(home_supervisor(&home), 0);
    assert_false(fs_exists(home.redis_socket));
}

static void a_service_that_does_not_stay_up_ends_with_its_last_words(void **state)
{
    (void)state;
    stage_service("#!/bin/sh\necho the widget is missing >&2\nexit 3\n");
    assert_int_equal(hone("up", "--detach", NULL), 1);
    assert_output("ingest ended with code 3, 5 times");
    assert_output("the widget is missing");
    assert_int_equal(home_supervisor(&home), 0);
    assert_false(socket_answers(home.redis_socket));
}

static void a_service_gets_its_settings_by_the_environment(void **state)
{
    (void)state;
    char path[128];
    _cleanup_(freep) void *text = NULL;
    size_t bytes = 0;
    stage_service("#!/bin/sh\nenv > \"$HONE_HOME/seen.tmp\" && mv \"$HONE_HOME/seen.tmp\" "
                  "\"$HONE_HOME/seen\"\nexec sleep 600\n");
    setenv("HONE_PREFIX", "else", 1);
    pid_t pid = fork();
    if (pid == 0) {
        execl(program, "hone", "up", "--home", folder, (char *)NULL);
        _exit(127);
    }
    snprintf(path, sizeof(path), "%s/seen", folder);
    EVENTUALLY(fs_exists(path));
    assert_int_equal(fs_read(path, 1 << 20, &text, &bytes, NULL), 0);
    assert_non_null(strstr(text, home.redis_url));
    assert_non_null(strstr(text, home.store_url));
    assert_non_null(strstr(text, home.ingest_address));
    assert_non_null(strstr(text, "HONE_PARENT_PID="));
    assert_non_null(strstr(text, "HONE_TARGET=cpu:"));
    assert_null(strstr(text, "HONE_PREFIX"));
    unsetenv("HONE_PREFIX");
    int status = 0;
    assert_int_equal(kill(pid, SIGINT), 0);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(up_starts_redis_and_down_ends_it),
        TEST(a_second_up_is_refused),
        TEST(down_without_up_is_no_failure),
        TEST(a_redis_that_is_killed_comes_back),
        TEST(what_a_killed_supervisor_ran_ends_with_it),
        TEST(an_idle_supervisor_ends_by_itself),
        TEST(a_client_keeps_an_idle_supervisor_up),
        TEST(a_missing_program_is_named_before_anything_starts),
        TEST(a_service_that_does_not_stay_up_ends_with_its_last_words),
        TEST(a_service_gets_its_settings_by_the_environment),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
