/* A recipe as a message says it. */
#include "shared/train/recipe_message.h"

/* 0: the usual; where that is not 0, a negative number stands for 0. */
static double real(double said, double usual)
{
    return said < 0 ? 0 : said > 0 || said != said ? said : usual;
}

static int64_t whole(int64_t said, int64_t usual)
{
    return said < 0 ? 0 : said > 0 ? said : usual;
}

static const char *word(const char *said, const char *usual)
{
    return said && *said ? said : usual;
}

struct recipe recipe_from_message(const Hone__V1__TrainSettings *from)
{
    struct recipe how = recipe_usual();
    if (!from)
        return how;
    how.flip = word(from->flip, how.flip);
    how.border = word(from->border, how.border);
    how.schedule = word(from->schedule, how.schedule);
    how.optimizer = word(from->optimizer, how.optimizer);
    how.precision = word(from->precision, how.precision);
    how.epochs = whole(from->epochs, how.epochs);
    how.batch = whole(from->batch, how.batch);
    how.evaluate = whole(from->evaluate, how.evaluate);
    how.features = word(from->features, NULL);
    how.feature_loss = word(from->feature_loss, how.feature_loss);
    how.feature_weight = from->feature_weight;
    how.slice = from->slice;
    how.seed = (int64_t)(from->seed & INT64_MAX);
    how.lookahead = from->lookahead;
    how.views = from->views;
    how.crop = from->crop;
    how.cutout = from->cutout;
    how.time_mask = from->time_mask;
    how.frequency_mask = from->frequency_mask;
    how.time_shift = from->time_shift;
    how.rate = real(from->rate, how.rate);
    how.warmup = real(from->warmup, how.warmup);
    how.decay = real(from->decay, how.decay);
    how.momentum = real(from->momentum, how.momentum);
    how.temperature = real(from->temperature, how.temperature);
    how.distil = real(from->distil, how.distil);
    how.clip = from->clip;
    how.shift_rate = from->shift_rate;
    how.norm_momentum = from->norm_momentum;
    how.smoothing = from->smoothing;
    how.mixup = from->mixup;
    how.ema = from->ema;
    how.jitter = from->jitter;
    how.reinit = from->reinit;
    how.zero_residual = from->zero_residual;
    how.identity = from->identity;
    how.whiten = from->whiten;
    how.decay_shifts = from->decay_shifts;
    how.keep_scales = from->keep_scales;
    return how;
}
