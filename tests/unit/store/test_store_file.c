/* Artifacts and records in a folder: what is kept, what is refused, what a crash or full disk
 * leaves. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <dirent.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/failpoint.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/store/store.h"

static struct fixture {
    char folder[64], url[96];
    struct store *store;
    struct err err;
} f;

static int setup(void **state)
{
    (void)state;
    f = (struct fixture){.folder = "/tmp/hone-store-XXXXXX"};
    if (!mkdtemp(f.folder))
        return -1;
    snprintf(f.url, sizeof(f.url), "file://%s/s", f.folder);
    return store_open(f.url, &f.store, &f.err);
}

static int teardown(void **state)
{
    (void)state;
    failpoint_set(NULL, NULL);
    f.store = store_close(f.store);
    return fs_remove_tree(f.folder, NULL);
}

static const char *put(const char *text)
{
    static char name[HASH_HEX_BYTES];
    assert_int_equal(store_put(f.store, text, strlen(text), name, &f.err), 0);
    return name;
}

static char *object(const char *name)
{
    return str_printf("%s/s/objects/%.2s/%s", f.folder, name, name);
}

static void damage(const char *name, const char *with)
{
    _cleanup_(freep) char *path = object(name);
    assert_int_equal(fs_write_atomic(path, with, strlen(with), &f.err), 0);
}

static int count_temps(void)
{
    _cleanup_(freep) char *path = str_printf("%s/s/tmp", f.folder);
    DIR *dir = opendir(path);
    int n = 0;
    assert_non_null(dir);
    while (readdir(dir))
        n++;
    closedir(dir);
    return n - 2; /* . and .. */
}

