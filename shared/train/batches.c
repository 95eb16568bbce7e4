#include "shared/train/batches.h"

#include <pthread.h>
#include <stdlib.h>

#include "shared/base/mem.h"
#include "shared/base/rng.h"

#define BUFFERS 2
#define STREAM_ORDER ((uint64_t)1 << 40) /* of the seed: one for each epoch */

struct batches {
    struct batch_settings settings;
    int64_t first, end;
    int64_t n, sample, width, per_epoch; /* samples of the part; floats of one, of an answer */
    uint32_t *order;                     /* [n], of `epoch` */
    int64_t epoch;
    float *spare; /* of a sample, for mixup */
    float *seen;  /* [batch, sample]: what the teacher of features sees */
    struct batch buffers[BUFFERS];

    pthread_t thread;
    bool started;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int64_t made, taken; /* batches, since `first`; guarded by lock, as what follows */
    bool closing;
    int failed;
    struct err err;
};

int64_t batches_per_epoch(const struct batch_settings *settings)
{
    return settings->batch > 0
               ? dataset_count(settings->views.ds, settings->views.part) / settings->batch
               : 0;
}

/* ---- one batch ---- */

static void shuffle(struct batches *b, int64_t epoch)
{
    struct rng rng;
    if (b->epoch == epoch)
        return;
    for (int64_t i = 0; i < b->n; i++)
        b->order[i] = (uint32_t)i;
    rng_seed2(&rng, b->settings.seed, STREAM_ORDER + (uint64_t)epoch);
    rng_shuffle_u32(&rng, b->order, (uint64_t)b->n);
    b->epoch = epoch;
}

static int64_t view_of(const struct batches *b, int64_t epoch)
{
    const struct teacher *t = b->settings.teacher;
    return t ? epoch % teacher_views(t) : epoch;
}

/* Sample k is mixed with the one behind it, the last with the first. */
static void mix(const struct batches *b, const uint32_t *index, int64_t epoch, struct batch *to)
{
    const int64_t n = b->settings.batch;
    for (int64_t k = 0; k < n; k++) {
        const double share =
            augment_mix_share(b->settings.mixup, b->settings.seed, (uint64_t)epoch, index[k]);
        to->share[k] = (float)share;
        to->other[k] = to->label[(k + 1) % n];
        if (to->teacher_other)
            for (int64_t i = 0; i < b->width; i++)
                to->teacher_other[k * b->width + i] = to->teacher[(k + 1) % n * b->width + i];
    }
    augment_mix(to->x, n, b->sample, to->share, b->spare);
}

/* The teacher looks at the same pictures, in its own normalisation. */
static int look_along(struct batches *b, int64_t view, const uint32_t *index, struct batch *to,
                      struct err *err)
{
    const struct batch_settings *s = &b->settings;
    struct augmenter views = s->views;
    if (!s->features)
        return 0;
    views.pre = *s->features_pre;
    int rc = augment_fill(&views, (uint64_t)view, index, s->batch, b->seen, err);
    if (rc < 0)
        return rc;
    if (s->mixup > 0)
        augment_mix(b->seen, s->batch, b->sample, to->share, b->spare);
    return features_run(s->features, b->seen, to->features, err);
}

static int make_batch(struct batches *b, int64_t step, struct batch *to, struct err *err)
{
    const struct batch_settings *s = &b->settings;
    const int64_t epoch = step / b->per_epoch, view = view_of(b, epoch);
    const int32_t *labels = dataset_labels(s->views.ds, s->views.part);
    shuffle(b, epoch);
    const uint32_t *index = b->order + step % b->per_epoch * s->batch;
    to->step = step;
    int rc = augment_fill(&s->views, (uint64_t)view, index, s->batch, to->x, err);
    if (rc < 0)
        return rc;
    for (int64_t k = 0; k < s->batch; k++) {
        to->label[k] = labels ? labels[index[k]] : -1;
        to->other[k] = -1;
        to->share[k] = 1;
        if (s->teacher)
            teacher_logits(s->teacher, view, index[k], to->teacher + k * b->width);
    }
    if (s->mixup > 0)
        mix(b, index, epoch, to);
    return look_along(b, view, index, to, err);
}

/* ---- the thread ---- */

static void *produce(void *ctx)
{
    struct batches *b = ctx;
    for (int64_t k = 0; k < b->end - b->first; k++) {
        pthread_mutex_lock(&b->lock);
        /* the batch in use is the one before `taken` */
        while (!b->closing && k - b->taken >= BUFFERS - 1 + (b->taken == 0))
            pthread_cond_wait(&b->changed, &b->lock);
        const bool closing = b->closing;
        pthread_mutex_unlock(&b->lock);
        if (closing)
            break;
        struct err err = {0};
        const int rc = make_batch(b, b->first + k, &b->buffers[k % BUFFERS], &err);
        pthread_mutex_lock(&b->lock);
        if (rc < 0) {
            b->failed = rc;
            b->err = err;
        } else {
            b->made = k + 1;
        }
        pthread_cond_broadcast(&b->changed);
        pthread_mutex_unlock(&b->lock);
        if (rc < 0)
            break;
    }
    return NULL;
}

