/* The command line when something is in the way: folders in use, full disks, services and Redis
 * that die, Ctrl-C. What was accepted is never lost, and what went wrong is said in a sentence. */
#include "tests/support/model_file.h"

#include <signal.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <yyjson.h>

#include "shared/base/clock.h"
#include "tests/support/hone.h"

#define GIVEN "scale=1/255"

/* ---- a small job ---- */

/* Two pictures in one part of each class are not enough for a bound; these are, and take a second
 * or two. */
static void make_job(void)
{
    model_file("net.onnx", SMALL_NET);
    make_two_classes("data");
}

#define OPTIMIZE(out)                                                                              \
    "optimize", in_dir("net.onnx"), "--data", in_dir("data"), "--preprocess", GIVEN, "--out",      \
        in_dir(out), "--max-drop", "100", "--space", "precision"

/* 3: done, and nothing was faster. Such a small network may not gain anything. */
static void assert_done(const char *out)
{
    if (ran.code != 0 && ran.code != 3)
        fail_msg("exit code %d: %s%s", ran.code, ran.out, ran.err);
    static const char *const files[] = {"model.onnx", "result.json", "report.html",
                                        "manifest.json"};
    for (int i = 0; i < 4; i++)
        if (!fs_exists(in_dir("%s/%s", out, files[i])))
            fail_msg("%s is not in %s: %s", files[i], out, ran.out);
}

/* The id of the job, once its first line is out. */
static void job_of(const struct hone_process *p, char id[32])
{
    hone_await_text(p->out, "\n");
    _cleanup_(freep) char *text = NULL;
    size_t bytes = 0;
    assert_int_equal(fs_read(p->out, 1 << 16, (void **)&text, &bytes, NULL), 0);
    const char *at = strstr(text, "Job ");
    assert_non_null(at);
    snprintf(id, 32, "%.*s", (int)strcspn(at + 4, ":"), at + 4);
}

/* ---- folders for results ---- */

static void a_place_where_nothing_can_be_written_is_named(void **state)
{
    (void)state;
    make_job();
    write_text(in_dir("file"), "here");
    HONE(OPTIMIZE("file"));
    assert_refused("--out", "/file");
    _cleanup_(freep) char *below = str_printf("%s/below", in_dir("file"));
    HONE("optimize", in_dir("net.onnx"), "--data", in_dir("data"), "--out", below);
    assert_refused("--out", "/file");
    HONE("optimize", in_dir("net.onnx"), "--data", in_dir("data"), "--out", "/proc/hone/out");
    assert_refused("--out", "/proc/hone");
    HONE("jobs", "--home", "/proc/hone");
    assert_refused("home folder", "/proc/hone");
    HONE("demo", "/proc/hone");
    assert_refused("/proc/hone");
}

static void files_of_others_are_not_touched(void **state)
{
    (void)state;
    make_job();
    write_text(in_dir("mine/letter.txt"), "Dear reader");
    HONE(OPTIMIZE("mine"));
    assert_refused("/mine", "letter.txt", "--force");
    assert_true(fs_exists(in_dir("mine/letter.txt")));
    assert_false(fs_exists(in_dir("mine/.hone")));
}

static void two_runs_in_one_folder_are_not_possible_but_in_two_they_are(void **state)
{
    (void)state;
    make_job();
    struct hone_process first = HONE_START(OPTIMIZE("out"));
    char id[32];
    job_of(&first, id);
    hone_await_text(in_dir("out/.hone"), id);
    HONE(OPTIMIZE("out"));
    assert_refused("/out is in use by another run: job ", id);
    struct hone_process second = HONE_START(OPTIMIZE("other"));
    hone_wait(&first);
    assert_done("out");
    hone_wait(&second);
    assert_done("other");
    HONE(OPTIMIZE("out")); /* free again, and Hone's own: written over */
    assert_done("out");
}

/* ---- the same path with another content ---- */

