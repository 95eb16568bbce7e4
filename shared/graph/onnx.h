#pragma once
/*
 * ONNX in and out.
 *
 * Import reads a ModelProto under limits, checks every operator, folds what is constant (including
 * chains that compute shapes from the symbolic batch size), infers all shapes, and names what it
 * does not support together with the node. Nested or oversized protobuf, cycles, missing inputs,
 * NaN weights, external data outside the model's folder end in one clear error.
 * Models of opsets 7 to 12 are rewritten in the forms of opset 13 (attributes that became inputs,
 * Softmax over several axes, Upsample, ...): a graph that was imported has opset 13 or later.
 * Export writes a file that opens in any ONNX viewer and runs in ONNX Runtime; importing it again
 * gives the same function.
 */
#include "shared/graph/graph.h"

/* Defaults: 2 GiB, 32 deep, 20000 nodes, 2^28 elements, no exceptions. */
struct onnx_limits {
    size_t max_file_bytes; /* of the model, and of each external data file */
    int max_depth;         /* of nested protobuf messages */
    int max_nodes;
    int64_t max_elements; /* of one tensor (batch 1), and of all folded constants in sum */
    bool allow_nonfinite; /* accept NaN and infinity in weights (conformance cases hold them) */
    /* For tests of single operators: no folding, no change of opset, shapes inferred as far as they
     * can be known (shape_known is false for the rest). */
    bool keep_constant_nodes;
};
extern const struct onnx_limits onnx_default_limits;

/* `limits` NULL: onnx_default_limits. Packed networks (shared/coding/packed.h) are read like what
 * was packed, under the same limits. The graph is the caller's (graph_free). */
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
