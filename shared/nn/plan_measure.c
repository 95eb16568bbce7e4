#include "shared/nn/plan_measure.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/clock.h"
#include "shared/base/str.h"

/* ---- what was measured in this process ---- */

struct known {
    struct known *next;
    char *key;
    const struct implementation *by;
    char name[64];
    double ns;
};

enum { BUCKETS = 1024, MOST_KNOWN = 16384 };
static struct known *buckets[BUCKETS];
static int n_known;
static pthread_mutex_t known_mutex = PTHREAD_MUTEX_INITIALIZER;

static unsigned bucket_of(const char *key)
{
    unsigned h = 2166136261u; /* FNV-1a */
    for (const char *p = key; *p; p++)
        h = (h ^ (unsigned char)*p) * 16777619u;
    return h % BUCKETS;
}

static bool recall(const char *key, struct choice *choice)
{
    bool found = false;
    pthread_mutex_lock(&known_mutex);
    for (const struct known *k = buckets[bucket_of(key)]; k && !found; k = k->next) {
        found =
            k->by == choice->by && strcmp(k->name, choice->name) == 0 && strcmp(k->key, key) == 0;
        if (found)
            choice->ns = k->ns;
    }
    pthread_mutex_unlock(&known_mutex);
    return found;
}

static void remember(const char *key, const struct choice *choice)
{
    struct known *k = calloc(1, sizeof(*k));
    char *copy = strdup(key);
    if (!k || !copy) { /* then it is measured again next time */
        free(k);
        free(copy);
        return;
    }
    *k = (struct known){.key = copy, .by = choice->by, .ns = choice->ns};
    memcpy(k->name, choice->name, sizeof(k->name));
    unsigned b = bucket_of(key);
    pthread_mutex_lock(&known_mutex);
    bool room = n_known < MOST_KNOWN;
    for (struct known *old = buckets[b]; old && room; old = old->next)
        if (old->by == k->by && strcmp(old->name, k->name) == 0 && strcmp(old->key, key) == 0) {
            old->ns = k->ns; /* measured again, beside others than before */
            room = false;
        }
    if (room) {
        k->next = buckets[b];
        buckets[b] = k;
        n_known++;
    }
    pthread_mutex_unlock(&known_mutex);
    if (!room) {
        free(copy);
        free(k);
    }
}

/* ---- trial runs ---- */

/* One choice, built and bound to memory of its own. */
struct trial {
    struct step step;
    bool runs;
    double ns; /* least so far */
};

struct trials {
    int n;
    struct trial *items;
    struct arena *arena;
};

static void trials_release(struct trials *t)
{
    for (int i = 0; t->items && i < t->n; i++) {
        step_release(&t->items[i].step);
        free(t->items[i].step.scratch);
    }
    arena_free(t->arena);
}

/* Buffers that hold the arguments in any layout; all choices share them. */
static void **make_buffers(struct maker *m, struct arena *arena, const struct layer *layer)
{
    int n = layer->n_in + layer->n_out;
    void **data = arena_alloc(arena, (size_t)n, sizeof(*data));
    for (int i = 0; data && i < n; i++) {
        bool in = i < layer->n_in;
        const struct wire *w =
            &m->plan->wires[in ? layer->in[i].wire : layer->out[i - layer->n_in]];
        enum dtype dtype = in ? layer->in[i].dtype : w->dtype;
        int64_t most = 0;
        for (enum layout l = LAYOUT_PLAIN; l < LAYOUT_COUNT; l++)
            if (layout_possible(l, &w->shape) && layout_elements(l, &w->shape) > most)
                most = layout_elements(l, &w->shape);
        data[i] = arena_alloc(arena, (size_t)most + 64, dtype_bytes(dtype));
        if (!data[i])
            return NULL;
    }
    if (data && layer->sum >= 0)
        data[layer->n_in] = data[layer->sum];
    return data;
}

