#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/source.h"

#define MAX_DEPTH 32

/* The folders that we are in, to notice links that lead back. */
struct level {
    const struct level *up;
    dev_t dev;
    ino_t ino;
    int depth;
};

void file_list_release(struct file_list *list)
{
    for (int64_t i = 0; i < list->n; i++)
        free(list->names[i]);
    free(list->names);
    free(list->bytes);
    *list = (struct file_list){0};
}

static int add(struct file_list *list, const char *name, int64_t bytes, struct err *err)
{
    if (list->n == list->capacity) {
        size_t more = list->capacity ? (size_t)list->capacity * 2 : 1024;
        char **names = mem_realloc(list->names, more, sizeof(*names));
        if (names)
            list->names = names;
        int64_t *sizes = mem_realloc(list->bytes, more, sizeof(*sizes));
        if (sizes)
            list->bytes = sizes;
        if (!names || !sizes)
            return err_oom(err, "a list of files");
        list->capacity = (int64_t)more;
    }
    list->names[list->n] = strdup(name);
    if (!list->names[list->n])
        return err_oom(err, "a list of files");
    list->bytes[list->n++] = bytes;
    return 0;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(*(char *const *)a, *(char *const *)b);
}

static void close_dir(DIR **dir)
{
    if (*dir)
        closedir(*dir);
}

struct strings {
    char **items;
    size_t n, capacity;
};

static void strings_release(struct strings *s)
{
    for (size_t i = 0; i < s->n; i++)
        free(s->items[i]);
    free(s->items);
}

/* Sorted names in a folder, hidden ones left out. Ends the folder's descriptor. */
static int read_names(const char *path, struct strings *ret, struct level *level, struct err *err)
{
    _cleanup_(close_dir) DIR *dir = opendir(path);
    struct stat st;
    if (!dir || fstat(dirfd(dir), &st) < 0)
        return err_errno(err, errno, "%s", path);
    level->dev = st.st_dev;
    level->ino = st.st_ino;
    while (true) {
        errno = 0;
        struct dirent *entry = readdir(dir);
        if (!entry && errno)
            return err_errno(err, errno, "%s", path);
        if (!entry)
            break;
        if (source_name_hidden(entry->d_name))
            continue;
        if (ret->n == ret->capacity) {
            size_t more = ret->capacity ? ret->capacity * 2 : 64;
            char **grown = mem_realloc(ret->items, more, sizeof(*grown));
            if (!grown)
                return err_oom(err, path);
            ret->items = grown;
            ret->capacity = more;
        }
        ret->items[ret->n] = strdup(entry->d_name);
        if (!ret->items[ret->n])
            return err_oom(err, path);
        ret->n++;
    }
    if (ret->n)
        qsort(ret->items, ret->n, sizeof(*ret->items), by_name);
    return 0;
}

static bool is_circle(const struct level *level)
{
    for (const struct level *up = level->up; up; up = up->up)
        if (up->dev == level->dev && up->ino == level->ino)
            return true;
    return false;
}

static int walk(const char *folder, const char *relative, const struct level *up,
                struct file_list *list, struct err *err)
{
    struct level level = {.up = up, .depth = up ? up->depth + 1 : 0};
    _cleanup_(strings_release) struct strings names = {0};
    if (level.depth > MAX_DEPTH)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: folders are nested more than %d deep",
                       folder, MAX_DEPTH);
    int r = read_names(folder, &names, &level, err);
    if (r < 0 || is_circle(&level))
        return r;
    for (size_t i = 0; i < names.n && r == 0; i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s", folder, names.items[i]);
        _cleanup_(freep) char *name =
            str_printf("%s%s%s", relative, *relative ? "/" : "", names.items[i]);
        struct stat st;
        if (!path || !name)
            return err_oom(err, folder);
        if (stat(path, &st) < 0)
            continue; /* a link to nothing, or gone meanwhile */
        if (S_ISREG(st.st_mode))
            r = add(list, name, st.st_size, err);
        if (!S_ISDIR(st.st_mode))
            continue;
        _cleanup_(freep) char *folder_name = str_printf("%s/", name);
        r = folder_name ? add(list, folder_name, 0, err) : err_oom(err, folder);
        if (r == 0)
            r = walk(path, name, &level, list, err);
    }
    return r;
}

int file_list_read(const char *folder, struct file_list *ret, struct err *err)
{
    struct file_list list = {0};
    int r = walk(folder, "", NULL, &list, err);
    if (r < 0) {
        file_list_release(&list);
        return r;
    }
    *ret = list;
    return 0;
}
