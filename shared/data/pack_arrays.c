/*
 * Arrays into slots: x_train, y_train, x_test, y_test out of an .npz, a folder of .npy files, or
 * one .npy. Arrays are mapped, not loaded; those of an .npz are unpacked into a file without a name
 * first.
 */
#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"
#include "shared/data/npy.h"
#include "shared/data/pack.h"
#include "shared/data/source.h"

#define CHUNK 4096 /* rows between reports of progress */

enum { X_TRAIN, Y_TRAIN, X_TEST, Y_TEST, N_ARRAYS };
static const char *const array_names[N_ARRAYS] = {"x_train", "y_train", "x_test", "y_test"};

struct array {
    bool there;
    struct fs_map map;
    struct npy npy;
    bool channels_last; /* x: [N,H,W,C] */
};

struct arrays {
    struct pack *p;
    struct array a[N_ARRAYS];
    int64_t others;
    char first_other[128];
};

static void arrays_release(struct arrays *s)
{
    for (int i = 0; i < N_ARRAYS; i++)
        fs_unmap(&s->a[i].map);
}

static bool has_suffix(const char *path, const char *suffix)
{
    size_t n = strlen(path), m = strlen(suffix);
    return n > m && strcasecmp(path + n - m, suffix) == 0;
}

bool pack_is_arrays(const char *path)
{
    if (!fs_is_dir(path))
        return has_suffix(path, ".npz") || has_suffix(path, ".npy");
    _cleanup_(freep) char *inside = str_printf("%s/x_train.npy", path);
    return inside && fs_exists(inside);
}

/* ---- where arrays are ---- */

static int parse(struct arrays *s, int which, struct err *err)
{
    struct array *a = &s->a[which];
    int r = npy_parse(a->map.data, a->map.bytes, &a->npy, err);
    a->there = r == 0;
    return r < 0 ? err_wrap(err, "%s: %s", s->p->path, array_names[which]) : 0;
}

static int map_file(struct arrays *s, int which, const char *path, struct err *err)
{
    int r = fs_map(path, &s->a[which].map, err);
    return r < 0 ? r : parse(s, which, err);
}

static int read_folder(struct arrays *s, struct err *err)
{
    struct pack *p = s->p;
    for (int i = 0; i < N_ARRAYS; i++) {
        _cleanup_(freep) char *path = str_printf("%s/%s.npy", p->path, array_names[i]);
        if (!path)
            return err_oom(err, p->path);
        int r = fs_exists(path) ? map_file(s, i, path, err) : 0;
        if (r < 0)
            return r;
    }
    _cleanup_(freep) char *path = str_printf("%s/dataset.json", p->path);
    _cleanup_(freep) void *text = NULL;
    size_t bytes;
    if (!path)
        return err_oom(err, p->path);
    if (!fs_exists(path))
        return 0;
    int r = fs_read(path, SETTINGS_MAX_BYTES, &text, &bytes, err);
    return r < 0 ? r : settings_parse(p, text, bytes, path, err);
}

/* Unpacks one array beside the output, where there is room for data, and maps it. */
static int unpack(struct arrays *s, int which, const struct source_entry *entry, struct err *err)
{
    if (s->a[which].there)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s is in it twice", s->p->path, entry->name);
    _cleanup_(freep) char *temp = str_printf("%s.array.XXXXXX", s->p->out);
    if (!temp)
        return err_oom(err, s->p->path);
    _cleanup_(fs_closep) int fd = mkostemp(temp, O_CLOEXEC);
    if (fd < 0)
        return err_errno(err, errno, "%s", s->p->out);
    int r = source_entry_copy(entry, s->p->limits.max_bytes, fd, err);
    if (r == 0)
        r = fs_map(temp, &s->a[which].map, err);
    unlink(temp);
    return r < 0 ? err_wrap(err, "%s", s->p->path) : parse(s, which, err);
}

static int visit(void *ctx, const struct source_entry *entry, struct err *err)
{
    struct arrays *s = ctx;
    if (entry->is_folder)
        return 0;
    if (strcmp(entry->name, "dataset.json") == 0 && !s->p->settings.final) {
        _cleanup_(freep) void *text = NULL;
        size_t bytes;
        int r = source_entry_read(entry, SETTINGS_MAX_BYTES, &text, &bytes, err);
        return r < 0 ? r : settings_parse(s->p, text, bytes, entry->name, err);
    }
    for (int i = 0; i < N_ARRAYS; i++) {
        size_t n = strlen(array_names[i]);
        if (strncmp(entry->name, array_names[i], n) == 0 && strcmp(entry->name + n, ".npy") == 0)
            return unpack(s, i, entry, err);
    }
    if (s->others++ == 0)
        str_copy(s->first_other, sizeof(s->first_other), entry->name);
    return 0;
}

