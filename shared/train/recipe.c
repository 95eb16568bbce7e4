#include "shared/train/recipe.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "shared/base/str.h"
#include "shared/graph/infer.h"
#include "shared/graph/passes.h"
#include "shared/nn/quantize.h"
#include "shared/train/unfold.h"

#define UNFOLD_SAMPLES 1024
/* Metadata of trunks. */
#define FORM "hone.form"
#define TRAINING "training"
#define FROZEN "hone.frozen"
#define USUAL_VIEWS 8

struct recipe recipe_usual(void)
{
    return (struct recipe){.flip = "random",
                           .border = "zero",
                           .schedule = "cosine",
                           .optimizer = "sgd",
                           .precision = "auto",
                           .feature_loss = "mse",
                           .epochs = 80,
                           .batch = 128,
                           .evaluate = -1,
                           .rate = -1,
                           .warmup = -1,
                           .decay = -1,
                           .momentum = -1,
                           .temperature = 1,
                           .distil = 1};
}

void recipe_settle(struct recipe *how, const struct graph *g)
{
    if (quant_is_quantized(g))
        how->precision = "fp32";
}

/* ---- bounds ---- */

#define WHOLE(field, least, most) {#field, offsetof(struct recipe, field), true, least, most}
#define REAL(field, least, most) {#field, offsetof(struct recipe, field), false, least, most}

static const struct bound {
    const char *name;
    size_t at;
    bool whole;
    double least, most;
} bounds[] = {
    WHOLE(epochs, 1, 1e6),
    WHOLE(batch, 1, 65536),
    WHOLE(slice, 0, 65536),
    WHOLE(seed, 0, 9e15),
    WHOLE(lookahead, 0, 1e6),
    WHOLE(evaluate, -1, 1e6),
    WHOLE(views, 0, 65536),
    WHOLE(crop, 0, 4096),
    WHOLE(cutout, 0, 4096),
    WHOLE(time_mask, 0, 65536),
    WHOLE(frequency_mask, 0, 65536),
    WHOLE(time_shift, 0, 65536),
    REAL(rate, -1, 1e6),
    REAL(warmup, -1, 0.9),
    REAL(decay, -1, 10),
    REAL(momentum, -1, 0.9999),
    REAL(clip, 0, 1e9),
    REAL(shift_rate, 0, 1e4),
    REAL(norm_momentum, 0, 1),
    REAL(smoothing, 0, 0.99),
    REAL(mixup, 0, 100),
    REAL(ema, 0, 0.99999),
    REAL(jitter, 0, 1),
    REAL(temperature, 0.01, 100),
    REAL(distil, 0, 1),
    REAL(feature_weight, 0, 1e6),
};

static int check_bounds(const struct recipe *how, struct err *err)
{
    for (size_t i = 0; i < sizeof(bounds) / sizeof(bounds[0]); i++) {
        const struct bound *b = &bounds[i];
        const char *field = (const char *)how + b->at;
        const double value = b->whole ? (double)*(const int64_t *)field : *(const double *)field;
        if (!(value >= b->least && value <= b->most))
            return err_set(err, ERR_INVALID_ARGUMENT, "%s=%g: %g to %g are possible", b->name,
                           value, b->least > 0 ? b->least : 0, b->most);
    }
    return 0;
}

/* What is done to new weights would destroy those that are there. */
static int check_new_weights(const struct recipe *how, struct err *err)
{
    const char *name = how->whiten          ? "whiten"
                       : how->identity      ? "identity"
                       : how->zero_residual ? "zero_residual"
                                            : NULL;
    return how->reinit || !name
               ? 0
               : err_set(err, ERR_INVALID_ARGUMENT, "%s is for new weights: it needs reinit", name);
}

/* The place of the word in the list; negative when it is not there. */
static int choose(const char *what, const char *word, const char *const *words, struct err *err)
{
    char all[128] = "";
    for (int i = 0; words[i]; i++) {
        if (strcmp(words[i], word) == 0)
            return i;
        const size_t n = strlen(all);
        snprintf(all + n, sizeof(all) - n, "%s%s", i ? ", " : "", words[i]);
    }
    return err_set(err, ERR_INVALID_ARGUMENT, "%s='%.40s' is none of %s", what, word, all);
}

/* ---- options ---- */

static double or_usual(double given, double usual)
{
    return given >= 0 ? given : usual;
}