int batches_next(struct batches *b, const struct batch **ret, struct err *err)
{
    int rc = 0;
    if (b->taken >= b->end - b->first)
        return err_set(err, ERR_OUT_OF_RANGE, "there are no more than %lld batches",
                       (long long)(b->end - b->first));
    pthread_mutex_lock(&b->lock);
    b->taken++; /* gives the one before back */
    pthread_cond_broadcast(&b->changed);
    while (b->made < b->taken && !b->failed)
        pthread_cond_wait(&b->changed, &b->lock);
    if (b->made < b->taken) {
        rc = b->failed;
        if (err)
            *err = b->err;
    }
    *ret = &b->buffers[(b->taken - 1) % BUFFERS];
    pthread_mutex_unlock(&b->lock);
    return rc;
}

/* ---- life ---- */

static void buffer_release(struct batch *buffer)
{
    free(buffer->x);
    free(buffer->label);
    free(buffer->other);
    free(buffer->share);
    free(buffer->teacher);
    free(buffer->teacher_other);
    for (int i = 0; i < FEATURES_MAX; i++)
        free(buffer->features[i]);
}

struct batches *batches_close(struct batches *b)
{
    if (!b)
        return NULL;
    pthread_mutex_lock(&b->lock);
    b->closing = true;
    pthread_cond_broadcast(&b->changed);
    pthread_mutex_unlock(&b->lock);
    if (b->started)
        pthread_join(b->thread, NULL);
    for (int i = 0; i < BUFFERS; i++)
        buffer_release(&b->buffers[i]);
    pthread_mutex_destroy(&b->lock);
    pthread_cond_destroy(&b->changed);
    free(b->order);
    free(b->spare);
    free(b->seen);
    free(b);
    return NULL;
}

void batches_closep(struct batches **b)
{
    *b = batches_close(*b);
}

static int check_teacher(const struct batches *b, struct err *err)
{
    const struct teacher *t = b->settings.teacher;
    if (t && teacher_samples(t) != b->n)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the teacher's logits are of %lld samples, the training part has %lld",
                       (long long)teacher_samples(t), (long long)b->n);
    return 0;
}

static bool take_features(struct batches *b)
{
    const struct batch_settings *s = &b->settings;
    const size_t n = (size_t)s->batch;
    if (!s->features)
        return true;
    b->seen = mem_aligned(n * (size_t)b->sample * sizeof(*b->seen));
    bool complete = b->seen;
    for (int i = 0; i < BUFFERS; i++)
        for (int k = 0; k < s->pairs->n; k++) {
            const struct loss_features *f = &s->pairs->pairs[k].shape;
            float *room = mem_aligned(n * (size_t)(f->parent_channels * f->pixels) * sizeof(float));
            b->buffers[i].features[k] = room;
            complete = complete && room;
        }
    return complete;
}

static int take_memory(struct batches *b, struct err *err)
{
    const size_t n = (size_t)b->settings.batch;
    const size_t answers = n * (size_t)b->width;
    bool complete = true;
    b->order = mem_calloc((size_t)b->n + 1, sizeof(*b->order));
    b->spare = mem_aligned((size_t)b->sample * sizeof(*b->spare));
    for (int i = 0; i < BUFFERS; i++) {
        struct batch *to = &b->buffers[i];
        to->x = mem_aligned(n * (size_t)b->sample * sizeof(*to->x));
        to->label = mem_calloc(n, sizeof(*to->label));
        to->other = mem_calloc(n, sizeof(*to->other));
        to->share = mem_calloc(n, sizeof(*to->share));
        to->teacher = b->width ? mem_calloc(answers, sizeof(float)) : NULL;
        to->teacher_other =
            b->width && b->settings.mixup > 0 ? mem_calloc(answers, sizeof(float)) : NULL;
        complete &= to->x && to->label && to->other && to->share && (to->teacher || !b->width) &&
                    (to->teacher_other || !b->width || !(b->settings.mixup > 0));
    }
    return complete && b->order && b->spare && take_features(b) ? 0 : err_oom(err, "batches");
}

int batches_open(const struct batch_settings *settings, int64_t first, int64_t end,
                 struct batches **ret, struct err *err)
{
    int64_t shape[3];
    _cleanup_(batches_closep) struct batches *b = mem_calloc(1, sizeof(*b));
    if (!b)
        return err_oom(err, "batches");
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->changed, NULL);
    b->settings = *settings;
    b->first = first;
    b->end = end;
    b->epoch = -1;
    b->n = dataset_count(settings->views.ds, settings->views.part);
    b->per_epoch = batches_per_epoch(settings);
    b->width = settings->teacher ? teacher_width(settings->teacher) : 0;
    dataset_sample_shape(settings->views.ds, shape);
    b->sample = shape[0] * shape[1] * shape[2];
    if (b->per_epoch < 1)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "the training part has %lld samples: too few for a batch of %lld",
                       (long long)b->n, (long long)settings->batch);
    int rc = augment_check(&settings->views.how, settings->views.ds, err);
    if (rc == 0)
        rc = check_teacher(b, err);
    if (rc == 0)
        rc = take_memory(b, err);
    if (rc < 0)
        return rc;
    if (pthread_create(&b->thread, NULL, produce, b) != 0)
        return err_set(err, ERR_RESOURCE_EXHAUSTED, "%s", "no thread for the batches");
    b->started = true;
    *ret = TAKE_PTR(b);
    return 0;
}
