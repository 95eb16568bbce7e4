#pragma once
/*
 * What a piece of a design costs in int8.
 *
 * A piece is timed where it would stand: behind a layer that gives it 8-bit values in the layout of
 * this layer's choice, and before one that takes such values from it; both are as small as layers
 * can be. What counts are the times of the piece's own steps, conversions of what it computes
 * included. The network's input is converted by who reads it first, its answers by the head.
 */
#include "shared/base/err.h"
#include <stdbool.h>
#include <stdint.h>

struct piece_place {
    const char *text;                /* one piece or several: shared/design/design.h */
    int64_t channels, height, width; /* that it reads */
    int64_t outputs;                 /* of a head */
    bool first;                      /* reads the network's input */
    int64_t batch;
    int threads;
};
struct piece_time {
    double us;   /* of the piece's steps */
    double rest; /* of a run beside its steps: the floor of any run */
};

/* Compiles and runs: some tenths of a second. Errors say why the piece cannot be built or run. */
int piece_measure(const struct piece_place *place, struct piece_time *ret, struct err *err);

/* What distinguishes the piece from others in the latency table; malloc'ed. Errors as
 * design_parse. */
int piece_key(const struct piece_place *place, char **ret, struct err *err);
