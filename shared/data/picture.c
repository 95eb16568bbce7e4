#include "shared/data/picture.h"

#include <stdlib.h>
#include <string.h>

#include "shared/base/mem.h"

void picture_release(struct picture *pic)
{
    free(pic->rgb);
    picture_jpeg_close(pic->jpeg);
    *pic = (struct picture){0};
}

int picture_reserve(struct picture *pic, int64_t width, int64_t height,
                    const struct dataset_limits *limits, struct err *err)
{
    if (width < 1 || height < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "it has no pixels");
    if (width > limits->max_picture_pixels / height)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "%lld x %lld pixels, above the limit of %lld pixels", (long long)width,
                       (long long)height, (long long)limits->max_picture_pixels);
    size_t bytes = (size_t)width * (size_t)height * 3;
    if (bytes > pic->capacity) {
        /* not realloc: the old picture need not be copied */
        free(pic->rgb);
        pic->capacity = 0;
        pic->rgb = malloc(bytes);
        if (!pic->rgb)
            return err_oom(err, "a picture");
        pic->capacity = bytes;
    }
    pic->width = width;
    pic->height = height;
    return 0;
}

int picture_decode(struct picture *pic, const void *data, size_t bytes,
                   const struct dataset_limits *limits, struct err *err)
{
    static const uint8_t png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    const uint8_t *in = data;
    if ((uint64_t)bytes > (uint64_t)limits->max_picture_bytes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%zu bytes, above the limit of %lld", bytes,
                       (long long)limits->max_picture_bytes);
    if (bytes == 0)
        return err_set(err, ERR_INVALID_ARGUMENT, "the file is empty");
    if (bytes >= sizeof(png) && memcmp(in, png, sizeof(png)) == 0)
        return picture_decode_png(pic, in, bytes, limits, err);
    if (bytes >= 3 && in[0] == 0xff && in[1] == 0xd8 && in[2] == 0xff)
        return picture_decode_jpeg(pic, in, bytes, limits, err);
    return err_set(err, ERR_INVALID_ARGUMENT, "neither a PNG nor a JPEG picture");
}
