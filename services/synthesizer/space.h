#pragma once
/*
 * The students of a job: whole networks of pieces (shared/design/design.h), enumerated for the
 * shape of the original's input and answers, and ranked by the prices of their pieces. Nothing is
 * trained here, and only single pieces are ever built: some hundreds of them make up thousands of
 * students.
 */
#include "services/synthesizer/predict.h"
#include "shared/design/design.h"
#include "shared/graph/cuts.h"

struct space_piece {
    const char *text;
    struct design_ends at; /* what it reads */
    bool first;            /* reads the network's input */
    int64_t macs, parameters;
    double us; /* of one run on the target, int8; 0: not priced, or it cannot run */
};

struct space_student {
    const char *text; /* the design */
    int n;
    int *pieces; /* [n], indices into the space's */
    int64_t macs, parameters;
    double us;   /* floor and pieces; INFINITY where a piece has no price */
    double cost; /* goal_cost, INFINITY: who must not begin; set by whoever enrols */
    double traits[PREDICT_TRAITS];
};

struct space {
    int n_pieces, n_students;
    struct space_piece *pieces;
    struct space_student *students;
};

/* What is known of a network of pieces before any training (predict.h), beside its original; of one
 * that is no design (no pieces) its costs. Traits that are not told from pieces stay. */
void space_traits(const struct design *design, struct cost cost, struct cost original,
                  double ret[PREDICT_TRAITS]);

/* All in `arena`. `ends`: of the original; its seed is ignored. Students of more products than the
 * original are left out. The same arguments give the same space, in the same order. A space without
 * students where the input is too small for any. */
int space_build(const struct design_ends *ends, struct cost original, struct arena *arena,
                struct space *ret, struct err *err);

/* The space of these designs alone, which must be some that space_build made. */
int space_of_designs(const struct design_ends *ends, struct cost original,
                     const char *const *designs, int n, struct arena *arena, struct space *ret,
                     struct err *err);

/* Bytes of a network of so many parameters, scales and names included, about: of its ONNX file in 8
 * bits, or packed with weights of STUDENT_BITS. */
double space_bytes(bool packed, double parameters);
#define STUDENT_BITS 4

/* us: of each piece, in order. */
void space_price(struct space *space, const double *us, double floor_us);