/* Starts the job, waits for these words on its events, and ends it. */
static void run_until(const char *words)
{
    char id[32];
    struct hone_process p = HONE_START(OPTIMIZE("out"));
    job_of(&p, id);
    hone_await_text(p.out, words);
    HONE("cancel", id);
    if (ran.code != 0) /* it was quicker */
        assert_refused(id, "has ended already");
    hone_wait(&p);
}

/* What an earlier job found out about a file must not be believed of another one in its place. */
static void inputs_that_changed_in_their_place_are_other_inputs(void **state)
{
    (void)state;
    make_job();
    run_until("agreement 100.00 % on 8 samples, 0.0 M MACs, 0.000 M parameters");
    for (int i = 0; i < 8; i++)
        write_png(in_dir("data/test/cat/more%d.png", i), 8, 8, 200 + i);
    run_until("on 16 samples, 0.0 M MACs, 0.000 M parameters");
    model_file("net.onnx", "input x float N,3,8,8\n"
                           "init other float 400,3,3,3 rand\n"
                           "Conv conv_other x,other -> y\n"
                           "GlobalAveragePool pool y -> p\n"
                           "Flatten flat p -> q\n"
                           "output q\n");
    run_until("on 16 samples, 0.4 M MACs, 0.011 M parameters");
}

/* ---- Ctrl-C ---- */

static void a_job_goes_on_after_ctrl_c_until_it_is_cancelled(void **state)
{
    (void)state;
    make_job();
    char id[32];
    struct hone_process p = HONE_START(OPTIMIZE("out"), "--seed", "11");
    job_of(&p, id);
    kill(p.pid, SIGINT);
    hone_wait(&p);
    hone_assert_code(130);
    assert_says("The job goes on", "hone watch ", "hone cancel ", id);
    HONE("jobs");
    hone_assert_code(0);
    assert_non_null(strstr(ran.out, id));
    struct hone_process watching = HONE_START("watch", id);
    hone_await_text(watching.out, "original");
    kill(watching.pid, SIGINT);
    hone_wait(&watching);
    hone_assert_code(130);
    HONE("cancel", id);
    hone_assert_code(0);
    HONE("watch", id);
    if (ran.code != (strstr(ran.out, "succeeded") ? 0 : 1))
        fail_msg("watch ended with %d: %s", ran.code, ran.out);
    HONE("get", id, "--out", in_dir("fetched"));
    if (strstr(ran.err, "cancelled"))
        assert_refused(id, "was cancelled");
    assert_int_equal(fs_exists(in_dir("fetched")), ran.code != 1);
}

/* The same job as before: known. */
static void a_job_that_nobody_watches_can_be_fetched_later(void **state)
{
    (void)state;
    make_job();
    char id[32];
    struct hone_process p = HONE_START(OPTIMIZE("out"));
    job_of(&p, id);
    kill(p.pid, SIGTERM);
    clock_sleep_ms(50);
    kill(p.pid, SIGKILL);
    waitpid(p.pid, NULL, 0);
    HONE("watch", id);
    hone_assert_code(0);
    HONE("get", id, "--out", in_dir("fetched"));
    assert_done("fetched");
}

static void jobs_that_are_none_are_named(void **state)
{
    (void)state;
    static const char *const commands[] = {"watch", "cancel", "get"};
    for (int i = 0; i < 3; i++) {
        HONE(commands[i], "nosuchjob");
        assert_refused("nosuchjob");
        HONE(commands[i], "../../etc/passwd");
        assert_refused("is no job id");
    }
    assert_false(fs_exists("hone-out"));
}

/* ---- names that need care ---- */