static int build_trial(struct maker *m, const struct layer *layer, const struct choice *choice,
                       void *const *data, struct trial *t, struct err *err)
{
    struct step *step = &t->step;
    step->n_in = layer->n_in;
    step->n_args = layer->n_in + layer->n_out;
    step->in_place = layer->sum;
    step->info.layer = layer->name;
    step->data = arena_alloc(m->arena, (size_t)step->n_args, sizeof(*step->data));
    if (!step->data)
        return err_oom(err, "a trial run");
    int rc = choice->by->make(m, layer, choice, step, NULL);
    if (rc < 0)
        return 0; /* listed, but cannot be built: the others remain */
    for (int i = 0; i < step->n_args; i++)
        step_bind(step, i, data[i]);
    if (step->scratch_bytes > 0) {
        void *scratch = mem_aligned(step->scratch_bytes);
        if (!scratch)
            return err_oom(err, "a trial run");
        memset(scratch, 0, step->scratch_bytes);
        step_bind(step, -1, scratch);
    }
    t->runs = step_run(step, NULL) == 0; /* warms up as well */
    return 0;
}

static double time_once(struct trial *t)
{
    int64_t then = clock_now_ns(NULL);
    if (step_run(&t->step, NULL) < 0)
        t->runs = false;
    double ns = (double)(clock_now_ns(NULL) - then);
    if (t->ns == 0 || ns < t->ns)
        t->ns = ns;
    return ns;
}

/* In turns, until each has had a good number of runs or the time for this layer is over; those that
 * are clearly slower drop out. The least time counts: what disturbs only ever adds. */
static void run_trials(struct trials *t)
{
    enum { ROUNDS = 10 };
    const double most = 3e7; /* ns for the layer */
    double total = 0;
    for (int round = 0; round < ROUNDS && (round == 0 || total < most); round++) {
        double best = 0;
        for (int i = 0; i < t->n; i++) {
            struct trial *trial = &t->items[i];
            double spent = 0;
            for (int k = 0; trial->runs && k < 10 && spent < 1e5; k++)
                spent += time_once(trial);
            total += spent;
            if (trial->runs && (best == 0 || trial->ns < best))
                best = trial->ns;
        }
        for (int i = 0; i < t->n; i++)
            if (t->items[i].runs && t->items[i].ns > best * (round < 2 ? 2.5 : 1.2))
                t->items[i].runs = false;
    }
}

static int try_all(struct maker *m, const struct layer *layer, struct choices *choices,
                   struct err *err)
{
    _cleanup_(trials_release) struct trials t = {.n = choices->n};
    t.arena = arena_new();
    t.items = t.arena ? arena_alloc(t.arena, (size_t)t.n, sizeof(*t.items)) : NULL;
    struct maker tuner = *m;
    tuner.arena = t.arena;
    tuner.tuning = true;
    void **data = t.items ? make_buffers(m, t.arena, layer) : NULL;
    if (!data)
        return err_oom(err, "a trial run");
    size_t packed = m->plan->packed_bytes;
    for (int i = 0; i < t.n; i++) {
        int rc = build_trial(&tuner, layer, &choices->items[i], data, &t.items[i], err);
        if (rc < 0)
            return rc;
    }
    m->plan->packed_bytes = packed; /* those of the trials go again */
    run_trials(&t);
    for (int i = 0; i < t.n; i++)
        choices->items[i].ns = t.items[i].ns > 0 ? t.items[i].ns : -1;
    return 0;
}

/* "THREADS SIGNATURE" in the layouts of the choice; malloc'ed. */
static char *key_of(struct maker *m, const struct layer *layer, const struct choice *choice)
{
    const char *signature = plan_signature(m, layer, choice->in, choice->out);
    return signature ? str_printf("%d %s", m->options->threads, signature) : NULL;
}

int measure_choices(struct maker *m, const struct layer *layer, struct choices *choices,
                    struct err *err)
{
    bool known = true;
    for (int i = 0; known && i < choices->n; i++) {
        _cleanup_(freep) char *key = key_of(m, layer, &choices->items[i]);
        if (!key)
            return err_oom(err, "a trial run");
        known = recall(key, &choices->items[i]);
    }
    if (known)
        return 0;
    int rc = try_all(m, layer, choices, err);
    for (int i = 0; rc == 0 && i < choices->n; i++) {
        _cleanup_(freep) char *key = key_of(m, layer, &choices->items[i]);
        if (!key)
            return err_oom(err, "a trial run");
        remember(key, &choices->items[i]);
    }
    return rc;
}
