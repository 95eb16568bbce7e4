#pragma once
/* What tests of data make for themselves: folders, PNG, JPEG, npy, tar and npz files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include <archive.h>
#include <archive_entry.h>
#include <png.h>
#include <turbojpeg.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/dataset.h"

/* ---- a folder for each test ---- */

static char make_dir[256];

static inline int make_folder(void **state)
{
    (void)state;
    const char *top = getenv("TMPDIR");
    snprintf(make_dir, sizeof(make_dir), "%s/data.XXXXXX", top ? top : "/tmp");
    return mkdtemp(make_dir) ? 0 : -1;
}

static inline int remove_folder(void **state)
{
    (void)state;
    return fs_remove_tree(make_dir, NULL);
}

#define DATA_TEST(fn) cmocka_unit_test_setup_teardown(fn, make_folder, remove_folder)

/* Path in the test's folder; its parents are made. One of eight buffers. */
static inline const char *in_dir(const char *fmt, ...)
{
    static char paths[8][512];
    static int at;
    char *path = paths[at++ % 8];
    va_list args;
    va_start(args, fmt);
    int n = snprintf(path, 512, "%s/", make_dir);
    vsnprintf(path + n, 512 - (size_t)n, fmt, args);
    va_end(args);
    char parent[512];
    str_copy(parent, sizeof(parent), path);
    *strrchr(parent, '/') = 0;
    assert_int_equal(fs_mkdirs(parent, NULL), 0);
    return path;
}

