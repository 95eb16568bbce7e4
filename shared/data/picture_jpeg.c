/* JPEG through libjpeg-turbo's TurboJPEG API. */
#include <string.h>
#include <turbojpeg.h>

#include "shared/base/mem.h"
#include "shared/data/picture.h"

void picture_jpeg_close(void *jpeg)
{
    if (jpeg)
        tjDestroy(jpeg);
}

/* Adobe writes CMYK inverted, so that multiplying by K gives RGB. */
static int decode_cmyk(struct picture *pic, const uint8_t *data, size_t bytes, int flags,
                       struct err *err)
{
    size_t pixels = (size_t)pic->width * (size_t)pic->height;
    _cleanup_(freep) uint8_t *cmyk = mem_calloc(pixels, 4);
    if (!cmyk)
        return err_oom(err, "a CMYK picture");
    int r = tjDecompress2(pic->jpeg, data, bytes, cmyk, (int)pic->width, 0, (int)pic->height,
                          TJPF_CMYK, flags);
    for (size_t i = 0; i < pixels; i++)
        for (size_t c = 0; c < 3; c++)
            pic->rgb[i * 3 + c] = (uint8_t)((cmyk[i * 4 + c] * cmyk[i * 4 + 3] + 127) / 255);
    return r;
}

int picture_decode_jpeg(struct picture *pic, const uint8_t *data, size_t bytes,
                        const struct dataset_limits *limits, struct err *err)
{
    if (!pic->jpeg)
        pic->jpeg = tjInitDecompress();
    if (!pic->jpeg)
        return err_oom(err, "reading a JPEG");
    int width = 0, height = 0, subsampling = 0, colours = 0;
    int bad = tjDecompressHeader3(pic->jpeg, data, bytes, &width, &height, &subsampling, &colours);
    /* where the header is cut off, some versions only leave the size at zero */
    if ((bad && tjGetErrorCode(pic->jpeg) != TJERR_WARNING) || width < 1 || height < 1)
        return err_set(err, ERR_INVALID_ARGUMENT, "broken JPEG: %s",
                       bad ? tjGetErrorStr2(pic->jpeg) : "no header");
    int r = picture_reserve(pic, width, height, limits, err);
    if (r < 0)
        return r;
    /* a few bytes can claim thousands of progressive scans over a large picture */
    int flags = TJFLAG_LIMITSCANS;
    if (colours == TJCS_CMYK || colours == TJCS_YCCK)
        r = decode_cmyk(pic, data, bytes, flags, err);
    else
        r = tjDecompress2(pic->jpeg, data, bytes, pic->rgb, width, 0, height, TJPF_RGB, flags);
    if (r >= 0)
        return 0;
    if (r < -1)
        return r; /* memory: err is set */
    /* warnings tell of bytes that do not matter, or that the rest of the picture is missing */
    const char *reason = tjGetErrorStr2(pic->jpeg);
    if (tjGetErrorCode(pic->jpeg) == TJERR_WARNING && !strstr(reason, "remature end"))
        return 0;
    return err_set(err, ERR_INVALID_ARGUMENT, "broken JPEG: %s", reason);
}
