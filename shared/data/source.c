#include "shared/data/source.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

#define BLOCK (256 << 10)
#define MAX_NAME 4096

bool source_name_hidden(const char *name)
{
    const char *part = name;
    while (true) {
        if (part[0] == '.' || str_starts_with(part, "__MACOSX"))
            return true;
        part = strchr(part, '/');
        if (!part)
            return false;
        part++;
    }
}

/* ---- archives ---- */

static void close_archive(struct archive **a)
{
    if (*a)
        archive_read_free(*a);
}

/* Not support_filter_all: that would start programs for formats that the library cannot read. */
static struct archive *new_archive(void)
{
    struct archive *a = archive_read_new();
    if (!a)
        return NULL;
    archive_read_support_filter_gzip(a);
    archive_read_support_filter_bzip2(a);
    archive_read_support_filter_xz(a);
    archive_read_support_filter_zstd(a);
    archive_read_support_format_tar(a);
    archive_read_support_format_gnutar(a);
    archive_read_support_format_zip(a);
    return a;
}

static const char *reason(struct archive *a)
{
    const char *text = archive_error_string(a);
    return text ? text : "unknown error";
}

/* What came as name -> "a/b/c" without "./" and doubled or closing '/'; false: it leaves the
 * source. */
static bool clean_name(const char *from, char to[MAX_NAME])
{
    size_t n = 0;
    if (!from || *from == '/')
        return false;
    while (*from) {
        size_t part = strcspn(from, "/");
        if (part == 2 && memcmp(from, "..", 2) == 0)
            return false;
        if (part && !(part == 1 && *from == '.')) {
            if (n + part + 2 > MAX_NAME)
                return false;
            if (n)
                to[n++] = '/';
            memcpy(to + n, from, part);
            n += part;
        }
        from += part;
        from += *from == '/';
    }
    to[n] = 0;
    return true;
}

static const char *raw_name(struct archive_entry *entry)
{
    const char *name = archive_entry_pathname(entry);
    /* names that the C locale cannot express */
    return name ? name : archive_entry_pathname_utf8(entry);
}

static void note_unsafe(struct source_notes *notes, const char *name)
{
    if (notes->unsafe++ == 0)
        str_copy(notes->first_unsafe, sizeof(notes->first_unsafe), name ? name : "?");
}

/* Entries in all, from the share of the file that was read. */
static int64_t estimate(struct archive *a, int64_t index, int64_t file_bytes)
{
    int64_t used = archive_filter_bytes(a, -1);
    if (used <= 0 || used >= file_bytes)
        return index + 1;
    return (int64_t)((double)(index + 1) * (double)file_bytes / (double)used);
}

static int visit_entry(struct archive *a, struct archive_entry *from, int64_t index,
                       int64_t file_bytes, source_visit *visit, void *ctx,
                       struct source_notes *notes, struct err *err)
{
    char name[MAX_NAME];
    bool folder = archive_entry_filetype(from) == AE_IFDIR;
    bool file = archive_entry_filetype(from) == AE_IFREG;
    bool linked = archive_entry_hardlink(from) || archive_entry_symlink(from);
    if (!clean_name(raw_name(from), name) || linked || (!file && !folder)) {
        note_unsafe(notes, raw_name(from));
        return 0;
    }
    if (!*name || source_name_hidden(name))
        return 0;
    struct source_entry entry = {
        .name = name,
        .is_folder = folder,
        .bytes = archive_entry_size_is_set(from) ? archive_entry_size(from) : -1,
        .archive = a,
        .index = index,
        .estimated = estimate(a, index, file_bytes),
    };
    return visit(ctx, &entry, err);
}

static int walk_archive(const char *path, int64_t file_bytes, source_visit *visit, void *ctx,
                        struct source_notes *notes, struct err *err)
{
    _cleanup_(close_archive) struct archive *a = new_archive();
    if (!a)
        return err_oom(err, path);
    if (archive_read_open_filename(a, path, BLOCK) != ARCHIVE_OK)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a folder, tar, zip, npz or npy (%s)",
                       path, reason(a));
    for (int64_t index = 0;; index++) {
        struct archive_entry *entry;
        int r = archive_read_next_header(a, &entry);
        if (r == ARCHIVE_EOF)
            return 0;
        if (r == ARCHIVE_RETRY)
            continue;
        if (r < ARCHIVE_WARN && index == 0)
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: not a folder, tar, zip, npz or npy (%s)",
                           path, reason(a));
        if (r < ARCHIVE_WARN)
            return err_set(err, ERR_DATA_LOSS, "%s: broken archive after %lld entries: %s", path,
                           (long long)index, reason(a));
        r = visit_entry(a, entry, index, file_bytes, visit, ctx, notes, err);
        if (r < 0)
            return r;
    }
}

