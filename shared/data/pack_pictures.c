/*
 * Pictures into slots: this thread walks the source and puts encoded pictures into a bounded queue;
 * worker threads decode, resize and write them.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "shared/base/mem.h"
#include "shared/base/str.h"
#include "shared/data/pack.h"
#include "shared/data/picture.h"
#include "shared/data/source.h"

#define QUEUE_JOBS 256
#define QUEUE_BYTES (32 << 20) /* waiting in memory; a larger picture waits alone */

struct job {
    int64_t slot;
    char *path; /* of a file, to be read by the worker, or */
    void *data; /* the content, or */
    size_t bytes;
    char *problem; /* why there is none */
};

struct packing {
    struct pack *p;
    pthread_mutex_t lock; /* of all that follows, and of p->samples */
    pthread_cond_t filled, drained;
    struct job jobs[QUEUE_JOBS];
    int head, count;
    size_t bytes;
    bool closed;
    int result; /* the first failure */
    struct err err;
    int n_workers;
    pthread_t *workers;
    /* of the walking thread alone */
    int64_t skipped;
    char first_skipped[256];
    char *settings_text, *settings_name;
    size_t settings_bytes;
};

/* What a thread decodes with. */
struct worker {
    struct picture pic;
    struct resizer *resizer;
    uint8_t *sample;
};

static void job_release(struct job *job)
{
    free(job->path);
    free(job->data);
    free(job->problem);
}

static void worker_release(struct worker *w)
{
    picture_release(&w->pic);
    resizer_freep(&w->resizer);
    free(w->sample);
}

static int worker_init(struct worker *w, const struct pack *p, struct err *err)
{
    w->resizer = resizer_new(p->shape[0], p->shape[1], p->shape[2]);
    w->sample = malloc((size_t)p->writer.sample_bytes);
    return w->resizer && w->sample ? 0 : err_oom(err, "decoding pictures");
}

/* ---- workers ---- */

static int make_sample(struct packing *k, struct worker *w, const struct job *job,
                       bool *ret_resized, struct err *err)
{
    _cleanup_(freep) void *read = NULL;
    const void *data = job->data;
    size_t bytes = job->bytes;
    if (job->problem)
        return err_set(err, ERR_INVALID_ARGUMENT, "%s", job->problem);
    if (job->path) {
        const struct source_entry entry = {.name = job->path, .path = job->path, .bytes = -1};
        int r = source_entry_read(&entry, k->p->limits.max_picture_bytes, &read, &bytes, err);
        if (r < 0)
            return r;
        data = read;
    }
    int r = picture_decode(&w->pic, data, bytes, &k->p->limits, err);
    if (r == 0)
        r = resizer_run(w->resizer, &w->pic, w->sample, ret_resized, err);
    return r;
}

/* A picture that cannot be read is noted with its reason; only what concerns all ends the work. */
static int run_job(struct packing *k, struct worker *w, const struct job *job, struct err *err)
{
    bool resized = false;
    struct err why = {0};
    int r = make_sample(k, w, job, &resized, &why);
    uint64_t hash = 0;
    char *problem = NULL;
    if (r == 0) {
        r = packed_writer_put(&k->p->writer, job->slot, w->sample, err);
        if (r < 0)
            return r;
        hash = pack_hash(w->sample, (size_t)k->p->writer.sample_bytes);
    } else {
        problem = strdup(why.message);
        if (!problem)
            return err_oom(err, "decoding pictures");
    }
    pthread_mutex_lock(&k->lock);
    struct sample *s = &k->p->samples[job->slot];
    s->hash = hash;
    s->problem = problem;
    s->resized = resized;
    pthread_mutex_unlock(&k->lock);
    return 0;
}

static void fail(struct packing *k, int result, const struct err *err)
{
    pthread_mutex_lock(&k->lock);
    if (k->result == 0) {
        k->result = result;
        k->err = *err;
    }
    pthread_cond_broadcast(&k->filled);
    pthread_cond_broadcast(&k->drained);
    pthread_mutex_unlock(&k->lock);
}

/* false: nothing will come any more */
static bool take_job(struct packing *k, struct job *ret)
{
    pthread_mutex_lock(&k->lock);
    while (k->count == 0 && !k->closed && k->result == 0)
        pthread_cond_wait(&k->filled, &k->lock);
    bool got = k->count > 0 && k->result == 0;
    if (got) {
        *ret = k->jobs[k->head];
        k->head = (k->head + 1) % QUEUE_JOBS;
        k->count--;
        k->bytes -= ret->bytes;
        pthread_cond_signal(&k->drained);
    }
    pthread_mutex_unlock(&k->lock);
    return got;
}

