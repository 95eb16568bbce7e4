#pragma once
/*
 * Alternatives: what could stand in a network in place of one unit or of several (units.h), reading
 * the same and yielding the same, cheaper. They begin with the weights of what they replace as far
 * as these tell anything. A new type is one file with one `struct alternative_type`, and its line
 * in ALTERNATIVE_TYPES.
 */
#include "services/synthesizer/activity.h"
#include "services/synthesizer/units.h"

#define ALTERNATIVE_TYPES(X)                                                                       \
    X(identity)                                                                                    \
    X(keep)                                                                                        \
    X(inside)                                                                                      \
    X(conv)                                                                                        \
    X(bottleneck)                                                                                  \
    X(separable)                                                                                   \
    X(rank)

struct alternative {
    const char *text;    /* "keep:2": its type and what it has of it, for people and for records */
    int first, last;     /* units that it replaces */
    struct graph *graph; /* in float; may be in training form. NULL: nothing is there any more */
};

struct alternatives {
    const struct graph *g;
    const struct units *units;
    const struct activity *activity; /* NULL: not measured */
    uint64_t seed;                   /* of weights that are new */
    struct arena *arena;
    int period; /* units of what is repeated in the stage that is offered */
    int n, cap;
    struct alternative *list;
    int left_out; /* pieces with more products than what is there; whatever comes when it is full */
};

/* What a type is offered: each run of up to most_units units; or each stage, something of one to
 * three units (alternatives.period) that is there several times in a row, as long as it goes. */
struct alternative_type {
    const char *name;
    const char *summary; /* one line for people */
    bool stage;
    int most_units;
    /* Adds what can stand for units first to last, if anything. */
    int (*offer)(struct alternatives *to, int first, int last, struct err *err);
};

/* Every alternative that there is for the network; alternatives_release frees their graphs. Texts
 * and list are the arena's. The same arguments give the same list. */
int alternatives_find(const struct graph *g, const struct units *units,
                      const struct activity *activity, uint64_t seed, struct arena *arena,
                      struct alternatives *ret, struct err *err);
void alternatives_release(struct alternatives *a); /* for _cleanup_ */

/* ---- for types ---- */

/* Adds one, which takes the graph over, even where this fails; leaves it out once there are
 * ALTERNATIVES_MOST. */
#define ALTERNATIVES_MOST 4096
int alternatives_add(struct alternatives *to, int first, int last, struct graph *graph,
                     struct err *err, const char *fmt, ...) __attribute__((format(printf, 6, 7)));

/* Whether units first to last read and yield pictures [N, C, H, W] in float; how many channels come
 * out, and by which factor both sides shrink. */
bool alternatives_pictures(const struct alternatives *a, int first, int last, int64_t *ret_width,
                           int *ret_stride);
/* How many layers they have together. */
int alternatives_layers(const struct alternatives *a, int first, int last);
/* The pieces of the design (shared/design/design.h) in place of units first to last; *ret is NULL
 * where they yield another shape, or have as many products. */
int alternatives_design(struct alternatives *a, const char *text, int first, int last,
                        struct graph **ret, struct err *err);
/* Adds the piece of this type in the width and stride of the units, where it fits and they have
 * several layers. */
int alternatives_offer_piece(struct alternatives *to, const char *type, int first, int last,
                             struct err *err);
