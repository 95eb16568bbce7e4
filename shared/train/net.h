#pragma once
/*
 * A network as a trainable computation: forward and backward on oneDNN and on kernels of our own.
 *
 * The batch is cut into slices. A slice goes forward and backward through the whole network on one
 * lane (one thread), so that what an operator writes is still in that core's cache when the next
 * one reads it; BatchNormalization takes its statistics over the slice. Lanes share the weights;
 * gradients are summed over slices in a fixed order, so that a run with the same seed, threads and
 * slice gives the same numbers bit for bit. All memory is planned and taken once.
 *
 * The graph is an fp32 network in training form (BatchNormalization nodes stay and are trained; see
 * unfold.h for networks from which an export folded them away). Trained are the constants that
 * Conv, ConvTranspose, Gemm, MatMul, BatchNormalization and PRelu read as weights, biases, scales,
 * shifts and slopes; a final Softmax is left out, so that the first output is logits.
 *
 *     train_net_new(g, &options, &net, err);
 *     for (each step) {
 *         train_net_step(net, x, loss, ctx, err);     // gradients
 *         optimizer_step(...);                        // changes param->value
 *     }
 *     train_net_export(net, &trained, err);           // the graph with its weights now
 */
#include "shared/graph/graph.h"

struct train_net;

struct train_net_options {
    int64_t batch;            /* samples of one step */
    int threads;              /* lanes; 0: 1 */
    int64_t slice;            /* samples that go through the network together; 0: chosen from the
                                 network's size (never by measurement). Divides the batch. */
    enum precision precision; /* FP32, or BF16: arithmetic and activations in bf16 with fp32 master
                                 weights, statistics and sums; AUTO: BF16 where nn_has_bf16().
                                 Quantized networks compute in FP32 whatever is said: 256 steps of
                                 any scale do not fit in bf16's 8 digits */
    const struct graph *original; /* of a quantized network, may be NULL: where its weights round to
                                     the integers, training begins with them */
    float norm_momentum;     /* of running statistics: running += momentum * (slice's - running),
                                once a step with the mean over its slices; 0: 0.1 */
    uint64_t seed;           /* of Dropout */
    int n_taps;              /* values (cut points) whose activations the loss sees as well */
    const char *const *taps; /* names */
    bool timed;              /* keep times of operators, for train_net_time */
};

/* UNIMPLEMENTED, naming the node, for an operator that cannot be trained through. */
int train_net_new(const struct graph *g, const struct train_net_options *options,
                  struct train_net **ret, struct err *err);
struct train_net *train_net_free(struct train_net *net); /* NULL-safe, returns NULL */
void train_net_freep(struct train_net **net);

/* What is trained. `value` may be changed between steps; `grad` is the last step's. */
enum train_role { TRAIN_WEIGHT, TRAIN_BIAS, TRAIN_NORM_SCALE, TRAIN_NORM_SHIFT, TRAIN_SLOPE };
struct train_param {
    const char *name; /* of the graph's constant */
    enum train_role role;
    struct shape shape;
    int64_t n;
    float *value, *grad;
};
int train_net_n_params(const struct train_net *net);
struct train_param *train_net_param(struct train_net *net, int i);

/* Running means and variances: not trained, but part of what a checkpoint and an average keep. */
struct train_state {
    const char *name; /* of the graph's constant */
    int64_t n;
    float *value;
};
int train_net_n_states(const struct train_net *net);
struct train_state *train_net_state(struct train_net *net, int i);

/* Floats of one sample: of the input, of output i (0: logits; 1 + t: tap t). */
int64_t train_net_input_width(const struct train_net *net);
int64_t train_net_output_width(const struct train_net *net, int i);
int64_t train_net_slice(const struct train_net *net);
int train_net_lanes(const struct train_net *net);
enum precision train_net_precision(const struct train_net *net);
size_t train_net_memory(const struct train_net *net); /* bytes */

/* The loss of samples [first, first + count) of the batch. outputs[i]: [count, output width i] f32,
 * dense in ONNX's layout; gradients[i], of the same shape, is zero before and takes the derivative
 * of the step's whole loss (so usually that of the mean over the batch: divide by the batch).
 * Called from the lanes' threads, once for each slice. */
typedef int train_loss(void *ctx, int lane, int64_t first, int64_t count,
                       const float *const *outputs, float *const *gradients, struct err *err);

/* One step's forward and backward. x: [batch, input width] f32, dense. */
int train_net_step(struct train_net *net, const float *x, train_loss *loss, void *ctx,
                   struct err *err);

/* Steps done so far: what Dropout's choices follow from, with the seed. A run that is resumed sets
 * them to where it was. */
uint64_t train_net_steps(const struct train_net *net);
void train_net_set_steps(struct train_net *net, uint64_t steps);

/* Where the time of the first lane went since the start, when options.timed: operator i in forward
 * and backward, the first of which is the input. OUT_OF_RANGE (no text) behind the last. */
struct train_time {
    const char *kind, *node; /* "convolution", name of the node */
    int64_t forward_ns, backward_ns;
};
int train_net_time(const struct train_net *net, int i, struct train_time *ret);

/* The graph with the weights and running statistics of now. */
int train_net_export(const struct train_net *net, struct graph **ret, struct err *err);
