#pragma once
/* ONNX Runtime's C API, to check exported files and to be timed as the peer, in the same process.
 */
#include <stddef.h>
#include <stdint.h>

#include "shared/base/err.h"

struct ort; /* one session */
/* The model file's bytes; threads: of one run. CPU provider, all graph optimisations. */
int ort_open(const void *model, size_t bytes, int threads, struct ort **ret, struct err *err);
struct ort *ort_close(struct ort *ort); /* NULL-safe, returns NULL */
void ort_closep(struct ort **ort);
/* One float input of `n` samples with `input_width` floats each; the first output (float) into
 * `out`, which has room for n * output_width floats. */
int ort_run(struct ort *ort, int64_t n, const float *in, float *out, int64_t output_width,
            struct err *err);
/* Whether the file takes any batch size (else 1 or what it says). */
int64_t ort_fixed_batch(const struct ort *ort); /* 0: any */
const char *ort_version(void);
