#pragma once
/*
 * A training run on disk: everything that it needs to go on as if it had never stopped. Written
 * whole or not at all (fs_write_atomic), closed by a SHA-256 over the whole.
 *
 * The settings that decide about the result are kept as text, one key=value a line, and a run that
 * resumes compares its own: so a refusal can say which one differs.
 */
#include <stdint.h>

#include "shared/base/err.h"
#include "shared/base/mem.h"

/* One epoch of the learning curve. Accuracies and losses of training are of augmented samples, by
 * the weights of each step; NAN where there is nothing to say. */
struct train_epoch {
    int64_t epoch; /* from 0 */
    double loss, accuracy;
    double feature_loss;    /* mean over the pairs, as it is part of the loss but for its weight */
    double search_accuracy; /* of the network as it would be exported; NAN: not evaluated */
    double rate;            /* of the last step */
    double seconds, images_per_second;
};

/* Numbers of a run at a step. */
struct train_position {
    int64_t step; /* steps done */
    int64_t optimizer_steps, net_steps;
    int64_t seen, hits; /* samples of the epoch that is going on */
    double loss_sum, feature_sum;
    double seconds, epoch_seconds; /* spent so far */
    int64_t n_epochs;              /* finished: rows of the curve */
};

struct checkpoint_floats {
    float *data;
    int64_t n;
};
enum { CHECKPOINT_FLOATS_MAX = 5 };

struct checkpoint {
    char *settings;
    struct train_position position;
    struct train_epoch *curve; /* [position.n_epochs] */
    /* Runs of floats: weights and states, optimizer, averages, the trunk's. In this order. */
    int n_floats;
    struct checkpoint_floats floats[CHECKPOINT_FLOATS_MAX];
};

int checkpoint_write(const char *path, const struct checkpoint *c, struct err *err);
/* `c` holds the run's settings and its floats (with their numbers, whose places are filled). On
 * success position is set and *ret_curve is malloc'ed. Nothing of `c` has changed where it fails:
 * FAILED_PRECONDITION for a checkpoint of another run, naming what differs; DATA_LOSS for a file
 * that is none or is damaged. */
int checkpoint_read(const char *path, struct checkpoint *c, struct train_epoch **ret_curve,
                    struct err *err);

/* The curve as JSON, malloc'ed: {"epochs":[{"epoch":1,"loss":...,...}]}; NULL when memory is out.
 */
char *train_curve_json(const struct train_epoch *curve, int64_t n);