/* ---- folders ---- */

static int walk_folder(const char *path, source_visit *visit, void *ctx, struct err *err)
{
    _cleanup_(file_list_release) struct file_list list = {0};
    int r = file_list_read(path, &list, err);
    for (int64_t i = 0; i < list.n && r == 0; i++) {
        char *name = list.names[i];
        bool folder = str_ends_with(name, "/");
        if (folder)
            name[strlen(name) - 1] = 0;
        _cleanup_(freep) char *full = str_printf("%s/%s", path, name);
        if (!full)
            return err_oom(err, path);
        struct source_entry entry = {
            .name = name,
            .is_folder = folder,
            .bytes = list.bytes[i],
            .path = full,
            .index = i,
            .estimated = list.n,
        };
        r = visit(ctx, &entry, err);
    }
    return r;
}

int source_walk(const char *path, source_visit *visit, void *ctx, struct source_notes *ret_notes,
                struct err *err)
{
    struct source_notes notes = {0};
    struct stat st;
    if (stat(path, &st) < 0)
        return err_errno(err, errno, "%s", path);
    int r;
    if (S_ISDIR(st.st_mode))
        r = walk_folder(path, visit, ctx, err);
    else if (S_ISREG(st.st_mode))
        r = walk_archive(path, st.st_size, visit, ctx, &notes, err);
    else
        r = err_set(err, ERR_INVALID_ARGUMENT, "%s: neither a folder nor a file", path);
    if (r == 0 && ret_notes)
        *ret_notes = notes;
    return r;
}

/* ---- content ---- */

static int too_big(const struct source_entry *entry, int64_t max_bytes, struct err *err)
{
    return err_set(err, ERR_RESOURCE_EXHAUSTED, "%s: above the limit of %lld bytes", entry->name,
                   (long long)max_bytes);
}

static int read_archived(const struct source_entry *entry, int64_t max_bytes, void **ret_data,
                         size_t *ret_bytes, struct err *err)
{
    /* what the archive claims is a hint, not a promise */
    size_t capacity =
        entry->bytes > 0 && entry->bytes <= (1 << 20) ? (size_t)entry->bytes + 1 : 8192;
    size_t n = 0;
    _cleanup_(freep) char *data = malloc(capacity);
    if (!data)
        return err_oom(err, entry->name);
    while (true) {
        if (n == capacity) {
            char *grown = mem_realloc(data, capacity * 2, 1);
            if (!grown)
                return err_oom(err, entry->name);
            data = grown;
            capacity *= 2;
        }
        ssize_t got = archive_read_data(entry->archive, data + n, capacity - n);
        if (got == ARCHIVE_RETRY)
            continue;
        if (got < 0)
            return err_set(err, ERR_DATA_LOSS, "%s: broken archive: %s", entry->name,
                           reason(entry->archive));
        n += (size_t)got;
        if ((int64_t)n > max_bytes)
            return too_big(entry, max_bytes, err);
        if (got == 0)
            break;
    }
    *ret_data = TAKE_PTR(data);
    *ret_bytes = n;
    return 0;
}

int source_entry_read(const struct source_entry *entry, int64_t max_bytes, void **ret_data,
                      size_t *ret_bytes, struct err *err)
{
    if (entry->bytes > max_bytes)
        return too_big(entry, max_bytes, err);
    if (entry->path)
        return fs_read(entry->path, (size_t)max_bytes, ret_data, ret_bytes, err);
    return read_archived(entry, max_bytes, ret_data, ret_bytes, err);
}

static int write_all(int fd, const char *data, size_t n, const char *name, struct err *err)
{
    while (n) {
        ssize_t done = write(fd, data, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(err, errno, "unpacking %s", name);
        data += done;
        n -= (size_t)done;
    }
    return 0;
}

int source_entry_copy(const struct source_entry *entry, int64_t max_bytes, int fd, struct err *err)
{
    if (entry->bytes > max_bytes)
        return too_big(entry, max_bytes, err);
    _cleanup_(freep) char *block = malloc(BLOCK);
    if (!block)
        return err_oom(err, entry->name);
    for (int64_t total = 0;;) {
        ssize_t got = archive_read_data(entry->archive, block, BLOCK);
        if (got == ARCHIVE_RETRY)
            continue;
        if (got < 0)
            return err_set(err, ERR_DATA_LOSS, "%s: broken archive: %s", entry->name,
                           reason(entry->archive));
        if (got == 0)
            return 0;
        total += got;
        if (total > max_bytes)
            return too_big(entry, max_bytes, err);
        int r = write_all(fd, block, (size_t)got, entry->name, err);
        if (r < 0)
            return r;
    }
}