static inline void write_bytes(const char *path, const void *data, size_t n)
{
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

static inline void write_text(const char *path, const char *text)
{
    write_bytes(path, text, strlen(text));
}

/* ---- pictures ---- */

struct bytes {
    uint8_t data[1 << 16];
    size_t n;
};

static inline void png_to_bytes(png_structp png, png_bytep data, size_t n)
{
    struct bytes *out = png_get_io_ptr(png);
    assert_true(out->n + n <= sizeof(out->data));
    memcpy(out->data + out->n, data, n);
    out->n += n;
}

/* Any colour type; rows: packed as the type says. */
static inline struct bytes make_png_rows(int width, int height, int depth, int type, int interlace,
                                         const png_color *palette, int n_palette,
                                         const uint8_t *rows, size_t stride)
{
    struct bytes out = {.n = 0};
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png_create_info_struct(png);
    png_set_write_fn(png, &out, png_to_bytes, NULL);
    png_set_IHDR(png, info, (uint32_t)width, (uint32_t)height, depth, type, interlace, 0, 0);
    if (palette)
        png_set_PLTE(png, info, palette, n_palette);
    png_write_info(png, info);
    int passes = png_set_interlace_handling(png);
    for (int pass = 0; pass < passes; pass++)
        for (int y = 0; y < height; y++)
            png_write_row(png, rows + (size_t)y * stride);
    png_write_end(png, NULL);
    png_destroy_write_struct(&png, &info);
    return out;
}

/* A picture of 8x8 or so whose pixels follow from a number. */
static inline void fill_rgb(uint8_t *rgb, int width, int height, int number)
{
    for (int i = 0; i < width * height * 3; i++)
        rgb[i] = (uint8_t)(number * 37 + i * (7 + number % 11));
}

static inline struct bytes make_png(int width, int height, int number)
{
    uint8_t rgb[64 * 64 * 3];
    assert_true(width <= 64 && height <= 64);
    fill_rgb(rgb, width, height, number);
    return make_png_rows(width, height, 8, PNG_COLOR_TYPE_RGB, 0, NULL, 0, rgb, (size_t)width * 3);
}

static inline void write_png(const char *path, int width, int height, int number)
{
    struct bytes png = make_png(width, height, number);
    write_bytes(path, png.data, png.n);
}

static inline struct bytes make_jpeg(int width, int height, const uint8_t *pixels, int format,
                                     int subsampling)
{
    struct bytes out;
    unsigned char *data = out.data;
    unsigned long n = sizeof(out.data);
    tjhandle tj = tjInitCompress();
    assert_int_equal(tjCompress2(tj, pixels, width, 0, height, format, &data, &n, subsampling, 95,
                                 TJFLAG_NOREALLOC),
                     0);
    tjDestroy(tj);
    out.n = n;
    return out;
}

/* train: 12 pictures of each of two classes, test: 4 each, 8x8 */
static inline void make_two_classes(const char *top)
{
    for (int i = 0; i < 24; i++)
        write_png(in_dir("%s/train/%s/%02d.png", top, i % 2 ? "dog" : "cat", i), 8, 8, i);
    for (int i = 0; i < 8; i++)
        write_png(in_dir("%s/test/%s/%02d.png", top, i % 2 ? "dog" : "cat", i), 8, 8, 100 + i);
}

/* ---- arrays ---- */

static inline struct bytes make_npy(const char *descr, const char *shape, const char *order,
                                    const void *data, size_t n)
{
    struct bytes out;
    char header[256];
    int length =
        snprintf(header, sizeof(header), "{'descr': '%s', 'fortran_order': %s, 'shape': %s, }",
                 descr, order, shape);
    size_t padded = ((size_t)length + 10 + 64) / 64 * 64 - 10;
    memcpy(out.data, "\x93NUMPY\x01\x00", 8);
    out.data[8] = (uint8_t)padded;
    out.data[9] = (uint8_t)(padded >> 8);
    memset(out.data + 10, ' ', padded);
    memcpy(out.data + 10, header, (size_t)length);
    out.data[10 + padded - 1] = '\n';
    assert_true(10 + padded + n <= sizeof(out.data));
    if (n)
        memcpy(out.data + 10 + padded, data, n);
    out.n = 10 + padded + n;
    return out;
}

static inline void write_npy(const char *path, const char *descr, const char *shape,
                             const void *data, size_t n)
{
    struct bytes npy = make_npy(descr, shape, "False", data, n);
    write_bytes(path, npy.data, npy.n);
}

/* ---- archives ---- */

enum { MAKE_TAR, MAKE_TAR_GZ, MAKE_ZIP };

static inline struct archive *open_archive(const char *path, int kind)
{
    struct archive *a = archive_write_new();
    if (kind == MAKE_ZIP)
        archive_write_set_format_zip(a);
    else
        archive_write_set_format_pax_restricted(a);
    if (kind == MAKE_TAR_GZ)
        archive_write_add_filter_gzip(a);
    assert_int_equal(archive_write_open_filename(a, path), ARCHIVE_OK);
    return a;
}

static inline void add_entry(struct archive *a, const char *name, unsigned type, const char *link,
                             const void *data, size_t n)
{
    struct archive_entry *entry = archive_entry_new();
    archive_entry_set_pathname(entry, name);
    archive_entry_set_filetype(entry, type);
    archive_entry_set_perm(entry, 0644);
    archive_entry_set_size(entry, (int64_t)n);
    if (link)
        archive_entry_set_symlink(entry, link);
    assert_int_equal(archive_write_header(a, entry), ARCHIVE_OK);
    if (n)
        assert_int_equal(archive_write_data(a, data, n), n);
    archive_entry_free(entry);
}

static inline void add_file(struct archive *a, const char *name, const void *data, size_t n)
{
    add_entry(a, name, AE_IFREG, NULL, data, n);
}

static inline void add_png(struct archive *a, const char *name, int number)
{
    struct bytes png = make_png(8, 8, number);
    add_file(a, name, png.data, png.n);
}

static inline void close_archive(struct archive *a)
{
    assert_int_equal(archive_write_close(a), ARCHIVE_OK);
    archive_write_free(a);
}

/* ---- packing ---- */

static inline struct dataset_pack_options options_for(int64_t c, int64_t h, int64_t w)
{
    return (struct dataset_pack_options){
        .sample_shape = {c, h, w}, .sample_rank = 3, .seed = 7, .threads = 2};
}

/* Must work; report and data set are the caller's. */
static inline struct dataset *pack_open(const char *source,
                                        const struct dataset_pack_options *options,
                                        struct dataset_report *report)
{
    struct err err = {0};
    struct dataset *ds = NULL;
    const char *out = in_dir("packed");
    if (dataset_pack(source, options, out, report, &err) < 0)
        fail_msg("%s", err.message);
    if (dataset_open(out, &ds, &err) < 0)
        fail_msg("%s", err.message);
    return ds;
}

/* Must fail with this code, name `words` in its message, and leave nothing behind. */
static inline void pack_refuses(const char *source, const struct dataset_pack_options *options,
                                enum err_code code, const char *words)
{
    struct err err = {0};
    struct dataset_report report = {0};
    const char *out = in_dir("out/packed");
    int r = dataset_pack(source, options, out, &report, &err);
    if (r != -(int)code || !strstr(err.message, words))
        fail_msg("got %d '%s', expected %d with '%s'", r, err.message, -(int)code, words);
    assert_null(report.classes);
    assert_int_equal(rmdir(in_dir("out")), 0); /* empty */
}

static inline int has_warning(const struct dataset_report *report, const char *words)
{
    for (int i = 0; i < report->n_warnings; i++)
        if (strstr(report->warnings[i], words))
            return 1;
    return 0;
}
