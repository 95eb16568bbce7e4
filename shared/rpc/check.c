/* The scan before unpacking. It follows protobuf-c's own reading of the wire format, so that what
 * passes here is unpacked in bounded time, depth and memory. */
#include <string.h>

#include "shared/rpc/rpc.h"

/* What protobuf-c allocates: about this much for each field it scans (while it works), each
 * allocation's header, each unknown field it keeps. */
#define SCANNED_MEMBER 48
#define MALLOC_HEADER 16
#define UNKNOWN_FIELD 32
#define MAX_FIELDS 256 /* of one message type, for the table of fields seen */

struct scan {
    const uint8_t *start;
    size_t memory, max_memory;
    int max_depth;
    struct err *err;
};

struct cursor {
    const uint8_t *p, *end;
};

static int scan_fail(const struct scan *s, const ProtobufCMessageDescriptor *type,
                     const uint8_t *place, const char *what)
{
    return err_set(s->err, ERR_INVALID_ARGUMENT, "message %s, byte %zu: %s", type->name,
                   (size_t)(place - s->start), what);
}

static int scan_charge(struct scan *s, size_t bytes)
{
    s->memory += bytes;
    if (s->memory <= s->max_memory)
        return 0;
    return err_set(s->err, ERR_RESOURCE_EXHAUSTED,
                   "message would take more than %zu bytes when unpacked", s->max_memory);
}

/* At most `max` bytes; false when cut off or longer. */
static bool read_varint(struct cursor *c, int max, uint64_t *ret)
{
    uint64_t value = 0;
    for (int i = 0; i < max && c->p < c->end; i++) {
        uint8_t byte = *c->p++;
        value |= (uint64_t)(byte & 0x7f) << (7 * i);
        if (byte < 0x80) {
            *ret = value;
            return true;
        }
    }
    return false;
}

static ProtobufCWireType wire_type_of(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SFIXED32:
    case PROTOBUF_C_TYPE_FIXED32:
    case PROTOBUF_C_TYPE_FLOAT:
        return PROTOBUF_C_WIRE_TYPE_32BIT;
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return PROTOBUF_C_WIRE_TYPE_64BIT;
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_BYTES:
    case PROTOBUF_C_TYPE_MESSAGE:
        return PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    default:
        return PROTOBUF_C_WIRE_TYPE_VARINT;
    }
}

static bool is_packable(const ProtobufCFieldDescriptor *field)
{
    return field->label == PROTOBUF_C_LABEL_REPEATED &&
           wire_type_of(field->type) != PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
}

/* A packed array: whole elements, 8 bytes each at most once unpacked. */
static int scan_packed(struct scan *s, const ProtobufCMessageDescriptor *type,
                       const ProtobufCFieldDescriptor *field, struct cursor body)
{
    size_t bytes = (size_t)(body.end - body.p), n = 0;
    ProtobufCWireType wire = wire_type_of(field->type);
    if (wire == PROTOBUF_C_WIRE_TYPE_VARINT) {
        for (; body.p < body.end; n++) {
            const uint8_t *place = body.p;
            uint64_t value = 0;
            if (!read_varint(&body, 10, &value))
                return scan_fail(s, type, place, "number in a packed array is cut off or too long");
        }
    } else {
        size_t size = wire == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8;
        if (bytes % size)
            return scan_fail(s, type, body.p, "packed array is cut off");
        n = bytes / size;
    }
    return scan_charge(s, n * 8);
}

static int scan_message(struct scan *s, const ProtobufCMessageDescriptor *type, struct cursor body,
                        int depth);

/* The bytes of a length-prefixed field that the type knows. */
static int scan_body(struct scan *s, const ProtobufCMessageDescriptor *type,
                     const ProtobufCFieldDescriptor *field, struct cursor body, int depth)
{
    size_t bytes = (size_t)(body.end - body.p);
    if (is_packable(field))
        return scan_packed(s, type, field, body);
    if (field->type == PROTOBUF_C_TYPE_MESSAGE)
        return scan_message(s, field->descriptor, body, depth + 1);
    if (field->type == PROTOBUF_C_TYPE_STRING && memchr(body.p, 0, bytes))
        return scan_fail(s, type, body.p, "text holds a zero byte");
    return scan_charge(s, bytes + 1 + MALLOC_HEADER);
}

