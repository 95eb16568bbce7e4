#pragma once
/* Networks for eval and bench: read, simplified, with a free batch size where that is possible. */
#include "shared/graph/graph.h"

/* `precision`: AUTO as the file says; INT8: a network without quantization gets plain int8 with
 * ranges from noise (its speed is right, its answers are not: for bench only). */
int network_read(const char *path, enum precision precision, struct graph **ret, struct err *err);
/* For training: as the file says, and its branches stay apart. */
int network_read_learner(const char *path, struct graph **ret, struct err *err);
/* Either, of a file's bytes. */
int network_from_bytes(const void *onnx, size_t bytes, bool learner, struct graph **ret,
                       struct err *err);
/* The network's only input, float; UNIMPLEMENTED otherwise. *ret belongs to the graph. */
int network_input(const struct graph *g, const struct value **ret, struct err *err);