static void hostile_names_come_through(void **state)
{
    (void)state;
    char name[] = "we\"ird '<b>&amp;\\ \xff\xc3\xa9 %s.onnx";
    make_job();
    assert_int_equal(rename(in_dir("net.onnx"), in_dir("%s", name)), 0);
    HONE("optimize", in_dir("%s", name), "--data", in_dir("data"), "--preprocess", GIVEN, "--out",
         in_dir("out"), "--max-drop", "100", "--space", "precision", "--json");
    assert_done("out");
    char *rest = ran.out;
    for (char *line; (line = strsep(&rest, "\n")) && *line;) {
        yyjson_doc *doc = yyjson_read(line, strlen(line), 0);
        if (!doc)
            fail_msg("not JSON: %s", line);
        yyjson_doc_free(doc);
    }
    static const char *const files[] = {"result.json", "manifest.json"};
    for (int i = 0; i < 2; i++) {
        _cleanup_(freep) char *text = NULL;
        size_t bytes = 0;
        assert_int_equal(fs_read(in_dir("out/%s", files[i]), 1 << 24, (void **)&text, &bytes, NULL),
                         0);
        yyjson_doc *doc = yyjson_read(text, bytes, 0);
        if (!doc)
            fail_msg("%s is not JSON: %s", files[i], text);
        yyjson_doc_free(doc);
    }
    HONE("jobs", "--json");
    hone_assert_code(0);
    yyjson_doc *doc = yyjson_read(ran.out, strlen(ran.out), 0);
    assert_non_null(doc);
    yyjson_doc_free(doc);
}

/* ---- disks ---- */

static void a_full_disk_for_the_results_is_said_and_nothing_half_is_left(void **state)
{
    (void)state;
    make_job();
    if (!hone_may_mount())
        skip();
    HONE(OPTIMIZE("out"));
    assert_done("out"); /* the job itself is known now */
    assert_int_equal(fs_mkdirs(in_dir("disk"), NULL), 0);
    const struct hone_how how = {.tmpfs = in_dir("disk"),
                                 .tmpfs_bytes = 16384,
                                 .script =
                                     "\"$0\" \"$@\"; code=$?; ls -lA \"$HONE_DISK\"; exit $code"};
    setenv("HONE_DISK", in_dir("disk/out"), 1);
    HONE_HOW(&how, OPTIMIZE("disk/out"));
    hone_assert_code(1);
    assert_says("disk/out", "No space left on device");
    assert_null(strstr(ran.out, ".tmp")); /* nor a part under another name */
}

static void a_full_disk_for_the_home_ends_the_job_with_that_reason(void **state)
{
    (void)state;
    make_job();
    if (!hone_may_mount())
        skip();
    assert_int_equal(fs_mkdirs(in_dir("disk"), NULL), 0);
    const struct hone_how how = {
        .tmpfs = in_dir("disk"),
        .tmpfs_bytes = 200000,
        .script = "\"$0\" \"$@\"; code=$?; \"$0\" down --home \"$HONE_DISK\"; exit $code"};
    setenv("HONE_DISK", in_dir("disk/home"), 1);
    /* fill what the programs leave: pictures of another size make the packed data large */
    model_file("big.onnx", "input x float N,3,256,256\n"
                           "init w float 4,3,3,3 rand\n"
                           "Conv conv1 x,w -> y strides=[8,8]\n"
                           "GlobalAveragePool pool y -> p\n"
                           "Flatten flat p -> q\n"
                           "output q\n");
    HONE_HOW(&how, "optimize", in_dir("big.onnx"), "--data", in_dir("data"), "--preprocess", GIVEN,
             "--out", in_dir("out"), "--home", in_dir("disk/home"));
    hone_assert_code(1);
    assert_says("No space left on device");
    assert_false(fs_exists(in_dir("out")));
}

static void output_that_nobody_can_read_is_a_failure(void **state)
{
    (void)state;
    const struct hone_how how = {.out = "/dev/full"};
    HONE_HOW(&how, "jobs");
    hone_assert_code(1);
    HONE_HOW(&how, "version");
    hone_assert_code(1);
}

/* ---- services that die ---- */

