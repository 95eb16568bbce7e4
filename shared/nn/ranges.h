#pragma once
/* Quantization ranges as a message (proto/hone/v1/job.proto) and back. */
#include <hone/v1/job.pb-c.h>

#include "shared/nn/quantize.h"

/* A new message, freed by hone__v1__ranges__free_unpacked(message, NULL). */
int ranges_to_message(const struct quant_ranges *ranges, Hone__V1__Ranges **ret, struct err *err);
/* Copies; quant_ranges_release frees. */
int ranges_from_message(const Hone__V1__Ranges *message, struct quant_ranges *ret, struct err *err);
