#pragma once
/*
 * Networks as text. A design is a list of pieces, each a type with a width and options:
 *
 *     conv:32 residual:64:s2 residual:64*2 conv:128:pool conv:128 head
 *
 * A piece reads one value [N, C, H, W] and yields one; the last, a head, yields the answers
 * [N, outputs]. "*2" repeats a piece, the further times without its stride. The same pieces make
 * students, whole networks, and replacements of stages and blocks, so that what is known about a
 * piece (its time on a target, above all) serves them all. A new type of piece is one file
 * (pieces.h).
 *
 *     TYPE[:WIDTH][:sSTRIDE][:kKERNEL][:eEXPAND][:pool][:se][*TIMES]
 *
 * Networks are built in training form: a BatchNormalization behind every convolution, weights by
 * seed. pass_simplify (shared/graph/passes.h) gives the form that runs.
 */
#include "shared/graph/graph.h"

#define DESIGN_MAX_PIECES 256
#define DESIGN_MAX_WIDTH 4096

struct piece_type; /* pieces.h */

struct piece {
    const struct piece_type *type;
    int64_t width;  /* channels that it yields; 0: as many as it reads, or it has no width */
    int stride;     /* 1 or more, of rows and columns */
    int kernel;     /* side; 0: the type's usual one */
    int expand;     /* inside and outside differ that many times in width; 0: the usual one */
    bool pool;      /* a stride by a MaxPool behind the convolution; a head: the largest value of
                       each channel instead of the mean */
    bool attention; /* squeeze-excitation */
};

struct design {
    int n;
    struct piece *pieces;
};

/* In `arena`. INVALID_ARGUMENT with the place for what is no design: an unknown type or option, a
 * number out of its bounds (DESIGN_MAX_*), a head that is not last. A list without a head is the
 * inside of a network. */
int design_parse(const char *text, struct arena *arena, struct design *ret, struct err *err);
/* The shortest text of pieces first to first + n - 1: design_parse gives the same again. malloc'ed;
 * NULL: memory is out. */
char *design_text(const struct design *design, int first, int n);

/* What a design is built between. */
struct design_ends {
    const char *input, *output; /* names; NULL: "input", "output" */
    int64_t channels, height, width;
    int64_t outputs; /* answers of the head */
    uint64_t seed;   /* of the weights */
    bool bare;       /* weights stay 0: for those who only look at the architecture */
};

/* The network, batch symbolic. FAILED_PRECONDITION, naming the piece, where a piece does not fit
 * (pictures smaller than a patch or a stride) or the network would be out of all proportion; that
 * is found before anything is allocated. */
int design_build(const struct design *design, const struct design_ends *ends, struct graph **ret,
                 struct err *err);

/* What piece i of the design reads, in ret->channels, height and width; i = n: what the whole
 * yields (a head: outputs x 1 x 1). The other fields are copied. Errors as design_build. Builds
 * nothing: thousands in a second. */
int design_shape_at(const struct design *design, const struct design_ends *ends, int i,
                    struct design_ends *ret, struct err *err);

/* The types' names, ended by NULL, for messages and for those who go through them all. */
const char *const *design_types(void);
/* One line about a type; NULL: there is none of this name. */
const char *design_summary(const char *type);
const char *design_type(const struct piece *piece);
bool design_is_head(const struct piece *piece);
