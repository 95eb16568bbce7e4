#pragma once
/* Settings of training as tasks carry them and manifests record them. */
#include <hone/v1/tasks.pb-c.h>

#include "shared/train/recipe.h"

/* The recipe that the settings say (NULL: the usual one); its texts are the message's. */
struct recipe recipe_from_message(const Hone__V1__TrainSettings *from);