/* With the next Hone, from where it was. */
static void goes_on(const char *id)
{
    struct hone_process watching = HONE_START("watch", id);
    hone_await_text(watching.out, "measure ");
    HONE("jobs", "--json");
    hone_assert_code(0);
    assert_non_null(strstr(ran.out, id));
    HONE("cancel", id);
    hone_assert_code(0);
    hone_wait(&watching);
}

static void every_service_may_be_killed_once(void **state)
{
    (void)state;
    static const char *const programs[] = {"hone-ingest",  "hone-exporter",    "hone-profiler",
                                           "hone-trainer", "hone-synthesizer", "redis-server"};
    make_job();
    struct hone_process p = HONE_START(OPTIMIZE("out"), "--seed", "21");
    char id[32];
    job_of(&p, id);
    for (int i = 0; i < 6; i++) {
        pid_t pid = hone_service(programs[i]);
        if (pid > 0)
            kill(pid, SIGKILL);
        clock_sleep_ms(400);
    }
    hone_wait(&p);
    assert_done("out");
    hone_forget_logs();
}

static void a_killed_supervisor_loses_no_job(void **state)
{
    (void)state;
    make_job();
    struct hone_process p = HONE_START(OPTIMIZE("out"), "--seed", "22");
    char id[32], lock[128];
    job_of(&p, id);
    hone_await_text(p.out, "read the");
    snprintf(lock, sizeof(lock), "%s/supervisor.lock", hone_home);
    _cleanup_(freep) char *text = NULL;
    size_t bytes = 0;
    int64_t pid = 0;
    assert_int_equal(fs_read(lock, 64, (void **)&text, &bytes, NULL), 0);
    assert_int_equal(str_parse_i64(text, 1, INT32_MAX, &pid, NULL), 0);
    kill((pid_t)pid, SIGKILL);
    hone_wait(&p);
    if (ran.code == 1) /* unless it was quicker */
        assert_refused("Hone went down", "hone up");
    goes_on(id);
}

/* ---- Redis ---- */

/* A folder with a redis-server that runs this script; PATH begins with it. */
static const char *path_with_redis(const char *script)
{
    static char path[1024];
    const char *usual = getenv("PATH");
    write_text(in_dir("bin/redis-server"), script);
    assert_int_equal(chmod(in_dir("bin/redis-server"), 0755), 0);
    snprintf(path, sizeof(path), "%s:%s", in_dir("bin"), usual ? usual : "/usr/bin:/bin");
    return path;
}

static void a_redis_that_cannot_start_is_said_with_its_last_words(void **state)
{
    (void)state;
    make_job();
    HONE("down");
    const struct hone_how how = {
        .path = path_with_redis("#!/bin/sh\necho 'cannot allocate the frobnicator' >&2\nexit 7\n"),
        .limit_s = 30};
    HONE_HOW(&how, OPTIMIZE("out"));
    hone_assert_code(1);
    assert_says("hone: Hone did not start: redis ended with code 7", "frobnicator");
    assert_false(fs_exists(in_dir("out")));
    HONE(OPTIMIZE("out"));
    assert_done("out");
    hone_forget_logs();
}

static void a_redis_that_dies_for_good_ends_everything_and_loses_nothing(void **state)
{
    (void)state;
    make_job();
    HONE("down");
    _cleanup_(freep) char *script =
        str_printf("#!/bin/sh\n[ -e '%s' ] && { echo the disk has gone >&2; exit 9; }\n"
                   "PATH=${PATH#*:}\nexec redis-server \"$@\"\n",
                   in_dir("dead"));
    const struct hone_how how = {.path = path_with_redis(script), .limit_s = 60};
    struct hone_process p =
        hone_start(&how, (const char *const[]){OPTIMIZE("out"), "--seed", "31", NULL});
    char id[32];
    job_of(&p, id);
    write_text(in_dir("dead"), "");
    pid_t redis = hone_service("redis-server");
    assert_true(redis > 0);
    kill(redis, SIGKILL);
    hone_wait(&p);
    hone_assert_code(1);
    assert_says("hone: Hone went down: redis ended with code 9", "the disk has gone");
    assert_true(ran.seconds < 40);
    goes_on(id);
    hone_forget_logs();
}

