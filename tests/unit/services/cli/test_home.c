/* The home folder, the folder for results. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <stdio.h>
#include <sys/stat.h>
#include <unistd.h>
#include <cmocka.h>

#include "services/cli/home.h"
#include "services/cli/outdir.h"
#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

static char folder[64];

static int set_up(void **state)
{
    (void)state;
    str_copy(folder, sizeof(folder), "/tmp/hone-cli-XXXXXX");
    unsetenv("HONE_HOME");
    unsetenv("XDG_STATE_HOME");
    unsetenv("XDG_RUNTIME_DIR");
    return mkdtemp(folder) ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

static void the_flag_wins_over_the_environment(void **state)
{
    (void)state;
    char path[128], flag[128];
    struct home h = {0};
    snprintf(path, sizeof(path), "%s/env", folder);
    snprintf(flag, sizeof(flag), "%s/flag", folder);
    setenv("HONE_HOME", path, 1);
    assert_int_equal(home_open(flag, &h, NULL), 0);
    assert_string_equal(h.dir, flag);
    home_release(&h);
    assert_int_equal(home_open(NULL, &h, NULL), 0);
    assert_string_equal(h.dir, path);
    home_release(&h);
}

static void the_state_folder_of_the_desktop_is_used(void **state)
{
    (void)state;
    char expected[128];
    struct home h = {0};
    setenv("XDG_STATE_HOME", folder, 1);
    snprintf(expected, sizeof(expected), "%s/hone", folder);
    assert_int_equal(home_open(NULL, &h, NULL), 0);
    assert_string_equal(h.dir, expected);
    home_release(&h);
}

static void folders_with_sockets_and_data_are_for_the_user_alone(void **state)
{
    (void)state;
    struct home h = {0};
    struct stat st;
    assert_int_equal(home_open(folder, &h, NULL), 0);
    assert_int_equal(stat(h.run, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    _cleanup_(freep) char *artifacts = str_printf("%s/artifacts", h.dir);
    assert_int_equal(stat(artifacts, &st), 0);
    assert_int_equal(st.st_mode & 077, 0);
    home_release(&h);
}

static void a_path_too_long_for_sockets_gets_a_short_folder_for_them(void **state)
{
    (void)state;
    char path[256];
    struct home h = {0}, again = {0};
    int n = snprintf(path, sizeof(path), "%s/", folder);
    memset(path + n, 'x', 100);
    path[n + 100] = 0;
    setenv("XDG_RUNTIME_DIR", folder, 1);
    assert_int_equal(home_open(path, &h, NULL), 0);
    assert_true(strlen(h.ingest_socket) + strlen(".lock") < 108);
    assert_true(str_starts_with(h.run, folder));
    assert_true(fs_is_dir(h.run));
    assert_int_equal(home_open(path, &again, NULL), 0);
    assert_string_equal(h.run, again.run);
    home_release(&h);
    home_release(&again);
}

static void a_socket_folder_that_is_no_folder_is_refused(void **state)
{
    (void)state;
    char path[128];
    struct home h = {0};
    struct err err = {0};
    snprintf(path, sizeof(path), "%s/run", folder);
    assert_int_equal(symlink("/tmp", path), 0);
    assert_int_equal(home_open(folder, &h, &err), -ERR_PERMISSION_DENIED);
    assert_non_null(strstr(err.message, path));
}

static void one_supervisor_locks_a_home(void **state)
{
    (void)state;
    struct home h = {0};
    int first = -1, second = -1;
    struct err err = {0};
    assert_int_equal(home_open(folder, &h, NULL), 0);
    assert_int_equal(home_supervisor(&h), 0);
    assert_int_equal(home_lock(&h, &first, &err), 0);
    assert_int_equal(home_supervisor(&h), getpid());
    assert_int_equal(home_lock(&h, &second, &err), -ERR_ALREADY_EXISTS);
    assert_non_null(strstr(err.message, folder));
    fs_closep(&first);
    assert_int_equal(home_supervisor(&h), 0);
    home_release(&h);
}

/* ---- the folder for results ---- */