static void *worker_run(void *arg)
{
    struct packing *k = arg;
    _cleanup_(worker_release) struct worker w = {0};
    struct err err = {0};
    int r = worker_init(&w, k->p, &err);
    struct job job;
    while (r == 0 && take_job(k, &job)) {
        r = run_job(k, &w, &job, &err);
        job_release(&job);
    }
    if (r < 0)
        fail(k, r, &err);
    return NULL;
}

/* ---- the walking thread ---- */

/* Takes path and data over; name too. */
static int submit(struct packing *k, char *name, struct job job, struct err *err)
{
    pthread_mutex_lock(&k->lock);
    while (k->result == 0 && k->count > 0 &&
           (k->count == QUEUE_JOBS || k->bytes + job.bytes > QUEUE_BYTES))
        pthread_cond_wait(&k->drained, &k->lock);
    int r = k->result;
    if (r == 0) {
        r = pack_add(k->p, name, err);
    } else {
        free(name);
        if (err)
            *err = k->err;
    }
    if (r == 0) {
        job.slot = k->p->n - 1;
        k->jobs[(k->head + k->count++) % QUEUE_JOBS] = job;
        k->bytes += job.bytes;
        pthread_cond_signal(&k->filled);
    }
    pthread_mutex_unlock(&k->lock);
    if (r < 0)
        job_release(&job);
    return r;
}

static bool has_suffix(const char *name, const char *suffix)
{
    size_t n = strlen(name), m = strlen(suffix);
    return n > m && strcasecmp(name + n - m, suffix) == 0;
}

static bool is_picture(const char *name)
{
    return has_suffix(name, ".png") || has_suffix(name, ".jpg") || has_suffix(name, ".jpeg");
}

/* Nearest to the top wins. */
static int keep_settings(struct packing *k, const struct source_entry *entry, struct err *err)
{
    void *data;
    size_t bytes;
    bool top = !strchr(entry->name, '/');
    if (k->p->settings.final || (k->settings_text && !top))
        return 0;
    int r = source_entry_read(entry, SETTINGS_MAX_BYTES, &data, &bytes, err);
    if (r < 0)
        return r;
    free(k->settings_text);
    free(k->settings_name);
    k->settings_text = data;
    k->settings_bytes = bytes;
    k->settings_name = strdup(entry->name);
    return k->settings_name ? 0 : err_oom(err, entry->name);
}

static void note_folder(struct pack *p, const char *name)
{
    const char *slash = strchr(name, '/');
    const char *last = slash ? slash + 1 : name;
    p->saw_train |= strcmp(last, "train") == 0;
    p->saw_test |= strcmp(last, "test") == 0;
}

/* Files are read by the workers, archives here. */
static int open_job(struct packing *k, const struct source_entry *entry, struct job *ret,
                    struct err *err)
{
    struct job job = {0};
    struct err why = {0};
    int r = 0;
    if (entry->path)
        job.path = strdup(entry->path);
    else
        r = source_entry_read(entry, k->p->limits.max_picture_bytes, &job.data, &job.bytes, &why);
    if (r == -ERR_DATA_LOSS)
        return err_set(err, ERR_DATA_LOSS, "%s: %s", k->p->path, why.message);
    if (r < 0)
        job.problem = strdup(why.message);
    if (!job.path && !job.data && !job.problem)
        return err_oom(err, entry->name);
    *ret = job;
    return 0;
}

static int visit(void *ctx, const struct source_entry *entry, struct err *err)
{
    struct packing *k = ctx;
    const char *slash = strrchr(entry->name, '/'), *base = slash ? slash + 1 : entry->name;
    if (entry->is_folder) {
        note_folder(k->p, entry->name);
        return 0;
    }
    if (strcmp(base, "dataset.json") == 0 && (!slash || strchr(entry->name, '/') == slash))
        return keep_settings(k, entry, err);
    if (!is_picture(base)) {
        if (k->skipped++ == 0)
            str_copy(k->first_skipped, sizeof(k->first_skipped), entry->name);
        return 0;
    }
    struct job job;
    int r = open_job(k, entry, &job, err);
    if (r < 0)
        return r;
    char *name = strdup(entry->name);
    if (!name) {
        job_release(&job);
        return err_oom(err, entry->name);
    }
    r = submit(k, name, job, err);
    if (r == 0 && entry->index % 64 == 0)
        r = pack_progress(k->p, entry->index, entry->estimated, err);
    return r;
}