/* Moves `c` behind the value of a field and gives its bytes. */
static bool take_value(struct cursor *c, ProtobufCWireType wire, struct cursor *ret_body)
{
    const uint8_t *begin = c->p;
    uint64_t value = 0;
    size_t left = (size_t)(c->end - c->p), fixed = 0;
    switch ((int)wire) {
    case PROTOBUF_C_WIRE_TYPE_VARINT:
        if (!read_varint(c, 10, &value))
            return false;
        break;
    case PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED:
        if (!read_varint(c, 5, &value) || value > (uint64_t)(c->end - c->p))
            return false;
        begin = c->p;
        c->p += value;
        break;
    default: /* fixed width */
        fixed = wire == PROTOBUF_C_WIRE_TYPE_32BIT ? 4 : 8;
        if (left < fixed)
            return false;
        c->p += fixed;
    }
    *ret_body = (struct cursor){begin, c->p};
    return true;
}

static int scan_field(struct scan *s, const ProtobufCMessageDescriptor *type, struct cursor *c,
                      uint64_t seen[MAX_FIELDS / 64], int depth)
{
    const uint8_t *place = c->p;
    uint64_t tag = 0;
    if (!read_varint(c, 5, &tag) || tag > UINT32_MAX || tag >> 3 == 0)
        return scan_fail(s, type, place, "no valid field number");
    ProtobufCWireType wire = (ProtobufCWireType)(tag & 7);
    if ((int)wire == 3 || (int)wire == 4 || (int)wire > 5)
        return scan_fail(s, type, place, "unknown kind of field");
    struct cursor body;
    if (!take_value(c, wire, &body))
        return scan_fail(s, type, place, "field is cut off");
    const ProtobufCFieldDescriptor *field =
        protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
    if (!field)
        return scan_charge(s, SCANNED_MEMBER + UNKNOWN_FIELD + MALLOC_HEADER +
                                  (size_t)(body.end - body.p));
    bool packed = is_packable(field) && wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED;
    if (!packed && wire != wire_type_of(field->type))
        return err_set(s->err, ERR_INVALID_ARGUMENT,
                       "message %s, byte %zu: field %s is of the wrong kind", type->name,
                       (size_t)(place - s->start), field->name);
    size_t index = (size_t)(field - type->fields);
    bool single = field->label != PROTOBUF_C_LABEL_REPEATED;
    if (single && field->type == PROTOBUF_C_TYPE_MESSAGE && seen[index / 64] >> (index % 64) & 1)
        return err_set(s->err, ERR_INVALID_ARGUMENT,
                       "message %s, byte %zu: field %s is given twice", type->name,
                       (size_t)(place - s->start), field->name);
    seen[index / 64] |= (uint64_t)1 << (index % 64);
    int r = scan_charge(s, SCANNED_MEMBER + (single ? 0 : 8));
    if (r == 0 && wire == PROTOBUF_C_WIRE_TYPE_LENGTH_PREFIXED)
        r = scan_body(s, type, field, body, depth);
    return r;
}

static int scan_message(struct scan *s, const ProtobufCMessageDescriptor *type, struct cursor body,
                        int depth)
{
    if (depth > s->max_depth)
        return err_set(s->err, ERR_INVALID_ARGUMENT, "message %s, byte %zu: nested deeper than %d",
                       type->name, (size_t)(body.p - s->start), s->max_depth);
    if (type->n_fields > MAX_FIELDS)
        return err_set(s->err, ERR_INTERNAL, "message type %s has more than %d fields", type->name,
                       MAX_FIELDS);
    uint64_t seen[MAX_FIELDS / 64] = {0};
    int r = scan_charge(s, type->sizeof_message + MALLOC_HEADER);
    while (r == 0 && body.p < body.end)
        r = scan_field(s, type, &body, seen, depth);
    return r;
}

int rpc_check_message(const ProtobufCMessageDescriptor *type, const void *data, size_t bytes,
                      int max_depth, struct err *err)
{
    size_t max_memory = RPC_MAX_UNPACKED;
    if (bytes > RPC_MAX_UNPACKED / RPC_MAX_GROWTH)
        max_memory = bytes > SIZE_MAX / RPC_MAX_GROWTH ? SIZE_MAX / 2 : bytes * RPC_MAX_GROWTH;
    const uint8_t *start = data ? data : (const uint8_t *)"";
    struct scan scan = {start, 0, max_memory, max_depth, err};
    return scan_message(&scan, type, (struct cursor){start, start + bytes}, 1);
}
