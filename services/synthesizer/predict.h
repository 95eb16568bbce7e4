#pragma once
/*
 * What a student will reach, from what it and others have reached: Bayesian linear regression of
 * the logarithm of errors on what is known about students before any training (traits) and on how
 * much they have seen, with an offset and a pace of each student's own (a Gaussian process with a
 * linear kernel; Rasmussen and Williams, 2006, chapter 2). One model says how those go on who have
 * learned a little, and what those are likely to reach who have not begun.
 *
 * An error is 1 - accuracy; its logarithm is taken relative to a reference, the original's error.
 * It falls with the samples seen as c log(1 + PREDICT_HALF / samples): steep at first, to a level
 * of its own in the end.
 */
#include "shared/base/err.h"
#include "shared/base/mem.h"
#include "shared/base/rng.h"

#define PREDICT_TRAITS 11
#define PREDICT_HALF 500e3 /* samples seen, with augmentation: ten epochs of CIFAR-10 */
#define PREDICT_NOBODY (-1)

/* In this order. Products, parameters: binary logarithms of the shares of the original's. */
enum predict_trait {
    PREDICT_LEVEL, /* 1 for all */
    PREDICT_MACS,
    PREDICT_PARAMETERS,
    PREDICT_DEPTH,     /* log2(pieces / 8) */
    PREDICT_RESIDUAL,  /* share of the pieces */
    PREDICT_SEPARABLE, /* share */
    PREDICT_POOL,      /* share of the places behind the first piece where pictures get smaller:
                          by the largest value instead of steps */
    PREDICT_HEAD_POOL, /* 1: it ends in the largest value of each channel, not the mean */
    PREDICT_STEM,      /* log2 of the first piece's stride */
    PREDICT_PATCH,     /* 1: it begins with patches */
    PREDICT_INHERITS,  /* 1: it begins with weights of the original's, and knows much already */
};

/* What one of them reached once. */
struct predict_run {
    double traits[PREDICT_TRAITS];
    int student;      /* of the runs of one student the same number, >= 0 */
    double samples;   /* seen since its beginning, > 0 */
    double log_error; /* log(error / reference) */
    double deviation; /* of that, from counting errors on a finite part */
};

struct predictor {
    int n;
    const struct predict_run *runs; /* the caller's; must live as long */
    double *factor;                 /* [n * n], Cholesky */
    double *weight;                 /* [n] */
    double *scratch;                /* [n]: one thread at a time */
};

/* The model after these runs, n of them; n = 0: what is believed beforehand (predict.c: from
 * ResNets on CIFAR-10). In `arena`. */
int predict_learn(const struct predict_run *runs, int n, struct arena *arena, struct predictor *ret,
                  struct err *err);

struct predicted {
    double log_error, deviation; /* relative to the reference */
};
/* Of a student that has `traits` after so many samples. student: the number that its runs have;
 * PREDICT_NOBODY: it has none. */
struct predicted predict_at(const struct predictor *model, const double traits[PREDICT_TRAITS],
                            int student, double samples);

/* One of the ways in which traits and samples may bring about errors, by how likely it is. What is
 * particular to single students is left out. */
#define PREDICT_WEIGHTS (PREDICT_TRAITS + 5)
struct predict_weights {
    double of[PREDICT_WEIGHTS]; /* the last five: of the samples seen, and of those for deep ones,
                                   for heirs, for large ones and for those that pool */
};
/* A student after so many samples, as predict_at's arguments. */
struct predict_point {
    const double *traits; /* [PREDICT_TRAITS] */
    int student;
    double samples;
};
/* Draws what may be: what n students reach together, for they have much in common (ret: [n], as
 * log_error), and the weights that go with it (may be NULL). */
int predict_draw(const struct predictor *model, struct rng *rng, const struct predict_point *points,
                 int n, double *ret, struct predict_weights *ret_weights, struct err *err);

/* The log(error / reference) that follows from it. */
double predict_drawn(const struct predict_weights *weights, const double traits[PREDICT_TRAITS],
                     double samples);
/* The same in two steps, for many draws: what the weights are of, and their sum. */
void predict_features(const double traits[PREDICT_TRAITS], double samples,
                      double ret[PREDICT_WEIGHTS]);
double predict_sum(const struct predict_weights *weights, const double features[PREDICT_WEIGHTS]);
/* Deviation of a student's own from that, and of the seed. */
double predict_own(double samples);

/* How likely it is that a normally distributed value will be at most `limit`. */
double predict_chance(double mean, double limit, double deviation);

/* What it is worth to train a student on: the chance that it keeps the limit times the logarithm of
 * how many times cheaper than the best network so far it is; 0 where it is not cheaper. */
double predict_worth(double chance, double cost, double best_cost);

/* By how much the error will be below that of the best network so far, on average, when it is
 * counted as 0 where it is not: what training on is worth where costs have a limit (expected
 * improvement; Mockus, 1975). All as fractions. */
double predict_gain(double error, double best_error, double deviation);
