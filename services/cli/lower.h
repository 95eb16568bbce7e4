#pragma once
/* Networks in lower precision, built as a job builds them (shared/train/lowering.h). */
#include "services/cli/reproduce.h"
#include "shared/train/lowering.h"

struct lower_request {
    const struct graph *parent;        /* in float */
    const char *name, *design;         /* design NULL: the original's architecture */
    yyjson_val *layers;                /* name -> precision; NULL: int8 wherever that can be */
    const struct quant_ranges *ranges; /* NULL: measured here */
};
/* The file, malloc'ed. */
int lower_build(const struct reproduce *r, const struct lower_request *q, void **ret_onnx,
                size_t *ret_bytes, struct err *err);
/* Ranges of a network's activations, for several lower_requests. */
int lower_calibrate(const struct reproduce *r, const struct graph *g, struct quant_ranges *ret,
                    struct err *err);