/* ---- sockets ---- */

static int listen_at(const char *path)
{
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(str_copy(un.sun_path, sizeof(un.sun_path), path));
    unlink(path);
    assert_int_equal(bind(fd, (struct sockaddr *)&un, sizeof(un)), 0);
    assert_int_equal(listen(fd, 4), 0);
    return fd;
}

static void sockets_left_by_the_dead_are_no_obstacle(void **state)
{
    (void)state;
    static const char *const names[] = {"ingest.sock", "redis.sock"};
    HONE("down");
    for (int i = 0; i < 2; i++) {
        char path[128];
        snprintf(path, sizeof(path), "%s/run/%s", hone_home, names[i]);
        close(listen_at(path));
    }
    HONE("jobs");
    hone_assert_code(0);
}

static void a_socket_that_another_program_holds_is_named(void **state)
{
    (void)state;
    char path[128], lock[140];
    HONE("down");
    snprintf(path, sizeof(path), "%s/run/ingest.sock", hone_home);
    snprintf(lock, sizeof(lock), "%s.lock", path);
    int fd = open(lock, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(flock(fd, LOCK_EX), 0); /* an ingest of another Hone */
    int listener = listen_at(path);
    const struct hone_how how = {.limit_s = 60};
    HONE_HOW(&how, "jobs");
    hone_assert_code(1);
    assert_says("ingest.sock: another process listens there");
    close(listener);
    close(fd);
    HONE("jobs");
    hone_assert_code(0);
    hone_forget_logs();
}

static void an_ingest_that_is_not_there_is_named(void **state)
{
    (void)state;
    const struct hone_how nobody = {.ingest = "tcp://127.0.0.1:1", .limit_s = 30};
    HONE_HOW(&nobody, "jobs");
    assert_refused("127.0.0.1:1");
    const struct hone_how garbage = {.ingest = "carrier-pigeon://x", .limit_s = 30};
    HONE_HOW(&garbage, "jobs");
    assert_refused("carrier-pigeon://x");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        DATA_TEST(a_place_where_nothing_can_be_written_is_named),
        DATA_TEST(files_of_others_are_not_touched),
        DATA_TEST(two_runs_in_one_folder_are_not_possible_but_in_two_they_are),
        DATA_TEST(inputs_that_changed_in_their_place_are_other_inputs),
        DATA_TEST(a_job_goes_on_after_ctrl_c_until_it_is_cancelled),
        DATA_TEST(a_job_that_nobody_watches_can_be_fetched_later),
        DATA_TEST(jobs_that_are_none_are_named),
        DATA_TEST(hostile_names_come_through),
        DATA_TEST(a_full_disk_for_the_results_is_said_and_nothing_half_is_left),
        DATA_TEST(a_full_disk_for_the_home_ends_the_job_with_that_reason),
        DATA_TEST(output_that_nobody_can_read_is_a_failure),
        DATA_TEST(every_service_may_be_killed_once),
        DATA_TEST(a_killed_supervisor_loses_no_job),
        DATA_TEST(a_redis_that_cannot_start_is_said_with_its_last_words),
        DATA_TEST(a_redis_that_dies_for_good_ends_everything_and_loses_nothing),
        DATA_TEST(sockets_left_by_the_dead_are_no_obstacle),
        DATA_TEST(a_socket_that_another_program_holds_is_named),
        DATA_TEST(an_ingest_that_is_not_there_is_named),
    };
    return cmocka_run_group_tests_name("faults: command line", tests, hone_set_up, hone_tear_down);
}
