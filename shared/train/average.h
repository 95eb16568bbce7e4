#pragma once
/*
 * Averages of weights over steps: a copy that is not trained but shipped (EMA), or that the weights
 * are pulled back to now and then (lookahead, Zhang and others 2019). What is averaged are all
 * floats that a network consists of: parameters and BatchNormalization's running statistics.
 */
#include "shared/train/net.h"

struct average;
/* Starts as a copy of the network as it is now. The network must outlive the average. */
int average_new(struct train_net *net, struct average **ret, struct err *err);
struct average *average_free(struct average *a); /* NULL-safe, returns NULL */
void average_freep(struct average **a);

/* average += (1 - decay) * (network - average) */
void average_add(struct average *a, double decay);
/* The network takes the average's numbers. */
void average_give(const struct average *a);
/* The network and the average change places: once to look at or export the average, once more to
 * go on training. */
void average_swap(struct average *a);
/* For checkpoints. */
float *average_floats(struct average *a, int64_t *ret_n);

/* The decay of step t, when it should be `decay` in the long run: an average that began at random
 * weights must first forget them. min(decay, (1 + t) / (10 + t)) */
double average_decay(double decay, int64_t t);

/* Parameters and states of a network as one list, in the network's order: what averages and
 * checkpoints go through. */
struct train_span {
    const char *name;
    float *value;
    int64_t n;
};
int train_spans(struct train_net *net, struct arena *arena, struct train_span **ret, int *ret_n,
                struct err *err);
