#pragma once
/*
 * Packed networks: an ONNX file in as few bytes as its weights and its structure can be told in.
 * What comes back is the same file, bit for bit. Quantized weights take as many bits as they hold
 * (their entropy, a little less with what neighbours tell), names and structure about one byte in
 * twenty; weights in float hardly shrink. Any file can be packed; one that is no ONNX gains little.
 *
 * The file: "HONEPACK", a version (one byte, 1), the length of what was packed (64 bits,
 * little-endian), its SHA-256 (32 bytes), then one stream of an arithmetic coder (coder.h) over its
 * bytes in order: tensors of 8-bit integers, floats and 32-bit integers by models of their own, the
 * rest byte by byte with its place in the message as context.
 */
#include <stdbool.h>
#include <stddef.h>

#include "shared/base/err.h"

/* Whether these are the beginnings of a packed file. */
bool packed_is(const void *data, size_t bytes);

/* malloc'ed. The same file is packed into the same bytes. */
int packed_write(const void *data, size_t bytes, void **ret_data, size_t *ret_bytes,
                 struct err *err);

/* malloc'ed, one zero byte behind it. DATA_LOSS where the file is damaged (the hash is checked);
 * RESOURCE_EXHAUSTED above max_bytes. */
int packed_read(const void *data, size_t bytes, size_t max_bytes, void **ret_data,
                size_t *ret_bytes, struct err *err);
