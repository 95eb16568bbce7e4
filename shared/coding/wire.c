#include "shared/coding/wire.h"

/* Messages of ONNX, as far as they matter. */
enum {
    ANY,
    MODEL,
    GRAPH,
    NODE,
    ATTRIBUTE,
    TENSOR,
    VALUE_INFO,
    TYPE,
    TENSOR_TYPE,
    SHAPE,
    DIMENSION,
    OPSET,
    ENTRY,
    TYPES
};

/* Fields that hold messages. */
static const struct {
    int type, field, holds;
} children[] = {
    {MODEL, 7, GRAPH},       {MODEL, 8, OPSET},       {MODEL, 14, ENTRY},
    {GRAPH, 1, NODE},        {GRAPH, 5, TENSOR},      {GRAPH, 11, VALUE_INFO},
    {GRAPH, 12, VALUE_INFO}, {GRAPH, 13, VALUE_INFO}, {NODE, 5, ATTRIBUTE},
    {ATTRIBUTE, 5, TENSOR},  {VALUE_INFO, 2, TYPE},   {TYPE, 1, TENSOR_TYPE},
    {TENSOR_TYPE, 2, SHAPE}, {SHAPE, 1, DIMENSION},
};

#define TENSOR_DIMS 1
#define TENSOR_DTYPE 2
#define TENSOR_RAW 9
#define NODE_INPUT 1
#define NODE_OUTPUT 2

static int child_of(int type, int field)
{
    for (size_t i = 0; i < sizeof(children) / sizeof(*children); i++)
        if (children[i].type == type && children[i].field == field)
            return children[i].holds;
    return ANY;
}

static int type_of(const struct wire *w)
{
    return w->stack[w->depth - 1].type;
}

static uint64_t end_of(const struct wire *w)
{
    return w->stack[w->depth - 1].end;
}

static void begin_part(struct wire *w, enum wire_part part)
{
    w->part = part;
    w->part_at = 0;
    w->value = 0;
}

/* What follows when a field has ended: another one, or the end of messages. */
static void begin_field(struct wire *w)
{
    while (w->depth > 1 && w->at == end_of(w)) {
        w->depth--;
        w->field = 0;
    }
    begin_part(w, WIRE_TAG);
}

void wire_begin(struct wire *w, uint64_t bytes)
{
    *w = (struct wire){.bytes = bytes, .depth = 1};
    w->stack[0].type = MODEL;
    w->stack[0].end = bytes;
    begin_part(w, WIRE_TAG);
}

static void begin_bytes(struct wire *w, enum wire_part part, uint64_t n)
{
    begin_part(w, part);
    w->left = n;
    if (n > end_of(w) - w->at)
        begin_part(w, WIRE_LOST);
    else if (n == 0)
        begin_field(w);
}

static void end_tag(struct wire *w)
{
    static const enum wire_part parts[8] = {WIRE_NUMBER, WIRE_FIXED, WIRE_LENGTH, WIRE_LOST,
                                            WIRE_LOST,   WIRE_FIXED, WIRE_LOST,   WIRE_LOST};
    const int kind = (int)(w->value & 7);
    const enum wire_part part = parts[kind];
    w->field = (int)(w->value >> 3 & 31); /* larger ones share places */
    if (part == WIRE_FIXED)
        begin_bytes(w, part, kind == 1 ? 8 : 4);
    else
        begin_part(w, w->at < end_of(w) ? part : WIRE_LOST); /* nothing follows in this message */
}

static void end_number(struct wire *w)
{
    struct wire_tensor *t = &w->tensor;
    if (type_of(w) == TENSOR && w->field == TENSOR_DTYPE)
        t->dtype = (int)(w->value & 63);
    if (type_of(w) == TENSOR && w->field == TENSOR_DIMS && t->rank < WIRE_RANK)
        t->dim[t->rank++] = (int64_t)(w->value & INT64_MAX);
    begin_field(w);
}

static void end_length(struct wire *w)
{
    const int child = child_of(type_of(w), w->field);
    const uint64_t n = w->value;
    if (child == ANY || n == 0 || n > end_of(w) - w->at || w->depth == WIRE_DEPTH) {
        begin_bytes(w, WIRE_CONTENTS, n);
        return;
    }
    w->stack[w->depth].type = child;
    w->stack[w->depth++].end = w->at + n;
    w->field = 0;
    if (child == TENSOR)
        w->tensor = (struct wire_tensor){0};
    begin_part(w, WIRE_TAG);
}

/* Tags, numbers and lengths: seven bits for each byte, the lowest first. */
static void next_of_number(struct wire *w, uint8_t byte)
{
    if (w->part_at < 9)
        w->value |= (uint64_t)(byte & 0x7f) << (7 * w->part_at);
    w->part_at++;
    if (byte & 0x80) {
        if (w->part_at >= 10 || w->at == end_of(w))
            begin_part(w, WIRE_LOST);
        return;
    }
    if (w->part == WIRE_TAG)
        end_tag(w);
    else if (w->part == WIRE_LENGTH)
        end_length(w);
    else
        end_number(w);
}

void wire_next(struct wire *w, uint8_t byte)
{
    w->at++;
    if (w->part == WIRE_LOST)
        return;
    if (w->part <= WIRE_LENGTH) {
        next_of_number(w, byte);
        return;
    }
    w->part_at++;
    if (--w->left == 0)
        begin_field(w);
}

void wire_skip(struct wire *w, uint64_t n)
{
    w->at += n;
    w->part_at += n;
    w->left -= n;
    if (w->left == 0)
        begin_field(w);
}

uint32_t wire_place(const struct wire *w)
{
    return (uint32_t)((type_of(w) * 32 + w->field) * 8 + (int)w->part);
}

static bool begins(const struct wire *w, int type, int field)
{
    return w->part == WIRE_CONTENTS && w->part_at == 0 && type_of(w) == type && w->field == field;
}

bool wire_at_data(const struct wire *w)
{
    return begins(w, TENSOR, TENSOR_RAW);
}

bool wire_at_input(const struct wire *w)
{
    return begins(w, NODE, NODE_INPUT);
}

bool wire_at_output(const struct wire *w)
{
    return begins(w, NODE, NODE_OUTPUT);
}