static char *sub(const char *name)
{
    static char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void a_fresh_folder_is_made_and_removed_when_nothing_came(void **state)
{
    (void)state;
    struct outdir out;
    assert_int_equal(outdir_claim(sub("a/b"), false, &out, NULL), 0);
    assert_true(fs_is_dir(sub("a/b")));
    outdir_release(&out);
    assert_false(fs_exists(sub("a/b")));
}

static void a_folder_with_other_files_is_refused_by_name(void **state)
{
    (void)state;
    struct outdir out;
    struct err err = {0};
    assert_int_equal(fs_mkdirs(sub("x"), NULL), 0);
    assert_int_equal(fs_write_atomic(sub("x/thesis.txt"), "x", 1, NULL), 0);
    assert_int_equal(outdir_claim(sub("x"), false, &out, &err), -ERR_ALREADY_EXISTS);
    assert_non_null(strstr(err.message, "thesis.txt"));
    assert_int_equal(outdir_claim(sub("x"), true, &out, &err), 0);
    outdir_release(&out);
    assert_true(fs_exists(sub("x/thesis.txt")));
    assert_false(fs_exists(sub("x/.hone")));
}

static void a_folder_is_for_one_run_at_a_time(void **state)
{
    (void)state;
    struct outdir first, second;
    struct err err = {0};
    assert_int_equal(outdir_claim(sub("x"), false, &first, NULL), 0);
    assert_int_equal(outdir_note(&first, "J42", NULL), 0);
    assert_int_equal(outdir_claim(sub("x"), false, &second, &err), -ERR_FAILED_PRECONDITION);
    assert_non_null(strstr(err.message, "J42"));
    outdir_release(&first);
    assert_int_equal(outdir_claim(sub("x"), false, &second, &err), 0);
    outdir_release(&second);
}

static Hone__V1__JobResult__File file_of(const char *name, const char *artifact)
{
    Hone__V1__JobResult__File file = HONE__V1__JOB_RESULT__FILE__INIT;
    file.name = (char *)name;
    file.artifact = (char *)artifact;
    return file;
}

/* A result of a manifest and another file is fetched into x. */
static void fetch(struct store *store, const char *manifest, const char *other)
{
    char names[2][HASH_HEX_BYTES];
    struct outdir out;
    assert_int_equal(store_put(store, manifest, strlen(manifest), names[0], NULL), 0);
    assert_int_equal(store_put(store, "hello", 5, names[1], NULL), 0);
    Hone__V1__JobResult__File manifest_file = file_of("manifest.json", names[0]),
                              other_file = file_of(other, names[1]),
                              *files[] = {&manifest_file, &other_file};
    Hone__V1__JobResult result = HONE__V1__JOB_RESULT__INIT;
    result.n_files = 2;
    result.files = files;
    assert_int_equal(outdir_claim(sub("x"), false, &out, NULL), 0);
    assert_int_equal(outdir_fill(&out, store, &result, NULL), 0);
    outdir_release(&out);
}

static void files_come_from_the_store_and_keep_the_folder(void **state)
{
    (void)state;
    _cleanup_(freep) char *url = str_printf("file://%s/store", folder);
    _cleanup_(store_closep) struct store *store = NULL;
    struct outdir out;
    assert_int_equal(store_open(url, &store, NULL), 0);
    fetch(store, "{1}", "result.json");
    assert_true(fs_exists(sub("x/result.json")));
    assert_int_equal(outdir_claim(sub("x"), false, &out, NULL), 0); /* ours: no --force needed */
    outdir_release(&out);
    assert_true(fs_exists(sub("x/result.json")));
}

static void files_of_an_earlier_result_go_and_others_stay(void **state)
{
    (void)state;
    _cleanup_(freep) char *url = str_printf("file://%s/store", folder);
    _cleanup_(store_closep) struct store *store = NULL;
    assert_int_equal(store_open(url, &store, NULL), 0);
    fetch(store, "{1}", "model.hone");
    fetch(store, "{2}", "alternative-int8.onnx");
    assert_false(fs_exists(sub("x/model.hone")));
    assert_int_equal(fs_write_atomic(sub("x/control.json"), "{}", 2, NULL), 0);
    assert_int_equal(fs_write_atomic(sub("x/notes.onnx"), "{}", 2, NULL), 0);
    fetch(store, "{2}", "alternative-int8.onnx"); /* the same once more */
    assert_true(fs_exists(sub("x/control.json")));
    fetch(store, "{3}", "model.onnx");
    assert_false(fs_exists(sub("x/control.json")));
    assert_false(fs_exists(sub("x/alternative-int8.onnx")));
    assert_true(fs_exists(sub("x/model.onnx")));
    assert_true(fs_exists(sub("x/notes.onnx")));
}

static void a_file_name_that_leaves_the_folder_is_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"../evil", "/etc/evil", ".hone", "", "a/b"};
    _cleanup_(freep) char *url = str_printf("file://%s/store", folder);
    _cleanup_(store_closep) struct store *store = NULL;
    char name[HASH_HEX_BYTES];
    struct outdir out;
    assert_int_equal(store_open(url, &store, NULL), 0);
    assert_int_equal(store_put(store, "hello", 5, name, NULL), 0);
    assert_int_equal(outdir_claim(sub("x"), false, &out, NULL), 0);
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        Hone__V1__JobResult__File file = file_of(names[i], name), *files[] = {&file};
        Hone__V1__JobResult result = HONE__V1__JOB_RESULT__INIT;
        result.n_files = 1;
        result.files = files;
        assert_int_equal(outdir_fill(&out, store, &result, NULL), -ERR_DATA_LOSS);
    }
    outdir_release(&out);
    assert_false(fs_exists(sub("evil")));
}

static void the_default_folder_is_named_after_the_model(void **state)
{
    (void)state;
    _cleanup_(freep) char *a = outdir_default("/models/resnet56.onnx");
    _cleanup_(freep) char *b = outdir_default("net");
    assert_string_equal(a, "hone-out/resnet56");
    assert_string_equal(b, "hone-out/net");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_flag_wins_over_the_environment),
        TEST(the_state_folder_of_the_desktop_is_used),
        TEST(folders_with_sockets_and_data_are_for_the_user_alone),
        TEST(a_path_too_long_for_sockets_gets_a_short_folder_for_them),
        TEST(a_socket_folder_that_is_no_folder_is_refused),
        TEST(one_supervisor_locks_a_home),
        TEST(a_fresh_folder_is_made_and_removed_when_nothing_came),
        TEST(a_folder_with_other_files_is_refused_by_name),
        TEST(a_folder_is_for_one_run_at_a_time),
        TEST(files_come_from_the_store_and_keep_the_folder),
        cmocka_unit_test(files_of_an_earlier_result_go_and_others_stay),
        TEST(a_file_name_that_leaves_the_folder_is_refused),
        TEST(the_default_folder_is_named_after_the_model),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
