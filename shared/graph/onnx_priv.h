#pragma once
/* ONNX in and out: what the files of the reader and the writer share. */
#include <onnx.pb-c.h>

#include "shared/graph/graph_priv.h"
#include "shared/graph/onnx.h"

/* ---- onnx_scan.c ---- */

/* Walks the encoded message without unpacking it: protobuf-c recurses without a limit and trusts
 * nesting. INVALID_ARGUMENT, with the byte, on what is no such message. */
int onnx_scan(const void *data, size_t bytes, const ProtobufCMessageDescriptor *type, int max_depth,
              struct err *err);
/* Unpacks under a limit of memory that grows with the message's size. Free with onnx_free. */
struct onnx_unpacked {
    ProtobufCMessage *message;
    ProtobufCAllocator allocator;
    size_t used, limit;
};
int onnx_unpack(const void *data, size_t bytes, const ProtobufCMessageDescriptor *type,
                const struct onnx_limits *limits, struct onnx_unpacked *ret, struct err *err);
void onnx_free(struct onnx_unpacked *unpacked); /* for _cleanup_ */

/* ---- onnx_tensor.c ---- */

/* Checks a TensorProto and reads it into a heap tensor, or into the arena when that is given.
 * `folder`: of external data, NULL refuses it. */
int onnx_tensor(const Onnx__TensorProto *proto, const char *folder,
                const struct onnx_limits *limits, struct arena *arena, struct tensor **ret,
                struct err *err);
/* Type, or NONE when Hone has no name for it; *ret_name is ONNX's name in that case. */
enum dtype onnx_dtype(int32_t type, const char **ret_name);

/* ---- onnx_read.c, onnx_read_nodes.c ---- */

/* A model on its way into a graph. */
struct onnx_reader {
    const Onnx__ModelProto *model;
    const Onnx__GraphProto *proto;
    const char *folder;
    const struct onnx_limits *limits;
    struct graph *g;
    const char *batch_name; /* the first symbolic first dimension */
    const char *batch_of;   /* and whose it is */
};
const char *onnx_text(const char *s); /* "" for NULL */
bool onnx_default_domain(const char *domain);
/* Refuses a value's name that is empty or taken. */
int onnx_new_name(const struct onnx_reader *r, const char *name, struct err *err);
/* Adds all nodes, connected and checked against their operators' definitions. */
int onnx_read_nodes(struct onnx_reader *r, struct err *err);

/* ---- onnx_import.c ---- */

/* Works through a graph just read: old forms become new ones, constant chains are folded, shapes
 * inferred, and what cannot be run is refused. */
int onnx_import(struct graph *g, const struct onnx_limits *limits, struct err *err);

/* Old exporters list masks (Dropout) and indices (MaxPool) that nobody reads: drops those. */
int onnx_drop_unread_outputs(struct graph *g, struct err *err);

/* ---- onnx_upgrade.c ---- */

/* Rewrites the node, whose inputs have shapes and constants where they are known, in the form that
 * opset 13 has for it. May add nodes before it: returns their number, or a negative code. */
int onnx_upgrade_node(struct graph *g, int node, struct err *err);
enum { ONNX_OPSET_MIN = 7, ONNX_OPSET_BASE = 13, ONNX_OPSET_MAX = 22 };
