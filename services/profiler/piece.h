#pragma once
/*
 * What a piece of a design costs in int8.
 *
 * A piece is timed where it would stand: between two like it, which give it 8-bit values and take
 * such values from it, in the layouts that this kind of layer likes. What counts are the times of
 * the piece's own steps, conversions of what it reads and computes included. The network's input is
 * converted by who reads it first, its answers by the head.
 *
 * A piece can also be a part of a network that is there (an alternative of some of its layers,
 * between those before and behind): then that is what it is timed in, in any precision.
 */
#include "shared/graph/graph.h"

struct piece_place {
    const char *text;                /* one piece or several: shared/design/design.h */
    const struct graph *network;     /* in float, instead of a design; its nodes whose names begin
                                        with `text` and "." are timed. NULL: none */
    enum precision precision;        /* of all layers of such a network; AUTO: int8 */
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

/* What distinguishes the piece from others in the latency table; malloc'ed. Errors as
 * design_parse. */
int piece_key(const struct piece_place *place, char **ret, struct err *err);

/* A piece ready to run. Errors say why it cannot be built. */
struct piece_bench;
int piece_open(const struct piece_place *place, struct piece_bench **ret, struct err *err);
struct piece_bench *piece_close(struct piece_bench *bench); /* NULL-safe, returns NULL */
size_t piece_memory(const struct piece_bench *bench);       /* bytes */

/* Times the pieces in turns, again and again, so that what disturbs the machine for a while
 * disturbs a few turns of all; the medians of the quieter half of the turns count. Some 20 ms for
 * each piece, half a second at least. `task` (NULL: nobody) is asked after each turn whether to go
 * on. One that fails to run has the time 0. */
struct work_task;
int piece_time_all(struct piece_bench *const *benches, int n, struct work_task *task,
                   struct piece_time *ret, struct err *err);
