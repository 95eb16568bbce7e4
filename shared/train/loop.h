#pragma once
/*
 * A training run: from a network and data to a network that has learned from them.
 *
 * The training part is learned from, the search part is looked at now and then (by the exported
 * network, through inference plans), the test part is never touched. Batches are made by a thread
 * of their own while the network computes (batches.h); what is learned from and in which order is a
 * function of the settings and the seed. With the same settings, seed, threads and machine a run
 * gives the same weights bit for bit, whether or not it was stopped and resumed on the way.
 *
 *     struct train_options options = train_defaults();
 *     options.epochs = 80;
 *     train_run(g, ds, &pre, &options, &result, err);
 *     pass_simplify(result.graph, err);   // norms folded: ready to be shipped
 *     train_result_release(&result);
 */
#include "shared/train/batches.h"
#include "shared/train/checkpoint.h"
#include "shared/train/judge.h"
#include "shared/train/loss.h"
#include "shared/train/optimizer.h"
#include "shared/train/schedule.h"
#include "shared/train/teacher.h"

/* What can be seen of a run while it runs. */
struct train_progress {
    int64_t epoch, epochs; /* the one going on, from 0 */
    int64_t step, steps;   /* of this epoch: done, all */
    double loss, accuracy; /* means of this epoch so far; accuracy: of labels, or where these are
                              not the network's classes the teacher's top answers; else NAN */
    double feature_loss;   /* NAN without */
    double rate;
    double images_per_second;           /* of this epoch */
    double seconds, left;               /* spent, estimated */
    const struct train_epoch *finished; /* the epoch that ended with this step; NULL else */
};

/* A teacher whose features are learned from, too (features.h). */
struct train_features {
    const struct graph *teacher; /* as for inference */
    enum precision precision;
    struct preprocess pre;
    enum loss_feature_kind kind;
    struct feature_pairs pairs;
    double weight; /* of the mean over the pairs, on top of the rest of the loss */
};

struct train_options {
    int epochs;
    int64_t batch;
    struct schedule schedule;
    struct optimizer_options optimizer;
    double smoothing;
    struct augment augment;
    double mixup;

    const struct teacher *teacher; /* of the same views; NULL: labels only */
    const char *data; /* as in the teacher's options: with it, a teacher of other views is
                         refused; NULL: not compared */
    double distil;    /* the teacher's share of the loss */
    double temperature;
    const struct train_features *features; /* may be NULL */
    const struct train_judge *judge; /* whose answers are right where labels are not; may be NULL */

    double ema;    /* decay of an average that is what is evaluated and exported; 0: none */
    int lookahead; /* the weights are pulled back to their slow average every so many steps,
                      more and more towards the end (airbench's); 0: never */
    const struct graph *original; /* of a quantized network, as in train_net_options; may be NULL */
    const char *frozen;           /* name of weights that stay as they are; NULL: none */
    float norm_momentum;          /* as in train_net_options */
    uint64_t seed;
    int threads;
    int64_t slice;
    enum precision precision;

    int stop_after; /* end after so many epochs of the schedule, evaluated and exported, with the
                       checkpoint up to date: another run with more goes on from there; 0: all */
    int evaluate_every; /* epochs between looks at the search part; 0: never but at the end;
                           negative: not at all */

    const char *identity; /* what else tells this run from others (hashes of model and data, ...) as
                             lines key=value; may be NULL */
    const char *checkpoint;                   /* file; NULL: none */
    double checkpoint_seconds;                /* between two of them; 0: 300 */
    int (*saved)(void *ctx, struct err *err); /* the checkpoint has been written; may be NULL */
    void *saved_ctx;
    bool resume; /* from the checkpoint, where it is there */

    /* A step has been done; a negative return ends the run as it stands (as a failure). */
    int (*progress)(void *ctx, const struct train_progress *p, struct err *err);
    void *progress_ctx;
    bool (*stop)(void *ctx); /* asked after each step, and while the search part is looked at (the
                                run stops behind it); may be NULL */
    void *stop_ctx;
};
/* ResNet's usual recipe for small pictures: 80 epochs of 128, SGD 0.1 cosine, decay 5e-4, crop 4,
 * random flips. */
struct train_options train_defaults(void);

struct train_result {
    struct graph *graph; /* trained, in training form, its norms not folded */
    struct graph *trunk; /* with a trapezoid that went down: as it was before, in training form, not
                            averaged; else NULL */
    struct train_epoch *curve;
    int64_t n_epochs;
    double seconds;           /* of the whole run, over all its parts */
    double images_per_second; /* of this part, without evaluation */
    int64_t samples_seen;     /* in this part */
    size_t memory;            /* bytes that the network takes */
    enum precision precision; /* as computed */
    enum judge_metric metric; /* of the curve's search_accuracy */
};
void train_result_release(struct train_result *result); /* for _cleanup_ */

/* `g` is in training form (unfold.h). CANCELLED when `stop` said so: then the checkpoint, where one
 * was asked for, is up to date, and *ret holds the curve (graph NULL). */
int train_run(const struct graph *g, const struct dataset *ds, const struct preprocess *pre,
              const struct train_options *options, struct train_result *ret, struct err *err);
