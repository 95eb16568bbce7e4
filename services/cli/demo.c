#include "services/cli/demo.h"

#include <errno.h>
#include <fcntl.h>
#include <png.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "shared/base/fs.h"
#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/base/str.h"

#define PICTURE_BYTES (DEMO_SIZE * DEMO_SIZE * 3)
/* Noise hardly shrinks, and every chunk is small: a PNG of ours stays below this. */
#define FILE_BYTES (PICTURE_BYTES * 2 + 1024)

struct png_out {
    uint8_t data[FILE_BYTES];
    size_t bytes;
};

static void on_write(png_structp png, png_bytep data, size_t n)
{
    struct png_out *out = png_get_io_ptr(png);
    if (n > sizeof(out->data) - out->bytes)
        png_error(png, "larger than expected");
    memcpy(out->data + out->bytes, data, n);
    out->bytes += n;
}

static void on_flush(png_structp png)
{
    (void)png;
}

static bool write_rows(png_structp png, png_infop info, struct png_out *out, const uint8_t *rgb)
{
    if (setjmp(png_jmpbuf(png)))
        return false;
    png_set_write_fn(png, out, on_write, on_flush);
    png_set_compression_level(png, 1);
    png_set_filter(png, PNG_FILTER_TYPE_BASE, PNG_FILTER_NONE);
    png_set_IHDR(png, info, DEMO_SIZE, DEMO_SIZE, 8, PNG_COLOR_TYPE_RGB, PNG_INTERLACE_NONE,
                 PNG_COMPRESSION_TYPE_DEFAULT, PNG_FILTER_TYPE_DEFAULT);
    png_write_info(png, info);
    for (int y = 0; y < DEMO_SIZE; y++)
        png_write_row(png, rgb + y * DEMO_SIZE * 3);
    png_write_end(png, NULL);
    return true;
}

static int encode(struct png_out *out, const uint8_t *rgb, struct err *err)
{
    out->bytes = 0;
    png_structp png = png_create_write_struct(PNG_LIBPNG_VER_STRING, NULL, NULL, NULL);
    png_infop info = png ? png_create_info_struct(png) : NULL;
    bool good = info && write_rows(png, info, out, rgb);
    png_destroy_write_struct(&png, &info);
    return good ? 0 : err_set(err, ERR_INTERNAL, "a picture of the demo could not be encoded");
}

/* Pictures can be drawn again at any time: no fsync, which would take minutes. */
static int write_file(const char *path, const struct png_out *out, struct err *err)
{
    _cleanup_(fs_closep) int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return err_errno(err, errno, "%s", path);
    for (size_t done = 0; done < out->bytes;) {
        ssize_t n = write(fd, out->data + done, out->bytes - done);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return err_errno(err, errno, "%s", path);
        done += (size_t)n;
    }
    return 0;
}

/* ---- the whole ---- */

struct writing {
    const char *dir;
    uint64_t seed;
};

static int write_picture(void *ctx, int64_t index, int worker, struct err *err)
{
    const struct writing *w = ctx;
    (void)worker;
    bool train = index < DEMO_TRAIN * DEMO_CLASSES;
    int64_t i = train ? index : index - DEMO_TRAIN * DEMO_CLASSES;
    int label = (int)(i % DEMO_CLASSES);
    uint8_t rgb[PICTURE_BYTES];
    struct png_out out;
    demo_draw(w->seed, (uint64_t)index, label, rgb);
    int r = encode(&out, rgb, err);
    _cleanup_(freep) char *path =
        str_printf("%s/data/%s/%s/%04lld.png", w->dir, train ? "train" : "test",
                   demo_class_name(label), (long long)(i / DEMO_CLASSES));
    if (!path)
        return err_oom(err, w->dir);
    return r < 0 ? r : write_file(path, &out, err);
}

static int make_folders(const char *dir, struct err *err)
{
    for (int i = 0; i < 2 * DEMO_CLASSES; i++) {
        _cleanup_(freep) char *path =
            str_printf("%s/data/%s/%s", dir, i % 2 ? "train" : "test", demo_class_name(i / 2));
        int r = path ? fs_mkdirs(path, err) : err_oom(err, dir);
        if (r < 0)
            return r;
    }
    return 0;
}

static int write_readme(const char *dir, uint64_t seed, bool model, struct err *err)
{
    _cleanup_(strbuf_release) struct strbuf text = {0};
    strbuf_printf(
        &text,
        "The demo of Hone, drawn with seed %llu. It may be deleted and drawn again.\n\n"
        "data/    %d training and %d test pictures, %d x %d RGB, of %d classes:\n        ",
        (unsigned long long)seed, DEMO_TRAIN * DEMO_CLASSES, DEMO_TEST * DEMO_CLASSES, DEMO_SIZE,
        DEMO_SIZE, DEMO_CLASSES);
    for (int i = 0; i < DEMO_CLASSES; i++)
        strbuf_printf(&text, " %s", demo_class_name(i));
    strbuf_add(&text, "\n");
    if (model)
        strbuf_add(&text, "model.onnx    a small residual network, trained on such pictures\n\n"
                          "    hone optimize model.onnx --data data --out out\n");
    _cleanup_(freep) char *path = str_printf("%s/README.txt", dir);
    if (text.failed || !path)
        return err_oom(err, dir);
    return fs_write_atomic(path, text.data, text.length, err);
}

int demo_write(const char *dir, const char *model_from, uint64_t seed, struct err *err)
{
    struct writing w = {dir, seed};
    int r = make_folders(dir, err);
    if (r == 0 && model_from) {
        _cleanup_(freep) char *model = str_printf("%s/model.onnx", dir);
        r = model ? fs_copy(model_from, model, err) : err_oom(err, dir);
    }
    if (r == 0)
        r = pool_for((DEMO_TRAIN + DEMO_TEST) * DEMO_CLASSES, pool_cpus(), write_picture, &w, err);
    return r < 0 ? r : write_readme(dir, seed, model_from != NULL, err);
}
