#pragma once
/*
 * What a network says about samples, as an artifact: a header of 32 bytes, then [n, width] float32,
 * row-major. Everything is little-endian.
 *
 *     0   8 bytes   "HONELOG1"
 *     8   uint64    n: samples, in the order of the part
 *     16  uint64    width: numbers for each sample
 *     24  uint32    dtype: 1 (float32, as in ONNX)
 *     28  uint32    0
 */
#include <stddef.h>
#include <stdint.h>

#include "shared/store/store.h"

#define LOGITS_HEADER_BYTES 32
#define LOGITS_MAX_BYTES ((size_t)4 << 30) /* of an artifact that is read back */

struct logits {
    int64_t n, width;
    float *rows; /* [n, width] */
    void *data;  /* what holds them */
};
void logits_release(struct logits *logits); /* for _cleanup_; zeroes */

int logits_write(struct store *store, const float *rows, int64_t n, int64_t width,
                 char ret_name[HASH_HEX_BYTES], struct err *err);
/* DATA_LOSS when the artifact is no such file, or cut short. */
int logits_read(struct store *store, const char *name, struct logits *ret, struct err *err);

/* The same in memory. pack: malloc'ed bytes. unpack: *ret takes malloc'ed bytes over on success. */
int logits_pack(const float *rows, int64_t n, int64_t width, void **ret_data, size_t *ret_bytes,
                struct err *err);
int logits_unpack(void *data, size_t bytes, struct logits *ret, struct err *err);
