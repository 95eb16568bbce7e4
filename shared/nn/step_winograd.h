#pragma once
/* Convolutions in floats by Winograd's filtering. */
#include "shared/nn/plan_priv.h"

extern const struct implementation winograd_vectors, winograd_plain;
