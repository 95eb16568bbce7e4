#pragma once
/*
 * From gradients to weights. With the same gradients every step gives the same bits, for any number
 * of threads: sums are taken over pieces of a fixed length, in order.
 *
 * Decay does not touch biases, scales and shifts of norms and slopes: pulling those to zero changes
 * the function without making anything smoother. Shifts that go at a high rate of their own may
 * need it all the same.
 */
#include <stdbool.h>

#include "shared/train/net.h"

enum optimizer_kind {
    OPTIMIZER_SGD,  /* v = momentum v + g; w -= rate (g + momentum v), Nesterov's, or rate v */
    OPTIMIZER_ADAM, /* Kingma and Ba (2015), with bias correction */
};

struct optimizer_options {
    enum optimizer_kind kind;
    double momentum; /* SGD */
    bool nesterov;
    double beta1, beta2, epsilon; /* Adam */
    double decay;                 /* of weights */
    bool decoupled;    /* w -= rate * decay * w beside the step (AdamW); else the decay is part
                          of the gradient */
    double clip;       /* longest gradient over all parameters, L2; 0: none */
    double shift_rate; /* factor on the rate of norms' shifts; 0: 1 */
    bool decay_shifts; /* shifts of norms decay as fast as weights, whatever their rate (coupled
                          decay only) */
    bool keep_scales;  /* scales of norms stay as they are */
    int threads;       /* used for large networks only; 0: 1 */
};
/* The usual numbers: momentum 0.9 Nesterov, decay 5e-4 coupled; beta 0.9 and 0.999, epsilon 1e-8,
 * decay 0.01 decoupled. */
struct optimizer_options optimizer_defaults(enum optimizer_kind kind);

struct optimizer;
/* The parameters (their values and gradients) stay the caller's and must outlive the optimizer. */
int optimizer_new(struct train_param *const *params, int n_params,
                  const struct optimizer_options *options, struct optimizer **ret, struct err *err);
struct optimizer *optimizer_free(struct optimizer *o); /* NULL-safe, returns NULL */
void optimizer_freep(struct optimizer **o);

/* One step. Gradients are read only. *ret_norm (may be NULL): their length before clipping. Where
 * that is no finite number, OUT_OF_RANGE, and nothing is changed. */
int optimizer_step(struct optimizer *o, double rate, double *ret_norm, struct err *err);

/* What a checkpoint keeps beside the parameters: floats (momentum, moments) and the steps done. */
float *optimizer_state(struct optimizer *o, int64_t *ret_n);
int64_t optimizer_steps(const struct optimizer *o);
void optimizer_set_steps(struct optimizer *o, int64_t steps);
