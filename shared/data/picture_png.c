/* PNG through libpng, from memory, without its colour management. */
#include <png.h>
#include <setjmp.h>
#include <string.h>

#include "shared/data/picture.h"

#define MAX_SIDE 1000000

/* Lives outside the function that calls setjmp, so that longjmp cannot spoil it. */
struct reading {
    png_structp png;
    png_infop info;
    const uint8_t *data;
    size_t bytes, at;
    const struct dataset_limits *limits;
    struct err *err;
    int result;
    char reason[128];
};

static void on_error(png_structp png, png_const_charp message)
{
    struct reading *r = png_get_error_ptr(png);
    snprintf(r->reason, sizeof(r->reason), "%s", message);
    longjmp(png_jmpbuf(png), 1);
}

static void on_warning(png_structp png, png_const_charp message)
{
    (void)png, (void)message;
}

static void on_read(png_structp png, png_bytep out, size_t n)
{
    struct reading *r = png_get_io_ptr(png);
    if (n > r->bytes - r->at)
        png_error(png, "the file ends too early");
    memcpy(out, r->data + r->at, n);
    r->at += n;
}

/* Everything to 8 bit RGB; returns the passes of an interlaced picture. */
static int set_transforms(png_structp png, png_infop info)
{
    png_set_expand(png);
    png_set_scale_16(png);
    png_set_gray_to_rgb(png);
    png_set_strip_alpha(png);
    int passes = png_set_interlace_handling(png);
    png_read_update_info(png, info);
    return passes;
}

static void read_picture(struct reading *r, struct picture *pic)
{
    if (setjmp(png_jmpbuf(r->png))) {
        if (r->result == 0)
            r->result = err_set(r->err, ERR_INVALID_ARGUMENT, "broken PNG: %s", r->reason);
        return;
    }
    png_set_read_fn(r->png, r, on_read);
    /* libpng keeps two rows; the product is checked by picture_reserve */
    png_set_user_limits(r->png, MAX_SIDE, MAX_SIDE);
    png_set_chunk_malloc_max(r->png, 8 << 20);
    png_set_chunk_cache_max(r->png, 64);
    png_set_keep_unknown_chunks(r->png, PNG_HANDLE_CHUNK_NEVER, NULL, 0);
    png_read_info(r->png, r->info);
    r->result = picture_reserve(pic, png_get_image_width(r->png, r->info),
                                png_get_image_height(r->png, r->info), r->limits, r->err);
    if (r->result < 0)
        return;
    int passes = set_transforms(r->png, r->info);
    size_t stride = (size_t)pic->width * 3;
    if (png_get_rowbytes(r->png, r->info) != stride)
        png_error(r->png, "an unusual pixel format");
    for (int pass = 0; pass < passes; pass++)
        for (int64_t y = 0; y < pic->height; y++)
            png_read_row(r->png, pic->rgb + (size_t)y * stride, NULL);
}

int picture_decode_png(struct picture *pic, const uint8_t *data, size_t bytes,
                       const struct dataset_limits *limits, struct err *err)
{
    struct reading r = {.data = data, .bytes = bytes, .limits = limits, .err = err};
    r.png = png_create_read_struct(PNG_LIBPNG_VER_STRING, &r, on_error, on_warning);
    if (r.png)
        r.info = png_create_info_struct(r.png);
    if (!r.info) {
        png_destroy_read_struct(&r.png, NULL, NULL);
        return err_oom(err, "reading a PNG");
    }
    read_picture(&r, pic);
    png_destroy_read_struct(&r.png, &r.info, NULL);
    return r.result;
}