/* ---- the whole ---- */

static void packing_release(struct packing *k)
{
    for (; k->count; k->count--, k->head = (k->head + 1) % QUEUE_JOBS)
        job_release(&k->jobs[k->head]);
    pthread_cond_destroy(&k->filled);
    pthread_cond_destroy(&k->drained);
    pthread_mutex_destroy(&k->lock);
    free(k->workers);
    free(k->settings_text);
    free(k->settings_name);
}

static int start_workers(struct packing *k, int threads, struct err *err)
{
    threads = threads < 1 ? 1 : threads > 256 ? 256 : threads;
    k->workers = mem_calloc((size_t)threads, sizeof(*k->workers));
    if (!k->workers)
        return err_oom(err, "decoding pictures");
    while (k->n_workers < threads &&
           pthread_create(&k->workers[k->n_workers], NULL, worker_run, k) == 0)
        k->n_workers++;
    if (k->n_workers == 0)
        return err_set(err, ERR_RESOURCE_EXHAUSTED,
                       "no thread could be started to decode pictures");
    return 0; /* fewer threads do the same work */
}

static int run(struct packing *k, struct source_notes *notes, struct err *err)
{
    int r = start_workers(k, k->p->options->threads, err);
    if (r == 0)
        r = source_walk(k->p->path, visit, k, notes, err);
    if (r < 0)
        fail(k, r, &(struct err){0}); /* ends the workers; err tells already */
    pthread_mutex_lock(&k->lock);
    k->closed = true;
    pthread_cond_broadcast(&k->filled);
    pthread_mutex_unlock(&k->lock);
    for (int i = 0; i < k->n_workers; i++)
        pthread_join(k->workers[i], NULL);
    if (r == 0 && k->result < 0) {
        if (err)
            *err = k->err;
        r = k->result;
    }
    return r;
}

static int report_rest(struct packing *k, const struct source_notes *notes, struct err *err)
{
    struct pack *p = k->p;
    int r = 0;
    if (p->n == 0)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: no pictures (.png, .jpg, .jpeg) and no arrays (x_train.npy) in it",
                       p->path);
    if (k->skipped)
        r = pack_warn(p, err,
                      "%lld files that are not .png, .jpg or .jpeg were skipped, for example %s",
                      (long long)k->skipped, k->first_skipped);
    if (r == 0 && notes->unsafe)
        r = pack_warn(
            p, err,
            "%lld entries with an unsafe name, links and devices were ignored, for example %s",
            (long long)notes->unsafe, notes->first_unsafe);
    return r;
}

/* A dataset.json one folder down counts if everything lies in that folder. */
static int use_settings(struct packing *k, struct err *err)
{
    if (!k->settings_text)
        return 0;
    size_t n = (size_t)(strrchr(k->settings_name, '/')
                            ? strrchr(k->settings_name, '/') + 1 - k->settings_name
                            : 0);
    for (int64_t i = 0; i < k->p->n; i++)
        if (strncmp(k->p->samples[i].name, k->settings_name, n) != 0)
            return 0;
    return settings_parse(k->p, k->settings_text, k->settings_bytes, k->settings_name, err);
}

int pack_pictures(struct pack *p, struct err *err)
{
    if (p->shape[0] != 1 && p->shape[0] != 3)
        return err_set(err, ERR_INVALID_ARGUMENT,
                       "%s: the network takes %lld channels, but pictures have 3 (or 1, gray); "
                       "give other data as arrays (.npz)",
                       p->path, (long long)p->shape[0]);
    int r = pack_open_writer(p, PACKED_U8, err);
    if (r < 0)
        return r;
    struct source_notes notes = {0};
    _cleanup_(packing_release) struct packing k = {.p = p};
    pthread_mutex_init(&k.lock, NULL);
    pthread_cond_init(&k.filled, NULL);
    pthread_cond_init(&k.drained, NULL);
    r = run(&k, &notes, err);
    if (r == 0)
        r = report_rest(&k, &notes, err);
    if (r == 0)
        r = use_settings(&k, err);
    if (r == 0)
        r = pack_progress(p, p->n, p->n, err);
    return r;
}
