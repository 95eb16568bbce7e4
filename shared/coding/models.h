#pragma once
/* What is expected of an ONNX file's bytes: names and structure, weights, scales and biases. Each
 * model codes in both directions (coder.h). */
#include "shared/base/err.h"
#include "shared/coding/coder.h"
#include "shared/coding/mixer.h"
#include "shared/coding/wire.h"

/* ---- bytes: everything that is no tensor ---- */

struct text_model;
/* bytes: of the file. */
int text_model_new(uint64_t bytes, struct text_model **ret, struct err *err);
void text_model_freep(struct text_model **m);
/* The byte that stands where `w` is. */
int text_byte(struct text_model *m, struct coder *c, const struct wire *w, int byte);

/* ---- weights in 8 bits or fewer ---- */

struct weight_model;
int weight_model_new(struct weight_model **ret, struct err *err);
void weight_model_freep(struct weight_model **m);
int weight_tensor(struct weight_model *m, struct coder *c, const struct wire_tensor *t, int8_t *q,
                  int64_t n, struct err *err);

/* ---- floats and 32-bit integers ---- */

struct number_model;
int number_model_new(struct number_model **ret, struct err *err);
void number_model_freep(struct number_model **m);
/* Floats as their bits, little-endian; products of scales that went before cost next to nothing. */
int float_tensor(struct number_model *m, struct coder *c, uint32_t *bits, int64_t n,
                 struct err *err);
void integer_tensor(struct number_model *m, struct coder *c, int32_t *x, int64_t n);
