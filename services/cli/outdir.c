#include "services/cli/outdir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define MARK ".hone"

/* 1: something other than our mark is in the folder (its name in ret_name), 0: nothing. */
static int find_foreign(const char *path, char ret_name[256], struct err *err)
{
    DIR *dir = opendir(path);
    if (!dir)
        return err_errno(err, errno, "%s", path);
    const struct dirent *entry;
    int found = 0;
    while (!found && (entry = readdir(dir)) != NULL) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        str_copy(ret_name, 256, entry->d_name);
        found = 1;
    }
    closedir(dir);
    return found;
}

static int check_content(const struct outdir *out, bool force, struct err *err)
{
    char name[256];
    if (force || fs_exists(out->mark))
        return 0;
    int foreign = find_foreign(out->path, name, err);
    if (foreign <= 0)
        return foreign;
    return err_set(err, ERR_ALREADY_EXISTS,
                   "%s holds files that are not Hone's (%s); choose another --out, or --force",
                   out->path, name);
}

static int take_lock(struct outdir *out, struct err *err)
{
    out->made_mark = !fs_exists(out->mark);
    out->lock_fd = open(out->mark, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (out->lock_fd < 0)
        return err_errno(err, errno, "%s", out->mark);
    if (flock(out->lock_fd, LOCK_EX | LOCK_NB) == 0)
        return 0;
    char job[64] = "";
    if (pread(out->lock_fd, job, sizeof(job) - 1, 0) < 0)
        *job = 0;
    job[strcspn(job, "\n")] = 0;
    out->made_mark = false;
    return err_set(err, ERR_FAILED_PRECONDITION,
                   "%s is in use by another run%s%s; choose another --out, or wait", out->path,
                   *job ? ": job " : "", job);
}

int outdir_claim(const char *path, bool force, struct outdir *ret, struct err *err)
{
    _cleanup_(outdir_release) struct outdir out = {.lock_fd = -1};
    int r = fs_mkdirs(path, err);
    if (r == 0)
        r = fs_realpath(path, &out.path, err);
    if (r < 0)
        return err_wrap(err, "--out");
    out.mark = str_printf("%s/" MARK, out.path);
    if (!out.mark)
        return err_oom(err, path);
    r = check_content(&out, force, err);
    if (r == 0)
        r = take_lock(&out, err);
    if (r < 0)
        return r;
    *ret = out;
    out = (struct outdir){.lock_fd = -1};
    return 0;
}

int outdir_note(struct outdir *out, const char *job, struct err *err)
{
    if (ftruncate(out->lock_fd, 0) < 0 || pwrite(out->lock_fd, job, strlen(job), 0) < 0 ||
        pwrite(out->lock_fd, "\n", 1, (off_t)strlen(job)) < 0)
        return err_errno(err, errno, "%s", out->mark);
    return 0;
}

/* Names come from a job's result, maybe from another machine: one plain component only. */
static bool is_plain_name(const char *name)
{
    return *name && *name != '.' && !strchr(name, '/') && strlen(name) < 200;
}

static bool is_in(const Hone__V1__JobResult *result, const char *name)
{
    for (size_t i = 0; i < result->n_files; i++)
        if (strcmp(result->files[i]->name, name) == 0)
            return true;
    return false;
}

/* Files that an earlier result left and this one does not have. */
static bool is_stale(const Hone__V1__JobResult *result, const char *name)
{
    static const char *const others[] = {"model.hone", "control.onnx", "control.json"};
    bool ours = str_starts_with(name, "alternative-") &&
                (str_ends_with(name, ".onnx") || str_ends_with(name, ".hone"));
    for (size_t i = 0; i < sizeof(others) / sizeof(*others); i++)
        ours = ours || strcmp(name, others[i]) == 0;
    return ours && !is_in(result, name);
}

/* Whether the manifest that lies there is the result's: then nothing is stale. */
static bool is_there(const struct outdir *out, const Hone__V1__JobResult *result)
{
    _cleanup_(freep) char *path = str_printf("%s/manifest.json", out->path);
    char hash[HASH_HEX_BYTES] = "";
    if (!path || access(path, F_OK) != 0 || hash_file(path, hash, NULL) < 0)
        return false;
    for (size_t i = 0; i < result->n_files; i++)
        if (strcmp(result->files[i]->name, "manifest.json") == 0)
            return strcmp(result->files[i]->artifact, hash) == 0;
    return false;
}

static int remove_stale(struct outdir *out, const Hone__V1__JobResult *result, struct err *err)
{
    DIR *dir = opendir(out->path);
    if (!dir)
        return err_errno(err, errno, "%s", out->path);
    int rc = 0;
    for (struct dirent *e; rc == 0 && (e = readdir(dir)) != NULL;)
        if (is_stale(result, e->d_name) && unlinkat(dirfd(dir), e->d_name, 0) < 0)
            rc = err_errno(err, errno, "%s/%s", out->path, e->d_name);
    closedir(dir);
    return rc;
}

int outdir_fill(struct outdir *out, struct store *store, const Hone__V1__JobResult *result,
                struct err *err)
{
    const bool other = !is_there(out, result);
    for (size_t i = 0; i < result->n_files; i++) {
        const Hone__V1__JobResult__File *file = result->files[i];
        if (!is_plain_name(file->name))
            return err_set(err, ERR_DATA_LOSS, "the result names a file '%.80s'", file->name);
        _cleanup_(freep) char *path = str_printf("%s/%s", out->path, file->name);
        int r = path ? store_export(store, file->artifact, path, err) : err_oom(err, file->name);
        if (r < 0)
            return err_wrap(err, "%s", file->name);
        out->filled = true;
    }
    return other ? remove_stale(out, result, err) : 0; /* last: a full disk costs nothing */
}

void outdir_release(struct outdir *out)
{
    if (out->made_mark && !out->filled) {
        unlink(out->mark);
        rmdir(out->path); /* fails, as it should, where something else is in it */
    }
    fs_closep(&out->lock_fd);
    free(out->path);
    free(out->mark);
    *out = (struct outdir){.lock_fd = -1};
}

char *outdir_default(const char *model)
{
    const char *slash = strrchr(model, '/'), *name = slash ? slash + 1 : model;
    size_t n = strlen(name);
    if (n > 5 && str_ends_with(name, ".onnx"))
        n -= 5;
    return str_printf("hone-out/%.*s", (int)n, name);
}
