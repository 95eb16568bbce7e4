#pragma once
/* LAYER_PICTURES: bytes of pictures become the network's input, by a table for each channel. */
#include "shared/nn/plan_priv.h"

enum { MOST_PICTURE_CHANNELS = 4 };
extern const struct implementation pictures_vbmi, pictures_plain;
