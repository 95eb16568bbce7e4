#pragma once
/*
 * What a student will reach, from what it has reached: errors fall with the samples seen by a power
 * law (Hestness and others, 2017: "Deep learning scaling is predictable, empirically").
 */

/* One student's runs so far: epochs counted from its beginning, and the error (1 - accuracy) at the
 * end of each. */
struct learned {
    int n;
    const double *epochs, *errors;
};

/* The exponent g of error ~ epochs^-g over all students with two runs and more: the median of their
 * last two; PREDICT_EXPONENT where there are none. Between 0 and 1. */
#define PREDICT_EXPONENT 0.3
double predict_exponent(const struct learned *students, int n);

/* The error after `epochs` in all: the last one, carried on by the power law. n >= 1. */
double predict_error(const struct learned *student, double exponent, double epochs);

/* How likely it is that the error will be at most `limit`, when predictions deviate by `deviation`
 * (both fractions): the normal distribution. */
double predict_chance(double error, double limit, double deviation);

/* What it is worth to train a student on: the chance that it keeps the limit times the logarithm of
 * how many times cheaper than the best network so far it is; 0 where it is not cheaper. */
double predict_worth(double chance, double cost, double best_cost);

/* By how much the error will be below that of the best network so far, on average, when it is
 * counted as 0 where it is not: what training on is worth where costs have a limit. Deviation as
 * above (expected improvement; Mockus, 1975). */
double predict_gain(double error, double best_error, double deviation);
