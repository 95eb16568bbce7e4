#pragma once
/* What a job's students will reach: the model of predict.h, of all that they reached so far. */
#include "services/synthesizer/students.h"

struct forecast {
    struct predictor model;
    struct cost original;
    double reference;                 /* error that errors are relative to */
    double n_train;                   /* samples of an epoch */
    double (*traits)[PREDICT_TRAITS]; /* [n_students] */
};

/* In `arena`. */
int forecast_make(const job_state *state, struct arena *arena, struct forecast *ret,
                  struct err *err);

/* The logarithm of an error relative to the forecast's reference; -INFINITY for none and less. */
double forecast_log(const struct forecast *forecast, double error);
double forecast_error(const struct forecast *forecast, double log_error);

/* Student i of the state when it has learned for `epochs` more: as a point of the model, and what
 * that predicts. */
struct predict_point forecast_point(const struct forecast *forecast, const job_state *state,
                                    size_t i, double epochs);
struct predicted forecast_at(const struct forecast *forecast, const job_state *state, size_t i,
                             double epochs);
