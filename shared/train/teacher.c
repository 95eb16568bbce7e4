#include "shared/train/teacher.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "shared/base/clock.h"
#include "shared/base/fs.h"
#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/graph/onnx.h"

#define MAGIC "HONETEAC"
#define VERSION 1
#define HEADER_BYTES 4096
#define MAX_VIEWS 65536
/* What is computed between two looks at the disk: some seconds of work. */
#define ROUND 16384
#define LOCK_POLL_MS 100 /* while somebody else builds the same file */

struct header {
    char magic[8];
    uint32_t version, dtype;
    int64_t samples, views, width;
    int64_t rows_done; /* all, in a finished file */
    char views_key[HASH_HEX_BYTES], network[HASH_HEX_BYTES];
    char data[HASH_HEX_BYTES]; /* of everything behind the header; empty until it is finished */
    char zero[5];
};

struct teacher {
    struct fs_map map;
    struct header header;
};

/* ---- what a file is made from ---- */

int teacher_views_key(const struct augmenter *views, const char *data, char ret[65],
                      struct err *err)
{
    _cleanup_(freep) char *how = augment_text(&views->how);
    _cleanup_(freep) char *text =
        how ? str_printf("data=%s part=%s seed=%llu samples=%lld %s", data ? data : "",
                         part_name(views->part), (unsigned long long)views->seed,
                         (long long)dataset_count(views->ds, views->part), how)
            : NULL;
    return text ? hash_bytes(text, strlen(text), ret, err) : err_oom(err, "a key");
}

int teacher_network_key(const struct graph *g, const struct preprocess *pre,
                        enum precision precision, char ret[65], struct err *err)
{
    _cleanup_(freep) void *bytes = NULL;
    _cleanup_(freep) char *text = preprocess_text(pre);
    _cleanup_(hash_freep) struct hash *hash = hash_new();
    size_t n = 0;
    if (!text || !hash)
        return err_oom(err, "a key");
    int rc = onnx_write_bytes(g, &bytes, &n, err);
    if (rc < 0)
        return rc;
    hash_add(hash, bytes, n);
    hash_add(hash, text, strlen(text));
    hash_add(hash, precision_name(precision), strlen(precision_name(precision)));
    hash_hex(hash, ret);
    return 0;
}

static int64_t row_bytes(const struct header *h)
{
    return h->width * (int64_t)dtype_bytes((enum dtype)h->dtype);
}

static int64_t file_bytes(const struct header *h)
{
    return HEADER_BYTES + h->samples * h->views * row_bytes(h);
}

static int make_header(const struct graph *g, const struct augmenter *views,
                       const struct teacher_options *options, struct header *h, struct err *err)
{
    *h = (struct header){.version = VERSION,
                         .dtype = options->dtype == DTYPE_F32 ? DTYPE_F32 : DTYPE_F16,
                         .samples = dataset_count(views->ds, views->part),
                         .views = options->views};
    memcpy(h->magic, MAGIC, sizeof(h->magic));
    if (options->views < 1 || options->views > MAX_VIEWS)
        return err_set(err, ERR_INVALID_ARGUMENT, "%d views of each sample; 1 to %d are possible",
                       options->views, MAX_VIEWS);
    if (h->samples < 1)
        return err_set(err, ERR_FAILED_PRECONDITION, "%s", "there are no samples to learn from");
    int rc = infer_output_width(g, &h->width, err);
    if (rc == 0)
        rc = augment_check(&views->how, views->ds, err);
    if (rc == 0)
        rc = teacher_views_key(views, options->data, h->views_key, err);
    if (rc == 0)
        rc = teacher_network_key(g, &views->pre, options->precision, h->network, err);
    return rc;
}

static bool same_work(const struct header *a, const struct header *b)
{
    return memcmp(a->magic, b->magic, sizeof(a->magic)) == 0 && a->version == b->version &&
           a->dtype == b->dtype && a->samples == b->samples && a->views == b->views &&
           a->width == b->width && memcmp(a->views_key, b->views_key, sizeof(a->views_key)) == 0 &&
           memcmp(a->network, b->network, sizeof(a->network)) == 0;
}

