#include "shared/store/verified.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "shared/base/hash.h"
#include "shared/base/mem.h"
#include "shared/base/str.h"

struct entry {
    char name[HASH_HEX_BYTES]; /* "": free */
    ino_t inode;
    off_t size;
    struct timespec changed;
};

struct verified {
    pthread_mutex_t lock;
    struct entry *table; /* open addressing, at most half full */
    size_t used, capacity;
};

struct verified *verified_new(void)
{
    struct verified *set = calloc(1, sizeof(*set));
    if (set)
        pthread_mutex_init(&set->lock, NULL);
    return set;
}

struct verified *verified_free(struct verified *set)
{
    if (!set)
        return NULL;
    pthread_mutex_destroy(&set->lock);
    free(set->table);
    free(set);
    return NULL;
}

/* The entry of `name`, or the free one where it belongs. Names are hashes: their first digits will
 * do as the place. */
static struct entry *find(struct entry *table, size_t capacity, const char *name)
{
    uint64_t h = 0;
    memcpy(&h, name, sizeof(h));
    h *= 0x9e3779b97f4a7c15u;
    size_t i = (size_t)(h >> 20) & (capacity - 1);
    while (table[i].name[0] && strcmp(table[i].name, name) != 0)
        i = (i + 1) & (capacity - 1);
    return &table[i];
}

static bool grow(struct verified *set)
{
    if (2 * (set->used + 1) <= set->capacity)
        return true;
    size_t capacity = set->capacity ? 2 * set->capacity : 64;
    struct entry *table = mem_calloc(capacity, sizeof(*table));
    if (!table)
        return false;
    for (size_t i = 0; i < set->capacity; i++)
        if (set->table[i].name[0])
            *find(table, capacity, set->table[i].name) = set->table[i];
    free(set->table);
    set->table = table;
    set->capacity = capacity;
    return true;
}

bool verified_has(struct verified *set, const char *name, const struct stat *st)
{
    pthread_mutex_lock(&set->lock);
    bool has = false;
    if (set->capacity) {
        const struct entry *e = find(set->table, set->capacity, name);
        has = e->name[0] && e->inode == st->st_ino && e->size == st->st_size &&
              e->changed.tv_sec == st->st_mtim.tv_sec && e->changed.tv_nsec == st->st_mtim.tv_nsec;
    }
    pthread_mutex_unlock(&set->lock);
    return has;
}

void verified_add(struct verified *set, const char *name, const struct stat *st)
{
    pthread_mutex_lock(&set->lock);
    if (grow(set)) {
        struct entry *e = find(set->table, set->capacity, name);
        if (!e->name[0])
            set->used++;
        str_copy(e->name, sizeof(e->name), name);
        e->inode = st->st_ino;
        e->size = st->st_size;
        e->changed = st->st_mtim;
    }
    pthread_mutex_unlock(&set->lock);
}
