#pragma once
/*
 * Where data comes from: the files of a folder, or of an archive (tar, zip; plain or packed by
 * gzip, bzip2, xz, zstd) as it streams by. Both give relative names with '/' between folders.
 *
 * Names that leave the source (absolute, with ".."), links and devices in archives are left out and
 * counted; names with a part that begins with '.' and __MACOSX are left out silently. A folder's
 * symbolic links are followed, but never in a circle.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

struct source_entry {
    const char *name; /* "train/cat/1.png"; valid during the visit */
    bool is_folder;
    int64_t bytes;     /* -1: the archive does not say */
    const char *path;  /* of the file on disk; NULL in archives */
    void *archive;     /* struct archive *, for source_entry_read */
    int64_t index;     /* entries before this one */
    int64_t estimated; /* entries in all, as far as one can tell now */
};
typedef int source_visit(void *ctx, const struct source_entry *entry, struct err *err);

struct source_notes {
    int64_t unsafe;
    char first_unsafe[256];
};

/* Visits every file and folder; folders of the file system in sorted order, archives in theirs. A
 * negative return of the visitor stops and is returned. Broken archive: DATA_LOSS. */
int source_walk(const char *path, source_visit *visit, void *ctx, struct source_notes *ret_notes,
                struct err *err);

/* The content, malloc'ed; RESOURCE_EXHAUSTED above max_bytes. In archives once, during the visit.
 */
int source_entry_read(const struct source_entry *entry, int64_t max_bytes, void **ret_data,
                      size_t *ret_bytes, struct err *err);
/* The same into a file that is open. Written through `fd`, from its position on. */
int source_entry_copy(const struct source_entry *entry, int64_t max_bytes, int fd, struct err *err);

/* ---- folders ---- */
struct file_list {
    char **names; /* sorted, relative; folders end in '/' */
    int64_t *bytes;
    int64_t n, capacity;
};
int file_list_read(const char *folder, struct file_list *ret, struct err *err);
void file_list_release(struct file_list *list); /* for _cleanup_ */

/* ---- for both ---- */
/* Whether a name is to be left out without a word. */
bool source_name_hidden(const char *name);