static int set_optimizer(const struct recipe *how, struct train_options *o, struct err *err)
{
    enum { SGD, ADAM, ADAMW };
    static const char *const optimizers[] = {"sgd", "adam", "adamw", NULL};
    enum schedule_kind kind;
    const int which = choose("optimizer", how->optimizer, optimizers, err);
    int rc = which < 0 ? which : schedule_parse(how->schedule, &kind, err);
    if (rc < 0)
        return rc;
    o->optimizer = optimizer_defaults(which == SGD ? OPTIMIZER_SGD : OPTIMIZER_ADAM);
    if (which == ADAM) { /* as it was before AdamW: decay in the gradient */
        o->optimizer.decoupled = false;
        o->optimizer.decay = 0;
    }
    o->optimizer.decay = or_usual(how->decay, o->optimizer.decay);
    o->optimizer.momentum = or_usual(how->momentum, o->optimizer.momentum);
    o->optimizer.clip = how->clip;
    o->optimizer.shift_rate = how->shift_rate;
    o->optimizer.decay_shifts = how->decay_shifts;
    o->optimizer.keep_scales = how->keep_scales;
    o->schedule = schedule_make(kind, or_usual(how->rate, which == SGD ? 0.1 : 0.001));
    o->schedule.warmup = or_usual(how->warmup, o->schedule.warmup);
    return 0;
}

static int set_augment(const struct recipe *how, struct augment *a, struct err *err)
{
    static const char *const flips[] = {"none", "random", "alternating", NULL};
    static const char *const borders[] = {"zero", "reflect", NULL};
    const int flip = choose("flip", how->flip, flips, err);
    const int border = flip < 0 ? flip : choose("border", how->border, borders, err);
    if (border < 0)
        return border;
    *a = (struct augment){.crop = (int)how->crop,
                          .border = border == 1 ? BORDER_REFLECT : BORDER_ZERO,
                          .flip = flip == 0   ? FLIP_NONE
                                  : flip == 1 ? FLIP_RANDOM
                                              : FLIP_ALTERNATING,
                          .cutout = (int)how->cutout,
                          .brightness = how->jitter,
                          .contrast = how->jitter,
                          .saturation = how->jitter,
                          .time_mask = (int)how->time_mask,
                          .frequency_mask = (int)how->frequency_mask,
                          .time_shift = (int)how->time_shift};
    return 0;
}

int recipe_options(const struct recipe *how, int threads, struct train_options *ret,
                   struct err *err)
{
    static const char *const precisions[] = {"auto", "fp32", "bf16", NULL};
    struct train_options o = train_defaults();
    int rc = check_bounds(how, err);
    if (rc == 0)
        rc = check_new_weights(how, err);
    if (rc == 0)
        rc = choose("precision", how->precision, precisions, err);
    if (rc >= 0)
        rc = precision_parse(how->precision, &o.precision, err);
    if (rc == 0)
        rc = set_augment(how, &o.augment, err);
    if (rc == 0)
        rc = set_optimizer(how, &o, err);
    if (rc < 0)
        return rc;
    o.epochs = (int)how->epochs;
    o.batch = how->batch;
    o.slice = how->slice;
    o.threads = threads;
    o.seed = (uint64_t)how->seed;
    o.smoothing = how->smoothing;
    o.mixup = how->mixup;
    o.ema = how->ema;
    o.lookahead = (int)how->lookahead;
    o.norm_momentum = (float)how->norm_momentum;
    o.distil = how->distil;
    o.temperature = how->temperature;
    o.evaluate_every = how->evaluate >= 0 ? (int)how->evaluate : 1 + (int)how->epochs / 20;
    *ret = o;
    return 0;
}

struct teacher_options recipe_teacher(const struct recipe *how, const struct graph *teacher,
                                      int threads)
{
    const int64_t usual = how->epochs < USUAL_VIEWS ? how->epochs : USUAL_VIEWS;
    const bool narrow = strcmp(how->precision, "fp32") != 0 && nn_has_bf16();
    return (struct teacher_options){.views = (int)(how->views > 0 ? how->views : usual),
                                    .threads = threads,
                                    .precision = quant_is_quantized(teacher) ? PRECISION_AUTO
                                                 : narrow                    ? PRECISION_BF16
                                                                             : PRECISION_FP32};
}

