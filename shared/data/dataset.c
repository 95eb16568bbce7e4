/* Opening and reading packed files. */
#include "shared/data/dataset.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/data/packed.h"

const struct dataset_limits dataset_default_limits = {
    .max_samples = 10000000,
    .max_picture_pixels = 100000000,
    .max_picture_bytes = 64 << 20,
    .max_bytes = 64LL << 30,
};

struct dataset {
    struct fs_map map;
    struct packed_header header;
    int64_t sample_bytes;
    int64_t first[PART_COUNT]; /* sample with which each part begins */
    const char **names;
};

static const char *const part_names[PART_COUNT] = {"train", "search", "test"};

const char *part_name(enum part part)
{
    return (unsigned)part < PART_COUNT ? part_names[part] : "?";
}

int part_parse(const char *text, enum part *ret, struct err *err)
{
    for (int i = 0; i < PART_COUNT; i++) {
        if (strcmp(text, part_names[i]) == 0) {
            *ret = (enum part)i;
            return 0;
        }
    }
    return err_set(err, ERR_INVALID_ARGUMENT, "part '%.60s' is none of train, search, test", text);
}

void dataset_report_release(struct dataset_report *report)
{
    for (int i = 0; report->classes && i < report->n_classes; i++)
        free(report->classes[i]);
    for (int i = 0; report->warnings && i < report->n_warnings; i++)
        free(report->warnings[i]);
    free(report->classes);
    free(report->warnings);
    free(report->preprocess);
    *report = (struct dataset_report){0};
}

static int damaged(const char *path, const char *what, struct err *err)
{
    return err_set(err, ERR_DATA_LOSS, "%s: damaged packed data set: %s", path, what);
}

/* [at, at + bytes) lies behind `from` and within the file. */
static bool within(const struct dataset *ds, int64_t from, int64_t at, int64_t bytes)
{
    return at >= from && at <= ds->header.file_bytes && bytes <= ds->header.file_bytes - at;
}

static int check_sizes(struct dataset *ds, const char *path, struct err *err)
{
    const struct packed_header *h = &ds->header;
    int64_t item = h->kind == PACKED_F32 ? 4 : 1, n = 0;
    if (h->kind > PACKED_F32 || h->file_bytes != (int64_t)ds->map.bytes)
        return damaged(path, "its size does not match its header", err);
    for (int i = 0; i < 3; i++) {
        if (h->shape[i] < 1 || h->shape[i] > PACKED_MAX_DIM)
            return damaged(path, "shape of the samples", err);
        item *= h->shape[i]; /* at most 4 * 2^48 */
    }
    ds->sample_bytes = item;
    for (int i = 0; i < PART_COUNT; i++) {
        if (h->n[i] < 0 || h->n[i] > h->file_bytes)
            return damaged(path, "number of samples", err);
        ds->first[i] = n;
        n += h->n[i];
    }
    if (n > UINT32_MAX)
        return damaged(path, "number of samples", err);
    int64_t bytes;
    if (__builtin_mul_overflow(n, item, &bytes) || h->samples_at % 64 != 0 ||
        !within(ds, (int64_t)sizeof(*h), h->samples_at, bytes))
        return damaged(path, "samples beyond its end", err);
    if (h->n_classes < 0 || h->n_classes > PACKED_MAX_CLASSES)
        return damaged(path, "number of classes", err);
    if (h->n_classes == 0)
        return 0;
    if (h->labels_at % 4 != 0 || !within(ds, h->samples_at + bytes, h->labels_at, n * 4) ||
        !within(ds, h->labels_at + n * 4, h->names_at, h->n_classes))
        return damaged(path, "labels beyond its end", err);
    return 0;
}

static int check_labels(struct dataset *ds, const char *path, struct err *err)
{
    const struct packed_header *h = &ds->header;
    if (h->n_classes == 0)
        return 0;
    const int32_t *labels = (const void *)((const char *)ds->map.data + h->labels_at);
    int64_t n = h->n[0] + h->n[1] + h->n[2];
    for (int64_t i = 0; i < n; i++)
        if (labels[i] < 0 || labels[i] >= h->n_classes)
            return damaged(path, "a label outside its classes", err);
    ds->names = mem_calloc((size_t)h->n_classes, sizeof(*ds->names));
    if (!ds->names)
        return err_oom(err, path);
    const char *p = (const char *)ds->map.data + h->names_at;
    const char *end = (const char *)ds->map.data + h->file_bytes;
    for (int64_t i = 0; i < h->n_classes; i++) {
        const char *zero = memchr(p, 0, (size_t)(end - p));
        if (!zero)
            return damaged(path, "names of classes", err);
        ds->names[i] = p;
        p = zero + 1;
    }
    return 0;
}

int dataset_open(const char *path, struct dataset **ret, struct err *err)
{
    _cleanup_(dataset_closep) struct dataset *ds = mem_calloc(1, sizeof(*ds));
    if (!ds)
        return err_oom(err, path);
    int r = fs_map(path, &ds->map, err);
    if (r < 0)
        return r;
    if (ds->map.bytes < sizeof(ds->header) || memcmp(ds->map.data, PACKED_MAGIC, 8) != 0)
        return damaged(path, "it does not begin like one", err);
    memcpy(&ds->header, ds->map.data, sizeof(ds->header));
    if (ds->header.version != PACKED_VERSION)
        return err_set(err, ERR_FAILED_PRECONDITION,
                       "%s: packed data set of version %u; this program reads version %d", path,
                       ds->header.version, PACKED_VERSION);
    r = check_sizes(ds, path, err);
    if (r == 0)
        r = check_labels(ds, path, err);
    if (r < 0)
        return r;
    *ret = TAKE_PTR(ds);
    return 0;
}

struct dataset *dataset_close(struct dataset *ds)
{
    if (ds) {
        fs_unmap(&ds->map);
        free(ds->names);
        free(ds);
    }
    return NULL;
}

void dataset_closep(struct dataset **ds)
{
    *ds = dataset_close(*ds);
}

void dataset_join_search(struct dataset *ds)
{
    ds->header.n[PART_TRAIN] += ds->header.n[PART_SEARCH];
    ds->header.n[PART_SEARCH] = 0;
    ds->first[PART_SEARCH] = ds->header.n[PART_TRAIN];
}

int64_t dataset_count(const struct dataset *ds, enum part part)
{
    return ds->header.n[part];
}

int dataset_classes(const struct dataset *ds)
{
    return (int)ds->header.n_classes;
}

const char *dataset_class_name(const struct dataset *ds, int label)
{
    return label >= 0 && label < ds->header.n_classes ? ds->names[label] : "?";
}

bool dataset_is_picture(const struct dataset *ds)
{
    return ds->header.kind == PACKED_U8;
}

void dataset_sample_shape(const struct dataset *ds, int64_t ret[3])
{
    memcpy(ret, ds->header.shape, sizeof(ds->header.shape));
}

const int32_t *dataset_labels(const struct dataset *ds, enum part part)
{
    if (!ds->header.n_classes)
        return NULL;
    const char *data = (const char *)ds->map.data + ds->header.labels_at;
    return (const int32_t *)(const void *)data + ds->first[part];
}

static const void *sample(const struct dataset *ds, enum part part, int64_t i)
{
    int64_t at = ds->header.samples_at + (ds->first[part] + i) * ds->sample_bytes;
    return (const char *)ds->map.data + at;
}

const uint8_t *dataset_u8(const struct dataset *ds, enum part part, int64_t i)
{
    return sample(ds, part, i);
}

const float *dataset_f32(const struct dataset *ds, enum part part, int64_t i)
{
    return sample(ds, part, i);
}
