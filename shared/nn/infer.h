#pragma once
/*
 * Inference over many samples: streams of plans on threads, and what the outputs say.
 *
 * Samples come through a callback, so that this floor needs nothing of shared/data.
 */
#include "shared/nn/plan.h"

/* Fills out[0 .. count) samples (dense float, the network's input shape without the batch), from
 * sample `first` on. Called from several threads. */
typedef int infer_fill(void *ctx, int64_t first, int64_t count, float *out, struct err *err);
/* Progress; a negative return stops. Called from one thread at a time. */
typedef int infer_progress(void *ctx, int64_t done, int64_t total, struct err *err);

struct infer_options {
    int threads;   /* streams, one thread each; 0: all processors */
    int64_t batch; /* 0: chosen (16 or so) */
    enum precision precision;
    bool choose_by_name; /* as in plan_options: kernels by name, so that numbers come out the same
                            bit for bit however busy the machine is */
    infer_progress *progress;
    void *progress_ctx;
};

/* Runs n samples through a network with one float input; ret_out: n rows of the first output,
 * flattened (infer_output_width floats each), the caller's. */
int infer_run(const struct graph *g, const struct infer_options *options, int64_t n,
              infer_fill *fill, void *ctx, float *ret_out, struct err *err);
/* The same on ONNX Runtime: the bytes of a file, and `g` as it is in it. */
int infer_run_ort(const void *onnx, size_t bytes, const struct graph *g,
                  const struct infer_options *options, int64_t n, infer_fill *fill, void *ctx,
                  float *ret_out, struct err *err);
/* Floats of the first output for one sample. */
int infer_output_width(const struct graph *g, int64_t *ret, struct err *err);

/* ---- what the outputs say; logits: [n, width] ---- */
/* The answer of a row: the index of its largest number, the first of equal ones. */
int32_t infer_top(const float *row, int64_t width);

struct infer_metrics {
    int64_t n;
    double top1;       /* share of samples whose argmax is the label; NAN without labels */
    double agreement;  /* share whose argmax is the reference's; NAN without reference */
    double kl;         /* mean KL(softmax(reference) || softmax(this)), nats; NAN without */
    double confidence; /* mean of the largest probability */
};
/* labels or reference may be NULL. Rows that already are probabilities (all >= 0, sum 1) are used
 * as they are instead of through softmax. */
void infer_metrics(const float *logits, const float *reference, const int32_t *labels, int64_t n,
                   int64_t width, struct infer_metrics *ret);

/* Drop of a network against its original on the same samples, in points (percent): the original
 * alone is right on `worse` of them, the network alone on `better`. */
struct paired_drop {
    double points, upper95_points;
    int64_t worse, better; /* discordant samples */
};
/* Without labels the original is right by definition. */
void infer_paired_drop(const float *logits, const float *original, const int32_t *labels, int64_t n,
                       int64_t width, struct paired_drop *ret);

/* Upper end of the paired one-sided interval of the drop, in points, which is missed with the
 * probability `miss` (0.05: 95 %): d_i = correct_original - correct_network in {-1, 0, 1}; mean + z
 * * s / sqrt(n). Where fewer than 30 pairs are discordant, the larger of two exact limits (Clopper
 * and Pearson): of the share of `worse` among the discordant pairs, and of the share of `worse`
 * among all n, less the share of `better`; so a sample without a single discordant pair still says
 * no more than about 300 / n points (of 95 %). */
double infer_drop_bound(int64_t worse, int64_t better, int64_t n, double miss);

/* One of several networks that are compared with a limit on the same samples. */
struct drop_case {
    int64_t worse, better, n;
    double bound; /* what comes out, in points */
};
/* Holm's step-down procedure: with the probability `miss` at most, any of those whose bound is
 * within the limit really drops more. All are asked to keep the limit with miss / n; those that do
 * leave more of it for the others, until nobody more keeps it. So a bound is as wide as the step in
 * which its network kept the limit, or the last one, asks. limit -INFINITY: nobody keeps it, and
 * all bounds hold together (Bonferroni). */
void infer_drop_bounds(struct drop_case *cases, int n, double miss, double limit);
