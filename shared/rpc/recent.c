/* The table of recent calls: entries in a ring (the order of arrival is the order of forgetting)
 * and hash chains over them. */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "shared/base/clock.h"
#include "shared/base/mem.h"
#include "shared/rpc/internal.h"

struct entry {
    uint8_t id[CALL_ID_BYTES];
    uint64_t fingerprint;
    void *reply;
    size_t bytes;
    int next; /* in the chain; -1: the last */
    bool used, done;
};

struct recent {
    pthread_mutex_t mutex;
    pthread_cond_t ended;
    struct entry *entries; /* a ring: `first` is the oldest of `count` */
    int *chains;
    int max_entries, first, count, waiters, max_waiters;
    size_t bytes, max_bytes;
};

struct recent *recent_new(int max_entries, size_t max_bytes, int max_waiters)
{
    struct recent *r = calloc(1, sizeof(*r));
    if (!r)
        return NULL;
    r->max_entries = max_entries;
    r->max_bytes = max_bytes;
    r->max_waiters = max_waiters;
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&r->mutex, NULL);
    pthread_cond_init(&r->ended, &attr);
    pthread_condattr_destroy(&attr);
    r->entries = mem_calloc((size_t)max_entries, sizeof(*r->entries));
    r->chains = mem_calloc((size_t)max_entries, sizeof(*r->chains));
    if (!r->entries || !r->chains)
        return recent_free(r);
    for (int i = 0; i < max_entries; i++)
        r->chains[i] = -1;
    return r;
}

struct recent *recent_free(struct recent *r)
{
    if (!r)
        return NULL;
    for (int i = 0; r->entries && i < r->max_entries; i++)
        free(r->entries[i].reply);
    free(r->entries);
    free(r->chains);
    pthread_cond_destroy(&r->ended);
    pthread_mutex_destroy(&r->mutex);
    free(r);
    return NULL;
}

static int *chain_of(struct recent *r, const uint8_t id[CALL_ID_BYTES])
{
    uint64_t hash;
    memcpy(&hash, id, sizeof(hash)); /* ids are random */
    return &r->chains[hash % (uint64_t)r->max_entries];
}

static struct entry *find(struct recent *r, const uint8_t id[CALL_ID_BYTES])
{
    for (int i = *chain_of(r, id); i >= 0; i = r->entries[i].next)
        if (memcmp(r->entries[i].id, id, CALL_ID_BYTES) == 0)
            return &r->entries[i];
    return NULL;
}

/* Frees the entry's place in its chain; its place in the ring stays until it is the oldest. */
static void forget(struct recent *r, struct entry *e)
{
    int index = (int)(e - r->entries);
    int *link = chain_of(r, e->id);
    while (*link != index)
        link = &r->entries[*link].next;
    *link = e->next;
    r->bytes -= e->bytes;
    free(e->reply);
    *e = (struct entry){0};
}

/* Forgets the oldest calls until `bytes` more fit. */
static void make_room(struct recent *r, size_t bytes)
{
    for (int i = 0; i < r->count && r->bytes + bytes > r->max_bytes; i++) {
        struct entry *e = &r->entries[(r->first + i) % r->max_entries];
        if (e->used && e->done)
            forget(r, e);
    }
}

/* A full ring: gives up the oldest place whose call is not being answered. */
static bool drop_oldest(struct recent *r)
{
    for (int i = 0; i < r->max_entries; i++) {
        struct entry *e = &r->entries[r->first];
        r->first = (r->first + 1) % r->max_entries; /* in a full ring, now the newest */
        if (e->used && !e->done)
            continue;
        if (e->used)
            forget(r, e);
        r->count--;
        return true;
    }
    return false;
}

static bool add(struct recent *r, const uint8_t id[CALL_ID_BYTES], uint64_t fingerprint)
{
    if (r->count == r->max_entries && !drop_oldest(r))
        return false;
    int index = (r->first + r->count++) % r->max_entries;
    int *chain = chain_of(r, id);
    struct entry *e = &r->entries[index];
    *e = (struct entry){.fingerprint = fingerprint, .next = *chain, .used = true};
    memcpy(e->id, id, CALL_ID_BYTES);
    *chain = index;
    return true;
}

/* Waits for the call to be answered; NULL when it was not in time or is forgotten already. */
static struct entry *wait_done(struct recent *r, const uint8_t id[CALL_ID_BYTES],
                               int64_t deadline_ns)
{
    struct timespec until = {deadline_ns / 1000000000, deadline_ns % 1000000000};
    struct entry *e = find(r, id);
    int late = 0;
    r->waiters++;
    while (e && !e->done && !late) {
        late = pthread_cond_timedwait(&r->ended, &r->mutex, &until);
        e = find(r, id);
    }
    r->waiters--;
    return e && e->done ? e : NULL;
}

static enum recent_state repeat_of(struct recent *r, struct entry *e, uint64_t fingerprint,
                                   int64_t deadline_ns, void **ret_reply, size_t *ret_bytes)
{
    if (e->fingerprint != fingerprint)
        return RECENT_MISUSED;
    if (!e->done) {
        uint8_t id[CALL_ID_BYTES];
        memcpy(id, e->id, sizeof(id));
        e = r->waiters < r->max_waiters ? wait_done(r, id, deadline_ns) : NULL;
    }
    void *copy = e && e->reply ? malloc(e->bytes) : NULL;
    if (!copy)
        return RECENT_DROP;
    memcpy(copy, e->reply, e->bytes);
    *ret_reply = copy;
    *ret_bytes = e->bytes;
    return RECENT_REPEAT;
}

enum recent_state recent_begin(struct recent *r, const uint8_t id[CALL_ID_BYTES],
                               uint64_t fingerprint, int64_t deadline_ns, void **ret_reply,
                               size_t *ret_bytes)
{
    pthread_mutex_lock(&r->mutex);
    struct entry *e = find(r, id);
    enum recent_state state = RECENT_NEW;
    if (e)
        state = repeat_of(r, e, fingerprint, deadline_ns, ret_reply, ret_bytes);
    else if (!add(r, id, fingerprint))
        state = RECENT_DROP;
    pthread_mutex_unlock(&r->mutex);
    return state;
}

void recent_end(struct recent *r, const uint8_t id[CALL_ID_BYTES], const void *reply, size_t bytes)
{
    pthread_mutex_lock(&r->mutex);
    struct entry *e = find(r, id);
    if (e) {
        make_room(r, bytes);
        e->reply = malloc(bytes);
        if (e->reply) {
            memcpy(e->reply, reply, bytes);
            e->bytes = bytes;
            r->bytes += bytes;
        }
        e->done = true;
        pthread_cond_broadcast(&r->ended);
    }
    pthread_mutex_unlock(&r->mutex);
}
