#pragma once
/*
 * Types of pieces. Private to this floor. A new type is one file with one `struct piece_type`, and
 * its line in pieces.c.
 */
#include "shared/base/rng.h"
#include "shared/design/design.h"

/* A network while it grows: the last value and its shape. */
struct pieces {
    struct graph *g;
    struct rng rng;
    int value;
    int64_t channels, height, width;
    int64_t outputs;
};

struct piece_type {
    const char *name;
    const char *summary;              /* one line for people */
    bool pools, attends, head;        /* which options it knows; whether it ends networks */
    int usual_kernel, usual_expand;   /* 0: it has no such option */
    /* Appends the piece to the network. */
    int (*build)(const struct piece *piece, struct pieces *p, struct err *err);
};
