#pragma once
/* 8-bit steps of our own. */
#include "shared/nn/plan_priv.h"

extern const struct implementation narrow_table, narrow_binary, narrow_mean, narrow_max_pool;
