#pragma once
#include "shared/nn/plan_priv.h"

extern const struct implementation move_copies;
