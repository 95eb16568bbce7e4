#include "shared/train/optimizer.h"

#include <math.h>
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/base/pool.h"
#include "shared/nn/kernel.h"

KERNEL_FILE

#define PIECE 16384            /* floats that are worked on together; sums are taken over these */
#define THREADS_FROM (1 << 20) /* floats below which starting threads costs more than it saves */

/* A part of one parameter. */
struct piece {
    const struct train_param *param;
    int64_t first, n; /* of the parameter */
    int64_t at;       /* in the state */
    double square;    /* sum of squared gradients */
};

struct optimizer {
    struct optimizer_options options;
    int64_t n_floats; /* of all parameters */
    float *state;     /* [moments][n_floats] */
    int n_moments;    /* 1 or 2 */
    int64_t n_pieces;
    struct piece *pieces;
    int64_t steps;
};

/* What is the same for all floats of a piece in one step. */
struct terms {
    float rate, decay, clip; /* decay: coupled, 0 else */
    float keep;              /* 1 - rate * decay, decoupled */
    float momentum;
    float nesterov; /* 1 or 0 */
    float beta1, beta2, epsilon;
    float root; /* sqrt(1 - beta2^t) */
};

struct optimizer_options optimizer_defaults(enum optimizer_kind kind)
{
    struct optimizer_options o = {.kind = kind,
                                  .momentum = 0.9,
                                  .nesterov = true,
                                  .beta1 = 0.9,
                                  .beta2 = 0.999,
                                  .epsilon = 1e-8,
                                  .decay = 5e-4,
                                  .shift_rate = 1,
                                  .threads = 1};
    if (kind == OPTIMIZER_ADAM) {
        o.decay = 0.01;
        o.decoupled = true;
    }
    return o;
}

/* ---- life ---- */

struct optimizer *optimizer_free(struct optimizer *o)
{
    if (!o)
        return NULL;
    free(o->state);
    free(o->pieces);
    free(o);
    return NULL;
}

void optimizer_freep(struct optimizer **o)
{
    *o = optimizer_free(*o);
}

static int64_t pieces_of(const struct train_param *p)
{
    return (p->n + PIECE - 1) / PIECE;
}

static void cut(struct optimizer *o, struct train_param *const *params, int n_params)
{
    int64_t at = 0;
    struct piece *piece = o->pieces;
    for (int i = 0; i < n_params; i++) {
        for (int64_t first = 0; first < params[i]->n; first += PIECE) {
            int64_t left = params[i]->n - first;
            *piece++ = (struct piece){.param = params[i],
                                      .first = first,
                                      .n = left < PIECE ? left : PIECE,
                                      .at = at + first};
        }
        at += params[i]->n;
    }
}

int optimizer_new(struct train_param *const *params, int n_params,
                  const struct optimizer_options *options, struct optimizer **ret, struct err *err)
{
    _cleanup_(optimizer_freep) struct optimizer *o = mem_calloc(1, sizeof(*o));
    if (!o)
        return err_oom(err, "an optimizer");
    o->options = *options;
    if (o->options.shift_rate == 0)
        o->options.shift_rate = 1;
    o->n_moments = options->kind == OPTIMIZER_ADAM ? 2 : 1;
    for (int i = 0; i < n_params; i++) {
        o->n_floats += params[i]->n;
        o->n_pieces += pieces_of(params[i]);
    }
    o->state = mem_calloc((size_t)o->n_floats * (size_t)o->n_moments + 1, sizeof(*o->state));
    o->pieces = mem_calloc((size_t)o->n_pieces + 1, sizeof(*o->pieces));
    if (!o->state || !o->pieces)
        return err_oom(err, "an optimizer's state");
    cut(o, params, n_params);
    *ret = TAKE_PTR(o);
    return 0;
}

/* ---- the loops ---- */

/* Eight sums side by side, so that the order of additions does not depend on the vectors' width. */
KERNEL_INLINE void squares_body(const float *x, int64_t n, double *ret)
{
    double sums[8] = {0};
    int64_t i = 0;
    for (; i + 8 <= n; i += 8)
        for (int k = 0; k < 8; k++)
            sums[k] += (double)x[i + k] * (double)x[i + k];
    for (int k = 0; i + k < n; k++)
        sums[k] += (double)x[i + k] * (double)x[i + k];
    *ret =
        ((sums[0] + sums[4]) + (sums[1] + sums[5])) + ((sums[2] + sums[6]) + (sums[3] + sums[7]));
}
KERNEL(squares, (const float *x, int64_t n, double *ret), (x, n, ret))

KERNEL_INLINE void sgd_body(const struct terms *t, const float *restrict grad,
                            float *restrict velocity, float *restrict w, int64_t n)
{
    const struct terms k = *t;
    for (int64_t i = 0; i < n; i++) {
        const float g = grad[i] * k.clip + k.decay * w[i];
        const float v = k.momentum * velocity[i] + g;
        const float step = k.nesterov * (g + k.momentum * v) + (1 - k.nesterov) * v;
        velocity[i] = v;
        w[i] = k.keep * w[i] - k.rate * step;
    }
}
KERNEL(sgd,
       (const struct terms *t, const float *restrict grad, float *restrict velocity,
        float *restrict w, int64_t n),
       (t, grad, velocity, w, n))