static int read_arrays(struct arrays *s, struct err *err)
{
    struct pack *p = s->p;
    int r;
    if (fs_is_dir(p->path))
        r = read_folder(s, err);
    else if (has_suffix(p->path, ".npy"))
        r = map_file(s, X_TRAIN, p->path, err);
    else
        r = source_walk(p->path, visit, s, NULL, err);
    if (r < 0)
        return r;
    if (!s->a[X_TRAIN].there)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: there is no array x_train in it%s%s",
                       p->path, s->others ? ", but " : "", s->first_other);
    if (s->others)
        return pack_warn(p, err, "%lld other arrays or files were ignored, for example %s",
                         (long long)s->others, s->first_other);
    return 0;
}

/* ---- shapes ---- */

static const char *shape_text(const int64_t *shape, int rank, char text[160])
{
    int n = snprintf(text, 160, "[");
    for (int i = 0; i < rank && n < 140; i++)
        n += snprintf(text + n, 160 - (size_t)n, "%s%lld", i ? "," : "", (long long)shape[i]);
    snprintf(text + n, 160 - (size_t)n, "]");
    return text;
}

static int without_ones(const int64_t *shape, int rank, int64_t *ret)
{
    int n = 0;
    for (int i = 0; i < rank; i++)
        if (shape[i] != 1)
            ret[n++] = shape[i];
    return n;
}

static int check_x(struct arrays *s, int which, struct err *err)
{
    struct array *a = &s->a[which];
    const struct npy *x = &a->npy;
    const int64_t *want = s->p->shape, *have = x->shape + 1;
    char text[2][160];
    if (x->rank < 1 || x->shape[0] == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s holds no samples", s->p->path,
                       array_names[which]);
    int64_t dims[2][NPY_MAX_RANK];
    int n_have = without_ones(have, x->rank - 1, dims[0]), n_want = without_ones(want, 3, dims[1]);
    bool equal =
        n_have == n_want && memcmp(dims[0], dims[1], (size_t)n_have * sizeof(int64_t)) == 0;
    a->channels_last =
        !equal && x->rank == 4 && have[0] == want[1] && have[1] == want[2] && have[2] == want[0];
    bool flat =
        (n_have <= 1 || n_want <= 1) && x->count / x->shape[0] == want[0] * want[1] * want[2];
    if (equal || a->channels_last || flat)
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT,
                   "%s: %s has the shape %s, but the network takes samples of %s (C,H,W)",
                   s->p->path, array_names[which], shape_text(x->shape, x->rank, text[0]),
                   shape_text(want, 3, text[1]));
}

static int check_y(struct arrays *s, int which, struct err *err)
{
    const struct npy *y = &s->a[which].npy, *x = &s->a[which - 1].npy;
    const char *path = s->p->path, *name = array_names[which];
    char text[160];
    if (!npy_type_is_integer(y->type))
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s holds %s; labels must be integers", path,
                       name, npy_type_name(y->type));
    if (y->rank < 1 || y->count != y->shape[0])
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: %s has the shape %s; labels must be one number a sample", path, name,
                       shape_text(y->shape, y->rank, text));
    if (y->count != x->shape[0])
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s has %lld labels for %lld samples", path,
                       name, (long long)y->count, (long long)x->shape[0]);
    for (int64_t i = 0; i < y->count; i++) {
        int64_t label = npy_get_i64(y, i);
        if (label < 0 || label >= PACKED_MAX_CLASSES)
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s[%lld] is %lld; labels are 0 to %d",
                           path, name, (long long)i, (long long)label, PACKED_MAX_CLASSES - 1);
    }
    return 0;
}

static int check(struct arrays *s, struct err *err)
{
    struct pack *p = s->p;
    const struct array *a = s->a;
    for (int which = 0; which < N_ARRAYS; which++) {
        bool is_x = which == X_TRAIN || which == X_TEST;
        if (!a[which].there)
            continue;
        if (!is_x && !a[which - 1].there)
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s is there, but %s is not", p->path,
                           array_names[which], array_names[which - 1]);
        int r = is_x ? check_x(s, which, err) : check_y(s, which, err);
        if (r < 0)
            return r;
    }
    if (a[X_TEST].there && a[Y_TRAIN].there != a[Y_TEST].there)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s: only one of y_train and y_test is there",
                       p->path);
    p->report->labelled = a[Y_TRAIN].there && !p->settings.unlabelled;
    return 0;
}

/* ---- samples ---- */

struct rows {
    struct arrays *s;
    int which;
    int64_t first, first_slot;
    uint8_t **buffers; /* of each worker: a row as it is, and the sample */
};

