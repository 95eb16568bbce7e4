#pragma once
/*
 * How to train, as people say it and as tasks carry it: names and numbers, checked, with the usual
 * ones where nothing is said; and the steps around a run (loop.h) that everybody needs who trains.
 *
 *     struct recipe how = recipe_usual();
 *     how.epochs = 20;
 *     recipe_options(&how, threads, &options, err);
 *     recipe_network(&how, g, ds, &pre, threads, &trainable, err);
 *     train_run(trainable, ds, &pre, &options, &result, err);
 *     recipe_ship(&how, result.graph, preprocess, err);
 */
#include "shared/train/loop.h"

struct recipe {
    /* alternating|random|none; zero|reflect; schedule.h; sgd|adam|adamw; auto|fp32|bf16 */
    const char *flip, *border, *schedule, *optimizer, *precision;
    int64_t epochs, batch, slice, seed, lookahead;
    int64_t evaluate; /* epochs between looks at the search part; negative: some 20 looks */
    int64_t views;    /* of each sample that a teacher answers; 0: 8, or each epoch's own */
    int64_t crop, cutout, time_mask, frequency_mask, time_shift;
    double rate, warmup, decay, momentum; /* negative: the optimizer's or schedule's usual one */
    double clip, shift_rate, norm_momentum, smoothing, mixup, ema, jitter, temperature, distil;
    /* Features of a teacher (features.h): pairs, NULL: none; mse|cosine|attention; 0: 1 */
    const char *features, *feature_loss;
    double feature_weight;
    bool reinit;                    /* new weights */
    bool zero_residual, identity;   /* with them only: as in reinit_options */
    bool whiten;                    /* so, too: the first convolution whitens, and is not trained */
    bool decay_shifts, keep_scales; /* of norms, as in optimizer_options */
};
struct recipe recipe_usual(void);

/* What the network decides: a quantized one is trained, and taught, in fp32. Of a teacher in bf16
 * it would learn that rounding, which is as large as its own. */
void recipe_settle(struct recipe *how, const struct graph *g);

/* INVALID_ARGUMENT, naming the setting, for what is out of its bounds or no word of the list. */
int recipe_options(const struct recipe *how, int threads, struct train_options *ret,
                   struct err *err);

/* Makes ready to learn what was read from a file, in place: simplified, with its branches apart
 * (pass_simplify_branched). A trunk (recipe_trunk) stays as it is, norms and all. */
int recipe_learner(struct graph *g, struct err *err);

/* A copy of the network in training form: norms back in their places (their statistics from the
 * training part), new weights where asked for; what a trunk's run left as it was stays so. A
 * quantized network stays as it is, and new weights of one are refused. *ret_frozen, in the copy's
 * memory, is for train_options.frozen. Returns how many norms were put back. */
int recipe_network(const struct recipe *how, const struct graph *g, const struct dataset *ds,
                   const struct preprocess *pre, int threads, struct graph **ret,
                   const char **ret_frozen, struct err *err);

/* What makes runs different beside their settings, for train_options.identity: hashes of the model
 * and of the data, and what was done to the weights. malloc'ed; NULL when memory is out. */
char *recipe_identity(const struct recipe *how, const char *model, const char *data);

/* How a teacher answers for runs by this recipe: its views and its precision. A quantized teacher
 * as it is, others in bf16 where the CPU has it: what is learned from answers does not depend on
 * their last digits. */
struct teacher_options recipe_teacher(const struct recipe *how, const struct graph *teacher,
                                      int threads);

/* What is learned from the teacher's features: the pairs that the recipe names or finds between the
 * teacher and the network as recipe_network gave it, both of which must stay. */
int recipe_features(const struct recipe *how, const struct graph *teacher,
                    const struct preprocess *pre, const struct graph *g, struct train_features *ret,
                    struct err *err);

/* From the graph of train_result to what is given away: norms folded, and written into it how it
 * came about. */
int recipe_ship(const struct recipe *how, struct graph *trained, const char *preprocess,
                struct err *err);
/* The trunk of train_result, to be kept for who goes on from there: norms stay where they are, with
 * what they have learned. frozen: of the run (train_options), which a further one is to leave as
 * they are, too; may be NULL. */
int recipe_trunk(const struct recipe *how, struct graph *trunk, const char *frozen,
                 const char *preprocess, struct err *err);