static void an_artifact_is_named_by_its_hash_and_comes_back(void **state)
{
    (void)state;
    const char *name = put("abc");
    assert_string_equal(name, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    _cleanup_(freep) char *data = NULL;
    size_t bytes = 0;
    assert_int_equal(store_get(f.store, name, 3, (void **)&data, &bytes, &f.err), 0);
    assert_int_equal(bytes, 3);
    assert_string_equal(data, "abc");
    assert_int_equal(store_has(f.store, name, &f.err), 1);
}

static void an_empty_artifact_is_one_too(void **state)
{
    (void)state;
    const char *name = put("");
    _cleanup_(freep) void *data = NULL;
    _cleanup_(freep) char *path = NULL;
    size_t bytes = 1;
    assert_int_equal(store_get(f.store, name, 0, &data, &bytes, &f.err), 0);
    assert_int_equal(bytes, 0);
    assert_int_equal(store_get_path(f.store, name, &path, &f.err), 0);
}

static void a_file_is_kept_under_the_same_name_as_its_bytes(void **state)
{
    (void)state;
    char path[128], name[HASH_HEX_BYTES];
    snprintf(path, sizeof(path), "%s/in", f.folder);
    assert_int_equal(fs_write_atomic(path, "abc", 3, &f.err), 0);
    assert_int_equal(store_put_file(f.store, path, name, &f.err), 0);
    assert_string_equal(name, put("abc"));
    assert_int_equal(count_temps(), 0);
}

static void a_large_file_goes_in_and_out_unchanged(void **state)
{
    (void)state;
    size_t bytes = 3 * 1024 * 1024 + 17;
    _cleanup_(freep) unsigned char *data = malloc(bytes);
    for (size_t i = 0; i < bytes; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    char in[128], out[128], name[HASH_HEX_BYTES];
    snprintf(in, sizeof(in), "%s/in", f.folder);
    snprintf(out, sizeof(out), "%s/out", f.folder);
    assert_int_equal(fs_write_atomic(in, data, bytes, &f.err), 0);
    assert_int_equal(store_put_file(f.store, in, name, &f.err), 0);
    assert_int_equal(store_export(f.store, name, out, &f.err), 0);
    _cleanup_(freep) void *back = NULL;
    size_t n = 0;
    assert_int_equal(fs_read(out, bytes, &back, &n, &f.err), 0);
    assert_int_equal(n, bytes);
    assert_memory_equal(back, data, bytes);
}

static void what_is_no_file_is_refused(void **state)
{
    (void)state;
    char name[HASH_HEX_BYTES] = "untouched", path[128];
    snprintf(path, sizeof(path), "%s/fifo", f.folder);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(store_put_file(f.store, path, name, &f.err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(store_put_file(f.store, f.folder, name, &f.err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(store_put_file(f.store, "/nowhere/x", name, &f.err), -ERR_NOT_FOUND);
    assert_string_equal(name, "untouched");
}

static void an_absent_artifact_is_not_found_and_named(void **state)
{
    (void)state;
    static const char name[] = "00000000000000000000000000000000000000000000000000000000000000ff";
    void *data = NULL;
    char *path = NULL;
    size_t bytes = 0;
    assert_int_equal(store_has(f.store, name, &f.err), 0);
    assert_int_equal(store_get(f.store, name, 10, &data, &bytes, &f.err), -ERR_NOT_FOUND);
    assert_non_null(strstr(f.err.message, name));
    assert_int_equal(store_get_path(f.store, name, &path, &f.err), -ERR_NOT_FOUND);
    assert_int_equal(store_export(f.store, name, "/tmp/x", &f.err), -ERR_NOT_FOUND);
    assert_null(data);
    assert_null(path);
}

static void a_name_that_is_no_hash_is_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "", "abc", "../../../../etc/passwd",
        "BA7816BF8F01CFEA414140DE5DAE2223B00361A396177A9CB410FF61F20015AD",
        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad0"};
    void *data = NULL;
    char *path = NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(store_has(f.store, bad[i], &f.err), -ERR_INVALID_ARGUMENT);
        assert_int_equal(store_get(f.store, bad[i], 9, &data, &bytes, &f.err),
                         -ERR_INVALID_ARGUMENT);
        assert_int_equal(store_get_path(f.store, bad[i], &path, &f.err), -ERR_INVALID_ARGUMENT);
        assert_int_equal(store_export(f.store, bad[i], "/tmp/x", &f.err), -ERR_INVALID_ARGUMENT);
    }
}

static void more_than_the_reader_wants_is_refused(void **state)
{
    (void)state;
    void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(store_get(f.store, put("abcd"), 3, &data, &bytes, &f.err),
                     -ERR_RESOURCE_EXHAUSTED);
    assert_null(data);
}

static void a_changed_byte_is_data_loss_for_every_reader(void **state)
{
    (void)state;
    char name[HASH_HEX_BYTES], out[128];
    str_copy(name, sizeof(name), put("abcd"));
    snprintf(out, sizeof(out), "%s/out", f.folder);
    damage(name, "abce");
    void *data = NULL;
    char *path = NULL;
    size_t bytes = 0;
    assert_int_equal(store_get(f.store, name, 9, &data, &bytes, &f.err), -ERR_DATA_LOSS);
    assert_non_null(strstr(f.err.message, name));
    assert_int_equal(store_get_path(f.store, name, &path, &f.err), -ERR_DATA_LOSS);
    assert_int_equal(store_export(f.store, name, out, &f.err), -ERR_DATA_LOSS);
    assert_false(fs_exists(out));
}

static void a_file_changed_after_it_was_checked_is_checked_again(void **state)
{
    (void)state;
    char name[HASH_HEX_BYTES];
    str_copy(name, sizeof(name), put("abcd"));
    _cleanup_(freep) char *path = NULL;
    assert_int_equal(store_get_path(f.store, name, &path, &f.err), 0);
    damage(name, "abcx");
    char *again = NULL;
    assert_int_equal(store_get_path(f.store, name, &again, &f.err), -ERR_DATA_LOSS);
}

static void putting_again_heals_a_damaged_artifact(void **state)
{
    (void)state;
    char name[HASH_HEX_BYTES];
    str_copy(name, sizeof(name), put("abcd"));
    damage(name, "ab");
    put("abcd");
    _cleanup_(freep) void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(store_get(f.store, name, 9, &data, &bytes, &f.err), 0);
    assert_memory_equal(data, "abcd", 4);
}

static void putting_again_does_not_write_again(void **state)
{
    (void)state;
    struct stat before, after;
    _cleanup_(freep) char *path = object(put("abcd"));
    assert_int_equal(stat(path, &before), 0);
    put("abcd");
    assert_int_equal(stat(path, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
}

static void many_artifacts_are_remembered_as_checked(void **state)
{
    (void)state;
    for (int i = 0; i < 300; i++) {
        char text[32], name[HASH_HEX_BYTES];
        snprintf(text, sizeof(text), "%d", i);
        str_copy(name, sizeof(name), put(text));
        _cleanup_(freep) char *path = NULL;
        for (int twice = 0; twice < 2; twice++) {
            freep(&path);
            assert_int_equal(store_get_path(f.store, name, &path, &f.err), 0);
        }
    }
}

static int add_path(void *ctx, const char *path)
{
    strbuf_printf(ctx, "%s ", path);
    return 0;
}

static int stop_at_once(void *ctx, const char *path)
{
    (void)ctx, (void)path;
    return -ERR_CANCELLED;
}

static void put_record(const char *path, const char *text)
{
    assert_int_equal(store_record_put(f.store, path, text, strlen(text), &f.err), 0);
}

static void records_are_replaced_and_listed_in_order(void **state)
{
    (void)state;
    put_record("jobs/J2/manifest.json", "{}");
    put_record("jobs/J1/manifest.json", "{\"a\":1}");
    put_record("jobs/J1/manifest.json", "{\"a\":2}");
    put_record("jobs/J10", "x");
    put_record("other", "y");
    _cleanup_(freep) char *data = NULL;
    size_t bytes = 0;
    assert_int_equal(
        store_record_get(f.store, "jobs/J1/manifest.json", 100, (void **)&data, &bytes, &f.err), 0);
    assert_string_equal(data, "{\"a\":2}");
    static const char *const lists[][2] = {
        {"", "jobs/J1/manifest.json jobs/J10 jobs/J2/manifest.json other "},
        {"jobs/J1", "jobs/J1/manifest.json jobs/J10 "},
        {"jobs/J1/", "jobs/J1/manifest.json "},
        {"jobs/J1/m", "jobs/J1/manifest.json "},
        {"nothing", ""},
        {"../", ""},
    };
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++) {
        _cleanup_(strbuf_release) struct strbuf all = {0};
        strbuf_add(&all, "");
        assert_int_equal(store_record_list(f.store, lists[i][0], add_path, &all, &f.err), 0);
        assert_string_equal(all.data, lists[i][1]);
    }
    assert_int_equal(store_record_list(f.store, "", stop_at_once, NULL, &f.err), -ERR_CANCELLED);
}

static void a_record_cannot_leave_its_folder(void **state)
{
    (void)state;
    static const char *const bad[] = {"",      "/etc/passwd", "../x", "a/../../x", "a//b", "a/",
                                      "a/./b", ".",           "a b",  "a\nb",      "a/..", "a..b"};
    void *data = NULL;
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(store_record_put(f.store, bad[i], "x", 1, &f.err), -ERR_INVALID_ARGUMENT);
        assert_int_equal(store_record_get(f.store, bad[i], 9, &data, &bytes, &f.err),
                         -ERR_INVALID_ARGUMENT);
    }
}

static void an_absent_record_is_not_found(void **state)
{
    (void)state;
    void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(store_record_get(f.store, "jobs/J1", 9, &data, &bytes, &f.err),
                     -ERR_NOT_FOUND);
    assert_non_null(strstr(f.err.message, "jobs/J1"));
}

static void only_a_folder_can_be_a_store(void **state)
{
    (void)state;
    struct store *store = NULL;
    char url[128];
    assert_int_equal(store_open("s3://bucket/prefix", &store, &f.err), -ERR_UNIMPLEMENTED);
    static const char *const bad[] = {"", "/tmp/x", "file://relative", "file:/tmp/x", "http://x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(store_open(bad[i], &store, &f.err), -ERR_INVALID_ARGUMENT);
    snprintf(url, sizeof(url), "file://%s/file", f.folder);
    assert_int_equal(fs_write_atomic(url + strlen("file://"), "x", 1, &f.err), 0);
    assert_int_not_equal(store_open(url, &store, &f.err), 0);
    assert_non_null(strstr(f.err.message, url));
    assert_null(store);
}

static void a_store_opened_twice_is_the_same_and_another_is_not(void **state)
{
    (void)state;
    struct store *same = NULL, *other = NULL;
    char a[HASH_HEX_BYTES], b[HASH_HEX_BYTES], c[HASH_HEX_BYTES], url[128];
    snprintf(url, sizeof(url), "file://%s/other", f.folder);
    assert_int_equal(store_open(f.url, &same, &f.err), 0);
    assert_int_equal(store_open(url, &other, &f.err), 0);
    assert_int_equal(store_identity(f.store, a, &f.err), 0);
    assert_int_equal(store_identity(same, b, &f.err), 0);
    assert_int_equal(store_identity(other, c, &f.err), 0);
    assert_string_equal(a, b);
    assert_string_not_equal(a, c);
    store_close(same);
    store_close(other);
}

static void a_full_disk_is_said_and_leaves_nothing(void **state)
{
    (void)state;
    pid_t pid = fork();
    if (pid == 0) {
        /* files may not grow beyond 4 KB: write(2) fails as it does on a full disk */
        signal(SIGXFSZ, SIG_IGN);
        setrlimit(RLIMIT_FSIZE, &(struct rlimit){4096, 4096});
        static char data[100000];
        char name[HASH_HEX_BYTES];
        struct err err = {0};
        bool good =
            store_put(f.store, data, sizeof(data), name, &err) == -ERR_RESOURCE_EXHAUSTED &&
            strstr(err.message, f.folder) &&
            store_record_put(f.store, "r", data, sizeof(data), &err) == -ERR_RESOURCE_EXHAUSTED;
        _exit(good ? 0 : 1);
    }
    int status = 1;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_int_equal(status, 0);
    assert_int_equal(count_temps(), 0);
    void *data = NULL;
    size_t bytes = 0;
    assert_int_equal(store_record_get(f.store, "r", 9, &data, &bytes, &f.err), -ERR_NOT_FOUND);
}

static void a_failure_before_the_rename_leaves_nothing(void **state)
{
    (void)state;
    char name[HASH_HEX_BYTES], path[128];
    snprintf(path, sizeof(path), "%s/in", f.folder);
    assert_int_equal(fs_write_atomic(path, "abc", 3, &f.err), 0);
    assert_int_equal(failpoint_set("store.before_rename=error", &f.err), 0);
    assert_int_equal(store_put(f.store, "abc", 3, name, &f.err), -ERR_UNAVAILABLE);
    assert_int_equal(store_put_file(f.store, path, name, &f.err), -ERR_UNAVAILABLE);
    assert_int_equal(count_temps(), 0);
    assert_int_equal(failpoint_set(NULL, &f.err), 0);
    static const char abc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
    assert_int_equal(store_has(f.store, abc, &f.err), 0);
    assert_int_equal(store_put(f.store, "abc", 3, name, &f.err), 0);
}

static void a_killed_writer_leaves_old_content_or_new(void **state)
{
    (void)state;
    put_record("r", "old");
    pid_t pid = fork();
    if (pid == 0) {
        failpoint_set("store.before_rename=kill", NULL);
        store_record_put(f.store, "r", "new", 3, NULL);
        _exit(0);
    }
    int status = 0;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status));
    _cleanup_(freep) char *data = NULL;
    size_t bytes = 0;
    assert_int_equal(store_record_get(f.store, "r", 9, (void **)&data, &bytes, &f.err), 0);
    assert_string_equal(data, "old");
    assert_int_equal(count_temps(), 1);
}

static void old_leftovers_are_swept_at_open_and_young_ones_are_not(void **state)
{
    (void)state;
    static const char *const names[] = {"store.tmp.oldold", "store.tmp.newnew", "something-else"};
    static const long ages[] = {2 * 86400, 3600, 2 * 86400};
    for (int i = 0; i < 3; i++) {
        _cleanup_(freep) char *path = str_printf("%s/s/tmp/%s", f.folder, names[i]);
        assert_int_equal(fs_write_atomic(path, "x", 1, &f.err), 0);
        time_t then = clock_wall_ms() / 1000 - ages[i];
        struct timespec times[2] = {{.tv_sec = then}, {.tv_sec = then}};
        assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
    }
    store_close(f.store);
    assert_int_equal(store_open(f.url, &f.store, &f.err), 0);
    for (int i = 0; i < 3; i++) {
        _cleanup_(freep) char *path = str_printf("%s/s/tmp/%s", f.folder, names[i]);
        assert_int_equal(fs_exists(path), i != 0);
    }
}

static void an_export_replaces_a_file_in_any_kind_of_path(void **state)
{
    (void)state;
    const char *name = put("abc");
    char here[PATH_MAX];
    assert_non_null(getcwd(here, sizeof(here)));
    assert_int_equal(chdir(f.folder), 0);
    int r = store_export(f.store, name, "plain", &f.err);
    r |= store_export(f.store, name, "./plain", &f.err);
    assert_int_equal(chdir(here), 0);
    assert_int_equal(r, 0);
    char path[128];
    snprintf(path, sizeof(path), "%s/plain", f.folder);
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    assert_int_equal(store_export(f.store, name, "", &f.err), -ERR_INVALID_ARGUMENT);
    assert_int_equal(store_export(f.store, name, "/nowhere/x", &f.err), -ERR_NOT_FOUND);
    assert_non_null(strstr(f.err.message, "/nowhere"));
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    static const struct CMUnitTest tests[] = {
        TEST(an_artifact_is_named_by_its_hash_and_comes_back),
        TEST(an_empty_artifact_is_one_too),
        TEST(a_file_is_kept_under_the_same_name_as_its_bytes),
        TEST(a_large_file_goes_in_and_out_unchanged),
        TEST(what_is_no_file_is_refused),
        TEST(an_absent_artifact_is_not_found_and_named),
        TEST(a_name_that_is_no_hash_is_refused),
        TEST(more_than_the_reader_wants_is_refused),
        TEST(a_changed_byte_is_data_loss_for_every_reader),
        TEST(a_file_changed_after_it_was_checked_is_checked_again),
        TEST(putting_again_heals_a_damaged_artifact),
        TEST(putting_again_does_not_write_again),
        TEST(many_artifacts_are_remembered_as_checked),
        TEST(records_are_replaced_and_listed_in_order),
        TEST(a_record_cannot_leave_its_folder),
        TEST(an_absent_record_is_not_found),
        TEST(only_a_folder_can_be_a_store),
        TEST(a_store_opened_twice_is_the_same_and_another_is_not),
        TEST(a_full_disk_is_said_and_leaves_nothing),
        TEST(a_failure_before_the_rename_leaves_nothing),
        TEST(a_killed_writer_leaves_old_content_or_new),
        TEST(old_leftovers_are_swept_at_open_and_young_ones_are_not),
        TEST(an_export_replaces_a_file_in_any_kind_of_path),
    };
#undef TEST
    return cmocka_run_group_tests_name("store: files", tests, NULL, NULL);
}
