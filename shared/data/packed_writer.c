#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/packed.h"

int packed_writer_open(struct packed_writer *w, const char *out, int64_t sample_bytes,
                       int64_t max_bytes, struct err *err)
{
    char *temp = str_printf("%s.tmp.XXXXXX", out);
    if (!temp)
        return err_oom(err, out);
    int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0) {
        free(temp);
        return err_errno(err, errno, "%s", out);
    }
    *w = (struct packed_writer){fd, temp, sample_bytes, max_bytes};
    return 0;
}

void packed_writer_release(struct packed_writer *w)
{
    if (!w->temp)
        return;
    unlink(w->temp);
    fs_closep(&w->fd);
    free(w->temp);
    *w = (struct packed_writer){.fd = -1};
}

static int write_at(int fd, const void *data, size_t n, int64_t at, struct err *err)
{
    const char *from = data;
    while (n) {
        ssize_t done = pwrite(fd, from, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(err, errno, "writing the packed data set");
        from += done;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

static int read_at(int fd, void *data, size_t n, int64_t at, struct err *err)
{
    char *to = data;
    while (n) {
        ssize_t done = pread(fd, to, n, at);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return err_errno(err, errno, "reading the packed data set");
        if (done == 0)
            return err_set(err, ERR_DATA_LOSS, "the packed data set shrank while it was written");
        to += done;
        at += done;
        n -= (size_t)done;
    }
    return 0;
}

static int64_t place(const struct packed_writer *w, int64_t slot)
{
    return PACKED_SAMPLES_AT + slot * w->sample_bytes;
}

int packed_writer_put(struct packed_writer *w, int64_t slot, const void *sample, struct err *err)
{
    if (slot >= (w->max_bytes - PACKED_SAMPLES_AT) / w->sample_bytes) {
        char limit[32];
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "the packed data set would be above the limit of %s",
                       str_bytes((double)w->max_bytes, limit));
    }
    return write_at(w->fd, sample, (size_t)w->sample_bytes, place(w, slot), err);
}

int packed_writer_get(const struct packed_writer *w, int64_t slot, void *sample, struct err *err)
{
    return read_at(w->fd, sample, (size_t)w->sample_bytes, place(w, slot), err);
}

/*
 * Follows each cycle of the permutation, one sample in the hand. Slots that order leaves out
 * (broken pictures) go to the end, where the file is cut off: what is in them is neither read nor
 * written.
 */
static int turn_cycle(struct packed_writer *w, int64_t *from, const bool *used, int64_t start,
                      int64_t n, uint8_t *hand, struct err *err)
{
    uint8_t *moving = hand + w->sample_bytes;
    int r = used[start] ? packed_writer_get(w, start, hand, err) : 0;
    int64_t to = start;
    while (r == 0 && from[to] != start) {
        int64_t next = from[to];
        if (to < n)
            r = packed_writer_get(w, next, moving, err);
        if (r == 0 && to < n)
            r = packed_writer_put(w, to, moving, err);
        from[to] = to;
        to = next;
    }
    from[to] = to;
    return r == 0 && to < n ? packed_writer_put(w, to, hand, err) : r;
}

int packed_writer_arrange(struct packed_writer *w, const int64_t *order, int64_t n, int64_t n_slots,
                          struct err *err)
{
    _cleanup_(freep) int64_t *from = mem_calloc((size_t)n_slots + 1, sizeof(*from));
    _cleanup_(freep) bool *used = mem_calloc((size_t)n_slots + 1, sizeof(*used));
    _cleanup_(freep) uint8_t *hand = malloc((size_t)w->sample_bytes * 2);
    if (!from || !used || !hand)
        return err_oom(err, "ordering the samples");
    for (int64_t i = 0; i < n; i++) {
        from[i] = order[i];
        used[order[i]] = true;
    }
    for (int64_t slot = 0, at = n; slot < n_slots; slot++)
        if (!used[slot])
            from[at++] = slot;
    int r = 0;
    for (int64_t start = 0; start < n && r == 0; start++)
        if (from[start] != start)
            r = turn_cycle(w, from, used, start, n, hand, err);
    return r;
}

static int write_names(struct packed_writer *w, char *const *classes, int64_t n, int64_t at,
                       int64_t *ret_end, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    for (int64_t i = 0; i < n; i++)
        strbuf_add_bytes(&text, classes[i], strlen(classes[i]) + 1);
    if (text.failed)
        return err_oom(err, "names of classes");
    *ret_end = at + (int64_t)text.length;
    return write_at(w->fd, text.data, text.length, at, err);
}

static int sync_folder(const char *path, struct err *err)
{
    char folder[PATH_MAX];
    if (!str_copy(folder, sizeof(folder), path))
        return err_set(err, ERR_INVALID_ARGUMENT, "%.100s...: the name is too long", path);
    _cleanup_(fs_closep) int fd = open(dirname(folder), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd >= 0)
        fsync(fd); /* some file systems cannot; the file itself is safe */
    return 0;
}

int packed_writer_finish(struct packed_writer *w, struct packed_header *header,
                         const int32_t *labels, char *const *classes, const char *out,
                         struct err *err)
{
    int64_t n = header->n[PART_TRAIN] + header->n[PART_SEARCH] + header->n[PART_TEST];
    int64_t end = place(w, n);
    memcpy(header->magic, PACKED_MAGIC, sizeof(header->magic));
    header->version = PACKED_VERSION;
    header->samples_at = PACKED_SAMPLES_AT;
    if (ftruncate(w->fd, end) < 0)
        return err_errno(err, errno, "%s", out);
    int r = 0;
    if (header->n_classes) {
        header->labels_at = (end + 63) / 64 * 64;
        header->names_at = header->labels_at + n * (int64_t)sizeof(*labels);
        r = write_at(w->fd, labels, (size_t)n * sizeof(*labels), header->labels_at, err);
        if (r == 0)
            r = write_names(w, classes, header->n_classes, header->names_at, &end, err);
    }
    header->file_bytes = end;
    if (r == 0)
        r = write_at(w->fd, header, sizeof(*header), 0, err);
    if (r < 0)
        return r;
    if (fchmod(w->fd, 0644) < 0 || fsync(w->fd) < 0 || rename(w->temp, out) < 0)
        return err_errno(err, errno, "%s", out);
    /* the file has its name now: nothing to remove */
    fs_closep(&w->fd);
    free(TAKE_PTR(w->temp));
    return sync_folder(out, err);
}
