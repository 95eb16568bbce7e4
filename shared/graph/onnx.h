#pragma once
/*
 * ONNX in and out.
 *
 * Import reads a ModelProto under limits, checks every operator, folds what is constant (including
 * chains that compute shapes from the symbolic batch size), infers all shapes, and names what it
 * does not support together with the node. Nested or oversized protobuf, cycles, missing inputs,
 * NaN weights, external data outside the model's folder end in one clear error.
 * Export writes a file that opens in any ONNX viewer and runs in ONNX Runtime; importing it again
 * gives the same function.
 */
#include "shared/graph/graph.h"

struct onnx_limits {
    size_t max_file_bytes; /* of the model, and of each external data file */
    int max_depth;         /* of nested protobuf messages */
    int max_nodes;
    int64_t max_elements;     /* of one tensor */
    bool allow_nonfinite;     /* accept NaN and infinity in weights (conformance cases hold them) */
    bool keep_constant_nodes; /* skip constant folding (tests of single operators) */
};
extern const struct onnx_limits onnx_default_limits;

/* `limits` NULL: onnx_default_limits. The graph is the caller's (graph_free). */
int onnx_read_file(const char *path, const struct onnx_limits *limits, struct graph **ret,
                   struct err *err);
/* `folder`: where external data lies; NULL refuses external data. */
int onnx_read_bytes(const void *data, size_t bytes, const char *folder,
                    const struct onnx_limits *limits, struct graph **ret, struct err *err);

/* malloc'ed ModelProto. Deterministic: the same graph gives the same bytes. */
int onnx_write_bytes(const struct graph *g, void **ret_data, size_t *ret_bytes, struct err *err);
int onnx_write_file(const struct graph *g, const char *path, struct err *err);

/* A TensorProto file (the conformance suite's inputs and outputs). Heap tensor, caller frees.
 * UNIMPLEMENTED for types that Hone has no name for (strings, sequences, complex). */
int onnx_read_tensor(const char *path, struct tensor **ret, struct err *err);

/* Metadata keys that Hone writes: see docs/FORMATS.md. */
#define ONNX_META_BF16 "hone.bf16" /* names of nodes hinted bf16, one a line */