/* [H,W,C] -> [C,H,W] */
static void to_planes(const uint8_t *in, int64_t channels, int64_t pixels, size_t item,
                      uint8_t *out)
{
    for (int64_t c = 0; c < channels; c++)
        for (int64_t i = 0; i < pixels; i++)
            memcpy(out + (size_t)(c * pixels + i) * item, in + (size_t)(i * channels + c) * item,
                   item);
}

static int pack_row(void *ctx, int64_t index, int worker, struct err *err)
{
    struct rows *rows = ctx;
    struct pack *p = rows->s->p;
    const struct array *a = &rows->s->a[rows->which];
    int64_t row = rows->first + index, slot = rows->first_slot + index;
    size_t bytes = (size_t)p->writer.sample_bytes;
    uint8_t *sample = rows->buffers[worker], *other = sample + bytes;
    if (p->kind == PACKED_U8)
        npy_row_u8(&a->npy, row, sample);
    else
        npy_row_f32(&a->npy, row, (float *)(void *)sample);
    for (size_t i = 0; p->kind == PACKED_F32 && i < bytes / 4; i++)
        if (!isfinite(((float *)(void *)sample)[i]))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s: %s[%lld] holds NaN or infinity", p->path,
                           array_names[rows->which], (long long)row);
    if (a->channels_last) {
        to_planes(sample, p->shape[0], p->shape[1] * p->shape[2], p->kind == PACKED_F32 ? 4 : 1,
                  other);
        sample = other;
    }
    p->samples[slot].hash = pack_hash(sample, bytes);
    return packed_writer_put(&p->writer, slot, sample, err);
}

static int pack_part(struct arrays *s, int which, uint8_t **buffers, int64_t total, struct err *err)
{
    struct pack *p = s->p;
    const struct array *x = &s->a[which], *y = &s->a[which + 1];
    int64_t n = x->there ? x->npy.shape[0] : 0, first = p->n;
    for (int64_t i = 0; i < n; i++) {
        int r = pack_add(p, NULL, err);
        if (r < 0)
            return r;
        p->samples[first + i].part = which == X_TRAIN ? PART_TRAIN : PART_TEST;
        if (p->report->labelled)
            p->samples[first + i].label = (int32_t)npy_get_i64(&y->npy, i);
    }
    for (int64_t i = 0; i < n; i += CHUNK) {
        struct rows rows = {s, which, i, first + i, buffers};
        int64_t chunk = n - i < CHUNK ? n - i : CHUNK;
        int r = pool_for(chunk, p->options->threads, pack_row, &rows, err);
        if (r == 0)
            r = pack_progress(p, first + i + chunk, total, err);
        if (r < 0)
            return r;
    }
    return 0;
}

/* Labels are their own names. */
static int name_classes(struct pack *p, struct err *err)
{
    int32_t most = -1;
    for (int64_t i = 0; i < p->n; i++)
        most = p->samples[i].label > most ? p->samples[i].label : most;
    p->report->classes = mem_calloc((size_t)most + 2, sizeof(char *));
    if (!p->report->classes)
        return err_oom(err, "names of classes");
    for (int32_t c = 0; c <= most; c++) {
        p->report->classes[c] = str_printf("%d", c);
        p->report->n_classes = c + 1;
        if (!p->report->classes[c])
            return err_oom(err, "names of classes");
    }
    return 0;
}

static void free_buffers(uint8_t ***buffers)
{
    for (uint8_t **b = *buffers; b && *b; b++)
        free(*b);
    free(*buffers);
}

int pack_arrays(struct pack *p, struct err *err)
{
    _cleanup_(arrays_release) struct arrays s = {.p = p};
    int r = read_arrays(&s, err);
    if (r == 0)
        r = check(&s, err);
    if (r < 0)
        return r;
    bool u8 =
        s.a[X_TRAIN].npy.type == NPY_U8 && (!s.a[X_TEST].there || s.a[X_TEST].npy.type == NPY_U8);
    r = pack_open_writer(p, u8 ? PACKED_U8 : PACKED_F32, err);
    if (r < 0)
        return r;
    int threads = p->options->threads < 1 ? 1 : p->options->threads;
    _cleanup_(free_buffers) uint8_t **buffers = mem_calloc((size_t)threads + 1, sizeof(*buffers));
    for (int i = 0; buffers && i < threads; i++) {
        buffers[i] = mem_aligned((size_t)p->writer.sample_bytes * 2);
        if (!buffers[i])
            return err_oom(err, "samples");
    }
    if (!buffers)
        return err_oom(err, "samples");
    int64_t total = s.a[X_TRAIN].npy.shape[0] + (s.a[X_TEST].there ? s.a[X_TEST].npy.shape[0] : 0);
    r = pack_part(&s, X_TRAIN, buffers, total, err);
    if (r == 0)
        r = pack_part(&s, X_TEST, buffers, total, err);
    return r == 0 && p->report->labelled ? name_classes(p, err) : r;
}