/* ---- building ---- */

struct build {
    struct graph *g; /* up to the logits */
    const struct augmenter *views;
    const struct teacher_options *options;
    struct header header;
    const char *path; /* of the part */
    int fd;
    int64_t first;    /* row of the round */
    float *rows;      /* [ROUND][width] */
    uint16_t *halves; /* the same in f16 */
};

static void build_release(struct build *b)
{
    graph_free(b->g);
    fs_closep(&b->fd);
    free(b->rows);
    free(b->halves);
}

/* Row r is sample r mod n of view r / n. */
static int fill_rows(void *ctx, int64_t first, int64_t count, float *out, struct err *err)
{
    const struct build *b = ctx;
    const int64_t n = b->header.samples;
    int64_t shape[3];
    dataset_sample_shape(b->views->ds, shape);
    for (int64_t k = 0; k < count; k++) {
        const int64_t row = b->first + first + k;
        const uint32_t i = (uint32_t)(row % n);
        int rc = augment_fill(b->views, (uint64_t)(row / n), &i, 1,
                              out + k * shape[0] * shape[1] * shape[2], err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int report(void *ctx, int64_t done, int64_t total, struct err *err)
{
    (void)total;
    const struct build *b = ctx;
    if (!b->options->progress)
        return 0;
    return b->options->progress(b->options->progress_ctx, b->first + done,
                                b->header.samples * b->header.views, err);
}

static int write_at(const struct build *b, const void *data, int64_t bytes, int64_t at,
                    struct err *err)
{
    const char *from = data;
    while (bytes > 0) {
        const ssize_t n = pwrite(b->fd, from, (size_t)bytes, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "%s", b->path);
        from += n;
        at += n;
        bytes -= n;
    }
    return 0;
}

/* The rows first, then the header that counts them: a header never promises more than is there. */
static int keep_round(struct build *b, int64_t count, struct err *err)
{
    const void *data = b->rows;
    if (b->header.dtype == DTYPE_F16) {
        for (int64_t i = 0; i < count * b->header.width; i++)
            b->halves[i] = f32_to_f16(b->rows[i]);
        data = b->halves;
    }
    const int64_t bytes = row_bytes(&b->header);
    int rc = write_at(b, data, count * bytes, HEADER_BYTES + b->first * bytes, err);
    if (rc == 0 && fdatasync(b->fd) < 0)
        rc = err_errno(err, errno, "%s", b->path);
    if (rc < 0)
        return rc;
    b->header.rows_done = b->first + count;
    return write_at(b, &b->header, sizeof(b->header), 0, err);
}

/* 1: it is ours alone; 0: somebody else builds it, or has just finished it. */
static int lock_part(struct build *b, struct err *err)
{
    struct stat ours, named;
    fs_closep(&b->fd);
    b->fd = open(b->path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (b->fd < 0)
        return err_errno(err, errno, "%s", b->path);
    if (flock(b->fd, LOCK_EX | LOCK_NB) < 0)
        return errno == EWOULDBLOCK ? 0 : err_errno(err, errno, "%s", b->path);
    if (fstat(b->fd, &ours) < 0)
        return err_errno(err, errno, "%s", b->path);
    return stat(b->path, &named) == 0 && named.st_ino == ours.st_ino;
}

/* Whoever finds it being built waits, and asks meanwhile whether to go on. */
static int take_part(struct build *b, struct err *err)
{
    for (;;) {
        int rc = lock_part(b, err);
        if (rc != 0)
            return rc < 0 ? rc : 0;
        rc = report(b, 0, 0, err);
        if (rc < 0)
            return rc;
        clock_sleep_ms(LOCK_POLL_MS);
    }
}

static int open_part(struct build *b, struct err *err)
{
    struct header old;
    struct stat st;
    if (fstat(b->fd, &st) < 0)
        return err_errno(err, errno, "%s", b->path);
    if (pread(b->fd, &old, sizeof(old), 0) == (ssize_t)sizeof(old) && same_work(&old, &b->header) &&
        old.rows_done >= 0 && old.rows_done <= old.samples * old.views &&
        st.st_size >= HEADER_BYTES + old.rows_done * row_bytes(&old)) {
        b->header.rows_done = old.rows_done;
        return 0;
    }
    if (ftruncate(b->fd, 0) < 0 || ftruncate(b->fd, HEADER_BYTES) < 0)
        return err_errno(err, errno, "%s", b->path);
    return write_at(b, &b->header, sizeof(b->header), 0, err);
}

static int run_rounds(struct build *b, struct err *err)
{
    const int64_t total = b->header.samples * b->header.views;
    const struct infer_options options = {.threads = b->options->threads,
                                          .batch = b->options->batch,
                                          .precision = b->options->precision,
                                          .choose_by_name = true, /* students depend on it */
                                          .progress = report,
                                          .progress_ctx = b};
    for (b->first = b->header.rows_done; b->first < total; b->first = b->header.rows_done) {
        const int64_t count = total - b->first < ROUND ? total - b->first : ROUND;
        int rc = infer_run(b->g, &options, count, fill_rows, b, b->rows, err);
        if (rc == 0)
            rc = keep_round(b, count, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* The hash of the data goes into the header, and the part gets its name. */
static int finish(struct build *b, const char *path, struct err *err)
{
    struct fs_map map = {0};
    int rc = fs_map(b->path, &map, err);
    if (rc < 0)
        return rc;
    rc = hash_bytes((const char *)map.data + HEADER_BYTES, map.bytes - HEADER_BYTES, b->header.data,
                    err);
    fs_unmap(&map);
    if (rc == 0)
        rc = write_at(b, &b->header, sizeof(b->header), 0, err);
    if (rc == 0 && fsync(b->fd) < 0)
        rc = err_errno(err, errno, "%s", b->path);
    if (rc == 0 && rename(b->path, path) < 0)
        rc = err_errno(err, errno, "%s", path);
    return rc;
}

static bool is_there(const char *path, const struct header *wanted)
{
    struct teacher *t = NULL;
    if (!fs_exists(path) || teacher_open(path, &t, NULL) < 0)
        return false;
    const bool same = same_work(&t->header, wanted);
    teacher_close(t);
    return same;
}

/* A copy without the final Softmax: of probabilities the losses would take another one. */
static int up_to_logits(const struct graph *g, struct graph **ret, struct err *err)
{
    int rc = graph_clone(g, ret, err);
    const int logits = rc < 0 ? rc : graph_logits(g);
    if (rc < 0 || logits == g->outputs[0])
        return rc;
    (*ret)->n_outputs = 0;
    rc = graph_add_output(*ret, logits, err);
    if (rc >= 0)
        rc = graph_compact(*ret, err);
    return rc < 0 ? rc : 0;
}

int teacher_build(const struct graph *g, const struct augmenter *views,
                  const struct teacher_options *options, const char *path, double *ret_rate,
                  struct err *err)
{
    _cleanup_(build_release) struct build b = {.views = views, .options = options, .fd = -1};
    int rc = up_to_logits(g, &b.g, err);
    if (rc == 0)
        rc = make_header(b.g, views, options, &b.header, err);
    if (rc < 0)
        return err_wrap(err, "teacher");
    if (ret_rate)
        *ret_rate = 0;
    if (is_there(path, &b.header))
        return 0;
    _cleanup_(freep) char *part = str_printf("%s.part", path);
    b.path = part;
    b.rows = mem_calloc((size_t)b.header.width * ROUND, sizeof(*b.rows));
    b.halves = mem_calloc((size_t)b.header.width * ROUND, sizeof(*b.halves));
    if (!part || !b.rows || !b.halves)
        return err_oom(err, "a teacher's logits");
    rc = take_part(&b, err);
    if (rc == 0 && is_there(path, &b.header)) /* who held it was about the same */
        return unlink(part) < 0 ? err_errno(err, errno, "%s", part) : 0;
    if (rc == 0)
        rc = open_part(&b, err);
    const int64_t from = b.header.rows_done, begin = clock_now_ns(NULL);
    if (rc == 0)
        rc = run_rounds(&b, err);
    if (rc == 0)
        rc = finish(&b, path, err);
    if (rc == 0 && ret_rate)
        *ret_rate =
            (double)(b.header.rows_done - from) * 1e9 / (double)(clock_now_ns(NULL) - begin);
    return rc;
}

/* ---- reading ---- */

struct teacher *teacher_close(struct teacher *t)
{
    if (t)
        fs_unmap(&t->map);
    free(t);
    return NULL;
}

void teacher_closep(struct teacher **t)
{
    *t = teacher_close(*t);
}

static int check_header(const struct teacher *t, struct err *err)
{
    const struct header *h = &t->header;
    if (memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
        return err_set(err, ERR_DATA_LOSS, "%s", "not a file of teacher's logits");
    if (h->version != VERSION)
        return err_set(err, ERR_DATA_LOSS, "version %u; this program reads %d", h->version,
                       VERSION);
    const int64_t most = (int64_t)1 << 50;
    int64_t rows, bytes;
    if ((h->dtype != DTYPE_F16 && h->dtype != DTYPE_F32) || h->samples < 1 || h->views < 1 ||
        h->views > MAX_VIEWS || h->width < 1 ||
        __builtin_mul_overflow(h->samples, h->views, &rows) ||
        __builtin_mul_overflow(rows, row_bytes(h), &bytes) || bytes > most ||
        h->rows_done != rows || h->views_key[64] || h->network[64] || h->data[64])
        return err_set(err, ERR_DATA_LOSS, "%s", "the header is damaged");
    if ((int64_t)t->map.bytes != file_bytes(h))
        return err_set(err, ERR_DATA_LOSS, "%zu bytes instead of %lld", t->map.bytes,
                       (long long)file_bytes(h));
    return 0;
}

static int read_teacher(struct teacher *t, struct err *err)
{
    char hex[HASH_HEX_BYTES];
    if (t->map.bytes < HEADER_BYTES)
        return err_set(err, ERR_DATA_LOSS, "%zu bytes are too few for a header", t->map.bytes);
    memcpy(&t->header, t->map.data, sizeof(t->header));
    int rc = check_header(t, err);
    if (rc == 0)
        rc = hash_bytes((const char *)t->map.data + HEADER_BYTES, t->map.bytes - HEADER_BYTES, hex,
                        err);
    if (rc == 0 && memcmp(hex, t->header.data, sizeof(hex)) != 0)
        rc = err_set(err, ERR_DATA_LOSS, "%s", "the logits are not what was written");
    return rc;
}

int teacher_open(const char *path, struct teacher **ret, struct err *err)
{
    _cleanup_(teacher_closep) struct teacher *t = mem_calloc(1, sizeof(*t));
    if (!t)
        return err_oom(err, "a teacher's logits");
    int rc = fs_map(path, &t->map, err);
    if (rc < 0)
        return rc;
    rc = read_teacher(t, err);
    if (rc < 0)
        return err_wrap(err, "%s", path);
    *ret = TAKE_PTR(t);
    return 0;
}

int teacher_views(const struct teacher *t)
{
    return (int)t->header.views;
}

int64_t teacher_samples(const struct teacher *t)
{
    return t->header.samples;
}

int64_t teacher_width(const struct teacher *t)
{
    return t->header.width;
}

const char *teacher_key(const struct teacher *t)
{
    return t->header.views_key;
}

const char *teacher_network(const struct teacher *t)
{
    return t->header.network;
}

void teacher_logits(const struct teacher *t, int64_t view, int64_t sample, float *ret)
{
    const struct header *h = &t->header;
    const char *at =
        (const char *)t->map.data + HEADER_BYTES + (view * h->samples + sample) * row_bytes(h);
    if (h->dtype == DTYPE_F32) {
        memcpy(ret, at, (size_t)h->width * sizeof(*ret));
        return;
    }
    const uint16_t *halves = (const uint16_t *)at;
    for (int64_t i = 0; i < h->width; i++)
        ret[i] = f16_to_f32(halves[i]);
}
