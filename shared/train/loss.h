#pragma once
/*
 * Losses and their gradients with respect to the network's outputs. Plain functions of one sample;
 * the training loop calls them from its lanes.
 *
 *     loss = (1 - distil) CE(target, softmax(z)) + distil T^2 KL(softmax(teacher / T) || softmax(z
 * / T))
 *
 * where the target is (1 - smoothing) on the label and smoothing spread over all classes. T^2 keeps
 * the gradient's size from changing with T (Hinton and others, 2015). A sample that mixup made of
 * two has two labels and two rows of the teacher; its targets are the mixture of both.
 */
#include <stdint.h>

struct loss {
    int64_t width;    /* classes */
    double smoothing; /* 0 .. 1 */
    double distil;    /* share of the teacher, 0 .. 1 */
    double temperature;
};

struct loss_target {
    int32_t label, other;                 /* -1: none (distil must be 1) */
    float share;                          /* of `label`; 1: `other` is not looked at */
    const float *teacher, *teacher_other; /* logits; NULL: none (distil must be 0) */
};

/* Floats of scratch memory that loss_sample needs. */
int64_t loss_spare(const struct loss *l);
/* The loss of one sample. gradient[width] takes scale * d loss / d logits on top of what is there.
 */
double loss_sample(const struct loss *l, const struct loss_target *t, const float *logits,
                   double scale, float *gradient, double *spare);

/* ---- features: what a student computes on its way against what its teacher does ---- */

enum loss_feature_kind {
    FEATURE_MSE,    /* mean squared error, as a share of the teacher's variance over the sample */
    FEATURE_COSINE, /* 1 - cosine of the angle between the two */
    FEATURE_ATTENTION, /* squared distance of the normalised maps of energy, mean over the channels
                          of the square (Zagoruyko and Komodakis, 2017): channels may differ */
};
struct loss_features {
    enum loss_feature_kind kind;
    int64_t channels, parent_channels, pixels;
};
/* Doubles of scratch memory that loss_features needs. */
int64_t loss_features_spare(const struct loss_features *f);
/* One sample: out [channels, pixels], parent [parent_channels, pixels]; gradient takes scale *
 * derivative on top. 0, without a gradient, where the parent says nothing. */
double loss_features(const struct loss_features *f, const float *out, const float *parent,
                     double scale, float *gradient, double *spare);

/* Feature loss, MSE(out, parent) / MSE(0, parent), over any number of pieces: `power` is
 * loss_power(parent) of the whole, so that the sum of the pieces' losses is the whole's. gradient
 * takes scale * derivative on top. */
double loss_power(const float *parent, int64_t n);
double loss_feature(const float *out, const float *parent, int64_t n, double power, double scale,
                    float *gradient);