int recipe_features(const struct recipe *how, const struct graph *teacher,
                    const struct preprocess *pre, const struct graph *g, struct train_features *ret,
                    struct err *err)
{
    static const char *const kinds[] = {"mse", "cosine", "attention", NULL};
    const int kind = choose("feature_loss", how->feature_loss, kinds, err);
    if (kind < 0)
        return kind;
    *ret = (struct train_features){.teacher = teacher,
                                   .precision = recipe_teacher(how, teacher, 1).precision,
                                   .pre = *pre,
                                   .kind = (enum loss_feature_kind)kind,
                                   .weight = how->feature_weight > 0 ? how->feature_weight : 1};
    return feature_pairs_find(teacher, g, how->features, ret->kind, &ret->pairs, err);
}

/* ---- the network ---- */

/* Norms are folded into the integers and stay there. */
static int quantized_network(const struct recipe *how, const struct graph *g, struct graph **ret,
                             const char **ret_frozen, struct err *err)
{
    if (how->reinit)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s",
                       "new weights (reinit) of a quantized network would not fit its scales: "
                       "train the original anew, and quantize that");
    *ret_frozen = NULL;
    return graph_clone(g, ret, err);
}

int recipe_network(const struct recipe *how, const struct graph *g, const struct dataset *ds,
                   const struct preprocess *pre, int threads, struct graph **ret,
                   const char **ret_frozen, struct err *err)
{
    const struct reinit_options new = {.seed = (uint64_t)how->seed,
                                       .zero_residual = how->zero_residual,
                                       .identity = how->identity};
    const struct unfold_options options = {.threads = threads};
    _cleanup_(sample_view_release) struct sample_view view = {0};
    _cleanup_(graph_freep) struct graph *made = NULL;
    if (quant_is_quantized(g))
        return quantized_network(how, g, ret, ret_frozen, err);
    int rc = graph_clone(g, &made, err);
    if (rc >= 0)
        rc = sample_view_init(&view, ds, PART_TRAIN, pre, UNFOLD_SAMPLES, 0, err);
    if (rc >= 0)
        rc = unfold_batchnorm(made, &options, how->reinit ? 0 : view.n, sample_view_fill, &view,
                              err);
    const int norms = rc;
    if (rc >= 0 && how->reinit)
        rc = reinit_weights(made, &new, err);
    *ret_frozen = how->reinit ? NULL : graph_metadata(made, FROZEN);
    if (rc >= 0 && how->whiten)
        rc = whiten_first(made, view.n, sample_view_fill, &view, ret_frozen, err);
    if (rc < 0)
        return rc;
    *ret = TAKE_PTR(made);
    return norms;
}

char *recipe_identity(const struct recipe *how, const char *model, const char *data)
{
    return str_printf("model=%s\ndata=%s\nreinit=%d\nzero_residual=%d\nidentity=%d\nwhiten=%d\n",
                      model, data, how->reinit, how->zero_residual, how->identity, how->whiten);
}

/* ---- files ---- */

int recipe_learner(struct graph *g, struct err *err)
{
    const char *form = graph_metadata(g, FORM);
    int rc =
        form && strcmp(form, TRAINING) == 0 ? graph_infer(g, err) : pass_simplify_branched(g, err);
    return rc < 0 ? rc : 0;
}

static int say_origin(const struct recipe *how, struct graph *g, const char *preprocess,
                      struct err *err)
{
    char seed[32];
    snprintf(seed, sizeof(seed), "%lld", (long long)how->seed);
    int rc = graph_set_metadata(g, "hone.version", HONE_VERSION, err);
    if (rc >= 0)
        rc = graph_set_metadata(g, "hone.preprocess", preprocess, err);
    if (rc >= 0)
        rc = graph_set_metadata(g, "hone.seed", seed, err);
    return rc < 0 ? rc : 0;
}

int recipe_ship(const struct recipe *how, struct graph *trained, const char *preprocess,
                struct err *err)
{
    graph_remove_metadata(trained, FORM);
    graph_remove_metadata(trained, FROZEN);
    int rc = pass_simplify(trained, err);
    return rc < 0 ? rc : say_origin(how, trained, preprocess, err);
}

int recipe_trunk(const struct recipe *how, struct graph *trunk, const char *frozen,
                 const char *preprocess, struct err *err)
{
    int rc = graph_set_metadata(trunk, FORM, TRAINING, err);
    if (rc >= 0 && frozen)
        rc = graph_set_metadata(trunk, FROZEN, frozen, err);
    return rc < 0 ? rc : say_origin(how, trunk, preprocess, err);
}
