#pragma once
/* What tasks of training name: networks, data, preprocessing, settings. Errors say which. */
#include <hone/v1/job.pb-c.h>
#include <hone/v1/tasks.pb-c.h>

#include "shared/store/store.h"
#include "shared/train/recipe_message.h"

/* The network in the artifact, simplified, its batch open. `what`: "network", "teacher". */
int inputs_network(struct store *store, const char *name, const char *what, struct graph **ret,
                   struct err *err);
/* The same for a network that is to learn: its branches stay apart. */
int inputs_learner(struct store *store, const char *name, const char *what, struct graph **ret,
                   struct err *err);
/* The same as it is, its norms where they are. */
int inputs_part(struct store *store, const char *name, const char *what, struct graph **ret,
                struct err *err);
int inputs_data(struct store *store, const char *name, struct dataset **ret, struct err *err);
/* NULL or without a text: INVALID_ARGUMENT. *ret_text: malloc'ed, the same as text. */
int inputs_preprocess(const Hone__V1__Preprocess *from, struct preprocess *ret, char **ret_text,
                      struct err *err);
