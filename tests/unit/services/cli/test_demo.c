/* The demo's pictures: the same everywhere, different from each other. */
#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "services/cli/demo.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define BYTES (DEMO_SIZE * DEMO_SIZE * 3)

static char folder[256];

static int make_folder(void **state)
{
    (void)state;
    const char *top = getenv("TMPDIR");
    snprintf(folder, sizeof(folder), "%s/demo.XXXXXX", top ? top : "/tmp");
    return mkdtemp(folder) ? 0 : -1;
}

static int remove_folder(void **state)
{
    (void)state;
    return fs_remove_tree(folder, NULL);
}

static const char *in_folder(const char *name)
{
    static char path[512];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    return path;
}

static void pictures_are_the_same_on_every_machine(void **state)
{
    (void)state;
    uint8_t rgb[DEMO_CLASSES][BYTES];
    char hex[HASH_HEX_BYTES];
    for (int i = 0; i < DEMO_CLASSES; i++)
        demo_draw(DEMO_SEED, (uint64_t)i, i, rgb[i]);
    assert_int_equal(hash_bytes(rgb, sizeof(rgb), hex, NULL), 0);
    /* the network of the demo was trained on these */
    assert_string_equal(hex, "ae64725ee9fa50a6eef1ec09062d5a749bf20099db2b97842f5e77f46b8f3c49");
}

static void seed_index_and_label_all_matter(void **state)
{
    (void)state;
    uint8_t a[BYTES], b[BYTES];
    demo_draw(1, 2, 3, a);
    demo_draw(1, 2, 3, b);
    assert_memory_equal(a, b, BYTES);
    demo_draw(2, 2, 3, b);
    assert_memory_not_equal(a, b, BYTES);
    demo_draw(1, 3, 3, b);
    assert_memory_not_equal(a, b, BYTES);
    demo_draw(1, 2, 4, b);
    assert_memory_not_equal(a, b, BYTES);
}

static void names_of_classes_are_in_the_order_of_labels(void **state)
{
    (void)state;
    for (int i = 1; i < DEMO_CLASSES; i++)
        assert_true(strcmp(demo_class_name(i - 1), demo_class_name(i)) < 0);
    assert_string_equal(demo_class_name(DEMO_CLASSES), "?");
}

static int count_files(const char *path)
{
    DIR *dir = opendir(path);
    int n = 0;
    assert_non_null(dir);
    for (struct dirent *entry; (entry = readdir(dir));)
        n += entry->d_name[0] != '.';
    closedir(dir);
    return n;
}

static void the_whole_demo_is_written(void **state)
{
    (void)state;
    char dir[300], path[512];
    struct err err = {0};
    assert_int_equal(fs_write_atomic(in_folder("from.onnx"), "model", 5, NULL), 0);
    snprintf(dir, sizeof(dir), "%s/a/b", folder); /* made with its parents */
    if (demo_write(dir, in_folder("from.onnx"), DEMO_SEED, &err) < 0)
        fail_msg("%s", err.message);
    for (int i = 0; i < DEMO_CLASSES; i++) {
        snprintf(path, sizeof(path), "%s/data/train/%s", dir, demo_class_name(i));
        assert_int_equal(count_files(path), DEMO_TRAIN);
        snprintf(path, sizeof(path), "%s/data/test/%s", dir, demo_class_name(i));
        assert_int_equal(count_files(path), DEMO_TEST);
    }
    void *text;
    size_t n;
    snprintf(path, sizeof(path), "%s/model.onnx", dir);
    assert_int_equal(fs_read(path, 100, &text, &n, NULL), 0);
    assert_string_equal(text, "model");
    free(text);
    snprintf(path, sizeof(path), "%s/README.txt", dir);
    assert_int_equal(fs_read(path, 10000, &text, &n, NULL), 0);
    assert_non_null(strstr(text, "5000 training and 2000 test pictures"));
    free(text);
}

static void a_model_that_is_not_there_is_named_before_anything_is_drawn(void **state)
{
    (void)state;
    char dir[300];
    struct err err = {0};
    snprintf(dir, sizeof(dir), "%s/demo", folder);
    assert_int_equal(demo_write(dir, in_folder("missing.onnx"), 1, &err), -ERR_NOT_FOUND);
    assert_non_null(strstr(err.message, "missing.onnx"));
}

static void a_file_in_the_way_is_named(void **state)
{
    (void)state;
    char dir[300];
    struct err err = {0};
    assert_int_equal(fs_write_atomic(in_folder("file"), "x", 1, NULL), 0);
    snprintf(dir, sizeof(dir), "%s/file", folder);
    assert_true(demo_write(dir, NULL, 1, &err) < 0);
    assert_non_null(strstr(err.message, "file"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(pictures_are_the_same_on_every_machine),
        cmocka_unit_test(seed_index_and_label_all_matter),
        cmocka_unit_test(names_of_classes_are_in_the_order_of_labels),
        cmocka_unit_test_setup_teardown(the_whole_demo_is_written, make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_model_that_is_not_there_is_named_before_anything_is_drawn,
                                        make_folder, remove_folder),
        cmocka_unit_test_setup_teardown(a_file_in_the_way_is_named, make_folder, remove_folder),
    };
    return cmocka_run_group_tests_name("demo", tests, NULL, NULL);
}
