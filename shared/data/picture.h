#pragma once
/*
 * Pictures: PNG and JPEG from memory to RGB, and from there to the planes that a network takes.
 *
 * What a file is, is told by its first bytes, not by its name. The size in the file's header is
 * checked against the limits before anything is allocated. Gray and palette pictures become RGB,
 * 16 bits become 8, transparency is dropped (as PIL's convert("RGB") and so most training code
 * does), embedded gamma and colour profiles are ignored.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"
#include "shared/data/dataset.h"

/* A decoded picture and its buffer, which is used again for the next one. Zero-initialise. */
struct picture {
    int64_t width, height;
    uint8_t *rgb; /* [height][width][3] */
    size_t capacity;
    void *jpeg; /* decompressor, kept */
};
void picture_release(struct picture *pic); /* for _cleanup_ */

/* INVALID_ARGUMENT: neither PNG nor JPEG, broken or truncated; RESOURCE_EXHAUSTED: above a limit or
 * out of memory. Messages do not name the file: the caller does. */
int picture_decode(struct picture *pic, const void *data, size_t bytes,
                   const struct dataset_limits *limits, struct err *err);

/* Shortest side to the target, then the centre: -> planes [channels][height][width]; channels 3
 * (RGB) or 1 (luma 0.299 R + 0.587 G + 0.114 B). Shrinking averages areas, growing is bilinear, all
 * in integers, so that every machine gives the same bytes. *ret_resized: the size was another. */
struct resizer; /* tables and rows of the sizes seen last, for one thread */
struct resizer *resizer_new(int64_t channels, int64_t height, int64_t width);
void resizer_freep(struct resizer **r);
int resizer_run(struct resizer *r, const struct picture *pic, uint8_t *out, bool *ret_resized,
                struct err *err);

/* ---- for the decoders ---- */
/* Checks the size and makes room for it. */
int picture_reserve(struct picture *pic, int64_t width, int64_t height,
                    const struct dataset_limits *limits, struct err *err);
int picture_decode_png(struct picture *pic, const uint8_t *data, size_t bytes,
                       const struct dataset_limits *limits, struct err *err);
int picture_decode_jpeg(struct picture *pic, const uint8_t *data, size_t bytes,
                        const struct dataset_limits *limits, struct err *err);
void picture_jpeg_close(void *jpeg);
