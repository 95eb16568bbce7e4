#pragma once
/*
 * Where in an ONNX file a byte stands, told byte by byte: which field of which message, and whether
 * it is a tag, a length, a number or contents. It never fails: in what is no ONNX file bytes have
 * no place, that is all. Both who packs and who unpacks follow it, over the same bytes.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define WIRE_DEPTH 12
#define WIRE_RANK 8
#define WIRE_PLACES 4096

enum wire_part { WIRE_TAG, WIRE_NUMBER, WIRE_LENGTH, WIRE_FIXED, WIRE_CONTENTS, WIRE_LOST };

struct wire_tensor {
    int dtype; /* as in ONNX; 0: not said */
    int rank;
    int64_t dim[WIRE_RANK];
};

struct wire {
    uint64_t at, bytes;
    enum wire_part part; /* of the byte that comes next */
    int field;           /* that it belongs to; of a tag: the last one */
    uint64_t part_at;    /* bytes of this part so far */
    uint64_t left;       /* of FIXED and CONTENTS */
    uint64_t value;      /* of tags, numbers and lengths, so far */
    int depth;
    struct {
        int type;
        uint64_t end;
    } stack[WIRE_DEPTH];
    struct wire_tensor tensor; /* that we are in */
};

void wire_begin(struct wire *w, uint64_t bytes);
void wire_next(struct wire *w, uint8_t byte);
/* The same as wire_next for n bytes of contents, of which there must be so many left. */
void wire_skip(struct wire *w, uint64_t n);

/* A number below WIRE_PLACES for message, field and part. */
uint32_t wire_place(const struct wire *w);
/* Whether a tensor's bytes begin here: `left` bytes of `tensor`. */
bool wire_at_data(const struct wire *w);
/* Whether the name of a node's input begins here. */
bool wire_at_input(const struct wire *w);
/* Whether the name of a node's output begins here. */
bool wire_at_output(const struct wire *w);
