#include "services/trainer/inputs.h"

#include "shared/base/mem.h"
#include "shared/graph/infer.h"
#include "shared/graph/onnx.h"
#include "shared/graph/passes.h"

typedef int simplify(struct graph *g, struct err *err);

static int read_network(struct store *store, const char *name, const char *what, simplify *pass,
                        struct graph **ret, struct err *err)
{
    _cleanup_(freep) void *data = NULL;
    _cleanup_(graph_freep) struct graph *g = NULL;
    size_t bytes = 0;
    if (!*name)
        return err_set(err, ERR_INVALID_ARGUMENT, "the task names no %s", what);
    int rc = store_get(store, name, onnx_default_limits.max_file_bytes, &data, &bytes, err);
    if (rc == 0)
        rc = onnx_read_bytes(data, bytes, NULL, NULL, &g, err);
    if (rc >= 0)
        rc = pass(g, err);
    if (rc < 0)
        return err_wrap(err, "%s", what);
    graph_make_batch_symbolic(g, NULL); /* where it cannot, the batch stays as it is */
    *ret = TAKE_PTR(g);
    return 0;
}

int inputs_network(struct store *store, const char *name, const char *what, struct graph **ret,
                   struct err *err)
{
    return read_network(store, name, what, pass_simplify, ret, err);
}

static int as_it_is(struct graph *g, struct err *err)
{
    return graph_infer(g, err);
}

int inputs_part(struct store *store, const char *name, const char *what, struct graph **ret,
                struct err *err)
{
    return read_network(store, name, what, as_it_is, ret, err);
}

int inputs_learner(struct store *store, const char *name, const char *what, struct graph **ret,
                   struct err *err)
{
    return read_network(store, name, what, pass_simplify_branched, ret, err);
}

int inputs_data(struct store *store, const char *name, struct dataset **ret, struct err *err)
{
    _cleanup_(freep) char *path = NULL;
    if (!*name)
        return err_set(err, ERR_INVALID_ARGUMENT, "the task names no data");
    int rc = store_get_path(store, name, &path, err);
    if (rc == 0)
        rc = dataset_open(path, ret, err);
    return rc < 0 ? err_wrap(err, "data") : 0;
}

int inputs_preprocess(const Hone__V1__Preprocess *from, struct preprocess *ret, char **ret_text,
                      struct err *err)
{
    if (!from || !*from->text)
        return err_set(err, ERR_INVALID_ARGUMENT, "the task says nothing of preprocessing");
    int rc = preprocess_parse(from->text, ret, err);
    if (rc < 0)
        return err_wrap(err, "preprocessing");
    *ret_text = preprocess_text(ret);
    return *ret_text ? 0 : err_oom(err, "preprocessing");
}

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

struct recipe inputs_recipe(const Hone__V1__TrainSettings *from)
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
