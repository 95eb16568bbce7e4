#include "shared/base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ALIGNMENT 64
#define CHUNK_BYTES ((size_t)64 * 1024)

void freep(void *pp)
{
    void **p = pp;
    free(*p);
    *p = NULL;
}

int mem_mul(size_t a, size_t b, size_t *ret_out)
{
    return __builtin_mul_overflow(a, b, ret_out) ? -1 : 0;
}

void *mem_calloc(size_t n, size_t size)
{
    size_t bytes;
    if (mem_mul(n, size, &bytes) < 0)
        return NULL;
    return calloc(1, bytes ? bytes : 1);
}

void *mem_realloc(void *p, size_t n, size_t size)
{
    size_t bytes;
    if (mem_mul(n, size, &bytes) < 0)
        return NULL;
    return realloc(p, bytes ? bytes : 1);
}

void *mem_aligned(size_t bytes)
{
    if (bytes > SIZE_MAX - ALIGNMENT)
        return NULL;
    size_t rounded = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return aligned_alloc(ALIGNMENT, rounded ? rounded : ALIGNMENT);
}

struct chunk {
    struct chunk *next;
    size_t used, size; /* bytes behind the header */
    char pad[ALIGNMENT - sizeof(void *) - 2 * sizeof(size_t)];
    char data[];
};

struct arena {
    struct chunk *chunks;
    size_t bytes;
};

struct arena *arena_new(void)
{
    return calloc(1, sizeof(struct arena));
}

struct arena *arena_free(struct arena *arena)
{
    if (!arena)
        return NULL;
    struct chunk *chunk = arena->chunks;
    while (chunk) {
        struct chunk *next = chunk->next;
        free(chunk);
        chunk = next;
    }
    free(arena);
    return NULL;
}

void arena_freep(struct arena **arena)
{
    *arena = arena_free(*arena);
}

static struct chunk *arena_grow(struct arena *arena, size_t bytes)
{
    size_t size = bytes > CHUNK_BYTES / 4 ? bytes : CHUNK_BYTES;
    struct chunk *chunk = mem_aligned(sizeof(struct chunk) + size);
    if (!chunk)
        return NULL;
    chunk->used = 0;
    chunk->size = size;
    arena->bytes += sizeof(struct chunk) + size;
    /* A chunk made for one large piece goes behind the current one, which still has room. */
    if (arena->chunks && size == bytes) {
        chunk->next = arena->chunks->next;
        arena->chunks->next = chunk;
    } else {
        chunk->next = arena->chunks;
        arena->chunks = chunk;
    }
    return chunk;
}

void *arena_alloc(struct arena *arena, size_t n, size_t size)
{
    size_t bytes;
    if (mem_mul(n, size, &bytes) < 0 || bytes > SIZE_MAX / 2)
        return NULL;
    bytes = (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    if (bytes == 0)
        bytes = ALIGNMENT;
    struct chunk *chunk = arena->chunks;
    if (!chunk || chunk->size - chunk->used < bytes)
        chunk = arena_grow(arena, bytes);
    if (!chunk)
        return NULL;
    void *p = chunk->data + chunk->used;
    chunk->used += bytes;
    return memset(p, 0, bytes);
}

void *arena_memdup(struct arena *arena, const void *data, size_t bytes)
{
    void *p = arena_alloc(arena, 1, bytes);
    if (p && bytes)
        memcpy(p, data, bytes);
    return p;
}

char *arena_strdup(struct arena *arena, const char *s)
{
    return arena_memdup(arena, s, strlen(s) + 1);
}

char *arena_printf(struct arena *arena, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    char *s = n < 0 ? NULL : arena_alloc(arena, 1, (size_t)n + 1);
    if (!s)
        return NULL;
    va_start(ap, fmt);
    vsnprintf(s, (size_t)n + 1, fmt, ap);
    va_end(ap);
    return s;
}

size_t arena_bytes(const struct arena *arena)
{
    return arena->bytes;
}
