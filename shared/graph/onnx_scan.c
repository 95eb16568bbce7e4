/* Encoded protobuf: checked for depth before it is unpacked, and unpacked under a memory limit. */
#include <stdlib.h>
#include <string.h>

#include "shared/graph/onnx_priv.h"

/* ---- scan ---- */

enum { DEPTH_MAX = 128 };

struct frame {
    const ProtobufCMessageDescriptor *type;
    size_t end;
};

struct scan {
    const uint8_t *data;
    size_t at;
    struct frame stack[DEPTH_MAX];
    int depth; /* open frames */
    int max_depth;
};

static int scan_bad(const struct scan *s, struct err *err, const char *what)
{
    return err_set(err, ERR_INVALID_ARGUMENT, "byte %zu: %s: the file is damaged or no ONNX file",
                   s->at, what);
}

static int scan_varint(struct scan *s, size_t end, uint64_t *ret, struct err *err)
{
    uint64_t x = 0;
    for (int shift = 0; shift < 70; shift += 7) {
        if (s->at >= end)
            return scan_bad(s, err, "the message ends inside a number");
        uint8_t byte = s->data[s->at++];
        if (shift < 64)
            x |= (uint64_t)(byte & 0x7f) << shift;
        if (!(byte & 0x80)) {
            *ret = x;
            return 0;
        }
    }
    return scan_bad(s, err, "a number is longer than 10 bytes");
}

static int scan_skip(struct scan *s, size_t end, uint64_t n, struct err *err)
{
    if (n > end - s->at)
        return scan_bad(s, err, "a field claims more bytes than there are");
    s->at += (size_t)n;
    return 0;
}

/* A field with a length: enters it when it is a message, else skips it. */
static int scan_sized(struct scan *s, const struct frame *top, unsigned tag, struct err *err)
{
    uint64_t n = 0;
    int rc = scan_varint(s, top->end, &n, err);
    if (rc < 0)
        return rc;
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(top->type, tag);
    if (!field || field->type != PROTOBUF_C_TYPE_MESSAGE || n > top->end - s->at)
        return scan_skip(s, top->end, n, err);
    if (s->depth >= s->max_depth)
        return err_set(err, ERR_INVALID_ARGUMENT, "byte %zu: messages are nested more than %d deep",
                       s->at, s->max_depth);
    s->stack[s->depth++] = (struct frame){field->descriptor, s->at + (size_t)n};
    return 0;
}

static int scan_field(struct scan *s, const struct frame *top, struct err *err)
{
    uint64_t key = 0, ignored;
    int rc = scan_varint(s, top->end, &key, err);
    if (rc < 0)
        return rc;
    if (key >> 3 == 0 || key >> 3 > (1u << 29) - 1)
        return scan_bad(s, err, "a field has an impossible number");
    switch (key & 7) {
    case 0:
        return scan_varint(s, top->end, &ignored, err);
    case 1:
        return scan_skip(s, top->end, 8, err);
    case 2:
        return scan_sized(s, top, (unsigned)(key >> 3), err);
    case 5:
        return scan_skip(s, top->end, 4, err);
    default:
        return scan_bad(s, err, "a field has an impossible type");
    }
}

int onnx_scan(const void *data, size_t bytes, const ProtobufCMessageDescriptor *type, int max_depth,
              struct err *err)
{
    struct scan s = {.data = data, .depth = 1};
    s.max_depth = max_depth < 1 ? 1 : max_depth > DEPTH_MAX ? DEPTH_MAX : max_depth;
    s.stack[0] = (struct frame){type, bytes};
    while (s.depth > 0) {
        const struct frame top = s.stack[s.depth - 1];
        if (s.at == top.end) {
            s.depth--;
            continue;
        }
        int rc = scan_field(&s, &top, err);
        if (rc < 0)
            return rc;
    }
    return 0;
}

/* ---- unpack ---- */

/* Small messages take more room in memory than in the file (a node without a name: 2 bytes in the
 * file, 150 in memory). Real models stay far below; a file made to exhaust memory does not. */
#define LIMIT_FACTOR 32
#define LIMIT_BASE ((size_t)64 << 20)
#define HEADER_BYTES 16 /* keeps the alignment of malloc */

static void *limited_alloc(void *ctx, size_t bytes)
{
    struct onnx_unpacked *u = ctx;
    if (bytes > u->limit || u->used + bytes > u->limit)
        return NULL;
    size_t *p = malloc(bytes + HEADER_BYTES);
    if (!p)
        return NULL;
    *p = bytes;
    u->used += bytes;
    return (char *)p + HEADER_BYTES;
}

static void limited_free(void *ctx, void *p)
{
    struct onnx_unpacked *u = ctx;
    if (!p)
        return;
    size_t *header = (size_t *)(void *)((char *)p - HEADER_BYTES);
    u->used -= *header;
    free(header);
}

int onnx_unpack(const void *data, size_t bytes, const ProtobufCMessageDescriptor *type,
                const struct onnx_limits *limits, struct onnx_unpacked *ret, struct err *err)
{
    if (bytes > limits->max_file_bytes)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%zu bytes; the limit is %zu", bytes,
                       limits->max_file_bytes);
    int rc = onnx_scan(data, bytes, type, limits->max_depth, err);
    if (rc < 0)
        return rc;
    *ret = (struct onnx_unpacked){
        .allocator = {.alloc = limited_alloc, .free = limited_free, .allocator_data = ret}};
    ret->limit = bytes > (SIZE_MAX - LIMIT_BASE) / LIMIT_FACTOR ? SIZE_MAX
                                                                : LIMIT_BASE + LIMIT_FACTOR * bytes;
    ret->message = protobuf_c_message_unpack(type, &ret->allocator, bytes, data);
    if (!ret->message)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "not a valid %s: the file is damaged or no ONNX file", type->short_name);
    return 0;
}

void onnx_free(struct onnx_unpacked *unpacked)
{
    if (unpacked->message)
        protobuf_c_message_free_unpacked(unpacked->message, &unpacked->allocator);
    unpacked->message = NULL;
}
