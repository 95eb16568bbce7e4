#pragma once
/* Convolutions of 8 bits by kernels of our own. */
#include "shared/nn/plan_priv.h"

extern const struct implementation direct_vnni, direct_avx2_vnni, direct_avx2_madd, direct_plain,
    depthwise_vnni, depthwise_plain;