KERNEL_INLINE void adam_body(const struct terms *t, const float *restrict grad, float *restrict m,
                             float *restrict v, float *restrict w, int64_t n)
{
    const struct terms k = *t;
    for (int64_t i = 0; i < n; i++) {
        const float g = grad[i] * k.clip + k.decay * w[i];
        const float mean = k.beta1 * m[i] + (1 - k.beta1) * g;
        const float square = k.beta2 * v[i] + (1 - k.beta2) * g * g;
        m[i] = mean;
        v[i] = square;
        /* rate already holds 1 / (1 - beta1^t) */
        w[i] = k.keep * w[i] - k.rate * mean / (sqrtf(square) / k.root + k.epsilon);
    }
}
KERNEL(adam,
       (const struct terms *t, const float *restrict grad, float *restrict m, float *restrict v,
        float *restrict w, int64_t n),
       (t, grad, m, v, w, n))

/* ---- a step ---- */

static int sum_piece(void *ctx, int64_t i, int worker, struct err *err)
{
    (void)worker;
    (void)err;
    struct optimizer *o = ctx;
    struct piece *p = &o->pieces[i];
    KERNEL_PICK(squares)(p->param->grad + p->first, p->n, &p->square);
    return 0;
}

struct step {
    struct optimizer *o;
    double rate, clip;
};

static double factor(const struct optimizer_options *o, enum train_role role)
{
    if (role == TRAIN_NORM_SCALE)
        return o->keep_scales ? 0 : 1;
    return role == TRAIN_NORM_SHIFT ? o->shift_rate : 1;
}

static double decay_of(const struct optimizer_options *o, enum train_role role)
{
    if (role == TRAIN_NORM_SHIFT && o->decay_shifts)
        return o->decay / o->shift_rate;
    return role == TRAIN_WEIGHT ? o->decay : 0;
}

static struct terms terms_of(const struct step *s, const struct train_param *p)
{
    const struct optimizer_options *o = &s->o->options;
    const double rate = s->rate * factor(o, p->role);
    const double decay = decay_of(o, p->role);
    const double t = (double)(s->o->steps + 1);
    const bool adam = o->kind == OPTIMIZER_ADAM;
    return (struct terms){
        .rate = (float)(adam ? rate / (1 - pow(o->beta1, t)) : rate),
        .clip = (float)s->clip,
        .decay = o->decoupled ? 0 : (float)decay,
        .keep = o->decoupled ? (float)(1 - rate * decay) : 1,
        .momentum = (float)o->momentum,
        .nesterov = o->nesterov ? 1 : 0,
        .beta1 = (float)o->beta1,
        .beta2 = (float)o->beta2,
        .epsilon = (float)o->epsilon,
        .root = (float)sqrt(1 - pow(o->beta2, t)),
    };
}

static int step_piece(void *ctx, int64_t i, int worker, struct err *err)
{
    (void)worker;
    (void)err;
    const struct step *s = ctx;
    const struct piece *p = &s->o->pieces[i];
    const struct terms t = terms_of(s, p->param);
    const float *grad = p->param->grad + p->first;
    float *w = p->param->value + p->first, *first = s->o->state + p->at;
    if (s->o->options.kind == OPTIMIZER_ADAM)
        KERNEL_PICK(adam)(&t, grad, first, first + s->o->n_floats, w, p->n);
    else
        KERNEL_PICK(sgd)(&t, grad, first, w, p->n);
    return 0;
}

static int for_pieces(struct optimizer *o, pool_fn *fn, void *ctx, struct err *err)
{
    if (o->options.threads > 1 && o->n_floats >= THREADS_FROM)
        return pool_for(o->n_pieces, o->options.threads, fn, ctx, err);
    for (int64_t i = 0; i < o->n_pieces; i++)
        fn(ctx, i, 0, err);
    return 0;
}

int optimizer_step(struct optimizer *o, double rate, double *ret_norm, struct err *err)
{
    double square = 0;
    int rc = for_pieces(o, sum_piece, o, err);
    if (rc < 0)
        return rc;
    for (int64_t i = 0; i < o->n_pieces; i++)
        square += o->pieces[i].square;
    const double norm = sqrt(square);
    if (!isfinite(norm))
        return err_set(err, ERR_OUT_OF_RANGE, "%s",
                       "the gradients are no longer finite: the learning rate is too high");
    const double clip = o->options.clip;
    struct step step = {.o = o, .rate = rate, .clip = clip > 0 && norm > clip ? clip / norm : 1};
    rc = for_pieces(o, step_piece, &step, err);
    if (rc < 0)
        return rc;
    o->steps++;
    if (ret_norm)
        *ret_norm = norm;
    return 0;
}

/* ---- checkpoints ---- */

float *optimizer_state(struct optimizer *o, int64_t *ret_n)
{
    *ret_n = o->n_floats * o->n_moments;
    return o->state;
}

int64_t optimizer_steps(const struct optimizer *o)
{
    return o->steps;
}

void optimizer_set_steps(struct optimizer *o, int64_t steps)
{
    o->steps = steps;
}
